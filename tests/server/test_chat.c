/* /v1/chat/completions over an engine that says what the test wants. */
#include <stdlib.h>
#include <unistd.h>
#include "server/chat_grammar.h"
#include "fake_server.h"

/* V3.2 without a template of its own: its encoding is built in, and calls of tools are DSML. */
static const char *const v32 = "tests/data/models/v32/checkpoint";
static fake f;
static char folder[] = "/tmp/hadal-chat-XXXXXX";
static const char *const files[] = {"config.json",
                                    "generation_config.json",
                                    "tokenizer.json",
                                    "model.safetensors.index.json",
                                    "model-00001-of-000002.safetensors",
                                    "model-00002-of-000002.safetensors"};

enum { EOS = 1, THINK_END = 431 };

#define HI "'messages': [{'role': 'user', 'content': 'Hi'}]"
#define LOOK                                                                                                  \
    "'tools': [{'type': 'function', 'function': {'name': 'look', 'description': 'd', 'parameters': {'type': " \
    "'object'}}}]"
#define CALLS_BEGIN "\n\n<｜DSML｜function_calls>\n"
#define CALL                                                              \
    "<｜DSML｜invoke name=\"look\">\n<｜DSML｜parameter name=\"at\" " \
    "string=\"true\">red</｜DSML｜parameter>\n</｜DSML｜invoke>\n"
#define CALLS_END "</｜DSML｜function_calls>"

static void path_in(char *path, size_t n, const char *name) {
    snprintf(path, n, "%s/%s", folder, name);
}

static int open_model(void **state) {
    char to[256], from[4096], cwd[2048];
    (void)state;
    if (!mkdtemp(folder) || !getcwd(cwd, sizeof cwd)) return -1;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        path_in(to, sizeof to, files[i]);
        snprintf(from, sizeof from, "%s/%s/%s", cwd, v32, files[i]);
        if (symlink(from, to)) return -1;
    }
    path_in(to, sizeof to, "tokenizer_config.json");
    snprintf(from, sizeof from, "%s/tokenizer_config.json", v32);
    json_t *config = json_load_file(from, 0, NULL);
    json_object_del(config, "chat_template");
    if (json_dump_file(config, to, 0)) return -1;
    json_decref(config);
    fake_open(&f, folder);
    return 0;
}

static int close_model(void **state) {
    char path[256];
    (void)state;
    fake_close(&f);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        path_in(path, sizeof path, files[i]);
        unlink(path);
    }
    path_in(path, sizeof path, "tokenizer_config.json");
    unlink(path);
    return rmdir(folder);
}

static int forget(void **state) {
    (void)state;
    fake_forget(&f);
    return 0;
}

static void ask(const char *body) {
    fake_request(&f, handle_chat_completions, body);
    if (f.x.status >= 400) print_message("%d %s\n", f.x.status, f.x.message);
}

static void token(int sample, int32_t id, const char *text) {
    fake_token(&f, 0, sample, id, text);
}

static void done(int sample, const char *finish, const char *text, int n, int32_t last) {
    int32_t ids[16];
    for (int i = 0; i < n; i++) ids[i] = i + 1 < n ? 40 + i : last;
    fake_done(&f, 0, sample, finish, text, ids, n, 0);
}

static const json_t *choice(int k) {
    return json_array_get(json_object_get(f.x.answer, "choices"), (size_t)k);
}

static int usage(const char *name) {
    return (int)json_integer_value(json_object_get(json_object_get(f.x.answer, "usage"), name));
}

static int reasoning_tokens(void) {
    const json_t *u = json_object_get(f.x.answer, "usage");
    return (int)json_integer_value(
        json_object_get(json_object_get(u, "completion_tokens_details"), "reasoning_tokens"));
}

/* --- whole answers ---------------------------------------------------------------------------------------------- */

static void a_text(void **state) {
    (void)state;
    ask("{" HI ", 'max_tokens': 5, 'temperature': 0.5, 'n': 1}");
    const hadal_request *r = f.s.engine.requests;
    assert_int_equal(f.s.engine.n, 1);
    assert_int_equal(r->sampling.max_tokens, 5);
    assert_float_equal(r->sampling.temperature, 0.5F, 0);
    assert_null(r->grammar);
    token(0, 40, "Hel");
    token(0, 41, "lo");
    token(0, EOS, "");
    done(0, "eos", "Hello", 3, EOS);
    assert_int_equal(f.x.status, 200);
    assert_true(f.x.released);
    assert_true(json_is(choice(0), "{'index': 0, 'message': {'role': 'assistant', 'content': 'Hello'}, 'logprobs': "
                                   "null, 'finish_reason': 'stop'}"));
    assert_int_equal(usage("prompt_tokens"), r->n);
    assert_int_equal(usage("completion_tokens"), 3);
    assert_int_equal(usage("total_tokens"), r->n + 3);
    assert_string_equal(json_string_value(json_object_get(f.x.answer, "id")), "chatcmpl-0123456789abcdef01234567");
}

static void without_a_seed_one_is_drawn(void **state) {
    (void)state;
    uint64_t seeds[2];
    for (int i = 0; i < 2; i++) {
        ask("{" HI "}");
        seeds[i] = f.s.engine.requests[0].sampling.seed;
        done(0, "length", "", 1, 40);
        fake_forget(&f);
    }
    assert_int_not_equal(seeds[0], seeds[1]);
}

static void what_the_engine_held_back_comes_at_the_end(void **state) {
    (void)state;
    ask("{" HI "}");
    token(0, 40, "He");
    done(0, "length", "Hello", 2, 41);
    assert_string_equal(json_string_value(json_object_get(json_object_get(choice(0), "message"), "content")), "Hello");
}

static void reasoning_apart(void **state) {
    (void)state;
    ask("{" HI ", 'thinking': {'type': 'enabled'}}");
    token(0, 40, "Hm");
    token(0, THINK_END, "</think>");
    token(0, 41, "Yes");
    token(0, EOS, "");
    fake_done(&f, 0, 0, "eos", "Hm</think>Yes", (const int32_t[]){40, THINK_END, 41, EOS}, 4, 0);
    assert_true(json_is(json_object_get(choice(0), "message"),
                        "{'role': 'assistant', 'content': 'Yes', 'reasoning_content': 'Hm'}"));
    assert_int_equal(reasoning_tokens(), 2);
}

static void cut_reasoning_is_all_reasoning(void **state) {
    (void)state;
    ask("{" HI ", 'thinking': {'type': 'enabled'}, 'logprobs': true}");
    token(0, 40, "Hm");
    token(0, 41, ", </thi");
    done(0, "length", "Hm, </thi", 2, 41);
    assert_true(json_is(choice(0), "{'index': 0, 'message': {'role': 'assistant', 'content': null, "
                                   "'reasoning_content': 'Hm, </thi'}, 'logprobs': {'content': []}, "
                                   "'finish_reason': 'length'}"));
    assert_int_equal(reasoning_tokens(), 2);
}

static void several_answers_add_up(void **state) {
    (void)state;
    ask("{" HI ", 'n': 3, 'stop': ['a', 'END']}");
    assert_int_equal(f.s.engine.requests[0].samples, 3);
    token(2, 40, "C");
    token(0, 40, "A");
    token(1, 40, "B");
    done(1, "eos", "B", 2, EOS);
    fake_done(&f, 0, 2, "stop", "C", (const int32_t[]){40, 41, 42}, 3, 5);
    assert_int_equal(f.x.status, 0);
    fake_done(&f, 0, 0, "length", "A", (const int32_t[]){40}, 1, 3);
    static const char *const ends[] = {"length", "stop", "stop"}, *const texts[] = {"A", "B", "C"};
    for (int k = 0; k < 3; k++) {
        const json_t *message = json_object_get(choice(k), "message");
        assert_int_equal(json_integer_value(json_object_get(choice(k), "index")), k);
        assert_string_equal(json_string_value(json_object_get(message, "content")), texts[k]);
        assert_string_equal(json_string_value(json_object_get(choice(k), "finish_reason")), ends[k]);
    }
    assert_int_equal(usage("completion_tokens"), 6);
    assert_int_equal(usage("prompt_tokens"), f.s.engine.requests[0].n);
    assert_int_equal(usage("prompt_cache_hit_tokens"), 0); /* what the second of them had */
}

/* Tokens 40, 41, 42 are F, G, H; the fake's second choice is always 40. */
static void logprobs(void **state) {
    (void)state;
    ask("{" HI ", 'logprobs': true, 'top_logprobs': 2, 'thinking': {'type': 'enabled'}}");
    assert_int_equal(f.s.engine.requests[0].sampling.logprobs, 2);
    token(0, 40, "F");
    token(0, THINK_END, "</think>");
    token(0, 41, "");
    token(0, 42, "GH");
    token(0, EOS, "");
    fake_done(&f, 0, 0, "eos", "F</think>GH", (const int32_t[]){40, THINK_END, 41, 42, EOS}, 5, 0);
    assert_true(json_is(
        json_object_get(choice(0), "logprobs"),
        "{'content': [{'token': 'G', 'logprob': -0.5, 'bytes': [71], 'top_logprobs': [{'token': 'G', 'logprob': -0.5, "
        "'bytes': [71]}, {'token': 'F', 'logprob': -1.5, 'bytes': [70]}]}, {'token': 'H', 'logprob': -0.5, 'bytes': "
        "[72], 'top_logprobs': [{'token': 'H', 'logprob': -0.5, 'bytes': [72]}, {'token': 'F', 'logprob': -1.5, "
        "'bytes': [70]}]}]}"));
}

/* --- tools ------------------------------------------------------------------------------------------------------ */

static const char *call_id(void) {
    const json_t *calls = json_object_get(json_object_get(choice(0), "message"), "tool_calls");
    return json_string_value(json_object_get(json_array_get(calls, 0), "id"));
}

static bool good_id(const char *id) {
    return id && strlen(id) == 29 && !strncmp(id, "call_", 5) &&
           strspn(id + 5, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == 24;
}

static const int32_t written[] = {300, 301, 302, 303, 304};

/* A call of a tool, written as ids that the text would not be tokenized to. */
static void call_a_tool(void) {
    ask("{" HI ", " LOOK "}");
    token(0, 300, CALLS_BEGIN);
    token(0, 301, CALL);
    token(0, 302, CALLS_END);
    token(0, EOS, "");
    fake_done(&f, 0, 0, "eos", CALLS_BEGIN CALL CALLS_END, (const int32_t[]){300, 301, 302, 303, 304, EOS}, 6, 0);
}

static void a_call(void **state) {
    (void)state;
    call_a_tool();
    const json_t *message = json_object_get(choice(0), "message");
    const json_t *call = json_array_get(json_object_get(message, "tool_calls"), 0);
    assert_true(json_is_null(json_object_get(message, "content")));
    assert_true(good_id(call_id()));
    assert_string_equal(json_string_value(json_object_get(call, "type")), "function");
    assert_true(
        json_is(json_object_get(call, "function"), "{'name': 'look', 'arguments': '{\\\"at\\\": \\\"red\\\"}'}"));
    assert_string_equal(json_string_value(json_object_get(choice(0), "finish_reason")), "tool_calls");
}

static bool prompt_has(const int32_t *ids, int n) {
    const hadal_request *r = f.s.engine.requests;
    for (int i = 0; i + n <= r->n; i++)
        if (!memcmp(r->prompt + i, ids, (size_t)n * sizeof *ids)) return true;
    return false;
}

/* The next turn, with this name in the call. */
static void next_turn(const char *id, const char *arguments) {
    str body = {0};
    str_addf(&body,
             "{'messages': [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': null, 'tool_calls': "
             "[{'id': '%s', 'type': 'function', 'function': {'name': 'look', 'arguments': %s}}]}, {'role': 'tool', "
             "'tool_call_id': '%s', 'content': '42'}], " LOOK "}",
             id, arguments, id);
    ask(body.p);
    str_free(&body);
}

static void the_next_turn_has_the_same_ids(void **state) {
    (void)state;
    call_a_tool();
    char id[32];
    snprintf(id, sizeof id, "%s", call_id());
    fake_forget(&f);
    next_turn(id, "{'at':   'red'}");
    assert_int_equal(f.s.engine.n, 1);
    assert_true(prompt_has(written, 5));
    done(0, "length", "", 1, 40);
    fake_forget(&f);
    next_turn(id, "{'at': 'green'}");
    assert_false(prompt_has(written, 5));
    done(0, "length", "", 1, 40);
    fake_forget(&f);
    next_turn("call_of_somebody_else", "{'at': 'red'}");
    assert_false(prompt_has(written, 5));
    done(0, "length", "", 1, 40);
}

static void a_cut_call_is_not_remembered(void **state) {
    (void)state;
    ask("{" HI ", " LOOK "}");
    token(0, 300, CALLS_BEGIN CALL);
    fake_done(&f, 0, 0, "length", CALLS_BEGIN CALL, written, 5, 0);
    assert_string_equal(json_string_value(json_object_get(choice(0), "finish_reason")), "length");
    char id[32];
    snprintf(id, sizeof id, "%s", call_id());
    fake_forget(&f);
    next_turn(id, "{'at': 'red'}");
    assert_false(prompt_has(written, 5));
    done(0, "length", "", 1, 40);
}

static void no_tools_no_calls(void **state) {
    (void)state;
    static const char *const bodies[] = {"{" HI "}", "{" HI ", " LOOK ", 'tool_choice': 'none'}"};
    for (int i = 0; i < 2; i++) {
        ask(bodies[i]);
        token(0, 300, CALLS_BEGIN CALL CALLS_END);
        done(0, "eos", CALLS_BEGIN CALL CALLS_END, 2, EOS);
        const json_t *message = json_object_get(choice(0), "message");
        assert_null(json_object_get(message, "tool_calls"));
        assert_string_equal(json_string_value(json_object_get(message, "content")), CALLS_BEGIN CALL CALLS_END);
        fake_forget(&f);
    }
}

#define UNIQUE                                                                                                    \
    "'tools': [{'type': 'function', 'function': {'name': 'look', 'strict': %s, 'parameters': {'type': 'object', " \
    "'properties': {'at': {'type': 'array', 'uniqueItems': true}}}}}], 'tool_choice': '%s'"

static void ask_for_unique(const char *strict, const char *choice) {
    str body = {0};
    str_addf(&body, "{" HI ", " UNIQUE "}", strict, choice);
    fake_request(&f, handle_chat_completions, body.p);
    str_free(&body);
}

static void a_schema_that_cannot_be_enforced_is_loosened(void **state) {
    (void)state;
    static const char *const choices[] = {"auto", "required"};
    for (int i = 0; i < 2; i++) {
        ask_for_unique("false", choices[i]);
        assert_int_equal(f.s.engine.n, 1);
        assert_non_null(f.s.engine.requests[0].grammar);
        done(0, "length", "", 1, 40);
        fake_forget(&f);
    }
}

static void unless_it_is_strict(void **state) {
    (void)state;
    static const char *const choices[] = {"auto", "required"};
    for (int i = 0; i < 2; i++) {
        ask_for_unique("true", choices[i]);
        assert_int_equal(f.x.status, 400);
        assert_string_equal(f.x.param, "tools");
        assert_non_null(strstr(f.x.message, "uniqueItems"));
        fake_forget(&f);
    }
}

static void a_loose_schema(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"{'type': 'object', 'properties': {'a': {'type': 'string', 'pattern': 'x', 'description': 'd'}, 'b': {}, 'c': "
         "{'type': ['integer', 'null']}}, 'required': ['a', 'nowhere', 5], 'additionalProperties': false}",
         "{'type': 'object', 'properties': {'a': {'type': 'string'}, 'b': {}, 'c': {'type': ['integer', 'null']}}, "
         "'required': ['a']}"},
        {"{'anyOf': [{}]}", "{'type': 'object', 'properties': {}, 'required': []}"},
        {"{'properties': 5, 'required': 5}", "{'type': 'object', 'properties': {}, 'required': []}"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *schema = json_quoted(rows[i][0]), *loose = chat_grammar_loosened(schema);
        assert_true(json_is(loose, rows[i][1]));
        json_decref(schema);
        json_decref(loose);
    }
}

/* --- streams ---------------------------------------------------------------------------------------------------- */

static const json_t *event_choice(size_t i) {
    return json_array_get(json_object_get(json_array_get(f.x.events, i), "choices"), 0);
}

static void streamed(const char *const *want, size_t n) {
    for (size_t i = 0; i < n; i++) assert_true(json_is(event_choice(i), want[i]));
    assert_int_equal(json_array_size(f.x.events), n + 1);
    assert_string_equal(json_string_value(json_array_get(f.x.events, n)), "[DONE]");
    assert_true(f.x.ended && f.x.released);
}

#define CHOICE(k, delta) "{'index': " #k ", 'delta': {" delta "}, 'logprobs': null, 'finish_reason': null}"
#define END(k, why) "{'index': " #k ", 'delta': {}, 'logprobs': null, 'finish_reason': '" why "'}"

static void a_stream(void **state) {
    (void)state;
    ask("{" HI ", 'stream': true, 'n': 2, 'thinking': {'type': 'enabled'}}");
    token(1, 40, "Hm");
    token(0, 40, "So");
    token(0, THINK_END, "</think>");
    token(0, 41, "Yes <｜");
    token(0, 42, "");
    token(0, EOS, "");
    done(0, "eos", "So</think>Yes <｜", 5, EOS);
    done(1, "length", "Hm", 1, 40);
    static const char *const want[] = {CHOICE(0, "'role': 'assistant', 'content': ''"),
                                       CHOICE(1, "'role': 'assistant', 'content': ''"),
                                       CHOICE(1, "'reasoning_content': 'Hm'"),
                                       CHOICE(0, "'reasoning_content': 'So'"),
                                       CHOICE(0, "'content': 'Yes <｜'"),
                                       END(0, "stop"),
                                       END(1, "length")};
    streamed(want, 7);
    for (size_t i = 0; i < 7; i++) assert_null(json_object_get(json_array_get(f.x.events, i), "usage"));
}

static const json_t *event_call(size_t i) {
    return json_array_get(json_object_get(json_object_get(event_choice(i), "delta"), "tool_calls"), 0);
}

static void a_streamed_call(void **state) {
    (void)state;
    ask("{" HI ", 'stream': true, " LOOK "}");
    token(0, 300, CALLS_BEGIN "<｜DSML｜invoke name=\"look\">\n");
    token(0, 301, "<｜DSML｜parameter name=\"at\" string=\"true\">r");
    token(0, 302, "ed</｜DSML｜parameter>\n</｜DSML｜invoke>\n");
    token(0, 303, "<｜DSML｜invoke name=\"look\">\n</｜DSML｜invoke>\n" CALLS_END);
    done(0, "eos", "", 5, EOS);
    assert_true(good_id(json_string_value(json_object_get(event_call(1), "id"))));
    str arguments[2] = {{0}, {0}};
    size_t n = json_array_size(f.x.events);
    int begun = 0;
    for (size_t i = 1; i + 2 < n; i++) {
        const json_t *call = event_call(i), *function = json_object_get(call, "function");
        int k = (int)json_integer_value(json_object_get(call, "index"));
        begun += json_object_get(call, "id") != NULL;
        assert_int_equal(k, begun - 1);
        if (json_object_get(call, "id")) {
            assert_true(json_is(function, "{'name': 'look', 'arguments': ''}"));
            assert_string_equal(json_string_value(json_object_get(call, "type")), "function");
        } else {
            assert_int_equal(json_object_size(call), 2);
            str_puts(&arguments[k], json_string_value(json_object_get(function, "arguments")));
        }
    }
    assert_int_equal(begun, 2);
    assert_string_equal(arguments[0].p, "{\"at\": \"red\"}");
    assert_string_equal(arguments[1].p, "{}");
    assert_true(json_is(event_choice(n - 2), END(0, "tool_calls")));
    str_free(&arguments[0]);
    str_free(&arguments[1]);
}

static void streamed_usage(void **state) {
    (void)state;
    ask("{" HI ", 'stream': true, 'stream_options': {'include_usage': true}}");
    token(0, 40, "F");
    fake_done(&f, 0, 0, "length", "F", (const int32_t[]){40}, 1, 2);
    assert_int_equal(json_array_size(f.x.events), 5);
    for (size_t i = 0; i < 3; i++) assert_true(json_is_null(json_object_get(json_array_get(f.x.events, i), "usage")));
    const json_t *last = json_array_get(f.x.events, 3);
    assert_int_equal(json_array_size(json_object_get(last, "choices")), 0);
    const json_t *u = json_object_get(last, "usage");
    assert_int_equal(json_integer_value(json_object_get(u, "completion_tokens")), 1);
    assert_int_equal(json_integer_value(json_object_get(u, "prompt_cache_hit_tokens")), 2);
}

static void streamed_logprobs(void **state) {
    (void)state;
    ask("{" HI ", 'stream': true, 'logprobs': true}");
    token(0, 41, "");
    token(0, 42, "GH");
    done(0, "length", "GH", 2, 42);
    const json_t *content = json_object_get(json_object_get(event_choice(1), "logprobs"), "content");
    assert_int_equal(json_array_size(content), 2);
    assert_true(json_is_null(json_object_get(event_choice(2), "logprobs")));
}

/* --- what goes wrong -------------------------------------------------------------------------------------------- */

static void the_client_leaves(void **state) {
    (void)state;
    ask("{" HI ", 'stream': true, 'n': 2}");
    token(0, 40, "F");
    size_t sent = json_array_size(f.x.events);
    f.x.gone(f.x.gone_arg);
    assert_int_equal(f.s.engine.cancelled[0], 1);
    token(0, 40, "F");
    done(0, "cancelled", "FF", 2, 40);
    done(1, "cancelled", "", 0, 0);
    assert_true(f.x.released);
    assert_true(json_array_size(f.x.events) <= sent + 1);
    assert_string_equal(f.x.message, "");
}

static void the_engine_closes(void **state) {
    (void)state;
    ask("{" HI "}");
    done(0, "cancelled", "", 0, 0);
    assert_int_equal(f.x.status, 503);
    assert_true(f.x.released);
}

static void the_engine_fails(void **state) {
    (void)state;
    ask("{" HI ", 'stream': true}");
    token(0, 40, "F");
    done(0, "error", "F", 1, 40);
    assert_true(f.x.ended && f.x.released);
    assert_string_equal(f.x.message, "the disk burns");
}

static void the_engine_refuses(void **state) {
    (void)state;
    static const struct {
        int code, status;
    } rows[] = {{HADAL_ERR_BUSY, 429}, {HADAL_ERR_ARG, 400}, {HADAL_ERR_CANCELLED, 503}, {HADAL_ERR_NOMEM, 500}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        f.s.engine.refuse_code = rows[i].code;
        fake_request(&f, handle_chat_completions, "{" HI ", 'stream': true}");
        assert_int_equal(f.x.status, rows[i].status);
        assert_false(f.x.streams);
        assert_true(f.x.released);
        fake_forget(&f);
    }
}

static void mistakes_start_nothing(void **state) {
    (void)state;
    static const struct {
        const char *body, *param;
        int status;
    } rows[] = {{"{'messages': []}", "messages", 400},
                {"{" HI ", 'n': 5}", "n", 422},
                {"{" HI ", 'model': 'gpt'}", "model", 404},
                {"{" HI ", 'tools': [5]}", "tools[0]", 400},
                {"[]", "", 400},
                {"5", "", 400}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        fake_request(&f, handle_chat_completions, rows[i].body);
        assert_int_equal(f.x.status, rows[i].status);
        assert_string_equal(f.x.param, rows[i].param);
        assert_int_equal(f.s.engine.n, 0);
        assert_false(f.x.kept);
        fake_forget(&f);
    }
}

static void bodies_that_are_not_json(void **state) {
    (void)state;
    static const char *const bodies[] = {"", "{", "nonsense", "{\"a\": NaN}", "{\"a\": \"\xFF\"}", "{\"a\":1,\"a\":1}"};
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        f.x = (exchange){.body = strdup(bodies[i])};
        handle_chat_completions(&f.s, &f.x);
        assert_int_equal(f.x.status, 400);
        fake_forget(&f);
    }
    size_t n = 20 << 20;
    f.x = (exchange){.body = malloc(n + 1)};
    memset(f.x.body, '[', n);
    f.x.body[n] = 0;
    handle_chat_completions(&f.s, &f.x);
    assert_int_equal(f.x.status, 400);
    assert_non_null(strstr(f.x.message, "too many parts"));
}

static void a_long_conversation(void **state) {
    (void)state;
    str body = {0};
    str_puts(&body, "{'messages': [{'role': 'user', 'content': '");
    for (int i = 0; i < 4000; i++) str_puts(&body, "x ");
    str_puts(&body, "'}]}");
    fake_request(&f, handle_chat_completions, body.p);
    str_free(&body);
    assert_int_equal(f.x.status, 400);
    assert_string_equal(f.x.code, "context_length_exceeded");
}

static void answer_with_a_call(void) {
    token(0, 40, "Hm");
    token(0, THINK_END, "</think>");
    token(0, 300, CALLS_BEGIN CALL CALLS_END);
    fake_done(&f, 0, 0, "eos", "", (const int32_t[]){40, THINK_END, 300, EOS}, 4, 0);
}

static void memory_runs_out_at_any_time(void **state) {
    (void)state;
    static const char common[] = HI ", 'logprobs': true, 'thinking': {'type': 'enabled'}, " LOOK;
    for (int i = 0; i < 2; i++) {
        str body = {0};
        str_addf(&body, "{%s, 'stream': %s}", common, i ? "true" : "false");
        assert_true(fake_starve(&f, handle_chat_completions, body.p, answer_with_a_call) > 100);
        str_free(&body);
    }
}

static void tokens_are_counted(void **state) {
    (void)state;
    json_t *body = json_quoted("{" HI "}"), *bad = json_quoted("{'messages': 5}");
    f.x = (exchange){0};
    int n = chat_count_tokens(&f.s, &f.x, body);
    assert_int_equal(f.x.status, 0);
    assert_int_equal(chat_count_tokens(&f.s, &f.x, bad), -1);
    assert_int_equal(f.x.status, 400);
    fake_forget(&f);
    ask("{" HI "}");
    assert_int_equal(f.s.engine.requests[0].n, n);
    done(0, "length", "", 1, 40);
    json_decref(body);
    json_decref(bad);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_text, forget),
        cmocka_unit_test_teardown(without_a_seed_one_is_drawn, forget),
        cmocka_unit_test_teardown(what_the_engine_held_back_comes_at_the_end, forget),
        cmocka_unit_test_teardown(reasoning_apart, forget),
        cmocka_unit_test_teardown(cut_reasoning_is_all_reasoning, forget),
        cmocka_unit_test_teardown(several_answers_add_up, forget),
        cmocka_unit_test_teardown(logprobs, forget),
        cmocka_unit_test_teardown(a_call, forget),
        cmocka_unit_test_teardown(the_next_turn_has_the_same_ids, forget),
        cmocka_unit_test_teardown(a_cut_call_is_not_remembered, forget),
        cmocka_unit_test_teardown(no_tools_no_calls, forget),
        cmocka_unit_test_teardown(a_schema_that_cannot_be_enforced_is_loosened, forget),
        cmocka_unit_test_teardown(unless_it_is_strict, forget),
        cmocka_unit_test(a_loose_schema),
        cmocka_unit_test_teardown(a_stream, forget),
        cmocka_unit_test_teardown(a_streamed_call, forget),
        cmocka_unit_test_teardown(streamed_usage, forget),
        cmocka_unit_test_teardown(streamed_logprobs, forget),
        cmocka_unit_test_teardown(the_client_leaves, forget),
        cmocka_unit_test_teardown(the_engine_closes, forget),
        cmocka_unit_test_teardown(the_engine_fails, forget),
        cmocka_unit_test_teardown(the_engine_refuses, forget),
        cmocka_unit_test_teardown(mistakes_start_nothing, forget),
        cmocka_unit_test_teardown(bodies_that_are_not_json, forget),
        cmocka_unit_test_teardown(a_long_conversation, forget),
        cmocka_unit_test_teardown(memory_runs_out_at_any_time, forget),
        cmocka_unit_test_teardown(tokens_are_counted, forget),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
