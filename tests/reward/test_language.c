/* The share of a language, counted by hand. */
#include "rewards.h"

static double share(const char *target, const char *text) {
    char members[64];
    snprintf(members, sizeof members, "{\"name\":\"language\",\"target\":\"%s\"}", target);
    return one(members, completion(text));
}

#define NI_HAO "\xe4\xbd\xa0\xe5\xa5\xbd"                 /* two Chinese characters */
#define RUSSIAN "\xd0\xb4\xd0\xb0"                        /* one word of two letters */
#define KANJI_KANA "\xe6\x97\xa5\xe3\x81\xae\xe3\x82\xab" /* a character, a hiragana, a katakana */

static void words_are_told_apart_by_script(void **state) {
    (void)state;
    assert_float_equal(share("en", "We add two numbers."), 1, 0);
    assert_float_equal(share("zh", "We add two numbers."), 0, 0);
    assert_float_equal(share("en", "We add " NI_HAO), 0.5, 0); /* 2 words, 2 characters */
    assert_float_equal(share("zh", "We add " NI_HAO), 0.5, 0);
    assert_float_equal(share("ru", RUSSIAN " yes " RUSSIAN), 2 / 3.0, 0);
    assert_float_equal(share("ja", KANJI_KANA), 1, 0);
    assert_float_equal(share("zh", KANJI_KANA), 1 / 3.0, 0);
    assert_float_equal(share("ko", "\xed\x95\x9c\xea\xb8\x80 ok"), 0.5, 0); /* one Korean word */
    assert_float_equal(share("de", "stra\xc3\x9f"
                                   "e"),
                       1, 0);
    assert_float_equal(share("en", "e\xcc\x81t\xc3\xa9"), 1, 0); /* a mark belongs to its word */
    assert_float_equal(share("en", "word" NI_HAO "word"), 0.5, 0);
    assert_float_equal(share("en", "\xe0\xb8\x81\xe0\xb8\x82 ok"), 0.5, 0); /* a script of no language here: Thai */
}

static void mathematics_is_of_no_language(void **state) {
    (void)state;
    assert_float_equal(share("zh", NI_HAO " x + y = \\frac{1}{2} \xcf\x80 r^2"), 1, 0);
    assert_float_equal(share("en", "1 + 2 = 3"), 0, 0);
    assert_float_equal(share("en", ""), 0, 0);
    assert_float_equal(share("en", "x"), 0, 0);
    assert_float_equal(share("en", "so \\"), 1, 0);
}

static void the_reasoning_is_looked_at(void **state) {
    (void)state;
    assert_float_equal(share("en", "<think>\nyes\n</think>\n" NI_HAO), 1, 0);
    assert_float_equal(share("en", NI_HAO "<think>yes</think>"), 1, 0);
    assert_float_equal(share("en", "yes</think>" NI_HAO), 1, 0);       /* the prompt had opened it */
    assert_float_equal(share("en", "<think>yes " NI_HAO), 1 / 3.0, 0); /* never closed */
    assert_float_equal(share("en", "<think></think>yes"), 0, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_told_apart_by_script),
        cmocka_unit_test(mathematics_is_of_no_language),
        cmocka_unit_test(the_reasoning_is_looked_at),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
