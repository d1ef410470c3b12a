#include "train/head.h"

#include <string.h>

enum { HEAD_BYTES = 32 << 20, HEAD_LEAST = 64, HEAD_MOST = 512 }; /* of logits that are held at once; rows */

typedef struct chunk { /* some rows that have a target */
    const head_call *c;
    int64_t hidden, vocab, most, n, next; /* rows it can hold, rows it holds, where the next one begins */
    int64_t *at;                          /* [most] their numbers */
    real *rows, *drows, *z, *each;        /* [most][hidden] twice, [most][vocab], [most] */
    int32_t *target, *best;               /* [most] */
} chunk;

static status open_chunk(chunk *k, const head_call *c, int64_t most) {
    arena *m = c->mem;
    *k = (chunk){.c = c, .hidden = c->w->dim[1], .vocab = c->w->dim[0]};
    k->most = HEAD_BYTES / (k->vocab * (int64_t)sizeof(real));
    k->most = k->most < HEAD_LEAST ? HEAD_LEAST : k->most > most ? most : k->most;
    k->rows = arena_take(m, (size_t)(k->most * k->hidden) * sizeof *k->rows);
    k->drows = arena_take(m, (size_t)(k->most * k->hidden) * sizeof *k->drows);
    k->z = arena_take(m, (size_t)(k->most * k->vocab) * sizeof *k->z);
    k->each = arena_take(m, (size_t)k->most * sizeof *k->each);
    k->at = arena_take(m, (size_t)k->most * sizeof *k->at);
    k->target = arena_take(m, (size_t)k->most * sizeof *k->target);
    k->best = arena_take(m, (size_t)k->most * sizeof *k->best);
    for (int64_t i = 0; i < c->n; i++) c->best[i] = -1;
    const bool ok = k->rows && k->drows && k->z && k->each && k->at && k->target && k->best;
    return ok ? OK : fail(c->e, ERR_NOMEM, "memory is out");
}

/* The next rows and their logits; false: there are no more. */
static bool next_chunk(chunk *k) {
    const head_call *c = k->c;
    for (k->n = 0; k->next < c->n && k->n < k->most; k->next++) {
        if (c->target[k->next] < 0) continue;
        memcpy(k->rows + k->n * k->hidden, c->y + k->next * k->hidden, (size_t)k->hidden * sizeof *k->rows);
        k->target[k->n] = c->target[k->next];
        k->at[k->n++] = k->next;
    }
    if (!k->n) return false;
    op_linear(
        c->q,
        &(product){.w = c->w, .x = k->rows, .ldx = k->hidden, .y = k->z, .ldy = k->vocab, .n = k->n, .f32 = c->f32}, 1);
    return true;
}

/* z is the gradient of the logits: from there to dy and dw. */
static void way_back(const chunk *k) {
    const head_call *c = k->c;
    op_linear_dx(
        c->q,
        &(product_dx){
            .w = c->w, .dy = k->z, .lddy = k->vocab, .dx = k->drows, .lddx = k->hidden, .n = k->n, .f32 = c->f32},
        1);
    product_dw sum = gradient_of(c->dw, k->z, k->vocab, k->rows, k->hidden, k->n);
    sum.f32 = c->f32;
    op_linear_dw(c->q, &sum, 1);
    for (int64_t t = 0; t < k->n; t++)
        for (int64_t j = 0; j < k->hidden; j++) c->dy[k->at[t] * k->hidden + j] += k->drows[t * k->hidden + j];
}

status head_cross_entropy(const head_call *c, double *loss, int64_t *targets) {
    chunk k;
    TRY(open_chunk(&k, c, HEAD_MOST));
    while (next_chunk(&k)) {
        op_cross_entropy(c->q, k.z, k.vocab, k.target, k.n, k.vocab, c->factor, k.each, k.best);
        TRY(queue_failed(c->q, c->e));
        for (int64_t t = 0; t < k.n; t++) {
            *loss += (double)k.each[t];
            c->best[k.at[t]] = k.best[t];
        }
        *targets += k.n;
        if (c->gradients) way_back(&k);
    }
    return queue_failed(c->q, c->e);
}

typedef struct judged { /* all rows with a target */
    int64_t n;
    int64_t *row;
    int32_t *wanted; /* [n][k] */
    real *logp, *d, *lse, *entropy;
} judged;

static status open_judged(judged *a, const head_call *c, const token_loss *judge, const token_batch *b) {
    const size_t k = (size_t)judge->k;
    *a = (judged){0};
    a->row = arena_take(c->mem, (size_t)c->n * sizeof *a->row);
    if (!a->row) return fail(c->e, ERR_NOMEM, "memory is out");
    for (int64_t i = 0; i < c->n; i++)
        if (c->target[i] >= 0) a->row[a->n++] = i;
    const size_t n = (size_t)a->n + 1;
    a->wanted = arena_take(c->mem, n * k * sizeof *a->wanted);
    a->logp = arena_take(c->mem, n * k * sizeof *a->logp);
    a->d = arena_take(c->mem, n * k * sizeof *a->d);
    a->lse = arena_take(c->mem, n * sizeof *a->lse);
    a->entropy = arena_take(c->mem, n * sizeof *a->entropy);
    if (!a->wanted || !a->logp || !a->d || !a->lse || !a->entropy) return fail(c->e, ERR_NOMEM, "memory is out");
    for (int64_t i = 0; i < a->n; i++) {
        if (judge->wanted) judge->wanted(judge->arg, b, a->row[i], a->wanted + i * judge->k);
        else a->wanted[i] = c->target[a->row[i]];
    }
    return OK;
}

status head_judged(const head_call *c, const token_loss *judge, const token_batch *b, double *loss, int64_t *targets) {
    const real scale = 1 / judge->temperature;
    const int w = judge->k;
    judged a;
    chunk k;
    int64_t done = 0;
    double said = 0;
    if (judge->begin) TRY(judge->begin(judge->arg, b, c->e));
    TRY(open_judged(&a, c, judge, b));
    TRY(open_chunk(&k, c, a.n > HEAD_LEAST ? a.n : HEAD_LEAST));
    const bool whole = a.n <= k.most;
    for (; next_chunk(&k); done += k.n) {
        op_logprobs(c->q, k.z, k.vocab, k.n, k.vocab, scale, a.wanted + done * w, w, a.logp + done * w, a.lse + done,
                    a.entropy + done, k.best);
        for (int64_t t = 0; t < k.n; t++) c->best[k.at[t]] = k.best[t];
        if (whole) break;
    }
    TRY(queue_failed(c->q, c->e));
    *targets += a.n;
    TRY(judge->apply(judge->arg, b, a.n, a.row, a.logp, a.entropy, c->gradients ? a.d : NULL, &said, c->e));
    *loss += judge->mean ? said * (double)c->factor : said;
    for (int64_t i = 0; judge->mean && c->gradients && i < a.n * w; i++) a.d[i] *= c->factor;
    if (!c->gradients || !a.n) return OK;
    k.next = 0;
    for (done = 0; whole || next_chunk(&k); done += k.n) {
        op_logprobs_dx(c->q, k.z, k.vocab, k.n, k.vocab, scale, a.wanted + done * w, w, a.d + done * w, a.lse + done);
        way_back(&k);
        if (whole) break;
    }
    return queue_failed(c->q, c->e);
}
