/* From a conversation to the prompt's ids. What the template writes may be control tokens; what stands in the messages
 * and tools is text, whatever it says. */
#ifndef HADAL_TEXT_CHAT_ENCODE_H
#define HADAL_TEXT_CHAT_ENCODE_H

#include "text/chat.h"

typedef struct chat_prompt {
    int32_t *ids; /* malloc'd, the caller's to free */
    size_t count;
    bool thinking; /* it ends inside the reasoning */
} chat_prompt;

/* As chat_render with these arguments. An assistant message may have "token_ids": what the model once wrote as this
 * message, without its end token; they stand in the prompt as they are where the template puts the message unchanged.
 */
status chat_encode(const chat_template *t, const char *model_type, const tokenizer *k, const json_t *messages,
                   const json_t *options, chat_prompt *out, error *e);

/* Of a message's ids, how many at the head are reasoning, </think> included; 0: none. */
size_t chat_reasoning_ids(const tokenizer *k, const int32_t *ids, size_t count);

#endif
