/* The experts of a mixture-of-experts block, dropless: tokens are sorted by expert, each expert sees its rows in one
 * product, and one list of products holds all experts that have rows, the shared ones included.
 *
 *   h <- h + sum_k gate_k E_k(u) + E_shared(u),    E(u) = W_down (silu(W_gate u) * W_up u)
 *
 * u is the router's normed input. A token's terms are added in the order of its choices: the sum does not depend on who
 * else is in the batch. */
#include <string.h>
#include "model/block.h"

typedef struct experts_weights {
    tensor *gate, *up, *down; /* [n_routed_experts] */
    tensor shared_gate, shared_up, shared_down;
} experts_weights;

static bool has_shared(const model_config *c) {
    return c->n_shared_experts > 0;
}

#define P(f) offsetof(experts_weights, f)
static const weight_slot slots[] = {
    {"mlp.experts.%d.gate_proj.weight", P(gate), {DIM_EXPERT, DIM_HIDDEN}, W_FP8 | W_PER_EXPERT, NULL},
    {"mlp.experts.%d.up_proj.weight", P(up), {DIM_EXPERT, DIM_HIDDEN}, W_FP8 | W_PER_EXPERT, NULL},
    {"mlp.experts.%d.down_proj.weight", P(down), {DIM_HIDDEN, DIM_EXPERT}, W_FP8 | W_PER_EXPERT, NULL},
    {"mlp.shared_experts.gate_proj.weight", P(shared_gate), {DIM_SHARED_EXPERT, DIM_HIDDEN}, W_FP8, has_shared},
    {"mlp.shared_experts.up_proj.weight", P(shared_up), {DIM_SHARED_EXPERT, DIM_HIDDEN}, W_FP8, has_shared},
    {"mlp.shared_experts.down_proj.weight", P(shared_down), {DIM_HIDDEN, DIM_SHARED_EXPERT}, W_FP8, has_shared},
    {.name = ""}};
#undef P

typedef struct combine_call {
    const model_config *m;
    const flow *x;
    const int64_t *slot; /* [n][k]: where the token's row at its k-th expert is */
    const real *routed, *shared;
    real *branch;
} combine_call;

static void combine(void *arg, int64_t t, int thread) {
    (void)thread;
    const combine_call *c = arg;
    const int64_t hidden = c->m->hidden_size, k = c->m->num_experts_per_tok;
    real *out = c->branch + t * hidden;
    if (c->shared) memcpy(out, c->shared + t * hidden, (size_t)hidden * sizeof *out);
    else memset(out, 0, (size_t)hidden * sizeof *out);
    for (int64_t j = 0; j < k; j++) {
        const real *row = c->routed + c->slot[t * k + j] * hidden, gate = c->x->gate[t * k + j];
        for (int64_t i = 0; i < hidden; i++) out[i] += gate * row[i];
    }
}

typedef struct gather_call {
    real *to;
    const real *from;
    const int64_t *slot;
    int64_t k, width;
} gather_call;

static void gather(void *arg, int64_t t, int thread) {
    (void)thread;
    const gather_call *g = arg;
    for (int64_t j = 0; j < g->k; j++)
        memcpy(g->to + g->slot[t * g->k + j] * g->width, g->from + t * g->width, (size_t)g->width * sizeof *g->to);
}

static status forward(part_call *c) {
    const model_config *m = c->cfg;
    const experts_weights *w = c->w;
    flow *x = c->x;
    const int64_t n = x->n, hidden = m->hidden_size, E = m->n_routed_experts, k = m->num_experts_per_tok,
                  inner = m->moe_intermediate_size, shared = m->n_shared_experts, rows = n * k;
    int64_t *first, *slot;
    real *u_sorted, *a, *b, *y, *y_shared = NULL, *branch;
    product *list;
    TAKE(c, first, E + 1);
    TAKE(c, slot, rows);
    TAKE(c, a, (rows + n * shared) * inner);
    TAKE(c, b, (rows + n * shared) * inner);
    TAKE(c, y, rows * hidden);
    TAKE(c, branch, n * hidden);
    TAKE(c, list, 2 * E + 2);

    /* Counting sort: first[e] .. first[e+1]-1 are the rows of expert e. */
    memset(first, 0, (size_t)(E + 1) * sizeof *first);
    for (int64_t i = 0; i < rows; i++) first[x->expert[i] + 1]++;
    for (int64_t e = 0; e < E; e++) first[e + 1] += first[e];
    for (int64_t i = 0; i < rows; i++) slot[i] = first[x->expert[i]]++;
    memmove(first + 1, first, (size_t)E * sizeof *first); /* each start was moved to the next one's: shift back */
    first[0] = 0;

    if (n == 1) { /* every expert has the same row */
        u_sorted = (real *)x->u;
    } else {
        TAKE(c, u_sorted, rows * hidden);
        queue_run(c->q, n, gather, &(gather_call){u_sorted, x->u, slot, k, hidden});
    }
    const int64_t step = n == 1 ? 0 : hidden;
    int count = 0;
    if (shared) {
        real *sa = a + rows * inner, *sb = b + rows * inner;
        list[count++] =
            (product){.w = &w->shared_gate, .x = x->u, .ldx = hidden, .y = sa, .ldy = shared * inner, .n = n};
        list[count++] = (product){.w = &w->shared_up, .x = x->u, .ldx = hidden, .y = sb, .ldy = shared * inner, .n = n};
    }
    for (int64_t e = 0; e < E; e++) {
        product p = {.x = u_sorted + first[e] * step, .ldx = hidden, .ldy = inner, .n = first[e + 1] - first[e]};
        if (!p.n) continue;
        p.w = &w->gate[e], p.y = a + first[e] * inner;
        list[count++] = p;
        p.w = &w->up[e], p.y = b + first[e] * inner;
        list[count++] = p;
    }
    op_linear(c->q, list, count);
    op_swiglu(c->q, a, inner, a, inner, b, inner, rows + n * shared, inner);

    count = 0;
    if (shared) {
        TAKE(c, y_shared, n * hidden);
        list[count++] = (product){
            .w = &w->shared_down, .x = a + rows * inner, .ldx = shared * inner, .y = y_shared, .ldy = hidden, .n = n};
    }
    for (int64_t e = 0; e < E; e++)
        if (first[e + 1] > first[e])
            list[count++] = (product){.w = &w->down[e],
                                      .x = a + first[e] * inner,
                                      .ldx = inner,
                                      .y = y + first[e] * hidden,
                                      .ldy = hidden,
                                      .n = first[e + 1] - first[e]};
    op_linear(c->q, list, count);
    queue_run(c->q, n, combine, &(combine_call){m, x, slot, y, y_shared, branch});
    watch(c, "mlp_out", branch, hidden, hidden);
    op_add(c->q, x->h, hidden, branch, hidden, n, hidden);
    return OK;
}

const part part_experts = {
    .name = "experts", .weights = slots, .weights_size = sizeof(experts_weights), .forward = forward};
