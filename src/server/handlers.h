/* The handlers of the server's paths, as the table in routes.c names them. Each is called with the whole body. */
#ifndef HADAL_SERVER_HANDLERS_H
#define HADAL_SERVER_HANDLERS_H

#include "server/exchange.h"

void handle_chat_completions(server *s, exchange *x);
void handle_completions(server *s, exchange *x);
void handle_responses(server *s, exchange *x);
void handle_response(server *s, exchange *x);        /* GET, of one that is kept */
void handle_response_forget(server *s, exchange *x); /* DELETE */
void handle_response_tokens(server *s, exchange *x); /* /v1/responses/input_tokens */
void handle_messages(server *s, exchange *x);
void handle_count_tokens(server *s, exchange *x); /* of /v1/messages */
void handle_page(server *s, exchange *x);         /* the page for people */

void handle_health(server *s, exchange *x);         /* health.c */
void handle_version(server *s, exchange *x);        /* health.c */
void handle_status(server *s, exchange *x);         /* health.c: what the status view of the page shows */
void handle_metrics(server *s, exchange *x);        /* health.c */
void handle_models(server *s, exchange *x);         /* models.c */
void handle_model(server *s, exchange *x);          /* models.c */
void handle_embeddings(server *s, exchange *x);     /* models.c: there are none */
void handle_tokenize(server *s, exchange *x);       /* tokens.c */
void handle_detokenize(server *s, exchange *x);     /* tokens.c */
void handle_tokenizer_info(server *s, exchange *x); /* tokens.c */

#endif
