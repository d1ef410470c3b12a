/* The operations that the parts of a model are written in. Each is one parallel loop (or two) over the threads of a
 * queue, built on the inner kernels of the level that the machine has (kernels/levels.h).
 *
 * Activations are F32 rows with a row stride ("ld", in elements). Operations return nothing and check nothing: shapes
 * were checked when the model was bound. Results never depend on the number of threads, to the last bit, and a row's
 * result never depends on which other rows are in the same call as long as the kernel is the same (see op_linear). */
#ifndef HADAL_KERNELS_OPS_H
#define HADAL_KERNELS_OPS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "tensor/real.h"
#include "tensor/tensor.h"

typedef struct queue queue; /* threads, kernel level and scratch memory of one user: one thread at a time */

typedef enum compute {
    COMPUTE_F32,  /* every product in F32 */
    COMPUTE_BF16, /* operands of products rounded to BF16, sums in F32 */
    COMPUTE_FP8   /* training: operands of products rounded to E4M3 (see train_ops.h); all else in F32 */
} compute;

/* level: NULL for the best that the machine has, or "portable", "avx2", "avx512", "avx512bf16", "amx". */
status queue_open(queue **out, int threads, const char *level, compute c, error *e);
void queue_close(queue *q);
const char *queue_level(const queue *q);
int queue_threads(const queue *q);
status queue_failed(queue *q, error *e); /* ERR_NOMEM once after scratch memory ran out in an operation; else OK */
compute queue_compute(const queue *q);

/* Which way the rows of products go. By number: up to OP_FEW_ROWS the way of few, else the way of many: the fastest.
 * With the other two a row's result never depends on which and how many rows are in its product: what training wants,
 * where an expert's rows may be cut in any way, and batches of sequences that come and go. */
typedef enum rows_way { ROWS_BY_NUMBER, ROWS_MANY, ROWS_FEW } rows_way;
rows_way queue_rows(queue *q, rows_way way); /* gives the way before */

/* Rows of a sequence's cache that lie together. Where an operation takes `pages`, the row of position t is row
 * pages[t / CACHE_PAGE] * CACHE_PAGE + t % CACHE_PAGE of the memory it is given; pages NULL: row t. Bits of results do
 * not depend on where the pages are. */
enum { CACHE_PAGE = 256 };

/* COMPUTE_FP8: scales are powers of two from now on ("scale_fmt": "ue8m0"). */
void queue_fp8_powers(queue *q);

/* f(arg, task, thread) for all tasks on the queue's threads. */
void queue_run(queue *q, int64_t tasks, void (*f)(void *arg, int64_t task, int thread), void *arg);

/* --- products ---------------------------------------------------------------------------------------------------
 * One product: y[t][o] = sum_i x[t][i] w[o][i] + bias[o] for t < n. w: [out][in], F32, BF16, F16 or E4M3 with scales.
 * `transposed`: y[t][i] = sum_o x[t][o] w[o][i] instead (x has `out` columns, y has `in`); the absorbed form of MLA.
 * `add`: y += instead of y =. Output rows are F32, or BF16 when y_type says so.
 * op_linear does a list of products in one parallel loop: the experts of a layer, or several weights on one input.
 * In products that go the way of few (queue_rows) every row is computed as it would be alone, bit by bit. */
enum { OP_FEW_ROWS = 8 };
typedef struct product {
    const tensor *w;
    const real *x;
    int64_t ldx;
    void *y;
    int64_t ldy;
    int64_t n;
    const real *bias; /* [out] or NULL */
    dtype y_type;     /* DT_F32 or DT_BF16 */
    bool transposed, add;
    bool f32; /* F32 products whatever the queue computes in: the router */
} product;
void op_linear(queue *q, const product *list, int count);

/* --- rows ------------------------------------------------------------------------------------------------------ */
/* y = x / sqrt(mean(x^2) + eps) * w over rows of dim numbers; y may be x. */
void op_rmsnorm(queue *q, real *y, int64_t ldy, const real *x, int64_t ldx, const real *w, int64_t n, int64_t dim,
                real eps);
/* y = (x - mean) / sqrt(var + eps) * w + b: the indexer's key norm. */
void op_layernorm(queue *q, real *y, int64_t ldy, const real *x, int64_t ldx, const real *w, const real *b, int64_t n,
                  int64_t dim, real eps);
/* y = silu(a) * b, silu(a) = a / (1 + exp(-a)); y may be a. */
void op_swiglu(queue *q, real *y, int64_t ldy, const real *a, int64_t lda, const real *b, int64_t ldb, int64_t n,
               int64_t dim);
/* y += x */
void op_add(queue *q, real *y, int64_t ldy, const real *x, int64_t ldx, int64_t n, int64_t dim);
/* Rotates `heads` vectors of `dim` numbers a row, the vectors `head_stride` apart, by the angles of position pos[row].
 * table: [positions][dim/2][2] = cos, sin. interleaved: pairs (2i, 2i+1); else halves (i, i + dim/2). */
void op_rope(queue *q, real *x, int64_t ldx, int64_t n, int64_t heads, int64_t head_stride, int64_t dim,
             const real *table, const int32_t *pos, bool interleaved);

/* --- attention -------------------------------------------------------------------------------------------------
 * One sequence: query row i (of n) sits at position T - n + i and sees the keys 0 .. T - n + i.
 * o[i][h] = sum_s softmax_s(scale q[i][h] . k[s][h / (heads / kv_heads)]) v[s][...]; k and v of type kv_type (F32 or
 * BF16), rows k_stride / v_stride elements apart, heads d_qk / d_v elements apart inside a row unless k_head_stride /
 * v_head_stride say otherwise. No n x T matrix is kept. Softmax in F32. */
typedef struct attention {
    real *o;
    int64_t ldo; /* head h of row i: o + i * ldo + h * d_v */
    const real *q;
    int64_t ldq; /* head h of row i: q + i * ldq + h * d_qk */
    int64_t n, T;
    const void *k, *v;
    const int32_t *pages;
    dtype kv_type;
    int64_t k_stride, v_stride, k_head_stride, v_head_stride;
    int heads, kv_heads, d_qk, d_v;
    real scale;
} attention;
void op_attention(queue *q, const attention *list, int count);

/* Absorbed MLA over latent rows (DeepSeek-V2 report, 2.1.2): all heads share one row of rank + rope numbers a token.
 * o[i][h][0..rank) = sum_s softmax_s(scale q[i][h] . row[s]) row[s][0..rank).
 * keep: NULL, or for query i the keep_n[i] positions keep[i * keep_stride ..] (ascending, all visible): only their rows
 * are read. */
typedef struct latent_attention {
    real *o;
    int64_t ldo; /* head h of row i: o + i * ldo + h * rank */
    const real *q;
    int64_t ldq; /* head h of row i: q + i * ldq + h * (rank + rope) */
    int64_t n, T;
    const void *rows;
    const int32_t *pages;
    dtype row_type; /* F32 or BF16 */
    int64_t row_stride;
    int heads, rank, rope;
    real scale;
    const int32_t *keep, *keep_n;
    int64_t keep_stride;
} latent_attention;
void op_latent_attention(queue *q, const latent_attention *list, int count);

/* The lightning indexer (V3.2-Exp report, eq. 1): I[i][s] = sum_j w[i][j] relu(q[i][j] . k[s]) for the visible s, then
 * the top_k largest (all visible ones when there are no more than top_k) as ascending positions; of equal scores the
 * earlier position wins. scores: NULL, or [n][ld_scores] that receives I (0 where not visible). */
typedef struct index_select {
    const real *q; /* [n][heads][dim], rows ldq apart */
    int64_t ldq;
    const real *w; /* [n][heads], rows ldw apart */
    int64_t ldw;
    const void *keys; /* [T][dim] */
    const int32_t *pages;
    dtype key_type;
    int64_t key_stride;
    int64_t n, T;
    int heads, dim, top_k;
    int32_t *keep, *keep_n; /* keep[i * keep_stride + ...] */
    int64_t keep_stride;
    real *scores;
    int64_t ld_scores;
} index_select;
void op_index_select(queue *q, const index_select *list, int count);

#endif
