/* Products of many rows with AMX: a tile of 16 rows of w, 32 columns each, just as they lie in memory, times a tile of
 * 32 columns of 16 tokens (laid out in pairs, which is what the instruction wants), adds to a tile [16 rows][16
 * tokens] of F32 sums. Two by two tiles of sums, so that every operand that is loaded is used twice. */
#include "kernels/cpu/amx/tiles.h"
#include "kernels/cpu/avx512/simd.h"

/* Tiles 0-3: sums; 4, 5: rows of w; 6, 7: tokens. */

/* R x G tiles of sums: 16 R rows of w and G groups. */
INLINE void tiles(const block_call *c, fetcher *f, int64_t row, int64_t group, int R, int G) {
    const uint16_t *w = (const uint16_t *)c->w + row * c->ldw, *x = (const uint16_t *)c->x + group * c->x_group;
    size_t stride = (size_t)c->ldw * 2;
    float *to = block_tile(c, row, group), *below = block_tile(c, row + 16, group);
    const int64_t next = block_group_step(c), ld = block_row_step(c) * (int64_t)sizeof(float);
    if (c->first) {
        _tile_zero(0);
        if (G > 1) _tile_zero(1);
        if (R > 1) _tile_zero(2);
        if (R > 1 && G > 1) _tile_zero(3);
    } else {
        _tile_loadd(0, to, ld);
        if (G > 1) _tile_loadd(1, to + next, ld);
        if (R > 1) _tile_loadd(2, below, ld);
        if (R > 1 && G > 1) _tile_loadd(3, below + next, ld);
    }
    for (int64_t k = 0; k < c->k; k += K_STEP) {
        _tile_loadd(4, w + k, stride);
        _tile_loadd(6, x + k * GROUP, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (G > 1) _tile_loadd(7, x + c->x_group + k * GROUP, 64);
        if (G > 1) _tile_dpbf16ps(1, 4, 7);
        if (R > 1) _tile_loadd(5, w + 16 * c->ldw + k, stride);
        if (R > 1) _tile_dpbf16ps(2, 5, 6);
        if (R > 1 && G > 1) _tile_dpbf16ps(3, 5, 7);
        fetch(f);
    }
    _tile_stored(0, to, ld);
    if (G > 1) _tile_stored(1, to + next, ld);
    if (R > 1) _tile_stored(2, below, ld);
    if (R > 1 && G > 1) _tile_stored(3, below + next, ld);
}

static void block(const block_call *c) {
    _tile_loadconfig(&tile_shapes);
    fetcher f = fetch_begin(&c->next, (c->rows + 31) / 32 * ((c->groups + 1) / 2) * (c->k / K_STEP) + 1);
    for (int64_t row = 0; row < c->rows; row += 32) {
        int64_t g = 0;
        if (row + 32 <= c->rows) {
            for (; g + 2 <= c->groups; g += 2) tiles(c, &f, row, g, 2, 2);
            if (g < c->groups) tiles(c, &f, row, g, 2, 1);
        } else {
            for (; g + 2 <= c->groups; g += 2) tiles(c, &f, row, g, 1, 2);
            if (g < c->groups) tiles(c, &f, row, g, 1, 1);
        }
    }
    _tile_release();
}

/* Multiplies and adds in tiles, for machine.c. */
static double peak(int64_t rounds, float *keep) {
    float sums[GROUP * GROUP];
    _tile_loadconfig(&tile_shapes);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(6);
    for (int64_t r = 0; r < rounds; r++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 6);
        _tile_dpbf16ps(2, 4, 6);
        _tile_dpbf16ps(3, 4, 6);
    }
    _tile_stored(0, sums, 64);
    _tile_release();
    *keep += sums[0];
    return (double)rounds * 4 * GROUP * GROUP * K_STEP * 2;
}

void amx_linear(linear_micro *m) {
    m->block[COMPUTE_BF16] = block;
    m->peak[COMPUTE_BF16] = peak;
}
