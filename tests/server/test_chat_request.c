/* What a chat completion's body becomes for templates and grammars, and which faults it may have. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include "api_test.h"
#include "server/chat_request.h"
#include <cmocka.h>

#define HI "{'role': 'user', 'content': 'Hi'}"
#define TOOL "{'type': 'function', 'function': {'name': 'look', 'parameters': {'type': 'object'}}}"

/* Members of a body, and what the messages are. */
static const struct {
    const char *body, *messages;
} conversations[] = {
    {"'messages': [" HI "]", "[" HI "]"},
    {"'messages': [{'role': 'system', 'content': 'S'}, {'role': 'developer', 'content': 'D', 'name': 'me'}]",
     "[{'role': 'system', 'content': 'S'}, {'role': 'developer', 'content': 'D', 'name': 'me'}]"},
    /* parts become one text */
    {"'messages': [{'role': 'user', 'content': [{'type': 'text', 'text': 'a'}, {'type': 'input_text', 'text': 'b'}]}]",
     "[{'role': 'user', 'content': 'a\\nb'}]"},
    {"'messages': [{'role': 'user', 'content': []}]", "[{'role': 'user', 'content': ''}]"},
    /* what is not known is left out: ids above all */
    {"'messages': [{'role': 'user', 'content': 'a', 'token_ids': [1], 'tools': [1], 'x': 2}]",
     "[{'role': 'user', 'content': 'a'}]"},
    {"'messages': [" HI ", {'role': 'assistant', 'content': null, 'reasoning_content': 'R'}]",
     "[" HI ", {'role': 'assistant', 'content': '', 'reasoning_content': 'R'}]"},
    {"'messages': [" HI ", {'role': 'assistant', 'content': 'a', 'reasoning': 'R', 'refusal': null}]",
     "[" HI ", {'role': 'assistant', 'content': 'a', 'reasoning_content': 'R'}]"},
    /* tool calls: arguments are a text, no content is null */
    {"'messages': [" HI ", {'role': 'assistant', 'content': '', 'tool_calls': [{'id': 'c', 'type': 'function', "
     "'index': 0, 'function': {'name': 'f', 'arguments': '{}'}}]}, {'role': 'tool', 'tool_call_id': 'c', 'content': "
     "'42'}]",
     "[" HI ", {'role': 'assistant', 'content': null, 'tool_calls': [{'id': 'c', 'type': 'function', "
     "'function': {'name': 'f', 'arguments': '{}'}}]}, {'role': 'tool', 'tool_call_id': 'c', 'content': '42'}]"},
    {"'messages': [" HI ", {'role': 'assistant', 'content': 'x', 'tool_calls': [{'function': {'name': 'f', "
     "'arguments': {'a': 1}}}, {'function': {'name': 'g', 'arguments': ''}}, {'function': {'name': 'h'}}]}]",
     "[" HI ", {'role': 'assistant', 'content': 'x', 'tool_calls': ["
     "{'type': 'function', 'function': {'name': 'f', 'arguments': '{`a`: 1}'}}, "
     "{'type': 'function', 'function': {'name': 'g', 'arguments': '{}'}}, "
     "{'type': 'function', 'function': {'name': 'h', 'arguments': '{}'}}]}]"},
    {"'messages': [" HI ", {'role': 'assistant', 'content': 'x', 'tool_calls': []}]",
     "[" HI ", {'role': 'assistant', 'content': 'x'}]"},
};

#define PLAIN "'continue_final_message': false, 'add_generation_prompt': true"
#define ON "'thinking': true, 'enable_thinking': true"
#define OFF "'thinking': false, 'enable_thinking': false"
#define GO_ON "'continue_final_message': true, 'add_generation_prompt': false"
#define LAST "'messages': [" HI ", {'role': 'assistant', 'content': 'Yes'"

/* Members of a body, the template's options and the grammar (NULL: none). */
static const struct {
    const char *body, *options, *grammar;
} variables[] = {
    {"'messages': [" HI "]", "{" PLAIN "}", NULL},
    {"'messages': [" HI "], 'add_generation_prompt': false",
     "{'continue_final_message': false, 'add_generation_prompt': false}", NULL},
    {LAST ", 'prefix': true}]", "{" GO_ON "}", NULL},
    {LAST "}], 'continue_final_message': true", "{" GO_ON "}", NULL},
    {LAST ", 'prefix': true}], 'continue_final_message': false", "{" GO_ON "}", NULL},
    {LAST "}]", "{" PLAIN "}", NULL},
    /* thinking */
    {"'messages': [" HI "], 'thinking': {'type': 'enabled'}", "{" PLAIN "," ON "}", NULL},
    {"'messages': [" HI "], 'thinking': {'type': 'disabled', 'budget_tokens': 5}", "{" PLAIN "," OFF "}", NULL},
    {"'messages': [" HI "], 'thinking': true", "{" PLAIN "," ON "}", NULL},
    {"'messages': [" HI "], 'reasoning_effort': 'low'", "{" PLAIN "," ON "}", NULL},
    {"'messages': [" HI "], 'reasoning_effort': 'minimal'", "{" PLAIN "," OFF "}", NULL},
    {"'messages': [" HI "], 'thinking': {'type': 'enabled'}, 'reasoning_effort': 'none'", "{" PLAIN "," ON "}", NULL},
    {"'messages': [" HI "], 'chat_template_kwargs': {'thinking': false}, 'reasoning_effort': 'high'",
     "{" PLAIN ", 'thinking': false}", NULL},
    {"'messages': [" HI "], 'chat_template_kwargs': {'x': 1, 'y': 'z', 'n': null, 'enable_thinking': true}",
     "{" PLAIN ", 'x': 1, 'y': 'z', 'n': null, 'enable_thinking': true}", NULL},
    /* tools */
    {"'messages': [" HI "], 'tools': [], 'tool_choice': 'auto'", "{" PLAIN "}", NULL},
    {"'messages': [" HI "], 'tools': [" TOOL "]", "{" PLAIN ", 'tools': [" TOOL "]}",
     "{'type': 'tools', 'tools': [" TOOL "], 'choice': 'auto', 'parallel': true}"},
    {"'messages': [" HI "], 'tools': [" TOOL "], 'tool_choice': 'none'", "{" PLAIN ", 'tools': [" TOOL "]}", NULL},
    {"'messages': [" HI "], 'tools': [" TOOL "], 'tool_choice': 'required', 'parallel_tool_calls': false",
     "{" PLAIN ", 'tools': [" TOOL "]}",
     "{'type': 'tools', 'tools': [" TOOL "], 'choice': 'required', 'parallel': false}"},
    {"'messages': [" HI "], 'tools': [" TOOL "], 'tool_choice': {'type': 'function', 'function': {'name': 'look'}}",
     "{" PLAIN ", 'tools': [" TOOL "]}", "{'type': 'tools', 'tools': [" TOOL "], 'choice': 'look', 'parallel': true}"},
    /* the answer's form */
    {"'messages': [" HI "], 'response_format': {'type': 'text'}", "{" PLAIN "}", NULL},
    {"'messages': [" HI "], 'response_format': {'type': 'json_object'}", "{" PLAIN "}", "{'type': 'json_object'}"},
    {"'messages': [" HI "], 'response_format': {'type': 'json_schema', 'json_schema': {'name': 'n', 'strict': true, "
     "'schema': {'type': 'object'}}}",
     "{" PLAIN ", 'response_format': {'type': 'object'}}", "{'type': 'json_schema', 'schema': {'type': 'object'}}"},
    {"'messages': [" HI "], 'tools': [" TOOL "], 'tool_choice': 'none', 'response_format': {'type': 'json_object'}",
     "{" PLAIN ", 'tools': [" TOOL "]}", "{'type': 'json_object'}"},
};

/* Members of a body, and the member that is wrong. */
static const struct {
    const char *body, *param;
    int http;
} faults[] = {
    {"", "messages", 400},
    {"'messages': {}", "messages", 400},
    {"'messages': []", "messages", 400},
    {"'messages': ['a']", "messages[0]", 400},
    {"'messages': [{}]", "messages[0]", 400},
    {"'messages': [" HI ", {'role': 'function', 'content': 'a', 'name': 'f'}]", "messages[1]", 400},
    {"'messages': [{'role': 'user'}]", "messages[0]", 400},
    {"'messages': [{'role': 'tool'}]", "messages[0]", 400},
    {"'messages': [{'role': 'user', 'content': {}}]", "messages[0]", 400},
    {"'messages': [{'role': 'user', 'content': [5]}]", "messages[0]", 400},
    {"'messages': [{'role': 'user', 'content': [{'type': 'image_url'}]}]", "messages[0]", 400},
    {"'messages': [{'role': 'user', 'content': [{'type': 'text', 'text': 5}]}]", "messages[0]", 400},
    {"'messages': [{'role': 'user', 'content': 'a', 'name': 5}]", "messages[0]", 400},
    {"'messages': [{'role': 'assistant', 'content': 'a', 'reasoning_content': 5}]", "messages[0]", 400},
    {"'messages': [{'role': 'assistant', 'tool_calls': {}}]", "messages[0]", 400},
    {"'messages': [{'role': 'assistant', 'tool_calls': [5]}]", "messages[0]", 400},
    {"'messages': [{'role': 'assistant', 'tool_calls': [{'id': 5, 'function': {'name': 'f'}}]}]", "messages[0]", 400},
    {"'messages': [{'role': 'assistant', 'tool_calls': [{'function': {'name': 'f', 'arguments': [1]}}]}]",
     "messages[0]", 400},
    {"'messages': [{'role': 'user', 'content': 'a', 'prefix': true}]", "messages", 400},
    {"'messages': [{'role': 'assistant', 'content': 'a', 'prefix': true}, " HI "]", "messages", 400},
    {"'messages': [{'role': 'assistant', 'content': 'a', 'prefix': 1}]", "prefix", 400},
    {"'messages': [" HI "], 'continue_final_message': true", "messages", 400},
    {LAST "}], 'continue_final_message': true, 'add_generation_prompt': true", "add_generation_prompt", 400},
    {"'messages': [" HI "], 'thinking': 'on'", "thinking", 400},
    {"'messages': [" HI "], 'thinking': {'type': 'auto'}", "thinking", 400},
    {"'messages': [" HI "], 'reasoning_effort': 1", "reasoning_effort", 400},
    {"'messages': [" HI "], 'chat_template_kwargs': {'x': {}}", "chat_template_kwargs", 400},
    {"'messages': [" HI "], 'chat_template_kwargs': {'tools': 1}", "chat_template_kwargs", 400},
    {"'messages': [" HI "], 'chat_template_kwargs': {'bos_token': ''}", "chat_template_kwargs", 400},
    {"'messages': [" HI "], 'chat_template_kwargs': {'thinking': 'yes'}", "chat_template_kwargs", 400},
    {"'messages': [" HI "], 'functions': [{}]", "functions", 400},
    {"'messages': [" HI "], 'function_call': 'auto'", "functions", 400},
    {"'messages': [" HI "], 'tools': 'x'", "tools", 400},
    {"'messages': [" HI "], 'tools': [{}]", "tools[0]", 400},
    {"'messages': [" HI "], 'tools': [" TOOL ", {'type': 'function', 'function': {'name': ''}}]", "tools[1]", 400},
    {"'messages': [" HI "], 'tools': [{'type': 'function', 'function': {'name': 'a<b'}}]", "tools[0]", 400},
    {"'messages': [" HI "], 'tools': [{'type': 'function', 'function': {'name': 'f', 'description': 1}}]", "tools[0]",
     400},
    {"'messages': [" HI "], 'tools': [{'type': 'function', 'function': {'name': 'f', 'parameters': []}}]", "tools[0]",
     400},
    {"'messages': [" HI "], 'tool_choice': 'required'", "tool_choice", 400},
    {"'messages': [" HI "], 'tools': [" TOOL "], 'tool_choice': 5", "tool_choice", 400},
    {"'messages': [" HI "], 'tools': [" TOOL "], 'tool_choice': {'type': 'function'}", "tool_choice", 400},
    {"'messages': [" HI "], 'tools': [" TOOL "], 'tool_choice': {'function': {'name': 'look'}}", "tool_choice", 400},
    {"'messages': [" HI "], 'parallel_tool_calls': 1", "parallel_tool_calls", 400},
    {"'messages': [" HI "], 'response_format': 'text'", "response_format", 400},
    {"'messages': [" HI "], 'response_format': {'type': 'json_schema'}", "response_format", 400},
    {"'messages': [" HI "], 'response_format': {'type': 'json_schema', 'json_schema': {'schema': 5}}",
     "response_format", 400},
    {"'messages': [" HI "], 'response_format': {'type': 'json_schema', 'json_schema': {'name': 5, 'schema': {}}}",
     "response_format", 400},
    {"'messages': [" HI "], 'tools': [" TOOL "], 'response_format': {'type': 'json_object'}", "response_format", 400},
};

static json_t *body_of(const char *members) {
    str text = {0};
    str_addf(&text, "{%s}", members);
    json_t *body = json_quoted(text.p);
    str_free(&text);
    assert_non_null(body);
    return body;
}

/* ` is a quote inside of quotes. */
static bool same_messages(const json_t *list, const char *text) {
    str s = {0};
    for (const char *p = text; *p; p++)
        if (*p == '`') str_puts(&s, "\\\"");
        else str_putc(&s, *p);
    bool same = json_is(list, s.p);
    str_free(&s);
    return same;
}

static void messages(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof conversations / sizeof *conversations; i++) {
        json_t *body = body_of(conversations[i].body);
        chat_request r;
        mistake m;
        if (chat_request_read(&r, body, NULL, &m) != OK) fail_msg("%s: %s", conversations[i].body, m.text);
        assert_true(same_messages(r.messages, conversations[i].messages));
        chat_request_free(&r);
        json_decref(body);
    }
}

static void options_and_grammars(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
        json_t *body = body_of(variables[i].body);
        chat_request r;
        mistake m;
        if (chat_request_read(&r, body, NULL, &m) != OK) fail_msg("%s: %s", variables[i].body, m.text);
        assert_true(json_is(r.options, variables[i].options));
        if (variables[i].grammar) assert_true(json_is(r.grammar, variables[i].grammar));
        else assert_null(r.grammar);
        const char *choice = json_string_value(json_object_get(r.grammar, "choice"));
        assert_int_equal(r.tools, choice != NULL);
        assert_int_equal(r.grammar_optional, choice && !strcmp(choice, "auto"));
        chat_request_free(&r);
        json_decref(body);
    }
}

static void faults_name_their_member(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        json_t *body = body_of(faults[i].body);
        chat_request r;
        mistake m = {0};
        status s = chat_request_read(&r, body, NULL, &m);
        if (s == OK || m.http != faults[i].http || strcmp(m.param, faults[i].param) || !*m.text)
            fail_msg("%s: %d %s: %s", faults[i].body, m.http, m.param, m.text);
        chat_request_free(&r);
        json_decref(body);
    }
}

static void long_variables(void **state) {
    (void)state;
    json_t *body = body_of("'messages': [" HI "]"), *all = json_object();
    chat_request r;
    mistake m;
    json_object_set_new(body, "chat_template_kwargs", all);
    for (int i = 0; i < MAX_VARIABLES; i++) {
        char key[8];
        snprintf(key, sizeof key, "k%d", i);
        json_object_set_new(all, key, json_true());
    }
    assert_int_equal(chat_request_read(&r, body, NULL, &m), OK);
    chat_request_free(&r);
    json_object_set_new(all, "more", json_true());
    assert_int_equal(chat_request_read(&r, body, NULL, &m), ERR_ARG);
    assert_int_equal(m.http, 422);
    chat_request_free(&r);
    json_decref(body);
}

/* --- messages that were remembered ------------------------------------------------------------------------------ */

static const char said[] = "'role': 'assistant', 'tool_calls': [{'id': 'c1', 'function': {'name': 'f', 'arguments': ";

/* The ids of the second message when a call with these arguments and content was remembered as 7 8 9. */
static bool ids_come(const char *content, const char *arguments) {
    const int32_t ids[] = {7, 8, 9};
    call_memory *c;
    error e;
    chat_request r;
    mistake m;
    assert_int_equal(call_memory_open(&c, 1000, &e), OK);
    json_t *calls =
        json_pack("[{s:s,s:{s:s,s:s}}]", "id", "c1", "function", "name", "f", "arguments", "{\"a\": 1, \"b\":[2]}");
    json_t *empty = json_string("");
    call_key *k = call_key_open(calls, empty);
    assert_non_null(k);
    assert_int_equal(k->n, 2);
    call_memory_add(c, k->texts, k->n, ids, 3);
    call_key_free(k);
    str text = {0};
    str_addf(&text, "'messages': [" HI ", {'content': %s, %s%s}}]}]", content, said, arguments);
    json_t *body = body_of(text.p);
    str_free(&text);
    assert_int_equal(chat_request_read(&r, body, c, &m), OK);
    const json_t *found = json_object_get(json_array_get(r.messages, 1), "token_ids");
    bool come = found != NULL;
    if (come) assert_true(json_is(found, "[7, 8, 9]"));
    assert_null(json_object_get(json_array_get(r.messages, 0), "token_ids"));
    chat_request_free(&r);
    json_decref(body);
    json_decref(calls);
    json_decref(empty);
    call_memory_close(c);
    return come;
}

static void remembered_messages_get_their_ids(void **state) {
    (void)state;
    assert_true(ids_come("null", "{'a': 1, 'b': [2]}"));
    assert_true(ids_come("''", "{'b': [2], 'a': 1}"));
    assert_true(ids_come("[]", "{'a': 1,    'b': [ 2 ]}"));
}

static void edited_messages_do_not(void **state) {
    (void)state;
    assert_false(ids_come("null", "{'a': 2, 'b': [2]}"));
    assert_false(ids_come("'Hm.'", "{'a': 1, 'b': [2]}"));
    assert_false(ids_come("null", "'not json'"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages),
        cmocka_unit_test(options_and_grammars),
        cmocka_unit_test(faults_name_their_member),
        cmocka_unit_test(long_variables),
        cmocka_unit_test(remembered_messages_get_their_ids),
        cmocka_unit_test(edited_messages_do_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
