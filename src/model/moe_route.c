/* The router: which experts a token goes to, and with what weights. Always in F32.
 *
 *   u = rmsnorm(h)      s = sigmoid(Wg u) (V3) or softmax(Wg u) (V2)
 *   choice score c = s + b: the correction bias b (V3) acts in the choice and not in the weights (V3 report, eq. 16)
 *   groups (V2 report 2.2.2, V3 report 2.1.2): a group's score is the sum of its two best c (noaux_tc) or its best c
 *   (group_limited_greedy); only the topk_group best groups take part
 *   the num_experts_per_tok largest c are chosen; weights s, divided by their sum when norm_topk_prob says so, times
 *   routed_scaling_factor
 *
 * Of equal scores the lower index wins. NaN scores lose to all others, so that a choice is always complete. */
#include <tgmath.h>
#include "model/block.h"
#include "model/moe.h"

#define P(f) offsetof(route_weights, f)
static const weight_slot slots[] = {
    {"post_attention_layernorm.weight", P(norm), {DIM_HIDDEN}, W_VECTOR | W_ONES, NULL},
    {"mlp.gate.weight", P(gate), {DIM_EXPERTS, DIM_HIDDEN}, 0, NULL},
    {"mlp.gate.e_score_correction_bias", P(bias), {DIM_EXPERTS}, W_VECTOR | W_ZERO | W_F32, route_has_bias},
    {.name = ""}};
#undef P

bool route_has_bias(const model_config *c) {
    return c->topk_method == TOPK_NOAUX_TC;
}

static void to_scores(const model_config *m, real *s) {
    const int64_t E = m->n_routed_experts;
    if (m->sigmoid_scores) {
        for (int64_t i = 0; i < E; i++) s[i] = 1 / (1 + exp(-s[i]));
        return;
    }
    real max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < E; i++) max = s[i] > max ? s[i] : max;
    for (int64_t i = 0; i < E; i++) sum += s[i] = exp(s[i] - max);
    for (int64_t i = 0; i < E; i++) s[i] /= sum;
}

/* The largest of n numbers whose `taken` is false, or -1. */
static int64_t largest(const real *x, const unsigned char *taken, int64_t n) {
    int64_t best = -1;
    for (int64_t i = 0; i < n; i++)
        if (!taken[i] && (best < 0 || x[i] > x[best] || (isnan(x[best]) && !isnan(x[i])))) best = i;
    return best;
}

static real group_score(const model_config *m, const real *choice, int64_t size) {
    real first = -INFINITY, second = -INFINITY;
    for (int64_t i = 0; i < size; i++) {
        if (choice[i] > first) {
            second = first;
            first = choice[i];
        } else if (choice[i] > second) {
            second = choice[i];
        }
    }
    return m->topk_method == TOPK_NOAUX_TC && size > 1 ? first + second : first;
}

void route_token(const model_config *m, real *s, const real *bias, unsigned char *scratch, int32_t *expert,
                 real *gate) {
    const int64_t E = m->n_routed_experts, size = E / m->n_group, k = m->num_experts_per_tok;
    real *choice = (real *)(void *)(scratch + (E + m->n_group + 63) / 64 * 64), *groups = choice + E;
    unsigned char *taken = scratch, *open = scratch + E;
    to_scores(m, s);
    real all = 0;
    for (int64_t i = 0; i < E; i++) {
        all += s[i];
        choice[i] = bias ? s[i] + bias[i] : s[i];
        taken[i] = m->n_group > 1;
    }
    if (m->n_group > 1) {
        for (int64_t g = 0; g < m->n_group; g++) {
            groups[g] = group_score(m, choice + g * size, size);
            open[g] = 0;
        }
        for (int64_t j = 0; j < m->topk_group; j++) {
            int64_t g = largest(groups, open, m->n_group);
            open[g] = 1;
            for (int64_t i = 0; i < size; i++) taken[g * size + i] = 0;
        }
    }
    real sum = 0;
    for (int64_t j = 0; j < k; j++) {
        int64_t best = largest(choice, taken, E);
        taken[best] = 1;
        expert[j] = (int32_t)best;
        sum += gate[j] = s[best];
    }
    for (int64_t j = 0; j < k; j++) {
        if (m->norm_topk_prob) gate[j] /= sum + 1e-20f;
        gate[j] *= (real)m->routed_scaling_factor;
        if (isnan(all)) gate[j] = NAN; /* no way round an expert with a NaN: it shall be seen in the logits */
    }
}

size_t route_scratch(const model_config *m) {
    return (size_t)((m->n_routed_experts + m->n_group + 63) / 64 * 64) +
           sizeof(real) * (size_t)(m->n_routed_experts + m->n_group);
}

static status forward(part_call *c) {
    const model_config *m = c->cfg;
    const route_weights *w = c->w;
    flow *x = c->x;
    const int64_t n = x->n, hidden = m->hidden_size, E = m->n_routed_experts, k = m->num_experts_per_tok;
    real *u, *scores;
    unsigned char *scratch;
    TAKE(c, u, n * hidden);
    TAKE(c, scores, n * E);
    TAKE(c, scratch, route_scratch(m));
    TAKE(c, x->expert, n * k);
    TAKE(c, x->gate, n * k);
    op_rmsnorm(c->q, u, hidden, x->h, hidden, w->norm, n, hidden, (real)m->rms_norm_eps);
    op_linear(c->q, &(product){.w = &w->gate, .x = u, .ldx = hidden, .y = scores, .ldy = E, .n = n, .f32 = true}, 1);
    watch(c, "router.logits", scores, E, E);
    for (int64_t t = 0; t < n; t++)
        route_token(m, scores + t * E, w->bias, scratch, x->expert + t * k, x->gate + t * k);
    if (c->watch) c->watch->see_ints(c->watch->arg, "router.index", c->layer, x->expert, k, n, k);
    watch(c, "router.weight", x->gate, k, k);
    x->u = u;
    return OK;
}

const part part_route = {.name = "route", .weights = slots, .weights_size = sizeof(route_weights), .forward = forward};
