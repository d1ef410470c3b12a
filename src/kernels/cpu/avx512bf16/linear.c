/* Products of BF16 numbers with vdpbf16ps, which multiplies pairs and adds them up in F32. F32 products stay as
 * AVX-512 does them. */
#include "kernels/cpu/avx512/simd.h"

INLINE __m512 dot_pairs(__m512 sum, __m512i a, __m512i b) {
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

INLINE __m512i to_bf16(__m512 low, __m512 high) {
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

/* --- E4M3 to BF16 by table ---------------------------------------------------------------------------------------
 * Every E4M3 number is a BF16 number: its upper and its lower byte are looked up by the 7 bits below the sign, 64 at
 * once. Interleaving the bytes leaves the order that split_order gives to x. */
typedef struct e4m3_table {
    __m512i upper[2], lower[2]; /* of codes 0..63 and 64..127 */
} e4m3_table;

INLINE e4m3_table e4m3_bytes(void) {
    uint8_t upper[128], lower[128];
    for (int code = 0; code < 128; code += 16) {
        __m128i codes = _mm_add_epi8(_mm_set1_epi8((char)code),
                                     _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
        __m512i bits = _mm512_castps_si512(widen_e4m3(codes));
        _mm_storeu_si128((__m128i *)(upper + code), _mm512_cvtepi32_epi8(_mm512_srli_epi32(bits, 24)));
        _mm_storeu_si128((__m128i *)(lower + code), _mm512_cvtepi32_epi8(_mm512_srli_epi32(bits, 16)));
    }
    return (e4m3_table){{_mm512_loadu_si512(upper), _mm512_loadu_si512(upper + 64)},
                        {_mm512_loadu_si512(lower), _mm512_loadu_si512(lower + 64)}};
}

INLINE void e4m3_look_up(const e4m3_table *t, __m512i codes, __m512i out[2]) {
    __m512i upper = _mm512_permutex2var_epi8(t->upper[0], codes, t->upper[1]);
    __m512i lower = _mm512_permutex2var_epi8(t->lower[0], codes, t->lower[1]);
    upper = _mm512_ternarylogic_epi64(upper, codes, _mm512_set1_epi8((char)0x80), 0xf8); /* upper | codes & 0x80 */
    out[0] = _mm512_unpacklo_epi8(lower, upper);
    out[1] = _mm512_unpackhi_epi8(lower, upper);
}

/* 64 numbers in order as two vectors whose eighths alternate, and back. */
INLINE void split_order(__m512i v[2]) {
    __m512i a = _mm512_permutex2var_epi64(v[0], _mm512_setr_epi64(0, 1, 4, 5, 8, 9, 12, 13), v[1]);
    v[1] = _mm512_permutex2var_epi64(v[0], _mm512_setr_epi64(2, 3, 6, 7, 10, 11, 14, 15), v[1]);
    v[0] = a;
}

INLINE void plain_order(__m512i v[2]) {
    __m512i a = _mm512_permutex2var_epi64(v[0], _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), v[1]);
    v[1] = _mm512_permutex2var_epi64(v[0], _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), v[1]);
    v[0] = a;
}

/* --- few rows (see avx512/linear.c for the plan) ------------------------------------------------------------------ */

INLINE void few_x(uint16_t *to, const float *x, int64_t in, bool split) {
    int64_t padded = (in + FEW_PAD - 1) / FEW_PAD * FEW_PAD;
    for (int64_t i = 0; i < padded; i += 64) {
        __m512 v[4];
        for (int j = 0; j < 4; j++) {
            int64_t at = i + 16 * j;
            v[j] = _mm512_maskz_loadu_ps(at < in ? first16(in - at) : 0, x + (at < in ? at : 0));
        }
        __m512i out[2] = {to_bf16(v[0], v[1]), to_bf16(v[2], v[3])};
        if (split) split_order(out);
        _mm512_storeu_si512(to + i, out[0]);
        _mm512_storeu_si512(to + i + 32, out[1]);
    }
}

static void few_x_plain(uint16_t *to, const float *x, int64_t in) {
    few_x(to, x, in, false);
}
static void few_x_split(uint16_t *to, const float *x, int64_t in) {
    few_x(to, x, in, true);
}

/* 32 weights from element i on as BF16. */
INLINE __m512i pairs(dtype type, const char *w, int64_t i, int64_t left) {
    if (type == DT_BF16) {
        const uint16_t *p = (const uint16_t *)w + i;
        return left >= 32 ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16(first32(left), p);
    }
    return to_bf16(load_weights(type, w, i, first16(left)),
                   load_weights(type, w, i + 16, left > 16 ? first16(left - 16) : 0));
}

INLINE void few_columns(dtype type, const char *const *w, const uint16_t *x, int64_t ldx, size_t row_bytes, int64_t i,
                        int64_t left, int R, int n, __m512 sum[FEW_R][4]) {
    __m512i v[4];
    for (int t = 0; t < n; t++) v[t] = _mm512_loadu_si512(x + t * ldx + i);
    for (int r = 0; r < R; r++) {
        __m512i p = pairs(type, w[r], i, left);
        _mm_prefetch(w[r] + (size_t)R * row_bytes + (size_t)i * weight_size(type), _MM_HINT_T1);
        for (int t = 0; t < n; t++) sum[r][t] = dot_pairs(sum[r][t], p, v[t]);
    }
}

INLINE void few_rows(const few_call *c, dtype type, int64_t row, int t0, int R, int n) {
    __m512 sum[FEW_R][4];
    const char *w[FEW_R];
    size_t size = weight_size(type), bytes = (size_t)c->in * size;
    const uint16_t *x = (const uint16_t *)c->x + t0 * c->ldx;
    for (int r = 0; r < R; r++) {
        w[r] = (const char *)c->w + (size_t)(row + r) * bytes;
        for (int t = 0; t < n; t++) sum[r][t] = _mm512_setzero_ps();
    }
    int64_t i = 0;
    for (; i + 32 <= c->in; i += 32) few_columns(type, w, x, c->ldx, bytes, i, 32, R, n, sum);
    if (i < c->in) few_columns(type, w, x, c->ldx, bytes, i, c->in - i, R, n, sum);
    store_few(c->y + t0 * c->ldy + row, c->ldy, sum, R, n);
}

/* All rows of x, in parts of at most 4: what is read of w stays in the first cache meanwhile. */
INLINE void few_all(const few_call *c, dtype type, int64_t row, int R) {
    int t = 0;
    for (; t + 4 <= c->n; t += 4) few_rows(c, type, row, t, R, 4);
    if (t + 2 <= c->n) {
        few_rows(c, type, row, t, R, 2);
        t += 2;
    }
    if (t < c->n) few_rows(c, type, row, t, R, 1);
}

INLINE void few(const few_call *c, dtype type) {
    int64_t row = 0;
    for (; row + FEW_R <= c->rows; row += FEW_R) few_all(c, type, row, FEW_R);
    for (; row < c->rows; row++) few_all(c, type, row, 1);
}

static void few_f32(const few_call *c) {
    few(c, DT_F32);
}
static void few_bf16(const few_call *c) {
    few(c, DT_BF16);
}
static void few_f16(const few_call *c) {
    few(c, DT_F16);
}

/* E4M3: sums of 128 columns times their scale. */
INLINE void scaled_rows(const few_call *c, const e4m3_table *table, int64_t row, int t0, int R, int n) {
    __m512 total[FEW_R][4];
    const char *w[FEW_R];
    const float *scale[FEW_R];
    const uint16_t *x = (const uint16_t *)c->x + t0 * c->ldx;
    for (int r = 0; r < R; r++) {
        w[r] = (const char *)c->w + (row + r) * c->in;
        scale[r] = c->scale + (c->row + row + r) / FP8_BLOCK * c->scale_stride;
        for (int t = 0; t < n; t++) total[r][t] = _mm512_setzero_ps();
    }
    for (int64_t b = 0; b < c->in; b += FP8_BLOCK) {
        for (int r = 0; r < R; r++) {
            __m512 sum[4], s = _mm512_set1_ps(scale[r][b / FP8_BLOCK]);
            for (int t = 0; t < n; t++) sum[t] = _mm512_setzero_ps();
            for (int64_t i = b; i < b + FP8_BLOCK; i += 64) {
                int64_t left = c->in - i;
                __mmask64 m = left >= 64 ? ~(__mmask64)0 : left > 0 ? ((__mmask64)1 << left) - 1 : 0;
                __m512i codes = left >= 64 ? _mm512_loadu_si512(w[r] + i) : _mm512_maskz_loadu_epi8(m, w[r] + i), v[2];
                _mm_prefetch(w[r] + R * c->in + i, _MM_HINT_T1);
                e4m3_look_up(table, codes, v);
                for (int t = 0; t < n; t++) {
                    const uint16_t *at = x + t * c->ldx + i;
                    sum[t] = dot_pairs(sum[t], v[0], _mm512_loadu_si512(at));
                    sum[t] = dot_pairs(sum[t], v[1], _mm512_loadu_si512(at + 32));
                }
            }
            for (int t = 0; t < n; t++) total[r][t] = _mm512_fmadd_ps(sum[t], s, total[r][t]);
        }
    }
    store_few(c->y + t0 * c->ldy + row, c->ldy, total, R, n);
}

INLINE void scaled_all(const few_call *c, const e4m3_table *table, int64_t row, int R) {
    int t = 0;
    for (; t + 4 <= c->n; t += 4) scaled_rows(c, table, row, t, R, 4);
    if (t + 2 <= c->n) {
        scaled_rows(c, table, row, t, R, 2);
        t += 2;
    }
    if (t < c->n) scaled_rows(c, table, row, t, R, 1);
}

static void few_e4m3(const few_call *c) {
    e4m3_table table = e4m3_bytes();
    int64_t row = 0;
    for (; row + FEW_R <= c->rows; row += FEW_R) scaled_all(c, &table, row, FEW_R);
    for (; row < c->rows; row++) scaled_all(c, &table, row, 1);
}

/* --- many rows --------------------------------------------------------------------------------------------------- */

static void group_bf16(void *to, const float *x, int64_t ldx, int64_t n, int64_t in) {
    uint16_t *p = to;
    int64_t padded = (in + K_STEP - 1) / K_STEP * K_STEP;
    for (int64_t i = 0; i < padded; i += 32, p += 32 * GROUP) {
        __mmask16 low = first16(in - i), high = in - i > 16 ? first16(in - i - 16) : 0;
        __m512i r[16]; /* 16 pairs of a token */
        for (int t = 0; t < 16; t++) {
            const float *row = x + (t < n ? t : 0) * ldx + i;
            r[t] =
                to_bf16(_mm512_maskz_loadu_ps(t < n ? low : 0, row), _mm512_maskz_loadu_ps(t < n ? high : 0, row + 16));
        }
        transpose16(r);
        for (int k = 0; k < 16; k++) _mm512_storeu_si512(p + k * 2 * GROUP, r[k]);
    }
}

/* The value times its scale, rounded to BF16: what a checkpoint converted to BF16 holds. */
static void panel_e4m3(const panel_call *c) {
    e4m3_table table = e4m3_bytes();
    int64_t rows = (c->rows + GROUP - 1) / GROUP * GROUP, k = (c->k + K_STEP - 1) / K_STEP * K_STEP;
    for (int64_t r = 0; r < rows; r++) {
        bool there = r < c->rows;
        const uint8_t *w = (const uint8_t *)c->w + (there ? r : 0) * c->in + c->first;
        const float *scale = c->scale + (there ? (c->row + r) / FP8_BLOCK * c->scale_stride : 0);
        uint16_t *to = (uint16_t *)c->panel + r * c->ld;
        for (int64_t i = 0; i < k; i += 64) {
            int64_t left = there ? c->k - i : 0;
            __mmask64 m = left >= 64 ? ~(__mmask64)0 : left > 0 ? ((__mmask64)1 << left) - 1 : 0;
            __m512i v[2];
            e4m3_look_up(&table, _mm512_maskz_loadu_epi8(m, w + i), v);
            plain_order(v);
            __m512 s = _mm512_set1_ps(left > 0 ? scale[(c->first + i) / FP8_BLOCK] : 0);
            for (int j = 0; j < 2 && i + 32 * j < k; j++) {
                __m512 low = widen_bf16(_mm512_castsi512_si256(v[j]));
                __m512 high = widen_bf16(_mm512_extracti64x4_epi64(v[j], 1));
                _mm512_storeu_si512(to + i + 32 * j, to_bf16(_mm512_mul_ps(low, s), _mm512_mul_ps(high, s)));
            }
        }
    }
}

static void panel_f32(const panel_call *c) {
    int64_t rows = (c->rows + GROUP - 1) / GROUP * GROUP, k = (c->k + K_STEP - 1) / K_STEP * K_STEP;
    for (int64_t r = 0; r < rows; r++) {
        bool there = r < c->rows;
        const float *w = (const float *)c->w + (there ? r : 0) * c->in + c->first;
        for (int64_t i = 0; i < k; i += 32) {
            int64_t left = there ? c->k - i : 0;
            __m512 low = _mm512_maskz_loadu_ps(left > 0 ? first16(left) : 0, w + i);
            __m512 high = _mm512_maskz_loadu_ps(left > 16 ? first16(left - 16) : 0, w + i + 16);
            _mm512_storeu_si512((uint16_t *)c->panel + r * c->ld + i, to_bf16(low, high));
        }
    }
}

/* --- products of training (see avx512/linear.c) ------------------------------------------------------------------- */

/* Numbers a in the lower halves, b in the upper halves of 32-bit lanes. */
INLINE __m512i bf16_pairs(__m512 a, __m512 b, __m512i order) {
    return _mm512_permutexvar_epi16(order, to_bf16(a, b));
}

/* 0, 16, 1, 17, ... */
INLINE __m512i pair_order(void) {
    __m512i even = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_or_si512(even, _mm512_slli_epi32(_mm512_add_epi32(even, _mm512_set1_epi32(16)), 16));
}

/* Row i of a matrix with k rows, 16 numbers. */
INLINE __m512 row16(const float *a, int64_t lda, int64_t i, int64_t k, __mmask16 m) {
    return _mm512_maskz_loadu_ps(i < k ? m : 0, a + (i < k ? i : 0) * lda);
}

static void lanes(const lanes_call *c) {
    const __m512i order = pair_order();
    int64_t padded = (c->k + K_STEP - 1) / K_STEP * K_STEP;
    for (int64_t i = 0; i < padded; i += 2) {
        for (int64_t column = 0; column < c->columns; column += GROUP) {
            const float *b = (const float *)c->b + column;
            __mmask16 m = first16(c->columns - column);
            __m512i pairs = bf16_pairs(row16(b, c->ld, i, c->k, m), row16(b, c->ld, i + 1, c->k, m), order);
            _mm512_storeu_si512((uint16_t *)c->to + column / GROUP * c->group + i * GROUP, pairs);
        }
    }
}

static void turn(const turn_call *c) {
    const __m512i order = pair_order();
    int64_t k = (c->k + K_STEP - 1) / K_STEP * K_STEP;
    for (int64_t i = 0; i < k; i += 32) {
        for (int64_t r = 0; r < c->rows; r += GROUP) {
            const float *a = c->a + r;
            __mmask16 m = first16(c->rows - r);
            __m512i v[16];
            for (int64_t j = 0; j < 16; j++)
                v[j] =
                    bf16_pairs(row16(a, c->lda, i + 2 * j, c->k, m), row16(a, c->lda, i + 2 * j + 1, c->k, m), order);
            transpose16(v);
            for (int j = 0; j < 16; j++) _mm512_storeu_si512((uint16_t *)c->panel + (r + j) * c->ld + i, v[j]);
        }
    }
}

/* --- many rows: multiplying --------------------------------------------------------------------------------------- */

INLINE void tile(const block_call *c, fetcher *f, fetcher *ahead, int64_t row, int64_t group, int R, int G) {
    const uint16_t *w = (const uint16_t *)c->w + row * c->ldw, *x = (const uint16_t *)c->x + group * c->x_group;
    float *to = block_tile(c, row, group) + row % GROUP * block_row_step(c);
    __m512 sum[16][3];
    take_sums(c, to, sum, R, G);
    for (int64_t k0 = 0; k0 < c->k; k0 += K_STEP, w += K_STEP, x += K_STEP * GROUP) {
        fetch(f);
        fetch(ahead);
        for (int64_t k = 0; k < K_STEP; k += 2) {
            __m512i v[3];
            for (int g = 0; g < G; g++) v[g] = _mm512_loadu_si512(x + g * c->x_group + k * GROUP);
            for (int r = 0; r < R; r++) {
                int32_t two;
                memcpy(&two, w + r * c->ldw + k, 4);
                __m512i pair = _mm512_set1_epi32(two);
                for (int g = 0; g < G; g++) sum[r][g] = dot_pairs(sum[r][g], pair, v[g]);
            }
        }
    }
    keep_sums(c, to, sum, R, G);
}

static void block_part(const block_call *c, fetcher *f) {
    fetcher ahead;
    int64_t g = 0;
    while (c->groups - g >= 5 || c->groups - g == 3) {
        ahead = groups_ahead(c, g, 3, sizeof(uint16_t));
        for (int64_t row = 0; row < c->rows; row += 8) tile(c, f, &ahead, row, g, 8, 3);
        g += 3;
    }
    for (; c->groups - g >= 2; g += 2) {
        ahead = groups_ahead(c, g, 2, sizeof(uint16_t));
        for (int64_t row = 0; row < c->rows; row += 8) tile(c, f, &ahead, row, g, 8, 2);
    }
    ahead = groups_ahead(c, g, 1, sizeof(uint16_t));
    if (g < c->groups)
        for (int64_t row = 0; row < c->rows; row += 16) tile(c, f, &ahead, row, g, 16, 1);
}

static void block(const block_call *c) {
    fetcher f = fetch_begin(&c->next, c->rows / 8 * ((c->groups + 2) / 3) * (c->k / K_STEP) + 1);
    for (int64_t k = 0; k < c->k; k += 256) {
        block_call part = block_columns(c, k, 256, sizeof(uint16_t));
        block_part(&part, &f);
    }
}

/* Multiplies and adds in registers, for machine.c. */
static double peak(int64_t rounds, float *keep) {
    enum { SUMS = 16 };
    __m512 sum[SUMS];
    __m512i a = to_bf16(_mm512_set1_ps(*keep), _mm512_set1_ps(*keep));
    for (int i = 0; i < SUMS; i++) sum[i] = _mm512_set1_ps((float)i);
    for (int64_t r = 0; r < rounds; r++)
        for (int i = 0; i < SUMS; i++) sum[i] = dot_pairs(sum[i], a, a);
    for (int i = 0; i < SUMS; i++) *keep += _mm512_reduce_add_ps(sum[i]);
    return (double)rounds * SUMS * 32 * 2;
}

void avx512bf16_linear(linear_micro *m) {
    m->few_x[DT_F32] = m->few_x[DT_BF16] = m->few_x[DT_F16] = few_x_plain;
    m->few_x[DT_E4M3] = few_x_split;
    m->few[COMPUTE_BF16][DT_F32] = few_f32;
    m->few[COMPUTE_BF16][DT_BF16] = few_bf16;
    m->few[COMPUTE_BF16][DT_F16] = few_f16;
    m->few[COMPUTE_BF16][DT_E4M3] = few_e4m3;
    m->group_x[COMPUTE_BF16] = group_bf16;
    m->panel[COMPUTE_BF16][DT_F32] = panel_f32;
    m->panel[COMPUTE_BF16][DT_E4M3] = panel_e4m3;
    m->lanes[COMPUTE_BF16][DT_F32] = lanes;
    m->turn[COMPUTE_BF16] = turn;
    m->block[COMPUTE_BF16] = block;
    m->peak[COMPUTE_BF16] = peak;
}
