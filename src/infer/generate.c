#include "infer/generate.h"

#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "infer/writing.h"

typedef struct writer {
    writing w;
    int number;
    generated *a;
    const generation *o;
    const generate_hooks *hooks;
    sampler *sam;
    ending ending;
    double started, first;
} writer;

void generated_clear(generated *a) {
    str_free(&a->text);
    free(a->ids);
    *a = (generated){0};
}

/* Chooses one token, takes it into the answer and shows it. */
static status choose(void *arg, writing *w, const float *logits, int64_t n_history, int32_t *id, error *e) {
    writer *x = arg;
    const generation *o = x->o;
    const generate_hooks *hooks = x->hooks;
    generated_token t = {.sequence = x->number, .text = ""};
    t.id = *id = sampler_choose(x->sam, &o->sampling, logits, w->s->tokens, n_history, w->n, (uint64_t)x->number,
                                (uint64_t)w->n);
    if (o->logprobs) {
        t.n_top = o->logprobs > 0 ? o->logprobs : 0;
        t.logprob = sampler_logprobs(x->sam, logits, t.id, t.n_top, t.top_ids, t.top_logprobs);
    }
    if (w->n == 0) x->first = clock_seconds();
    x->a->ids[x->a->n_ids++] = t.id;
    const size_t shown = w->sure;
    writing_take(w, &x->ending, t.id);
    TRY(str_check(&w->text, e));
    if (w->text.p) t.text = w->text.p + shown;
    t.n = w->sure - shown;
    if (hooks && hooks->token && !hooks->token(hooks->arg, &t) && !w->done) writing_cancel(w);
    x->a->seconds = clock_seconds() - x->first;
    return OK;
}

static status prepare(writer *x, int number, const generation *o, const generate_hooks *hooks, sampler *sam, session *s,
                      generated *a, int64_t n, error *e) {
    a->prompt_tokens = n;
    if (n < 1) return fail(e, ERR_ARG, "an empty prompt: give at least one token");
    if (n > s->capacity)
        return fail(e, ERR_ARG, "the prompt has %lld tokens, but the context holds %lld", (long long)n,
                    (long long)s->capacity);
    *x = (writer){.number = number, .a = a, .o = o, .hooks = hooks, .sam = sam, .started = clock_seconds()};
    x->w = (writing){.s = s, .limit = writing_limit(s->capacity, n, o->max_tokens)};
    x->ending = (ending){o->eos, o->n_eos, o->stop, o->n_stop, o->tokenizer};
    a->ids = malloc((size_t)x->w.limit * sizeof *a->ids);
    if (!a->ids) return fail(e, ERR_NOMEM, "memory is out");
    session_set_drafting(s, o->drafts > 0);
    return OK;
}

/* What the writer made, into the caller's answer. */
static void hand_over(writer *x) {
    if (!x->a) return;
    x->a->text = x->w.text;
    x->a->finish = x->w.finish;
    x->a->draft_proposed = x->w.proposed;
    x->a->draft_accepted = x->w.accepted;
}

static bool on_prompt(void *arg, int64_t done, int64_t total) {
    const generate_hooks *h = arg;
    return !h || !h->prompt || h->prompt(h->arg, done, total);
}

static status steps(writer *x, int count, int drafts, error *e) {
    session **active = malloc((size_t)count * sizeof *active);
    const int32_t **tokens = malloc((size_t)count * sizeof *tokens);
    int64_t *n = malloc((size_t)count * sizeof *n);
    int *who = malloc((size_t)count * sizeof *who);
    status st = active && tokens && n && who ? OK : fail(e, ERR_NOMEM, "memory is out");
    while (st == OK) {
        int left = 0;
        for (int i = 0; i < count && st == OK; i++) {
            if (x[i].w.done) continue;
            if ((st = writing_plan(&x[i].w, drafts, e)) != OK) break;
            active[left] = x[i].w.s;
            tokens[left] = x[i].w.next;
            n[left] = 1 + x[i].w.drafts;
            who[left++] = i;
        }
        if (st != OK || !left) break;
        st = sessions_extend(active, left, tokens, n, n, e);
        for (int k = 0; k < left && st == OK; k++) st = writing_choose(&x[who[k]].w, choose, &x[who[k]], e);
    }
    free(active);
    free(tokens);
    free(n);
    free(who);
    return st;
}

status generate(session *const *s, int count, const int32_t *const *prompts, const int64_t *n, const generation *o,
                const generate_hooks *hooks, generated *answers, error *e) {
    for (int i = 0; i < count; i++) answers[i] = (generated){0};
    TRY(sampling_check(&o->sampling, e));
    if (o->logprobs > MAX_TOP_LOGPROBS)
        return fail(e, ERR_ARG, "at most %d log-probabilities a token", MAX_TOP_LOGPROBS);
    if (o->n_stop && !o->tokenizer) return fail(e, ERR_ARG, "stop texts need a tokenizer");
    writer *x = calloc((size_t)count, sizeof *x);
    sampler *sam = NULL;
    status st = x ? sampler_open(&sam, s[0]->g->m->cfg.vocab_size, e) : fail(e, ERR_NOMEM, "memory is out");
    for (int i = 0; i < count && st == OK; i++) st = prepare(&x[i], i, o, hooks, sam, s[i], &answers[i], n[i], e);
    for (int i = 0; i < count && st == OK; i++) {
        st = session_sync(s[i], prompts[i], n[i], &answers[i].cached_tokens, on_prompt, (void *)hooks, e);
        if (st == OK) st = writing_choose(&x[i].w, choose, &x[i], e);
        if (st == OK) answers[i].prompt_seconds = x[i].first - x[i].started;
    }
    if (st == OK) st = steps(x, count, o->drafts, e);
    for (int i = 0; x && i < count; i++) hand_over(&x[i]);
    free(x);
    sampler_close(sam);
    return st;
}
