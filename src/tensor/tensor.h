/* A tensor is a view: it never owns memory. */
#ifndef HADAL_TENSOR_TENSOR_H
#define HADAL_TENSOR_TENSOR_H

#include <stdint.h>
#include "tensor/dtype.h"

enum { TENSOR_DIMS = 4, FP8_BLOCK = 128 };

typedef struct tensor {
    const void *data; /* rows of dim[ndim-1] elements, contiguous; aligned to the element size */
    dtype type;
    int ndim;                 /* 0: a scalar */
    int64_t dim[TENSOR_DIMS]; /* outermost first */
    /* Block scales of DT_E4M3 weights ([ceil(rows/128)][ceil(cols/128)], F32, HF's weight_scale_inv), or NULL:
     * value(r, c) = e4m3(data[r][c]) * scale[((row0 + r) / 128) * scale_stride + c / 128]. */
    const float *scale;
    int64_t scale_stride, row0;
} tensor;

static inline int64_t tensor_count(const tensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->ndim; i++) n *= t->dim[i];
    return n;
}

/* Rows first .. first+n-1 of a matrix; scales keep their blocks. */
static inline tensor tensor_rows(const tensor *t, int64_t first, int64_t n) {
    tensor s = *t;
    s.data = (const char *)t->data + (size_t)(first * t->dim[1]) * dtype_size(t->type);
    s.dim[0] = n;
    s.row0 = t->row0 + first;
    return s;
}

#endif
