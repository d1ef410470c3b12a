/* Feed-forward part of a dense block (SwiGLU).
 *
 *   u = rmsnorm(h)      a = W_gate u      b = W_up u      h <- h + W_down (silu(a) * b)                              */
#include "model/block.h"

typedef struct ffn_weights {
    real *norm, *gate_bias, *up_bias, *down_bias;
    tensor gate, up, down;
} ffn_weights;

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

static status forward(part_call *c) {
    const model_config *m = c->cfg;
    const ffn_weights *w = c->w;
    flow *x = c->x;
    const int64_t n = x->n, hidden = m->hidden_size, inner = m->intermediate_size;
    real *u, *a, *b, *branch;
    TAKE(c, u, n * hidden);
    TAKE(c, a, n * inner);
    TAKE(c, b, n * inner);
    TAKE(c, branch, n * hidden);
    op_rmsnorm(c->q, u, hidden, x->h, hidden, w->norm, n, hidden, (real)m->rms_norm_eps);
    product in[] = {{.w = &w->gate, .x = u, .ldx = hidden, .y = a, .ldy = inner, .n = n, .bias = w->gate_bias},
                    {.w = &w->up, .x = u, .ldx = hidden, .y = b, .ldy = inner, .n = n, .bias = w->up_bias}};
    op_linear(c->q, in, 2);
    op_swiglu(c->q, a, inner, a, inner, b, inner, n, inner);
    op_linear(c->q,
              &(product){.w = &w->down, .x = a, .ldx = inner, .y = branch, .ldy = hidden, .n = n, .bias = w->down_bias},
              1);
    watch(c, "mlp_out", branch, hidden, hidden);
    op_add(c->q, x->h, hidden, branch, hidden, n, hidden);
    return OK;
}

const part part_ffn = {.name = "ffn", .weights = slots, .weights_size = sizeof(ffn_weights), .forward = forward};
