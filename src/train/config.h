/* Run files: one YAML document, every key in one table (config_table.c: name, type, default, help). A file may inherit
 * from others (`defaults:`); keys may be overridden by section.key=value; NeMo RL's names are understood, too. Unknown
 * keys are errors that suggest the nearest one. */
#ifndef HADAL_TRAIN_CONFIG_H
#define HADAL_TRAIN_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/arena.h"
#include "base/error.h"
#include "base/str.h"
#include "data/prompts.h"

enum { MOST_LIST = 64 };

typedef struct string_list {
    const char *item[MOST_LIST];
    int n;
} string_list;

typedef enum precision { PRECISION_F32, PRECISION_BF16, PRECISION_FP8, PRECISIONS } precision;
extern const char *const precision_names[PRECISIONS];
typedef enum mtp_hidden { MTP_POST_NORM, MTP_PRE_NORM } mtp_hidden;
typedef enum drop_policy { DROP_PROBS, DROP_POSITION } drop_policy;
typedef enum dsa_stage { DSA_OFF, DSA_DENSE_WARMUP, DSA_SPARSE } dsa_stage;
typedef enum optimizer_kind { OPTIMIZER_ADAMW, OPTIMIZER_MUON } optimizer_kind;
typedef enum schedule_kind { SCHEDULE_CONSTANT, SCHEDULE_COSINE, SCHEDULE_WSD, SCHEDULE_TABLE } schedule_kind;
typedef enum phase_unit { UNIT_STEPS, UNIT_TOKENS } phase_unit;
typedef enum curve { CURVE_CONSTANT, CURVE_LINEAR, CURVE_COSINE } curve;

typedef struct phase { /* from the end of the phase before until `until`: the value goes from `from` to `to` */
    double until;      /* steps or tokens; infinity: the rest */
    double from, to;
    curve shape;
} phase;

enum { EOS_AUTO = -2 }; /* data.eos: the model's */

typedef struct lr_group { /* learning rate of the weights whose name the regular expression matches, times `scale` */
    const char *match;
    double scale;
} lr_group;

typedef enum advantage_kind {                  /* of a completion with reward r in its group of G */
                              ADVANTAGE_GROUP, /* (r - mean) / (s + 1e-4), s unbiased (DeepSeekMath, 4.1.1; TRL) */
                              ADVANTAGE_GROUP_BIASED,  /* the same with s over G instead of G - 1 */
                              ADVANTAGE_LEAVE_ONE_OUT, /* mean and s of the others, (r - mean) / (s + 1e-6) where s > 0
                                                          (NeMo RL) */
                              ADVANTAGE_RLOO,          /* r - mean of the others (Ahmadian et al. 2024) */
                              ADVANTAGE_MEAN,          /* r - mean (Dr. GRPO, Liu et al. 2025) */
                              ADVANTAGE_BATCH, /* r - mean of the group, over s of the whole batch + 1e-4 (REINFORCE++,
                                                  TRL's "batch") */
                              ADVANTAGE_REWARD /* r itself (REINFORCE) */
} advantage_kind;
typedef enum policy_loss_kind {
    POLICY_GRPO,
    POLICY_DAPO,
    POLICY_BNPO,
    POLICY_DR_GRPO,
    POLICY_GSPO,
    POLICY_CISPO,
    POLICY_REINFORCE
} policy_loss_kind;
typedef enum kl_kind { KL_K3, KL_K1, KL_K2 } kl_kind; /* Schulman 2020, "Approximating KL divergence" */
typedef enum distill_kind { DISTILL_SFT, DISTILL_FORWARD, DISTILL_REVERSE, DISTILL_MIXED } distill_kind;
typedef enum keep_rule { KEEP_CORRECT, KEEP_BEST, KEEP_ALL } keep_rule;

typedef struct train_config {
    const char *note; /* a sentence about the run file that a person should see; NULL: none. Not written */
    struct {
        const char *path; /* a Hugging Face folder (weights and all), or a config.json or preset name with `init` */
        bool init;        /* start from random weights */
        bool new_mtp;     /* MTP layers that the files lack begin with random weights; else they are left out */
        uint64_t seed;
    } model;
    struct {
        string_list train, validation;
        const char *tokenizer; /* folder; NULL: model.path */
        data_options options;  /* paths, tokenizer and callbacks are filled in by the trainer */
        int64_t validation_rows;
    } data;
    struct {
        int64_t steps, batch, micro_batch;         /* rows of a whole step; rows computed at once (per rank) */
        double batch_ramp_from, batch_ramp_tokens; /* rows at the start; tokens until `batch` is reached; 0: no ramp */
        precision precision;
        int threads, ranks;    /* threads of all ranks together; 0: all processors */
        bool zero;             /* ZeRO-1: each rank keeps the moments of its share of the weights */
        int expert_parallel;   /* ranks that share the experts of a layer; 1: every rank has all */
        string_list recompute; /* "norm", "mla_up", "swiglu", "block" */
        int64_t validate_every;
        double until_loss;   /* the run ends when a validation's loss is not above it; 0: never */
        const char *kernels; /* NULL: the best level */
    } training;
    struct {
        /* NaN in the next two: "auto", what the model's kind asks for (V3 report, 4.2) */
        double balance_alpha;     /* sequence-wise balance loss; auto: 1e-4 for deepseek_v3 and deepseek_v32, else 0 */
        double bias_update_speed; /* gamma; 0: off; auto: 1e-3 for models with a correction bias */
        phase bias_schedule[MOST_LIST]; /* overrides the speed when it has phases */
        int n_bias_schedule;
        phase_unit bias_unit;
        bool bias_zero_mean;
        double capacity_factor; /* <= 0: dropless */
        drop_policy drop_policy;
        bool capacity_per_row;        /* MaxText: the capacity counts for each row; else for each micro-batch */
        bool sparse_matmul, megablox; /* MaxText's names: see docs/train.md */
        double mtp_weight; /* lambda, of models with MTP layers; the schedule below overrides it when it has phases */
        phase mtp_schedule[MOST_LIST];
        int n_mtp_schedule;
        phase_unit mtp_unit;
        mtp_hidden mtp_hidden;
        dsa_stage dsa; /* sparse with indexer_sparse_training, else warm-up when the loss has a factor, else off */
        double indexer_loss_scaling_factor;
        bool indexer_sparse_training;
        string_list trainable_parameters_mask; /* regular expressions; empty: everything */
    } objective;
    struct {
        optimizer_kind kind;
        double lr, min_lr, beta1, beta2, eps, weight_decay, clip;
        bool bf16_moments;
        string_list no_decay; /* regular expressions, besides 1-dimensional weights */
        bool decay_vectors;   /* also 1-dimensional weights decay (what torch.optim.AdamW does with all) */
        lr_group groups[MOST_LIST];
        int n_groups;
        double
            skip_spike; /* a step whose gradient norm is more than so many times its running mean is skipped; 0: off */
        double muon_momentum;
        int muon_steps; /* Newton-Schulz iterations */
    } optimizer;
    struct {
        schedule_kind kind;
        int64_t warmup_steps, decay_steps; /* wsd: the last decay_steps steps go down to min_lr */
        phase_unit unit;
        phase phases[MOST_LIST]; /* table; preset "v3": the five phases of the V3 report, 4.2 */
        int n_phases;
    } schedule;
    struct {
        const char *adapter; /* folder of an adapter to go on from (its rank, alpha and modules); NULL: a new one */
        int rank;            /* of a new one; 0: none */
        double alpha;
        string_list target_modules; /* regular expressions over names of linear weights */
    } lora;
    struct { /* post-training: how completions are made and judged */
        prompt_form prompt;
        prompt_thinking thinking;
        const char *system; /* a system message before every prompt; NULL: none */
        const char *begin;  /* what every answer begins with, after the prompt, such as "<think>\n" */
        double temperature, top_p, min_p;
        int top_k;
        int64_t max_tokens; /* of a completion; 0: until data.seq_len */
        int64_t sequences;  /* at once */
        int drafts;
        uint64_t seed;
        const char *rewards; /* JSON list, reward/reward.h */
    } rollout;
    struct {
        int64_t prompts, generations; /* of a rollout: groups, completions of a group */
        int64_t batch, micro_batch;   /* completions of an optimizer step (0: all), of a micro-batch (0: by tokens) */
        int epochs;                   /* times that a rollout is learned from */
        policy_loss_kind loss;
        advantage_kind advantage;
        double clip_low, clip_high, dual_clip;
        double kl_beta;
        kl_kind kl;
        bool kl_on_policy;
        int64_t reference_every; /* steps after which the reference becomes the policy; 0: never */
        bool dynamic_sampling;   /* groups of equal rewards are replaced */
        int most_rollouts;       /* of a step, with dynamic sampling */
        bool mask_unfinished;    /* completions cut by the limit are not learned from */
        double scale[4];         /* rewards from [0]..[1] to [2]..[3]; [0] = [1]: as they are */
        bool train_router;
        int64_t validation_samples; /* a validation prompt; temperature as in rollouts; 0: greedy */
    } grpo;
    struct {
        const char *output; /* .jsonl */
        int samples;        /* completions a prompt */
        keep_rule keep;
        int most;                  /* kept of a prompt; 0: all */
        double threshold;          /* a reward from which on a completion is correct */
        double pass_from, pass_to; /* prompts whose share of correct completions lies in here */
        string_list where;         /* "NAME >= NUMBER": scores that a kept completion has */
        bool distinct;             /* completions with the same text once */
    } sample;
    struct {
        double beta, sft_weight;
        bool average; /* log-probabilities over tokens */
    } dpo;
    struct {
        const char *teacher; /* folder */
        distill_kind kind;
        int top_k;
        double temperature, mixed_weight, sft_weight;
        bool rest; /* the mass outside top_k counts as one outcome */
    } distill;
    struct {
        const char *tasks; /* JSON list of {task, data, limit, samples, ...}: a stage of a pipeline (post/pipeline.h) */
    } eval;
    struct {
        const char *folder; /* of the run: checkpoints, metrics, effective configuration */
        int64_t every;      /* steps; 0: only at the end */
        int keep_last;
        bool keep_best; /* by validation loss */
        bool async;
        bool resume; /* go on from the newest checkpoint in the folder when there is one */
        bool export; /* write a Hugging Face folder at the end (folder/hf-STEP) */
    } checkpoint;
    struct {
        bool jsonl, tensorboard;
        int64_t every;
    } metrics;
} train_config;

/* Reads a run file (NULL: none) and overrides ("section.key=value") into *out. Texts live in `mem`. Everything is
 * checked that can be checked without the model: ranges, choices, regular expressions. */
status train_config_read(train_config *out, const char *path, const char *const *overrides, int n, arena *mem,
                         error *e);
/* The defaults alone. */
void train_config_default(train_config *out);
/* The whole effective configuration as YAML that reads back to the same one. */
status train_config_write(const train_config *c, str *out, error *e);
/* Every key with its default and help, as text for `hadal train --keys` and docs. */
status train_config_help(str *out);

/* Are adapters trained instead of weights? */
static inline bool trains_adapters(const train_config *c) {
    return c->lora.adapter || c->lora.rank;
}

/* Learning rate and batch of step `step` (0-based) that begins after `tokens` tokens. Pure. */
double schedule_lr(const train_config *c, int64_t step, double tokens);
int64_t schedule_batch(const train_config *c, double tokens); /* rows, rounded to a multiple of micro_batch * ranks */
double schedule_mtp_weight(const train_config *c, int64_t step, double tokens);
double schedule_bias_speed(const train_config *c, int64_t step, double tokens); /* NaN: auto */

#endif
