/* Runs the code of a completion on the tests of its row:
 *
 *   tests, or verification_info.test_cases: [{"input": "...", "output": "..."}]   standard input and what should come
 *       score: the share of tests passed. As open-r1's code_reward (rewards.py) lines are compared without the spaces
 *       around them; here their number must be right, too: there an empty tail passes
 *   test and entry_point, as HumanEval has them                                    1: passes, 0: does not
 *
 * A completion without code scores 0; a row without tests cannot tell. */
#define _GNU_SOURCE
#include "reward/code.h"

#include <ctype.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "base/pool.h"
#include "reward/child.h"
#include "reward/command.h"
#include "reward/kinds.h"

enum {
    LONGEST_CODE = 120 << 10, /* Linux takes words of a command up to 128 KiB */
    LEAST_OUTPUT = 1 << 20,
    MOST_THREADS = 16,
    MOST_LATE = 3 /* tests out of time until the rest counts as failed */
};

static const char *const python[] = {"python3", "-I", "-c",
                                     NULL}; /* -I: neither its folder nor PYTHON* are looked at */

/* --- texts ------------------------------------------------------------------------------------------------------- */

/* Is the line a fence? *info: the word behind it. */
static bool is_fence(const char *line, size_t n, const char **info, size_t *info_n) {
    size_t i = 0, end = n;
    while (i < n && (line[i] == ' ' || line[i] == '\t')) i++;
    if (n - i < 3 || memcmp(line + i, "```", 3) != 0) return false;
    for (i += 3; i < n && (line[i] == '`' || isspace((unsigned char)line[i]));) i++;
    while (end > i && isspace((unsigned char)line[end - 1])) end--;
    *info = line + i;
    *info_n = end - i;
    return true;
}

static bool says_python(const char *info, size_t n) {
    return (n >= 6 && strncasecmp(info, "python", 6) == 0) || (n == 2 && strncasecmp(info, "py", 2) == 0);
}

bool code_find(const char *text, str *out) {
    const char *begin = NULL, *info = NULL, *found[2] = {NULL, NULL}, *found_end[2] = {NULL, NULL};
    size_t info_n = 0;
    bool is_python = false;
    for (const char *line = behind_reasoning(text), *next; *line; line = next) {
        size_t n = strcspn(line, "\n");
        next = line + n + (line[n] == '\n');
        if (!is_fence(line, n, &info, &info_n)) continue;
        if (!begin) {
            begin = next;
            is_python = says_python(info, info_n);
        } else if (!info_n) {
            for (int any = 0; any <= 1; any++)
                if (any || is_python) found[any] = begin, found_end[any] = line;
            begin = NULL;
        }
    }
    int which = found[0] ? 0 : 1;
    out->n = 0;
    if (found[which]) str_add(out, found[which], (size_t)(found_end[which] - found[which]));
    return found[which];
}

typedef struct span {
    const char *p;
    size_t n;
} span;

static span strip(span s) {
    while (s.n && isspace((unsigned char)s.p[s.n - 1])) s.n--;
    while (s.n && isspace((unsigned char)*s.p)) s.p++, s.n--;
    return s;
}

static span cut_line(span *rest) {
    const char *end = rest->n ? memchr(rest->p, '\n', rest->n) : NULL;
    span line = {rest->p, end ? (size_t)(end - rest->p) : rest->n};
    size_t cut = line.n + (end != NULL);
    *rest = (span){rest->p + cut, rest->n - cut};
    return strip(line);
}

static bool same_lines(span a, span b) {
    a = strip(a);
    b = strip(b);
    while (a.n && b.n) {
        span x = cut_line(&a), y = cut_line(&b);
        if (x.n != y.n || memcmp(x.p, y.p, x.n) != 0) return false;
    }
    return !a.n && !b.n;
}

/* --- running ----------------------------------------------------------------------------------------------------- */

/* The program's text is the last word of the command. argv: words, ended by NULL. */
static status run(const char *const *argv, const char *text, const char *input, const sandbox_limits *l,
                  sandbox_result *r, error *e) {
    size_t n = 0;
    while (argv[n]) n++;
    const char **words = calloc(n + 2, sizeof *words);
    if (!words) return fail(e, ERR_NOMEM, "memory is out");
    memcpy(words, argv, n * sizeof *words);
    words[n] = text;
    status s = sandbox_run(words, input, strlen(input), l, r, e);
    free(words);
    return s;
}

static void explain(const sandbox_result *r, const sandbox_limits *l, str *why) {
    char text[200];
    switch (r->end) {
    case SANDBOX_TIME: snprintf(text, sizeof text, "it does not end in %g s", l->seconds); break;
    case SANDBOX_OUTPUT: snprintf(text, sizeof text, "it writes without end"); break;
    default: child_epitaph(text, sizeof text, r);
    }
    str_puts(why, r->end == SANDBOX_EXITED && r->code == 0 ? "it ends before the tests do" : text);
}

static status humaneval(const char *const *argv, const char *prompt, const char *completion, const char *test,
                        const char *entry_point, const sandbox_limits *l, bool *passed, str *why, error *e) {
    uint64_t word[2];
    char sign[40];
    str text = {0};
    sandbox_result r = {0};
    sandbox_limits limits = *l;
    *passed = false;
    if (getrandom(word, sizeof word, 0) != sizeof word) return fail(e, ERR_IO, "the system has no random numbers");
    snprintf(sign, sizeof sign, "%016llx%016llx", (unsigned long long)word[0], (unsigned long long)word[1]);
    str_addf(&text, "%s%s\n%s\ncheck(%s)\n__import__(\"os\").write(1, b\"\\n%s\\n\")\n", prompt, completion, test,
             entry_point, sign);
    if (limits.output < LEAST_OUTPUT) limits.output = LEAST_OUTPUT;
    status s = str_check(&text, e);
    bool runs = s == OK && text.n <= LONGEST_CODE;
    if (runs) s = run(argv, text.p, "", &limits, &r, e);
    if (runs && s == OK)
        *passed = r.end == SANDBOX_EXITED && r.code == 0 && r.out.n && memmem(r.out.p, r.out.n, sign, strlen(sign));
    if (why && s == OK) {
        why->n = 0;
        str_puts(why, "");
        if (!runs) str_addf(why, "it is longer than %d bytes", LONGEST_CODE);
        else if (!*passed) explain(&r, l, why);
        s = str_check(why, e);
    }
    str_free(&text);
    str_free(&r.out);
    str_free(&r.err);
    return s;
}

status code_humaneval(const char *prompt, const char *completion, const char *test, const char *entry_point,
                      const sandbox_limits *l, bool *passed, str *why, error *e) {
    return humaneval(python, prompt, completion, test, entry_point, l, passed, why, e);
}

/* --- the reward -------------------------------------------------------------------------------------------------- */

typedef struct runner {
    const reward_context *context;
    command command;
    char *interpreter; /* what argv[0] became */
    sandbox_limits limits;
    bool binary;
    pool *pool;
} runner;

typedef struct job { /* one completion */
    const runner *r;
    const reward_input *in;
    double score;
    status s;
    error e;
} job;

/* A member that is JSON or, out of tables that hold texts only, the text of it. The caller's to json_decref. */
static json_t *unpacked(const json_t *v) {
    if (!json_is_string(v)) return json_is_object(v) || json_is_array(v) ? json_incref((json_t *)v) : NULL;
    return json_loads(json_string_value(v), 0, NULL);
}

static json_t *tests_of(const json_t *row) {
    json_t *tests = unpacked(json_object_get(row, "tests")), *info = NULL;
    if (tests) return tests;
    info = unpacked(json_object_get(row, "verification_info"));
    tests = unpacked(json_object_get(info, "test_cases"));
    json_decref(info);
    return tests;
}

/* Tests that call a function are another form. */
static bool are_tests(const json_t *tests) {
    size_t i;
    json_t *t;
    json_array_foreach((json_t *)tests, i, t) {
        const json_t *name = json_object_get(t, "fn_name");
        if (!json_is_string(json_object_get(t, "input")) || !json_is_string(json_object_get(t, "output"))) return false;
        if (name && !json_is_null(name)) return false;
    }
    return json_array_size(tests) > 0;
}

static status run_test(const runner *r, const char *code, const json_t *test, bool *passed, bool *late, error *e) {
    const json_t *right = json_object_get(test, "output");
    span wanted = {json_string_value(right), json_string_length(right)};
    sandbox_limits l = r->limits;
    sandbox_result x;
    l.output = LEAST_OUTPUT + 2 * wanted.n;
    TRY(run((const char *const *)r->command.argv, code, json_string_value(json_object_get(test, "input")), &l, &x, e));
    *late = x.end == SANDBOX_TIME;
    *passed = x.end == SANDBOX_EXITED && x.code == 0 && same_lines((span){x.out.p, x.out.n}, wanted);
    str_free(&x.out);
    str_free(&x.err);
    return OK;
}

static status run_tests(const runner *r, const char *code, const json_t *tests, double *score, error *e) {
    size_t n = json_array_size(tests), good = 0, all_late = 0;
    for (size_t i = 0; i < n && all_late < MOST_LATE && !(r->binary && good < i); i++) {
        bool passed, late;
        TRY(run_test(r, code, json_array_get(tests, i), &passed, &late, e));
        good += passed;
        all_late += late;
    }
    *score = r->binary ? good == n : (double)good / (double)n;
    return OK;
}

/* The row's prompt when it is the beginning of the function and not a question about it. */
static const char *beginning(const json_t *row, const char *entry_point) {
    char def[128];
    const char *prompt = json_string_value(json_object_get(row, "prompt"));
    snprintf(def, sizeof def, "def %.100s", entry_point);
    return prompt && strstr(prompt, def) ? prompt : "";
}

static status score_code(const runner *r, const reward_input *in, str *code, double *score, error *e) {
    const char *test = json_string_value(json_object_get(in->row, "test"));
    const char *entry = json_string_value(json_object_get(in->row, "entry_point"));
    json_t *tests = test && entry ? NULL : tests_of(in->row);
    status s = OK;
    *score = NAN;
    if ((test && entry) || are_tests(tests)) {
        bool found = code_find(in->completion, code) && code->n && code->n <= LONGEST_CODE, passed = false;
        *score = 0;
        if (found) s = str_check(code, e);
        if (found && s == OK && tests) s = run_tests(r, code->p, tests, score, e);
        if (found && s == OK && !tests) {
            s = humaneval((const char *const *)r->command.argv, beginning(in->row, entry), code->p, test, entry,
                          &r->limits, &passed, NULL, e);
            *score = passed;
        }
    }
    json_decref(tests);
    return s;
}

static void score_one(void *arg, int64_t task, int thread) {
    job *j = (job *)arg + task;
    str code = {0};
    (void)thread;
    j->s = score_code(j->r, j->in, &code, &j->score, &j->e);
    str_free(&code);
}

static status score_all(void *state, const reward_input *in, int64_t n, int64_t group, double *score, error *e) {
    runner *r = state;
    job *jobs = calloc((size_t)n, sizeof *jobs), *bad = NULL;
    int64_t refused = 0;
    (void)group;
    if (!jobs) return fail(e, ERR_NOMEM, "memory is out");
    for (int64_t i = 0; i < n; i++) jobs[i] = (job){.r = r, .in = &in[i]};
    pool_run(r->pool, n, score_one, jobs);
    for (int64_t i = 0; i < n; i++) {
        score[i] = jobs[i].s == OK ? jobs[i].score : NAN;
        if (jobs[i].s == OK) continue;
        if (!bad) bad = &jobs[i];
        refused++;
    }
    if (bad)
        reward_note(r->context, "%lld of %lld completions have no score; the first: %s", (long long)refused,
                    (long long)n, bad->e.text);
    free(jobs);
    return OK;
}

static void close_code(void *state) {
    runner *r = state;
    command_free(&r->command);
    free(r->interpreter);
    pool_close(r->pool);
    free(r);
}

/* Does the command run at all? The python3 of a PATH may be a script that looks for the real one: that is asked once.
 */
static status try_command(runner *r, bool is_default, error *e) {
    sandbox_limits l = r->limits;
    sandbox_result x;
    l.output = 4096;
    if (is_default && l.seconds < 10) l.seconds = 10; /* the first start reads much from the disk */
    status s = run((const char *const *)r->command.argv, is_default ? "import sys; print(sys.executable, end='')" : "",
                   "", &l, &x, e);
    if (s != OK || !is_default) return str_free(&x.out), str_free(&x.err), s;
    char end[200];
    child_epitaph(end, sizeof end, &x);
    if (x.end != SANDBOX_EXITED || x.code != 0 || !x.out.n)
        s = fail(e, ERR_IO, "python3 does not run with %llu bytes of memory: %s", (unsigned long long)l.memory, end);
    else if (x.out.p[0] == '/') r->command.argv[0] = r->interpreter = str_take(&x.out);
    str_free(&x.out);
    str_free(&x.err);
    return s;
}

static int processors(void) {
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n < MOST_THREADS ? n : MOST_THREADS;
}

static status open_code(void **state, const json_t *o, const reward_context *c, error *e) {
    runner *r = calloc(1, sizeof *r);
    if (!r) return fail(e, ERR_NOMEM, "memory is out");
    r->context = c;
    bool is_default = !json_object_get(o, "command");
    status s = command_limits(&r->limits, o, 5, INT64_C(2) << 30, e);
    if (s == OK) s = json_get_bool(o, "binary", false, &r->binary, e);
    if (s == OK) s = command_read(&r->command, o, python, e);
    if (s == OK && strchr(r->command.argv[0], '/')) {
        s = child_find(&r->interpreter, r->command.argv[0], e);
        r->command.argv[0] = r->interpreter;
    }
    if (s == OK) s = try_command(r, is_default, e);
    if (s == OK) s = pool_open(&r->pool, processors(), e);
    if (s == OK) *state = r;
    else close_code(r);
    return s;
}

const reward_kind reward_code = {
    .name = "code",
    .help =
        "runs the last block of code behind </think> on the row's tests (\"tests\" or verification_info.test_cases: "
        "input and output; or HumanEval's test and entry_point), without network, and gives the share that passes, as "
        "open-r1. command: words before the program's text (python3 -I -c); seconds: for a test (5); memory: bytes "
        "(2147483648); binary: true gives 1 only when all pass. Row without tests: cannot tell",
    .members = "command|seconds|memory|binary",
    .open = open_code,
    .close = close_code,
    .score = score_all};
