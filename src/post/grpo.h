/* Group relative policy optimization (Shao et al. 2024, DeepSeekMath; DeepSeek-R1 report, 2.2.1) and its relatives.
 *
 * A step: prompts are drawn, the policy answers each `generations` times, rewards judge the answers, advantages compare
 * them inside their groups, and the policy learns from the tokens in one or more optimizer steps. training.steps counts
 * such steps. Checkpoints lie between steps; what a step draws is a function of the weights, the seed and the number of
 * prompts used so far, so a run that was killed and goes on is the same run. */
#ifndef HADAL_POST_GRPO_H
#define HADAL_POST_GRPO_H

#include "train/run.h"

status grpo_run(const train_config *c, const run_hooks *hooks, run_result *out, error *e);

/* What grpo_run makes of a configuration: what reinforcement learning has otherwise than pretraining (no balance loss,
 * no bias updates and no MTP loss unless they are asked for, the router frozen on demand). */
status grpo_settle(train_config *c, error *e);

#endif
