/* NeMo RL's names (examples/configs/grpo_math_1B.yaml at 7ea279a), each in one table: what it is called here, or that
 * it belongs to an engine that is not here, or that it has to be off because we do not do it. What takes several of its
 * keys at once, or another form, is read by the functions below the table. "${a.b}" is the value of another key. */
#include "train/config_style.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "train/config_table.h"

typedef enum rule_kind {
    COPY,   /* the same value under our name; null: nobody said anything */
    COPY_0, /* null means 0: off */
    OFF,    /* has to be off; `why` */
    ENGINE, /* of another engine: named in the note */
    PART    /* read by a function of `parts` */
} rule_kind;
typedef enum side { BOTH, TORCH, MEGATRON } side; /* keys that count with the one back end only */

typedef struct rule {
    const char *path;
    rule_kind kind;
    const char *section, *key; /* here */
    side side;
    const char *why;
} rule;

/* NAME -> section.key; the same where the back end SIDE does it; null means 0; a function reads it; an engine's */
#define SAME(name, s, k) \
    { .path = name, .kind = COPY, .section = s, .key = k }
#define ON(where, name, s, k) \
    { .path = name, .kind = COPY, .section = s, .key = k, .side = where }
#define NULL_IS_0(name, s, k) \
    { .path = name, .kind = COPY_0, .section = s, .key = k }
#define READ(name) \
    { .path = name, .kind = PART }
#define OTHER(name) \
    { .path = name, .kind = ENGINE }
#define NOT(name, reason) \
    { .path = name, .kind = OFF, .why = reason }
static const rule rules[] = {
    SAME("policy.model_name", "model", "path"),
    READ("policy.tokenizer.name"),
    OTHER("policy.tokenizer"),
    SAME("policy.train_global_batch_size", "grpo", "batch"),
    SAME("policy.train_micro_batch_size", "grpo", "micro_batch"),
    SAME("policy.max_total_sequence_length", "data", "seq_len"),
    NULL_IS_0("policy.max_grad_norm", "optimizer", "clip"),
    READ("policy.precision"),
    NOT("policy.hf_config_overrides", "change config.json of the model's folder instead"),
    OTHER("policy.generation_batch_size"),
    OTHER("policy.logprob_batch_size"),
    OTHER("policy.logprob_chunk_size"),
    OTHER("policy.offload_optimizer_for_logprob"),
    OTHER("policy.make_sequence_length_divisible_by"),
    OTHER("policy.dynamic_batching"),
    OTHER("policy.sequence_packing"),
    OTHER("policy.draft"),
    OTHER("policy.router_replay"),
    READ("policy.optimizer.name"),
    ON(TORCH, "policy.optimizer.kwargs.lr", "optimizer", "lr"),
    READ("policy.optimizer.kwargs.weight_decay"),
    READ("policy.optimizer.kwargs.betas"),
    ON(TORCH, "policy.optimizer.kwargs.eps", "optimizer", "eps"),
    NOT("policy.optimizer.kwargs.amsgrad", "AdamW is plain here"),
    OTHER("policy.optimizer.kwargs.exp_avg_dtype"),
    OTHER("policy.optimizer.kwargs.exp_avg_sq_dtype"),
    OTHER("policy.optimizer.kwargs.master_weights"),
    OTHER("policy.optimizer.kwargs.master_weight_dtype"),
    OTHER("policy.optimizer.kwargs.store_param_remainders"),
    OTHER("policy.optimizer.kwargs.foreach"),
    OTHER("policy.optimizer.kwargs.fused"),
    READ("policy.scheduler"),
    READ("policy.dtensor_cfg.enabled"),
    READ("policy.dtensor_cfg.activation_checkpointing"),
    READ("policy.dtensor_cfg.lora_cfg.enabled"),
    READ("policy.dtensor_cfg.lora_cfg.dim"),
    READ("policy.dtensor_cfg.lora_cfg.alpha"),
    READ("policy.dtensor_cfg.lora_cfg.target_modules"),
    OTHER("policy.dtensor_cfg.lora_cfg"),
    OTHER("policy.dtensor_cfg"),
    READ("policy.megatron_cfg.enabled"),
    READ("policy.megatron_cfg.activation_checkpointing"),
    READ("policy.megatron_cfg.freeze_moe_router"),
    ON(MEGATRON, "policy.megatron_cfg.moe_router_bias_update_rate", "objective", "bias_update_speed"),
    ON(MEGATRON, "policy.megatron_cfg.optimizer.lr", "optimizer", "lr"),
    ON(MEGATRON, "policy.megatron_cfg.optimizer.weight_decay", "optimizer", "weight_decay"),
    ON(MEGATRON, "policy.megatron_cfg.optimizer.adam_beta1", "optimizer", "beta1"),
    ON(MEGATRON, "policy.megatron_cfg.optimizer.adam_beta2", "optimizer", "beta2"),
    ON(MEGATRON, "policy.megatron_cfg.optimizer.adam_eps", "optimizer", "eps"),
    ON(MEGATRON, "policy.megatron_cfg.optimizer.clip_grad", "optimizer", "clip"),
    READ("policy.megatron_cfg.scheduler.lr_decay_style"),
    READ("policy.megatron_cfg.scheduler.lr_warmup_iters"),
    READ("policy.megatron_cfg.scheduler.lr_warmup_init"),
    OTHER("policy.megatron_cfg"),
    SAME("policy.generation.temperature", "rollout", "temperature"),
    SAME("policy.generation.top_p", "rollout", "top_p"),
    READ("policy.generation.top_k"),
    READ("policy.generation.max_new_tokens"),
    NOT("policy.megatron_cfg.peft.enabled", "give lora.rank and lora.target_modules"),
    NOT("policy.generation.stop_token_ids", "completions end with the model's own end tokens"),
    NOT("policy.generation.stop_strings", "completions end with the model's own end tokens"),
    OTHER("policy.generation.vllm_cfg"),
    OTHER("policy.generation.vllm_kwargs"),
    OTHER("policy.generation.trtllm_cfg"),
    OTHER("policy.generation.trtllm_kwargs"),
    OTHER("policy.generation.sglang_cfg"),
    OTHER("policy.generation.sglang_kwargs"),
    OTHER("policy.generation.mcore_generation_config"),
    OTHER("policy.generation.colocated"),
    OTHER("policy.generation.refit_cfg"),
    OTHER("policy.generation.refit_transport"),
    OTHER("policy.generation.real_quant_export_cpu_offload"),
    OTHER("policy.generation.backend"),
    OTHER("policy.generation.port_range_low"),
    OTHER("policy.generation.port_range_high"),
    OTHER("policy.generation.val_temperature"),
    OTHER("policy.generation.val_top_p"),
    OTHER("policy.generation.val_top_k"),

    SAME("grpo.num_prompts_per_step", "grpo", "prompts"),
    SAME("grpo.num_generations_per_prompt", "grpo", "generations"),
    SAME("grpo.max_num_steps", "training", "steps"),
    OTHER("grpo.max_num_epochs"),
    READ("grpo.max_rollout_turns"),
    READ("grpo.normalize_rewards"),
    READ("grpo.use_leave_one_out_baseline"),
    READ("grpo.adv_estimator.name"),
    READ("grpo.adv_estimator.normalize_rewards"),
    READ("grpo.adv_estimator.use_leave_one_out_baseline"),
    READ("grpo.adv_estimator.minus_baseline"),
    READ("grpo.val_period"),
    OTHER("grpo.val_start_at"),
    OTHER("grpo.val_at_start"),
    OTHER("grpo.val_at_end"),
    OTHER("grpo.val_batch_size"),
    READ("grpo.max_val_samples"),
    READ("grpo.val_num_generations_per_prompt"),
    NOT("grpo.stop_at_validation_metric", "a run ends after training.steps steps"),
    NOT("grpo.stop_at_validation_threshold", "a run ends after training.steps steps"),
    SAME("grpo.overlong_filtering", "grpo", "mask_unfinished"),
    NOT("grpo.advantage_clip_low", "advantages are not clipped here"),
    NOT("grpo.advantage_clip_high", "advantages are not clipped here"),
    SAME("grpo.seed", "rollout", "seed"),
    SAME("grpo.use_dynamic_sampling", "grpo", "dynamic_sampling"),
    SAME("grpo.dynamic_sampling_max_gen_batches", "grpo", "most_rollouts"),
    OTHER("grpo.batch_multiplier"),
    READ("grpo.reward_scaling.enabled"),
    READ("grpo.reward_scaling.source_min"),
    READ("grpo.reward_scaling.source_max"),
    READ("grpo.reward_scaling.target_min"),
    READ("grpo.reward_scaling.target_max"),
    READ("grpo.reward_shaping.enabled"),
    READ("grpo.reward_shaping.overlong_buffer_length"),
    READ("grpo.reward_shaping.overlong_buffer_penalty"),
    READ("grpo.reward_shaping.max_response_length"),
    READ("grpo.reward_shaping.stop_properly_penalty_coef"),
    OTHER("grpo.seq_logprob_error_threshold"),
    NOT("grpo.invalid_tool_call_advantage", "rewards judge whole completions here"),
    NOT("grpo.malformed_thinking_advantage", "add a reward format to rollout.rewards"),
    NOT("grpo.async_grpo.enabled", "rollouts and updates take turns here"),
    OTHER("grpo.async_grpo"),

    READ("loss_fn.reference_policy_kl_penalty"),
    SAME("loss_fn.reference_policy_kl_type", "grpo", "kl"),
    READ("loss_fn.kl_input_clamp_value"),
    READ("loss_fn.kl_output_clamp_value"),
    READ("loss_fn.use_on_policy_kl_approximation"),
    SAME("loss_fn.ratio_clip_min", "grpo", "clip_low"),
    SAME("loss_fn.ratio_clip_max", "grpo", "clip_high"),
    NULL_IS_0("loss_fn.ratio_clip_c", "grpo", "dual_clip"),
    READ("loss_fn.token_level_loss"),
    READ("loss_fn.sequence_level_importance_ratios"),
    READ("loss_fn.use_cispo"),
    READ("loss_fn.disable_ppo_ratio"),
    OTHER("loss_fn.use_importance_sampling_correction"),
    OTHER("loss_fn.truncated_importance_sampling_type"),
    OTHER("loss_fn.truncated_importance_sampling_ratio"),
    OTHER("loss_fn.truncated_importance_sampling_ratio_min"),
    OTHER("loss_fn.force_on_policy_ratio"),
    NOT("loss_fn.use_kl_in_reward", "the KL penalty is a term of the loss here"),
    NOT("loss_fn.positive_example_nll_weight", "there is no such term here"),

    READ("checkpointing.enabled"),
    SAME("checkpointing.checkpoint_dir", "checkpoint", "folder"),
    READ("checkpointing.save_period"),
    READ("checkpointing.keep_top_k"),
    OTHER("checkpointing.metric_name"),
    OTHER("checkpointing.higher_is_better"),
    OTHER("checkpointing.checkpoint_must_save_by"),
    OTHER("checkpointing.model_save_format"),
    OTHER("checkpointing.save_consolidated"),
    OTHER("checkpointing.save_optimizer"),
    OTHER("checkpointing.model_cache_dir"),
    OTHER("checkpointing.model_repo_id"),
    OTHER("checkpointing.is_peft"),
    OTHER("checkpointing.peft_config"),
    OTHER("checkpointing.is_async"),

    READ("data.train"),
    READ("data.validation"),
    READ("data.train_data_path"),
    READ("data.val_data_path"),
    READ("data.dataset_name"),
    OTHER("data.default"),
    OTHER("data.max_input_seq_length"),
    OTHER("data.num_workers"),
    OTHER("data.use_multiple_dataloader"),
    OTHER("data.prompt_file"),
    OTHER("data.system_prompt_file"),
    OTHER("data.input_key"),
    OTHER("data.output_key"),
    OTHER("data.train_split"),
    OTHER("data.val_split"),

    READ("env.math"),

    SAME("logger.tensorboard_enabled", "metrics", "tensorboard"),
    OTHER("logger"),

    OTHER("cluster"),

    OTHER("data_plane"),

    NOT("reward_penalties", "name rewards in rollout.rewards"),

    NOT("on_policy_distillation", "hadal distill does it from stored traces"),
    {0},
};

/* Sections that are NeMo RL's alone; grpo and data are both's. */
static const char *const foreign[] = {"policy",        "loss_fn",          "env",
                                      "checkpointing", "logger",           "cluster",
                                      "data_plane",    "reward_penalties", "on_policy_distillation"};
enum { FOREIGN = sizeof foreign / sizeof *foreign };

static bool is_foreign(const char *section) {
    for (int i = 0; i < FOREIGN; i++)
        if (strcmp(foreign[i], section) == 0) return true;
    return false;
}

static bool is_shared(const char *section) {
    return strcmp(section, "grpo") == 0 || strcmp(section, "data") == 0;
}

typedef struct style {
    config_tree from; /* as it was */
    config_tree *to;
    bool megatron;
    str engines; /* "policy.dtensor_cfg, cluster" */
    error *e;
} style;

static const rule *find(const char *path) {
    for (const rule *r = rules; r->path; r++)
        if (strcmp(r->path, path) == 0) return r;
    return NULL;
}

static bool goes_deeper(const char *path) {
    const size_t n = strlen(path);
    for (const rule *r = rules; r->path; r++)
        if (strncmp(r->path, path, n) == 0 && r->path[n] == '.') return true;
    return false;
}

/* --- values ----------------------------------------------------------------------------------------------------- */

static status refuse(const style *s, const char *path, const char *what) {
    return config_tree_bad(&s->from, path, what, s->e);
}

/* The path that "${path}" names; a leading dot: beside the key that says it. false: it is something else. */
static bool names_other(const json_t *v, const char *at, char *path, size_t size) {
    const char *text = json_string_value(v), *inner = text ? text + 2 : NULL, *dot = strrchr(at, '.');
    const size_t n = text ? strlen(text) : 0;
    if (n < 4 || strncmp(text, "${", 2) != 0 || text[n - 1] != '}' ||
        strspn(inner, "abcdefghijklmnopqrstuvwxyz_.0123456789") != n - 3)
        return false;
    const int around = *inner == '.' && dot ? (int)(dot - at) : 0;
    snprintf(path, size, "%.*s%.*s", around, at, (int)(n - 3 - (*inner == '.' && !dot)), inner);
    return true;
}

/* The value of a path, NULL: not given, or null. */
static status value_of(const style *s, const char *path, const json_t **out) {
    char here[200], next[200];
    snprintf(here, sizeof here, "%s", path);
    *out = config_tree_get(&s->from, here);
    for (int i = 0; i < 8 && names_other(*out, here, next, sizeof next); i++) {
        memcpy(here, next, sizeof here);
        *out = config_tree_get(&s->from, here);
    }
    const char *text = json_string_value(*out);
    if (text && strncmp(text, "${", 2) == 0)
        return refuse(s, path, "is an expression that is not understood here: give the value");
    return OK;
}

static status flag_of(const style *s, const char *path, bool fallback, bool *out) {
    const json_t *v;
    TRY(value_of(s, path, &v));
    *out = v ? json_is_true(v) : fallback;
    return !v || json_is_boolean(v) ? OK : refuse(s, path, "should be true or false");
}

static status number_of(const style *s, const char *path, double fallback, double *out) {
    const json_t *v;
    TRY(value_of(s, path, &v));
    *out = v ? json_number_value(v) : fallback;
    return !v || json_is_number(v) ? OK : refuse(s, path, "should be a number");
}

static status text_of(const style *s, const char *path, const char *fallback, const char **out) {
    const json_t *v;
    TRY(value_of(s, path, &v));
    *out = v ? json_string_value(v) : fallback;
    return *out || !v ? OK : refuse(s, path, "should be a text");
}

static bool given(const style *s, const char *path) {
    return config_tree_get(&s->from, path) != NULL;
}

/* Sets our key from theirs at `path`, unless ours was given in an upper layer. Takes v. */
static status set(const style *s, const char *path, const char *section, const char *key, json_t *v) {
    char own[130], what[200];
    snprintf(own, sizeof own, "%s.%s", section, key);
    const int layer = config_tree_layer(&s->from, own), theirs = config_tree_layer(&s->from, path);
    if (!v) return fail(s->e, ERR_NOMEM, "memory is out");
    if (layer < theirs || strcmp(own, path) == 0) return config_tree_put(s->to, section, key, v, path, s->e);
    json_decref(v);
    snprintf(what, sizeof what, "and %s say the same thing: leave one of them out", own);
    return layer == theirs && given(s, own) ? refuse(s, path, what) : OK;
}

/* --- what takes more than a copy --------------------------------------------------------------------------------- */

/* "${policy.model_name}" is what we do anyway. */
static status part_tokenizer(style *s) {
    static const char path[] = "policy.tokenizer.name";
    const char *text = json_string_value(config_tree_get(&s->from, path)), *name;
    if (!text || strcmp(text, "${policy.model_name}") == 0) return OK;
    TRY(text_of(s, path, NULL, &name));
    return set(s, path, "data", "tokenizer", json_string(name));
}

static status part_precision(style *s) {
    static const char *const known[][2] = {{"bfloat16", "bf16"}, {"float32", "f32"}};
    const char *name;
    TRY(text_of(s, "policy.precision", NULL, &name));
    for (int i = 0; name && i < 2; i++)
        if (strcmp(name, known[i][0]) == 0)
            return set(s, "policy.precision", "training", "precision", json_string(known[i][1]));
    return name ? refuse(s, "policy.precision", "should be bfloat16 or float32") : OK;
}

/* torch.optim.AdamW decays every weight. */
static status part_adamw(style *s) {
    static const char decay[] = "policy.optimizer.kwargs.weight_decay", both[] = "policy.optimizer.kwargs.betas";
    const char *name;
    const json_t *v, *betas;
    if (s->megatron) return OK;
    TRY(text_of(s, "policy.optimizer.name", NULL, &name));
    const char *last = name ? strrchr(name, '.') : NULL;
    if (name && strcmp(last ? last + 1 : name, "AdamW") != 0 && strcmp(last ? last + 1 : name, "FusedAdam") != 0)
        return refuse(s, "policy.optimizer.name", "should be torch.optim.AdamW (or set optimizer.kind)");
    TRY(value_of(s, decay, &v));
    if (v) TRY(set(s, decay, "optimizer", "weight_decay", json_deep_copy(v)));
    if (v) TRY(set(s, decay, "optimizer", "decay_vectors", json_true()));
    TRY(value_of(s, both, &betas));
    if (!betas) return OK;
    if (!json_is_array(betas) || json_array_size(betas) != 2) return refuse(s, both, "should be two numbers");
    TRY(set(s, both, "optimizer", "beta1", json_incref(json_array_get(betas, 0))));
    return set(s, both, "optimizer", "beta2", json_incref(json_array_get(betas, 1)));
}

/* From `from` times the learning rate up to it over `steps` steps. */
static status set_warmup(const style *s, const char *path, double from, double steps) {
    const json_t *lr = config_tree_get(s->to, "optimizer.lr");
    const double top = json_is_number(lr) ? json_number_value(lr) : 3e-4;
    static const char *const own[] = {"schedule.preset", "schedule.kind", "schedule.warmup_steps", "schedule.phases"};
    for (int i = 0; i < 4; i++)
        if (given(s, own[i])) return OK;
    return set(s, path, "schedule", "phases",
               json_pack("[{s:f, s:f, s:f, s:s}, {s:f}]", "until", steps, "from", from * top, "to", top, "shape",
                         "linear", "from", top));
}

/* torch: LinearLR up to 1, then ConstantLR 1, switched at a milestone. */
static status part_torch_schedule(style *s) {
    static const char path[] = "policy.scheduler";
    const json_t *list, *a, *b;
    TRY(value_of(s, path, &list));
    if (!list || s->megatron) return OK;
    if (!json_is_array(list)) return refuse(s, path, "should be a list");
    a = json_array_get(list, 0);
    b = json_array_get(list, 1);
    const char *name_a = json_string_value(json_object_get(a, "name")),
               *name_b = json_string_value(json_object_get(b, "name"));
    const json_t *k = json_object_get(a, "kwargs"), *from = json_object_get(k, "start_factor"),
                 *to = json_object_get(k, "end_factor"), *steps = json_object_get(k, "total_iters");
    const bool warm = name_a && strcmp(name_a, "torch.optim.lr_scheduler.LinearLR") == 0 && json_is_number(from) &&
                      json_number_value(to) == 1 && json_number_value(steps) >= 1;
    const bool flat = name_b && strcmp(name_b, "torch.optim.lr_scheduler.ConstantLR") == 0;
    if (!warm || !flat)
        return refuse(s, path, "is not LinearLR up to 1 and then ConstantLR: use schedule.kind or schedule.phases");
    return set_warmup(s, path, json_number_value(from), json_number_value(steps));
}

static status part_megatron_schedule(style *s) {
    static const char kind[] = "policy.megatron_cfg.scheduler.lr_decay_style",
                      warm[] = "policy.megatron_cfg.scheduler.lr_warmup_iters";
    const char *name;
    double steps, from;
    const json_t *lr = config_tree_get(s->to, "optimizer.lr");
    if (!s->megatron) return OK;
    TRY(text_of(s, kind, "constant", &name));
    TRY(number_of(s, warm, 0, &steps));
    TRY(number_of(s, "policy.megatron_cfg.scheduler.lr_warmup_init", 0, &from));
    if (strcmp(name, "constant") != 0) return refuse(s, kind, "is not constant: use schedule.kind or schedule.phases");
    return steps >= 1 && json_number_value(lr) > 0 ? set_warmup(s, warm, from / json_number_value(lr), steps) : OK;
}

static status part_recompute(style *s) {
    const char *path =
        s->megatron ? "policy.megatron_cfg.activation_checkpointing" : "policy.dtensor_cfg.activation_checkpointing";
    bool on;
    TRY(flag_of(s, path, false, &on));
    return given(s, path) ? set(s, path, "training", "recompute", on ? json_pack("[s]", "block") : json_array()) : OK;
}

static status part_router(style *s) {
    static const char path[] = "policy.megatron_cfg.freeze_moe_router";
    bool frozen;
    if (!s->megatron || !given(s, path)) return OK;
    TRY(flag_of(s, path, true, &frozen));
    return set(s, path, "grpo", "train_router", json_boolean(!frozen));
}

/* An empty list of modules: all linear layers. */
static status part_lora(style *s) {
    static const char on[] = "policy.dtensor_cfg.lora_cfg.enabled", dim[] = "policy.dtensor_cfg.lora_cfg.dim",
                      alpha[] = "policy.dtensor_cfg.lora_cfg.alpha",
                      list[] = "policy.dtensor_cfg.lora_cfg.target_modules";
    bool wanted;
    double rank, scale;
    const json_t *modules;
    TRY(flag_of(s, on, false, &wanted));
    if (!wanted || s->megatron) return OK;
    TRY(number_of(s, dim, 8, &rank));
    TRY(number_of(s, alpha, 32, &scale));
    TRY(value_of(s, list, &modules));
    TRY(set(s, given(s, dim) ? dim : on, "lora", "rank", json_real(rank)));
    TRY(set(s, given(s, alpha) ? alpha : on, "lora", "alpha", json_real(scale)));
    const bool some = json_is_array(modules) && json_array_size(modules);
    return set(s, given(s, list) ? list : on, "lora", "target_modules",
               some ? json_deep_copy(modules) : json_pack("[s]", "proj"));
}

/* vLLM: null and -1 are off. A limit that the sequence has anyway is none. */
static status part_sampling(style *s) {
    static const char top[] = "policy.generation.top_k", most[] = "policy.generation.max_new_tokens";
    double k, tokens, length;
    TRY(number_of(s, top, 0, &k));
    if (given(s, top)) TRY(set(s, top, "rollout", "top_k", json_real(k < 0 ? 0 : k)));
    TRY(number_of(s, most, 0, &tokens));
    TRY(number_of(s, "policy.max_total_sequence_length", INFINITY, &length));
    return given(s, most) ? set(s, most, "rollout", "max_tokens", json_real(tokens < length ? tokens : 0)) : OK;
}

static status part_turns(style *s) {
    double turns;
    TRY(number_of(s, "grpo.max_rollout_turns", 1, &turns));
    return turns == 1 ? OK : refuse(s, "grpo.max_rollout_turns", "should be 1: a prompt is answered once here");
}

/* The estimator's own key, which in NeMo RL goes before grpo's; *path: where it was said. */
static status estimator_flag(const style *s, const char *own, const char *common, bool *out, const char **path) {
    *path = given(s, own) ? own : common;
    return flag_of(s, *path, true, out);
}

/* advantage_estimator.py: normalised or not, against the mean of the others or of all; Reinforce++ normalises over the
 * batch. */
static status part_advantage(style *s) {
    const char *name, *a, *b, *kind;
    bool normal, others, minus;
    TRY(text_of(s, "grpo.adv_estimator.name", "grpo", &name));
    TRY(flag_of(s, "grpo.adv_estimator.minus_baseline", true, &minus));
    TRY(estimator_flag(s, "grpo.adv_estimator.normalize_rewards", "grpo.normalize_rewards", &normal, &a));
    TRY(estimator_flag(s, "grpo.adv_estimator.use_leave_one_out_baseline", "grpo.use_leave_one_out_baseline", &others,
                       &b));
    if (strcmp(name, "reinforce_plus_plus") == 0 && minus)
        return set(s, "grpo.adv_estimator.name", "grpo", "advantage", json_string("batch"));
    if (strcmp(name, "grpo") != 0)
        return refuse(s, "grpo.adv_estimator.name",
                      "is none of grpo, reinforce_plus_plus (with minus_baseline): see grpo.advantage");
    kind = others ? normal ? "leave_one_out" : "rloo" : normal ? "group" : "mean";
    if (!given(s, a) && !given(s, b)) return OK;
    const bool later = config_tree_layer(&s->from, b) > config_tree_layer(&s->from, a);
    return set(s, later ? b : a, "grpo", "advantage", json_string(kind));
}

/* loss_functions.py: the KL is multiplied by exp(logp - sg(logp)) or by the ratio to the sampler, which is the same
 * where one engine does both, and clamped. */
static status part_kl(style *s) {
    static const char beta[] = "loss_fn.reference_policy_kl_penalty",
                      approximate[] = "loss_fn.use_on_policy_kl_approximation";
    double penalty, in, out;
    bool on;
    TRY(number_of(s, beta, 0, &penalty));
    TRY(number_of(s, "loss_fn.kl_input_clamp_value", 20, &in));
    TRY(number_of(s, "loss_fn.kl_output_clamp_value", 10, &out));
    TRY(flag_of(s, approximate, false, &on));
    if (in != 20) return refuse(s, "loss_fn.kl_input_clamp_value", "should be 20");
    if (out != 10) return refuse(s, "loss_fn.kl_output_clamp_value", "should be 10");
    const char *path = given(s, beta) ? beta : approximate;
    if (given(s, beta)) TRY(set(s, beta, "grpo", "kl_beta", json_real(penalty)));
    return penalty > 0 || on ? set(s, path, "grpo", "kl_on_policy", json_true()) : OK;
}

static status part_loss(style *s) {
    static const char tokens[] = "loss_fn.token_level_loss", sequence[] = "loss_fn.sequence_level_importance_ratios",
                      cispo[] = "loss_fn.use_cispo", plain[] = "loss_fn.disable_ppo_ratio";
    bool by_token, gspo, is_cispo, is_plain;
    TRY(flag_of(s, tokens, true, &by_token));
    TRY(flag_of(s, sequence, false, &gspo));
    TRY(flag_of(s, cispo, false, &is_cispo));
    TRY(flag_of(s, plain, false, &is_plain));
    if (gspo + is_cispo + is_plain > 1) return refuse(s, gspo ? sequence : plain, "and another loss are both on");
    if (is_plain) return set(s, plain, "grpo", "loss", json_string("reinforce"));
    if (is_cispo) return set(s, cispo, "grpo", "loss", json_string("cispo"));
    if (gspo) return set(s, sequence, "grpo", "loss", json_string("gspo"));
    return given(s, tokens) ? set(s, tokens, "grpo", "loss", json_string(by_token ? "dapo" : "grpo")) : OK;
}

static status part_scale(style *s) {
    static const char *const path[4] = {"grpo.reward_scaling.source_min", "grpo.reward_scaling.source_max",
                                        "grpo.reward_scaling.target_min", "grpo.reward_scaling.target_max"};
    static const char on[] = "grpo.reward_scaling.enabled";
    double x[4];
    bool wanted;
    TRY(flag_of(s, on, false, &wanted));
    for (int i = 0; i < 4; i++) TRY(number_of(s, path[i], i % 2, &x[i]));
    if (!wanted) return OK;
    return set(s, on, "grpo", "scale", json_pack("[f, f, f, f]", x[0], x[1], x[2], x[3]));
}

/* DAPO's punishment of long completions, as NeMo RL adds it to the reward. */
static status add_shaping(style *s, json_t *rewards) {
    double buffer, penalty, most;
    bool wanted;
    TRY(flag_of(s, "grpo.reward_shaping.enabled", false, &wanted));
    if (!wanted) return OK;
    if (given(s, "grpo.reward_shaping.stop_properly_penalty_coef"))
        return refuse(s, "grpo.reward_shaping.stop_properly_penalty_coef", "should be null: it is not done here");
    TRY(number_of(s, "grpo.reward_shaping.overlong_buffer_length", 128, &buffer));
    TRY(number_of(s, "grpo.reward_shaping.overlong_buffer_penalty", 1, &penalty));
    TRY(number_of(s, "grpo.reward_shaping.max_response_length", 0, &most));
    json_t *r = json_pack("{s:s, s:f, s:I}", "name", "soft_overlong", "weight", penalty, "buffer", (json_int_t)buffer);
    if (most > 0) json_object_set_new(r, "max_length", json_integer((json_int_t)most));
    return json_array_append_new(rewards, r) == 0 ? OK : fail(s->e, ERR_NOMEM, "memory is out");
}

/* env.math judges by the answer. */
static status part_rewards(style *s) {
    static const char math[] = "env.math", shaping[] = "grpo.reward_shaping.enabled";
    json_t *own = json_object_get(json_object_get(s->to->sections, "rollout"), "rewards");
    bool wanted;
    TRY(flag_of(s, shaping, false, &wanted));
    const bool first = json_object_get(json_object_get(s->from.sections, "env"), "math") && !json_is_array(own);
    if (!first && !wanted) return OK;
    json_t *list = json_is_array(own) ? json_deep_copy(own) : json_array();
    if (first) json_array_append_new(list, json_pack("{s:s}", "name", "accuracy"));
    status st = add_shaping(s, list);
    if (st != OK) {
        json_decref(list);
        return st;
    }
    return config_tree_put(s->to, "rollout", "rewards", list, first ? math : shaping, s->e);
}

static status part_checkpointing(style *s) {
    static const char on[] = "checkpointing.enabled", every[] = "checkpointing.save_period",
                      keep[] = "checkpointing.keep_top_k";
    bool wanted;
    double n, steps;
    TRY(flag_of(s, on, true, &wanted));
    TRY(number_of(s, every, 0, &steps));
    TRY(number_of(s, keep, 1 << 20, &n)); /* null: all */
    if (!wanted) TRY(set(s, on, "checkpoint", "every", json_integer(0)));
    else if (given(s, every)) TRY(set(s, every, "checkpoint", "every", json_real(steps)));
    return config_tree_layer(&s->from, keep) >= 0 ? set(s, keep, "checkpoint", "keep_last", json_real(n)) : OK;
}

/* A map with the path of a file, or a list of such maps, as our list of files; a name alone cannot be loaded. */
static status files_of(const style *s, const char *path, const json_t *v, json_t *out) {
    for (size_t i = 0; json_is_array(v) && i < json_array_size(v); i++)
        TRY(files_of(s, path, json_array_get(v, i), out));
    if (json_is_array(v)) return OK;
    const json_t *file = json_is_object(v) ? json_object_get(v, "data_path") : v;
    const char *name = json_string_value(json_object_get(v, "dataset_name"));
    char what[200];
    if (json_is_string(file))
        return json_array_append(out, (json_t *)file) == 0 ? OK : fail(s->e, ERR_NOMEM, "memory is out");
    snprintf(what, sizeof what, "names no file%s%.60s%s: data sets are not downloaded, give %s=FILE.jsonl",
             name ? " but \"" : "", name ? name : "", name ? "\"" : "", path);
    return refuse(s, path, what);
}

static status part_files(style *s, const char *own, const char *older) {
    const json_t *v = config_tree_get(&s->from, own), *old = config_tree_get(&s->from, older);
    const bool theirs = json_is_object(v) || json_is_object(json_array_get(v, 0));
    const char *path = theirs ? own : older;
    if (!theirs && (v || !old)) return OK;
    json_t *list = json_array();
    status st = files_of(s, path, theirs ? v : old, list);
    if (st != OK) {
        json_decref(list);
        return st;
    }
    return set(s, path, "data", own + strlen("data."), list);
}

static status part_data(style *s) {
    static const char name[] = "data.dataset_name";
    TRY(part_files(s, "data.train", "data.train_data_path"));
    TRY(part_files(s, "data.validation", "data.val_data_path"));
    if (!given(s, name) || given(s, "data.train") || given(s, "data.train_data_path")) return OK;
    return refuse(s, name, "is no file: data sets are not downloaded, give data.train=FILE.jsonl");
}

/* NeMo RL repeats a data set; here a prompt is answered several times. */
static status part_validation(style *s) {
    static const char rows[] = "grpo.max_val_samples", times[] = "grpo.val_num_generations_per_prompt",
                      repeat[] = "data.validation.repeat", every[] = "grpo.val_period";
    double n, k, r, steps;
    TRY(number_of(s, every, 0, &steps));
    if (given(s, every)) TRY(set(s, every, "training", "validate_every", json_real(fmax(steps, 0))));
    TRY(number_of(s, rows, 0, &n));
    TRY(number_of(s, times, 1, &k));
    TRY(number_of(s, repeat, 1, &r));
    if (!(r >= 1)) return refuse(s, repeat, "should be 1 or more");
    if (given(s, rows)) TRY(set(s, rows, "data", "validation_rows", json_real(ceil(n / r))));
    if (!given(s, repeat) && !given(s, times)) return OK;
    return set(s, given(s, repeat) ? repeat : times, "grpo", "validation_samples", json_real(k * r));
}

static status (*const parts[])(style *) = {
    part_tokenizer,     part_precision, part_adamw,      part_torch_schedule, part_megatron_schedule,
    part_recompute,     part_router,    part_lora,       part_sampling,       part_turns,
    part_advantage,     part_kl,        part_loss,       part_scale,          part_rewards,
    part_checkpointing, part_data,      part_validation,
};

/* --- the walk ---------------------------------------------------------------------------------------------------- */

/* null, false, 0, and maps of such. */
static bool is_off(const json_t *v) {
    const char *key;
    json_t *x;
    if (!json_is_object(v))
        return json_is_null(v) || json_is_false(v) || (json_is_number(v) && json_number_value(v) == 0) ||
               (json_is_array(v) && !json_array_size(v));
    json_object_foreach((json_t *)v, key, x) {
        if (!is_off(x)) return false;
    }
    return true;
}

static void note_engine(style *s, const char *path) {
    const size_t n = strlen(path);
    for (const char *p = s->engines.p; p && (p = strstr(p, path)); p += n)
        if ((p == s->engines.p || p[-1] == ' ') && (!p[n] || p[n] == ',')) return;
    str_addf(&s->engines, "%s%s", s->engines.n ? ", " : "", path);
}

static status apply(style *s, const rule *r, const char *path, const json_t *raw) {
    const json_t *v;
    char what[160];
    if (r->kind == PART || (r->side == TORCH && s->megatron) || (r->side == MEGATRON && !s->megatron)) return OK;
    if (r->kind == ENGINE) {
        if (!is_off(raw) && !json_is_false(json_object_get(raw, "enabled"))) note_engine(s, r->path);
        return OK;
    }
    if (r->kind == OFF) {
        snprintf(what, sizeof what, "should be off: %s", r->why);
        return is_off(raw) ? OK : refuse(s, path, what);
    }
    TRY(value_of(s, path, &v));
    if (!v && r->kind == COPY) return OK;
    return set(s, path, r->section, r->key, v ? json_deep_copy(v) : json_integer(0));
}

/* Whether a rule lies in the same map as the path. */
static bool is_beside(const rule *r, const char *path) {
    const char *last = strrchr(r->path, '.'), *dot = strrchr(path, '.');
    return last && dot && last - r->path == dot - path && strncmp(path, r->path, (size_t)(dot - path)) == 0;
}

/* The name that was meant, of those beside it before others (or of those alone). NULL: none is near. */
static const char *meant(const char *path, bool beside_only) {
    const char *dot = strrchr(path, '.'), *key = dot ? dot + 1 : path, *best = NULL;
    int least = 1 << 20;
    for (const rule *r = rules; r->path; r++) {
        const char *last = strrchr(r->path, '.');
        const bool beside = is_beside(r, path);
        const int d = config_distance(key, last ? last + 1 : r->path);
        if ((beside_only && !beside) || d > (beside_only ? 2 : 1 + (int)strlen(key) / 4) || 2 * d + !beside >= least)
            continue;
        least = 2 * d + !beside;
        best = r->path;
    }
    return best;
}

static status unknown(const style *s, const char *path) {
    char what[260];
    const char *other = meant(path, false);
    if (other) snprintf(what, sizeof what, "is not a key: did you mean %s?", other);
    else snprintf(what, sizeof what, "is not a key of NeMo RL's that is known here; docs/run_file.md lists them");
    return refuse(s, path, what);
}

/* around: the rule of the map it lies in. */
static status walk(style *s, const char *path, const json_t *v, const rule *around) {
    const rule *r = find(path);
    const char *key;
    json_t *x;
    if (!json_is_object(v) || !goes_deeper(path)) {
        if (r) return apply(s, r, path, v);
        if (json_is_null(v) && goes_deeper(path)) return OK;
        return around && !meant(path, true) ? apply(s, around, path, v) : unknown(s, path);
    }
    if (r && r->kind == ENGINE && json_is_false(json_object_get(v, "enabled"))) return OK;
    json_object_foreach((json_t *)v, key, x) {
        char deeper[300];
        snprintf(deeper, sizeof deeper, "%s.%s", path, key);
        TRY(walk(s, deeper, x, r ? r : around));
    }
    return OK;
}

/* Of a section that both have, the keys that are theirs; what is nobody's is left to the table unless it is nearly one
 * of theirs. */
static status walk_shared(style *s, const char *section, const json_t *keys) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)keys, key, v) {
        char path[200];
        snprintf(path, sizeof path, "%s.%s", section, key);
        if (config_find(section, key)) continue;
        if (!find(path) && !goes_deeper(path) && !meant(path, false)) continue;
        TRY(walk(s, path, v, NULL));
        json_object_del(json_object_get(s->to->sections, section), key);
    }
    return OK;
}

/* A name that is nearly one of their sections. */
static status check_section(const style *s, const char *section) {
    char what[80];
    for (int i = 0; i < FOREIGN && strlen(section) > 3; i++) {
        snprintf(what, sizeof what, "is not a section: did you mean %s?", foreign[i]);
        if (config_distance(section, foreign[i]) == 1) return refuse(s, section, what);
    }
    return OK;
}

static status walk_all(style *s) {
    const char *section;
    json_t *v;
    json_object_foreach(s->from.sections, section, v) {
        TRY(check_section(s, section));
        if (is_foreign(section)) {
            TRY(walk(s, section, v, NULL));
            json_object_del(s->to->sections, section);
        } else if (is_shared(section)) {
            TRY(walk_shared(s, section, v));
        }
    }
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) TRY(parts[i](s));
    return OK;
}

status config_style(config_tree *t, arena *mem, const char **note, error *e) {
    static const char begin[] = "keys of other engines, which do nothing here: ";
    style s = {.to = t, .e = e};
    *note = NULL;
    TRY(config_tree_copy(&s.from, t, e));
    s.megatron = json_is_true(config_tree_get(&s.from, "policy.megatron_cfg.enabled"));
    status st = walk_all(&s);
    if (st == OK) st = str_check(&s.engines, e);
    if (st == OK && s.engines.n) {
        char *text = arena_take(mem, sizeof begin + s.engines.n);
        if (text) memcpy(text, begin, sizeof begin - 1);
        if (text) memcpy(text + sizeof begin - 1, s.engines.p, s.engines.n + 1);
        *note = text;
        if (!text) st = fail(e, ERR_NOMEM, "memory is out");
    }
    str_free(&s.engines);
    config_tree_close(&s.from);
    return st;
}
