/* DeepSeek-V2, V2.5 and V2-Lite: MLA, softmax gate, greedy or group-limited top-k (DeepSeek-V2 report, 2). */
#include "model/block.h"

static status read_config(model_config *c, const json_t *j, error *e) {
    c->topk_method = TOPK_GREEDY;
    return config_read_deepseek(c, j, e);
}

static const part *const *block(const model_config *c, int64_t layer) {
    static const part *const dense[] = {&part_mla_project, &part_mla, &part_ffn, NULL};
    static const part *const moe[] = {&part_mla_project, &part_mla, &part_route, &part_experts, NULL};
    return config_is_moe(c, layer) ? moe : dense;
}

const arch arch_deepseek_v2 = {"deepseek_v2", "DeepSeek-V2, V2.5, V2-Lite", read_config, block};
