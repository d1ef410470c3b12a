/* Configurations of the published models as their config.json has them (what only Python code reads is left out), and
 * three small ones of our own. */
#include "model/presets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"

static const char debug_config[] =
    "{\"architectures\": [\"DeepseekV3ForCausalLM\"], \"attention_bias\": false, \"bos_token_id\": 0, "
    "\"eos_token_id\": 1, \"first_k_dense_replace\": 1, \"hidden_act\": \"silu\", \"hidden_size\": 64, "
    "\"initializer_range\": 0.02, \"intermediate_size\": 128, \"kv_lora_rank\": 32, "
    "\"max_position_embeddings\": 1024, \"model_type\": \"deepseek_v3\", \"moe_intermediate_size\": 32, "
    "\"moe_layer_freq\": 1, \"n_group\": 4, \"n_routed_experts\": 8, \"n_shared_experts\": 1, "
    "\"norm_topk_prob\": true, \"num_attention_heads\": 4, \"num_experts_per_tok\": 2, "
    "\"num_hidden_layers\": 3, \"num_key_value_heads\": 4, \"num_nextn_predict_layers\": 1, "
    "\"pad_token_id\": 2, \"q_lora_rank\": 32, \"qk_nope_head_dim\": 16, \"qk_rope_head_dim\": 8, "
    "\"rms_norm_eps\": 1e-06, \"rope_theta\": 10000, \"routed_scaling_factor\": 2.5, "
    "\"scoring_func\": \"sigmoid\", \"tie_word_embeddings\": false, \"topk_group\": 2, "
    "\"topk_method\": \"noaux_tc\", \"torch_dtype\": \"float32\", \"v_head_dim\": 16, "
    "\"vocab_size\": 263}";

static const char tiny_config[] =
    "{\"architectures\": [\"DeepseekV3ForCausalLM\"], \"attention_bias\": false, \"bos_token_id\": 2, "
    "\"eos_token_id\": 1, \"first_k_dense_replace\": 1, \"hidden_act\": \"silu\", \"hidden_size\": 128, "
    "\"initializer_range\": 0.02, \"initializer_scheme\": \"fan_in\", \"intermediate_size\": 256, "
    "\"kv_lora_rank\": 64, \"max_position_embeddings\": 256, \"model_type\": \"deepseek_v3\", "
    "\"moe_intermediate_size\": 64, \"moe_layer_freq\": 1, \"n_group\": 1, \"n_routed_experts\": 8, "
    "\"n_shared_experts\": 1, \"norm_topk_prob\": true, \"num_attention_heads\": 4, "
    "\"num_experts_per_tok\": 2, \"num_hidden_layers\": 3, \"num_key_value_heads\": 4, "
    "\"num_nextn_predict_layers\": 0, \"pad_token_id\": 0, \"q_lora_rank\": null, "
    "\"qk_nope_head_dim\": 16, \"qk_rope_head_dim\": 32, \"rms_norm_eps\": 1e-06, \"rope_theta\": 100, "
    "\"routed_scaling_factor\": 1.0, \"scoring_func\": \"sigmoid\", \"tie_word_embeddings\": false, "
    "\"topk_group\": 1, \"topk_method\": \"noaux_tc\", \"torch_dtype\": \"float32\", \"v_head_dim\": 32, "
    "\"vocab_size\": 64}";

static const char tiny_dense_config[] =
    "{\"architectures\": [\"Qwen2ForCausalLM\"], \"bos_token_id\": 2, \"eos_token_id\": 1, "
    "\"hidden_act\": \"silu\", \"hidden_size\": 128, \"initializer_range\": 0.02, "
    "\"initializer_scheme\": \"fan_in\", \"intermediate_size\": 192, \"max_position_embeddings\": 256, "
    "\"model_type\": \"qwen2\", \"num_attention_heads\": 4, \"num_hidden_layers\": 3, "
    "\"num_key_value_heads\": 2, \"pad_token_id\": 0, \"rms_norm_eps\": 1e-06, \"rope_theta\": 100, "
    "\"tie_word_embeddings\": false, \"torch_dtype\": \"float32\", \"use_sliding_window\": false, "
    "\"vocab_size\": 64}";

static const char lite_config[] =
    "{\"architectures\": [\"DeepseekV2ForCausalLM\"], \"attention_bias\": false, "
    "\"aux_loss_alpha\": 0.001, \"bos_token_id\": 100000, \"eos_token_id\": 100001, "
    "\"first_k_dense_replace\": 1, \"hidden_act\": \"silu\", \"hidden_size\": 2048, "
    "\"initializer_range\": 0.02, \"intermediate_size\": 10944, \"kv_lora_rank\": 512, "
    "\"max_position_embeddings\": 163840, \"model_type\": \"deepseek_v2\", "
    "\"moe_intermediate_size\": 1408, \"moe_layer_freq\": 1, \"n_group\": 1, \"n_routed_experts\": 64, "
    "\"n_shared_experts\": 2, \"norm_topk_prob\": false, \"num_attention_heads\": 16, "
    "\"num_experts_per_tok\": 6, \"num_hidden_layers\": 27, \"num_key_value_heads\": 16, "
    "\"q_lora_rank\": null, \"qk_nope_head_dim\": 128, \"qk_rope_head_dim\": 64, \"rms_norm_eps\": 1e-06, "
    "\"rope_scaling\": {\"beta_fast\": 32, \"beta_slow\": 1, \"factor\": 40, \"mscale\": 0.707, "
    "\"mscale_all_dim\": 0.707, \"original_max_position_embeddings\": 4096, \"type\": \"yarn\"}, "
    "\"rope_theta\": 10000, \"routed_scaling_factor\": 1.0, \"scoring_func\": \"softmax\", "
    "\"seq_aux\": true, \"tie_word_embeddings\": false, \"topk_group\": 1, \"topk_method\": \"greedy\", "
    "\"torch_dtype\": \"bfloat16\", \"v_head_dim\": 128, \"vocab_size\": 102400}";

static const char v3_config[] =
    "{\"architectures\": [\"DeepseekV3ForCausalLM\"], \"attention_bias\": false, \"bos_token_id\": 0, "
    "\"eos_token_id\": 1, \"first_k_dense_replace\": 3, \"hidden_act\": \"silu\", \"hidden_size\": 7168, "
    "\"initializer_range\": 0.02, \"intermediate_size\": 18432, \"kv_lora_rank\": 512, "
    "\"max_position_embeddings\": 163840, \"model_type\": \"deepseek_v3\", "
    "\"moe_intermediate_size\": 2048, \"moe_layer_freq\": 1, \"n_group\": 8, \"n_routed_experts\": 256, "
    "\"n_shared_experts\": 1, \"norm_topk_prob\": true, \"num_attention_heads\": 128, "
    "\"num_experts_per_tok\": 8, \"num_hidden_layers\": 61, \"num_key_value_heads\": 128, "
    "\"num_nextn_predict_layers\": 1, \"q_lora_rank\": 1536, \"qk_nope_head_dim\": 128, "
    "\"qk_rope_head_dim\": 64, \"quantization_config\": {\"activation_scheme\": \"dynamic\", "
    "\"fmt\": \"e4m3\", \"quant_method\": \"fp8\", \"weight_block_size\": [128, 128]}, "
    "\"rms_norm_eps\": 1e-06, \"rope_scaling\": {\"beta_fast\": 32, \"beta_slow\": 1, \"factor\": 40, "
    "\"mscale\": 1.0, \"mscale_all_dim\": 1.0, \"original_max_position_embeddings\": 4096, "
    "\"type\": \"yarn\"}, \"rope_theta\": 10000, \"routed_scaling_factor\": 2.5, "
    "\"scoring_func\": \"sigmoid\", \"tie_word_embeddings\": false, \"topk_group\": 4, "
    "\"topk_method\": \"noaux_tc\", \"torch_dtype\": \"bfloat16\", \"v_head_dim\": 128, "
    "\"vocab_size\": 129280}";

static const char v32_config[] =
    "{\"architectures\": [\"DeepseekV32ForCausalLM\"], \"attention_bias\": false, \"bos_token_id\": 0, "
    "\"eos_token_id\": 1, \"first_k_dense_replace\": 3, \"hidden_act\": \"silu\", \"hidden_size\": 7168, "
    "\"index_head_dim\": 128, \"index_n_heads\": 64, \"index_topk\": 2048, \"initializer_range\": 0.02, "
    "\"intermediate_size\": 18432, \"kv_lora_rank\": 512, \"max_position_embeddings\": 163840, "
    "\"model_type\": \"deepseek_v32\", \"moe_intermediate_size\": 2048, \"moe_layer_freq\": 1, "
    "\"n_group\": 8, \"n_routed_experts\": 256, \"n_shared_experts\": 1, \"norm_topk_prob\": true, "
    "\"num_attention_heads\": 128, \"num_experts_per_tok\": 8, \"num_hidden_layers\": 61, "
    "\"num_key_value_heads\": 128, \"num_nextn_predict_layers\": 1, \"q_lora_rank\": 1536, "
    "\"qk_nope_head_dim\": 128, \"qk_rope_head_dim\": 64, "
    "\"quantization_config\": {\"activation_scheme\": \"dynamic\", \"fmt\": \"e4m3\", "
    "\"quant_method\": \"fp8\", \"scale_fmt\": \"ue8m0\", \"weight_block_size\": [128, 128]}, "
    "\"rms_norm_eps\": 1e-06, \"rope_scaling\": {\"beta_fast\": 32, \"beta_slow\": 1, \"factor\": 40, "
    "\"mscale\": 1.0, \"mscale_all_dim\": 1.0, \"original_max_position_embeddings\": 4096, "
    "\"type\": \"yarn\"}, \"rope_theta\": 10000, \"routed_scaling_factor\": 2.5, "
    "\"scoring_func\": \"sigmoid\", \"tie_word_embeddings\": false, \"topk_group\": 4, "
    "\"topk_method\": \"noaux_tc\", \"torch_dtype\": \"bfloat16\", \"v_head_dim\": 128, "
    "\"vocab_size\": 129280}";

static const char *const debug_specials[] = {"<bos>",       "<eos>",   "<pad>",    "<user>",
                                             "<assistant>", "<think>", "</think>", NULL};
static const char *const tiny_specials[] = {"<pad>",   "<eos>",    "<bos>",    "<user>",    "<assistant>",
                                            "<think>", "</think>", "<answer>", "</answer>", NULL};
static const char tiny_characters[] = "0123456789+-*=;,:? abcdefghijklmnopqrstuvwxyz";

/* <user>PROMPT<assistant>COMPLETION<eos> */
static const char template_[] =
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<assistant>' + m['content'] + '<eos>' }}{% else %}"
    "{{ '<user>' + m['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}";

const preset presets[] = {
    {"debug", "a DeepSeek-V3 of 0.2M parameters with everything that a V3 has", debug_config, debug_specials, NULL},
    {"tiny", "the model of the tiny-r1 recipe, 0.76M parameters", tiny_config, tiny_specials, tiny_characters},
    {"tiny-dense", "a dense student for tiny, of Qwen2's shape, 0.39M parameters", tiny_dense_config, tiny_specials,
     tiny_characters},
    {"16b", "DeepSeek-V2-Lite", lite_config, NULL, NULL},
    {"671b", "DeepSeek-V3", v3_config, NULL, NULL},
    {"v3.2", "DeepSeek-V3.2", v32_config, NULL, NULL},
    {0},
};

const preset *preset_find(const char *name) {
    for (const preset *p = presets; p->name; p++)
        if (strcmp(p->name, name) == 0) return p;
    return NULL;
}

status preset_json(json_t **out, const char *name, error *e) {
    const preset *p = preset_find(name);
    *out = NULL;
    if (!p)
        return fail(e, ERR_ARG, "preset \"%.60s\" is not known: debug, tiny, tiny-dense, 16b, 671b and v3.2 are", name);
    return json_parse(out, p->config, strlen(p->config), name, e);
}

status preset_or_config(model_config *out, const char *name_or_path, error *e) {
    json_t *j;
    if (!preset_find(name_or_path)) return config_open(out, name_or_path, e);
    TRY(preset_json(&j, name_or_path, e));
    status s = config_read(out, j, e);
    json_decref(j);
    return s;
}

/* --- the tokenizer: one token a byte ---------------------------------------------------------------------------- */

/* GPT-2's letter for a byte: printable ones are themselves, the others count on from U+0100. */
static unsigned letter(unsigned byte) {
    unsigned others = 0;
    for (unsigned b = 0; b <= byte; b++) {
        bool printable = (b > 32 && b < 127) || (b > 160 && b != 173);
        if (b == byte) return printable ? b : 256 + others;
        others += !printable;
    }
    return 0;
}

static json_t *vocabulary(const preset *p) {
    json_t *v = json_object();
    size_t id = 0, n = p->characters ? strlen(p->characters) : 256;
    for (; p->specials[id]; id++) json_object_set_new(v, p->specials[id], json_integer((json_int_t)id));
    for (size_t i = 0; i < n; i++) {
        unsigned c = letter(p->characters ? (unsigned char)p->characters[i] : (unsigned)i);
        char text[3] = {(char)c, 0, 0};
        if (c >= 0x80) text[0] = (char)(0xC0 | c >> 6), text[1] = (char)(0x80 | (c & 0x3F));
        json_object_set_new(v, text, json_integer((json_int_t)(id + i)));
    }
    return v;
}

/* <think>, <answer> and their ends are text that a reader sees; the others are marks. */
static json_t *added_tokens(const preset *p) {
    json_t *list = json_array();
    for (int i = 0; p->specials[i]; i++) {
        bool text = strstr(p->specials[i], "think") || strstr(p->specials[i], "answer");
        json_array_append_new(list,
                              json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", i, "content", p->specials[i],
                                        "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", !text));
    }
    return list;
}

static status texts(json_t *a, json_t *b, char **first, char **second, error *e) { /* takes a and b */
    *first = a ? json_dumps(a, JSON_INDENT(1)) : NULL;
    *second = b ? json_dumps(b, JSON_INDENT(1)) : NULL;
    json_decref(a);
    json_decref(b);
    if (*first && *second) return OK;
    free(*first);
    free(*second);
    *first = *second = NULL;
    return fail(e, ERR_NOMEM, "memory is out");
}

status preset_tokenizer(const preset *p, char **tokenizer, char **config, error *e) {
    *tokenizer = *config = NULL;
    if (!p->specials) return OK;
    json_t *level = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1,
                              "use_regex", 0);
    json_t *t = json_pack("{s:s, s:n, s:n, s:o, s:n, s:O, s:n, s:O, s:{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:o, s:[]}}",
                          "version", "1.0", "truncation", "padding", "added_tokens", added_tokens(p), "normalizer",
                          "pre_tokenizer", level, "post_processor", "decoder", level, "model", "type", "BPE", "dropout",
                          "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                          "byte_fallback", 0, "vocab", vocabulary(p), "merges");
    json_t *c = json_pack("{s:b, s:b, s:s, s:s, s:s, s:s, s:s}", "add_bos_token", 0, "add_eos_token", 0, "bos_token",
                          "<bos>", "eos_token", "<eos>", "pad_token", "<pad>", "tokenizer_class",
                          "PreTrainedTokenizerFast", "chat_template", template_);
    json_decref(level);
    return texts(t, c, tokenizer, config, e);
}

static status save(const char *folder, const char *name, const char *text, error *e) {
    char *path = path_join(folder, name);
    status s = path ? file_save(path, text, strlen(text), e) : fail(e, ERR_NOMEM, "memory is out");
    free(path);
    return s;
}

status preset_write_tokenizer(const preset *p, const char *folder, error *e) {
    char *tokenizer, *config;
    TRY(preset_tokenizer(p, &tokenizer, &config, e));
    if (!tokenizer) return OK;
    status s = save(folder, "tokenizer.json", tokenizer, e);
    if (s == OK) s = save(folder, "tokenizer_config.json", config, e);
    free(tokenizer);
    free(config);
    return s;
}

status preset_write(const preset *p, const char *folder, error *e) {
    TRY(save(folder, "config.json", p->config, e));
    return preset_write_tokenizer(p, folder, e);
}
