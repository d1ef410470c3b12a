#include "text/unicode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

/* Text, and what lossy decoding makes of it: Python's bytes.decode("utf-8", errors="replace"). R is U+FFFD. */
#define R "\xEF\xBF\xBD"
static const struct {
    const char *bytes, *lossy;
    int valid; /* leading bytes that are valid */
} samples[] = {
    {"", "", 0},
    {"plain", "plain", 5},
    {"\xC3\xA9", "\xC3\xA9", 2},
    {"\xF0\x9F\x90\x8B", "\xF0\x9F\x90\x8B", 4},
    {"a\xC3", "a" R, 1},
    {"\xE4\xB8", R, 0},
    {"\xE4\xB8x", R "x", 0},
    {"x\xF0\x9F\x90", "x" R, 1},
    {"\xF0\x9F\xC3\xA9", R "\xC3\xA9", 0},
    {"\x80\xBF", R R, 0},
    {"\xC0\x80", R R, 0},                /* overlong */
    {"\xE0\x9F\xBF", R R R, 0},          /* overlong */
    {"\xE0\xA0\x80", "\xE0\xA0\x80", 3}, /* U+0800 */
    {"\xED\x9F\xBF", "\xED\x9F\xBF", 3}, /* U+D7FF */
    {"\xED\xA0\x80", R R R, 0},          /* a surrogate */
    {"\xF0\x8F\xBF\xBF", R R R R, 0},    /* overlong */
    {"\xF4\x8F\xBF\xBF", "\xF4\x8F\xBF\xBF", 4},
    {"\xF4\x90\x80\x80", R R R R, 0}, /* past the last character */
    {"\xF5\xFE\xFF", R R R, 0},
    {"ab\xE4\xB8\xE4\xB8\xAD", "ab" R "\xE4\xB8\xAD", 2},
};

static void valid_utf8(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++)
        if (utf8_valid(samples[i].bytes, strlen(samples[i].bytes)) != (size_t)samples[i].valid)
            fail_msg("sample %zu: %zu", i, utf8_valid(samples[i].bytes, strlen(samples[i].bytes)));
    assert_int_equal(utf8_valid("a\0b", 3), 3);
}

/* The result does not depend on where the bytes are cut. */
static void lossy_in_pieces(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        size_t n = strlen(samples[i].bytes);
        for (size_t cut = 0; cut <= n; cut++) {
            str out = {0};
            utf8_tail tail = {0};
            utf8_lossy(&out, &tail, samples[i].bytes, cut);
            assert_int_equal(utf8_valid(out.p ? out.p : "", out.n), out.n);
            utf8_lossy(&out, &tail, samples[i].bytes + cut, n - cut);
            utf8_lossy_end(&out, &tail);
            str_add(&out, "", 0);
            assert_string_equal(out.p, samples[i].lossy);
            str_free(&out);
        }
    }
}

static void every_character(void **state) {
    (void)state;
    for (uint32_t c = 0; c <= 0x10FFFF; c++) {
        char p[4];
        uint32_t back;
        size_t n = utf8_put(p, c);
        assert_int_equal(utf8_get(p, &back), n);
        assert_int_equal(back, c);
        bool surrogate = c >= 0xD800 && c < 0xE000;
        assert_int_equal(utf8_valid(p, n), surrogate ? 0 : n);
    }
}

static void byte_alphabet(void **state) {
    (void)state;
    bool used[0x144] = {false};
    for (int b = 0; b < 256; b++) {
        uint32_t c = byte_to_letter((uint8_t)b);
        assert_true(c < 0x144 && c > ' ' && !used[c] && !is_white_space(c));
        used[c] = true;
        assert_int_equal(letter_to_byte(c), b);
    }
    for (uint32_t c = 0; c < 0x200; c++)
        if (c >= 0x144 || !used[c]) assert_int_equal(letter_to_byte(c), -1);
    assert_int_equal(byte_to_letter(' '), 0x120);
    assert_int_equal(byte_to_letter('\n'), 0x10A);
    assert_int_equal(byte_to_letter(0xAD), 0x143);
}

static void classes(void **state) {
    (void)state;
    const uint32_t space[] = {' ', '\t', '\v', 0x85, 0xA0, 0x1680, 0x2003, 0x2028, 0x3000};
    const uint32_t other[] = {'a', 0x1C, 0x180E, 0x200B, 0xFEFF};
    for (size_t i = 0; i < sizeof space / sizeof *space; i++) assert_true(is_white_space(space[i]));
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) assert_false(is_white_space(other[i]));
    const uint32_t word[] = {'a', '_', '7', 0xE9, 0x4E2D, 0x301, 0x2160, 0x24B6, 0x200D};
    const uint32_t not_word[] = {' ', '-', 0xBD, 0xB2, 0x3002, 0x1F40B};
    for (size_t i = 0; i < sizeof word / sizeof *word; i++) assert_true(is_word(word[i]));
    for (size_t i = 0; i < sizeof not_word / sizeof *not_word; i++) assert_false(is_word(not_word[i]));
}

static void check_nfc(const char *text, const char *want) {
    str out = {0};
    error e = {0};
    assert_int_equal(nfc(&out, text, strlen(text), &e), OK);
    str_add(&out, "", 0);
    assert_string_equal(out.p, want);
    if (strcmp(text, want) != 0) assert_false(text_is_nfc(text, strlen(text)));
    str_free(&out);
}

static void normalization(void **state) {
    (void)state;
    check_nfc("", "");
    check_nfc("plain \xC3\xA9", "plain \xC3\xA9");
    check_nfc("e\xCC\x81", "\xC3\xA9");
    check_nfc("\xE2\x84\xAB", "\xC3\x85");                             /* the sign of Angstrom */
    check_nfc("q\xCC\x87\xCC\xA3", "q\xCC\xA3\xCC\x87");               /* marks into order */
    check_nfc("e\xCC\xA7\xCC\x81", "\xC8\xA9\xCC\x81");                /* the cedilla goes first */
    check_nfc("\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB", "\xED\x95\x9C"); /* Hangul */
    check_nfc("\xE0\xA5\x98", "\xE0\xA4\x95\xE0\xA4\xBC");             /* excluded from composition */
    check_nfc("\xE3\x81\x8B\xE3\x82\x99", "\xE3\x81\x8C");             /* kana and its mark */
    check_nfc("\xEF\xAC\x81", "\xEF\xAC\x81");                         /* a ligature stays */
    assert_true(text_is_nfc("caf\xC3\xA9 \xE4\xB8\xAD", 9));
}

/* A run of marks as long as the text must not take quadratic time. */
static void long_run_of_marks(void **state) {
    (void)state;
    enum { PAIRS = 100000 };
    str text = {0}, out = {0};
    error e = {0};
    str_putc(&text, 'q');
    for (int i = 0; i < PAIRS; i++) str_puts(&text, "\xCC\x87\xCC\xA3");
    assert_int_equal(nfc(&out, text.p, text.n, &e), OK);
    assert_int_equal(out.n, text.n);
    for (int i = 0; i < 2 * PAIRS; i++) assert_memory_equal(out.p + 1 + 2 * i, i < PAIRS ? "\xCC\xA3" : "\xCC\x87", 2);
    str_free(&text);
    str_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(valid_utf8),        cmocka_unit_test(lossy_in_pieces), cmocka_unit_test(every_character),
        cmocka_unit_test(byte_alphabet),     cmocka_unit_test(classes),         cmocka_unit_test(normalization),
        cmocka_unit_test(long_run_of_marks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
