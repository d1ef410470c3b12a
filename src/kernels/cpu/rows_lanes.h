/* Row operations in F32 lanes, for the folders avx2 and avx512. The last numbers of a row go through a buffer. */
#ifndef HADAL_KERNELS_CPU_ROWS_LANES_H
#define HADAL_KERNELS_CPU_ROWS_LANES_H

#include "kernels/attn_micro.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/train_lanes.h"

/* sum (x - mean)^2; mean is 0 where it is not wanted */
static inline float squares(const float *x, int64_t dim, float mean) {
    vec sum[4] = {v_zero(), v_zero(), v_zero(), v_zero()}, m = v_set(mean);
    int64_t i = 0;
    for (; i + 4 * LANES <= dim; i += 4 * LANES) {
        for (int j = 0; j < 4; j++) {
            vec d = v_sub(v_load(x + i + j * LANES), m);
            sum[j] = v_fma(d, d, sum[j]);
        }
    }
    for (; i + LANES <= dim; i += LANES) {
        vec d = v_sub(v_load(x + i), m);
        sum[0] = v_fma(d, d, sum[0]);
    }
    float rest = 0;
    for (; i < dim; i++) rest += (x[i] - mean) * (x[i] - mean);
    return v_sum(v_add(v_add(sum[0], sum[1]), v_add(sum[2], sum[3]))) + rest;
}

static void rmsnorm_lanes(float *y, const float *x, const float *w, int64_t dim, float eps) {
    float scale = 1 / sqrtf(squares(x, dim, 0) / (float)dim + eps);
    int64_t i = 0;
    for (; i + LANES <= dim; i += LANES) v_store(y + i, v_mul(v_mul(v_load(x + i), v_set(scale)), v_load(w + i)));
    for (; i < dim; i++) y[i] = x[i] * scale * w[i];
}

static void layernorm_lanes(float *y, const float *x, const float *w, const float *b, int64_t dim, float eps) {
    vec sum = v_zero();
    float rest = 0;
    int64_t i = 0;
    for (; i + LANES <= dim; i += LANES) sum = v_add(sum, v_load(x + i));
    for (; i < dim; i++) rest += x[i];
    float mean = (v_sum(sum) + rest) / (float)dim, scale = 1 / sqrtf(squares(x, dim, mean) / (float)dim + eps);
    for (i = 0; i + LANES <= dim; i += LANES) {
        vec d = v_mul(v_sub(v_load(x + i), v_set(mean)), v_set(scale));
        v_store(y + i, v_fma(d, v_load(w + i), v_load(b + i)));
    }
    for (; i < dim; i++) y[i] = (x[i] - mean) * scale * w[i] + b[i];
}

static inline vec swiglu_vec(vec a, vec b) {
    return v_mul(v_div(a, v_add(v_set(1), v_exp(v_sub(v_zero(), a)))), b);
}

static void swiglu_lanes(float *y, const float *a, const float *b, int64_t dim) {
    int64_t i = 0;
    for (; i + LANES <= dim; i += LANES) v_store(y + i, swiglu_vec(v_load(a + i), v_load(b + i)));
    int64_t rest = dim - i;
    if (rest > 0) v_store_part(y + i, swiglu_vec(v_load_part(a + i, rest), v_load_part(b + i, rest)), rest);
}

static void add_lanes(float *y, const float *x, int64_t dim) {
    int64_t i = 0;
    for (; i + LANES <= dim; i += LANES) v_store(y + i, v_add(v_load(y + i), v_load(x + i)));
    for (; i < dim; i++) y[i] += x[i];
}

/* Plain loops: the compiler makes vectors of the shuffles. back 1 turns by the angles, -1 back. */
static inline void turn(float *x, int64_t dim, const float *angles, bool interleaved, float back) {
    int64_t half = dim / 2;
    if (interleaved) {
        for (int64_t i = 0; i < half; i++) {
            float a = x[2 * i], b = x[2 * i + 1], c = angles[2 * i], s = back * angles[2 * i + 1];
            x[2 * i] = a * c - b * s;
            x[2 * i + 1] = a * s + b * c;
        }
    } else {
        float *restrict re = x, *restrict im = x + half;
        for (int64_t i = 0; i < half; i++) {
            float a = re[i], b = im[i], c = angles[2 * i], s = back * angles[2 * i + 1];
            re[i] = a * c - b * s;
            im[i] = a * s + b * c;
        }
    }
}

static void rope_lanes(float *x, int64_t dim, const float *angles, bool interleaved) {
    turn(x, dim, angles, interleaved, 1);
}

static void rope_dx_lanes(float *x, int64_t dim, const float *angles, bool interleaved) {
    turn(x, dim, angles, interleaved, -1);
}

static inline void fill_rows_lanes(attn_micro *m) {
    m->rmsnorm = rmsnorm_lanes;
    m->layernorm = layernorm_lanes;
    m->swiglu = swiglu_lanes;
    m->add = add_lanes;
    m->rope = rope_lanes;
    m->rope_dx = rope_dx_lanes;
    fill_train_lanes(m);
}

#endif
