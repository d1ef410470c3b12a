#include "model/init.h"

#include <math.h>
#include <string.h>
#include "base/hash.h"
#include "base/rng.h"
#include "base/str.h"

/* The name whose numbers a weight has: its own, but for the copies in MTP layers. */
static const char *source(const weight_item *w) {
    if (w->owner != OWNER_MTP) return w->name;
    if (name_ends_with(w->name, ".embed_tokens.weight")) return "model.embed_tokens.weight";
    if (name_ends_with(w->name, ".shared_head.head.weight")) return "lm_head.weight";
    return w->name;
}

double init_deviation(const model_config *c, const weight_item *w) {
    if (!c->init_fan_in) return c->initializer_range;
    const char *name = source(w);
    if (name_ends_with(name, "embed_tokens.weight")) return 0.7;
    if (strcmp(name, "lm_head.weight") == 0) return 0.02;
    bool branch_end = name_ends_with(name, ".o_proj.weight") || name_ends_with(name, ".down_proj.weight");
    return (branch_end ? 0.3 : 1) / sqrt((double)w->dim[1]);
}

void init_rows(const model_config *c, uint64_t seed, const weight_item *w, int64_t first, int64_t n, float *to) {
    const int64_t cols = w->ndim == 2 ? w->dim[1] : 1;
    const char *name = source(w);
    const uint64_t stream = hash_bytes(HASH_BEGIN, name, strlen(name)); /* of random numbers */
    const double deviation = init_deviation(c, w);
    for (int64_t i = 0; i < n * cols; i++) {
        if (w->slot->flags & W_ONES) to[i] = 1;
        else if (w->slot->flags & W_ZERO) to[i] = 0;
        else to[i] = (float)(deviation * rng_normal(seed, stream, (uint64_t)(first * cols + i)));
    }
}

void init_fill(const model_config *c, uint64_t seed, const weight_item *w, float *to) {
    init_rows(c, seed, w, 0, w->dim[0], to);
}
