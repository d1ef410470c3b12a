/* Rejection sampling: every filter against the rows of a run that keeps all, going on after a stop, what is refused.
 * The temperature is so high that any model of this shape writes almost any token: nothing depends on what it has
 * learned. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "base/file.h"
#include "post/sample.h"
#include <cmocka.h>

enum { PROMPTS = 14, SAMPLES = 6, MOST_ROWS = PROMPTS * SAMPLES };

typedef struct told { /* by the hooks */
    int64_t steps, stop_at, calls, cancel_at;
    char note[300];
} told;

static int on_step(void *arg, const step_metrics *m, int64_t steps) {
    told *t = arg;
    assert_true(m->step < steps);
    return ++t->steps == t->stop_at;
}

static void on_note(void *arg, const char *line) {
    told *t = arg;
    snprintf(t->note, sizeof t->note, "%s", line);
}

static int on_progress(void *arg, uint64_t done, uint64_t total, const char *what) {
    told *t = arg;
    assert_true(done <= total && *what);
    return ++t->calls == t->cancel_at;
}

typedef struct place {
    char folder[40], prompts[64];
} place;

static int open_place(void **state) {
    place *p = calloc(1, sizeof *p);
    str s = {0};
    error e;
    strcpy(p->folder, "/tmp/hadal-sample-XXXXXX");
    if (!mkdtemp(p->folder)) return 1;
    snprintf(p->prompts, sizeof p->prompts, "%s/prompts.jsonl", p->folder);
    for (int i = 0; i < PROMPTS; i++)
        str_addf(&s, "{\"prompt\": \"<user>c%d+%d<assistant>\", \"answer\": \"%d\"}\n", i % 10, i / 10,
                 (i % 10 + i / 10) % 10);
    assert_int_equal(file_save(p->prompts, s.p, s.n, &e), OK);
    str_free(&s);
    *state = p;
    return 0;
}

static int close_place(void **state) {
    char command[80];
    snprintf(command, sizeof command, "rm -r '%s'", ((place *)*state)->folder);
    free(*state);
    return system(command);
}

/* Half of the completions begin as `start` wants, and about half of these go on as `second` does. */
#define REWARDS                                                                                                \
    "rollout.rewards=[{name: format, as: start, pattern: '^[a-z<]'}, {name: format, as: second, weight: 0.5, " \
    "pattern: "                                                                                                \
    "'^.[+-:a-m0-9]'}, {name: finished, weight: 0}]"

/* keys end with NULL; the last of a name counts. */
static status start(const place *p, const char *name, told *t, run_result *r, error *e, ...) {
    char data[100], output[100];
    const char *keys[40] = {"model.path=models/tiny",
                            "data.seq_len=64",
                            "training.precision=f32",
                            "training.threads=2",
                            "rollout.max_tokens=24",
                            "rollout.temperature=20",
                            "rollout.sequences=12",
                            "sample.samples=6",
                            REWARDS,
                            data,
                            output};
    int n = 11;
    va_list more;
    train_config c;
    run_result unused;
    arena *mem = arena_open(1 << 12);
    const run_hooks hooks = {on_step, on_note, on_progress, t};
    snprintf(data, sizeof data, "data.train=%s", p->prompts);
    snprintf(output, sizeof output, "sample.output=%s/%s.jsonl", p->folder, name);
    va_start(more, e);
    for (const char *key; (key = va_arg(more, const char *));) keys[n++] = key;
    va_end(more);
    status s = train_config_read(&c, NULL, keys, n, mem, e);
    if (s == OK) s = sample_run(&c, &hooks, r ? r : &unused, e);
    arena_close(mem);
    return s;
}

#define assert_run(p, name, told, result, ...)                                                             \
    do {                                                                                                   \
        error e_ = {0};                                                                                    \
        if (start(p, name, told, result, &e_, __VA_ARGS__, NULL) != OK) fail_msg("%s: %s", name, e_.text); \
    } while (0)

static char *path_of(const place *p, const char *name, const char *suffix) {
    str s = {0};
    str_addf(&s, "%s/%s.jsonl%s", p->folder, name, suffix);
    return str_take(&s);
}

static bool there(const place *p, const char *name, const char *suffix) {
    char *path = path_of(p, name, suffix);
    const bool yes = file_exists(path);
    free(path);
    return yes;
}

static str text_of(const place *p, const char *name) {
    char *path = path_of(p, name, "");
    str s = {0};
    error e;
    if (file_read(&s, path, 1 << 24, &e) != OK) fail_msg("%s", e.text);
    free(path);
    return s;
}

/* --- filters ------------------------------------------------------------------------------------------------------ */

typedef struct rows { /* of a run that keeps all; [PROMPTS][SAMPLES] */
    str text;
    const char *line[MOST_ROWS];
    size_t length[MOST_ROWS];
    json_t *j[MOST_ROWS];
    int n;
} rows;

static rows read_rows(const place *p, const char *name) {
    rows r = {.text = text_of(p, name)};
    for (const char *at = r.text.p; at && *at; at = strchr(at, '\n') + 1) {
        json_error_t why;
        assert_true(r.n < MOST_ROWS);
        assert_non_null(strchr(at, '\n'));
        r.length[r.n] = (size_t)(strchr(at, '\n') + 1 - at);
        r.line[r.n] = at;
        if (!(r.j[r.n] = json_loadb(at, r.length[r.n], 0, &why))) fail_msg("%s", why.text);
        r.n++;
    }
    return r;
}

static void free_rows(rows *r) {
    for (int i = 0; i < r->n; i++) json_decref(r->j[i]);
    str_free(&r->text);
}

static double number(const rows *r, int i, const char *name) {
    const json_t *v = json_object_get(r->j[i], name);
    if (!v) v = json_object_get(json_object_get(r->j[i], "scores"), name);
    assert_true(json_is_number(v));
    return json_number_value(v);
}

static const char *word(const rows *r, int i, const char *name) {
    const char *text = json_string_value(json_object_get(r->j[i], name));
    assert_non_null(text);
    return text;
}

typedef struct rule { /* what a run shall keep */
    bool finished, correct, best, distinct, where;
    int most;
    double from, to;
} rule;

static bool passes(const rows *r, const rule *k, int i) {
    if (k->finished && number(r, i, "finished") != 1) return false;
    if (k->correct && number(r, i, "reward") < 1) return false;
    return !k->where || (number(r, i, "second") >= 1 && number(r, i, "start") >= 0.5);
}

static void keep_group(const rows *r, const rule *k, int first, str *out) {
    double right = 0;
    int best = -1, kept[SAMPLES], n = 0;
    for (int i = first; i < first + SAMPLES; i++) right += number(r, i, "reward") >= 1;
    assert_true(fabs(number(r, first, "pass_rate") - right / SAMPLES) < 1e-12);
    if (right / SAMPLES < k->from || right / SAMPLES > k->to) return;
    for (int i = first; i < first + SAMPLES; i++) {
        bool stays = passes(r, k, i);
        for (int m = 0; k->distinct && m < n; m++)
            stays &= strcmp(word(r, i, "completion"), word(r, kept[m], "completion")) != 0;
        if (stays && (best < 0 || number(r, i, "reward") > number(r, best, "reward"))) best = i;
        if (stays && (!k->most || n < k->most)) kept[n++] = i;
    }
    if (k->best) {
        if (best >= 0) str_add(out, r->line[best], r->length[best]);
        return;
    }
    for (int m = 0; m < n; m++) str_add(out, r->line[kept[m]], r->length[kept[m]]);
}

/* The file has exactly the lines of `r` that the rule keeps: some, but not all. */
static void check_kept(const place *p, const rows *r, const char *name, const rule *k, const run_result *result) {
    str want = {0}, got = text_of(p, name);
    int lines = 0;
    for (int i = 0; i < r->n; i += SAMPLES) keep_group(r, k, i, &want);
    for (size_t i = 0; i < want.n; i++) lines += want.p[i] == '\n';
    assert_true(lines > 0 && lines < r->n);
    assert_string_equal(got.p, want.p);
    for (int i = 0; i < result->n_more; i++)
        if (strcmp(result->more[i].name, "kept") == 0) assert_true(result->more[i].value == lines);
    str_free(&want);
    str_free(&got);
}

static void filters(void **state) {
    static const struct {
        const char *keys[4];
        rule r;
    } cases[] = {
        {{"sample.keep=correct"}, {.finished = true, .correct = true, .to = 1}},
        {{"sample.keep=best"}, {.finished = true, .best = true, .to = 1}},
        {{"sample.keep=all", "sample.most=2"}, {.most = 2, .to = 1}},
        {{"sample.keep=correct", "sample.most=1"}, {.finished = true, .correct = true, .most = 1, .to = 1}},
        {{"sample.keep=all", "sample.where=[\"second >= 1\", \"start>=0.5\"]"}, {.where = true, .to = 1}},
        {{"sample.keep=best", "sample.where=[\"second >= 1\", \"start >=.5\"]"},
         {.finished = true, .best = true, .where = true, .to = 1}},
        {{"sample.keep=all", "sample.pass_from=0.4", "sample.pass_to=0.6"}, {.from = 0.4, .to = 0.6}},
    };
    const place *p = *state;
    told t = {0};
    run_result result;
    assert_run(p, "all", &t, NULL, "sample.keep=all", "sample.distinct=false");
    rows all = read_rows(p, "all");
    assert_int_equal(all.n, MOST_ROWS);
    for (int i = 0; i < all.n; i++) { /* the prompt's order, and what a row says */
        char question[40];
        const int at = i / SAMPLES;
        snprintf(question, sizeof question, "<user>c%d+%d<assistant>", at % 10, at / 10);
        assert_string_equal(word(&all, i, "prompt"), question);
        assert_int_equal(atoi(word(&all, i, "answer")), (at % 10 + at / 10) % 10);
        assert_true(number(&all, i, "reward") == number(&all, i, "start") + 0.5 * number(&all, i, "second"));
        assert_true(number(&all, i, "prompt_tokens") == 6 && number(&all, i, "tokens") <= 24);
        assert_true(number(&all, i, "finished") == 1 || number(&all, i, "tokens") == 24);
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[16];
        snprintf(name, sizeof name, "filter%d", (int)i);
        assert_run(p, name, &t, &result, cases[i].keys[0], "sample.distinct=false", cases[i].keys[1],
                   cases[i].keys[1] ? cases[i].keys[2] : NULL);
        check_kept(p, &all, name, &cases[i].r, &result);
        assert_false(there(p, name, ".partial") || there(p, name, ".progress"));
    }
    free_rows(&all);
}

/* Completions of one token at a low temperature of a uniform choice of 8: of 6, some are equal. */
static void equal_completions_count_once(void **state) {
    const place *p = *state;
    told t = {0};
    run_result result;
    assert_run(p, "same", &t, NULL, "sample.keep=all", "sample.distinct=false", "rollout.max_tokens=1",
               "rollout.top_k=8");
    assert_run(p, "once", &t, &result, "sample.keep=all", "rollout.max_tokens=1", "rollout.top_k=8");
    rows all = read_rows(p, "same");
    check_kept(p, &all, "once", &(rule){.distinct = true, .to = 1}, &result);
    free_rows(&all);
}

/* Conversations go on as conversations; without rewards everything can be kept; bytes that are no characters are
 * U+FFFD, so that every line can be read. */
static void conversations_of_noise(void **state) {
    const place *p = *state;
    told t = {0};
    char path[80], key[100];
    error e;
    const char row[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", "
                       "\"content\": \"ho\"}]}\n";
    snprintf(path, sizeof path, "%s/chat.jsonl", p->folder);
    snprintf(key, sizeof key, "data.train=%s", path);
    assert_int_equal(file_save(path, row, sizeof row - 1, &e), OK);
    assert_run(p, "noise", &t, NULL, "sample.keep=all", key, "model.path=tests/data/models/v3_mtp/checkpoint",
               "rollout.rewards=[]", "sample.samples=20", "rollout.max_tokens=40");
    rows all = read_rows(p, "noise");
    int replaced = 0;
    assert_int_equal(all.n, 20);
    for (int i = 0; i < all.n; i++) {
        const json_t *m = json_object_get(all.j[i], "messages");
        assert_int_equal(json_array_size(m), 2);
        assert_string_equal(json_string_value(json_object_get(json_array_get(m, 1), "role")), "assistant");
        const char *text = json_string_value(json_object_get(json_array_get(m, 1), "content"));
        replaced += strstr(text, "\xef\xbf\xbd") != NULL;
    }
    assert_true(replaced > 0); /* the vocabulary has 256 single bytes */
    free_rows(&all);
}

/* --- going on ----------------------------------------------------------------------------------------------------- */

static void assert_same_file(const place *p, const char *a, const char *b) {
    str x = text_of(p, a), y = text_of(p, b);
    assert_true(x.n > 0);
    assert_string_equal(x.p, y.p);
    str_free(&x);
    str_free(&y);
}

static void stopped_and_going_on_is_the_same_file(void **state) {
    const place *p = *state;
    told whole = {0}, parts = {0};
    run_result a, b;
    assert_run(p, "whole", &whole, &a, "sample.keep=correct");
    assert_int_equal(whole.steps, 4); /* 14 prompts, 2 * 12 / 6 at once */
    for (int i = 0; i < 4; i++) {
        parts = (told){.stop_at = 1};
        assert_false(there(p, "parts", ""));
        assert_run(p, "parts", &parts, &b, "sample.keep=correct");
        assert_int_equal(parts.steps, 1);
        assert_true(b.stopped == (i < 3)); /* the last one has nothing left to stop */
    }
    assert_same_file(p, "whole", "parts");
    assert_int_equal(a.n_more, b.n_more);
    for (int i = 0; i < a.n_more; i++) assert_true(fabs(a.more[i].value - b.more[i].value) < 1e-12);
    assert_true(a.tokens == b.tokens);
    assert_false(there(p, "parts", ".partial") || there(p, "parts", ".progress"));
}

/* Stopped while completions are drawn: that chunk is drawn again. What stands behind the last chunk, and other numbers
 * of threads and of completions at once, change nothing. */
static void cancelled_and_torn(void **state) {
    const place *p = *state;
    told t = {.stop_at = 1};
    run_result r;
    assert_run(p, "torn", &t, &r, "sample.keep=correct");
    t = (told){.cancel_at = 20};
    assert_run(p, "torn", &t, &r, "sample.keep=correct");
    assert_true(r.stopped && t.steps == 0);
    char *path = path_of(p, "torn", ".partial");
    FILE *f = fopen(path, "ab");
    assert_non_null(f);
    for (int i = 0; i < 10000; i++) assert_true(fputs("{\"prompt\": \"half a li", f) >= 0); /* more than will follow */
    fclose(f);
    t = (told){0};
    assert_run(p, "torn", &t, &r, "sample.keep=correct", "training.threads=1", "rollout.sequences=30");
    assert_same_file(p, "whole", "torn");
    free(path);
}

static void other_settings_are_refused(void **state) {
    static const char *const keys[] = {
        "rollout.seed=5",
        "rollout.temperature=20.0000001",
        "rollout.system=be brief",
        "rollout.begin=<think>",
        "rollout.max_tokens=23",
        "data.seq_len=65",
        "data.chat_template=x",
        "training.precision=bf16",
        "sample.keep=best",
        "sample.threshold=0.5",
        "sample.where=[\"start >= 1\"]",
        "rollout.rewards=[{name: format, as: start, pattern: '^<'}]",
    };
    const place *p = *state;
    told t = {.stop_at = 1};
    error e = {0};
    assert_run(p, "other", &t, NULL, "sample.keep=correct");
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        t = (told){0};
        if (start(p, "other", &t, NULL, &e, "sample.keep=correct", keys[i], NULL) != ERR_ARG)
            fail_msg("%s was not refused", keys[i]);
        assert_non_null(strstr(e.text, "other.jsonl.partial was begun with other settings"));
        assert_int_equal(t.steps, 0);
    }
    /* nothing was lost by the attempts; but a file that lost lines cannot be gone on with */
    char *path = path_of(p, "other", ".partial");
    assert_int_equal(truncate(path, 1), 0);
    assert_int_equal(start(p, "other", &t, NULL, &e, "sample.keep=correct", NULL), ERR_FORMAT);
    assert_non_null(strstr(e.text, "is shorter than it was"));
    unlink(path); /* as the message says */
    t = (told){0};
    assert_run(p, "other", &t, NULL, "sample.keep=correct");
    assert_same_file(p, "whole", "other");
    free(path);
}

/* --- what cannot work --------------------------------------------------------------------------------------------- */

static void refused(void **state) {
    static const struct {
        const char *key, *says;
        status code;
    } cases[] = {
        {"sample.output=null", "sample.output is missing", ERR_ARG},
        {"sample.output=/nowhere/x.jsonl", "/nowhere/x.jsonl.partial: cannot open", ERR_IO},
        {"sample.output=models/tiny/config.json", "is there already", ERR_ARG},
        {"sample.where=[\"start > 1\"]", "should be \"NAME >= NUMBER\"", ERR_ARG},
        {"sample.where=[\"start >= \"]", "should be \"NAME >= NUMBER\"", ERR_ARG},
        {"sample.where=[\"start >= 1x\"]", "should be \"NAME >= NUMBER\"", ERR_ARG},
        {"sample.where=[\"star >= 1\"]", "is called \"star\"", ERR_ARG},
        {"rollout.rewards=[]", "rollout.rewards is missing", ERR_ARG},
        {"rollout.rewards=[{name: acuracy}]", "acuracy", ERR_FORMAT},
        {"rollout.rewards=[{name: format, patern: x}]", "patern", ERR_FORMAT},
        {"data.train=/dev/null", "/dev/null", ERR_FORMAT},
        {"data.seq_len=28", "all 14 prompts are longer than 4 tokens", ERR_FORMAT},
        {"data.seq_len=24", "leaves no room for a prompt", ERR_ARG},
        {"model.path=/nowhere", "/nowhere", ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        told t = {0};
        error e = {0};
        const status s = start(*state, "none", &t, NULL, &e, cases[i].key, "checkpoint.folder=none", NULL);
        if (s != cases[i].code || !strstr(e.text, cases[i].says)) fail_msg("%s: %d: %s", cases[i].key, (int)s, e.text);
        assert_false(there(*state, "none", "") || there(*state, "none", ".partial"));
    }
}

static void empty_data(void **state) {
    const place *p = *state;
    told t = {0};
    error e = {0};
    char path[80], key[100];
    snprintf(path, sizeof path, "%s/empty.jsonl", p->folder);
    snprintf(key, sizeof key, "data.train=%s", path);
    assert_int_equal(file_save(path, "\n\n", 2, &e), OK);
    assert_int_equal(start(p, "none", &t, NULL, &e, key, NULL), ERR_FORMAT);
    assert_non_null(strstr(e.text, "empty.jsonl: no prompts"));
    assert_false(there(p, "none", "") || there(p, "none", ".partial"));
}

/* No room: the error says where; what was complete stays, and the run goes on when there is room. */
static void full_disk(void **state) {
    const place *p = *state;
    struct rlimit old, tight;
    told t = {0};
    error e = {0};
    str whole = text_of(p, "whole");
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    tight = old;
    tight.rlim_cur = whole.n / 2;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    const status s = start(p, "full", &t, NULL, &e, "sample.keep=correct", NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    if (s != ERR_IO || !strstr(e.text, "full.jsonl.p")) fail_msg("%d: %s", (int)s, e.text);
    assert_false(there(p, "full", ""));
    assert_run(p, "full", &t, NULL, "sample.keep=correct");
    assert_same_file(p, "whole", "full");
    str_free(&whole);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(filters),
        cmocka_unit_test(equal_completions_count_once),
        cmocka_unit_test(conversations_of_noise),
        cmocka_unit_test(stopped_and_going_on_is_the_same_file),
        cmocka_unit_test(cancelled_and_torn),
        cmocka_unit_test(other_settings_are_refused),
        cmocka_unit_test(refused),
        cmocka_unit_test(empty_data),
        cmocka_unit_test(full_disk),
    };
    return cmocka_run_group_tests(tests, open_place, close_place);
}
