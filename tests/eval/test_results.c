/* The file of answers: what is written is found again, a torn end is cut, other files are left alone. */
#include "../format/scratch.h"
#include "eval/results.h"

static json_t *parsed(const char *text) {
    json_t *j;
    error e = {0};
    if (json_parse(&j, text, strlen(text), "test", &e) != OK) fail_msg("%s", e.text);
    return j;
}

static status open_file(results **r, const char *path, const char *evaluation, int samples, error *e) {
    json_t *j = parsed(evaluation);
    status s = results_open(r, path, j, samples, e);
    json_decref(j);
    return s;
}

static void write_prompt(results *r, const char *list) {
    json_t *j = parsed(list);
    error e = {0};
    if (results_add(r, j, &e) != OK) fail_msg("%s", e.text);
    json_decref(j);
}

static void content(const char *path, const char *want) {
    str s = {0};
    error e = {0};
    if (file_read(&s, path, 1 << 20, &e) != OK) fail_msg("%s", e.text);
    assert_string_equal(s.p ? s.p : "", want);
    str_free(&s);
}

#define HEAD "{\"evaluation\":{\"task\":\"x\",\"seed\":1}}\n"
#define PROMPT(n) "{\"number\":" #n ",\"sample\":0,\"t\":\"a\\nb\"}\n{\"number\":" #n ",\"sample\":1}\n"
static const char task[] = "{\"task\":\"x\",\"seed\":1}";

static void two_prompts(const char *path) {
    results *r;
    error e = {0};
    if (open_file(&r, path, task, 2, &e) != OK) fail_msg("%s", e.text);
    write_prompt(r, "[{\"number\":4,\"sample\":0,\"t\":\"a\\nb\"},{\"number\":4,\"sample\":1}]");
    content(path, HEAD PROMPT(4)); /* at once, not when it is closed */
    write_prompt(r, "[{\"number\":0,\"sample\":0,\"t\":\"a\\nb\"},{\"number\":0,\"sample\":1}]");
    assert_null(results_find(r, 4)); /* only what was there before */
    results_close(r);
}

static void found_again(void **state) {
    (void)state;
    scratch s = scratch_open();
    char *path = scratch_path(&s, "a.jsonl");
    results *r;
    error e = {0};
    two_prompts(path);
    content(path, HEAD PROMPT(4) PROMPT(0));
    assert_int_equal(open_file(&r, path, task, 2, &e), OK);
    assert_int_equal(json_array_size(results_find(r, 4)), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(results_find(r, 0), 0), "t")), "a\nb");
    assert_null(results_find(r, 1));
    write_prompt(r, "[{\"number\":1,\"sample\":0,\"t\":\"a\\nb\"},{\"number\":1,\"sample\":1}]");
    results_close(r);
    content(path, HEAD PROMPT(4) PROMPT(0) PROMPT(1));
    free(path);
    scratch_close(&s);
}

/* Cut at every byte behind the first line: what is left is whole prompts, and what was cut can be written again. */
static void torn(void **state) {
    (void)state;
    scratch s = scratch_open();
    char *path = scratch_path(&s, "a.jsonl");
    static const char whole[] = HEAD PROMPT(4) PROMPT(0);
    const size_t head = strlen(HEAD), one = strlen(PROMPT(4));
    for (size_t n = head; n < sizeof whole; n++) {
        results *r;
        error e = {0};
        scratch_write(&s, "a.jsonl", whole, n);
        if (open_file(&r, path, task, 2, &e) != OK) fail_msg("%zu: %s", n, e.text);
        assert_int_equal(results_find(r, 4) != NULL, n >= head + one);
        assert_int_equal(results_find(r, 0) != NULL, n >= head + 2 * one);
        results_close(r);
        content(path, n < head + one ? HEAD : n < head + 2 * one ? HEAD PROMPT(4) : whole);
    }
    free(path);
    scratch_close(&s);
}

static void refuses(const char *path, const char *evaluation, int samples, status code, const char *part) {
    results *r;
    error e = {0};
    assert_int_equal(open_file(&r, path, evaluation, samples, &e), code);
    if (!strstr(e.text, part)) fail_msg("\"%s\" does not say %s", e.text, part);
    assert_null(r);
}

static void refused(void **state) {
    (void)state;
    scratch s = scratch_open();
    char *path = scratch_path(&s, "a.jsonl"), *missing = scratch_path(&s, "none/a.jsonl");
    two_prompts(path);
    refuses(path, "{\"task\":\"x\",\"seed\":2}", 2, ERR_ARG, "(seed is 1 there and 2 here)");
    refuses(path, "{\"task\":\"x\",\"seed\":1,\"top_p\":1}", 2, ERR_ARG, "(top_p is nothing there and 1 here)");
    refuses(path, "{\"task\":\"x\"}", 2, ERR_ARG, "name another file");
    refuses(path, task, 3, ERR_FORMAT, "out of its place"); /* lines of two prompts in one */
    content(path, HEAD PROMPT(4) PROMPT(0));                /* untouched */
    refuses(missing, task, 2, ERR_IO, "cannot open");
    static const char *const others[] = {"hello\n", "{\"a\":1}\n", "{\"evaluation\":1}\n", "{\"evaluation\":{", "[]"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        scratch_write(&s, "a.jsonl", others[i], strlen(others[i]));
        refuses(path, task, 2, ERR_ARG, "holds no answers of an evaluation");
        content(path, others[i]);
    }
    static const char bad[] = HEAD "{\"number\":4}\nnonsense\n" PROMPT(0);
    scratch_write(&s, "a.jsonl", bad, sizeof bad - 1);
    refuses(path, task, 2, ERR_FORMAT, "not valid JSON");
    free(path);
    free(missing);
    scratch_close(&s);
}

static void nothing(void **state) {
    (void)state;
    results *r;
    error e = {0};
    assert_int_equal(open_file(&r, NULL, task, 1, &e), OK);
    write_prompt(r, "[{\"number\":1}]");
    assert_null(results_find(r, 1));
    results_close(r);
    scratch s = scratch_open();
    char *path = scratch_path(&s, "empty");
    scratch_write(&s, "empty", "", 0); /* as a file that was only just made */
    assert_int_equal(open_file(&r, path, task, 1, &e), OK);
    results_close(r);
    content(path, HEAD);
    free(path);
    scratch_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(found_again), cmocka_unit_test(torn), cmocka_unit_test(refused),
                                       cmocka_unit_test(nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
