/* Stands in for the server, an exchange and the engine in tests of what lies between them: requests are only written
 * down, and the test says what the engine answers. The model is a real one. For one test program: defines functions. */
#ifndef HADAL_TESTS_SERVER_FAKE_SERVER_H
#define HADAL_TESTS_SERVER_FAKE_SERVER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include "api_test.h"
#include "server/call_memory.h"
#include "server/handlers.h"
#include "server/metrics.h"
#include <cmocka.h>

enum { MOST_REQUESTS = 8 };

struct hadal_engine {
    hadal_request requests[MOST_REQUESTS]; /* prompts copied */
    int n, refuse_at, refuse_code;         /* request number refuse_at is answered with the code, if it is not 0 */
    int cancelled[MOST_REQUESTS];
};

struct server {
    hadal_model *model;
    call_memory *calls;
    hadal_engine engine;
    server_options o;
};

struct exchange {
    char *body;
    int status; /* 0: not answered */
    json_t *answer;
    char param[64], code[64], message[512]; /* of an error */
    json_t *events;                         /* [DONE] is the text */
    bool streams, ended, kept, released;
    bool starved; /* an event was lost for want of memory */
    void (*gone)(void *arg);
    void *gone_arg;
    int noted_prompt, noted_cached, noted_tokens;
};

/* Of json.h's allocations so many succeed from now on, -1: all. */
static long fake_allowed = -1;
static void *fake_malloc(size_t n) {
    if (fake_allowed > 0) fake_allowed--;
    return fake_allowed ? malloc(n) : NULL;
}

/* --- server.h --------------------------------------------------------------------------------------------------- */

hadal_model *server_model(const server *s) {
    return s->model;
}
const hadal_tokenizer *server_tokenizer(const server *s) {
    return hadal_model_tokenizer(s->model);
}
hadal_engine *server_engine(const server *s) {
    return (hadal_engine *)(uintptr_t)&s->engine;
}
const char *server_model_id(const server *s) {
    (void)s;
    return "tiny";
}
const char *server_folder_name(const server *s) {
    (void)s;
    return "folder";
}
const server_options *server_settings(const server *s) {
    return &s->o;
}
struct call_memory *server_calls(const server *s) {
    return s->calls;
}
struct metrics *server_metrics(const server *s) {
    (void)s;
    return NULL;
}

void metrics_first_token(metrics *m, double seconds) {
    (void)m, (void)seconds;
}
void metrics_next_token(metrics *m, double seconds) {
    (void)m, (void)seconds;
}
void metrics_tokens(metrics *m, int prompt, int cached, int generated) {
    (void)m, (void)prompt, (void)cached, (void)generated;
}

/* --- exchange.h ------------------------------------------------------------------------------------------------- */

const char *exchange_body(const exchange *x, size_t *n) {
    *n = strlen(x->body);
    return x->body;
}
const char *exchange_id(const exchange *x) {
    (void)x;
    return "0123456789abcdef01234567";
}
double exchange_started(const exchange *x) {
    (void)x;
    return 0;
}
void exchange_json(exchange *x, int code, json_t *body) {
    assert_int_equal(x->status, 0);
    x->status = body ? code : 500;
    x->answer = body;
}
void exchange_text(exchange *x, int code, const char *type, const char *text, size_t n) {
    long allowed = fake_allowed;
    fake_allowed = -1;
    assert_string_equal(type, "application/json");
    exchange_json(x, code, json_loadb(text, n, 0, NULL));
    assert_non_null(x->answer);
    fake_allowed = allowed;
}
void exchange_error(exchange *x, int code, const char *param, const char *name, const char *fmt, ...) {
    va_list ap;
    assert_true(x->status == 0 || (x->streams && !x->ended));
    x->status = code;
    x->ended = true;
    snprintf(x->param, sizeof x->param, "%s", param ? param : "");
    snprintf(x->code, sizeof x->code, "%s", name ? name : "");
    va_start(ap, fmt);
    vsnprintf(x->message, sizeof x->message, fmt, ap);
    va_end(ap);
}
void exchange_stream(exchange *x) {
    assert_int_equal(x->status, 0);
    x->status = 200;
    x->streams = true;
    x->events = json_array();
}
void exchange_event(exchange *x, const char *event, const char *data, size_t n) {
    assert_true(x->streams && !x->ended && !event);
    json_t *j = *data == '{' ? json_loadb(data, n, 0, NULL) : json_stringn(data, n);
    if (j) json_array_append_new(x->events, j);
    else x->starved = true;
}
void exchange_event_json(exchange *x, const char *event, json_t *data) {
    assert_true(x->streams && !x->ended && !event);
    if (data) json_array_append_new(x->events, data);
    else x->starved = true;
}
void exchange_end(exchange *x) {
    x->ended = true;
}
bool exchange_answered(const exchange *x) {
    return x->status != 0;
}
void exchange_keep(exchange *x) {
    x->kept = true;
}
void exchange_release(exchange *x) {
    assert_true(x->kept && !x->released);
    x->released = true;
}
void exchange_on_gone(exchange *x, void (*gone)(void *arg), void *arg) {
    x->gone = gone;
    x->gone_arg = arg;
}
void exchange_note(exchange *x, int prompt, int cached, int tokens, double first, const char *finish) {
    (void)first, (void)finish;
    x->noted_prompt = prompt;
    x->noted_cached = cached;
    x->noted_tokens = tokens;
}

/* --- the engine ------------------------------------------------------------------------------------------------- */

int hadal_engine_submit(hadal_engine *g, const hadal_request *r, uint64_t *ticket, hadal_error *e) {
    if (g->refuse_code && g->n == g->refuse_at) {
        *e = (hadal_error){.code = g->refuse_code, .text = "no room"};
        return g->refuse_code;
    }
    assert_true(g->n < MOST_REQUESTS);
    int32_t *ids = malloc((size_t)r->n * sizeof *ids);
    memcpy(ids, r->prompt, (size_t)r->n * sizeof *ids);
    g->requests[g->n] = *r;
    g->requests[g->n].prompt = ids;
    *ticket = (uint64_t)g->n++;
    return HADAL_OK;
}
void hadal_engine_cancel(hadal_engine *g, uint64_t ticket) {
    g->cancelled[ticket]++;
}
void hadal_engine_get_stats(hadal_engine *g, hadal_engine_stats *out) {
    (void)g;
    *out = (hadal_engine_stats){.size = sizeof *out, .sequences = 4, .queue = 4, .context = 2000};
}

/* --- for tests -------------------------------------------------------------------------------------------------- */

typedef struct fake {
    server s;
    exchange x;
} fake;

/* body: ' stands for ". */
static void fake_request(fake *f, handler *handle, const char *body) {
    json_t *j = json_quoted(body);
    assert_non_null(j);
    f->x = (exchange){.body = json_dumps(j, JSON_ENCODE_ANY)};
    json_decref(j);
    handle(&f->s, &f->x);
}

static void fake_forget(fake *f) {
    for (int i = 0; i < f->s.engine.n; i++) free((void *)(uintptr_t)f->s.engine.requests[i].prompt);
    f->s.engine = (hadal_engine){0};
    json_decref(f->x.answer);
    json_decref(f->x.events);
    free(f->x.body);
    f->x = (exchange){0};
}

/* Asks again and again, each time with one more allocation that succeeds, until all is well. answer: what the engine
 * says to a request that came through. Gives the number of the times. */
static int fake_starve(fake *f, handler *handle, const char *body, void (*answer)(void)) {
    json_t *j = json_quoted(body);
    char *text = json_dumps(j, 0);
    json_decref(j);
    json_set_alloc_funcs(fake_malloc, free);
    bool good = false;
    int times = 0;
    for (; !good; times++) {
        f->x = (exchange){.body = strdup(text)};
        fake_allowed = times;
        handle(&f->s, &f->x);
        bool started = f->s.engine.n > 0;
        if (started) answer();
        bool lacked = fake_allowed == 0;
        fake_allowed = -1;
        assert_true(f->x.status == 200 || f->x.status == 500 || f->x.status == 400);
        assert_int_equal(f->x.released, started);
        good = f->x.status == 200 && !f->x.starved && !lacked;
        fake_forget(f);
    }
    json_set_alloc_funcs(malloc, free);
    free(text);
    return times;
}

static void fake_token(fake *f, int request, int sample, int32_t id, const char *text) {
    const hadal_request *r = &f->s.engine.requests[request];
    const int32_t top[] = {id, 40};
    const float logprobs[] = {-0.5F, -1.5F};
    hadal_token t = {.sequence = sample, .id = id, .text = text, .n = strlen(text)};
    if (r->sampling.logprobs) t.logprob = -0.5F;
    if (r->sampling.logprobs > 0) t.top_ids = top, t.top_logprobs = logprobs, t.n_top = 2;
    r->events.token(r->events.arg, &t);
}

/* text: all of the answer; ids: n of them. */
static void fake_done(fake *f, int request, int sample, const char *finish, const char *text, const int32_t *ids, int n,
                      int cached) {
    const hadal_request *r = &f->s.engine.requests[request];
    hadal_result result = {.text = (char *)(uintptr_t)text,
                           .n = strlen(text),
                           .ids = (int32_t *)(uintptr_t)ids,
                           .n_ids = n,
                           .finish = finish,
                           .prompt_tokens = r->n,
                           .cached_tokens = cached};
    hadal_error e = {.code = HADAL_ERR_IO, .text = "the disk burns"};
    r->events.done(r->events.arg, sample, &result, strcmp(finish, "error") ? NULL : &e);
}

static void fake_open(fake *f, const char *folder) {
    hadal_error he;
    error e;
    *f = (fake){.s.o.max_samples = 4};
    if (hadal_model_open(&f->s.model, folder, &(hadal_model_options){.size = sizeof(hadal_model_options), .threads = 1},
                         &he))
        fail_msg("%s", he.text);
    assert_int_equal(call_memory_open(&f->s.calls, 1000, &e), OK);
}

static void fake_close(fake *f) {
    fake_forget(f);
    call_memory_close(f->s.calls);
    hadal_model_close(f->s.model);
}

#endif
