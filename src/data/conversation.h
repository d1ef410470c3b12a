/* Which part of a rendered conversation the assistant wrote: the chat template says nothing about it, so it is found by
 * rendering beginnings of the conversation and comparing texts. */
#ifndef HADAL_DATA_CONVERSATION_H
#define HADAL_DATA_CONVERSATION_H

#include "text/template.h"
#include "text/tokenizer.h"

typedef struct chat_format {
    const chat_template *template; /* NULL: the encoding of model_type */
    const char *model_type;
    const tokenizer *tokenizer; /* for the texts of its BOS, EOS and padding */
} chat_format;

typedef struct span { /* bytes begin .. end-1 */
    size_t begin, end;
} span;

enum {
    THINKING_KEPT = 1,    /* the last answer has its thinking although the template would not print it */
    THINKING_LEFT_OUT = 2 /* the template leaves thinking of earlier answers out, as it does in prompts */
};

typedef struct conversation { /* release with conversation_free, also after an error */
    str text;
    span *answers; /* what the model writes in its turns, with the end of the turn, in order */
    size_t n;
    unsigned seen; /* THINKING_... */
} conversation;

/* Messages are objects with a role and what the template looks at; `options` (may be NULL) are variables of the
 * template: "tools", "thinking" (when nothing is said: whether the last answer thinks) and others. Turns before message
 * `first` are not looked for, nor any when `spans` is false. What cannot be rendered or told apart is ERR_ARG or
 * ERR_FORMAT. */
status conversation_render(conversation *out, const chat_format *f, const json_t *messages, const json_t *options,
                           size_t first, bool spans, error *e);
void conversation_free(conversation *c);

#endif
