/* HTTP as clients send it, and as they should not: bodies, limits, connections, methods, paths, keys. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"
#include "raw.h"
#include "server/server_inner.h"
#include <cmocka.h>

static void handle_echo(server *s, exchange *x) {
    size_t n;
    (void)s;
    const char *body = exchange_body(x, &n);
    assert_int_equal(body[n], 0);
    exchange_text(x, 200, "text/plain", body, n);
}

static void handle_tail(server *s, exchange *x) {
    (void)s;
    exchange_text(x, 200, "text/plain", exchange_tail(x), strlen(exchange_tail(x)));
}

static void handle_header(server *s, exchange *x) {
    (void)s;
    const char *v = exchange_header(x, "x-thing");
    exchange_text(x, 200, "text/plain", v ? v : "(none)", strlen(v ? v : "(none)"));
}

const route routes[] = {
    {"POST", "/echo", handle_echo, DIALECT_OPENAI, true},
    {"GET", "/echo", handle_echo, DIALECT_OPENAI, true},
    {"GET", "/below/", handle_tail, DIALECT_OPENAI, true},
    {"GET", "/header", handle_header, DIALECT_OPENAI, true},
    {"GET", "/closed", handle_echo, DIALECT_OPENAI, false},
    {"POST", "/closed", handle_echo, DIALECT_ANTHROPIC, false},
    {0},
};

static server *begin(const server_options *o) {
    server *s = NULL;
    error e;
    if (server_open(&s, o ? o : &(server_options){0}, &e) != OK) fail_msg("%s", e.text);
    return s;
}

/* Sends bytes on a connection of their own; the first answer. */
static int status_of(server *s, const char *bytes, reply *r) {
    raw c;
    raw_open(&c, server_port(s));
    raw_send(&c, bytes);
    raw_read(&c, r, false);
    raw_close(&c);
    return r->status;
}

static void bodies_arrive_whole(void **state) {
    (void)state;
    server *s = begin(NULL);
    reply r = {0};
    raw c;
    ask(server_port(s), "POST", "/echo", NULL, "", &r);
    assert_int_equal(r.status, 200);
    assert_int_equal(r.body.n, 0);
    ask(server_port(s), "POST", "/echo", NULL, "hello", &r);
    assert_string_equal(r.body.p, "hello");
    char *big = malloc(3000001);
    for (int i = 0; i < 3000000; i++) big[i] = (char)('a' + i % 23);
    big[3000000] = 0;
    ask(server_port(s), "POST", "/echo", NULL, big, &r);
    assert_int_equal(r.body.n, 3000000);
    assert_memory_equal(r.body.p, big, 3000000);
    free(big);
    /* byte by byte */
    static const char text[] = "POST /echo HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\n\r\nabc";
    raw_open(&c, server_port(s));
    for (size_t i = 0; text[i]; i++) {
        assert_true(raw_send_n(&c, text + i, 1));
        nanosleep(&(struct timespec){0, 500000}, NULL);
    }
    raw_read(&c, &r, false);
    assert_string_equal(r.body.p, "abc");
    raw_close(&c);
    /* in chunks, with an extension and trailers; zero bytes are bytes */
    assert_int_equal(status_of(s,
                               "POST /echo HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
                               "3;x=y\r\nabc\r\n0a\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n",
                               &r),
                     200);
    assert_string_equal(r.body.p, "abc0123456789");
    raw_open(&c, server_port(s));
    raw_send_n(&c, "POST /echo HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\n\r\na\0b", 57);
    raw_read(&c, &r, false);
    assert_int_equal(r.body.n, 3);
    assert_memory_equal(r.body.p, "a\0b", 3);
    raw_close(&c);
    reply_clear(&r);
    server_close(s);
}

static void permission_to_send_is_given(void **state) {
    (void)state;
    server *s = begin(&(server_options){.body_bytes = 100});
    reply r = {0};
    raw c;
    raw_open(&c, server_port(s));
    raw_send(&c, "POST /echo HTTP/1.1\r\nHost: here\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    raw_read(&c, &r, false);
    assert_int_equal(r.status, 100);
    raw_send(&c, "abc");
    raw_read(&c, &r, false);
    assert_int_equal(r.status, 200);
    assert_string_equal(r.body.p, "abc");
    raw_close(&c);
    assert_int_equal(
        status_of(s, "POST /echo HTTP/1.1\r\nHost: here\r\nExpect: 100-continue\r\nContent-Length: 101\r\n\r\n", &r),
        413);
    reply_clear(&r);
    server_close(s);
}

static void large_bodies_are_refused_at_once(void **state) {
    (void)state;
    server *s = begin(&(server_options){.body_bytes = 100000});
    reply r = {0};
    raw c;
    /* nothing of the body is sent, and the answer is there */
    assert_int_equal(status_of(s, "POST /echo HTTP/1.1\r\nHost: here\r\nContent-Length: 100001\r\n\r\n", &r), 413);
    assert_non_null(strstr(r.body.p, "100000 bytes"));
    assert_non_null(strstr(r.head.p, "x-request-id: "));
    assert_int_equal(
        status_of(s, "POST /echo HTTP/1.1\r\nHost: here\r\nContent-Length: 99999999999999999999999999\r\n\r\n", &r),
        413);
    /* a client that goes on sending sees the answer, too */
    char *block = malloc(70000);
    memset(block, 'x', 70000);
    for (int chunked = 0; chunked < 2; chunked++) {
        raw_open(&c, server_port(s));
        raw_send(&c, "POST /echo HTTP/1.1\r\nHost: here\r\n");
        raw_send(&c, chunked ? "Transfer-Encoding: chunked\r\n\r\n" : "Content-Length: 9000000\r\n\r\n");
        for (int i = 0; i < 100; i++) {
            if (chunked && !raw_send(&c, "11170\r\n")) break;
            if (!raw_send_n(&c, block, 70000) || (chunked && !raw_send(&c, "\r\n"))) break;
        }
        raw_read(&c, &r, false);
        assert_int_equal(r.status, 413);
        assert_non_null(strstr(r.body.p, "\"invalid_request_error\""));
        raw_close(&c);
    }
    free(block);
    ask(server_port(s), "POST", "/echo", NULL, "fine", &r);
    assert_int_equal(r.status, 200);
    reply_clear(&r);
    server_close(s);
}

static void connections_are_kept(void **state) {
    (void)state;
    server *s = begin(NULL);
    reply r = {0};
    raw c;
    raw_open(&c, server_port(s));
    for (int i = 0; i < 200; i++) {
        raw_send(&c, i % 2 ? "GET /below/x HTTP/1.1\r\nHost: here\r\n\r\n"
                           : "POST /echo HTTP/1.1\r\nHost: here\r\nContent-Length: 1\r\n\r\nx");
        raw_read(&c, &r, false);
        assert_int_equal(r.status, 200);
        assert_string_equal(r.body.p, "x");
    }
    /* refusals keep it, too: the body belongs to them */
    raw_send(&c, "POST /nowhere HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\nbody");
    raw_read(&c, &r, false);
    assert_int_equal(r.status, 404);
    /* requests in a row, answers in the same order */
    for (int i = 0; i < 50; i++) {
        char text[64];
        snprintf(text, sizeof text, "GET /below/%d HTTP/1.1\r\nHost: here\r\n\r\n", i);
        raw_send(&c, text);
    }
    for (int i = 0; i < 50; i++) {
        char want[8];
        snprintf(want, sizeof want, "%d", i);
        raw_read(&c, &r, false);
        assert_string_equal(r.body.p, want);
    }
    raw_send(&c, "GET /echo HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
    raw_read(&c, &r, false);
    assert_int_equal(r.status, 200);
    assert_true(raw_is_closed(&c));
    raw_close(&c);
    raw_open(&c, server_port(s));
    raw_send(&c, "GET /below/old HTTP/1.0\r\n\r\n");
    raw_read(&c, &r, false);
    assert_string_equal(r.body.p, "old");
    assert_true(raw_is_closed(&c));
    raw_close(&c);
    reply_clear(&r);
    server_close(s);
}

static void methods(void **state) {
    (void)state;
    server *s = begin(NULL);
    reply r = {0};
    ask(server_port(s), "HEAD", "/below/abc", NULL, NULL, &r);
    assert_int_equal(r.status, 200);
    assert_true(reply_has(&r, "Content-Length: 3"));
    ask(server_port(s), "PUT", "/echo", NULL, "x", &r);
    assert_int_equal(r.status, 405);
    assert_true(reply_has(&r, "Allow: POST, GET, HEAD, OPTIONS"));
    ask(server_port(s), "POST", "/below/x", NULL, "x", &r);
    assert_int_equal(r.status, 405);
    assert_true(reply_has(&r, "Allow: GET, HEAD, OPTIONS"));
    ask(server_port(s), "BREW", "/nowhere", NULL, NULL, &r);
    assert_int_equal(r.status, 404);
    ask(server_port(s), "OPTIONS", "/echo", "Origin: http://a\r\n", NULL, &r);
    assert_int_equal(r.status, 204);
    assert_null(strstr(r.head.p, "Access-Control"));
    reply_clear(&r);
    server_close(s);
}

static void paths(void **state) {
    (void)state;
    static const struct {
        const char *path;
        int status;
        const char *body;
    } all[] = {{"/v1/below/a/b", 200, "a/b"},
               {"/beta/below/a%2fb", 200, "a/b"},
               {"/beta/v1/below/a%20b/", 200, "a b"},
               {"/v1/beta/below/%E2%82%AC", 200, "\xe2\x82\xac"},
               {"/v1//below//a", 200, "a"},
               {"/below/a?x=y&z", 200, "a"},
               {"/bel%6Fw/a", 200, "a"},
               {"http://there:80/v1/below/a", 200, "a"},
               {"/below", 404, NULL},
               {"/below/", 404, NULL},
               {"/v2/below/a", 404, NULL},
               {"/v1below/a", 404, NULL},
               {"/below/%", 400, NULL},
               {"/below/%0", 400, NULL},
               {"/below/%zz", 400, NULL},
               {"/below/a%00b", 400, NULL},
               {"/below/%ff%fe", 200, NULL},
               {"/%ff%fe", 404, NULL},
               {"/v1", 404, NULL},
               {"/../../etc/passwd", 404, NULL},
               {"*", 404, NULL}};
    server *s = begin(NULL);
    reply r = {0};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        ask(server_port(s), "GET", all[i].path, NULL, NULL, &r);
        if (r.status != all[i].status) print_error("%s: ", all[i].path);
        assert_int_equal(r.status, all[i].status);
        if (all[i].body) assert_string_equal(r.body.p, all[i].body);
    }
    reply_clear(&r);
    server_close(s);
}

static void headers(void **state) {
    (void)state;
    server *s = begin(NULL);
    reply r = {0};
    raw c;
    ask(server_port(s), "GET", "/header", "X-THING: value\r\n", NULL, &r);
    assert_string_equal(r.body.p, "value");
    ask(server_port(s), "GET", "/header", NULL, NULL, &r);
    assert_string_equal(r.body.p, "(none)");
    str big = {0};
    str_puts(&big, "X-Big: ");
    for (int i = 0; i < 40000; i++) str_putc(&big, 'x');
    str_puts(&big, "\r\n");
    ask(server_port(s), "GET", "/header", big.p, NULL, &r);
    assert_int_equal(r.status, 431);
    str_free(&big);
    for (int i = 0; i < 5000; i++) str_addf(&big, "X-%d: y\r\n", i);
    ask(server_port(s), "GET", "/header", big.p, NULL, &r);
    assert_int_equal(r.status, 431);
    str_free(&big);
    raw_open(&c, server_port(s)); /* without an end */
    for (int i = 0; i < 100000; i++)
        if (!raw_send(&c, "X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n")) break;
    raw_close(&c);
    ask(server_port(s), "GET", "/header", NULL, NULL, &r);
    assert_int_equal(r.status, 200);
    reply_clear(&r);
    server_close(s);
}

static void nonsense_is_survived(void **state) {
    (void)state;
    static const char *const all[] = {"BLAH\r\n\r\n",
                                      "\r\n\r\n\r\n",
                                      "GET\r\n\r\n",
                                      "GET / HTTP/9.9\r\nHost: here\r\n\r\n",
                                      "GET /echo HTTP/1.1\r\n\r\n",
                                      "GET /echo HTTP/1.1\r\nHost: here\r\nno colon\r\n\r\n",
                                      "\x16\x03\x01\x02\x00\x01\xfc\x03\x03\r\n\r\n",
                                      "POST /echo HTTP/1.1\r\nHost: here\r\nContent-Length: -1\r\n\r\n",
                                      "POST /echo HTTP/1.1\r\nHost: here\r\nContent-Length: 1e3\r\n\r\n",
                                      "POST /echo HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                                      ("POST /echo HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
                                       "ffffffffffffffffff\r\n"),
                                      "POST /echo HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: gzip\r\n\r\n"};
    server *s = begin(&(server_options){.idle_seconds = 1});
    reply r = {0};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        int got = status_of(s, all[i], &r);
        if (got && got != 400 && got != 413 && got != 505) print_error("%s: %d ", all[i], got);
        assert_true(!got || got == 400 || got == 413 || got == 505);
        ask(server_port(s), "POST", "/echo", NULL, "fine", &r);
        assert_string_equal(r.body.p, "fine");
    }
    /* two lengths: what a proxy before us took for the body may be another one */
    assert_int_equal(
        status_of(s,
                  "POST /echo HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"
                  "\r\n0\r\n\r\nGET /echo HTTP/1.1\r\n",
                  &r),
        400);
    reply_clear(&r);
    server_close(s);
}

static void slow_senders_are_cut_off(void **state) {
    (void)state;
    server *s = begin(&(server_options){.idle_seconds = 1});
    raw c[4];
    for (int i = 0; i < 4; i++) raw_open(&c[i], server_port(s));
    raw_send(&c[1], "POST /echo HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\nhalf");
    raw_send(&c[2], "GET /echo HTT");
    bool open[2] = {true, true};
    for (int i = 0; i < 100 && (open[0] || open[1]); i++) { /* they never rest for as much as a second */
        open[0] = open[0] && raw_send(&c[2], "P");
        if (i == 0) raw_send(&c[3], "POST /echo HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n");
        open[1] = open[1] && raw_send(&c[3], "x");
        nanosleep(&(struct timespec){0, 100000000}, NULL);
    }
    assert_false(open[0]);
    assert_false(open[1]);
    assert_true(raw_is_closed(&c[0])); /* who said nothing at all */
    assert_true(raw_is_closed(&c[1]));
    for (int i = 0; i < 4; i++) raw_close(&c[i]);
    server_close(s);
}

static void silent_connections_do_not_keep_others_out(void **state) {
    (void)state;
    server *s = begin(&(server_options){.idle_seconds = 1, .connections = 16});
    raw silent[40];
    reply r = {0};
    for (int i = 0; i < 40; i++) raw_open(&silent[i], server_port(s));
    ask(server_port(s), "POST", "/echo", NULL, "fine", &r);
    assert_int_equal(r.status, 200);
    for (int i = 0; i < 40; i++) raw_close(&silent[i]);
    reply_clear(&r);
    server_close(s);
}

static void who_breaks_off_is_not_held(void **state) {
    (void)state;
    static const char request[] = "POST /echo HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n{}";
    static const size_t parts[] = {0, 10, 40, sizeof request - 1};
    server *s = begin(NULL); /* idle connections are closed after a minute */
    raw c;
    reply r = {0};
    for (int i = 0; i < 100; i++) {
        raw_open(&c, server_port(s));
        raw_send_n(&c, request, parts[i % 4]);
        raw_close(&c);
    }
    raw_open(&c, server_port(s)); /* one that only says that it will send no more gets its answer */
    raw_send(&c, "POST /echo HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\nlast");
    shutdown(c.fd, SHUT_WR);
    raw_read(&c, &r, false);
    assert_string_equal(r.body.p, "last");
    raw_close(&c);
    double until = clock_seconds() + 20;
    while (http_connections(server_http(s)) && clock_seconds() < until)
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    assert_int_equal(http_connections(server_http(s)), 0);
    reply_clear(&r);
    server_close(s);
}

static void *ask_often(void *arg) {
    reply r = {0};
    size_t good = 0;
    for (int i = 0; i < 100; i++) {
        ask(*(int *)arg, "POST", "/echo", NULL, "hello", &r);
        good += r.status == 200 && r.body.n == 5;
    }
    reply_clear(&r);
    return (void *)good;
}

static void two_hundred_connections(void **state) {
    (void)state;
    server *s = begin(NULL);
    raw *c = calloc(200, sizeof *c);
    reply r = {0};
    pthread_t t[2];
    int port = server_port(s);
    for (int i = 0; i < 200; i++) {
        raw_open(&c[i], port);
        raw_send(&c[i], "POST /echo HTTP/1.1\r\nHost: here\r\nContent-Length: 10\r\n\r\n01234");
    }
    for (int i = 0; i < 2; i++) pthread_create(&t[i], NULL, ask_often, &port); /* others come in between */
    for (int i = 0; i < 2; i++) {
        void *good;
        pthread_join(t[i], &good);
        assert_int_equal((size_t)good, 100);
    }
    for (int i = 199; i >= 0; i--) {
        if (i % 3) raw_send(&c[i], "56789");
        else raw_close(&c[i]); /* half a request */
    }
    for (int i = 0; i < 200; i++) {
        if (i % 3 == 0) continue;
        raw_read(&c[i], &r, false);
        assert_string_equal(r.body.p, "0123456789");
        raw_close(&c[i]);
    }
    free(c);
    reply_clear(&r);
    server_close(s);
}

static void keys_are_asked_for(void **state) {
    (void)state;
    setenv("HADAL_API_KEY", "first,second", 1);
    server *s = begin(NULL);
    unsetenv("HADAL_API_KEY");
    reply r = {0};
    int port = server_port(s);
    ask(port, "GET", "/echo", NULL, NULL, &r); /* an open route */
    assert_int_equal(r.status, 200);
    ask(port, "GET", "/closed", NULL, NULL, &r);
    assert_int_equal(r.status, 401);
    assert_true(reply_has(&r, "WWW-Authenticate: Bearer"));
    assert_non_null(strstr(r.body.p, "\"authentication_error\""));
    ask(port, "POST", "/v1/closed", "x-api-key: wrong\r\n", "{}", &r);
    assert_int_equal(r.status, 401);
    assert_non_null(strstr(r.body.p, "{\"type\":\"error\",\"error\":{\"type\":\"authentication_error\""));
    static const char *const wrong[] = {"Authorization: Bearer firs\r\n", "Authorization: Bearer first,second\r\n",
                                        "Authorization: first\r\n", "Authorization: Bearer \r\n", "x-api-key: \r\n"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        ask(port, "GET", "/closed", wrong[i], NULL, &r);
        assert_int_equal(r.status, 401);
    }
    static const char *const right[] = {"Authorization: Bearer first\r\n", "authorization: bearer second\r\n",
                                        "x-api-key: second\r\n"};
    for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
        ask(port, "GET", "/closed", right[i], NULL, &r);
        assert_int_equal(r.status, 503); /* there is no model */
        assert_non_null(strstr(r.body.p, "\"code\":\"loading\""));
        assert_non_null(strstr(r.head.p, "Retry-After: "));
    }
    server_drain(s);
    ask(port, "GET", "/closed", right[0], NULL, &r);
    assert_int_equal(r.status, 503);
    assert_non_null(strstr(r.body.p, "\"code\":\"draining\""));
    reply_clear(&r);
    server_close(s);
}

static void browsers_of_one_origin_may_call(void **state) {
    (void)state;
    server *s = begin(&(server_options){.cors = "http://a.example"});
    reply r = {0};
    ask(server_port(s), "GET", "/echo", "Origin: http://a.example\r\n", NULL, &r);
    assert_true(reply_has(&r, "Access-Control-Allow-Origin: http://a.example"));
    assert_true(reply_has(&r, "Vary: Origin"));
    ask(server_port(s), "GET", "/echo", "Origin: http://b.example\r\n", NULL, &r);
    assert_null(strstr(r.head.p, "Access-Control"));
    ask(server_port(s), "OPTIONS", "/v1/closed",
        "Origin: http://a.example\r\nAccess-Control-Request-Headers: authorization, x-stainless-os\r\n", NULL, &r);
    assert_int_equal(r.status, 204);
    assert_true(reply_has(&r, "Access-Control-Allow-Headers: authorization, x-stainless-os"));
    server_close(s);
    s = begin(&(server_options){.cors = "*"});
    ask(server_port(s), "GET", "/nowhere", "Origin: http://b.example\r\n", NULL, &r);
    assert_int_equal(r.status, 404);
    assert_true(reply_has(&r, "Access-Control-Allow-Origin: *"));
    reply_clear(&r);
    server_close(s);
}

static void where_it_listens(void **state) {
    (void)state;
    server *s = begin(NULL), *other = NULL;
    error e;
    assert_int_equal(server_open(&other, &(server_options){.port = server_port(s)}, &e), ERR_IO);
    assert_non_null(strstr(e.text, "another port"));
    assert_int_equal(server_open(&other, &(server_options){.host = "no.such.host.invalid"}, &e), ERR_ARG);
    assert_int_equal(server_open(&other, &(server_options){.keys_file = "/nowhere/keys"}, &e), ERR_FORMAT);
    assert_null(other);
    server_close(s);
}

static int open_files(void) {
    int n = 0;
    for (int fd = 0; fd < 1024; fd++) n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void nothing_stays_open(void **state) {
    (void)state;
    reply r = {0};
    server_close(begin(NULL)); /* what the libraries open once */
    int before = open_files();
    for (int i = 0; i < 10; i++) {
        server *s = begin(&(server_options){.body_bytes = 10, .connections = i + 1});
        ask(server_port(s), "POST", "/echo", NULL, "more than ten bytes", &r);
        assert_int_equal(r.status, 413);
        ask(server_port(s), "POST", "/echo", NULL, "ten", &r);
        assert_int_equal(r.status, 200);
        server_close(s);
    }
    assert_int_equal(open_files(), before);
    reply_clear(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bodies_arrive_whole),
        cmocka_unit_test(permission_to_send_is_given),
        cmocka_unit_test(large_bodies_are_refused_at_once),
        cmocka_unit_test(connections_are_kept),
        cmocka_unit_test(methods),
        cmocka_unit_test(paths),
        cmocka_unit_test(headers),
        cmocka_unit_test(nonsense_is_survived),
        cmocka_unit_test(slow_senders_are_cut_off),
        cmocka_unit_test(silent_connections_do_not_keep_others_out),
        cmocka_unit_test(who_breaks_off_is_not_held),
        cmocka_unit_test(two_hundred_connections),
        cmocka_unit_test(keys_are_asked_for),
        cmocka_unit_test(browsers_of_one_origin_may_call),
        cmocka_unit_test(where_it_listens),
        cmocka_unit_test(nothing_stays_open),
    };
    return cmocka_run_group_tests_name("server/http", tests, NULL, NULL);
}
