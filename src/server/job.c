#include "server/job.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "base/clock.h"
#include "server/metrics.h"

typedef struct answer {
    double last; /* clock_seconds() of its last token; 0: none yet */
    int tokens;
} answer;

typedef struct part { /* a request */
    job *j;
    int index, cached; /* cached: the fewest of its answers */
    uint64_t ticket;
} part;

/* `lock` is held during hooks and while requests are submitted, so that no event comes before `begin`. `leaving` is
 * taken inside of it, and inside of the exchange's locks (the client has gone): nothing is called with it but the
 * engine's cancel. */
struct job {
    server *s;
    exchange *x;
    job_hooks hooks;
    void *arg;
    pthread_mutex_t lock;
    int samples, n_parts, left; /* left: answers without their last event */
    bool over;                  /* answered: later events count no more */
    chat_usage usage;
    double first; /* clock_seconds() of the first token; 0: none yet */
    answer *answers;
    pthread_mutex_t leaving;
    int n_tickets;
    bool gone;
    part parts[];
};

static void free_job(job *j) {
    pthread_mutex_destroy(&j->lock);
    pthread_mutex_destroy(&j->leaving);
    free(j->answers);
    free(j);
}

/* ---- leaving early ---- */

static void cancel(job *j) {
    pthread_mutex_lock(&j->leaving);
    for (int i = 0; i < j->n_tickets; i++) hadal_engine_cancel(server_engine(j->s), j->parts[i].ticket);
    pthread_mutex_unlock(&j->leaving);
}

static void client_gone(void *arg) {
    job *j = arg;
    pthread_mutex_lock(&j->leaving);
    j->gone = true;
    pthread_mutex_unlock(&j->leaving);
    cancel(j);
}

static bool is_gone(job *j) {
    pthread_mutex_lock(&j->leaving);
    bool gone = j->gone;
    pthread_mutex_unlock(&j->leaving);
    return gone;
}

void job_fail(job *j, int http, const char *message) {
    if (j->over) return;
    j->over = true;
    cancel(j);
    j->hooks.failed(j->arg, http, message);
}

bool job_over(const job *j) {
    return j->over;
}

/* ---- events ---- */

static void on_prompt(void *arg, int at, const hadal_token *t) {
    part *p = arg;
    job *j = p->j;
    (void)at; /* they come in order */
    pthread_mutex_lock(&j->lock);
    if (!j->over) j->hooks.prompt(j->arg, p->index, t);
    pthread_mutex_unlock(&j->lock);
}

static void count_token(job *j, answer *a) {
    double now = clock_seconds();
    if (!a->tokens++) metrics_first_token(server_metrics(j->s), now - exchange_started(j->x));
    else metrics_next_token(server_metrics(j->s), now - a->last);
    if (!j->first) j->first = now;
    a->last = now;
    j->usage.completion_tokens++;
    exchange_note(j->x, j->usage.prompt_tokens, 0, j->usage.completion_tokens, j->first - exchange_started(j->x), NULL);
}

static void on_token(void *arg, const hadal_token *t) {
    part *p = arg;
    job *j = p->j;
    int k = p->index * j->samples + t->sequence;
    pthread_mutex_lock(&j->lock);
    if (!j->over) {
        count_token(j, &j->answers[k]);
        j->hooks.token(j->arg, k, t);
    }
    pthread_mutex_unlock(&j->lock);
}

static void take_result(part *p, int k, const hadal_result *r, const hadal_error *e) {
    job *j = p->j;
    if (!strcmp(r->finish, "error")) job_fail(j, job_http(e->code), e->text);
    else if (!strcmp(r->finish, "cancelled")) job_fail(j, is_gone(j) ? 0 : 503, "the server is shutting down");
    if (j->over) return;
    if (p->cached < 0 || r->cached_tokens < p->cached) p->cached = r->cached_tokens;
    j->usage.completion_tokens += r->n_ids - j->answers[k].tokens;
    j->hooks.done(j->arg, k, r);
}

static void end(job *j, const hadal_result *last) {
    chat_usage *u = &j->usage;
    for (int i = 0; i < j->n_parts; i++)
        if (j->parts[i].cached > 0) u->cached_tokens += j->parts[i].cached;
    metrics_tokens(server_metrics(j->s), u->prompt_tokens, u->cached_tokens, u->completion_tokens);
    exchange_note(j->x, u->prompt_tokens, u->cached_tokens, u->completion_tokens,
                  j->first ? j->first - exchange_started(j->x) : 0, last->finish);
    if (!j->over) j->hooks.end(j->arg);
}

static void on_done(void *arg, int sample, const hadal_result *r, const hadal_error *e) {
    part *p = arg;
    job *j = p->j;
    pthread_mutex_lock(&j->lock);
    if (!j->over) take_result(p, p->index * j->samples + sample, r, e);
    bool last = --j->left == 0;
    if (last) end(j, r);
    pthread_mutex_unlock(&j->lock);
    if (!last) return;
    exchange_release(j->x);
    j->hooks.release(j->arg);
    free_job(j);
}

/* ---- starting ---- */

static job *open_job(server *s, exchange *x, const hadal_request *requests, int n, const job_hooks *hooks, void *arg) {
    job *j = calloc(1, sizeof *j + (size_t)n * sizeof *j->parts);
    if (!j) return NULL;
    *j = (job){.s = s, .x = x, .hooks = *hooks, .arg = arg, .n_parts = n};
    j->samples = requests->samples > 0 ? requests->samples : 1;
    j->left = n * j->samples;
    pthread_mutex_init(&j->lock, NULL);
    pthread_mutex_init(&j->leaving, NULL);
    for (int i = 0; i < n; i++) {
        j->parts[i] = (part){.j = j, .index = i, .cached = -1};
        j->usage.prompt_tokens += requests[i].n;
    }
    if ((j->answers = calloc((size_t)j->left, sizeof *j->answers))) return j;
    free_job(j);
    return NULL;
}

static int submit(job *j, hadal_request *r, hadal_error *e) {
    part *p = &j->parts[j->n_tickets];
    r->events = (hadal_request_events){j->hooks.prompt ? on_prompt : NULL, on_token, on_done, p};
    int code = hadal_engine_submit(server_engine(j->s), r, &p->ticket, e);
    if (code) return code;
    pthread_mutex_lock(&j->leaving);
    j->n_tickets++;
    pthread_mutex_unlock(&j->leaving);
    return 0;
}

void job_start(server *s, exchange *x, hadal_request *requests, int n, const job_hooks *hooks, void *arg) {
    hadal_error e = {0};
    int code = 0;
    job *j = open_job(s, x, requests, n, hooks, arg);
    if (!j) {
        exchange_error(x, 500, NULL, NULL, "memory is out");
        hooks->release(arg);
        return;
    }
    exchange_keep(x);
    pthread_mutex_lock(&j->lock);
    for (int i = 0; i < n && !code; i++) code = submit(j, &requests[i], &e);
    if (code) {
        j->over = true;
        cancel(j);
        exchange_error(x, job_http(code), NULL, code == HADAL_ERR_BUSY ? "queue_full" : NULL, "%s", e.text);
    } else {
        hooks->begin(arg, j);
        exchange_on_gone(x, client_gone, j);
    }
    j->left -= (n - j->n_tickets) * j->samples;
    bool last = j->left == 0;
    pthread_mutex_unlock(&j->lock);
    if (!last) return; /* and j may be gone already */
    exchange_release(x);
    hooks->release(arg);
    free_job(j);
}

chat_usage *job_usage(job *j) {
    return &j->usage;
}

/* ---- what requests need of a server ---- */

status job_limits(const server *s, params_limits *l, mistake *m) {
    if (!server_tokenizer(s))
        return mistaken(m, 501, NULL, "the model has no tokenizer, so it cannot read or write text");
    *l = (params_limits){.model_id = server_model_id(s),
                         .folder = server_folder_name(s),
                         .vocab = hadal_model_vocab(server_model(s)),
                         .max_samples = server_settings(s)->max_samples};
    if (job_at_once(s) < l->max_samples) l->max_samples = job_at_once(s);
    hadal_sampling_defaults(server_model(s), &l->defaults);
    return OK;
}

void job_sampling(params *p) {
    if (!p->seeded && getrandom(&p->sampling.seed, sizeof p->sampling.seed, 0) != (ssize_t)sizeof p->sampling.seed)
        memcpy(&p->sampling.seed, &(double){clock_seconds()}, sizeof p->sampling.seed);
}

static hadal_engine_stats stats(const server *s) {
    hadal_engine_stats st = {.size = sizeof st};
    hadal_engine_get_stats(server_engine(s), &st);
    return st;
}

int job_context(const server *s) {
    return stats(s).context;
}

int job_at_once(const server *s) {
    hadal_engine_stats st = stats(s);
    return st.sequences + st.queue;
}

int job_http(int code) {
    switch (code) {
    case HADAL_ERR_ARG:
    case HADAL_ERR_FORMAT:
    case HADAL_ERR_UNSUPPORTED: return 400;
    case HADAL_ERR_BUSY: return 429;
    case HADAL_ERR_CANCELLED: return 503;
    default: return 500;
    }
}

void job_refuse(exchange *x, const mistake *m) {
    exchange_error(x, m->http, *m->param ? m->param : NULL, m->code, "%s", m->text);
}

const char *job_stop(const server *s, const params *p, const hadal_result *r) {
    char *text;
    size_t n;
    const char *found = NULL;
    if (strcmp(r->finish, "stop") ||
        hadal_detokenize(server_tokenizer(s), r->ids, (size_t)r->n_ids, 1, &text, &n, NULL))
        return NULL;
    for (int i = 0; i < p->sampling.n_stop && !found; i++) {
        size_t len = strlen(p->stop[i]);
        if (r->n <= n && len <= n - r->n && !memcmp(text + r->n, p->stop[i], len)) found = p->stop[i];
    }
    hadal_free(text);
    return found;
}

/* ---- parts of replies ---- */

json_t *usage_json(const chat_usage *u) {
    return json_pack("{s:i,s:i,s:i,s:{s:i},s:i,s:i,s:{s:i}}", "prompt_tokens", u->prompt_tokens, "completion_tokens",
                     u->completion_tokens, "total_tokens", u->prompt_tokens + u->completion_tokens,
                     "prompt_tokens_details", "cached_tokens", u->cached_tokens, "prompt_cache_hit_tokens",
                     u->cached_tokens, "prompt_cache_miss_tokens", u->prompt_tokens - u->cached_tokens,
                     "completion_tokens_details", "reasoning_tokens", u->reasoning_tokens);
}

static int add_bytes(const char *text, size_t n, void *to) {
    str_add(to, text, n);
    return ((str *)to)->failed ? -1 : 0;
}

void chunk_begin(str *head, json_t *members) {
    if (!members || json_dump_callback(members, add_bytes, head, JSON_COMPACT)) head->failed = true;
    else head->n--; /* the brace */
    json_decref(members);
}

void chunk_send(exchange *x, const str *head, json_t *choices, json_t *usage) {
    str s = {0};
    str_add(&s, head->p, head->n);
    str_puts(&s, ",\"choices\":");
    bool bad = head->failed || !choices || json_dump_callback(choices, add_bytes, &s, JSON_COMPACT);
    if (usage) str_puts(&s, ",\"usage\":");
    if (usage) bad |= json_dump_callback(usage, add_bytes, &s, JSON_COMPACT | JSON_ENCODE_ANY) != 0;
    str_puts(&s, "}");
    if (bad || s.failed) exchange_event_json(x, NULL, NULL); /* memory is out */
    else exchange_event(x, NULL, s.p, s.n);
    str_free(&s);
    json_decref(choices);
    json_decref(usage);
}

json_t *fingerprint_json(const server *s) {
    return json_sprintf("hadal-%s-%s", hadal_version(), hadal_model_kernels(server_model(s)));
}
