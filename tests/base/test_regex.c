/* Lists of regular expressions over names. */
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

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_first_that_is_found), cmocka_unit_test(a_bad_one_is_named),
                                       cmocka_unit_test(an_endless_search_ends)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
