/* AdamW (its arithmetic is op_adamw's) and Muon (muon.c) over a range of weights. Which weight belongs to which is
 * settled at the start; a step makes one list of all AdamW weights, and lists of like matrices for Muon. */
#include "train/optimizer.h"

#include <math.h>
#include <stdlib.h>
#include "base/arena.h"
#include "train/muon.h"

enum { SCRATCH_MOST = 1 << 24 }; /* numbers of Muon's scratch memory, unless one matrix needs more */

typedef struct weight { /* one of the range; m NULL: it stays as it is */
    moments moments;
    bool muon;
} weight;

struct optimizer {
    arena *mem;
    int64_t first, end;
    weight *list; /* [end - first] */
    adamw_step *adamw;
    float *scratch; /* Muon's */
    size_t scratch_n;
    double beta1, beta2, eps, decay, momentum;
    int iterations;
};

static status make_moments(optimizer *o, const param *p, weight *w, bool bf16, error *e) {
    const size_t size = bf16 ? sizeof(uint16_t) : sizeof(float);
    if (p->buffer || !p->trainable) return OK;
    w->moments.type = bf16 ? DT_BF16 : DT_F32;
    w->moments.m = arena_zero(o->mem, (size_t)p->n, size);
    if (!w->muon) w->moments.v = arena_zero(o->mem, (size_t)p->n, size);
    if (!w->moments.m || (!w->muon && !w->moments.v))
        return fail(e, ERR_NOMEM, "memory is out: %lld numbers of moments for %s", (long long)p->n, p->name);
    return OK;
}

static status prepare(optimizer *o, const train_config *c, const params *p, error *e) {
    const size_t n = (size_t)(o->end - o->first);
    size_t largest = 0;
    o->mem = arena_open(1 << 16);
    o->list = o->mem ? arena_zero(o->mem, n + 1, sizeof *o->list) : NULL;
    o->adamw = o->list ? arena_zero(o->mem, n + 1, sizeof *o->adamw) : NULL;
    if (!o->adamw) return fail(e, ERR_NOMEM, "memory is out");
    for (size_t i = 0; i < n; i++) {
        const param *x = &p->list[o->first + (int64_t)i];
        o->list[i].muon = c->optimizer.kind == OPTIMIZER_MUON && muon_takes(x);
        TRY(make_moments(o, x, &o->list[i], c->optimizer.bf16_moments, e));
        if (!o->list[i].muon || !o->list[i].moments.m) continue;
        size_t one = muon_scratch(x->dim[0], x->dim[1]), many = one * MUON_MOST;
        if (many > SCRATCH_MOST) many = one > SCRATCH_MOST ? one : SCRATCH_MOST;
        if (many > largest) largest = many;
    }
    o->scratch_n = largest;
    o->scratch = largest ? arena_take(o->mem, largest * sizeof *o->scratch) : NULL;
    return largest && !o->scratch ? fail(e, ERR_NOMEM, "memory is out") : OK;
}

status optimizer_open(optimizer **out, const train_config *c, const params *p, int64_t first_param, int64_t end_param,
                      error *e) {
    optimizer *o = calloc(1, sizeof *o);
    *out = NULL;
    if (!o) return fail(e, ERR_NOMEM, "memory is out");
    o->first = first_param;
    o->end = end_param;
    o->beta1 = c->optimizer.beta1;
    o->beta2 = c->optimizer.beta2;
    o->eps = c->optimizer.eps;
    o->decay = c->optimizer.weight_decay;
    o->momentum = c->optimizer.muon_momentum;
    o->iterations = c->optimizer.muon_steps;
    status s = prepare(o, c, p, e);
    if (s == OK) *out = o;
    else optimizer_close(o);
    return s;
}

void optimizer_close(optimizer *o) {
    if (!o) return;
    arena_close(o->mem);
    free(o);
}

static void step_adamw(optimizer *o, queue *q, params *p, int64_t step, double lr, double grad_scale) {
    int n = 0;
    for (int64_t i = o->first; i < o->end; i++) {
        const weight *w = &o->list[i - o->first];
        const param *x = &p->list[i];
        if (w->muon || !w->moments.m) continue;
        o->adamw[n++] = (adamw_step){.w = p->w + x->first,
                                     .g = p->g + x->first,
                                     .m = w->moments.m,
                                     .v = w->moments.v,
                                     .moments = w->moments.type,
                                     .n = x->n,
                                     .lr = lr * x->lr_scale,
                                     .beta1 = o->beta1,
                                     .beta2 = o->beta2,
                                     .eps = o->eps,
                                     .decay = x->decay ? o->decay : 0,
                                     .correction1 = 1 - pow(o->beta1, (double)step),
                                     .correction2 = 1 - pow(o->beta2, (double)step),
                                     .grad_scale = grad_scale};
    }
    if (n) op_adamw(q, o->adamw, n);
}

/* Muon takes neighbours of one shape together: the experts of a layer. */
static void step_muon(optimizer *o, queue *q, params *p, double lr, double grad_scale) {
    for (int64_t i = o->first; i < o->end;) {
        const weight *w = &o->list[i - o->first];
        const param *first = &p->list[i];
        muon_step list[MUON_MOST];
        int n = 0;
        if (!w->muon || !w->moments.m) {
            i++;
            continue;
        }
        const muon_shape shape = {.rows = first->dim[0],
                                  .cols = first->dim[1],
                                  .moments = w->moments.type,
                                  .momentum = o->momentum,
                                  .grad_scale = grad_scale,
                                  .iterations = o->iterations};
        const size_t one = muon_scratch(shape.rows, shape.cols);
        for (; i < o->end && n < MUON_MOST && (size_t)(n + 1) * one <= o->scratch_n; i++) {
            const weight *v = &o->list[i - o->first];
            const param *x = &p->list[i];
            if (!v->muon || !v->moments.m || x->dim[0] != shape.rows || x->dim[1] != shape.cols) break;
            list[n++] = (muon_step){.w = p->w + x->first,
                                    .g = p->g + x->first,
                                    .m = v->moments.m,
                                    .lr = lr * x->lr_scale,
                                    .decay = x->decay ? o->decay : 0};
        }
        muon_update(q, &shape, list, n, o->scratch);
    }
}

status optimizer_step(optimizer *o, queue *q, params *p, int64_t step, double lr, double grad_scale, error *e) {
    step_adamw(o, q, p, step, lr, grad_scale);
    step_muon(o, q, p, lr, grad_scale);
    return queue_failed(q, e);
}

moments optimizer_moments(optimizer *o, int64_t i) {
    return o->list[i - o->first].moments;
}
