/* Rewards for the form of a completion, whatever it says (open-r1, src/open_r1/rewards.py):
 *
 *   format           1: ^<think>\n.*?\n</think>\n<answer>\n.*?\n</answer>$ matches from the first character; ^ and $
 *                    are ends of lines and . is any character (MULTILINE, DOTALL), as there
 *   code_format      the same, with ```LANGUAGE ... ``` in the answer
 *   tag_count        0.25 for each of "<think>\n", "\n</think>\n", "\n<answer>\n", "\n</answer>" that stands there once
 *   reasoning_steps  min(1, k/3), k: matches of (Step \d+:|^\d+\.|\n-|\n\*|First,|Second,|Next,|Finally,)
 *   finished         1: the model ended its text itself
 */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/regex.h"
#include "reward/kinds.h"

#define FORMAT "^<think>\\n.*?\\n</think>\\n<answer>\\n.*?\\n</answer>$"
#define CODE_FORMAT "^<think>\\n.*?\\n</think>\\n<answer>\\n.*?```\\Q%s\\E.*?```.*?\\n</answer>$"
#define STEPS "(Step \\d+:|^\\d+\\.|\\n-|\\n\\*|First,|Second,|Next,|Finally,)"

typedef struct form {
    regex *pattern;
    int64_t wanted; /* matches; fewer are a share of 1 */
    bool finished;  /* an unfinished completion is 0 */
    const reward_context *context;
} form;

static void close_form(void *state) {
    form *f = state;
    regex_close(f->pattern);
    free(f);
}

static status open_form(void **state, const char *pattern, unsigned flags, form from, error *e) {
    form *f = malloc(sizeof *f);
    if (!f) return fail(e, ERR_NOMEM, "memory is out");
    *f = from;
    status s = regex_open(&f->pattern, pattern, flags | REGEX_UTF, e);
    if (s == OK) *state = f;
    else close_form(f);
    return s;
}

static status score_form(void *state, const reward_input *in, int64_t n, int64_t group, double *score, error *e) {
    (void)group;
    const form *f = state;
    int64_t slow = 0;
    error why;
    for (int64_t i = 0; i < n; i++) {
        int64_t count;
        if (f->finished && !in[i].finished) continue;
        status s = regex_count(f->pattern, in[i].completion, strlen(in[i].completion), f->wanted, &count, &why);
        if (s != OK && s != ERR_FORMAT) return fail(e, s, "%s", why.text);
        score[i] = s == OK ? (double)count / (double)f->wanted : NAN;
        slow += s != OK;
    }
    if (slow)
        reward_note(f->context, "%lld of %lld completions have no score: %s", (long long)slow, (long long)n, why.text);
    return OK;
}

/* --- format ------------------------------------------------------------------------------------------------------ */

static status open_format(void **state, const json_t *o, const reward_context *c, error *e) {
    const char *pattern;
    form f = {.wanted = 1, .context = c};
    TRY(json_get_string(o, "pattern", FORMAT, &pattern, e));
    TRY(json_get_bool(o, "finished", false, &f.finished, e));
    return open_form(state, pattern, REGEX_LINES | REGEX_DOTALL | REGEX_START, f, e);
}

const reward_kind reward_format = {
    .name = "format",
    .help = "1 when a regular expression matches from the first character (open-r1's format_reward, flags MULTILINE "
            "and DOTALL). pattern: in Perl's syntax, default " FORMAT "; finished: true gives 0 to what did not end",
    .members = "pattern|finished",
    .open = open_format,
    .close = close_form,
    .score = score_form,
};

static status open_code_format(void **state, const json_t *o, const reward_context *c, error *e) {
    const char *language;
    TRY(json_get_string(o, "language", "python", &language, e));
    for (const char *p = language; *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr("+#-_.", *p))
            return fail(e, ERR_FORMAT, "\"language\" is \"%.60s\", not the name of one", language);
    str pattern = {0};
    str_addf(&pattern, CODE_FORMAT, language);
    status s = str_check(&pattern, e);
    form f = {.wanted = 1, .context = c};
    if (s == OK) s = open_form(state, pattern.p, REGEX_LINES | REGEX_DOTALL | REGEX_START, f, e);
    str_free(&pattern);
    return s;
}

const reward_kind reward_code_format = {
    .name = "code_format",
    .help = "1 when the completion has the default form of format and a block ```LANGUAGE ... ``` in its answer "
            "(open-r1's get_code_format_reward). language: default python",
    .members = "language",
    .open = open_code_format,
    .close = close_form,
    .score = score_form,
};

/* --- reasoning_steps --------------------------------------------------------------------------------------------- */

static status open_steps(void **state, const json_t *o, const reward_context *c, error *e) {
    (void)o;
    return open_form(state, STEPS, 0, (form){.wanted = 3, .context = c}, e);
}

const reward_kind reward_reasoning_steps = {
    .name = "reasoning_steps",
    .help =
        "a third for each mark of a step (\"Step 1:\", \"1.\" at the start, lines with - or *, \"First,\" \"Second,\" "
        "\"Next,\" \"Finally,\"), at most 1 (open-r1's reasoning_steps_reward)",
    .open = open_steps,
    .close = close_form,
    .score = score_form,
};

/* --- tag_count --------------------------------------------------------------------------------------------------- */

/* Python's str.count(tag) == 1 */
static bool once(const char *text, const char *tag) {
    const char *first = strstr(text, tag);
    return first && !strstr(first + strlen(tag), tag);
}

static status score_tags(void *state, const reward_input *in, int64_t n, int64_t group, double *score, error *e) {
    static const char *const tags[] = {"<think>\n", "\n</think>\n", "\n<answer>\n", "\n</answer>"};
    (void)state, (void)group, (void)e;
    for (int64_t i = 0; i < n; i++)
        for (int k = 0; k < 4; k++) score[i] += once(in[i].completion, tags[k]) ? 0.25 : 0;
    return OK;
}

const reward_kind reward_tag_count = {
    .name = "tag_count",
    .help =
        "a quarter for each of \"<think>\\n\", \"\\n</think>\\n\", \"\\n<answer>\\n\", \"\\n</answer>\" that stands in "
        "the completion exactly once (open-r1's tag_count_reward)",
    .score = score_tags,
};

/* --- finished ---------------------------------------------------------------------------------------------------- */

static status score_finished(void *state, const reward_input *in, int64_t n, int64_t group, double *score, error *e) {
    (void)state, (void)group, (void)e;
    for (int64_t i = 0; i < n; i++) score[i] = in[i].finished;
    return OK;
}

const reward_kind reward_finished = {
    .name = "finished",
    .help = "1 when the model ended its text itself, 0 when the limit of tokens did",
    .score = score_finished,
};
