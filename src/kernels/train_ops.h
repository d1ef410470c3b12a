/* The operations that only training needs: derivatives of those in ops.h, losses, the optimizer's element-wise work.
 * Same rules: rows of `real` with a stride, nothing is checked or returned, and no result depends on the number of
 * threads, to the last bit: sums run in an order that the shapes alone decide. dx is dL/dx. */
#ifndef HADAL_KERNELS_TRAIN_OPS_H
#define HADAL_KERNELS_TRAIN_OPS_H

#include "kernels/ops.h"

/* --- products ---------------------------------------------------------------------------------------------------
 * The derivatives of y[t][o] = sum_i x[t][i] w[o][i] + bias[o], t < n. Operands are rounded as in op_linear: BF16 when
 * the queue computes in BF16 and f32 is not set. The weight is F32 or BF16 (a copy of the F32 master weight).
 *
 * COMPUTE_FP8 (DeepSeek-V3 report 3.3; DeepGEMM's per_token_cast_to_fp8 and per_block_cast_to_fp8), for all three
 * products unless f32 is set: scale = max(amax, 1e-4) / 448 over tiles of 128 numbers, code = e4m3(x / scale).
 *   op_linear     x in tiles of 1 x 128 along i, w in blocks of 128 x 128; sum over i
 *   op_linear_dx  dy in tiles of 1 x 128 along o, w in blocks of 128 x 128; sum over o
 *   op_linear_dw  dy and x in tiles of 128 x 1 along t; sum over t
 * The sum over each 128 codes is made in F32 in ascending order, multiplied by both scales and added to the F32 total
 * in ascending order. Bit-defined: the same on every level. */

/* dx[t][i] (+)= sum_o dy[t][o] w[o][i]. `join`: this entry continues the sum of the entry before it (same dx, n and
 * in): dx = dy1 w1 + dy2 w2. */
typedef struct product_dx {
    const tensor *w; /* [out][in] */
    const real *dy;
    int64_t lddy;
    real *dx;
    int64_t lddx;
    int64_t n;
    bool add, join, f32;
} product_dx;
void op_linear_dx(queue *q, const product_dx *list, int count);

/* dw[o][i] += sum_t dy[t][o] x[t][i]; dbias[o] += sum_t dy[t][o]. The sum over this call's rows is made first and then
 * added. dw may be NULL: the bias alone. */
typedef struct product_dw {
    real *dw; /* [out][in] */
    int64_t out, in;
    const real *dy;
    int64_t lddy;
    const real *x;
    int64_t ldx;
    int64_t n;
    real *dbias; /* or NULL */
    bool f32;
} product_dw;
void op_linear_dw(queue *q, const product_dw *list, int count);

/* --- rows ------------------------------------------------------------------------------------------------------ */
/* y = x r w, r = 1 / sqrt(mean(x^2) + eps):  with g = dy w,  dx = r (g - x r^2 mean(g x)),  dw += sum_t dy x r.
 * dx is set, or added to when `add`; dw may be NULL. dx may be dy. */
void op_rmsnorm_dx(queue *q, real *dx, int64_t lddx, real *dw, const real *dy, int64_t lddy, const real *x, int64_t ldx,
                   const real *w, int64_t n, int64_t dim, real eps, bool add);
/* The same for op_layernorm; dw and db may be NULL. */
void op_layernorm_dx(queue *q, real *dx, int64_t lddx, real *dw, real *db, const real *dy, int64_t lddy, const real *x,
                     int64_t ldx, const real *w, int64_t n, int64_t dim, real eps, bool add);
/* y = silu(a) b, s = sigmoid(a):  da = dy b s (1 + a (1 - s)),  db = dy a s. da may be a, db may be b. */
void op_swiglu_dx(queue *q, real *da, int64_t ldda, real *db, int64_t lddb, const real *dy, int64_t lddy, const real *a,
                  int64_t lda, const real *b, int64_t ldb, int64_t n, int64_t dim);
/* The rotation of op_rope backwards (by the negative angle): its derivative when cos and sin carry no factor; a factor
 * in the table multiplies here, too. In place. */
void op_rope_dx(queue *q, real *dx, int64_t lddx, int64_t n, int64_t heads, int64_t head_stride, int64_t dim,
                const real *table, const int32_t *pos, bool interleaved);

/* Cross-entropy of rows of logits, which become their own gradient: loss[t] = log sum_v exp(z[t][v]) - z[t][target],
 * z[t][v] <- scale (softmax(z[t])[v] - [v = target[t]]). target -1: loss 0, gradient 0. best (may be NULL): [n], the
 * index of the largest logit (the lower of equal ones). Logits that are not finite give a loss that is not finite. */
void op_cross_entropy(queue *q, real *z, int64_t ldz, const int32_t *target, int64_t n, int64_t vocab, real scale,
                      real *loss, int32_t *best);

/* Log-probabilities of chosen tokens: p = softmax(scale z) with scale = 1 / temperature. For row i and c = 0 .. k-1
 * logp[i * k + c] = log p[i][wanted[i * k + c]] (wanted -1: 0); lse[i] = log sum_j exp(scale z[i][j]); entropy (may be
 * NULL): [n], -sum_j p log p; best (may be NULL): index of the largest logit. z stays as it is. */
void op_logprobs(queue *q, const real *z, int64_t ldz, int64_t n, int64_t vocab, real scale, const int32_t *wanted,
                 int k, real *logp, real *lse, real *entropy, int32_t *best);
/* From d = dL/dlogp ([n][k]) and op_logprobs's lse: z becomes dL/dz, z[i][j] = scale sum_c d[i * k + c] (1[j = wanted]
 * - p[i][j]); columns wanted twice add up. */
void op_logprobs_dx(queue *q, real *z, int64_t ldz, int64_t n, int64_t vocab, real scale, const int32_t *wanted, int k,
                    const real *d, const real *lse);

/* dw[ids[t]] += dh[t] in the order of t; ids[t] -1: nothing. dw: [vocab][dim]. */
void op_embedding_dw(queue *q, real *dw, const int32_t *ids, const real *dh, int64_t lddh, int64_t n, int64_t dim);

/* --- attention of whole documents -------------------------------------------------------------------------------
 * One document of n tokens: row i sees the rows 0 .. i; with keep (DSA) only the rows keep[i * keep_stride ..][0 ..
 * keep_n[i]), ascending and all visible; in a tree (data/batch.h) the rows 0 .. trunk - 1 and from[i] .. i, those after
 * i left out, where from[i] is 0 in the trunk and does not fall.
 *
 * The key of kv head g at row s is k[s][g][0 .. d_qk - d_tail) followed by tail[s][0 .. d_tail), which all heads share
 * (the rotary part of MLA). Query head h uses kv head h / (heads / kv_heads). No n x n matrix is kept: backward
 * computes the weights again from lse.
 *   forward:  o = softmax(scale q k') v,   lse[i][h] = log sum_s exp(scale q[i][h] . k[s])  (natural logarithm)
 *   backward: from o, lse and d_o sets dq, dk, dtail, dv, which lie in memory like q, k, tail, v.
 *             (dv = p' d_o, dp = d_o v', ds = p (dp - sum_j d_o o), dq = scale ds k, dk = scale ds' q: FlashAttention,
 *             Dao et al. 2022, appendix B) */
typedef struct attention_train {
    const real *q, *k, *tail, *v;
    real *o, *lse; /* lse: [n][heads] */
    const real *d_o;
    real *dq, *dk, *dtail, *dv;
    int64_t ldq, ldo;                 /* head h of row i: q + i * ldq + h * d_qk, o + i * ldo + h * d_v; d_o as o */
    int64_t ldk, k_head, ldv, v_head; /* kv head g of row s: k + s * ldk + g * k_head, v + s * ldv + g * v_head */
    int64_t ldtail;
    int64_t n;
    int heads, kv_heads, d_qk, d_tail, d_v; /* d_tail 0: no tail */
    real scale;
    const int32_t *keep, *keep_n; /* or NULL */
    int64_t keep_stride;
    const int32_t *from; /* NULL: no tree; not with keep */
    int64_t trunk;
} attention_train;
void op_attention_forward(queue *q, const attention_train *list, int count);
void op_attention_backward(queue *q, const attention_train *list, int count);

/* The indexer's loss (V3.2-Exp report, eq. 3 and 4) and its gradient in one go. For row i with the set S (keep, or all
 * visible rows): p = sum over heads of the attention weights on S, divided by their sum; I[s] = sum_j w[i][j]
 * relu(q[i][j] . k[s]);  kl[i] = sum_S p log(p / softmax_S(I)) (0 log 0 = 0);  dI = scale (softmax_S(I) - p), from
 * which dq, dk and dw are set (not added). No gradient goes into the attention. Attention weights come again from `a`:
 * its q, k, tail and lse. relu'(0) = 0. */
typedef struct index_loss {
    const attention_train *a; /* with keep or without */
    const real *q, *k, *w;    /* [n][heads][dim], [n][dim], [n][heads] */
    real *dq, *dk, *dw;
    int64_t ldq, ldk, ldw; /* also of dq, dk, dw */
    int heads, dim;
    real scale;
    real *kl; /* [n] */
} index_loss;
void op_index_loss(queue *q, const index_loss *list, int count);

/* --- optimizer --------------------------------------------------------------------------------------------------- */
/* AdamW (Loshchilov & Hutter 2019, as torch.optim.AdamW): w -= lr decay w;  m = b1 m + (1 - b1) g s;
 * v = b2 v + (1 - b2) (g s)^2;  w -= lr (m / c1) / (sqrt(v / c2) + eps), with c1 = 1 - b1^t, c2 = 1 - b2^t and s
 * `grad_scale` (clipping). Moments are F32, or BF16 rounded to nearest even. */
typedef struct adamw_step {
    real *w;
    const real *g;
    void *m, *v;
    dtype moments; /* DT_F32 or DT_BF16 */
    int64_t n;
    double lr, beta1, beta2, eps, decay, correction1, correction2, grad_scale;
} adamw_step;
void op_adamw(queue *q, const adamw_step *list, int count);

/* The sum of squares of n numbers, in F64, in an order that n alone decides. NaN and infinity come through. */
double op_sum_squares(queue *q, const real *x, int64_t n);

#endif
