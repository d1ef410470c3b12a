/* Feed-forward part of a dense block (SwiGLU).
 *
 *   u = rmsnorm(h)      a = W_gate u      b = W_up u      y = silu(a) * b      h <- h + W_down y
 *
 * Backward, with g = dL/dh of the output, s = sigmoid(a):
 *   dy = W_down' g      da = dy b s (1 + a (1 - s))      db = dy a s      du = W_gate' da + W_up' db
 *   dh = g + rmsnorm'(du)
 *   dW_down = g y'      dW_gate = da u'      dW_up = db u'                                                           */
#include "model/block.h"

typedef struct ffn_weights {
    real *norm, *gate_bias, *up_bias, *down_bias;
    tensor gate, up, down;
} ffn_weights;

typedef struct ffn_saved {
    const real *h;     /* input */
    real *a, *b;       /* forward; backward leaves their gradients there */
    real *y, *dbranch; /* by backward */
} ffn_saved;

static bool has_bias(const model_config *c) {
    return c->mlp_bias;
}

#define P(f) offsetof(ffn_weights, f)
static const weight_slot slots[] = {
    {"post_attention_layernorm.weight", P(norm), {DIM_HIDDEN}, W_VECTOR | W_ONES, NULL},
    {"mlp.gate_proj.weight", P(gate), {DIM_INTERMEDIATE, DIM_HIDDEN}, W_FP8, NULL},
    {"mlp.gate_proj.bias", P(gate_bias), {DIM_INTERMEDIATE}, W_VECTOR | W_ZERO, has_bias},
    {"mlp.up_proj.weight", P(up), {DIM_INTERMEDIATE, DIM_HIDDEN}, W_FP8, NULL},
    {"mlp.up_proj.bias", P(up_bias), {DIM_INTERMEDIATE}, W_VECTOR | W_ZERO, has_bias},
    {"mlp.down_proj.weight", P(down), {DIM_HIDDEN, DIM_INTERMEDIATE}, W_FP8, NULL},
    {"mlp.down_proj.bias", P(down_bias), {DIM_HIDDEN}, W_VECTOR | W_ZERO, has_bias},
    {.name = ""}};
#undef P

static void gate_and_up(part_call *c, const ffn_saved *s) {
    const ffn_weights *w = c->w;
    const int64_t n = c->x->n, hidden = c->cfg->hidden_size, inner = c->cfg->intermediate_size;
    const real *u = c->x->u;
    product in[] = {{.w = &w->gate, .x = u, .ldx = hidden, .y = s->a, .ldy = inner, .n = n, .bias = w->gate_bias},
                    {.w = &w->up, .x = u, .ldx = hidden, .y = s->b, .ldy = inner, .n = n, .bias = w->up_bias}};
    op_linear(c->q, in, 2);
}

static status forward(part_call *c) {
    const model_config *m = c->cfg;
    const ffn_weights *w = c->w;
    flow *x = c->x;
    const int64_t n = x->n, hidden = m->hidden_size, inner = m->intermediate_size;
    ffn_saved unsaved, *s = c->saved ? c->saved : &unsaved;
    real *y, *branch;
    TRY(keep_input(c, &s->h));
    KEEP(c, RECOMPUTE_NORM, x->u, n * hidden);
    KEEP(c, RECOMPUTE_SWIGLU, s->a, n * inner);
    KEEP(c, RECOMPUTE_SWIGLU, s->b, n * inner);
    TAKE(c, y, n * inner);
    TAKE(c, branch, n * hidden);
    x->u_in = s->h;
    x->u_norm = w->norm;
    op_rmsnorm(c->q, x->u, hidden, x->h, hidden, w->norm, n, hidden, (real)m->rms_norm_eps);
    gate_and_up(c, s);
    op_swiglu(c->q, y, inner, s->a, inner, s->b, inner, n, inner);
    op_linear(c->q,
              &(product){.w = &w->down, .x = y, .ldx = inner, .y = branch, .ldy = hidden, .n = n, .bias = w->down_bias},
              1);
    watch(c, "mlp_out", branch, hidden, hidden);
    op_add(c->q, x->h, hidden, branch, hidden, n, hidden);
    return OK;
}

static status backward(part_call *c) {
    const model_config *m = c->cfg;
    const ffn_weights *w = c->w;
    const ffn_weights *dw = c->dw;
    ffn_saved *s = c->saved;
    const int64_t n = c->x->n, hidden = m->hidden_size, inner = m->intermediate_size;
    real *dy, *du;
    TRY(branch_gradient(c, &s->dbranch));
    TRY(again_u(c));
    if (c->recompute & RECOMPUTE_SWIGLU) {
        TAKE(c, s->a, n * inner);
        TAKE(c, s->b, n * inner);
        gate_and_up(c, s);
    }
    TAKE(c, s->y, n * inner);
    TAKE(c, dy, n * inner);
    TAKE(c, du, n * hidden);
    op_swiglu(c->q, s->y, inner, s->a, inner, s->b, inner, n, inner);
    op_linear_dx(c->q, &(product_dx){.w = &w->down, .dy = s->dbranch, .lddy = hidden, .dx = dy, .lddx = inner, .n = n},
                 1);
    op_swiglu_dx(c->q, s->a, inner, s->b, inner, dy, inner, s->a, inner, s->b, inner, n, inner);
    product_dx into_u[] = {{.w = &w->gate, .dy = s->a, .lddy = inner, .dx = du, .lddx = hidden, .n = n},
                           {.w = &w->up, .dy = s->b, .lddy = inner, .dx = du, .lddx = hidden, .n = n, .join = true}};
    op_linear_dx(c->q, into_u, 2);
    op_rmsnorm_dx(c->q, c->dx->h, hidden, dw->norm, du, hidden, s->h, hidden, w->norm, n, hidden, (real)m->rms_norm_eps,
                  true);
    return OK;
}

static status wgrad(part_call *c) {
    const ffn_weights *dw = c->dw;
    const ffn_saved *s = c->saved;
    const int64_t n = c->x->n, hidden = c->cfg->hidden_size, inner = c->cfg->intermediate_size;
    product_dw list[] = {gradient_of(&dw->down, s->dbranch, hidden, s->y, inner, n),
                         gradient_of(&dw->gate, s->a, inner, c->x->u, hidden, n),
                         gradient_of(&dw->up, s->b, inner, c->x->u, hidden, n)};
    list[0].dbias = dw->down_bias;
    list[1].dbias = dw->gate_bias;
    list[2].dbias = dw->up_bias;
    op_linear_dw(c->q, list, 3);
    return OK;
}

const part part_ffn = {.name = "ffn",
                       .weights = slots,
                       .weights_size = sizeof(ffn_weights),
                       .saved_size = sizeof(ffn_saved),
                       .forward = forward,
                       .backward = backward,
                       .wgrad = wgrad};
