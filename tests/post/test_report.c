/* The report page: one well-formed document that loads nothing, whatever models wrote, whatever is missing or damaged.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "post/report.h"
#include "post/stage_state.h"
#include <cmocka.h>

static char dir[40];
static const pipeline_kind kinds[] = {
    {"grpo", MAKES_MODEL, NULL, NULL}, {"sample", MAKES_DATA, NULL, NULL}, {"eval", MAKES_SCORES, NULL, NULL}};
static pipeline p; /* rl, best, before, after */
static char paths[8][96];

static int setup(void **state) {
    (void)state;
    static const char *const names[] = {"rl", "best", "before", "after"};
    static const int kind[] = {0, 1, 2, 2};
    strcpy(dir, "/tmp/hadal-report-XXXXXX");
    if (!mkdtemp(dir)) return -1;
    memset(&p, 0, sizeof p);
    p.path = "recipes/<r1>.yaml";
    p.folder = dir;
    p.n = 4;
    for (int i = 0; i < p.n; i++) {
        pipeline_stage *s = &p.stage[i];
        error e;
        s->name = names[i];
        s->kind = &kinds[kind[i]];
        snprintf(paths[2 * i], sizeof paths[0], "%s/%02d-%s", dir, i + 1, names[i]);
        snprintf(paths[2 * i + 1], sizeof paths[0], "%s/%02d-%s/out.jsonl", dir, i + 1, names[i]);
        s->folder = paths[2 * i];
        s->output = paths[2 * i + 1];
        s->c.model.path = "base & model";
        if (make_directory(s->folder, &e) != OK) return -1;
    }
    return 0;
}

static int teardown(void **state) {
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static void put(int stage, const char *name, const char *text) {
    error e;
    char *path = path_join(p.stage[stage].folder, name);
    if (file_save(path, text, strlen(text), &e) != OK) fail_msg("%s", e.text);
    free(path);
}

/* Every tag is closed in order, text holds no stray < > or &; nothing refers to anything outside. */
static void check_html(const char *s) {
    static const char *const empty[] = {"meta", "path", "circle", "!doctype", NULL};
    char open[32][16];
    int depth = 0;
    for (const char *q = s; *q;) {
        if (*q == '&') {
            const size_t n = strcspn(q, ";");
            if (n > 7) fail_msg("a stray & before \"%.30s\"", q);
        }
        assert_true(*q != '>');
        if (*q++ != '<') continue;
        const bool closing = *q == '/';
        char name[16] = "";
        sscanf(q + closing, "%15[a-zA-Z0-9!]", name);
        const char *tag = q;
        q = strchr(q, '>');
        assert_non_null(q);
        const bool alone = q[-1] == '/';
        q++;
        bool is_empty = alone;
        for (int i = 0; empty[i]; i++) is_empty |= strcmp(empty[i], name) == 0;
        if (strcmp(name, "style") == 0 && !closing) q = strstr(q, "</style>");
        if (is_empty) continue;
        if (closing) {
            if (!depth || strcmp(open[--depth], name) != 0) fail_msg("</%s> closes <%s>", name, open[depth]);
        } else {
            assert_true(depth < 32);
            if (!*name) fail_msg("a tag without a name: <%.20s", tag);
            strcpy(open[depth++], name);
        }
    }
    assert_int_equal(depth, 0);
    assert_null(strstr(s, "http:"));
    assert_null(strstr(s, "https:"));
    assert_null(strstr(s, "src="));
    assert_null(strstr(s, "<script"));
    assert_null(strstr(s, "@import"));
    assert_null(strstr(s, "url("));
    assert_null(strstr(s, "<link"));
}

static char *page(void) {
    str text = {0};
    error e;
    char *path = path_join(dir, "report.html");
    if (report_write(&p, &e) != OK) fail_msg("%s", e.text);
    assert_int_equal(file_read(&text, path, 1 << 24, &e), OK);
    free(path);
    check_html(text.p);
    return text.p;
}

static void has(const char *s, const char *what) {
    if (!strstr(s, what)) fail_msg("the page lacks %s", what);
}

static void done(int i, const run_result *r) {
    error e;
    p.stage[i].done = true;
    assert_int_equal(
        stage_state_write(p.stage[i].folder, p.stage[i].kind->name, p.stage[i].output, &p.stage[i].c, r, &e), OK);
}

static const char two_steps[] =
    "{\"step\": 0, \"tokens\": 100, \"loss\": -0.5, \"lm_loss\": -0.5, \"reward\": 0.4, \"accuracy\": 0.3, "
    "\"completion_tokens\": 9, \"kl\": 0.001, \"grad_norm\": 1, \"before_accuracy\": 0.2512}\n"
    "{\"step\": 1, \"tokens\": 200, \"loss\": -0.4, \"lm_loss\": -0.4, \"reward\": 1.0, \"accuracy\": 0.9, "
    "\"completion_tokens\": 15, \"kl\": 0.002, \"grad_norm\": 2, \"validation_accuracy\": 0.9375}\n";

static void nothing_yet(void **state) {
    (void)state;
    char *s = page();
    has(s, "0 of 4 stages done");
    has(s, "recipes/&lt;r1&gt;.yaml");
    has(s, "base &amp; model");
    has(s, "under way"); /* folders are there */
    has(s, "prefers-color-scheme:dark");
    has(s, "width=device-width");
    free(s);
}

static void curves_and_numbers(void **state) {
    (void)state;
    put(0, "metrics.jsonl", two_steps);
    done(0, &(run_result){.steps = 2, .tokens = 12345, .seconds = 75});
    char *s = page();
    has(s, "1 of 4 stages done in 1:15 min");
    has(s, "25.1 % → 93.8 %"); /* measured before the first step, and last */
    has(s, "30 % → 90 %");
    has(s, "0.4 → 1");
    has(s, "12.3 k");
    has(s, "aria-label='Reward'");
    has(s, "aria-label='Completion length'");
    has(s, "aria-label='Policy loss'");
    has(s, "aria-label='KL to the reference'");
    assert_null(strstr(s, "aria-label='Loss'"));
    free(s);
}

/* Completions may hold anything; a pair is the same prompt at the first and the last step. */
static void samples(void **state) {
    (void)state;
    put(0, "samples.jsonl",
        "{\"step\":0,\"prompt\":\"<b>1+1\",\"completion\":\"<script>alert(1)</script> & \\\"x\\\" "
        "'\\u0007\",\"answer\":\"2\","
        "\"tokens\":6,\"finished\":true,\"reward\":0.1}\n"
        "{\"step\":0,\"prompt\":\"only at "
        "first\",\"completion\":\"c\",\"answer\":null,\"tokens\":1,\"finished\":false}\n"
        "not a line\n"
        "{\"step\":5,\"prompt\":\"<b>1+1\",\"completion\":\"later "
        "\\u00e9\",\"answer\":\"2\",\"tokens\":6,\"finished\":true,"
        "\"reward\":1.1}\n"
        "{\"step\":5,\"prompt\":\"only at last\",\"completion\":\"d\",\"tokens\":1,\"finished\":true}\n"
        "{\"step\":5,\"torn");
    char *s = page();
    has(s, "&lt;b&gt;1+1");
    has(s, "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;x&quot; &#39;\xef\xbf\xbd");
    has(s, "right answer: 2");
    has(s, "<span class='chip bad'>reward 0.1</span>6 tokens");
    has(s, "<span class='chip good'>reward 1.1</span>6 tokens");
    has(s, "1 tokens, cut");
    const char *first = strstr(s, "alert(1)"), *later = strstr(s, "later \xc3\xa9"), *only = strstr(s, "only at first");
    assert_true(first && later && only && first < later && later < only);
    has(s, "only at last");
    free(s);
}

static void long_texts_are_cut(void **state) {
    (void)state;
    str line = {0};
    str_puts(&line, "{\"step\":0,\"prompt\":\"p\",\"completion\":\"begin");
    for (int i = 0; i < 5000; i++) str_puts(&line, "\xc3\xa9\xc3\xa9 ");
    str_puts(&line, "end\",\"tokens\":1}\n");
    put(0, "samples.jsonl", line.p);
    char *s = page();
    assert_true(strlen(s) < 30000);
    has(s, "begin");
    has(s, "end</pre>");
    has(s, "bytes …");
    for (const char *q = s; *q; q++) /* no character was cut in two */
        if ((unsigned char)*q == 0xc3) assert_int_equal((unsigned char)q[1] & 0xC0, 0x80);
    free(s);
    str_free(&line);
}

static void kept_rows(void **state) {
    (void)state;
    put(1, "out.jsonl",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"what<\"},{\"role\":\"assistant\",\"content\":\"that>\"}],"
        "\"reward\":1}\n"
        "{\"prompt\":\"q\",\"completion\":\"a\",\"reward\":1,\"tokens\":3}\n");
    run_result r = {.steps = 0, .seconds = 2};
    r.more[r.n_more++] = (named_number){"kept", 60};
    r.more[r.n_more++] = (named_number){"pass_rate", 0.9875};
    done(1, &r);
    char *s = page();
    has(s, "First rows that were kept");
    has(s, "what&lt;");
    has(s, "that&gt;");
    has(s, "<b>0.9875</b><span>pass rate</span>");
    has(s, "<b>60</b><span>kept</span>");
    free(s);
}

static void evaluations(void **state) {
    (void)state;
    put(2, "eval.json",
        "{\"tasks\":[{\"task\":\"tiny-r1\",\"prompts\":60,\"greedy\":{\"accuracy\":0.5,\"mean_tokens\":10.25,\"by_"
        "style\":"
        "{\"accuracy\":0.1}},\"sampled\":{\"accuracy\":0.25,\"pass_at_4\":0.75}},{\"task\":\"gsm8k\",\"accuracy\":0.1}]"
        "}");
    put(3, "eval.json", "{\"tasks\":[{\"task\":\"tiny-r1\",\"greedy\":{\"accuracy\":1}}]}");
    done(2, &(run_result){0});
    done(3, &(run_result){0});
    char *s = page();
    has(s, "<th>before</th><th>after</th>");
    has(s, "<tr><td>tiny-r1, greedy, accuracy</td><td>50.0 %</td><td>100.0 %</td></tr>");
    has(s, "<tr><td>tiny-r1, greedy, mean length</td><td>10.2</td><td>–</td></tr>");
    has(s, "<tr><td>tiny-r1, sampled, pass@4</td><td>75.0 %</td><td>–</td></tr>");
    has(s, "<tr><td>gsm8k, accuracy</td><td>10.0 %</td><td>–</td></tr>");
    assert_null(strstr(s, "by_style"));
    free(s);
}

/* A page is no reason to stop. */
static void damaged_files(void **state) {
    (void)state;
    put(0, "metrics.jsonl", "{\"step\": 0, \"loss\": \n");
    put(0, "samples.jsonl", "\xff\xfe\n[1]\n");
    put(1, "out.jsonl", "{}\n{\"messages\": 5}\n");
    put(2, "eval.json", "{\"tasks\": 5}");
    put(3, "eval.json", "{");
    for (int i = 0; i < 4; i++) done(i, &(run_result){0});
    put(0, "stage.json", "[]");
    char *s = page();
    has(s, "4 of 4 stages done");
    assert_null(strstr(s, "<svg"));
    free(s);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(nothing_yet), T(curves_and_numbers), T(samples),      T(long_texts_are_cut),
                                       T(kept_rows),   T(evaluations),        T(damaged_files)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
