/* The Messages API: what a request becomes, which faults it may have, what an answer's pieces become. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include "api_test.h"
#include "server/messages.h"
#include <cmocka.h>

/* Members of a request behind model and max_tokens, and of the chat completion behind model. */
static const struct {
    const char *request, *chat;
} translations[] = {
    {"'messages': [{'role': 'user', 'content': 'Hi'}]", "'messages': [{'role': 'user', 'content': 'Hi'}]"},
    {"'system': 'Be brief.', 'messages': [{'role': 'user', 'content': [{'type': 'text', 'text': 'a'}]}]",
     "'messages': [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': 'a'}]"},
    {"'system': [{'type': 'text', 'text': 'One.', 'cache_control': {'type': 'ephemeral'}},"
     "{'type': 'text', 'text': 'Two.'}], 'messages': [{'role': 'user', 'content': 'a'}]",
     "'messages': [{'role': 'system', 'content': 'One.\\nTwo.'}, {'role': 'user', 'content': 'a'}]"},
    /* turns of one role are one turn */
    {"'messages': [{'role': 'user', 'content': 'a'}, {'role': 'user', 'content': [{'type': 'text', 'text': 'b'},"
     "{'type': 'text', 'text': 'c'}]}]",
     "'messages': [{'role': 'user', 'content': 'a\\n\\nb\\n\\nc'}]"},
    /* what differs in every request of Claude Code */
    {"'system': [{'type': 'text', 'text': 'x-anthropic-billing-header: cc_version=2.1; cch=1af;'},"
     "{'type': 'text', 'text': 'You are.'}], 'messages': [{'role': 'user', 'content': 'a'}]",
     "'messages': [{'role': 'system', 'content': 'You are.'}, {'role': 'user', 'content': 'a'}]"},
    {"'system': 'x-anthropic-billing-header: cch=1af;', 'messages': [{'role': 'user', 'content': 'a'}]",
     "'messages': [{'role': 'user', 'content': 'a'}]"},
    /* a turn with tools and its results, in order */
    {"'messages': [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': ["
     "{'type': 'thinking', 'thinking': 'hm', 'signature': 's'}, {'type': 'redacted_thinking', 'data': 'x'},"
     "{'type': 'text', 'text': 'Look'}, {'type': 'text', 'text': 'ing.'},"
     "{'type': 'tool_use', 'id': 'call_1', 'name': 'ls', 'input': {'path': '.', 'n': 1}},"
     "{'type': 'tool_use', 'id': 'call_2', 'name': 'cat', 'input': {}}]}, {'role': 'user', 'content': ["
     "{'type': 'tool_result', 'tool_use_id': 'call_1', 'content': 'x.c'},"
     "{'type': 'tool_result', 'tool_use_id': 'call_2', 'is_error': true, 'content': [{'type': 'text', 'text': 'no'},"
     "{'type': 'image', 'source': {}}, {'type': 'document', 'source': {'type': 'base64'}}]},"
     "{'type': 'text', 'text': 'go on'}]}]",
     "'messages': [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'Looking.',"
     "'reasoning_content': 'hm', 'tool_calls': ["
     "{'id': 'call_1', 'type': 'function', 'function': {'name': 'ls', 'arguments': '{\\\"path\\\": \\\".\\\", "
     "\\\"n\\\": "
     "1}'}}, {'id': 'call_2', 'type': 'function', 'function': {'name': 'cat', 'arguments': '{}'}}]},"
     "{'role': 'tool', 'tool_call_id': 'call_1', 'content': 'x.c'}, {'role': 'tool', 'tool_call_id': 'call_2',"
     "'content': 'Error:\\nno[an image, which this model cannot see][a document, which this model cannot read]'}, "
     "{'role': 'user', 'content': 'go on'}]"},
    {"'messages': [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': [{'type': 'tool_use', 'id': 'i',"
     "'name': 'f', 'input': {'INVALID_JSON': '{1'}}]}]",
     "'messages': [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': null, 'tool_calls': [{'id': 'i',"
     "'type': 'function', 'function': {'name': 'f', 'arguments': '{1'}}]}]"},
    /* the assistant's words are gone on with */
    {"'messages': [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'It is'}]",
     "'messages': [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'It is', 'prefix': true}]"},
    {"'messages': [{'role': 'user', 'content': [{'type': 'document', 'title': 'T', 'source': {'type': 'text',"
     "'media_type': 'text/plain', 'data': 'D'}}]}]",
     "'messages': [{'role': 'user', 'content': 'T\\nD'}]"},
    {"'messages': [{'role': 'user', 'content': [{'type': 'search_result', 'title': 'T', 'source': 'http://x',"
     "'content': [{'type': 'text', 'text': 'R'}]}]}, {'role': 'system', 'content': 'later'}]",
     "'messages': [{'role': 'user', 'content': 'T\\nR\\n\\n<system-reminder>\\nlater\\n</system-reminder>'}]"},
#define USER "'messages': [{'role': 'user', 'content': 'a'}]"
#define TOOL "'tools': [{'name': 'f', 'description': 'F', 'input_schema': {'type': 'object'}}]"
#define CHAT_TOOL \
    "'tools': [{'type': 'function', 'function': {'name': 'f', 'description': 'F', 'parameters': {'type': 'object'}}}]"
    {USER ", " TOOL, USER ", " CHAT_TOOL},
    {USER ", 'tools': [{'type': 'web_search_20250305', 'name': 'web_search', 'max_uses': 5}], 'tool_choice':"
          "{'type': 'auto'}",
     USER},
    {USER ", 'tools': [{'type': 'custom', 'name': 'g', 'strict': true, 'input_schema': {}}, {'type': 'bash_20250124',"
          "'name': 'bash'}], 'tool_choice': {'type': 'tool', 'name': 'g', 'disable_parallel_tool_use': true}",
     USER ", 'tools': [{'type': 'function', 'function': {'name': 'g', 'parameters': {}, 'strict': true}}],"
          "'tool_choice': {'type': 'function', 'function': {'name': 'g'}}, 'parallel_tool_calls': false"},
    {USER ", " TOOL ", 'tool_choice': {'type': 'any'}", USER ", " CHAT_TOOL ", 'tool_choice': 'required'"},
    {USER ", " TOOL ", 'tool_choice': {'type': 'none'}", USER ", " CHAT_TOOL ", 'tool_choice': 'none'"},
    {USER ", " TOOL ", 'tool_choice': {'type': 'auto', 'disable_parallel_tool_use': true}",
     USER ", " CHAT_TOOL ", 'tool_choice': 'auto', 'parallel_tool_calls': false"},
    /* tools that wait until a message brings them in */
    {USER ", 'tools': [{'name': 'g', 'input_schema': {}, 'defer_loading': true}], 'tool_choice': {'type': 'auto'}",
     USER},
    {"'messages': [{'role': 'user', 'content': [{'type': 'tool_result', 'tool_use_id': 'i', 'content': [{'type':"
     "'tool_reference', 'tool_name': 'g'}]}]}], 'tools': [{'name': 'g', 'input_schema': {}, 'defer_loading': true}]",
     "'messages': [{'role': 'tool', 'tool_call_id': 'i', 'content': 'The tool g is now available.'}],"
     "'tools': [{'type': 'function', 'function': {'name': 'g', 'parameters': {}}}]"},
    {"'messages': [{'role': 'user', 'content': 'a'}, {'role': 'system', 'content': [{'type': 'tool_addition', 'tool':"
     "{'type': 'tool_definition', 'definition': {'name': 'f', 'description': 'F', 'input_schema': {'type': "
     "'object'}}}},"
     "{'type': 'tool_removal', 'tool': {'type': 'tool_reference', 'name': 'h'}}]}]",
     "'messages': [{'role': 'user', 'content': 'a\\n\\n<system-reminder>\\nThe tool f is now available.\\nThe tool h"
     " is no longer available.\\n</system-reminder>'}], " CHAT_TOOL},
    /* what a system message says until the next user message */
    {"'messages': [{'role': 'user', 'content': 'a'}, {'role': 'system', 'content': 'b', 'clear_at':"
     "'next_user_message'}, {'role': 'assistant', 'content': 'c'}, {'role': 'user', 'content': 'd'}, {'role': 'system',"
     "'content': 'e', 'clear_at': 'next_user_message'}]",
     "'messages': [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'c'}, {'role': 'user', 'content':"
     "'d\\n\\n<system-reminder>\\ne\\n</system-reminder>'}]"},
    {USER ", 'thinking': {'type': 'enabled', 'budget_tokens': 2048}", USER ", 'thinking': {'type': 'enabled'}"},
    {USER ", 'thinking': {'type': 'adaptive'}", USER ", 'thinking': {'type': 'enabled'}"},
    {USER ", 'thinking': {'type': 'disabled'}", USER ", 'thinking': {'type': 'disabled'}"},
    {USER ", 'temperature': 0.5, 'top_p': 0.9, 'top_k': 5, 'stop_sequences': ['x', 'y'], 'stream': true,"
          "'metadata': {'user_id': 'u'}, 'service_tier': 'auto'",
     USER ", 'temperature': 0.5, 'top_p': 0.9, 'top_k': 5, 'stop': ['x', 'y']"},
    {USER ", 'stop_sequences': []", USER},
    {USER ", 'output_config': {'effort': 'high', 'format': {'type': 'json_schema', 'schema': {'type': 'object'}}}",
     USER ", 'reasoning_effort': 'high', 'response_format': {'type': 'json_schema', 'json_schema': {'name': 'answer',"
          "'schema': {'type': 'object'}, 'strict': true}}"},
};

static void with_head(str *out, const char *head, const char *members) {
    str_addf(out, "{%s, %s}", head, members);
}

static void test_translations(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof translations / sizeof *translations; i++) {
        str in = {0}, out = {0};
        with_head(&in, "'model': 'm', 'max_tokens': 9", translations[i].request);
        with_head(&out, "'model': 'm', 'max_tokens': 9", translations[i].chat);
        json_t *request = json_quoted(in.p);
        translation t;
        bool good = messages_translate(&t, request, false);
        if (!good) print_message("%s: %s\n", in.p, t.text);
        assert_true(good);
        assert_true(json_is(t.body, out.p));
        translation_end(&t);
        json_decref(request);
        str_free(&in);
        str_free(&out);
    }
}

#define HEAD "'model': 'm', 'max_tokens': 9, "
static const struct {
    const char *request, *param;
    int code;
} faults[] = {
    {"'max_tokens': 9, " USER, "model", 400},
    {"'model': 'm', " USER, "max_tokens", 400},
    {"'model': 'm', 'max_tokens': '9', " USER, "max_tokens", 400},
    {"'model': 'm', 'max_tokens': 0, " USER, "max_tokens", 422},
    {"'model': 'm', 'max_tokens': 9", "messages", 400},
    {HEAD "'messages': 'a'", "messages", 400},
    {HEAD "'messages': []", "messages", 400},
    {HEAD "'messages': [1]", "messages[0]", 400},
    {HEAD "'messages': [{'content': 'a'}]", "messages[0].role", 400},
    {HEAD "'messages': [{'role': 'tool', 'content': 'a'}]", "messages[0].role", 400},
    {HEAD "'messages': [{'role': 'user'}]", "messages[0].content", 400},
    {HEAD "'messages': [{'role': 'user', 'content': 5}]", "messages[0].content", 400},
    {HEAD "'messages': [{'role': 'user', 'content': [5]}]", "messages[0].content[0]", 400},
    {HEAD "'messages': [{'role': 'user', 'content': [{'type': 'text'}]}]", "messages[0].content[0].text", 400},
    {HEAD "'messages': [{'role': 'user', 'content': [{'type': 'image', 'source': {}}]}]", "messages[0].content[0].type",
     400},
    {HEAD "'messages': [{'role': 'user', 'content': [{'type': 'document', 'source': {'type': 'base64'}}]}]",
     "messages[0].content[0].source.type", 400},
    {HEAD "'messages': [{'role': 'user', 'content': [{'type': 'tool_use', 'id': 'i', 'name': 'f', 'input': {}}]}]",
     "messages[0].content[0].type", 400},
    {HEAD "'messages': [{'role': 'user', 'content': [{'type': 'tool_result', 'content': 'x'}]}]",
     "messages[0].content[0].tool_use_id", 400},
    {HEAD "'messages': [{'role': 'user', 'content': [{'type': 'tool_result', 'tool_use_id': 'i', 'content': [{}]}]}]",
     "messages[0].content[0].content[0].type", 400},
    {HEAD "'messages': [{'role': 'assistant', 'content': [{'type': 'tool_use', 'id': 'i', 'name': 'f', 'input':"
          "'{}'}]}]",
     "messages[0].content[0].input", 400},
    {HEAD USER ", 'system': 5", "system", 400},
    {HEAD USER ", 'system': [{'type': 'image'}]", "system[0].type", 400},
    {HEAD USER ", 'temperature': 1.5", "temperature", 422},
    {HEAD USER ", 'temperature': 'hot'", "temperature", 400},
    {HEAD USER ", 'stream': 'yes'", "stream", 400},
    {HEAD USER ", 'stop_sequences': 'x'", "stop_sequences", 400},
    {HEAD USER ", 'tools': {}", "tools", 400},
    {HEAD USER ", 'tools': [5]", "tools[0]", 400},
    {HEAD USER ", 'tools': [{'name': 'f'}]", "tools[0].input_schema", 400},
    {HEAD USER ", 'tools': [{'input_schema': {}}]", "tools[0].name", 400},
    {HEAD USER ", " TOOL ", 'tool_choice': {'type': 'tool', 'name': 'g'}", "tool_choice.name", 400},
    {HEAD USER ", " TOOL ", 'tool_choice': {'type': 'tool'}", "tool_choice.name", 400},
    {HEAD USER ", " TOOL ", 'tool_choice': {'type': 'some'}", "tool_choice.type", 400},
    {HEAD USER ", " TOOL ", 'tool_choice': 'any'", "tool_choice", 400},
    {HEAD USER ", 'tool_choice': {'type': 'any'}", "tool_choice.type", 400},
    {HEAD USER ", 'thinking': {}", "thinking.type", 400},
    {HEAD USER ", 'thinking': true", "thinking", 400},
    {HEAD USER ", 'output_config': {'format': {}}", "output_config.schema", 400},
};

static void test_faults(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        str in = {0};
        str_addf(&in, "{%s}", faults[i].request);
        json_t *request = json_quoted(in.p);
        translation t;
        assert_false(messages_translate(&t, request, false));
        assert_string_equal(t.param, faults[i].param);
        assert_int_equal(t.status, faults[i].code);
        assert_non_null(strstr(t.text, faults[i].param));
        translation_end(&t);
        json_decref(request);
        str_free(&in);
    }
}

static void test_counting_needs_no_max_tokens(void **state) {
    (void)state;
    json_t *request = json_quoted("{'model': 'm', " USER "}");
    translation t;
    assert_true(messages_translate(&t, request, true));
    assert_true(json_is(t.body, "{'model': 'm', " USER "}"));
    translation_end(&t);
    json_decref(request);
}

/* Deep places are cut, not written over the end. */
static void test_deep_place(void **state) {
    (void)state;
    str in = {0};
    str_puts(&in, "{'model': 'm', 'max_tokens': 9, 'messages': [{'role': 'user', 'content': [");
    for (int i = 0; i < 40; i++) str_puts(&in, "{'type': 'search_result', 'content': [");
    str_puts(&in, "{'type': 'text'}");
    for (int i = 0; i < 40; i++) str_puts(&in, "]}");
    str_puts(&in, "]}]}");
    json_t *request = json_quoted(in.p);
    assert_non_null(request);
    translation t;
    assert_false(messages_translate(&t, request, false));
    assert_int_equal(t.status, 400);
    translation_end(&t);
    json_decref(request);
    str_free(&in);
}

/* --- answers ------------------------------------------------------------------------------------------------------ */

static const hadal_piece answer[] = {
    {HADAL_PIECE_REASONING, "h", 1, 0, 0},   {HADAL_PIECE_REASONING, "m", 1, 0, 0},
    {HADAL_PIECE_CONTENT, "Look", 4, 0, 0},  {HADAL_PIECE_CONTENT, "ing", 3, 0, 0},
    {HADAL_PIECE_CALL, "ls", 2, 0, 0},       {HADAL_PIECE_ARGUMENTS, "{\"n\":", 5, 0, 0},
    {HADAL_PIECE_ARGUMENTS, " 1}", 3, 0, 0}, {HADAL_PIECE_CALL_END, "", 0, 0, 1},
    {HADAL_PIECE_CALL, "cat", 3, 1, 0},      {HADAL_PIECE_CALL_END, "", 0, 1, 1},
    {HADAL_PIECE_CALL, "cat", 3, 2, 0},      {HADAL_PIECE_ARGUMENTS, "{1", 2, 2, 0},
    {HADAL_PIECE_CALL_END, "", 0, 2, 0},     {HADAL_PIECE_CONTENT, "Done", 4, 0, 0},
};

static void write_answer(message_blocks *b) {
    static const char *const ids[] = {"call_0", "call_1", "call_2"};
    for (size_t i = 0; i < sizeof answer / sizeof *answer; i++)
        message_blocks_piece(b, &answer[i], ids[answer[i].call]);
    message_blocks_finish(b);
}

static const char blocks_text[] =
    "[{'type': 'thinking', 'thinking': 'hm', 'signature': 'S'}, {'type': 'text', 'text': 'Looking'},"
    "{'type': 'tool_use', 'id': 'call_0', 'name': 'ls', 'input': {'n': 1}},"
    "{'type': 'tool_use', 'id': 'call_1', 'name': 'cat', 'input': {}},"
    "{'type': 'tool_use', 'id': 'call_2', 'name': 'cat', 'input': {'INVALID_JSON': '{1'}},"
    "{'type': 'text', 'text': 'Done'}]";

static void test_blocks_whole(void **state) {
    (void)state;
    message_blocks b = {.signature = "S"};
    write_answer(&b);
    assert_true(json_is(b.content, blocks_text));
    message_blocks_free(&b);
}

#define EVENT(name, i, rest) "{'event': '" name "', 'type': '" name "', 'index': " #i rest "}"
#define START(i, block) EVENT("content_block_start", i, ", 'content_block': {" block "}")
#define DELTA(i, delta) EVENT("content_block_delta", i, ", 'delta': {" delta "}")
#define STOP(i) EVENT("content_block_stop", i, "")
static const char *const events[] = {
    START(0, "'type': 'thinking', 'thinking': '', 'signature': ''"),
    DELTA(0, "'type': 'thinking_delta', 'thinking': 'h'"),
    DELTA(0, "'type': 'thinking_delta', 'thinking': 'm'"),
    DELTA(0, "'type': 'signature_delta', 'signature': 'S'"),
    STOP(0),
    START(1, "'type': 'text', 'text': ''"),
    DELTA(1, "'type': 'text_delta', 'text': 'Look'"),
    DELTA(1, "'type': 'text_delta', 'text': 'ing'"),
    STOP(1),
    START(2, "'type': 'tool_use', 'id': 'call_0', 'name': 'ls', 'input': {}"),
    DELTA(2, "'type': 'input_json_delta', 'partial_json': '{\\\"n\\\":'"),
    DELTA(2, "'type': 'input_json_delta', 'partial_json': ' 1}'"),
    STOP(2),
    START(3, "'type': 'tool_use', 'id': 'call_1', 'name': 'cat', 'input': {}"),
    STOP(3),
    START(4, "'type': 'tool_use', 'id': 'call_2', 'name': 'cat', 'input': {}"),
    DELTA(4, "'type': 'input_json_delta', 'partial_json': '{1'"),
    STOP(4),
    START(5, "'type': 'text', 'text': ''"),
    DELTA(5, "'type': 'text_delta', 'text': 'Done'"),
    STOP(5),
};

static void test_blocks_stream(void **state) {
    (void)state;
    json_t *heard = json_array();
    message_blocks b = {.signature = "S", .event = hear, .arg = heard};
    write_answer(&b);
    assert_true(json_is(b.content, blocks_text));
    assert_true(heard_are(heard, events, sizeof events / sizeof *events));
    json_decref(heard);
    message_blocks_free(&b);
}

static void test_cut_in_thinking(void **state) {
    (void)state;
    message_blocks b = {.signature = "S"};
    hadal_piece p = piece_of(HADAL_PIECE_REASONING, "so");
    message_blocks_piece(&b, &p, NULL);
    message_blocks_finish(&b);
    assert_true(json_is(b.content, "[{'type': 'thinking', 'thinking': 'so', 'signature': 'S'}]"));
    message_blocks_free(&b);
}

static void test_message(void **state) {
    (void)state;
    static const struct {
        const char *finish, *stop, *reason;
    } ends[] = {{"stop", NULL, "end_turn"},
                {"stop", "x", "stop_sequence"},
                {"length", NULL, "max_tokens"},
                {"tool_calls", NULL, "tool_use"}};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        chat_sample s = {.finish = ends[i].finish, .stop = ends[i].stop};
        assert_string_equal(message_stop_reason(&s), ends[i].reason);
    }
    chat_sample s = {.finish = "stop", .stop = "x"};
    chat_usage u = {.prompt_tokens = 10, .cached_tokens = 4, .completion_tokens = 3, .reasoning_tokens = 1};
    json_t *m = message_json("0af", "m", NULL, &s, &u);
    assert_true(json_is(m, "{'id': 'msg_0af', 'type': 'message', 'role': 'assistant', 'model': 'm', 'content': [],"
                           "'stop_reason': 'stop_sequence', 'stop_sequence': 'x', 'usage': {'input_tokens': 6,"
                           "'cache_read_input_tokens': 4, 'cache_creation_input_tokens': 0, 'output_tokens': 3,"
                           "'output_tokens_details': {'thinking_tokens': 1}}}"));
    json_decref(m);
    m = message_json("0af", "m", NULL, NULL, &u);
    assert_true(json_is_null(json_object_get(m, "stop_reason")) && json_object_get(m, "stop_reason"));
    assert_true(json_is_null(json_object_get(m, "stop_sequence")));
    json_decref(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_translations),    cmocka_unit_test(test_faults),
        cmocka_unit_test(test_deep_place),      cmocka_unit_test(test_counting_needs_no_max_tokens),
        cmocka_unit_test(test_blocks_whole),    cmocka_unit_test(test_blocks_stream),
        cmocka_unit_test(test_cut_in_thinking), cmocka_unit_test(test_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
