/* Log-likelihood of answers that are given: log p(continuation | prompt) = sum over its tokens of log softmax(logits).
 * As in lm-evaluation-harness (api/model.py, _encode_pair) the continuation's tokens are those that the tokenizer adds
 * when it reads prompt and continuation as one text.
 *
 * Neighbouring questions share their worked examples: what they have in common is computed once, copied, and the rest
 * of a batch of them goes through the model together. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "eval/ask.h"
#include "eval/exam.h"

enum { MOST_CHOICES = 26, BATCH = 32, ROOM = 8 /* tokens of a continuation */ };

typedef struct continuation {
    int32_t ids[ROOM];
    int64_t n;
    double logprob;
} continuation;

typedef struct pupil { /* one question of a batch */
    int64_t number;
    const question *q;
    int choices;
    continuation c[MOST_CHOICES];
    session *s;
} pupil;

typedef struct likelihood {
    exam x;
    const ask_letters *r;
    int64_t capacity; /* of sessions */
    session *shared;  /* holds what the questions of a batch begin with */
    pupil p[BATCH];
    int n;
} likelihood;

/* --- tokens ------------------------------------------------------------------------------------------------------- */

static status encode_choice(const likelihood *l, const question *q, int letter, continuation *c, error *e) {
    str text = {0};
    int32_t *ids = NULL;
    size_t n = 0;
    str_addf(&text, "%s%s%c%s", q->prompt, l->r->before, 'A' + letter, l->r->behind);
    status s = str_check(&text, e);
    if (s == OK) s = tokenizer_encode(l->x.q->t, text.p, text.n, TOK_ADD_SPECIAL, &ids, &n, e);
    const int64_t more = (int64_t)n - q->n;
    if (s == OK && (more < 1 || more > ROOM || memcmp(ids, q->ids, (size_t)q->n * sizeof *ids) != 0))
        s = fail(e, ERR_UNSUPPORTED,
                 "this tokenizer joins the end of the prompt with the answer \"%s%c%s\": use --chat", l->r->before,
                 'A' + letter, l->r->behind);
    if (s == OK) {
        c->n = more;
        memcpy(c->ids, ids + q->n, (size_t)more * sizeof *ids);
    }
    free(ids);
    str_free(&text);
    return s;
}

static status take_question(likelihood *l, int64_t number, error *e) {
    pupil *p = &l->p[l->n++];
    const question *q = &l->x.q->list[number];
    *p = (pupil){.number = number, .q = q, .s = p->s, .choices = q->choices};
    for (int i = 0; i < p->choices; i++) TRY(encode_choice(l, q, i, &p->c[i], e));
    return p->s ? OK : session_open(&p->s, l->x.g, l->capacity, e);
}

/* --- logits ------------------------------------------------------------------------------------------------------- */

static double log_softmax(const float *x, int64_t n, int32_t id) {
    double most = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) most = x[i] > most ? (double)x[i] : most;
    for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - most);
    return (double)x[id] - most - log(sum);
}

/* Tokens that all prompts of the batch begin with; at least one of each prompt remains. */
static int64_t common(const likelihood *l) {
    int64_t n = l->p[0].q->n - 1;
    for (int k = 1; k < l->n; k++) {
        const int64_t same = question_shared(l->p[0].q, l->p[k].q);
        n = same < n ? same : n;
    }
    return n;
}

static status read_prompts(likelihood *l, error *e) {
    const int64_t vocab = l->x.g->m->cfg.vocab_size, same = common(l);
    session *s[BATCH];
    const int32_t *ids[BATCH];
    int64_t n[BATCH];
    if (same > 0) TRY(session_sync(l->shared, l->p[0].q->ids, same, NULL, NULL, NULL, e));
    for (int k = 0; k < l->n; k++) {
        s[k] = l->p[k].s;
        ids[k] = l->p[k].q->ids + same;
        n[k] = l->p[k].q->n - same;
        session_truncate(s[k], 0);
        if (same > 0) TRY(session_fork(s[k], l->shared, e));
    }
    TRY(sessions_extend(s, l->n, ids, n, NULL, e));
    for (int k = 0; k < l->n; k++)
        for (int i = 0; i < l->p[k].choices; i++)
            l->p[k].c[i].logprob = log_softmax(s[k]->logits, vocab, l->p[k].c[i].ids[0]);
    return OK;
}

/* The tokens behind the first one of choice i of all questions; the sessions forget them again. */
static status read_choice(likelihood *l, int i, error *e) {
    const int64_t vocab = l->x.g->m->cfg.vocab_size;
    session *s[BATCH];
    const int32_t *ids[BATCH];
    int64_t n[BATCH];
    pupil *who[BATCH];
    int count = 0;
    for (int k = 0; k < l->n; k++) {
        pupil *p = &l->p[k];
        if (i >= p->choices || p->c[i].n < 2) continue;
        s[count] = p->s;
        ids[count] = p->c[i].ids;
        n[count] = p->c[i].n - 1; /* nothing follows the last one */
        who[count++] = p;
    }
    if (!count) return OK;
    TRY(sessions_extend(s, count, ids, n, n, e));
    for (int k = 0; k < count; k++) {
        continuation *c = &who[k]->c[i];
        for (int64_t t = 1; t < c->n; t++) c->logprob += log_softmax(s[k]->logits + (t - 1) * vocab, vocab, c->ids[t]);
        session_truncate(s[k], who[k]->q->n);
    }
    return OK;
}

/* --- answers ------------------------------------------------------------------------------------------------------ */

static status deliver(likelihood *l, const pupil *p, error *e) {
    int best = 0;
    json_t *o = exam_answer(&l->x, p->number, 0), *list = json_array(), *values = json_object();
    bool bad = !o || !list || !values;
    for (int i = 0; i < p->choices; i++) {
        const char letter[2] = {(char)('A' + i), 0};
        bad |= json_object_set_new(values, letter, json_real(p->c[i].logprob)) != 0;
        if (p->c[i].logprob > p->c[best].logprob) best = i;
    }
    const char found[2] = {(char)('A' + best), 0};
    bad |= json_object_set(o, "logprobs", values) || json_object_set_new(o, "extracted", json_string(found)) ||
           json_object_set_new(o, "score", json_integer(strcmp(found, p->q->answer) == 0)) ||
           json_array_append(list, o);
    status s = bad ? fail(e, ERR_NOMEM, "memory is out") : exam_add(&l->x, p->number, list, e);
    json_decref(values);
    json_decref(o);
    json_decref(list);
    return s;
}

static status run_batch(likelihood *l, error *e) {
    int most = 0;
    if (!exam_goes_on(&l->x)) return fail(e, ERR_CANCELLED, "cancelled");
    TRY(read_prompts(l, e));
    for (int k = 0; k < l->n; k++) most = l->p[k].choices > most ? l->p[k].choices : most;
    for (int i = 0; i < most; i++) TRY(read_choice(l, i, e));
    for (int k = 0; k < l->n; k++) TRY(deliver(l, &l->p[k], e));
    l->n = 0;
    return OK;
}

/* A batch takes neighbours until their own tokens fill a walk through the model. */
static status run(likelihood *l, error *e) {
    const exam *x = &l->x;
    int64_t rows = 0;
    for (int64_t k = 0; k < x->n_open; k++) {
        const int64_t need = x->q->list[x->open[k]].n + ROOM;
        l->capacity = need > l->capacity ? need : l->capacity;
    }
    if (x->n_open) TRY(session_open(&l->shared, x->g, l->capacity, e));
    for (int64_t k = 0; k < x->n_open; k++) {
        const question *q = &x->q->list[x->open[k]];
        const int64_t own = l->n ? q->n - question_shared(q, l->p[0].q) : 0;
        if (l->n == BATCH || (l->n && rows + own > x->g->chunk)) {
            TRY(run_batch(l, e));
            rows = 0;
        }
        rows += own;
        TRY(take_question(l, x->open[k], e));
    }
    return l->n ? run_batch(l, e) : OK;
}

status ask_likelihood(engine *g, const questions *q, const ask_letters *r, json_t *out, error *e) {
    const exam_way way = {.name = "likelihood", .samples = 1, .room = ROOM};
    likelihood *l = calloc(1, sizeof *l);
    if (!l) return fail(e, ERR_NOMEM, "memory is out");
    l->r = r;
    status s = exam_open(&l->x, g, q, &way, json_string_value(json_object_get(out, "task")), e);
    if (s == OK) s = run(l, e);
    if (s == OK) s = exam_report(&l->x, out, e);
    session_close(l->shared);
    for (int k = 0; k < BATCH; k++) session_close(l->p[k].s);
    exam_close(&l->x);
    free(l);
    return s;
}
