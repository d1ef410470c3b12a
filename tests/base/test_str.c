/* Growing strings: always terminated, any bytes, and a failure that stays until the owner looks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/str.h"
#include <cmocka.h>

static void grows_and_stays_terminated(void **state) {
    (void)state;
    str s = {0};
    error e;
    for (int i = 0; i < 5000; i++) {
        str_putc(&s, (char)('a' + i % 26));
        assert_int_equal(s.n, i + 1);
        assert_int_equal(s.p[s.n], 0);
        assert_true(s.cap > s.n);
    }
    for (int i = 0; i < 5000; i++) assert_int_equal(s.p[i], 'a' + i % 26);
    assert_int_equal(str_check(&s, &e), OK);
    str_free(&s);
    assert_null(s.p);
    assert_int_equal(s.n, 0);
}

static void bytes_text_and_formats(void **state) {
    (void)state;
    str s = {0};
    str_add(&s, "x\0y", 3);
    str_add(&s, NULL, 0);
    str_puts(&s, "");
    str_puts(&s, "-z");
    assert_int_equal(s.n, 5);
    assert_memory_equal(s.p, "x\0y-z", 6);
    s.n = 0;
    str_addf(&s, "%d %s", 42, "fish");
    str_addf(&s, "%s", "");
    assert_string_equal(s.p, "42 fish");
    s.n = 0;
    str_addf(&s, "%0*d|", 1000, 7); /* longer than what is there */
    str_addf(&s, "%%");
    assert_int_equal(s.n, 1002);
    assert_string_equal(s.p + 998, "07|%");
    str_free(&s);
}

static void take_hands_over(void **state) {
    (void)state;
    str s = {0};
    char *p = str_take(&s); /* nothing is "" */
    assert_string_equal(p, "");
    free(p);
    str_puts(&s, "mine");
    p = str_take(&s);
    assert_string_equal(p, "mine");
    assert_null(s.p);
    assert_int_equal(s.n + s.cap, 0);
    free(p);
    str_puts(&s, "again");
    assert_string_equal(s.p, "again");
    str_free(&s);
}

static void a_failure_stays(void **state) {
    (void)state;
    str s = {0};
    error e;
    str_puts(&s, "before");
    str_add(&s, "", SIZE_MAX); /* no memory has that: nothing is read */
    assert_true(s.failed);
    str_puts(&s, "after");
    str_addf(&s, "%d", 1);
    assert_string_equal(s.p, "before");
    assert_int_equal(s.n, 6);
    assert_int_equal(str_check(&s, &e), ERR_NOMEM);
    assert_null(str_take(&s));
    assert_false(s.failed); /* and it may be used again */
    str_puts(&s, "new");
    assert_string_equal(s.p, "new");
    str_free(&s);
    str_add(&s, "", SIZE_MAX / 2);
    assert_true(s.failed);
    str_free(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(grows_and_stays_terminated),
                                       cmocka_unit_test(bytes_text_and_formats), cmocka_unit_test(take_hands_over),
                                       cmocka_unit_test(a_failure_stays)};
    return cmocka_run_group_tests_name("base/str", tests, NULL, NULL);
}
