/* Speed of reinforcement learning on this machine: whole steps of GRPO, rollout and update, but for rewards, which are
 * made up. */
#ifndef HADAL_POST_BENCH_GRPO_H
#define HADAL_POST_BENCH_GRPO_H

#include "base/json.h"
#include "train/config.h"

typedef struct bench_grpo_options {
    const char *path; /* model folder with a tokenizer */
    precision precision;
    const char *kernels;
    int threads;
    int64_t prompts, generations, max_tokens, steps; /* prompts: of a step; those of tiny-r1's sums where the tokenizer
                                                        has their tags, else 64 random tokens */
    int (*progress)(void *arg, uint64_t done, uint64_t total, const char *what);
    void *arg;
} bench_grpo_options;

/* docs/performance.md describes the fields. *out: json_decref it. */
status bench_grpo(const bench_grpo_options *o, json_t **out, error *e);

#endif
