/* Products with AVX-512: everything in F32 arithmetic; BF16 operands are widened on their way. */
#include "kernels/cpu/avx512/simd.h"

/* --- few rows ----------------------------------------------------------------------------------------------------
 * R rows of w meet n rows of x (from t0 on), 16 columns at a time. Every sum is one vector accumulator, whatever R and
 * n are: so a row's result does not depend on them. While these rows are read, the next ones are fetched into the
 * second cache: a hardware prefetcher alone stops at every page. */

INLINE __m512 load_x(compute mode, const few_call *c, int t, int64_t i, __mmask16 m) {
    if (mode == COMPUTE_F32) return _mm512_maskz_loadu_ps(m, (const float *)c->x + t * c->ldx + i);
    return widen_bf16(_mm256_maskz_loadu_epi16(m, (const uint16_t *)c->x + t * c->ldx + i));
}

INLINE __m512 few_weights(dtype type, compute mode, const char *w, int64_t i, const float *scale, __mmask16 m) {
    __m512 v = load_weights(type, w, i, m);
    if (type == DT_E4M3) return _mm512_mul_ps(v, _mm512_set1_ps(scale[i / FP8_BLOCK]));
    if (mode == COMPUTE_BF16 && type != DT_BF16) return widen_bf16(round_bf16(v));
    return v;
}

INLINE void few_rows(const few_call *c, dtype type, compute mode, int64_t row, int t0, int R, int n) {
    __m512 sum[FEW_R][4];
    const char *w[FEW_R];
    const float *scale[FEW_R];
    size_t size = weight_size(type), bytes = (size_t)c->in * size;
    for (int r = 0; r < R; r++) {
        w[r] = (const char *)c->w + (size_t)(row + r) * bytes;
        scale[r] = type == DT_E4M3 ? c->scale + (c->row + row + r) / FP8_BLOCK * c->scale_stride : NULL;
        for (int t = 0; t < n; t++) sum[r][t] = _mm512_setzero_ps();
    }
    for (int64_t i = 0; i < c->in; i += 16) {
        __mmask16 m = first16(c->in - i);
        __m512 x[4];
        for (int t = 0; t < n; t++) x[t] = load_x(mode, c, t0 + t, i, m);
        for (int r = 0; r < R; r++) {
            __m512 v = few_weights(type, mode, w[r], i, scale[r], m);
            if (((size_t)i * size) % 64 == 0) _mm_prefetch(w[r] + (size_t)R * bytes + (size_t)i * size, _MM_HINT_T1);
            for (int t = 0; t < n; t++) sum[r][t] = _mm512_fmadd_ps(v, x[t], sum[r][t]);
        }
    }
    store_few(c->y + t0 * c->ldy + row, c->ldy, sum, R, n);
}

#include "kernels/cpu/few_lanes.h"

static void few_x(uint16_t *to, const float *x, int64_t in) {
    int64_t padded = (in + FEW_PAD - 1) / FEW_PAD * FEW_PAD;
    for (int64_t i = 0; i < padded; i += 16) {
        __mmask16 m = i < in ? first16(in - i) : 0;
        _mm256_storeu_si256((__m256i *)(to + i), round_bf16(_mm512_maskz_loadu_ps(m, x + i)));
    }
}

/* --- transposed --------------------------------------------------------------------------------------------------
 * 32 columns of w and T rows of x at a time: the sums stay in registers, a row of w is two vectors. */

INLINE __m512 transposed_weights(const transposed_call *c, dtype type, bool round, int64_t o, int64_t i, __mmask16 m) {
    const char *w = (const char *)c->w + (size_t)(o * c->in) * weight_size(type);
    __m512 v = load_weights(type, w, i, m);
    if (type == DT_E4M3) {
        const float *scale = c->scale + (c->row + o) / FP8_BLOCK * c->scale_stride + i / FP8_BLOCK;
        v = _mm512_mul_ps(v, _mm512_set1_ps(*scale)); /* 16 columns lie in one block: i is a multiple of 16 */
    }
    return round && type != DT_BF16 ? widen_bf16(round_bf16(v)) : v;
}

/* Columns i .. of the call, m0 and m1 of them. */
INLINE void transposed_part(const transposed_call *c, dtype type, bool round, int64_t t, int T, int64_t i, __mmask16 m0,
                            __mmask16 m1) {
    const float *x = c->x + t * c->ldx;
    int64_t ldx = c->ldx, out = c->out;
    __m512 sum[8][2];
    for (int j = 0; j < T; j++) sum[j][0] = sum[j][1] = _mm512_setzero_ps();
    size_t row_bytes = (size_t)c->in * weight_size(type);
    const char *ahead = (const char *)c->w + 16 * row_bytes + (size_t)(c->first + i) * weight_size(type);
    for (int64_t o = 0; o < out; o++, x++, ahead += row_bytes) {
        _mm_prefetch(ahead, _MM_HINT_T0); /* rows are too far apart for a hardware prefetcher */
        __m512 w0 = transposed_weights(c, type, round, o, c->first + i, m0);
        __m512 w1 = m1 ? transposed_weights(c, type, round, o, c->first + i + 16, m1) : _mm512_setzero_ps();
        for (int j = 0; j < T; j++) {
            __m512 v = _mm512_set1_ps(x[j * ldx]);
            sum[j][0] = _mm512_fmadd_ps(w0, v, sum[j][0]);
            sum[j][1] = _mm512_fmadd_ps(w1, v, sum[j][1]);
        }
    }
    for (int j = 0; j < T; j++) {
        float *y = c->y + (t + j) * c->ldy + i;
        _mm512_mask_storeu_ps(y, m0, sum[j][0]);
        _mm512_mask_storeu_ps(y + 16, m1, sum[j][1]);
    }
}

INLINE void transposed_tokens(const transposed_call *c, dtype type, bool round, int64_t t, int T) {
    int64_t i = 0;
    for (; i + 32 <= c->columns; i += 32) transposed_part(c, type, round, t, T, i, 0xffff, 0xffff);
    int64_t left = c->columns - i;
    if (left > 0) transposed_part(c, type, round, t, T, i, first16(left), left > 16 ? first16(left - 16) : 0);
}

INLINE void transposed_all(const transposed_call *c, dtype type, bool round) {
    int64_t t = 0;
    for (; t + 8 <= c->n; t += 8) transposed_tokens(c, type, round, t, 8);
    for (; t + 2 <= c->n; t += 2) transposed_tokens(c, type, round, t, 2);
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

/* --- many rows: laying out --------------------------------------------------------------------------------------- */

static void group_f32(void *to, const float *x, int64_t ldx, int64_t n, int64_t in) {
    float *p = to;
    int64_t padded = (in + K_STEP - 1) / K_STEP * K_STEP;
    for (int64_t i = 0; i < padded; i += 16, p += 16 * GROUP) {
        __mmask16 m = i < in ? first16(in - i) : 0;
        __m512i r[16];
        for (int t = 0; t < 16; t++) r[t] = _mm512_maskz_loadu_epi32(t < n ? m : 0, x + (t < n ? t : 0) * ldx + i);
        transpose16(r);
        for (int k = 0; k < 16; k++) _mm512_storeu_si512(p + k * GROUP, r[k]);
    }
}

static void group_bf16(void *to, const float *x, int64_t ldx, int64_t n, int64_t in) {
    uint16_t *p = to;
    int64_t padded = (in + K_STEP - 1) / K_STEP * K_STEP;
    for (int64_t i = 0; i < padded; i += 32, p += 32 * GROUP) {
        __mmask16 low = first16(in - i), high = in - i > 16 ? first16(in - i - 16) : 0;
        __m512i r[16]; /* 16 pairs of a token */
        for (int t = 0; t < 16; t++) {
            const float *row = x + (t < n ? t : 0) * ldx + i;
            __m256i a = round_bf16(_mm512_maskz_loadu_ps(t < n ? low : 0, row));
            __m256i b = round_bf16(_mm512_maskz_loadu_ps(t < n ? high : 0, row + 16));
            r[t] = _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
        }
        transpose16(r);
        for (int k = 0; k < 16; k++) _mm512_storeu_si512(p + k * 2 * GROUP, r[k]);
    }
}

INLINE void panel(const panel_call *c, dtype type, compute mode) {
    int64_t rows = (c->rows + GROUP - 1) / GROUP * GROUP, k = (c->k + K_STEP - 1) / K_STEP * K_STEP;
    for (int64_t r = 0; r < rows; r++) {
        bool there = r < c->rows;
        const char *w = (const char *)c->w + (size_t)((there ? r : 0) * c->in) * weight_size(type);
        const float *scale = c->scale + (there ? (c->row + r) / FP8_BLOCK * c->scale_stride : 0);
        for (int64_t i = 0; i < k; i += 16) {
            __mmask16 m = there && i < c->k ? first16(c->k - i) : 0;
            __m512 v = load_weights(type, w, c->first + i, m);
            if (type == DT_E4M3 && m) v = _mm512_mul_ps(v, _mm512_set1_ps(scale[(c->first + i) / FP8_BLOCK]));
            if (mode == COMPUTE_F32) _mm512_storeu_ps((float *)c->panel + r * c->ld + i, v);
            else _mm256_storeu_si256((__m256i *)((uint16_t *)c->panel + r * c->ld + i), round_bf16(v));
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
static void panel_bf16_f16(const panel_call *c) {
    panel(c, DT_F16, COMPUTE_BF16);
}
static void panel_bf16_e4m3(const panel_call *c) {
    panel(c, DT_E4M3, COMPUTE_BF16);
}

static void panel_bf16_bf16(const panel_call *c) { /* nothing to widen: a copy */
    int64_t rows = (c->rows + GROUP - 1) / GROUP * GROUP, k = (c->k + K_STEP - 1) / K_STEP * K_STEP;
    for (int64_t r = 0; r < rows; r++) {
        const uint16_t *w = (const uint16_t *)c->w + (r < c->rows ? r : 0) * c->in + c->first;
        for (int64_t i = 0; i < k; i += 32) {
            __mmask32 m = r < c->rows && i < c->k ? first32(c->k - i) : 0;
            _mm512_storeu_si512((uint16_t *)c->panel + r * c->ld + i, _mm512_maskz_loadu_epi16(m, w + i));
        }
    }
}

static void store(const store_call *c) {
    for (int64_t t0 = 0; t0 < c->n; t0 += 16) {
        for (int64_t r0 = 0; r0 < c->rows; r0 += 16) {
            __mmask16 m = first16(c->rows - r0);
            __m512 bias = c->bias ? _mm512_maskz_loadu_ps(m, c->bias + r0) : _mm512_setzero_ps();
            const float *tile = c->c + (r0 / GROUP * c->groups + t0 / GROUP) * GROUP * GROUP;
            __m512i v[16];
            for (int r = 0; r < 16; r++) v[r] = _mm512_loadu_si512(tile + r * GROUP);
            transpose16(v);
            for (int t = 0; t < 16; t++) {
                if (t0 + t >= c->n) break;
                int64_t at = (t0 + t) * c->ldy + r0;
                __m512 sum = _mm512_add_ps(_mm512_castsi512_ps(v[t]), bias);
                if (c->y_type == DT_F32) {
                    float *y = (float *)c->y + at;
                    if (c->add) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(m, y), sum);
                    _mm512_mask_storeu_ps(y, m, sum);
                } else {
                    uint16_t *y = (uint16_t *)c->y + at;
                    if (c->add) sum = _mm512_add_ps(widen_bf16(_mm256_maskz_loadu_epi16(m, y)), sum);
                    _mm256_mask_storeu_epi16(y, m, round_bf16(sum));
                }
            }
        }
    }
}

/* --- products of training: laying out and storing ----------------------------------------------------------------- */

/* Numbers a in the lower halves, b in the upper halves of 32-bit lanes. */
INLINE __m512i bf16_pairs(__m512 a, __m512 b) {
    __m512i low = _mm512_cvtepu16_epi32(round_bf16(a)), high = _mm512_cvtepu16_epi32(round_bf16(b));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

INLINE __m512 lane_row(const lanes_call *c, dtype type, int64_t i, int64_t column, __mmask16 m) {
    const char *row = (const char *)c->b + (size_t)((i < c->k ? i : 0) * c->ld) * weight_size(type);
    return load_weights(type, row, column, i < c->k ? m : 0);
}

INLINE void lanes(const lanes_call *c, dtype type, compute mode) {
    int64_t padded = (c->k + K_STEP - 1) / K_STEP * K_STEP;
    for (int64_t i = 0; i < padded; i += 2) {
        for (int64_t column = 0; column < c->columns; column += GROUP) {
            __mmask16 m = first16(c->columns - column);
            int64_t at = column / GROUP * c->group + i * GROUP;
            __m512 a = lane_row(c, type, i, column, m), b = lane_row(c, type, i + 1, column, m);
            if (mode == COMPUTE_F32) {
                _mm512_storeu_ps((float *)c->to + at, a);
                _mm512_storeu_ps((float *)c->to + at + GROUP, b);
            } else {
                _mm512_storeu_si512((uint16_t *)c->to + at, bf16_pairs(a, b));
            }
        }
    }
}

static void lanes_f32_f32(const lanes_call *c) {
    lanes(c, DT_F32, COMPUTE_F32);
}
static void lanes_f32_bf16(const lanes_call *c) {
    lanes(c, DT_BF16, COMPUTE_F32);
}
static void lanes_bf16_f32(const lanes_call *c) {
    lanes(c, DT_F32, COMPUTE_BF16);
}

static void lanes_bf16_bf16(const lanes_call *c) {
    int64_t padded = (c->k + K_STEP - 1) / K_STEP * K_STEP;
    for (int64_t i = 0; i < padded; i += 2) {
        const uint16_t *b = (const uint16_t *)c->b + (i < c->k ? i : 0) * c->ld;
        for (int64_t column = 0; column < c->columns; column += GROUP) {
            __mmask16 m = first16(c->columns - column);
            __m256i low = _mm256_maskz_loadu_epi16(i < c->k ? m : 0, b + column);
            __m256i high = _mm256_maskz_loadu_epi16(i + 1 < c->k ? m : 0, b + (i + 1 < c->k ? c->ld : 0) + column);
            __m512i pairs =
                _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
            _mm512_storeu_si512((uint16_t *)c->to + column / GROUP * c->group + i * GROUP, pairs);
        }
    }
}

/* Row i of the matrix, 16 numbers from column r on. */
INLINE __m512 turn_row(const turn_call *c, int64_t i, int64_t r, __mmask16 m) {
    return _mm512_maskz_loadu_ps(i < c->k ? m : 0, c->a + (i < c->k ? i : 0) * c->lda + r);
}

static void turn_f32(const turn_call *c) {
    int64_t k = (c->k + K_STEP - 1) / K_STEP * K_STEP;
    for (int64_t i = 0; i < k; i += 16) {
        for (int64_t r = 0; r < c->rows; r += GROUP) {
            __mmask16 m = first16(c->rows - r);
            __m512i v[16];
            for (int j = 0; j < 16; j++) v[j] = _mm512_castps_si512(turn_row(c, i + j, r, m));
            transpose16(v);
            for (int j = 0; j < 16; j++) _mm512_storeu_si512((float *)c->panel + (r + j) * c->ld + i, v[j]);
        }
    }
}

static void turn_bf16(const turn_call *c) {
    int64_t k = (c->k + K_STEP - 1) / K_STEP * K_STEP;
    for (int64_t i = 0; i < k; i += 32) {
        for (int64_t r = 0; r < c->rows; r += GROUP) {
            __mmask16 m = first16(c->rows - r);
            __m512i v[16];
            for (int j = 0; j < 16; j++)
                v[j] = bf16_pairs(turn_row(c, i + 2 * j, r, m), turn_row(c, i + 2 * j + 1, r, m));
            transpose16(v);
            for (int j = 0; j < 16; j++) _mm512_storeu_si512((uint16_t *)c->panel + (r + j) * c->ld + i, v[j]);
        }
    }
}

static void place(const place_call *c) {
    for (int64_t r = 0; r < c->rows; r++) {
        const float *tile = c->c + r / GROUP * c->groups * GROUP * GROUP + r % GROUP * GROUP;
        float *y = c->y + r * c->ldy;
        for (int64_t l = 0; l < c->columns; l += GROUP, tile += GROUP * GROUP) {
            __mmask16 m = first16(c->columns - l);
            __m512 v = _mm512_loadu_ps(tile);
            if (c->add) v = _mm512_add_ps(_mm512_maskz_loadu_ps(m, y + l), v);
            _mm512_mask_storeu_ps(y + l, m, v);
        }
    }
}

/* --- many rows: multiplying --------------------------------------------------------------------------------------
 * R rows of w times G groups of tokens: R * G accumulators, a number of w meets G vectors of tokens. */

INLINE void tile_f32(const block_call *c, fetcher *f, fetcher *ahead, int64_t row, int64_t group, int R, int G) {
    const float *w = (const float *)c->w + row * c->ldw, *x = (const float *)c->x + group * c->x_group;
    float *to = block_tile(c, row, group) + row % GROUP * block_row_step(c);
    __m512 sum[16][3];
    take_sums(c, to, sum, R, G);
    for (int64_t k0 = 0; k0 < c->k; k0 += K_STEP, w += K_STEP, x += K_STEP * GROUP) {
        fetch(f);
        fetch(ahead);
        for (int64_t k = 0; k < K_STEP; k++) {
            __m512 v[3];
            for (int g = 0; g < G; g++) v[g] = _mm512_loadu_ps(x + g * c->x_group + k * GROUP);
            for (int r = 0; r < R; r++) {
                __m512 one = _mm512_set1_ps(w[r * c->ldw + k]);
                for (int g = 0; g < G; g++) sum[r][g] = _mm512_fmadd_ps(one, v[g], sum[r][g]);
            }
        }
    }
    keep_sums(c, to, sum, R, G);
}

/* Pairs of BF16: the lower and the upper halves of 32-bit lanes as F32. */
INLINE __m512 even(__m512i pairs) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
}

INLINE __m512 odd(__m512i pairs) {
    return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000u)));
}

INLINE void tile_bf16(const block_call *c, fetcher *f, int64_t row, int64_t group, int R, int G) {
    const uint16_t *w = (const uint16_t *)c->w + row * c->ldw, *x = (const uint16_t *)c->x + group * c->x_group;
    float *to = block_tile(c, row, group) + row % GROUP * block_row_step(c);
    __m512 sum[16][3];
    take_sums(c, to, sum, R, G);
    for (int64_t k0 = 0; k0 < c->k; k0 += K_STEP, w += K_STEP, x += K_STEP * GROUP) {
        fetch(f);
        for (int64_t k = 0; k < K_STEP; k += 2) {
            __m512 a[2], b[2];
            for (int g = 0; g < G; g++) {
                __m512i pairs = _mm512_loadu_si512(x + g * c->x_group + k * GROUP);
                a[g] = even(pairs);
                b[g] = odd(pairs);
            }
            for (int r = 0; r < R; r++) {
                int32_t two;
                memcpy(&two, w + r * c->ldw + k, 4);
                __m512i pairs = _mm512_set1_epi32(two);
                __m512 first = even(pairs), second = odd(pairs);
                for (int g = 0; g < G; g++)
                    sum[r][g] = _mm512_fmadd_ps(second, b[g], _mm512_fmadd_ps(first, a[g], sum[r][g]));
            }
        }
    }
    keep_sums(c, to, sum, R, G);
}

static void part_f32(const block_call *c, fetcher *f) {
    fetcher ahead;
    int64_t g = 0;
    while (c->groups - g >= 5 || c->groups - g == 3) {
        ahead = groups_ahead(c, g, 3, sizeof(float));
        for (int64_t row = 0; row < c->rows; row += 8) tile_f32(c, f, &ahead, row, g, 8, 3);
        g += 3;
    }
    for (; c->groups - g >= 2; g += 2) {
        ahead = groups_ahead(c, g, 2, sizeof(float));
        for (int64_t row = 0; row < c->rows; row += 8) tile_f32(c, f, &ahead, row, g, 8, 2);
    }
    ahead = groups_ahead(c, g, 1, sizeof(float));
    if (g < c->groups)
        for (int64_t row = 0; row < c->rows; row += 8) tile_f32(c, f, &ahead, row, g, 8, 1);
}

static void part_bf16(const block_call *c, fetcher *f) {
    int64_t g = 0;
    for (; c->groups - g >= 2; g += 2)
        for (int64_t row = 0; row < c->rows; row += 8) tile_bf16(c, f, row, g, 8, 2);
    if (g < c->groups)
        for (int64_t row = 0; row < c->rows; row += 8) tile_bf16(c, f, row, g, 8, 1);
}

static void block_f32(const block_call *c) {
    fetcher f = fetch_begin(&c->next, c->rows / 8 * ((c->groups + 2) / 3) * (c->k / K_STEP) + 1);
    for (int64_t k = 0; k < c->k; k += 128) {
        block_call part = block_columns(c, k, 128, sizeof(float));
        part_f32(&part, &f);
    }
}

static void block_bf16(const block_call *c) {
    fetcher f = fetch_begin(&c->next, c->rows / 8 * ((c->groups + 1) / 2) * (c->k / K_STEP) + 1);
    for (int64_t k = 0; k < c->k; k += 256) {
        block_call part = block_columns(c, k, 256, sizeof(uint16_t));
        part_bf16(&part, &f);
    }
}

/* --- what the machine can do ------------------------------------------------------------------------------------- */

static float read_all(const void *p, int64_t bytes) {
    const char *at = p;
    __m512i sum[8];
    for (int j = 0; j < 8; j++) sum[j] = _mm512_setzero_si512();
    for (int64_t i = 0; i < bytes; i += 512)
        for (int j = 0; j < 8; j++) {
            _mm_prefetch(at + i + 64 * j + 16384, _MM_HINT_T1);
            sum[j] = _mm512_xor_si512(sum[j], _mm512_loadu_si512(at + i + 64 * j));
        }
    for (int j = 1; j < 8; j++) sum[0] = _mm512_xor_si512(sum[0], sum[j]);
    return (float)_mm512_reduce_add_epi32(sum[0]);
}

static double peak(int64_t rounds, float *keep) {
    enum { SUMS = 16 };
    __m512 sum[SUMS], a = _mm512_set1_ps(*keep);
    for (int i = 0; i < SUMS; i++) sum[i] = _mm512_set1_ps((float)i);
    for (int64_t r = 0; r < rounds; r++)
        for (int i = 0; i < SUMS; i++) sum[i] = _mm512_fmadd_ps(sum[i], a, a);
    for (int i = 0; i < SUMS; i++) *keep += _mm512_reduce_add_ps(sum[i]);
    return (double)rounds * SUMS * 16 * 2;
}

void avx512_linear(linear_micro *m) {
    *m = (linear_micro){
        .few_x = {few_x, few_x, few_x, few_x},
        .few = {{few_f32_f32, few_f32_bf16, few_f32_f16, few_f32_e4m3},
                {few_bf16_f32, few_bf16_bf16, few_bf16_f16, few_bf16_e4m3}},
        .transposed = {transposed_f32, transposed_bf16, transposed_f16, transposed_e4m3},
        .group_x = {group_f32, group_bf16},
        .panel = {{panel_f32_f32, panel_f32_bf16, panel_f32_f16, panel_f32_e4m3},
                  {panel_bf16_f32, panel_bf16_bf16, panel_bf16_f16, panel_bf16_e4m3}},
        .block = {block_f32, block_bf16},
        .store = store,
        .lanes = {{lanes_f32_f32, lanes_f32_bf16}, {lanes_bf16_f32, lanes_bf16_bf16}},
        .turn = {turn_f32, turn_bf16},
        .place = place,
        .read = read_all,
        .peak = {peak, peak},
    };
}
