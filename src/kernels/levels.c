/* Which instruction sets processor and operating system support: cpuid says what the processor has, xgetbv which
 * registers the operating system saves, and Linux wants to be asked before a process may touch AMX's tiles. */
#define _GNU_SOURCE
#include "kernels/levels.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static const char *const names[LEVEL_COUNT] = {"portable", "avx2", "avx512", "avx512bf16", "amx"};

const char *level_name(level l) {
    return names[l];
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    XSTATE_AVX = 0x06,    /* xmm, ymm */
    XSTATE_AVX512 = 0xe6, /* and masks, zmm */
    XSTATE_TILES = 0x60000,
    XFEATURE_TILE_DATA = 18,
    REQUEST_PERMISSION = 0x1023 /* ARCH_REQ_XCOMP_PERM of asm/prctl.h */
};

static bool has(uint32_t word, int bit) {
    return word >> bit & 1;
}

static uint64_t saved_registers(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

level level_best(void) {
    uint32_t a, b, c, d, a7, b7, c7, d7, a71 = 0, rest;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !__get_cpuid_count(7, 0, &a7, &b7, &c7, &d7)) return LEVEL_PORTABLE;
    if (a7 >= 1) __get_cpuid_count(7, 1, &a71, &rest, &rest, &rest);
    bool fma = has(c, 12), osxsave = has(c, 27), avx = has(c, 28), f16c = has(c, 29), avx2 = has(b7, 5);
    if (!(fma && osxsave && avx && f16c && avx2)) return LEVEL_PORTABLE;
    uint64_t saved = saved_registers();
    if ((saved & XSTATE_AVX) != XSTATE_AVX) return LEVEL_PORTABLE;
    bool f = has(b7, 16), dq = has(b7, 17), bw = has(b7, 30), vl = has(b7, 31);
    if (!(f && dq && bw && vl) || (saved & XSTATE_AVX512) != XSTATE_AVX512) return LEVEL_AVX2;
    bool vbmi = has(c7, 1), vnni = has(c7, 11), bf16 = has(a71, 5);
    if (!(vbmi && vnni && bf16)) return LEVEL_AVX512;
    bool amx_bf16 = has(d7, 22), amx_tile = has(d7, 24);
    if (!(amx_bf16 && amx_tile) || (saved & XSTATE_TILES) != XSTATE_TILES) return LEVEL_AVX512BF16;
    if (syscall(SYS_arch_prctl, REQUEST_PERMISSION, XFEATURE_TILE_DATA) != 0) return LEVEL_AVX512BF16;
    return LEVEL_AMX;
}
#else
level level_best(void) {
    return LEVEL_PORTABLE;
}
#endif

status level_choose(level *out, const char *name, error *e) {
    level best = level_best();
    *out = best;
    if (!name) return OK;
    for (int l = 0; l < LEVEL_COUNT; l++) {
        if (strcmp(names[l], name) != 0) continue;
        if ((level)l > best)
            return fail(e, ERR_UNSUPPORTED, "this machine has no kernel level %s; its best is %s", name, names[best]);
        *out = (level)l;
        return OK;
    }
    return fail(e, ERR_ARG, "unknown kernel level \"%s\": use portable, avx2, avx512, avx512bf16 or amx", name);
}
