/* libFuzzer target: a right answer, a line's end, a given one (or any text to find answers in). Nothing is wrong
 * against itself, a blank changes nothing, and what is found stands in the text. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "reward/answer.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void look(const char *text) {
    str s = {0};
    for (int place = ANSWER_BOXED; place <= ANSWER_ANY; place++)
        if (answer_find(text, (answer_place)place, &s) && place != ANSWER_LETTER && !strstr(text, s.p)) abort();
    if (answer_gsm8k(text, true, &s) && !strstr(text, s.p)) abort();
    if (answer_gsm8k(text, false, &s) && strspn(s.p, "-.0123456789") != s.n) abort();
    str_free(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    str text = {0}, spaced = {0};
    str_add(&text, (const char *)p, n);
    char *given = strchr(text.p, '\n');
    if (given) *given++ = 0;
    else given = text.p;
    str_addf(&spaced, " %s ", given);
    verdict v = answer_equal(text.p, given);
    if (answer_equal(text.p, text.p) == WRONG || answer_equal(given, given) == WRONG) abort();
    if (strlen(given) < 4000 && answer_equal(text.p, spaced.p) != v) abort();
    look(given);
    str_free(&text);
    str_free(&spaced);
    return 0;
}
