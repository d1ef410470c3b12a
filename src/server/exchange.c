/* Answers: what handlers send, until libmicrohttpd asks for it. */
#include "server/exchange.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "base/clock.h"
#include "server/http.h"

enum { MOST_WAITING = 4 << 20 }; /* bytes of a stream that a client has not taken */

/* --- life ------------------------------------------------------------------------------------------------------- */

static void make_id(char id[25]) {
    unsigned char r[12] = {0};
    if (getrandom(r, sizeof r, 0) != (ssize_t)sizeof r) memcpy(r, &(double){clock_seconds()}, sizeof(double));
    for (size_t i = 0; i < sizeof r; i++) snprintf(id + 2 * i, 3, "%02x", r[i]);
}

exchange *exchange_open(http *h, server *s, const char *method, const char *url) {
    exchange *x = calloc(1, sizeof *x);
    if (!x) return NULL;
    x->h = h;
    x->s = s;
    x->started = x->last_sent = clock_seconds();
    atomic_init(&x->users, 1);
    make_id(x->id);
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&x->lock, NULL);
    pthread_mutex_init(&x->leaving, &recursive);
    pthread_mutexattr_destroy(&recursive);
    x->method = strdup(method);
    x->path = strdup(url);
    x->normal = malloc(strlen(url) + 1);
    if (x->method && x->path && x->normal) return x;
    exchange_unref(x);
    return NULL;
}

void exchange_unref(exchange *x) {
    if (atomic_fetch_sub(&x->users, 1) != 1) return;
    if (x->c) http_over(x);
    pthread_mutex_destroy(&x->lock);
    pthread_mutex_destroy(&x->leaving);
    free(x->method);
    free(x->path);
    free(x->normal);
    str_free(&x->body);
    str_free(&x->headers);
    str_free(&x->out);
    free(x);
}

void exchange_keep(exchange *x) {
    atomic_fetch_add(&x->users, 1);
    pthread_mutex_lock(&x->lock);
    x->kept = true;
    pthread_mutex_unlock(&x->lock);
}

void exchange_release(exchange *x) {
    if (!exchange_answered(x)) exchange_error(x, 500, NULL, NULL, "the request ended without an answer");
    pthread_mutex_lock(&x->leaving); /* a `gone` that runs right now may still use its argument */
    x->on_gone = NULL;
    pthread_mutex_unlock(&x->leaving);
    exchange_unref(x);
}

/* --- the request ------------------------------------------------------------------------------------------------ */

const char *exchange_body(const exchange *x, size_t *n) {
    *n = x->body.n;
    return x->body.n ? x->body.p : "";
}

const char *exchange_tail(const exchange *x) {
    return x->tail;
}

const char *exchange_header(const exchange *x, const char *name) {
    return MHD_lookup_connection_value(x->mhd, MHD_HEADER_KIND, name);
}

const char *exchange_id(const exchange *x) {
    return x->id;
}

double exchange_started(const exchange *x) {
    return x->started;
}

/* --- whole answers ---------------------------------------------------------------------------------------------- */

void exchange_wake(exchange *x) {
    if (!x->suspended) return;
    x->suspended = false;
    MHD_resume_connection(x->mhd);
}

/* With x->lock held. */
static void add_header(exchange *x, const char *name, const char *value) {
    if (x->state != UNANSWERED) return;
    str_add(&x->headers, name, strlen(name) + 1);
    str_add(&x->headers, value, strlen(value) + 1);
}

void exchange_add_header(exchange *x, const char *name, const char *value) {
    pthread_mutex_lock(&x->lock);
    add_header(x, name, value);
    pthread_mutex_unlock(&x->lock);
}

/* With x->lock held. */
static void answer_locked(exchange *x, int http_status, const char *type, const char *text, size_t n) {
    str_add(&x->out, text, n);
    x->state = WHOLE;
    x->ended = true;
    x->last_sent = clock_seconds();
    x->status = x->out.failed ? 500 : http_status;
    x->type = type;
    exchange_wake(x);
}

static void answer(exchange *x, int http_status, const char *type, const char *text, size_t n) {
    pthread_mutex_lock(&x->lock);
    if (x->state == UNANSWERED && !x->gone) answer_locked(x, http_status, type, text, n);
    pthread_mutex_unlock(&x->lock);
}

void exchange_text(exchange *x, int http_status, const char *type, const char *text, size_t n) {
    answer(x, http_status, type, text, n);
}

static const char out_of_memory[] =
    "{\"error\":{\"message\":\"memory is out\",\"type\":\"server_error\",\"param\":null,\"code\":null}}";

void exchange_json(exchange *x, int http_status, json_t *body) {
    char *text = body ? json_dumps(body, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    if (text) answer(x, http_status, "application/json", text, strlen(text));
    else answer(x, 500, "application/json", out_of_memory, sizeof out_of_memory - 1);
    free(text);
    json_decref(body);
}

bool exchange_answered(const exchange *x) {
    exchange *own = (exchange *)x;
    pthread_mutex_lock(&own->lock);
    bool is = x->state != UNANSWERED || x->gone;
    pthread_mutex_unlock(&own->lock);
    return is;
}

/* --- errors ----------------------------------------------------------------------------------------------------- */

static const struct error_type {
    int status;
    const char *openai, *anthropic, *retry;
} error_types[] = {
    {400, "invalid_request_error", "invalid_request_error", NULL},
    {401, "authentication_error", "authentication_error", NULL},
    {403, "permission_error", "permission_error", NULL},
    {404, "not_found_error", "not_found_error", NULL},
    {413, "invalid_request_error", "request_too_large", NULL},
    {429, "rate_limit_error", "rate_limit_error", "2"},
    {500, "server_error", "api_error", NULL},
    {501, "not_implemented_error", "invalid_request_error", NULL},
    {503, "service_unavailable_error", "overloaded_error", "5"},
};

static const struct error_type *error_type(int http_status) {
    for (size_t i = 0; i < sizeof error_types / sizeof *error_types; i++)
        if (error_types[i].status == http_status) return &error_types[i];
    return &error_types[http_status < 500 ? 0 : 6];
}

/* {"error": ...} in the exchange's dialect; NULL: memory is out. */
static json_t *error_body(const exchange *x, int http_status, const char *param, const char *code,
                          const char *message) {
    json_t *text = json_string(message);
    for (size_t n = strlen(message); !text && n && n > strlen(message) - 4;) /* a character may have been cut in two */
        text = json_stringn(message, --n);
    if (!text) text = json_string("the message is not UTF-8");
    if (x->route && x->route->dialect == DIALECT_ANTHROPIC)
        return json_pack("{s:s, s:{s:s, s:o}, s:s}", "type", "error", "error", "type",
                         error_type(http_status)->anthropic, "message", text, "request_id", x->id);
    return json_pack("{s:{s:o, s:s, s:s?, s:s?}}", "error", "message", text, "type", error_type(http_status)->openai,
                     "param", param, "code", code);
}

/* With x->lock held. */
static void event_locked(exchange *x, const char *event, const char *data, size_t n) {
    if (x->out.n - x->taken > MOST_WAITING) x->overflowed = true; /* the watchdog ends it */
    if (x->overflowed) return;
    if (event) str_addf(&x->out, "event: %s\n", event);
    str_puts(&x->out, "data: ");
    str_add(&x->out, data, n);
    str_puts(&x->out, "\n\n");
    x->overflowed = x->out.failed;
    x->last_sent = clock_seconds();
    exchange_wake(x);
}

/* With x->lock held; takes body. */
static void error_locked(exchange *x, int http_status, json_t *body) {
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    const char *line = text ? text : out_of_memory;
    if (x->state == STREAM) {
        event_locked(x, x->route->dialect == DIALECT_ANTHROPIC ? "error" : NULL, line, strlen(line));
        x->ended = true;
        exchange_wake(x);
    } else if (x->state == UNANSWERED) {
        const struct error_type *t = error_type(http_status);
        if (t->status == http_status && t->retry) add_header(x, "Retry-After", t->retry);
        answer_locked(x, text ? http_status : 500, "application/json", line, strlen(line));
    }
    free(text);
    json_decref(body);
}

void exchange_error(exchange *x, int http_status, const char *param, const char *code, const char *fmt, ...) {
    char message[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    json_t *body = error_body(x, http_status, param, code, message);
    pthread_mutex_lock(&x->lock);
    if (x->gone || x->ended) json_decref(body);
    else error_locked(x, http_status, body);
    pthread_mutex_unlock(&x->lock);
}

/* --- streams ---------------------------------------------------------------------------------------------------- */

void exchange_stream(exchange *x) {
    pthread_mutex_lock(&x->lock);
    if (x->state == UNANSWERED && !x->gone) {
        add_header(x, "Cache-Control", "no-cache");
        add_header(x, "X-Accel-Buffering", "no"); /* nginx passes events on as they come */
        x->state = STREAM;
        x->status = 200;
        x->type = "text/event-stream; charset=utf-8";
        x->last_sent = clock_seconds();
        exchange_wake(x);
    }
    pthread_mutex_unlock(&x->lock);
}

/* With x->lock held. */
static bool takes(const exchange *x) {
    return x->state == STREAM && !x->ended && !x->gone && !x->overflowed;
}

void exchange_event(exchange *x, const char *event, const char *data, size_t n) {
    pthread_mutex_lock(&x->lock);
    if (takes(x)) event_locked(x, event, data, n);
    pthread_mutex_unlock(&x->lock);
}

void exchange_event_json(exchange *x, const char *event, json_t *data) {
    char *text = data ? json_dumps(data, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    if (text) exchange_event(x, event, text, strlen(text));
    else {
        pthread_mutex_lock(&x->lock);
        x->overflowed = true;
        pthread_mutex_unlock(&x->lock);
    }
    free(text);
    json_decref(data);
}

void exchange_end(exchange *x) {
    pthread_mutex_lock(&x->lock);
    if (x->state == STREAM) {
        x->ended = true;
        x->broken |= x->overflowed;
        exchange_wake(x);
    }
    pthread_mutex_unlock(&x->lock);
}

void exchange_ping(exchange *x, double now) {
    pthread_mutex_lock(&x->lock);
    if (takes(x) && x->taken == x->out.n) {
        str_puts(&x->out, ": ping\n\n");
        x->last_sent = now;
        exchange_wake(x);
    }
    pthread_mutex_unlock(&x->lock);
}

/* A client that is always a little behind must not make the buffer grow. */
static void drop_taken(exchange *x) {
    x->out.n -= x->taken;
    memmove(x->out.p, x->out.p + x->taken, x->out.n);
    x->taken = 0;
}

/* What libmicrohttpd asks for: bytes, the end, or nothing yet: then the connection is suspended. */
static ssize_t read_some(exchange *x, char *to, size_t most) {
    pthread_mutex_lock(&x->lock);
    size_t n = x->out.n - x->taken;
    ssize_t result = 0;
    if (x->broken || x->out.failed) result = MHD_CONTENT_READER_END_WITH_ERROR;
    else if (n) {
        if (n > most) n = most;
        memcpy(to, x->out.p + x->taken, n);
        x->taken += n;
        if (x->taken > x->out.n / 2) drop_taken(x);
        result = (ssize_t)n;
    } else if (x->ended) result = MHD_CONTENT_READER_END_OF_STREAM;
    else if (http_closing(x->h)) result = MHD_CONTENT_READER_END_WITH_ERROR;
    else {
        x->suspended = true;
        MHD_suspend_connection(x->mhd);
    }
    pthread_mutex_unlock(&x->lock);
    return result;
}

/* --- the end of a client ---------------------------------------------------------------------------------------- */

void exchange_on_gone(exchange *x, void (*gone)(void *arg), void *arg) {
    pthread_mutex_lock(&x->leaving);
    pthread_mutex_lock(&x->lock);
    bool already = x->gone;
    pthread_mutex_unlock(&x->lock);
    if (already) gone(arg);
    else {
        x->on_gone = gone;
        x->gone_arg = arg;
    }
    pthread_mutex_unlock(&x->leaving);
}

/* body: an error for a client that is there, taken; NULL: the client is not. */
static void leave(exchange *x, json_t *body) {
    pthread_mutex_lock(&x->leaving);
    pthread_mutex_lock(&x->lock);
    bool tell = !x->gone && !x->ended;
    if (body && tell) error_locked(x, 503, json_incref(body));
    else x->broken |= !body;
    if (!x->status) x->status = 499; /* as nginx calls it: the client closed the request */
    x->gone = true;
    exchange_wake(x);
    pthread_mutex_unlock(&x->lock);
    if (tell && x->on_gone) x->on_gone(x->gone_arg);
    pthread_mutex_unlock(&x->leaving);
    json_decref(body);
}

void exchange_leave(exchange *x) {
    leave(x, NULL);
}

void exchange_timeout(exchange *x) {
    char message[96];
    snprintf(message, sizeof message, "the request took longer than %d seconds",
             server_settings(x->s)->request_seconds);
    json_t *body = error_body(x, 503, NULL, "timeout", message);
    if (!body) body = json_null();
    leave(x, body);
}

void exchange_note(exchange *x, int prompt_tokens, int cached_tokens, int tokens, double first_token_seconds,
                   const char *finish) {
    pthread_mutex_lock(&x->lock);
    x->note = (request_note){prompt_tokens, cached_tokens, tokens, first_token_seconds, ""};
    snprintf(x->note.finish, sizeof x->note.finish, "%s", finish ? finish : "");
    pthread_mutex_unlock(&x->lock);
}

/* --- to libmicrohttpd ------------------------------------------------------------------------------------------- */

static ssize_t read_stream(void *arg, uint64_t at, char *to, size_t most) {
    (void)at;
    return read_some(arg, to, most);
}

static void add_headers(const exchange *x, struct MHD_Response *r) {
    for (size_t i = 0; i < x->headers.n;) {
        const char *name = x->headers.p + i, *value = name + strlen(name) + 1;
        MHD_add_response_header(r, name, value);
        i += strlen(name) + strlen(value) + 2;
    }
    MHD_add_response_header(r, "x-request-id", x->id);
    if (x->route && x->route->dialect == DIALECT_ANTHROPIC) MHD_add_response_header(r, "request-id", x->id);
    if (x->type) MHD_add_response_header(r, "Content-Type", x->type);
}

struct MHD_Response *exchange_response(exchange *x) {
    struct MHD_Response *r;
    if (x->state == STREAM) r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, read_stream, x, NULL);
    else {
        size_t n = x->out.n;
        r = MHD_create_response_from_buffer(n, str_take(&x->out), MHD_RESPMEM_MUST_FREE);
        x->taken = 0;
    }
    if (r) add_headers(x, r);
    return r;
}
