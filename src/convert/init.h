/* A randomly initialised checkpoint for a configuration: normal weights of standard deviation initializer_range, norms
 * one, biases zero; BF16 (router biases F32), or FP8 with block scales when the configuration has a
 * quantization_config. A tensor's numbers depend on the seed and its name alone. */
#ifndef HADAL_CONVERT_INIT_H
#define HADAL_CONVERT_INIT_H

#include <stdint.h>
#include "base/error.h"

typedef int init_progress(void *arg, uint64_t done_bytes, uint64_t total_bytes, const char *what); /* nonzero: stop */

/* config: a config.json, or a folder with one; tokenizer and generation files beside it are copied. out: a new or empty
 * folder, or one where the same call was interrupted (shards that are complete stay). */
status init_run(const char *config, const char *out, uint64_t seed, init_progress *progress, void *arg, error *e);

#endif
