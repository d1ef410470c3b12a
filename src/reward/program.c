/* Scores of an outside program: it reads one JSON document a line and answers with one.
 *
 *   in:  {"prompt": "...", "completion": "...", "answer": "..." or null, "tokens": 17, "finished": true, "row": {...}}
 *   out: 0.5, or {"score": 0.5, ...}, or null (also as the score): it cannot tell
 *
 * Whatever else it does (dies, hangs, prints something else) costs this completion's score, not the run. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "reward/command.h"
#include "reward/kinds.h"
#include "reward/line_program.h"

enum { LONGEST_ANSWER = 1 << 20, ENOUGH = 8 /* failures in a row until the rest of a call is given up */ };

typedef struct outside {
    const reward_context *context;
    line_program *program;
    bool batch;
} outside;

static void close_program(void *state) {
    outside *x = state;
    line_program_close(x->program);
    free(x);
}

static status open_program(void **state, const json_t *o, const reward_context *c, error *e) {
    sandbox_limits limits = {.output = LONGEST_ANSWER};
    bool batch;
    command words;
    TRY(command_limits(&limits, o, 10, 0, e));
    TRY(json_get_bool(o, "network", false, &limits.network, e));
    TRY(json_get_bool(o, "batch", false, &batch, e));
    TRY(command_read(&words, o, NULL, e));
    outside *x = calloc(1, sizeof *x);
    status s = x ? line_program_open(&x->program, words.argv, &limits, e) : fail(e, ERR_NOMEM, "memory is out");
    command_free(&words);
    if (s != OK) return free(x), s;
    x->context = c;
    x->batch = batch;
    *state = x;
    return OK;
}

static char *question(const reward_input *in) {
    json_t *o = json_pack("{s:s, s:s, s:s?, s:I, s:b, s:O?}", "prompt", in->prompt, "completion", in->completion,
                          "answer", in->answer, "tokens", (json_int_t)in->tokens, "finished", (int)in->finished, "row",
                          (json_t *)in->row);
    char *line = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    return line;
}

/* NaN for null. */
static bool read_score(const str *answer, double *score) {
    json_t *o = json_loadb(answer->p ? answer->p : "", answer->n, JSON_DECODE_ANY, NULL);
    const json_t *v = json_is_object(o) ? json_object_get(o, "score") : o;
    bool good = json_is_number(v) || json_is_null(v);
    *score = json_is_number(v) ? json_number_value(v) : NAN;
    json_decref(o);
    return good;
}

/* Scores of the first completions of in: *done of them, and the next has none because of `why`, unless all are done. */
static status ask(outside *x, const reward_input *in, int64_t n, double *score, int64_t *done, char *why, error *e) {
    char **lines = calloc((size_t)n, sizeof *lines);
    str *answers = calloc((size_t)n, sizeof *answers);
    int64_t answered = 0;
    *done = 0;
    status s = lines && answers ? OK : fail(e, ERR_NOMEM, "memory is out");
    for (int64_t i = 0; i < n && s == OK; i++)
        if (!(lines[i] = question(&in[i]))) s = fail(e, ERR_NOMEM, "memory is out");
    if (s == OK) s = line_program_ask(x->program, (const char *const *)lines, n, answers, &answered, why, e);
    while (s == OK && *done < answered && read_score(&answers[*done], &score[*done])) ++*done;
    if (s == OK && *done < answered) {
        snprintf(why, LINE_PROGRAM_WHY, "its answer is not a number, {\"score\": number} or null: %.60s",
                 answers[*done].p ? answers[*done].p : "");
        line_program_stop(x->program);
    }
    for (int64_t i = 0; i < n; i++) {
        if (lines) free(lines[i]);
        if (answers) str_free(&answers[i]);
    }
    free(lines);
    free(answers);
    return s;
}

static status score_program(void *state, const reward_input *in, int64_t n, int64_t group, double *score, error *e) {
    (void)group;
    outside *x = state;
    char why[LINE_PROGRAM_WHY], first[LINE_PROGRAM_WHY], end[60] = "";
    int64_t failures = 0, in_a_row = 0;
    for (int64_t i = 0; i < n && in_a_row < ENOUGH;) {
        int64_t asked = x->batch ? n - i : 1, done;
        TRY(ask(x, in + i, asked, score + i, &done, why, e));
        i += done;
        if (done) in_a_row = 0;
        if (done == asked) continue;
        if (!failures++) memcpy(first, why, sizeof first);
        in_a_row++;
        score[i++] = NAN;
        if (in_a_row < ENOUGH) continue;
        for (; i < n; i++) score[i] = NAN, failures++;
        snprintf(end, sizeof end, " (given up after %d failures in a row)", ENOUGH);
    }
    if (failures)
        reward_note(x->context, "%lld of %lld completions have no score; the first: %s%s", (long long)failures,
                    (long long)n, first, end);
    return OK;
}

const reward_kind reward_program = {
    .name = "program",
    .help =
        "the score that an outside program answers: one JSON document a line each way (docs/rewards.md). "
        "command: a list of words or one text, paths are from the current folder; seconds: for an answer (10); memory: "
        "bytes (no limit); network: false; batch: true sends all completions of a step at once. A program that fails "
        "costs "
        "the completion's score, not the run",
    .members = "command|seconds|memory|network|batch",
    .open = open_program,
    .close = close_program,
    .score = score_program};
