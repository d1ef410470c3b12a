/* Rejection sampling (DeepSeek-R1 report, 2.3.3): completions of every prompt of data.train, scored by rollout.rewards,
 * filtered by `sample`, written as rows for supervised fine-tuning:
 *   {"messages": [..., {"role": "assistant", "content"}] or "prompt", "completion"; "reward", "scores": {name: score},
 *    "tokens", "prompt_tokens", "answer", "pass_rate"}
 * SAMPLE.OUTPUT takes its name when all is done. Until then OUTPUT.partial holds what is there, OUTPUT.progress how far
 * that is; called again it goes on from there. The prompts are those of one pass, in the files' order. */
#ifndef HADAL_POST_SAMPLE_H
#define HADAL_POST_SAMPLE_H

#include "train/run.h"

status sample_run(const train_config *c, const run_hooks *hooks, run_result *out, error *e);

#endif
