/* Inner kernels of products: the table that a level fills. linear.c cuts products into pieces, these do the pieces.
 *
 * Two ways through a product y[t][o] = sum_i x[t][i] w[o][i]:
 *   few rows (n <= OP_FEW_ROWS, decoding): limited by reading w once; every row of w meets all rows of x.
 *   many rows (prefill): limited by multiplying. Rows of w are the first operand, just as the file has them, so that
 *   only x is laid out anew: groups of 16 tokens become the lanes of a vector, [group][i][16] in F32 and
 *   [group][i / 2][16][2] in BF16, once per call. Sums come out as [o][token] and are turned round when stored. */
#ifndef HADAL_KERNELS_LINEAR_MICRO_H
#define HADAL_KERNELS_LINEAR_MICRO_H

#include <stdbool.h>
#include <stdint.h>
#include "kernels/levels.h"
#include "kernels/ops.h"

enum {
    LINEAR_TYPES = DT_E4M3 + 1, /* F32, BF16, F16, E4M3 */
    GROUP = 16,                 /* tokens that share a vector; rows of w in panels are rounded up to it too */
    K_STEP = 32,                /* columns of panels and of laid-out x are rounded up to it, with zeros */
    FEW_PAD = 128               /* columns of rounded x of few-row products, with zeros behind */
};

/* dtype_size of the types of weights; known to the compiler where the type is. */
static inline size_t weight_size(dtype t) {
    return t == DT_F32 ? 4 : t == DT_E4M3 ? 1 : 2;
}

/* `rows` rows of w (from row `row` of its block grid on) times n <= OP_FEW_ROWS rows of x. */
typedef struct few_call {
    const void *w; /* [rows][in] */
    int64_t in, rows;
    const float *scale; /* E4M3: the scales of the whole grid, else unused */
    int64_t scale_stride, row;
    const void *x; /* COMPUTE_F32: float rows; COMPUTE_BF16: what few_x made; ldx elements apart */
    int64_t ldx;
    int n;
    float *y; /* y[t * ldy + r] */
    int64_t ldy;
} few_call;

/* The transposed product, columns [first, first + columns) of w: y[t][i] = sum_o x[t][o] w[o][i]. */
typedef struct transposed_call {
    const void *w; /* [out][in] */
    int64_t in, out, first, columns;
    const float *scale;
    int64_t scale_stride, row;
    const float *x; /* rounded already when products are BF16 */
    int64_t ldx;
    bool round; /* round w (times its scale) to BF16 */
    int64_t n;
    float *y; /* y[t * ldy + i - first] */
    int64_t ldy;
} transposed_call;

/* Rows of w, columns [first, first + k), as a panel [rows rounded up][ld] of F32 or BF16 numbers, scales multiplied in,
 * zeros where there is nothing. */
typedef struct panel_call {
    const void *w; /* [rows][in] */
    int64_t in, rows, first, k;
    const float *scale;
    int64_t scale_stride, row;
    void *panel;
    int64_t ld;
} panel_call;

/* Memory that is read next: rows of bytes, stride bytes apart. */
typedef struct region {
    const char *at;
    int64_t rows, bytes, stride;
} region;

/* c (+)= sums over k columns; rows a multiple of GROUP, k of K_STEP. c holds tiles of GROUP rows and GROUP tokens, each
 * tile in one piece: [rows / GROUP][groups][GROUP rows][GROUP tokens]; with ldc it is a matrix of such rows. Every sum
 * runs through the columns in order, so results do not depend on how a product was cut. */
typedef struct block_call {
    const void *w; /* rows ldw elements apart */
    int64_t ldw, rows, k;
    const void *x; /* laid out; groups are x_group elements apart */
    int64_t x_group, groups;
    float *c;
    int64_t ldc; /* 0: tiles; else how far rows are apart */
    bool first;  /* c is set rather than added to */
    region next; /* may be fetched into the cache meanwhile */
} block_call;

static inline float *block_tile(const block_call *c, int64_t row, int64_t group) {
    if (c->ldc) return c->c + row / GROUP * GROUP * c->ldc + group * GROUP;
    return c->c + (row / GROUP * c->groups + group) * GROUP * GROUP;
}

/* How far rows of a tile are apart, and tiles of neighbouring groups. */
static inline int64_t block_row_step(const block_call *c) {
    return c->ldc ? c->ldc : GROUP;
}

static inline int64_t block_group_step(const block_call *c) {
    return c->ldc ? GROUP : GROUP * GROUP;
}

/* y[t][r] = or += c[r][t] + bias[r], as F32 or BF16. */
typedef struct store_call {
    const float *c; /* tiles as above */
    int64_t groups, rows, n;
    const float *bias; /* or NULL */
    void *y;
    int64_t ldy;
    dtype y_type;
    bool add;
} store_call;

/* The products of training, C[r][l] = sum_k A[r][k] B[k][l] (matmul.c), go through the same block kernel: rows of A
 * take the place of rows of w, columns of B that of tokens, so what is laid out and stored goes straight, and not
 * turned.
 *
 * Rows [0, k) of b, `columns` numbers of each, in groups of 16 columns, laid out like x and `group` elements apart;
 * zeros where there is nothing, k rounded up to K_STEP. */
typedef struct lanes_call {
    const void *b;
    int64_t ld, k, columns;
    void *to;
    int64_t group;
} lanes_call;

/* A panel [rows rounded up to GROUP][ld] of a matrix that lies the other way: panel[r][i] = a[i][r], i < k, zeros where
 * there is nothing, k rounded up to K_STEP. */
typedef struct turn_call {
    const float *a;
    int64_t lda, rows, k;
    void *panel;
    int64_t ld;
} turn_call;

/* y[r][l] = or += c[r][l]. */
typedef struct place_call {
    const float *c; /* tiles as above */
    int64_t groups, rows, columns;
    float *y;
    int64_t ldy;
    bool add;
} place_call;

typedef struct linear_micro {
    void (*few_x[LINEAR_TYPES])(uint16_t *to, const float *x, int64_t in); /* one row; to: in rounded up to FEW_PAD */
    void (*few[2][LINEAR_TYPES])(const few_call *c);                       /* [compute][type of w] */
    void (*transposed[LINEAR_TYPES])(const transposed_call *c);
    /* 16 tokens (n of them real) of x, columns [0, in), laid out */
    void (*group_x[2])(void *to, const float *x, int64_t ldx, int64_t n, int64_t in);
    void (*panel[2][LINEAR_TYPES])(const panel_call *c);
    void (*block[2])(const block_call *c);
    void (*store)(const store_call *c);
    void (*lanes[2][2])(const lanes_call *c); /* [compute][type of b: F32 or BF16] */
    void (*turn[2])(const turn_call *c);
    void (*place)(const place_call *c);
    /* For machine.c: reads all bytes (a multiple of 4096) with nothing to compute to speak of, and multiplies and adds
     * in registers alone, returning how many operations that were. Both return or keep a number that nobody needs. */
    float (*read)(const void *p, int64_t bytes);
    double (*peak[2])(int64_t rounds, float *keep); /* [compute] */
} linear_micro;

void ref_linear(linear_micro *m);
void avx2_linear(linear_micro *m);
void avx512_linear(linear_micro *m);
void avx512bf16_linear(linear_micro *m);
void amx_linear(linear_micro *m);

#endif
