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
 * of the rows (V3.2).
 *
 * Training takes the expanded form over whole documents. Backward, with g = dL/dh of the output:
 *   do = Wo' g;  dq, dk_h, dv_h, dr from the attention (dr, the shared key part's, is a sum over heads)
 *   dc = sum_h Wk_h' dk_h + Wv_h' dv_h;  dq_rope, dr rotated back
 *   dc through its norm, dq through Wqb and the norm of the query latent
 *   du = Wqa' dq_a + Wkva' [dc | dr];  dh = g + rmsnorm'(du)
 *   dWo = g o',  dWkvb = [dk_h | dv_h] c',  dWqb = dq q_a',  dWqa = dq_a u',  dWkva = [dc | dr] u' */
#include <string.h>
#include "model/block.h"
#include "model/cache_rows.h"

typedef struct project_weights {
    real *norm, *q_a_norm, *kv_a_norm, *q_a_bias, *kv_a_bias;
    tensor q, q_a, q_b, kv_a;
} project_weights;

typedef struct project_saved {
    const real *h;           /* input */
    real *q_a_in, *rows;     /* the query latent and the rows before their norms; forward */
    real *dq, *dq_a, *drows; /* by backward */
} project_saved;

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

/* Rotated queries of all rows, from the normed query latent, or from u. */
static void queries(part_call *c, const project_weights *w, real *q) {
    const model_config *m = c->cfg;
    const flow *x = c->x;
    const int64_t width = m->num_attention_heads * config_qk_dim(m),
                  from = m->q_lora_rank ? m->q_lora_rank : m->hidden_size;
    op_linear(c->q,
              &(product){.w = m->q_lora_rank ? &w->q_b : &w->q,
                         .x = m->q_lora_rank ? x->q_a : x->u,
                         .ldx = from,
                         .y = q,
                         .ldy = width,
                         .n = x->n},
              1);
    op_rope(c->q, q + m->qk_nope_head_dim, width, x->n, m->num_attention_heads, config_qk_dim(m), m->qk_rope_head_dim,
            x->rope, x->row, m->rope_interleave);
}

static void norm_q_a(part_call *c, const project_weights *w) {
    const int64_t rank = c->cfg->q_lora_rank;
    op_rmsnorm(c->q, c->x->q_a, rank, c->x->q_a_in, rank, w->q_a_norm, c->x->n, rank, (real)c->cfg->rms_norm_eps);
}

/* Queries, and the rows [latent | rotated key part] of all tokens. */
static status project(part_call *c, project_saved *s) {
    const model_config *m = c->cfg;
    const project_weights *w = c->w;
    flow *x = c->x;
    const int64_t n = x->n, hidden = m->hidden_size, rank = m->kv_lora_rank, rope = m->qk_rope_head_dim,
                  width = row_width(m);
    TRY(keep_input(c, &s->h));
    KEEP(c, RECOMPUTE_NORM, x->u, n * hidden);
    KEEP(c, RECOMPUTE_MLA_UP, x->q, n * m->num_attention_heads * config_qk_dim(m));
    KEEP(c, 0, s->rows, n * width);
    KEEP(c, 0, x->kv, n * width);
    x->u_in = s->h;
    x->u_norm = w->norm;
    x->project = w;
    op_rmsnorm(c->q, x->u, hidden, x->h, hidden, w->norm, n, hidden, (real)m->rms_norm_eps);
    product list[2] = {
        {.w = &w->kv_a, .x = x->u, .ldx = hidden, .y = s->rows, .ldy = width, .n = n, .bias = w->kv_a_bias}};
    if (m->q_lora_rank) {
        KEEP(c, 0, s->q_a_in, n * m->q_lora_rank);
        KEEP(c, RECOMPUTE_NORM, x->q_a, n * m->q_lora_rank);
        x->q_a_in = s->q_a_in;
        list[1] = (product){
            .w = &w->q_a, .x = x->u, .ldx = hidden, .y = s->q_a_in, .ldy = m->q_lora_rank, .n = n, .bias = w->q_a_bias};
        op_linear(c->q, list, 2);
        norm_q_a(c, w);
    } else {
        op_linear(c->q, list, 1);
    }
    queries(c, w, x->q);
    for (int64_t t = 0; t < n; t++)
        memcpy(x->kv + t * width + rank, s->rows + t * width + rank, (size_t)rope * sizeof *x->kv);
    op_rmsnorm(c->q, x->kv, width, s->rows, width, w->kv_a_norm, n, rank, (real)m->rms_norm_eps);
    op_rope(c->q, x->kv + rank, width, n, 1, 0, rope, x->rope, x->row, m->rope_interleave);
    watch(c, "kv_latent", x->kv, width, rank);
    watch(c, "k_pe", x->kv + rank, width, rope);
    return OK;
}

static status project_decode(part_call *c) {
    project_saved unsaved;
    TRY(project(c, &unsaved));
    cache_append(c, CACHE_ATTENTION, c->x->kv, row_width(c->cfg));
    return OK;
}

static status project_forward(part_call *c) {
    KEEP(c, 0, c->x->attention, c->x->n_seq);
    return project(c, c->saved);
}

status again_q_a(part_call *c) {
    if (!(c->recompute & RECOMPUTE_NORM) || !c->cfg->q_lora_rank) return OK;
    TAKE(c, c->x->q_a, c->x->n * c->cfg->q_lora_rank);
    norm_q_a(c, c->x->project);
    return OK;
}

static status project_backward(part_call *c) {
    const model_config *m = c->cfg;
    const project_weights *w = c->w, *dw = c->dw;
    const flow *x = c->x;
    const int64_t n = x->n, hidden = m->hidden_size, rank = m->kv_lora_rank, rope = m->qk_rope_head_dim,
                  heads = m->num_attention_heads, qk = config_qk_dim(m), q_rank = m->q_lora_rank, width = row_width(m);
    const real eps = (real)m->rms_norm_eps;
    project_saved *s = c->saved;
    real *du;
    TAKE(c, du, n * hidden);
    s->dq = c->dx->q;
    s->drows = c->dx->kv;
    op_rope_dx(c->q, s->dq + m->qk_nope_head_dim, heads * qk, n, heads, qk, rope, x->rope, x->row, m->rope_interleave);
    op_rope_dx(c->q, s->drows + rank, width, n, 1, 0, rope, x->rope, x->row, m->rope_interleave);
    op_rmsnorm_dx(c->q, s->drows, width, dw->kv_a_norm, s->drows, width, s->rows, width, w->kv_a_norm, n, rank, eps,
                  false);
    product_dx into_u[] = {
        {.w = &w->kv_a, .dy = s->drows, .lddy = width, .dx = du, .lddx = hidden, .n = n},
        {.w = &w->q, .dy = s->dq, .lddy = heads * qk, .dx = du, .lddx = hidden, .n = n, .join = true}};
    if (q_rank) {
        TAKE(c, s->dq_a, n * q_rank);
        op_linear_dx(
            c->q, &(product_dx){.w = &w->q_b, .dy = s->dq, .lddy = heads * qk, .dx = s->dq_a, .lddx = q_rank, .n = n},
            1);
        op_rmsnorm_dx(c->q, s->dq_a, q_rank, dw->q_a_norm, s->dq_a, q_rank, s->q_a_in, q_rank, w->q_a_norm, n, q_rank,
                      eps, false);
        into_u[1].w = &w->q_a;
        into_u[1].dy = s->dq_a;
        into_u[1].lddy = q_rank;
    }
    op_linear_dx(c->q, into_u, 2);
    op_rmsnorm_dx(c->q, c->dx->h, hidden, dw->norm, du, hidden, s->h, hidden, w->norm, n, hidden, eps, true);
    return OK;
}

static status project_wgrad(part_call *c) {
    const model_config *m = c->cfg;
    const project_weights *dw = c->dw;
    const flow *x = c->x;
    const int64_t n = x->n, hidden = m->hidden_size, q_width = m->num_attention_heads * config_qk_dim(m),
                  q_rank = m->q_lora_rank;
    const project_saved *s = c->saved;
    TRY(again_u(c));
    TRY(again_q_a(c));
    product_dw list[3] = {gradient_of(&dw->kv_a, s->drows, row_width(m), x->u, hidden, n)};
    list[0].dbias = dw->kv_a_bias;
    if (q_rank) {
        list[1] = gradient_of(&dw->q_a, s->dq_a, q_rank, x->u, hidden, n);
        list[1].dbias = dw->q_a_bias;
        list[2] = gradient_of(&dw->q_b, s->dq, q_width, x->q_a, q_rank, n);
    } else {
        list[1] = gradient_of(&dw->q, s->dq, q_width, x->u, hidden, n);
    }
    op_linear_dw(c->q, list, q_rank ? 3 : 2);
    return OK;
}

/* Rows [heads of kv_b_proj]: head h holds qk_nope_head_dim rows for its keys, then v_head_dim rows for its values. */
static tensor key_rows(const model_config *m, const mla_weights *w, int64_t head) {
    return tensor_rows(&w->kv_b, head * (m->qk_nope_head_dim + m->v_head_dim), m->qk_nope_head_dim);
}

static tensor value_rows(const model_config *m, const mla_weights *w, int64_t head) {
    return tensor_rows(&w->kv_b, head * (m->qk_nope_head_dim + m->v_head_dim) + m->qk_nope_head_dim, m->v_head_dim);
}

/* Rows of the batch that lie one after the other, of one sequence or more. */
typedef struct row_run {
    int64_t first, n;
} row_run;

static int join_runs(const sequence *const *seq, int count, row_run *runs) {
    int n = 0;
    for (int s = 0; s < count; s++) {
        if (n && runs[n - 1].first + runs[n - 1].n == seq[s]->first) runs[n - 1].n += seq[s]->n;
        else runs[n++] = (row_run){seq[s]->first, seq[s]->n};
    }
    return n;
}

/* Products of every head with its rows of kv_b_proj (w), over runs of rows: x has x_width numbers a head, y y_width. */
static void each_head(part_call *c, product *list, const row_run *runs, int n_runs, const tensor *w, const real *x,
                      int64_t x_width, real *y, int64_t y_width, bool transposed) {
    const int64_t heads = c->cfg->num_attention_heads;
    int products = 0;
    for (int r = 0; r < n_runs; r++)
        for (int64_t h = 0; h < heads; h++)
            list[products++] = (product){.w = &w[h],
                                         .x = x + (runs[r].first * heads + h) * x_width,
                                         .ldx = heads * x_width,
                                         .y = y + (runs[r].first * heads + h) * y_width,
                                         .ldy = heads * y_width,
                                         .n = runs[r].n,
                                         .transposed = transposed};
    op_linear(c->q, list, products);
}

/* How many of a sequence's rows attend to all that they see: with an indexer those that see no more than it chooses.
 * Their position alone decides, so that a row's bits do not depend on the rows beside it. */
static int64_t plain_rows(const part_call *c, const sequence *seq) {
    const int64_t n = c->cfg->index_topk - seq->pos;
    return !c->x->keep_n || n > seq->n ? seq->n : n < 0 ? 0 : n;
}

/* All sequences of the batch at once, so that the threads have work when each has one row. */
static status absorbed(part_call *c, const sequence *const *seq, int count, real *out) {
    const model_config *m = c->cfg;
    const flow *x = c->x;
    const int64_t heads = m->num_attention_heads, nope = m->qk_nope_head_dim, rope = m->qk_rope_head_dim,
                  rank = m->kv_lora_rank, qk = nope + rope, width = rank + rope;
    const real scale = (real)config_attention_scale(m);
    real *q, *latent;
    tensor *w;
    product *list;
    latent_attention *jobs;
    row_run *runs;
    TAKE(c, q, x->n * heads * width);
    TAKE(c, latent, x->n * heads * rank);
    TAKE(c, w, heads * 2);
    TAKE(c, runs, count);
    const int n_runs = join_runs(seq, count, runs);
    TAKE(c, list, heads * n_runs);
    TAKE(c, jobs, 2 * count);
    for (int64_t h = 0; h < heads; h++) {
        w[h] = key_rows(m, c->w, h);
        w[heads + h] = value_rows(m, c->w, h);
    }
    int n_jobs = 0;
    for (int s = 0; s < count; s++) {
        int64_t first = seq[s]->first, n = seq[s]->n, plain = plain_rows(c, seq[s]);
        const cache_rows *cache = &seq[s]->cache[c->layer][CACHE_ATTENTION];
        for (int64_t t = first; t < first + n; t++)
            for (int64_t h = 0; h < heads; h++)
                memcpy(q + (t * heads + h) * width + rank, x->q + (t * heads + h) * qk + nope,
                       (size_t)rope * sizeof *q);
        latent_attention job = {.o = latent + first * heads * rank,
                                .ldo = heads * rank,
                                .q = q + first * heads * width,
                                .ldq = heads * width,
                                .n = plain,
                                .T = seq[s]->pos + plain,
                                .rows = cache->rows,
                                .pages = cache->pages,
                                .row_type = cache->type,
                                .row_stride = cache->width,
                                .heads = (int)heads,
                                .rank = (int)rank,
                                .rope = (int)rope,
                                .scale = scale};
        if (plain > 0) jobs[n_jobs++] = job;
        if (plain == n) continue;
        job.o += plain * job.ldo;
        job.q += plain * job.ldq;
        job.n = n - plain;
        job.T = seq[s]->pos + n;
        job.keep = x->keep + (first + plain) * m->index_topk;
        job.keep_n = x->keep_n + first + plain;
        job.keep_stride = m->index_topk;
        jobs[n_jobs++] = job;
    }
    each_head(c, list, runs, n_runs, w, x->q, qk, q, width, true);
    op_latent_attention(c->q, jobs, n_jobs);
    each_head(c, list, runs, n_runs, w + heads, latent, rank, out, m->v_head_dim, false);
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
        const char *from =
            (const char *)s->cache->rows + (size_t)(cache_row(s->cache, t) * s->cache->width + s->rank) * size;
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

static status output(part_call *c, const real *out) {
    const mla_weights *w = c->w;
    flow *x = c->x;
    const int64_t hidden = c->cfg->hidden_size, width = c->cfg->num_attention_heads * c->cfg->v_head_dim;
    real *branch;
    TAKE(c, branch, x->n * hidden);
    op_linear(c->q,
              &(product){.w = &w->o, .x = out, .ldx = width, .y = branch, .ldy = hidden, .n = x->n, .bias = w->o_bias},
              1);
    watch(c, "attn_out", branch, hidden, hidden);
    op_add(c->q, x->h, hidden, branch, hidden, x->n, hidden);
    return OK;
}

static status mla_decode(part_call *c) {
    const flow *x = c->x;
    real *out;
    const sequence **few;
    int n_few = 0;
    TAKE(c, out, x->n * c->cfg->num_attention_heads * c->cfg->v_head_dim);
    TAKE(c, few, x->n_seq);
    for (int s = 0; s < x->n_seq; s++) {
        const sequence *seq = &x->seq[s];
        bool absorb =
            c->form == MLA_CHEAPER ? absorbed_is_cheaper(c->cfg, seq->n, seq->pos + seq->n) : c->form == MLA_ABSORBED;
        if (absorb || plain_rows(c, seq) < seq->n) few[n_few++] = seq;
        else TRY(expanded(c, seq, out));
    }
    if (n_few) TRY(absorbed(c, few, n_few, out));
    return output(c, out);
}

/* --- training ---------------------------------------------------------------------------------------------------- */

typedef struct mla_saved {
    real *kv, *out;           /* kv: [n][heads][nope | v], keys and values; forward */
    real *dbranch, *dkv, *dc; /* dc: gradients of the rows [latent | key part]; by backward */
} mla_saved;

static int64_t kv_width(const model_config *m) {
    return m->num_attention_heads * (m->qk_nope_head_dim + m->v_head_dim);
}

static void keys_and_values(part_call *c, real *kv) {
    const mla_weights *w = c->w;
    op_linear(
        c->q,
        &(product){
            .w = &w->kv_b, .x = c->x->kv, .ldx = row_width(c->cfg), .y = kv, .ldy = kv_width(c->cfg), .n = c->x->n},
        1);
}

/* What the attention of every document reads; addresses change when queries, keys and values are computed again. */
static void point_inputs(part_call *c, const mla_saved *s) {
    const model_config *m = c->cfg;
    const flow *x = c->x;
    const int64_t q_width = m->num_attention_heads * config_qk_dim(m);
    for (int i = 0; i < x->n_seq; i++) {
        const int64_t first = x->seq[i].first;
        x->attention[i].q = x->q + first * q_width;
        x->attention[i].k = s->kv + first * kv_width(m);
        x->attention[i].v = s->kv + first * kv_width(m) + m->qk_nope_head_dim;
        x->attention[i].tail = x->kv + first * row_width(m) + m->kv_lora_rank;
    }
}

static status mla_forward(part_call *c) {
    const model_config *m = c->cfg;
    const flow *x = c->x;
    const int64_t heads = m->num_attention_heads, nope = m->qk_nope_head_dim, v = m->v_head_dim;
    mla_saved *s = c->saved;
    real *lse;
    KEEP(c, RECOMPUTE_MLA_UP, s->kv, x->n * kv_width(m));
    KEEP(c, 0, s->out, x->n * heads * v);
    KEEP(c, 0, lse, x->n * heads);
    keys_and_values(c, s->kv);
    for (int i = 0; i < x->n_seq; i++) {
        const int64_t first = x->seq[i].first;
        x->attention[i] = (attention_train){.ldq = heads * config_qk_dim(m),
                                            .ldk = kv_width(m),
                                            .k_head = nope + v,
                                            .ldv = kv_width(m),
                                            .v_head = nope + v,
                                            .ldtail = row_width(m),
                                            .o = s->out + first * heads * v,
                                            .ldo = heads * v,
                                            .lse = lse + first * heads,
                                            .n = x->seq[i].n,
                                            .heads = (int)heads,
                                            .kv_heads = (int)heads,
                                            .d_qk = (int)config_qk_dim(m),
                                            .d_tail = (int)m->qk_rope_head_dim,
                                            .d_v = (int)v,
                                            .scale = (real)config_attention_scale(m)};
        if (x->trunk && x->trunk[i]) {
            x->attention[i].trunk = x->trunk[i];
            x->attention[i].from = x->from + first;
        }
        if (x->keep_n) {
            x->attention[i].keep = x->keep + first * m->index_topk;
            x->attention[i].keep_n = x->keep_n + first;
            x->attention[i].keep_stride = m->index_topk;
        }
    }
    point_inputs(c, s);
    op_attention_forward(c->q, x->attention, x->n_seq);
    return output(c, s->out);
}

/* Queries, keys and values again, when they were not kept. */
static status again_up(part_call *c, mla_saved *s) {
    flow *x = c->x;
    if (!(c->recompute & RECOMPUTE_MLA_UP)) return OK;
    TRY(again_u(c));
    TRY(again_q_a(c));
    TAKE(c, x->q, x->n * c->cfg->num_attention_heads * config_qk_dim(c->cfg));
    TAKE(c, s->kv, x->n * kv_width(c->cfg));
    queries(c, x->project, x->q);
    keys_and_values(c, s->kv);
    point_inputs(c, s);
    return OK;
}

static status mla_backward(part_call *c) {
    const model_config *m = c->cfg;
    const mla_weights *w = c->w;
    const flow *x = c->x;
    const int64_t n = x->n, heads = m->num_attention_heads, v = m->v_head_dim, q_width = heads * config_qk_dim(m),
                  width = row_width(m), hidden = m->hidden_size;
    mla_saved *s = c->saved;
    real *d_o, *dq;
    TRY(again_up(c, s));
    TRY(branch_gradient(c, &s->dbranch));
    TAKE(c, d_o, n * heads * v);
    TAKE(c, dq, n * q_width);
    TAKE(c, s->dkv, n * kv_width(m));
    TAKE(c, s->dc, n * width);
    op_linear_dx(c->q,
                 &(product_dx){.w = &w->o, .dy = s->dbranch, .lddy = hidden, .dx = d_o, .lddx = heads * v, .n = n}, 1);
    for (int i = 0; i < x->n_seq; i++) {
        const int64_t first = x->seq[i].first;
        attention_train *a = &x->attention[i];
        a->d_o = d_o + first * heads * v;
        a->dq = dq + first * q_width;
        a->dk = s->dkv + first * kv_width(m);
        a->dv = s->dkv + first * kv_width(m) + m->qk_nope_head_dim;
        a->dtail = s->dc + first * width + m->kv_lora_rank;
    }
    op_attention_backward(c->q, x->attention, x->n_seq);
    op_linear_dx(
        c->q, &(product_dx){.w = &w->kv_b, .dy = s->dkv, .lddy = kv_width(m), .dx = s->dc, .lddx = width, .n = n}, 1);
    c->dx->q = dq;
    c->dx->kv = s->dc;
    return OK;
}

static status mla_wgrad(part_call *c) {
    const model_config *m = c->cfg;
    const mla_weights *dw = c->dw;
    const int64_t n = c->x->n;
    const mla_saved *s = c->saved;
    product_dw list[] = {
        gradient_of(&dw->o, s->dbranch, m->hidden_size, s->out, m->num_attention_heads * m->v_head_dim, n),
        gradient_of(&dw->kv_b, s->dkv, kv_width(m), c->x->kv, row_width(m), n)};
    list[0].dbias = dw->o_bias;
    op_linear_dw(c->q, list, 2);
    return OK;
}

const part part_mla_project = {.name = "mla_project",
                               .weights = project_slots,
                               .weights_size = sizeof(project_weights),
                               .saved_size = sizeof(project_saved),
                               .cache = CACHE_ATTENTION,
                               .cache_width = row_width,
                               .decode = project_decode,
                               .forward = project_forward,
                               .backward = project_backward,
                               .wgrad = project_wgrad};
const part part_mla = {.name = "mla",
                       .weights = mla_slots,
                       .weights_size = sizeof(mla_weights),
                       .saved_size = sizeof(mla_saved),
                       .decode = mla_decode,
                       .forward = mla_forward,
                       .backward = mla_backward,
                       .wgrad = mla_wgrad};
