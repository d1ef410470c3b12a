/* Slots are sequences that are computed together. In a round free slots are filled with the next samples in order, a
 * token is chosen from every new row of logits, and one step computes the rows of all slots: a token and its drafts of
 * those that go on, whole prompts of those that begin. The first sample of a request computes the prompt in its own
 * slot; those that begin with it copy its cache when it is there, those that come later copy the one that is held back
 * for them. As samples begin in order, there is never more than one such request. What all prompts begin with is
 * computed before the first round, and every prompt goes on from a copy of it. */
#include "infer/answers.h"

#include <stdlib.h>
#include <string.h>
#include "infer/writing.h"

enum { PARALLEL_NUMBERS = 4096 }; /* of logits, from which on threads share the choices: some 30 microseconds */

typedef enum stage {
    FREE,
    PROMPT, /* its prompt goes into the next step */
    FOLLOW, /* its prompt is computed in the slot `first` */
    READY,  /* has logits that nothing was chosen from yet */
    GOES_ON /* has rows for the next step */
} stage;

typedef struct slot {
    stage stage;
    int64_t request;
    int sample;
    struct slot *first;
    writing w;
    answer a;
    int64_t room; /* of a's arrays */
} slot;

typedef struct batcher {
    engine *g;
    const answer_request *list;
    int64_t n;
    const answer_options *o;
    ending ending;
    slot *slots;
    int count;
    sampler **samplers; /* of each thread */
    int64_t request;    /* the next to begin: this sample of this request */
    int sample;
    slot *opener;    /* the slot that computes the prompt of `request`; NULL: none does */
    session *held;   /* holds the prompt of a request whose samples have not all begun */
    session *shared; /* holds what all prompts begin with; NULL: nothing */
    int64_t ended, total, tokens;
    slot **ready; /* [count]; below: a step's rows */
    session **active;
    const int32_t **rows;
    int64_t *n_rows, *want;
} batcher;

/* --- choices ----------------------------------------------------------------------------------------------------- */

typedef struct choice {
    const batcher *b;
    slot *s;
    sampler *sampler;
} choice;

static status choose_row(void *arg, writing *w, const float *logits, int64_t n_history, int32_t *id, error *e) {
    const choice *c = arg;
    sampling o = c->b->o->sampling;
    (void)e;
    o.seed = c->b->list[c->s->request].seed;
    *id = sampler_draw(c->sampler, &o, logits, w->s->tokens, n_history, w->n, (uint64_t)c->s->sample, (uint64_t)w->n,
                       &c->s->a.logprobs[w->n]);
    c->s->a.ids[w->n] = *id;
    writing_take(w, &c->b->ending, *id);
    return OK;
}

static void choose_task(void *arg, int64_t task, int thread) {
    const batcher *b = arg;
    choice c = {b, b->ready[task], b->samplers[thread]};
    writing_choose(&c.s->w, choose_row, &c, &(error){0}); /* choose_row does not fail */
}

static status deliver(batcher *b, slot *s, error *e) {
    s->a.n = s->w.n;
    s->a.finish = s->w.finish;
    s->a.draft_proposed = s->w.proposed;
    s->a.draft_accepted = s->w.accepted;
    status st = b->o->done(b->o->arg, s->request, s->sample, &s->a, e);
    free(s->a.ids);
    free(s->a.logprobs);
    str_free(&s->w.text);
    s->a = (answer){0};
    s->stage = FREE;
    b->ended++;
    return st;
}

/* One token (and accepted drafts) for every slot that has logits. */
static status choose(batcher *b, error *e) {
    int64_t n = 0, numbers = 0;
    for (int i = 0; i < b->count; i++)
        if (b->slots[i].stage == READY) {
            b->ready[n++] = &b->slots[i];
            numbers += b->slots[i].w.s->rows * b->g->m->cfg.vocab_size;
            b->tokens -= b->slots[i].w.n;
        }
    if (numbers > PARALLEL_NUMBERS) queue_run(b->g->ws.q, n, choose_task, b);
    else
        for (int64_t i = 0; i < n; i++) choose_task(b, i, 0);
    for (int64_t i = 0; i < n; i++) {
        slot *s = b->ready[i];
        b->tokens += s->w.n;
        s->stage = GOES_ON;
        TRY(str_check(&s->w.text, e));
        if (s->w.done) TRY(deliver(b, s, e));
    }
    return OK;
}

/* --- steps ------------------------------------------------------------------------------------------------------- */

/* The next sample takes the slot. */
static status begin(batcher *b, slot *s, error *e) {
    const answer_request *r = &b->list[b->request];
    s->request = b->request;
    s->sample = b->sample;
    s->w = (writing){.s = s->w.s, .limit = writing_limit(b->o->capacity, r->n, r->max_tokens)};
    s->room = 0;
    session_truncate(s->w.s, 0);
    if (b->sample == 0) {
        s->stage = PROMPT;
        b->opener = s;
        if (b->shared) TRY(session_fork(s->w.s, b->shared, e));
    } else if (b->opener) {
        s->stage = FOLLOW;
        s->first = b->opener;
    } else {
        s->stage = READY;
        TRY(session_fork(s->w.s, b->held, e));
    }
    if (++b->sample == r->samples) {
        b->sample = 0;
        b->request++;
        b->opener = NULL;
    }
    return OK;
}

/* Room in the answer for what the next choice may add. */
static status make_room(slot *s, error *e) {
    const int64_t need = s->w.n + 1 + s->w.drafts;
    if (need <= s->room) return OK;
    const int64_t room = need + s->room + 15 < s->w.limit ? need + s->room + 15 : s->w.limit;
    int32_t *ids = realloc(s->a.ids, (size_t)room * sizeof *ids);
    if (ids) s->a.ids = ids;
    float *logprobs = realloc(s->a.logprobs, (size_t)room * sizeof *logprobs);
    if (logprobs) s->a.logprobs = logprobs;
    if (!ids || !logprobs) return fail(e, ERR_NOMEM, "memory is out");
    s->room = room;
    return OK;
}

static status fill(batcher *b, bool *more, error *e) {
    *more = false;
    for (int i = 0; i < b->count && b->request < b->n; i++) {
        slot *s = &b->slots[i];
        if (s->stage != FREE) continue;
        TRY(begin(b, s, e));
        TRY(make_room(s, e));
        *more |= s->stage == READY;
    }
    return OK;
}

/* Copies of prompts that this step computed: for the samples that began with it, and for those to come. */
static status share_prompts(batcher *b, error *e) {
    for (int i = 0; i < b->count; i++) {
        slot *s = &b->slots[i];
        if (s->stage == FOLLOW) TRY(session_fork(s->w.s, s->first->w.s, e));
        if (s->stage != FREE) s->stage = READY;
    }
    if (!b->opener) return OK;
    if (!b->held) TRY(session_take(&b->held, b->g, b->opener->w.s->capacity, e));
    TRY(session_fork(b->held, b->opener->w.s, e));
    b->opener = NULL;
    return OK;
}

static status step(batcher *b, error *e) {
    int n = 0;
    for (int i = 0; i < b->count; i++) {
        slot *s = &b->slots[i];
        if (s->stage == GOES_ON) {
            TRY(writing_plan(&s->w, b->o->drafts, e));
            TRY(make_room(s, e));
            b->rows[n] = s->w.next;
            b->want[n] = b->n_rows[n] = 1 + s->w.drafts;
        } else if (s->stage == PROMPT) {
            b->rows[n] = b->list[s->request].prompt + b->o->shared;
            b->n_rows[n] = b->list[s->request].n - b->o->shared;
            b->want[n] = 1;
        } else {
            continue;
        }
        b->active[n++] = s->w.s;
    }
    TRY(sessions_extend(b->active, n, b->rows, b->n_rows, b->want, e));
    return share_prompts(b, e);
}

static status run(batcher *b, error *e) {
    for (;;) {
        bool more = true;
        while (more) { /* a slot that became free may take a sample whose prompt is held: it joins the next step */
            TRY(choose(b, e));
            TRY(fill(b, &more, e));
        }
        if (b->o->progress && !b->o->progress(b->o->arg, b->ended, b->total, b->tokens))
            return fail(e, ERR_CANCELLED, "cancelled");
        if (b->ended == b->total) return OK;
        TRY(step(b, e));
    }
}

/* --- opening ----------------------------------------------------------------------------------------------------- */

static status check(const model *m, const answer_request *list, int64_t n, const answer_options *o, error *e) {
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
        if (o->shared < 0 || o->shared >= r->n ||
            memcmp(r->prompt, list[0].prompt, (size_t)o->shared * sizeof *r->prompt) != 0)
            return fail(e, ERR_ARG, "prompt %lld does not begin with the %lld tokens that all should share", number,
                        (long long)o->shared);
        if (r->samples < 1) return fail(e, ERR_ARG, "prompt %lld: %d answers are wanted", number, r->samples);
        if (r->max_tokens < 0)
            return fail(e, ERR_ARG, "prompt %lld: answers of %lld tokens are wanted", number, (long long)r->max_tokens);
        for (int64_t t = 0; t < r->n; t++)
            if (r->prompt[t] < 0 || r->prompt[t] >= m->cfg.vocab_size)
                return fail(e, ERR_ARG, "prompt %lld: token id %d at %lld is outside the vocabulary of %lld", number,
                            r->prompt[t], (long long)t, (long long)m->cfg.vocab_size);
    }
    return OK;
}

/* Tokens that the longest answer leaves in a session. */
static int64_t longest(const answer_request *list, int64_t n, int64_t capacity) {
    int64_t most = 1;
    for (int64_t i = 0; i < n; i++) {
        int64_t all = list[i].n + writing_limit(capacity, list[i].n, list[i].max_tokens);
        if (all > most) most = all;
    }
    return most;
}

static status open_slots(batcher *b, error *e) {
    const size_t n = (size_t)b->count;
    const int threads = queue_threads(b->g->ws.q);
    b->slots = calloc(n, sizeof *b->slots);
    b->ready = malloc(n * sizeof *b->ready);
    b->active = malloc(n * sizeof *b->active);
    b->rows = malloc(n * sizeof *b->rows);
    b->n_rows = malloc(n * sizeof *b->n_rows);
    b->want = malloc(n * sizeof *b->want);
    b->samplers = calloc((size_t)threads, sizeof *b->samplers);
    if (!b->slots || !b->ready || !b->active || !b->rows || !b->n_rows || !b->want || !b->samplers)
        return fail(e, ERR_NOMEM, "memory is out");
    for (int i = 0; i < threads; i++) TRY(sampler_open(&b->samplers[i], b->g->m->cfg.vocab_size, e));
    const int64_t capacity = longest(b->list, b->n, b->o->capacity);
    for (int i = 0; i < b->count; i++) {
        TRY(session_take(&b->slots[i].w.s, b->g, capacity, e));
        session_set_drafting(b->slots[i].w.s, b->o->drafts > 0);
    }
    if (!b->o->shared) return OK;
    TRY(session_take(&b->shared, b->g, capacity, e));
    session_set_drafting(b->shared, b->o->drafts > 0);
    session_truncate(b->shared, 0);
    return sessions_extend(&b->shared, 1, &b->list[0].prompt, &b->o->shared, NULL, e);
}

static void close_slots(batcher *b) {
    for (int i = 0; b->slots && i < b->count; i++) {
        slot *s = &b->slots[i];
        session_keep(s->w.s);
        str_free(&s->w.text);
        free(s->a.ids);
        free(s->a.logprobs);
    }
    for (int i = 0; b->samplers && i < queue_threads(b->g->ws.q); i++) sampler_close(b->samplers[i]);
    session_keep(b->held);
    session_keep(b->shared);
    free(b->samplers);
    free(b->slots);
    free(b->ready);
    free(b->active);
    free(b->rows);
    free(b->n_rows);
    free(b->want);
}

status answers_run(engine *g, const answer_request *list, int64_t n, const answer_options *o, error *e) {
    TRY(check(g->m, list, n, o, e));
    batcher b = {.g = g, .list = list, .n = n, .o = o};
    b.ending = (ending){o->eos, o->n_eos, o->stop, o->n_stop, o->n_stop ? o->tokenizer : NULL};
    for (int64_t i = 0; i < n; i++) b.total += list[i].samples;
    if (b.total == 0) return OK;
    b.count = b.total < o->sequences ? (int)b.total : o->sequences;
    status st = open_slots(&b, e);
    if (st == OK) st = run(&b, e);
    close_slots(&b);
    return st;
}
