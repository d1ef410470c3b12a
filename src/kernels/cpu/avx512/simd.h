/* Small pieces of AVX-512 that the products of several levels share. */
#ifndef HADAL_KERNELS_CPU_AVX512_SIMD_H
#define HADAL_KERNELS_CPU_AVX512_SIMD_H

#include <immintrin.h>
#include "kernels/linear_micro.h"

#define INLINE static inline __attribute__((always_inline))

enum { FEW_R = 4 }; /* rows of w at once in few-row products */

/* Sums over the lanes of four vectors each of four rows of w: y[t * ldy + r] = sum of v[r][t], each in the order of
 * _mm512_reduce_add_ps, all sixteen in some three instructions each. Short rows are mostly this. */
INLINE __m512 halves(__m512 a, __m512 b) { /* quarters: a0 + a2, a1 + a3, b0 + b2, b1 + b3 */
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
}
INLINE __m512 quarters(const __m512 v[4]) { /* quarter t: the lanes of v[t], four by four */
    const __m512 a = halves(v[0], v[1]), b = halves(v[2], v[3]);
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}
INLINE __m512 pairs_of(__m512 a, __m512 b) { /* in each quarter: a0 + a2, a1 + a3, b0 + b2, b1 + b3 */
    return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
}
INLINE void store_sums(float *y, int64_t ldy, const __m512 v[FEW_R][4]) {
    const __m512 a = pairs_of(quarters(v[0]), quarters(v[1])), b = pairs_of(quarters(v[2]), quarters(v[3]));
    const __m512 sum = _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
    _mm_storeu_ps(y, _mm512_castps512_ps128(sum));
    _mm_storeu_ps(y + ldy, _mm512_extractf32x4_ps(sum, 1));
    _mm_storeu_ps(y + 2 * ldy, _mm512_extractf32x4_ps(sum, 2));
    _mm_storeu_ps(y + 3 * ldy, _mm512_extractf32x4_ps(sum, 3));
}

/* The sums of R rows of w and n rows of x, to their places. */
INLINE void store_few(float *y, int64_t ldy, __m512 v[FEW_R][4], int R, int n) {
    if (R == FEW_R && n == 4) {
        store_sums(y, ldy, (const __m512(*)[4])v);
        return;
    }
    for (int r = 0; r < R; r++)
        for (int t = 0; t < n; t++) y[t * ldy + r] = _mm512_reduce_add_ps(v[r][t]);
}

/* The first n (at most 16, 32) lanes. */
INLINE __mmask16 first16(int64_t n) {
    return n >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << n) - 1);
}

INLINE __mmask32 first32(int64_t n) {
    return n >= 32 ? (__mmask32)0xffffffffu : (__mmask32)((1u << n) - 1);
}

INLINE __m512 widen_bf16(__m256i codes) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(codes), 16));
}

/* 16 E4M3 codes as F32: moved to F16's place they are 2^-8 of their value, except that NaN (0x7f, 0xff) has no such
 * place there and is made one here. */
INLINE __m512 widen_e4m3(__m128i codes) {
    __m256i c = _mm256_cvtepu8_epi16(codes);
    __m256i magnitude = _mm256_and_si256(c, _mm256_set1_epi16(0x7f));
    __mmask16 nan = _mm256_cmpeq_epi16_mask(magnitude, _mm256_set1_epi16(0x7f));
    __m256i half = _mm256_or_si256(_mm256_slli_epi16(magnitude, 7),
                                   _mm256_slli_epi16(_mm256_and_si256(c, _mm256_set1_epi16(0x80)), 8));
    half = _mm256_mask_mov_epi16(half, nan, _mm256_set1_epi16(0x7e00));
    return _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256));
}

/* Elements i .. i + 15 of a row as F32, zeros where m is. */
INLINE __m512 load_weights(dtype type, const void *row, int64_t i, __mmask16 m) {
    if (type == DT_F32) return _mm512_maskz_loadu_ps(m, (const float *)row + i);
    if (type == DT_E4M3) return widen_e4m3(_mm_maskz_loadu_epi8(m, (const uint8_t *)row + i));
    __m256i codes = _mm256_maskz_loadu_epi16(m, (const uint16_t *)row + i);
    return type == DT_BF16 ? widen_bf16(codes) : _mm512_cvtph_ps(codes);
}

/* To BF16, nearest even, NaN stays NaN: what vcvtneps2bf16 does, but for subnormal numbers. */
INLINE __m256i round_bf16(__m512 v) {
    __m512i u = _mm512_castps_si512(v);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i up = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    up = _mm512_mask_or_epi32(up, nan, u, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(up, 16));
}

/* 16 rows of 16 numbers of 32 bits become 16 columns. */
INLINE void transpose16(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

/* Columns k .. of a block, at most `count`: so few that those of three groups stay in the first cache while all rows
 * of the panel pass by. */
INLINE block_call block_columns(const block_call *c, int64_t k, int64_t count, size_t size) {
    block_call part = *c;
    part.w = (const char *)c->w + (size_t)k * size;
    part.x = (const char *)c->x + (size_t)(k * GROUP) * size;
    part.k = c->k - k < count ? c->k - k : count;
    part.first = c->first && k == 0;
    return part;
}

/* The sums of R rows and G groups; steps that are known to the compiler where they lie as tiles. */
INLINE void take_sums(const block_call *c, const float *to, __m512 sum[16][3], int R, int G) {
    for (int r = 0; r < R; r++)
        for (int g = 0; g < G; g++) sum[r][g] = _mm512_setzero_ps();
    if (c->first) return;
    for (int r = 0; r < R && c->ldc; r++)
        for (int g = 0; g < G; g++) sum[r][g] = _mm512_loadu_ps(to + r * c->ldc + g * GROUP);
    for (int r = 0; r < R && !c->ldc; r++)
        for (int g = 0; g < G; g++) sum[r][g] = _mm512_loadu_ps(to + (g * GROUP + r) * GROUP);
}

INLINE void keep_sums(const block_call *c, float *to, __m512 sum[16][3], int R, int G) {
    for (int r = 0; r < R && c->ldc; r++)
        for (int g = 0; g < G; g++) _mm512_storeu_ps(to + r * c->ldc + g * GROUP, sum[r][g]);
    for (int r = 0; r < R && !c->ldc; r++)
        for (int g = 0; g < G; g++) _mm512_storeu_ps(to + (g * GROUP + r) * GROUP, sum[r][g]);
}

/* Fetches what comes next into the second cache, evenly spread over a block's work: line by line between products. */
typedef struct fetcher {
    region r;
    int64_t column, step; /* lines to fetch at each step */
} fetcher;

/* steps: how often fetch will be called. */
INLINE fetcher fetch_begin(const region *next, int64_t steps) {
    int64_t lines = next->rows * ((next->bytes + 63) / 64);
    return (fetcher){.r = *next, .step = (lines + steps - 1) / steps};
}

INLINE void fetch(fetcher *f) {
    for (int64_t i = 0; i < f->step && f->r.rows > 0; i++) {
        _mm_prefetch(f->r.at + f->column, _MM_HINT_T1);
        f->column += 64;
        if (f->column < f->r.bytes) continue;
        f->column = 0;
        f->r.at += f->r.stride;
        f->r.rows--;
    }
}

/* What a block reads after G groups from g on: up to 3 more, while the rows of the panel pass by these. */
INLINE fetcher groups_ahead(const block_call *c, int64_t g, int G, size_t size) {
    int64_t left = c->groups - g - G;
    region r = {.at = (const char *)c->x + (size_t)((g + G) * c->x_group) * size,
                .rows = left < 3 ? left : 3,
                .bytes = c->k * GROUP * (int64_t)size,
                .stride = c->x_group * (int64_t)size};
    return fetch_begin(&r, c->rows / 8 * (c->k / K_STEP));
}

#endif
