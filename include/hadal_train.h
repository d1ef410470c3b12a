/* hadal: training. Same rules as hadal.h.
 *
 * A training is described by a run file (docs/run_file.md) and overrides of its keys; everything it makes lies in the
 * folder that checkpoint.folder names: the effective run file, metrics, checkpoints. Called again with the same folder
 * it goes on where it stopped. */
#ifndef HADAL_TRAIN_H
#define HADAL_TRAIN_H

#include "hadal.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hadal_number {
    const char *name;
    double value;
} hadal_number;

/* A step as metrics.jsonl has it. NaN: not part of this run, or not in this step. */
typedef struct hadal_train_step {
    int64_t step, steps; /* 1 .. steps */
    double tokens;       /* seen so far */
    double loss, lm_loss, mtp_loss, balance_loss, indexer_loss, mtp_acceptance, validation_loss;
    double grad_norm, lr;
    int skipped; /* the step changed nothing: its gradients were not finite, or a spike */
    double seconds, tokens_per_second, mfu, memory /* resident bytes */, max_vio, dropped;
    const hadal_number *more; /* what post-training has to tell: "reward", "completion_tokens" ... */
    int n_more;
} hadal_train_step;

typedef struct hadal_train_options {
    size_t size;
    const char *run_file;         /* NULL: defaults and overrides alone */
    const char *const *overrides; /* "section.key=value" */
    int n_overrides;
    int (*step)(void *arg, const hadal_train_step *s); /* after every step; nonzero: save and end */
    void (*note)(void *arg, const char *line);         /* one sentence that a person should see */
    hadal_progress *progress;                          /* reading and tokenizing; nonzero cancels */
    void *arg;
} hadal_train_options;

/* Runs to the end, or until `step` asks to stop. json (may be NULL): steps, tokens, seconds, loss, validation_loss,
 * skipped, stopped, folder, and `exported` when a Hugging Face folder was written. */
HADAL_API int hadal_train(const hadal_train_options *o, char **json, hadal_error *e);

/* Post-training, described by the same run files; all go on where they stopped.
 *   grpo     group relative policy optimization and its relatives (docs/grpo.md)
 *   sample   completions of prompts, scored and filtered, written as conversations (docs/sample.md); json: what was
 * kept distill  from a teacher's traces or its distribution (docs/distill.md) dpo      direct preference optimization
 * (docs/dpo.md) */
HADAL_API int hadal_grpo(const hadal_train_options *o, char **json, hadal_error *e);
HADAL_API int hadal_sample(const hadal_train_options *o, char **json, hadal_error *e);
HADAL_API int hadal_distill(const hadal_train_options *o, char **json, hadal_error *e);
HADAL_API int hadal_dpo(const hadal_train_options *o, char **json, hadal_error *e);

/* The stages of a recipe, one after the other, from one file (docs/r1.md). `note` says which stage begins, `step` tells
 * the steps of the stage under way. json (may be NULL): done, stages, stopped, steps, tokens and seconds of this call,
 * folder, exported (the last model), report (a page). hadal_r1_plan does nothing: json is the folder and the list of
 * stages. */
HADAL_API int hadal_r1(const hadal_train_options *o, char **json, hadal_error *e);
HADAL_API int hadal_r1_plan(const hadal_train_options *o, char **json, hadal_error *e);

/* All reward functions with their members, as text; owned by the caller. */
HADAL_API int hadal_rewards(char **text, hadal_error *e);

/* Every key of run files with type, default and meaning, as text; owned by the caller. */
HADAL_API int hadal_train_keys(char **text, hadal_error *e);

/* Training speed: steps on random tokens of batch x seq_len (0: those of the run file), weights and optimizer included.
 * path: a model folder or config.json (random weights). precision: "f32", "bf16", "fp8". tokens: NULL, or a .bin file
 * to take rows from. json: tokens a second (best and median step), MFU, share of the machine's product peak, memory. */
typedef struct hadal_bench_train_options {
    size_t size;
    const char *path, *tokens, *precision, *kernels;
    int threads, batch, seq_len, steps;
    hadal_progress *progress;
    void *progress_arg;
} hadal_bench_train_options;
HADAL_API int hadal_bench_train(const hadal_bench_train_options *o, char **json, hadal_error *e);

/* Speed of GRPO: steps of rollout and update with made-up rewards. path: a model folder with a tokenizer. json:
 * completions a second, tokens a second of rollout and update, and the share of each. */
typedef struct hadal_bench_grpo_options {
    size_t size;
    const char *path, *precision, *kernels;               /* precision NULL: "f32" */
    int threads, prompts, generations, max_tokens, steps; /* 0: all; 24; 8; 40; 10 */
    hadal_progress *progress;
    void *progress_arg;
} hadal_bench_grpo_options;
HADAL_API int hadal_bench_grpo(const hadal_bench_grpo_options *o, char **json, hadal_error *e);

#ifdef __cplusplus
}
#endif

#endif
