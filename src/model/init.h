/* Random weights. A weight's numbers depend on the seed and its name alone: files (hadal init) and a trainer's memory
 * get the same ones. */
#ifndef HADAL_MODEL_INIT_H
#define HADAL_MODEL_INIT_H

#include <stdint.h>
#include "model/model.h"

/* Norms are one and biases zero; matrices are normal, with standard deviation
 *   initializer_range, or
 *   "initializer_scheme": "fan_in" in config.json: 0.7 for the embedding, 0.02 for the head, columns^-0.5 for the
 * others, times 0.3 where a branch returns to the residual stream (o_proj, down_proj): a token's identity stays loud in
 * it. Copies of embedding and head in MTP layers are those of the main model (V3 report, 2.2: they share them). */
double init_deviation(const model_config *c, const weight_item *w); /* of a matrix */
void init_rows(const model_config *c, uint64_t seed, const weight_item *w, int64_t first, int64_t n, float *to);
void init_fill(const model_config *c, uint64_t seed, const weight_item *w, float *to); /* all rows */

#endif
