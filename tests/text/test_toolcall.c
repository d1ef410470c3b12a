/* Reading answers: examples of every format, whole, in every split into two, and byte by byte, which must all give
 * the same; and what the events look like on the way. */
#include "text/toolcall.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/str.h"

#define CALLS "<｜tool▁calls▁begin｜>"
#define CALLS_END "<｜tool▁calls▁end｜>"
#define CALL "<｜tool▁call▁begin｜>"
#define CALL_END "<｜tool▁call▁end｜>"
#define SEP "<｜tool▁sep｜>"
#define D "｜DSML｜"
#define V3_CALL(name, json) CALL "function" SEP name "\n```json\n" json "\n```" CALL_END
#define V31_CALL(name, json) CALL name SEP json CALL_END
#define V32_CALL(name, parameters) "<" D "invoke name=\"" name "\">\n" parameters "</" D "invoke>\n"
#define V32_ARG(name, string, v) "<" D "parameter name=\"" name "\" string=\"" string "\">" v "</" D "parameter>\n"
#define V32_CALLS "\n\n<" D "function_calls>\n"
#define V32_END "</" D "function_calls>"

/* thinking: 't'; no look for tools: 'n'. The result is written as R(reasoning) C(content) and, per call,
 * name{arguments}, with ! behind arguments that are no JSON object. */
static const struct {
    const char *format, *how, *text, *result;
} examples[] = {
    {"deepseek-v3", "", "Hello.", "C(Hello.)"},
    {"deepseek-v3", "", "", ""},
    {"deepseek-v3", "", "<think>a</think>b", "C(<think>a</think>b)"},
    {"deepseek-r1", "t", "so\n</think>\n\nHello.", "R(so\n)C(\n\nHello.)"},
    {"deepseek-r1", "t", "<think>so</think>Hello.", "R(so)C(Hello.)"},
    {"deepseek-r1", "t", "\n<think>\nso</think>Hello.", "R(\nso)C(Hello.)"},
    {"deepseek-r1", "t", "never done with it", "R(never done with it)"},
    {"deepseek-r1", "t", "ends in </thi", "R(ends in </thi)"},
    {"deepseek-r1", "t", "</think>4", "C(4)"},
    {"deepseek-r1", "t", "a</think></think>b", "R(a)C(</think>b)"},
    {"deepseek-r1", "t", "a < b <think> c</think>d < e", "R(a < b <think> c)C(d < e)"},
    {"deepseek-r1", "m", "\n<think>\nso</think>Hello.", "R(\nso)C(Hello.)"},
    {"deepseek-r1", "m", "\nHello <think>so</think>", "C(\nHello <think>so</think>)"},
    {"deepseek-r1", "m", "<thin", "C(<thin)"},
    {"deepseek-r1", "m", "<think>cut", "R(cut)"},
    {"deepseek-r1", "", "<think>so</think>4", "C(<think>so</think>4)"},
    {"plain", "t", "so</think>4 " CALLS V3_CALL("f", "{}"), "R(so)C(4 " CALLS V3_CALL("f", "{}") ")"},
    {"deepseek-v3", "n", CALLS V3_CALL("f", "{}") CALLS_END, "C(" CALLS V3_CALL("f", "{}") CALLS_END ")"},
    {"deepseek-v3", "", "Moment. " CALLS V3_CALL("get_weather", "{\"city\": \"杭州\"}") CALLS_END,
     "C(Moment. )get_weather{{\"city\": \"杭州\"}}"},
    {"deepseek-v3", "", CALLS V3_CALL("f", "{\"a\":\n [1, \"```\"]}") "\n" V3_CALL("g", "{}") CALLS_END,
     "f{{\"a\":\n [1, \"```\"]}}g{{}}"},
    {"deepseek-v3", "", V3_CALL("f", "{}"), "f{{}}"},
    {"deepseek-v3", "", CALLS V3_CALL("f", "{\"a\": 1"), "f{{\"a\": 1!}"},
    {"deepseek-v3", "", CALLS CALL "function" SEP "f\n```json\n{\"a\": 1}\n``", "f{{\"a\": 1}}"},
    {"deepseek-v3", "", CALLS CALL "function" SEP "f\n```json\n{\"a\": 1}```" CALL_END CALLS_END "tail",
     "C(tail)f{{\"a\": 1}}"},
    {"deepseek-v3", "", CALLS CALL "function" SEP "f\n{\"a\": 1}" CALL_END CALLS_END,
     "C(" CALLS CALL "function" SEP "f\n{\"a\": 1}" CALL_END CALLS_END ")"},
    {"deepseek-v3", "", CALLS "what? " V3_CALL("f", "{}") CALLS_END " x", "C(" CALLS "what?  x)f{{}}"},
    {"deepseek-v3", "", CALLS CALL "function" SEP "f\n```js", "C(" CALLS CALL "function" SEP "f\n```js)"},
    {"deepseek-v3", "", "a <｜tool▁cal", "C(a <｜tool▁cal)"},
    {"deepseek-v3", "", CALLS V3_CALL("f", "{}") "\nand then", "C(\nand then)f{{}}"},
    {"deepseek-v3", "", CALLS V3_CALL("f", "{}") "\n", "f{{}}"},
    {"deepseek-r1", "t", "hm</think>" CALLS V3_CALL("f", "{}") CALLS_END, "R(hm)f{{}}"},
    {"deepseek-r1", "t", "hm " CALLS V3_CALL("f", "{}") CALLS_END, "R(hm " CALLS V3_CALL("f", "{}") CALLS_END ")"},
    {"deepseek-v3.1", "", "Moment." CALLS V31_CALL("f", "{\"x\": \"a<b\"}") V31_CALL("g", "{}") CALLS_END,
     "C(Moment.)f{{\"x\": \"a<b\"}}g{{}}"},
    {"deepseek-v3.1", "t", "so</think>" CALLS V31_CALL("f", "{}") CALLS_END, "R(so)f{{}}"},
    {"deepseek-v3.1", "", CALLS V31_CALL("f", "not json") CALLS_END, "f{not json!}"},
    {"deepseek-v3.1", "", CALLS V31_CALL("f", "[1]") CALLS_END, "f{[1]!}"},
    {"deepseek-v3.1", "", CALLS V31_CALL("f", "{\"a\": 1, \"a\": 2}") CALLS_END, "f{{\"a\": 1, \"a\": 2}!}"},
    {"deepseek-v3.1", "", CALLS V31_CALL("f", "") CALLS_END, "f{!}"},
    {"deepseek-v3.1", "", CALLS V31_CALL("", "{}") CALLS_END, "C(" CALLS V31_CALL("", "{}") CALLS_END ")"},
    {"deepseek-v3.1", "", CALLS V31_CALL("a\nb", "{}"), "C(" CALLS V31_CALL("a\nb", "{}") ")"},
    {"deepseek-v3.1", "", CALLS CALL "f" SEP "{\"a\"", "f{{\"a\"!}"},
    {"deepseek-v3.1", "", CALLS CALL "f" SEP "{}<｜tool▁ca", "f{{}<｜tool▁ca!}"},
    {"deepseek-v3.1", "", CALLS CALL "f", "C(" CALLS CALL "f)"},
    {"deepseek-v3.1", "", CALLS, "C(" CALLS ")"},
    {"deepseek-v3.1", "", CALLS CALLS V31_CALL("f", "{}") CALLS_END, "C(" CALLS ")f{{}}"},
    {"deepseek-v3.2", "",
     "Moment." V32_CALLS V32_CALL("f", V32_ARG("p", "true", "a \"b\"\n<c>") V32_ARG("n", "false", "[1, 2]")) V32_END,
     "C(Moment.)f{{\"p\": \"a \\\"b\\\"\\n<c>\", \"n\": [1, 2]}}"},
    {"deepseek-v3.2", "", V32_CALLS V32_CALL("f", "") V32_CALL("g", V32_ARG("é", "true", "")) V32_END,
     "f{{}}g{{\"é\": \"\"}}"},
    {"deepseek-v3.2", "t", "so</think>" V32_CALLS V32_CALL("f", V32_ARG("n", "false", "1")) V32_END,
     "R(so)f{{\"n\": 1}}"},
    {"deepseek-v3.2", "t", "so" V32_CALLS V32_CALL("f", "") V32_END, "R(so" V32_CALLS V32_CALL("f", "") V32_END ")"},
    {"deepseek-v3.2", "", V32_CALLS V32_CALL("f", V32_ARG("n", "false", "oops")) V32_END, "f{{\"n\": oops}!}"},
    {"deepseek-v3.2", "", V32_CALLS V32_CALL("f", V32_ARG("n", "false", "1") V32_ARG("n", "false", "2")) V32_END,
     "f{{\"n\": 1, \"n\": 2}!}"},
    {"deepseek-v3.2", "", V32_CALLS "<" D "invoke name=\"f\">\n" V32_ARG("n", "false", "1") "and so on",
     "C(\nand so on)f{{\"n\": 1!}"},
    {"deepseek-v3.2", "", V32_CALLS "<" D "invoke name=\"f\">\n<" D "parameter name=\"p\" string=\"true\">half </" D,
     "f{{\"p\": \"half </" D "!}"},
    {"deepseek-v3.2", "", V32_CALLS "<" D "invoke name=\"f\">\n<" D "parameter name=\"p\">v</" D "parameter>",
     "C(\n<" D "parameter name=\"p\">v</" D "parameter>)f{!}"},
    {"deepseek-v3.2", "", "a\n\n\n\nb\n", "C(a\n\n\n\nb\n)"},
    {"deepseek-v3.2", "", "a\n\n\n<" D "function_calls>\nwhat", "C(a\n\n\n<" D "function_calls>\nwhat)"},
    {"deepseek-v3.2", "", "a\n\n<" D "functions>", "C(a\n\n<" D "functions>)"},
    {"deepseek-v3.2", "", "<" D "function_calls>" V32_CALL("f", "") V32_END " tail", "C( tail)f{{}}"},
    {"deepseek-v3.2", "", V32_CALLS V32_CALL("f", ""), "f{{}}"},
};

/* ---- writing down what comes ---- */

typedef struct seen {
    str reasoning, content, calls;
    size_t n_calls;
    bool in_call;
    const char *bad; /* what was wrong with the events */
} seen;

static status note(void *user, const answer_event *ev) {
    seen *s = user;
    if (ev->kind != ANSWER_CALL_END && ev->n == 0) s->bad = "an empty event";
    if (s->in_call != (ev->kind == ANSWER_ARGUMENTS || ev->kind == ANSWER_CALL_END)) s->bad = "events out of order";
    if (ev->kind == ANSWER_CALL) {
        if (ev->call != s->n_calls++) s->bad = "a wrong number of a call";
        s->in_call = true;
        str_add(&s->calls, ev->text, ev->n);
        str_putc(&s->calls, '{');
    } else if (ev->kind == ANSWER_CALL_END) {
        s->in_call = false;
        str_puts(&s->calls, ev->valid ? "}" : "!}");
    } else {
        if (ev->kind == ANSWER_ARGUMENTS && ev->call + 1 != s->n_calls) s->bad = "arguments of another call";
        str_add(ev->kind == ANSWER_REASONING ? &s->reasoning
                : ev->kind == ANSWER_CONTENT ? &s->content
                                             : &s->calls,
                ev->text, ev->n);
    }
    return OK;
}

static str written(seen *s) {
    str out = {0};
    str_puts(&out, "");
    if (s->reasoning.n) str_addf(&out, "R(%s)", s->reasoning.p);
    if (s->content.n) str_addf(&out, "C(%s)", s->content.p);
    if (s->calls.n) str_puts(&out, s->calls.p);
    str_free(&s->reasoning);
    str_free(&s->content);
    str_free(&s->calls);
    return out;
}

static answer_options options(const char *how) {
    const answer_thinking thinking = strchr(how, 't')   ? ANSWER_THINKS
                                     : strchr(how, 'm') ? ANSWER_MAY_THINK
                                                        : ANSWER_PLAIN;
    return (answer_options){.thinking = thinking, .tools = strchr(how, 'n') == NULL};
}

/* In pieces: the first `head` bytes, then pieces of `step` bytes (0: the rest at once). */
static str in_pieces(size_t k, size_t head, size_t step) {
    const char *s = examples[k].text;
    size_t n = strlen(s);
    seen got = {0};
    answer_parser *p;
    error e = {0};
    assert_int_equal(answer_open(&p, answer_format_named(examples[k].format), options(examples[k].how), note, &got, &e),
                     OK);
    for (size_t i = 0, m = head; i < n || m; i += m, m = step && step < n - i ? step : n - i) {
        /* a copy of just this piece, so that the sanitizer sees reading beyond it */
        char *piece = malloc(m ? m : 1);
        memcpy(piece, s + i, m);
        assert_int_equal(answer_feed(p, piece, m, &e), OK);
        free(piece);
    }
    assert_int_equal(answer_finish(p, &e), OK);
    answer_close(p);
    if (got.bad || got.in_call) printf("example %zu: %s\n", k, got.bad ? got.bad : "a call has no end");
    assert_true(!got.bad && !got.in_call);
    return written(&got);
}

static void test_whole(void **state) {
    (void)state;
    size_t n = sizeof examples / sizeof *examples, bad = 0;
    for (size_t k = 0; k < n; k++) {
        str got = in_pieces(k, strlen(examples[k].text), 0);
        if (strcmp(got.p, examples[k].result)) {
            printf("example %zu: %s\nexpected %s\ngot      %s\n", k, examples[k].text, examples[k].result, got.p);
            bad++;
        }
        str_free(&got);
    }
    printf("read %zu answers, %zu differ\n", n, bad);
    assert_int_equal(bad, 0);
}

static void test_every_split(void **state) {
    (void)state;
    size_t count = 0;
    for (size_t k = 0; k < sizeof examples / sizeof *examples; k++) {
        size_t n = strlen(examples[k].text);
        for (size_t head = 0; head <= n; head++, count++) {
            str got = in_pieces(k, head, 0);
            assert_string_equal(got.p, examples[k].result);
            str_free(&got);
        }
        for (size_t step = 1; step < 8; step++, count++) {
            str got = in_pieces(k, 0, step);
            assert_string_equal(got.p, examples[k].result);
            str_free(&got);
        }
    }
    printf("read %zu splits\n", count);
}

static void test_whole_text_function(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof examples / sizeof *examples; k++) {
        answer a;
        error e = {0};
        str out = {0};
        const answer_format *f = answer_format_named(examples[k].format);
        assert_int_equal(answer_parse(&a, f, options(examples[k].how), examples[k].text, strlen(examples[k].text), &e),
                         OK);
        str_puts(&out, "");
        if (a.reasoning) str_addf(&out, "R(%s)", a.reasoning);
        if (a.content) str_addf(&out, "C(%s)", a.content);
        for (size_t i = 0; i < a.n_calls; i++)
            str_addf(&out, "%s{%s%s}", a.calls[i].name, a.calls[i].arguments, a.calls[i].valid ? "" : "!");
        assert_string_equal(out.p, examples[k].result);
        assert_int_equal(a.content_n, a.content ? strlen(a.content) : 0);
        str_free(&out);
        answer_free(&a);
    }
}

/* Arguments come while they are written, not when the call is complete. */
static void test_arguments_stream(void **state) {
    (void)state;
    static const char *const pieces[] = {CALLS, CALL, "f", SEP, "{\"text\": \"one ", "two "};
    seen got = {0};
    answer_parser *p;
    error e = {0};
    assert_int_equal(answer_open(&p, answer_format_named("deepseek-v3.1"), options(""), note, &got, &e), OK);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        assert_int_equal(answer_feed(p, pieces[i], strlen(pieces[i]), &e), OK);
    assert_string_equal(got.calls.p, "f{{\"text\": \"one two ");
    answer_close(p);
    str out = written(&got);
    str_free(&out);
}

static status stop(void *user, const answer_event *ev) {
    (void)user;
    (void)ev;
    return ERR_CANCELLED;
}

static void test_sink_stops(void **state) {
    (void)state;
    answer_parser *p;
    error e = {0};
    assert_int_equal(answer_open(&p, answer_format_named("plain"), options(""), stop, NULL, &e), OK);
    assert_int_equal(answer_feed(p, "text", 4, &e), ERR_CANCELLED);
    answer_close(p);
}

static const char *found(const char *template_text, const char *model_type) {
    return answer_format_name(answer_format_find(template_text, model_type));
}

static void test_formats(void **state) {
    (void)state;
    assert_string_equal(found(NULL, "deepseek_v32"), "deepseek-v3.2");
    assert_string_equal(found(NULL, "deepseek_v3"), "plain");
    assert_string_equal(found(NULL, NULL), "plain");
    assert_string_equal(found("{{ '<" D "invoke' }}", "deepseek_v32"), "deepseek-v3.2");
    assert_string_equal(found("{{ '" CALLS "' ~ '```json' }}", "deepseek_v3"), "deepseek-v3");
    assert_string_equal(found("{{ '" CALLS "' ~ '```json' ~ '<｜Assistant｜><think>\\n' }}", "deepseek_v3"),
                        "deepseek-r1");
    assert_string_equal(found("{{ '" CALLS "' ~ '<think>' }}", "deepseek_v3"), "deepseek-v3.1");
    assert_string_equal(found("User: {{ x }}", "deepseek_v2"), "plain");
    assert_null(answer_format_named("none of them"));
    assert_true(answer_starts_thinking("q<｜Assistant｜><think>\n", strlen("q<｜Assistant｜><think>\n")));
    assert_true(answer_starts_thinking("<think>", 7));
    assert_false(answer_starts_thinking("<think></think>", 15));
    assert_false(answer_starts_thinking("", 0));
}

/* Random text made of pieces of markers: nothing but the result's independence of the split is asked for. */
static void test_random_pieces(void **state) {
    (void)state;
    static const char *const parts[] = {CALLS,
                                        CALLS_END,
                                        CALL,
                                        CALL_END,
                                        SEP,
                                        "function",
                                        "f",
                                        "\n",
                                        "```json\n",
                                        "```",
                                        "{\"a\": 1}",
                                        " ",
                                        "</think>",
                                        "<think>",
                                        V32_CALLS,
                                        V32_END,
                                        "<" D "invoke name=\"",
                                        "\">",
                                        "</" D "invoke>",
                                        "<" D "parameter name=\"",
                                        "\" string=\"true\">",
                                        "\" string=\"false\">",
                                        "</" D "parameter>",
                                        "<",
                                        "｜"};
    static const char *const names[] = {"deepseek-v3", "deepseek-v3.1", "deepseek-v3.2"};
    uint32_t seed = 1;
    for (int round = 0; round < 3000; round++) {
        str s = {0};
        error e = {0};
        for (int i = 0; i < 14; i++) {
            seed = seed * 1664525 + 1013904223;
            str_puts(&s, parts[(seed >> 16) % (sizeof parts / sizeof *parts)]);
        }
        const answer_format *f = answer_format_named(names[round % 3]);
        answer_options how = {.thinking = round % 2, .tools = true};
        seen got[2] = {0};
        str out[2];
        for (int way = 0; way < 2; way++) {
            answer_parser *p;
            assert_int_equal(answer_open(&p, f, how, note, got + way, &e), OK);
            for (size_t i = 0, m; i < s.n; i += m) {
                m = way ? 1 : s.n;
                assert_int_equal(answer_feed(p, s.p + i, m, &e), OK);
            }
            assert_int_equal(answer_finish(p, &e), OK);
            answer_close(p);
            assert_null(got[way].bad);
            out[way] = written(got + way);
        }
        assert_string_equal(out[0].p, out[1].p);
        str_free(out);
        str_free(out + 1);
        str_free(&s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_every_split),
        cmocka_unit_test(test_whole_text_function),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_arguments_stream),
        cmocka_unit_test(test_sink_stops),
        cmocka_unit_test(test_random_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
