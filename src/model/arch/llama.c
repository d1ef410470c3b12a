/* Llama 3: R1-Distill-Llama. Grouped-query attention, llama3 rotary scaling. */
#include "model/block.h"

static status read_config(model_config *c, const json_t *j, error *e) {
    c->qkv_bias = c->attention_bias;
    TRY(json_get_bool(j, "mlp_bias", false, &c->mlp_bias, e));
    return config_read_gqa(c, j, e);
}

static const part *const *block(const model_config *c, int64_t layer) {
    static const part *const parts[] = {&part_gqa, &part_ffn, NULL};
    (void)c, (void)layer;
    return parts;
}

const arch arch_llama = {"llama", "Llama 3 (R1-Distill-Llama)", read_config, block};
