/* FP8 as DeepSeek's checkpoints use it: E4M3 codes with one F32 scale for each block of 128x128 weights, or for each
 * 128 values of a row of activations.
 *
 *     scale = max(|x| over the block, 1e-4) / 448            SCALE_F32
 *           = the next power of two that is not smaller      SCALE_UE8M0 ("scale_fmt": "ue8m0" in config.json)
 *     weights:     code = e4m3(x * (1 / scale))              as DeepGEMM's per_block_cast_to_fp8
 *     activations: code = e4m3(x / scale)                    as act_quant of DeepSeek's inference code
 *     value = code * scale, in F32
 *
 * Rounding is to nearest even, beyond 448 it saturates. Blocks at the edges of a matrix are as large as they are. */
#ifndef HADAL_CONVERT_FP8_H
#define HADAL_CONVERT_FP8_H

#include <stdbool.h>
#include <stdint.h>
#include "tensor/tensor.h"

typedef enum scale_format { SCALE_F32, SCALE_UE8M0 } scale_format;

static inline int64_t fp8_blocks(int64_t n) {
    return n / FP8_BLOCK + (n % FP8_BLOCK != 0);
}

float fp8_scale(float amax, scale_format f);

/* n values of a row of activations: n codes and fp8_blocks(n) scales. */
void fp8_quantize_row(uint8_t *codes, float *scales, const float *x, int64_t n, scale_format f);

/* n values of any floating-point type as F32; src may be unaligned. */
void fp8_load(float *out, dtype type, const void *src, int64_t n);

/* The scale of block (i, j) of a matrix of any floating-point type; its data may be unaligned. NaN and infinities have
 * no scale: false then. */
bool fp8_block_scale(float *scale, const tensor *w, int64_t i, int64_t j, scale_format f);

/* Columns column .. column+n-1 of one row of weights, both ways. `scales` are those of the row's blocks:
 * scales[c / 128] belongs to column c. Decoding gives NaN for the two NaN codes and returns how many there were. */
void fp8_quantize(uint8_t *codes, const float *x, int64_t column, int64_t n, const float *scales);
int64_t fp8_dequantize(float *out, const uint8_t *codes, int64_t column, int64_t n, const float *scales);

#endif
