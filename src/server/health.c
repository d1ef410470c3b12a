/* What tells about the server itself: whether it answers, its version, counters, and what it is doing. */
#include <inttypes.h>
#include <string.h>
#include <time.h>
#include "base/clock.h"
#include "server/handlers.h"
#include "server/metrics.h"
#include "server/server_inner.h"

static const char *state_name(server_state state) {
    return state == SERVER_LOADING ? "loading" : state == SERVER_READY ? "ok" : "draining";
}

/* A draining server is not healthy: who asks sends its requests elsewhere. */
void handle_health(server *s, exchange *x) {
    server_state now = server_now(s);
    if (now != SERVER_READY) exchange_add_header(x, "Retry-After", "5");
    exchange_json(x, now == SERVER_READY ? 200 : 503, json_pack("{s:s}", "status", state_name(now)));
}

void handle_version(server *s, exchange *x) {
    (void)s;
    exchange_json(x, 200, json_pack("{s:s}", "version", hadal_version()));
}

static void get_stats(server *s, hadal_engine_stats *out) {
    *out = (hadal_engine_stats){.size = sizeof *out};
    hadal_engine_get_stats(server_engine(s), out);
}

void handle_metrics(server *s, exchange *x) {
    hadal_engine_stats stats;
    str text = {0};
    get_stats(s, &stats);
    server_metrics_write(server_metrics(s), &stats, http_connections(server_http(s)), &text);
    if (text.failed) exchange_json(x, 500, NULL);
    else exchange_text(x, 200, "text/plain; version=0.0.4; charset=utf-8", text.p, text.n);
    str_free(&text);
}

static void add_request(void *arg, const exchange *x) {
    if (!x->route || x->route->method[0] != 'P') return; /* what is asked for by GET is answered at once */
    json_array_append_new(arg, json_pack("{s:s, s:s, s:f, s:i, s:i, s:i, s:b}", "id", x->id, "path", x->route->path,
                                         "seconds", clock_seconds() - x->started, "prompt_tokens",
                                         x->note.prompt_tokens, "cached_tokens", x->note.cached_tokens, "tokens",
                                         x->note.tokens, "stream", x->state == STREAM));
}

static json_t *engine_json(const hadal_engine_stats *e) {
    json_t *o = json_object();
    const struct {
        const char *name;
        uint64_t value;
    } all[] = {{"running", (uint64_t)e->running},
               {"waiting", (uint64_t)e->waiting},
               {"sequences", (uint64_t)e->sequences},
               {"queue", (uint64_t)e->queue},
               {"context", (uint64_t)e->context},
               {"pages_total", (uint64_t)e->pages_total},
               {"pages_running", (uint64_t)e->pages_running},
               {"pages_kept", (uint64_t)e->pages_kept},
               {"page_tokens", (uint64_t)e->page_tokens},
               {"page_bytes", e->page_bytes},
               {"cache_folder_bytes", e->cache_folder_bytes},
               {"prompt_tokens", e->prompt_tokens},
               {"cached_tokens", e->cached_tokens},
               {"generated_tokens", e->generated_tokens},
               {"steps", e->steps},
               {"preemptions", e->preemptions},
               {"draft_proposed", e->draft_proposed},
               {"draft_accepted", e->draft_accepted}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        json_object_set_new(o, all[i].name, json_integer((json_int_t)all[i].value));
    return o;
}

void handle_status(server *s, exchange *x) {
    hadal_engine_stats stats;
    get_stats(s, &stats);
    json_t *requests = json_array();
    http_each(server_http(s), add_request, requests);
    json_int_t uptime = (json_int_t)(time(NULL) - server_started(s));
    exchange_json(x, 200,
                  json_pack("{s:s, s:s, s:s, s:I, s:i, s:o, s:o}", "status", state_name(server_now(s)), "model",
                            server_model_id(s), "version", hadal_version(), "uptime_seconds", uptime, "connections",
                            http_connections(server_http(s)), "engine", engine_json(&stats), "requests", requests));
}
