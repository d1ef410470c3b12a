/* Rotary position embedding: frequencies of every kind of scaling that the family uses. */
#ifndef HADAL_MODEL_ROPE_H
#define HADAL_MODEL_ROPE_H

#include <stdint.h>
#include "model/config.h"
#include "tensor/real.h"

/* inv_freq[dim/2]; returns the factor on cos and sin (1 unless YaRN's two mscales differ). */
real rope_frequencies(const rope_config *r, int64_t dim, real *inv_freq);

/* table[n][dim/2][2] = cos, sin of positions pos .. pos+n-1. */
void rope_table(real *table, const real *inv_freq, real factor, int64_t dim, int64_t pos, int64_t n);

#endif
