/* A Feistel network over the smallest even number of bits that holds n numbers (Luby and Rackoff 1988), with Philox as
 * its round function, is a permutation of 2^bits numbers; walking on along its cycle while the result is n or more
 * (Black and Rogaway 2002) makes it one of 0..n-1. 2^bits is at most 4 n, so four steps are to be expected at most. */
#include "data/order.h"

#include "base/rng.h"

enum { ROUNDS = 8 };
#define STREAM 0x6f72646572000000u /* "order"; + epoch */

static uint64_t mix(uint64_t seed, int64_t epoch, int half, uint64_t x) {
    const uint64_t low = ((uint64_t)1 << half) - 1;
    uint64_t a = x >> half, b = x & low;
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t w[4];
        rng_words(seed, STREAM + (uint64_t)epoch, b << 8 | (uint64_t)round, w);
        uint64_t t = a ^ (((uint64_t)w[1] << 32 | w[0]) & low);
        a = b;
        b = t;
    }
    return a << half | b;
}

int64_t order_at(uint64_t seed, int64_t epoch, int64_t n, int64_t i) {
    int half = 1;
    while (((int64_t)1 << 2 * half) < n) half++;
    uint64_t x = (uint64_t)i;
    do x = mix(seed, epoch, half, x);
    while (x >= (uint64_t)n);
    return (int64_t)x;
}
