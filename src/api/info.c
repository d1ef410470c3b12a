/* hadal_info: what a folder or a config.json holds, from headers alone. */
#include <stdlib.h>
#include <string.h>
#include "api/internal.h"
#include "base/file.h"
#include "base/json.h"
#include "format/weights_file.h"
#include "model/model.h"

static json_t *attention_json(const model_config *c) {
    if (!c->kv_lora_rank)
        return json_pack("{s:s,s:I,s:I,s:I}", "kind", "GQA", "heads", (json_int_t)c->num_attention_heads, "kv_heads",
                         (json_int_t)c->num_key_value_heads, "head_dim", (json_int_t)c->head_dim);
    json_t *a =
        json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I}", "kind", c->index_topk ? "MLA with DSA indexer" : "MLA", "heads",
                  (json_int_t)c->num_attention_heads, "q_lora_rank", (json_int_t)c->q_lora_rank, "kv_lora_rank",
                  (json_int_t)c->kv_lora_rank, "qk_nope_head_dim", (json_int_t)c->qk_nope_head_dim, "qk_rope_head_dim",
                  (json_int_t)c->qk_rope_head_dim, "v_head_dim", (json_int_t)c->v_head_dim);
    if (c->index_topk) json_object_set_new(a, "index_topk", json_integer(c->index_topk));
    return a;
}

static json_t *experts_json(const model_config *c) {
    static const char *const methods[] = {
        [TOPK_GREEDY] = "greedy", [TOPK_GROUP_LIMITED_GREEDY] = "group_limited_greedy", [TOPK_NOAUX_TC] = "noaux_tc"};
    return json_pack("{s:I,s:I,s:I,s:I,s:I,s:s,s:s,s:I}", "routed", (json_int_t)c->n_routed_experts, "per_token",
                     (json_int_t)c->num_experts_per_tok, "shared", (json_int_t)c->n_shared_experts, "groups",
                     (json_int_t)c->n_group, "groups_per_token", (json_int_t)c->topk_group, "scoring_func",
                     c->sigmoid_scores ? "sigmoid" : "softmax", "topk_method", methods[c->topk_method], "first_layer",
                     (json_int_t)c->first_k_dense_replace);
}

static json_t *rope_json(const rope_config *r) {
    static const char *const names[] = {
        [ROPE_DEFAULT] = "default", [ROPE_LINEAR] = "linear", [ROPE_YARN] = "yarn", [ROPE_LLAMA3] = "llama3"};
    return json_pack("{s:s,s:f,s:f}", "type", names[r->type], "theta", r->theta, "factor", r->factor);
}

static status add_files(json_t *out, const char *folder, uint64_t *bytes, error *e) {
    weights_file *w;
    TRY(weights_open_in_place(&w, folder, e));
    uint64_t by_type[DT_COUNT] = {0};
    const char *last = NULL;
    json_int_t files = 0;
    for (size_t i = 0; i < weights_count(w); i++) {
        const weights_entry *t = weights_at(w, i);
        by_type[t->t.type] += (uint64_t)tensor_count(&t->t) * dtype_size(t->t.type);
        if (!last || strcmp(last, t->file) != 0) files++;
        last = t->file;
    }
    json_t *types = json_object();
    for (int i = 0; i < DT_COUNT; i++)
        if (by_type[i]) json_object_set_new(types, dtype_name((dtype)i), json_integer((json_int_t)by_type[i]));
    *bytes = weights_bytes(w);
    json_object_set_new(out, "bytes", json_integer((json_int_t)*bytes));
    json_object_set_new(out, "bytes_by_type", types);
    json_object_set_new(out, "tensors", json_integer((json_int_t)weights_count(w)));
    json_object_set_new(out, "files", json_integer(files));
    weights_close(w);
    return OK;
}

static void add_text(json_t *out, const folder_text *f) {
    if (f->tokenizer.t) {
        const tokenizer *t = f->tokenizer.t;
        json_object_set_new(out, "tokenizer",
                            json_pack("{s:i,s:s,s:s?,s:s?}", "size", tokenizer_vocab_size(t), "kind", "byte-level BPE",
                                      "bos", tokenizer_bos_text(t), "eos", tokenizer_eos_text(t)));
    }
    const char *kind = f->template                              ? "jinja"
                       : f->template_error                      ? f->template_error
                       : !strcmp(f->model_type, "deepseek_v32") ? "built in (V3.2 encoding)"
                                                                : "none";
    json_object_set_new(out, "chat_template", json_string(kind));
}

/* Weights in the type that new checkpoints of this configuration have, for a bare config.json. */
static uint64_t planned_bytes(const model_config *c, const model_counts *n) {
    uint64_t all = (uint64_t)(n->parameters + n->mtp);
    return c->fp8 ? all : 2 * all;
}

static const int64_t MOST_CONTEXT = (int64_t)1 << 32; /* its cache bytes are far from overflowing */

static status info(const char *path, int64_t context, char **json, error *e) {
    model_config c;
    model_counts n;
    TRY(config_open(&c, path, e));
    model_count(&c, &n);
    if (context < 0 || context > MOST_CONTEXT)
        return fail(e, ERR_ARG, "a context of %lld tokens: use 0 to %lld", (long long)context, (long long)MOST_CONTEXT);
    if (!context) context = c.max_position_embeddings;
    const int64_t row = 2 * model_cache_width(&c, CACHE_ATTENTION), index = 2 * model_cache_width(&c, CACHE_INDEX);
    json_t *out = json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "path", path, "model_type",
                            c.arch->model_type, "kind", c.arch->description, "layers", (json_int_t)c.num_hidden_layers,
                            "hidden_size", (json_int_t)c.hidden_size, "vocab_size", (json_int_t)c.vocab_size,
                            "parameters", (json_int_t)n.parameters, "parameters_active", (json_int_t)n.active,
                            "parameters_mtp", (json_int_t)n.mtp, "mtp_layers", (json_int_t)c.num_nextn_predict_layers,
                            "max_context", (json_int_t)c.max_position_embeddings);
    if (!out) return fail(e, ERR_NOMEM, "memory is out");
    json_object_set_new(out, "quantization",
                        json_string(!c.fp8        ? "none"
                                    : c.fp8_ue8m0 ? "FP8 E4M3, 128x128 blocks, power-of-two scales"
                                                  : "FP8 E4M3, 128x128 blocks"));
    json_object_set_new(out, "attention", attention_json(&c));
    if (c.n_routed_experts) json_object_set_new(out, "experts", experts_json(&c));
    json_object_set_new(out, "rope", rope_json(&c.rope));
    json_object_set_new(out, "cache_bytes_per_token", json_integer(row));
    if (index) json_object_set_new(out, "cache_bytes_per_token_indexer", json_integer(index));
    uint64_t bytes = planned_bytes(&c, &n);
    status s = OK;
    folder_text text = {0};
    if (is_directory(path)) {
        s = add_files(out, path, &bytes, e);
        if (s == OK) s = folder_text_open(&text, path, e);
        if (s == OK) add_text(out, &text);
        folder_text_close(&text);
    }
    const uint64_t cache = (uint64_t)context * (uint64_t)(row + index);
    json_object_set_new(out, "context", json_integer(context));
    json_object_set_new(out, "memory",
                        json_pack("{s:I,s:I,s:I}", "weights", (json_int_t)bytes, "cache", (json_int_t)cache, "total",
                                  (json_int_t)(bytes + cache)));
    if (s == OK) return api_json(out, json, e);
    json_decref(out);
    return s;
}

int hadal_info(const char *path, int64_t context, char **json, hadal_error *e) {
    error why;
    *json = NULL;
    return api_result(info(path, context, json, &why), &why, e);
}
