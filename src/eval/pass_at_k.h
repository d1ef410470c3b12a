/* What several samples of an answer are worth.
 *
 *   pass@k   the chance that one of k samples at least is right, estimated without bias from n samples of which c are
 *            (Chen et al. 2021, eq. 1):  1 - C(n-c, k) / C(n, k) = 1 - prod over i = n-c+1 .. n of (1 - k/i)
 *   cons@k   whether the answer that most of k samples gave is right (DeepSeek-R1, 2.1: cons@64) */
#ifndef HADAL_EVAL_PASS_AT_K_H
#define HADAL_EVAL_PASS_AT_K_H

#include <stdint.h>

/* 0 <= c <= n, 1 <= k <= n */
double pass_at_k(int64_t n, int64_t c, int64_t k);

/* The first sample of those whose answer most of n gave; of equally many the one that came first; -1: nobody votes.
 * camp[i]: samples with the same number gave the same answer; negative: no answer, no vote. */
int majority(const int *camp, int n);

typedef struct mean_error { /* standard error: deviation of one (n-1) over the root of n; 0 for one alone */
    double mean, error;
} mean_error;
mean_error mean_of(const double *x, int64_t n);

/* The k of a report on n samples: 2, 4, 8 ... and n itself. Returns how many were written to k (room for 40). */
int sample_counts(int n, int *k);

#endif
