/* FNV-1a in 64 bits: for telling things apart that nobody forges. A hash goes on from another, the first one from
 * HASH_BEGIN. */
#ifndef HADAL_BASE_HASH_H
#define HADAL_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define HASH_BEGIN UINT64_C(0xcbf29ce484222325)

static inline uint64_t hash_bytes(uint64_t h, const void *p, size_t n) {
    for (size_t i = 0; i < n; i++) h = (h ^ ((const unsigned char *)p)[i]) * UINT64_C(0x100000001b3);
    return h;
}

#endif
