/* Which messages of a conversation can stand in the prompt as the ids that the model once wrote. */
#ifndef HADAL_TEXT_CHAT_REPLAY_H
#define HADAL_TEXT_CHAT_REPLAY_H

#include "text/chat_messages.h"

typedef struct replayed { /* a message's ids */
    int32_t *ids;         /* NULL: it has none */
    size_t n;
    size_t reasoning; /* so many at the head are reasoning, </think> included */
    size_t from;      /* set by chat_replay: the first that stands in the prompt */
} replayed;

/* Where a message's ids stand in a text: TOK_PLACE, the message's number, TOK_PLACE. Finds the next place of one of n
 * messages from *at on and moves *at behind it. */
bool chat_next_place(const str *s, size_t n, size_t *at, size_t *begin, size_t *message);

/* prompt: the conversation's rendering. Becomes another one, with places where ids stand; r[i] belongs to message i. */
status chat_replay(const chat_style *s, const chat_conversation *c, replayed *r, str *prompt, error *e);

#endif
