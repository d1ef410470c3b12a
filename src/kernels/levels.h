/* Levels: sets of instructions that a folder below kernels/cpu/ was written for. Each contains those before it. */
#ifndef HADAL_KERNELS_LEVELS_H
#define HADAL_KERNELS_LEVELS_H

#include "base/error.h"

typedef enum level {
    LEVEL_PORTABLE,   /* plain C: the specification of every kernel */
    LEVEL_AVX2,       /* with FMA and F16C */
    LEVEL_AVX512,     /* F, BW, DQ, VL */
    LEVEL_AVX512BF16, /* with BF16, VNNI and VBMI */
    LEVEL_AMX,        /* with AMX-TILE and AMX-BF16, and Linux's permission to use them */
    LEVEL_COUNT
} level;

level level_best(void); /* what processor and operating system support */
const char *level_name(level l);

/* name: one of "portable", "avx2", "avx512", "avx512bf16", "amx", or NULL for the best. A level that the machine lacks
 * is ERR_UNSUPPORTED, an unknown name ERR_ARG. */
status level_choose(level *out, const char *name, error *e);

#endif
