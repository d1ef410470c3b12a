/* Escapes, human units and the progress line's arithmetic. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "../../src/cli/term.c" /* the program is no part of the library that tests are linked with */
#include <cmocka.h>             /* last: it has a fail of its own */

static void escaped(const char *text, size_t n, const char *wanted) {
    str s = {0};
    term_escape(&s, text, n);
    assert_string_equal(s.p ? s.p : "", wanted);
    str_free(&s);
}

static void test_escape(void **state) {
    (void)state;
    escaped("plain\n\ttext", 11, "plain\n\ttext");
    escaped("\033[31mred\033[0m", 12, "\\x1b[31mred\\x1b[0m");
    escaped("a\rb\x7f\a", 5, "a\\rb\\x7f\\x07");
    escaped("a\0b", 3, "a\\x00b");
    escaped("\xc2\x9b"
            "31m \xc2\xa0 \xe2\x82\xac \xc3\x9b",
            15,
            "\\u009b31m \xc2\xa0 \xe2\x82\xac \xc3\x9b"); /* CSI as one character; no-break space, euro, U+00DB stay */
    escaped("\xc2", 1, "\xc2");
}

static void human_is(void (*f)(str *, double), double v, const char *wanted) {
    str s = {0};
    f(&s, v);
    assert_string_equal(s.p, wanted);
    str_free(&s);
}

static void test_units(void **state) {
    (void)state;
    human_is(human_bytes, 0, "0 B");
    human_is(human_bytes, 1023, "1023 B");
    human_is(human_bytes, 1536, "1.50 KiB");
    human_is(human_bytes, 27.5 * 1073741824, "27.5 GiB");
    human_is(human_bytes, 5e18, "4441 PiB");
    human_is(human_count, 671e9, "671 B");
    human_is(human_count, 12, "12");
    human_is(human_count, 1234567, "1.23 M");
    human_is(human_time, 59.6, "1:00");
    human_is(human_time, 3661, "1:01:01");
    human_is(human_time, 1e300, "99:59:59");
}

static void test_progress_cancels(void **state) {
    (void)state;
    progress p = {0};
    assert_int_equal(progress_call(&p, 0, 10, "work"), 0);
    term_catch_interrupt();
    raise(SIGINT);
    assert_int_equal(progress_call(&p, 1, 10, "work"), 1);
    assert_int_equal(progress_call(&p, 0, 0, NULL), 1);
    term_interrupts = 0;
    assert_int_equal(progress_call(&p, 2, 10, "work"), 0);
    progress_end(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_escape), cmocka_unit_test(test_units),
                                       cmocka_unit_test(test_progress_cancels)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
