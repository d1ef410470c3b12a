/* Addresses, and answers of HTTP taken apart, with the time at which each byte came. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdio.h>
#include "../../src/cli/http_client.c" /* the program is no part of the library that tests are linked with */
#include <cmocka.h>                    /* last: it has a fail of its own */

static void is_peer(const char *url, const char *host, const char *port) {
    http_peer p;
    assert_true(http_peer_of(&p, url));
    assert_string_equal(p.host, host);
    assert_string_equal(p.port, port);
}

static void test_addresses(void **state) {
    (void)state;
    http_peer p;
    is_peer("http://127.0.0.1:8000", "127.0.0.1", "8000");
    is_peer("http://localhost:8000/v1", "localhost", "8000");
    is_peer("http://a.example", "a.example", "80");
    is_peer("http://a.example/b:c", "a.example", "80");
    is_peer("http://[::1]:8000/", "::1", "8000");
    is_peer("http://[::1]", "::1", "80");
    const char *const wrong[] = {"",           "models/tiny", "https://a:1",       "http://",
                                 "http://:80", "http://[::1", "http://a:12345678", "http://[::1]x:8",
                                 "http:/a:1"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) assert_false(http_peer_of(&p, wrong[i]));
    char longest[400];
    memset(longest, 'a', sizeof longest);
    memcpy(longest, "http://", 7);
    longest[399] = 0;
    assert_false(http_peer_of(&p, longest));
}

/* A reply whose byte number i came at second i. */
static http_reply reply_of(const char *text) {
    http_reply r = {.ended = 1e9};
    for (size_t i = 0; text[i]; i++) {
        str_putc(&r.body, text[i]);
        assert_true(add_mark(&r, (http_mark){i + 1, (double)i}));
    }
    return r;
}

static void takes(const char *text, int code, const char *body) {
    error e = {0};
    http_reply r = reply_of(text);
    if (http_take_apart(&r, &e) != OK) fail_msg("%s", e.text);
    assert_int_equal(r.status, code);
    assert_string_equal(r.body.p ? r.body.p : "", body);
    http_reply_clear(&r);
}

static void refuses(const char *text) {
    error e = {0};
    http_reply r = reply_of(text);
    assert_int_equal(http_take_apart(&r, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "HTTP/1.1"));
    http_reply_clear(&r);
}

#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

static void test_answers(void **state) {
    (void)state;
    takes("HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc", 404, "abc");
    takes("HTTP/1.1 204 No Content\r\n\r\n", 204, "");
    takes(CHUNKED "3\r\nabc\r\n0A;x=y\r\n0123456789\r\n0\r\n\r\n", 200, "abc0123456789");
    takes("HTTP/1.1 200 OK\r\nX: y\r\ntransfer-ENCODING: Chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", 200, "a");
    const char *const broken[] = {"",
                                  "HTTP/1.1 200 OK\r\nContent-",
                                  "HTTP/1.0 200 OK\r\n\r\nabc",
                                  CHUNKED,
                                  CHUNKED "3\r\nab",
                                  CHUNKED "3\r\nabc\r\n",
                                  CHUNKED "3\r\nabc",
                                  CHUNKED "x\r\nabc\r\n0\r\n",
                                  CHUNKED "-1\r\nabc\r\n0\r\n",
                                  CHUNKED "ffffffffffffffffff\r\nabc\r\n0\r\n",
                                  CHUNKED "fffffffffffffff0\r\nabc\r\n0\r\n"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) refuses(broken[i]);
}

static void test_times(void **state) {
    (void)state;
    error e = {0};
    const double head = sizeof CHUNKED - 1;
    http_reply r = reply_of(CHUNKED "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    assert_int_equal(http_take_apart(&r, &e), OK);
    assert_true(http_time_of(&r, 0) == head + 7 && http_time_of(&r, 2) == head + 7); /* with its chunk's last byte */
    assert_true(http_time_of(&r, 3) == head + 14 && http_time_of(&r, 4) == head + 14);
    assert_true(http_time_of(&r, 5) == r.ended);
    http_reply_clear(&r);
    r = reply_of("HTTP/1.1 200 OK\r\n\r\nabc");
    assert_int_equal(http_take_apart(&r, &e), OK);
    for (size_t i = 0; i < 3; i++) assert_true(http_time_of(&r, i) == (double)(19 + i));
    http_reply_clear(&r);
}

/* Takes one connection, keeps what it was asked in arg, and answers. */
typedef struct listener {
    int fd;
    char asked[1000];
} listener;

static void *answer_one(void *arg) {
    listener *l = arg;
    int fd = accept(l->fd, NULL, NULL);
    assert_true(fd >= 0);
    size_t n = 0;
    while (!strstr(l->asked, "{}")) {
        ssize_t got = recv(fd, l->asked + n, sizeof l->asked - 1 - n, 0);
        assert_true(got > 0);
        n += (size_t)got;
    }
    const char text[] = CHUNKED "2\r\nhi\r\n0\r\n\r\n";
    assert_true(send(fd, text, sizeof text - 1, 0) == (ssize_t)sizeof text - 1);
    close(fd);
    return NULL;
}

static void test_fetch(void **state) {
    (void)state;
    error e = {0};
    listener l = {.fd = socket(AF_INET, SOCK_STREAM, 0)};
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    assert_true(bind(l.fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(l.fd, 1) == 0);
    assert_int_equal(getsockname(l.fd, (struct sockaddr *)&a, &n), 0);
    http_peer p = {.host = "127.0.0.1", .key = "secret"};
    snprintf(p.port, sizeof p.port, "%d", ntohs(a.sin_port));
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, answer_one, &l), 0);
    http_reply r;
    str body = {0};
    str_puts(&body, "{}");
    if (http_fetch(&r, &p, "POST", "/x", &body, &e) != OK) fail_msg("%s", e.text);
    pthread_join(t, NULL);
    assert_int_equal(http_take_apart(&r, &e), OK);
    assert_true(r.status == 200 && strcmp(r.body.p, "hi") == 0);
    assert_true(r.begun <= http_time_of(&r, 0) && http_time_of(&r, 1) <= r.ended);
    assert_true(strncmp(l.asked, "POST /x HTTP/1.1\r\n", 18) == 0);
    assert_non_null(strstr(l.asked, "\r\nAuthorization: Bearer secret\r\n"));
    assert_non_null(strstr(l.asked, "\r\nContent-Length: 2\r\n"));
    http_reply_clear(&r);
    close(l.fd);
    assert_int_equal(http_fetch(&r, &p, "GET", "/x", NULL, &e), ERR_IO); /* nobody listens there any more */
    assert_non_null(strstr(e.text, "cannot connect"));
    http_reply_clear(&r);
    str_free(&body);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_fetch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
