#include "infer/answers.h"

#include <stdlib.h>
#include "infer/scheduler.h"
#include "infer/writing.h"

typedef struct batcher {
    scheduler *s;
    const answer_request *list;
    int64_t n;
    const answer_options *o;
    int64_t next, ended, total, tokens; /* next: request */
    bool closing;                       /* what ends now is nobody's */
    status st;                          /* of the first answer that failed */
    error e;
} batcher;

typedef struct log_probabilities { /* of one sample */
    float *p;
    int64_t n, room;
} log_probabilities;

typedef struct asked { /* a request that the scheduler has */
    batcher *b;
    int64_t number;
    log_probabilities logprobs[]; /* [samples] */
} asked;

static void stop_all(batcher *b, status st, const error *e) {
    if (b->st != OK) return;
    b->st = st;
    b->e = *e;
}

static void on_token(void *arg, const generated_token *t) {
    asked *a = arg;
    log_probabilities *l = &a->logprobs[t->sequence];
    error e;
    if (l->n == l->room) {
        const int64_t room = 2 * l->room + 16;
        float *more = realloc(l->p, (size_t)room * sizeof *more);
        if (!more) {
            stop_all(a->b, fail(&e, ERR_NOMEM, "memory is out"), &e);
            return;
        }
        l->p = more;
        l->room = room;
    }
    l->p[l->n++] = t->logprob;
    a->b->tokens++;
}

static void on_done(void *arg, int sample, generated *g, const error *why) {
    asked *a = arg;
    batcher *b = a->b;
    log_probabilities *l = &a->logprobs[sample];
    error e;
    if (why) stop_all(b, why->code, why);
    answer x = {.ids = g->ids,
                .logprobs = l->p,
                .n = g->n_ids,
                .finish = g->finish,
                .draft_proposed = g->draft_proposed,
                .draft_accepted = g->draft_accepted};
    if (!b->closing && b->st == OK) {
        b->ended++;
        const status st = b->o->done(b->o->arg, a->number, sample, &x, &e);
        if (st != OK) stop_all(b, st, &e);
    }
    g->ids = x.ids;
    l->p = x.logprobs;
}

static void on_over(void *arg) {
    asked *a = arg;
    for (int k = 0; k < a->b->list[a->number].samples; k++) free(a->logprobs[k].p);
    free(a);
}

static status ask(batcher *b, error *e) {
    const answer_request *r = &b->list[b->next];
    const answer_options *o = b->o;
    asked *a = calloc(1, sizeof *a + (size_t)r->samples * sizeof *a->logprobs);
    if (!a) return fail(e, ERR_NOMEM, "memory is out");
    a->b = b;
    a->number = b->next++;
    request x = {.prompt = r->prompt,
                 .n = r->n,
                 .samples = r->samples,
                 .max_tokens = r->max_tokens,
                 .sampling = o->sampling,
                 .eos = o->eos,
                 .n_eos = o->n_eos,
                 .stop = o->stop,
                 .n_stop = o->n_stop,
                 .tokenizer = o->n_stop ? o->tokenizer : NULL,
                 .logprobs = -1,
                 .policy_logprobs = true,
                 .events = {.token = on_token, .done = on_done, .over = on_over, .arg = a}};
    x.sampling.seed = r->seed;
    const status st = scheduler_add(b->s, &x, 0, e);
    if (st != OK) on_over(a);
    return st;
}

/* --- opening ----------------------------------------------------------------------------------------------------- */

static status check(const engine *g, const answer_request *list, int64_t n, const answer_options *o, error *e) {
    TRY(sampling_check(&o->sampling, e));
    if (o->sequences < 1) return fail(e, ERR_ARG, "%d sequences at once: at least one is needed", o->sequences);
    if (o->n_stop && !o->tokenizer) return fail(e, ERR_ARG, "stop texts need a tokenizer");
    for (int64_t i = 0; i < n; i++) {
        const answer_request *r = &list[i];
        const long long number = i + 1;
        if (r->n < 1) return fail(e, ERR_ARG, "prompt %lld is empty: give at least one token", number);
        if (r->n > o->capacity)
            return fail(e, ERR_ARG, "prompt %lld has %lld tokens, but the context holds %lld", number, (long long)r->n,
                        (long long)o->capacity);
        if (r->samples < 1) return fail(e, ERR_ARG, "prompt %lld: %d answers are wanted", number, r->samples);
        if (r->max_tokens < 0)
            return fail(e, ERR_ARG, "prompt %lld: answers of %lld tokens are wanted", number, (long long)r->max_tokens);
        for (int64_t t = 0; t < r->n; t++)
            if (r->prompt[t] < 0 || r->prompt[t] >= g->m->cfg.vocab_size)
                return fail(e, ERR_ARG, "prompt %lld: token id %d at %lld is outside the vocabulary of %lld", number,
                            r->prompt[t], (long long)t, (long long)g->m->cfg.vocab_size);
    }
    return OK;
}

/* Tokens that the longest answer leaves in a session. */
static int64_t longest(const batcher *b) {
    int64_t most = 1;
    for (int64_t i = 0; i < b->n; i++) {
        const answer_request *r = &b->list[i];
        const int64_t all = r->n + writing_limit(b->o->capacity, r->n, r->max_tokens);
        if (all > most) most = all;
    }
    return most;
}

static status open_scheduler(batcher *b, engine *g, error *e) {
    const int sequences = b->total < b->o->sequences ? (int)b->total : b->o->sequences;
    const int64_t each = longest(b) / CACHE_PAGE + 1;
    const scheduler_options so = {.cache_bytes = scheduler_page_bytes(g) * (uint64_t)((sequences + 1) * (each + 1)),
                                  .sequences = sequences,
                                  .capacity = b->o->capacity,
                                  .chunk = g->chunk,
                                  .drafts = b->o->drafts};
    return scheduler_open(&b->s, g, &so, e);
}

static status run(batcher *b, error *e) {
    for (;;) {
        while (b->next < b->n && scheduler_waiting(b->s) < b->o->sequences) TRY(ask(b, e));
        if (b->o->progress && !b->o->progress(b->o->arg, b->ended, b->total, b->tokens))
            return fail(e, ERR_CANCELLED, "cancelled");
        if (b->ended == b->total) return OK;
        scheduler_step(b->s);
        if (b->st != OK) {
            *e = b->e;
            return b->st;
        }
    }
}

status answers_run(engine *g, const answer_request *list, int64_t n, const answer_options *o, error *e) {
    TRY(check(g, list, n, o, e));
    batcher b = {.list = list, .n = n, .o = o};
    for (int64_t i = 0; i < n; i++) b.total += list[i].samples;
    if (b.total == 0) return OK;
    status st = open_scheduler(&b, g, e);
    if (st == OK) st = run(&b, e);
    b.closing = true;
    scheduler_close(b.s);
    return st;
}
