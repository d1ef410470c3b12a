/* A random order of n rows for every epoch that needs no memory. */
#ifndef HADAL_DATA_ORDER_H
#define HADAL_DATA_ORDER_H

#include <stdint.h>

/* Where row i of 0..n-1 of an epoch stands; for fixed seed, epoch and n a permutation of 0..n-1. */
int64_t order_at(uint64_t seed, int64_t epoch, int64_t n, int64_t i);

#endif
