/* KL divergences against hand calculation, and files of golden logits: right ones, wrong ones, damaged ones. */
#include "../format/scratch.h"
#include <math.h>
#include "base/json.h"
#include "eval/logit_kl.h"
#include "tiny.h"

static void by_hand(void **state) {
    (void)state;
    const float p[2] = {0, 0}, q[2] = {logf(0.25f), logf(0.75f)}, shifted[2] = {100, 100}, nan[2] = {NAN, 0};
    const double wanted = 0.5 * log(0.5 / 0.25) + 0.5 * log(0.5 / 0.75);
    assert_true(fabs(logit_kl(p, q, 2) - wanted) < 1e-7);
    assert_true(fabs(logit_kl(shifted, q, 2) - wanted) < 1e-7); /* a constant does not matter */
    assert_true(logit_kl(q, q, 2) == 0);
    assert_true(isnan(logit_kl(p, nan, 2)));
    logit_difference d = {0};
    logit_difference_add(&d, p, p, 2);
    logit_difference_add(&d, p, q, 2);
    assert_true(d.rows == 2 && d.same_best == 1 && fabs(d.kl_sum - wanted) < 1e-7 && d.kl_max == d.kl_sum);
    assert_true(fabs(d.max - (double)-q[0]) < 1e-6);
    logit_difference_add(&d, p, nan, 2); /* what is not a number is never small */
    assert_false(d.kl_max <= 1e30);
    printf("  KL %.9f, by hand %.9f\n", logit_kl(p, q, 2), wanted);
}

/* --- files ------------------------------------------------------------------------------------------------------ */

static const int32_t IDS[] = {0, 333, 399, 359, 86, 408, 74};
enum { N = 7 };

static void add_rows(str *s, const float *rows, int64_t n, int64_t v) {
    str_puts(s, "[");
    for (int64_t i = 0; i < n; i++) {
        str_puts(s, i ? ", [" : "[");
        for (int64_t j = 0; j < v; j++) str_addf(s, j ? ", %.9g" : "%.9g", (double)rows[i * v + j]);
        str_puts(s, "]");
    }
    str_puts(s, "]");
}

static void add_tokens(str *s, const int32_t *ids, size_t n) {
    str_puts(s, "[");
    for (size_t i = 0; i < n; i++) str_addf(s, i ? ", %d" : "%d", ids[i]);
    str_puts(s, "]");
}

static void good_line(str *s, const float *rows, int64_t v) {
    str_puts(s, "{\"prompt\": \"\xe6\x9d\xad\xe5\xb7\x9e\", \"unknown\": {\"a\": []}, \"tokens\": ");
    add_tokens(s, IDS, N);
    str_puts(s, ", \"logits\": ");
    add_rows(s, rows, N, v);
    str_puts(s, "}");
}

typedef struct seen {
    int lines, passed;
} seen;

static void on_line(void *arg, const char *json) {
    seen *s = arg;
    json_t *j;
    error e;
    assert_int_equal(json_parse(&j, json, strlen(json), "line", &e), OK);
    assert_true(json_integer_value(json_object_get(j, "line")) > s->lines);
    assert_true(json_is_string(json_object_get(j, "prompt")));
    s->lines++;
    s->passed += json_is_true(json_object_get(j, "pass"));
    json_decref(j);
}

static status check(const tiny *t, const tokenizer *tok, const str *text, json_t **summary, seen *lines, error *e) {
    scratch s = scratch_open();
    char *path = scratch_path(&s, "golden.jsonl");
    str out = {0};
    scratch_write(&s, "golden.jsonl", text->p, text->n);
    status st = logit_kl_check(t->f32, tok, path, 1e-7, on_line, lines, &out, e);
    if (st == OK) assert_int_equal(json_parse(summary, out.p, out.n, "summary", e), OK);
    str_free(&out);
    free(path);
    scratch_close(&s);
    return st;
}

static double number(const json_t *j, const char *key) {
    return json_number_value(json_object_get(j, key));
}

static void right_and_wrong(void **state) {
    const tiny *t = *state;
    const int64_t v = t->m->cfg.vocab_size;
    float *rows = tiny_logits(t->f32, IDS, N);
    str s = {0};
    json_t *j = NULL;
    error e = {0};
    seen lines = {0};
    str_puts(&s, "\n");
    good_line(&s, rows, v);
    str_puts(&s, "\r\n  \n{\"tokens\": [");
    add_tokens(&s, IDS, N);
    str_puts(&s, "], \"prompt\": \"a batch of one\", \"logits\": [");
    add_rows(&s, rows, N, v);
    str_puts(&s, "]}"); /* and no newline at the end */
    if (check(t, NULL, &s, &j, &lines, &e) != OK) fail_msg("%s", e.text);
    assert_true(lines.lines == 2 && lines.passed == 2);
    assert_true(json_is_true(json_object_get(j, "pass")) && number(j, "prompts") == 2 && number(j, "tokens") == 14);
    assert_true(number(j, "max_kl") < 1e-12 && number(j, "top1_agreement") == 1);
    json_decref(j);
    s.n = 0;
    rows[3 * v + 5] += 8; /* now one row's logits are wrong, and its best token */
    good_line(&s, rows, v);
    str_puts(&s, "\n");
    lines = (seen){0};
    if (check(t, NULL, &s, &j, &lines, &e) != OK) fail_msg("%s", e.text);
    assert_true(lines.lines == 1 && lines.passed == 0);
    assert_true(json_is_false(json_object_get(j, "pass")));
    assert_true(fabs(number(j, "max_difference") - 8) < 1e-3);
    assert_true(fabs(number(j, "mean_kl") * N - number(j, "max_kl")) < 1e-4 && number(j, "max_kl") > 0.1);
    printf("  wrong by 8 in one row of %d: mean KL %.3f\n", N, number(j, "mean_kl"));
    json_decref(j);
    str_free(&s);
    free(rows);
}

/* Lines without tokens: the text is tokenized, with BOS unless it is formatted. */
static void prompts_as_text(void **state) {
    const tiny *t = *state;
    const int64_t v = t->m->cfg.vocab_size;
    static const char text[] = "The expert with";
    tokenizer *tok;
    int32_t *ids;
    size_t n;
    error e = {0};
    str s = {0};
    json_t *j = NULL;
    seen lines = {0};
    if (tokenizer_open(&tok, TINY "checkpoint", &e) != OK) fail_msg("%s", e.text);
    for (int formatted = 0; formatted < 2; formatted++) {
        assert_int_equal(
            tokenizer_encode(tok, text, strlen(text), formatted ? TOK_PARSE_SPECIAL : TOK_ADD_SPECIAL, &ids, &n, &e),
            OK);
        float *rows = tiny_logits(t->f32, ids, (int64_t)n);
        str_addf(&s, "{\"prompt\": \"%s\", \"completion\": \"x\", ", formatted ? "something else" : text);
        if (formatted) str_addf(&s, "\"formatted_prompt\": \"%s\", ", text);
        str_puts(&s, "\"logits\": ");
        add_rows(&s, rows, (int64_t)n, v);
        str_puts(&s, "}\n");
        free(rows);
        free(ids);
    }
    if (check(t, tok, &s, &j, &lines, &e) != OK) fail_msg("%s", e.text);
    assert_true(lines.lines == 2 && lines.passed == 2 && json_is_true(json_object_get(j, "pass")));
    json_decref(j);
    assert_int_equal(check(t, NULL, &s, &j, &lines, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "no tokenizer"));
    tokenizer_close(tok);
    str_free(&s);
}

static void damaged(void **state) {
    const tiny *t = *state;
    const int64_t v = t->m->cfg.vocab_size;
    static const char *const bad[] = {
        "{",
        "[]",
        "3",
        "null",
        "{\"tokens\": [1]}",
        "{\"tokens\": [1], \"logits\": 3}",
        "{\"tokens\": [1], \"logits\": []}",
        "{\"tokens\": [], \"logits\": []}",
        "{\"tokens\": [1], \"logits\": [[]]}",
        "{\"tokens\": [1], \"logits\": [3]}",
        "{\"tokens\": [1], \"logits\": [[1, 2, 3]]}",
        "{\"tokens\": [1, 2], \"logits\": [[1, 2, 3]]}",
        "{\"tokens\": \"x\", \"logits\": [[1]]}",
        "{\"tokens\": [1.5], \"logits\": [[1]]}",
        "{\"tokens\": [-1], \"logits\": [[1]]}",
        "{\"tokens\": [99999999999], \"logits\": [[1]]}",
        "{\"tokens\": [[1], [2]], \"logits\": [[1], [2]]}",
        "{\"tokens\": [1], \"logits\": [[NaN]]}",
        "{\"prompt\": \"a\", \"logits\": [[1]]}",
        "{\"prompt\": 3, \"logits\": [[1]]}",
        "{\"tokens\": [1], \"tokens\": [1], \"logits\": [[1]]}",
        "\xff\xfe",
    };
    float *rows = tiny_logits(t->f32, IDS, N);
    for (size_t i = 0; i <= sizeof bad / sizeof *bad; i++) {
        str s = {0};
        json_t *j = NULL;
        error e = {0};
        seen lines = {0};
        good_line(&s, rows, v);
        str_puts(&s, "\n");
        if (i < sizeof bad / sizeof *bad) str_puts(&s, bad[i]);
        else { /* the right size, but a number is a text */ str_puts(&s, "{\"tokens\": [1], \"logits\": [[\"1\"");
            for (int64_t k = 1; k < v; k++) str_puts(&s, ", 0");
            str_puts(&s, "]]}");
        }
        str_puts(&s, "\n");
        status st = check(t, NULL, &s, &j, &lines, &e);
        if (st != ERR_FORMAT && st != ERR_ARG) fail_msg("line \"%s\" was taken: %d", bad[i], st);
        if (!strstr(e.text, "line 2")) fail_msg("\"%s\" does not name the line", e.text);
        assert_int_equal(lines.lines, 1);
        str_free(&s);
    }
    str nothing = {0};
    json_t *j;
    seen lines = {0};
    error e = {0};
    str_puts(&nothing, "\n \n");
    assert_int_equal(check(t, NULL, &nothing, &j, &lines, &e), ERR_FORMAT);
    nothing.n = 0;
    assert_int_equal(check(t, NULL, &nothing, &j, &lines, &e), ERR_FORMAT);
    str_free(&nothing);
    str out = {0};
    assert_int_equal(logit_kl_check(t->f32, NULL, "tests/no such file", 1, NULL, NULL, &out, &e), ERR_FORMAT);
    free(rows);
    printf("  %zu damaged lines\n", sizeof bad / sizeof *bad + 1);
}

static int setup(void **state) {
    *state = tiny_open();
    return 0;
}

static int teardown(void **state) {
    tiny_close(*state);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_hand),
        cmocka_unit_test(right_and_wrong),
        cmocka_unit_test(prompts_as_text),
        cmocka_unit_test(damaged),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
