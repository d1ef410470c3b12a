/* The door to jansson: what it refuses, with which words, and the getters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "base/json.h"
#include "base/str.h"
#include <cmocka.h>

static json_t *parsed(const char *text) {
    json_t *j;
    error e;
    if (json_parse(&j, text, strlen(text), "test", &e) != OK) fail_msg("%s", e.text);
    return j;
}

static void refused(const char *text, size_t n, const char *why) {
    json_t *j = (json_t *)1;
    error e = {0};
    assert_int_equal(json_parse(&j, text, n, "dir/test.json", &e), ERR_FORMAT);
    printf("%s\n", e.text);
    assert_null(j);
    assert_int_equal(strncmp(e.text, "dir/test.json: ", 15), 0);
    assert_non_null(strstr(e.text, why));
    assert_null(strchr(e.text, '\n'));
}

static void texts(void **state) {
    (void)state;
    json_t *j = parsed("{\"a\": [1, 2.5, \"x\\u0000y\", null, true], \"b\": {}}");
    const json_t *a = json_object_get(j, "a");
    assert_int_equal(json_array_size(a), 5);
    assert_int_equal(json_string_length(json_array_get(a, 2)), 3); /* zero bytes in strings are text */
    json_decref(j);
}

static void broken_texts(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",           "{",          "{\"a\":}",          "[1,]", "[1 2]",         "nul",     "{a:1}",
        "[\"\\x\"]",  "[01]",       "[\"open",           "[1]x", "[\"\\ud800\"]", "[1e999]", "[\"\n\"]",
        "[\"\xff\"]", "[\"\xc3\"]", "[\"\xed\xa0\x80\"]"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) refused(bad[i], strlen(bad[i]), "column");
    refused("{\n \"a\": 1,\n b}", 15, "line 3");
    refused("[1,\0]", 5, "line 1");
}

static void a_key_comes_once(void **state) {
    (void)state;
    static const char twice[] = "{\"a\": 1, \"b\": {\"a\": 2}, \"a\": 3}";
    refused(twice, sizeof twice - 1, "uplicate");
}

/* Deep nesting ends in an error, not in a full stack. */
static void deep_nesting(void **state) {
    (void)state;
    json_t *j;
    error e;
    for (int object = 0; object < 2; object++)
        for (int depth = 100; depth <= 1000000; depth *= 100) {
            str s = {0};
            for (int i = 0; i < depth; i++) str_puts(&s, object ? "{\"a\":" : "[");
            str_puts(&s, "1");
            for (int i = 0; i < depth; i++) str_puts(&s, object ? "}" : "]");
            status st = json_parse(&j, s.p, s.n, "deep", &e);
            assert_int_equal(st, depth == 100 ? OK : ERR_FORMAT);
            json_decref(j);
            str_free(&s);
        }
    printf("%s\n", e.text);
}

static void files_have_limits(void **state) {
    (void)state;
    char folder[] = "/tmp/hadal-test-XXXXXX", path[64];
    json_t *j = NULL;
    error e;
    str s = {0};
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/x.json", folder);
    assert_int_equal(json_read(&j, path, 100, &e), ERR_FORMAT); /* missing */
    assert_int_equal(file_save(path, "{\"a\": 1}", 8, &e), OK);
    assert_int_equal(json_read(&j, path, 7, &e), ERR_FORMAT);
    assert_null(j);
    assert_int_equal(json_read(&j, path, 8, &e), OK);
    assert_int_equal(json_integer_value(json_object_get(j, "a")), 1);
    json_decref(j);
    /* 2 MiB of "{}," would take a hundred times that. */
    str_putc(&s, '[');
    for (int i = 0; i < 700000; i++) str_puts(&s, "{},");
    str_puts(&s, "{}]");
    assert_int_equal(file_save(path, s.p, s.n, &e), OK);
    assert_int_equal(json_read(&j, path, 1 << 24, &e), ERR_FORMAT);
    printf("%s\n", e.text);
    assert_non_null(strstr(e.text, "memory"));
    assert_null(j);
    /* The same signs inside a string, an escaped quote among them, are text. */
    s.n = 0;
    str_puts(&s, "[\"\\\"");
    for (int i = 0; i < 700000; i++) str_puts(&s, "{},");
    str_puts(&s, "\"]");
    assert_int_equal(file_save(path, s.p, s.n, &e), OK);
    assert_int_equal(json_read(&j, path, 1 << 24, &e), OK);
    json_decref(j);
    str_free(&s);
    unlink(path);
    rmdir(folder);
}

static void integers(void **state) {
    (void)state;
    json_t *j = parsed("{\"i\": 7, \"r\": 3.0, \"h\": 2.5, \"s\": \"7\", \"n\": null, \"min\": -9223372036854775808,"
                       " \"big\": 1e18, \"b\": true}");
    int64_t x;
    error e;
    assert_int_equal(json_get_int(j, "i", 0, 0, 10, &x, &e), OK);
    assert_int_equal(x, 7);
    assert_int_equal(json_get_int(j, "r", 0, 0, 10, &x, &e), OK); /* 3.0 is 3 */
    assert_int_equal(x, 3);
    assert_int_equal(json_get_int(j, "absent", -5, 0, 10, &x, &e), OK); /* the default need not be in range */
    assert_int_equal(x, -5);
    assert_int_equal(json_get_int(j, "n", 4, 0, 10, &x, &e), OK); /* null is absent */
    assert_int_equal(x, 4);
    assert_int_equal(json_get_int(j, "min", 0, INT64_MIN, 0, &x, &e), OK);
    assert_true(x == INT64_MIN);
    assert_int_equal(json_get_int(j, "i", 0, 8, 10, &x, &e), ERR_FORMAT);
    assert_string_equal(e.text, "\"i\" is 7, outside 8..10");
    assert_int_equal(json_get_int(j, "i", 0, 0, 6, &x, &e), ERR_FORMAT);
    static const char *const wrong[] = {"h", "s", "big", "b"};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(json_get_int(j, wrong[i], 0, INT64_MIN, INT64_MAX, &x, &e), ERR_FORMAT);
        assert_non_null(strstr(e.text, wrong[i]));
        assert_non_null(strstr(e.text, "integer"));
    }
    json_decref(j);
}

/* In files integers that no machine has are numbers nevertheless; what only looks like one is left alone. */
static void long_integers(void **state) {
    (void)state;
    static const char text[] =

        "{\"most\": 1000000000000000019884624838656, \"less\": -99999999999999999999, \"seven\": 7,"
        " \"text\": \"1234567890123456789012 \\\" 1234567890123456789012\", \"fraction\": 1.00000000000000000000001,"
        " \"power\": 12345678901234567890123e2}";
    char path[] = "/tmp/hadal-json-XXXXXX";
    const int fd = mkstemp(path);
    json_t *j;
    error e;
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    close(fd);
    assert_int_equal(json_read(&j, path, 1 << 20, &e), OK);
    unlink(path);
    assert_true(json_real_value(json_object_get(j, "most")) == 1e30);
    assert_true(json_real_value(json_object_get(j, "less")) == -1e20);
    assert_int_equal(json_integer_value(json_object_get(j, "seven")), 7);
    assert_string_equal(json_string_value(json_object_get(j, "text")),
                        "1234567890123456789012 \" 1234567890123456789012");
    assert_true(json_real_value(json_object_get(j, "fraction")) == 1);
    assert_true(json_real_value(json_object_get(j, "power")) > 1e24);
    json_decref(j);
    assert_int_equal(json_parse(&j, text, sizeof text - 1, "not a file", &e), ERR_FORMAT);
}

static void other_types(void **state) {
    (void)state;
    json_t *j = parsed("{\"r\": 0.25, \"i\": 3, \"t\": true, \"f\": false, \"s\": \"text\", \"n\": null, \"l\": []}");
    double r;
    bool b;
    const char *s;
    error e;
    assert_int_equal(json_get_real(j, "r", 0, &r, &e), OK);
    assert_true(r == 0.25);
    assert_int_equal(json_get_real(j, "i", 0, &r, &e), OK);
    assert_true(r == 3);
    assert_int_equal(json_get_real(j, "n", 1.5, &r, &e), OK);
    assert_true(r == 1.5);
    assert_int_equal(json_get_real(j, "s", 0, &r, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "\"s\""));
    assert_int_equal(json_get_real(j, "t", 0, &r, &e), ERR_FORMAT);
    assert_int_equal(json_get_bool(j, "t", false, &b, &e), OK);
    assert_true(b);
    assert_int_equal(json_get_bool(j, "f", true, &b, &e), OK);
    assert_false(b);
    assert_int_equal(json_get_bool(j, "absent", true, &b, &e), OK);
    assert_true(b);
    assert_int_equal(json_get_bool(j, "i", true, &b, &e), ERR_FORMAT);
    assert_int_equal(json_get_string(j, "s", NULL, &s, &e), OK);
    assert_string_equal(s, "text");
    assert_int_equal(json_get_string(j, "absent", NULL, &s, &e), OK);
    assert_null(s);
    assert_int_equal(json_get_string(j, "n", "default", &s, &e), OK);
    assert_string_equal(s, "default");
    assert_int_equal(json_get_string(j, "l", "", &s, &e), ERR_FORMAT);
    json_decref(j);
}

/* A document that is no object has no members. */
static void not_an_object(void **state) {
    (void)state;
    json_t *j = parsed("[1]");
    int64_t x;
    error e;
    assert_int_equal(json_get_int(j, "a", 9, 0, 10, &x, &e), OK);
    assert_int_equal(x, 9);
    json_decref(j);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts),         cmocka_unit_test(broken_texts),      cmocka_unit_test(a_key_comes_once),
        cmocka_unit_test(deep_nesting),  cmocka_unit_test(files_have_limits), cmocka_unit_test(integers),
        cmocka_unit_test(long_integers), cmocka_unit_test(other_types),       cmocka_unit_test(not_an_object)};
    return cmocka_run_group_tests_name("base/json", tests, NULL, NULL);
}
