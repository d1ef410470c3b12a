/* Answers that come later: whole ones and streams, from other threads, to clients that stay, leave, or do not read. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"
#include "raw.h"
#include "server/exchange.h"
#include <cmocka.h>

/* --- handlers --------------------------------------------------------------------------------------------------- */

enum { MOST = 256 };

static struct {
    pthread_mutex_t lock;
    exchange *kept[MOST]; /* by handle_keep, in the order they came */
    atomic_int n_kept, gone, released;
    atomic_bool release_when_gone;
} here = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void on_gone(void *arg) {
    atomic_fetch_add(&here.gone, 1);
    if (!atomic_load(&here.release_when_gone)) return;
    exchange_error(arg, 500, NULL, NULL, "nobody reads this");
    exchange_release(arg);
    atomic_fetch_add(&here.released, 1);
}

static void keep(exchange *x) {
    exchange_keep(x);
    pthread_mutex_lock(&here.lock);
    here.kept[here.n_kept] = x;
    atomic_fetch_add(&here.n_kept, 1);
    pthread_mutex_unlock(&here.lock);
}

static void handle_keep(server *s, exchange *x) {
    (void)s;
    exchange_on_gone(x, on_gone, x);
    keep(x);
}

static void handle_stream(server *s, exchange *x) { /* begun at once */
    (void)s;
    exchange_on_gone(x, on_gone, x);
    exchange_stream(x);
    keep(x);
}

static void handle_deaf(server *s, exchange *x) { /* learns late that a client may leave */
    (void)s;
    keep(x);
}

static void handle_error(server *s, exchange *x) {
    (void)s;
    exchange_error(x, atoi(exchange_tail(x)), "the parameter", "the_code", "because of %d", 7);
}

static void handle_twice(server *s, exchange *x) {
    (void)s;
    exchange_text(x, 201, "text/plain", "first", 5);
    assert_true(exchange_answered(x));
    exchange_text(x, 200, "text/plain", "second", 6);
    exchange_error(x, 500, NULL, NULL, "third");
    exchange_stream(x);
}

static void handle_nothing(server *s, exchange *x) {
    (void)s, (void)x;
}

static void handle_no_json(server *s, exchange *x) {
    (void)s;
    exchange_json(x, 200, NULL);
}

const route routes[] = {
    {"POST", "/keep", handle_keep, DIALECT_OPENAI, true},
    {"POST", "/stream", handle_stream, DIALECT_OPENAI, true},
    {"POST", "/stream/anthropic", handle_stream, DIALECT_ANTHROPIC, true},
    {"POST", "/deaf", handle_deaf, DIALECT_OPENAI, true},
    {"GET", "/error/", handle_error, DIALECT_OPENAI, true},
    {"GET", "/anthropic/", handle_error, DIALECT_ANTHROPIC, true},
    {"GET", "/twice", handle_twice, DIALECT_OPENAI, true},
    {"GET", "/nothing", handle_nothing, DIALECT_OPENAI, true},
    {"GET", "/nojson", handle_no_json, DIALECT_OPENAI, true},
    {0},
};

/* --- the server of each test ------------------------------------------------------------------------------------ */

static void keep_line(void *arg, const char *line) {
    str *s = arg;
    str_puts(s, line);
    str_putc(s, '\n');
}

static str lines; /* of the log; whole after server_close */

static server *begin(const server_options *more) {
    server *s = NULL;
    error e;
    server_options o = more ? *more : (server_options){0};
    o.log = keep_line;
    o.log_arg = &lines;
    str_free(&lines);
    atomic_store(&here.n_kept, 0);
    atomic_store(&here.gone, 0);
    atomic_store(&here.released, 0);
    atomic_store(&here.release_when_gone, false);
    if (server_open(&s, &o, &e) != OK) fail_msg("%s", e.text);
    return s;
}

static void wait_for(atomic_int *v, int least) {
    double until = clock_seconds() + 20;
    while (atomic_load(v) < least && clock_seconds() < until) nanosleep(&(struct timespec){0, 2000000}, NULL);
    assert_true(atomic_load(v) >= least);
}

static void post(raw *c, server *s, const char *path) {
    str t = {0};
    raw_open(c, server_port(s));
    str_addf(&t, "POST %s HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\n{}", path);
    assert_true(raw_send_n(c, t.p, t.n));
    str_free(&t);
}

static void end(exchange *x) {
    exchange_end(x);
    exchange_release(x);
}

/* --- tests ------------------------------------------------------------------------------------------------------ */

static void answers_come_later(void **state) {
    (void)state;
    server *s = begin(NULL);
    raw c;
    reply r = {0};
    post(&c, s, "/keep");
    wait_for(&here.n_kept, 1);
    assert_int_equal(server_drain(s), 1);
    exchange_json(here.kept[0], 200, json_pack("{s:i}", "answer", 42));
    exchange_release(here.kept[0]);
    raw_read(&c, &r, false);
    assert_int_equal(r.status, 200);
    assert_string_equal(r.body.p, "{\"answer\":42}");
    raw_close(&c);
    double until = clock_seconds() + 20;
    while (server_drain(s) && clock_seconds() < until) {}
    assert_int_equal(server_drain(s), 0);
    assert_int_equal(here.gone, 0);
    server_close(s);
    reply_clear(&r);
    assert_non_null(strstr(lines.p, "POST /keep 200"));
}

static void a_forgotten_answer_is_our_fault(void **state) {
    (void)state;
    server *s = begin(NULL);
    raw c;
    reply r = {0};
    ask(server_port(s), "GET", "/nothing", NULL, NULL, &r);
    assert_int_equal(r.status, 500);
    ask(server_port(s), "GET", "/nojson", NULL, NULL, &r);
    assert_int_equal(r.status, 500);
    assert_non_null(strstr(r.body.p, "\"server_error\""));
    post(&c, s, "/keep");
    wait_for(&here.n_kept, 1);
    exchange_release(here.kept[0]);
    raw_read(&c, &r, false);
    assert_int_equal(r.status, 500);
    raw_close(&c);
    server_close(s);
    reply_clear(&r);
}

static void the_first_answer_counts(void **state) {
    (void)state;
    server *s = begin(NULL);
    reply r = {0};
    ask(server_port(s), "GET", "/twice", NULL, NULL, &r);
    assert_int_equal(r.status, 201);
    assert_string_equal(r.body.p, "first");
    assert_true(reply_has(&r, "Content-Type: text/plain"));
    server_close(s);
    reply_clear(&r);
}

static void *write_events(void *arg) {
    exchange *x = arg;
    for (int i = 0; i < 500; i++) {
        char text[32];
        snprintf(text, sizeof text, "{\"i\":%d}", i);
        exchange_event(x, i % 2 ? "odd" : NULL, text, strlen(text));
        if (i % 50 == 0) nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    exchange_event(x, NULL, "[DONE]", 6);
    end(x);
    return NULL;
}

static void check_events(const reply *r) {
    const char *at = r->body.p;
    for (int i = 0; i < 500; i++) {
        char want[64];
        int n = snprintf(want, sizeof want, "%sdata: {\"i\":%d}\n\n", i % 2 ? "event: odd\n" : "", i);
        assert_memory_equal(at, want, n);
        at += n;
    }
    assert_string_equal(at, "data: [DONE]\n\n");
}

static void streams_arrive_in_order(void **state) {
    (void)state;
    server *s = begin(NULL);
    raw c;
    reply r = {0};
    pthread_t t;
    for (int round = 0; round < 5; round++) { /* on one connection */
        if (!round) post(&c, s, "/stream");
        else assert_true(raw_send(&c, "POST /stream HTTP/1.1\r\nHost: here\r\n\r\n"));
        wait_for(&here.n_kept, round + 1);
        pthread_create(&t, NULL, write_events, here.kept[round]);
        raw_read(&c, &r, false);
        pthread_join(t, NULL);
        assert_int_equal(r.status, 200);
        assert_true(r.whole);
        assert_true(reply_has(&r, "Content-Type: text/event-stream; charset=utf-8"));
        check_events(&r);
    }
    raw_close(&c);
    raw_open(&c, server_port(s)); /* a client that knows no chunks */
    assert_true(raw_send(&c, "POST /stream HTTP/1.0\r\n\r\n"));
    wait_for(&here.n_kept, 6);
    pthread_create(&t, NULL, write_events, here.kept[5]);
    raw_read(&c, &r, false);
    pthread_join(t, NULL);
    assert_null(strstr(r.head.p, "chunked"));
    check_events(&r);
    raw_close(&c);
    server_close(s);
    reply_clear(&r);
}

static void an_error_ends_a_stream(void **state) {
    (void)state;
    server *s = begin(NULL);
    raw c;
    reply r = {0};
    for (int anthropic = 0; anthropic < 2; anthropic++) {
        post(&c, s, anthropic ? "/stream/anthropic" : "/stream");
        wait_for(&here.n_kept, anthropic + 1);
        exchange *x = here.kept[anthropic];
        exchange_event_json(x, NULL, json_pack("[i]", 1));
        exchange_error(x, 500, NULL, NULL, "it broke");
        exchange_event(x, NULL, "dropped", 7);
        exchange_release(x);
        raw_read(&c, &r, false);
        assert_int_equal(r.status, 200);
        assert_true(r.whole);
        assert_non_null(strstr(r.body.p, "data: [1]\n\n"));
        assert_non_null(strstr(r.body.p, "it broke"));
        assert_null(strstr(r.body.p, "dropped"));
        if (anthropic) assert_non_null(strstr(r.body.p, "\n\nevent: error\ndata: {\"type\":\"error\""));
        else assert_non_null(strstr(r.body.p, "\n\ndata: {\"error\":{"));
        raw_close(&c);
    }
    server_close(s);
    reply_clear(&r);
}

static void errors_have_types(void **state) {
    (void)state;
    static const struct {
        int status;
        const char *openai, *anthropic;
        bool retry;
    } all[] = {{400, "invalid_request_error", "invalid_request_error", false},
               {401, "authentication_error", "authentication_error", false},
               {404, "not_found_error", "not_found_error", false},
               {405, "invalid_request_error", "invalid_request_error", false},
               {413, "invalid_request_error", "request_too_large", false},
               {422, "invalid_request_error", "invalid_request_error", false},
               {429, "rate_limit_error", "rate_limit_error", true},
               {500, "server_error", "api_error", false},
               {503, "service_unavailable_error", "overloaded_error", true}};
    server *s = begin(NULL);
    reply r = {0};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (int anthropic = 0; anthropic < 2; anthropic++) {
            char path[64];
            json_t *o = NULL;
            error e;
            snprintf(path, sizeof path, anthropic ? "/anthropic/%d" : "/v1/error/%d", all[i].status);
            ask(server_port(s), "GET", path, NULL, NULL, &r);
            assert_int_equal(r.status, all[i].status);
            assert_int_equal(json_parse(&o, r.body.p, r.body.n, "body", &e), OK);
            json_t *why = json_object_get(o, "error");
            assert_string_equal(json_string_value(json_object_get(why, "type")),
                                anthropic ? all[i].anthropic : all[i].openai);
            assert_string_equal(json_string_value(json_object_get(why, "message")), "because of 7");
            if (anthropic) assert_string_equal(json_string_value(json_object_get(o, "type")), "error");
            else {
                assert_string_equal(json_string_value(json_object_get(why, "param")), "the parameter");
                assert_string_equal(json_string_value(json_object_get(why, "code")), "the_code");
            }
            assert_int_equal(strstr(r.head.p, "Retry-After: ") != NULL, all[i].retry);
            assert_non_null(strstr(r.head.p, "x-request-id: "));
            json_decref(o);
        }
    server_close(s);
    reply_clear(&r);
}

static void leaving_is_noticed(void **state) {
    (void)state;
    server *s = begin(NULL);
    static const char *const paths[] = {"/keep", "/stream"};
    for (int i = 0; i < 2; i++) {
        raw c;
        post(&c, s, paths[i]);
        wait_for(&here.n_kept, i + 1);
        raw_close(&c);
        wait_for(&here.gone, i + 1);
        assert_true(exchange_answered(here.kept[i]));
        exchange_event(here.kept[i], NULL, "x", 1);
        exchange_error(here.kept[i], 500, NULL, NULL, "too late");
        end(here.kept[i]);
    }
    assert_int_equal(here.gone, 2); /* once each */
    server_close(s);
    assert_non_null(strstr(lines.p, "POST /keep 499"));
    assert_non_null(strstr(lines.p, "client gone"));
}

static void who_asks_late_is_told_at_once(void **state) {
    (void)state;
    server *s = begin(NULL);
    raw c;
    post(&c, s, "/deaf");
    wait_for(&here.n_kept, 1);
    raw_close(&c);
    double until = clock_seconds() + 20;
    while (!exchange_answered(here.kept[0]) && clock_seconds() < until) nanosleep(&(struct timespec){0, 2000000}, NULL);
    exchange_on_gone(here.kept[0], on_gone, here.kept[0]);
    assert_int_equal(here.gone, 1);
    end(here.kept[0]);
    server_close(s);
}

static void long_requests_end(void **state) {
    (void)state;
    server *s = begin(&(server_options){.request_seconds = 1});
    raw c[2];
    reply r = {0};
    post(&c[0], s, "/keep");
    wait_for(&here.n_kept, 1);
    post(&c[1], s, "/stream");
    wait_for(&here.n_kept, 2);
    raw_read(&c[0], &r, false);
    assert_int_equal(r.status, 503);
    assert_non_null(strstr(r.body.p, "\"code\":\"timeout\""));
    assert_true(reply_has(&r, "Retry-After: 5"));
    raw_read(&c[1], &r, false);
    assert_int_equal(r.status, 200);
    assert_true(r.whole);
    assert_non_null(strstr(r.body.p, "\"code\":\"timeout\""));
    wait_for(&here.gone, 2);
    for (int i = 0; i < 2; i++) {
        exchange_text(here.kept[i], 200, "text/plain", "too late", 8);
        exchange_release(here.kept[i]);
        raw_close(&c[i]);
    }
    assert_int_equal(here.gone, 2);
    server_close(s);
    reply_clear(&r);
}

static void silent_streams_get_pings(void **state) {
    (void)state;
    server *s = begin(&(server_options){.ping_seconds = 1});
    raw c;
    reply r = {0};
    post(&c, s, "/stream");
    wait_for(&here.n_kept, 1);
    exchange_event(here.kept[0], NULL, "1", 1);
    assert_true(raw_until(&c, ": ping\n\n"));
    exchange_event(here.kept[0], NULL, "2", 1);
    end(here.kept[0]);
    raw_read(&c, &r, false);
    assert_memory_equal(r.body.p, "data: 1\n\n: ping\n\n", 17);
    assert_memory_equal(r.body.p + r.body.n - 9, "data: 2\n\n", 9);
    raw_close(&c);
    server_close(s);
    reply_clear(&r);
}

static void who_does_not_read_is_gone(void **state) {
    (void)state;
    server *s = begin(NULL);
    raw c;
    char *text = malloc(100000);
    memset(text, 'x', 100000);
    post(&c, s, "/stream");
    wait_for(&here.n_kept, 1);
    for (int i = 0; i < 2000 && !here.gone; i++) { /* the system's buffers take some megabytes */
        exchange_event(here.kept[0], NULL, text, 100000);
        if (i % 100 == 99) nanosleep(&(struct timespec){0, 20000000}, NULL);
    }
    wait_for(&here.gone, 1);
    end(here.kept[0]);
    raw_close(&c);
    free(text);
    server_close(s);
}

static void closing_ends_what_waits(void **state) {
    (void)state;
    server *s = begin(NULL);
    raw c[3];
    post(&c[0], s, "/keep");
    wait_for(&here.n_kept, 1);
    post(&c[1], s, "/stream");
    wait_for(&here.n_kept, 2);
    raw_open(&c[2], server_port(s)); /* nothing was asked */
    exchange_event(here.kept[1], NULL, "1", 1);
    assert_true(raw_until(&c[1], "data: 1"));
    atomic_store(&here.release_when_gone, true);
    server_close(s);
    assert_int_equal(here.gone, 2);
    assert_int_equal(here.released, 2);
    for (int i = 0; i < 3; i++) {
        assert_true(raw_is_closed(&c[i]));
        raw_close(&c[i]);
    }
}

static void *answer_half(void *arg) {
    int first = *(int *)arg;
    for (int i = first; i < 200; i += 2) {
        wait_for(&here.n_kept, i + 1);
        pthread_mutex_lock(&here.lock);
        exchange *x = here.kept[i];
        pthread_mutex_unlock(&here.lock);
        exchange_note(x, 1, 0, i, 0.5, "stop");
        exchange_stream(x);
        exchange_event(x, NULL, "1", 1);
        end(x);
    }
    return NULL;
}

static void two_hundred_at_once(void **state) {
    (void)state;
    server *s = begin(NULL);
    raw *c = calloc(200, sizeof *c);
    reply r = {0};
    pthread_t t[2];
    int first[2] = {0, 1};
    for (int i = 0; i < 2; i++) pthread_create(&t[i], NULL, answer_half, &first[i]);
    for (int i = 0; i < 200; i++) post(&c[i], s, "/keep");
    for (int i = 0; i < 200; i++) {
        raw_read(&c[i], &r, false);
        assert_int_equal(r.status, 200);
        assert_string_equal(r.body.p, "data: 1\n\n");
        raw_close(&c[i]);
    }
    for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
    assert_int_equal(here.gone, 0);
    free(c);
    server_close(s);
    reply_clear(&r);
}

/* Everything that can happen to a stream, at random moments, from all sides. */
static void *write_until_gone(void *arg) {
    int first = *(int *)arg;
    for (int i = first; i < 120; i += 2) {
        wait_for(&here.n_kept, i + 1);
        pthread_mutex_lock(&here.lock);
        exchange *x = here.kept[i];
        pthread_mutex_unlock(&here.lock);
        if (i % 3 == 0) exchange_stream(x);
        for (int k = 0; k < i; k++) exchange_event(x, NULL, "0123456789", 10);
        if (i % 5 == 0) exchange_error(x, 500, NULL, NULL, "broken");
        end(x);
    }
    return NULL;
}

static void clients_leave_at_any_moment(void **state) {
    (void)state;
    server *s = begin(NULL);
    pthread_t t[2];
    int first[2] = {0, 1};
    raw c;
    for (int i = 0; i < 2; i++) pthread_create(&t[i], NULL, write_until_gone, &first[i]);
    for (int i = 0; i < 120; i++) {
        post(&c, s, "/keep");
        if (i % 4) wait_for(&here.n_kept, i + 1);
        if (i % 7 == 0) raw_until(&c, "HTTP");
        wait_for(&here.n_kept, i + 1);
        raw_close(&c);
    }
    for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
    server_close(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_come_later),        cmocka_unit_test(a_forgotten_answer_is_our_fault),
        cmocka_unit_test(the_first_answer_counts),   cmocka_unit_test(streams_arrive_in_order),
        cmocka_unit_test(an_error_ends_a_stream),    cmocka_unit_test(errors_have_types),
        cmocka_unit_test(leaving_is_noticed),        cmocka_unit_test(who_asks_late_is_told_at_once),
        cmocka_unit_test(long_requests_end),         cmocka_unit_test(silent_streams_get_pings),
        cmocka_unit_test(who_does_not_read_is_gone), cmocka_unit_test(closing_ends_what_waits),
        cmocka_unit_test(two_hundred_at_once),       cmocka_unit_test(clients_leave_at_any_moment),
    };
    int failed = cmocka_run_group_tests_name("server/exchange", tests, NULL, NULL);
    str_free(&lines);
    return failed;
}
