/* The Responses API: what a request becomes, which faults it may have, what an answer's pieces become, what is kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include "api_test.h"
#include "server/responses.h"
#include "server/responses_memory.h"
#include <cmocka.h>

static json_t *find_item(void *arg, const char *id) {
    return json_incref(json_object_get(arg, id));
}

#define USER "'messages': [{'role': 'user', 'content': 'a'}]"
#define TOOL "'tools': [{'type': 'function', 'name': 'f', 'description': 'F', 'parameters': {'type': 'object'}}]"
#define CHAT_TOOL \
    "'tools': [{'type': 'function', 'function': {'name': 'f', 'description': 'F', 'parameters': {'type': 'object'}}}]"
#define CUSTOM \
    "{'type': 'custom', 'name': 'patch', 'description': 'P', 'format': {'type': 'grammar', 'definition': 'G'}}"
#define CHAT_CUSTOM                                                                                                   \
    "{'type': 'function', 'function': {'name': 'patch', 'description': 'P\\n\\nThe input follows this grammar:\\nG'," \
    "'parameters': {'type': 'object', 'properties': {'input': {'type': 'string'}}, 'required': ['input'],"            \
    "'additionalProperties': false}}}"

static const struct {
    const char *request, *chat;
} translations[] = {
    {"'input': 'a'", USER},
    {"'input': 'a', 'model': 'm'", "'model': 'm', " USER},
    {"'input': 'a', 'instructions': ''", USER},
    {"'input': 'a', 'instructions': 'Be.'",
     "'messages': [{'role': 'system', 'content': 'Be.'}, {'role': 'user', 'content': 'a'}]"},
    {"'instructions': 'Be.', 'input': [{'role': 'developer', 'content': 'Do.'}, {'type': 'message', 'role': 'user',"
     "'content': [{'type': 'input_text', 'text': 'a'}, {'type': 'input_text', 'text': 'b'}]}]",
     "'messages': [{'role': 'system', 'content': 'Be.\\n\\nDo.'}, {'role': 'user', 'content': 'ab'}]"},
    {"'input': [{'role': 'user', 'content': 'a'}, {'role': 'developer', 'content': 'b'}]",
     "'messages': [{'role': 'user', 'content': 'a\\n\\n<system-reminder>\\nb\\n</system-reminder>'}]"},
    /* reasoning, words and calls of one turn are one message */
    {"'input': [{'role': 'user', 'content': 'a'}, {'type': 'reasoning', 'id': 'rs_1', 'summary': [], 'content':"
     "[{'type': 'reasoning_text', 'text': 'hm'}]}, {'type': 'message', 'role': 'assistant', 'id': 'msg_1', 'content':"
     "[{'type': 'output_text', 'text': 'Look.', 'annotations': []}]}, {'type': 'function_call', 'call_id': 'call_1',"
     "'name': 'ls', 'arguments': '{}', 'id': 'fc_1'}, {'type': 'function_call', 'call_id': 'call_2', 'name': 'cat',"
     "'arguments': '{1'}, {'type': 'function_call_output', 'call_id': 'call_1', 'output': 'x.c'},"
     "{'type': 'function_call_output', 'call_id': 'call_2', 'output': [{'type': 'input_text', 'text': 'no'},"
     "{'type': 'input_image', 'image_url': 'x'}]}]",
     "'messages': [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'Look.', 'reasoning_content':"
     "'hm', 'tool_calls': [{'id': 'call_1', 'type': 'function', 'function': {'name': 'ls', 'arguments': '{}'}}, {'id':"
     "'call_2', 'type': 'function', 'function': {'name': 'cat', 'arguments': '{1'}}]}, {'role': 'tool',"
     "'tool_call_id': 'call_1', 'content': 'x.c'}, {'role': 'tool', 'tool_call_id': 'call_2', 'content':"
     "'no[input_image, which this model cannot read]'}]"},
    {"'input': [{'type': 'reasoning', 'summary': [{'type': 'summary_text', 'text': 's'}], 'encrypted_content': 'hm'},"
     "{'role': 'assistant', 'content': [{'type': 'refusal', 'refusal': 'No.'}]}, {'role': 'user', 'content': 'a'}]",
     "'messages': [{'role': 'assistant', 'content': 'No.', 'reasoning_content': 'hm'}, {'role': 'user', 'content':"
     "'a'}]"},
    {"'input': [{'type': 'reasoning', 'summary': [{'type': 'summary_text', 'text': 's'}]}, {'role': 'assistant',"
     "'content': 'b'}, {'role': 'user', 'content': 'a'}]",
     "'messages': [{'role': 'assistant', 'content': 'b', 'reasoning_content': 's'}, {'role': 'user', 'content':"
     "'a'}]"},
    {"'input': [{'type': 'item_reference', 'id': 'msg_9'}, {'role': 'user', 'content': 'a'}]",
     "'messages': [{'role': 'assistant', 'content': 'nine'}, {'role': 'user', 'content': 'a'}]"},
    {"'input': [{'type': 'custom_tool_call', 'call_id': 'call_1', 'name': 'patch', 'input': 'say \\\"x\\\"'},"
     "{'type': 'custom_tool_call_output', 'call_id': 'call_1', 'output': 'ok'}]",
     "'messages': [{'role': 'assistant', 'content': null, 'tool_calls': [{'id': 'call_1', 'type': 'function',"
     "'function': {'name': 'patch', 'arguments': '{\\\"input\\\": \\\"say \\\\\\\"x\\\\\\\"\\\"}'}}]}, {'role':"
     "'tool', 'tool_call_id': 'call_1', 'content': 'ok'}]"},
    {"'input': [{'type': 'function_call', 'call_id': 'call_1', 'name': 'get', 'namespace': 'web', 'arguments': '{}'}]",
     "'messages': [{'role': 'assistant', 'content': null, 'tool_calls': [{'id': 'call_1', 'type': 'function',"
     "'function': {'name': 'web__get', 'arguments': '{}'}}]}]"},
    /* tools */
    {"'input': 'a', " TOOL ", 'tool_choice': 'auto', 'parallel_tool_calls': false",
     USER ", " CHAT_TOOL ", 'tool_choice': 'auto', 'parallel_tool_calls': false"},
    {"'input': [{'role': 'user', 'content': 'a'}, {'type': 'additional_tools', 'role': 'developer', " TOOL "}]",
     USER ", " CHAT_TOOL},
    {"'input': 'a', 'tools': [{'type': 'web_search'}, {'type': 'local_shell'}], 'tool_choice': 'auto'", USER},
    {"'input': 'a', " TOOL ", 'tool_choice': 'required'", USER ", " CHAT_TOOL ", 'tool_choice': 'required'"},
    {"'input': 'a', " TOOL ", 'tool_choice': {'type': 'function', 'name': 'f'}",
     USER ", " CHAT_TOOL ", 'tool_choice': {'type': 'function', 'function': {'name': 'f'}}"},
    {"'input': 'a', 'tools': [{'type': 'function', 'name': 'f', 'parameters': {}, 'strict': true}, {'type': 'function',"
     "'name': 'g', 'strict': null}], 'tool_choice': {'type': 'allowed_tools', 'mode': 'required', 'tools': [{'type':"
     "'function', 'name': 'f'}, {'type': 'web_search'}]}",
     USER ", 'tools': [{'type': 'function', 'function': {'name': 'f', 'parameters': {}, 'strict': true}}],"
          "'tool_choice': 'required'"},
    {"'input': 'a', 'tools': [" CUSTOM "], 'tool_choice': {'type': 'custom', 'name': 'patch'}",
     USER ", 'tools': [" CHAT_CUSTOM "], 'tool_choice': {'type': 'function', 'function': {'name': 'patch'}}"},
    {"'input': 'a', 'tools': [{'type': 'namespace', 'name': 'web', 'description': 'W', 'tools': [{'type': 'function',"
     "'name': 'get', 'parameters': {}}]}], 'tool_choice': {'type': 'function', 'name': 'get', 'namespace': 'web'}",
     USER ", 'tools': [{'type': 'function', 'function': {'name': 'web__get', 'parameters': {}}}],"
          "'tool_choice': {'type': 'function', 'function': {'name': 'web__get'}}"},
    /* settings */
    {"'input': 'a', 'max_output_tokens': 9, 'temperature': 0, 'top_p': 0.5, 'seed': 1, 'top_k': 3, 'metadata': {'k':"
     "'v'}, 'store': false, 'stream': true, 'truncation': 'auto', 'user': 'u', 'background': false, 'text': null",
     USER ", 'max_tokens': 9, 'temperature': 0, 'top_p': 0.5, 'seed': 1, 'top_k': 3"},
    {"'input': 'a', 'text': {'format': {'type': 'text'}, 'verbosity': 'low'}",
     USER ", 'response_format': {'type': 'text'}"},
    {"'input': 'a', 'text': {'format': {'type': 'json_object'}}", USER ", 'response_format': {'type': 'json_object'}"},
    {"'input': 'a', 'text': {'format': {'type': 'json_schema', 'name': 'n', 'strict': true, 'schema': {'type':"
     "'object'}}}",
     USER ", 'response_format': {'type': 'json_schema', 'json_schema': {'name': 'n', 'strict': true, 'schema': {'type':"
          "'object'}}}"},
    {"'input': 'a', 'reasoning': {'effort': 'high', 'summary': 'auto'}", USER ", 'reasoning_effort': 'high'"},
    {"'input': 'a', 'reasoning': {'effort': 'none'}", USER ", 'thinking': {'type': 'disabled'}"},
    {"'input': 'a', 'reasoning': {'effort': null, 'summary': null}", USER},
    {"'input': 'a', 'include': ['message.output_text.logprobs', 'other']",
     USER ", 'logprobs': true, 'top_logprobs': 0"},
    {"'input': 'a', 'top_logprobs': 3", USER ", 'logprobs': true, 'top_logprobs': 3"},
};

static void test_translations(void **state) {
    (void)state;
    json_t *known = json_quoted("{'msg_9': {'type': 'message', 'role': 'assistant', 'content': 'nine'}}");
    for (size_t i = 0; i < sizeof translations / sizeof *translations; i++) {
        str in = {0}, out = {0};
        str_addf(&in, "{%s}", translations[i].request);
        str_addf(&out, "{%s}", translations[i].chat);
        json_t *request = json_quoted(in.p);
        response_request q;
        bool good = response_translate(&q, request, NULL, find_item, known);
        if (!good) print_message("%s: %s\n", in.p, q.t.text);
        assert_true(good);
        assert_true(json_is(q.t.body, out.p));
        response_request_free(&q);
        json_decref(request);
        str_free(&in);
        str_free(&out);
    }
    json_decref(known);
}

static void test_previous(void **state) {
    (void)state;
    json_t *before = json_quoted("[{'type': 'message', 'role': 'user', 'content': 'a'}, {'type': 'message', 'role':"
                                 "'assistant', 'content': [{'type': 'output_text', 'text': 'b'}]}]");
    json_t *request = json_quoted("{'input': 'c', 'instructions': 'new'}");
    response_request q;
    assert_true(response_translate(&q, request, before, find_item, NULL));
    assert_true(json_is(q.t.body,
                        "{'messages': [{'role': 'system', 'content': 'new'}, {'role': 'user', 'content': 'a'},"
                        "{'role': 'assistant', 'content': 'b'}, {'role': 'user', 'content': 'c'}]}"));
    assert_true(json_is(q.items, "[{'type': 'message', 'role': 'user', 'content': 'a'}, {'type': 'message', 'role':"
                                 "'assistant', 'content': [{'type': 'output_text', 'text': 'b'}]}, {'type': 'message',"
                                 "'role': 'user', 'content': 'c'}]"));
    assert_true(q.store && !q.stream);
    response_request_free(&q);
    json_decref(before);
    json_decref(request);
}

static const struct {
    const char *request, *param;
    int code;
} faults[] = {
    {"'model': 'm'", "input", 400},
    {"'input': 5", "input", 400},
    {"'input': []", "input", 400},
    {"'input': [5]", "input[0]", 400},
    {"'input': [{'role': 'critic', 'content': 'a'}]", "input[0].role", 400},
    {"'input': [{'role': 'user'}]", "input[0].content", 400},
    {"'input': [{'role': 'user', 'content': [5]}]", "input[0].content[0]", 400},
    {"'input': [{'role': 'user', 'content': [{'type': 'input_image', 'image_url': 'x'}]}]", "input[0].content[0].type",
     400},
    {"'input': [{'role': 'user', 'content': [{'type': 'input_text'}]}]", "input[0].content[0].text", 400},
    {"'input': [{'type': 'computer_call'}]", "input[0].type", 400},
    {"'input': [{'type': 'item_reference', 'id': 'msg_1'}]", "input[0].id", 404},
    {"'input': [{'type': 'item_reference', 'id': 'msg_9'}, {'type': 'item_reference', 'id': 'msg_9'}]", "input[1].id",
     400},
    {"'input': [{'type': 'function_call', 'name': 'f', 'arguments': '{}'}]", "input[0].call_id", 400},
    {"'input': [{'type': 'function_call', 'call_id': 'c', 'name': 'f', 'arguments': {}}]", "input[0].arguments", 400},
    {"'input': [{'type': 'function_call_output', 'call_id': 'c'}]", "input[0].output", 400},
    {"'input': [{'type': 'function_call_output', 'output': 'x'}]", "input[0].call_id", 400},
    {"'input': 'a', 'instructions': 5", "instructions", 400},
    {"'input': [{'type': 'additional_tools'}]", "input", 400},
    {"'input': [{'role': 'user', 'content': 'a'}, {'type': 'additional_tools', 'tools': [{'type': 'function'}]}]",
     "input[1].tools[0].name", 400},
    {"'input': 'a', 'tools': {}", "tools", 400},
    {"'input': 'a', 'tools': [5]", "tools[0]", 400},
    {"'input': 'a', 'tools': [{'type': 'function'}]", "tools[0].name", 400},
    {"'input': 'a', 'tools': [{'type': 'function', 'name': 'f', 'parameters': 5}]", "tools[0].parameters", 400},
    {"'input': 'a', 'tools': [{'type': 'namespace', 'name': 'n', 'tools': [{'type': 'function'}]}]",
     "tools[0].tools[0].name", 400},
    {"'input': 'a', " TOOL ", 'tool_choice': 'some'", "tool_choice", 400},
    {"'input': 'a', " TOOL ", 'tool_choice': {'type': 'function', 'name': 'g'}", "tool_choice.name", 400},
    {"'input': 'a', " TOOL ", 'tool_choice': {'type': 'web_search'}", "tool_choice", 400},
    {"'input': 'a', 'tools': [{'type': 'web_search'}], 'tool_choice': 'required'", "tool_choice", 400},
    {"'input': 'a', 'max_output_tokens': 0", "max_output_tokens", 422},
    {"'input': 'a', 'max_output_tokens': 'many'", "max_output_tokens", 400},
    {"'input': 'a', 'stream': 1", "stream", 400},
    {"'input': 'a', 'store': 1", "store", 400},
    {"'input': 'a', 'metadata': []", "metadata", 400},
    {"'input': 'a', 'text': 'x'", "text", 400},
    {"'input': 'a', 'text': {'format': {}}", "text.format.type", 400},
    {"'input': 'a', 'text': {'format': {'type': 'json_schema', 'name': 'n'}}", "text.format.schema", 400},
    {"'input': 'a', 'reasoning': 'high'", "reasoning", 400},
    {"'input': 'a', 'reasoning': {'effort': 3}", "reasoning.effort", 400},
    {"'input': 'a', 'include': 'x'", "include", 400},
    {"'input': 'a', 'top_logprobs': 'x'", "top_logprobs", 400},
    {"'input': 'a', 'background': true", "background", 400},
    {"'input': 'a', 'conversation': 'conv_1'", "conversation", 400},
    {"'input': 'a', 'prompt': {'id': 'p'}", "prompt", 400},
};

static void test_faults(void **state) {
    (void)state;
    json_t *known = json_quoted("{'msg_9': {'type': 'message', 'role': 'assistant', 'content': 'nine'}}");
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        str in = {0};
        str_addf(&in, "{%s}", faults[i].request);
        json_t *request = json_quoted(in.p);
        response_request q;
        assert_false(response_translate(&q, request, NULL, find_item, known));
        assert_string_equal(q.t.param, faults[i].param);
        assert_int_equal(q.t.status, faults[i].code);
        response_request_free(&q);
        json_decref(request);
        str_free(&in);
    }
    json_decref(known);
}

/* --- answers ------------------------------------------------------------------------------------------------------ */

static const hadal_piece answer[] = {
    {HADAL_PIECE_REASONING, "hm", 2, 0, 0},     {HADAL_PIECE_CONTENT, "Look", 4, 0, 0},
    {HADAL_PIECE_CONTENT, "ing", 3, 0, 0},      {HADAL_PIECE_CALL, "ls", 2, 0, 0},
    {HADAL_PIECE_ARGUMENTS, "{\"n\"", 4, 0, 0}, {HADAL_PIECE_ARGUMENTS, ": 1}", 4, 0, 0},
    {HADAL_PIECE_CALL_END, "", 0, 0, 1},
};

#define ID(prefix, n) "'" prefix "_R_" #n "'"
#define ITEM_EVENT(name, i, item) \
    "{'event': 'response.output_item." name "', 'output_index': " #i ", 'item': {" item "}}"
#define EVENT(name, i, id, rest) "{'event': 'response." name "', 'output_index': " #i ", 'item_id': " id ", " rest "}"
#define PART(text) "{'type': 'output_text', 'text': '" text "', 'annotations': [], 'logprobs': []}"
#define REASONING "'id': 'rs_R_0', 'type': 'reasoning', "
#define MESSAGE "'id': 'msg_R_1', 'type': 'message', 'role': 'assistant', "
#define CALL "'id': 'fc_R_2', 'type': 'function_call', 'call_id': 'call_0', 'name': 'ls', "
#define REASONING_DONE \
    REASONING "'status': 'completed', 'summary': [], 'content': [{'type': 'reasoning_text', 'text': 'hm'}]"
#define MESSAGE_DONE MESSAGE "'status': 'completed', 'content': [" PART("Looking") "]"
#define CALL_DONE CALL "'status': 'completed', 'arguments': '{\\\"n\\\": 1}'"

static const char *const events[] = {
    ITEM_EVENT("added", 0, REASONING "'status': 'in_progress', 'summary': []"),
    EVENT("content_part.added", 0, "'rs_R_0'", "'content_index': 0, 'part': {'type': 'reasoning_text', 'text': ''}"),
    EVENT("reasoning_text.delta", 0, "'rs_R_0'", "'content_index': 0, 'delta': 'hm'"),
    EVENT("reasoning_text.done", 0, "'rs_R_0'", "'content_index': 0, 'text': 'hm'"),
    EVENT("content_part.done", 0, "'rs_R_0'", "'content_index': 0, 'part': {'type': 'reasoning_text', 'text': 'hm'}"),
    ITEM_EVENT("done", 0, REASONING_DONE),
    ITEM_EVENT("added", 1, MESSAGE "'status': 'in_progress', 'content': []"),
    EVENT("content_part.added", 1, "'msg_R_1'", "'content_index': 0, 'part': " PART("")),
    EVENT("output_text.delta", 1, "'msg_R_1'", "'content_index': 0, 'delta': 'Look', 'logprobs': []"),
    EVENT("output_text.delta", 1, "'msg_R_1'", "'content_index': 0, 'delta': 'ing', 'logprobs': []"),
    EVENT("output_text.done", 1, "'msg_R_1'", "'content_index': 0, 'text': 'Looking', 'logprobs': []"),
    EVENT("content_part.done", 1, "'msg_R_1'", "'content_index': 0, 'part': " PART("Looking")),
    ITEM_EVENT("done", 1, MESSAGE_DONE),
    ITEM_EVENT("added", 2, CALL "'status': 'in_progress', 'arguments': ''"),
    EVENT("function_call_arguments.delta", 2, "'fc_R_2'", "'delta': '{\\\"n\\\"'"),
    EVENT("function_call_arguments.delta", 2, "'fc_R_2'", "'delta': ': 1}'"),
    EVENT("function_call_arguments.done", 2, "'fc_R_2'", "'name': 'ls', 'arguments': '{\\\"n\\\": 1}'"),
    ITEM_EVENT("done", 2, CALL_DONE),
};

static void write_pieces(response_items *r, const hadal_piece *p, size_t n) {
    for (size_t i = 0; i < n; i++) response_items_piece(r, p + i, "call_0", NULL);
    response_items_finish(r, true);
}

static void test_items(void **state) {
    (void)state;
    response_request q = {0};
    response_items r = {.id = "R", .q = &q};
    write_pieces(&r, answer, sizeof answer / sizeof *answer);
    assert_true(json_is(r.output, "[{" REASONING_DONE "}, {" MESSAGE_DONE "}, {" CALL_DONE "}]"));
    response_items_free(&r);

    json_t *heard = json_array();
    r = (response_items){.id = "R", .q = &q, .event = hear, .arg = heard};
    write_pieces(&r, answer, sizeof answer / sizeof *answer);
    assert_true(json_is(r.output, "[{" REASONING_DONE "}, {" MESSAGE_DONE "}, {" CALL_DONE "}]"));
    assert_true(heard_are(heard, events, sizeof events / sizeof *events));
    response_items_free(&r);
    json_decref(heard);
}

#define SUMMARY(text) "{'type': 'summary_text', 'text': '" text "'}"
static const char *const summary_events[] = {
    ITEM_EVENT("added", 0, REASONING "'status': 'in_progress', 'summary': []"),
    EVENT("reasoning_summary_part.added", 0, "'rs_R_0'", "'summary_index': 0, 'part': " SUMMARY("")),
    EVENT("reasoning_summary_text.delta", 0, "'rs_R_0'", "'summary_index': 0, 'delta': 'hm'"),
    EVENT("reasoning_summary_text.done", 0, "'rs_R_0'", "'summary_index': 0, 'text': 'hm'"),
    EVENT("reasoning_summary_part.done", 0, "'rs_R_0'", "'summary_index': 0, 'part': " SUMMARY("hm")),
    ITEM_EVENT("done", 0, REASONING "'status': 'completed', 'encrypted_content': 'hm', 'summary': [" SUMMARY("hm") "]"),
};

static void test_summary(void **state) {
    (void)state;
    json_t *heard = json_array();
    response_request q = {.summary = true, .encrypted = true};
    response_items r = {.id = "R", .q = &q, .event = hear, .arg = heard};
    write_pieces(&r, answer, 1);
    assert_true(heard_are(heard, summary_events, sizeof summary_events / sizeof *summary_events));
    response_items_free(&r);
    json_decref(heard);
}

static void test_cut(void **state) {
    (void)state;
    response_request q = {0};
    response_items r = {.id = "R", .q = &q};
    response_items_piece(&r, answer, NULL, NULL);
    response_items_finish(&r, false);
    assert_true(json_is(r.output, "[{" REASONING "'status': 'incomplete', 'summary': [], 'content': [{'type':"
                                  "'reasoning_text', 'text': 'hm'}]}]"));
    response_items_free(&r);
}

#define CUSTOM_ITEM "'id': 'ctc_R_0', 'type': 'custom_tool_call', 'call_id': 'call_0', 'name': 'patch', "
static const char *const custom_events[] = {
    ITEM_EVENT("added", 0, CUSTOM_ITEM "'status': 'in_progress', 'input': ''"),
    EVENT("custom_tool_call_input.delta", 0, "'ctc_R_0'", "'delta': 'x\\ny'"),
    EVENT("custom_tool_call_input.done", 0, "'ctc_R_0'", "'input': 'x\\ny'"),
    ITEM_EVENT("done", 0, CUSTOM_ITEM "'status': 'completed', 'input': 'x\\ny'"),
};

static void test_custom_and_namespace(void **state) {
    (void)state;
    json_t *heard = json_array();
    response_request q = {.tools = json_quoted("{'patch': {'namespace': null, 'name': 'patch', 'custom': true},"
                                               "'web__get': {'namespace': 'web', 'name': 'get', 'custom': false}}")};
    response_items r = {.id = "R", .q = &q, .event = hear, .arg = heard};
    hadal_piece patch[] = {piece_of(HADAL_PIECE_CALL, "patch"), piece_of(HADAL_PIECE_ARGUMENTS, "{\"input\": "),
                           piece_of(HADAL_PIECE_ARGUMENTS, "\"x\\ny\"}"), piece_of(HADAL_PIECE_CALL_END, "")};
    write_pieces(&r, patch, 4);
    assert_true(heard_are(heard, custom_events, sizeof custom_events / sizeof *custom_events));
    hadal_piece get[] = {piece_of(HADAL_PIECE_CALL, "web__get"), piece_of(HADAL_PIECE_ARGUMENTS, "{}")};
    write_pieces(&r, get, 2);
    assert_true(json_is(json_array_get(r.output, 1),
                        "{'id': 'fc_R_1', 'type': 'function_call', 'call_id': 'call_0', 'name': 'get', 'namespace':"
                        "'web', 'status': 'completed', 'arguments': '{}'}"));
    hadal_piece empty[] = {piece_of(HADAL_PIECE_CALL, "now"), piece_of(HADAL_PIECE_CALL_END, "")};
    write_pieces(&r, empty, 2);
    assert_true(json_is(json_object_get(json_array_get(r.output, 2), "arguments"), "'{}'"));
    hadal_piece bad[] = {piece_of(HADAL_PIECE_CALL, "patch"), piece_of(HADAL_PIECE_ARGUMENTS, "{1")};
    write_pieces(&r, bad, 2);
    assert_true(json_is(json_object_get(json_array_get(r.output, 3), "input"), "'{1'"));
    response_items_free(&r);
    json_decref(heard);
    json_decref(q.tools);
}

static void test_logprobs(void **state) {
    (void)state;
    json_t *one = json_quoted("[{'token': 'Look', 'logprob': -1, 'bytes': [1], 'top_logprobs': []}]");
    response_request q = {.logprobs = true};
    response_items r = {.id = "R", .q = &q};
    response_items_piece(&r, answer + 1, NULL, one);
    response_items_piece(&r, answer + 2, NULL, one);
    response_items_finish(&r, true);
    const json_t *part = json_array_get(json_object_get(json_array_get(r.output, 0), "content"), 0);
    assert_int_equal(json_array_size(json_object_get(part, "logprobs")), 2);
    assert_int_equal(json_array_size(one), 1);
    response_items_free(&r);
    json_decref(one);
}

static void test_response(void **state) {
    (void)state;
    json_t *request = json_quoted("{'instructions': 'Be.', 'tools': [{'type': 'web_search'}], 'temperature': 0.5,"
                                  "'metadata': {'k': 'v'}, 'store': false, 'reasoning': {'effort': 'low'}}");
    chat_usage u = {.prompt_tokens = 10, .cached_tokens = 4, .completion_tokens = 3, .reasoning_tokens = 1};
    json_t *o = response_json("0af", "m", request, NULL, "incomplete", 7, &u);
    assert_true(json_is(
        o, "{'id': 'resp_0af', 'object': 'response', 'created_at': 7, 'status': 'incomplete', 'error': null,"
           "'incomplete_details': {'reason': 'max_output_tokens'}, 'model': 'm', 'output': [], 'service_tier':"
           "'default', 'usage': {'input_tokens': 10, 'input_tokens_details': {'cached_tokens': 4,"
           "'cache_write_tokens': 0}, 'output_tokens': 3, 'output_tokens_details': {'reasoning_tokens': 1},"
           "'total_tokens': 13}, 'background': false, 'instructions': 'Be.', 'max_output_tokens': null,"
           "'max_tool_calls': null, 'metadata': {'k': 'v'}, 'parallel_tool_calls': true, 'previous_response_id': null,"
           "'prompt_cache_key': null, 'reasoning': {'effort': 'low'}, 'safety_identifier': null, 'store': false,"
           "'temperature': 0.5, 'text': {'format': {'type': 'text'}}, 'tool_choice': 'auto', 'tools': [{'type':"
           "'web_search'}], 'top_logprobs': 0, 'top_p': null, 'truncation': 'disabled', 'user': null}"));
    json_decref(o);
    o = response_json("0af", "m", request, NULL, "in_progress", 7, NULL);
    assert_true(json_is_null(json_object_get(o, "usage")) && json_is_null(json_object_get(o, "incomplete_details")));
    json_decref(o);
    json_decref(request);
}

/* --- memory ------------------------------------------------------------------------------------------------------- */

static void keep(response_memory *m, int i) {
    json_t *response = json_pack("{s:o, s:[{s:o, s:i}]}", "id", json_sprintf("resp_%d", i), "output", "id",
                                 json_sprintf("msg_%d_0", i), "n", i);
    json_t *items = json_pack("[i]", i);
    response_memory_add(m, response, items);
    json_decref(response);
    json_decref(items);
}

static bool knows(response_memory *m, const char *id) {
    json_t *found = response_memory_find(m, id);
    json_decref(found);
    return found != NULL;
}

static void test_memory(void **state) {
    (void)state;
    response_memory *m;
    assert_int_equal(response_memory_open(&m, 3, 0, NULL), OK);
    for (int i = 0; i < 4; i++) keep(m, i);
    assert_false(knows(m, "resp_0"));
    assert_true(knows(m, "resp_1") && knows(m, "resp_2") && knows(m, "resp_3"));
    json_t *items = response_memory_items(m, "resp_2"), *seen = json_object();
    json_t *item = response_memory_item(m, "msg_3_0", seen), *again = response_memory_item(m, "msg_3_0", seen);
    assert_true(json_is(items, "[2]"));
    assert_true(json_is(item, "{'id': 'msg_3_0', 'n': 3}"));
    assert_ptr_equal(item, again);
    json_decref(items);
    json_decref(item);
    json_decref(again);
    static const char *const strange[] = {"", "msg", "msg_3", "msg_3_", "msg_3_1", "_", "__", "msg_0_0"};
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++) {
        assert_null(response_memory_item(m, strange[i], seen));
        assert_null(response_memory_item(m, strange[i], seen));
    }
    json_decref(seen);
    assert_true(response_memory_forget(m, "resp_3")); /* the youngest: what comes next must still be found */
    assert_false(response_memory_forget(m, "resp_3"));
    keep(m, 4);
    keep(m, 5);
    assert_false(knows(m, "resp_1"));
    assert_true(knows(m, "resp_2") && knows(m, "resp_4") && knows(m, "resp_5"));
    assert_null(response_memory_items(m, "resp_1"));
    response_memory_close(m);
}

static void test_memory_bytes(void **state) {
    (void)state;
    response_memory *m;
    assert_int_equal(response_memory_open(&m, 0, 100, NULL), OK);
    for (int i = 0; i < 4; i++) keep(m, i); /* {"id":"resp_0","output":[{"id":"msg_0_0","n":0}]} and [0]: 53 bytes */
    assert_false(knows(m, "resp_2"));
    assert_true(knows(m, "resp_3"));
    response_memory_close(m);
    assert_int_equal(response_memory_open(&m, 0, 50, NULL), OK);
    keep(m, 0);
    assert_false(knows(m, "resp_0"));
    response_memory_close(m);
    response_memory_close(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_translations),
        cmocka_unit_test(test_previous),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_items),
        cmocka_unit_test(test_summary),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_custom_and_namespace),
        cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_response),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_memory_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
