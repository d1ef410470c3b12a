/* A sum of squares in F64 with the same bits on every level: squares of F32 numbers are exact in F64, and sum j takes
 * the numbers i with i % SUMS = j. A plain loop of which each level's compiler makes its vectors. */
#ifndef HADAL_KERNELS_CPU_SUM_SQUARES_H
#define HADAL_KERNELS_CPU_SUM_SQUARES_H

#include <stdint.h>

static double sum_squares(const float *x, int64_t n) {
    enum { SUMS = 32 };
    double sum[SUMS] = {0};
    int64_t i = 0;
    for (; i + SUMS <= n; i += SUMS)
        for (int j = 0; j < SUMS; j++) sum[j] += (double)x[i + j] * x[i + j];
    for (int j = 0; i < n; i++, j++) sum[j] += (double)x[i] * x[i];
    for (int half = SUMS / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++) sum[j] += sum[j + half];
    return sum[0];
}

#endif
