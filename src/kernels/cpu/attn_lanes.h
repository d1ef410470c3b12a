/* Attention in F32 lanes, for the folders avx2 and avx512: the panel's vectors lie along the lanes, so a step of the
 * online softmax works on 16 queries at once without sums across lanes. Products are blocks of a few rows (or queries)
 * by a few vectors held in registers; every number is summed over its index in order, whatever the block. */
#ifndef HADAL_KERNELS_CPU_ATTN_LANES_H
#define HADAL_KERNELS_CPU_ATTN_LANES_H

#include "kernels/attn_micro.h"
#include "kernels/cpu/lanes.h"

enum {
    PANEL_VECS = PANEL / LANES,
    SCORE_ROWS = 8 / PANEL_VECS, /* rows of a block of scores */
    VALUE_ROWS = 8 / PANEL_VECS, /* queries of a block of results */
    VALUE_VECS = 2
};

/* --- packing ---------------------------------------------------------------------------------------------------- */

static inline uint32_t bits_of(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

static inline float of_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}

/* Without the branch of f32_to_bf16, so that loops of it become vectors. */
static inline float round_bf16(float x) {
    uint32_t u = bits_of(x), nan = bits_of(x) | 0x400000u;
    u = x != x ? nan : u + 0x7fffu + (u >> 16 & 1u);
    return of_bits(u & 0xffff0000u);
}

static inline void load_row(float *restrict out, const void *restrict row, dtype type, int64_t d, bool round) {
    const float *f = row;
    const uint16_t *h = row;
    if (type == DT_BF16) {
        for (int64_t i = 0; i < d; i++) out[i] = of_bits((uint32_t)h[i] << 16);
    } else if (round) {
        for (int64_t i = 0; i < d; i++) out[i] = round_bf16(f[i]);
    } else {
        memcpy(out, f, (size_t)d * sizeof *f);
    }
}

static inline const void *row_at(const void *rows, dtype type, int64_t stride, int64_t i) {
    return (const char *)rows + (size_t)(i * stride) * (type == DT_BF16 ? 2 : 4);
}

static inline void pack_panel_lanes(float *panel, const void *const *rows, dtype type, int count, int64_t d,
                                    bool round) {
    enum { PART = 64 };
    float part[PANEL][PART];
    for (int64_t i = 0; i < d * PANEL && count < PANEL; i += LANES) v_store(panel + i, v_zero());
    if (count < PANEL && type == DT_F32 && !round) {
        for (int r = 0; r < count; r++)
            for (int64_t j = 0; j < d; j++) panel[j * PANEL + r] = ((const float *)rows[r])[j];
        return;
    }
    for (int64_t i = 0; i < d; i += PART) {
        int64_t n = d - i < PART ? d - i : PART;
        for (int r = 0; r < count; r++) load_row(part[r], row_at(rows[r], type, 1, i), type, n, round);
        for (int64_t j = 0; j < n && count == PANEL; j++)
            for (int r = 0; r < PANEL; r++) panel[(i + j) * PANEL + r] = part[r][j];
        for (int64_t j = 0; j < n && count < PANEL; j++)
            for (int r = 0; r < count; r++) panel[(i + j) * PANEL + r] = part[r][j];
    }
}

static inline void pack_rows_lanes(float *out, const void *rows, dtype type, int64_t stride, const int32_t *index,
                                   int64_t n, int64_t d, bool round) {
    for (int64_t r = 0; r < n; r++)
        load_row(out + r * d, row_at(rows, type, stride, index ? index[r] : r), type, d, round);
}

static inline void pack_values_lanes(float *out, const void *rows, dtype type, int64_t stride, int64_t n, int64_t d,
                                     bool round) {
    int64_t padded = (d + PANEL - 1) / PANEL * PANEL;
    for (int64_t r = 0; r < n; r++) {
        load_row(out + r * padded, row_at(rows, type, stride, r), type, d, round);
        for (int64_t i = d; i < padded; i++) out[r * padded + i] = 0;
    }
}

static void pack_panel_f32(void *panel, const void *const *rows, dtype type, int count, int64_t d) {
    pack_panel_lanes(panel, rows, type, count, d, false);
}
static void pack_panel_bf16(void *panel, const void *const *rows, dtype type, int count, int64_t d) {
    pack_panel_lanes(panel, rows, type, count, d, true);
}
static void pack_rows_f32(void *out, const void *rows, dtype type, int64_t stride, const int32_t *index, int64_t n,
                          int64_t d) {
    pack_rows_lanes(out, rows, type, stride, index, n, d, false);
}
static void pack_rows_bf16(void *out, const void *rows, dtype type, int64_t stride, const int32_t *index, int64_t n,
                           int64_t d) {
    pack_rows_lanes(out, rows, type, stride, index, n, d, true);
}
static void pack_values_f32(void *out, const void *rows, dtype type, int64_t stride, int64_t n, int64_t d) {
    pack_values_lanes(out, rows, type, stride, n, d, false);
}
static void pack_values_bf16(void *out, const void *rows, dtype type, int64_t stride, int64_t n, int64_t d) {
    pack_values_lanes(out, rows, type, stride, n, d, true);
}

/* --- scores ----------------------------------------------------------------------------------------------------- */

/* rows x vecs numbers of s, vecs vectors from panel vector `first` on; rows and vecs are constants where it is used. */
static inline __attribute__((always_inline)) void score_block(float *s, int64_t width, const float *k, int64_t stride,
                                                              const float *panel, int64_t d, int rows, int vecs) {
    vec sum[SCORE_ROWS][2];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < vecs; v++) sum[r][v] = v_zero();
    int64_t next = PANEL_VECS == 1 ? d * PANEL : LANES; /* from one vector of the block to the next */
    for (int64_t i = 0; i < d; i++) {
        vec q[2];
#pragma GCC unroll 2
        for (int v = 0; v < vecs; v++) q[v] = v_load(panel + i * PANEL + v * next);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            vec x = v_set(k[r * stride + i]);
#pragma GCC unroll 2
            for (int v = 0; v < vecs; v++) sum[r][v] = v_fma(x, q[v], sum[r][v]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < vecs; v++) v_store(s + r * width + v * LANES, sum[r][v]);
}

/* The rows of one block, of which there may be fewer at the end: alone, each would wait for its own chain of sums. */
static inline __attribute__((always_inline)) void score_rows(float *s, int64_t width, const float *k, int64_t stride,
                                                             const float *panel, int64_t d, int64_t rows, int vecs) {
#define ROWS(n) \
    case n: score_block(s, width, k, stride, panel, d, (n) < SCORE_ROWS ? (n) : (int)SCORE_ROWS, vecs); break;
    switch (rows) {
        ROWS(1)
        ROWS(2)
        ROWS(3)
        ROWS(4)
        ROWS(5)
        ROWS(6)
        ROWS(7)
    default: score_block(s, width, k, stride, panel, d, SCORE_ROWS, vecs);
    }
#undef ROWS
}

static void scores_lanes(float *s, const void *rows, int64_t stride, int64_t n, const void *panel, int panels,
                         int64_t d) {
    int64_t width = panels * PANEL;
    const float *k = rows, *q = panel;
    /* Two vectors at once: two panels of one vector, or a panel of two. */
    for (int p = 0, step; p < panels; p += step, q += step * d * PANEL) {
        step = PANEL_VECS == 1 && p + 1 < panels ? 2 : 1;
        float *to = s + p * PANEL;
        for (int64_t r = 0; r < n; r += SCORE_ROWS) {
            if (PANEL_VECS * step == 2) score_rows(to + r * width, width, k + r * stride, stride, q, d, n - r, 2);
            else score_rows(to + r * width, width, k + r * stride, stride, q, d, n - r, 1);
        }
    }
}

/* --- softmax ---------------------------------------------------------------------------------------------------- */

/* Turns the scores of LANES queries, columns of s, into weights; returns the correction of what was summed before.
 * `all`: every query sees every key. */
static inline __attribute__((always_inline)) vec softmax_lanes(float *s, int64_t width, int keys, const int32_t *seen,
                                                               float scale, float *max, float *sum, bool all,
                                                               bool round) {
    vec factor = v_set(scale), old = v_load(max), most = old, none = v_set(-INFINITY);
    float limits[LANES];
    for (int c = 0; c < LANES; c++) limits[c] = (float)seen[c];
    vec limit = v_load(limits);
    for (int r = 0; r < keys; r++) {
        vec x = v_mul(v_load(s + r * width), factor);
        if (!all) x = v_where(v_less(v_set((float)r), limit), x, none);
        most = v_max(x, most); /* keeps `most` when x is NaN */
    }
    vec base = v_where(v_less(none, most), most, v_zero()), total = v_zero();
    for (int r = 0; r < keys; r++) {
        vec x = v_fma(v_load(s + r * width), factor, v_sub(v_zero(), base));
        if (!all) x = v_where(v_less(v_set((float)r), limit), x, none);
        vec p = v_exp2(x);
        total = v_add(total, p);
        v_store(s + r * width, p);
    }
    if (round)
        for (int r = 0; r < keys; r++)
            for (int c = 0; c < LANES; c++) s[r * width + c] = round_bf16(s[r * width + c]);
    vec correction = v_exp2(v_sub(old, base));
    v_store(max, most);
    v_store(sum, v_fma(v_load(sum), correction, total));
    return correction;
}

/* --- results ---------------------------------------------------------------------------------------------------- */

/* o[r][..] = o * correction[r] + sum_k p[k][r] v[k][..] */
static inline __attribute__((always_inline)) void value_block(float *o, int64_t d_v, const float *correction,
                                                              const float *p, int64_t width, const float *v,
                                                              int64_t stride, int keys, int rows, int vecs) {
    vec sum[VALUE_ROWS][VALUE_VECS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int j = 0; j < vecs; j++) sum[r][j] = v_mul(v_load(o + r * d_v + j * LANES), v_set(correction[r]));
    for (int k = 0; k < keys; k++) {
        vec x[VALUE_VECS];
#pragma GCC unroll 2
        for (int j = 0; j < vecs; j++) x[j] = v_load(v + k * stride + j * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            vec weight = v_set(p[k * width + r]);
#pragma GCC unroll 2
            for (int j = 0; j < vecs; j++) sum[r][j] = v_fma(weight, x[j], sum[r][j]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int j = 0; j < vecs; j++) v_store(o + r * d_v + j * LANES, sum[r][j]);
}

static inline void values_lanes(const attn_step *a, const float *correction) {
    int64_t width = a->panels * PANEL;
    const float *v = a->v;
    for (int64_t i = 0; i < a->d_v; i += VALUE_VECS * LANES) {
        bool full = i + VALUE_VECS * LANES <= a->d_v;
        for (int64_t c = 0; c < width; c += VALUE_ROWS) {
            bool any = false;
            for (int r = 0; r < VALUE_ROWS; r++) any = any || a->seen[c + r] > 0;
            float *o = a->o + c * a->d_v + i;
            if (any && full)
                value_block(o, a->d_v, correction + c, a->s + c, width, v + i, a->v_stride, a->keys, VALUE_ROWS,
                            VALUE_VECS);
            else if (any)
                value_block(o, a->d_v, correction + c, a->s + c, width, v + i, a->v_stride, a->keys, VALUE_ROWS, 1);
        }
    }
}

static inline void step_lanes(const attn_step *a, bool round) {
    int64_t width = a->panels * PANEL;
    float correction[STEP_PANELS * PANEL];
    if (a->k) scores_lanes(a->s, a->k, a->k_stride, a->keys, a->q, a->panels, a->d_qk);
    for (int64_t c = 0; c < width; c += LANES) {
        bool all = true;
        for (int r = 0; r < LANES; r++) all = all && a->seen[c + r] == a->keys;
        vec x =
            all ? softmax_lanes(a->s + c, width, a->keys, a->seen + c, a->scale, a->max + c, a->sum + c, true, round)
                : softmax_lanes(a->s + c, width, a->keys, a->seen + c, a->scale, a->max + c, a->sum + c, false, round);
        v_store(correction + c, x);
    }
    values_lanes(a, correction);
}

static void step_f32(const attn_step *a) {
    step_lanes(a, false);
}
static void step_bf16(const attn_step *a) {
    step_lanes(a, true);
}

/* --- the rest --------------------------------------------------------------------------------------------------- */

static void blend_lanes(float *o, float a, const float *x, float b, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(o + i, v_fma(v_set(a), v_load(o + i), v_mul(v_set(b), v_load(x + i))));
    for (; i < n; i++) o[i] = a * o[i] + b * x[i];
}

static void scale_lanes(float *o, const float *x, float a, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(o + i, v_mul(v_set(a), v_load(x + i)));
    for (; i < n; i++) o[i] = a * x[i];
}

static void relu_sum_lanes(float *out, const float *s, int64_t stride, const float *w, int heads, int64_t width) {
    for (int64_t c = 0; c < width; c += PANEL) {
        vec sum[PANEL_VECS][2]; /* two sums a vector, of even and odd heads: the chain of additions is half as long */
        for (int v = 0; v < PANEL_VECS; v++) sum[v][0] = sum[v][1] = v_zero();
        int j = 0;
        for (; j + 2 <= heads; j += 2)
            for (int v = 0; v < PANEL_VECS; v++)
                for (int i = 0; i < 2; i++) { /* max keeps NaN */
                    vec x = v_max(v_zero(), v_load(s + (j + i) * stride + c + v * LANES));
                    sum[v][i] = v_fma(v_set(w[j + i]), x, sum[v][i]);
                }
        for (int v = 0; v < PANEL_VECS; v++) {
            if (j < heads)
                sum[v][0] = v_fma(v_set(w[j]), v_max(v_zero(), v_load(s + j * stride + c + v * LANES)), sum[v][0]);
            v_store(out + c + v * LANES, v_add(sum[v][0], sum[v][1]));
        }
    }
}

static inline void fill_attn_lanes(attn_micro *m) {
    attn_product *f32 = &m->product[COMPUTE_F32], *bf16 = &m->product[COMPUTE_BF16];
    f32->pack_panel = pack_panel_f32;
    f32->pack_rows = pack_rows_f32;
    f32->pack_values = pack_values_f32;
    f32->scores = scores_lanes;
    f32->step = step_f32;
    bf16->pack_panel = pack_panel_bf16;
    bf16->pack_rows = pack_rows_bf16;
    bf16->pack_values = pack_values_bf16;
    bf16->scores = scores_lanes;
    bf16->step = step_bf16;
    m->blend = blend_lanes;
    m->scale = scale_lanes;
    m->relu_sum = relu_sum_lanes;
}

#endif
