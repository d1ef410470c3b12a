/* The inner kernels of op_attention_forward, op_attention_backward and op_index_loss beside the products, which are
 * those of linear_micro.h: what happens between two products to a block of keys x queries.
 *
 * A block lies as block[] of linear_micro.h leaves it: tiles [keys / 16][groups][16 keys][16 queries]. So the 16
 * queries of a group are the lanes of a vector and sums over keys need no sum across lanes. What is to be the first
 * operand of a product is written as rows [keys][groups * 16], what is to be the second as x: [groups][keys][16], or
 * with BF16 [groups][keys / 2][16][2]. */
#ifndef HADAL_KERNELS_ATTN_TRAIN_MICRO_H
#define HADAL_KERNELS_ATTN_TRAIN_MICRO_H

#include <stdbool.h>
#include <stdint.h>

typedef struct train_tiles {
    const float *s;
    int64_t keys, groups; /* keys: a multiple of 32 */
    const uint16_t *mask; /* [keys][groups], bit c: query c of the group sees the key; NULL: all do */
    bool bf16;            /* the type of rows and x */
} train_tiles;

/* A step of the online softmax (flash.h): with y = s scale, max, sum and the factor `correction` of what was summed
 * before; x = 2^(y - max). All [groups * 16]. */
typedef struct train_softmax {
    train_tiles t;
    float scale; /* times log2(e) */
    float *max, *sum, *correction;
    void *x;
} train_softmax;

/* p = 2^(s scale - lse), ds = factor p (dp - delta). */
typedef struct train_gradient {
    train_tiles t;
    const float *dp;          /* tiles */
    float scale, factor;      /* scale: times log2(e) */
    const float *lse, *delta; /* [groups * 16]; lse in units of ln 2 */
    void *p_rows, *ds_rows, *ds_x;
} train_gradient;

/* g = di w [s > 0], dw += sum over keys of di max(s, 0). */
typedef struct train_relu {
    train_tiles t;
    const float *di; /* tiles */
    const float *w;  /* [groups * 16] */
    float *dw;       /* [groups * 16] */
    void *rows, *x;
} train_relu;

typedef struct attn_train_micro {
    float (*dot)(const float *a, const float *b, int64_t n);
    /* Tiles [count / 16][groups][16][16 queries] times the queries' factors. */
    void (*multiply)(float *tiles, int64_t count, int64_t groups, const float *factor);
    void (*softmax)(const train_softmax *a);
    void (*gradient)(const train_gradient *a);
    /* total += 2^(s scale - lse) */
    void (*weights)(const train_tiles *t, float scale, const float *lse, float *total);
    /* total += w max(s, 0) */
    void (*relu_sum)(const train_tiles *t, const float *w, float *total);
    /* With p = s / sum of s and r = softmax(i) over the keys that a query sees: kl = sum p log(p / r) and
     * i <- scale (r - p), 0 where it sees none. */
    void (*divergence)(const train_tiles *t, float *i, float scale, float *kl);
    void (*relu_gradient)(const train_relu *a);
} attn_train_micro;

#endif
