/* The lightning indexer of V3.2 (V3.2-Exp report, eq. 1; inference code, Indexer.forward).
 *
 *   q_j = Wqb q_a (heads of index_head_dim)     k = layernorm(Wk u)      w_j = Ww u * heads^-1/2 * index_head_dim^-1/2
 *   the first qk_rope_head_dim numbers of q_j and k rotated, by halves (not interleaved as in MLA)
 *   I_ts = sum_j w_tj relu(q_tj . k_s);  the index_topk largest visible s are what token t attends to
 *
 * The published code also rotates q and k by a Hadamard matrix before it rounds them to FP8; in exact arithmetic that
 * changes nothing, and here nothing is rounded. The keys have their own cache: index_head_dim numbers a token. */
#include <tgmath.h>
#include "model/block.h"
#include "model/cache_rows.h"

typedef struct indexer_weights {
    tensor wq_b, wk, weights;
    real *norm, *norm_bias;
} indexer_weights;

#define P(f) offsetof(indexer_weights, f)
static const weight_slot slots[] = {
    {"self_attn.indexer.wq_b.weight", P(wq_b), {DIM_INDEX_OUT, DIM_Q_RANK}, W_FP8, NULL},
    {"self_attn.indexer.wk.weight", P(wk), {DIM_INDEX, DIM_HIDDEN}, W_FP8, NULL},
    {"self_attn.indexer.k_norm.weight", P(norm), {DIM_INDEX}, W_VECTOR | W_ONES, NULL},
    {"self_attn.indexer.k_norm.bias", P(norm_bias), {DIM_INDEX}, W_VECTOR | W_ZERO, NULL},
    {"self_attn.indexer.weights_proj.weight", P(weights), {DIM_INDEX_HEADS, DIM_HIDDEN}, 0, NULL},
    {.name = ""}};
#undef P

static const real NORM_EPS = 1e-6f; /* inference code, class LayerNorm */

static int64_t key_width(const model_config *c) {
    return c->index_head_dim;
}

static status forward(part_call *c) {
    const model_config *m = c->cfg;
    const indexer_weights *w = c->w;
    flow *x = c->x;
    const int64_t n = x->n, heads = m->index_n_heads, dim = m->index_head_dim, rope = m->qk_rope_head_dim,
                  hidden = m->hidden_size;
    real *q, *k, *weight, *scores = NULL;
    index_select *jobs;
    TAKE(c, q, n * heads * dim);
    TAKE(c, k, n * dim);
    TAKE(c, weight, n * heads);
    TAKE(c, jobs, x->n_seq);
    TAKE(c, x->keep, n * m->index_topk);
    TAKE(c, x->keep_n, n);
    product list[] = {{.w = &w->wq_b, .x = x->q_a, .ldx = m->q_lora_rank, .y = q, .ldy = heads * dim, .n = n},
                      {.w = &w->wk, .x = x->u, .ldx = hidden, .y = k, .ldy = dim, .n = n},
                      {.w = &w->weights, .x = x->u, .ldx = hidden, .y = weight, .ldy = heads, .n = n, .f32 = true}};
    op_linear(c->q, list, 3);
    op_layernorm(c->q, k, dim, k, dim, w->norm, w->norm_bias, n, dim, NORM_EPS);
    op_rope(c->q, q, heads * dim, n, heads, dim, rope, x->rope, x->row, false);
    op_rope(c->q, k, dim, n, 1, 0, rope, x->rope, x->row, false);
    const real scale = 1 / sqrt((real)heads) / sqrt((real)dim);
    for (int64_t i = 0; i < n * heads; i++) weight[i] *= scale;
    cache_append(c, CACHE_INDEX, k, dim);
    bool watched = c->watch && x->n_seq == 1 && x->seq[0].pos == 0;
    if (watched) TAKE(c, scores, n * n);
    bool all = true;
    for (int s = 0; s < x->n_seq; s++) {
        const sequence *seq = &x->seq[s];
        const cache_rows *keys = &seq->cache[c->layer][CACHE_INDEX];
        jobs[s] = (index_select){.q = q + seq->first * heads * dim,
                                 .ldq = heads * dim,
                                 .w = weight + seq->first * heads,
                                 .ldw = heads,
                                 .keys = keys->rows,
                                 .key_type = keys->type,
                                 .key_stride = keys->width,
                                 .n = seq->n,
                                 .T = seq->pos + seq->n,
                                 .heads = (int)heads,
                                 .dim = (int)dim,
                                 .top_k = (int)m->index_topk,
                                 .keep = x->keep + seq->first * m->index_topk,
                                 .keep_n = x->keep_n + seq->first,
                                 .keep_stride = m->index_topk,
                                 .scores = scores,
                                 .ld_scores = n};
        if (jobs[s].T > m->index_topk) all = false;
    }
    if (!all || watched) op_index_select(c->q, jobs, x->n_seq);
    if (watched) {
        watch(c, "score", scores, n, n);
        for (int64_t i = 0; i < n; i++)
            for (int64_t s = 0, at = 0; s < n; s++) {
                bool kept = at < x->keep_n[i] && x->keep[i * m->index_topk + at] == s;
                scores[i * n + s] = kept;
                at += kept;
            }
        watch(c, "mask", scores, n, n);
    }
    if (all) x->keep_n = NULL; /* every row is chosen: plain attention, in the cheaper form */
    return OK;
}

const part part_indexer = {.name = "indexer",
                           .weights = slots,
                           .weights_size = sizeof(indexer_weights),
                           .cache = CACHE_INDEX,
                           .cache_width = key_width,
                           .decode = forward};
