/* The tokenizer against the golden vectors of the Hugging Face library, against a small tokenizer of our own, and
 * against files and texts that mean harm. */
#include "text/tokenizer.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/file.h"
#include "base/json.h"

static const char *const families[] = {"deepseek-v3", "deepseek-llm", "deepseek-coder", "r1-distill-qwen",
                                       "r1-distill-llama"};

static const char *shared(void) {
    const char *s = getenv("HADAL_SHARED");
    return s ? s : "../shared";
}

static void need_shared(void) {
    if (is_directory(shared())) return;
    print_message("%s is absent\n", shared());
    skip();
}

static tokenizer *open_golden(const char *family) {
    char command[600];
    snprintf(command, sizeof command, "gzip -dc '%s/golden/tokenizers/%s/tokenizer.json.gz'", shared(), family);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    str json = {0};
    static char block[1 << 16];
    for (size_t n; (n = fread(block, 1, sizeof block, f)) > 0;) str_add(&json, block, n);
    assert_int_equal(pclose(f), 0);
    tokenizer *t;
    error e = {0};
    if (tokenizer_parse(&t, json.p, json.n, NULL, 0, &e) != OK) fail_msg("%s: %s", family, e.text);
    str_free(&json);
    return t;
}

static void check_text(const char *what, const char *family, int line, const char *got, size_t got_n, const char *want,
                       size_t want_n) {
    if (got_n == want_n && memcmp(got, want, want_n) == 0) return;
    fail_msg("%s line %d, %s: got %zu bytes \"%.*s\", want %zu bytes \"%.*s\"", family, line, what, got_n, (int)got_n,
             got, want_n, (int)want_n, want);
}

static void check_member(const char *what, const char *family, int line, const str *got, const json_t *row) {
    const json_t *want = json_object_get(row, what);
    assert_true(json_is_string(want));
    check_text(what, family, line, got->p ? got->p : "", got->n, json_string_value(want), json_string_length(want));
}

/* Decodes id by id; every addition must be whole characters. */
static void decode_stream(const tokenizer *t, const int32_t *ids, size_t n, bool skip_special, str *out) {
    tokenizer_decoding d = {0};
    for (size_t i = 0; i < n; i++) {
        size_t before = out->n;
        tokenizer_decode_next(t, &d, ids[i], skip_special, out);
        if (out->n > before) assert_int_equal(utf8_valid(out->p + before, out->n - before), out->n - before);
    }
    tokenizer_decode_end(&d, out);
}

static void check_ids(const tokenizer *t, const char *family, int line, const json_t *row, const int32_t *ids,
                      size_t n) {
    str bytes = {0}, text = {0}, skipped = {0}, whole = {0};
    for (size_t i = 0; i < n; i++) {
        size_t k;
        const char *p = tokenizer_bytes(t, ids[i], &k);
        assert_non_null(p);
        for (size_t j = 0; j < k; j++) str_addf(&bytes, "%02x", (unsigned char)p[j]);
    }
    check_member("bytes_hex", family, line, &bytes, row);
    decode_stream(t, ids, n, false, &text);
    check_member("decoded", family, line, &text, row);
    decode_stream(t, ids, n, true, &skipped);
    if (json_object_get(row, "decoded_skip_special")) check_member("decoded_skip_special", family, line, &skipped, row);
    tokenizer_decode(t, ids, n, false, &whole);
    check_member("decoded", family, line, &whole, row);
    str_free(&bytes);
    str_free(&text);
    str_free(&skipped);
    str_free(&whole);
}

static void check_encoding(const tokenizer *t, const char *family, int line, const json_t *row) {
    const json_t *text = json_object_get(row, "text"), *want = json_object_get(row, "ids");
    int32_t *ids;
    size_t n;
    error e = {0};
    if (tokenizer_encode(t, json_string_value(text), json_string_length(text), TOK_PARSE_SPECIAL, &ids, &n, &e) != OK)
        fail_msg("%s line %d: %s", family, line, e.text);
    for (size_t i = 0; i < n && i < json_array_size(want); i++)
        if (ids[i] != json_integer_value(json_array_get(want, i)))
            fail_msg("%s line %d, id %zu: got %d, want %lld", family, line, i, ids[i],
                     (long long)json_integer_value(json_array_get(want, i)));
    assert_int_equal(n, json_array_size(want));
    check_ids(t, family, line, row, ids, n);
    free(ids);
    assert_int_equal(tokenizer_encode(t, json_string_value(text), json_string_length(text), 0, &ids, &n, &e), OK);
    for (size_t i = 0; i < n; i++) assert_false(tokenizer_is_special(t, ids[i]));
    free(ids);
}

static void check_decoding(const tokenizer *t, const char *family, int line, const json_t *row) {
    const json_t *list = json_object_get(row, "ids");
    size_t n = json_array_size(list);
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    assert_non_null(ids);
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    check_ids(t, family, line, row, ids, n);
    free(ids);
}

typedef void row_check(const tokenizer *t, const char *family, int line, const json_t *row);

static void each_row(const tokenizer *t, const char *family, const char *file, row_check *check) {
    char path[600];
    error e = {0};
    str s = {0};
    snprintf(path, sizeof path, "%s/golden/tokenizers/%s/%s", shared(), family, file);
    if (file_read(&s, path, 64 << 20, &e) != OK) fail_msg("%s", e.text);
    int line = 0;
    for (char *p = s.p, *end; *p; p = end + 1) {
        end = strchr(p, '\n');
        assert_non_null(end);
        json_t *row;
        if (json_parse(&row, p, (size_t)(end - p), path, &e) != OK) fail_msg("%s", e.text);
        check(t, family, ++line, row);
        json_decref(row);
    }
    assert_true(line > 100);
    print_message("%s: %d rows of %s\n", family, line, file);
    str_free(&s);
}

static void golden_vectors(void **state) {
    (void)state;
    need_shared();
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        tokenizer *t = open_golden(families[i]);
        each_row(t, families[i], "encode.jsonl", check_encoding);
        each_row(t, families[i], "decode.jsonl", check_decoding);
        tokenizer_close(t);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
