/* Reads one safetensors file: 8 bytes little-endian header length, the header (JSON), then the data.
 *
 *   {"__metadata__": {"format": "pt"},
 *    "model.norm.weight": {"dtype": "BF16", "shape": [7168], "data_offsets": [0, 14336]}, ...}
 *
 * Everything in such a file may be hostile. What is accepted is what the format's own reader accepts: header length
 * at most 100,000,000 and inside the file, a header that begins with '{' (it may be padded with spaces), no key twice,
 * metadata from string to string only, byte ranges that follow each other without hole or overlap from 0 to the end
 * of the file, shape times element size = byte range. Scalars (shape []) and empty tensors (a 0 in the shape) are
 * legal. Members of a tensor's object other than the three are ignored. More than TENSOR_DIMS dimensions and element
 * types that dtype.h does not have are ERR_UNSUPPORTED; all else that is wrong is ERR_FORMAT. */
#ifndef HADAL_FORMAT_SAFETENSORS_H
#define HADAL_FORMAT_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "base/file.h"
#include "tensor/tensor.h"

enum { SAFETENSORS_HEADER_MAX = 100000000, SAFETENSORS_MOST = 1 << 18 /* tensors; all of V3 has 91,991 */ };

typedef struct safetensors_entry {
    const char *name;
    tensor t; /* t.data points into the mapping and may be unaligned; NULL in an empty file only */
} safetensors_entry;

typedef struct safetensors {
    mapping map;
    safetensors_entry *entries; /* in the order of their data */
    size_t count;
    const char **meta; /* key, value, key, value, ... , NULL */
    struct arena *memory;
} safetensors;

status safetensors_open(safetensors *out, const char *path, error *e);
/* The same for bytes that the caller keeps; `path` is for error texts. */
status safetensors_parse(safetensors *out, const uint8_t *p, size_t n, const char *path, error *e);
void safetensors_close(safetensors *s); /* accepts a zeroed one */

#endif
