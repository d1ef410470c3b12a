/* From a conversation to the prompt's ids.
 *
 * What the template writes may be control tokens; what stands in the messages and tools is text, whatever it says
 * (tokenizer_mark). Only in the content of assistant messages some stay what they are: <think> and </think>, where
 * templates split answers, and tokens that neither the template writes nor the tokenizer calls special.
 *
 * An assistant message may have "token_ids": what the model once wrote as this message, without its end token. They
 * stand in the prompt as they are, so that it begins with the very ids of the turn before. For this the conversation is
 * rendered a second time with a mark instead of the message; if both renderings agree before and behind it, the
 * template does put the message there. Reasoning that the template drops is dropped from the ids, too. */
#ifndef HADAL_TEXT_CHAT_ENCODE_H
#define HADAL_TEXT_CHAT_ENCODE_H

#include "text/chat_messages.h"

typedef struct chat_prompt {
    int32_t *ids; /* malloc'd, the caller's to free */
    size_t count;
    answer_thinking thinking; /* of the answer to come; ANSWER_PLAIN also when the options switch thinking off */
} chat_prompt;

status chat_encode(chat_prompt *out, const chat_style *s, const json_t *messages, const json_t *options, error *e);

/* The prompt as text. */
status chat_text(str *out, const chat_style *s, const json_t *messages, const json_t *options, error *e);

/* Of a message's ids, how many at the head are reasoning, </think> included; 0: none. */
size_t chat_reasoning_ids(const tokenizer *k, const int32_t *ids, size_t count);

#endif
