/* What others wrote in a conversation, marked so that no control token is found in it (tokenizer_mark). */
#ifndef HADAL_TEXT_CHAT_MARKS_H
#define HADAL_TEXT_CHAT_MARKS_H

#include "text/chat_messages.h"

/* Marks all strings and keys of a prepared conversation but roles and the template's own BOS, EOS and padding. */
status chat_mark(chat_conversation *c, const tokenizer *t, error *e);

#endif
