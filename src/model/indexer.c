/* The lightning indexer of V3.2 (V3.2-Exp report, eq. 1; inference code, Indexer.forward).
 *
 *   q_j = Wqb q_a (heads of index_head_dim)     k = layernorm(Wk u)      w_j = Ww u * heads^-1/2 * index_head_dim^-1/2
 *   the first qk_rope_head_dim numbers of q_j and k rotated, by halves (not interleaved as in MLA)
 *   I_ts = sum_j w_tj relu(q_tj . k_s);  the index_topk largest visible s are what token t attends to
 *
 * The published code also rotates q and k by a Hadamard matrix before it rounds them to FP8; in exact arithmetic that
 * changes nothing, and here nothing is rounded. The keys have their own cache: index_head_dim numbers a token.
 *
 * Training (report, 2.1; MaxText calls the factor indexer_loss_scaling_factor): the indexer learns from
 *   L = factor sum_t KL(p_t || softmax(I_t)),  p_t: the main attention's weights summed over heads, divided by their
 * sum over all visible tokens (dense warm-up) or over the chosen ones (sparse training). Its inputs u and q_a are
 * detached and p is a constant: the loss moves the indexer's weights and nothing else, and nothing else moves them. */
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

typedef struct indexer_saved {
    real *q, *k, *weight, *k_in; /* k_in: before its norm; forward */
    real *dq, *dk, *dweight;     /* by backward */
} indexer_saved;

static real weight_scale(const model_config *m) {
    return 1 / sqrt((real)m->index_n_heads) / sqrt((real)m->index_head_dim);
}

static status project(part_call *c, indexer_saved *s) {
    const model_config *m = c->cfg;
    const indexer_weights *w = c->w;
    const flow *x = c->x;
    const int64_t n = x->n, heads = m->index_n_heads, dim = m->index_head_dim, rope = m->qk_rope_head_dim,
                  hidden = m->hidden_size;
    KEEP(c, 0, s->q, n * heads * dim);
    KEEP(c, 0, s->k, n * dim);
    KEEP(c, 0, s->k_in, n * dim);
    KEEP(c, 0, s->weight, n * heads);
    product list[] = {{.w = &w->wq_b, .x = x->q_a, .ldx = m->q_lora_rank, .y = s->q, .ldy = heads * dim, .n = n},
                      {.w = &w->wk, .x = x->u, .ldx = hidden, .y = s->k_in, .ldy = dim, .n = n},
                      {.w = &w->weights, .x = x->u, .ldx = hidden, .y = s->weight, .ldy = heads, .n = n, .f32 = true}};
    op_linear(c->q, list, 3);
    op_layernorm(c->q, s->k, dim, s->k_in, dim, w->norm, w->norm_bias, n, dim, NORM_EPS);
    op_rope(c->q, s->q, heads * dim, n, heads, dim, rope, x->rope, x->row, false);
    op_rope(c->q, s->k, dim, n, 1, 0, rope, x->rope, x->row, false);
    for (int64_t i = 0; i < n * heads; i++) s->weight[i] *= weight_scale(m);
    return OK;
}

/* The choice of one sequence's rows among its T keys. */
static index_select selection(const part_call *c, const indexer_saved *s, const sequence *seq) {
    const model_config *m = c->cfg;
    const flow *x = c->x;
    const int64_t heads = m->index_n_heads, dim = m->index_head_dim;
    return (index_select){.q = s->q + seq->first * heads * dim,
                          .ldq = heads * dim,
                          .w = s->weight + seq->first * heads,
                          .ldw = heads,
                          .n = seq->n,
                          .T = seq->pos + seq->n,
                          .heads = (int)heads,
                          .dim = (int)dim,
                          .top_k = (int)m->index_topk,
                          .keep = x->keep + seq->first * m->index_topk,
                          .keep_n = x->keep_n + seq->first,
                          .keep_stride = m->index_topk};
}

/* Shows the scores, and in their place the choice as 0 and 1. */
static void watch_choice(const part_call *c, real *scores) {
    const flow *x = c->x;
    watch(c, "score", scores, x->n, x->n);
    for (int64_t i = 0; i < x->n; i++)
        for (int64_t s = 0, at = 0; s < x->n; s++) {
            bool kept = at < x->keep_n[i] && x->keep[i * c->cfg->index_topk + at] == s;
            scores[i * x->n + s] = kept;
            at += kept;
        }
    watch(c, "mask", scores, x->n, x->n);
}

static status decode(part_call *c) {
    const model_config *m = c->cfg;
    flow *x = c->x;
    indexer_saved s;
    real *scores = NULL;
    index_select *jobs;
    TAKE(c, jobs, x->n_seq);
    TAKE(c, x->keep, x->n * m->index_topk);
    TAKE(c, x->keep_n, x->n);
    TRY(project(c, &s));
    cache_append(c, CACHE_INDEX, s.k, m->index_head_dim);
    const bool watched = c->watch && x->n_seq == 1 && x->seq[0].pos == 0;
    bool all = true; /* every row is chosen */
    int count = 0;
    if (watched) TAKE(c, scores, x->n * x->n);
    for (int i = 0; i < x->n_seq; i++) {
        const cache_rows *keys = &x->seq[i].cache[c->layer][CACHE_INDEX];
        index_select *job = &jobs[count];
        *job = selection(c, &s, &x->seq[i]);
        job->keys = keys->rows;
        job->pages = keys->pages;
        job->key_type = keys->type;
        job->key_stride = keys->width;
        job->scores = scores;
        job->ld_scores = x->n;
        if (job->T > m->index_topk) all = false;
        if (job->T > m->index_topk || watched) count++;
    }
    op_index_select(c->q, jobs, count);
    if (watched) watch_choice(c, scores);
    if (all) x->keep_n = NULL;
    return OK;
}

static status forward(part_call *c) {
    const model_config *m = c->cfg;
    flow *x = c->x;
    indexer_saved *s = c->saved;
    index_select *jobs;
    bool all = true;
    TRY(project(c, s));
    x->keep_n = NULL;
    for (int i = 0; i < x->n_seq; i++) all = all && x->seq[i].n <= m->index_topk;
    if (!c->goal->indexer_sparse || all) return OK;
    TAKE(c, jobs, x->n_seq);
    KEEP(c, 0, x->keep, x->n * m->index_topk);
    KEEP(c, 0, x->keep_n, x->n);
    for (int i = 0; i < x->n_seq; i++) {
        jobs[i] = selection(c, s, &x->seq[i]);
        jobs[i].keys = s->k + x->seq[i].first * m->index_head_dim;
        jobs[i].key_type = DT_REAL;
        jobs[i].key_stride = m->index_head_dim;
    }
    op_index_select(c->q, jobs, x->n_seq);
    return OK;
}

static status backward(part_call *c) {
    const model_config *m = c->cfg;
    const indexer_weights *w = c->w, *dw = c->dw;
    const flow *x = c->x;
    const int64_t n = x->n, heads = m->index_n_heads, dim = m->index_head_dim, rope = m->qk_rope_head_dim;
    indexer_saved *s = c->saved;
    index_loss *jobs;
    real *kl;
    if (c->goal->indexer == 0) return OK;
    TAKE(c, jobs, x->n_seq);
    TAKE(c, kl, n);
    TAKE(c, s->dq, n * heads * dim);
    TAKE(c, s->dk, n * dim);
    TAKE(c, s->dweight, n * heads);
    for (int i = 0; i < x->n_seq; i++) {
        const int64_t first = x->seq[i].first;
        jobs[i] = (index_loss){.a = &x->attention[i],
                               .q = s->q + first * heads * dim,
                               .k = s->k + first * dim,
                               .w = s->weight + first * heads,
                               .dq = s->dq + first * heads * dim,
                               .dk = s->dk + first * dim,
                               .dw = s->dweight + first * heads,
                               .ldq = heads * dim,
                               .ldk = dim,
                               .ldw = heads,
                               .heads = (int)heads,
                               .dim = (int)dim,
                               .scale = c->goal->indexer,
                               .kl = kl + first};
    }
    op_index_loss(c->q, jobs, x->n_seq);
    for (int64_t i = 0; c->stats && i < n; i++) c->stats->index_kl += (double)kl[i];
    for (int64_t i = 0; i < n * heads; i++) s->dweight[i] *= weight_scale(m);
    op_rope_dx(c->q, s->dq, heads * dim, n, heads, dim, rope, x->rope, x->row, false);
    op_rope_dx(c->q, s->dk, dim, n, 1, 0, rope, x->rope, x->row, false);
    op_layernorm_dx(c->q, s->dk, dim, dw->norm, dw->norm_bias, s->dk, dim, s->k_in, dim, w->norm, n, dim, NORM_EPS,
                    false);
    return OK;
}

static status wgrad(part_call *c) {
    const model_config *m = c->cfg;
    const indexer_weights *dw = c->dw;
    const flow *x = c->x;
    const int64_t n = x->n, heads = m->index_n_heads, dim = m->index_head_dim, hidden = m->hidden_size;
    const indexer_saved *s = c->saved;
    if (c->goal->indexer == 0) return OK;
    TRY(again_u(c));
    TRY(again_q_a(c));
    product_dw list[] = {gradient_of(&dw->wq_b, s->dq, heads * dim, x->q_a, m->q_lora_rank, n),
                         gradient_of(&dw->wk, s->dk, dim, x->u, hidden, n),
                         gradient_of(&dw->weights, s->dweight, heads, x->u, hidden, n)};
    list[2].f32 = true;
    op_linear_dw(c->q, list, 3);
    return OK;
}

const part part_indexer = {.name = "indexer",
                           .weights = slots,
                           .weights_size = sizeof(indexer_weights),
                           .saved_size = sizeof(indexer_saved),
                           .cache = CACHE_INDEX,
                           .cache_width = key_width,
                           .decode = decode,
                           .forward = forward,
                           .backward = backward,
                           .wgrad = wgrad};
