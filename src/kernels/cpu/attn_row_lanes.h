/* Attention of one token whose few heads share the keys (attn_row), for the folders avx2 and avx512. Scores lie [key][4
 * heads], so that the lanes of a vector are a few keys of each head. Heads that are not there repeat the first. */
#ifndef HADAL_KERNELS_CPU_ATTN_ROW_LANES_H
#define HADAL_KERNELS_CPU_ATTN_ROW_LANES_H

#include "kernels/attn_micro.h"
#include "kernels/cpu/lanes.h"

enum { ROW_VECS = 2 }; /* of a block of results */

/* s[key][head] = scale q[head] . k[key] */
static inline void row_scores(const attn_row *a, const float *const *q, float *s) {
    const __m128 scale = _mm_set1_ps(a->scale);
    for (int64_t r = 0; r < a->keys; r++) {
        const float *k = a->k + r * a->k_stride;
        vec sum[ROW_HEADS] = {v_zero(), v_zero(), v_zero(), v_zero()};
        for (int64_t i = 0; i < a->d_qk; i += LANES) {
            vec x = v_load(k + i);
#pragma GCC unroll 4
            for (int h = 0; h < ROW_HEADS; h++) sum[h] = v_fma(x, v_load(q[h] + i), sum[h]);
        }
        _mm_storeu_ps(s + r * ROW_HEADS, _mm_mul_ps(v_sum4(sum[0], sum[1], sum[2], sum[3]), scale));
    }
}

/* The same number of each head in all lanes of that head, from f(lanes of the head). */
static inline vec each_head(vec x, vec (*f)(vec, vec)) {
#ifdef __AVX512F__
    x = f(x, _mm512_shuffle_f32x4(x, x, 0x4e));
    return f(x, _mm512_shuffle_f32x4(x, x, 0xb1));
#else
    return f(x, _mm256_permute2f128_ps(x, x, 1));
#endif
}

/* Scores become weights that sum to one; a sum of zero leaves zeros. NaN stays. n: numbers in whole vectors. */
static inline void row_softmax(float *s, int64_t n) {
    const vec none = v_set(-INFINITY);
    vec most = none, total = v_zero();
    for (int64_t i = 0; i < n; i += LANES) most = v_max(v_load(s + i), most);
    most = each_head(most, v_max);
    most = v_where(v_less(none, most), most, v_zero());
    for (int64_t i = 0; i < n; i += LANES) {
        vec p = v_exp2(v_sub(v_load(s + i), most));
        total = v_add(total, p);
        v_store(s + i, p);
    }
    total = each_head(total, v_add);
    vec inverse = v_where(v_less(v_zero(), total), v_div(v_set(1), total), total);
    for (int64_t i = 0; i < n; i += LANES) v_store(s + i, v_mul(v_load(s + i), inverse));
}

static inline __attribute__((always_inline)) void row_values(const attn_row *a, const float *p, int64_t first,
                                                             int vecs) {
    vec sum[ROW_HEADS][ROW_VECS];
#pragma GCC unroll 4
    for (int h = 0; h < ROW_HEADS; h++)
#pragma GCC unroll 2
        for (int j = 0; j < vecs; j++) sum[h][j] = v_zero();
    for (int64_t r = 0; r < a->keys; r++) {
        const float *v = a->v + r * a->v_stride + first;
        vec x[ROW_VECS];
#pragma GCC unroll 2
        for (int j = 0; j < vecs; j++) x[j] = v_load(v + j * LANES);
#pragma GCC unroll 4
        for (int h = 0; h < ROW_HEADS; h++) {
            vec weight = v_set(p[r * ROW_HEADS + h]);
#pragma GCC unroll 2
            for (int j = 0; j < vecs; j++) sum[h][j] = v_fma(weight, x[j], sum[h][j]);
        }
    }
    for (int h = 0; h < a->heads; h++)
        for (int j = 0; j < vecs; j++) v_store(a->o + h * a->d_v + first + j * LANES, sum[h][j]);
}

static void row_lanes(const attn_row *a) {
    float s[(ROW_KEYS + LANES) * ROW_HEADS];
    const float *q[ROW_HEADS];
    int64_t n = a->keys * ROW_HEADS, i = 0;
    for (int h = 0; h < ROW_HEADS; h++) q[h] = a->q + (h < a->heads ? h : 0) * a->d_qk;
    row_scores(a, q, s);
    for (; n % LANES; n++) s[n] = -INFINITY;
    row_softmax(s, n);
    for (; i + ROW_VECS * LANES <= a->d_v; i += ROW_VECS * LANES) row_values(a, s, i, ROW_VECS);
    for (; i < a->d_v; i += LANES) row_values(a, s, i, 1);
}

#endif
