#include "text/chat_messages.h"

#include <string.h>
#include "text/encoding_v32.h"
#include "text/template_text.h"

static status no_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

static bool contains(const str *s, const char *what) {
    size_t at;
    return text_find((text){s->p ? s->p : "", s->n}, (text){what, strlen(what)}, 0, &at);
}

void chat_conversation_free(chat_conversation *c) {
    json_decref(c->messages);
    json_decref(c->options);
    *c = (chat_conversation){0};
}

/* ---- what a template knows ---- */

typedef struct preparation {
    const chat_style *s;
    json_t *messages, *options;
    bool knows_developer;
    bool wants_objects, wants_null; /* arguments of tool calls; content beside them when there is none */
    bool drops_calls;               /* beside content, as R1's: then the calls matter more */
    error *e;
} preparation;

/* Whether a small conversation is rendered with this text in it, and without the other (NULL: any). A template that
 * refuses it does not know it. */
static status try_out(const preparation *p, const char *messages, const char *what, const char * not, bool *found) {
    json_t *m = NULL, *options = json_copy(p->options);
    str out = {0};
    error e;
    status s = options ? json_parse(&m, messages, strlen(messages), "messages", &e) : ERR_NOMEM;
    if (s == OK) {
        json_object_del(options, "tools");
        json_object_del(options, "prefix");
        json_object_del(options, "continue_final_message");
        s = chat_render(p->s->template, p->s->model_type, m, options, &out, &e);
    }
    *found = s == OK && contains(&out, what) && !(not &&contains(&out, not ));
    str_free(&out);
    json_decref(m);
    json_decref(options);
    return s == ERR_NOMEM ? no_memory(p->e) : OK;
}

#define QUESTION "{\"role\": \"user\", \"content\": \"q\"}"
static const char with_developer[] = "[{\"role\": \"developer\", \"content\": \"\\u0001d\\u0001\"}, " QUESTION "]";
#define WITH_CALL(content, arguments)                                                                                \
    "[" QUESTION ", {\"role\": \"assistant\", \"content\": " content ", \"tool_calls\": [{\"id\": \"0\", \"type\": " \
    "\"function\", \"function\": {\"name\": \"f\", \"arguments\": " arguments                                        \
    "}}]}, {\"role\": \"tool\", \"tool_call_id\": \"0\", \"content\": \"r\"}]"
#define AS_TEXT "\"{\\\"x\\\": \\\"v7\\\"}\""
#define AS_OBJECT "{\"x\": \"v7\"}"

/* In which form the template writes tool calls. */
static status learn_calls(preparation *p) {
    static const struct {
        const char *messages;
        bool null, objects;
    } ways[] = {{WITH_CALL("null", AS_TEXT), true, false},
                {WITH_CALL("null", AS_OBJECT), true, true},
                {WITH_CALL("\"\"", AS_TEXT), false, false},
                {WITH_CALL("\"\"", AS_OBJECT), false, true}};
    static const char *const beside[] = {WITH_CALL("\"c\"", AS_TEXT), WITH_CALL("\"c\"", AS_OBJECT)};
    bool found = false;
    for (size_t i = 0; !found && i < sizeof ways / sizeof *ways; i++) {
        TRY(try_out(p, ways[i].messages, "v7", "\\\"v7", &found)); /* not JSON in JSON */
        if (!found) continue;
        p->wants_null = ways[i].null;
        p->wants_objects = ways[i].objects;
    }
    if (!p->wants_null) return OK;
    TRY(try_out(p, beside[p->wants_objects], "v7", NULL, &found));
    p->drops_calls = !found;
    return OK;
}

static status learn_style(preparation *p) {
    bool developers = false, calls = false, v32 = !p->s->template;
    const json_t *m;
    size_t i;
    json_array_foreach(p->messages, i, m) {
        const char *role = json_string_value(json_object_get(m, "role"));
        if (role && !strcmp(role, "developer")) developers = true;
        if (json_object_get(m, "tool_calls")) calls = true;
    }
    p->wants_objects = p->wants_null = p->knows_developer = v32;
    if (v32) return OK;
    if (developers) TRY(try_out(p, with_developer, "\1d\1", NULL, &p->knows_developer));
    return calls ? learn_calls(p) : OK;
}

/* ---- content ---- */

/* A list of text parts as one text. */
static status join_parts(const preparation *p, size_t i, const json_t *parts, json_t **out) {
    str s = {0};
    const json_t *part;
    size_t k;
    json_array_foreach(parts, k, part) {
        const char *type = json_string_value(json_object_get(part, "type"));
        const json_t *words = json_is_string(part) ? part : json_object_get(part, "text");
        bool known = json_is_string(part) ||
                     (type && (!strcmp(type, "text") || !strcmp(type, "input_text") || !strcmp(type, "output_text")));
        if (!known || !json_is_string(words)) {
            str_free(&s);
            return fail(p->e, ERR_ARG,
                        "messages[%zu].content[%zu] is of type '%.40s'; this model reads text parts only", i, k,
                        type ? type : "");
        }
        if (k) str_putc(&s, '\n');
        str_add(&s, json_string_value(words), json_string_length(words));
    }
    *out = s.failed ? NULL : json_stringn(s.p ? s.p : "", s.n);
    str_free(&s);
    return *out ? OK : no_memory(p->e);
}

static status prepare_content(const preparation *p, size_t i, json_t *m, const char *role) {
    json_t *content = json_object_get(m, "content"), *joined = NULL;
    bool assistant = !strcmp(role, "assistant"), calls = json_object_get(m, "tool_calls") != NULL;
    if (json_is_array(content)) {
        TRY(join_parts(p, i, content, &joined));
        if (json_object_set_new(m, "content", joined)) return no_memory(p->e);
        content = joined;
    }
    bool none = !content || json_is_null(content);
    if (!none && !json_is_string(content))
        return fail(p->e, ERR_ARG, "messages[%zu].content should be a string or a list of parts", i);
    if (none && (!strcmp(role, "user") || !strcmp(role, "tool")))
        return fail(p->e, ERR_ARG, "messages[%zu].content is missing", i);
    bool empty = none || !json_string_length(content) || (assistant && calls && p->drops_calls);
    if (!empty) return OK;
    return json_object_set_new(m, "content", assistant && calls && p->wants_null ? json_null() : json_string(""))
               ? no_memory(p->e)
               : OK;
}

/* ---- tool calls ---- */

/* Arguments as the template wants them. A text that is no JSON object stays, or is an object's only member. */
static status prepare_arguments(const preparation *p, size_t i, size_t k, json_t *function) {
    json_t *a = json_object_get(function, "arguments"), *as = NULL;
    bool none = !a || json_is_null(a) || (json_is_string(a) && !json_string_length(a));
    if (none) as = p->wants_objects ? json_object() : json_string("{}");
    else if (json_is_string(a) && p->wants_objects) {
        TRY(text_read_json(&as, (text){json_string_value(a), json_string_length(a)}, 0, p->e));
        if (!json_is_object(as)) {
            json_decref(as);
            as = json_pack("{s:O}", "arguments", a);
        }
    } else if (json_is_object(a) && !p->wants_objects) {
        str s = {0};
        text_print_json_value(&s, a);
        as = s.failed ? NULL : json_stringn(s.p, s.n);
        str_free(&s);
    } else if (json_is_string(a) || json_is_object(a)) return OK;
    else return fail(p->e, ERR_ARG, "messages[%zu].tool_calls[%zu].function.arguments should be a JSON text", i, k);
    return !as || json_object_set_new(function, "arguments", as) ? no_memory(p->e) : OK;
}

static status prepare_calls(const preparation *p, size_t i, json_t *m) {
    const json_t *calls = json_object_get(m, "tool_calls");
    json_t *call;
    size_t k;
    if (calls && !json_is_null(calls) && !json_is_array(calls))
        return fail(p->e, ERR_ARG, "messages[%zu].tool_calls should be a list", i);
    if (!json_array_size(calls)) json_object_del(m, "tool_calls");
    else json_array_foreach(calls, k, call) {
            json_t *function = json_object_get(call, "function");
            if (!json_is_string(json_object_get(function, "name")))
                return fail(p->e, ERR_ARG, "messages[%zu].tool_calls[%zu] has no function.name", i, k);
            if (!json_is_string(json_object_get(call, "type")) &&
                json_object_set_new(call, "type", json_string("function")))
                return no_memory(p->e);
            TRY(prepare_arguments(p, i, k, function));
        }
    return OK;
}

/* ---- messages ---- */

static status prepare_reasoning(const preparation *p, size_t i, json_t *m) {
    json_t *r = json_object_get(m, "reasoning_content");
    if (!r && json_is_string(r = json_object_get(m, "reasoning")) && json_object_set(m, "reasoning_content", r))
        return no_memory(p->e);
    r = json_object_get(m, "reasoning_content");
    if (r && !json_is_null(r) && !json_is_string(r))
        return fail(p->e, ERR_ARG, "messages[%zu].reasoning_content should be a string", i);
    if (!p->s->template && !json_is_string(r) && json_object_set_new(m, "reasoning_content", json_string("")))
        return no_memory(p->e); /* V3.2's encoding wants one */
    return OK;
}

static status prepare_message(const preparation *p, size_t i, json_t *m) {
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool", "function"};
    const char *role = json_string_value(json_object_get(m, "role")), *as = NULL;
    if (!role) return fail(p->e, ERR_ARG, "messages[%zu] should be an object with a \"role\"", i);
    for (size_t k = 0; k < sizeof roles / sizeof *roles; k++)
        if (!strcmp(role, roles[k])) as = roles[k];
    if (!as)
        return fail(p->e, ERR_ARG,
                    "messages[%zu].role is '%.40s'; it should be system, developer, user, assistant or tool", i, role);
    if (!strcmp(as, "function")) as = "tool";
    if (!strcmp(as, "developer") && !p->knows_developer) as = "system";
    if (json_object_set_new(m, "role", json_string(as))) return no_memory(p->e);
    json_object_del(m, ENCODING_V32_WRITTEN); /* ours alone */
    if (!strcmp(as, "assistant")) {
        TRY(prepare_calls(p, i, m));
        TRY(prepare_reasoning(p, i, m));
    } else json_object_del(m, "tool_calls");
    return prepare_content(p, i, m, as);
}

/* ---- options ---- */

static status prepare_tools(const preparation *p) {
    const json_t *tools = json_object_get(p->options, "tools"), *tool;
    size_t i = 0;
    if (tools && !json_is_null(tools) && !json_is_array(tools)) return fail(p->e, ERR_ARG, "tools should be a list");
    json_array_foreach(tools, i, tool) {
        if (!json_is_string(json_object_get(json_object_get(tool, "function"), "name")))
            return fail(p->e, ERR_ARG, "tools[%zu] has no function.name", i);
    }
    if (!i) json_object_del(p->options, "tools");
    return OK;
}

static bool is_given(const json_t *options, const char *key) {
    const json_t *v = json_object_get(options, key);
    return v && !json_is_null(v);
}

/* The switch under all of its names. DeepSeek's API has an object: {"type": "enabled"}. */
static status prepare_thinking(const preparation *p, bool reasons) {
    json_t *o = p->options, *type = json_object_get(json_object_get(o, "thinking"), "type");
    const char *name = json_string_value(type);
    if (name && json_object_set_new(o, "thinking", json_boolean(!strcmp(name, "enabled")))) return no_memory(p->e);
    bool said = is_given(o, "thinking") || is_given(o, "enable_thinking") || is_given(o, "thinking_mode"), on;
    TRY(chat_thinking(o, reasons, &on, p->e));
    if (!said && !reasons) return OK;
    json_object_del(o, "thinking_mode");
    if (json_object_set_new(o, "thinking", json_boolean(on)) ||
        json_object_set_new(o, "enable_thinking", json_boolean(on)))
        return no_memory(p->e);
    return OK;
}

static status prepare_options(const preparation *p) {
    json_t *o = p->options, *last = json_array_get(p->messages, json_array_size(p->messages) - 1);
    bool prefix, on;
    TRY(prepare_tools(p));
    TRY(json_get_bool(last, "prefix", false, &prefix, p->e));
    TRY(json_get_bool(o, "prefix", prefix, &prefix, p->e));
    TRY(json_get_bool(o, "continue_final_message", prefix, &on, p->e));
    on = on || prefix;
    json_object_del(o, "prefix");
    if (on && (json_object_set_new(o, "continue_final_message", json_true()) ||
               json_object_set_new(o, "add_generation_prompt", json_false())))
        return no_memory(p->e);
    return prepare_thinking(p, on && json_string_length(json_object_get(last, "reasoning_content")));
}

static status prepare_all(preparation *p) {
    json_t *m;
    size_t i;
    if (!json_array_size(p->messages)) return fail(p->e, ERR_ARG, "messages should be a list that is not empty");
    TRY(learn_style(p));
    json_array_foreach(p->messages, i, m) TRY(prepare_message(p, i, m));
    return prepare_options(p);
}

status chat_prepare(chat_conversation *out, const chat_style *s, const json_t *messages, const json_t *options,
                    error *e) {
    preparation p = {.s = s,
                     .messages = json_deep_copy(messages),
                     .options = options ? json_deep_copy(options) : json_object(),
                     .e = e};
    *out = (chat_conversation){p.messages, p.options};
    status st = p.messages && p.options ? prepare_all(&p) : no_memory(e);
    if (st != OK) chat_conversation_free(out);
    return st;
}

/* ---- writing ---- */

/* The prompt for an answer to all but the last message, and behind it the last one, which begins with reasoning. */
static status continue_reasoning(const chat_style *s, const chat_conversation *c, const json_t *last, str *out,
                                 bool *thinking, error *e) {
    json_t *before = json_copy(c->messages), *options = json_copy(c->options);
    const json_t *reasoning = json_object_get(last, "reasoning_content"), *content = json_object_get(last, "content");
    bool bad = !before || !options || json_array_remove(before, json_array_size(before) - 1) ||
               json_object_del(options, "continue_final_message") ||
               json_object_set_new(options, "add_generation_prompt", json_true());
    status st = bad ? no_memory(e) : chat_render(s->template, s->model_type, before, options, out, e);
    json_decref(before);
    json_decref(options);
    if (st != OK) return st;
    bool opened = answer_starts_thinking(out->p, out->n);
    *thinking = opened && !json_string_length(content);
    if (opened) str_add(out, json_string_value(reasoning), json_string_length(reasoning));
    if (opened && !*thinking) str_puts(out, "</think>");
    str_add(out, json_string_value(content), json_string_length(content));
    return str_check(out, e);
}

/* Whether what stands before the continued content opens the reasoning, which the content does not close. */
static bool continues_thinking(const str *out, const json_t *last) {
    const json_t *j = json_object_get(last, "content");
    text content = {json_string_value(j), json_string_length(j)}, end = {"</think>", 8};
    size_t at;
    if (text_find(content, end, 0, &at)) return false;
    content = text_strip(content, NULL, true, true);
    text before = text_strip((text){out->p, out->n}, NULL, false, true);
    return before.n >= content.n && answer_starts_thinking(before.p, before.n - content.n);
}

status chat_write(const chat_style *s, const chat_conversation *c, str *out, bool *thinking, error *e) {
    const json_t *last = json_array_get(c->messages, json_array_size(c->messages) - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    bool on = json_is_true(json_object_get(c->options, "continue_final_message"));
    if (on && role && !strcmp(role, "assistant") && json_array_size(c->messages) > 1 &&
        json_string_length(json_object_get(last, "reasoning_content")))
        return continue_reasoning(s, c, last, out, thinking, e);
    TRY(chat_render(s->template, s->model_type, c->messages, c->options, out, e));
    *thinking = on ? continues_thinking(out, last) : answer_starts_thinking(out->p, out->n);
    return OK;
}
