#include "server/logprobs.h"

#include <stdio.h>
#include <string.h>
#include "base/str.h"

static const char *token_bytes(const hadal_tokenizer *t, int32_t id, size_t *n) {
    *n = 0;
    const char *p = hadal_token_bytes(t, id, n);
    return p ? p : "";
}

json_t *token_name(const hadal_tokenizer *t, int32_t id) {
    size_t n;
    const char *p = token_bytes(t, id, &n);
    json_t *name = json_stringn(p, n);
    if (name) return name;
    str s = {0};
    str_puts(&s, "bytes:");
    for (size_t i = 0; i < n; i++) str_addf(&s, "\\x%02x", (unsigned char)p[i]);
    name = s.failed ? NULL : json_stringn(s.p, s.n);
    str_free(&s);
    return name;
}

/* JSON has no infinity; the OpenAI API writes -9999. */
static json_t *number(float logprob) {
    return json_real(logprob > -9999 ? logprob : -9999);
}

static json_t *byte_list(const hadal_tokenizer *t, int32_t id) {
    size_t n;
    const char *p = token_bytes(t, id, &n);
    json_t *list = json_array();
    for (size_t i = 0; list && i < n; i++) json_array_append_new(list, json_integer((unsigned char)p[i]));
    return list;
}

static json_t *one(const hadal_tokenizer *t, int32_t id, float logprob) {
    return json_pack("{s:o,s:o,s:o}", "token", token_name(t, id), "logprob", number(logprob), "bytes",
                     byte_list(t, id));
}

json_t *logprob_entry(const hadal_tokenizer *t, const hadal_token *token) {
    json_t *entry = one(t, token->id, token->logprob), *top = json_array();
    for (int i = 0; top && i < token->n_top; i++)
        json_array_append_new(top, one(t, token->top_ids[i], token->top_logprobs[i]));
    if (entry && json_object_set_new(entry, "top_logprobs", top) == 0) return entry;
    json_decref(entry);
    return NULL;
}

/* ---- completions ---- */

/* Characters that begin in these bytes. What is special has none: it is not in the text. */
static int64_t characters(const hadal_tokenizer *t, int32_t id) {
    size_t n;
    int64_t count = 0;
    const char *p = token_bytes(t, id, &n);
    if (hadal_token_is_special(t, id)) return 0;
    for (size_t i = 0; i < n; i++) count += ((unsigned char)p[i] & 0xC0) != 0x80;
    return count;
}

/* Of tokens with the same text the likelier one stays. */
static bool add_top(json_t *to, const hadal_tokenizer *t, int32_t id, float logprob) {
    json_t *name = token_name(t, id), *have = json_object_get(to, json_string_value(name));
    bool ok = name && (have ? json_real_value(have) >= logprob : false);
    if (name && !ok) ok = json_object_set_new(to, json_string_value(name), number(logprob)) == 0;
    json_decref(name);
    return ok;
}

/* The most likely tokens, and the chosen one if it is none of them. */
static json_t *top_of(const hadal_tokenizer *t, const hadal_token *token) {
    json_t *top = json_object();
    bool ok = top != NULL;
    for (int i = 0; ok && i < token->n_top; i++) ok = add_top(top, t, token->top_ids[i], token->top_logprobs[i]);
    if (ok && add_top(top, t, token->id, token->logprob)) return top;
    json_decref(top);
    return NULL;
}

static bool open_lists(token_lists *l) {
    if (l->tokens) return true;
    l->tokens = json_array();
    l->logprobs = json_array();
    l->top = json_array();
    l->offsets = json_array();
    return l->tokens && l->logprobs && l->top && l->offsets;
}

void token_lists_add(token_lists *l, const hadal_tokenizer *t, int32_t id, const hadal_token *known) {
    l->failed |= !open_lists(l) || json_array_append_new(l->tokens, token_name(t, id)) ||
                 json_array_append_new(l->logprobs, known ? number(known->logprob) : json_null()) ||
                 json_array_append_new(l->top, known ? top_of(t, known) : json_null()) ||
                 json_array_append_new(l->offsets, json_integer(l->offset));
    l->offset += characters(t, id);
}

void token_lists_copy(token_lists *l, const token_lists *from) {
    *l = (token_lists){.offset = from->offset, .failed = from->failed};
    if (!from->tokens || l->failed) return;
    l->tokens = json_copy(from->tokens);
    l->logprobs = json_copy(from->logprobs);
    l->top = json_copy(from->top);
    l->offsets = json_copy(from->offsets);
    l->failed = !l->tokens || !l->logprobs || !l->top || !l->offsets;
}

json_t *token_lists_take(token_lists *l) {
    if (l->failed) return NULL;
    if (!l->tokens) return json_null();
    json_t *all = json_pack("{s:o,s:o,s:o,s:o}", "tokens", l->tokens, "token_logprobs", l->logprobs, "top_logprobs",
                            l->top, "text_offset", l->offsets);
    l->tokens = l->logprobs = l->top = l->offsets = NULL;
    return all;
}

void token_lists_free(token_lists *l) {
    json_decref(l->tokens);
    json_decref(l->logprobs);
    json_decref(l->top);
    json_decref(l->offsets);
    *l = (token_lists){0};
}
