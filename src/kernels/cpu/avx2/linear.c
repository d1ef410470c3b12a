/* Products with AVX2 and FMA: everything in F32 arithmetic; other types are widened on their way. The plan is that of
 * avx512/linear.c with vectors of 8. */
#include <immintrin.h>
#include "kernels/linear_micro.h"

#define INLINE static inline __attribute__((always_inline))

enum { FEW_R = 4 }; /* rows of w at once in few-row products */

/* --- numbers ----------------------------------------------------------------------------------------------------- */

INLINE __m256 widen_bf16(__m128i codes) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(codes), 16));
}

/* 8 E4M3 codes (the low bytes): moved to F16's place they are 2^-8 of their value, but for NaN (0x7f, 0xff). */
INLINE __m256 widen_e4m3(__m128i codes) {
    __m128i c = _mm_cvtepu8_epi16(codes);
    __m128i magnitude = _mm_and_si128(c, _mm_set1_epi16(0x7f));
    __m128i nan = _mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x7f));
    __m128i sign = _mm_slli_epi16(_mm_and_si128(c, _mm_set1_epi16(0x80)), 8);
    __m128i half =
        _mm_or_si128(_mm_or_si128(_mm_slli_epi16(magnitude, 7), sign), _mm_and_si128(nan, _mm_set1_epi16(0x7e00)));
    return _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256));
}

/* To BF16 (nearest even, NaN stays NaN), in the upper halves of 32-bit lanes; the lower halves are zeros. */
INLINE __m256 rounded(__m256 v) {
    __m256i u = _mm256_castps_si256(v);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i up = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
    __m256 nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
    __m256 r = _mm256_blendv_ps(_mm256_castsi256_ps(up), _mm256_castsi256_ps(quiet), nan);
    return _mm256_and_ps(r, _mm256_castsi256_ps(_mm256_set1_epi32((int)0xffff0000u)));
}

INLINE __m128i bf16_codes(__m256 v) {
    __m256i u = _mm256_srli_epi32(_mm256_castps_si256(rounded(v)), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(u), _mm256_extracti128_si256(u, 1));
}

/* Elements i .. i + 7 of a row as F32; zeros from `left` on. */
INLINE __m256 load(dtype type, const void *row, int64_t i, int64_t left) {
    size_t size = weight_size(type);
    const char *p = (const char *)row + (size_t)i * size;
    char part[32] = {0};
    if (left < 8) {
        if (left > 0) memcpy(part, p, (size_t)left * size);
        p = part;
    }
    if (type == DT_F32) return _mm256_loadu_ps((const float *)(const void *)p);
    if (type == DT_E4M3) return widen_e4m3(_mm_loadl_epi64((const __m128i *)(const void *)p));
    __m128i codes = _mm_loadu_si128((const __m128i *)(const void *)p);
    return type == DT_BF16 ? widen_bf16(codes) : _mm256_cvtph_ps(codes);
}

INLINE void store_part(float *to, __m256 v, int64_t left) {
    float part[8];
    if (left >= 8) {
        _mm256_storeu_ps(to, v);
    } else {
        _mm256_storeu_ps(part, v);
        memcpy(to, part, (size_t)left * sizeof(float));
    }
}

INLINE float add_up(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* --- few rows ---------------------------------------------------------------------------------------------------- */

INLINE void few_columns(const few_call *c, dtype type, compute mode, const char *const *w, const float *const *scale,
                        int64_t i, int64_t left, int t0, int R, int n, __m256 sum[FEW_R][4]) {
    __m256 x[4];
    for (int t = 0; t < n; t++) {
        if (mode == COMPUTE_F32) x[t] = load(DT_F32, (const float *)c->x + (t0 + t) * c->ldx, i, left);
        else x[t] = load(DT_BF16, (const uint16_t *)c->x + (t0 + t) * c->ldx, i, 8); /* padded */
    }
    for (int r = 0; r < R; r++) {
        __m256 v = load(type, w[r], i, left);
        if (type == DT_E4M3) v = _mm256_mul_ps(v, _mm256_set1_ps(scale[r][i / FP8_BLOCK]));
        else if (mode == COMPUTE_BF16 && type != DT_BF16) v = rounded(v);
        for (int t = 0; t < n; t++) sum[r][t] = _mm256_fmadd_ps(v, x[t], sum[r][t]);
    }
}

INLINE void few_rows(const few_call *c, dtype type, compute mode, int64_t row, int t0, int R, int n) {
    __m256 sum[FEW_R][4];
    const char *w[FEW_R];
    const float *scale[FEW_R];
    size_t size = weight_size(type), bytes = (size_t)c->in * size;
    for (int r = 0; r < R; r++) {
        w[r] = (const char *)c->w + (size_t)(row + r) * bytes;
        scale[r] = type == DT_E4M3 ? c->scale + (c->row + row + r) / FP8_BLOCK * c->scale_stride : NULL;
        for (int t = 0; t < n; t++) sum[r][t] = _mm256_setzero_ps();
    }
    int64_t i = 0;
    for (; i + 8 <= c->in; i += 8) {
        if ((size_t)i * size % 64 == 0)
            for (int r = 0; r < R; r++) _mm_prefetch(w[r] + (size_t)R * bytes + (size_t)i * size, _MM_HINT_T1);
        few_columns(c, type, mode, w, scale, i, 8, t0, R, n, sum);
    }
    if (i < c->in) few_columns(c, type, mode, w, scale, i, c->in - i, t0, R, n, sum);
    for (int r = 0; r < R; r++)
        for (int t = 0; t < n; t++) c->y[(t0 + t) * c->ldy + row + r] = add_up(sum[r][t]);
}

#include "kernels/cpu/few_lanes.h"

static void few_x(uint16_t *to, const float *x, int64_t in) {
    int64_t padded = (in + FEW_PAD - 1) / FEW_PAD * FEW_PAD;
    for (int64_t i = 0; i < padded; i += 8)
        _mm_storeu_si128((__m128i *)(void *)(to + i), bf16_codes(load(DT_F32, x, i, in - i)));
}

/* --- transposed: 16 columns of w and T rows of x ----------------------------------------------------------------- */

INLINE __m256 transposed_weights(const transposed_call *c, dtype type, bool round, int64_t o, int64_t i, int64_t left) {
    const char *w = (const char *)c->w + (size_t)(o * c->in) * weight_size(type);
    if (left <= 0) return _mm256_setzero_ps();
    __m256 v = load(type, w, i, left);
    if (type == DT_E4M3) {
        const float *scale = c->scale + (c->row + o) / FP8_BLOCK * c->scale_stride + i / FP8_BLOCK;
        v = _mm256_mul_ps(v, _mm256_set1_ps(*scale)); /* 8 columns lie in one block: i is a multiple of 8 */
    }
    return round && type != DT_BF16 ? rounded(v) : v;
}

INLINE void transposed_tokens(const transposed_call *c, dtype type, bool round, int64_t t, int T) {
    for (int64_t i = 0; i < c->columns; i += 16) {
        int64_t left = c->columns - i;
        __m256 sum[4][2];
        for (int j = 0; j < T; j++) sum[j][0] = sum[j][1] = _mm256_setzero_ps();
        for (int64_t o = 0; o < c->out; o++) {
            __m256 w0 = transposed_weights(c, type, round, o, c->first + i, left);
            __m256 w1 = transposed_weights(c, type, round, o, c->first + i + 8, left - 8);
            for (int j = 0; j < T; j++) {
                __m256 x = _mm256_set1_ps(c->x[(t + j) * c->ldx + o]);
                sum[j][0] = _mm256_fmadd_ps(w0, x, sum[j][0]);
                sum[j][1] = _mm256_fmadd_ps(w1, x, sum[j][1]);
            }
        }
        for (int j = 0; j < T; j++) {
            float *y = c->y + (t + j) * c->ldy + i;
            store_part(y, sum[j][0], left);
            if (left > 8) store_part(y + 8, sum[j][1], left - 8);
        }
    }
}

INLINE void transposed_all(const transposed_call *c, dtype type, bool round) {
    int64_t t = 0;
    for (; t + 4 <= c->n; t += 4) transposed_tokens(c, type, round, t, 4);
    for (; t < c->n; t++) transposed_tokens(c, type, round, t, 1);
}

INLINE void transposed(const transposed_call *c, dtype type) {
    if (c->round) transposed_all(c, type, true);
    else transposed_all(c, type, false);
}

static void transposed_f32(const transposed_call *c) {
    transposed(c, DT_F32);
}
static void transposed_bf16(const transposed_call *c) {
    transposed(c, DT_BF16);
}
static void transposed_f16(const transposed_call *c) {
    transposed(c, DT_F16);
}
static void transposed_e4m3(const transposed_call *c) {
    transposed(c, DT_E4M3);
}

/* --- many rows --------------------------------------------------------------------------------------------------- */

INLINE void panel(const panel_call *c, dtype type, compute mode) {
    int64_t rows = (c->rows + GROUP - 1) / GROUP * GROUP, k = (c->k + K_STEP - 1) / K_STEP * K_STEP;
    for (int64_t r = 0; r < rows; r++) {
        bool there = r < c->rows;
        const char *w = (const char *)c->w + (size_t)((there ? r : 0) * c->in) * weight_size(type);
        const float *scale = c->scale + (there ? (c->row + r) / FP8_BLOCK * c->scale_stride : 0);
        for (int64_t i = 0; i < k; i += 8) {
            int64_t left = there ? c->k - i : 0;
            __m256 v = left > 0 ? load(type, w, c->first + i, left) : _mm256_setzero_ps();
            if (type == DT_E4M3 && left > 0) v = _mm256_mul_ps(v, _mm256_set1_ps(scale[(c->first + i) / FP8_BLOCK]));
            if (mode == COMPUTE_F32) _mm256_storeu_ps((float *)c->panel + r * c->ld + i, v);
            else _mm_storeu_si128((__m128i *)(void *)((uint16_t *)c->panel + r * c->ld + i), bf16_codes(v));
        }
    }
}

static void panel_f32_f32(const panel_call *c) {
    panel(c, DT_F32, COMPUTE_F32);
}
static void panel_f32_bf16(const panel_call *c) {
    panel(c, DT_BF16, COMPUTE_F32);
}
static void panel_f32_f16(const panel_call *c) {
    panel(c, DT_F16, COMPUTE_F32);
}
static void panel_f32_e4m3(const panel_call *c) {
    panel(c, DT_E4M3, COMPUTE_F32);
}
static void panel_bf16_f32(const panel_call *c) {
    panel(c, DT_F32, COMPUTE_BF16);
}
static void panel_bf16_bf16(const panel_call *c) {
    panel(c, DT_BF16, COMPUTE_BF16);
}
static void panel_bf16_f16(const panel_call *c) {
    panel(c, DT_F16, COMPUTE_BF16);
}
static void panel_bf16_e4m3(const panel_call *c) {
    panel(c, DT_E4M3, COMPUTE_BF16);
}

/* 4 rows of w times one group of tokens: 8 sums. */
static void tile_f32(const block_call *c, int64_t row, int64_t group) {
    const float *w = (const float *)c->w + row * c->ldw, *x = (const float *)c->x + group * c->x_group;
    float *to = block_tile(c, row, group) + row % GROUP * block_row_step(c);
    const int64_t ld = block_row_step(c);
    __m256 sum[4][2];
    for (int r = 0; r < 4; r++)
        for (int h = 0; h < 2; h++) sum[r][h] = c->first ? _mm256_setzero_ps() : _mm256_loadu_ps(to + r * ld + 8 * h);
    for (int64_t k = 0; k < c->k; k++) {
        __m256 low = _mm256_loadu_ps(x + k * GROUP), high = _mm256_loadu_ps(x + k * GROUP + 8);
        for (int r = 0; r < 4; r++) {
            __m256 one = _mm256_set1_ps(w[r * c->ldw + k]);
            sum[r][0] = _mm256_fmadd_ps(one, low, sum[r][0]);
            sum[r][1] = _mm256_fmadd_ps(one, high, sum[r][1]);
        }
    }
    for (int r = 0; r < 4; r++)
        for (int h = 0; h < 2; h++) _mm256_storeu_ps(to + r * ld + 8 * h, sum[r][h]);
}

/* Pairs of BF16: the lower and the upper halves of 32-bit lanes as F32. */
INLINE __m256 even(__m256i pairs) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
}

INLINE __m256 odd(__m256i pairs) {
    return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32((int)0xffff0000u)));
}

static void tile_bf16(const block_call *c, int64_t row, int64_t group) {
    const uint16_t *w = (const uint16_t *)c->w + row * c->ldw, *x = (const uint16_t *)c->x + group * c->x_group;
    float *to = block_tile(c, row, group) + row % GROUP * block_row_step(c);
    const int64_t ld = block_row_step(c);
    __m256 sum[4][2];
    for (int r = 0; r < 4; r++)
        for (int h = 0; h < 2; h++) sum[r][h] = c->first ? _mm256_setzero_ps() : _mm256_loadu_ps(to + r * ld + 8 * h);
    for (int64_t k = 0; k < c->k; k += 2) {
        __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)(x + k * GROUP));
        __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(x + k * GROUP + 16));
        __m256 a = even(low), b = odd(low), d = even(high), e = odd(high);
        for (int r = 0; r < 4; r++) {
            int32_t two;
            memcpy(&two, w + r * c->ldw + k, 4);
            __m256 first = even(_mm256_set1_epi32(two)), second = odd(_mm256_set1_epi32(two));
            sum[r][0] = _mm256_fmadd_ps(second, b, _mm256_fmadd_ps(first, a, sum[r][0]));
            sum[r][1] = _mm256_fmadd_ps(second, e, _mm256_fmadd_ps(first, d, sum[r][1]));
        }
    }
    for (int r = 0; r < 4; r++)
        for (int h = 0; h < 2; h++) _mm256_storeu_ps(to + r * ld + 8 * h, sum[r][h]);
}

static void block_f32(const block_call *c) {
    for (int64_t row = 0; row < c->rows; row += 4)
        for (int64_t g = 0; g < c->groups; g++) tile_f32(c, row, g);
}

static void block_bf16(const block_call *c) {
    for (int64_t row = 0; row < c->rows; row += 4)
        for (int64_t g = 0; g < c->groups; g++) tile_bf16(c, row, g);
}

/* --- what the machine can do ------------------------------------------------------------------------------------- */

static float read_all(const void *p, int64_t bytes) {
    const char *at = p;
    __m256 sum[8];
    for (int j = 0; j < 8; j++) sum[j] = _mm256_setzero_ps();
    for (int64_t i = 0; i < bytes; i += 256)
        for (int j = 0; j < 8; j++)
            sum[j] = _mm256_xor_ps(sum[j], _mm256_loadu_ps((const float *)(const void *)(at + i + 32 * j)));
    for (int j = 1; j < 8; j++) sum[0] = _mm256_xor_ps(sum[0], sum[j]);
    return add_up(sum[0]);
}

static double peak(int64_t rounds, float *keep) {
    enum { SUMS = 10 };
    __m256 sum[SUMS], a = _mm256_set1_ps(*keep);
    for (int i = 0; i < SUMS; i++) sum[i] = _mm256_set1_ps((float)i);
    for (int64_t r = 0; r < rounds; r++)
        for (int i = 0; i < SUMS; i++) sum[i] = _mm256_fmadd_ps(sum[i], a, a);
    for (int i = 0; i < SUMS; i++) *keep += add_up(sum[i]);
    return (double)rounds * SUMS * 8 * 2;
}

void avx2_linear(linear_micro *m) {
    linear_micro portable = *m;
    *m = (linear_micro){
        .few_x = {few_x, few_x, few_x, few_x},
        .few = {{few_f32_f32, few_f32_bf16, few_f32_f16, few_f32_e4m3},
                {few_bf16_f32, few_bf16_bf16, few_bf16_f16, few_bf16_e4m3}},
        .transposed = {transposed_f32, transposed_bf16, transposed_f16, transposed_e4m3},
        .group_x = {portable.group_x[COMPUTE_F32], portable.group_x[COMPUTE_BF16]},
        .panel = {{panel_f32_f32, panel_f32_bf16, panel_f32_f16, panel_f32_e4m3},
                  {panel_bf16_f32, panel_bf16_bf16, panel_bf16_f16, panel_bf16_e4m3}},
        .block = {block_f32, block_bf16},
        .store = portable.store,
        .lanes = {{portable.lanes[0][0], portable.lanes[0][1]}, {portable.lanes[1][0], portable.lanes[1][1]}},
        .turn = {portable.turn[COMPUTE_F32], portable.turn[COMPUTE_BF16]},
        .place = portable.place,
        .read = read_all,
        .peak = {peak, peak},
    };
}
