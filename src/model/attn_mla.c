/* Multi-head latent attention (DeepSeek-V2 report, 2.1; V3 report, 2.1.1), in both of its forms.
 *
 *   u   = rmsnorm(h)
 *   q   = Wq u, or Wqb rmsnorm(Wqa u)        per head: [q_nope | q_rope]
 *   c,r = Wkva u                             c <- rmsnorm(c): the latent; r: one key part shared by all heads
 *   q_rope, r rotated by position
 *   k_h = [Wk_h c | r],  v_h = Wv_h c        Wk_h, Wv_h: rows of kv_b_proj
 *   h  <- h + Wo concat_h softmax(scale q_h k_h') v_h
 *
 * What a token leaves in the cache is the row [c | r]: kv_lora_rank + qk_rope_head_dim numbers for all heads.
 *
 * expanded: k_h and v_h are computed for every cached row, then ordinary attention. Cheaper for many queries: the
 *           expansion is paid once.
 * absorbed: q_nope . (Wk_h c) = (Wk_h' q_nope) . c, and sum_s p_s Wv_h c_s = Wv_h sum_s p_s c_s: the query moves into
 * the latent space, all heads read the same rows. Cheaper for few queries; and the only form that can read a chosen few
 * of the rows (V3.2). */
#include <string.h>
#include "model/block.h"
#include "model/cache_rows.h"

typedef struct project_weights {
    real *norm, *q_a_norm, *kv_a_norm, *q_a_bias, *kv_a_bias;
    tensor q, q_a, q_b, kv_a;
} project_weights;

typedef struct mla_weights {
    tensor kv_b, o;
    real *o_bias;
} mla_weights;

static bool has_q_rank(const model_config *c) {
    return c->q_lora_rank > 0;
}
static bool no_q_rank(const model_config *c) {
    return c->q_lora_rank == 0;
}
static bool q_a_bias(const model_config *c) {
    return c->attention_bias && c->q_lora_rank > 0;
}
static bool has_bias(const model_config *c) {
    return c->attention_bias;
}

#define P(f) offsetof(project_weights, f)
static const weight_slot project_slots[] = {
    {"input_layernorm.weight", P(norm), {DIM_HIDDEN}, W_VECTOR | W_ONES, NULL},
    {"self_attn.q_proj.weight", P(q), {DIM_Q_OUT, DIM_HIDDEN}, W_FP8, no_q_rank},
    {"self_attn.q_a_proj.weight", P(q_a), {DIM_Q_RANK, DIM_HIDDEN}, W_FP8, has_q_rank},
    {"self_attn.q_a_proj.bias", P(q_a_bias), {DIM_Q_RANK}, W_VECTOR | W_ZERO, q_a_bias},
    {"self_attn.q_a_layernorm.weight", P(q_a_norm), {DIM_Q_RANK}, W_VECTOR | W_ONES, has_q_rank},
    {"self_attn.q_b_proj.weight", P(q_b), {DIM_Q_OUT, DIM_Q_RANK}, W_FP8, has_q_rank},
    {"self_attn.kv_a_proj_with_mqa.weight", P(kv_a), {DIM_KV_ROW, DIM_HIDDEN}, W_FP8, NULL},
    {"self_attn.kv_a_proj_with_mqa.bias", P(kv_a_bias), {DIM_KV_ROW}, W_VECTOR | W_ZERO, has_bias},
    {"self_attn.kv_a_layernorm.weight", P(kv_a_norm), {DIM_KV_RANK}, W_VECTOR | W_ONES, NULL},
    {.name = ""}};
#undef P

#define P(f) offsetof(mla_weights, f)
static const weight_slot mla_slots[] = {
    {"self_attn.kv_b_proj.weight", P(kv_b), {DIM_KV_B_OUT, DIM_KV_RANK}, W_FP8, NULL},
    {"self_attn.o_proj.weight", P(o), {DIM_HIDDEN, DIM_O_IN}, W_FP8, NULL},
    {"self_attn.o_proj.bias", P(o_bias), {DIM_HIDDEN}, W_VECTOR | W_ZERO, has_bias},
    {.name = ""}};
#undef P

static int64_t row_width(const model_config *c) {
    return c->kv_lora_rank + c->qk_rope_head_dim;
}

/* Queries, and the new rows of the cache. */
static status project(part_call *c) {
    const model_config *m = c->cfg;
    const project_weights *w = c->w;
    flow *x = c->x;
    const int64_t n = x->n, hidden = m->hidden_size, rank = m->kv_lora_rank, rope = m->qk_rope_head_dim,
                  heads = m->num_attention_heads, qk = config_qk_dim(m), width = row_width(m);
    real *u, *q, *q_a = NULL, *rows;
    TAKE(c, u, n * hidden);
    TAKE(c, q, n * heads * qk);
    TAKE(c, rows, n * width);
    op_rmsnorm(c->q, u, hidden, x->h, hidden, w->norm, n, hidden, (real)m->rms_norm_eps);
    product kv_a = {.w = &w->kv_a, .x = u, .ldx = hidden, .y = rows, .ldy = width, .n = n, .bias = w->kv_a_bias};
    if (m->q_lora_rank) {
        TAKE(c, q_a, n * m->q_lora_rank);
        product both[] = {
            {.w = &w->q_a, .x = u, .ldx = hidden, .y = q_a, .ldy = m->q_lora_rank, .n = n, .bias = w->q_a_bias}, kv_a};
        op_linear(c->q, both, 2);
        op_rmsnorm(c->q, q_a, m->q_lora_rank, q_a, m->q_lora_rank, w->q_a_norm, n, m->q_lora_rank,
                   (real)m->rms_norm_eps);
        op_linear(c->q, &(product){.w = &w->q_b, .x = q_a, .ldx = m->q_lora_rank, .y = q, .ldy = heads * qk, .n = n},
                  1);
    } else {
        product both[] = {{.w = &w->q, .x = u, .ldx = hidden, .y = q, .ldy = heads * qk, .n = n}, kv_a};
        op_linear(c->q, both, 2);
    }
    op_rmsnorm(c->q, rows, width, rows, width, w->kv_a_norm, n, rank, (real)m->rms_norm_eps);
    op_rope(c->q, q + m->qk_nope_head_dim, heads * qk, n, heads, qk, rope, x->rope, x->row, m->rope_interleave);
    op_rope(c->q, rows + rank, width, n, 1, 0, rope, x->rope, x->row, m->rope_interleave);
    watch(c, "kv_latent", rows, width, rank);
    watch(c, "k_pe", rows + rank, width, rope);
    cache_append(c, CACHE_ATTENTION, rows, width);
    x->u = u;
    x->q_a = q_a;
    x->q = q;
    return OK;
}

/* Rows [heads of kv_b_proj]: head h holds qk_nope_head_dim rows for its keys, then v_head_dim rows for its values. */
static tensor key_rows(const model_config *m, const mla_weights *w, int64_t head) {
    return tensor_rows(&w->kv_b, head * (m->qk_nope_head_dim + m->v_head_dim), m->qk_nope_head_dim);
}

static tensor value_rows(const model_config *m, const mla_weights *w, int64_t head) {
    return tensor_rows(&w->kv_b, head * (m->qk_nope_head_dim + m->v_head_dim) + m->qk_nope_head_dim, m->v_head_dim);
}

/* All sequences of the batch at once, so that the threads have work when each has one row. */
static status absorbed(part_call *c, const sequence *const *seq, int count, real *out) {
    const model_config *m = c->cfg;
    const flow *x = c->x;
    const int64_t heads = m->num_attention_heads, nope = m->qk_nope_head_dim, rope = m->qk_rope_head_dim,
                  rank = m->kv_lora_rank, qk = nope + rope, v = m->v_head_dim, width = rank + rope;
    real *q, *latent;
    tensor *w;
    product *list;
    latent_attention *jobs;
    TAKE(c, q, x->n * heads * width);
    TAKE(c, latent, x->n * heads * rank);
    TAKE(c, w, heads * 2);
    TAKE(c, list, heads * count);
    TAKE(c, jobs, count);
    int64_t products = 0;
    for (int64_t h = 0; h < heads; h++) {
        w[h] = key_rows(m, c->w, h);
        w[heads + h] = value_rows(m, c->w, h);
    }
    for (int s = 0; s < count; s++) {
        int64_t first = seq[s]->first, n = seq[s]->n;
        const cache_rows *cache = &seq[s]->cache[c->layer][CACHE_ATTENTION];
        for (int64_t h = 0; h < heads; h++)
            list[products++] = (product){.w = &w[h],
                                         .x = x->q + (first * heads + h) * qk,
                                         .ldx = heads * qk,
                                         .y = q + (first * heads + h) * width,
                                         .ldy = heads * width,
                                         .n = n,
                                         .transposed = true};
        for (int64_t t = first; t < first + n; t++)
            for (int64_t h = 0; h < heads; h++)
                memcpy(q + (t * heads + h) * width + rank, x->q + (t * heads + h) * qk + nope,
                       (size_t)rope * sizeof *q);
        jobs[s] = (latent_attention){.o = latent + first * heads * rank,
                                     .ldo = heads * rank,
                                     .q = q + first * heads * width,
                                     .ldq = heads * width,
                                     .n = n,
                                     .T = seq[s]->pos + n,
                                     .rows = cache->rows,
                                     .row_type = cache->type,
                                     .row_stride = cache->width,
                                     .heads = (int)heads,
                                     .rank = (int)rank,
                                     .rope = (int)rope,
                                     .scale = (real)config_attention_scale(m)};
        if (x->keep_n) {
            jobs[s].keep = x->keep + first * m->index_topk;
            jobs[s].keep_n = x->keep_n + first;
            jobs[s].keep_stride = m->index_topk;
        }
    }
    op_linear(c->q, list, (int)products);
    op_latent_attention(c->q, jobs, count);
    products = 0;
    for (int s = 0; s < count; s++)
        for (int64_t h = 0; h < heads; h++)
            list[products++] = (product){.w = &w[heads + h],
                                         .x = latent + (seq[s]->first * heads + h) * rank,
                                         .ldx = heads * rank,
                                         .y = out + (seq[s]->first * heads + h) * v,
                                         .ldy = heads * v,
                                         .n = seq[s]->n};
    op_linear(c->q, list, (int)products);
    return OK;
}

/* The key part that all heads share, behind each head's own part. */
typedef struct share_call {
    const cache_rows *cache;
    char *k;
    int64_t T, heads, nope, rope, rank;
} share_call;

enum { SHARE_ROWS = 64 };

static void share_rope(void *arg, int64_t task, int thread) {
    (void)thread;
    const share_call *s = arg;
    const size_t size = dtype_size(s->cache->type), bytes = (size_t)s->rope * size;
    for (int64_t t = task * SHARE_ROWS; t < s->T && t < (task + 1) * SHARE_ROWS; t++) {
        const char *from = (const char *)s->cache->rows + (size_t)(t * s->cache->width + s->rank) * size;
        for (int64_t h = 0; h < s->heads; h++)
            memcpy(s->k + (size_t)((t * s->heads + h) * (s->nope + s->rope) + s->nope) * size, from, bytes);
    }
}

enum {
    EXPANDED_BYTES = 64 << 20
}; /* heads are expanded in groups of about this size: bounded memory, and cache hits */

/* One sequence: keys and values of all its rows, a group of heads at a time. */
static status expanded(part_call *c, const sequence *seq, real *out) {
    const model_config *m = c->cfg;
    const cache_rows *cache = &seq->cache[c->layer][CACHE_ATTENTION];
    const int64_t heads = m->num_attention_heads, nope = m->qk_nope_head_dim, rope = m->qk_rope_head_dim,
                  rank = m->kv_lora_rank, qk = nope + rope, v = m->v_head_dim, T = seq->pos + seq->n;
    const size_t size = dtype_size(cache->type);
    int64_t group = EXPANDED_BYTES / (T * (qk + v) * (int64_t)size);
    group = group < 1 ? 1 : group > heads ? heads : group;
    real *latent;
    char *k, *value;
    tensor *w;
    product *list;
    TAKE(c, latent, T * rank);
    TAKE(c, k, (size_t)(T * group * qk) * size);
    TAKE(c, value, (size_t)(T * group * v) * size);
    TAKE(c, w, group * 2);
    TAKE(c, list, group * 2);
    cache_widen(c, latent, cache, 0, rank, T);
    for (int64_t h0 = 0; h0 < heads; h0 += group) {
        int64_t g = heads - h0 < group ? heads - h0 : group;
        for (int64_t h = 0; h < g; h++) {
            w[2 * h] = key_rows(m, c->w, h0 + h);
            w[2 * h + 1] = value_rows(m, c->w, h0 + h);
            list[2 * h] = (product){.w = &w[2 * h],
                                    .x = latent,
                                    .ldx = rank,
                                    .y = k + (size_t)(h * qk) * size,
                                    .ldy = g * qk,
                                    .n = T,
                                    .y_type = cache->type};
            list[2 * h + 1] = (product){.w = &w[2 * h + 1],
                                        .x = latent,
                                        .ldx = rank,
                                        .y = value + (size_t)(h * v) * size,
                                        .ldy = g * v,
                                        .n = T,
                                        .y_type = cache->type};
        }
        op_linear(c->q, list, (int)(2 * g));
        share_call share = {.cache = cache, .k = k, .T = T, .heads = g, .nope = nope, .rope = rope, .rank = rank};
        queue_run(c->q, (T + SHARE_ROWS - 1) / SHARE_ROWS, share_rope, &share);
        op_attention(c->q,
                     &(attention){.o = out + (seq->first * heads + h0) * v,
                                  .ldo = heads * v,
                                  .q = c->x->q + (seq->first * heads + h0) * qk,
                                  .ldq = heads * qk,
                                  .n = seq->n,
                                  .T = T,
                                  .k = k,
                                  .v = value,
                                  .kv_type = cache->type,
                                  .k_stride = g * qk,
                                  .v_stride = g * v,
                                  .k_head_stride = qk,
                                  .v_head_stride = v,
                                  .heads = (int)g,
                                  .kv_heads = (int)g,
                                  .d_qk = (int)qk,
                                  .d_v = (int)v,
                                  .scale = (real)config_attention_scale(m)},
                     1);
    }
    return OK;
}

/* Multiplications of each form for n queries over T rows; per head, the common factors left out. */
static bool absorbed_is_cheaper(const model_config *m, int64_t n, int64_t T) {
    double nope = (double)m->qk_nope_head_dim, rope = (double)m->qk_rope_head_dim, v = (double)m->v_head_dim,
           rank = (double)m->kv_lora_rank, queries = (double)n, rows = (double)T;
    double expand = rows * rank * (nope + v) + queries * rows * (nope + rope + v);
    double absorb = queries * rank * (nope + v) + queries * rows * (2 * rank + rope);
    return n <= OP_FEW_ROWS || absorb < expand;
}

static status mla_forward(part_call *c) {
    const model_config *m = c->cfg;
    const mla_weights *w = c->w;
    flow *x = c->x;
    const int64_t hidden = m->hidden_size, width = m->num_attention_heads * m->v_head_dim;
    real *out, *branch;
    const sequence **few;
    int n_few = 0;
    TAKE(c, out, x->n * width);
    TAKE(c, branch, x->n * hidden);
    TAKE(c, few, x->n_seq);
    for (int s = 0; s < x->n_seq; s++) {
        const sequence *seq = &x->seq[s];
        bool absorb =
            c->form == MLA_CHEAPER ? absorbed_is_cheaper(m, seq->n, seq->pos + seq->n) : c->form == MLA_ABSORBED;
        if (x->keep_n || absorb) few[n_few++] = seq;
        else TRY(expanded(c, seq, out));
    }
    if (n_few) TRY(absorbed(c, few, n_few, out));
    op_linear(c->q,
              &(product){.w = &w->o, .x = out, .ldx = width, .y = branch, .ldy = hidden, .n = x->n, .bias = w->o_bias},
              1);
    watch(c, "attn_out", branch, hidden, hidden);
    op_add(c->q, x->h, hidden, branch, hidden, x->n, hidden);
    return OK;
}

const part part_mla_project = {.name = "mla_project",
                               .weights = project_slots,
                               .weights_size = sizeof(project_weights),
                               .cache = CACHE_ATTENTION,
                               .cache_width = row_width,
                               .decode = project};
const part part_mla = {
    .name = "mla", .weights = mla_slots, .weights_size = sizeof(mla_weights), .decode = mla_forward};
