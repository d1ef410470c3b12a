/* Errors: one clean, terminated line whatever goes in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include "base/error.h"

static status deny(error *e, status code, const char *text) { /* before cmocka.h, whose macro is called fail, too */
    return fail(e, code, "%s", text);
}
#include <cmocka.h>

static void a_code_and_a_sentence(void **state) {
    (void)state;
    error e;
    assert_int_equal(deny(&e, ERR_IO, "disk full"), ERR_IO);
    assert_int_equal(e.code, ERR_IO);
    assert_string_equal(e.text, "disk full");
    assert_int_equal(deny(NULL, ERR_NOMEM, "nobody listens"), ERR_NOMEM);
    wrap(NULL, "nor here");
}

static void control_characters_become_question_marks(void **state) {
    (void)state;
    error e;
    deny(&e, ERR_FORMAT, "a\nb\tc\033[2Jd\177e\rf");
    assert_string_equal(e.text, "a?b?c?[2Jd?e?f");
    deny(&e, ERR_FORMAT, "gr\xc3\xbc\xc3\x9f \xe2\x82\xac"); /* letters beyond ASCII stay */
    assert_string_equal(e.text, "gr\xc3\xbc\xc3\x9f \xe2\x82\xac");
    deny(&e, ERR_FORMAT,
         "a\xc2\x9b"
         "2J\xc2\x80\xc2\xa0\xc2\xbb\xc2"); /* C1 controls; the next two are none */
    assert_string_equal(e.text, "a??2J??\xc2\xa0\xc2\xbb\xc2");
    deny(&e, ERR_FORMAT, "gr\xc3\xbc\xc3\x9f \xe2\x82\xac");
    wrap(&e, "x\033]0;y\a");
    assert_string_equal(e.text, "x?]0;y?: gr\xc3\xbc\xc3\x9f \xe2\x82\xac");
}

static void a_long_sentence_is_cut(void **state) {
    (void)state;
    char text[2000];
    error e;
    for (size_t n = sizeof e.text - 3; n < sizeof e.text + 3; n++) {
        memset(text, 'x', n);
        text[n] = 0;
        deny(&e, ERR_ARG, text);
        assert_int_equal(strlen(e.text), n < sizeof e.text ? n : sizeof e.text - 1);
        assert_memory_equal(e.text, text, strlen(e.text));
    }
}

static void wrap_keeps_code_and_sentence(void **state) {
    (void)state;
    error e;
    deny(&e, ERR_UNSUPPORTED, "inner");
    assert_int_equal(wrap(&e, "file %d", 7), ERR_UNSUPPORTED);
    assert_string_equal(e.text, "file 7: inner");
    wrap(&e, "%s", "");
    assert_string_equal(e.text, ": file 7: inner");
}

/* However long the parts are: the beginning of the context and of the sentence survive, and the end is terminated. */
static void wrap_has_room_for_both(void **state) {
    (void)state;
    char text[600], context[600];
    error e;
    for (size_t n = 0; n < sizeof text; n += 37)
        for (size_t c = 0; c < sizeof context; c += 41) {
            memset(text, 't', n), text[n] = 0;
            memset(context, 'c', c), context[c] = 0;
            deny(&e, ERR_IO, text);
            assert_int_equal(wrap(&e, "%s", context), ERR_IO);
            size_t contexts = strspn(e.text, "c"), colon = strlen(": "), texts = strspn(e.text + contexts + colon, "t");
            size_t want = n < sizeof e.text ? n : sizeof e.text - 1, room = sizeof e.text - 1 - contexts - colon;
            assert_true(contexts == c || (c > 200 && contexts > 200));
            assert_memory_equal(e.text + contexts, ": ", colon);
            assert_int_equal(texts, want < room ? want : room);
            assert_int_equal(e.text[contexts + colon + texts], 0);
        }
    for (int i = 0; i < 50; i++) wrap(&e, "level %d", i);
    assert_true(strlen(e.text) < sizeof e.text);
    assert_memory_equal(e.text, "level 49: level 48: ", 20);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_code_and_a_sentence), cmocka_unit_test(control_characters_become_question_marks),
        cmocka_unit_test(a_long_sentence_is_cut), cmocka_unit_test(wrap_keeps_code_and_sentence),
        cmocka_unit_test(wrap_has_room_for_both)};
    return cmocka_run_group_tests_name("base/error", tests, NULL, NULL);
}
