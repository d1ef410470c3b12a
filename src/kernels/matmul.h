/* The way of op_linear when there are more rows than the weights have columns: the same sums as in linear.c, bit by
 * bit, with the weights laid out instead of the rows. */
#ifndef HADAL_KERNELS_MATMUL_H
#define HADAL_KERNELS_MATMUL_H

#include "kernels/queue.h"

bool matmul_takes(const queue *q, const product *list, int count); /* F32 weights and results, many rows */
void matmul_linear(queue *q, const product *list, int count);

#endif
