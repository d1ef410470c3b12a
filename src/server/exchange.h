/* One HTTP request and its answer, as handlers see them. A handler gets the whole body; it answers at once, or it keeps
 * the exchange (exchange_keep) and answers later from any thread, whole or as a stream of events. Nothing here blocks:
 * what a slow client has not taken yet waits in memory, up to a limit, beyond which the client counts as gone. */
#ifndef HADAL_SERVER_EXCHANGE_H
#define HADAL_SERVER_EXCHANGE_H

#include <stddef.h>
#include "base/json.h"
#include "server/server.h"

typedef struct exchange exchange;

typedef enum dialect { DIALECT_OPENAI, DIALECT_ANTHROPIC } dialect; /* how errors are written */

typedef void handler(server *s, exchange *x);
typedef struct route {
    const char *method;
    const char *path; /* without /v1 and /beta; "/x/" takes everything below it, "/" only itself */
    handler *handle;
    dialect dialect;
    bool open; /* needs no API key and no model */
} route;
extern const route routes[]; /* ends with method NULL; routes.c */

/* --- the request --- */
const char *exchange_body(const exchange *x, size_t *n);          /* terminated */
const char *exchange_tail(const exchange *x);                     /* of the path, behind the route's path; decoded */
const char *exchange_header(const exchange *x, const char *name); /* NULL: none; while the handler runs */
const char *exchange_id(const exchange *x);                       /* of this request, 24 hex digits */
double exchange_started(const exchange *x);                       /* clock_seconds() when it came */

/* --- the answer: exactly one of these ends it --- */
void exchange_json(exchange *x, int status, json_t *body); /* takes body; NULL: memory is out, becomes 500 */
void exchange_text(exchange *x, int status, const char *type, const char *text, size_t n); /* copies */
/* {"error": {"message", "type", "param", "code"}} by the route's dialect; param and code may be NULL. type follows from
 * the status. 429 and 503 get Retry-After. In a stream that has begun it is the last event. */
void exchange_error(exchange *x, int status, const char *param, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* Server-sent events: exchange_stream sends status 200 and the headers; event NULL: only a data line. */
void exchange_stream(exchange *x);
void exchange_event(exchange *x, const char *event, const char *data, size_t n);
void exchange_event_json(exchange *x, const char *event, json_t *data); /* takes data */
void exchange_end(exchange *x);
/* Before the answer. */
void exchange_add_header(exchange *x, const char *name, const char *value);
bool exchange_answered(const exchange *x); /* or begun, or the client is gone */

/* --- for handlers that answer later --- */
void exchange_keep(exchange *x);    /* before the handler returns; then the last user calls */
void exchange_release(exchange *x); /* after exchange_end, exchange_json ... */
/* `gone` is called once, on any thread, when the client has left, is too slow, or the time is over; never after the
 * answer's end. Whatever is sent after it is dropped: the user still ends and releases. A client that is gone already
 * is told at once, in exchange_on_gone. After exchange_release `gone` neither runs nor will. */
void exchange_on_gone(exchange *x, void (*gone)(void *arg), void *arg);
/* For the line in the log and the list of running requests; may be called again and again, the last call counts. */
void exchange_note(exchange *x, int prompt_tokens, int cached_tokens, int tokens, double first_token_seconds,
                   const char *finish);

#endif
