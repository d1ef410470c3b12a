/* The reasoning of an answer is found in whatever pieces it comes, and left out when asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "../../src/cli/answer.c" /* the program is no part of the library that tests are linked with */
#include "../../src/cli/term.c"
#include <cmocka.h> /* last: it has a fail of its own */

/* What an answer puts on stdout when it comes in pieces of `piece` bytes. */
static char *shown(const char *text, size_t piece, bool thinking, bool hide) {
    char path[] = "/tmp/hadal-answer-XXXXXX";
    int file = mkstemp(path), before = dup(STDOUT_FILENO);
    assert_true(file >= 0 && before >= 0);
    fflush(stdout);
    dup2(file, STDOUT_FILENO);
    answer a;
    answer_begin(&a, thinking, hide);
    for (size_t at = 0, n = strlen(text); at < n; at += piece)
        answer_add(&a, text + at, n - at < piece ? n - at : piece);
    answer_end(&a);
    dup2(before, STDOUT_FILENO);
    char *out = calloc(1, 4096);
    assert_true(out && pread(file, out, 4095, 0) >= 0);
    close(before);
    close(file);
    unlink(path);
    return out;
}

static void test_pieces(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool thinking, hide;
        const char *wanted;
    } cases[] = {
        {"a </thi b</think>\n\nanswer", true, false, "a </thi b</think>\n\nanswer"},
        {"a </thi b</think>\n\nanswer", true, true, "answer"},
        {"\n<think>a</think>\nb", false, true, "b"},
        {"<think>a</think>\nb", false, false, "<think>a</think>\nb"},
        {"<thin ice", false, true, "<thin ice"},
        {"<thin", false, true, "<thin"},
        {"no <think>inside</think>", false, true, "no <think>inside</think>"},
        {"never closed </think", true, true, ""},
        {"never closed </think", true, false, "never closed </think"},
        {"a</think>", true, true, ""},
        {"</think>b </think>", true, true, "b </think>"},
        {"  ", false, false, "  "},
        {"", true, false, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t piece = 1; piece < 30; piece++) {
            char *out = shown(cases[i].text, piece, cases[i].thinking, cases[i].hide);
            if (strcmp(out, cases[i].wanted) != 0)
                print_error("'%s' in pieces of %zu: '%s', wanted '%s'\n", cases[i].text, piece, out, cases[i].wanted);
            assert_string_equal(out, cases[i].wanted);
            free(out);
        }
    print_message("%zu answers, each in pieces of 1 to 29 bytes\n", sizeof cases / sizeof *cases);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pieces)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
