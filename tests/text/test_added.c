#include "text/added.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/str.h"

static void add(added_set *s, added_token t) {
    error e = {0};
    t.n = strlen(t.text);
    assert_int_equal(added_add(s, &t, &e), OK);
}

static void open_set(added_set *s) {
    *s = (added_set){0};
    add(s, (added_token){.text = "<a>", .id = 1, .special = true});
    add(s, (added_token){.text = "<a><b>", .id = 2});
    add(s, (added_token){.text = "<b>", .id = 3});
    add(s, (added_token){.text = "<l>", .id = 4, .lstrip = true});
    add(s, (added_token){.text = "<r>", .id = 5, .rstrip = true});
    add(s, (added_token){.text = "w", .id = 6, .single_word = true});
    add(s, (added_token){.text = "\xC3\xB8", .id = 7});
    added_sort(s);
}

/* Matches as "id:start-end" with spaces between. */
static void check(const added_set *s, const char *text, bool plain, const char *want) {
    str got = {0};
    size_t from = 0, done = 0;
    added_match m;
    while (added_next(s, text, strlen(text), plain, &from, done, &m)) {
        str_addf(&got, "%s%d:%zu-%zu", got.n ? " " : "", m.id, m.start, m.end);
        done = m.end;
    }
    if (strcmp(got.p ? got.p : "", want) != 0)
        fail_msg("\"%s\" plain %d: got \"%s\", want \"%s\"", text, plain, got.p ? got.p : "", want);
    str_free(&got);
}

static void matches(void **state) {
    (void)state;
    added_set s;
    open_set(&s);
    check(&s, "", false, "");
    check(&s, "no token <", false, "");
    check(&s, "x<a>y<b>", false, "1:1-4 3:5-8");
    check(&s, "x<a>y<b>", true, "3:5-8");
    check(&s, "<a><b>", false, "2:0-6"); /* the longest */
    check(&s, "<a><a><b", false, "1:0-3 1:3-6");
    check(&s, "<a><a><b", true, "");
    check(&s, "a \xE3\x80\x80<l> b", false, "4:1-8");
    check(&s, "a <r> \n b", false, "5:2-8");
    check(&s, "<r> <l>", false, "5:0-4 4:4-7"); /* the space is taken once */
    check(&s, "<l> <r>", false, "4:0-3 5:4-7");
    check(&s, "w ww aw w", false, "6:0-1 6:8-9");
    check(&s, "-w-\xC3\xA9w", false, "6:1-2");
    check(&s, "s\xC3\xB8\xC3\xA9", false, "7:1-3");
    added_free(&s);
}

static void empty_and_too_long(void **state) {
    (void)state;
    added_set s = {0};
    check(&s, "text", false, "");
    char *text = malloc(2001);
    assert_non_null(text);
    memset(text, 'a', 2000);
    text[2000] = 0;
    error e = {0};
    assert_int_equal(added_add(&s, &(added_token){.text = text, .n = 2000}, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.text, "2000 bytes"));
    free(text);
    added_free(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(matches), cmocka_unit_test(empty_and_too_long)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
