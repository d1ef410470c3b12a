#include "cli/http_client.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/clock.h"

enum { MOST = 1 << 28 /* bytes of an answer */ };

bool http_peer_of(http_peer *out, const char *url) {
    static const char scheme[] = "http://";
    const size_t skip = sizeof scheme - 1;
    if (strncmp(url, scheme, skip) != 0) return false;
    const char *host = url + skip, *end = host + strcspn(host, "/");
    const bool bracket = *host == '['; /* [::1]:8080 */
    const char *stop = bracket ? memchr(host, ']', (size_t)(end - host)) : memchr(host, ':', (size_t)(end - host));
    if (bracket && !stop) return false;
    const char *colon = bracket ? stop + 1 : stop ? stop : end;
    const char *first = host + bracket, *last = stop ? stop : end;
    const size_t n = (size_t)(last - first), digits = colon < end ? (size_t)(end - colon) - 1 : 0;
    if (n == 0 || n >= sizeof out->host || digits >= sizeof out->port || (colon < end && *colon != ':')) return false;
    memcpy(out->host, first, n);
    out->host[n] = 0;
    memcpy(out->port, colon + 1, digits);
    out->port[digits] = 0;
    if (!digits) strcpy(out->port, "80");
    return true;
}

static status network_error(error *e, const http_peer *to, const char *what) {
    int code = errno;
    return fail(e, ERR_IO, "http://%s:%s: %s: %s", to->host, to->port, what, strerror(code));
}

static status connect_to(int *fd, const http_peer *to, error *e) {
    struct addrinfo how = {.ai_socktype = SOCK_STREAM}, *all;
    int code = getaddrinfo(to->host, to->port, &how, &all);
    if (code) return fail(e, ERR_ARG, "http://%s:%s: %s", to->host, to->port, gai_strerror(code));
    *fd = -1;
    for (struct addrinfo *a = all; a && *fd < 0; a = a->ai_next) {
        *fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
        if (*fd < 0 || connect(*fd, a->ai_addr, a->ai_addrlen) == 0) continue;
        int why = errno;
        close(*fd);
        errno = why;
        *fd = -1;
    }
    freeaddrinfo(all);
    if (*fd < 0) return network_error(e, to, "cannot connect");
    setsockopt(*fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    return OK;
}

static status send_all(int fd, const http_peer *to, const str *s, error *e) {
    for (size_t at = 0; at < s->n;) {
        ssize_t n = send(fd, s->p + at, s->n - at, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR) return network_error(e, to, "cannot send");
        if (n > 0) at += (size_t)n;
    }
    return OK;
}

/* --- an answer as it comes -----------------------------------------------------------------------------------------
 */

static bool add_mark(http_reply *r, http_mark m) {
    if ((r->n_marks & (r->n_marks - 1)) == 0) { /* at 0, 1, 2, 4, .. */
        http_mark *more = realloc(r->marks, (r->n_marks ? 2 * r->n_marks : 1) * sizeof *more);
        if (!more) return false;
        r->marks = more;
    }
    r->marks[r->n_marks++] = m;
    return true;
}

static status end(http_reply *r, status s) {
    close(r->fd);
    r->open = false;
    r->ended = clock_seconds();
    return s;
}

status http_receive(http_reply *r, error *e) {
    char block[1 << 14];
    ssize_t n = recv(r->fd, block, sizeof block, 0);
    if (n < 0 && errno == EINTR) return OK;
    if (n < 0) return end(r, fail(e, ERR_IO, "the answer broke off: %s", strerror(errno)));
    if (n == 0) return end(r, str_check(&r->body, e));
    str_add(&r->body, block, (size_t)n);
    if (r->body.n > MOST) return end(r, fail(e, ERR_FORMAT, "the answer never ends"));
    if (!add_mark(r, (http_mark){r->body.n, clock_seconds()})) return end(r, fail(e, ERR_NOMEM, "memory is out"));
    return OK;
}

status http_begin(http_reply *out, const http_peer *to, const char *method, const char *path, const str *body,
                  error *e) {
    str s = {0};
    *out = (http_reply){0};
    str_addf(&s, "%s %s HTTP/1.1\r\nHost: %s:%s\r\nConnection: close\r\n", method, path, to->host, to->port);
    if (to->key) str_addf(&s, "Authorization: Bearer %s\r\n", to->key);
    if (body) str_addf(&s, "Content-Type: application/json\r\nContent-Length: %zu\r\n", body->n);
    str_puts(&s, "\r\n");
    if (body) str_add(&s, body->p, body->n);
    status st = str_check(&s, e);
    out->begun = clock_seconds();
    if (st == OK) st = connect_to(&out->fd, to, e);
    if (st == OK) {
        out->open = true;
        st = send_all(out->fd, to, &s, e);
        if (st != OK) end(out, st);
    }
    str_free(&s);
    return st;
}

status http_fetch(http_reply *out, const http_peer *to, const char *method, const char *path, const str *body,
                  error *e) {
    TRY(http_begin(out, to, method, path, body, e));
    while (out->open) TRY(http_receive(out, e));
    return OK;
}

/* --- taking an answer apart --------------------------------------------------------------------------------------- */

static status broken(error *e) {
    return fail(e, ERR_FORMAT, "the server's answer is not HTTP/1.1, or broke off");
}

static bool has_header(const char *head, const char *line) {
    for (const char *p = head; (p = strstr(p, "\r\n")); p++)
        if (strncasecmp(p + 2, line, strlen(line)) == 0) return true;
    return false;
}

/* Chunks: size in hexadecimal, line, bytes, line; the last one has size 0. */
static status join_chunks(http_reply *r, const str *raw, size_t at, http_reply *out, error *e) {
    size_t mark = 0;
    for (;;) {
        char *end;
        errno = 0;
        unsigned long n = strtoul(raw->p + at, &end, 16);
        const char *line = strstr(end, "\r\n");
        if (end == raw->p + at || errno || !line) return broken(e);
        at = (size_t)(line - raw->p) + 2;
        if (n == 0) return str_check(&out->body, e);
        if (n > raw->n - at || raw->n - at - n < 2) return broken(e);
        str_add(&out->body, raw->p + at, n);
        at += n + 2;
        while (mark + 1 < r->n_marks && r->marks[mark].end < at) mark++;
        if (!add_mark(out, (http_mark){out->body.n, r->marks[mark].seconds}))
            return fail(e, ERR_NOMEM, "memory is out");
    }
}

static status whole_body(const http_reply *r, const str *raw, size_t at, http_reply *out, error *e) {
    str_add(&out->body, raw->p + at, raw->n - at);
    for (size_t i = 0; i < r->n_marks; i++)
        if (r->marks[i].end > at && !add_mark(out, (http_mark){r->marks[i].end - at, r->marks[i].seconds}))
            return fail(e, ERR_NOMEM, "memory is out");
    return str_check(&out->body, e);
}

status http_take_apart(http_reply *r, error *e) {
    const str *raw = &r->body;
    http_reply out = {.begun = r->begun, .ended = r->ended};
    char *behind = raw->p ? strstr(raw->p, "\r\n\r\n") : NULL;
    if (!behind || strncmp(raw->p, "HTTP/1.1 ", 9) != 0) return broken(e);
    *behind = 0;
    out.status = atoi(raw->p + 9);
    const size_t at = (size_t)(behind - raw->p) + 4;
    status s = has_header(raw->p, "transfer-encoding: chunked") ? join_chunks(r, raw, at, &out, e)
                                                                : whole_body(r, raw, at, &out, e);
    http_reply_clear(s == OK ? r : &out);
    if (s == OK) *r = out;
    return s;
}

double http_time_of(const http_reply *r, size_t at) {
    size_t a = 0, b = r->n_marks; /* the first mark that ends behind `at` */
    while (a < b) {
        size_t m = a + (b - a) / 2;
        if (r->marks[m].end > at) b = m;
        else a = m + 1;
    }
    return a < r->n_marks ? r->marks[a].seconds : r->ended;
}

void http_reply_clear(http_reply *r) {
    if (r->open) close(r->fd);
    str_free(&r->body);
    free(r->marks);
    *r = (http_reply){0};
}
