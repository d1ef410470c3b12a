#include "text/chat_marks.h"

#include <stdio.h>
#include <string.h>
#include "text/template_text.h"

typedef struct marker {
    const tokenizer *t;
    error *e;
} marker;

static status mark_value(const marker *m, const json_t *v, bool thinks, json_t **out);

/* What an answer may hold as tokens: <think> and </think>, at which templates split answers, and what the model was
 * taught to write in them. What the template writes itself, and special tokens, are none of it. */
static bool keeps_in_answer(const tokenizer *t, const char *token, size_t n) {
    const text own = {token, n}, marks[] = {{"<think>", 7}, {"</think>", 8}};
    const char *template = tokenizer_chat_template(t);
    char name[64];
    size_t at;
    for (int i = 0; i < 2; i++)
        if (n == marks[i].n && !memcmp(token, marks[i].p, n)) return true;
    if (!template || n >= sizeof name || text_find((text){template, strlen(template)}, own, 0, &at)) return false;
    snprintf(name, sizeof name, "%.*s", (int)n, token);
    return !tokenizer_is_special(t, tokenizer_id(t, name));
}

static status mark_text(const marker *m, const char *p, size_t n, bool thinks, str *out) {
    return tokenizer_mark(m->t, p, n, thinks ? keeps_in_answer : NULL, out, m->e);
}

static status no_memory(const marker *m) {
    return fail(m->e, ERR_NOMEM, "memory is out");
}

static status mark_string(const marker *m, const json_t *v, bool thinks, json_t **out) {
    str s = {0};
    status st = mark_text(m, json_string_value(v), json_string_length(v), thinks, &s);
    if (st == OK && !(*out = json_stringn(s.p ? s.p : "", s.n))) st = no_memory(m);
    str_free(&s);
    return st;
}

static status mark_list(const marker *m, const json_t *list, json_t **out) {
    const json_t *one;
    size_t i;
    if (!(*out = json_array())) return no_memory(m);
    json_array_foreach(list, i, one) {
        json_t *marked = NULL;
        status st = mark_value(m, one, false, &marked);
        if (json_array_append_new(*out, marked) && st == OK) st = no_memory(m);
        TRY(st);
    }
    return OK;
}

static status mark_member(const marker *m, const char *key, size_t n, const json_t *v, bool thinks, json_t *object) {
    str s = {0};
    json_t *marked = NULL;
    status st = mark_text(m, key, n, false, &s);
    if (st == OK) st = mark_value(m, v, thinks, &marked);
    if (st == OK && json_object_setn(object, s.p ? s.p : "", s.n, marked)) st = no_memory(m);
    json_decref(marked);
    str_free(&s);
    return st;
}

/* `thinks`: an assistant's message, whose content keeps <think>. */
static status mark_object(const marker *m, const json_t *o, bool thinks, json_t **out) {
    if (!(*out = json_object())) return no_memory(m);
    json_t *from = (json_t *)(uintptr_t)o;
    for (void *i = json_object_iter(from); i; i = json_object_iter_next(from, i)) {
        const char *key = json_object_iter_key(i);
        bool keeps = thinks && !strcmp(key, "content");
        TRY(mark_member(m, key, json_object_iter_key_len(i), json_object_iter_value(i), keeps, *out));
    }
    return OK;
}

/* *out is the caller's, also on failure. */
static status mark_value(const marker *m, const json_t *v, bool thinks, json_t **out) {
    if (json_is_string(v)) return mark_string(m, v, thinks, out);
    if (json_is_array(v)) return mark_list(m, v, out);
    if (json_is_object(v)) return mark_object(m, v, false, out);
    *out = json_incref((json_t *)(uintptr_t)v);
    return OK;
}

static status mark_messages(const marker *m, const json_t *messages, json_t **out) {
    const json_t *one;
    size_t i;
    if (!(*out = json_array())) return no_memory(m);
    json_array_foreach(messages, i, one) {
        const json_t *role = json_object_get(one, "role");
        json_t *marked = NULL;
        status st = mark_object(m, one, !strcmp(json_string_value(role), "assistant"), &marked);
        if (st == OK && json_object_set(marked, "role", (json_t *)(uintptr_t)role)) st = no_memory(m);
        if (json_array_append_new(*out, marked) && st == OK) st = no_memory(m);
        TRY(st);
    }
    return OK;
}

/* The template's own tokens stay what they are; any other text under their names is text. */
static status keep_tokens(const marker *m, json_t *options) {
    const char *const own[][2] = {{"bos_token", tokenizer_bos_text(m->t)},
                                  {"eos_token", tokenizer_eos_text(m->t)},
                                  {"pad_token", tokenizer_pad_text(m->t)}};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (own[i][1] && json_object_get(options, own[i][0]) &&
            json_object_set_new(options, own[i][0], json_string(own[i][1])))
            return no_memory(m);
    return OK;
}

status chat_mark(chat_conversation *c, const tokenizer *t, error *e) {
    const marker m = {t, e};
    chat_conversation marked = {0};
    status s = mark_messages(&m, c->messages, &marked.messages);
    if (s == OK) s = mark_object(&m, c->options, false, &marked.options);
    if (s == OK) s = keep_tokens(&m, marked.options);
    if (s != OK) {
        chat_conversation_free(&marked);
        return s;
    }
    chat_conversation_free(c);
    *c = marked;
    return OK;
}
