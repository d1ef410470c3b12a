/* An HTTP client that does as it is told, for tests: sends any bytes over a socket and takes answers apart. */
#ifndef TESTS_SERVER_RAW_H
#define TESTS_SERVER_RAW_H

#include <stdbool.h>
#include <stddef.h>
#include "base/str.h"

typedef struct reply {
    int status; /* 0: none came */
    str head;   /* status line and headers */
    str body;   /* chunks joined */
    bool whole; /* all of the body came */
} reply;
void reply_clear(reply *r);
bool reply_has(const reply *r, const char *header_line); /* "Allow: GET", spelled like that */

typedef struct raw { /* a connection */
    int fd;
    str in; /* what has come and belongs to the next answer */
} raw;
void raw_open(raw *c, int port);
void raw_close(raw *c);
bool raw_send(raw *c, const char *text); /* false: the other side has closed */
bool raw_send_n(raw *c, const void *p, size_t n);
/* Reads one answer; clears *r before. head_only: of a HEAD request. Waits ten seconds at most for each byte. */
void raw_read(raw *c, reply *r, bool head_only);
bool raw_until(raw *c, const char *text); /* reads until `in` holds the text; false: it never came */
bool raw_is_closed(raw *c);               /* waits (ten seconds at most) for the other side to close */

/* A connection of its own for one request; body NULL: none. headers: "Name: value\r\n" ... or NULL. */
void ask(int port, const char *method, const char *path, const char *headers, const char *body, reply *r);

#endif
