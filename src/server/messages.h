/* Anthropic's Messages API over chat completions: what goes in (messages_request.c), what comes out, whole or as events
 * (messages_answer.c). Shapes: the API's reference and the types of its Python client, 2.12. */
#ifndef HADAL_SERVER_MESSAGES_H
#define HADAL_SERVER_MESSAGES_H

#include "server/chat.h"
#include "server/translate.h"

/* The member in which a tool's input stands that is no JSON object: the way in which the API's documentation advises
 * its users to send such an input back. */
#define INVALID_JSON "INVALID_JSON"

/* Fills t from a request; counting: it need not say max_tokens. False: a fault. */
bool messages_translate(translation *t, const json_t *request, bool counting);

/* Puts the tools of a request and the choice among them into the body (messages_tools.c). */
void messages_put_tools(translation *t, const json_t *request);
/* The name of the tool that a block of a message brings in or takes away; NULL: it is no such block. *definition: of a
 * tool that comes with it, else NULL. */
const json_t *messages_changed_tool(const json_t *block, const json_t **definition);

/* Content blocks from the pieces of an answer: `content` grows by whole blocks, events tell of every step. */
typedef struct message_blocks {
    json_t *content;
    json_t *open; /* the block that grows, or NULL */
    str text;     /* of it: thinking, text, JSON of a tool's input */
    const char *signature;
    void (*event)(void *arg, const char *name, json_t *data); /* takes data; NULL: nobody listens */
    void *arg;
} message_blocks;

void message_blocks_piece(message_blocks *b, const hadal_piece *p, const char *call_id);
void message_blocks_finish(message_blocks *b); /* closes the open one */
void message_blocks_free(message_blocks *b);

/* Threads (messages_thread.c). open: a request that goes on with one gets its messages, system prompt and tools; false:
 * it was answered with an error. keep: when the request wants it (kept), with its answer. */
bool message_thread_kept(const json_t *request);
bool message_thread_open(server *s, exchange *x, json_t *request);
void message_thread_keep(server *s, const json_t *request, const json_t *message);

const char *message_stop_reason(const chat_sample *s);
/* {"input_tokens", "cache_read_input_tokens", "output_tokens" ...}; the cached tokens are no input tokens. */
json_t *message_usage(const chat_usage *u);
/* The message; takes content. s NULL: it only begins. */
json_t *message_json(const char *id, const char *model, json_t *content, const chat_sample *s, const chat_usage *u);

#endif
