/* The conversation of a chat completion's body, checked and brought into the one form that templates understand:
 * messages, the template's variables, and what the answer may be. Nothing here needs a model. */
#ifndef HADAL_SERVER_CHAT_REQUEST_H
#define HADAL_SERVER_CHAT_REQUEST_H

#include "server/call_memory.h"
#include "server/params.h"

typedef struct chat_request {
    json_t *messages, *options; /* of hadal_chat_encode */
    json_t *grammar;            /* of hadal_grammar_open; NULL: anything goes */
    bool grammar_optional;      /* where the checkpoint cannot have it, the answer goes without */
    bool tools;                 /* the answer may call tools */
} chat_request;

/* calls (may be NULL): messages that were remembered get the ids which the model once wrote. */
status chat_request_read(chat_request *r, const json_t *body, call_memory *calls, mistake *m);
void chat_request_free(chat_request *r);

/* The key under which a message with tool calls is remembered: the ids of its calls, and a digest of its content, names
 * and arguments, so that a message that was edited is not taken for it. calls: list of {"id", "function": {"name",
 * "arguments"}}. Freed with call_key_free; NULL: memory is out, or a call has no id. */
typedef struct call_key {
    const char **texts; /* n of them; borrowed from calls but the last */
    int n;
    char digest[20];
} call_key;
call_key *call_key_open(const json_t *calls, const json_t *content);
void call_key_free(call_key *k);

#endif
