/* DeepSeek-V3.2: V3 whose attention reads only the rows that the lightning indexer chose (V3.2-Exp report, 1). */
#include "model/block.h"

static status read_config(model_config *c, const json_t *j, error *e) {
    c->topk_method = TOPK_NOAUX_TC;
    c->sigmoid_scores = true;
    TRY(config_read_deepseek(c, j, e));
    const int64_t most = 1 << 20;
    TRY(json_get_int(j, "index_n_heads", 0, 1, most, &c->index_n_heads, e));
    TRY(json_get_int(j, "index_head_dim", 0, 1, most, &c->index_head_dim, e));
    TRY(json_get_int(j, "index_topk", 0, 1, most, &c->index_topk, e));
    if (c->index_n_heads * c->index_head_dim > most)
        return fail(e, ERR_FORMAT, "index_n_heads %lld x index_head_dim %lld is more than %lld",
                    (long long)c->index_n_heads, (long long)c->index_head_dim, (long long)most);
    if (!c->q_lora_rank) return fail(e, ERR_UNSUPPORTED, "the indexer reads the query latent: q_lora_rank is missing");
    if (c->index_head_dim < c->qk_rope_head_dim)
        return fail(e, ERR_FORMAT, "index_head_dim %lld is below qk_rope_head_dim %lld", (long long)c->index_head_dim,
                    (long long)c->qk_rope_head_dim);
    return OK;
}

static const part *const *block(const model_config *c, int64_t layer) {
    static const part *const dense[] = {&part_mla_project, &part_indexer, &part_mla, &part_ffn, NULL};
    static const part *const moe[] = {&part_mla_project, &part_indexer, &part_mla, &part_route, &part_experts, NULL};
    return config_is_moe(c, layer) ? moe : dense;
}

const arch arch_deepseek_v32 = {"deepseek_v32", "DeepSeek-V3.2 (sparse attention)", read_config, block};
