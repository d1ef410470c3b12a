/* A folder of policy losses: checkpoint/, golden.json (the variants: constants, loss), golden.safetensors (completions,
 * rewards, log-probabilities, and for each variant advantages, ratios, KLs, losses of tokens, gradients). */
#ifndef HADAL_TESTS_GOLD_GRPO_H
#define HADAL_TESTS_GOLD_GRPO_H

#include "compare.h"

void gold_grpo(gold *g, const char *folder, const char *file);

#endif
