/* The inside of the HTTP core: connections and the exchange, which http.c moves between libmicrohttpd and exchange.c.
 *
 * Who holds what: `http.lock` guards the list of connections and the counts. `exchange.lock` guards what its comment
 * says; under it the connection is suspended and resumed, so that a resumption never comes before its suspension.
 * http.lock may be held when an exchange is locked, never the other way round. `exchange.leaving` is held while `gone`
 * runs and is taken before exchange.lock. */
#ifndef HADAL_SERVER_HTTP_H
#define HADAL_SERVER_HTTP_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include "base/str.h"
#include "server/exchange.h"

typedef struct http http;

typedef struct connection { /* a socket of ours */
    int fd;
    double since;    /* when it began to wait for the present request, or for the body of it */
    size_t received; /* of the body */
    bool hung_up;    /* the client had closed its side when the watchdog looked last */
    exchange *x;     /* the request in progress; NULL: none */
    struct connection *prev, *next;
} connection;

typedef struct request_note {
    int prompt_tokens, cached_tokens, tokens;
    double first_token; /* seconds; 0: none */
    char finish[24];
} request_note;

struct exchange {
    http *h;
    server *s;
    atomic_int users; /* libmicrohttpd, the handler that keeps it, the watchdog for a moment */
    connection *c;
    const route *route; /* NULL: unknown path or method */
    char id[25];
    char *method, *path; /* path: decoded */
    char *normal;        /* ... without /v1 and /beta */
    const char *tail;    /* in normal, behind the route's path */
    str body;
    double started;

    pthread_mutex_t lock;
    struct MHD_Connection *mhd;                     /* NULL: libmicrohttpd is through with it */
    enum { UNANSWERED, WHOLE, STREAM, SENT } state; /* SENT: whole, and on its way */
    bool handled;                                   /* the handler was called */
    bool kept;                                      /* ... and will answer later */
    bool suspended;
    bool ended;      /* nothing more will be sent */
    bool gone;       /* what the handler still sends is dropped */
    bool broken;     /* the client is not there, or not worth waiting for */
    bool overflowed; /* more waits for the client than may */
    bool complete;   /* everything has reached the socket */
    int status;
    const char *type;
    str headers; /* name, 0, value, 0 ... */
    str out;     /* what waits for the client, from `taken` on */
    size_t taken;
    double last_sent; /* when something was last put into out */
    request_note note;

    pthread_mutex_t leaving; /* recursive */
    void (*on_gone)(void *arg);
    void *gone_arg;
};

/* --- http.c --- */
status http_open(http **out, server *s, const server_options *o, error *e);
int http_port(const http *h);
int http_running(http *h); /* requests that were given to handlers and are not over */
int http_connections(http *h);
void http_quiet(http *h); /* returns when no handler is running: none is called from then on */
void http_close(http *h); /* every exchange ends; its keepers must have released it */
bool http_closing(const http *h);
void http_over(exchange *x); /* the last user let go of it */
/* Calls f for each request that is being answered, its exchange locked. */
void http_each(http *h, void (*f)(void *arg, const exchange *x), void *arg);

/* --- exchange.c --- */
exchange *exchange_open(http *h, server *s, const char *method, const char *url);
void exchange_unref(exchange *x);
/* With x->lock held: lets libmicrohttpd go on with it. */
void exchange_wake(exchange *x);
void exchange_leave(exchange *x);   /* the client is not there any more: tells the keeper; nothing more is sent */
void exchange_timeout(exchange *x); /* tells the keeper; the client gets an error */
void exchange_ping(exchange *x, double now);
/* With x->lock held: the answer as libmicrohttpd takes it, whole or a stream; NULL: memory is out. */
struct MHD_Response *exchange_response(exchange *x);

/* --- paths.c --- */
/* path: decoded. normal: the path that routes are named by (a buffer of the path's size + 1). */
void path_normal(const char *path, char *normal);
/* In place; false, and nothing has changed: not percent-encoding, or a zero byte. */
bool path_decode(char *path);
/* The route, or NULL: then *allow tells the methods of the path ("GET, POST"), and is empty when there is no such path.
 * *tail: in normal, what stands behind the route's path. */
const route *route_find(const char *method, const char *normal, const char **tail, str *allow);

#endif
