/* A vector of F32 numbers by the names that attn_lanes.h and rows_lanes.h use: 16 lanes in a folder that is compiled
 * with AVX-512, 8 lanes in one with AVX2. Only files of those folders include it. */
#ifndef HADAL_KERNELS_CPU_LANES_H
#define HADAL_KERNELS_CPU_LANES_H

#include <immintrin.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__

enum { LANES = 16 };
typedef __m512 vec;
typedef __mmask16 lanes; /* a choice of lanes */

static inline vec v_load(const float *p) {
    return _mm512_loadu_ps(p);
}
static inline void v_store(float *p, vec x) {
    _mm512_storeu_ps(p, x);
}
static inline vec v_set(float x) {
    return _mm512_set1_ps(x);
}
static inline vec v_zero(void) {
    return _mm512_setzero_ps();
}
static inline vec v_add(vec a, vec b) {
    return _mm512_add_ps(a, b);
}
static inline vec v_sub(vec a, vec b) {
    return _mm512_sub_ps(a, b);
}
static inline vec v_mul(vec a, vec b) {
    return _mm512_mul_ps(a, b);
}
static inline vec v_div(vec a, vec b) {
    return _mm512_div_ps(a, b);
}
static inline vec v_sqrt(vec a) {
    return _mm512_sqrt_ps(a);
}
static inline vec v_max(vec a, vec b) {
    return _mm512_max_ps(a, b);
} /* b where one of them is NaN */
static inline vec v_min(vec a, vec b) {
    return _mm512_min_ps(a, b);
} /* likewise */
static inline vec v_fma(vec a, vec b, vec c) {
    return _mm512_fmadd_ps(a, b, c);
}
static inline vec v_fnma(vec a, vec b, vec c) {
    return _mm512_fnmadd_ps(a, b, c);
} /* c - a b */
static inline vec v_floor(vec a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
static inline float v_sum(vec a) {
    return _mm512_reduce_add_ps(a);
}
static inline lanes v_less(vec a, vec b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}
static inline lanes v_not_less(vec a, vec b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ);
}
static inline vec v_where(lanes m, vec a, vec b) {
    return _mm512_mask_blend_ps(m, b, a);
} /* a where m, else b */
static inline vec v_scale(vec a, vec n) {
    return _mm512_scalef_ps(a, n);
} /* a 2^floor(n) */
static inline vec v_fraction(vec a) {
    return _mm512_reduce_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
static inline vec v_load_bf16(const uint16_t *p) {
    __m512i u = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(u, 16));
}
static inline void v_store_bf16(uint16_t *p, vec x) { /* nearest even; NaN stays NaN */
    __m512i u = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i up = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    up = _mm512_mask_or_epi32(up, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), u, _mm512_set1_epi32(0x400000));
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(up, 16)));
}

/* The sums of four vectors. */
static inline __m128 v_sum4(vec a, vec b, vec c, vec d) {
    vec ab = v_add(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    vec cd = v_add(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    vec x = v_add(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
    __m256 y = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    return _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
}

#else

enum { LANES = 8 };
typedef __m256 vec;
typedef __m256 lanes;

static inline vec v_load(const float *p) {
    return _mm256_loadu_ps(p);
}
static inline void v_store(float *p, vec x) {
    _mm256_storeu_ps(p, x);
}
static inline vec v_set(float x) {
    return _mm256_set1_ps(x);
}
static inline vec v_zero(void) {
    return _mm256_setzero_ps();
}
static inline vec v_add(vec a, vec b) {
    return _mm256_add_ps(a, b);
}
static inline vec v_sub(vec a, vec b) {
    return _mm256_sub_ps(a, b);
}
static inline vec v_mul(vec a, vec b) {
    return _mm256_mul_ps(a, b);
}
static inline vec v_div(vec a, vec b) {
    return _mm256_div_ps(a, b);
}
static inline vec v_sqrt(vec a) {
    return _mm256_sqrt_ps(a);
}
static inline vec v_max(vec a, vec b) {
    return _mm256_max_ps(a, b);
}
static inline vec v_min(vec a, vec b) {
    return _mm256_min_ps(a, b);
}
static inline vec v_fma(vec a, vec b, vec c) {
    return _mm256_fmadd_ps(a, b, c);
}
static inline vec v_fnma(vec a, vec b, vec c) {
    return _mm256_fnmadd_ps(a, b, c);
}
static inline vec v_floor(vec a) {
    return _mm256_floor_ps(a);
}
static inline float v_sum(vec a) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
static inline lanes v_less(vec a, vec b) {
    return _mm256_cmp_ps(a, b, _CMP_LT_OQ);
}
static inline lanes v_not_less(vec a, vec b) {
    return _mm256_cmp_ps(a, b, _CMP_NLT_UQ);
}
static inline vec v_where(lanes m, vec a, vec b) {
    return _mm256_blendv_ps(b, a, m);
}
static inline vec v_scale(vec a, vec n) { /* in two steps, for results near the ends of the range */
    __m256i whole = _mm256_cvtps_epi32(v_floor(n)), half = _mm256_srai_epi32(whole, 1), bias = _mm256_set1_epi32(127);
    __m256i rest = _mm256_sub_epi32(whole, half);
    a = v_mul(a, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23)));
    return v_mul(a, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23)));
}
static inline vec v_fraction(vec a) {
    return v_sub(a, v_floor(a));
}
static inline vec v_load_bf16(const uint16_t *p) {
    __m256i u = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(u, 16));
}
static inline void v_store_bf16(uint16_t *p, vec x) { /* nearest even; NaN stays NaN */
    __m256i u = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i up = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    up = _mm256_blendv_epi8(up, _mm256_or_si256(u, _mm256_set1_epi32(0x400000)), nan);
    up = _mm256_srli_epi32(up, 16);
    __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(up), _mm256_extracti128_si256(up, 1));
    _mm_storeu_si128((__m128i *)(void *)p, packed);
}
static inline __m128 v_sum4(vec a, vec b, vec c, vec d) {
    vec ab = v_add(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    vec cd = v_add(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    vec x = v_add(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
    return _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
}

#endif

/* 2^f for 0 <= f <= 1: a minimax polynomial, exact at 0, relative error 8.3e-8 and 1.5e-7 with its rounding. */
static inline vec v_power(vec f) {
    vec p = v_set(0.00186713005f);
    p = v_fma(p, f, v_set(0.00901703071f));
    p = v_fma(p, f, v_set(0.0557999127f));
    p = v_fma(p, f, v_set(0.240164444f));
    p = v_fma(p, f, v_set(0.693151295f));
    return v_fma(p, f, v_set(1));
}

/* 2^x for x <= 0 or about it; 0 where the result would not be a normal number, so that no product meets denormals. */
static inline vec v_exp2(vec x) {
    lanes normal = v_not_less(x, v_set(-126)); /* NaN too */
    vec y = v_where(normal, x, v_zero());
    return v_where(normal, v_scale(v_power(v_fraction(y)), y), v_zero());
}

/* e^x of any x: x = n ln 2 + r with ln 2 in two pieces, then 2^(n + r log2 e), in which nothing large is rounded. */
static inline vec v_exp(vec x) {
    x = v_min(v_set(89), v_max(v_set(-104), x));
    vec n = v_floor(v_mul(x, v_set(1.44269504f)));
    vec r = v_fnma(n, v_set(0.693359375f), x);
    r = v_fnma(n, v_set(-2.12194440e-4f), r);
    vec f = v_mul(r, v_set(1.44269504f)); /* in [0, 1] but for rounding */
    return v_scale(v_power(f), n);
}

/* The first n < LANES numbers, zeros behind them, and back. */
static inline vec v_load_part(const float *p, int64_t n) {
    float part[LANES] = {0};
    memcpy(part, p, (size_t)n * sizeof *p);
    return v_load(part);
}
static inline void v_store_part(float *p, vec x, int64_t n) {
    float part[LANES];
    v_store(part, x);
    memcpy(p, part, (size_t)n * sizeof *p);
}

#endif
