/* The least of HTTP/1.1 (RFC 9112) that measuring a server takes: one request a connection, the answer as it came, and
 * when each byte of it did. */
#ifndef HADAL_CLI_HTTP_CLIENT_H
#define HADAL_CLI_HTTP_CLIENT_H

#include "base/str.h"

typedef struct http_peer {
    char host[256], port[8];
    const char *key; /* API key; NULL: none */
} http_peer;

/* "http://HOST:PORT", a path behind it is not looked at. False: it is something else. */
bool http_peer_of(http_peer *out, const char *url);

typedef struct http_mark {
    size_t end; /* bytes there were then */
    double seconds;
} http_mark;

typedef struct http_reply {
    int fd;
    bool open; /* fd is: more may come */
    int status;
    str body;
    http_mark *marks; /* of the body, once it is taken apart */
    size_t n_marks;
    double begun, ended; /* clock_seconds() */
} http_reply;

/* Sends a request; body NULL: none. Its answer is then taken in as it comes, until `open` is false, and only stored:
 * measuring costs the machine as little as it can. http_take_apart makes status and body of it. */
status http_begin(http_reply *out, const http_peer *to, const char *method, const char *path, const str *body,
                  error *e);
status http_receive(http_reply *r, error *e); /* what has come; waits when nothing has */
status http_fetch(http_reply *out, const http_peer *to, const char *method, const char *path, const str *body,
                  error *e); /* all at once */
status http_take_apart(http_reply *r, error *e);
double http_time_of(const http_reply *r, size_t at); /* when byte number `at` of the body had come */
void http_reply_clear(http_reply *r);

#endif
