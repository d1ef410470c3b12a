/* The block scales that belong to FP8 weights, by name. */
#ifndef HADAL_CONVERT_SCALES_H
#define HADAL_CONVERT_SCALES_H

#include <stdbool.h>
#include <string.h>
#include "base/str.h"
#include "format/weights_file.h"

#define SCALE_SUFFIX "_scale_inv"

/* The scales of an FP8 weight, checked. */
status scales_find(const weights_entry **out, const weights_file *in, const weights_entry *x, error *e);
/* Is x the scales of an FP8 weight? Scales of anything else are an error. */
status scales_are(bool *out, const weights_file *in, const weights_entry *x, error *e);

#endif
