/* The products of training in E4M3 (COMPUTE_FP8, see train_ops.h): what op_linear, op_linear_dx and op_linear_dw hand
 * over. Entries
 * that ask for F32, and those of inference (transposed, or weights that are neither F32 nor BF16), are left alone. */
#ifndef HADAL_KERNELS_FP8_PRODUCT_H
#define HADAL_KERNELS_FP8_PRODUCT_H

#include "kernels/queue.h"
#include "kernels/train_ops.h"

bool fp8_takes(const queue *q, const product *p); /* the queue computes in FP8, and nothing exempts the product */
void fp8_linear(queue *q, const product *list, int count);
void fp8_linear_dx(queue *q, const product_dx *list, int count);
void fp8_linear_dw(queue *q, const product_dw *list, int count);

/* The scale max(amax, 1e-4) / 448 of n numbers, and 128 numbers x / scale rounded to E4M3 (nearest even, saturating,
 * NaN stays NaN), as numbers. */
float fp8_tile_scale(const float *x, int64_t n, bool powers);
void fp8_tile_round(float *restrict to, const float *restrict x, float scale);

#endif
