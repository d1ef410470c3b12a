#include "model/config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "model/block.h"

/* Larger numbers are a mistake or an attack. With these, every count that is made of them (parameters, bytes of a
 * cache) fits 63 bits, and what is allocated per layer and expert before the first tensor is looked at stays small. The
 * largest published: 126 layers, width 16,384, 256 experts in 61 layers. */
enum {
    MOST_LAYERS = 1 << 10,
    MOST_EXPERTS = 1 << 17, /* in all layers together */
    MOST_WIDTH = 1 << 20,   /* of a row, also of all heads together */
    MOST_TOKENS = 1 << 24   /* vocabulary, positions */
};

static status size_upto(const json_t *j, const char *key, int64_t fallback, int64_t min, int64_t max, int64_t *out,
                        error *e) {
    if (fallback < min && (!json_object_get(j, key) || json_is_null(json_object_get(j, key))))
        return fail(e, ERR_FORMAT, "\"%s\" is missing", key);
    return json_get_int(j, key, fallback, min, max, out, e);
}

static status size_of(const json_t *j, const char *key, int64_t fallback, int64_t min, int64_t *out, error *e) {
    return size_upto(j, key, fallback, min, MOST_WIDTH, out, e);
}

static status check_product(const char *what, int64_t a, int64_t b, int64_t max, error *e) {
    if (a * b <= max) return OK;
    return fail(e, ERR_FORMAT, "%s: %lld x %lld is more than %lld", what, (long long)a, (long long)b, (long long)max);
}

/* The member if it is an object; NULL if it is not there. */
static status object_of(const json_t *j, const char *key, const json_t **out, error *e) {
    *out = json_object_get(j, key);
    if (json_is_null(*out)) *out = NULL;
    return !*out || json_is_object(*out) ? OK : fail(e, ERR_FORMAT, "\"%s\" should be an object", key);
}

/* rope_scaling (with rope_theta beside it) as in published checkpoints, or rope_parameters as newer versions of
 * transformers write it. */
static status read_rope(rope_config *r, const json_t *j, double theta, error *e) {
    const json_t *s;
    TRY(object_of(j, "rope_parameters", &s, e));
    if (!s) TRY(object_of(j, "rope_scaling", &s, e));
    TRY(json_get_real(j, "rope_theta", theta, &r->theta, e));
    r->factor = 1;
    if (s) {
        const char *type, *kind;
        TRY(json_get_string(s, "type", "default", &type, e));
        TRY(json_get_string(s, "rope_type", type, &kind, e));
        if (!strcmp(kind, "default")) r->type = ROPE_DEFAULT;
        else if (!strcmp(kind, "linear")) r->type = ROPE_LINEAR;
        else if (!strcmp(kind, "yarn")) r->type = ROPE_YARN;
        else if (!strcmp(kind, "llama3")) r->type = ROPE_LLAMA3;
        else return fail(e, ERR_UNSUPPORTED, "rope_scaling of type \"%s\" is not known", kind);
        TRY(json_get_real(s, "rope_theta", r->theta, &r->theta, e));
        if (r->type != ROPE_DEFAULT) TRY(json_get_real(s, "factor", 0, &r->factor, e));
        TRY(json_get_real(s, "original_max_position_embeddings", 0, &r->original_max_position, e));
        TRY(json_get_real(s, "beta_fast", 32, &r->beta_fast, e));
        TRY(json_get_real(s, "beta_slow", 1, &r->beta_slow, e));
        TRY(json_get_real(s, "mscale", 0, &r->mscale, e));
        TRY(json_get_real(s, "mscale_all_dim", 0, &r->mscale_all_dim, e));
        TRY(json_get_real(s, "attention_factor", 0, &r->attention_factor, e));
        TRY(json_get_real(s, "low_freq_factor", 1, &r->low_freq_factor, e));
        TRY(json_get_real(s, "high_freq_factor", 4, &r->high_freq_factor, e));
        if (!(r->factor > 0)) return fail(e, ERR_FORMAT, "rope_scaling needs a positive \"factor\"");
        if ((r->type == ROPE_YARN || r->type == ROPE_LLAMA3) && !(r->original_max_position > 0)) {
            TRY(json_get_real(j, "max_position_embeddings", 0, &r->original_max_position, e));
            if (!(r->original_max_position > 0))
                return fail(e, ERR_FORMAT, "rope_scaling needs \"original_max_position_embeddings\"");
        }
        if (r->type == ROPE_YARN && !(r->beta_fast > 0 && r->beta_slow > 0))
            return fail(e, ERR_FORMAT, "rope_scaling needs positive \"beta_fast\" and \"beta_slow\"");
        if (r->type == ROPE_LLAMA3 && !(r->high_freq_factor > r->low_freq_factor && r->low_freq_factor > 0))
            return fail(e, ERR_FORMAT, "rope_scaling needs high_freq_factor > low_freq_factor > 0");
    }
    if (!(r->theta > 1)) return fail(e, ERR_FORMAT, "\"rope_theta\" should be greater than 1");
    return OK;
}

/* Absent, or FP8 E4M3 with 128 x 128 blocks as the DeepSeek checkpoints have it. */
static status read_quantization(model_config *c, const json_t *j, error *e) {
    const json_t *q;
    TRY(object_of(j, "quantization_config", &q, e));
    if (!q) return OK;
    const char *method, *fmt, *scale;
    TRY(json_get_string(q, "quant_method", "", &method, e));
    TRY(json_get_string(q, "fmt", "e4m3", &fmt, e));
    TRY(json_get_string(q, "scale_fmt", "", &scale, e));
    const json_t *b = json_object_get(q, "weight_block_size");
    bool blocks = json_is_array(b) && json_array_size(b) == 2 &&
                  json_integer_value(json_array_get(b, 0)) == FP8_BLOCK &&
                  json_integer_value(json_array_get(b, 1)) == FP8_BLOCK;
    if (strcmp(method, "fp8") != 0 || strcmp(fmt, "e4m3") != 0 || !blocks)
        return fail(e, ERR_UNSUPPORTED,
                    "quantization_config with quant_method \"%s\", fmt \"%s\": only fp8 e4m3 with weight_block_size "
                    "[128, 128] is known",
                    method, fmt);
    c->fp8 = true;
    c->fp8_ue8m0 = strcmp(scale, "ue8m0") == 0;
    return OK;
}

static status read_token_ids(model_config *c, const json_t *j, error *e) {
    TRY(config_read_eos(j, c->eos_ids, &c->n_eos, e));
    return json_get_int(j, "bos_token_id", -1, -1, INT32_MAX, &c->bos_id, e);
}

status config_read_eos(const json_t *j, int64_t *ids, int *n, error *e) {
    const json_t *eos = json_object_get(j, "eos_token_id");
    if (json_is_null(eos)) eos = NULL;
    size_t count = json_is_array(eos) ? json_array_size(eos) : eos != NULL;
    *n = 0;
    for (size_t i = 0; i < count && *n < MOST_EOS; i++) {
        const json_t *v = json_is_array(eos) ? json_array_get(eos, i) : eos;
        int64_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < -1 || id > INT32_MAX)
            return fail(e, ERR_FORMAT, "\"eos_token_id\" should be a token id or a list of them");
        if (id >= 0) ids[(*n)++] = id; /* -1: none */
    }
    return OK;
}

status config_read_common(model_config *c, const json_t *j, error *e) {
    const char *act, *scheme;
    TRY(json_get_string(j, "hidden_act", "silu", &act, e));
    if (strcmp(act, "silu") != 0) return fail(e, ERR_UNSUPPORTED, "hidden_act \"%s\": only silu is known", act);
    TRY(size_upto(j, "num_hidden_layers", 0, 1, MOST_LAYERS, &c->num_hidden_layers, e));
    TRY(size_of(j, "hidden_size", 0, 1, &c->hidden_size, e));
    TRY(size_of(j, "intermediate_size", 0, 1, &c->intermediate_size, e));
    TRY(size_upto(j, "vocab_size", 0, 1, MOST_TOKENS, &c->vocab_size, e));
    TRY(size_of(j, "num_attention_heads", 0, 1, &c->num_attention_heads, e));
    TRY(size_upto(j, "max_position_embeddings", 4096, 1, MOST_TOKENS, &c->max_position_embeddings, e));
    TRY(json_get_bool(j, "attention_bias", false, &c->attention_bias, e));
    TRY(json_get_bool(j, "tie_word_embeddings", false, &c->tie_word_embeddings, e));
    TRY(json_get_real(j, "rms_norm_eps", 1e-6, &c->rms_norm_eps, e));
    TRY(json_get_real(j, "initializer_range", 0.02, &c->initializer_range, e));
    TRY(json_get_string(j, "initializer_scheme", "normal", &scheme, e));
    c->init_fan_in = strcmp(scheme, "fan_in") == 0;
    if (!c->init_fan_in && strcmp(scheme, "normal") != 0)
        return fail(e, ERR_UNSUPPORTED, "initializer_scheme \"%s\": normal and fan_in are known", scheme);
    if (!(c->rms_norm_eps > 0)) return fail(e, ERR_FORMAT, "\"rms_norm_eps\" should be positive");
    TRY(read_rope(&c->rope, j, 10000, e));
    TRY(read_quantization(c, j, e));
    return read_token_ids(c, j, e);
}

status config_read_gqa(model_config *c, const json_t *j, error *e) {
    int64_t heads = c->num_attention_heads;
    TRY(size_of(j, "num_key_value_heads", heads, 1, &c->num_key_value_heads, e));
    if (heads % c->num_key_value_heads)
        return fail(e, ERR_FORMAT, "num_attention_heads %lld is not a multiple of num_key_value_heads %lld",
                    (long long)heads, (long long)c->num_key_value_heads);
    TRY(size_of(j, "head_dim", c->hidden_size / heads, 1, &c->head_dim, e));
    if (c->head_dim % 2) return fail(e, ERR_FORMAT, "head_dim %lld is odd", (long long)c->head_dim);
    return check_product("num_attention_heads and head_dim", heads, c->head_dim, MOST_WIDTH, e);
}

static status read_experts(model_config *c, const json_t *j, error *e) {
    TRY(size_of(j, "n_routed_experts", 0, 0, &c->n_routed_experts, e));
    if (!c->n_routed_experts) return OK;
    TRY(size_of(j, "moe_intermediate_size", 0, 1, &c->moe_intermediate_size, e));
    TRY(size_of(j, "num_experts_per_tok", 0, 1, &c->num_experts_per_tok, e));
    TRY(size_of(j, "n_shared_experts", 0, 0, &c->n_shared_experts, e));
    TRY(size_of(j, "first_k_dense_replace", 0, 0, &c->first_k_dense_replace, e));
    TRY(size_of(j, "moe_layer_freq", 1, 1, &c->moe_layer_freq, e));
    TRY(size_of(j, "n_group", 1, 1, &c->n_group, e));
    TRY(size_of(j, "topk_group", c->n_group, 1, &c->topk_group, e));
    TRY(json_get_bool(j, "norm_topk_prob", c->topk_method == TOPK_NOAUX_TC, &c->norm_topk_prob, e));
    TRY(json_get_real(j, "routed_scaling_factor", 1, &c->routed_scaling_factor, e));
    const char *scores = c->sigmoid_scores ? "sigmoid" : "softmax", *method;
    TRY(json_get_string(j, "scoring_func", scores, &scores, e));
    c->sigmoid_scores = strcmp(scores, "sigmoid") == 0;
    if (!c->sigmoid_scores && strcmp(scores, "softmax") != 0)
        return fail(e, ERR_UNSUPPORTED, "scoring_func \"%s\" is not known", scores);
    TRY(json_get_string(j, "topk_method", c->topk_method == TOPK_NOAUX_TC ? "noaux_tc" : "greedy", &method, e));
    if (!strcmp(method, "greedy")) c->topk_method = TOPK_GREEDY;
    else if (!strcmp(method, "group_limited_greedy")) c->topk_method = TOPK_GROUP_LIMITED_GREEDY;
    else if (!strcmp(method, "noaux_tc")) c->topk_method = TOPK_NOAUX_TC;
    else return fail(e, ERR_UNSUPPORTED, "topk_method \"%s\" is not known", method);
    if (c->topk_method == TOPK_GREEDY) c->n_group = c->topk_group = 1;
    int64_t experts = c->n_routed_experts, k = c->num_experts_per_tok;
    if (experts % c->n_group || c->topk_group > c->n_group || k > experts / c->n_group * c->topk_group)
        return fail(e, ERR_FORMAT, "cannot choose %lld of %lld experts from %lld of %lld groups", (long long)k,
                    (long long)experts, (long long)c->topk_group, (long long)c->n_group);
    if (k > 256) return fail(e, ERR_UNSUPPORTED, "num_experts_per_tok %lld is more than 256", (long long)k);
    TRY(check_product("num_hidden_layers and n_routed_experts", c->num_hidden_layers, experts, MOST_EXPERTS, e));
    return check_product("n_shared_experts and moe_intermediate_size", c->n_shared_experts, c->moe_intermediate_size,
                         MOST_WIDTH, e);
}

status config_read_deepseek(model_config *c, const json_t *j, error *e) {
    TRY(size_of(j, "q_lora_rank", 0, 0, &c->q_lora_rank, e));
    TRY(size_of(j, "kv_lora_rank", 0, 1, &c->kv_lora_rank, e));
    TRY(size_of(j, "qk_nope_head_dim", 0, 1, &c->qk_nope_head_dim, e));
    TRY(size_of(j, "qk_rope_head_dim", 0, 2, &c->qk_rope_head_dim, e));
    TRY(size_of(j, "v_head_dim", 0, 1, &c->v_head_dim, e));
    TRY(json_get_bool(j, "rope_interleave", true, &c->rope_interleave, e));
    TRY(size_of(j, "num_nextn_predict_layers", 0, 0, &c->num_nextn_predict_layers, e));
    if (c->qk_rope_head_dim % 2) return fail(e, ERR_FORMAT, "qk_rope_head_dim is odd");
    if (c->num_nextn_predict_layers > 16) return fail(e, ERR_FORMAT, "more than 16 MTP layers");
    TRY(check_product("num_attention_heads and the dimensions of a head", c->num_attention_heads,
                      config_qk_dim(c) + c->v_head_dim, MOST_WIDTH, e));
    return read_experts(c, j, e);
}

status config_read(model_config *c, const json_t *j, error *e) {
    *c = (model_config){.bos_id = -1, .moe_layer_freq = 1, .n_group = 1, .topk_group = 1, .routed_scaling_factor = 1};
    const char *type;
    if (!json_is_object(j)) return fail(e, ERR_FORMAT, "config.json should be an object");
    TRY(json_get_string(j, "model_type", "", &type, e));
    c->arch = arch_find(type);
    if (!c->arch) return fail(e, ERR_UNSUPPORTED, "model_type \"%s\" is not known; hadal runs %s", type, arch_names());
    TRY(config_read_common(c, j, e));
    return c->arch->read_config(c, j, e);
}

status config_open(model_config *out, const char *path, error *e) {
    char *file = is_directory(path) ? path_join(path, "config.json") : path_join(path, "");
    if (!file) return fail(e, ERR_NOMEM, "memory is out");
    size_t n = strlen(file);
    if (n && file[n - 1] == '/') file[n - 1] = 0; /* path_join(path, "") */
    json_t *j = NULL;
    status s = json_read(&j, file, 1 << 24, e);
    if (s == OK && (s = config_read(out, j, e)) != OK) wrap(e, "%s", file);
    json_decref(j);
    free(file);
    return s;
}

int64_t config_qk_dim(const model_config *c) {
    return c->kv_lora_rank ? c->qk_nope_head_dim + c->qk_rope_head_dim : c->head_dim;
}

double config_attention_scale(const model_config *c) {
    double scale = 1 / sqrt((double)config_qk_dim(c));
    if (c->kv_lora_rank && c->rope.type == ROPE_YARN && c->rope.mscale_all_dim != 0 && c->rope.factor > 1) {
        double m = 0.1 * c->rope.mscale_all_dim * log(c->rope.factor) + 1; /* V3 inference code, MLA.__init__ */
        scale *= m * m;
    }
    return scale;
}

bool config_is_moe(const model_config *c, int64_t layer) {
    return c->n_routed_experts && layer >= c->first_k_dense_replace && layer % c->moe_layer_freq == 0;
}
