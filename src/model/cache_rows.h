/* Writing rows into the caches of a batch's sequences and reading them back as F32. */
#ifndef HADAL_MODEL_CACHE_ROWS_H
#define HADAL_MODEL_CACHE_ROWS_H

#include "model/block.h"

/* The row in cache->rows of position t. */
static inline int64_t cache_row(const cache_rows *cache, int64_t t) {
    return cache->pages ? (int64_t)cache->pages[t / CACHE_PAGE] * CACHE_PAGE + t % CACHE_PAGE : t;
}

/* Row i of the batch ([n][width] of rows, ld apart) becomes the next row of the sequence it belongs to, rounded to the
 * cache's type. */
void cache_append(const part_call *c, cache_slot slot, const real *rows, int64_t ld);

/* out[T][n] = columns first .. first+n-1 of the rows of the first T positions. */
void cache_widen(const part_call *c, real *out, const cache_rows *cache, int64_t first, int64_t n, int64_t T);

#endif
