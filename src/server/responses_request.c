/* A request of the Responses API as the body of a chat completion. */
#include <stdlib.h>
#include <string.h>
#include "server/params.h"
#include "server/responses.h"

/* --- texts -------------------------------------------------------------------------------------------------------- */

static const char *word(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static bool among(const char *s, const char *const *list) {
    for (; *list; list++)
        if (!strcmp(s, *list)) return true;
    return false;
}

/* A string, or a list of parts that are text. What a tool has brought must not end the conversation, of which it
 * remains a part: there other parts are named. */
static void add_parts(translation *t, const json_t *o, const char *key, bool of_tool, str *out) {
    static const char *const texts[] = {"input_text", "output_text", "text", "reasoning_text", "summary_text", NULL};
    const json_t *v = json_object_get(o, key), *part;
    size_t i;
    if (json_is_string(v)) str_add(out, json_string_value(v), json_string_length(v));
    else if (!json_is_array(v)) translation_fault(t, 400, key, "should be a string or a list of parts");
    json_array_foreach(v, i, part) {
        size_t outer = translation_enter(t, ".%s[%zu]", key, i);
        const char *type = word(part, "type"), *text = !strcmp(type, "refusal") ? "refusal" : "text";
        const bool other = strcmp(type, "refusal") && !among(type, texts);
        if (!json_is_object(part)) translation_fault(t, 400, NULL, "should be an object");
        else if (other && of_tool) str_addf(out, "[%.40s, which this model cannot read]", type);
        else if (other)
            translation_fault(t, 400, "type", "\"%.40s\" cannot be read by this model, which reads text only", type);
        const json_t *s = t->status || other ? NULL : translation_need(t, part, text, JSON_STRING);
        if (s) str_add(out, json_string_value(s), json_string_length(s));
        translation_leave(t, outer);
    }
}

/* --- items -------------------------------------------------------------------------------------------------------- */

static void read_message(translation *t, const json_t *item) {
    const char *role = word(item, "role");
    str text = {0};
    add_parts(t, item, "content", false, &text);
    if (!strcmp(role, "user")) role = "user";
    else if (!strcmp(role, "assistant")) role = "assistant";
    else if (!strcmp(role, "system") || !strcmp(role, "developer")) role = "system";
    else translation_fault(t, 400, "role", "should be \"user\", \"assistant\", \"system\" or \"developer\"");
    if (!t->status) translation_text(t, role, text.p ? text.p : "", text.n);
    str_free(&text);
}

/* What it says first of content, encrypted_content (which here is the text itself) and summary. */
static void read_reasoning(translation *t, const json_t *item) {
    str text = {0};
    if (json_array_size(json_object_get(item, "content"))) add_parts(t, item, "content", false, &text);
    else if (json_is_string(json_object_get(item, "encrypted_content")))
        add_parts(t, item, "encrypted_content", false, &text);
    else if (json_array_size(json_object_get(item, "summary"))) add_parts(t, item, "summary", false, &text);
    if (!t->status && text.n) translation_reasoning(t, text.p, text.n);
    str_free(&text);
}

/* The name under which the model knows a tool of a namespace. */
static json_t *model_name(const char *namespace, const char *name) {
    return *namespace ? json_sprintf("%s__%s", namespace, name) : json_string(name);
}

static json_t *custom_arguments(const json_t *input) {
    json_t *o = json_pack("{s:O}", "input", input);
    char *text = o ? json_dumps(o, 0) : NULL;
    json_t *arguments = json_string(text);
    free(text);
    json_decref(o);
    return arguments;
}

static void read_call(translation *t, const json_t *item, bool custom) {
    const json_t *id = translation_need(t, item, "call_id", JSON_STRING);
    const json_t *name = translation_need(t, item, "name", JSON_STRING);
    const json_t *text = translation_need(t, item, custom ? "input" : "arguments", JSON_STRING);
    if (t->status) return;
    json_t *known = model_name(word(item, "namespace"), json_string_value(name));
    translation_call(t, id, known, custom ? custom_arguments(text) : json_pack("O", text));
    json_decref(known);
}

static void read_output(translation *t, const json_t *item) {
    const json_t *id = translation_need(t, item, "call_id", JSON_STRING);
    str text = {0};
    add_parts(t, item, "output", true, &text);
    if (!t->status) translation_result(t, id, &text);
    str_free(&text);
}

static void read_item(translation *t, const json_t *item) {
    const char *type = word(item, "type");
    if (!json_is_object(item)) translation_fault(t, 400, NULL, "should be an object");
    else if (!strcmp(type, "message") || (!*type && json_object_get(item, "role"))) read_message(t, item);
    else if (!strcmp(type, "reasoning")) read_reasoning(t, item);
    else if (!strcmp(type, "function_call")) read_call(t, item, false);
    else if (!strcmp(type, "custom_tool_call")) read_call(t, item, true);
    else if (!strcmp(type, "function_call_output") || !strcmp(type, "custom_tool_call_output")) read_output(t, item);
    else if (strcmp(type, "additional_tools") != 0)
        translation_fault(t, 400, "type", "items of type \"%.40s\" are not supported", type);
}

static void read_items(translation *t, const json_t *items, const char *name) {
    const json_t *item;
    size_t i;
    json_array_foreach(items, i, item) {
        if (t->status) return;
        size_t outer = translation_enter(t, "%s[%zu]", name, i);
        read_item(t, item);
        translation_leave(t, outer);
    }
}

/* The input as a list of items, references replaced by what they name: each at most once, or a small request could ask
 * for a huge prompt. */
static json_t *input_items(translation *t, const json_t *request, json_t *(*find)(void *, const char *), void *arg) {
    const json_t *input = json_object_get(request, "input");
    if (json_is_string(input))
        return json_pack("[{s:s, s:s, s:O}]", "type", "message", "role", "user", "content", input);
    if (!json_is_array(input)) translation_fault(t, 400, "input", "should be a string or a list of items");
    json_t *items = json_array(), *named = json_object(), *item;
    size_t i;
    json_array_foreach(input, i, item) {
        const bool reference = !strcmp(word(item, "type"), "item_reference");
        const char *id = reference ? word(item, "id") : "";
        json_t *found = reference ? find(arg, id) : json_incref(item);
        size_t outer = translation_enter(t, "input[%zu]", i);
        if (!found) translation_fault(t, 404, "id", "there is no item \"%.80s\" (any more)", id);
        else if (reference && json_object_get(named, id)) translation_fault(t, 400, "id", "names an item again");
        else json_array_append(items, found);
        if (reference) json_object_set_new(named, id, json_true());
        json_decref(found);
        translation_leave(t, outer);
        if (t->status) break;
    }
    json_decref(named);
    return items;
}

/* Instructions stand before everything and are not carried on: the next request brings its own. */
static void put_instructions(translation *t, const json_t *request) {
    const json_t *v = translation_may(t, request, "instructions", JSON_STRING);
    json_t *messages = json_object_get(t->body, "messages"), *first = json_array_get(messages, 0);
    if (!v || !json_string_length(v)) return;
    str text = {0};
    str_add(&text, json_string_value(v), json_string_length(v));
    if (!strcmp(word(first, "role"), "system")) {
        const json_t *more = json_object_get(first, "content");
        str_puts(&text, "\n\n");
        str_add(&text, json_string_value(more), json_string_length(more));
        translation_put(t, first, "content", json_of(&text));
    } else if (json_array_insert_new(messages, 0, json_pack("{s:s, s:o}", "role", "system", "content", json_of(&text))))
        translation_fault(t, 500, NULL, "memory is out");
    str_free(&text);
}

/* --- tools -------------------------------------------------------------------------------------------------------- */

enum { MAX_SPACE = 64 };

/* A custom tool takes a text, no JSON: the model fills it into the one member of an object. */
static json_t *custom_tool(const json_t *name, const json_t *tool) {
    str text = {0};
    const char *grammar = word(json_object_get(tool, "format"), "definition");
    str_puts(&text, word(tool, "description"));
    if (*grammar) str_addf(&text, "\n\nThe input follows this grammar:\n%s", grammar);
    json_t *description = json_of(&text);
    json_t *parameters = json_pack("{s:s, s:{s:{s:s}}, s:[s], s:b}", "type", "object", "properties", "input", "type",
                                   "string", "required", "input", "additionalProperties", 0);
    json_t *made = translation_tool(name, description, parameters, false);
    json_decref(description);
    json_decref(parameters);
    str_free(&text);
    return made;
}

static void read_tools(response_request *q, const json_t *list, const char *namespace, json_t *tools);

/* Tools that the API's server runs (web_search ...) are left out: clients send them along unasked. */
static void read_tool(response_request *q, const json_t *tool, const char *namespace, json_t *tools) {
    translation *t = &q->t;
    const char *type = word(tool, "type");
    const bool custom = !strcmp(type, "custom");
    if (!json_is_object(tool)) translation_fault(t, 400, NULL, "should be an object");
    if (!strcmp(type, "namespace") && !*namespace) {
        const json_t *name = translation_need(t, tool, "name", JSON_STRING);
        const json_t *inner = translation_need(t, tool, "tools", JSON_ARRAY);
        if (json_string_length(name) > MAX_SPACE) /* it stands before each tool's name */
            translation_fault(t, 400, "name", "is longer than %d bytes", MAX_SPACE);
        if (!t->status) read_tools(q, inner, json_string_value(name), tools);
        return;
    }
    if (t->status || (strcmp(type, "function") && !custom)) return;
    const json_t *name = translation_need(t, tool, "name", JSON_STRING);
    const json_t *description = translation_may(t, tool, "description", JSON_STRING);
    const json_t *parameters = translation_may(t, tool, "parameters", JSON_OBJECT);
    const bool strict = translation_flag(t, tool, "strict", false);
    if (t->status) return;
    json_t *known = model_name(namespace, json_string_value(name));
    json_t *made = custom ? custom_tool(known, tool) : translation_tool(known, description, parameters, strict);
    if (json_array_append_new(tools, made)) translation_fault(t, 500, NULL, "memory is out");
    if (custom || *namespace)
        translation_put(
            t, q->tools, json_string_value(known),
            json_pack("{s:s?, s:O, s:b}", "namespace", *namespace ? namespace : NULL, "name", name, "custom", custom));
    json_decref(known);
}

static void read_tools(response_request *q, const json_t *list, const char *namespace, json_t *tools) {
    for (size_t i = 0; i < json_array_size(list) && !q->t.status; i++) {
        size_t outer = translation_enter(&q->t, "%stools[%zu]", *q->t.place ? "." : "", i);
        read_tool(q, json_array_get(list, i), namespace, tools);
        translation_leave(&q->t, outer);
    }
}

/* Tools that the input brings along. */
static void read_additional(response_request *q, json_t *tools) {
    const json_t *item;
    size_t i;
    json_array_foreach(q->items, i, item) {
        if (strcmp(word(item, "type"), "additional_tools") != 0) continue;
        size_t outer = translation_enter(&q->t, "input[%zu]", i);
        read_tools(q, translation_need(&q->t, item, "tools", JSON_ARRAY), "", tools);
        translation_leave(&q->t, outer);
    }
}

static const char *tool_name(const json_t *tool) {
    return word(json_object_get(tool, "function"), "name");
}

static bool names_tool(const json_t *choice, const json_t *tool) {
    json_t *known = model_name(word(choice, "namespace"), word(choice, "name"));
    bool same = known && !strcmp(json_string_value(known), tool_name(tool));
    json_decref(known);
    return same;
}

/* Of the tools those that the list names. */
static json_t *allowed_tools(const json_t *list, const json_t *tools) {
    json_t *some = json_array(), *tool, *choice;
    size_t i, k;
    json_array_foreach(tools, i, tool) {
        bool named = false;
        json_array_foreach(list, k, choice) named |= names_tool(choice, tool);
        if (named) json_array_append(some, tool);
    }
    return some;
}

/* Puts "tool_choice" into the body; gives those of the tools (taken) that may be called. */
static json_t *put_choice(translation *t, const json_t *choice, json_t *tools) {
    const char *mode = json_is_string(choice) ? json_string_value(choice) : word(choice, "type");
    size_t outer = translation_enter(t, "tool_choice");
    if (!strcmp(mode, "allowed_tools")) {
        json_t *some = allowed_tools(translation_need(t, choice, "tools", JSON_ARRAY), tools);
        json_decref(tools);
        tools = some;
        mode = word(choice, "mode");
    }
    if (!strcmp(mode, "function") || !strcmp(mode, "custom")) {
        const json_t *tool, *found = NULL;
        size_t i;
        json_array_foreach(tools, i, tool) if (names_tool(choice, tool)) found = tool;
        if (!found) translation_fault(t, 400, "name", "\"%.64s\" is none of the tools", word(choice, "name"));
        else
            translation_put(t, t->body, "tool_choice",
                            json_pack("{s:s, s:{s:s}}", "type", "function", "function", "name", tool_name(found)));
    } else if (strcmp(mode, "auto") && strcmp(mode, "none") && strcmp(mode, "required"))
        translation_fault(t, 400, NULL, "should be \"auto\", \"none\", \"required\" or name a function");
    else if (json_array_size(tools)) translation_put(t, t->body, "tool_choice", json_string(mode));
    else if (*mode == 'r') translation_fault(t, 400, NULL, "\"required\" needs a tool of type function");
    translation_leave(t, outer);
    return tools;
}

static void put_tools(response_request *q, const json_t *request) {
    translation *t = &q->t;
    const json_t *choice = json_object_get(request, "tool_choice");
    json_t *tools = json_array();
    if (json_array_size(json_object_get(choice, "tools")) > MAX_TOOLS)
        translation_fault(t, 422, "tool_choice", "names more than %d tools", MAX_TOOLS);
    read_tools(q, translation_may(t, request, "tools", JSON_ARRAY), "", tools);
    read_additional(q, tools);
    if (json_array_size(tools) > MAX_TOOLS)
        translation_fault(t, 422, "tools", "there are %zu, at most %d are possible", json_array_size(tools), MAX_TOOLS);
    if (choice && !json_is_null(choice) && !t->status) tools = put_choice(t, choice, tools);
    if (json_array_size(tools)) translation_put(t, t->body, "tools", json_incref(tools));
    json_decref(tools);
}

/* --- settings ----------------------------------------------------------------------------------------------------- */

static void put_format(translation *t, const json_t *request) {
    const json_t *text = translation_may(t, request, "text", JSON_OBJECT);
    size_t outer = translation_enter(t, "text");
    const json_t *format = translation_may(t, text, "format", JSON_OBJECT);
    translation_enter(t, ".format");
    const json_t *type = format ? translation_need(t, format, "type", JSON_STRING) : NULL;
    if (type && !strcmp(json_string_value(type), "json_schema")) {
        const json_t *schema = translation_need(t, format, "schema", JSON_OBJECT);
        const json_t *name = translation_need(t, format, "name", JSON_STRING);
        bool strict = translation_flag(t, format, "strict", false);
        if (!t->status)
            translation_put(t, t->body, "response_format",
                            json_pack("{s:s, s:{s:O, s:O, s:b}}", "type", "json_schema", "json_schema", "name", name,
                                      "schema", schema, "strict", strict));
    } else if (type) translation_put(t, t->body, "response_format", json_pack("{s:O}", "type", type));
    translation_leave(t, outer);
}

static void put_reasoning(response_request *q, const json_t *request) {
    translation *t = &q->t;
    const json_t *reasoning = translation_may(t, request, "reasoning", JSON_OBJECT);
    size_t outer = translation_enter(t, "reasoning");
    const json_t *effort = translation_may(t, reasoning, "effort", JSON_STRING);
    q->summary = translation_may(t, reasoning, "summary", JSON_STRING) ||
                 translation_may(t, reasoning, "generate_summary", JSON_STRING);
    if (effort && !strcmp(json_string_value(effort), "none"))
        translation_put(t, t->body, "thinking", json_pack("{s:s}", "type", "disabled"));
    else if (effort) translation_put(t, t->body, "reasoning_effort", json_pack("O", effort));
    translation_leave(t, outer);
}

static void put_logprobs(response_request *q, const json_t *request) {
    const json_t *top = translation_may(&q->t, request, "top_logprobs", JSON_INTEGER), *entry;
    size_t i;
    json_array_foreach(translation_may(&q->t, request, "include", JSON_ARRAY), i, entry) {
        const char *name = json_is_string(entry) ? json_string_value(entry) : "";
        if (!strcmp(name, "message.output_text.logprobs")) q->logprobs = true;
        if (!strcmp(name, "reasoning.encrypted_content")) q->encrypted = true;
    }
    q->logprobs |= json_integer_value(top) > 0;
    if (!q->logprobs) return;
    translation_put(&q->t, q->t.body, "logprobs", json_true());
    translation_put(&q->t, q->t.body, "top_logprobs", top ? json_pack("O", top) : json_integer(0));
}

/* Parts of the API that nothing here stands for. */
static void refuse_others(translation *t, const json_t *request) {
    static const char *const others[] = {"conversation", "prompt", NULL};
    for (const char *const *k = others; *k; k++)
        if (json_is_object(json_object_get(request, *k)) || json_is_string(json_object_get(request, *k)))
            translation_fault(t, 400, *k, "is not supported: send the whole input, or previous_response_id");
    if (translation_flag(t, request, "background", false))
        translation_fault(t, 400, "background", "is not supported: use a stream");
}

bool response_translate(response_request *q, const json_t *request, const json_t *before,
                        json_t *(*find)(void *arg, const char *item_id), void *arg) {
    static const char *const same[] = {"model",
                                       "temperature",
                                       "top_p",
                                       "top_k",
                                       "min_p",
                                       "seed",
                                       "stop",
                                       "presence_penalty",
                                       "frequency_penalty",
                                       "repetition_penalty",
                                       "logit_bias",
                                       "parallel_tool_calls",
                                       "thinking",
                                       "chat_template_kwargs",
                                       NULL};
    translation *t = &q->t;
    *q = (response_request){.tools = json_object()};
    translation_begin(t);
    refuse_others(t, request);
    json_t *items = input_items(t, request, find, arg);
    read_items(t, before, "previous_response");
    read_items(t, items, "input");
    q->items = before ? json_copy((json_t *)before) : json_array();
    json_array_extend(q->items, items);
    json_decref(items);
    if (translation_finish(t)) put_instructions(t, request);
    if (!json_array_size(json_object_get(t->body, "messages"))) translation_fault(t, 400, "input", "is empty");
    translation_copy(t, request, same);
    put_tools(q, request);
    put_format(t, request);
    put_reasoning(q, request);
    put_logprobs(q, request);
    q->stream = translation_flag(t, request, "stream", false);
    q->store = translation_flag(t, request, "store", true);
    translation_may(t, request, "metadata", JSON_OBJECT);
    const json_t *most = translation_may(t, request, "max_output_tokens", JSON_INTEGER);
    if (most && json_integer_value(most) < 1) translation_fault(t, 422, "max_output_tokens", "should be at least 1");
    if (most) translation_put(t, t->body, "max_tokens", json_pack("O", most));
    return !t->status;
}

void response_request_free(response_request *q) {
    translation_end(&q->t);
    json_decref(q->items);
    json_decref(q->tools);
}
