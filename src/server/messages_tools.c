/* The tools of a request of the Messages API, and which of them may be called. */
#include <string.h>
#include "server/messages.h"

static const char *type_of(const json_t *o) {
    const char *type = json_string_value(json_object_get(o, "type"));
    return type ? type : "";
}

const json_t *messages_changed_tool(const json_t *block, const json_t **definition) {
    const char *type = type_of(block);
    const json_t *tool = json_object_get(block, "tool"), *own = json_object_get(tool, "definition"), *name = NULL;
    if (!strcmp(type, "tool_reference")) name = json_object_get(block, "tool_name");
    else if (!strcmp(type, "tool_addition") || !strcmp(type, "tool_removal"))
        name = json_object_get(own ? own : tool, "name");
    if (definition) *definition = own;
    return json_is_string(name) ? name : NULL;
}

/* Gathers the names of tools that messages bring in; those that come with a definition go to the list, too. */
static void find_brought(const json_t *content, json_t *names, const json_t *own, json_t *list) {
    const json_t *block, *definition;
    size_t i;
    json_array_foreach(content, i, block) {
        const json_t *name = messages_changed_tool(block, &definition);
        if (!strcmp(type_of(block), "tool_result")) find_brought(json_object_get(block, "content"), names, own, list);
        if (!name || !strcmp(type_of(block), "tool_removal") || json_object_get(names, json_string_value(name)))
            continue;
        json_object_set_new(names, json_string_value(name), json_true());
        if (definition && !json_object_get(own, json_string_value(name)))
            json_array_append_new(list, json_pack("O", definition));
    }
}

static json_t *names_of(const json_t *list) {
    json_t *names = json_object(), *tool;
    size_t i;
    json_array_foreach(list, i, tool) {
        const char *name = json_string_value(json_object_get(tool, "name"));
        if (name) json_object_set_new(names, name, json_true());
    }
    return names;
}

/* Tools with a type of their own (web_search_20250305 ...) are run by the API's server or known to its models: here
 * they are left out, for clients send them along unasked. */
static json_t *read_tool(translation *t, const json_t *tool) {
    const char *type = type_of(tool);
    if (!json_is_object(tool)) translation_fault(t, 400, NULL, "should be an object");
    if (t->status || (*type && strcmp(type, "custom"))) return NULL;
    const json_t *name = translation_need(t, tool, "name", JSON_STRING);
    const json_t *schema = translation_need(t, tool, "input_schema", JSON_OBJECT);
    const json_t *description = translation_may(t, tool, "description", JSON_STRING);
    bool strict = translation_flag(t, tool, "strict", false);
    return t->status ? NULL : translation_tool(name, description, schema, strict);
}

static bool is_tool(const json_t *tools, const char *name) {
    const json_t *tool;
    size_t i;
    json_array_foreach(tools, i, tool) {
        if (!strcmp(json_string_value(json_object_get(json_object_get(tool, "function"), "name")), name)) return true;
    }
    return false;
}

static void read_choice(translation *t, const json_t *choice, const json_t *tools) {
    const json_t *name = NULL;
    if (!choice || t->status) return;
    size_t outer = translation_enter(t, "tool_choice");
    const json_t *type = translation_need(t, choice, "type", JSON_STRING);
    const char *word = type ? json_string_value(type) : "";
    bool single = translation_flag(t, choice, "disable_parallel_tool_use", false);
    if (!strcmp(word, "tool")) {
        name = translation_need(t, choice, "name", JSON_STRING);
        if (name && !is_tool(tools, json_string_value(name)))
            translation_fault(t, 400, "name", "\"%.64s\" is none of the tools", json_string_value(name));
        if (!t->status)
            translation_put(t, t->body, "tool_choice",
                            json_pack("{s:s, s:{s:O}}", "type", "function", "function", "name", name));
    } else if (!strcmp(word, "any")) {
        if (!json_array_size(tools)) translation_fault(t, 400, "type", "\"any\" needs tools");
        translation_put(t, t->body, "tool_choice", json_string("required"));
    } else if (!strcmp(word, "none") || !strcmp(word, "auto")) {
        if (json_array_size(tools)) translation_put(t, t->body, "tool_choice", json_string(word));
    } else translation_fault(t, 400, "type", "should be \"auto\", \"any\", \"tool\" or \"none\"");
    if (single) translation_put(t, t->body, "parallel_tool_calls", json_false());
    translation_leave(t, outer);
}

static json_t *read_tools(translation *t, const json_t *list, const json_t *brought) {
    json_t *tools = json_array();
    for (size_t i = 0; i < json_array_size(list) && !t->status; i++) {
        const json_t *tool = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(tool, "name"));
        const bool waits = json_is_true(json_object_get(tool, "defer_loading"));
        if (waits && !json_object_get(brought, name ? name : "")) continue;
        size_t outer = translation_enter(t, "tools[%zu]", i);
        json_t *made = read_tool(t, tool);
        if (made) json_array_append_new(tools, made);
        translation_leave(t, outer);
    }
    return tools;
}

/* A tool that waits (defer_loading) is left out until a message brings it in. */
void messages_put_tools(translation *t, const json_t *request) {
    const json_t *sent = translation_may(t, request, "tools", JSON_ARRAY), *message;
    json_t *list = sent ? json_copy((json_t *)(uintptr_t)sent) : json_array();
    json_t *own = names_of(list), *brought = json_object();
    size_t i;
    json_array_foreach(json_object_get(request, "messages"), i, message) {
        find_brought(json_object_get(message, "content"), brought, own, list);
    }
    json_t *tools = read_tools(t, list, brought);
    if (json_array_size(tools)) translation_put(t, t->body, "tools", json_incref(tools));
    read_choice(t, translation_may(t, request, "tool_choice", JSON_OBJECT), tools);
    json_decref(tools);
    json_decref(own);
    json_decref(list);
    json_decref(brought);
}
