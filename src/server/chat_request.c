#include "server/chat_request.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/hash.h"
#include "base/str.h"

enum { MAX_NAME = 128, MAX_VARIABLE = 4096 };

static status no_memory(mistake *m) {
    return mistaken(m, 500, NULL, "memory is out");
}

/* ---- messages ---- */

static const char *const roles[] = {"system", "developer", "user", "assistant", "tool"};

typedef struct place { /* in the body, for mistakes */
    char name[48];
    mistake *m;
} place;

static status text_of_part(const place *at, const json_t *part, str *out) {
    const char *type = json_string_value(json_object_get(part, "type"));
    const json_t *t = json_object_get(part, "text");
    if (json_is_string(part)) t = part;
    else if (!type) return mistaken(at->m, 400, at->name, "%s: a part needs a \"type\"", at->name);
    else if (strcmp(type, "text") && strcmp(type, "input_text") && strcmp(type, "output_text"))
        return mistaken(at->m, 400, at->name, "%s: a part is of type \"%.40s\", this model reads text only", at->name,
                        type);
    if (!json_is_string(t)) return mistaken(at->m, 400, at->name, "%s: a part of type text needs a \"text\"", at->name);
    if (out->n) str_putc(out, '\n');
    str_add(out, json_string_value(t), json_string_length(t));
    return OK;
}

/* The content as one text; NULL without a mistake: there is none. */
static status read_content(const place *at, const json_t *message, json_t **out) {
    const json_t *c = param(message, "content");
    *out = NULL;
    if (!c) return OK;
    if (json_is_string(c)) {
        *out = json_incref((json_t *)(uintptr_t)c);
        return OK;
    }
    if (!json_is_array(c)) return mistaken(at->m, 400, at->name, "%s: content should be a text or a list", at->name);
    str s = {0};
    status st = OK;
    for (size_t i = 0; st == OK && i < json_array_size(c); i++) st = text_of_part(at, json_array_get(c, i), &s);
    if (st == OK && (s.failed || !(*out = json_stringn(s.n ? s.p : "", s.n)))) st = no_memory(at->m);
    str_free(&s);
    return st;
}

/* A call with its arguments as text. */
static status read_call(const place *at, const json_t *call, json_t **out) {
    const json_t *f = json_object_get(call, "function"), *id = param(call, "id");
    const json_t *name = json_object_get(f, "name"), *arguments = param(f, "arguments");
    const char *text = json_string_value(arguments);
    if (!json_is_string(name) || (arguments && !text && !json_is_object(arguments)))
        return mistaken(at->m, 400, at->name, "%s: a tool call needs function.name and function.arguments", at->name);
    if (id && !json_is_string(id))
        return mistaken(at->m, 400, at->name, "%s: the id of a tool call should be a text", at->name);
    char *dumped = json_is_object(arguments) ? json_dumps(arguments, 0) : NULL;
    if (json_is_object(arguments) && !dumped) return no_memory(at->m);
    json_t *written = dumped                          ? json_string(dumped)
                      : json_string_length(arguments) ? json_copy((json_t *)(uintptr_t)arguments)
                                                      : json_string("{}");
    free(dumped);
    *out = json_pack("{s:s,s:{s:O,s:o}}", "type", "function", "function", "name", name, "arguments", written);
    if (!*out || (id && json_object_set(*out, "id", (json_t *)(uintptr_t)id))) return no_memory(at->m);
    return OK;
}

static status read_calls(const place *at, const json_t *message, json_t *to) {
    const json_t *calls = param(message, "tool_calls");
    if (!calls) return OK;
    if (!json_is_array(calls)) return mistaken(at->m, 400, at->name, "%s: tool_calls should be a list", at->name);
    if (!json_array_size(calls)) return OK;
    json_t *list = json_array();
    if (!list || json_object_set_new(to, "tool_calls", list)) return no_memory(at->m);
    for (size_t i = 0; i < json_array_size(calls); i++) {
        json_t *call = NULL;
        status st = read_call(at, json_array_get(calls, i), &call);
        if (st == OK && json_array_append(list, call)) st = no_memory(at->m);
        json_decref(call);
        TRY(st);
    }
    return OK;
}

static status copy_text(const place *at, const json_t *message, const char *name, const char *as, json_t *to) {
    const json_t *v = param(message, name);
    if (!v) return OK;
    if (!json_is_string(v)) return mistaken(at->m, 400, at->name, "%s: %s should be a text", at->name, name);
    return json_object_set(to, as, (json_t *)(uintptr_t)v) ? no_memory(at->m) : OK;
}

static status set_content(const place *at, const json_t *message, const char *role, json_t *to) {
    json_t *content;
    bool assistant = !strcmp(role, "assistant"), calls = json_object_get(to, "tool_calls") != NULL;
    TRY(read_content(at, message, &content));
    if (!content && !assistant) return mistaken(at->m, 400, at->name, "%s: content is missing", at->name);
    if (calls && !json_string_length(content)) { /* templates ask whether there is any */
        json_decref(content);
        content = json_null();
    } else if (!content) content = json_string("");
    return json_object_set_new(to, "content", content) ? no_memory(at->m) : OK;
}

/* Only known members are taken over. */
static status read_message(const place *at, const json_t *message, json_t *to) {
    const char *role = json_string_value(json_object_get(message, "role"));
    size_t k = 0;
    while (role && k < sizeof roles / sizeof *roles && strcmp(role, roles[k])) k++;
    if (!json_is_object(message)) return mistaken(at->m, 400, at->name, "%s should be an object", at->name);
    if (!role) return mistaken(at->m, 400, at->name, "%s: role is missing", at->name);
    if (k == sizeof roles / sizeof *roles)
        return mistaken(at->m, 400, at->name,
                        "%s: role is \"%.40s\", it should be system, developer, user, assistant "
                        "or tool",
                        at->name, role);
    TRY(copy_text(at, message, "role", "role", to));
    TRY(copy_text(at, message, "name", "name", to));
    if (!strcmp(role, "assistant")) {
        TRY(copy_text(at, message, "reasoning", "reasoning_content", to));
        TRY(copy_text(at, message, "reasoning_content", "reasoning_content", to));
        TRY(read_calls(at, message, to));
    }
    if (!strcmp(role, "tool")) TRY(copy_text(at, message, "tool_call_id", "tool_call_id", to));
    return set_content(at, message, role, to);
}

static status add_ids(const place *at, json_t *message, call_memory *calls) {
    const json_t *list = json_object_get(message, "tool_calls");
    call_key *k = calls && list ? call_key_open(list, json_object_get(message, "content")) : NULL;
    size_t n = 0;
    int32_t *ids = k ? call_memory_find(calls, k->texts, k->n, &n) : NULL;
    json_t *out = ids ? json_array() : NULL;
    bool bad = ids && (!out || json_object_set_new(message, "token_ids", out));
    for (size_t i = 0; !bad && i < n; i++) bad = json_array_append_new(out, json_integer(ids[i])) != 0;
    free(ids);
    call_key_free(k);
    return bad ? no_memory(at->m) : OK;
}

static status read_messages(chat_request *r, const json_t *body, call_memory *calls, mistake *m) {
    const json_t *all = param(body, "messages");
    size_t n = json_array_size(all);
    if (!all) return mistaken(m, 400, "messages", "messages is missing");
    if (!json_is_array(all)) return mistaken(m, 400, "messages", "messages should be a list");
    if (!n) return mistaken(m, 400, "messages", "messages is empty");
    if (!(r->messages = json_array())) return no_memory(m);
    for (size_t i = 0; i < n; i++) {
        place at = {.m = m};
        json_t *to = json_object();
        snprintf(at.name, sizeof at.name, "messages[%zu]", i);
        if (!to || json_array_append_new(r->messages, to)) return no_memory(m);
        TRY(read_message(&at, json_array_get(all, i), to));
        TRY(add_ids(&at, to, calls));
    }
    return OK;
}

/* "prefix": true on the last message, or continue_final_message: the answer goes on where that message ends. */
static status read_continuation(const json_t *body, json_t *options, mistake *m) {
    const json_t *all = json_object_get(body, "messages"), *last = NULL;
    bool prefix = false, whole, prompt;
    for (size_t i = 0; i < json_array_size(all); i++) {
        if (prefix) return mistaken(m, 400, "messages", "prefix: true is only possible on the last message");
        last = json_array_get(all, i);
        TRY(param_bool(last, "prefix", false, &prefix, m));
    }
    TRY(param_bool(body, "continue_final_message", false, &whole, m));
    whole |= prefix;
    TRY(param_bool(body, "add_generation_prompt", !whole, &prompt, m));
    const char *role = json_string_value(json_object_get(last, "role"));
    if (whole && strcmp(role, "assistant"))
        return mistaken(m, 400, "messages", "only an assistant message can be continued, the last one is of role %s",
                        role);
    if (whole && prompt)
        return mistaken(m, 400, "add_generation_prompt",
                        "a message cannot be continued (continue_final_message) behind a new turn's beginning "
                        "(add_generation_prompt)");
    bool bad = json_object_set_new(options, "continue_final_message", json_boolean(whole)) ||
               json_object_set_new(options, "add_generation_prompt", json_boolean(prompt));
    return bad ? no_memory(m) : OK;
}

/* ---- the template's variables ---- */

/* Names that chat_template_kwargs must not touch: they have members of their own, or say what a message is. */
static const char *const reserved[] = {
    "messages",  "tools",     "add_generation_prompt", "continue_final_message", "prefix", "bos_token",
    "eos_token", "pad_token", "response_format"};

static status read_variables(const json_t *body, json_t *options, mistake *m) {
    static const char name[] = "chat_template_kwargs";
    json_t *all = (json_t *)(uintptr_t)param(body, name), *v;
    const char *key;
    if (!all) return OK;
    if (!json_is_object(all)) return mistaken(m, 400, name, "%s should be an object", name);
    if (json_object_size(all) > MAX_VARIABLES)
        return mistaken(m, 422, name, "%s has %zu members, at most %d are possible", name, json_object_size(all),
                        MAX_VARIABLES);
    json_object_foreach(all, key, v) {
        for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
            if (!strcmp(key, reserved[i])) return mistaken(m, 400, name, "%s: %s cannot be set here", name, key);
        if (json_is_object(v) || json_is_array(v))
            return mistaken(m, 400, name, "%s: %.40s should be a text, a number or a switch", name, key);
        if (json_string_length(v) > MAX_VARIABLE)
            return mistaken(m, 422, name, "%s: %.40s is longer than %d bytes", name, key, MAX_VARIABLE);
        if ((!strcmp(key, "thinking") || !strcmp(key, "enable_thinking")) && !json_is_boolean(v) && !json_is_null(v))
            return mistaken(m, 400, name, "%s: %s should be true or false", name, key);
        if (json_object_set(options, key, v)) return no_memory(m);
    }
    return OK;
}

static status set_thinking(json_t *options, bool on, mistake *m) {
    bool bad = json_object_set_new(options, "thinking", json_boolean(on)) ||
               json_object_set_new(options, "enable_thinking", json_boolean(on));
    return bad ? no_memory(m) : OK;
}

/* thinking: {"type"} counts before chat_template_kwargs, which count before reasoning_effort. */
static status read_thinking(const json_t *body, json_t *options, mistake *m) {
    const json_t *t = param(body, "thinking"), *effort = param(body, "reasoning_effort");
    const char *type = json_string_value(json_object_get(t, "type")), *e = json_string_value(effort);
    bool said = param(options, "thinking") || param(options, "enable_thinking");
    if (effort && !e) return mistaken(m, 400, "reasoning_effort", "reasoning_effort should be a text");
    if (e && !said) TRY(set_thinking(options, strcmp(e, "none") && strcmp(e, "minimal"), m));
    if (!t) return OK;
    if (json_is_boolean(t)) return set_thinking(options, json_is_true(t), m);
    if (!type || (strcmp(type, "enabled") && strcmp(type, "disabled")))
        return mistaken(m, 400, "thinking", "thinking should be {\"type\": \"enabled\"} or {\"type\": \"disabled\"}");
    return set_thinking(options, !strcmp(type, "enabled"), m);
}

/* ---- tools ---- */

static const char *tool_name(const json_t *tools, size_t i) {
    return json_string_value(json_object_get(json_object_get(json_array_get(tools, i), "function"), "name"));
}

static bool good_name(const char *s) {
    size_t n = s ? strlen(s) : 0;
    return n && n <= MAX_NAME && strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:/") == n;
}

static status check_tool(const json_t *tools, size_t i, mistake *m) {
    place at;
    const json_t *tool = json_array_get(tools, i), *f = json_object_get(tool, "function"), *p = param(f, "parameters");
    const char *type = json_string_value(json_object_get(tool, "type")), *name = tool_name(tools, i);
    snprintf(at.name, sizeof at.name, "tools[%zu]", i);
    if (!type || strcmp(type, "function")) return mistaken(m, 400, at.name, "%s: type should be \"function\"", at.name);
    if (!json_is_object(f)) return mistaken(m, 400, at.name, "%s: function should be an object", at.name);
    if (!good_name(name))
        return mistaken(m, 400, at.name, "%s: function.name should be 1 to %d letters, digits, _ - . : /", at.name,
                        MAX_NAME);
    if (p && !json_is_object(p))
        return mistaken(m, 400, at.name, "%s: function.parameters should be a JSON schema, an object", at.name);
    if (param(f, "description") && !json_is_string(param(f, "description")))
        return mistaken(m, 400, at.name, "%s: function.description should be a text", at.name);
    return OK;
}

/* auto, none, required, or a name. */
static status read_choice(const json_t *body, const json_t *tools, const char **out, bool *named, mistake *m) {
    const json_t *c = param(body, "tool_choice");
    const char *s = json_string_value(c), *type = json_string_value(json_object_get(c, "type"));
    *out = s ? s : "auto";
    *named = false;
    if (!c || (s && (!strcmp(s, "auto") || !strcmp(s, "none")))) return OK;
    if (!json_array_size(tools)) return mistaken(m, 400, "tool_choice", "tool_choice needs tools");
    if (s && !strcmp(s, "required")) return OK;
    *out = json_string_value(json_object_get(json_object_get(c, "function"), "name"));
    *named = true;
    if (!type || strcmp(type, "function") || !*out)
        return mistaken(
            m, 400, "tool_choice",
            "tool_choice should be auto, none, required or {\"type\": \"function\", \"function\": {\"name\"}}");
    for (size_t i = 0; i < json_array_size(tools); i++)
        if (!strcmp(tool_name(tools, i), *out)) return OK;
    return mistaken(m, 400, "tool_choice", "there is no tool \"%.100s\"", *out);
}

static status read_tools(chat_request *r, const json_t *body, mistake *m) {
    const json_t *tools = param(body, "tools");
    const char *choice;
    bool parallel, named;
    if (json_array_size(param(body, "functions")) || param(body, "function_call"))
        return mistaken(m, 400, "functions",
                        "functions and function_call are no longer known; use tools and tool_choice");
    if (tools && !json_is_array(tools)) return mistaken(m, 400, "tools", "tools should be a list");
    if (json_array_size(tools) > MAX_TOOLS)
        return mistaken(m, 422, "tools", "there are %zu tools, at most %d are possible", json_array_size(tools),
                        MAX_TOOLS);
    for (size_t i = 0; i < json_array_size(tools); i++) TRY(check_tool(tools, i, m));
    TRY(param_bool(body, "parallel_tool_calls", true, &parallel, m));
    TRY(read_choice(body, tools, &choice, &named, m));
    if (!json_array_size(tools)) return OK;
    if (json_object_set(r->options, "tools", (json_t *)(uintptr_t)tools)) return no_memory(m);
    r->tools = named || strcmp(choice, "none");
    if (!r->tools) return OK;
    r->grammar_optional = !named && !strcmp(choice, "auto");
    r->grammar =
        json_pack("{s:s,s:O,s:s,s:b}", "type", "tools", "tools", tools, "choice", choice, "parallel", parallel);
    return r->grammar ? OK : no_memory(m);
}

/* ---- the answer's form ---- */

static status read_schema(chat_request *r, const json_t *format, mistake *m) {
    static const char name[] = "response_format";
    const json_t *j = json_object_get(format, "json_schema"), *schema = json_object_get(j, "schema");
    bool strict;
    if (!json_is_object(j)) return mistaken(m, 400, name, "response_format.json_schema should be an object");
    if (param(j, "name") && !json_is_string(param(j, "name")))
        return mistaken(m, 400, name, "response_format.json_schema.name should be a text");
    TRY(param_bool(j, "strict", false, &strict, m));
    if (!json_is_object(schema) && !json_is_boolean(schema))
        return mistaken(m, 400, name, "response_format.json_schema.schema should be a JSON schema");
    if (json_is_object(schema) && json_object_set(r->options, name, (json_t *)(uintptr_t)schema)) return no_memory(m);
    r->grammar = json_pack("{s:s,s:O}", "type", "json_schema", "schema", schema);
    return r->grammar ? OK : no_memory(m);
}

static status read_format(chat_request *r, const json_t *body, mistake *m) {
    static const char name[] = "response_format";
    const json_t *f = param(body, name);
    const char *type = json_string_value(json_object_get(f, "type"));
    if (!f) return OK;
    if (!type) return mistaken(m, 400, name, "response_format should be an object with a type");
    if (!strcmp(type, "text")) return OK;
    bool object = !strcmp(type, "json_object");
    if (!object && strcmp(type, "json_schema"))
        return mistaken(m, 400, name,
                        "response_format is of type \"%.40s\", it should be text, json_object or json_schema", type);
    if (r->grammar)
        return mistaken(m, 400, name,
                        "an answer that may call tools cannot have a response_format as well; use tool_choice none");
    if (!object) return read_schema(r, f, m);
    r->grammar = json_pack("{s:s}", "type", "json_object");
    return r->grammar ? OK : no_memory(m);
}

status chat_request_read(chat_request *r, const json_t *body, call_memory *calls, mistake *m) {
    *r = (chat_request){.options = json_object()};
    if (!r->options) return no_memory(m);
    TRY(read_messages(r, body, calls, m));
    TRY(read_variables(body, r->options, m));
    TRY(read_continuation(body, r->options, m));
    TRY(read_thinking(body, r->options, m));
    TRY(read_tools(r, body, m));
    return read_format(r, body, m);
}

void chat_request_free(chat_request *r) {
    json_decref(r->messages);
    json_decref(r->options);
    json_decref(r->grammar);
    *r = (chat_request){0};
}

/* ---- the key of a message with calls ---- */

/* Texts are kept apart by their lengths. */
static uint64_t digest(uint64_t h, const char *p, size_t n) {
    return hash_bytes(hash_bytes(h, &n, sizeof n), p, n);
}

/* Clients write the same arguments in other ways. */
static uint64_t digest_arguments(uint64_t h, const json_t *arguments) {
    const char *text = json_string_value(arguments);
    size_t n = json_string_length(arguments);
    json_t *parsed = NULL;
    char *plain = text && json_parse(&parsed, text, n, "arguments", NULL) == OK
                      ? json_dumps(parsed, JSON_SORT_KEYS | JSON_COMPACT | JSON_ENCODE_ANY)
                      : NULL;
    h = plain ? digest(h, plain, strlen(plain)) : digest(h, text ? text : "", n);
    free(plain);
    json_decref(parsed);
    return h;
}

call_key *call_key_open(const json_t *calls, const json_t *content) {
    size_t n = json_array_size(calls);
    call_key *k = n && n < INT_MAX ? calloc(1, sizeof *k) : NULL;
    if (!k || !(k->texts = calloc(n + 1, sizeof *k->texts))) {
        free(k);
        return NULL;
    }
    uint64_t h =
        digest(HASH_BEGIN, json_is_string(content) ? json_string_value(content) : "", json_string_length(content));
    for (size_t i = 0; i < n; i++) {
        const json_t *call = json_array_get(calls, i), *f = json_object_get(call, "function");
        const json_t *name = json_object_get(f, "name");
        k->texts[k->n] = json_string_value(json_object_get(call, "id"));
        if (!k->texts[k->n++]) {
            call_key_free(k);
            return NULL;
        }
        h = digest(h, json_string_value(name), json_string_length(name));
        h = digest_arguments(h, json_object_get(f, "arguments"));
    }
    snprintf(k->digest, sizeof k->digest, "%016llx", (unsigned long long)h);
    k->texts[k->n++] = k->digest;
    return k;
}

void call_key_free(call_key *k) {
    if (k) free(k->texts);
    free(k);
}
