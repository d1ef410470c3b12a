#define _GNU_SOURCE
#include "raw.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

void reply_clear(reply *r) {
    str_free(&r->head);
    str_free(&r->body);
    *r = (reply){0};
}

bool reply_has(const reply *r, const char *line) {
    const char *found = r->head.n ? strstr(r->head.p, line) : NULL;
    return found && found > r->head.p && found[-1] == '\n' && found[strlen(line)] == '\r';
}

void raw_open(raw *c, int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval wait = {10, 0};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    *c = (raw){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
    if (connect(c->fd, (struct sockaddr *)&a, sizeof a) != 0) perror("connect");
}

void raw_close(raw *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    str_free(&c->in);
}

bool raw_send_n(raw *c, const void *p, size_t n) {
    for (const char *at = p; n;) {
        ssize_t sent = send(c->fd, at, n, MSG_NOSIGNAL);
        if (sent <= 0) return false;
        at += sent;
        n -= (size_t)sent;
    }
    return true;
}

bool raw_send(raw *c, const char *text) {
    return raw_send_n(c, text, strlen(text));
}

static bool more(raw *c) {
    char block[16384];
    ssize_t n = recv(c->fd, block, sizeof block, 0);
    if (n > 0) str_add(&c->in, block, (size_t)n);
    return n > 0;
}

static void drop(raw *c, size_t n) {
    memmove(c->in.p, c->in.p + n, c->in.n - n + 1);
    c->in.n -= n;
}

bool raw_until(raw *c, const char *text) {
    while (!c->in.n || !memmem(c->in.p, c->in.n, text, strlen(text)))
        if (!more(c)) return false;
    return true;
}

bool raw_is_closed(raw *c) {
    char block[16384];
    ssize_t n;
    while ((n = recv(c->fd, block, sizeof block, 0)) > 0) {}
    return n == 0;
}

static bool take(raw *c, size_t n, str *to) {
    while (c->in.n < n)
        if (!more(c)) return false;
    str_add(to, c->in.p, n);
    drop(c, n);
    return true;
}

static bool take_chunks(raw *c, str *to) {
    for (;;) {
        if (!raw_until(c, "\r\n")) return false;
        size_t n = strtoul(c->in.p, NULL, 16);
        str line = {0}, end = {0};
        bool fine =
            take(c, (size_t)(strstr(c->in.p, "\r\n") - c->in.p) + 2, &line) && take(c, n, to) && take(c, 2, &end);
        str_free(&line);
        str_free(&end);
        if (!fine || !n) return fine;
    }
}

void raw_read(raw *c, reply *r, bool head_only) {
    reply_clear(r);
    if (!raw_until(c, "\r\n\r\n")) return;
    take(c, (size_t)(strstr(c->in.p, "\r\n\r\n") - c->in.p) + 4, &r->head);
    r->status = r->head.n > 12 ? atoi(r->head.p + 9) : 0;
    const char *length = strcasestr(r->head.p, "\r\nContent-Length:");
    if (head_only || r->status == 204 || r->status == 100) r->whole = true;
    else if (strcasestr(r->head.p, "\r\nTransfer-Encoding: chunked")) r->whole = take_chunks(c, &r->body);
    else if (length) r->whole = take(c, strtoul(length + 17, NULL, 10), &r->body);
    else {
        while (more(c)) {}
        r->whole = take(c, c->in.n, &r->body);
    }
}

void ask(int port, const char *method, const char *path, const char *headers, const char *body, reply *r) {
    raw c;
    str s = {0};
    raw_open(&c, port);
    str_addf(&s, "%s %s HTTP/1.1\r\nHost: here\r\n%s", method, path, headers ? headers : "");
    if (body) str_addf(&s, "Content-Length: %zu\r\n", strlen(body));
    str_puts(&s, "\r\n");
    if (body) str_puts(&s, body);
    raw_send_n(&c, s.p, s.n);
    raw_read(&c, r, strcmp(method, "HEAD") == 0);
    str_free(&s);
    raw_close(&c);
}
