/* Grammars of answers: masks against every token tried, objects, reasoning, tool calls that round-trip through the
 * reader of answers, what is refused, and the real vocabularies. */
#include "text/grammar.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "grammar_probe.h"
#include "text/toolcall.h"

#include <cmocka.h>

#define TOOLS                                                                                                          \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"parameters\":{\"type\":\"object\","    \
    "\"properties\":{\"city\":{\"type\":\"string\"},\"unit\":{\"enum\":[\"C\",\"F\"]},\"days\":{\"type\":\"integer\"," \
    "\"minimum\":1,\"maximum\":9},\"tags\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}}},"                     \
    "\"required\":[\"city\",\"days\"]}}},{\"name\":\"now\",\"parameters\":{\"type\":\"object\",\"properties\":{}}}]"
#define SPEC(choice, more) "{\"type\":\"tools\",\"choice\":\"" choice "\"," TOOLS more "}"

static const char *const formats[] = {"deepseek-v3", "deepseek-r1", "deepseek-v3.1", "deepseek-v3.2"};

/* ---- masks ---- */

/* After each byte of the text the mask is what grammar_take takes, token by token. */
static void check_masks(const probe *p, const char *spec, const char *format, const char *text, size_t from) {
    grammar *g;
    error e;
    const int32_t vocab = tokenizer_vocab_size(p->t);
    if (probe_grammar(p, spec, format, &g, &e) != OK) printf("%s\n", e.text);
    assert_non_null(g);
    grammar_state *s;
    assert_int_equal(grammar_begin(&s, g, &e), OK);
    for (size_t n = 0; n <= strlen(text); n++) {
        uint32_t mask[32];
        if (n) assert_int_equal(grammar_take(s, (uint8_t)text[n - 1], &e), OK);
        assert_int_equal(grammar_mask(s, &p->eos, 1, mask, 32, &e), OK);
        for (int32_t id = 0; id < vocab && n >= from; id++) {
            grammar_state *try;
            uint32_t first[32]; /* tells it the end tokens */
            assert_int_equal(grammar_begin(&try, g, &e), OK);
            assert_int_equal(grammar_mask(try, &p->eos, 1, first, 32, &e), OK);
            for (size_t i = 0; i < n; i++) assert_int_equal(grammar_take(try, (uint8_t)text[i], &e), OK);
            bool taken = grammar_take(try, id, &e) == OK, set = mask[id / 32] >> (id % 32) & 1;
            if (taken != set) printf("%s after %.*s: token %d\n", spec, (int)n, text, id);
            assert_int_equal(taken, set);
            grammar_end(try);
        }
        for (int32_t id = vocab; id < 1024; id++) assert_false(mask[id / 32] >> (id % 32) & 1);
    }
    grammar_end(s);
    grammar_close(g);
}

static void test_masks(void **state) {
    (void)state;
    probe p;
    probe_open(&p, true);
    check_masks(&p, "{\"type\":\"json_object\"}", "plain", "{\"a\": [1.5, \"\xe4\xb8\xad\\u00e9\", true],\n  \"b\":{}}",
                0);
    check_masks(&p,
                "{\"type\":\"json_schema\",\"schema\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\","
                "\"minLength\":2,\"maxLength\":4},\"b\":{\"type\":\"number\",\"maximum\":20}},\"required\":[\"b\"]}}",
                "plain", "{\"a\":\"ab\",\"b\":12.5}", 0);
    check_masks(&p, "{\"type\":\"json_object\"}", "plain", "{\"a\":{\"b\":[{\"a\":{}}]},\"b\":\"a\",\"c\":{\"b\":1},\"",
                20);
    check_masks(&p, "{\"type\":\"json_object\",\"thinking\":true}", "plain", "so </thin</think>\n\n{\"a\":1}", 0);
    check_masks(&p, SPEC("auto", ""), "deepseek-v3.1", "<｜tool▁calls▁be hm <｜tool▁calls▁begin｜>", 30);
    check_masks(&p, SPEC("auto", ""), "deepseek-v3.2", "a <｜DSML｜function_calls>\n", 20);
    probe_close(&p);
}

/* The state after a token that was refused is as before. */
static void test_refused_token(void **state) {
    (void)state;
    probe p;
    grammar *g;
    grammar_state *s;
    error e;
    probe_open(&p, false);
    assert_int_equal(probe_grammar(&p, "{\"type\":\"json_object\"}", "plain", &g, &e), OK);
    assert_int_equal(grammar_begin(&s, g, &e), OK);
    assert_int_equal(grammar_take(s, '[', &e), ERR_ARG);
    assert_int_equal(grammar_take(s, -1, &e), ERR_ARG);
    assert_int_equal(grammar_take(s, 100000, &e), ERR_ARG);
    uint32_t mask[32];
    assert_int_equal(grammar_mask(s, &p.eos, 1, mask, 32, &e), OK);
    assert_int_equal(grammar_take(s, p.eos, &e), ERR_ARG);
    assert_int_equal(grammar_take(s, '{', &e), OK);
    assert_int_equal(grammar_take(s, p.eos, &e), ERR_ARG);
    assert_false(grammar_complete(s));
    assert_int_equal(grammar_take(s, '}', &e), OK);
    assert_true(grammar_complete(s));
    assert_int_equal(grammar_mask(s, &p.eos, 1, mask, 32, &e), OK);
    for (int32_t id = 0; id < 1024; id++) assert_int_equal(mask[id / 32] >> (id % 32) & 1, id == p.eos);
    assert_int_equal(grammar_take(s, ' ', &e), ERR_ARG);
    assert_int_equal(grammar_take(s, p.eos, &e), OK);
    assert_true(grammar_complete(s));
    grammar_end(s);
    grammar_close(g);
    probe_close(&p);
}

/* However long an answer grows, arrays in arrays end in time and places are forgotten without harm. */
static void test_long(void **state) {
    (void)state;
    probe p;
    grammar *g;
    grammar_state *s;
    error e;
    uint32_t mask[32];
    int depth = 0;
    probe_open(&p, false);
    assert_int_equal(probe_grammar(&p, "{\"type\":\"json_schema\",\"schema\":true}", "plain", &g, &e), OK);
    assert_int_equal(grammar_begin(&s, g, &e), OK);
    while (depth < 5000 && grammar_take(s, '[', &e) == OK) depth++;
    assert_int_equal(depth, 128);
    for (int i = 0; i < 3000; i++) {
        const char *item = i ? ",\"x\"" : "\"x\"";
        for (; *item; item++) assert_int_equal(grammar_take(s, *item, &e), OK);
        if (i % 500 == 0) assert_int_equal(grammar_mask(s, &p.eos, 1, mask, 32, &e), OK);
    }
    while (depth--) assert_int_equal(grammar_take(s, ']', &e), OK);
    assert_true(grammar_complete(s));
    grammar_end(s);
    grammar_close(g);
    assert_int_equal(probe_grammar(&p,
                                   "{\"type\":\"json_schema\",\"schema\":{\"type\":\"string\",\"minLength\":9000,"
                                   "\"maxLength\":20000}}",
                                   "plain", &g, &e),
                     OK);
    assert_int_equal(grammar_begin(&s, g, &e), OK);
    assert_int_equal(grammar_take(s, '"', &e), OK);
    for (int i = 0; i < 20000; i++) {
        assert_int_equal(grammar_take(s, 'a' + i % 7, &e), OK);
        if (i % 1999) continue;
        assert_int_equal(grammar_mask(s, &p.eos, 1, mask, 32, &e), OK);
        assert_int_equal(mask['"' / 32] >> ('"' % 32) & 1, i + 1 >= 9000);
    }
    assert_int_equal(grammar_take(s, 'a', &e), ERR_ARG);
    assert_int_equal(grammar_take(s, '"', &e), OK);
    assert_true(grammar_complete(s));
    grammar_end(s);
    grammar_close(g);
    probe_close(&p);
}

/* ---- texts ---- */

#define V31(name, json) "<｜tool▁call▁begin｜>" name "<｜tool▁sep｜>" json "<｜tool▁call▁end｜>"
#define V3(name, json) "<｜tool▁call▁begin｜>function<｜tool▁sep｜>" name "\n```json\n" json "\n```<｜tool▁call▁end｜>"
#define BEGIN "<｜tool▁calls▁begin｜>"
#define END "<｜tool▁calls▁end｜>"
#define D "｜DSML｜"
#define V32(name, parameters) "<" D "invoke name=\"" name "\">\n" parameters "</" D "invoke>\n"
#define ARG(name, string, v) "<" D "parameter name=\"" name "\" string=\"" string "\">" v "</" D "parameter>\n"
#define V32_BEGIN "<" D "function_calls>\n"
#define V32_END "</" D "function_calls>"

static const struct {
    const char *spec, *format, *text;
    bool accepted;
} texts[] = {
    {"{\"type\":\"json_object\"}", "plain", "{\"a\":[{}, null], \"é\":\"\\ud83d\\ude00\"}", true},
    {"{\"type\":\"json_object\"}", "plain", "[1]", false},
    {"{\"type\":\"json_object\"}", "plain", "{\"\":{\"a\":1,\"b\":[{\"a\":1}]},\"a\":1}", true},
    {"{\"type\":\"json_object\"}", "plain", "{\"a\":{},\"a\":1}", false},
    {"{\"type\":\"json_object\"}", "plain", "{\"\":1,\"\":1}", false},
    {"{\"type\":\"json_object\",\"thinking\":true}", "plain", "{\"a\":1,\"a\":1}</think>{\"a\":1,\"b\":1}", true},
    {"{\"type\":\"json_object\",\"thinking\":true}", "plain", "hm</think>{\"a\":1,\"a\":1}", false},
    {"{\"type\":\"tools\",\"tools\":[{\"name\":\"f\"}]}", "deepseek-v3.1",
     "\"{\"" BEGIN V31("f", "{\"a\":1,\"b\":1}") END, true},
    {"{\"type\":\"tools\",\"tools\":[{\"name\":\"f\"}]}", "deepseek-v3.1",
     "\"{\"" BEGIN V31("f", "{\"a\":1,\"a\":1}") END, false},
    {"{\"type\":\"json_object\"}", "plain", "{\"a\":1} ", false},
    {"{\"type\":\"json_object\"}", "plain", "{\"a\":1,   \"b\":2}", false},
    {"{\"type\":\"json_object\"}", "plain", "{\n\n}", false},
    {"{\"type\":\"json_object\",\"thinking\":true}", "plain", "let me see</think>\n{}", true},
    {"{\"type\":\"json_object\",\"thinking\":true}", "plain", "</think>{}", true},
    {"{\"type\":\"json_object\",\"thinking\":true}", "plain", "{}", false},
    {"{\"type\":\"json_object\",\"thinking\":true}", "plain", "a</think>b", false},
    {SPEC("required", ""), "deepseek-v3.1", BEGIN V31("get_weather", "{\"city\": \"杭州\", \"days\":3}") END, true},
    {SPEC("required", ""), "deepseek-v3.1", BEGIN V31("now", "{}") V31("now", "{}") END, true},
    {SPEC("required", ",\"parallel\":false"), "deepseek-v3.1", BEGIN V31("now", "{}") END, true},
    {SPEC("required", ",\"parallel\":false"), "deepseek-v3.1", BEGIN V31("now", "{}") V31("now", "{}") END, false},
    {SPEC("required", ""), "deepseek-v3.1", BEGIN V31("get_weather", "{\"city\": \"a\"}") END, false},
    {SPEC("required", ""), "deepseek-v3.1", BEGIN V31("get_weather", "{\"city\":\"a\",\"days\":10}") END, false},
    {SPEC("required", ""), "deepseek-v3.1", BEGIN V31("get_weather", "{\"city\":\"｜\",\"days\":1}") END, false},
    {SPEC("required", ""), "deepseek-v3.1", BEGIN V31("get_weather", "{\"city\":\"\\uff5c\",\"days\":1}") END, true},
    {SPEC("required", ""), "deepseek-v3.1", BEGIN V31("other", "{}") END, false},
    {SPEC("required", ""), "deepseek-v3.1", BEGIN END, false},
    {SPEC("required", ""), "deepseek-v3.1", "text " BEGIN V31("now", "{}") END, false},
    {SPEC("required", ",\"thinking\":true"), "deepseek-v3.1", "hm</think>" BEGIN V31("now", "{}") END, true},
    {SPEC("now", ""), "deepseek-v3.1", BEGIN V31("now", "{}") END, true},
    {SPEC("now", ""), "deepseek-v3.1", BEGIN V31("get_weather", "{\"city\":\"a\",\"days\":1}") END, false},
    {SPEC("auto", ""), "deepseek-v3.1", "Just text.", true},
    {SPEC("auto", ""), "deepseek-v3.1", "", true},
    {SPEC("auto", ""), "deepseek-v3.1", "So: " BEGIN V31("now", "{}") END, true},
    {SPEC("auto", ""), "deepseek-v3.1", "So: " BEGIN "x", false},
    {SPEC("auto", ""), "deepseek-v3.1", "So: " BEGIN V31("now", "{}"), false},
    {SPEC("auto", ""), "deepseek-v3.1", "So: " V31("now", "{}") END, true},
    {SPEC("auto", ""), "deepseek-v3.1", "So: " BEGIN V31("now", "{}") END "more", false},
    {SPEC("auto", ",\"thinking\":true"), "deepseek-v3.1", "hm", false},
    {SPEC("auto", ",\"thinking\":true"), "deepseek-v3.1", "hm</think>Text", true},
    {SPEC("required", ""), "deepseek-v3", BEGIN V3("now", "{}") "\n" V3("now", "{}") END, true},
    {SPEC("required", ""), "deepseek-r1", BEGIN V3("get_weather", "{\"city\":\"a\",\"days\":2}") END, true},
    {SPEC("required", ""), "deepseek-v3", BEGIN V31("now", "{}") END, false},
    {SPEC("required", ""), "deepseek-v3.2", "\n\n" V32_BEGIN V32("now", "") V32_END, true},
    {SPEC("required", ""), "deepseek-v3.2",
     V32_BEGIN V32("get_weather", ARG("city", "true", "a \"b\"\n</x> ｜ 中") ARG("unit", "true", "C")
                                      ARG("days", "false", "5") ARG("tags", "false", "[\"a\", \"b\"]")) V32_END,
     true},
    {SPEC("required", ""), "deepseek-v3.2", V32_BEGIN V32("get_weather", ARG("city", "true", "a")) V32_END, false},
    {SPEC("required", ""), "deepseek-v3.2",
     V32_BEGIN V32("get_weather", ARG("city", "false", "1") ARG("days", "false", "5")) V32_END, false},
    {SPEC("required", ""), "deepseek-v3.2",
     V32_BEGIN V32("get_weather", ARG("city", "true", "a") ARG("unit", "true", "K") ARG("days", "false", "5")) V32_END,
     false},
    {SPEC("auto", ""), "deepseek-v3.2", "Hm.\n\n" V32_BEGIN V32("now", "") V32_END, true},
    {SPEC("auto", ""), "deepseek-v3.2", "Hm.\n\n" V32_BEGIN "no", false},
};

static void test_texts(void **state) {
    (void)state;
    size_t bad = 0;
    for (int tokens = 0; tokens < 2; tokens++) { /* markers that are bytes, and markers that are tokens */
        probe p;
        probe_open(&p, tokens);
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
            if (probe_accepts(&p, texts[i].spec, texts[i].format, texts[i].text) == texts[i].accepted) continue;
            printf("%s, tokens %d: %s: %s\n", texts[i].format, tokens, texts[i].spec, texts[i].text);
            bad++;
        }
        probe_close(&p);
    }
    assert_int_equal(bad, 0);
}

/* In a call a marker must come as its token, where there is one; in free text its bytes count as well. */
static void test_marker_tokens(void **state) {
    (void)state;
    probe p;
    grammar *g;
    error e;
    bool end;
    probe_open(&p, true);
    const char *text = BEGIN V31("now", "{}") END;
    assert_int_equal(probe_grammar(&p, SPEC("required", ""), "deepseek-v3.1", &g, &e), OK);
    assert_int_equal(probe_feed(&p, g, text, strlen(text), false, &end), 0);
    assert_int_equal(probe_feed(&p, g, text, strlen(text), true, &end), strlen(text));
    assert_true(end);
    grammar_close(g);
    assert_int_equal(probe_grammar(&p, SPEC("auto", ""), "deepseek-v3.1", &g, &e), OK);
    assert_int_equal(probe_feed(&p, g, text, strlen(text), false, &end), strlen(BEGIN));
    grammar_close(g);
    probe_close(&p);
}

/* ---- random calls ---- */

static void check_call(const answer_call *c) {
    json_t *j = json_loads(c->arguments, JSON_REJECT_DUPLICATES, NULL);
    assert_true(c->valid && j);
    if (!strcmp(c->name, "get_weather")) {
        json_int_t days = json_integer_value(json_object_get(j, "days"));
        assert_true(json_is_string(json_object_get(j, "city")) && days >= 1 && days <= 9);
        const json_t *unit = json_object_get(j, "unit"), *tags = json_object_get(j, "tags");
        assert_true(!unit || !strcmp(json_string_value(unit), "C") || !strcmp(json_string_value(unit), "F"));
        assert_true(!tags || json_is_array(tags));
    } else {
        assert_string_equal(c->name, "now");
        assert_int_equal(json_object_size(j), 0);
    }
    json_decref(j);
}

static void test_round_trip(void **state) {
    (void)state;
    size_t calls = 0;
    for (int tokens = 0; tokens < 2; tokens++) {
        probe p;
        probe_open(&p, tokens);
        for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
            grammar *g;
            error e;
            assert_int_equal(probe_grammar(&p, SPEC("required", ""), formats[f], &g, &e), OK);
            for (uint64_t seed = 1; seed <= 40; seed++) {
                str out = {0};
                answer a;
                if (probe_sample(&p, g, seed, &out)) {
                    answer_options how = {.tools = true};
                    assert_int_equal(answer_parse(&a, answer_format_named(formats[f]), how, out.p, out.n, &e), OK);
                    if (a.content || !a.n_calls) printf("%s: %s\n", formats[f], out.p);
                    assert_null(a.content);
                    assert_true(a.n_calls > 0);
                    for (size_t i = 0; i < a.n_calls; i++, calls++) check_call(a.calls + i);
                    answer_free(&a);
                }
                str_free(&out);
            }
            grammar_close(g);
        }
        probe_close(&p);
    }
    printf("%zu random calls were read back\n", calls);
    assert_true(calls > 300);
}

/* ---- what is refused ---- */

static const struct {
    const char *spec, *format;
    status code;
    const char *text;
} refused[] = {
    {"[]", "plain", ERR_ARG, "object"},
    {"{}", "plain", ERR_ARG, "type"},
    {"{\"type\":5}", "plain", ERR_ARG, "type"},
    {"{\"type\":\"regex\"}", "plain", ERR_ARG, "regex"},
    {"{\"type\":\"json_schema\"}", "plain", ERR_ARG, "schema"},
    {"{\"type\":\"json_object\",\"thinking\":1}", "plain", ERR_ARG, "thinking"},
    {SPEC("auto", ""), "plain", ERR_UNSUPPORTED, "tool calls"},
    {"{\"type\":\"tools\"}", "deepseek-v3", ERR_ARG, "\"tools\""},
    {"{\"type\":\"tools\",\"tools\":[]}", "deepseek-v3", ERR_ARG, "\"tools\""},
    {"{\"type\":\"tools\",\"tools\":[5]}", "deepseek-v3", ERR_ARG, "tools[0]"},
    {"{\"type\":\"tools\",\"tools\":[{\"name\":\"a\"},{\"name\":\"a\"}]}", "deepseek-v3", ERR_ARG, "tools[1]: two"},
    {"{\"type\":\"tools\",\"tools\":[{\"name\":\"a<b\"}]}", "deepseek-v3", ERR_ARG, "name"},
    {"{\"type\":\"tools\",\"tools\":[{\"name\":\"\"}]}", "deepseek-v3", ERR_ARG, "name"},
    {"{\"type\":\"tools\",\"tools\":[{\"name\":\"a\"}],\"choice\":\"b\"}", "deepseek-v3", ERR_ARG, "\"b\""},
    {"{\"type\":\"tools\",\"tools\":[{\"name\":\"a\",\"parameters\":{\"type\":\"string\"}}]}", "deepseek-v3", ERR_ARG,
     "\"object\""},
    {"{\"type\":\"tools\",\"tools\":[{\"name\":\"a\",\"parameters\":[]}]}", "deepseek-v3", ERR_ARG, "\"object\""},
    {"{\"type\":\"tools\",\"tools\":[{\"name\":\"a\",\"parameters\":{\"type\":\"object\",\"properties\":{\"x\":{"
     "\"type\":"
     "\"string\",\"pattern\":\"(\"}}}}]}",
     "deepseek-v3", ERR_ARG, "tools[0]: schema at #/properties/x: "},
    {"{\"type\":\"tools\",\"tools\":[{\"name\":\"a\",\"parameters\":{\"type\":\"object\",\"anyOf\":[{},{}]}}]}",
     "deepseek-v3.2", ERR_UNSUPPORTED, "properties"},
};

static void test_refused(void **state) {
    (void)state;
    probe p;
    probe_open(&p, true);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        grammar *g = NULL;
        error e = {0};
        status s = probe_grammar(&p, refused[i].spec, refused[i].format, &g, &e);
        if (s != refused[i].code || !strstr(e.text, refused[i].text)) printf("%s: %d %s\n", refused[i].spec, s, e.text);
        assert_int_equal(s, refused[i].code);
        assert_non_null(strstr(e.text, refused[i].text));
        assert_null(g);
    }
    probe_close(&p);
}

/* ---- real vocabularies ---- */

static tokenizer *real_tokenizer(const char *family) {
    const char *shared = getenv("HADAL_SHARED");
    char command[600];
    str s = {0};
    tokenizer *t = NULL;
    error e;
    snprintf(command, sizeof command, "gzip -dc '%s/golden/tokenizers/%s/tokenizer.json.gz' 2>/dev/null",
             shared ? shared : "../shared", family);
    FILE *f = popen(command, "r");
    char buffer[65536];
    for (size_t n; f && (n = fread(buffer, 1, sizeof buffer, f)) > 0;) str_add(&s, buffer, n);
    if (f) pclose(f);
    if (s.n) assert_int_equal(tokenizer_parse(&t, s.p, s.n, NULL, 0, &e), OK);
    str_free(&s);
    return t;
}

/* The text's own tokens are taken and complete the answer, and each of them stands in the mask. */
static void feed_tokens(const tokenizer *t, const token_bytes *b, const char *spec, const char *format,
                        const char *text, bool accepted) {
    json_t *j = json_loads(spec, 0, NULL);
    grammar *g;
    grammar_state *s;
    error e;
    int32_t *ids;
    size_t n, i;
    const int32_t eos = 1;
    const int64_t words = (tokenizer_vocab_size(t) + 31) / 32 + 3;
    uint32_t *mask = malloc((size_t)words * sizeof *mask);
    assert_int_equal(grammar_open(&g, b, answer_format_named(format), j, &e), OK);
    assert_int_equal(grammar_begin(&s, g, &e), OK);
    assert_int_equal(tokenizer_encode(t, text, strlen(text), TOK_PARSE_SPECIAL, &ids, &n, &e), OK);
    for (i = 0; i < n; i++) {
        assert_int_equal(grammar_mask(s, &eos, 1, mask, words, &e), OK);
        bool set = mask[ids[i] / 32] >> (ids[i] % 32) & 1;
        assert_int_equal(grammar_take(s, ids[i], &e) == OK, set);
        if (!set) break;
    }
    assert_int_equal(i == n && grammar_complete(s), accepted);
    free(ids);
    free(mask);
    grammar_end(s);
    grammar_close(g);
    json_decref(j);
}

static void test_real(void **state) {
    (void)state;
    tokenizer *t = real_tokenizer("deepseek-v3");
    token_bytes *b;
    error e;
    if (!t) skip();
    assert_int_equal(token_bytes_open(&b, t, &e), OK);
    feed_tokens(t, b, "{\"type\":\"json_object\"}", "plain",
                "{\n  \"name\": \"李雷 😀\",\n  \"list\": [1, 2.5, -3e10, \"\\u00e9\"],\n  \"deep\": {\"a\": null}\n}",
                true);
    feed_tokens(t, b, "{\"type\":\"json_object\"}", "plain", "{\"a\": nul}", false);
    feed_tokens(t, b, SPEC("required", ""), "deepseek-v3.1",
                BEGIN V31("get_weather", "{\"city\": \"杭州\", \"days\": 3}") END, true);
    feed_tokens(t, b, SPEC("required", ""), "deepseek-v3.2",
                V32_BEGIN V32("get_weather", ARG("city", "true", "杭州 \"x\"") ARG("days", "false", "3")) V32_END,
                true);
    feed_tokens(t, b, SPEC("auto", ",\"thinking\":true"), "deepseek-r1",
                "Let me think.\n</think>\n\nI will ask." BEGIN V3("now", "{}") END, true);
    token_bytes_close(b);
    tokenizer_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_masks),         cmocka_unit_test(test_refused_token),
                                       cmocka_unit_test(test_long),          cmocka_unit_test(test_texts),
                                       cmocka_unit_test(test_marker_tokens), cmocka_unit_test(test_round_trip),
                                       cmocka_unit_test(test_refused),       cmocka_unit_test(test_real)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
