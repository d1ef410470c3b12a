/* The public engine: a scheduler on a thread of its own, and an inbox in front of it. Callers queue requests and
 * cancellations under a lock; the thread takes them between two steps. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "api/internal.h"
#include "base/hash.h"
#include "base/clock.h"
#include "base/file.h"
#include "infer/scheduler.h"

enum {
    SEQUENCES = 64,
    QUEUE = 256,
    CHUNK = 512,
    NAMED_TENSORS = 2048, /* that tell models apart, and bytes of each */
    NAMED_BYTES = 64,
    STORE_STEPS = 32 /* a page goes to disk so often while answers are written */
};
static const double STATS_SECONDS = 0.05;
static const uint64_t FOLDER_BYTES = 10000000000;

typedef struct order { /* a request with all that it points to */
    struct order *next;
    hadal_engine *engine;
    uint64_t ticket;
    request r;
    hadal_request_events events;
    bool cancelled; /* before the thread took it */
    int32_t *prompt;
    token_bias *bias;
    char **stop;
} order;

struct hadal_engine {
    hadal_model *model;
    scheduler *s;
    scheduler_options o;
    int queue;
    char name[64]; /* of the model, for the cache on disk */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t news;
    bool started, closing;
    order *inbox, **inbox_end;
    uint64_t *cancels, tickets;
    int n_cancels, room_cancels;
    int ahead;             /* samples in the inbox */
    scheduler_stats stats; /* after one of the last steps; `waiting` of the last */
    double counted;        /* when */
};

/* --- events ------------------------------------------------------------------------------------------------------ */

static void on_prompt(void *arg, int64_t at, const generated_token *t) {
    const order *o = arg;
    const hadal_token x = api_token(t);
    o->events.prompt(o->events.arg, (int)at, &x);
}

static void on_token(void *arg, const generated_token *t) {
    const order *o = arg;
    const hadal_token x = api_token(t);
    o->events.token(o->events.arg, &x);
}

static void on_done(void *arg, int sample, generated *a, const error *why) {
    const order *o = arg;
    hadal_result r;
    hadal_error e;
    api_give_result(a, &r);
    if (why) {
        r.finish = "error";
        api_result(why->code, why, &e);
    }
    o->events.done(o->events.arg, sample, &r, why ? &e : NULL);
    hadal_result_clear(&r);
}

static void free_order(void *arg) {
    order *o = arg;
    free(o->prompt);
    free(o->bias);
    for (int i = 0; o->stop && i < o->r.n_stop; i++) free(o->stop[i]);
    free(o->stop);
    free(o);
}

/* --- the thread -------------------------------------------------------------------------------------------------- */

static void refuse_order(order *o, finish f, const error *why) {
    for (int k = 0; k < o->r.samples; k++) {
        generated a = {.finish = f, .prompt_tokens = o->r.n};
        on_done(o, k, &a, why);
    }
    free_order(o);
}

/* Takes what came in; false: the engine is to close. Waits when there is nothing to do. */
static bool take_news(hadal_engine *g, bool busy) {
    const double now = clock_seconds();
    pthread_mutex_lock(&g->lock);
    if (!busy || now > g->counted + STATS_SECONDS) {
        scheduler_get_stats(g->s, &g->stats);
        g->counted = now;
    }
    g->stats.waiting = scheduler_waiting(g->s);
    while (!busy && !g->inbox && !g->closing) pthread_cond_wait(&g->news, &g->lock);
    order *list = g->inbox;
    g->inbox = NULL;
    g->inbox_end = &g->inbox;
    for (int i = 0; i < g->n_cancels; i++) scheduler_cancel(g->s, g->cancels[i]);
    g->n_cancels = 0;
    const bool open = !g->closing;
    g->stats.waiting += g->ahead; /* until the next step tells it itself */
    g->ahead = 0;
    pthread_mutex_unlock(&g->lock);
    while (list) {
        order *o = list;
        error e;
        list = o->next;
        if (!open || o->cancelled) refuse_order(o, FINISH_CANCELLED, NULL);
        else if (scheduler_add(g->s, &o->r, o->ticket, &e) != OK) refuse_order(o, FINISH_CANCELLED, &e);
    }
    return open;
}

static void *run(void *arg) {
    hadal_engine *g = arg;
    bool busy = false;
    for (int step = 1; take_news(g, busy); step++) {
        busy = scheduler_step(g->s);
        if (!busy || step % STORE_STEPS == 0) busy |= scheduler_store(g->s);
    }
    scheduler_close(g->s);
    g->s = NULL;
    return NULL;
}

/* --- opening ----------------------------------------------------------------------------------------------------- */

/* What programs may take: free memory, and that of files which are in memory for speed alone. */
static uint64_t free_memory(void) {
    str s = {0};
    unsigned long long kib = 0;
    const char *at = file_read(&s, "/proc/meminfo", 1 << 16, NULL) == OK ? strstr(s.p, "MemAvailable:") : NULL;
    if (!at || sscanf(at, "MemAvailable: %llu", &kib) != 1) kib = 1 << 20;
    str_free(&s);
    return (uint64_t)kib << 10;
}

/* Tells models apart, for the cache on disk: by some bytes of tensors from all of the files, so that fine-tuned weights
 * of the same shapes count as others. */
static void name_model(const hadal_model *m, char name[64]) {
    const weights_file *f = m->m->file;
    const size_t n = weights_count(f), step = n / NAMED_TENSORS + 1;
    uint64_t hash = HASH_BEGIN;
    for (size_t i = 0; i < n; i += step) {
        const tensor *t = &weights_at(f, i)->t;
        const size_t bytes = (size_t)tensor_count(t) * dtype_size(t->type), from = bytes / 2;
        hash = hash_bytes(hash, (const char *)t->data + from, bytes - from < NAMED_BYTES ? bytes - from : NAMED_BYTES);
    }
    snprintf(name, 64, "%016llx %llu %lld %s", (unsigned long long)hash, (unsigned long long)m->file_bytes,
             (long long)m->m->cfg.num_hidden_layers, queue_compute(m->g->ws.q) == COMPUTE_BF16 ? "bf16" : "f32");
}

static status open_engine(hadal_engine *g, hadal_model *m, const hadal_engine_options *o, error *e) {
    if (o->sequences < 0 || o->queue < 0 || o->context < 0 || o->chunk < 0 || o->drafts < 0)
        return fail(e, ERR_ARG, "the limits of an engine should not be negative");
    if (o->drafts > 0 && !m->m->n_mtp)
        return fail(e, ERR_UNSUPPORTED, "drafts need an MTP layer, and this checkpoint has none");
    const int64_t most = m->m->cfg.max_position_embeddings;
    g->model = m;
    g->queue = o->queue ? o->queue : QUEUE;
    if (o->cache_folder) name_model(m, g->name);
    g->o = (scheduler_options){.cache_bytes = o->cache_bytes ? o->cache_bytes : free_memory() / 4,
                               .sequences = o->sequences ? o->sequences : SEQUENCES,
                               .capacity = o->context && o->context < most ? o->context : most,
                               .chunk = o->chunk ? o->chunk : CHUNK,
                               .drafts = o->drafts,
                               .alike = true,
                               .folder = o->cache_folder,
                               .model_name = g->name,
                               .folder_bytes = o->cache_folder_bytes ? o->cache_folder_bytes : FOLDER_BYTES,
                               .warn = o->warn,
                               .warn_arg = o->warn_arg};
    TRY(scheduler_open(&g->s, m->g, &g->o, e));
    scheduler_get_stats(g->s, &g->stats);
    const int64_t held = g->stats.pages_total * CACHE_PAGE;
    if (held < g->o.capacity) g->o.capacity = held;
    if (pthread_create(&g->thread, NULL, run, g) != 0) return fail(e, ERR_IO, "no thread for the engine");
    g->started = true;
    return OK;
}

int hadal_engine_open(hadal_engine **out, hadal_model *m, const hadal_engine_options *o, hadal_error *e) {
    hadal_engine_options options = {0};
    error why;
    if (!out || !m) return api_result(fail(&why, ERR_ARG, "hadal_engine_open needs a place and a model"), &why, e);
    *out = NULL;
    api_options(&options, sizeof options, o);
    hadal_engine *g = calloc(1, sizeof *g);
    if (!g) return api_result(fail(&why, ERR_NOMEM, "memory is out"), &why, e);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->news, NULL);
    g->inbox_end = &g->inbox;
    const status st = open_engine(g, m, &options, &why);
    if (st == OK) *out = g;
    else hadal_engine_close(g);
    return api_result(st, &why, e);
}

void hadal_engine_close(hadal_engine *g) {
    if (!g) return;
    pthread_mutex_lock(&g->lock);
    g->closing = true;
    pthread_cond_signal(&g->news);
    pthread_mutex_unlock(&g->lock);
    if (g->started) pthread_join(g->thread, NULL);
    scheduler_close(g->s);
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->news);
    free(g->cancels);
    free(g);
}

/* --- requests ---------------------------------------------------------------------------------------------------- */

static void *copy(const void *from, size_t bytes) {
    void *to = malloc(bytes + 1);
    return to && bytes ? memcpy(to, from, bytes) : to;
}

static status copy_lists(order *o, const hadal_request *r, error *e) {
    const int n_stop = r->sampling.stop ? r->sampling.n_stop : 0, n_bias = r->bias ? r->n_bias : 0;
    o->prompt = copy(r->prompt, (size_t)r->n * sizeof *r->prompt);
    o->bias = calloc((size_t)n_bias + 1, sizeof *o->bias);
    o->stop = calloc((size_t)n_stop + 1, sizeof *o->stop);
    bool good = o->prompt && o->bias && o->stop;
    for (int i = 0; good && i < n_bias; i++) o->bias[i] = (token_bias){r->bias[i].id, r->bias[i].bias};
    for (int i = 0; good && i < n_stop; i++)
        good = (o->stop[i] = copy(r->sampling.stop[i], strlen(r->sampling.stop[i]) + 1)) != NULL;
    o->r.n_stop = n_stop;
    o->r.n_bias = n_bias;
    return good ? OK : fail(e, ERR_NOMEM, "memory is out");
}

static status fill_order(order *o, const hadal_engine *g, const hadal_request *r, error *e) {
    const folder_text *text = &g->model->text;
    const hadal_sampling *s = &r->sampling;
    if (!r->prompt || r->n < 1) return fail(e, ERR_ARG, "an empty prompt: give at least one token");
    if (!r->events.done || (r->prompt_logprobs && !r->events.prompt))
        return fail(e, ERR_ARG, "a request needs functions for its events");
    TRY(copy_lists(o, r, e));
    o->r.prompt = o->prompt;
    o->r.n = r->n;
    o->r.samples = r->samples ? r->samples : 1;
    o->r.max_tokens = s->max_tokens;
    o->r.sampling = api_sampling(s);
    o->r.eos = text->eos;
    o->r.n_eos = s->ignore_eos ? 0 : text->n_eos;
    o->r.stop = (const char *const *)o->stop;
    o->r.tokenizer = text->tokenizer.t;
    o->r.bias = o->bias;
    o->r.grammar = r->grammar ? r->grammar->g : NULL;
    o->r.logprobs = s->logprobs;
    o->r.prompt_logprobs = r->prompt_logprobs;
    o->events = r->events;
    o->r.events = (request_events){.prompt = r->prompt_logprobs ? on_prompt : NULL,
                                   .token = r->events.token ? on_token : NULL,
                                   .done = on_done,
                                   .over = free_order,
                                   .arg = o};
    return scheduler_check(g->s, &o->r, e);
}

static status queue_order(hadal_engine *g, order *o, uint64_t *ticket, error *e) {
    status st = OK;
    pthread_mutex_lock(&g->lock);
    const int waiting = g->stats.waiting + g->ahead;
    if (g->closing) st = fail(e, ERR_CANCELLED, "the engine is closing");
    else if (waiting > 0 && waiting + o->r.samples > g->queue)
        st = fail(e, ERR_BUSY, "%d answers are waiting, more than %d are not queued", waiting, g->queue);
    if (st == OK) {
        *ticket = o->ticket = ++g->tickets;
        g->ahead += o->r.samples;
        *g->inbox_end = o;
        g->inbox_end = &o->next;
        pthread_cond_signal(&g->news);
    }
    pthread_mutex_unlock(&g->lock);
    return st;
}

int hadal_engine_submit(hadal_engine *g, const hadal_request *given, uint64_t *ticket, hadal_error *e) {
    error why;
    hadal_request r = {0};
    api_options(&r, sizeof r, given);
    order *o = g && given && ticket ? calloc(1, sizeof *o) : NULL;
    if (!o)
        return api_result(fail(&why, ERR_ARG, "hadal_engine_submit needs an engine, a request and a ticket"), &why, e);
    status st = fill_order(o, g, &r, &why);
    if (st == OK) st = queue_order(g, o, ticket, &why);
    if (st != OK) free_order(o);
    return api_result(st, &why, e);
}

void hadal_engine_cancel(hadal_engine *g, uint64_t ticket) {
    pthread_mutex_lock(&g->lock);
    bool waits = false;
    for (order *o = g->inbox; o; o = o->next)
        if (o->ticket == ticket) waits = o->cancelled = true;
    if (!waits && g->n_cancels == g->room_cancels) {
        const int room = 2 * g->room_cancels + 16;
        uint64_t *more = realloc(g->cancels, (size_t)room * sizeof *more);
        if (more) {
            g->cancels = more;
            g->room_cancels = room;
        }
    }
    if (!waits && g->n_cancels < g->room_cancels) g->cancels[g->n_cancels++] = ticket;
    pthread_mutex_unlock(&g->lock);
}

void hadal_engine_get_stats(hadal_engine *g, hadal_engine_stats *out) {
    pthread_mutex_lock(&g->lock);
    const scheduler_stats *s = &g->stats;
    *out = (hadal_engine_stats){.size = sizeof *out,
                                .running = s->running,
                                .waiting = s->waiting + g->ahead,
                                .sequences = g->o.sequences,
                                .queue = g->queue,
                                .context = (int)g->o.capacity,
                                .pages_total = s->pages_total,
                                .pages_running = s->pages_running,
                                .pages_kept = s->pages_kept,
                                .page_tokens = CACHE_PAGE,
                                .page_bytes = s->page_bytes,
                                .cache_folder_bytes = s->folder_bytes,
                                .prompt_tokens = s->prompt_tokens,
                                .cached_tokens = s->cached_tokens,
                                .generated_tokens = s->generated_tokens,
                                .steps = s->steps,
                                .preemptions = s->preemptions,
                                .draft_proposed = s->draft_proposed,
                                .draft_accepted = s->draft_accepted};
    pthread_mutex_unlock(&g->lock);
}
