/* Products of many rows with AMX: a tile of 16 rows of w, 32 columns each, just as they lie in memory, times a tile of
 * 32 columns of 16 tokens (laid out in pairs, which is what the instruction wants), adds to a tile [16 rows][16
 * tokens] of F32 sums. Two by two tiles of sums, so that every operand that is loaded is used twice. */
#include "kernels/cpu/avx512/simd.h"

typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16]; /* of a row */
    uint8_t rows[16];
} tile_config;

/* Tiles 0-3: sums; 4, 5: rows of w; 6, 7: tokens. All are 16 rows of 64 bytes. */
static void configure(void) {
    tile_config t = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        t.bytes[i] = 64;
        t.rows[i] = 16;
    }
    _tile_loadconfig(&t);
}

/* 32 rows of w and two groups. */
INLINE void four_tiles(const block_call *c, int64_t row, int64_t group) {
    const uint16_t *w = (const uint16_t *)c->w + row * c->ldw, *x = (const uint16_t *)c->x + group * c->x_group;
    float *to = c->c + row * c->ldc + group * GROUP;
    size_t w_stride = (size_t)c->ldw * 2, c_stride = (size_t)c->ldc * 4;
    if (c->first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, to, c_stride);
        _tile_loadd(1, to + GROUP, c_stride);
        _tile_loadd(2, to + 16 * c->ldc, c_stride);
        _tile_loadd(3, to + 16 * c->ldc + GROUP, c_stride);
    }
    for (int64_t k = 0; k < c->k; k += 32) {
        _tile_loadd(4, w + k, w_stride);
        _tile_loadd(6, x + k * GROUP, 64);
        _tile_loadd(7, x + c->x_group + k * GROUP, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, w + 16 * c->ldw + k, w_stride);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, to, c_stride);
    _tile_stored(1, to + GROUP, c_stride);
    _tile_stored(2, to + 16 * c->ldc, c_stride);
    _tile_stored(3, to + 16 * c->ldc + GROUP, c_stride);
}

/* 16 rows of w and two groups. */
INLINE void two_tiles(const block_call *c, int64_t row, int64_t group) {
    const uint16_t *w = (const uint16_t *)c->w + row * c->ldw, *x = (const uint16_t *)c->x + group * c->x_group;
    float *to = c->c + row * c->ldc + group * GROUP;
    size_t c_stride = (size_t)c->ldc * 4;
    if (c->first) {
        _tile_zero(0);
        _tile_zero(1);
    } else {
        _tile_loadd(0, to, c_stride);
        _tile_loadd(1, to + GROUP, c_stride);
    }
    for (int64_t k = 0; k < c->k; k += 32) {
        _tile_loadd(4, w + k, (size_t)c->ldw * 2);
        _tile_loadd(6, x + k * GROUP, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, x + c->x_group + k * GROUP, 64);
        _tile_dpbf16ps(1, 4, 7);
    }
    _tile_stored(0, to, c_stride);
    _tile_stored(1, to + GROUP, c_stride);
}

/* 16 rows of w and one group. */
INLINE void one_tile(const block_call *c, int64_t row, int64_t group) {
    const uint16_t *w = (const uint16_t *)c->w + row * c->ldw, *x = (const uint16_t *)c->x + group * c->x_group;
    float *to = c->c + row * c->ldc + group * GROUP;
    if (c->first) _tile_zero(0);
    else _tile_loadd(0, to, (size_t)c->ldc * 4);
    for (int64_t k = 0; k < c->k; k += 32) {
        _tile_loadd(4, w + k, (size_t)c->ldw * 2);
        _tile_loadd(6, x + k * GROUP, 64);
        _tile_dpbf16ps(0, 4, 6);
    }
    _tile_stored(0, to, (size_t)c->ldc * 4);
}

static void block(const block_call *c) {
    configure();
    int64_t row = 0;
    for (; row + 32 <= c->rows; row += 32) {
        int64_t g = 0;
        for (; g + 2 <= c->groups; g += 2) four_tiles(c, row, g);
        if (g < c->groups) {
            one_tile(c, row, g);
            one_tile(c, row + 16, g);
        }
    }
    if (row < c->rows) {
        int64_t g = 0;
        for (; g + 2 <= c->groups; g += 2) two_tiles(c, row, g);
        if (g < c->groups) one_tile(c, row, g);
    }
    _tile_release();
}

void amx_linear(linear_micro *m) {
    m->block[COMPUTE_BF16] = block;
}
