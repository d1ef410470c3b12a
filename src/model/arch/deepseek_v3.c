/* DeepSeek-V3, R1, V3.1: MLA, sigmoid gate with a correction bias in the choice only, group-limited top-k, MTP layers
 * (DeepSeek-V3 report, 2). */
#include "model/block.h"

static status read_config(model_config *c, const json_t *j, error *e) {
    c->topk_method = TOPK_NOAUX_TC;
    c->sigmoid_scores = true;
    return config_read_deepseek(c, j, e);
}

static const part *const *block(const model_config *c, int64_t layer) {
    static const part *const dense[] = {&part_mla_project, &part_mla, &part_ffn, NULL};
    static const part *const moe[] = {&part_mla_project, &part_mla, &part_route, &part_experts, NULL};
    return config_is_moe(c, layer) ? moe : dense;
}

const arch arch_deepseek_v3 = {"deepseek_v3", "DeepSeek-V3, R1, V3.1", read_config, block};
