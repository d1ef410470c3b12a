/* What config.json says, checked once. Names are those of Hugging Face configurations where the field is the same. */
#ifndef HADAL_MODEL_CONFIG_H
#define HADAL_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "base/json.h"

struct arch;

typedef enum rope_type { ROPE_DEFAULT, ROPE_LINEAR, ROPE_YARN, ROPE_LLAMA3 } rope_type;

typedef struct rope_config {
    rope_type type;
    double theta, factor;
    double original_max_position;                                          /* yarn, llama3 */
    double beta_fast, beta_slow, mscale, mscale_all_dim, attention_factor; /* yarn; 0: not given */
    double low_freq_factor, high_freq_factor;                              /* llama3 */
} rope_config;

typedef enum topk_method { TOPK_GREEDY, TOPK_GROUP_LIMITED_GREEDY, TOPK_NOAUX_TC } topk_method;

enum { MOST_EOS = 8 };

typedef struct model_config {
    const struct arch *arch;
    int64_t num_hidden_layers, hidden_size, intermediate_size, vocab_size, max_position_embeddings;
    int64_t num_attention_heads, num_key_value_heads, head_dim; /* the last two: GQA only */
    bool attention_bias, qkv_bias, mlp_bias, tie_word_embeddings;
    int64_t q_lora_rank, kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim; /* MLA; kv_lora_rank 0: GQA */
    bool rope_interleave;
    int64_t first_k_dense_replace, moe_layer_freq, n_routed_experts, num_experts_per_tok, n_shared_experts,
        moe_intermediate_size, n_group, topk_group; /* n_routed_experts 0: dense */
    topk_method topk_method;
    bool sigmoid_scores, norm_topk_prob;
    double routed_scaling_factor;
    int64_t index_n_heads, index_head_dim, index_topk; /* DSA; 0: dense attention */
    int64_t num_nextn_predict_layers;
    double rms_norm_eps, initializer_range;
    bool init_fan_in; /* "initializer_scheme": "fan_in", see model/init.h; other readers do not know this key */
    rope_config rope;
    bool fp8, fp8_ue8m0;       /* quantization_config: FP8 E4M3 with 128x128 blocks; power-of-two scales */
    int64_t eos_ids[MOST_EOS]; /* of config.json; generation_config.json may say more */
    int n_eos;
    int64_t bos_id; /* -1: none */
} model_config;

/* From a parsed config.json. Unknown model_type, missing or senseless numbers: an error that names the key. */
status config_read(model_config *out, const json_t *config, error *e);
/* From a folder's config.json, or from the path of a config.json itself. */
status config_open(model_config *out, const char *path, error *e);

/* For arch/: the keys that all families share, and groups of keys of some. */
status config_read_common(model_config *c, const json_t *j, error *e);
status config_read_gqa(model_config *c, const json_t *j, error *e);
status config_read_deepseek(model_config *c, const json_t *j, error *e);

/* "eos_token_id" of config.json or generation_config.json: an id, a list of them (the first MOST_EOS count), or none.
 */
status config_read_eos(const json_t *j, int64_t *ids, int *n, error *e);

/* Size of one head's query and key, and the factor of the scores (YaRN's mscale^2 included). */
int64_t config_qk_dim(const model_config *c);
double config_attention_scale(const model_config *c);
/* Is this layer (0-based; MTP layers follow after num_hidden_layers) a mixture of experts? */
bool config_is_moe(const model_config *c, int64_t layer);

#endif
