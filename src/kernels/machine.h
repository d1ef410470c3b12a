/* What this machine can do at most, measured: the limits that speeds of the program are judged by. */
#ifndef HADAL_KERNELS_MACHINE_H
#define HADAL_KERNELS_MACHINE_H

#include "kernels/ops.h"

typedef struct machine_result {
    const char *level;
    int threads;
    double read_gbs;    /* 10^9 bytes read from memory a second, all threads together */
    double read_gib;    /* over a buffer of this size, in GiB: beyond the caches, if memory allows */
    double f32_gflops;  /* 10^9 multiplications and additions a second, in registers alone */
    double bf16_gflops; /* the same of BF16 products: tiles, vdpbf16ps, or F32 where there is neither */
} machine_result;

/* Takes about a second (more where the system is slow to find the memory). name: a level as in queue_open. */
status machine_measure(int threads, const char *name, machine_result *out, error *e);

/* Multiplications and additions a second of the products that a queue computes in, on its threads, in registers alone.
 * Takes a tenth of a second. */
status machine_peak(queue *q, double *flops, error *e);

#endif
