#include "server/translate.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void translation_begin(translation *t) {
    *t = (translation){0};
    t->body = json_object();
    translation_put(t, t->body, "messages", json_array());
}

void translation_end(translation *t) {
    json_decref(t->body);
    json_decref(t->calls);
    str_free(&t->content);
    str_free(&t->reasoning);
    *t = (translation){0};
}

/* --- faults ------------------------------------------------------------------------------------------------------- */

void translation_fault(translation *t, int code, const char *key, const char *fmt, ...) {
    if (t->status) return;
    t->status = code;
    snprintf(t->param, sizeof t->param, "%s%s%s", t->place, key && *t->place ? "." : "", key ? key : "");
    int n = snprintf(t->text, sizeof t->text, "%s%s", t->param, *t->param ? ": " : "");
    va_list list;
    va_start(list, fmt);
    vsnprintf(t->text + n, sizeof t->text - (size_t)n, fmt, list);
    va_end(list);
}

static void memory_fault(translation *t) {
    translation_fault(t, 500, NULL, "memory is out");
}

size_t translation_enter(translation *t, const char *fmt, ...) {
    size_t outer = strlen(t->place);
    va_list list;
    va_start(list, fmt);
    vsnprintf(t->place + outer, sizeof t->place - outer, fmt, list);
    va_end(list);
    return outer;
}

void translation_leave(translation *t, size_t outer) {
    t->place[outer] = 0;
}

/* --- members ------------------------------------------------------------------------------------------------------ */

static const char *type_name(json_type type) {
    switch (type) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "a list";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    default: return "a number";
    }
}

const json_t *translation_may(translation *t, const json_t *o, const char *key, json_type type) {
    const json_t *v = json_object_get(o, key);
    if (!v || json_is_null(v)) return NULL;
    if (json_typeof(v) == type) return v;
    translation_fault(t, 400, key, "should be %s", type_name(type));
    return NULL;
}

const json_t *translation_need(translation *t, const json_t *o, const char *key, json_type type) {
    const json_t *v = translation_may(t, o, key, type);
    if (!v) translation_fault(t, 400, key, "is missing: it should be %s", type_name(type));
    return v;
}

const json_t *translation_number(translation *t, const json_t *o, const char *key, double min, double max) {
    const json_t *v = json_object_get(o, key);
    if (!v || json_is_null(v)) return NULL;
    double x = json_number_value(v);
    if (!json_is_number(v)) translation_fault(t, 400, key, "should be a number");
    else if (!(x >= min && x <= max)) translation_fault(t, 422, key, "is %g, outside %g..%g", x, min, max);
    return t->status ? NULL : v;
}

bool translation_flag(translation *t, const json_t *o, const char *key, bool fallback) {
    const json_t *v = json_object_get(o, key);
    if (!v || json_is_null(v)) return fallback;
    if (!json_is_boolean(v)) translation_fault(t, 400, key, "should be true or false");
    return json_is_true(v);
}

void translation_put(translation *t, json_t *object, const char *key, json_t *value) {
    if (json_object_set_new(object, key, value)) memory_fault(t);
}

void translation_copy(translation *t, const json_t *request, const char *const *keys) {
    for (; *keys; keys++) {
        json_t *v = json_object_get(request, *keys);
        if (v && !json_is_null(v)) translation_put(t, t->body, *keys, json_incref(v));
    }
}

/* --- turns -------------------------------------------------------------------------------------------------------- */

json_t *json_of(const str *s) {
    return s->failed ? NULL : json_stringn(s->p ? s->p : "", s->n);
}

static void add_message(translation *t, json_t *message) {
    if (!message || json_array_append_new(json_object_get(t->body, "messages"), message)) memory_fault(t);
}

static void close_turn(translation *t) {
    const char *role = t->role;
    t->role = NULL;
    if (role && !t->status) {
        json_t *m = json_pack("{s:s, s:o}", "role", role, "content",
                              t->calls && !t->content.n ? json_null() : json_of(&t->content));
        if (m && t->reasoning.n) translation_put(t, m, "reasoning_content", json_of(&t->reasoning));
        if (m && t->calls) translation_put(t, m, "tool_calls", json_incref(t->calls));
        add_message(t, m);
    }
    str_free(&t->content);
    str_free(&t->reasoning);
    json_decref(t->calls);
    t->calls = NULL;
}

static void open_turn(translation *t, const char *role) {
    if (t->role && !strcmp(t->role, role)) return;
    close_turn(t);
    t->role = role;
}

bool translation_finish(translation *t) {
    close_turn(t);
    return !t->status;
}

void translation_text(translation *t, const char *role, const char *p, size_t n) {
    const bool begun = json_array_size(json_object_get(t->body, "messages")) || (t->role && strcmp(t->role, "system"));
    const bool reminder = begun && !strcmp(role, "system");
    open_turn(t, reminder ? "user" : role);
    if (t->content.n && n && strcmp(role, "assistant")) str_puts(&t->content, "\n\n");
    if (reminder) str_puts(&t->content, "<system-reminder>\n");
    str_add(&t->content, p, n);
    if (reminder) str_puts(&t->content, "\n</system-reminder>");
}

void translation_reasoning(translation *t, const char *p, size_t n) {
    open_turn(t, "assistant");
    str_add(&t->reasoning, p, n);
}

void translation_call(translation *t, const json_t *id, const json_t *name, json_t *arguments) {
    open_turn(t, "assistant");
    if (!t->calls) t->calls = json_array();
    json_t *call = json_pack("{s:O, s:s, s:{s:O, s:o}}", "id", id, "type", "function", "function", "name", name,
                             "arguments", arguments);
    if (!call || json_array_append_new(t->calls, call)) memory_fault(t);
}

void translation_result(translation *t, const json_t *id, const str *text) {
    close_turn(t);
    add_message(t, json_pack("{s:s, s:O, s:o}", "role", "tool", "tool_call_id", id, "content", json_of(text)));
}

json_t *translation_tool(const json_t *name, const json_t *description, const json_t *parameters, bool strict) {
    json_t *f = json_pack("{s:O, s:O*, s:O*}", "name", name, "description", description, "parameters", parameters);
    if (f && strict) json_object_set_new(f, "strict", json_true());
    return f ? json_pack("{s:s, s:o}", "type", "function", "function", f) : NULL;
}
