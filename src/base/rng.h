/* Counter-based random numbers: a value is a pure function of (seed, stream, counter), so a result does not depend
 * on threads, layout or order. The mixer is Philox4x32-10 (Salmon et al., SC'11). */
#ifndef HADAL_BASE_RNG_H
#define HADAL_BASE_RNG_H

#include <stdint.h>

/* Four independent 32-bit words. */
void rng_words(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t out[4]);
/* Uniform in [0, 1) with 53 bits. */
double rng_uniform(uint64_t seed, uint64_t stream, uint64_t counter);
/* Standard normal (Box-Muller). */
double rng_normal(uint64_t seed, uint64_t stream, uint64_t counter);

#endif
