#include "text/chat_encode.h"

#include "text/toolcall.h"

status chat_encode(const chat_template *t, const char *model_type, const tokenizer *k, const json_t *messages,
                   const json_t *options, chat_prompt *out, error *e) {
    str text = {0};
    *out = (chat_prompt){0};
    status s = chat_render(t, model_type, messages, options, &text, e);
    if (s == OK) s = tokenizer_encode(k, text.p, text.n, TOK_PARSE_SPECIAL, &out->ids, &out->count, e);
    if (s == OK) out->thinking = answer_starts_thinking(text.p, text.n);
    str_free(&text);
    return s;
}

size_t chat_reasoning_ids(const tokenizer *k, const int32_t *ids, size_t count) {
    int32_t end = tokenizer_id(k, "</think>");
    for (size_t i = 0; end >= 0 && i < count; i++)
        if (ids[i] == end) return i + 1;
    return 0;
}
