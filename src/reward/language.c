/* The share of the target language in the reasoning, which keeps a model from mixing languages (DeepSeek-R1, 2.3.2):
 *
 *   score = words of the target language / words, 0 when there are no words
 *
 * The reasoning is what stands between <think> and </think>; without <think> it begins with the text, without </think>
 * it ends with it. A word is a run of letters and marks, and is of a language when its first letter is of the
 * language's script: en and fr cannot be told apart, en and zh can. Chinese characters and kana stand one by one for
 * words, since nothing separates words there. What mathematics writes in every language does not count: single Latin
 * and Greek letters (x, and so "a" and "I"), commands behind a backslash, digits, signs. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>
#include "reward/kinds.h"
#include "text/unicode.h"

typedef enum script { LATIN, GREEK, CYRILLIC, HEBREW, ARABIC, DEVANAGARI, HAN, KANA, HANGUL, OTHER } script;

/* Blocks of the Unicode standard, without those of historical letters. */
static const struct {
    uint32_t first, last;
    script script;
} blocks[] = {
    {0x0041, 0x024F, LATIN},  {0x0370, 0x03FF, GREEK},  {0x0400, 0x052F, CYRILLIC},   {0x0590, 0x05FF, HEBREW},
    {0x0600, 0x06FF, ARABIC}, {0x0750, 0x077F, ARABIC}, {0x0900, 0x097F, DEVANAGARI}, {0x1100, 0x11FF, HANGUL},
    {0x1E00, 0x1EFF, LATIN},  {0x1F00, 0x1FFF, GREEK},  {0x3005, 0x3007, HAN},        {0x3041, 0x30FF, KANA},
    {0x3130, 0x318F, HANGUL}, {0x31F0, 0x31FF, KANA},   {0x3400, 0x4DBF, HAN},        {0x4E00, 0x9FFF, HAN},
    {0xAC00, 0xD7A3, HANGUL}, {0xF900, 0xFAFF, HAN},    {0xFB1D, 0xFB4F, HEBREW},     {0xFB50, 0xFDFF, ARABIC},
    {0xFE70, 0xFEFC, ARABIC}, {0xFF21, 0xFF5A, LATIN},  {0xFF66, 0xFF9D, KANA},       {0x20000, 0x323AF, HAN},
};

/* Languages by their codes of ISO 639-1, and the scripts that are theirs as bits. */
#define BIT(script) (1u << (script))
static const struct {
    const char *code;
    unsigned scripts;
} languages[] = {
    {"en", BIT(LATIN)},      {"de", BIT(LATIN)},    {"fr", BIT(LATIN)},           {"es", BIT(LATIN)},
    {"it", BIT(LATIN)},      {"pt", BIT(LATIN)},    {"nl", BIT(LATIN)},           {"pl", BIT(LATIN)},
    {"tr", BIT(LATIN)},      {"vi", BIT(LATIN)},    {"id", BIT(LATIN)},           {"el", BIT(GREEK)},
    {"ru", BIT(CYRILLIC)},   {"uk", BIT(CYRILLIC)}, {"bg", BIT(CYRILLIC)},        {"he", BIT(HEBREW)},
    {"ar", BIT(ARABIC)},     {"fa", BIT(ARABIC)},   {"ur", BIT(ARABIC)},          {"hi", BIT(DEVANAGARI)},
    {"mr", BIT(DEVANAGARI)}, {"zh", BIT(HAN)},      {"ja", BIT(HAN) | BIT(KANA)}, {"ko", BIT(HANGUL)},
};
enum { LANGUAGES = sizeof languages / sizeof *languages };

static script script_of(uint32_t c) {
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (c >= blocks[i].first && c <= blocks[i].last) return blocks[i].script;
    return OTHER;
}

static bool is_letter(uint32_t c) {
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}

static bool is_mark(uint32_t c) {
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k >= UTF8PROC_CATEGORY_MN && k <= UTF8PROC_CATEGORY_ME;
}

static bool stands_alone(script s) {
    return s == HAN || s == KANA;
}

/* Reads the word that begins at p with a letter of this script; returns what is behind it and how many letters it has.
 */
static const char *read_word(const char *p, const char *end, script s, int64_t *letters) {
    uint32_t c;
    *letters = 0;
    while (p < end) {
        size_t n = utf8_get(p, &c);
        if (!is_mark(c) && (!is_letter(c) || (*letters && (stands_alone(s) || stands_alone(script_of(c)))))) break;
        *letters += is_letter(c);
        p += n;
    }
    return p;
}

static double share(unsigned scripts, const char *p, const char *end) {
    int64_t words = 0, target = 0, letters;
    for (uint32_t c; p < end;) {
        size_t n = utf8_get(p, &c);
        if (!is_letter(c)) {
            p += n;
            if (c == '\\') p = read_word(p, end, LATIN, &letters);
            continue;
        }
        script s = script_of(c);
        p = read_word(p, end, s, &letters);
        if (letters == 1 && (s == LATIN || s == GREEK)) continue;
        words++;
        target += (scripts & BIT(s)) != 0;
    }
    return words ? (double)target / (double)words : 0;
}

static status open_language(void **state, const json_t *o, const reward_context *c, error *e) {
    const char *codes[LANGUAGES];
    int which;
    (void)c;
    for (int i = 0; i < LANGUAGES; i++) codes[i] = languages[i].code;
    TRY(reward_choose(o, "target", codes, LANGUAGES, 0, &which, e));
    return reward_keep(state, &languages[which].scripts, sizeof languages[which].scripts, e);
}

static status score_language(void *state, const reward_input *in, int64_t n, int64_t group, double *score, error *e) {
    (void)group, (void)e;
    for (int64_t i = 0; i < n; i++) {
        const char *text = in[i].completion, *begin = strstr(text, "<think>");
        begin = begin ? begin + strlen("<think>") : text;
        const char *end = strstr(begin, "</think>");
        score[i] = share(*(unsigned *)state, begin, end ? end : begin + strlen(begin));
    }
    return OK;
}

const reward_kind reward_language = {
    .name = "language",
    .help =
        "words of the target language in the reasoning / all its words, told apart by their script (DeepSeek-R1's "
        "language consistency). target: en (default), de, fr, es, it, pt, nl, pl, tr, vi, id, el, ru, uk, bg, he, ar, "
        "fa, ur, hi, mr, zh, ja, ko",
    .members = "target",
    .open = open_language,
    .close = free,
    .score = score_language,
};
