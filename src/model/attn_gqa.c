/* Grouped-query attention of the dense distills (Qwen2, Llama 3): heads / kv_heads query heads share a key and a value.
 *
 *   u = rmsnorm(h)    q = Wq u + bq    k = Wk u + bk    v = Wv u + bv    q, k rotated by halves
 *   h <- h + Wo concat_h softmax(q_h k_g' / sqrt(d)) v_g
 *
 * A token leaves the row [k of all kv heads | v of all kv heads] in the cache. */
#include "model/block.h"
#include "model/cache_rows.h"

typedef struct gqa_weights {
    real *norm, *q_bias, *k_bias, *v_bias, *o_bias;
    tensor q, k, v, o;
} gqa_weights;

static bool qkv_bias(const model_config *c) {
    return c->qkv_bias;
}
static bool o_bias(const model_config *c) {
    return c->attention_bias;
}

#define P(f) offsetof(gqa_weights, f)
static const weight_slot slots[] = {{"input_layernorm.weight", P(norm), {DIM_HIDDEN}, W_VECTOR | W_ONES, NULL},
                                    {"self_attn.q_proj.weight", P(q), {DIM_Q_OUT, DIM_HIDDEN}, W_FP8, NULL},
                                    {"self_attn.q_proj.bias", P(q_bias), {DIM_Q_OUT}, W_VECTOR | W_ZERO, qkv_bias},
                                    {"self_attn.k_proj.weight", P(k), {DIM_K_OUT, DIM_HIDDEN}, W_FP8, NULL},
                                    {"self_attn.k_proj.bias", P(k_bias), {DIM_K_OUT}, W_VECTOR | W_ZERO, qkv_bias},
                                    {"self_attn.v_proj.weight", P(v), {DIM_K_OUT, DIM_HIDDEN}, W_FP8, NULL},
                                    {"self_attn.v_proj.bias", P(v_bias), {DIM_K_OUT}, W_VECTOR | W_ZERO, qkv_bias},
                                    {"self_attn.o_proj.weight", P(o), {DIM_HIDDEN, DIM_O_IN}, W_FP8, NULL},
                                    {"self_attn.o_proj.bias", P(o_bias), {DIM_HIDDEN}, W_VECTOR | W_ZERO, o_bias},
                                    {.name = ""}};
#undef P

static int64_t row_width(const model_config *c) {
    return 2 * c->num_key_value_heads * c->head_dim;
}

static status forward(part_call *c) {
    const model_config *m = c->cfg;
    const gqa_weights *w = c->w;
    flow *x = c->x;
    const int64_t n = x->n, hidden = m->hidden_size, heads = m->num_attention_heads, kv = m->num_key_value_heads,
                  d = m->head_dim, width = row_width(m);
    real *u, *q, *rows, *out, *branch;
    attention *jobs;
    TAKE(c, u, n * hidden);
    TAKE(c, q, n * heads * d);
    TAKE(c, rows, n * width);
    TAKE(c, out, n * heads * d);
    TAKE(c, branch, n * hidden);
    TAKE(c, jobs, x->n_seq);
    op_rmsnorm(c->q, u, hidden, x->h, hidden, w->norm, n, hidden, (real)m->rms_norm_eps);
    product list[] = {{.w = &w->q, .x = u, .ldx = hidden, .y = q, .ldy = heads * d, .n = n, .bias = w->q_bias},
                      {.w = &w->k, .x = u, .ldx = hidden, .y = rows, .ldy = width, .n = n, .bias = w->k_bias},
                      {.w = &w->v, .x = u, .ldx = hidden, .y = rows + kv * d, .ldy = width, .n = n, .bias = w->v_bias}};
    op_linear(c->q, list, 3);
    op_rope(c->q, q, heads * d, n, heads, d, d, x->rope, x->row, false);
    op_rope(c->q, rows, width, n, kv, d, d, x->rope, x->row, false);
    cache_append(c, CACHE_ATTENTION, rows, width);
    for (int s = 0; s < x->n_seq; s++) {
        const sequence *seq = &x->seq[s];
        const cache_rows *cache = &seq->cache[c->layer][CACHE_ATTENTION];
        jobs[s] = (attention){.o = out + seq->first * heads * d,
                              .ldo = heads * d,
                              .q = q + seq->first * heads * d,
                              .ldq = heads * d,
                              .n = seq->n,
                              .T = seq->pos + seq->n,
                              .k = cache->rows,
                              .v = (const char *)cache->rows + (size_t)(kv * d) * dtype_size(cache->type),
                              .kv_type = cache->type,
                              .k_stride = width,
                              .v_stride = width,
                              .k_head_stride = d,
                              .v_head_stride = d,
                              .heads = (int)heads,
                              .kv_heads = (int)kv,
                              .d_qk = (int)d,
                              .d_v = (int)d,
                              .scale = (real)config_attention_scale(m)};
    }
    op_attention(c->q, jobs, x->n_seq);
    op_linear(c->q,
              &(product){.w = &w->o, .x = out, .ldx = heads * d, .y = branch, .ldy = hidden, .n = n, .bias = w->o_bias},
              1);
    watch(c, "attn_out", branch, hidden, hidden);
    op_add(c->q, x->h, hidden, branch, hidden, n, hidden);
    return OK;
}

const part part_gqa = {.name = "gqa",
                       .weights = slots,
                       .weights_size = sizeof(gqa_weights),
                       .cache = CACHE_ATTENTION,
                       .cache_width = row_width,
                       .decode = forward};
