/* A request of the Messages API as the body of a chat completion. */
#include <stdlib.h>
#include <string.h>
#include "server/messages.h"

/* Claude Code's system prompt begins with a line about billing that differs in every request: with it no prompt would
 * begin as the one before did, and all of it would be read again. */
static const char billing[] = "x-anthropic-billing-header:";

/* --- content ------------------------------------------------------------------------------------------------------ */

static const char *type_of(const json_t *block) {
    const char *type = json_string_value(json_object_get(block, "type"));
    return type ? type : "";
}

static void add_text(translation *t, const json_t *o, const char *key, str *out) {
    const json_t *v = translation_need(t, o, key, JSON_STRING);
    if (!v) return;
    if (out->n) str_puts(out, "\n");
    str_add(out, json_string_value(v), json_string_length(v));
}

static void refuse(translation *t, const char *type) {
    translation_fault(t, 400, "type", "\"%.40s\" cannot be read by this model, which reads text only", type);
}

static void add_list(translation *t, const json_t *list, bool of_tool, str *out);

/* Documents and search results are read when they are text. */
static void add_document(translation *t, const json_t *block, bool of_tool, str *out) {
    const json_t *source = json_object_get(block, "source");
    const json_t *title = translation_may(t, block, "title", JSON_STRING);
    if (title) add_text(t, block, "title", out);
    if (json_is_array(json_object_get(block, "content"))) {
        add_list(t, json_object_get(block, "content"), of_tool, out);
        return;
    }
    size_t outer = translation_enter(t, ".source");
    if (!strcmp(type_of(source), "text")) add_text(t, source, "data", out);
    else if (!strcmp(type_of(source), "content") && json_is_string(json_object_get(source, "content")))
        add_text(t, source, "content", out);
    else if (!strcmp(type_of(source), "content")) add_list(t, json_object_get(source, "content"), of_tool, out);
    else if (of_tool) str_puts(out, "[a document, which this model cannot read]");
    else refuse(t, type_of(source));
    translation_leave(t, outer);
}

/* The model is told; from now on (or for a while still) the tool is among those of the whole request. */
static void add_change(const json_t *block, str *out) {
    const bool gone = !strcmp(type_of(block), "tool_removal");
    if (out->n) str_puts(out, "\n");
    str_addf(out, "The tool %s is %s available.", json_string_value(messages_changed_tool(block, NULL)),
             gone ? "no longer" : "now");
}

/* An image or document that a tool has brought must not end the conversation, of which it remains a part. */
static void add_block(translation *t, const json_t *block, bool of_tool, str *out) {
    const char *type = type_of(block);
    if (!json_is_object(block)) translation_fault(t, 400, NULL, "should be a content block, an object");
    else if (!strcmp(type, "text")) add_text(t, block, "text", out);
    else if (!strcmp(type, "document") || !strcmp(type, "search_result")) add_document(t, block, of_tool, out);
    else if (of_tool && !strcmp(type, "image")) str_puts(out, "[an image, which this model cannot see]");
    else if (messages_changed_tool(block, NULL)) add_change(block, out);
    else refuse(t, type);
}

static void add_list(translation *t, const json_t *list, bool of_tool, str *out) {
    if (!json_is_array(list)) translation_fault(t, 400, NULL, "should be a string or a list of content blocks");
    for (size_t i = 0; i < json_array_size(list) && !t->status; i++) {
        size_t outer = translation_enter(t, "[%zu]", i);
        add_block(t, json_array_get(list, i), of_tool, out);
        translation_leave(t, outer);
    }
}

static void add_content(translation *t, const json_t *o, const char *key, bool of_tool, str *out) {
    const json_t *v = json_object_get(o, key);
    if (!v || json_is_null(v)) return;
    if (json_is_string(v)) {
        add_text(t, o, key, out);
        return;
    }
    size_t outer = translation_enter(t, "%s%s", *t->place ? "." : "", key);
    add_list(t, v, of_tool, out);
    translation_leave(t, outer);
}

/* --- messages ----------------------------------------------------------------------------------------------------- */

static void read_system(translation *t, const json_t *o, const char *key) {
    str text = {0};
    add_content(t, o, key, false, &text);
    size_t at = 0;
    if (text.n && !strncmp(text.p, billing, strlen(billing))) {
        const char *line = memchr(text.p, '\n', text.n);
        at = line ? (size_t)(line + 1 - text.p) : text.n;
    }
    if (at < text.n) translation_text(t, "system", text.p + at, text.n - at);
    str_free(&text);
}

static void read_result(translation *t, const json_t *block) {
    const json_t *id = translation_need(t, block, "tool_use_id", JSON_STRING);
    str text = {0};
    if (translation_flag(t, block, "is_error", false)) str_puts(&text, "Error:");
    add_content(t, block, "content", true, &text);
    if (!t->status) translation_result(t, id, &text);
    str_free(&text);
}

static void read_tool_use(translation *t, const json_t *block) {
    const json_t *id = translation_need(t, block, "id", JSON_STRING);
    const json_t *name = translation_need(t, block, "name", JSON_STRING);
    const json_t *input = translation_need(t, block, "input", JSON_OBJECT);
    if (t->status) return;
    const json_t *written = json_object_get(input, INVALID_JSON);
    char *text = json_is_string(written) ? NULL : json_dumps(input, 0);
    translation_call(t, id, name, text ? json_string(text) : json_pack("O", written));
    free(text);
}

static void read_block(translation *t, const char *role, const json_t *block) {
    const char *type = type_of(block);
    const bool assistant = !strcmp(role, "assistant");
    const json_t *v;
    if (!assistant && !strcmp(type, "tool_result")) read_result(t, block);
    else if (assistant && !strcmp(type, "tool_use")) read_tool_use(t, block);
    else if (assistant && !strcmp(type, "thinking")) {
        v = translation_need(t, block, "thinking", JSON_STRING);
        if (v) translation_reasoning(t, json_string_value(v), json_string_length(v));
    } else if (!assistant || strcmp(type, "redacted_thinking")) {
        str text = {0};
        add_block(t, block, false, &text);
        if (!t->status) translation_text(t, role, text.p ? text.p : "", text.n);
        str_free(&text);
    }
}

static void read_message(translation *t, const json_t *m, bool forgotten) {
    if (!json_is_object(m)) {
        translation_fault(t, 400, NULL, "should be an object");
        return;
    }
    const char *role = json_string_value(translation_need(t, m, "role", JSON_STRING));
    const json_t *content = json_object_get(m, "content");
    if (t->status) return;
    if (!strcmp(role, "system")) {
        if (!forgotten) read_system(t, m, "content");
        return;
    }
    if (strcmp(role, "user") && strcmp(role, "assistant"))
        translation_fault(t, 400, "role", "should be \"user\" or \"assistant\"");
    else role = *role == 'u' ? "user" : "assistant";
    if (json_is_string(content)) translation_text(t, role, json_string_value(content), json_string_length(content));
    else if (!json_is_array(content))
        translation_fault(t, 400, "content", "should be a string or a list of content blocks");
    for (size_t i = 0; i < json_array_size(content) && !t->status; i++) {
        size_t outer = translation_enter(t, ".content[%zu]", i);
        read_block(t, role, json_array_get(content, i));
        translation_leave(t, outer);
    }
}

/* A system message may be meant for the user's message before it only. */
static bool is_forgotten(const json_t *m, size_t at, size_t last_user) {
    const char *until = json_string_value(json_object_get(m, "clear_at"));
    return at < last_user && until && !strcmp(until, "next_user_message");
}

static size_t find_last_user(const json_t *list) {
    for (size_t i = json_array_size(list); i-- > 0;) {
        const char *role = json_string_value(json_object_get(json_array_get(list, i), "role"));
        if (role && !strcmp(role, "user")) return i;
    }
    return 0;
}

/* A conversation that ends with the assistant's words lets it go on from there. */
static void mark_prefix(translation *t) {
    const json_t *messages = json_object_get(t->body, "messages");
    json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    if (json_string_length(json_object_get(last, "content")) &&
        !strcmp(json_string_value(json_object_get(last, "role")), "assistant") && !json_object_get(last, "tool_calls"))
        translation_put(t, last, "prefix", json_true());
}

static void read_messages(translation *t, const json_t *request) {
    const json_t *list = translation_need(t, request, "messages", JSON_ARRAY);
    if (list && !json_array_size(list)) translation_fault(t, 400, "messages", "is empty: at least one message");
    read_system(t, request, "system");
    const size_t last_user = find_last_user(list);
    for (size_t i = 0; i < json_array_size(list) && !t->status; i++) {
        const json_t *m = json_array_get(list, i);
        size_t outer = translation_enter(t, "messages[%zu]", i);
        read_message(t, m, is_forgotten(m, i, last_user));
        translation_leave(t, outer);
    }
    if (translation_finish(t)) mark_prefix(t);
}

/* --- settings ----------------------------------------------------------------------------------------------------- */

/* A budget of thinking tokens cannot be kept here: thinking ends when the model ends it. "adaptive" and words to come
 * mean that the model may think. */
static void read_thinking(translation *t, const json_t *request) {
    const json_t *thinking = translation_may(t, request, "thinking", JSON_OBJECT);
    if (!thinking) return;
    size_t outer = translation_enter(t, "thinking");
    const json_t *type = translation_need(t, thinking, "type", JSON_STRING);
    translation_may(t, thinking, "budget_tokens", JSON_INTEGER);
    bool off = type && !strcmp(json_string_value(type), "disabled");
    translation_put(t, t->body, "thinking", json_pack("{s:s}", "type", off ? "disabled" : "enabled"));
    translation_leave(t, outer);
}

static void read_output(translation *t, const json_t *request) {
    const json_t *config = translation_may(t, request, "output_config", JSON_OBJECT);
    size_t outer = translation_enter(t, "output_config");
    const json_t *effort = translation_may(t, config, "effort", JSON_STRING);
    const json_t *format = translation_may(t, config, "format", JSON_OBJECT);
    const json_t *schema = format ? translation_need(t, format, "schema", JSON_OBJECT) : NULL;
    if (effort) translation_put(t, t->body, "reasoning_effort", json_incref(json_object_get(config, "effort")));
    if (schema)
        translation_put(t, t->body, "response_format",
                        json_pack("{s:s, s:{s:s, s:O, s:b}}", "type", "json_schema", "json_schema", "name", "answer",
                                  "schema", schema, "strict", 1));
    translation_leave(t, outer);
}

bool messages_translate(translation *t, const json_t *request, bool counting) {
    static const char *const same[] = {"model", "temperature", "top_p", "top_k", NULL};
    translation_begin(t);
    translation_need(t, request, "model", JSON_STRING);
    translation_number(t, request, "temperature", 0, 1);
    translation_flag(t, request, "stream", false);
    read_messages(t, request);
    messages_put_tools(t, request);
    read_thinking(t, request);
    read_output(t, request);
    const json_t *most = counting ? NULL : translation_need(t, request, "max_tokens", JSON_INTEGER);
    if (most && json_integer_value(most) < 1) translation_fault(t, 422, "max_tokens", "should be at least 1");
    const json_t *stops = translation_may(t, request, "stop_sequences", JSON_ARRAY);
    if (t->status) return false;
    if (most) translation_put(t, t->body, "max_tokens", json_incref(json_object_get(request, "max_tokens")));
    if (json_array_size(stops))
        translation_put(t, t->body, "stop", json_incref(json_object_get(request, "stop_sequences")));
    translation_copy(t, request, same);
    return !t->status;
}
