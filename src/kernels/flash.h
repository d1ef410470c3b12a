/* Attention of sets of queries over blocks of keys, the engine below op_attention and op_latent_attention.
 *
 * Online softmax (Milakov & Gimelshein 2018; Dao et al. 2022). A query keeps m, the largest score so far, the sum
 * l = sum_s exp(x_s - m) and the numerator o = sum_s exp(x_s - m) v_s. A block of keys with scores x changes them to
 *     m' = max(m, max_s x_s),   c = exp(m - m'),   p_s = exp(x_s - m'),
 *     l' = c l + sum_s p_s,     o' = c o + sum_s p_s v_s;
 * the result is o / l. (The kernels count x in units of ln 2, so that exp becomes 2^x.) Two partial results over
 * different keys join in the same way with c for each of them.
 *
 * Blocks of keys start at multiples of KEY_BLOCK and a key that a query does not see adds an exact zero; every two
 * blocks make a chunk, which begins anew, and chunks are joined in their order. So what a query gets depends neither on
 * the other queries of the call nor on how many keys lie behind the last one it sees. With few queries the threads
 * share the chunks of a query. */
#ifndef HADAL_KERNELS_FLASH_H
#define HADAL_KERNELS_FLASH_H

#include "kernels/ops.h"

/* Rows (query, head) that attend to the same keys: row r is query r / group, head r % group. */
typedef struct flash_job {
    const float *q; /* head h of query i: q + i * ldq + h * d_qk */
    float *o;       /* o + i * ldo + h * d_v */
    int64_t ldq, ldo;
    int64_t rows, group;
    const void *k, *v; /* v may be k: the values are then the first d_v numbers of the keys */
    dtype type;
    int64_t k_stride, v_stride;
    const int32_t *pages; /* where the keys lie, see ops.h; NULL: in order */
    const int32_t *index; /* NULL, or the rows of k that are the keys; v is k then */
    int64_t seen, grow;   /* query i sees the keys 0 .. seen + i * grow - 1 */
    int d_qk, d_v;
    float scale;
    bool split; /* few queries: chunks of keys are units; changes no bit of a result */
} flash_job;

/* The jobs are changed. */
void flash_run(queue *q, flash_job *job, int64_t jobs);

/* Computes the queries that inner kernels take one by one (attn_row) and takes them off the jobs. Which ones depends on
 * the heads and on what a query sees alone. */
void flash_rows(queue *q, flash_job *job, int64_t jobs);

#endif
