/* How a conversation reads in DeepSeek-V3.2:
 *
 *   <bos>system text
 *   <|User|>question<|Assistant|>            then <think> if the turn is the last one and thinking is on, else </think>
 *   reasoning</think>answer<eos>             reasoning only behind the last user message
 *   ... \n\n<DSML function_calls> ... <eos>  calls: one invoke each, one parameter element per argument
 *   \n\n<function_results>                   results: one element per tool message, as many as there were calls
 *
 * Reasoning of earlier turns is not repeated. JSON is written as Python's json.dumps(ensure_ascii=False) writes it. */
#include "text/encoding_v32.h"

#include <string.h>
#include "text/template_text.h"

#define DSML "｜DSML｜"
#define BOS "<｜begin▁of▁sentence｜>"
#define EOS "<｜end▁of▁sentence｜>"

static const char tools_before[] =
    "## Tools\n\n"
    "You have access to a set of tools you can use to answer the user's question.\n"
    "You can invoke functions by writing a \"<" DSML "function_calls>\" block like the following as part of your reply "
    "to the user:\n"
    "<" DSML "function_calls>\n"
    "<" DSML "invoke name=\"$FUNCTION_NAME\">\n"
    "<" DSML "parameter name=\"$PARAMETER_NAME\" string=\"true|false\">$PARAMETER_VALUE</" DSML "parameter>\n"
    "...\n"
    "</" DSML "invoke>\n"
    "<" DSML "invoke name=\"$FUNCTION_NAME2\">\n"
    "...\n"
    "</" DSML "invoke>\n"
    "</" DSML "function_calls>\n\n"
    "String and scalar parameters should be specified as is without any escaping or quotes, while lists and objects "
    "should use JSON format. The \"string\" attribute should be set to \"true\" for string type parameters and "
    "\"false\" for other types (numbers, booleans, arrays, objects).\n\n"
    "If the thinking_mode is enabled, then after function results you should strongly consider outputting a thinking "
    "block. Here is an example:\n\n"
    "<" DSML "function_calls>\n"
    "...\n"
    "</" DSML "function_calls>\n\n"
    "<function_results>\n"
    "...\n"
    "</function_results>\n\n"
    "<think>...thinking about results</think>\n\n"
    "Here are the functions available in JSONSchema format:\n"
    "<functions>\n";
static const char tools_after[] = "\n</functions>\n";

typedef struct encoder {
    const json_t *messages;
    encoding_v32 how;
    size_t n, last_user; /* last_user == n: there is none */
    str *out;
    error *e;
} encoder;

static bool role_is(const json_t *m, const char *role) {
    const char *r = json_string_value(json_object_get(m, "role"));
    return r && !strcmp(r, role);
}

/* The member as text; *out NULL when it is absent or null. */
static status member_text(encoder *c, size_t i, const char *key, const char **out) {
    const json_t *v = json_object_get(json_array_get(c->messages, i), key);
    *out = json_string_value(v);
    if (*out && strlen(*out) != json_string_length(v))
        return fail(c->e, ERR_ARG, "message %zu: \"%s\" holds a zero byte", i, key);
    return *out || !v || json_is_null(v) ? OK : fail(c->e, ERR_ARG, "message %zu: \"%s\" should be a string", i, key);
}

static status needed_text(encoder *c, size_t i, const char **out) {
    TRY(member_text(c, i, "content", out));
    return *out ? OK : fail(c->e, ERR_ARG, "message %zu: \"content\" is missing", i);
}

/* A list that is there and not empty, or NULL. */
static status member_list(encoder *c, size_t i, const char *key, const json_t **out) {
    const json_t *v = json_object_get(json_array_get(c->messages, i), key);
    *out = json_array_size(v) ? v : NULL;
    return !v || json_is_null(v) || json_is_array(v)
               ? OK
               : fail(c->e, ERR_ARG, "message %zu: \"%s\" should be a list", i, key);
}

/* Thinking is on, and message i stands behind the last user message. */
static bool thinks(const encoder *c, size_t i) {
    return c->how.thinking && (c->last_user == c->n || i > c->last_user);
}

/* tools and response format of a system or developer message */
static status write_tools(encoder *c, size_t i) {
    const json_t *tools, *format = json_object_get(json_array_get(c->messages, i), "response_format");
    TRY(member_list(c, i, "tools", &tools));
    if (tools) {
        str_puts(c->out, "\n\n");
        str_puts(c->out, tools_before);
        for (size_t k = 0; k < json_array_size(tools); k++) {
            const json_t *f = json_object_get(json_array_get(tools, k), "function");
            if (!f) return fail(c->e, ERR_ARG, "message %zu: tool %zu has no \"function\"", i, k);
            if (k) str_putc(c->out, '\n');
            text_print_json_value(c->out, f);
        }
        str_puts(c->out, tools_after);
    }
    bool empty = !format || json_is_null(format) || (json_is_object(format) && !json_object_size(format));
    if (empty) return OK;
    str_puts(c->out, "\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n");
    text_print_json_value(c->out, format);
    return OK;
}

static status write_system(encoder *c, size_t i) {
    const char *content;
    TRY(member_text(c, i, "content", &content));
    str_puts(c->out, content ? content : "");
    return write_tools(c, i);
}

static status write_user(encoder *c, size_t i, bool developer) {
    const char *content;
    TRY(needed_text(c, i, &content));
    str_puts(c->out, "<｜User｜>");
    if (developer) {
        if (!*content) return fail(c->e, ERR_ARG, "message %zu: a developer message needs content", i);
        TRY(write_tools(c, i));
        str_puts(c->out, "\n\n# The user's message is: ");
    }
    str_puts(c->out, content);
    str_puts(c->out, "<｜Assistant｜>");
    str_puts(c->out, i == c->last_user && c->how.thinking ? "<think>" : "</think>");
    return OK;
}

static status write_arguments(encoder *c, size_t i, const json_t *arguments) {
    const char *s = json_string_value(arguments), *line = "";
    json_t *parsed = NULL;
    if (s) TRY(text_read_json(&parsed, (text){s, json_string_length(arguments)}, 0, c->e));
    const json_t *object = s ? parsed : arguments;
    bool ok = json_is_object(object);
    for (void *it = ok ? json_object_iter((json_t *)(uintptr_t)object) : NULL; it; line = "\n") {
        const json_t *v = json_object_iter_value(it);
        str_puts(c->out, line);
        str_puts(c->out, "<" DSML "parameter name=\"");
        str_add(c->out, json_object_iter_key(it), json_object_iter_key_len(it));
        str_puts(c->out, json_is_string(v) ? "\" string=\"true\">" : "\" string=\"false\">");
        if (json_is_string(v)) str_add(c->out, json_string_value(v), json_string_length(v));
        else text_print_json_value(c->out, v);
        str_puts(c->out, "</" DSML "parameter>");
        it = json_object_iter_next((json_t *)(uintptr_t)object, it);
    }
    json_decref(parsed);
    return ok ? OK : fail(c->e, ERR_ARG, "message %zu: the arguments of a tool call should be a JSON object", i);
}

static status write_calls(encoder *c, size_t i, const json_t *calls) {
    str_puts(c->out, "\n\n<" DSML "function_calls>\n");
    for (size_t k = 0; k < json_array_size(calls); k++) {
        const json_t *f = json_object_get(json_array_get(calls, k), "function");
        const json_t *name = json_object_get(f, "name"), *arguments = json_object_get(f, "arguments");
        if (!json_is_string(name) || !arguments)
            return fail(c->e, ERR_ARG, "message %zu: tool call %zu needs function.name and function.arguments", i, k);
        str_puts(c->out, "<" DSML "invoke name=\"");
        str_add(c->out, json_string_value(name), json_string_length(name));
        str_puts(c->out, "\">\n");
        TRY(write_arguments(c, i, arguments));
        str_puts(c->out, "\n</" DSML "invoke>\n");
    }
    str_puts(c->out, "</" DSML "function_calls>");
    return OK;
}

static status write_assistant(encoder *c, size_t i) {
    const char *content, *reasoning;
    const json_t *calls;
    TRY(member_text(c, i, "content", &content));
    TRY(member_text(c, i, "reasoning_content", &reasoning));
    TRY(member_list(c, i, "tool_calls", &calls));
    bool unfinished = c->how.continue_final && i + 1 == c->n;
    const json_t *written = json_object_get(json_array_get(c->messages, i), ENCODING_V32_WRITTEN);
    if (written) {
        str_add(c->out, json_string_value(written), json_string_length(written));
        if (!unfinished) str_puts(c->out, EOS);
        return OK;
    }
    if (thinks(c, i)) {
        bool something = reasoning || calls || unfinished;
        if (!something)
            return fail(c->e, ERR_ARG,
                        "message %zu: in thinking mode an answer behind the last user message needs reasoning_content "
                        "or tool_calls",
                        i);
        str_puts(c->out, reasoning ? reasoning : "");
        str_puts(c->out, "</think>");
    }
    str_puts(c->out, content ? content : "");
    if (unfinished) return OK;
    if (calls) TRY(write_calls(c, i, calls));
    str_puts(c->out, EOS);
    return OK;
}

static status write_result(encoder *c, size_t i) {
    const char *content;
    const json_t *calls = NULL;
    size_t caller = i;
    while (caller > 0 && role_is(json_array_get(c->messages, caller), "tool")) caller--;
    if (role_is(json_array_get(c->messages, caller), "assistant")) TRY(member_list(c, caller, "tool_calls", &calls));
    size_t order = i - caller;
    if (json_array_size(calls) < order || !calls)
        return fail(c->e, ERR_ARG, "message %zu: a tool result without a tool call before it", i);
    TRY(needed_text(c, i, &content));
    if (order == 1) str_puts(c->out, "\n\n<function_results>");
    str_puts(c->out, "\n<result>");
    str_puts(c->out, content);
    str_puts(c->out, "</result>");
    if (order < json_array_size(calls)) return OK;
    str_puts(c->out, "\n</function_results>\n\n");
    str_puts(c->out, thinks(c, i) ? "<think>" : "</think>");
    return OK;
}

static status write_message(encoder *c, size_t i) {
    const json_t *m = json_array_get(c->messages, i);
    if (role_is(m, "system")) return write_system(c, i);
    if (role_is(m, "developer")) return write_user(c, i, true);
    if (role_is(m, "user")) return write_user(c, i, false);
    if (role_is(m, "assistant")) return write_assistant(c, i);
    if (role_is(m, "tool")) return write_result(c, i);
    const char *role = json_string_value(json_object_get(m, "role"));
    return fail(c->e, ERR_ARG, "message %zu: the role '%s' is not known", i, role ? role : "");
}

static size_t find_last_user(const json_t *messages) {
    for (size_t i = json_array_size(messages); i-- > 0;) {
        const json_t *m = json_array_get(messages, i);
        if (role_is(m, "user") || role_is(m, "developer")) return i;
    }
    return json_array_size(messages);
}

/* Without the developer messages before the last user message. */
static json_t *drop_developers(const json_t *messages) {
    size_t last = find_last_user(messages);
    json_t *kept = json_array();
    for (size_t i = 0; kept && i < json_array_size(messages); i++) {
        json_t *m = json_array_get(messages, i);
        if (i < last && last < json_array_size(messages) && role_is(m, "developer")) continue;
        if (json_array_append(kept, m)) {
            json_decref(kept);
            return NULL;
        }
    }
    return kept;
}

status encode_v32(const json_t *messages, encoding_v32 how, str *out, error *e) {
    if (!json_array_size(messages)) return fail(e, ERR_ARG, "messages should be a list that is not empty");
    json_t *kept =
        how.thinking && how.drop_thinking ? drop_developers(messages) : json_incref((json_t *)(uintptr_t)messages);
    if (!kept) return fail(e, ERR_NOMEM, "memory is out");
    str s = {0};
    encoder c = {kept, how, json_array_size(kept), find_last_user(kept), &s, e};
    str_puts(&s, BOS);
    status st = OK;
    for (size_t i = 0; st == OK && i < c.n; i++) st = write_message(&c, i);
    if (st == OK) str_add(out, s.p, s.n);
    if (st == OK) st = s.failed ? str_check(&s, e) : str_check(out, e);
    str_free(&s);
    json_decref(kept);
    return st;
}
