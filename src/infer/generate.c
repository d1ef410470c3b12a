#include "infer/generate.h"

#include <stdlib.h>
#include <string.h>
#include "base/clock.h"

/* One answer in the making. Between steps the session holds all chosen tokens but the last, `next`. */
typedef struct writer {
    session *s;
    generated *a;
    int32_t *history; /* prompt and answer so far */
    int64_t n, n_prompt, limit;
    int32_t next, draft[MAX_DRAFTS + 1]; /* draft[0] is `next`: the rows of the next step */
    int drafts;
    tokenizer_decoding decoding;
    size_t shown; /* bytes of a->text that were handed out */
    bool done;
    double started, first;
} writer;

void generated_clear(generated *a) {
    str_free(&a->text);
    free(a->ids);
    *a = (generated){0};
}

/* The first place at or after `from` where a stop text begins, or -1. */
static int64_t find_stop(const generation *o, const str *text, size_t from) {
    for (size_t i = from; i < text->n; i++)
        for (int k = 0; k < o->n_stop; k++) {
            size_t len = strlen(o->stop[k]);
            if (len && len <= text->n - i && memcmp(text->p + i, o->stop[k], len) == 0) return (int64_t)i;
        }
    return -1;
}

/* How much of the text is sure not to be the beginning of a stop text. */
static size_t sure(const generation *o, const str *text, size_t from) {
    for (size_t i = from; i < text->n; i++)
        for (int k = 0; k < o->n_stop; k++) {
            size_t len = strlen(o->stop[k]), rest = text->n - i;
            if (rest < len && memcmp(text->p + i, o->stop[k], rest) == 0) return i;
        }
    return text->n;
}

/* Takes a chosen token into the answer: text, stop texts, ends, callback. */
static status accept(writer *w, int number, const generation *o, const generate_hooks *hooks, sampler *sam, int32_t id,
                     const float *logits, error *e) {
    generated *a = w->a;
    generated_token t = {.sequence = number, .id = id};
    if (o->logprobs) {
        t.n_top = o->logprobs > 0 ? o->logprobs : 0;
        t.logprob = sampler_logprobs(sam, logits, id, t.n_top, t.top_ids, t.top_logprobs);
    }
    if (a->n_ids == 0) w->first = clock_seconds();
    w->history[w->n++] = id;
    a->ids[a->n_ids++] = id;
    w->next = id;
    bool end = false;
    for (int i = 0; i < o->n_eos; i++) end |= o->eos[i] == id;
    if (end) {
        w->done = true;
        a->finish = FINISH_EOS;
    } else if (o->max_tokens && a->n_ids >= o->max_tokens) {
        w->done = true;
        a->finish = FINISH_LENGTH;
    } else if (w->n >= w->s->capacity) {
        w->done = true;
        a->finish = FINISH_LENGTH;
    }
    size_t upto = 0;
    if (o->tokenizer) {
        tokenizer_decode_next(o->tokenizer, &w->decoding, id, true, &a->text);
        if (w->done) tokenizer_decode_end(&w->decoding, &a->text);
        TRY(str_check(&a->text, e));
        int64_t stop = o->n_stop ? find_stop(o, &a->text, w->shown) : -1;
        if (stop >= 0) {
            a->text.n = (size_t)stop;
            a->text.p[stop] = 0;
            w->done = true;
            a->finish = FINISH_STOP;
        }
        upto = w->done || !o->n_stop ? a->text.n : sure(o, &a->text, w->shown);
        t.text = a->text.p ? a->text.p + w->shown : "";
        t.n = upto - w->shown;
    } else {
        t.text = "";
    }
    w->shown = upto;
    if (hooks && hooks->token && !hooks->token(hooks->arg, &t) && !w->done) {
        w->done = true;
        a->finish = FINISH_CANCELLED;
        if (a->text.p) a->text.p[a->text.n = upto] = 0; /* what was held back was never shown */
    }
    a->seconds = clock_seconds() - w->first;
    return OK;
}

/* Chooses tokens from the rows of logits that the last step gave: row r is right as long as the r drafts before it were
 * what would have been chosen anyway. What the session holds beyond that is forgotten. */
static status choose(writer *w, int number, const generation *o, const generate_hooks *hooks, sampler *sam, error *e) {
    session *s = w->s;
    const int64_t vocab = s->g->m->cfg.vocab_size, rows = s->rows, held = s->length;
    for (int64_t r = 0; r < rows && !w->done; r++) {
        const float *logits = s->logits + r * vocab;
        int32_t id = sampler_choose(sam, &o->sampling, logits, w->history, w->n, w->n - w->n_prompt, (uint64_t)number,
                                    (uint64_t)(w->n - w->n_prompt));
        bool drafted = r + 1 < rows && w->draft[r + 1] == id;
        if (drafted) w->a->draft_accepted++;
        TRY(accept(w, number, o, hooks, sam, id, logits, e));
        if (!drafted) {
            session_truncate(s, held - rows + r + 1);
            break;
        }
    }
    if (s->length > w->n - 1) session_truncate(s, w->n - 1); /* ended amid accepted drafts */
    return OK;
}

static status prepare(writer *w, const generation *o, session *s, generated *a, const int32_t *prompt, int64_t n,
                      error *e) {
    *a = (generated){.prompt_tokens = n};
    int64_t most = s->capacity - n + 1;
    if (o->max_tokens && o->max_tokens < most) most = o->max_tokens;
    if (n < 1) return fail(e, ERR_ARG, "an empty prompt: give at least one token");
    if (n > s->capacity)
        return fail(e, ERR_ARG, "the prompt has %lld tokens, but the context holds %lld", (long long)n,
                    (long long)s->capacity);
    *w = (writer){.s = s, .a = a, .n = n, .n_prompt = n, .started = clock_seconds()};
    w->history = malloc((size_t)(n + most + 1) * sizeof *w->history);
    a->ids = malloc((size_t)(most + 1) * sizeof *a->ids);
    if (!w->history || !a->ids) return fail(e, ERR_NOMEM, "memory is out");
    memcpy(w->history, prompt, (size_t)n * sizeof *prompt);
    session_set_drafting(s, o->drafts > 0);
    return OK;
}

/* The rows of the next step: the chosen token, and drafts behind it. */
static status plan_step(writer *w, const generation *o, error *e) {
    w->draft[0] = w->next;
    int want = o->drafts < MAX_DRAFTS ? o->drafts : MAX_DRAFTS;
    int64_t room = w->s->capacity - w->s->length - 1;
    if (o->max_tokens && o->max_tokens - w->a->n_ids - 1 < room) room = o->max_tokens - w->a->n_ids - 1;
    if (room < want) want = (int)room;
    w->drafts = 0;
    if (want > 0) TRY(session_draft(w->s, w->next, want, w->draft + 1, &w->drafts, e));
    w->a->draft_proposed += w->drafts;
    return OK;
}

static bool on_prompt(void *arg, int64_t done, int64_t total) {
    const generate_hooks *h = arg;
    return !h || !h->prompt || h->prompt(h->arg, done, total);
}

static status steps(writer *w, int count, const generation *o, const generate_hooks *hooks, sampler *sam, error *e) {
    session **active = malloc((size_t)count * sizeof *active);
    const int32_t **tokens = malloc((size_t)count * sizeof *tokens);
    int64_t *n = malloc((size_t)count * sizeof *n);
    int *who = malloc((size_t)count * sizeof *who);
    status st = active && tokens && n && who ? OK : fail(e, ERR_NOMEM, "memory is out");
    while (st == OK) {
        int left = 0;
        for (int i = 0; i < count && st == OK; i++) {
            if (w[i].done) continue;
            if ((st = plan_step(&w[i], o, e)) != OK) break;
            active[left] = w[i].s;
            tokens[left] = w[i].draft;
            n[left] = 1 + w[i].drafts;
            who[left++] = i;
        }
        if (st != OK || !left) break;
        st = sessions_extend(active, left, tokens, n, n, e);
        for (int k = 0; k < left && st == OK; k++) st = choose(&w[who[k]], who[k], o, hooks, sam, e);
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
    writer *w = calloc((size_t)count, sizeof *w);
    sampler *sam = NULL;
    status st = w ? sampler_open(&sam, s[0]->g->m->cfg.vocab_size, e) : fail(e, ERR_NOMEM, "memory is out");
    for (int i = 0; i < count && st == OK; i++) st = prepare(&w[i], o, s[i], &answers[i], prompts[i], n[i], e);
    for (int i = 0; i < count && st == OK; i++) {
        st = session_sync(s[i], prompts[i], n[i], &answers[i].cached_tokens, on_prompt, (void *)hooks, e);
        if (st == OK) st = choose(&w[i], i, o, hooks, sam, e);
        if (st == OK) answers[i].prompt_seconds = w[i].first - w[i].started;
    }
    if (st == OK) st = steps(w, count, o, hooks, sam, e);
    for (int i = 0; w && i < count; i++) free(w[i].history);
    free(w);
    sampler_close(sam);
    return st;
}
