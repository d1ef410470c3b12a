#include "text/pretokenize.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/str.h"

#define BYTES "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"
#define SPLIT(regex, behavior) \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"},\"behavior\":\"" behavior "\"}"
#define INVERTED(regex, behavior) \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"},\"behavior\":\"" behavior "\",\"invert\":true}"
#define STAGES(list) "{\"type\":\"Sequence\",\"pretokenizers\":[" list "]}"
#define ONE(split) STAGES(split "," BYTES)

/* What the Hugging Face library makes of each: words with | between. */
static const struct {
    const char *spec, *text, *want;
} samples[] = {
    {BYTES, "", ""},
    {BYTES, "a b", "a b"},
    {ONE(SPLIT("-", "Isolated")), "-a--b-", "-|a|-|-|b|-"},
    {ONE(SPLIT("-", "Removed")), "-a--b-", "a|b"},
    {ONE(SPLIT("-", "Contiguous")), "-a--b-", "-|a|--|b|-"},
    {ONE(SPLIT("-", "MergedWithPrevious")), "-a--b-", "-|a-|-|b-"},
    {ONE(SPLIT("-", "MergedWithNext")), "-a--b-", "-a|-|-b|-"},
    {ONE(INVERTED("-", "Removed")), "-a--b-", "-|-|-|-"},
    {ONE(INVERTED("-", "MergedWithNext")), "-a--b-", "-|a-|-|b-"},
    {ONE(SPLIT("x*", "Isolated")), "axxb", "a|xx|b"},
    {ONE(SPLIT("(?=b)", "Isolated")), "abcb", "a|bc|b"},
    {ONE(SPLIT("\\\\s+$", "Isolated")), " a  \\n b  ", " a|  |\n b|  "},
    {ONE(SPLIT("^a", "Isolated")), "a\\na", "a|\n|a"},
    {ONE(SPLIT("\\\\s", "Isolated")),
     "a\xE1\xA0\x8E"
     "b\xC2\x85"
     "c",
     "a\xE1\xA0\x8E"
     "b|\xC2\x85|c"}, /* U+180E is none */
    {ONE(SPLIT("\\\\S+", "Isolated")), "a b", "a| |b"},
    {ONE(SPLIT("\\\\p{N}{1,3}", "Isolated")), "x12345", "x|123|45"},
    {ONE(SPLIT("(?i:'s)", "Isolated")), "a'Sb", "a|'S|b"},
    {ONE(SPLIT("\\\\u4e2d", "Isolated")),
     "a\xE4\xB8\xAD"
     "b",
     "a|\xE4\xB8\xAD|b"},
    {ONE("{\"type\":\"Split\",\"pattern\":{\"String\":\"a.\"},\"behavior\":\"Isolated\"}"), "aba.b", "ab|a.|b"},
    {ONE("{\"type\":\"Digits\",\"individual_digits\":true}"), "a12\xC2\xBD", "a|1|2|\xC2\xBD"},
    {ONE("{\"type\":\"Digits\",\"individual_digits\":false}"), "a12b", "a|12|b"},
    {STAGES(SPLIT("-", "Removed") ",{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":true}"),
     "it's 12-a b", " it|'s| 12| a| b"},
    {"{\"type\":\"ByteLevel\"}", "  a  ", " | a|  "},
    {STAGES(SPLIT("\\\\p{N}{1,3}", "Isolated") "," SPLIT("[\\u4e00-\\u9fa5]+", "Isolated") "," SPLIT(
         " ?\\\\p{L}+|\\\\s+", "Isolated") "," BYTES),
     "in 2024\xE5\xB9\xB4 we", "in| |202|4|\xE5\xB9\xB4| we"},
};

static status add_word(void *arg, const char *word, size_t n, error *e) {
    str *s = arg;
    (void)e;
    assert_true(n > 0);
    if (s->n) str_putc(s, '|');
    str_add(s, word, n);
    return OK;
}

static void cuts(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        json_t *spec;
        pretokenizer *p;
        word_cutter *c;
        error e = {0};
        str text = {0}, got = {0};
        for (const char *s = samples[i].text; *s; s++) { /* \n is written as two characters above */
            if (s[0] == '\\' && s[1] == 'n') str_putc(&text, '\n'), s++;
            else str_putc(&text, *s);
        }
        assert_int_equal(json_parse(&spec, samples[i].spec, strlen(samples[i].spec), "spec", &e), OK);
        if (pretokenizer_open(&p, spec, &e) != OK) fail_msg("%s: %s", samples[i].spec, e.text);
        json_decref(spec);
        arena *keep = arena_open(100);
        assert_int_equal(word_cutter_open(&c, p, &e), OK);
        assert_int_equal(cut_words(c, text.p ? text.p : "", text.n, keep, add_word, &got, &e), OK);
        if (strcmp(got.p ? got.p : "", samples[i].want) != 0)
            fail_msg("%s of \"%s\": got \"%s\", want \"%s\"", samples[i].spec, text.p, got.p, samples[i].want);
        word_cutter_close(c);
        pretokenizer_close(p);
        arena_close(keep);
        str_free(&text);
        str_free(&got);
    }
}

static const struct {
    const char *spec;
    status code;
    const char *says;
} refused[] = {
    {"null", ERR_UNSUPPORTED, "pre_tokenizer"},
    {"7", ERR_UNSUPPORTED, "pre_tokenizer"},
    {"{\"type\":\"Whitespace\"}", ERR_UNSUPPORTED, "Whitespace"},
    {"{\"type\":7}", ERR_FORMAT, "type"},
    {STAGES(""), ERR_UNSUPPORTED, "ByteLevel is missing"},
    {"{\"type\":\"Sequence\"}", ERR_FORMAT, "pretokenizers"},
    {STAGES(BYTES "," BYTES), ERR_UNSUPPORTED, "after ByteLevel"},
    {ONE(SPLIT("a", "Sideways")), ERR_UNSUPPORTED, "Sideways"},
    {ONE("{\"type\":\"Split\",\"behavior\":\"Isolated\"}"), ERR_FORMAT, "pattern"},
    {ONE("{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"a\\u0000b\"}}"), ERR_UNSUPPORTED,
     "zero"},
    {ONE(SPLIT("(", "Isolated")), ERR_FORMAT, "regular expression ("},
    {ONE(SPLIT("[a", "Isolated")), ERR_UNSUPPORTED, "without an end"},
    {ONE(SPLIT("\\\\", "Isolated")), ERR_UNSUPPORTED, "escape"},
    {ONE(SPLIT("\\\\w", "Isolated")), ERR_UNSUPPORTED, "escape"},
    {ONE(SPLIT("\\\\h", "Isolated")), ERR_UNSUPPORTED, "escape"},
    {ONE(SPLIT("a\\\\Kb", "Isolated")), ERR_UNSUPPORTED, "escape"},
    {ONE(SPLIT("[a[b]]", "Isolated")), ERR_UNSUPPORTED, "class inside"},
    {ONE(SPLIT("[a&&b]", "Isolated")), ERR_UNSUPPORTED, "intersection"},
    {ONE(SPLIT("[]a]", "Isolated")), ERR_UNSUPPORTED, "empty class"},
    {ONE(SPLIT("(*COMMIT)a", "Isolated")), ERR_UNSUPPORTED, "group"},
    {ONE(SPLIT("(?<n>a)", "Isolated")), ERR_UNSUPPORTED, "group"},
    {ONE(SPLIT("a{,3}", "Isolated")), ERR_UNSUPPORTED, "repetition"},
    {ONE(SPLIT("a{2}+", "Isolated")), ERR_UNSUPPORTED, "repetition"},
    {ONE(SPLIT("\\\\p{Nonsense}", "Isolated")), ERR_FORMAT, "Nonsense"},
    {ONE(SPLIT("\\\\p{L", "Isolated")), ERR_UNSUPPORTED, "name"},
};

static void refusals(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        json_t *spec;
        pretokenizer *p;
        json_error_t je;
        error e = {0};
        spec = json_loads(refused[i].spec, JSON_DECODE_ANY | JSON_ALLOW_NUL, &je);
        assert_non_null(spec);
        status s = pretokenizer_open(&p, spec, &e);
        if (s != refused[i].code || !strstr(e.text, refused[i].says))
            fail_msg("%s: %d \"%s\", want %d \"%s\"", refused[i].spec, s, e.text, refused[i].code, refused[i].says);
        assert_null(p);
        json_decref(spec);
    }
}

/* A pattern of exponential time ends with an error. */
static void hostile_pattern(void **state) {
    (void)state;
    const char spec_text[] = ONE(SPLIT("(?:a|a)*(?:a|aa)*[bc]", "Isolated"));
    char text[200];
    memset(text, 'a', sizeof text);
    json_t *spec;
    pretokenizer *p;
    word_cutter *c;
    error e = {0};
    str got = {0};
    assert_int_equal(json_parse(&spec, spec_text, sizeof spec_text - 1, "spec", &e), OK);
    assert_int_equal(pretokenizer_open(&p, spec, &e), OK);
    assert_int_equal(word_cutter_open(&c, p, &e), OK);
    assert_int_equal(cut_words(c, text, sizeof text, NULL, add_word, &got, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.text, "gave up"));
    word_cutter_close(c);
    pretokenizer_close(p);
    json_decref(spec);
    str_free(&got);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(cuts), cmocka_unit_test(refusals),
                                       cmocka_unit_test(hostile_pattern)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
