#include "server/metrics.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MOST_BOUNDS = 16, MOST_COUNTERS = 256 };

typedef struct histogram {
    const double *bounds; /* ends with 0 */
    uint64_t counts[MOST_BOUNDS], n;
    double sum;
} histogram;

static const double wait_bounds[] = {.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 0};
static const double step_bounds[] = {.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 0};
static const double request_bounds[] = {.01, .05, .1, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 0};
static const double token_bounds[] = {16, 64, 256, 1024, 4096, 16384, 65536, 131072, 0};

typedef struct counter {
    char path[64];
    int status;
    uint64_t n;
} counter;

struct metrics {
    pthread_mutex_t lock;
    double started; /* seconds since 1970 */
    histogram first_token, next_token, request, prompt, generated;
    counter requests[MOST_COUNTERS];
    int n_requests;
};

status server_metrics_open(metrics **out, error *e) {
    metrics *m = *out = calloc(1, sizeof *m);
    if (!m) return fail(e, ERR_NOMEM, "memory is out");
    pthread_mutex_init(&m->lock, NULL);
    m->started = (double)time(NULL);
    m->first_token.bounds = wait_bounds;
    m->next_token.bounds = step_bounds;
    m->request.bounds = request_bounds;
    m->prompt.bounds = m->generated.bounds = token_bounds;
    return OK;
}

void server_metrics_close(metrics *m) {
    if (!m) return;
    pthread_mutex_destroy(&m->lock);
    free(m);
}

/* --- counting --------------------------------------------------------------------------------------------------- */

static void observe(metrics *m, histogram *h, double v) {
    pthread_mutex_lock(&m->lock);
    int i = 0;
    while (h->bounds[i] > 0 && v > h->bounds[i]) i++;
    h->counts[i]++;
    h->n++;
    h->sum += v;
    pthread_mutex_unlock(&m->lock);
}

void metrics_request(metrics *m, const char *path, int http_status, double seconds) {
    pthread_mutex_lock(&m->lock);
    int i = 0;
    while (i < m->n_requests && (m->requests[i].status != http_status || strcmp(m->requests[i].path, path) != 0)) i++;
    if (i == m->n_requests && i < MOST_COUNTERS) {
        snprintf(m->requests[i].path, sizeof m->requests[i].path, "%s", path);
        m->requests[i].status = http_status;
        m->n_requests++;
    }
    if (i < m->n_requests) m->requests[i].n++;
    pthread_mutex_unlock(&m->lock);
    observe(m, &m->request, seconds);
}

void metrics_first_token(metrics *m, double seconds) {
    observe(m, &m->first_token, seconds);
}

void metrics_next_token(metrics *m, double seconds) {
    observe(m, &m->next_token, seconds);
}

void metrics_tokens(metrics *m, int prompt, int cached, int generated) {
    (void)cached; /* the engine counts these, also for requests that never finish */
    observe(m, &m->prompt, prompt);
    observe(m, &m->generated, generated);
}

/* --- writing ---------------------------------------------------------------------------------------------------- */

static void head(str *out, const char *name, const char *type, const char *help) {
    str_addf(out, "# HELP hadal_%s %s\n# TYPE hadal_%s %s\n", name, help, name, type);
}

static void one(str *out, const char *name, const char *type, const char *help, double v) {
    head(out, name, type, help);
    str_addf(out, "hadal_%s %.15g\n", name, v);
}

static void write_histogram(const histogram *h, const char *name, const char *help, str *out) {
    head(out, name, "histogram", help);
    uint64_t sum = 0;
    for (int i = 0; h->bounds[i] > 0; i++)
        str_addf(out, "hadal_%s_bucket{le=\"%g\"} %" PRIu64 "\n", name, h->bounds[i], sum += h->counts[i]);
    str_addf(out, "hadal_%s_bucket{le=\"+Inf\"} %" PRIu64 "\nhadal_%s_sum %.9g\nhadal_%s_count %" PRIu64 "\n", name,
             h->n, name, h->sum, name, h->n);
}

static void write_engine(const hadal_engine_stats *s, str *out) {
    one(out, "requests_running", "gauge", "Answers being written.", s->running);
    one(out, "requests_waiting", "gauge", "Answers waiting for a place.", s->waiting);
    head(out, "cache_pages", "gauge", "Pages of the cache by use.");
    str_addf(out, "hadal_cache_pages{use=\"running\"} %" PRId64 "\nhadal_cache_pages{use=\"kept\"} %" PRId64 "\n",
             s->pages_running, s->pages_kept);
    str_addf(out, "hadal_cache_pages{use=\"free\"} %" PRId64 "\n", s->pages_total - s->pages_running - s->pages_kept);
    one(out, "cache_page_bytes", "gauge", "Bytes of a page.", (double)s->page_bytes);
    one(out, "cache_usage_ratio", "gauge", "Share of the pages that running answers hold.",
        s->pages_total ? (double)s->pages_running / (double)s->pages_total : 0);
    one(out, "cache_folder_bytes", "gauge", "Bytes of the cache on disk.", (double)s->cache_folder_bytes);
    one(out, "prompt_tokens_total", "counter", "Tokens of prompts.", (double)s->prompt_tokens);
    one(out, "cached_tokens_total", "counter", "Tokens of prompts that the cache had.", (double)s->cached_tokens);
    one(out, "generated_tokens_total", "counter", "Tokens written.", (double)s->generated_tokens);
    one(out, "steps_total", "counter", "Steps of the engine.", (double)s->steps);
    one(out, "preemptions_total", "counter", "Answers put back because the cache was full.", (double)s->preemptions);
    one(out, "drafts_proposed_total", "counter", "Tokens drafted.", (double)s->draft_proposed);
    one(out, "drafts_accepted_total", "counter", "Drafted tokens that were right.", (double)s->draft_accepted);
}

static double resident_bytes(void) {
    long all = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%ld %ld", &all, &resident) != 2) resident = 0;
    if (f) fclose(f);
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

void server_metrics_write(metrics *m, const hadal_engine_stats *engine, int connections, str *out) {
    pthread_mutex_lock(&m->lock);
    head(out, "requests_total", "counter", "Requests by path and status.");
    for (int i = 0; i < m->n_requests; i++)
        str_addf(out, "hadal_requests_total{path=\"%s\",status=\"%d\"} %" PRIu64 "\n", m->requests[i].path,
                 m->requests[i].status, m->requests[i].n);
    write_histogram(&m->request, "request_seconds", "From a request's arrival to its end.", out);
    write_histogram(&m->first_token, "time_to_first_token_seconds", "From a request's arrival to its first token.",
                    out);
    write_histogram(&m->next_token, "inter_token_seconds", "From one token of an answer to the next.", out);
    write_histogram(&m->prompt, "request_prompt_tokens", "Tokens of a request's prompt.", out);
    write_histogram(&m->generated, "request_generated_tokens", "Tokens of a request's answers.", out);
    pthread_mutex_unlock(&m->lock);
    if (engine) write_engine(engine, out);
    one(out, "connections_open", "gauge", "Open connections.", connections);
    one(out, "process_resident_bytes", "gauge", "Memory of the process that is in use.", resident_bytes());
    one(out, "start_time_seconds", "gauge", "When the server started, in seconds since 1970.", m->started);
}
