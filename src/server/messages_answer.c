/* An answer's pieces as content blocks and the events of a stream. */
#include <string.h>
#include "server/messages.h"

static void tell(message_blocks *b, const char *name, json_t *data) {
    if (b->event) b->event(b->arg, name, data);
    else json_decref(data);
}

static int index_of(const message_blocks *b) {
    return (int)json_array_size(b->content);
}

static const char *open_type(const message_blocks *b) {
    return b->open ? json_string_value(json_object_get(b->open, "type")) : "";
}

static void delta(message_blocks *b, const char *type, const char *key, json_t *text) {
    tell(b, "content_block_delta",
         json_pack("{s:s, s:i, s:{s:s, s:o}}", "type", "content_block_delta", "index", index_of(b), "delta", "type",
                   type, key, text));
}

/* What a model wrote and is no JSON object goes out the way the API's documentation advises its users to send it back.
 */
static json_t *input_of(const str *text) {
    json_t *input = text->n ? json_loadb(text->p, text->n, JSON_ALLOW_NUL, NULL) : json_object();
    if (json_is_object(input)) return input;
    json_decref(input);
    return json_pack("{s:o}", INVALID_JSON, json_of(text));
}

void message_blocks_finish(message_blocks *b) {
    if (!b->open) return;
    const char *type = open_type(b);
    if (!strcmp(type, "text")) json_object_set_new(b->open, "text", json_of(&b->text));
    else if (!strcmp(type, "tool_use")) json_object_set_new(b->open, "input", input_of(&b->text));
    else {
        json_object_set_new(b->open, "thinking", json_of(&b->text));
        json_object_set_new(b->open, "signature", json_string(b->signature));
        delta(b, "signature_delta", "signature", json_string(b->signature));
    }
    tell(b, "content_block_stop", json_pack("{s:s, s:i}", "type", "content_block_stop", "index", index_of(b)));
    json_array_append_new(b->content, b->open);
    b->open = NULL;
    str_free(&b->text);
}

static void begin(message_blocks *b, json_t *block) {
    message_blocks_finish(b);
    if (!b->content) b->content = json_array();
    b->open = block;
    tell(b, "content_block_start",
         json_pack("{s:s, s:i, s:o}", "type", "content_block_start", "index", index_of(b), "content_block",
                   json_copy(block)));
}

static void grow(message_blocks *b, const char *type, const char *key, const hadal_piece *p) {
    if (!p->n) return;
    str_add(&b->text, p->text, p->n);
    delta(b, type, key, json_stringn(p->text, p->n));
}

void message_blocks_piece(message_blocks *b, const hadal_piece *p, const char *call_id) {
    switch (p->kind) {
    case HADAL_PIECE_REASONING:
        if (p->n && strcmp(open_type(b), "thinking"))
            begin(b, json_pack("{s:s, s:s, s:s}", "type", "thinking", "thinking", "", "signature", ""));
        grow(b, "thinking_delta", "thinking", p);
        break;
    case HADAL_PIECE_CONTENT:
        if (p->n && strcmp(open_type(b), "text")) begin(b, json_pack("{s:s, s:s}", "type", "text", "text", ""));
        grow(b, "text_delta", "text", p);
        break;
    case HADAL_PIECE_CALL:
        begin(b, json_pack("{s:s, s:s, s:o, s:{}}", "type", "tool_use", "id", call_id, "name",
                           json_stringn(p->text, p->n), "input"));
        break;
    case HADAL_PIECE_ARGUMENTS: grow(b, "input_json_delta", "partial_json", p); break;
    default: message_blocks_finish(b);
    }
}

void message_blocks_free(message_blocks *b) {
    json_decref(b->content);
    json_decref(b->open);
    str_free(&b->text);
}

const char *message_stop_reason(const chat_sample *s) {
    if (s->stop) return "stop_sequence";
    if (!strcmp(s->finish, "length")) return "max_tokens";
    return !strcmp(s->finish, "tool_calls") ? "tool_use" : "end_turn";
}

json_t *message_usage(const chat_usage *u) {
    return json_pack("{s:i, s:i, s:i, s:i, s:{s:i}}", "input_tokens", u->prompt_tokens - u->cached_tokens,
                     "cache_read_input_tokens", u->cached_tokens, "cache_creation_input_tokens", 0, "output_tokens",
                     u->completion_tokens, "output_tokens_details", "thinking_tokens", u->reasoning_tokens);
}

json_t *message_json(const char *id, const char *model, json_t *content, const chat_sample *s, const chat_usage *u) {
    return json_pack("{s:s+, s:s, s:s, s:s, s:o, s:s?, s:s?, s:o}", "id", "msg_", id, "type", "message", "role",
                     "assistant", "model", model, "content", content ? content : json_array(), "stop_reason",
                     s ? message_stop_reason(s) : NULL, "stop_sequence", s ? s->stop : NULL, "usage", message_usage(u));
}
