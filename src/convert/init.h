/* A randomly initialised checkpoint for a configuration (model/init.h has the numbers): F32, BF16 with F32 router
 * biases, or FP8 with block scales. */
#ifndef HADAL_CONVERT_INIT_H
#define HADAL_CONVERT_INIT_H

#include <stdint.h>
#include "convert/convert.h"

typedef int init_progress(void *arg, uint64_t done_bytes, uint64_t total_bytes, const char *what); /* nonzero: stop */

typedef struct init_options {
    const char *config; /* a preset (model/presets.h), a config.json, or a folder with one, whose tokenizer and
                           generation files are copied */
    const char *out;    /* a new or empty folder, or one where the same call was interrupted (whole shards stay) */
    uint64_t seed;
    const char *type; /* "f32", "bf16", "fp8"; NULL: FP8 with a quantization_config, else torch_dtype, else BF16 */
    init_progress *progress;
    void *arg;
} init_options;

typedef struct init_result {
    const char *model_type, *type;
    int64_t parameters; /* of the main model */
    uint64_t tensors, shards, bytes;
} init_result;

status init_run(const init_options *o, init_result *r, error *e);

#endif
