#include "text/chat.h"

#include <string.h>
#include "text/encoding_v32.h"
#include "text/template_text.h"

/* Stands behind the content of the message that is continued, to find where that content ended up; its space tells
 * whether the template trims contents. */
static const char continue_mark[] = "\1continue here\1 ";

static status no_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

status chat_add_tokens(json_t *options, const tokenizer *t, error *e) {
    const char *const tokens[][2] = {{"bos_token", t ? tokenizer_bos_text(t) : NULL},
                                     {"eos_token", t ? tokenizer_eos_text(t) : NULL},
                                     {"pad_token", t ? tokenizer_pad_text(t) : NULL}};
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++)
        if (tokens[i][1] && !json_object_get(options, tokens[i][0]) &&
            json_object_set_new(options, tokens[i][0], json_string(tokens[i][1])))
            return no_memory(e);
    return OK;
}

status chat_thinking(const json_t *options, bool fallback, bool *out, error *e) {
    const char *mode;
    TRY(json_get_bool(options, "enable_thinking", fallback, &fallback, e));
    TRY(json_get_bool(options, "thinking", fallback, out, e));
    TRY(json_get_string(options, "thinking_mode", NULL, &mode, e));
    if (!mode) return OK;
    *out = !strcmp(mode, "thinking");
    if (!*out && strcmp(mode, "chat"))
        return fail(e, ERR_ARG, "thinking_mode is '%s', should be thinking or chat", mode);
    return OK;
}

static status continues(const json_t *messages, const json_t *options, bool *out, error *e) {
    bool prefix;
    TRY(json_get_bool(options, "prefix", false, &prefix, e));
    TRY(json_get_bool(options, "continue_final_message", prefix, out, e));
    if (!*out) return OK;
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    if (!role || strcmp(role, "assistant"))
        return fail(e, ERR_ARG, "only an assistant message can be continued; the last one is of role '%s'",
                    role ? role : "");
    if (!json_is_string(json_object_get(last, "content")))
        return fail(e, ERR_ARG, "the message that is to be continued has no content");
    return OK;
}

/* ---- with a template ---- */

/* The messages with the mark behind the last content. NULL: memory is out. */
static json_t *marked(const json_t *messages) {
    size_t last = json_array_size(messages) - 1;
    json_t *copy = json_copy((json_t *)(uintptr_t)messages), *m = json_copy(json_array_get(messages, last));
    const json_t *content = json_object_get(m, "content");
    str s = {0};
    str_add(&s, json_string_value(content), json_string_length(content));
    str_puts(&s, continue_mark);
    bool bad = !copy || !m || s.failed || json_object_set_new(m, "content", json_stringn(s.p, s.n));
    str_free(&s);
    if (!bad) bad = json_array_set(copy, last, m) != 0;
    json_decref(m);
    if (!bad) return copy;
    json_decref(copy);
    return NULL;
}

/* Cuts the prompt where the mark stands. */
static status cut_at_mark(str *s, error *e) {
    text mark = {continue_mark, sizeof continue_mark - 1}, whole = {s->p, s->n};
    size_t at = 0, from = 0, found = SIZE_MAX;
    text bare = {mark.p, mark.n - 1};
    while (text_find(whole, bare, from, &at)) {
        found = at;
        from = at + bare.n;
    }
    if (found == SIZE_MAX)
        return fail(e, ERR_UNSUPPORTED, "the chat template does not print the message that is to be continued");
    text before = {s->p, found};
    bool trimmed = found + mark.n > s->n || s->p[found + mark.n - 1] != ' ';
    if (trimmed) before = text_strip(before, NULL, false, true);
    s->n = before.n;
    s->p[s->n] = 0;
    return OK;
}

static status copy_switch(json_t *v, const char *from, const char *to, error *e) {
    json_t *j = json_object_get(v, from);
    if (!j || json_object_get(v, to)) return OK;
    return json_object_set(v, to, j) ? no_memory(e) : OK;
}

static status with_template(const chat_template *t, json_t *v, const json_t *messages, bool unfinished, str *out,
                            error *e) {
    json_t *m = unfinished ? marked(messages) : json_incref((json_t *)(uintptr_t)messages);
    if (!m || json_object_set_new(v, "messages", m)) return no_memory(e);
    if (unfinished && json_object_set_new(v, "add_generation_prompt", json_false())) return no_memory(e);
    TRY(copy_switch(v, "thinking", "enable_thinking", e));
    TRY(copy_switch(v, "enable_thinking", "thinking", e));
    str s = {0};
    status st = template_render(t, v, &s, e);
    if (st == OK && unfinished) st = cut_at_mark(&s, e);
    if (st == OK) str_add(out, s.p, s.n);
    str_free(&s);
    return st == OK ? str_check(out, e) : st;
}

/* ---- without ---- */

/* The messages with tools and response format in a system message at their head. NULL: memory is out. */
static json_t *with_tools(const json_t *messages, json_t *tools, json_t *format) {
    json_t *all = json_copy((json_t *)(uintptr_t)messages), *first = json_array_get(messages, 0);
    if (!json_array_size(tools) && !json_is_object(format)) return all;
    const char *role = json_string_value(json_object_get(first, "role"));
    bool system = role && !strcmp(role, "system");
    json_t *m = system ? json_copy(first) : json_pack("{s:s,s:s}", "role", "system", "content", "");
    bool bad = !all || !m || (json_array_size(tools) && json_object_set(m, "tools", tools)) ||
               (json_is_object(format) && json_object_set(m, "response_format", format));
    if (!bad) bad = system ? json_array_set(all, 0, m) : json_array_insert(all, 0, m);
    json_decref(m);
    if (!bad) return all;
    json_decref(all);
    return NULL;
}

static status with_v32(const json_t *messages, const json_t *options, bool unfinished, str *out, error *e) {
    encoding_v32 how = {.continue_final = unfinished};
    TRY(chat_thinking(options, false, &how.thinking, e));
    TRY(json_get_bool(options, "drop_thinking", true, &how.drop_thinking, e));
    json_t *m = with_tools(messages, json_object_get(options, "tools"), json_object_get(options, "response_format"));
    if (!m) return no_memory(e);
    status st = encode_v32(m, how, out, e);
    json_decref(m);
    return st;
}

status chat_render(const chat_template *t, const char *model_type, const json_t *messages, const json_t *options,
                   str *out, error *e) {
    bool unfinished;
    if (!json_array_size(messages)) return fail(e, ERR_ARG, "messages should be a list that is not empty");
    TRY(continues(messages, options, &unfinished, e));
    if (t) {
        json_t *v = options ? json_copy((json_t *)(uintptr_t)options) : json_object();
        if (!v) return no_memory(e);
        status st = with_template(t, v, messages, unfinished, out, e);
        json_decref(v);
        return st;
    }
    if (model_type && !strcmp(model_type, "deepseek_v32")) return with_v32(messages, options, unfinished, out, e);
    return fail(e, ERR_UNSUPPORTED, "the checkpoint (%s) has no chat template; give one, or send a finished prompt",
                model_type ? model_type : "of unknown type");
}
