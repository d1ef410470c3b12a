/* Every key of a run file in one table: its name, type, default, range and help. Reading, writing, `hadal train --keys`
 * and docs/run_file.md follow from it. */
#include "train/config_table.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <string.h>

#define AT(field) offsetof(train_config, field)
#define COUNTED(field, n) .at = AT(field), .count = AT(n)
#define TO(most) .min = 0, .max = (most)
#define BIG 9e15 /* integers that doubles hold */

const char config_shapes[] = "constant|linear|cosine";

const config_option config_options[] = {
    {"model", "path", O_TEXT, AT(model.path),
     .help = "a Hugging Face folder; with init: a config.json, its folder or a preset (see hadal init). Required"},
    {"model", "init", O_BOOL, AT(model.init), .help = "start from random weights"},
    {"model", "new_mtp", O_BOOL, AT(model.new_mtp),
     .help = "MTP layers that config.json has and the files lack begin with random weights; else they are left out"},
    {"model", "seed", O_SEED, AT(model.seed), .help = "of random weights and of LoRA's"},

    {"data", "train", O_LIST, AT(data.train),
     .help = "files: .bin, .jsonl, .jsonl.gz, .jsonl.zst; or synthetic. Required"},
    {"data", "validation", O_LIST, AT(data.validation), .help = "files of the same kinds"},
    {"data", "validation_rows", O_INT, AT(data.validation_rows), TO(BIG), .help = "rows of a validation; 0: all"},
    {"data", "tokenizer", O_TEXT, AT(data.tokenizer), .help = "folder with tokenizer.json; null: model.path"},
    {"data", "format", O_WORD, AT(data.options.format), .words = "auto|bin|text|chat|synthetic", .text = "auto",
     .help = "auto: by the name and the first line's keys"},
    {"data", "text_field", O_TEXT, AT(data.options.text_field), .text = "text",
     .help = "member of a JSON line that holds the text"},
    {"data", "seq_len", O_INT, AT(data.options.seq_len), .value = 1024, .min = 1, .max = 1 << 24,
     .help = "tokens of a row"},
    {"data", "packing", O_CHOICE, AT(data.options.packing), .words = "concat|best_fit|none",
     .help = "documents joined and cut; whole documents put together; one document a row"},
    {"data", "document_mask", O_BOOL, AT(data.options.document_mask), .value = 1,
     .help = "attention stops at document borders"},
    {"data", "shuffle", O_BOOL, AT(data.options.shuffle), .value = 1, .help = "another order of rows in every pass"},
    {"data", "seed", O_SEED, AT(data.options.seed), .help = "of the order"},
    {"data", "loss", O_CHOICE, AT(data.options.loss), .words = "all|assistant|last",
     .help = "tokens that count: all, the assistant's, those of its last turn"},
    {"data", "skip_damaged", O_BOOL, AT(data.options.skip_damaged), .help = "damaged lines are reported, not fatal"},
    {"data", "eos", O_EOS, AT(data.options.eos), .value = EOS_AUTO, .min = 0, .max = INT_MAX,
     .help = "token that ends a document: an id, none, or auto: the model's"},
    {"data", "chat_template", O_TEXT, AT(data.options.chat_template), .help = "instead of the tokenizer's own"},

    {"training", "steps", O_INT, AT(training.steps), .value = 1000, TO(BIG),
     .help = "optimizer steps; 0: nothing but the export"},
    {"training", "batch", O_INT, AT(training.batch), .value = 8, .min = 1, .max = 1 << 24,
     .help = "rows of a step, all ranks together"},
    {"training", "micro_batch", O_INT, AT(training.micro_batch), TO(1 << 24),
     .help = "rows computed at once on a rank; 0: the whole share"},
    {"training", "batch_ramp_from", O_REAL, AT(training.batch_ramp_from), TO(1 << 24),
     .help = "rows of the first step when the batch grows"},
    {"training", "batch_ramp_tokens", O_REAL, AT(training.batch_ramp_tokens), TO(1e18),
     .help = "tokens over which it grows to training.batch; 0: it does not"},
    {"training", "precision", O_CHOICE, AT(training.precision), .value = PRECISION_BF16, .words = "f32|bf16|fp8",
     .help = "operands of products; weights, gradients and sums are F32"},
    {"training", "threads", O_INT32, AT(training.threads), TO(4096),
     .help = "of all ranks together; 0: all processors"},
    {"training", "ranks", O_INT32, AT(training.ranks), .value = 1, .min = 1, .max = 1024,
     .help = "data-parallel ranks, each a thread of this process"},
    {"training", "zero", O_BOOL, AT(training.zero), .help = "each rank keeps the moments of its share of the weights"},
    {"training", "expert_parallel", O_INT32, AT(training.expert_parallel), .value = 1, .min = 1, .max = 1024,
     .help = "ranks that share the experts of a layer"},
    {"training", "recompute", O_WORDS, AT(training.recompute), .words = "norm|mla_up|swiglu|block",
     .help = "what backward computes again instead of keeping it"},
    {"training", "validate_every", O_INT, AT(training.validate_every), TO(BIG), .help = "steps; 0: only at the end"},
    {"training", "until_loss", O_REAL, AT(training.until_loss), TO(1e6),
     .help = "the run ends when the loss of a validation is not above it; 0: after training.steps"},
    {"training", "kernels", O_WORD, AT(training.kernels), .words = "portable|avx2|avx512|avx512bf16|amx",
     .help = "null: the best that the machine has"},

    {"objective", "balance_alpha", O_AUTO, AT(objective.balance_alpha), .value = NAN, TO(1e6),
     .help = "sequence-wise balance loss; auto: 1e-4 for DeepSeek-V3 and V3.2, else 0"},
    {"objective", "bias_update_speed", O_AUTO, AT(objective.bias_update_speed), .value = NAN, TO(1e6),
     .help = "of the router's correction bias; auto: 1e-3 for models that have one"},
    {"objective", "bias_schedule", O_PHASES, COUNTED(objective.bias_schedule, objective.n_bias_schedule),
     .help = "the speed in phases instead"},
    {"objective", "bias_unit", O_CHOICE, AT(objective.bias_unit), .value = UNIT_TOKENS, .words = "steps|tokens",
     .help = "of its phases"},
    {"objective", "bias_zero_mean", O_BOOL, AT(objective.bias_zero_mean),
     .help = "re-centre the bias after each update"},
    {"objective", "capacity_factor", O_REAL, AT(objective.capacity_factor), .value = -1, .min = -1, .max = 1e6,
     .help = "pairs an expert takes, over their mean number; 0 or less: dropless"},
    {"objective", "drop_policy", O_CHOICE, AT(objective.drop_policy), .value = DROP_POSITION, .words = "probs|position",
     .help = "an expert that is full drops the least weights; the last tokens"},
    {"objective", "capacity_per_row", O_BOOL, AT(objective.capacity_per_row), .value = 1,
     .help = "capacity counts in each row (MaxText); false: in each micro-batch (Megatron)"},
    {"objective", "sparse_matmul", O_BOOL, AT(objective.sparse_matmul), .value = 1,
     .help = "MaxText's: true is dropless; with capacity_factor it is false"},
    {"objective", "megablox", O_BOOL, AT(objective.megablox), .value = 1,
     .help = "MaxText's choice between grouped products; the numbers are the same here"},
    {"objective", "mtp_weight", O_REAL, AT(objective.mtp_weight), .value = 0.3, TO(1e6),
     .help = "of the MTP loss, in models with MTP layers"},
    {"objective", "mtp_schedule", O_PHASES, COUNTED(objective.mtp_schedule, objective.n_mtp_schedule),
     .help = "the weight in phases instead"},
    {"objective", "mtp_unit", O_CHOICE, AT(objective.mtp_unit), .value = UNIT_TOKENS, .words = "steps|tokens",
     .help = "of its phases"},
    {"objective", "mtp_hidden", O_CHOICE, AT(objective.mtp_hidden), .words = "post_norm|pre_norm",
     .help = "the hidden state that MTP reads: after the final norm, as released weights expect, or before"},
    {"objective", "indexer_loss_scaling_factor", O_REAL, AT(objective.indexer_loss_scaling_factor), TO(1e6),
     .help = "DSA: of the indexer's KL loss; 0: off"},
    {"objective", "indexer_sparse_training", O_BOOL, AT(objective.indexer_sparse_training),
     .help = "DSA: attend to the chosen tokens; false: dense warm-up of the indexer"},
    {"objective", "trainable_parameters_mask", O_MASKS, AT(objective.trainable_parameters_mask),
     .help = "only weights whose name matches one are trained; empty: all"},

    {"optimizer", "kind", O_CHOICE, AT(optimizer.kind), .words = "adamw|muon",
     .help = "muon: hidden matrices, AdamW for the others"},
    {"optimizer", "lr", O_REAL, AT(optimizer.lr), .value = 3e-4, TO(1e3), .help = "learning rate (highest)"},
    {"optimizer", "min_lr", O_REAL, AT(optimizer.min_lr), TO(1e3), .help = "where cosine and wsd end"},
    {"optimizer", "beta1", O_REAL, AT(optimizer.beta1), .value = 0.9, TO(1 - DBL_EPSILON), .help = "AdamW"},
    {"optimizer", "beta2", O_REAL, AT(optimizer.beta2), .value = 0.95, TO(1 - DBL_EPSILON), .help = "AdamW"},
    {"optimizer", "eps", O_REAL, AT(optimizer.eps), .value = 1e-8, .min = 1e-30, .max = 1, .help = "AdamW"},
    {"optimizer", "weight_decay", O_REAL, AT(optimizer.weight_decay), .value = 0.1, TO(1e3), .help = "decoupled"},
    {"optimizer", "clip", O_REAL, AT(optimizer.clip), .value = 1, TO(1e30),
     .help = "largest gradient norm; 0: no clipping"},
    {"optimizer", "bf16_moments", O_BOOL, AT(optimizer.bf16_moments), .help = "moments in BF16, as DeepSeek-V3"},
    {"optimizer", "no_decay", O_MASKS, AT(optimizer.no_decay), .help = "weights without decay, by name"},
    {"optimizer", "decay_vectors", O_BOOL, AT(optimizer.decay_vectors), .help = "norms and biases decay, too"},
    {"optimizer", "groups", O_GROUPS, COUNTED(optimizer.groups, optimizer.n_groups),
     .help = "learning rate by name: [{match: REGEX, scale: NUMBER}, ...], the first that matches"},
    {"optimizer", "skip_spike", O_REAL, AT(optimizer.skip_spike), TO(1e30),
     .help = "skip a step whose gradient norm is so many times the running mean; 0: never"},
    {"optimizer", "muon_momentum", O_REAL, AT(optimizer.muon_momentum), .value = 0.95, TO(1 - DBL_EPSILON),
     .help = "Muon"},
    {"optimizer", "muon_steps", O_INT32, AT(optimizer.muon_steps), .value = 5, .min = 1, .max = 100,
     .help = "Muon: Newton-Schulz iterations"},

    {"schedule", "preset", O_PRESET, .words = "v3",
     .help = "v3: learning rate, MTP weight and bias speed of the DeepSeek-V3 report, 4.2"},
    {"schedule", "kind", O_CHOICE, AT(schedule.kind), .words = "constant|cosine|wsd|table",
     .help = "of the learning rate; table when there are phases"},
    {"schedule", "warmup_steps", O_INT, AT(schedule.warmup_steps), TO(BIG),
     .help = "step s has (s + 1) / warmup_steps of the learning rate"},
    {"schedule", "decay_steps", O_INT, AT(schedule.decay_steps), TO(BIG),
     .help = "wsd: the last steps go down to min_lr"},
    {"schedule", "unit", O_CHOICE, AT(schedule.unit), .words = "steps|tokens", .help = "of the phases"},
    {"schedule", "phases", O_PHASES, COUNTED(schedule.phases, schedule.n_phases),
     .help = "[{until: STEP, from: LR, to: LR, shape: constant|linear|cosine}, ...]"},

    {"lora", "adapter", O_TEXT, AT(lora.adapter),
     .help = "folder of an adapter to go on from; its rank, alpha and modules count; null: a new one"},
    {"lora", "rank", O_INT32, AT(lora.rank), TO(1 << 16), .help = "of adapters; 0: none, all weights are trained"},
    {"lora", "alpha", O_REAL, AT(lora.alpha), .value = 16, TO(1e6), .help = "adapters are scaled by alpha / rank"},
    {"lora", "target_modules", O_MASKS, AT(lora.target_modules), .help = "linear weights that get one, by name"},

    {"rollout", "prompt", O_CHOICE, AT(rollout.prompt), .words = "auto|chat|raw",
     .help = "prompts go through the chat template; stand as they are; auto: texts named prompt as they are"},
    {"rollout", "system", O_TEXT, AT(rollout.system), .help = "system message of every prompt"},
    {"rollout", "thinking", O_CHOICE, AT(rollout.thinking), .words = "auto|on|off",
     .help = "the chat template's switch; auto: as the row or the template says"},
    {"rollout", "begin", O_TEXT, AT(rollout.begin), .help = "what every answer begins with"},
    {"rollout", "temperature", O_REAL, AT(rollout.temperature), .value = 1, TO(100),
     .help = "of sampling, and of the log-probabilities that are learned from"},
    {"rollout", "top_p", O_REAL, AT(rollout.top_p), .value = 1, TO(1), .help = "nucleus; 1: off"},
    {"rollout", "min_p", O_REAL, AT(rollout.min_p), TO(1), .help = "0: off"},
    {"rollout", "top_k", O_INT32, AT(rollout.top_k), TO(1 << 24), .help = "0: off"},
    {"rollout", "max_tokens", O_INT, AT(rollout.max_tokens), TO(1 << 24),
     .help = "of a completion; 0: until prompt and completion are data.seq_len tokens"},
    {"rollout", "sequences", O_INT, AT(rollout.sequences), .value = 256, .min = 1, .max = 1 << 16,
     .help = "completions in the making at once"},
    {"rollout", "drafts", O_INT32, AT(rollout.drafts), TO(16), .help = "MTP drafts a step; 0: off"},
    {"rollout", "seed", O_SEED, AT(rollout.seed), .help = "of completions; the order of prompts is data.seed's"},
    {"rollout", "rewards", O_JSON, AT(rollout.rewards),
     .help = "[{name: accuracy}, {name: format, weight: 0.1}, ...]: docs/rewards.md"},

    {"grpo", "prompts", O_INT, AT(grpo.prompts), .value = 32, .min = 1, .max = 1 << 20, .help = "of a step"},
    {"grpo", "generations", O_INT, AT(grpo.generations), .value = 16, .min = 1, .max = 1 << 16,
     .help = "completions of a prompt: its group"},
    {"grpo", "batch", O_INT, AT(grpo.batch), TO(1 << 24),
     .help = "completions of an optimizer step; 0: all of the rollout"},
    {"grpo", "micro_batch", O_INT, AT(grpo.micro_batch), TO(1 << 24),
     .help = "completions computed at once; 0: some thousand tokens"},
    {"grpo", "epochs", O_INT32, AT(grpo.epochs), .value = 1, .min = 1, .max = 1000,
     .help = "times that a rollout is learned from"},
    {"grpo", "loss", O_CHOICE, AT(grpo.loss), .words = "grpo|dapo|bnpo|dr_grpo|gspo|cispo|reinforce",
     .help = "how tokens are clipped and averaged: docs/grpo.md"},
    {"grpo", "advantage", O_CHOICE, AT(grpo.advantage),
     .words = "group|group_biased|leave_one_out|rloo|mean|batch|reward",
     .help = "what rewards are compared with, and divided by"},
    {"grpo", "clip_low", O_REAL, AT(grpo.clip_low), .value = 0.2, TO(1e6), .help = "ratios below 1 - clip_low"},
    {"grpo", "clip_high", O_REAL, AT(grpo.clip_high), .value = 0.2, TO(1e6), .help = "ratios above 1 + clip_high"},
    {"grpo", "dual_clip", O_REAL, AT(grpo.dual_clip), TO(1e6),
     .help = "c > 1 bounds the loss of bad completions by c times their advantage; 0: off"},
    {"grpo", "kl_beta", O_REAL, AT(grpo.kl_beta), TO(1e6),
     .help = "of the KL penalty; 0: none, and no reference model"},
    {"grpo", "kl", O_CHOICE, AT(grpo.kl), .words = "k3|k1|k2", .help = "its estimator"},
    {"grpo", "kl_on_policy", O_BOOL, AT(grpo.kl_on_policy),
     .help = "NeMo RL's: the KL's gradient has the score-function term, and is clamped"},
    {"grpo", "reference_every", O_INT, AT(grpo.reference_every), TO(BIG),
     .help = "steps after which the reference becomes the policy; 0: never"},
    {"grpo", "dynamic_sampling", O_BOOL, AT(grpo.dynamic_sampling), .help = "groups of equal rewards are replaced"},
    {"grpo", "most_rollouts", O_INT32, AT(grpo.most_rollouts), .value = 10, .min = 1, .max = 1 << 20,
     .help = "of a step, with dynamic_sampling"},
    {"grpo", "mask_unfinished", O_BOOL, AT(grpo.mask_unfinished),
     .help = "completions that the limit cut are not learned from"},
    {"grpo", "scale", O_RANGE, AT(grpo.scale), .help = "[a, b, c, d]: rewards from a..b to c..d"},
    {"grpo", "train_router", O_BOOL, AT(grpo.train_router), .value = 1, .help = "false: routers stay as they are"},
    {"grpo", "validation_samples", O_INT, AT(grpo.validation_samples), .value = 1, TO(1 << 16),
     .help = "of a validation prompt, at rollout.temperature; 0: a greedy one"},

    {"sample", "output", O_TEXT, AT(sample.output), .help = "the conversations that were kept, .jsonl"},
    {"sample", "samples", O_INT32, AT(sample.samples), .value = 16, .min = 1, .max = 1 << 16,
     .help = "completions of a prompt"},
    {"sample", "keep", O_CHOICE, AT(sample.keep), .words = "correct|best|all", .help = "which of them"},
    {"sample", "most", O_INT32, AT(sample.most), TO(1 << 16), .help = "kept of a prompt; 0: all"},
    {"sample", "threshold", O_REAL, AT(sample.threshold), .value = 1, .min = -1e6, .max = 1e6,
     .help = "a completion is correct from this reward on"},
    {"sample", "pass_from", O_REAL, AT(sample.pass_from), TO(1),
     .help = "prompts of which a smaller share of the completions is correct are left out"},
    {"sample", "pass_to", O_REAL, AT(sample.pass_to), .value = 1, TO(1), .help = "or a larger one"},
    {"sample", "where", O_LIST, AT(sample.where),
     .help = "scores that a kept completion has: [\"format >= 1\", \"language >= 0.95\"]"},
    {"sample", "distinct", O_BOOL, AT(sample.distinct), .value = 1, .help = "equal completions count once"},

    {"dpo", "beta", O_REAL, AT(dpo.beta), .value = 0.1, TO(1e6), .help = "of the implicit reward"},
    {"dpo", "sft_weight", O_REAL, AT(dpo.sft_weight), TO(1e6), .help = "of the chosen answer's cross-entropy"},
    {"dpo", "average", O_BOOL, AT(dpo.average), .help = "log-probabilities are averaged over tokens, not summed"},

    {"distill", "teacher", O_TEXT, AT(distill.teacher), .help = "a Hugging Face folder with the same vocabulary"},
    {"distill", "kind", O_CHOICE, AT(distill.kind), .words = "sft|forward|reverse|mixed",
     .help = "sft: the traces alone; else the KL divergence from the teacher"},
    {"distill", "top_k", O_INT32, AT(distill.top_k), .value = 64, .min = 1, .max = 1 << 16,
     .help = "the teacher's most likely tokens that count"},
    {"distill", "temperature", O_REAL, AT(distill.temperature), .value = 1, .min = 1e-3, .max = 100,
     .help = "of both distributions"},
    {"distill", "mixed_weight", O_REAL, AT(distill.mixed_weight), .value = 0.5, TO(1),
     .help = "of the forward KL in mixed"},
    {"distill", "sft_weight", O_REAL, AT(distill.sft_weight), TO(1e6),
     .help = "of the traces' cross-entropy beside it"},
    {"distill", "rest", O_BOOL, AT(distill.rest), .value = 1,
     .help = "what lies outside top_k counts as one more outcome; false: left out"},

    {"eval", "tasks", O_JSON, AT(eval.tasks),
     .help = "[{task: gsm8k, data: test.jsonl, samples: 4, ...}, ...]: a stage of hadal r1, docs/r1.md"},

    {"checkpoint", "folder", O_TEXT, AT(checkpoint.folder),
     .help = "of the run: checkpoints, metrics, this configuration. Required"},
    {"checkpoint", "every", O_INT, AT(checkpoint.every), .value = 1000, TO(BIG), .help = "steps; 0: only at the end"},
    {"checkpoint", "keep_last", O_INT32, AT(checkpoint.keep_last), .value = 2, .min = 1, .max = 1 << 20,
     .help = "checkpoints that stay"},
    {"checkpoint", "keep_best", O_BOOL, AT(checkpoint.keep_best), .help = "and the one of the lowest validation loss"},
    {"checkpoint", "async", O_BOOL, AT(checkpoint.async), .value = 1, .help = "write beside training"},
    {"checkpoint", "resume", O_BOOL, AT(checkpoint.resume), .value = 1,
     .help = "go on from the newest one in the folder"},
    {"checkpoint", "export", O_BOOL, AT(checkpoint.export), .value = 1,
     .help = "write a Hugging Face folder at the end (folder/hf-STEP)"},

    {"metrics", "jsonl", O_BOOL, AT(metrics.jsonl), .value = 1, .help = "folder/metrics.jsonl"},
    {"metrics", "tensorboard", O_BOOL, AT(metrics.tensorboard), .help = "event files"},
    {"metrics", "every", O_INT, AT(metrics.every), .value = 1, .min = 1, .max = BIG, .help = "steps"},
    {0},
};

const config_option *config_find(const char *section, const char *key) {
    for (const config_option *o = config_options; o->section; o++)
        if (strcmp(o->section, section) == 0 && strcmp(o->key, key) == 0) return o;
    return NULL;
}

int config_word(const char *words, const char *word) {
    size_t n = strlen(word);
    int i = 0;
    for (const char *p = words; *p; i++) {
        size_t length = strcspn(p, "|");
        if (length == n && memcmp(p, word, n) == 0) return i;
        p += length + (p[length] == '|');
    }
    return -1;
}

static void set_default(train_config *c, const config_option *o) {
    char *at = (char *)c + o->at;
    switch (o->type) {
    case O_INT: *(int64_t *)(void *)at = (int64_t)o->value; return;
    case O_EOS:
    case O_INT32: *(int32_t *)(void *)at = (int32_t)o->value; return;
    case O_REAL:
    case O_AUTO: *(double *)(void *)at = o->value; return;
    case O_BOOL: *(bool *)(void *)at = o->value != 0; return;
    case O_CHOICE: memcpy(at, &(unsigned){(unsigned)o->value}, sizeof(unsigned)); return; /* any enum */
    case O_TEXT:
    case O_JSON:
    case O_WORD: *(const char **)(void *)at = o->text; return;
    default: return; /* zeros */
    }
}

void train_config_default(train_config *out) {
    memset(out, 0, sizeof *out);
    for (const config_option *o = config_options; o->section; o++) set_default(out, o);
}
