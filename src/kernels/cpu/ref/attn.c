/* Inner kernels of attention in plain C: the specification of the other levels. Numbers are F32 everywhere; with
 * COMPUTE_BF16 they are rounded to BF16 when they are packed, so the in-place type is none there. */
#include "kernels/attn_micro.h"

#include <math.h>
#include <string.h>

static float rounded(float x) {
    return bf16_to_f32(f32_to_bf16(x));
}

static void load_row(float *out, const void *row, dtype type, int64_t d, bool round) {
    for (int64_t i = 0; i < d; i++) {
        float x = dtype_load(type, row, i);
        out[i] = round ? rounded(x) : x;
    }
}

static const void *row_at(const void *rows, dtype type, int64_t stride, int64_t i) {
    return (const char *)rows + (size_t)(i * stride) * dtype_size(type);
}

static void pack_panel(void *panel, const void *const *rows, dtype type, int count, int64_t d, bool round) {
    float *out = panel; /* [d][PANEL] */
    for (int r = 0; r < PANEL; r++) {
        for (int64_t i = 0; i < d; i++) {
            float x = r < count ? dtype_load(type, rows[r], i) : 0;
            out[i * PANEL + r] = round ? rounded(x) : x;
        }
    }
}

static void pack_rows(void *out, const void *rows, dtype type, int64_t stride, const int32_t *index, int64_t n,
                      int64_t d, bool round) {
    for (int64_t r = 0; r < n; r++)
        load_row((float *)out + r * d, row_at(rows, type, stride, index ? index[r] : r), type, d, round);
}

static void pack_values(void *out, const void *rows, dtype type, int64_t stride, int64_t n, int64_t d, bool round) {
    int64_t padded = (d + PANEL - 1) / PANEL * PANEL;
    for (int64_t r = 0; r < n; r++) {
        float *o = (float *)out + r * padded;
        load_row(o, row_at(rows, type, stride, r), type, d, round);
        for (int64_t i = d; i < padded; i++) o[i] = 0;
    }
}

static void scores(float *s, const void *rows, int64_t stride, int64_t n, const void *panel, int panels, int64_t d) {
    int width = panels * PANEL;
    for (int64_t r = 0; r < n; r++) {
        const float *row = (const float *)rows + r * stride;
        for (int p = 0; p < panels; p++) {
            const float *q = (const float *)panel + p * d * PANEL;
            float sum[PANEL] = {0};
            for (int64_t i = 0; i < d; i++)
                for (int c = 0; c < PANEL; c++) sum[c] += row[i] * q[i * PANEL + c];
            memcpy(s + r * width + p * PANEL, sum, sizeof sum);
        }
    }
}

/* Turns the scores of query c, a column of s, into weights and returns c of flash.h. */
static float softmax(const attn_step *a, int c, bool round) {
    int width = a->panels * PANEL, seen = a->seen[c];
    float max = a->max[c];
    for (int r = 0; r < seen; r++) {
        float x = a->s[r * width + c] * a->scale;
        if (x > max) max = x;
    }
    float base = max == -INFINITY ? 0 : max; /* nothing seen yet: exp(-inf - 0) = 0 */
    float sum = 0;
    for (int r = 0; r < a->keys; r++) {
        float *s = a->s + r * width + c;
        float p = r < seen ? exp2f(*s * a->scale - base) : 0;
        sum += p;
        *s = round ? rounded(p) : p;
    }
    float correction = exp2f(a->max[c] - base);
    a->max[c] = max;
    a->sum[c] = a->sum[c] * correction + sum;
    return correction;
}

static void step(const attn_step *a, bool round) {
    int width = a->panels * PANEL;
    if (a->k) scores(a->s, a->k, a->k_stride, a->keys, a->q, a->panels, a->d_qk);
    for (int c = 0; c < width; c++) {
        float correction = softmax(a, c, round);
        float *o = a->o + c * a->d_v;
        for (int64_t i = 0; i < a->d_v; i++) o[i] *= correction;
        for (int r = 0; r < a->seen[c]; r++) {
            const float *v = (const float *)a->v + r * a->v_stride;
            float p = a->s[r * width + c];
            for (int64_t i = 0; i < a->d_v; i++) o[i] += p * v[i];
        }
    }
}

static void pack_panel_f32(void *panel, const void *const *rows, dtype type, int count, int64_t d) {
    pack_panel(panel, rows, type, count, d, false);
}
static void pack_panel_bf16(void *panel, const void *const *rows, dtype type, int count, int64_t d) {
    pack_panel(panel, rows, type, count, d, true);
}
static void pack_rows_f32(void *out, const void *rows, dtype type, int64_t stride, const int32_t *index, int64_t n,
                          int64_t d) {
    pack_rows(out, rows, type, stride, index, n, d, false);
}
static void pack_rows_bf16(void *out, const void *rows, dtype type, int64_t stride, const int32_t *index, int64_t n,
                           int64_t d) {
    pack_rows(out, rows, type, stride, index, n, d, true);
}
static void pack_values_f32(void *out, const void *rows, dtype type, int64_t stride, int64_t n, int64_t d) {
    pack_values(out, rows, type, stride, n, d, false);
}
static void pack_values_bf16(void *out, const void *rows, dtype type, int64_t stride, int64_t n, int64_t d) {
    pack_values(out, rows, type, stride, n, d, true);
}
static void step_f32(const attn_step *a) {
    step(a, false);
}
static void step_bf16(const attn_step *a) {
    step(a, true);
}

static void blend(float *o, float a, const float *x, float b, int64_t n) {
    for (int64_t i = 0; i < n; i++) o[i] = a * o[i] + b * x[i];
}

static void scale(float *o, const float *x, float a, int64_t n) {
    for (int64_t i = 0; i < n; i++) o[i] = a * x[i];
}

static void relu_sum(float *out, const float *s, int64_t stride, const float *w, int heads, int64_t width) {
    for (int64_t c = 0; c < width; c++) {
        float sum = 0;
        for (int j = 0; j < heads; j++) {
            float x = s[j * stride + c];
            sum += w[j] * (x < 0 ? 0 : x);
        }
        out[c] = sum;
    }
}

/* A number whose order as an integer is the order of scores; -0 equals 0 and NaN is the smallest. */
static uint32_t order_of(float score) {
    if (score != score) return 0;
    score += 0.0f;
    uint32_t u;
    memcpy(&u, &score, 4);
    return u >> 31 ? ~u : u | 0x80000000u;
}

/* Radix selection: eight bits at a time from the top, the k-th largest is found among the candidates that share the
 * bits so far. Then one pass takes all above it and the first of those equal to it. */
static void top_k(int32_t *keep, const float *score, int64_t n, int64_t k, uint32_t *scratch) {
    for (int64_t i = 0; i < n; i++) scratch[i] = order_of(score[i]);
    uint32_t *candidate = scratch + n;
    memcpy(candidate, scratch, (size_t)n * sizeof *candidate);
    int64_t count = n, wanted = k; /* the wanted largest of the candidates are taken */
    uint32_t threshold = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        int64_t histogram[256] = {0};
        for (int64_t i = 0; i < count; i++) histogram[candidate[i] >> shift & 255]++;
        uint32_t digit = 255;
        while (digit > 0 && histogram[digit] < wanted) wanted -= histogram[digit--];
        threshold |= digit << shift;
        int64_t left = 0;
        for (int64_t i = 0; i < count; i++)
            if ((candidate[i] >> shift & 255) == digit) candidate[left++] = candidate[i];
        count = left;
    }
    int64_t kept = 0;
    for (int64_t i = 0; i < n && kept < k; i++) {
        if (scratch[i] > threshold || (scratch[i] == threshold && wanted-- > 0)) keep[kept++] = (int32_t)i;
    }
}

void ref_attn(attn_micro *m) {
    m->product[COMPUTE_F32] = (attn_product){.type = DT_F32,
                                             .in_place = DT_F32,
                                             .dim_pad = 1,
                                             .row_pad = 1,
                                             .values_plain = true,
                                             .pack_panel = pack_panel_f32,
                                             .pack_rows = pack_rows_f32,
                                             .pack_values = pack_values_f32,
                                             .scores = scores,
                                             .step = step_f32};
    m->product[COMPUTE_BF16] = (attn_product){.type = DT_F32,
                                              .in_place = DT_COUNT,
                                              .dim_pad = 1,
                                              .row_pad = 1,
                                              .values_plain = true,
                                              .pack_panel = pack_panel_bf16,
                                              .pack_rows = pack_rows_bf16,
                                              .pack_values = pack_values_bf16,
                                              .scores = scores,
                                              .step = step_bf16};
    m->blend = blend;
    m->scale = scale;
    m->relu_sum = relu_sum;
    m->top_k = top_k;
    ref_rows(m);
    ref_attn_train(m);
}
