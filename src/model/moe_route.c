/* The router: which experts a token goes to, and with what weights. Always in F32.
 *
 *   u = rmsnorm(h)      s = sigmoid(Wg u) (V3) or softmax(Wg u) (V2)
 *   choice score c = s + b: the correction bias b (V3) acts in the choice and not in the weights (V3 report, eq. 16)
 *   groups (V2 report 2.2.2, V3 report 2.1.2): a group's score is the sum of its two best c (noaux_tc) or its best c
 *   (group_limited_greedy); only the topk_group best groups take part
 *   the num_experts_per_tok largest c are chosen; weights s, divided by their sum when norm_topk_prob says so, times
 *   routed_scaling_factor
 *
 * Of equal scores the lower index wins. NaN scores lose to all others, so that a choice is always complete.
 *
 * Training adds
 *   the sequence-wise balance loss (V3 report, eq. 17-20) of each row of T tokens in the batch: alpha sum_i f_i P_i,
 *     f_i = E / (K T) sum_t [i is among the K largest of s_t],   P_i = 1 / T sum_t s_it / sum_j s_jt
 *     with the plain scores: no bias, no groups; its gradient goes through P only
 *   capacity: of the pairs (token, choice) that an expert gets only C are kept, the heaviest or the first ones;
 *     C = ceil(n K / E * factor) for the call (Megatron-LM), or max(ceil(T K / E) * factor, factor) for each row
 *     (MaxText). A dropped pair has weight 0 and no expert.
 * and backward: with w_j = r s_j / S, S = sum over the choice (S = 1 without norm_topk_prob),
 *   ds_j = r (dw_j - sum_i dw_i w_i / r) / S;   dlogit = ds s (1 - s) (sigmoid), s (ds - sum_j ds_j s_j) (softmax)  */
#include <stdlib.h>
#include <string.h>
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

typedef struct route_saved {
    const real *h;   /* input */
    real *scores;    /* [n][E] */
    real *often;     /* [batch rows][E]: f_i; NULL: no balance loss */
    int32_t *choice; /* [n][k]: before anything was dropped */
    real *dlogits;   /* by backward */
} route_saved;

enum { ROUTE_TOKENS = 32 }; /* of a task */

typedef struct route_call {
    const model_config *m;
    const real *bias;
    real *scores;
    const flow *x;
    unsigned char *scratch;
    size_t scratch_size; /* of a thread */
} route_call;

static void route_tokens(void *arg, int64_t task, int thread) {
    const route_call *r = arg;
    const int64_t E = r->m->n_routed_experts, k = r->m->num_experts_per_tok;
    for (int64_t t = task * ROUTE_TOKENS; t < r->x->n && t < (task + 1) * ROUTE_TOKENS; t++)
        route_token(r->m, r->scores + t * E, r->bias, r->scratch + (size_t)thread * r->scratch_size,
                    r->x->expert + t * k, r->x->gate + t * k);
}

typedef struct balance_call {
    const model_config *m;
    const flow *x;
    const real *scores;
    real *often, *share;  /* [batch rows][E]: f and T P */
    unsigned char *taken; /* [batch rows][E] */
    double *sum;          /* [batch rows] */
} balance_call;

static void balance_of_row(void *arg, int64_t r, int thread) {
    (void)thread;
    const balance_call *b = arg;
    const int64_t E = b->m->n_routed_experts, k = b->m->num_experts_per_tok,
                  T = b->x->batch_row[r + 1] - b->x->batch_row[r];
    real *often = b->often + r * E, *share = b->share + r * E;
    unsigned char *taken = b->taken + r * E;
    for (int64_t i = 0; i < E; i++) often[i] = share[i] = 0;
    for (int64_t t = b->x->batch_row[r]; t < b->x->batch_row[r + 1]; t++) {
        const real *s = b->scores + t * E;
        real all = 0;
        for (int64_t i = 0; i < E; i++) all += s[i];
        for (int64_t i = 0; i < E; i++) share[i] += s[i] / all;
        memset(taken, 0, (size_t)E);
        for (int64_t j = 0; j < k; j++) {
            int64_t best = largest(s, taken, E);
            taken[best] = 1;
            often[best] += (real)E / (real)(k * T);
        }
    }
    b->sum[r] = 0;
    for (int64_t i = 0; i < E; i++) b->sum[r] += (double)often[i] * (double)share[i] / (double)T;
}

typedef struct pair { /* of a token and one of its experts */
    real gate;
    int32_t expert, at;
} pair;

static int heaviest_first(const void *a, const void *b) {
    const pair *l = a, *r = b;
    if (l->expert != r->expert) return l->expert < r->expert ? -1 : 1;
    if (l->gate != r->gate) return l->gate > r->gate ? -1 : 1;
    return l->at < r->at ? -1 : 1;
}

static int earliest_first(const void *a, const void *b) {
    const pair *l = a, *r = b;
    if (l->expert != r->expert) return l->expert < r->expert ? -1 : 1;
    return l->at < r->at ? -1 : 1;
}

/* Keeps at most `capacity` of the pairs first .. end-1 of each expert. */
static status drop_pairs(part_call *c, int64_t first, int64_t end, int64_t capacity) {
    const flow *x = c->x;
    pair *list;
    TAKE(c, list, end - first);
    for (int64_t i = first; i < end; i++) list[i - first] = (pair){x->gate[i], x->expert[i], (int32_t)i};
    qsort(list, (size_t)(end - first), sizeof *list, c->goal->drop_by_probs ? heaviest_first : earliest_first);
    int64_t kept = 0;
    for (int64_t i = 0; i < end - first; i++) {
        kept = i > 0 && list[i].expert == list[i - 1].expert ? kept + 1 : 1;
        if (kept <= capacity) continue;
        x->expert[list[i].at] = -1;
        x->gate[list[i].at] = 0;
        if (c->stats) c->stats->dropped++;
    }
    return OK;
}

static status drop(part_call *c) {
    const flow *x = c->x;
    const double factor = c->goal->capacity_factor, E = (double)c->cfg->n_routed_experts;
    const int64_t k = c->cfg->num_experts_per_tok;
    if (factor <= 0) return OK;
    if (!c->goal->capacity_per_row) return drop_pairs(c, 0, x->n * k, (int64_t)ceil((double)(x->n * k) / E * factor));
    for (int64_t r = 0; r < x->n_batch_rows; r++) {
        const int64_t first = x->batch_row[r], end = x->batch_row[r + 1];
        const double even = ceil((double)((end - first) * k) / E) * factor;
        TRY(drop_pairs(c, first * k, end * k, (int64_t)(even > factor ? even : factor)));
    }
    return OK;
}

/* What only training wants: counts, the balance loss, capacity. */
static status account(part_call *c, route_saved *s) {
    const flow *x = c->x;
    const int64_t E = c->cfg->n_routed_experts, k = c->cfg->num_experts_per_tok, rows = x->n_batch_rows;
    balance_call b = {.m = c->cfg, .x = x, .scores = s->scores};
    KEEP(c, 0, s->choice, x->n * k);
    KEEP(c, 0, s->often, rows * E);
    TAKE(c, b.share, rows * E);
    TAKE(c, b.taken, rows * E);
    TAKE(c, b.sum, rows);
    memcpy(s->choice, x->expert, (size_t)(x->n * k) * sizeof *s->choice);
    b.often = s->often;
    queue_run(c->q, rows, balance_of_row, &b);
    for (int64_t i = 0; c->stats && i < x->n * k; i++) c->stats->load[x->expert[i]]++;
    for (int64_t r = 0; c->stats && r < rows; r++) c->stats->balance += b.sum[r];
    return drop(c);
}

static status forward(part_call *c) {
    const model_config *m = c->cfg;
    const route_weights *w = c->w;
    flow *x = c->x;
    const int64_t n = x->n, hidden = m->hidden_size, E = m->n_routed_experts, k = m->num_experts_per_tok;
    route_saved unsaved, *s = c->saved ? c->saved : &unsaved;
    route_call route = {.m = m, .bias = w->bias, .x = x, .scratch_size = (route_scratch(m) + 63) / 64 * 64};
    TRY(keep_input(c, &s->h));
    KEEP(c, RECOMPUTE_NORM, x->u, n * hidden);
    KEEP(c, 0, s->scores, n * E);
    KEEP(c, 0, x->expert, n * k);
    KEEP(c, 0, x->gate, n * k);
    TAKE(c, route.scratch, (size_t)queue_threads(c->q) * route.scratch_size);
    x->u_in = s->h;
    x->u_norm = w->norm;
    op_rmsnorm(c->q, x->u, hidden, x->h, hidden, w->norm, n, hidden, (real)m->rms_norm_eps);
    op_linear(c->q, &(product){.w = &w->gate, .x = x->u, .ldx = hidden, .y = s->scores, .ldy = E, .n = n, .f32 = true},
              1);
    watch(c, "router.logits", s->scores, E, E);
    route.scores = s->scores;
    queue_run(c->q, (n + ROUTE_TOKENS - 1) / ROUTE_TOKENS, route_tokens, &route);
    if (c->watch) c->watch->see_ints(c->watch->arg, "router.index", c->layer, x->expert, k, n, k);
    watch(c, "router.weight", x->gate, k, k);
    return c->saved ? account(c, s) : OK;
}

typedef struct route_backward_call {
    const part_call *c;
    const route_saved *s;
    real factor; /* of the balance loss */
} route_backward_call;

/* Gradient of the scores of the tokens of one batch row -> of the logits. */
static void backward_row(void *arg, int64_t r, int thread) {
    (void)thread;
    const route_backward_call *b = arg;
    const model_config *m = b->c->cfg;
    const flow *x = b->c->x;
    const int64_t E = m->n_routed_experts, k = m->num_experts_per_tok, T = x->batch_row[r + 1] - x->batch_row[r];
    const real scaling = (real)m->routed_scaling_factor;
    const real *often = b->s->often + r * E;
    for (int64_t t = x->batch_row[r]; t < x->batch_row[r + 1]; t++) {
        const real *s = b->s->scores + t * E, *dgate = b->c->dx->gate + t * k;
        const int32_t *choice = b->s->choice + t * k;
        real *d = b->s->dlogits + t * E, all = 0, mean = 0, chosen = 0, inner = 0;
        for (int64_t i = 0; i < E; i++) all += s[i];
        for (int64_t i = 0; i < E; i++) mean += often[i] * s[i] / all;
        for (int64_t i = 0; i < E; i++) d[i] = b->factor / (real)T * (often[i] - mean) / all;
        for (int64_t j = 0; j < k; j++) chosen += s[choice[j]];
        chosen = m->norm_topk_prob ? chosen + (real)1e-20 : 1;
        for (int64_t j = 0; j < k; j++) inner += m->norm_topk_prob ? dgate[j] * s[choice[j]] / chosen : 0;
        for (int64_t j = 0; j < k; j++) d[choice[j]] += scaling * (dgate[j] - inner) / chosen;
        if (m->sigmoid_scores) {
            for (int64_t i = 0; i < E; i++) d[i] *= s[i] * (1 - s[i]);
        } else {
            real sum = 0;
            for (int64_t i = 0; i < E; i++) sum += d[i] * s[i];
            for (int64_t i = 0; i < E; i++) d[i] = s[i] * (d[i] - sum);
        }
    }
}

static status backward(part_call *c) {
    const model_config *m = c->cfg;
    const route_weights *w = c->w, *dw = c->dw;
    const flow *x = c->x;
    const int64_t n = x->n, hidden = m->hidden_size, E = m->n_routed_experts;
    route_saved *s = c->saved;
    TAKE(c, s->dlogits, n * E);
    queue_run(c->q, x->n_batch_rows, backward_row, &(route_backward_call){c, s, c->goal->balance});
    op_linear_dx(c->q,
                 &(product_dx){.w = &w->gate,
                               .dy = s->dlogits,
                               .lddy = E,
                               .dx = c->dx->u,
                               .lddx = hidden,
                               .n = n,
                               .add = true,
                               .f32 = true},
                 1);
    op_rmsnorm_dx(c->q, c->dx->h, hidden, dw->norm, c->dx->u, hidden, s->h, hidden, w->norm, n, hidden,
                  (real)m->rms_norm_eps, true);
    return OK;
}

static status wgrad(part_call *c) {
    const route_weights *dw = c->dw;
    const route_saved *s = c->saved;
    const int64_t E = c->cfg->n_routed_experts, hidden = c->cfg->hidden_size;
    TRY(again_u(c));
    product_dw p = gradient_of(&dw->gate, s->dlogits, E, c->x->u, hidden, c->x->n);
    p.f32 = true;
    op_linear_dw(c->q, &p, 1);
    return OK;
}

const part part_route = {.name = "route",
                         .weights = slots,
                         .weights_size = sizeof(route_weights),
                         .saved_size = sizeof(route_saved),
                         .forward = forward,
                         .backward = backward,
                         .wgrad = wgrad};
