/* Regular expressions over texts, and lists of them over names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "base/regex.h"
#include <cmocka.h>

static int first(const regex_list *r, const char *text) {
    int which = -2;
    error e;
    if (regex_list_find(r, text, &which, &e) != OK) fail_msg("%s", e.text);
    return which;
}

static void the_first_that_is_found(void **state) {
    (void)state;
    static const char *const list[] = {".*indexer.*", "^model\\.norm", "norm\\.weight$"};
    regex_list *r;
    error e;
    assert_int_equal(regex_list_open(&r, list, 3, &e), OK);
    assert_int_equal(first(r, "model.layers.3.self_attn.indexer.wk.weight"), 0);
    assert_int_equal(first(r, "model.norm.weight"), 1);
    assert_int_equal(first(r, "model.layers.0.input_layernorm.weight"), 2);
    assert_int_equal(first(r, "model.layers.0.input_layernorm.bias"), -1);
    assert_int_equal(first(r, ""), -1);
    regex_list_close(r);
    assert_int_equal(regex_list_open(&r, NULL, 0, &e), OK);
    assert_int_equal(first(r, "x"), -1);
    regex_list_close(r);
    regex_list_close(NULL);
}

static void a_bad_one_is_named(void **state) {
    (void)state;
    static const char *const list[] = {"fine", "a(b"};
    regex_list *r = (regex_list *)1;
    error e = {0};
    assert_int_equal(regex_list_open(&r, list, 2, &e), ERR_FORMAT);
    assert_null(r);
    assert_non_null(strstr(e.text, "\"a(b\""));
    assert_non_null(strstr(e.text, "character 4"));
}

static void an_endless_search_ends(void **state) {
    (void)state;
    static const char *const list[] = {"^(a+)+$"}; /* exponential: 2^60 ways to cut 60 a's */
    regex_list *r;
    error e = {0};
    int which;
    assert_int_equal(regex_list_open(&r, list, 1, &e), OK);
    assert_int_equal(regex_list_find(r, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", &which, &e),
                     ERR_FORMAT);
    assert_non_null(strstr(e.text, "too long"));
    regex_list_close(r);
}

static int64_t count(const char *pattern, unsigned flags, const char *text, int64_t max) {
    regex *r;
    error e;
    int64_t n = -1;
    if (regex_open(&r, pattern, flags, &e) != OK || regex_count(r, text, strlen(text), max, &n, &e) != OK)
        fail_msg("%s", e.text);
    regex_close(r);
    return n;
}

static void matches_are_counted(void **state) {
    (void)state;
    assert_int_equal(count("ab", 0, "ab abab", 10), 3);
    assert_int_equal(count("ab", 0, "ab abab", 2), 2);
    assert_int_equal(count("aa", 0, "aaaa a", 10), 2); /* none overlaps another */
    assert_int_equal(count("x", 0, "", 10), 0);
    assert_int_equal(count("", REGEX_UTF, "a\xc3\xa9z", 10), 4); /* before each of 3 characters and at the end */
    assert_int_equal(count("^b", 0, "a\nb", 1), 0);
    assert_int_equal(count("^b", REGEX_LINES, "a\nb", 1), 1);
    assert_int_equal(count("^b", REGEX_LINES | REGEX_START, "a\nb", 1), 0);
    assert_int_equal(count("a.b", 0, "a\nb", 1), 0);
    assert_int_equal(count("a.b", REGEX_DOTALL, "a\nb", 1), 1);
    assert_int_equal(count("^.$", 0, "\xc3\xa9", 1), 0);         /* two bytes, */
    assert_int_equal(count("^.$", REGEX_UTF, "\xc3\xa9", 1), 1); /* one letter */
    assert_int_equal(count("^.$", REGEX_UTF, "\xff", 1), 0);     /* no letter */
    assert_int_equal(count("\\d", REGEX_UTF, "\xd9\xa3", 1), 1); /* Arabic 3 */
    regex_close(NULL);
}

static void counting_ends(void **state) {
    (void)state;
    regex *r;
    error e = {0};
    int64_t n;
    char text[64];
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = '!';
    assert_int_equal(regex_open(&r, "^(a+)+$", REGEX_UTF, &e), OK); /* exponential */
    assert_int_equal(regex_count(r, text, sizeof text - 1, 1, &n, &e), OK);
    assert_int_equal(n, 1);
    assert_int_equal(regex_count(r, text, sizeof text, 1, &n, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "too long"));
    regex_close(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_first_that_is_found), cmocka_unit_test(a_bad_one_is_named),
                                       cmocka_unit_test(an_endless_search_ends), cmocka_unit_test(matches_are_counted),
                                       cmocka_unit_test(counting_ends)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
