/* Every part's backward and wgrad against central differences in double precision: whole blocks as the families build
 * them, tiny, over three documents in two rows of a batch.
 *
 * L = sum_i c_i h_i of the output with random c, plus the balance loss; for the indexer's weights the indexer's loss,
 * which moves nothing else. A central difference of step d is off by d^2 / 6 of the third derivative and by the
 * rounding of L's difference over 2 d. With d = 1e-5 and numbers around one the first is some 1e-10. The difference is
 * taken number by number, sum_i c_i (h_i(+d) - h_i(-d)), so that the second is the rounding of each h_i, a dozen u of
 * it, and independent from one to the next: 12 u sqrt(sum (c_i h_i)^2) / (2 d), below 1e-8. What is left must agree to
 * 1e-6: each weight's gradient as a vector, and each number of it against the largest one.
 *
 * A block is piecewise smooth: where it chooses (experts, selected rows, signs under relu), both points must choose as
 * the middle does; else the case starts again with other random numbers. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "model/block.h"
#include "model/rope.h"
#include "ops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h> /* after the headers of the program: it makes a macro of `fail` */

enum { DOCUMENTS = 3, ROWS = 2, N = 12, MOST_SEEDS = 8 };
static const sequence documents[DOCUMENTS] = {{.first = 0, .n = 5}, {.first = 5, .n = 3}, {.first = 8, .n = 4}};
static const int64_t batch_rows[ROWS + 1] = {0, 8, N};
static const double step = 1e-5, tolerance = 1e-6, unit = 0x1p-53;

/* A gradient begins with this: what is set instead of added to shows. */
static const double before = 0.5;

typedef struct variable { /* one weight, or the input */
    const char *name;
    double *at, *grad;
    int64_t n;
    bool indexer, buffer;
} variable;

enum { MOST_VARIABLES = 64 };

typedef struct block {
    model_config cfg;
    objective goal;
    unsigned recompute;
    const part *const *parts;
    int n_parts;
    arena *mem, *keep, *scratch;
    void *w[MAX_PARTS], *dw[MAX_PARTS];
    variable var[MOST_VARIABLES];
    int n_vars;
    double *input, *c, *h, *dh;
    double rope[N * 64];
    int32_t row[N];
    /* of the last pass */
    flow x[MAX_PARTS];
    void *saved[MAX_PARTS];
    flow dx;
    layer_stats stats;
    int64_t load[64];
    uint64_t choices;
} block;

/* --- building ----------------------------------------------------------------------------------------------------- */

static variable *add_variable(block *b, const char *name, int64_t n) {
    assert_true(b->n_vars < MOST_VARIABLES);
    variable *v = &b->var[b->n_vars++];
    v->name = name;
    v->n = n;
    v->at = arena_zero(b->mem, (size_t)n, sizeof *v->at);
    v->grad = arena_zero(b->mem, (size_t)n, sizeof *v->grad);
    assert_true(v->at && v->grad);
    return v;
}

static void set_tensor(void *field, double *data, int64_t rows, int64_t columns) {
    *(tensor *)field = (tensor){.data = data, .type = DT_F64, .ndim = 2, .dim = {rows, columns}};
}

static void add_slot(block *b, int p, const weight_slot *s, uint64_t seed) {
    const int64_t rows = dim_size(&b->cfg, s->dim[0]), columns = dim_size(&b->cfg, s->dim[1]),
                  experts = s->flags & W_PER_EXPERT ? b->cfg.n_routed_experts : 1;
    char *w = (char *)b->w[p] + s->field, *dw = (char *)b->dw[p] + s->field;
    variable *v = add_variable(b, s->name, experts * rows * columns);
    v->indexer = b->parts[p] == &part_indexer;
    v->buffer = s->flags & W_F32;
    const double center = s->flags & W_ONES ? 1 : 0,
                 spread = s->flags & W_VECTOR ? 0.3 : (s->flags & W_FP8 ? 1.2 : 2) / sqrt((double)columns);
    for (int64_t i = 0; i < v->n; i++) v->at[i] = center + spread * rng_normal(seed, (uint64_t)b->n_vars, (uint64_t)i);
    if (s->flags & W_VECTOR) {
        *(double **)(void *)w = v->at;
        *(double **)(void *)dw = v->grad;
    } else if (s->flags & W_PER_EXPERT) {
        tensor *list = arena_zero(b->mem, 2 * (size_t)experts, sizeof *list);
        assert_non_null(list);
        for (int64_t e = 0; e < experts; e++) {
            set_tensor(list + e, v->at + e * rows * columns, rows, columns);
            set_tensor(list + experts + e, v->grad + e * rows * columns, rows, columns);
        }
        *(tensor **)(void *)w = list;
        *(tensor **)(void *)dw = list + experts;
    } else {
        set_tensor(w, v->at, rows, columns);
        set_tensor(dw, v->grad, rows, columns);
    }
}

static void set_rope(block *b) {
    const int64_t dim = b->cfg.kv_lora_rank ? b->cfg.qk_rope_head_dim : b->cfg.head_dim;
    double frequency[32];
    assert_true(dim <= 64);
    const double factor = rope_frequencies(&b->cfg.rope, dim, frequency);
    for (int s = 0; s < DOCUMENTS; s++)
        rope_table(b->rope + documents[s].first * dim, frequency, factor, dim, 0, documents[s].n);
    for (int i = 0; i < N; i++) b->row[i] = i;
}

static block *open_block(const model_config *cfg, const objective *goal, int64_t layer, uint64_t seed) {
    block *b = calloc(1, sizeof *b);
    assert_non_null(b);
    b->cfg = *cfg, b->goal = *goal;
    b->mem = arena_open(1 << 20), b->keep = arena_open(1 << 20), b->scratch = arena_open(1 << 20);
    b->parts = cfg->arch->block(&b->cfg, layer);
    const int64_t size = N * cfg->hidden_size;
    variable *input = add_variable(b, "input", size);
    b->input = input->at, b->dh = input->grad;
    b->c = arena_take(b->mem, (size_t)size * sizeof *b->c);
    b->h = arena_take(b->mem, (size_t)size * sizeof *b->h);
    assert_true(b->c && b->h);
    for (int64_t i = 0; i < size; i++) {
        b->input[i] = rng_normal(seed, 100, (uint64_t)i);
        b->c[i] = rng_normal(seed, 101, (uint64_t)i);
    }
    for (int p = 0; b->parts[p]; p++) {
        b->n_parts++;
        b->w[p] = arena_zero(b->mem, 1, b->parts[p]->weights_size);
        b->dw[p] = arena_zero(b->mem, 1, b->parts[p]->weights_size);
        b->saved[p] = arena_take(b->mem, b->parts[p]->saved_size + 1);
        assert_true(b->w[p] && b->dw[p] && b->saved[p]);
        for (const weight_slot *s = b->parts[p]->weights; *s->name; s++)
            if (!s->when || s->when(cfg)) add_slot(b, p, s, seed);
    }
    set_rope(b);
    return b;
}

static void close_block(block *b) {
    arena_close(b->mem);
    arena_close(b->keep);
    arena_close(b->scratch);
    free(b);
}

/* --- passes ------------------------------------------------------------------------------------------------------- */

static part_call call_of(block *b, queue *q, int p, error *e) {
    return (part_call){.cfg = &b->cfg,
                       .q = q,
                       .w = b->w[p],
                       .dw = b->dw[p],
                       .x = &b->x[p],
                       .dx = &b->dx,
                       .saved = b->saved[p],
                       .scratch = b->scratch,
                       .keep = b->keep,
                       .recompute = b->recompute,
                       .goal = &b->goal,
                       .stats = &b->stats,
                       .e = e};
}

static void see_choices(block *b, queue *q) {
    const int64_t k = b->cfg.num_experts_per_tok;
    b->choices = queue_choices(q);
    for (int p = 0; p < b->n_parts; p++)
        for (int64_t i = 0; b->parts[p] == &part_route && i < N * k; i++)
            b->choices = (b->choices ^ (uint64_t)b->x[p].expert[i]) * 0x100000001b3u;
}

static void forward(block *b, queue *q) {
    flow x = {.n = N,
              .h = b->h,
              .row = b->row,
              .rope = b->rope,
              .seq = documents,
              .n_seq = DOCUMENTS,
              .batch_row = batch_rows,
              .n_batch_rows = ROWS};
    arena_reset(b->keep);
    arena_reset(b->scratch);
    b->stats = (layer_stats){.load = b->load};
    memset(b->load, 0, sizeof b->load);
    memcpy(b->h, b->input, (size_t)(N * b->cfg.hidden_size) * sizeof *b->h);
    for (int p = 0; p < b->n_parts; p++) {
        error e = {0};
        b->x[p] = x;
        memset(b->saved[p], 0, b->parts[p]->saved_size);
        part_call c = call_of(b, q, p, &e);
        if (b->parts[p]->forward(&c) != OK) fail_msg("%s forward: %s", b->parts[p]->name, e.text);
        x = b->x[p];
    }
}

/* What forward kept in scratch memory is gone. */
static void forget_scratch(block *b) {
    arena_reset(b->scratch);
    const size_t bytes = arena_bytes(b->scratch);
    void *all = arena_take(b->scratch, bytes);
    assert_non_null(all);
    memset(all, 0xff, bytes);
    arena_reset(b->scratch);
}

/* only: NULL, or the one part that learns. */
static void backward(block *b, queue *q, const part *only) {
    error e = {0};
    for (int v = 0; v < b->n_vars; v++)
        for (int64_t i = 0; i < b->var[v].n; i++) b->var[v].grad[i] = before;
    memcpy(b->dh, b->c, (size_t)(N * b->cfg.hidden_size) * sizeof *b->dh);
    b->dx = (flow){.n = N, .h = b->dh};
    forget_scratch(b);
    for (int p = b->n_parts - 1; p >= 0; p--) {
        part_call c = call_of(b, q, p, &e);
        if (only && b->parts[p] != only) continue;
        if (b->parts[p]->backward(&c) != OK) fail_msg("%s backward: %s", b->parts[p]->name, e.text);
    }
    for (int p = 0; p < b->n_parts; p++) {
        part_call c = call_of(b, q, p, &e);
        if (only && b->parts[p] != only) continue;
        if (b->parts[p]->wgrad(&c) != OK) fail_msg("%s wgrad: %s", b->parts[p]->name, e.text);
    }
}

static void run(block *b, bool both, const part *only) {
    queue *q;
    error e = {0};
    assert_int_equal(queue_open(&q, 1, NULL, COMPUTE_F32, &e), OK);
    forward(b, q);
    if (both) backward(b, q, only);
    see_choices(b, q);
    queue_close(q);
}

/* All gradients of one backward pass, one behind the other; the caller frees them. */
static double *gradients(block *b, unsigned recompute, const part *only) {
    int64_t n = 0;
    for (int v = 0; v < b->n_vars; v++) n += b->var[v].n;
    double *all = malloc((size_t)n * sizeof *all), *at = all;
    assert_non_null(all);
    b->recompute = recompute;
    run(b, true, only);
    b->recompute = 0;
    for (int v = 0; v < b->n_vars; v++) {
        memcpy(at, b->var[v].grad, (size_t)b->var[v].n * sizeof *at);
        at += b->var[v].n;
    }
    return all;
}

/* --- comparing ---------------------------------------------------------------------------------------------------- */

typedef struct closeness {
    double vector, number; /* worst ratio of an error to what is allowed */
    const char *vector_of, *number_of;
} closeness;

/* L at the points +step and -step of one number. false: a choice is not that of the middle. */
static bool difference(block *b, const variable *v, int64_t i, uint64_t choices, double *out) {
    const int64_t size = N * b->cfg.hidden_size;
    const double middle = v->at[i];
    double up[N * 64], balance, kl;
    assert_true(size <= N * 64);
    v->at[i] = middle + step;
    const double above = v->at[i];
    run(b, v->indexer, NULL);
    memcpy(up, b->h, (size_t)size * sizeof *up);
    balance = b->stats.balance, kl = b->stats.index_kl;
    bool same = !v->indexer || b->choices == choices;
    const uint64_t choices_up = b->choices;
    v->at[i] = middle - step;
    const double below = v->at[i];
    run(b, v->indexer, NULL);
    v->at[i] = middle;
    same = same && b->choices == choices_up;
    double sum = b->goal.balance * (balance - b->stats.balance);
    for (int64_t j = 0; j < size; j++) sum += b->c[j] * (up[j] - b->h[j]);
    if (v->indexer) {
        if (same) assert_true(sum == 0); /* the indexer moves nothing but its own loss */
        sum = b->goal.indexer * (kl - b->stats.index_kl);
    }
    *out = sum / (above - below);
    return same;
}

static bool check_variable(block *b, const variable *v, const double *grad, uint64_t choices, double floor,
                           closeness *worst) {
    double off2 = 0, size2 = 0, largest = 0, most_off = 0;
    for (int64_t i = 0; i < v->n; i++) largest = fmax(largest, fabs(grad[i]));
    for (int64_t i = 0; i < v->n; i++) {
        double want;
        if (!difference(b, v, i, choices, &want)) return false;
        const double off = fabs(want - grad[i]);
        off2 += off * off, size2 += grad[i] * grad[i];
        most_off = off > most_off || isnan(off) ? off : most_off;
    }
    const double vector = sqrt(off2) / (tolerance * sqrt(size2) + sqrt((double)v->n) * floor),
                 number = most_off / (tolerance * largest + 4 * floor);
    if (!(vector <= worst->vector)) worst->vector = vector, worst->vector_of = v->name;
    if (!(number <= worst->number)) worst->number = number, worst->number_of = v->name;
    if (!(vector <= 1 && number <= 1))
        printf("    %s: gradient of length %.6g is off by %.3g, a number by %.3g (allowed: %.3g, %.3g)\n", v->name,
               sqrt(size2), sqrt(off2), most_off, tolerance * sqrt(size2) + sqrt((double)v->n) * floor,
               tolerance * largest + 4 * floor);
    return true;
}

/* false: try another seed. */
static bool check_block(block *b, closeness *worst) {
    double *all = gradients(b, 0, NULL), *at = all, size2 = 0;
    bool smooth = true;
    for (int64_t i = 0; i < N * b->cfg.hidden_size; i++) size2 += b->c[i] * b->h[i] * b->c[i] * b->h[i];
    const double floor = 12 * unit * sqrt(size2) / (2 * step);
    const uint64_t choices = b->choices;
    for (int v = 0; v < b->n_vars && smooth; v++) {
        const variable *var = &b->var[v];
        for (int64_t i = 0; i < var->n && v > 0; i++) at[i] -= before; /* the input's is not added to */
        if (var->buffer)
            for (int64_t i = 0; i < var->n; i++) assert_true(at[i] == 0);
        else smooth = check_variable(b, var, at, choices, floor, worst);
        at += var->n;
    }
    free(all);
    return smooth;
}

/* --- the cases ---------------------------------------------------------------------------------------------------- */

typedef struct block_case {
    const char *name;
    void (*set)(model_config *c, objective *g);
    int64_t layer; /* 0: dense, 1: a mixture of experts */
} block_case;

static model_config mla_config(const char *type) {
    return (model_config){.arch = arch_find(type),
                          .num_hidden_layers = 2,
                          .hidden_size = 10,
                          .intermediate_size = 9,
                          .num_attention_heads = 2,
                          .q_lora_rank = 7,
                          .kv_lora_rank = 6,
                          .qk_nope_head_dim = 5,
                          .qk_rope_head_dim = 4,
                          .v_head_dim = 3,
                          .rope_interleave = true,
                          .first_k_dense_replace = 1,
                          .moe_layer_freq = 1,
                          .n_routed_experts = 8,
                          .num_experts_per_tok = 3,
                          .n_shared_experts = 2,
                          .moe_intermediate_size = 5,
                          .n_group = 1,
                          .topk_group = 1,
                          .routed_scaling_factor = 1,
                          .rms_norm_eps = 1e-6,
                          .rope = {.theta = 100, .factor = 1}};
}

static void set_mla(model_config *c, objective *g) {
    (void)g;
    *c = mla_config("deepseek_v2");
}

static void set_mla_plain_query(model_config *c, objective *g) {
    (void)g;
    *c = mla_config("deepseek_v2");
    c->q_lora_rank = 0;
    c->rope_interleave = false;
}

static void set_mla_bias(model_config *c, objective *g) {
    (void)g;
    *c = mla_config("deepseek_v2");
    c->attention_bias = true;
}

static void set_mla_yarn(model_config *c, objective *g) {
    set_mla_bias(c, g);
    c->rope_interleave = false;
    c->rope = (rope_config){.type = ROPE_YARN,
                            .theta = 10000,
                            .factor = 40,
                            .original_max_position = 64,
                            .beta_fast = 32,
                            .beta_slow = 1,
                            .mscale = 0.707,
                            .mscale_all_dim = 1};
}

static void set_v2_greedy(model_config *c, objective *g) {
    *c = mla_config("deepseek_v2");
    g->balance = 3;
}

static void set_v2_groups(model_config *c, objective *g) {
    *c = mla_config("deepseek_v2");
    c->topk_method = TOPK_GROUP_LIMITED_GREEDY;
    c->n_group = 4, c->topk_group = 2;
    c->norm_topk_prob = true;
    c->routed_scaling_factor = 1.5;
    c->n_shared_experts = 0;
    g->balance = 3;
}

static void set_v3(model_config *c, objective *g) {
    *c = mla_config("deepseek_v3");
    c->topk_method = TOPK_NOAUX_TC;
    c->sigmoid_scores = true;
    c->n_group = 4, c->topk_group = 2;
    c->norm_topk_prob = true;
    c->routed_scaling_factor = 2.5;
    g->balance = 3;
}

static void set_v3_plain_weights(model_config *c, objective *g) {
    set_v3(c, g);
    c->norm_topk_prob = false;
    c->n_shared_experts = 0;
    g->balance = 0;
}

static void set_v3_one_expert(model_config *c, objective *g) {
    set_v3(c, g);
    c->n_group = c->topk_group = 1;
    c->num_experts_per_tok = 1;
    c->norm_topk_prob = false;
    c->n_shared_experts = 1;
}

static void set_drop_last(model_config *c, objective *g) {
    set_v3(c, g);
    g->capacity_factor = 0.8;
}

static void set_drop_light(model_config *c, objective *g) {
    set_v2_greedy(c, g);
    g->capacity_factor = 0.9;
    g->drop_by_probs = g->capacity_per_row = true;
}

static void set_gqa(model_config *c, objective *g) {
    (void)g;
    *c = (model_config){.arch = arch_find("qwen2"),
                        .num_hidden_layers = 1,
                        .hidden_size = 10,
                        .intermediate_size = 9,
                        .num_attention_heads = 4,
                        .num_key_value_heads = 2,
                        .head_dim = 6,
                        .qkv_bias = true,
                        .rms_norm_eps = 1e-6,
                        .rope = {.theta = 100, .factor = 1}};
}

static void set_gqa_biases(model_config *c, objective *g) {
    set_gqa(c, g);
    c->arch = arch_find("llama");
    c->attention_bias = c->mlp_bias = true;
    c->rope = (rope_config){.type = ROPE_LLAMA3,
                            .theta = 100,
                            .factor = 8,
                            .original_max_position = 32,
                            .low_freq_factor = 1,
                            .high_freq_factor = 4};
}

static void set_warm_up(model_config *c, objective *g) {
    set_v3(c, g);
    c->arch = arch_find("deepseek_v32");
    c->index_n_heads = 3, c->index_head_dim = 6, c->index_topk = 3;
    g->indexer = 0.7;
}

static void set_sparse(model_config *c, objective *g) {
    set_warm_up(c, g);
    g->indexer_sparse = true;
}

/* No document has more rows than are selected: everything is seen, and the indexer learns all the same. */
static void set_sparse_short(model_config *c, objective *g) {
    set_sparse(c, g);
    c->index_topk = 5;
}

static const block_case cases[] = {
    {"MLA", set_mla, 0},
    {"MLA without a query latent, rotated by halves", set_mla_plain_query, 0},
    {"MLA with biases", set_mla_bias, 0},
    {"MLA with YaRN and a factor in cos and sin", set_mla_yarn, 0},
    {"V2: softmax, greedy, balance loss", set_v2_greedy, 1},
    {"V2: softmax, groups, weights divided by their sum, no shared experts", set_v2_groups, 1},
    {"V3: sigmoid, groups, weights divided by their sum, balance loss", set_v3, 1},
    {"V3: sigmoid, weights as they are, no shared experts", set_v3_plain_weights, 1},
    {"V3: one expert a token", set_v3_one_expert, 1},
    {"capacity of the call, last pairs dropped", set_drop_last, 1},
    {"capacity of each row, lightest pairs dropped", set_drop_light, 1},
    {"GQA with biases of q, k, v", set_gqa, 0},
    {"GQA and FFN with all biases, llama3 rotation", set_gqa_biases, 0},
    {"V3.2: indexer, dense warm-up", set_warm_up, 0},
    {"V3.2: indexer, sparse", set_sparse, 0},
    {"V3.2: indexer, sparse, a mixture of experts", set_sparse, 1},
    {"V3.2: indexer, sparse, documents as long as the selection", set_sparse_short, 0},
};
enum { CASES = sizeof cases / sizeof *cases };

static block *open_case(const block_case *k, uint64_t seed) {
    model_config cfg;
    objective goal = {.language_model = true};
    k->set(&cfg, &goal);
    return open_block(&cfg, &goal, k->layer, seed);
}

static void test_differences(void **state) {
    (void)state;
    int bad = 0;
    for (int i = 0; i < CASES; i++) {
        closeness worst = {.vector_of = "", .number_of = ""};
        uint64_t seed = 1;
        for (bool smooth = false; !smooth; seed++) {
            if (seed > MOST_SEEDS) fail_msg("%s: every seed has a choice within a step", cases[i].name);
            block *b = open_case(&cases[i], seed);
            worst = (closeness){.vector_of = "", .number_of = ""};
            smooth = check_block(b, &worst);
            close_block(b);
        }
        printf("%s: at most %.2g of the error allowed for a weight (%s), %.2g for a number (%s)\n", cases[i].name,
               worst.vector, worst.vector_of, worst.number, worst.number_of);
        bad += !(worst.vector <= 1 && worst.number <= 1);
    }
    assert_int_equal(bad, 0);
}

static size_t gradient_bytes(const block *b) {
    size_t n = 0;
    for (int v = 0; v < b->n_vars; v++) n += (size_t)b->var[v].n * sizeof(double);
    return n;
}

/* The same bits whatever is computed again; counts of tokens and dropped pairs, too. */
static void test_recompute(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++) {
        block *b = open_case(&cases[i], 1);
        double *want = gradients(b, 0, NULL);
        const layer_stats stats = b->stats;
        int64_t load[64], pairs = 0;
        memcpy(load, b->load, sizeof load);
        for (int e = 0; e < 64; e++) pairs += load[e];
        assert_int_equal(pairs, cases[i].layer ? N * b->cfg.num_experts_per_tok : 0);
        assert_true((stats.dropped > 0) == (b->goal.capacity_factor > 0));
        for (unsigned flags = 1; flags < 8; flags++) {
            double *got = gradients(b, flags, NULL);
            if (memcmp(got, want, gradient_bytes(b)) != 0)
                fail_msg("%s: recompute %u changes bits", cases[i].name, flags);
            assert_memory_equal(load, b->load, sizeof load);
            assert_true(stats.dropped == b->stats.dropped && stats.balance == b->stats.balance &&
                        stats.index_kl == b->stats.index_kl);
            free(got);
        }
        free(want);
        close_block(b);
    }
}

/* Weights whose gradients are not wanted: those of the input are what they were. */
static void test_frozen(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++) {
        block *b = open_case(&cases[i], 1);
        const size_t bytes = (size_t)b->var[0].n * sizeof(double);
        double *want = gradients(b, 0, NULL);
        for (int p = 0; p < b->n_parts; p++) {
            for (const weight_slot *s = b->parts[p]->weights; *s->name; s++) {
                void *field = (char *)b->dw[p] + s->field;
                if (s->flags & W_VECTOR) *(double **)field = NULL;
                else if (s->flags & W_PER_EXPERT)
                    for (int64_t e = 0; e < b->cfg.n_routed_experts; e++) (*(tensor **)field)[e].data = NULL;
                else ((tensor *)field)->data = NULL;
            }
        }
        double *got = gradients(b, 0, NULL);
        assert_memory_equal(got, want, bytes);
        for (size_t j = bytes / sizeof *got; j < gradient_bytes(b) / sizeof *got; j++) assert_true(got[j] == before);
        free(want), free(got);
        close_block(b);
    }
}

/* The indexer's loss changes no bit of anybody else's gradient; and trained alone it gets the gradient that it gets in
 * company and touches nothing else. Alone it needs queries and keys kept: mla's backward is what computes them again.
 */
static void test_indexer_apart(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++) {
        if (strncmp(cases[i].name, "V3.2", 4) != 0) continue;
        block *b = open_case(&cases[i], 1);
        double *with = gradients(b, 0, NULL), *a = with;
        const real factor = b->goal.indexer;
        assert_true(b->stats.index_kl > 0);
        b->goal.indexer = 0;
        double *without = gradients(b, 0, NULL), *c = without;
        b->goal.indexer = factor;
        b->goal.language_model = false;
        for (unsigned flags = 0; flags < 8; flags++) {
            if (flags & RECOMPUTE_MLA_UP) continue;
            double *alone = gradients(b, flags, &part_indexer), *d = alone;
            a = with, c = without;
            for (int v = 0; v < b->n_vars; v++) {
                const variable *var = &b->var[v];
                const size_t bytes = (size_t)var->n * sizeof *a;
                for (int64_t j = 0; j < var->n; j++) {
                    if (var->indexer) assert_true(c[j] == before);
                    else if (v > 0) assert_true(d[j] == before);
                    else assert_true(d[j] == b->c[j]);
                }
                if (var->indexer && memcmp(a, d, bytes) != 0)
                    fail_msg("%s alone, recompute %u: another gradient of %s", cases[i].name, flags, var->name);
                if (!var->indexer) assert_memory_equal(a, c, bytes);
                a += var->n, c += var->n, d += var->n;
            }
            free(alone);
        }
        free(with), free(without);
        close_block(b);
    }
}

/* A row's output depends on the rows before it in its document, and on no other: the gradient of one row's output is
 * zero everywhere else. (Of the balance loss and of capacity, which look at whole rows of the batch, that is not so.)
 */
static void test_borders(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++) {
        block *b = open_case(&cases[i], 1);
        const int64_t hidden = b->cfg.hidden_size;
        b->goal.balance = b->goal.capacity_factor = 0;
        for (int s = 0; s < DOCUMENTS; s++) {
            for (int64_t t = documents[s].first; t < documents[s].first + documents[s].n; t++) {
                for (int64_t j = 0; j < N * hidden; j++) b->c[j] = j / hidden == t ? 1 + (double)(j % 3) : 0;
                run(b, true, NULL);
                for (int64_t r = 0; r < N; r++) {
                    bool any = false;
                    for (int64_t j = 0; j < hidden; j++) any = any || b->dh[r * hidden + j] != 0;
                    if (r < documents[s].first || r > t) assert_false(any);
                    if (r == t) assert_true(any);
                }
            }
        }
        close_block(b);
    }
}

/* A capacity that nothing reaches is none, to the last bit. */
static void test_large_capacity(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++) {
        if (cases[i].set != set_drop_last && cases[i].set != set_drop_light) continue;
        block *b = open_case(&cases[i], 1);
        b->goal.capacity_factor = 0;
        double *without = gradients(b, 0, NULL);
        b->goal.capacity_factor = 100;
        double *large = gradients(b, 0, NULL);
        assert_int_equal(b->stats.dropped, 0);
        assert_memory_equal(large, without, gradient_bytes(b));
        free(without), free(large);
        close_block(b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_differences),   cmocka_unit_test(test_recompute), cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_indexer_apart), cmocka_unit_test(test_borders),   cmocka_unit_test(test_large_capacity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
