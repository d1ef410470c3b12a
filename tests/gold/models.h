/* A model folder with reference results: checkpoint/, golden.json, golden.safetensors, and perhaps
 * checkpoint_bf16_expected/, quantize_source.safetensors, golden_logits.jsonl. */
#ifndef HADAL_TESTS_GOLD_MODELS_H
#define HADAL_TESTS_GOLD_MODELS_H

#include "compare.h"

/* All comparisons of one folder; `file` is its name in the lines. quick: the machine's best kernels only. */
void gold_model(gold *g, const char *folder, const char *file, bool quick);

#endif
