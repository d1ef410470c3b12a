/* Attention with AVX512-BF16: products of pairs of BF16 numbers, summed in F32. */
#include "kernels/cpu/attn_bf16.h"

enum { DIM_PAD = 2, ROW_PAD = 2, BLOCK = 8, BLOCK_VECS = 2 };

static void pack_panel(void *panel, const void *const *rows, dtype type, int count, int64_t d) {
    pack_panel_pairs(panel, rows, type, count, d, DIM_PAD);
}

static void pack_rows(void *out, const void *rows, dtype type, int64_t stride, const int32_t *index, int64_t n,
                      int64_t d) {
    pack_rows_bf16(out, rows, type, stride, index, n, d, DIM_PAD, 1);
}

static void pack_values(void *out, const void *rows, dtype type, int64_t stride, int64_t n, int64_t d) {
    pack_values_pairs(out, rows, type, stride, n, d, ROW_PAD);
}

static inline __m512bh pair(const void *p) { /* the same pair in all lanes */
    int32_t x;
    memcpy(&x, p, 4);
    return (__m512bh)_mm512_set1_epi32(x);
}

static inline __m512bh pairs(const void *p) {
    return (__m512bh)_mm512_loadu_si512(p);
}

/* rows x panels vectors of s */
static inline __attribute__((always_inline)) void score_block(float *s, int64_t width, const uint16_t *k,
                                                              int64_t stride, const uint16_t *panel, int64_t d,
                                                              int rows, int panels) {
    __m512 sum[BLOCK][BLOCK_VECS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int p = 0; p < panels; p++) sum[r][p] = _mm512_setzero_ps();
    for (int64_t i = 0; i < d; i += 2) {
        __m512bh q[BLOCK_VECS];
#pragma GCC unroll 2
        for (int p = 0; p < panels; p++) q[p] = pairs(panel + (p * d + i) * PANEL);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            __m512bh x = pair(k + r * stride + i);
#pragma GCC unroll 2
            for (int p = 0; p < panels; p++) sum[r][p] = _mm512_dpbf16_ps(sum[r][p], x, q[p]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int p = 0; p < panels; p++) _mm512_storeu_ps(s + r * width + p * PANEL, sum[r][p]);
}

static void scores(float *s, const void *rows, int64_t stride, int64_t n, const void *panel, int panels, int64_t d) {
    int64_t width = panels * PANEL;
    for (int p = 0; p < panels; p += BLOCK_VECS) {
        const uint16_t *q = (const uint16_t *)panel + p * d * PANEL, *k = rows;
        float *to = s + p * PANEL;
        bool two = p + 1 < panels;
        int64_t r = 0;
        for (; r + BLOCK <= n; r += BLOCK) {
            if (two) score_block(to + r * width, width, k + r * stride, stride, q, d, BLOCK, 2);
            else score_block(to + r * width, width, k + r * stride, stride, q, d, BLOCK, 1);
        }
        for (; r < n; r++) {
            if (two) score_block(to + r * width, width, k + r * stride, stride, q, d, 1, 2);
            else score_block(to + r * width, width, k + r * stride, stride, q, d, 1, 1);
        }
    }
}

/* o[r][..] = o * correction[r] + sum_k p[k][r] v[k][..] for BLOCK queries */
static inline __attribute__((always_inline)) void value_block(float *o, int64_t d_v, const float *correction,
                                                              const uint16_t *p, int64_t width, const uint16_t *v,
                                                              int64_t stride, int key_pairs, int vecs) {
    __m512 sum[BLOCK][BLOCK_VECS];
#pragma GCC unroll 8
    for (int r = 0; r < BLOCK; r++)
#pragma GCC unroll 2
        for (int j = 0; j < vecs; j++) sum[r][j] = v_mul(v_load(o + r * d_v + j * LANES), v_set(correction[r]));
    for (int k = 0; k < key_pairs; k++) {
        __m512bh x[BLOCK_VECS];
#pragma GCC unroll 2
        for (int j = 0; j < vecs; j++) x[j] = pairs(v + (k * stride + j * LANES) * 2);
#pragma GCC unroll 8
        for (int r = 0; r < BLOCK; r++) {
            __m512bh weight = pair(p + (k * width + r) * 2);
#pragma GCC unroll 2
            for (int j = 0; j < vecs; j++) sum[r][j] = _mm512_dpbf16_ps(sum[r][j], weight, x[j]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < BLOCK; r++)
#pragma GCC unroll 2
        for (int j = 0; j < vecs; j++) v_store(o + r * d_v + j * LANES, sum[r][j]);
}

static void step(const attn_step *a) {
    int64_t width = a->panels * PANEL;
    float correction[STEP_PANELS * PANEL];
    if (a->k) scores(a->s, a->k, a->k_stride, a->keys, a->q, a->panels, a->d_qk);
    softmax_step(a, correction);
    const uint16_t *v = a->v, *p = a->p;
    int key_pairs = (a->keys + 1) / 2;
    for (int64_t i = 0; i < a->d_v; i += BLOCK_VECS * LANES) {
        for (int64_t c = 0; c < width; c += BLOCK) {
            bool any = false;
            for (int r = 0; r < BLOCK; r++) any = any || a->seen[c + r] > 0;
            if (!any) continue;
            float *o = a->o + c * a->d_v + i;
            if (i + LANES < a->d_v)
                value_block(o, a->d_v, correction + c, p + c * 2, width, v + i * 2, a->v_stride, key_pairs, 2);
            else value_block(o, a->d_v, correction + c, p + c * 2, width, v + i * 2, a->v_stride, key_pairs, 1);
        }
    }
}

void avx512bf16_attn(attn_micro *m) {
    m->product[COMPUTE_BF16] = (attn_product){.type = DT_BF16,
                                              .in_place = DT_BF16,
                                              .dim_pad = DIM_PAD,
                                              .row_pad = 1,
                                              .values_plain = false,
                                              .pack_panel = pack_panel,
                                              .pack_rows = pack_rows,
                                              .pack_values = pack_values,
                                              .scores = scores,
                                              .step = step};
}
