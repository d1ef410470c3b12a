#include "text/chat_encode.h"

#include <stdlib.h>
#include <string.h>
#include "text/chat_marks.h"
#include "text/chat_replay.h"

static status no_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

/* ---- ids of messages ---- */

size_t chat_reasoning_ids(const tokenizer *k, const int32_t *ids, size_t count) {
    static const char end[] = "</think>"; /* one token or several */
    size_t have = 0;
    for (size_t i = 0; i < count; i++) {
        size_t n;
        const char *bytes = tokenizer_bytes(k, ids[i], &n);
        for (size_t b = 0; bytes && b < n; b++) {
            have = bytes[b] == end[have] ? have + 1 : bytes[b] == end[0];
            if (!end[have]) return i + 1;
        }
    }
    return 0;
}

static status read_ids(const tokenizer *k, size_t i, const json_t *list, replayed *r, error *e) {
    size_t n = json_array_size(list);
    if (!json_is_array(list)) return fail(e, ERR_ARG, "messages[%zu].token_ids should be a list", i);
    if (!(r->ids = malloc((n + 1) * sizeof *r->ids))) return no_memory(e);
    for (; r->n < n; r->n++) {
        const json_t *id = json_array_get(list, r->n);
        json_int_t v = json_is_integer(id) ? json_integer_value(id) : -1;
        if (v < 0 || v >= tokenizer_vocab_size(k))
            return fail(e, ERR_ARG, "messages[%zu].token_ids[%zu] is no token of this model", i, r->n);
        r->ids[r->n] = (int32_t)v;
    }
    while (r->n && r->ids[r->n - 1] == tokenizer_eos(k)) r->n--;
    r->reasoning = chat_reasoning_ids(k, r->ids, r->n);
    return OK;
}

/* Takes the ids out of the messages. */
static status take_ids(const tokenizer *k, json_t *messages, replayed *r, error *e) {
    json_t *m;
    size_t i;
    json_array_foreach(messages, i, m) {
        const char *role = json_string_value(json_object_get(m, "role"));
        const json_t *list = json_object_get(m, "token_ids");
        if (list && !json_is_null(list) && !strcmp(role, "assistant")) TRY(read_ids(k, i, list, r + i, e));
        json_object_del(m, "token_ids");
    }
    return OK;
}

/* ---- ids of the prompt ---- */

static status add_ids(chat_prompt *out, const int32_t *ids, size_t n, error *e) {
    int32_t *more = realloc(out->ids, (out->count + n + 1) * sizeof *more);
    if (!more) return no_memory(e);
    out->ids = more;
    if (n) memcpy(more + out->count, ids, n * sizeof *more);
    out->count += n;
    return OK;
}

static status add_text(chat_prompt *out, const tokenizer *k, const char *p, size_t n, error *e) {
    int32_t *ids;
    size_t count;
    TRY(tokenizer_encode(k, p, n, TOK_PARSE_SPECIAL | TOK_MARKED, &ids, &count, e));
    status s = add_ids(out, ids, count, e);
    free(ids);
    return s;
}

static status encode(chat_prompt *out, const tokenizer *k, const str *prompt, const replayed *r, size_t messages,
                     error *e) {
    size_t at = 0, done = 0, begin, i;
    while (chat_next_place(prompt, messages, &at, &begin, &i)) {
        size_t bytes, n = begin - done;
        const char *first = r[i].from < r[i].n ? tokenizer_bytes(k, r[i].ids[r[i].from], &bytes) : NULL;
        bool spaces = first && bytes && *first == ' ' && n && prompt->p[begin - 1] == ' ';
        TRY(add_text(out, k, prompt->p + done, n - spaces, e)); /* V2 writes a space that its answers begin with */
        TRY(add_ids(out, r[i].ids + r[i].from, r[i].n - r[i].from, e));
        done = at;
    }
    return add_text(out, k, prompt->p + done, prompt->n - done, e);
}

/* r: room for one message more. */
static status encode_conversation(chat_prompt *out, const chat_style *s, chat_conversation *c, replayed *r, error *e) {
    str prompt = {0};
    size_t n = json_array_size(c->messages);
    bool begun, wanted;
    TRY(chat_thinking(c->options, true, &wanted, e));
    TRY(take_ids(s->tokenizer, c->messages, r, e));
    TRY(chat_mark(c, s->tokenizer, e));
    TRY(chat_add_tools(c, s, e));
    if (json_array_size(c->messages) > n) { /* by a system message at the head */
        memmove(r + 1, r, n * sizeof *r);
        r[0] = (replayed){0};
    }
    status st = chat_write(s, c, &prompt, &begun, e);
    if (st == OK && begun) out->thinking = ANSWER_THINKS;
    else if (st == OK && wanted && answer_may_think(prompt.p, prompt.n)) out->thinking = ANSWER_MAY_THINK;
    if (st == OK) st = chat_replay(s, c, r, &prompt, e);
    if (st == OK) st = encode(out, s->tokenizer, &prompt, r, json_array_size(c->messages), e);
    str_free(&prompt);
    return st;
}

status chat_encode(chat_prompt *out, const chat_style *s, const json_t *messages, const json_t *options, error *e) {
    chat_conversation c;
    *out = (chat_prompt){0};
    TRY(chat_prepare(&c, s, messages, options, e));
    size_t n = json_array_size(c.messages);
    replayed *r = calloc(n + 1, sizeof *r);
    status st = r ? encode_conversation(out, s, &c, r, e) : no_memory(e);
    for (size_t i = 0; r && i <= n; i++) free(r[i].ids);
    free(r);
    chat_conversation_free(&c);
    if (st == OK) return OK;
    free(out->ids);
    *out = (chat_prompt){0};
    return st;
}

status chat_text(str *out, const chat_style *s, const json_t *messages, const json_t *options, error *e) {
    chat_conversation c;
    bool thinking;
    TRY(chat_prepare(&c, s, messages, options, e));
    status st = chat_add_tools(&c, s, e);
    if (st == OK) st = chat_write(s, &c, out, &thinking, e);
    chat_conversation_free(&c);
    return st;
}
