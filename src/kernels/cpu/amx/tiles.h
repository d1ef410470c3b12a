/* The shapes of the eight AMX tiles: 16 rows of 64 bytes each, for all kernels of this level. */
#ifndef HADAL_KERNELS_CPU_AMX_TILES_H
#define HADAL_KERNELS_CPU_AMX_TILES_H

#include <immintrin.h>
#include <stdint.h>

typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16]; /* of a row */
    uint8_t rows[16];
} tile_config;

/* A constant and not filled in on the stack: GCC 12's intrinsic says that it reads eight bytes, and the compiler may
 * leave the rest of a local one unwritten. */
static const tile_config tile_shapes = {
    .palette = 1,
    .bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {16, 16, 16, 16, 16, 16, 16, 16},
};

#endif
