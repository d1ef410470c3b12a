#include "../format/scratch.h"
#include "convert/init.h"
#include "small_models.h"

#define COMMON                                                                                       \
    "\"num_hidden_layers\":2,\"hidden_size\":64,\"intermediate_size\":96,\"num_attention_heads\":4," \
    "\"initializer_range\":0.15,\"max_position_embeddings\":1536,\"vocab_size\":211,"
#define MLA                                                                                                        \
    COMMON                                                                                                         \
    "\"kv_lora_rank\":24,\"qk_nope_head_dim\":12,\"qk_rope_head_dim\":8,\"v_head_dim\":10,\"n_routed_experts\":8," \
    "\"moe_intermediate_size\":24,\"num_experts_per_tok\":3,\"n_shared_experts\":1,\"first_k_dense_replace\":1,"
#define V3 "\"q_lora_rank\":32,\"n_group\":4,\"topk_group\":2,\"routed_scaling_factor\":2.5"

static const struct {
    const char *name, *type, *config;
} small[SMALL_MODELS] = {
    [SMALL_V2] = {"V2", "bf16", "{\"model_type\":\"deepseek_v2\"," MLA "\"q_lora_rank\":null}"},
    [SMALL_V3] = {"V3", "f32", "{\"model_type\":\"deepseek_v3\"," MLA V3 "}"},
    [SMALL_V31_FP8] = {"V3.1", "fp8", "{\"model_type\":\"deepseek_v3\"," MLA V3 "}"},
    [SMALL_V32] = {"V3.2", "bf16",
                   "{\"model_type\":\"deepseek_v32\"," MLA V3 ",\"index_n_heads\":3,"
                   "\"index_head_dim\":16,\"index_topk\":150}"},
    [SMALL_QWEN2] = {"qwen2", "bf16", "{\"model_type\":\"qwen2\"," COMMON "\"num_key_value_heads\":2}"},
    [SMALL_LLAMA] = {"llama", "f32",
                     "{\"model_type\":\"llama\"," COMMON "\"num_key_value_heads\":1,"
                     "\"tie_word_embeddings\":true}"},
};

status small_model_open(model **m, const char *config, const char *type, error *e) {
    scratch s = scratch_open();
    char in[128], out[128];
    scratch_write(&s, "in/config.json", config, strlen(config));
    snprintf(in, sizeof in, "%s/in/config.json", s.dir);
    snprintf(out, sizeof out, "%s/out", s.dir);
    init_options o = {.config = in, .out = out, .seed = 7, .type = type};
    status st = init_run(&o, &(init_result){0}, e);
    if (st == OK) st = model_open(m, out, e);
    scratch_close(&s);
    return st;
}

status small_models_open(model *m[SMALL_MODELS], error *e) {
    for (int i = 0; i < SMALL_MODELS; i++) TRY(small_model_open(&m[i], small[i].config, small[i].type, e));
    return OK;
}

void small_models_close(model *m[SMALL_MODELS]) {
    for (int i = 0; i < SMALL_MODELS; i++) model_close(m[i]);
}

const char *small_model_name(int i) {
    return small[i].name;
}
