/* What op_attention_forward, op_attention_backward and op_index_loss share: products of blocks that lie in F32 rows,
 * made of the inner kernels of linear_micro.h, and which rows a block of queries sees.
 *
 * A product C[r][l] = sum_k A[r][k] B[k][l] wants A as rows and B as groups of 16 columns, both in the type of the
 * compute, with zeros up to a multiple of BLOCK_PAD along k. */
#ifndef HADAL_KERNELS_TRAIN_BLOCKS_H
#define HADAL_KERNELS_TRAIN_BLOCKS_H

#include "kernels/attn_micro.h"
#include "kernels/linear_micro.h"
#include "kernels/queue.h"
#include "kernels/train_ops.h"

enum { BLOCK_PAD = K_STEP, BLOCK_ALIGN = 64 };

/* A piece of memory that is handed out from its start; without a base it only counts the bytes. */
typedef struct block_memory {
    char *base;
    size_t used;
} block_memory;

void *block_carve(block_memory *at, int64_t numbers, size_t size);

static inline int64_t block_pad(int64_t n) {
    return (n + BLOCK_PAD - 1) / BLOCK_PAD * BLOCK_PAD;
}

static inline int64_t block_groups(int64_t n) {
    return (n + GROUP - 1) / GROUP;
}

/* --- products ----------------------------------------------------------------------------------------------------- */

typedef struct block_products {
    const linear_micro *linear;
    const attn_train_micro *train;
    void (*add)(float *y, const float *x, int64_t n); /* y += x */
    compute compute;                                  /* COMPUTE_F32 or COMPUTE_BF16 */
    size_t size;                                      /* of a number in products */
} block_products;

block_products block_products_of(const queue *q);

/* n rows of d numbers, ldx apart, as an operand: */
/* as rows of A, [n padded][d padded]; */
void block_rows(const block_products *b, void *to, const float *x, int64_t ldx, int64_t n, int64_t d);
/* as columns of A, [d up to whole groups][ld], ld >= n padded; */
void block_turned(const block_products *b, void *to, int64_t ld, const float *x, int64_t ldx, int64_t n, int64_t d);
/* as columns of B, [n padded / 16][d padded][16]; */
void block_columns_of(const block_products *b, void *to, const float *x, int64_t ldx, int64_t n, int64_t d);
/* as rows of B, [d in groups][n padded][16]. */
void block_lanes(const block_products *b, void *to, const float *x, int64_t ldx, int64_t n, int64_t d);

/* Number i of an operand. */
void *block_at(const block_products *b, void *operand, int64_t i);

/* c[count][groups] = (first) or += sum over k of A, rows ld apart, and B, groups x_group apart. */
void block_multiply(const block_products *b, float *c, bool first, const void *rows, int64_t ld, int64_t count,
                    int64_t k, const void *x, int64_t x_group, int64_t groups);

/* y[t][r] = or += c[r][t], and y[r][l] = or += c[r][l]. */
void block_store(const block_products *b, const float *c, int64_t groups, int64_t rows, int64_t n, float *y,
                 int64_t ldy, bool add);
void block_place(const block_products *b, const float *c, int64_t groups, int64_t rows, int64_t columns, float *y,
                 int64_t ldy, bool add);

/* --- keys and queries --------------------------------------------------------------------------------------------- */

/* Queries [q, q + nq) against keys [key, key + keys) of a document. */
typedef struct block_pair {
    int64_t q, nq, key, keys;
    int64_t groups, padded; /* of queries; of keys */
    const uint16_t *mask;   /* [padded][groups], or NULL: see train_tiles */
} block_pair;

/* The pair with at most `keys` keys from `key` on, as many as the last query sees, and its mask, which is written to
 * `mask` unless every query sees all. False when no query sees any. */
bool block_meet(block_pair *p, const attention_train *a, int64_t q, int64_t nq, int64_t key, int64_t keys,
                uint16_t *mask);
/* The same for a tree, where the keys that some query sees lie in up to two pieces: part 0, in the trunk, and part 1,
 * in the queries' branches. When these touch, part 0 has all. */
bool block_meet_tree(block_pair *p, const attention_train *a, int64_t q, int64_t nq, int64_t key, int64_t keys,
                     int part, uint16_t *mask);

/* Keys [key, key + n) of a kv head with their tails, joined in `joined`, [n][d_qk], when there are tails; *ld is how
 * far rows are apart. */
const float *block_keys(const attention_train *a, int64_t key, int64_t n, int64_t head, float *joined, int64_t *ld);

/* s (F32 tiles) of a pair, the operand of products of which has the type of b. */
train_tiles block_tiles(const block_products *b, const block_pair *p, const float *s);

#endif
