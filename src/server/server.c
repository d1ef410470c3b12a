#include "server/server.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/str.h"
#include "server/call_memory.h"
#include "server/metrics.h"
#include "server/responses_memory.h"
#include "server/server_inner.h"

enum { REMEMBERED_TOKENS = 4 << 20 }; /* of answers with tool calls: 16 MiB */

struct server {
    server_options o;
    _Atomic(server_state) state;
    int64_t started;
    auth *keys;
    request_log *log;
    metrics *metrics;
    call_memory *calls;
    response_memory *responses;
    http *h;
    /* written before the state becomes SERVER_READY: */
    hadal_model *model;
    hadal_engine *engine;
    char *model_id, *folder_name;
};

static void fill_defaults(server_options *o) {
    if (!o->host) o->host = "127.0.0.1";
    if (!o->body_bytes) o->body_bytes = 8 << 20;
    if (!o->connections) o->connections = 512;
    if (!o->idle_seconds) o->idle_seconds = 60;
    if (!o->request_seconds) o->request_seconds = 3600;
    if (!o->max_samples) o->max_samples = 16;
    if (!o->ping_seconds) o->ping_seconds = 10;
}

static status open_parts(server *s, error *e) {
    TRY(auth_open(&s->keys, s->o.keys_file, getenv("HADAL_API_KEY"), e));
    TRY(request_log_open(&s->log, &s->o, e));
    TRY(server_metrics_open(&s->metrics, e));
    TRY(call_memory_open(&s->calls, REMEMBERED_TOKENS, e));
    TRY(response_memory_open(&s->responses, 0, 0, e));
    return http_open(&s->h, s, &s->o, e);
}

status server_open(server **out, const server_options *o, error *e) {
    server *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s) return fail(e, ERR_NOMEM, "memory is out");
    s->o = *o;
    fill_defaults(&s->o);
    s->started = time(NULL);
    status st = open_parts(s, e);
    if (st == OK) *out = s;
    else server_close(s);
    return st;
}

/* "/models/DeepSeek-V3/" is called "DeepSeek-V3". */
static char *name_of(const char *folder) {
    char *real = realpath(folder, NULL);
    if (!real) return NULL;
    char *slash = strrchr(real, '/'), *name = strdup(slash && slash[1] ? slash + 1 : real);
    free(real);
    return name;
}

status server_serve(server *s, hadal_model *m, const char *folder, error *e) {
    hadal_error he;
    hadal_engine_options o = s->o.engine;
    o.size = sizeof o;
    s->folder_name = name_of(folder);
    const char *id = s->o.model_id ? s->o.model_id : s->folder_name;
    s->model_id = id ? strdup(id) : NULL;
    if (!s->model_id) return fail(e, ERR_NOMEM, "%s: no name for the model, give one", folder);
    if (hadal_engine_open(&s->engine, m, &o, &he)) return fail(e, (status)he.code, "%s", he.text);
    s->model = m;
    server_state loading = SERVER_LOADING; /* a drain may have begun meanwhile */
    atomic_compare_exchange_strong(&s->state, &loading, SERVER_READY);
    return OK;
}

int server_drain(server *s) {
    if (server_now(s) != SERVER_CLOSING) atomic_store(&s->state, SERVER_DRAINING);
    return http_running(s->h);
}

/* First no handler uses the engine any more; then the engine ends its answers, whose keepers release their exchanges;
 * then nobody but libmicrohttpd holds one. */
void server_close(server *s) {
    if (!s) return;
    atomic_store(&s->state, SERVER_CLOSING);
    if (s->h) http_quiet(s->h);
    hadal_engine_close(s->engine);
    http_close(s->h);
    call_memory_close(s->calls);
    response_memory_close(s->responses);
    server_metrics_close(s->metrics);
    request_log_close(s->log);
    auth_close(s->keys);
    free(s->model_id);
    free(s->folder_name);
    free(s);
}

int server_port(const server *s) {
    return http_port(s->h);
}

/* --- for handlers ----------------------------------------------------------------------------------------------- */

hadal_model *server_model(const server *s) {
    return s->model;
}

const hadal_tokenizer *server_tokenizer(const server *s) {
    return hadal_model_tokenizer(s->model);
}

hadal_engine *server_engine(const server *s) {
    return s->engine;
}

const char *server_model_id(const server *s) {
    return s->model_id;
}

const char *server_folder_name(const server *s) {
    return s->folder_name;
}

const server_options *server_settings(const server *s) {
    return &s->o;
}

int64_t server_started(const server *s) {
    return s->started;
}

struct call_memory *server_calls(const server *s) {
    return s->calls;
}

struct metrics *server_metrics(const server *s) {
    return s->metrics;
}

struct response_memory *server_responses(const server *s) {
    return s->responses;
}

/* --- for the HTTP core ------------------------------------------------------------------------------------------ */

server_state server_now(const server *s) {
    return atomic_load(&s->state);
}

const auth *server_auth(const server *s) {
    return s->keys;
}

request_log *server_log(const server *s) {
    return s->log;
}

http *server_http(const server *s) {
    return s->h;
}
