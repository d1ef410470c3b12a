/* Qwen2: R1-Distill-Qwen. Grouped-query attention with biases on q, k and v. */
#include "model/block.h"

static status read_config(model_config *c, const json_t *j, error *e) {
    bool sliding;
    TRY(json_get_bool(j, "use_sliding_window", false, &sliding, e));
    if (sliding) return fail(e, ERR_UNSUPPORTED, "use_sliding_window true is not supported");
    c->qkv_bias = true;
    c->attention_bias = false;
    return config_read_gqa(c, j, e);
}

static const part *const *block(const model_config *c, int64_t layer) {
    static const part *const parts[] = {&part_gqa, &part_ffn, NULL};
    (void)c, (void)layer;
    return parts;
}

const arch arch_qwen2 = {"qwen2", "Qwen2 (R1-Distill-Qwen)", read_config, block};
