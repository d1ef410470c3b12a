/* hadal grpo, sample, distill, dpo: post-training, watched on the terminal. All read run files as hadal train does. */
#include <stdio.h>
#include "cli/commands.h"
#include "cli/watch.h"

typedef struct settings {
    watch_options watch;
    bool rewards;
} settings;

#define AT(field) offsetof(settings, field)
#define WATCH_ROWS                                                                             \
    {"quiet", 'q', NULL, OPT_SWITCH, AT(watch.quiet), 0, 0, "prints no line for each step"}, { \
        "json", 0, NULL, OPT_SWITCH, AT(watch.json), 0, 0,                                     \
            "prints each step, and at the end the result, as one line of JSON"                 \
    }
static const option rows[] = {WATCH_ROWS, {0}};
static const option reward_rows[] = {
    {"rewards", 0, NULL, OPT_SWITCH, AT(rewards), 0, 0, "lists every reward function with its members"},
    WATCH_ROWS,
    {0},
};
#undef AT

static int list_rewards(void) {
    hadal_error e = {0};
    char *text;
    if (hadal_rewards(&text, &e)) return report(&e);
    fputs(text, stdout);
    hadal_free(text);
    return EXIT_FINE;
}

static int run_grpo(void *given, int n, char **args) {
    const settings *o = given;
    return o->rewards ? list_rewards() : watch_run(hadal_grpo, &o->watch, n, args);
}

static int run_sample(void *given, int n, char **args) {
    const settings *o = given;
    return o->rewards ? list_rewards() : watch_run(hadal_sample, &o->watch, n, args);
}

static int run_distill(void *given, int n, char **args) {
    return watch_run(hadal_distill, &((const settings *)given)->watch, n, args);
}

static int run_dpo(void *given, int n, char **args) {
    return watch_run(hadal_dpo, &((const settings *)given)->watch, n, args);
}

const command command_grpo = {
    .name = "grpo",
    .arguments = "RUN.yaml [section.key=value ...]",
    .summary = "reinforcement learning from verifiable rewards (GRPO and its relatives)",
    .more =
        "The model answers prompts, rewards judge the answers, the model learns from the differences inside a group\n"
        "(docs/grpo.md; keys: hadal train --keys). Ctrl-C saves and ends; the same command goes on where it stopped.",
    .examples = "hadal grpo examples/tiny/grpo.yaml checkpoint.folder=./run\n"
                "hadal grpo recipes/grpo-deepscaler-1.5b-8k.yaml policy.model_name=./R1-Distill-Qwen-1.5B\n"
                "hadal grpo --rewards",
    .groups = {{"Options", reward_rows, 0}},
    .max_args = MAX_TEXTS,
    .size = sizeof(settings),
    .run = run_grpo,
};

const command command_sample = {
    .name = "sample",
    .arguments = "RUN.yaml [section.key=value ...]",
    .summary = "rejection sampling: completions of prompts, scored, filtered, written as training data",
    .more = "Every prompt of data.train gets sample.samples completions; those that sample.keep and sample.where let "
            "through\n"
            "become lines of sample.output (docs/sample.md). Stopped, the same command goes on where it was.",
    .examples = "hadal sample model.path=./model data.train=questions.jsonl sample.output=traces.jsonl \\\n"
                "    'rollout.rewards=[{name: accuracy}]' sample.samples=16 sample.most=2 data.seq_len=4096\n"
                "hadal sample rejection.yaml 'sample.where=[\"language >= 0.95\"]'",
    .groups = {{"Options", reward_rows, 0}},
    .max_args = MAX_TEXTS,
    .size = sizeof(settings),
    .run = run_sample,
};

const command command_distill = {
    .name = "distill",
    .arguments = "RUN.yaml [section.key=value ...]",
    .summary = "a student learns from a teacher: its traces, or its distribution",
    .more = "distill.kind: sft (what hadal sample wrote), forward, reverse or mixed KL on the teacher's top_k tokens\n"
            "(docs/distill.md). The student may be of any family that hadal trains.",
    .examples = "hadal distill model.path=./student data.train=traces.jsonl checkpoint.folder=./run\n"
                "hadal distill model.path=./student data.train=traces.jsonl checkpoint.folder=./run \\\n"
                "    distill.kind=forward distill.teacher=./teacher distill.top_k=64",
    .groups = {{"Options", rows, 0}},
    .max_args = MAX_TEXTS,
    .size = sizeof(settings),
    .run = run_distill,
};

const command command_dpo = {
    .name = "dpo",
    .arguments = "RUN.yaml [section.key=value ...]",
    .summary = "direct preference optimization, from pairs of a better and a worse answer",
    .more = "Rows are {\"prompt\", \"chosen\", \"rejected\"}; training.batch counts pairs (docs/dpo.md).",
    .examples = "hadal dpo model.path=./model data.train=pairs.jsonl checkpoint.folder=./run dpo.beta=0.1 \\\n"
                "    optimizer.lr=5e-7 dpo.sft_weight=0.1",
    .groups = {{"Options", rows, 0}},
    .max_args = MAX_TEXTS,
    .size = sizeof(settings),
    .run = run_dpo,
};
