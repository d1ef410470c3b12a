/* Grouped-query attention of the dense distills (Qwen2, Llama 3): heads / kv_heads query heads share a key and a value.
 *
 *   u = rmsnorm(h)    q = Wq u + bq    k = Wk u + bk    v = Wv u + bv    q, k rotated by halves
 *   h <- h + Wo concat_h softmax(q_h k_g' / sqrt(d)) v_g
 *
 * A token leaves the row [k of all kv heads | v of all kv heads] in the cache.
 *
 * Backward, with g = dL/dh of the output: do = Wo' g, the attention's dq, dk, dv, rotated back;
 *   du = Wq' dq + Wk' dk + Wv' dv      dh = g + rmsnorm'(du)      dWq = dq u' ...      dWo = g o' */
#include "model/block.h"
#include "model/cache_rows.h"

typedef struct gqa_weights {
    real *norm, *q_bias, *k_bias, *v_bias, *o_bias;
    tensor q, k, v, o;
} gqa_weights;

typedef struct gqa_saved {
    const real *h;        /* input */
    real *q, *rows, *out; /* rows: [k | v]; forward */
    attention_train *attention;
    real *dbranch, *dq, *drows; /* by backward */
} gqa_saved;

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

/* Queries, keys and values of all rows, rotated. */
static void project(part_call *c, const gqa_saved *s) {
    const model_config *m = c->cfg;
    const gqa_weights *w = c->w;
    const flow *x = c->x;
    const int64_t n = x->n, hidden = m->hidden_size, heads = m->num_attention_heads, kv = m->num_key_value_heads,
                  d = m->head_dim, width = row_width(m);
    product list[] = {
        {.w = &w->q, .x = x->u, .ldx = hidden, .y = s->q, .ldy = heads * d, .n = n, .bias = w->q_bias},
        {.w = &w->k, .x = x->u, .ldx = hidden, .y = s->rows, .ldy = width, .n = n, .bias = w->k_bias},
        {.w = &w->v, .x = x->u, .ldx = hidden, .y = s->rows + kv * d, .ldy = width, .n = n, .bias = w->v_bias}};
    op_linear(c->q, list, 3);
    op_rope(c->q, s->q, heads * d, n, heads, d, d, x->rope, x->row, false);
    op_rope(c->q, s->rows, width, n, kv, d, d, x->rope, x->row, false);
}

static status start(part_call *c, gqa_saved *s) {
    const model_config *m = c->cfg;
    const gqa_weights *w = c->w;
    flow *x = c->x;
    const int64_t n = x->n, hidden = m->hidden_size, heads = m->num_attention_heads, d = m->head_dim;
    TRY(keep_input(c, &s->h));
    KEEP(c, RECOMPUTE_NORM, x->u, n * hidden);
    KEEP(c, 0, s->q, n * heads * d);
    KEEP(c, 0, s->rows, n * row_width(m));
    KEEP(c, 0, s->out, n * heads * d);
    x->u_in = s->h;
    x->u_norm = w->norm;
    op_rmsnorm(c->q, x->u, hidden, x->h, hidden, w->norm, n, hidden, (real)m->rms_norm_eps);
    project(c, s);
    return OK;
}

static status output(part_call *c, const gqa_saved *s) {
    const gqa_weights *w = c->w;
    flow *x = c->x;
    const int64_t n = x->n, hidden = c->cfg->hidden_size, width = c->cfg->num_attention_heads * c->cfg->head_dim;
    real *branch;
    TAKE(c, branch, n * hidden);
    op_linear(c->q,
              &(product){.w = &w->o, .x = s->out, .ldx = width, .y = branch, .ldy = hidden, .n = n, .bias = w->o_bias},
              1);
    watch(c, "attn_out", branch, hidden, hidden);
    op_add(c->q, x->h, hidden, branch, hidden, n, hidden);
    return OK;
}

static status decode(part_call *c) {
    const model_config *m = c->cfg;
    const flow *x = c->x;
    const int64_t heads = m->num_attention_heads, kv = m->num_key_value_heads, d = m->head_dim, width = row_width(m);
    gqa_saved s;
    attention *jobs;
    TAKE(c, jobs, x->n_seq);
    TRY(start(c, &s));
    cache_append(c, CACHE_ATTENTION, s.rows, width);
    for (int i = 0; i < x->n_seq; i++) {
        const sequence *seq = &x->seq[i];
        const cache_rows *cache = &seq->cache[c->layer][CACHE_ATTENTION];
        jobs[i] = (attention){.o = s.out + seq->first * heads * d,
                              .ldo = heads * d,
                              .q = s.q + seq->first * heads * d,
                              .ldq = heads * d,
                              .n = seq->n,
                              .T = seq->pos + seq->n,
                              .k = cache->rows,
                              .v = (const char *)cache->rows + (size_t)(kv * d) * dtype_size(cache->type),
                              .pages = cache->pages,
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
    return output(c, &s);
}

static status forward(part_call *c) {
    const model_config *m = c->cfg;
    const flow *x = c->x;
    const int64_t heads = m->num_attention_heads, kv = m->num_key_value_heads, d = m->head_dim, width = row_width(m);
    gqa_saved *s = c->saved;
    real *lse;
    KEEP(c, 0, s->attention, x->n_seq);
    KEEP(c, 0, lse, x->n * heads);
    TRY(start(c, s));
    for (int i = 0; i < x->n_seq; i++) {
        const int64_t first = x->seq[i].first;
        s->attention[i] = (attention_train){.q = s->q + first * heads * d,
                                            .ldq = heads * d,
                                            .k = s->rows + first * width,
                                            .ldk = width,
                                            .k_head = d,
                                            .v = s->rows + first * width + kv * d,
                                            .ldv = width,
                                            .v_head = d,
                                            .o = s->out + first * heads * d,
                                            .ldo = heads * d,
                                            .lse = lse + first * heads,
                                            .n = x->seq[i].n,
                                            .heads = (int)heads,
                                            .kv_heads = (int)kv,
                                            .d_qk = (int)d,
                                            .d_v = (int)d,
                                            .scale = (real)config_attention_scale(m)};
        if (x->trunk && x->trunk[i]) {
            s->attention[i].trunk = x->trunk[i];
            s->attention[i].from = x->from + first;
        }
    }
    op_attention_forward(c->q, s->attention, x->n_seq);
    return output(c, s);
}

static status backward(part_call *c) {
    const model_config *m = c->cfg;
    const gqa_weights *w = c->w, *dw = c->dw;
    const flow *x = c->x;
    const int64_t n = x->n, hidden = m->hidden_size, heads = m->num_attention_heads, kv = m->num_key_value_heads,
                  d = m->head_dim, width = row_width(m);
    gqa_saved *s = c->saved;
    real *d_o, *du;
    TRY(branch_gradient(c, &s->dbranch));
    TAKE(c, d_o, n * heads * d);
    TAKE(c, s->dq, n * heads * d);
    TAKE(c, s->drows, n * width);
    TAKE(c, du, n * hidden);
    op_linear_dx(c->q,
                 &(product_dx){.w = &w->o, .dy = s->dbranch, .lddy = hidden, .dx = d_o, .lddx = heads * d, .n = n}, 1);
    for (int i = 0; i < x->n_seq; i++) {
        const int64_t first = x->seq[i].first;
        s->attention[i].d_o = d_o + first * heads * d;
        s->attention[i].dq = s->dq + first * heads * d;
        s->attention[i].dk = s->drows + first * width;
        s->attention[i].dv = s->drows + first * width + kv * d;
    }
    op_attention_backward(c->q, s->attention, x->n_seq);
    op_rope_dx(c->q, s->dq, heads * d, n, heads, d, d, x->rope, x->row, false);
    op_rope_dx(c->q, s->drows, width, n, kv, d, d, x->rope, x->row, false);
    product_dx into_u[] = {
        {.w = &w->q, .dy = s->dq, .lddy = heads * d, .dx = du, .lddx = hidden, .n = n},
        {.w = &w->k, .dy = s->drows, .lddy = width, .dx = du, .lddx = hidden, .n = n, .join = true},
        {.w = &w->v, .dy = s->drows + kv * d, .lddy = width, .dx = du, .lddx = hidden, .n = n, .join = true}};
    op_linear_dx(c->q, into_u, 3);
    op_rmsnorm_dx(c->q, c->dx->h, hidden, dw->norm, du, hidden, s->h, hidden, w->norm, n, hidden, (real)m->rms_norm_eps,
                  true);
    return OK;
}

static status wgrad(part_call *c) {
    const model_config *m = c->cfg;
    const gqa_weights *dw = c->dw;
    const flow *x = c->x;
    const int64_t n = x->n, hidden = m->hidden_size, kv = m->num_key_value_heads, d = m->head_dim,
                  q_width = m->num_attention_heads * d, width = row_width(m);
    const gqa_saved *s = c->saved;
    TRY(again_u(c));
    product_dw list[] = {gradient_of(&dw->o, s->dbranch, hidden, s->out, q_width, n),
                         gradient_of(&dw->q, s->dq, q_width, x->u, hidden, n),
                         gradient_of(&dw->k, s->drows, width, x->u, hidden, n),
                         gradient_of(&dw->v, s->drows + kv * d, width, x->u, hidden, n)};
    list[0].dbias = dw->o_bias;
    list[1].dbias = dw->q_bias;
    list[2].dbias = dw->k_bias;
    list[3].dbias = dw->v_bias;
    op_linear_dw(c->q, list, 4);
    return OK;
}

const part part_gqa = {.name = "gqa",
                       .weights = slots,
                       .weights_size = sizeof(gqa_weights),
                       .saved_size = sizeof(gqa_saved),
                       .cache = CACHE_ATTENTION,
                       .cache_width = row_width,
                       .decode = decode,
                       .forward = forward,
                       .backward = backward,
                       .wgrad = wgrad};
