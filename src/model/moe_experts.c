/* The experts of a mixture-of-experts block, dropless: tokens are sorted by expert, each expert sees its rows in one
 * product, and one list of products holds all experts that have rows, the shared ones included.
 *
 *   h <- h + sum_k gate_k E_k(u) + E_shared(u),    E(u) = W_down (silu(W_gate u) * W_up u)
 *
 * u is the router's normed input. A token's terms are added in the order of its choices: the sum does not depend on who
 * else is in the batch.
 *
 * Backward, with g = dL/dh, y = silu(a) * b of a row and s = sigmoid(a):
 *   dy = W_down' g (of the routed rows before the gate: then dgate = dy . y and dy <- gate dy)
 *   da = dy b s (1 + a (1 - s))      db = dy a s      du = sum over the token's rows of W_gate' da + W_up' db
 *   dW_down = g (gate y)'      dW_gate = da u'      dW_up = db u' */
#include <string.h>
#include "model/block.h"
#include "model/exchange.h"

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

/* Sorted rows: row slot[t * k + j] is token t at its j-th expert. With expert parallelism they travel to the ranks that
 * own their experts (exchange.h); what this rank's experts get are x.got rows, x.first[e] .. x.first[e+1]-1 those of
 * its e-th expert. The shared experts' n rows lie behind them, as n_shared_experts rows of moe_intermediate_size each.
 */
typedef struct experts_saved {
    int64_t *slot; /* -1: a dropped pair */
    exchange x;
    real *a, *b;               /* inner rows; backward leaves their gradients there */
    real *dbranch, *u, *g, *y; /* by backward: g = dL/dh, u, y (times gate) of the rows got */
} experts_saved;

/* Rows of tokens <-> rows of experts. */
typedef struct move_call {
    const flow *x;
    const int64_t *slot;
    int64_t k, width;
    const real *from;
    real *to;
    const real *gate;   /* of the sum: NULL: all 1 */
    const real *shared; /* what a token's sum begins with; NULL: 0, or what is there when `add` */
    bool add;
} move_call;

enum { MOVE_TOKENS = 16 }; /* of a task */

static void copy_to_slots(void *arg, int64_t task, int thread) {
    (void)thread;
    const move_call *g = arg;
    for (int64_t t = task * MOVE_TOKENS; t < g->x->n && t < (task + 1) * MOVE_TOKENS; t++)
        for (int64_t j = 0; j < g->k; j++)
            if (g->slot[t * g->k + j] >= 0)
                memcpy(g->to + g->slot[t * g->k + j] * g->width, g->from + t * g->width,
                       (size_t)g->width * sizeof *g->to);
}

static void scatter(part_call *c, const experts_saved *s, const real *from, real *to) {
    move_call g = {.x = c->x,
                   .slot = s->slot,
                   .k = c->cfg->num_experts_per_tok,
                   .width = c->cfg->hidden_size,
                   .from = from,
                   .to = to};
    queue_run(c->q, (c->x->n + MOVE_TOKENS - 1) / MOVE_TOKENS, copy_to_slots, &g);
}

static void sum_of_slots(void *arg, int64_t task, int thread) {
    (void)thread;
    const move_call *g = arg;
    for (int64_t t = task * MOVE_TOKENS; t < g->x->n && t < (task + 1) * MOVE_TOKENS; t++) {
        real *restrict out = g->to + t * g->width;
        if (g->shared) memcpy(out, g->shared + t * g->width, (size_t)g->width * sizeof *out);
        else if (!g->add) memset(out, 0, (size_t)g->width * sizeof *out);
        for (int64_t j = 0; j < g->k; j++) {
            if (g->slot[t * g->k + j] < 0) continue;
            const real *restrict row = g->from + g->slot[t * g->k + j] * g->width;
            const real gate = g->gate ? g->gate[t * g->k + j] : 1;
            for (int64_t i = 0; i < g->width; i++) out[i] += gate * row[i];
        }
    }
}

/* Counting sort of the pairs by expert, and where they go. */
static status sort_rows(part_call *c, experts_saved *s) {
    const flow *x = c->x;
    const int64_t E = c->cfg->n_routed_experts, pairs = x->n * c->cfg->num_experts_per_tok;
    int64_t *first;
    KEEP(c, 0, first, E + 1);
    KEEP(c, 0, s->slot, pairs);
    memset(first, 0, (size_t)(E + 1) * sizeof *first);
    for (int64_t i = 0; i < pairs; i++)
        if (x->expert[i] >= 0) first[x->expert[i] + 1]++;
    for (int64_t e = 0; e < E; e++) first[e + 1] += first[e];
    for (int64_t i = 0; i < pairs; i++) s->slot[i] = x->expert[i] < 0 ? -1 : first[x->expert[i]]++;
    memmove(first + 1, first, (size_t)E * sizeof *first); /* each start was moved to the next one's: shift back */
    first[0] = 0;
    if (c->ep) return exchange_plan(&s->x, c->ep, first, E, c->keep, c->e);
    s->x = (exchange){.experts = E, .rows = first[E], .got = first[E], .first = first};
    return OK;
}

/* Sorted rows to their experts' owners, and back. */
static status send(part_call *c, const experts_saved *s, real *rows, int64_t width, real **out) {
    *out = rows;
    return c->ep ? exchange_send(&s->x, rows, width, c->scratch, c->scratch, out, c->e) : OK;
}

static status bring_back(part_call *c, const experts_saved *s, real *rows, int64_t width, real **out) {
    *out = rows;
    return c->ep ? exchange_return(&s->x, rows, width, c->scratch, c->scratch, out, c->e) : OK;
}

/* a = W_gate u and b = W_up u of all rows; u: the rows, `step` numbers apart (0: every expert has the same row). */
static status gate_and_up(part_call *c, const experts_saved *s, const real *u, int64_t step) {
    const model_config *m = c->cfg;
    const experts_weights *w = c->w;
    const flow *x = c->x;
    const int64_t hidden = m->hidden_size, E = s->x.experts, inner = m->moe_intermediate_size,
                  shared = m->n_shared_experts;
    product *list;
    int count = 0;
    TAKE(c, list, 2 * E + 2);
    if (shared) {
        product p = {.x = x->u, .ldx = hidden, .ldy = shared * inner, .n = x->n};
        p.w = &w->shared_gate, p.y = s->a + s->x.got * inner;
        list[count++] = p;
        p.w = &w->shared_up, p.y = s->b + s->x.got * inner;
        list[count++] = p;
    }
    for (int64_t e = 0; e < E; e++) {
        const int64_t first = s->x.first[e];
        product p = {.x = u + first * step, .ldx = hidden, .ldy = inner, .n = s->x.first[e + 1] - first};
        if (!p.n) continue;
        p.w = &w->gate[s->x.first_expert + e], p.y = s->a + first * inner;
        list[count++] = p;
        p.w = &w->up[s->x.first_expert + e], p.y = s->b + first * inner;
        list[count++] = p;
    }
    op_linear(c->q, list, count);
    return OK;
}

/* Rows of the experts' outputs, and of the shared experts' (to out_shared). */
static status down(part_call *c, const experts_saved *s, const real *y, real *out, real *out_shared) {
    const model_config *m = c->cfg;
    const experts_weights *w = c->w;
    const int64_t hidden = m->hidden_size, E = s->x.experts, inner = m->moe_intermediate_size,
                  shared = m->n_shared_experts;
    product *list;
    int count = 0;
    TAKE(c, list, E + 1);
    if (shared)
        list[count++] = (product){.w = &w->shared_down,
                                  .x = y + s->x.got * inner,
                                  .ldx = shared * inner,
                                  .y = out_shared,
                                  .ldy = hidden,
                                  .n = c->x->n};
    for (int64_t e = 0; e < E; e++)
        if (s->x.first[e + 1] > s->x.first[e])
            list[count++] = (product){.w = &w->down[s->x.first_expert + e],
                                      .x = y + s->x.first[e] * inner,
                                      .ldx = inner,
                                      .y = out + s->x.first[e] * hidden,
                                      .ldy = hidden,
                                      .n = s->x.first[e + 1] - s->x.first[e]};
    op_linear(c->q, list, count);
    return OK;
}

static status forward(part_call *c) {
    const model_config *m = c->cfg;
    flow *x = c->x;
    const int64_t n = x->n, hidden = m->hidden_size, inner = m->moe_intermediate_size, shared = m->n_shared_experts;
    experts_saved unsaved, *s = c->saved ? c->saved : &unsaved;
    const bool one = n == 1 && !c->saved;
    real *u = x->u, *y, *out, *out_shared = NULL, *branch;
    TRY(sort_rows(c, s));
    const int64_t all = s->x.got + n * shared;
    KEEP(c, RECOMPUTE_SWIGLU, s->a, all * inner);
    KEEP(c, RECOMPUTE_SWIGLU, s->b, all * inner);
    if (!one) {
        TAKE(c, u, s->x.rows * hidden);
        scatter(c, s, x->u, u);
    }
    TRY(send(c, s, u, hidden, &u));
    TRY(gate_and_up(c, s, u, one ? 0 : hidden));
    TAKE(c, y, all * inner);
    op_swiglu(c->q, y, inner, s->a, inner, s->b, inner, all, inner);
    TAKE(c, out, s->x.got * hidden);
    TAKE(c, branch, n * hidden);
    if (shared) TAKE(c, out_shared, n * hidden);
    TRY(down(c, s, y, out, out_shared));
    TRY(bring_back(c, s, out, hidden, &out));
    move_call sum = {.x = x, .slot = s->slot, .k = m->num_experts_per_tok, .width = hidden, .from = out, .to = branch};
    sum.gate = x->gate;
    sum.shared = out_shared;
    queue_run(c->q, (n + MOVE_TOKENS - 1) / MOVE_TOKENS, sum_of_slots, &sum);
    watch(c, "mlp_out", branch, hidden, hidden);
    op_add(c->q, x->h, hidden, branch, hidden, n, hidden);
    return OK;
}

typedef struct gate_call {
    int64_t rows, inner;
    const real *gate; /* [rows] */
    real *y, *dy, *dgate;
} gate_call;

enum { GATE_ROWS = 64 }; /* of a task */

/* dgate = dy . y, then dy and y times gate. */
static void gate_gradient(void *arg, int64_t task, int thread) {
    (void)thread;
    const gate_call *g = arg;
    for (int64_t r = task * GATE_ROWS; r < g->rows && r < (task + 1) * GATE_ROWS; r++) {
        real *restrict y = g->y + r * g->inner, *restrict dy = g->dy + r * g->inner;
        real sum[8] = {0}, all = 0;
        for (int64_t j = 0; j < g->inner; j++) sum[j % 8] += y[j] * dy[j];
        for (int64_t j = 0; j < g->inner; j++) y[j] *= g->gate[r];
        for (int64_t j = 0; j < g->inner; j++) dy[j] *= g->gate[r];
        for (int j = 0; j < 8; j++) all += sum[j];
        g->dgate[r] = all;
    }
}

/* The gates travel to the rows, the gradients of the gates back. */
static status gates(part_call *c, const experts_saved *s, real *dy) {
    const flow *x = c->x;
    const int64_t pairs = x->n * c->cfg->num_experts_per_tok;
    real *gate, *dgate, *back;
    TAKE(c, gate, s->x.rows);
    TAKE(c, dgate, s->x.got);
    for (int64_t i = 0; i < pairs; i++)
        if (s->slot[i] >= 0) gate[s->slot[i]] = x->gate[i];
    TRY(send(c, s, gate, 1, &gate));
    gate_call g = {
        .rows = s->x.got, .inner = c->cfg->moe_intermediate_size, .gate = gate, .y = s->y, .dy = dy, .dgate = dgate};
    queue_run(c->q, (g.rows + GATE_ROWS - 1) / GATE_ROWS, gate_gradient, &g);
    TRY(bring_back(c, s, dgate, 1, &back));
    for (int64_t i = 0; i < pairs; i++) c->dx->gate[i] = s->slot[i] >= 0 ? back[s->slot[i]] : 0;
    return OK;
}

/* Gradients of the rows' inputs from those of a and b: into du (rows) and, from the shared experts, dx->u. */
static status into_u(part_call *c, const experts_saved *s, real *du) {
    const model_config *m = c->cfg;
    const experts_weights *w = c->w;
    const int64_t hidden = m->hidden_size, E = s->x.experts, inner = m->moe_intermediate_size,
                  shared = m->n_shared_experts;
    product_dx *list;
    int count = 0;
    TAKE(c, list, 2 * E + 2);
    if (shared) {
        product_dx p = {.dx = c->dx->u, .lddx = hidden, .lddy = shared * inner, .n = c->x->n};
        p.w = &w->shared_gate, p.dy = s->a + s->x.got * inner;
        list[count++] = p;
        p.w = &w->shared_up, p.dy = s->b + s->x.got * inner, p.join = true;
        list[count++] = p;
    }
    for (int64_t e = 0; e < E; e++) {
        const int64_t first = s->x.first[e];
        product_dx p = {.dx = du + first * hidden, .lddx = hidden, .lddy = inner, .n = s->x.first[e + 1] - first};
        if (!p.n) continue;
        p.w = &w->gate[s->x.first_expert + e], p.dy = s->a + first * inner;
        list[count++] = p;
        p.w = &w->up[s->x.first_expert + e], p.dy = s->b + first * inner, p.join = true;
        list[count++] = p;
    }
    op_linear_dx(c->q, list, count);
    return OK;
}

/* dy = W_down' g of all rows. */
static status into_y(part_call *c, const experts_saved *s, real *dy) {
    const model_config *m = c->cfg;
    const experts_weights *w = c->w;
    const int64_t hidden = m->hidden_size, E = s->x.experts, inner = m->moe_intermediate_size,
                  shared = m->n_shared_experts;
    product_dx *list;
    int count = 0;
    TAKE(c, list, E + 1);
    if (shared)
        list[count++] = (product_dx){.w = &w->shared_down,
                                     .dy = s->dbranch,
                                     .lddy = hidden,
                                     .dx = dy + s->x.got * inner,
                                     .lddx = shared * inner,
                                     .n = c->x->n};
    for (int64_t e = 0; e < E; e++)
        if (s->x.first[e + 1] > s->x.first[e])
            list[count++] = (product_dx){.w = &w->down[s->x.first_expert + e],
                                         .dy = s->g + s->x.first[e] * hidden,
                                         .lddy = hidden,
                                         .dx = dy + s->x.first[e] * inner,
                                         .lddx = inner,
                                         .n = s->x.first[e + 1] - s->x.first[e]};
    op_linear_dx(c->q, list, count);
    return OK;
}

static status backward(part_call *c) {
    const model_config *m = c->cfg;
    const flow *x = c->x;
    const int64_t n = x->n, hidden = m->hidden_size, k = m->num_experts_per_tok, inner = m->moe_intermediate_size,
                  shared = m->n_shared_experts;
    experts_saved *s = c->saved;
    const int64_t all = s->x.got + n * shared;
    real *u, *g, *dy, *du;
    TRY(again_u(c));
    TRY(branch_gradient(c, &s->dbranch));
    TAKE(c, u, s->x.rows * hidden);
    TAKE(c, g, s->x.rows * hidden);
    TAKE(c, s->y, all * inner);
    TAKE(c, dy, all * inner);
    TAKE(c, du, s->x.got * hidden);
    TAKE(c, c->dx->u, n * hidden);
    TAKE(c, c->dx->gate, n * k);
    scatter(c, s, x->u, u);
    scatter(c, s, s->dbranch, g);
    TRY(send(c, s, u, hidden, &s->u));
    TRY(send(c, s, g, hidden, &s->g));
    if (c->recompute & RECOMPUTE_SWIGLU) {
        TAKE(c, s->a, all * inner);
        TAKE(c, s->b, all * inner);
        TRY(gate_and_up(c, s, s->u, hidden));
    }
    op_swiglu(c->q, s->y, inner, s->a, inner, s->b, inner, all, inner);
    TRY(into_y(c, s, dy));
    TRY(gates(c, s, dy));
    op_swiglu_dx(c->q, s->a, inner, s->b, inner, dy, inner, s->a, inner, s->b, inner, all, inner);
    if (!shared) memset(c->dx->u, 0, (size_t)(n * hidden) * sizeof *c->dx->u);
    TRY(into_u(c, s, du));
    TRY(bring_back(c, s, du, hidden, &du));
    move_call sum = {.x = x, .slot = s->slot, .k = k, .width = hidden, .from = du, .to = c->dx->u, .add = true};
    queue_run(c->q, (n + MOVE_TOKENS - 1) / MOVE_TOKENS, sum_of_slots, &sum);
    return OK;
}

/* Gradients of this rank's experts from rows first .. end-1 of each. */
static void expert_gradients(const part_call *c, const experts_saved *s, int64_t e, int64_t first, int64_t end,
                             product_dw *list) {
    const experts_weights *dw = c->dw;
    const int64_t hidden = c->cfg->hidden_size, inner = c->cfg->moe_intermediate_size, n = end - first,
                  expert = s->x.first_expert + e;
    const real *u = s->u + first * hidden;
    list[0] = gradient_of(&dw->down[expert], s->g + first * hidden, hidden, s->y + first * inner, inner, n);
    list[1] = gradient_of(&dw->gate[expert], s->a + first * inner, inner, u, hidden, n);
    list[2] = gradient_of(&dw->up[expert], s->b + first * inner, inner, u, hidden, n);
}

static status wgrad(part_call *c) {
    const model_config *m = c->cfg;
    const experts_weights *dw = c->dw;
    const int64_t n = c->x->n, hidden = m->hidden_size, inner = m->moe_intermediate_size, shared = m->n_shared_experts;
    const experts_saved *s = c->saved;
    const int64_t ranks = c->ep ? c->ep->size : 1, width = shared * inner, at = s->x.got * inner;
    product_dw *list;
    TAKE(c, list, 3 * s->x.experts + 3);
    /* Rows of one rank after those of another: the sums are those of ranks that add up their own gradients. */
    for (int64_t r = 0; r < ranks; r++) {
        int count = 0;
        if (shared && r == 0) {
            list[count++] = gradient_of(&dw->shared_down, s->dbranch, hidden, s->y + at, width, n);
            list[count++] = gradient_of(&dw->shared_gate, s->a + at, width, c->x->u, hidden, n);
            list[count++] = gradient_of(&dw->shared_up, s->b + at, width, c->x->u, hidden, n);
        }
        for (int64_t e = 0; e < s->x.experts; e++, count += 3) {
            const int64_t *cut = ranks > 1 ? s->x.segment + e * ranks + r : s->x.first + e;
            expert_gradients(c, s, e, cut[0], cut[1], list + count);
        }
        op_linear_dw(c->q, list, count);
    }
    return OK;
}

const part part_experts = {.name = "experts",
                           .weights = slots,
                           .weights_size = sizeof(experts_weights),
                           .saved_size = sizeof(experts_saved),
                           .forward = forward,
                           .backward = backward,
                           .wgrad = wgrad};
