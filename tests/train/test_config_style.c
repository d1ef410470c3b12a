/* NeMo RL's names: each mapped key, forms that take several keys, who wins over whom, what is refused, the note. The
 * texts are ours; names and values are those of examples/configs/grpo_math_1B.yaml and its recipes at 7ea279a. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
#include "train/config_table.h"
#include <cmocka.h>

static const char base_text[] = "policy:\n  model_name: m\n  max_total_sequence_length: 512\n"
                                "data: {train: [a.jsonl]}\n"
                                "checkpointing: {checkpoint_dir: results/grpo}\n";

static arena *mem; /* of the test that runs */

static int setup(void **state) {
    (void)state;
    mem = arena_open(1 << 12);
    return mem ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    arena_close(mem);
    return 0;
}

static train_config good(const char *text, const char *const *overrides, int n) {
    train_config c;
    error e;
    if (config_parse(&c, text, strlen(text), "nemo.yaml", overrides, n, mem, &e) != OK)
        fail_msg("%s: %s", text, e.text);
    return c;
}

/* base_text with some overrides; the list ends with NULL. */
static train_config with(const char *const *overrides) {
    int n = 0;
    while (overrides[n]) n++;
    return good(base_text, overrides, n);
}
#define WITH(...) with((const char *const[]){__VA_ARGS__, NULL})

static void refused_with(const char *override, const char *more, const char *a, const char *b) {
    train_config c;
    error e = {0};
    const char *overrides[] = {override, more};
    status s = config_parse(&c, base_text, sizeof base_text - 1, "nemo.yaml", overrides, more ? 2 : 1, mem, &e);
    if (s == OK) fail_msg("%s was taken", override);
    if (!strstr(e.text, a) || !strstr(e.text, b)) fail_msg("%s: \"%s\" lacks \"%s\" or \"%s\"", override, e.text, a, b);
}

static void refused(const char *override, const char *a, const char *b) {
    refused_with(override, NULL, a, b);
}

/* One key of theirs, one of ours, and what the latter says then. */
static void keys(void **state) {
    (void)state;
    static const char *const table[][4] = {
        {"policy.model_name=org/name", "model", "path", "\"org/name\""},
        {"policy.tokenizer.name=tok", "data", "tokenizer", "\"tok\""},
        {"policy.tokenizer.name=${policy.model_name}", "data", "tokenizer", "null"},
        {"policy.train_global_batch_size=64", "grpo", "batch", "64"},
        {"policy.train_micro_batch_size=2", "grpo", "micro_batch", "2"},
        {"policy.max_total_sequence_length=8192", "data", "seq_len", "8192"},
        {"policy.precision=bfloat16", "training", "precision", "bf16"},
        {"policy.precision=float32", "training", "precision", "f32"},
        {"policy.max_grad_norm=0.5", "optimizer", "clip", "0.5"},
        {"policy.max_grad_norm=null", "optimizer", "clip", "0"},
        {"policy.optimizer.kwargs.lr=2.0e-06", "optimizer", "lr", "2e-06"},
        {"policy.optimizer.kwargs.weight_decay=0.01", "optimizer", "weight_decay", "0.01"},
        {"policy.optimizer.kwargs.weight_decay=0.01", "optimizer", "decay_vectors", "true"},
        {"policy.optimizer.kwargs.betas=[0.8, 0.999]", "optimizer", "beta1", "0.8"},
        {"policy.optimizer.kwargs.betas=[0.8, 0.999]", "optimizer", "beta2", "0.999"},
        {"policy.optimizer.kwargs.eps=1e-6", "optimizer", "eps", "1e-06"},
        {"policy.dtensor_cfg.activation_checkpointing=true", "training", "recompute", "[\"block\"]"},
        {"policy.generation.temperature=0.6", "rollout", "temperature", "0.6"},
        {"policy.generation.top_p=0.95", "rollout", "top_p", "0.95"},
        {"policy.generation.top_k=50", "rollout", "top_k", "50"},
        {"policy.generation.top_k=-1", "rollout", "top_k", "0"},
        {"policy.generation.max_new_tokens=100", "rollout", "max_tokens", "100"},
        {"policy.generation.max_new_tokens=${policy.max_total_sequence_length}", "rollout", "max_tokens", "0"},
        {"grpo.num_prompts_per_step=128", "grpo", "prompts", "128"},
        {"grpo.num_generations_per_prompt=8", "grpo", "generations", "8"},
        {"grpo.max_num_steps=240", "training", "steps", "240"},
        {"grpo.val_period=10", "training", "validate_every", "10"},
        {"grpo.val_period=-1", "training", "validate_every", "0"},
        {"grpo.max_val_samples=256", "data", "validation_rows", "256"},
        {"grpo.val_num_generations_per_prompt=4", "grpo", "validation_samples", "4"},
        {"grpo.overlong_filtering=true", "grpo", "mask_unfinished", "true"},
        {"grpo.seed=42", "rollout", "seed", "42"},
        {"grpo.use_dynamic_sampling=true", "grpo", "dynamic_sampling", "true"},
        {"grpo.dynamic_sampling_max_gen_batches=3", "grpo", "most_rollouts", "3"},
        {"grpo.normalize_rewards=true", "grpo", "advantage", "leave_one_out"},
        {"grpo.normalize_rewards=false", "grpo", "advantage", "rloo"},
        {"grpo.use_leave_one_out_baseline=false", "grpo", "advantage", "group"},
        {"grpo.adv_estimator.name=reinforce_plus_plus", "grpo", "advantage", "batch"},
        {"loss_fn.reference_policy_kl_penalty=0.001", "grpo", "kl_beta", "0.001"},
        {"loss_fn.reference_policy_kl_penalty=0.001", "grpo", "kl_on_policy", "true"},
        {"loss_fn.reference_policy_kl_penalty=0", "grpo", "kl_on_policy", "false"},
        {"loss_fn.reference_policy_kl_type=k2", "grpo", "kl", "k2"},
        {"loss_fn.ratio_clip_min=0.1", "grpo", "clip_low", "0.1"},
        {"loss_fn.ratio_clip_max=0.28", "grpo", "clip_high", "0.28"},
        {"loss_fn.ratio_clip_c=3", "grpo", "dual_clip", "3"},
        {"loss_fn.ratio_clip_c=null", "grpo", "dual_clip", "0"},
        {"loss_fn.token_level_loss=true", "grpo", "loss", "dapo"},
        {"loss_fn.token_level_loss=false", "grpo", "loss", "grpo"},
        {"loss_fn.sequence_level_importance_ratios=true", "grpo", "loss", "gspo"},
        {"loss_fn.use_cispo=true", "grpo", "loss", "cispo"},
        {"loss_fn.disable_ppo_ratio=true", "grpo", "loss", "reinforce"},
        {"checkpointing.checkpoint_dir=results/x", "checkpoint", "folder", "\"results/x\""},
        {"checkpointing.save_period=10", "checkpoint", "every", "10"},
        {"checkpointing.keep_top_k=3", "checkpoint", "keep_last", "3"},
        {"checkpointing.keep_top_k=null", "checkpoint", "keep_last", "1048576"},
        {"checkpointing.enabled=false", "checkpoint", "every", "0"},
        {"data.train={data_path: x.jsonl}", "data", "train", "[\"x.jsonl\"]"},
        {"data.train=[{data_path: x.jsonl}, {data_path: y.jsonl}]", "data", "train", "[\"x.jsonl\", \"y.jsonl\"]"},
        {"data.validation.data_path=v.jsonl", "data", "validation", "[\"v.jsonl\"]"},
        {"data.val_data_path=v.jsonl", "data", "validation", "[\"v.jsonl\"]"},
        {"data.shuffle=false", "data", "shuffle", "false"}, /* one name for both */
        {"env.math.num_workers=8", "rollout", "rewards", "[{\"name\":\"accuracy\"}]"},
        {"logger.tensorboard_enabled=true", "metrics", "tensorboard", "true"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const config_option *o = config_find(table[i][1], table[i][2]);
        train_config c = WITH(table[i][0]);
        str s = {0};
        assert_non_null(o);
        config_put(&s, o, &c);
        if (strcmp(s.p, table[i][3]) != 0) fail_msg("%s: %s.%s is %s", table[i][0], o->section, o->key, s.p);
        str_free(&s);
    }
}

/* What is written is in our names alone, and reads back to the same. */
static void written_in_our_names(void **state) {
    (void)state;
    train_config c = WITH("grpo.num_prompts_per_step=128", "loss_fn.reference_policy_kl_penalty=0.001",
                          "policy.dtensor_cfg.activation_checkpointing=true", "cluster.num_nodes=2", "env.math.x=1");
    str one = {0}, two = {0};
    error e;
    assert_non_null(c.note);
    assert_int_equal(train_config_write(&c, &one, &e), OK);
    assert_null(strstr(one.p, "\npolicy"));
    assert_null(strstr(one.p, "num_prompts_per_step"));
    assert_null(strstr(one.p, "cluster"));
    train_config again = good(one.p, NULL, 0);
    assert_null(again.note);
    assert_int_equal(train_config_write(&again, &two, &e), OK);
    assert_string_equal(one.p, two.p);
    str_free(&one);
    str_free(&two);
}

static void advantages_from_two(void **state) {
    (void)state;
#define N "grpo.normalize_rewards="
#define L "grpo.use_leave_one_out_baseline="
    assert_int_equal(WITH(N "true", L "true").grpo.advantage, ADVANTAGE_LEAVE_ONE_OUT);
    assert_int_equal(WITH(N "false", L "true").grpo.advantage, ADVANTAGE_RLOO);
    assert_int_equal(WITH(N "true", L "false").grpo.advantage, ADVANTAGE_GROUP);
    assert_int_equal(WITH(N "false", L "false").grpo.advantage, ADVANTAGE_MEAN);
    assert_int_equal(WITH("grpo.max_num_steps=1").grpo.advantage, ADVANTAGE_GROUP); /* nobody said anything: ours */
    /* the estimator's own key goes before grpo's, which it usually refers to */
    assert_int_equal(WITH(N "true", "grpo.adv_estimator.normalize_rewards=false").grpo.advantage, ADVANTAGE_RLOO);
    assert_int_equal(WITH(N "false", "grpo.adv_estimator.normalize_rewards=${grpo.normalize_rewards}").grpo.advantage,
                     ADVANTAGE_RLOO);
#undef N
#undef L
}

/* LinearLR from a tenth over 50 steps, then ConstantLR, as the base file has it; lr times it. */
static void schedules(void **state) {
    (void)state;
    static const char torch[] =
        "policy.scheduler=[{name: torch.optim.lr_scheduler.LinearLR, kwargs: {start_factor: 0.1, end_factor: 1.0, "
        "total_iters: 50}}, {name: torch.optim.lr_scheduler.ConstantLR, kwargs: {factor: 1.0, total_iters: "
        "10000000000}}, "
        "{milestones: [50]}]";
    train_config c = WITH(torch, "policy.optimizer.kwargs.lr=2e-6");
    assert_int_equal(c.schedule.kind, SCHEDULE_TABLE);
    /* torch's LinearLR: factor 0.1 + 0.9 s / 50 at step s; products rounded once or twice, so 1e-9 of the value */
    for (int s = 0; s < 60; s++) {
        const double want = 2e-6 * (s < 50 ? 0.1 + 0.9 * s / 50 : 1);
        assert_true(fabs(schedule_lr(&c, s, 0) - want) <= 1e-9 * want);
    }
    c = WITH(torch, "optimizer.lr=1e-6"); /* our lr counts as well */
    assert_true(schedule_lr(&c, 100, 0) == 1e-6);
    c = WITH(torch, "schedule.kind=cosine"); /* who says our schedule gets it */
    assert_int_equal(c.schedule.kind, SCHEDULE_COSINE);
    c = WITH("policy.megatron_cfg.enabled=true", "policy.megatron_cfg.optimizer.lr=5e-7",
             "policy.megatron_cfg.scheduler.lr_warmup_iters=13", "policy.megatron_cfg.scheduler.lr_warmup_init=5e-8",
             "policy.megatron_cfg.scheduler.lr_decay_style=constant");
    assert_true(fabs(schedule_lr(&c, 0, 0) - 5e-8) < 1e-16 && schedule_lr(&c, 13, 0) == 5e-7);
    refused("policy.scheduler=[{name: torch.optim.lr_scheduler.CosineAnnealingLR}]", "policy.scheduler",
            "schedule.kind");
    refused_with("policy.megatron_cfg.scheduler.lr_decay_style=cosine", "policy.megatron_cfg.enabled=true",
                 "lr_decay_style", "schedule.kind");
}

/* Of the two back ends the one that is on counts. */
static void back_ends(void **state) {
    (void)state;
#define BOTH_LR "policy.optimizer.kwargs.lr=1e-6", "policy.megatron_cfg.optimizer.lr=2e-6"
    assert_true(WITH(BOTH_LR).optimizer.lr == 1e-6);
    train_config c =
        WITH(BOTH_LR, "policy.megatron_cfg.enabled=true", "policy.megatron_cfg.freeze_moe_router=true",
             "policy.megatron_cfg.moe_router_bias_update_rate=0.0", "policy.megatron_cfg.optimizer.adam_beta2=0.999",
             "policy.megatron_cfg.activation_checkpointing=true");
    assert_true(c.optimizer.lr == 2e-6 && c.optimizer.beta2 == 0.999 && c.objective.bias_update_speed == 0);
    assert_false(c.grpo.train_router);
    assert_false(c.optimizer.decay_vectors);
    assert_int_equal(c.training.recompute.n, 1);
    c = WITH("policy.megatron_cfg.freeze_moe_router=true", "policy.megatron_cfg.activation_checkpointing=true");
    assert_true(c.grpo.train_router);
    assert_int_equal(c.training.recompute.n, 0);
#undef BOTH_LR
}

static void rewards(void **state) {
    (void)state;
    static const char on[] = "grpo.reward_shaping.enabled=true";
    train_config c = WITH("env.math.num_workers=1", on, "grpo.reward_shaping.overlong_buffer_length=64",
                          "grpo.reward_shaping.overlong_buffer_penalty=0.5",
                          "grpo.reward_shaping.max_response_length=${policy.max_total_sequence_length}");
    assert_string_equal(c.rollout.rewards, "[{\"name\":\"accuracy\"},{\"name\":\"soft_overlong\",\"weight\":0.5,"
                                           "\"buffer\":64,\"max_length\":512}]");
    c = WITH("env.math.num_workers=1", "rollout.rewards=[{name: format}]"); /* ours alone */
    assert_string_equal(c.rollout.rewards, "[{\"name\":\"format\"}]");
    c = WITH("grpo.reward_shaping.overlong_buffer_length=64"); /* not enabled */
    assert_null(c.rollout.rewards);
    c = WITH("grpo.reward_scaling.enabled=true", "grpo.reward_scaling.target_min=-1");
    assert_true(c.grpo.scale[0] == 0 && c.grpo.scale[1] == 1 && c.grpo.scale[2] == -1 && c.grpo.scale[3] == 1);
    c = WITH("grpo.reward_scaling.target_min=-1");
    assert_true(c.grpo.scale[2] == 0);
    refused_with("grpo.reward_shaping.stop_properly_penalty_coef=0.5", on, "stop_properly_penalty_coef", "null");
}

static void adapters(void **state) {
    (void)state;
    static const char on[] = "policy.dtensor_cfg.lora_cfg.enabled=true";
    train_config c = WITH(on, "policy.dtensor_cfg.lora_cfg.dim=4", "policy.dtensor_cfg.lora_cfg.alpha=16",
                          "policy.dtensor_cfg.lora_cfg.target_modules=[q_proj]");
    assert_int_equal(c.lora.rank, 4);
    assert_true(c.lora.alpha == 16);
    assert_string_equal(c.lora.target_modules.item[0], "q_proj");
    assert_int_equal(WITH("policy.dtensor_cfg.lora_cfg.dim=4").lora.rank, 0);
    assert_int_equal(WITH(on).lora.rank, 8); /* its default */
}

/* A repeated validation set is every prompt answered so often. */
static void validation(void **state) {
    (void)state;
    train_config c = WITH("data.validation={data_path: aime.jsonl, repeat: 16}", "grpo.max_val_samples=480");
    assert_int_equal(c.grpo.validation_samples, 16);
    assert_int_equal(c.data.validation_rows, 30);
}

/* Two names for one thing: the upper layer counts; in one file it is an error. */
static void who_wins(void **state) {
    (void)state;
    assert_string_equal(WITH("model.path=ours").model.path, "ours");
    assert_string_equal(WITH("model.path=ours", "policy.model_name=theirs").model.path, "theirs");
    assert_string_equal(WITH("policy.model_name=theirs", "model.path=ours").model.path, "ours");
    train_config c;
    error e;
    static const char both[] = "policy: {model_name: a}\nmodel: {path: b}\n";
    assert_int_equal(config_parse(&c, both, sizeof both - 1, "x.yaml", NULL, 0, mem, &e), ERR_FORMAT);
    assert_string_equal(e.text, "x.yaml:1: policy.model_name and model.path say the same thing: leave one of them out");
}

static void the_note(void **state) {
    (void)state;
    assert_null(WITH("grpo.max_num_steps=3").note);
    train_config c = WITH("policy.generation.vllm_kwargs.compilation_config.use_inductor=False",
                          "policy.generation.vllm_kwargs.compilation_config.backend=eager",
                          "policy.dtensor_cfg.cpu_offload=true", "policy.dtensor_cfg.sequence_parallel=true",
                          "policy.sequence_packing.enabled=false", "policy.draft=null", "cluster.gpus_per_node=8");
    assert_string_equal(c.note, "keys of other engines, which do nothing here: policy.generation.vllm_kwargs, "
                                "policy.dtensor_cfg, cluster");
}

static void refusals(void **state) {
    (void)state;
    refused("policy.train_globl_batch_size=1", "override: policy.train_globl_batch_size is not a key",
            "did you mean policy.train_global_batch_size?");
    refused("policy.optimizer.kwargs.lrr=1", "policy.optimizer.kwargs.lrr", "did you mean policy.optimizer.kwargs.lr?");
    refused("grpo.num_prompts_per_stp=1", "grpo.num_prompts_per_stp", "did you mean grpo.num_prompts_per_step?");
    refused("grpo.generatons=1", "grpo.generatons", "did you mean grpo.generations?"); /* ours */
    refused("loss_fn.zebra=1", "loss_fn.zebra", "docs/run_file.md");
    refused("polcy.model_name=1", "polcy", "did you mean policy?");
    refused("env.code.num_workers=1", "env.code", "docs/run_file.md");
    refused("checkpointing.save_perod=1", "checkpointing.save_perod", "checkpointing.save_period?");
    refused("policy.dtensor_cfg.activation_checkpointin=true", "activation_checkpointin", "activation_checkpointing?");
    refused("policy.precision=float16", "policy.precision", "bfloat16");
    refused("policy.optimizer.name=torch.optim.SGD", "policy.optimizer.name", "AdamW");
    refused("policy.optimizer.kwargs.betas=[1]", "policy.optimizer.kwargs.betas", "two numbers");
    refused("policy.optimizer.kwargs.lr=5000", "override: optimizer.lr is 5000", "outside");
    refused("policy.optimizer.kwargs.amsgrad=true", "amsgrad", "should be off");
    refused("policy.generation.stop_strings=[x]", "stop_strings", "should be off");
    refused("policy.generation.top_k=many", "policy.generation.top_k", "number");
    refused("policy.max_total_sequence_length=${mul:2,3}", "policy.max_total_sequence_length", "give the value");
    refused("policy.max_total_sequence_length=${policy.max_total_sequence_length}", "max_total_sequence_length",
            "give the value"); /* a circle ends */
    refused("grpo.async_grpo.enabled=true", "grpo.async_grpo.enabled", "take turns");
    refused("grpo.max_rollout_turns=3", "grpo.max_rollout_turns", "should be 1");
    refused("grpo.normalize_rewards=5", "grpo.normalize_rewards", "true or false");
    refused("grpo.adv_estimator.name=gdpo", "grpo.adv_estimator.name", "grpo.advantage");
    refused("grpo.advantage_clip_low=-5", "grpo.advantage_clip_low", "should be off");
    refused("loss_fn.kl_input_clamp_value=5", "loss_fn.kl_input_clamp_value", "should be 20");
    refused("loss_fn.use_kl_in_reward=true", "loss_fn.use_kl_in_reward", "should be off");
    refused_with("loss_fn.use_cispo=true", "loss_fn.disable_ppo_ratio=true", "loss_fn.disable_ppo_ratio", "both on");
    refused("reward_penalties.penalize_empty_final_answer=true", "reward_penalties", "rollout.rewards");
    refused("data.train={dataset_name: DeepScaler}", "data.train", "\"DeepScaler\"");
    refused("data.validation={dataset_name: AIME2024}", "data.validation", "not downloaded");
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(keys),
                                       T(written_in_our_names),
                                       T(advantages_from_two),
                                       T(schedules),
                                       T(back_ends),
                                       T(rewards),
                                       T(adapters),
                                       T(validation),
                                       T(who_wins),
                                       T(the_note),
                                       T(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
