/* What attention in BF16 shares between the folders avx512bf16 and amx: packing, and the softmax that leaves weights
 * in BF16. Two numbers that a product sums together stand side by side in 32 bits: panels are [d / 2][PANEL][2],
 * packed values [keys / 2][d_v][2], weights [keys / 2][queries][2]. */
#ifndef HADAL_KERNELS_CPU_ATTN_BF16_H
#define HADAL_KERNELS_CPU_ATTN_BF16_H

#include "kernels/attn_micro.h"
#include "kernels/cpu/lanes.h"

enum { PAIRS = 16 }; /* pairs in a register */

static inline __mmask32 first_words(int64_t n) {
    return n >= 32 ? 0xffffffffu : n <= 0 ? 0 : (1u << n) - 1;
}

/* Numbers i .. i+31 of a row of d as BF16; zeros behind its end. */
static inline __m512i load_words(const void *row, dtype type, int64_t i, int64_t d) {
    int64_t n = d - i;
    if (type == DT_BF16) {
        const uint16_t *p = (const uint16_t *)row + i;
        return n >= 32 ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16(first_words(n), p);
    }
    const float *p = (const float *)row + i;
    __m512 low = n >= 32 ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps((__mmask16)first_words(n), p);
    __m512 high = n >= 32 ? _mm512_loadu_ps(p + 16) : _mm512_maskz_loadu_ps((__mmask16)(first_words(n) >> 16), p + 16);
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

static inline const void *bf16_row(const void *rows, dtype type, int64_t stride, int64_t i) {
    return (const char *)rows + (size_t)(i * stride) * (type == DT_BF16 ? 2 : 4);
}

/* 16 x 16 numbers of 32 bits. */
static inline __attribute__((always_inline)) void transpose(__m512i r[16]) {
    __m512i t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) { /* now r[i + j] holds column 4 l + j of four rows in lane l */
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        t[j] = _mm512_shuffle_i32x4(r[j], r[j + 4], 0x88); /* lanes 0, 2 of rows 0-3 and 4-7 */
        t[j + 4] = _mm512_shuffle_i32x4(r[j], r[j + 4], 0xdd);
        t[j + 8] = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0x88);
        t[j + 12] = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0xdd);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        r[j] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0x88);
        r[j + 8] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0xdd);
        r[j + 4] = _mm512_shuffle_i32x4(t[j + 4], t[j + 12], 0x88);
        r[j + 12] = _mm512_shuffle_i32x4(t[j + 4], t[j + 12], 0xdd);
    }
}

/* d padded to a multiple of dim_pad, which is even. */
static inline void pack_panel_pairs(void *panel, const void *const *rows, dtype type, int count, int64_t d,
                                    int64_t dim_pad) {
    int64_t pairs = (d + dim_pad - 1) / dim_pad * dim_pad / 2;
    for (int64_t i = 0; i < pairs; i += PAIRS) {
        __m512i r[16];
        for (int c = 0; c < 16; c++) r[c] = c < count ? load_words(rows[c], type, 2 * i, d) : _mm512_setzero_si512();
        transpose(r);
        for (int c = 0; c < 16 && i + c < pairs; c++) _mm512_storeu_si512((char *)panel + (size_t)(i + c) * 64, r[c]);
    }
}

/* Rows of BF16; d padded to dim_pad, the count to row_pad. */
static inline void pack_rows_bf16(void *out, const void *rows, dtype type, int64_t stride, const int32_t *index,
                                  int64_t n, int64_t d, int64_t dim_pad, int64_t row_pad) {
    int64_t width = (d + dim_pad - 1) / dim_pad * dim_pad, padded = (n + row_pad - 1) / row_pad * row_pad;
    uint16_t *o = out;
    for (int64_t r = 0; r < n; r++, o += width) {
        const void *row = bf16_row(rows, type, stride, index ? index[r] : r);
        int64_t i = 0;
        for (; i + 32 <= width; i += 32) _mm512_storeu_si512(o + i, load_words(row, type, i, d));
        if (i < width) _mm512_mask_storeu_epi16(o + i, first_words(width - i), load_words(row, type, i, d));
    }
    memset(o, 0, (size_t)((padded - n) * width) * sizeof *o);
}

/* The words of a and b in turns. */
static inline __attribute__((always_inline)) void interleave(__m512i a, __m512i b, __m512i *first, __m512i *second) {
    const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11),
                  high = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    __m512i x = _mm512_unpacklo_epi16(a, b), y = _mm512_unpackhi_epi16(a, b);
    *first = _mm512_permutex2var_epi64(x, low, y);
    *second = _mm512_permutex2var_epi64(x, high, y);
}

/* d padded to PANEL, the count to row_pad, which is even. */
static inline void pack_values_pairs(void *out, const void *rows, dtype type, int64_t stride, int64_t n, int64_t d,
                                     int64_t row_pad) {
    int64_t width = (d + PANEL - 1) / PANEL * PANEL, padded = (n + row_pad - 1) / row_pad * row_pad;
    char *o = out;
    for (int64_t r = 0; r < n; r += 2, o += width * 4) {
        const void *even = bf16_row(rows, type, stride, r), *odd = bf16_row(rows, type, stride, r + 1);
        for (int64_t i = 0; i < width; i += 32) {
            __m512i a = load_words(even, type, i, d);
            __m512i b = r + 1 < n ? load_words(odd, type, i, d) : _mm512_setzero_si512();
            interleave(a, b, &a, &b);
            _mm512_storeu_si512(o + i * 4, a);
            if (i + 16 < width) _mm512_storeu_si512(o + i * 4 + 64, b);
        }
    }
    memset(o, 0, (size_t)((padded - n) / 2 * width) * 4);
}

/* Turns the scores of a panel, 16 columns of s, into pairs of weights p[(r / 2) * width]; odd counts end with a zero.
 * Returns the correction of what was summed before. `all`: every query sees every key. */
static inline __attribute__((always_inline)) vec softmax_pairs(const attn_step *a, int64_t c, bool all) {
    const __m512i in_turns = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22,
                                              6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    int64_t width = a->panels * PANEL;
    int keys = a->keys;
    const float *s = a->s + c;
    char *p = (char *)a->p + c * 4;
    vec factor = v_set(a->scale), none = v_set(-INFINITY), old = v_load(a->max + c), max = old, other = old;
    __m512i limit = _mm512_loadu_si512(a->seen + c);
    for (int r = 0; r < keys; r += 2) { /* behind the last of an odd number lies something that nobody sees */
        vec x = v_mul(v_load(s + r * width), factor), y = v_mul(v_load(s + (r + 1) * width), factor);
        if (!all) x = v_where(_mm512_cmplt_epi32_mask(_mm512_set1_epi32(r), limit), x, none);
        if (!all || r + 1 == keys) y = v_where(_mm512_cmplt_epi32_mask(_mm512_set1_epi32(r + 1), limit), y, none);
        max = v_max(x, max); /* keeps the old one when x is NaN */
        other = v_max(y, other);
    }
    max = v_max(max, other);
    vec base = v_where(v_less(none, max), max, v_zero()), total = v_zero();
    vec minus = v_sub(v_zero(), base);
    for (int r = 0; r < keys; r += 2) {
        vec x = v_fma(v_load(s + r * width), factor, minus), y = v_fma(v_load(s + (r + 1) * width), factor, minus);
        if (!all) x = v_where(_mm512_cmplt_epi32_mask(_mm512_set1_epi32(r), limit), x, none);
        if (!all || r + 1 == keys) y = v_where(_mm512_cmplt_epi32_mask(_mm512_set1_epi32(r + 1), limit), y, none);
        x = v_exp2(x);
        y = v_exp2(y);
        total = v_add(total, v_add(x, y));
        __m512i words = (__m512i)_mm512_cvtne2ps_pbh(y, x);
        _mm512_storeu_si512(p + r / 2 * width * 4, _mm512_permutexvar_epi16(in_turns, words));
    }
    vec correction = v_exp2(v_sub(old, base));
    v_store(a->max + c, max);
    v_store(a->sum + c, v_fma(v_load(a->sum + c), correction, total));
    return correction;
}

/* The softmax of all queries of a step; correction: [panels * PANEL]. */
static inline void softmax_step(const attn_step *a, float *correction) {
    for (int64_t c = 0; c < a->panels * PANEL; c += PANEL) {
        bool all = true;
        for (int r = 0; r < PANEL; r++) all = all && a->seen[c + r] == a->keys;
        v_store(correction + c, all ? softmax_pairs(a, c, true) : softmax_pairs(a, c, false));
    }
}

#endif
