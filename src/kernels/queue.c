/* Queues: a pool of threads, the inner kernels of one level, and scratch memory that grows and stays. */
#include "kernels/queue.h"

#include <stdlib.h>
#include <sys/mman.h>
#include "kernels/attn_micro.h"
#include "kernels/linear_micro.h"

enum { HUGE_PAGE = 2 << 20 }; /* inner kernels walk through scratch memory faster than small pages can be looked up */

/* A queue and the tables it points to, in one block. */
typedef struct opened {
    queue q;
    linear_micro linear;
    struct attn_micro attn;
} opened;

status queue_open(queue **out, int threads, const char *name, compute c, error *e) {
    *out = NULL;
    level l;
    TRY(level_choose(&l, name, e));
    opened *o = calloc(1, sizeof *o);
    if (!o) return fail(e, ERR_NOMEM, "memory is out");
    status s = pool_open(&o->q.pool, threads, e);
    if (s != OK) {
        free(o);
        return s;
    }
    linear_fill(&o->linear, l);
    attn_fill(&o->attn, l);
    o->q.threads = pool_threads(o->q.pool);
    o->q.level = l;
    o->q.compute = c == COMPUTE_FP8 ? COMPUTE_F32 : c;
    o->q.fp8 = c == COMPUTE_FP8;
    o->q.linear = &o->linear;
    o->q.attn = &o->attn;
    *out = &o->q;
    return OK;
}

void queue_close(queue *q) {
    if (!q) return;
    pool_close(q->pool);
    for (int i = 0; i < SLOT_COUNT; i++) free(q->scratch[i].p);
    free(q);
}

const char *queue_level(const queue *q) {
    return level_name(q->level);
}

int queue_threads(const queue *q) {
    return q->threads;
}

void queue_fp8_powers(queue *q) {
    q->fp8_powers = true;
}

rows_way queue_rows(queue *q, rows_way way) {
    const rows_way before = q->rows;
    q->rows = way;
    return before;
}

compute queue_compute(const queue *q) {
    return q->fp8 ? COMPUTE_FP8 : q->compute;
}

void queue_run(queue *q, int64_t tasks, void (*f)(void *arg, int64_t task, int thread), void *arg) {
    pool_run(q->pool, tasks, f, arg);
}

void *queue_scratch(queue *q, int slot, size_t bytes) {
    if (q->failed) return NULL;
    if (bytes <= q->scratch[slot].bytes && q->scratch[slot].p) return q->scratch[slot].p;
    free(q->scratch[slot].p);
    q->scratch[slot].p = NULL;
    q->scratch[slot].bytes = 0;
    size_t rounded = bytes + bytes / 8; /* a context that grows token by token must not allocate token by token */
    size_t unit = rounded < HUGE_PAGE ? 64 : HUGE_PAGE;
    if (rounded >= bytes && rounded <= SIZE_MAX - unit) {
        rounded = (rounded + unit) / unit * unit;
        q->scratch[slot].p = aligned_alloc(unit, rounded);
    }
    if (!q->scratch[slot].p) {
        q->failed = true;
        return NULL;
    }
    if (unit == HUGE_PAGE) madvise(q->scratch[slot].p, rounded, MADV_HUGEPAGE); /* a hint: fine when refused */
    q->scratch[slot].bytes = rounded;
    return q->scratch[slot].p;
}

status queue_failed(queue *q, error *e) {
    if (!q->failed) return OK;
    q->failed = false;
    return fail(e, ERR_NOMEM, "memory is out: an operation could not get its scratch memory");
}
