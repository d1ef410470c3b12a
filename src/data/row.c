/* Layouts, told by their keys:
 *   {"text": "..."}                                   a text; ends with eos; every token counts
 *   {"messages": [...], "tools": [...]}               a conversation; "thinking" (true or false) and the members of
 *                                                     "chat_template_kwargs" are variables of the template, too
 *   {"prompt": [...], "completion": [...]}            the same in two lists; only answers of the second count
 *   {"prompt": "...", "completion": "..."}            both texts as they are, then eos; the second and eos count
 *   {"input": "...", "output": "..."}                 the same under other names
 * Texts between the parts of a conversation are tokenized each for itself, so that a prompt has the tokens that it has
 * when the model is asked. */
#include "data/row.h"

#include <stdlib.h>
#include <string.h>
#include "base/json.h"

static status no_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

bool token_list_reserve(token_list *l, size_t n) {
    if (n <= l->cap - l->n) return true;
    size_t cap = l->cap ? l->cap : 1024;
    while (cap - l->n < n) cap += cap / 2;
    uint32_t *p = realloc(l->p, cap * sizeof *p);
    if (!p) return false;
    l->p = p;
    l->cap = cap;
    return true;
}

status row_encoder_open(row_encoder *r, const data_options *o, error *e) {
    const char *source = o->chat_template;
    *r = (row_encoder){.text_field = o->text_field ? o->text_field : "text",
                       .tokenizer = o->tokenizer,
                       .eos = o->eos,
                       .loss = o->loss,
                       .chat = {.model_type = o->model_type, .tokenizer = o->tokenizer}};
    if (o->format && !strcmp(o->format, "text")) r->format = ROW_TEXT;
    else if (o->format && !strcmp(o->format, "chat")) r->format = ROW_CHAT;
    else if (o->format && strcmp(o->format, "auto"))
        return fail(e, ERR_ARG, "the data format \"%s\" is not known: use auto, bin, text, chat or synthetic",
                    o->format);
    if (!source && o->tokenizer) source = tokenizer_chat_template(o->tokenizer);
    r->has_chat = !source && o->model_type && !strcmp(o->model_type, "deepseek_v32");
    if (!source) return OK;
    error why;
    status s = template_open(&r->owned, source, strlen(source), &why);
    if (s == ERR_NOMEM) return no_memory(e);
    if (s == OK) r->has_chat = true;
    else {
        memcpy(r->template_error, why.text, sizeof r->template_error - 1);
        r->template_error[sizeof r->template_error - 1] = 0;
    }
    r->chat.template = r->owned;
    return OK;
}

void row_encoder_close(row_encoder *r) {
    template_close(r->owned);
    *r = (row_encoder){0};
}

/* ---- tokens ---- */

static status add_tokens(const row_encoder *r, const char *p, size_t n, unsigned flags, bool counts, token_list *out,
                         error *e) {
    int32_t *ids;
    size_t count;
    if (!n) return OK;
    TRY(tokenizer_encode(r->tokenizer, p, n, flags, &ids, &count, e));
    bool room = token_list_reserve(out, count);
    for (size_t i = 0; room && i < count; i++) out->p[out->n++] = (uint32_t)ids[i] | (counts ? 0 : TOKEN_SILENT);
    free(ids);
    return room ? OK : no_memory(e);
}

static status add_eos(const row_encoder *r, token_list *out, error *e) {
    if (r->eos < 0) return OK;
    if (!token_list_reserve(out, 1)) return no_memory(e);
    out->p[out->n++] = (uint32_t)r->eos;
    return OK;
}

status row_encode_text(const row_encoder *r, const char *p, size_t n, token_list *out, error *e) {
    size_t first = out->n;
    TRY(add_tokens(r, p, n, r->text_flags, true, out, e));
    bool ended = out->n > first && out->p[out->n - 1] == (uint32_t)r->eos; /* by TOK_ADD_SPECIAL */
    return ended ? OK : add_eos(r, out, e);
}

/* ---- conversations ---- */

/* White space that a template writes behind the token that ends a turn is nothing the model writes. */
static void silence_space(const row_encoder *r, token_list *out, size_t first) {
    size_t n = out->n, k;
    for (; n > first; n--) {
        int32_t id = (int32_t)out->p[n - 1];
        const char *p = tokenizer_bytes(r->tokenizer, id, &k);
        if (tokenizer_is_special(r->tokenizer, id) || !p) break;
        size_t space = 0;
        while (space < k && strchr(" \t\r\n", p[space]) && p[space]) space++;
        if (space < k) break;
    }
    if (n == first || !tokenizer_is_special(r->tokenizer, (int32_t)out->p[n - 1])) return;
    for (; n < out->n; n++) out->p[n] |= TOKEN_SILENT;
}

static status add_conversation(const row_encoder *r, const conversation *c, token_list *out, error *e) {
    const char *p = c->text.p;
    size_t at = 0;
    if (r->loss == LOSS_ALL) return add_tokens(r, p, c->text.n, TOK_PARSE_SPECIAL, true, out, e);
    for (size_t i = 0; i < c->n; i++) {
        const span *s = &c->answers[i];
        bool counts = r->loss == LOSS_ASSISTANT || i + 1 == c->n;
        TRY(add_tokens(r, p + at, s->begin - at, TOK_PARSE_SPECIAL, false, out, e));
        size_t first = out->n;
        TRY(add_tokens(r, p + s->begin, s->end - s->begin, TOK_PARSE_SPECIAL, counts, out, e));
        if (counts) silence_space(r, out, first);
        at = s->end;
    }
    return add_tokens(r, p + at, c->text.n - at, TOK_PARSE_SPECIAL, false, out, e);
}

static status check_chat(const row_encoder *r, error *e) {
    if (r->has_chat) return OK;
    if (*r->template_error)
        return fail(e, ERR_UNSUPPORTED, "a conversation, but the chat template cannot be used: %s", r->template_error);
    return fail(e, ERR_UNSUPPORTED,
                "a conversation, but the tokenizer has no chat template: set data.chat_template or take the tokenizer "
                "of a chat model");
}

/* Others of its members mean something to others. */
status row_chat_options(const json_t *row, json_t **out, error *e) {
    const json_t *more = json_object_get(row, "chat_template_kwargs");
    json_t *tools = json_object_get(row, "tools"), *thinking = json_object_get(row, "thinking");
    if (more && !json_is_null(more) && !json_is_object(more))
        return fail(e, ERR_FORMAT, "\"chat_template_kwargs\" should be an object");
    if (tools && !json_is_null(tools) && !json_is_array(tools))
        return fail(e, ERR_FORMAT, "\"tools\" should be a list");
    *out = json_is_object(more) ? json_copy((json_t *)(uintptr_t)more) : json_object();
    bool bad = !*out || (json_is_array(tools) && json_object_set(*out, "tools", tools)) ||
               (json_is_boolean(thinking) && json_object_set(*out, "thinking", thinking));
    return bad ? no_memory(e) : OK;
}

/* `messages` are the row's, `first` the number of those that are prompt only. */
static status encode_chat(const row_encoder *r, const json_t *row, const json_t *messages, size_t first,
                          token_list *out, unsigned *seen, error *e) {
    conversation c = {0};
    json_t *options = NULL;
    TRY(check_chat(r, e));
    status s = row_chat_options(row, &options, e);
    if (s == OK) s = conversation_render(&c, &r->chat, messages, options, first, r->loss != LOSS_ALL, e);
    if (s == OK && r->loss != LOSS_ALL && !c.n) s = fail(e, ERR_FORMAT, "no message of the assistant");
    if (s == OK) s = add_conversation(r, &c, out, e);
    *seen = c.seen;
    conversation_free(&c);
    json_decref(options);
    return s;
}

static status encode_lists(const row_encoder *r, const json_t *row, token_list *out, unsigned *seen, error *e) {
    json_t *prompt = json_object_get(row, "prompt"), *all = json_copy(prompt);
    status s = !all || json_array_extend(all, json_object_get(row, "completion")) ? no_memory(e) : OK;
    if (s == OK) s = encode_chat(r, row, all, json_array_size(prompt), out, seen, e);
    json_decref(all);
    return s;
}

static status encode_strings(const row_encoder *r, const json_t *prompt, const json_t *completion, token_list *out,
                             error *e) {
    TRY(add_tokens(r, json_string_value(prompt), json_string_length(prompt), TOK_PARSE_SPECIAL, r->loss == LOSS_ALL,
                   out, e));
    TRY(add_tokens(r, json_string_value(completion), json_string_length(completion), TOK_PARSE_SPECIAL, true, out, e));
    return add_eos(r, out, e);
}

static status encode_pair(const row_encoder *r, const json_t *row, const char *first, const char *second,
                          token_list *out, unsigned *seen, error *e) {
    const json_t *a = json_object_get(row, first), *b = json_object_get(row, second);
    if (json_is_string(a) && json_is_string(b)) return encode_strings(r, a, b, out, e);
    if (json_is_array(a) && json_is_array(b) && !strcmp(first, "prompt")) return encode_lists(r, row, out, seen, e);
    return fail(e, ERR_FORMAT, "\"%s\" and \"%s\" should be two strings%s", first, second,
                strcmp(first, "prompt") ? "" : " or two lists of messages");
}

/* ---- rows ---- */

static status unknown_layout(const row_encoder *r, const json_t *row, error *e) {
    if (json_object_get(row, "chosen"))
        return fail(e, ERR_UNSUPPORTED,
                    "a preference row (\"chosen\", \"rejected\"), which is nothing to train on here");
    if (json_object_get(row, "reward_model") || (json_object_get(row, "prompt") && !json_object_get(row, "completion")))
        return fail(e, ERR_UNSUPPORTED,
                    "a row with a prompt and no answer (\"completion\"), as for reinforcement learning; nothing to "
                    "train on here");
    str keys = {0};
    const char *key;
    json_t *v, *o = (json_t *)(uintptr_t)row;
    json_object_foreach(o, key, v) if (keys.n < 100) str_addf(&keys, "%s\"%.40s\"", keys.n ? ", " : "", key);
    if (r->format == ROW_TEXT) fail(e, ERR_FORMAT, "no \"%s\": it has %s", r->text_field, keys.n ? keys.p : "nothing");
    else
        fail(e, ERR_FORMAT,
             "none of the known layouts (\"%s\"; \"messages\"; \"prompt\" and \"completion\"; \"input\" and "
             "\"output\"): it has %s",
             r->text_field, keys.n ? keys.p : "nothing");
    str_free(&keys);
    return ERR_FORMAT;
}

static status encode_row(const row_encoder *r, const json_t *row, token_list *out, unsigned *seen, error *e) {
    const json_t *t = json_object_get(row, r->text_field), *messages = json_object_get(row, "messages");
    if (!json_is_object(row)) return fail(e, ERR_FORMAT, "should be a JSON object");
    if (r->format != ROW_CHAT && t) {
        if (!json_is_string(t)) return fail(e, ERR_FORMAT, "\"%s\" should be a string", r->text_field);
        return row_encode_text(r, json_string_value(t), json_string_length(t), out, e);
    }
    if (r->format != ROW_TEXT && messages) {
        if (!json_is_array(messages)) return fail(e, ERR_FORMAT, "\"messages\" should be a list");
        return encode_chat(r, row, messages, 0, out, seen, e);
    }
    if (r->format != ROW_TEXT && json_object_get(row, "completion"))
        return encode_pair(r, row, "prompt", "completion", out, seen, e);
    if (r->format != ROW_TEXT && json_object_get(row, "output"))
        return encode_pair(r, row, "input", "output", out, seen, e);
    return unknown_layout(r, row, e);
}

status row_encode(const row_encoder *r, const char *line, size_t n, token_list *out, unsigned *seen, error *e) {
    json_error_t why;
    json_t *row = json_loadb(line, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    *seen = 0;
    if (!row && (json_error_code(&why) == json_error_out_of_memory || !why.text[0])) return no_memory(e);
    if (!row) return fail(e, ERR_FORMAT, "not valid JSON: %s (column %d)", why.text, why.column);
    status s = encode_row(r, row, out, seen, e);
    json_decref(row);
    return s;
}
