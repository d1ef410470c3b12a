/* Log-probabilities of tokens as the OpenAI API writes them, in its two forms. */
#ifndef HADAL_SERVER_LOGPROBS_H
#define HADAL_SERVER_LOGPROBS_H

#include "base/json.h"
#include "hadal.h"

/* The text of a token, or "bytes:\xe2\x80" where it is no whole characters. NULL: memory is out. */
json_t *token_name(const hadal_tokenizer *t, int32_t id);

/* Chat: {"token", "logprob", "bytes", "top_logprobs": [{"token", "logprob", "bytes"}, ...]}. NULL: memory is out. */
json_t *logprob_entry(const hadal_tokenizer *t, const hadal_token *token);

/* Completions: lists of the same length for a stretch of tokens. */
typedef struct token_lists {
    json_t *tokens, *logprobs, *top, *offsets;
    int64_t offset; /* characters before the next token */
    bool failed;    /* memory ran out */
} token_lists;
/* Adds a token; `known` NULL: the first of a prompt, which has no probability. */
void token_lists_add(token_lists *l, const hadal_tokenizer *t, int32_t id, const hadal_token *known);
void token_lists_copy(token_lists *l, const token_lists *from); /* l: none so far */
/* {"tokens", "token_logprobs", "top_logprobs", "text_offset"} of what was added since the last time, null when that is
 * nothing; NULL: memory is out. */
json_t *token_lists_take(token_lists *l);
void token_lists_free(token_lists *l);

#endif
