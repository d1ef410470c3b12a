/* What stands between the products of attention in training, for the folders avx2 and avx512: queries lie along the
 * lanes. Keys are taken two at a time, as pairs of BF16 numbers want it. */
#ifndef HADAL_KERNELS_CPU_ATTN_TRAIN_LANES_H
#define HADAL_KERNELS_CPU_ATTN_TRAIN_LANES_H

#include <float.h>
#include "kernels/attn_micro.h"
#include "kernels/cpu/lanes.h"

#define ALWAYS static inline __attribute__((always_inline))

#ifdef __AVX512F__

ALWAYS lanes seen_lanes(uint32_t bits) {
    return (lanes)bits;
}

/* Rounded to BF16, in the upper halves of 32-bit lanes: nearest even; NaN stays NaN. */
ALWAYS __m512i bf16_halves(vec x) {
    __m512i u = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i up = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    return _mm512_mask_or_epi32(up, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), u, _mm512_set1_epi32(0x400000));
}

/* Two vectors as pairs of BF16, the first in the lower halves. */
ALWAYS void store_pairs(void *p, vec a, vec b) {
    __m512i high = _mm512_and_si512(bf16_halves(b), _mm512_set1_epi32((int32_t)0xffff0000u));
    _mm512_storeu_si512(p, _mm512_or_si512(_mm512_srli_epi32(bf16_halves(a), 16), high));
}

#else

ALWAYS lanes seen_lanes(uint32_t bits) {
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int32_t)bits), bit), bit));
}

ALWAYS __m256i bf16_halves(vec x) {
    __m256i u = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i up = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(up, _mm256_or_si256(u, _mm256_set1_epi32(0x400000)), nan);
}

ALWAYS void store_pairs(void *p, vec a, vec b) {
    __m256i high = _mm256_and_si256(bf16_halves(b), _mm256_set1_epi32((int32_t)0xffff0000u));
    _mm256_storeu_si256((__m256i *)p, _mm256_or_si256(_mm256_srli_epi32(bf16_halves(a), 16), high));
}

#endif

/* LANES columns of tiles: lane 0 is query `c` of group `group`. */
typedef struct column {
    const train_tiles *t;
    int64_t group, c, at;
} column;

ALWAYS column column_of(const train_tiles *t, int64_t query) {
    int64_t group = query / PANEL, c = query % PANEL;
    return (column){t, group, c, group * PANEL * PANEL + c};
}

/* Where key r lies. */
ALWAYS int64_t place_of(const column *o, int64_t r) {
    return o->at + (r / PANEL * o->t->groups * PANEL + r % PANEL) * PANEL;
}

/* x where key r is seen, else `none`. */
ALWAYS vec where_seen(const column *o, int64_t r, bool masked, vec x, vec none) {
    if (!masked) return x;
    uint32_t bits = o->t->mask[r * o->t->groups + o->group];
    return v_where(seen_lanes(bits >> o->c), x, none);
}

/* Keys r and r + 1 as second operand of a product. */
ALWAYS void put_x(const column *o, void *x, int64_t r, bool bf16, vec a, vec b) {
    int64_t at = (o->group * o->t->keys + r) * PANEL;
    if (bf16) {
        store_pairs((uint16_t *)x + at + o->c * 2, a, b);
    } else {
        v_store((float *)x + at + o->c, a);
        v_store((float *)x + at + PANEL + o->c, b);
    }
}

/* Key r as a row of the first operand. */
ALWAYS void put_row(const column *o, void *rows, int64_t r, bool bf16, vec a) {
    int64_t at = (r * o->t->groups + o->group) * PANEL + o->c;
    if (bf16) v_store_bf16((uint16_t *)rows + at, a);
    else v_store((float *)rows + at, a);
}

static float dot_lanes(const float *a, const float *b, int64_t n) {
    vec sum[2] = {v_zero(), v_zero()};
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES)
        for (int j = 0; j < 2; j++) sum[j] = v_fma(v_load(a + i + j * LANES), v_load(b + i + j * LANES), sum[j]);
    float total = v_sum(v_add(sum[0], sum[1]));
    for (; i < n; i++) total += a[i] * b[i];
    return total;
}

static void multiply_lanes(float *tiles, int64_t count, int64_t groups, const float *factor) {
    for (int64_t i = 0; i < count * groups; i++) { /* lines of 16 queries */
        const float *by = factor + i / PANEL % groups * PANEL;
        float *line = tiles + i * PANEL;
        for (int c = 0; c < PANEL; c += LANES) v_store(line + c, v_mul(v_load(line + c), v_load(by + c)));
    }
}

/* --- softmax ---------------------------------------------------------------------------------------------------- */

ALWAYS void softmax_column(const train_softmax *a, int64_t query, bool masked, bool bf16) {
    column o = column_of(&a->t, query);
    const float *s = a->t.s;
    int64_t keys = a->t.keys;
    vec factor = v_set(a->scale), none = v_set(-INFINITY), old = v_load(a->max + query), max = old, other = old;
    for (int64_t r = 0; r < keys; r += 2) { /* v_max keeps the second when the first is NaN */
        vec x = v_mul(v_load(s + place_of(&o, r)), factor), y = v_mul(v_load(s + place_of(&o, r + 1)), factor);
        max = v_max(where_seen(&o, r, masked, x, none), max);
        other = v_max(where_seen(&o, r + 1, masked, y, none), other);
    }
    max = v_max(max, other);
    vec base = v_where(v_less(none, max), max, v_zero()), sum = v_zero();
    for (int64_t r = 0; r < keys; r += 2) {
        vec x = v_sub(v_mul(v_load(s + place_of(&o, r)), factor), base);
        vec y = v_sub(v_mul(v_load(s + place_of(&o, r + 1)), factor), base);
        x = v_exp2(where_seen(&o, r, masked, x, none));
        y = v_exp2(where_seen(&o, r + 1, masked, y, none));
        sum = v_add(sum, v_add(x, y));
        put_x(&o, a->x, r, bf16, x, y);
    }
    vec correction = v_exp2(v_sub(old, base));
    v_store(a->correction + query, correction);
    v_store(a->sum + query, v_fma(v_load(a->sum + query), correction, sum));
    v_store(a->max + query, max);
}

static void softmax_lanes_train(const train_softmax *a) {
    for (int64_t c = 0; c < a->t.groups * PANEL; c += LANES) {
        if (a->t.bf16) {
            if (a->t.mask) softmax_column(a, c, true, true);
            else softmax_column(a, c, false, true);
        } else {
            if (a->t.mask) softmax_column(a, c, true, false);
            else softmax_column(a, c, false, false);
        }
    }
}

/* --- gradient --------------------------------------------------------------------------------------------------- */

ALWAYS void gradient_column(const train_gradient *a, int64_t query, bool masked, bool bf16) {
    column o = column_of(&a->t, query);
    const float *s = a->t.s;
    vec scale = v_set(a->scale), factor = v_set(a->factor);
    vec lse = v_load(a->lse + query), delta = v_load(a->delta + query);
    for (int64_t r = 0; r < a->t.keys; r += 2) {
        vec p[2], ds[2];
        for (int j = 0; j < 2; j++) {
            int64_t at = place_of(&o, r + j);
            vec x = v_exp2(v_sub(v_mul(v_load(s + at), scale), lse));
            vec d = v_mul(v_mul(x, v_sub(v_load(a->dp + at), delta)), factor);
            p[j] = where_seen(&o, r + j, masked, x, v_zero());
            ds[j] = where_seen(&o, r + j, masked, d, v_zero());
            put_row(&o, a->p_rows, r + j, bf16, p[j]);
            put_row(&o, a->ds_rows, r + j, bf16, ds[j]);
        }
        put_x(&o, a->ds_x, r, bf16, ds[0], ds[1]);
    }
}

static void gradient_lanes(const train_gradient *a) {
    for (int64_t c = 0; c < a->t.groups * PANEL; c += LANES) {
        if (a->t.bf16) {
            if (a->t.mask) gradient_column(a, c, true, true);
            else gradient_column(a, c, false, true);
        } else {
            if (a->t.mask) gradient_column(a, c, true, false);
            else gradient_column(a, c, false, false);
        }
    }
}

/* --- the indexer's loss ----------------------------------------------------------------------------------------- */

static void weights_lanes(const train_tiles *t, float scale, const float *lse, float *total) {
    for (int64_t c = 0; c < t->groups * PANEL; c += LANES) {
        column o = column_of(t, c);
        vec factor = v_set(scale), base = v_load(lse + c);
        for (int64_t r = 0; r < t->keys; r++) {
            int64_t at = place_of(&o, r);
            vec p = v_exp2(v_sub(v_mul(v_load(t->s + at), factor), base));
            p = where_seen(&o, r, t->mask != NULL, p, v_zero());
            v_store(total + at, v_add(v_load(total + at), p));
        }
    }
}

static void relu_sum_train(const train_tiles *t, const float *w, float *total) {
    for (int64_t c = 0; c < t->groups * PANEL; c += LANES) {
        column o = column_of(t, c);
        vec weight = v_load(w + c);
        for (int64_t r = 0; r < t->keys; r++) {
            int64_t at = place_of(&o, r);
            v_store(total + at, v_fma(weight, v_max(v_zero(), v_load(t->s + at)), v_load(total + at)));
        }
    }
}

static inline float bits_as_float(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}

/* log x of normal numbers: x = 2^e m, sqrt(1/2) <= m < sqrt(2), and the polynomial of Cephes' logf for m. */
static inline vec v_log(vec x) {
    float out[LANES];
    v_store(out, x);
    for (int c = 0; c < LANES; c++) {
        uint32_t u;
        memcpy(&u, &out[c], 4);
        int32_t e = (int32_t)(u - 0x3f3504f3u) >> 23;
        float f = bits_as_float(u - ((uint32_t)e << 23)) - 1, n = (float)e;
        float p = 7.0376836292e-2f;
        p = p * f - 1.1514610310e-1f;
        p = p * f + 1.1676998740e-1f;
        p = p * f - 1.2420140846e-1f;
        p = p * f + 1.4249322787e-1f;
        p = p * f - 1.6668057665e-1f;
        p = p * f + 2.0000714765e-1f;
        p = p * f - 2.4999993993e-1f;
        p = p * f + 3.3333331174e-1f;
        out[c] = n * 0.693359375f + (f - 0.5f * f * f + (p * f * f * f - n * 2.12194440e-4f));
    }
    return v_load(out);
}

static void divergence_lanes(const train_tiles *t, float *i, float scale, float *kl) {
    bool masked = t->mask != NULL;
    vec none = v_set(-INFINITY), least = v_set(FLT_MIN);
    for (int64_t c = 0; c < t->groups * PANEL; c += LANES) {
        column o = column_of(t, c);
        vec total = v_zero(), max = none, sum = v_zero(), loss = v_zero();
        for (int64_t r = 0; r < t->keys; r++) {
            total = v_add(total, where_seen(&o, r, masked, v_load(t->s + place_of(&o, r)), v_zero()));
            max = v_max(where_seen(&o, r, masked, v_load(i + place_of(&o, r)), none), max);
        }
        for (int64_t r = 0; r < t->keys; r++) {
            vec e = v_exp(v_sub(v_load(i + place_of(&o, r)), max));
            sum = v_add(sum, where_seen(&o, r, masked, e, v_zero()));
        }
        vec lse = v_log(sum);
        for (int64_t r = 0; r < t->keys; r++) {
            int64_t at = place_of(&o, r);
            vec p = v_div(v_load(t->s + at), total), score = v_sub(v_sub(v_load(i + at), max), lse);
            vec term = v_where(v_less(p, least), v_zero(), v_mul(p, v_sub(v_log(p), score)));
            vec d = v_mul(v_set(scale), v_sub(v_exp(score), p));
            loss = v_add(loss, where_seen(&o, r, masked, term, v_zero()));
            v_store(i + at, where_seen(&o, r, masked, d, v_zero()));
        }
        v_store(kl + c, loss);
    }
}

ALWAYS void relu_gradient_column(const train_relu *a, int64_t query, bool bf16) {
    column o = column_of(&a->t, query);
    vec w = v_load(a->w + query), sum = v_zero();
    for (int64_t r = 0; r < a->t.keys; r += 2) {
        vec g[2];
        for (int j = 0; j < 2; j++) {
            int64_t at = place_of(&o, r + j);
            vec z = v_load(a->t.s + at), di = v_load(a->di + at);
            sum = v_fma(di, v_max(v_zero(), z), sum);
            g[j] = v_where(v_less(v_zero(), z), v_mul(di, w), v_zero());
            put_row(&o, a->rows, r + j, bf16, g[j]);
        }
        put_x(&o, a->x, r, bf16, g[0], g[1]);
    }
    v_store(a->dw + query, v_add(v_load(a->dw + query), sum));
}

static void relu_gradient_lanes(const train_relu *a) {
    for (int64_t c = 0; c < a->t.groups * PANEL; c += LANES) {
        if (a->t.bf16) relu_gradient_column(a, c, true);
        else relu_gradient_column(a, c, false);
    }
}

static inline void fill_attn_train_lanes(attn_micro *m) {
    m->train = (attn_train_micro){.dot = dot_lanes,
                                  .multiply = multiply_lanes,
                                  .softmax = softmax_lanes_train,
                                  .gradient = gradient_lanes,
                                  .weights = weights_lanes,
                                  .relu_sum = relu_sum_train,
                                  .divergence = divergence_lanes,
                                  .relu_gradient = relu_gradient_lanes};
}

#endif
