/* What a queue is inside: for the files of this folder. */
#ifndef HADAL_KERNELS_QUEUE_H
#define HADAL_KERNELS_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include "base/pool.h"
#include "kernels/levels.h"
#include "kernels/ops.h"

static inline int64_t round_up(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}

static inline int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

struct linear_micro; /* kernels/linear_micro.h: inner kernels of products */
struct attn_micro;   /* kernels/attn_micro.h: inner kernels of everything else */

/* Scratch memory by purpose. Files may use only slots of their own, so that buffers of one operation never collide. */
enum {
    SLOT_LINEAR_PLAN,
    SLOT_LINEAR_X,
    SLOT_LINEAR_THREAD,
    SLOT_ATTENTION,
    SLOT_LATENT,
    SLOT_INDEX,
    SLOT_ROWS,
    SLOT_FLASH,
    SLOT_MATMUL_PLAN,
    SLOT_MATMUL_LANES,
    SLOT_MATMUL_THREAD,
    SLOT_FP8_PLAN,
    SLOT_FP8_VALUES,
    SLOT_FP8_THREAD,
    SLOT_ROWS_TRAIN,
    SLOT_OPTIMIZER,
    SLOT_ATTENTION_TRAIN,
    SLOT_INDEX_LOSS,
    SLOT_COUNT
};

struct queue {
    pool *pool;
    int threads;
    level level;
    compute compute; /* never COMPUTE_FP8: so it can index tables */
    bool fp8_powers; /* scales of E4M3 rounded up to powers of two */
    bool fp8;        /* products of training in E4M3; all else as `compute` says, which is F32 then */
    const struct linear_micro *linear;
    const struct attn_micro *attn;
    struct {
        void *p;
        size_t bytes;
    } scratch[SLOT_COUNT];
    rows_way rows; /* which way the rows of products go */
    bool failed;   /* scratch memory ran out once: operations do nothing from then on */
};

/* Do the rows of a product of n rows go the way of few? */
static inline bool rows_are_few(const queue *q, int64_t n) {
    return q->rows == ROWS_FEW || (q->rows == ROWS_BY_NUMBER && n <= OP_FEW_ROWS);
}

/* Fill a table of inner kernels: the portable ones first, then those of every level up to l. linear_fill is in
 * linear.c, attn_fill in attention.c; they call the one function that a level folder's file exports (avx512_linear,
 * ...). */
void linear_fill(struct linear_micro *m, level l);
void attn_fill(struct attn_micro *m, level l);

/* At least `bytes` of 64-byte aligned memory; contents are undefined, and the slot's previous pointer is dead when the
 * slot had to grow. NULL when memory is out (or has been before): the operation then returns without doing anything.
 * Only the thread that owns the queue calls it, never a task. */
void *queue_scratch(queue *q, int slot, size_t bytes);

#endif
