/* The inner kernels below op_attention, op_latent_attention, op_index_select and the row operations. cpu/ref fills the
 * whole table in plain C and is the specification; every level above overwrites what it does better.
 *
 * Products are made of plain rows (keys) and of panels (queries): a panel is PANEL vectors side by side, so that one
 * vector register holds the same element of 16 queries and the softmax over keys needs no sum across lanes. */
#ifndef HADAL_KERNELS_ATTN_MICRO_H
#define HADAL_KERNELS_ATTN_MICRO_H

#include <stdbool.h>
#include <stdint.h>
#include "kernels/attn_train_micro.h"
#include "kernels/ops.h"

enum {
    PANEL = 16,            /* vectors in a panel */
    STEP_PANELS = 2,       /* panels that one step takes at most */
    KEY_BLOCK = CACHE_PAGE /* keys of one step of the online softmax: blocks start at multiples of it */
};

/* One step of the online softmax (see flash.h): `panels` panels of queries meet one block of keys. */
typedef struct attn_step {
    const void *q; /* panels, each d_qk (padded) x PANEL numbers */
    int panels;
    const void *k; /* rows of d_qk numbers, k_stride elements apart, their count padded to a multiple of row_pad; NULL
                    * when s holds the scores already */
    int64_t k_stride;
    const int32_t *index; /* NULL, or the rows of k that are the keys; v is k then: see gather_pad */
    const void *v;        /* what pack_values made, or rows v_stride elements apart when values_plain */
    int64_t v_stride;
    int keys;            /* 1 .. KEY_BLOCK */
    int64_t d_qk, d_v;   /* padded: d_qk to dim_pad, d_v to PANEL */
    const int32_t *seen; /* [panels * PANEL] keys of this block that a query sees: 0 .. keys */
    float scale;         /* times log2(e): the weights are powers of two */
    float *max, *sum;    /* [panels * PANEL] running maximum of the scaled scores, and sum */
    float *o;            /* [panels * PANEL][d_v] running numerator */
    float *s;            /* scratch: KEY_BLOCK * STEP_PANELS * PANEL numbers, 64-byte aligned */
    void *p;             /* scratch of the same size */
} attn_step;

/* Attention of one token in F32 where ROW_HEADS heads or one less share the keys: too few to fill a panel. Scores are
 * dot products along d_qk, in F32; the softmax takes all keys at once. */
enum { ROW_HEADS = 4, ROW_KEYS = CACHE_PAGE, ROW_DIMS = 16 };
typedef struct attn_row {
    const float *q; /* head h: q + h * d_qk */
    int heads;
    const float *k, *v;
    int64_t k_stride, v_stride;
    int64_t keys;      /* 1 .. ROW_KEYS */
    int64_t d_qk, d_v; /* multiples of ROW_DIMS */
    float scale;       /* times log2(e) */
    float *o;          /* head h: o + h * d_v */
} attn_row;

/* The products of one compute type. Packed numbers are of `type`; 64-byte aligned. */
typedef struct attn_product {
    dtype type;        /* F32 or BF16 */
    dtype in_place;    /* rows of this type are read where they lie; DT_COUNT: none, all are packed */
    int dim_pad;       /* row lengths are padded with zeros to a multiple of this */
    int row_pad;       /* and row counts to a multiple of this */
    int gather_pad;    /* not 0: a step of one panel takes rows of type in_place by index, where they lie, when d_qk and
                        * d_v are multiples of this */
    bool values_plain; /* values are rows like keys; else only what pack_values makes will do */

    /* count (<= PANEL) rows of d numbers side by side; absent rows and padding are zeros. */
    void (*pack_panel)(void *panel, const void *const *rows, dtype type, int count, int64_t d);
    /* n rows (rows index[0..n) when index is given) of d numbers, padded. */
    void (*pack_rows)(void *out, const void *rows, dtype type, int64_t stride, const int32_t *index, int64_t n,
                      int64_t d);
    void (*pack_values)(void *out, const void *rows, dtype type, int64_t stride, int64_t n, int64_t d);
    /* s[r][c] = row r . vector c of the panels, of which there may be any number; s: [n padded][panels * PANEL];
     * d padded. */
    void (*scores)(float *s, const void *rows, int64_t stride, int64_t n, const void *panel, int panels, int64_t d);
    void (*step)(const attn_step *a);
} attn_product;

/* An AdamW step in F32: g = scale g;  m = beta1 m + grad1 g;  v = beta2 v + grad2 g^2;
 * w = keep w - rate m / (sqrt(v) root + eps), with m and v before they are rounded to BF16. */
typedef struct adamw_factors {
    float scale, beta1, grad1, beta2, grad2, keep, rate, root, eps;
} adamw_factors;

/* Sums over a row of logits z for op_logprobs: e = exp(scale (z - most)). */
typedef struct logit_sums {
    double sum, weighted; /* sum e, sum e scale (z - most); NaN when a logit is not finite */
    float most;           /* largest logit */
    int32_t best;         /* the first place of it; 0 when there is none */
} logit_sums;

typedef struct attn_micro {
    attn_product product[2]; /* by compute */

    void (*row)(const attn_row *a);                                       /* NULL: panels only */
    void (*blend)(float *o, float a, const float *x, float b, int64_t n); /* o = a o + b x */
    void (*scale)(float *o, const float *x, float a, int64_t n);          /* o = a x */
    /* out[c] = sum_j w[j] relu(s[j * stride + c]), c < width (a multiple of PANEL) */
    void (*relu_sum)(float *out, const float *s, int64_t stride, const float *w, int heads, int64_t width);
    /* Positions of the k largest of n > k scores, ascending; of equal ones the earlier; NaN counts as the smallest.
     * scratch: 2 n + PANEL numbers. */
    void (*top_k)(int32_t *keep, const float *score, int64_t n, int64_t k, uint32_t *scratch);

    /* One row; y may be x. */
    void (*rmsnorm)(float *y, const float *x, const float *w, int64_t dim, float eps);
    void (*layernorm)(float *y, const float *x, const float *w, const float *b, int64_t dim, float eps);
    void (*swiglu)(float *y, const float *a, const float *b, int64_t dim);
    void (*add)(float *y, const float *x, int64_t dim);
    void (*rope)(float *x, int64_t dim, const float *angles, bool interleaved); /* angles: [dim/2][2] = cos, sin */

    /* Training: one row of each derivative in train_ops.h. dw and db are added to, and may be NULL. */
    void (*rmsnorm_dx)(float *dx, float *dw, const float *dy, const float *x, const float *w, int64_t dim, float eps,
                       bool add);
    void (*layernorm_dx)(float *dx, float *dw, float *db, const float *dy, const float *x, const float *w, int64_t dim,
                         float eps, bool add);
    void (*swiglu_dx)(float *da, float *db, const float *dy, const float *a, const float *b, int64_t dim);
    void (*rope_dx)(float *x, int64_t dim, const float *angles, bool interleaved);
    float (*cross_entropy)(float *z, int32_t target, int64_t vocab, float scale, int32_t *best);
    void (*logit_sums)(logit_sums *out, const float *z, int64_t vocab, float scale);
    /* z = factor exp(scale z - lse) */
    void (*softmax_row)(float *z, int64_t vocab, float scale, float lse, float factor);
    void (*adamw)(float *w, const float *g, void *m, void *v, dtype moments, int64_t n, const adamw_factors *f);
    double (*sum_squares)(const float *x, int64_t n); /* the same bits on every level */

    attn_train_micro train; /* attention in training */
} attn_micro;

void ref_attn(attn_micro *m);
void ref_rows(attn_micro *m);       /* the parts of ref_attn that are in ref/rows.c */
void ref_train(attn_micro *m);      /* and in ref/train.c */
void ref_attn_train(attn_micro *m); /* and in ref/attn_train.c */
void avx2_attn(attn_micro *m);
void avx512_attn(attn_micro *m);
void avx512bf16_attn(attn_micro *m);
void amx_attn(attn_micro *m);

#endif
