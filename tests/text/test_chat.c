/* Conversations to prompts: the golden rows (HADAL_SHARED/golden/chat, rendered with jinja2 and with the published
 * V3.2 encoder) byte by byte, and the rules of chat.h with small templates. */
#include "text/chat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/file.h"

static json_t *parse(const char *s, size_t n) {
    json_t *j;
    error e = {0};
    if (json_parse(&j, s, n, "test", &e) != OK) {
        printf("%s\n", e.text);
        assert_true(false);
    }
    return j;
}

/* The file's text; skips the test when it is not there. */
static str golden(const char *name) {
    const char *shared = getenv("HADAL_SHARED");
    str path = {0}, s = {0};
    error e;
    str_addf(&path, "%s/golden/chat/%s", shared ? shared : "../shared", name);
    status st = file_read(&s, path.p, (size_t)1 << 26, &e);
    if (st != OK) printf("skipped: %s\n", e.text);
    str_free(&path);
    if (st != OK) {
        str_free(&s);
        skip();
    }
    return s;
}

/* One row of rendered.jsonl; 1 if it came out as it should. */
static int check_row(const json_t *templates, const json_t *row) {
    const char *name = json_string_value(json_object_get(row, "template"));
    const char *test_case = json_string_value(json_object_get(row, "case"));
    const json_t *source = json_object_get(json_object_get(templates, name), "template");
    const json_t *expected = json_object_get(row, "expected");
    json_t *options = json_copy(json_object_get(row, "flags"));
    chat_template *t = NULL;
    str out = {0};
    error e = {0};
    json_object_set(options, "tools", json_object_get(row, "tools"));
    json_object_set_new(options, "bos_token", json_string("<｜begin▁of▁sentence｜>"));
    json_object_set_new(options, "eos_token", json_string("<｜end▁of▁sentence｜>"));
    status st = source ? template_open(&t, json_string_value(source), json_string_length(source), &e) : OK;
    assert_int_equal(st, OK);
    st = chat_render(t, source ? "deepseek_v3" : "deepseek_v32", json_object_get(row, "messages"), options, &out, &e);
    bool good = expected ? st == OK && out.n == json_string_length(expected) &&
                               !memcmp(out.p ? out.p : "", json_string_value(expected), out.n)
                         : st == ERR_ARG && !out.n;
    if (!good)
        printf("%s, %s: expected\n%s\ngot\n%s\n", name, test_case, expected ? json_string_value(expected) : "an error",
               st == OK ? out.p : e.text);
    template_close(t);
    json_decref(options);
    str_free(&out);
    return good;
}

static void test_golden_rows(void **state) {
    (void)state;
    str templates_text = golden("templates.json"), rows = golden("rendered.jsonl");
    json_t *templates = parse(templates_text.p, templates_text.n);
    int n = 0, good = 0, refused = 0;
    for (char *line = rows.p, *end; line < rows.p + rows.n && (end = strchr(line, '\n')); line = end + 1) {
        json_t *row = parse(line, (size_t)(end - line));
        good += check_row(templates, row);
        refused += json_object_get(row, "expected") == NULL;
        n++;
        json_decref(row);
    }
    printf("compared %d golden rows, %d of them refused: %d as expected\n", n, refused, good);
    json_decref(templates);
    str_free(&templates_text);
    str_free(&rows);
    assert_true(n > 800);
    assert_int_equal(good, n);
}

static void check_published(const char *input, const char *output) {
    str in = golden(input), expected = golden(output), out = {0};
    json_t *j = parse(in.p, in.n), *options = json_object_get(j, "template_kwargs"), *on = NULL;
    error e = {0};
    if (!options) options = on = parse("{\"thinking_mode\": \"thinking\"}", 29);
    assert_int_equal(chat_render(NULL, "deepseek_v32", json_object_get(j, "messages"), options, &out, &e), OK);
    printf("%s: %zu bytes, expected %zu\n", input, out.n, expected.n);
    assert_int_equal(out.n, expected.n);
    assert_memory_equal(out.p, expected.p, out.n);
    json_decref(on);
    json_decref(j);
    str_free(&in);
    str_free(&expected);
    str_free(&out);
}

static void test_published_v32(void **state) {
    (void)state;
    check_published("published_v32/test_input_developer_tools.json", "published_v32/test_output_developer_tools.txt");
    check_published("published_v32/test_input_search_wo_date.json", "published_v32/test_output_search_wo_date.txt");
}

/* ---- small conversations ---- */

/* Renders and compares; `expected` NULL: an error that says `says`. source NULL: no template, V3.2. */
static void check(const char *source, const char *messages, const char *options, const char *expected,
                  const char *says) {
    json_t *m = parse(messages, strlen(messages)), *o = options ? parse(options, strlen(options)) : NULL;
    chat_template *t = NULL;
    str out = {0};
    error e = {0};
    if (source) assert_int_equal(template_open(&t, source, strlen(source), &e), OK);
    status st = chat_render(t, source ? "any" : "deepseek_v32", m, o, &out, &e);
    const char *got = st == OK ? out.p : e.text;
    if (expected) {
        assert_string_equal(got, expected);
    } else if (st == OK || !strstr(got, says)) {
        printf("expected an error that says %s, got %s\n", says, got);
        assert_true(false);
    }
    template_close(t);
    json_decref(m);
    json_decref(o);
    str_free(&out);
}

#define USER "{\"role\": \"user\", \"content\": \"q\"}"
#define BOS "<｜begin▁of▁sentence｜>"
#define EOS "<｜end▁of▁sentence｜>"
#define TURN "<｜User｜>q<｜Assistant｜>"
static const char plain[] = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
                            "{% if add_generation_prompt %}<assistant>{% endif %}";

static void test_switches(void **state) {
    (void)state;
    static const char both[] = "{{ thinking }} {{ enable_thinking }} {{ extra }}";
    check(both, "[" USER "]", "{\"thinking\": true, \"extra\": [1]}", "True True [1]", NULL);
    check(both, "[" USER "]", "{\"enable_thinking\": false}", "False False ", NULL);
    check(both, "[" USER "]", "{\"enable_thinking\": false, \"thinking\": true}", "True False ", NULL);
    check(both, "[" USER "]", NULL, "  ", NULL);
    check(plain, "[" USER "]", "{\"add_generation_prompt\": true}", "<user>q</user><assistant>", NULL);
    check(plain, "[]", NULL, NULL, "not empty");
    check(plain, "{}", NULL, NULL, "not empty");
    check("{{ raise_exception('roles must alternate') }}", "[" USER "]", NULL, NULL, "roles must alternate");
}

static void test_continue_final_message(void **state) {
    (void)state;
    static const char trims[] = "{% for m in messages %}<{{ m.content|trim }}>{% endfor %}";
    static const char chat[] = "[" USER ", {\"role\": \"assistant\", \"content\": \"assistant \"}]";
    check(plain, chat, "{\"continue_final_message\": true, \"add_generation_prompt\": true}",
          "<user>q</user><assistant>assistant ", NULL);
    check(plain, chat, "{\"prefix\": true}", "<user>q</user><assistant>assistant ", NULL);
    check(trims, chat, "{\"prefix\": true}", "<q><assistant", NULL);
    check(plain, "[" USER ", {\"role\": \"assistant\", \"content\": \"\"}]", "{\"prefix\": true}",
          "<user>q</user><assistant>", NULL);
    check(plain, "[" USER "]", "{\"prefix\": true}", NULL, "only an assistant message");
    check(plain, "[" USER ", {\"role\": \"assistant\", \"content\": null}]", "{\"prefix\": true}", NULL, "no content");
    check("nothing", chat, "{\"prefix\": true}", NULL, "does not print");
    check(NULL, chat, "{\"prefix\": true}", BOS TURN "</think>assistant ", NULL);
    check(NULL, chat, "{\"prefix\": true, \"thinking\": true}", BOS TURN "<think></think>assistant ", NULL);
}

static void test_v32(void **state) {
    (void)state;
    static const char tools[] = "{\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]}";
    json_t *m = parse("[" USER "]", strlen("[" USER "]")), *o = parse(tools, strlen(tools));
    str out = {0};
    error e = {0};
    assert_int_equal(chat_render(NULL, "deepseek_v32", m, o, &out, &e), OK);
    assert_non_null(strstr(out.p, BOS "\n\n## Tools\n\nYou have access"));
    assert_non_null(strstr(out.p, "<functions>\n{\"name\": \"f\"}\n</functions>\n" TURN "</think>"));
    assert_int_equal(json_array_size(m), 1); /* the caller's messages stay as they are */
    str_free(&out);
    json_decref(m);
    json_decref(o);
    check(NULL, "[" USER "]", "{\"thinking\": true}", BOS TURN "<think>", NULL);
    check(NULL, "[" USER "]", "{\"enable_thinking\": true}", BOS TURN "<think>", NULL);
    check(NULL, "[" USER "]", "{\"thinking_mode\": \"maybe\"}", NULL, "thinking or chat");
    check(NULL, "[" USER "]", "{\"response_format\": {\"type\": \"object\"}}",
          BOS "\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n"
              "{\"type\": \"object\"}" TURN "</think>",
          NULL);
    check(NULL, "[{\"role\": \"alien\"}]", NULL, NULL, "the role 'alien'");
    check(NULL, "[{}]", NULL, NULL, "message 0: the role ''");
    check(NULL, "[5]", NULL, NULL, "message 0: the role ''");
    check(NULL, "[{\"role\": \"user\"}]", NULL, NULL, "\"content\" is missing");
    check(NULL, "[{\"role\": \"user\", \"content\": 5}]", NULL, NULL, "should be a string");
    check(NULL, "[{\"role\": \"developer\", \"content\": \"\"}]", NULL, NULL, "needs content");
    check(NULL, "[{\"role\": \"tool\", \"content\": \"r\"}]", NULL, NULL, "without a tool call");
    check(NULL, "[" USER ", {\"role\": \"tool\", \"content\": \"r\"}]", NULL, NULL, "without a tool call");
    check(NULL, "[" USER ", {\"role\": \"assistant\", \"tool_calls\": 5}]", NULL, NULL, "should be a list");
    check(NULL, "[" USER ", {\"role\": \"assistant\", \"tool_calls\": [5]}]", NULL, NULL, "function.name");
    check(NULL, "[" USER ", {\"role\": \"system\", \"content\": \"\", \"tools\": [5]}]", NULL, NULL, "no \"function\"");
}

static void test_v32_arguments(void **state) {
    (void)state;
#define CALL(arguments)                                                                                                \
    "[" USER ", {\"role\": \"assistant\", \"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": " arguments \
    "}}]}]"
#define INVOKE "\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n"
#define END "\n</｜DSML｜invoke>\n</｜DSML｜function_calls>" EOS
    check(NULL, CALL("\"{}\""), NULL, BOS TURN "</think>" INVOKE END, NULL);
    check(NULL, CALL("\"{\\\"a\\\": \\\"<b>\\\\n\\\", \\\"n\\\": 1.50, \\\"l\\\": [1,{\\\"k\\\":null}]}\""), NULL,
          BOS TURN "</think>" INVOKE "<｜DSML｜parameter name=\"a\" string=\"true\"><b>\n</｜DSML｜parameter>\n"
                   "<｜DSML｜parameter name=\"n\" string=\"false\">1.5</｜DSML｜parameter>\n"
                   "<｜DSML｜parameter name=\"l\" string=\"false\">[1, {\"k\": null}]</｜DSML｜parameter>" END,
          NULL);
    check(NULL, CALL("{\"a\": true}"), NULL,
          BOS TURN "</think>" INVOKE "<｜DSML｜parameter name=\"a\" string=\"false\">true</｜DSML｜parameter>" END,
          NULL);
    check(NULL, CALL("\"{broken\""), NULL, NULL, "should be a JSON object");
    check(NULL, CALL("\"[1]\""), NULL, NULL, "should be a JSON object");
}

static void test_no_template(void **state) {
    (void)state;
    json_t *m = parse("[" USER "]", strlen("[" USER "]"));
    str out = {0};
    error e = {0};
    assert_int_equal(chat_render(NULL, "deepseek_v2", m, NULL, &out, &e), ERR_UNSUPPORTED);
    printf("%s\n", e.text);
    assert_non_null(strstr(e.text, "has no chat template"));
    assert_int_equal(chat_render(NULL, NULL, m, NULL, &out, &e), ERR_UNSUPPORTED);
    json_decref(m);
    str_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_rows), cmocka_unit_test(test_published_v32),
        cmocka_unit_test(test_switches),    cmocka_unit_test(test_continue_final_message),
        cmocka_unit_test(test_v32),         cmocka_unit_test(test_v32_arguments),
        cmocka_unit_test(test_no_template),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
