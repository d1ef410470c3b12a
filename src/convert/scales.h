/* The block scales that belong to FP8 weights, by name. */
#ifndef HADAL_CONVERT_SCALES_H
#define HADAL_CONVERT_SCALES_H

#include <stdbool.h>
#include <string.h>
#include "base/error.h"
#include "format/weights_file.h"

#define SCALE_SUFFIX "_scale_inv"

static inline bool name_ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

/* The scales of an FP8 weight, checked. */
status scales_find(const weights_entry **out, const weights_file *in, const weights_entry *x, error *e);
/* Is x the scales of an FP8 weight? Scales of anything else are an error. */
status scales_are(bool *out, const weights_file *in, const weights_entry *x, error *e);

#endif
