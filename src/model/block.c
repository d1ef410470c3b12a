/* Sizes of weights, and what the training functions of several parts share. */
#include "model/block.h"
#include <string.h>

int64_t dim_size(const model_config *c, dim_name d) {
    switch (d) {
    case DIM_NONE: return 1;
    case DIM_HIDDEN: return c->hidden_size;
    case DIM_2_HIDDEN: return 2 * c->hidden_size;
    case DIM_VOCAB: return c->vocab_size;
    case DIM_INTERMEDIATE: return c->intermediate_size;
    case DIM_EXPERT: return c->moe_intermediate_size;
    case DIM_SHARED_EXPERT: return c->n_shared_experts * c->moe_intermediate_size;
    case DIM_EXPERTS: return c->n_routed_experts;
    case DIM_Q_RANK: return c->q_lora_rank;
    case DIM_KV_RANK: return c->kv_lora_rank;
    case DIM_KV_ROW: return c->kv_lora_rank + c->qk_rope_head_dim;
    case DIM_Q_OUT: return c->num_attention_heads * config_qk_dim(c);
    case DIM_K_OUT: return c->num_key_value_heads * c->head_dim;
    case DIM_KV_B_OUT: return c->num_attention_heads * (c->qk_nope_head_dim + c->v_head_dim);
    case DIM_O_IN: return c->num_attention_heads * (c->kv_lora_rank ? c->v_head_dim : c->head_dim);
    case DIM_INDEX_OUT: return c->index_n_heads * c->index_head_dim;
    case DIM_INDEX: return c->index_head_dim;
    case DIM_INDEX_HEADS: return c->index_n_heads;
    }
    return 0;
}

static status copy_rows(part_call *c, arena *to, const real *from, real **copy) {
    const size_t bytes = (size_t)(c->x->n * c->cfg->hidden_size) * sizeof *from;
    *copy = arena_take(to, bytes);
    if (!*copy) return fail(c->e, ERR_NOMEM, "memory is out");
    memcpy(*copy, from, bytes);
    return OK;
}

status keep_input(part_call *c, const real **copy) {
    *copy = c->x->h;
    real *kept;
    if (!c->keep) return OK;
    TRY(copy_rows(c, c->keep, c->x->h, &kept));
    *copy = kept;
    return OK;
}

status branch_gradient(part_call *c, real **copy) {
    return copy_rows(c, c->scratch, c->dx->h, copy);
}

status again_u(part_call *c) {
    flow *x = c->x;
    const int64_t hidden = c->cfg->hidden_size;
    if (!(c->recompute & RECOMPUTE_NORM)) return OK;
    TAKE(c, x->u, x->n * hidden);
    op_rmsnorm(c->q, x->u, hidden, x->u_in, hidden, x->u_norm, x->n, hidden, (real)c->cfg->rms_norm_eps);
    return OK;
}
