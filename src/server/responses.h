/* OpenAI's Responses API over chat completions: what goes in (responses_request.c), what comes out, whole or as events
 * (responses_answer.c). Shapes: the API's reference and the types of its Python client, 3.54. */
#ifndef HADAL_SERVER_RESPONSES_H
#define HADAL_SERVER_RESPONSES_H

#include "server/chat.h"
#include "server/translate.h"

typedef struct response_request {
    translation t;
    json_t *items; /* the conversation so far: what was before, and the input, as a list of items */
    json_t *tools; /* what the model knows under another name than the client: {"namespace", "name", "custom"} by it */
    bool stream, store;
    bool summary;   /* reasoning goes out as a summary, for clients that show no other */
    bool encrypted; /* reasoning goes out in encrypted_content, too: what stateless clients bring back */
    bool logprobs;
} response_request;

/* `before`: the items of the previous response, or NULL. `find` gives the item that an item_reference names (a new
 * reference) or NULL. False: a fault. */
bool response_translate(response_request *q, const json_t *request, const json_t *before,
                        json_t *(*find)(void *arg, const char *item_id), void *arg);
void response_request_free(response_request *q);

/* Output items from the pieces of an answer: `output` grows by whole items, events tell of every step. */
typedef struct response_items {
    json_t *output;
    json_t *open;     /* the item that grows, or NULL */
    json_t *logprobs; /* of it */
    str text;         /* of it: reasoning, text, arguments */
    const char *id;   /* of the response, without its prefix */
    const response_request *q;
    void (*event)(void *arg, const char *name, json_t *data); /* takes data; NULL: nobody listens */
    void *arg;
} response_items;

void response_items_piece(response_items *r, const hadal_piece *p, const char *call_id, const json_t *logprobs);
void response_items_finish(response_items *r, bool complete); /* closes the open one */
void response_items_free(response_items *r);

/* The response object. state: "in_progress", "completed", "incomplete", "failed"; usage NULL: not known yet. */
json_t *response_json(const char *id, const char *model, const json_t *request, const json_t *output, const char *state,
                      int64_t created, const chat_usage *usage);

#endif
