/* Row operations of training in F32 lanes, for the folders avx2 and avx512. Formulas: train_ops.h. */
#ifndef HADAL_KERNELS_CPU_TRAIN_LANES_H
#define HADAL_KERNELS_CPU_TRAIN_LANES_H

#include "kernels/attn_micro.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/sum_squares.h"

static void rmsnorm_dx_lanes(float *dx, float *dw, const float *dy, const float *x, const float *w, int64_t dim,
                             float eps, bool add) {
    vec squares[2] = {v_zero(), v_zero()}, dots[2] = {v_zero(), v_zero()};
    float square = 0, dot = 0;
    int64_t i = 0;
    for (; i + 2 * LANES <= dim; i += 2 * LANES) {
        for (int j = 0; j < 2; j++) {
            vec xi = v_load(x + i + j * LANES), g = v_mul(v_load(dy + i + j * LANES), v_load(w + i + j * LANES));
            squares[j] = v_fma(xi, xi, squares[j]);
            dots[j] = v_fma(g, xi, dots[j]);
        }
    }
    for (; i < dim; i++) {
        square += x[i] * x[i];
        dot += dy[i] * w[i] * x[i];
    }
    square += v_sum(v_add(squares[0], squares[1]));
    dot += v_sum(v_add(dots[0], dots[1]));
    const float r = 1 / sqrtf(square / (float)dim + eps), back = r * r * dot / (float)dim;
    for (i = 0; i + LANES <= dim; i += LANES) {
        vec xi = v_load(x + i), y = v_load(dy + i);
        if (dw) v_store(dw + i, v_fma(v_mul(y, v_set(r)), xi, v_load(dw + i)));
        vec d = v_mul(v_set(r), v_fnma(xi, v_set(back), v_mul(y, v_load(w + i))));
        v_store(dx + i, add ? v_add(v_load(dx + i), d) : d);
    }
    for (; i < dim; i++) {
        float y = dy[i], d = r * (y * w[i] - x[i] * back);
        if (dw) dw[i] += y * r * x[i];
        dx[i] = add ? dx[i] + d : d;
    }
}

static void layernorm_dx_lanes(float *dx, float *dw, float *db, const float *dy, const float *x, const float *w,
                               int64_t dim, float eps, bool add) {
    const float count = (float)dim;
    vec sum = v_zero(), squares = v_zero(), gs = v_zero(), dots = v_zero();
    float mean = 0, square = 0, g = 0, dot = 0;
    int64_t i = 0;
    for (; i + LANES <= dim; i += LANES) sum = v_add(sum, v_load(x + i));
    for (; i < dim; i++) mean += x[i];
    mean = (mean + v_sum(sum)) / count;
    for (i = 0; i + LANES <= dim; i += LANES) {
        vec d = v_sub(v_load(x + i), v_set(mean)), gi = v_mul(v_load(dy + i), v_load(w + i));
        squares = v_fma(d, d, squares);
        gs = v_add(gs, gi);
        dots = v_fma(gi, d, dots);
    }
    for (; i < dim; i++) {
        float d = x[i] - mean;
        square += d * d;
        g += dy[i] * w[i];
        dot += dy[i] * w[i] * d;
    }
    const float r = 1 / sqrtf((square + v_sum(squares)) / count + eps);
    g = (g + v_sum(gs)) / count;
    dot = r * r * (dot + v_sum(dots)) / count;
    for (i = 0; i + LANES <= dim; i += LANES) {
        vec d = v_sub(v_load(x + i), v_set(mean)), y = v_load(dy + i);
        if (dw) v_store(dw + i, v_fma(v_mul(y, v_set(r)), d, v_load(dw + i)));
        if (db) v_store(db + i, v_add(v_load(db + i), y));
        vec out = v_mul(v_set(r), v_fnma(d, v_set(dot), v_sub(v_mul(y, v_load(w + i)), v_set(g))));
        v_store(dx + i, add ? v_add(v_load(dx + i), out) : out);
    }
    for (; i < dim; i++) {
        float d = x[i] - mean, y = dy[i], out = r * (y * w[i] - g - d * dot);
        if (dw) dw[i] += y * r * d;
        if (db) db[i] += y;
        dx[i] = add ? dx[i] + out : out;
    }
}

static inline void swiglu_dx_vec(vec *da, vec *db, vec dy, vec a, vec b) {
    vec one = v_set(1), s = v_div(one, v_add(one, v_exp(v_sub(v_zero(), a))));
    *db = v_mul(dy, v_mul(a, s));
    *da = v_mul(v_mul(v_mul(dy, b), s), v_fma(a, v_sub(one, s), one));
}

static void swiglu_dx_lanes(float *da, float *db, const float *dy, const float *a, const float *b, int64_t dim) {
    vec va, vb;
    int64_t i = 0;
    for (; i + LANES <= dim; i += LANES) {
        swiglu_dx_vec(&va, &vb, v_load(dy + i), v_load(a + i), v_load(b + i));
        v_store(da + i, va);
        v_store(db + i, vb);
    }
    int64_t rest = dim - i;
    if (rest > 0) {
        swiglu_dx_vec(&va, &vb, v_load_part(dy + i, rest), v_load_part(a + i, rest), v_load_part(b + i, rest));
        v_store_part(da + i, va, rest);
        v_store_part(db + i, vb, rest);
    }
}

/* --- cross-entropy ------------------------------------------------------------------------------------------------ */

enum { ENTROPY_BLOCK = 1024 }; /* numbers: summed in F32; blocks are summed in F64 */

static inline float v_largest(vec x) {
    float part[LANES], most = -INFINITY;
    v_store(part, x);
    for (int j = 0; j < LANES; j++) most = part[j] > most ? part[j] : most;
    return most;
}

/* The largest of n numbers, and the block it is first in; *odd becomes NaN when one of them is not finite. */
static float largest_logit(const float *z, int64_t n, int64_t *block, float *odd) {
    float most = -INFINITY, rest_odd = 0;
    vec odds = v_zero();
    *block = 0;
    for (int64_t from = 0; from < n; from += ENTROPY_BLOCK) {
        int64_t end = from + ENTROPY_BLOCK < n ? from + ENTROPY_BLOCK : n, i = from;
        vec m = v_set(-INFINITY);
        for (; i + LANES <= end; i += LANES) {
            vec x = v_load(z + i);
            m = v_max(x, m);
            odds = v_fma(x, v_zero(), odds);
        }
        float here = v_largest(m);
        for (; i < end; i++) {
            here = z[i] > here ? z[i] : here;
            rest_odd += 0 * z[i];
        }
        if (here > most) {
            most = here;
            *block = from;
        }
    }
    *odd = v_sum(odds) + rest_odd;
    return most;
}

/* z becomes exp(z - most); returns the sum. */
static double exponentials(float *z, int64_t n, float most) {
    double total = 0;
    vec m = v_set(most);
    for (int64_t from = 0; from < n; from += ENTROPY_BLOCK) {
        int64_t end = from + ENTROPY_BLOCK < n ? from + ENTROPY_BLOCK : n, i = from;
        vec sum = v_zero();
        for (; i + LANES <= end; i += LANES) {
            vec p = v_exp(v_sub(v_load(z + i), m));
            sum = v_add(sum, p);
            v_store(z + i, p);
        }
        if (i < end) {
            float part[LANES];
            v_store(part, v_exp(v_sub(v_load_part(z + i, end - i), m)));
            for (int j = 0; i < end; i++, j++) total += z[i] = part[j];
        }
        total += v_sum(sum);
    }
    return total;
}

/* The first of z's numbers from `at` on that is `most`; 0 when none is: all are NaN. */
static int32_t place_of_logit(const float *z, int64_t n, int64_t at, float most) {
    for (; at < n && !(z[at] == most); at++) {}
    return at < n ? (int32_t)at : 0;
}

static float cross_entropy_lanes(float *z, int32_t target, int64_t vocab, float scale, int32_t *best) {
    int64_t at;
    float odd, most = largest_logit(z, vocab, &at, &odd);
    if (best) *best = place_of_logit(z, vocab, at, most);
    if (target < 0) {
        memset(z, 0, (size_t)vocab * sizeof *z);
        return 0;
    }
    float chosen = z[target];
    double sum = exponentials(z, vocab, most);
    vec factor = v_set((float)(scale / sum));
    int64_t i = 0;
    for (; i + LANES <= vocab; i += LANES) v_store(z + i, v_mul(v_load(z + i), factor));
    for (; i < vocab; i++) z[i] *= (float)(scale / sum);
    z[target] -= scale;
    return (float)(log(sum) + ((double)most - chosen) + odd);
}

/* --- log-probabilities -------------------------------------------------------------------------------------------- */

static void logit_sums_lanes(logit_sums *out, const float *z, int64_t vocab, float scale) {
    int64_t at;
    float odd, most = largest_logit(z, vocab, &at, &odd);
    *out = (logit_sums){.sum = odd, .weighted = odd, .most = most, .best = place_of_logit(z, vocab, at, most)};
    const vec m = v_set(most), s = v_set(scale);
    for (int64_t from = 0; from < vocab; from += ENTROPY_BLOCK) {
        int64_t end = from + ENTROPY_BLOCK < vocab ? from + ENTROPY_BLOCK : vocab, i = from;
        vec sum = v_zero(), weighted = v_zero();
        for (; i + LANES <= end; i += LANES) {
            vec x = v_mul(s, v_sub(v_load(z + i), m)), e = v_exp(x);
            sum = v_add(sum, e);
            weighted = v_fma(e, x, weighted);
        }
        if (i < end) {
            float e[LANES], x[LANES];
            vec xs = v_mul(s, v_sub(v_load_part(z + i, end - i), m));
            v_store(x, xs);
            v_store(e, v_exp(xs));
            for (int j = 0; i < end; i++, j++) {
                out->sum += e[j];
                out->weighted += e[j] * x[j];
            }
        }
        out->sum += v_sum(sum);
        out->weighted += v_sum(weighted);
    }
}

static void softmax_row_lanes(float *z, int64_t vocab, float scale, float lse, float factor) {
    const vec s = v_set(scale), l = v_set(-lse), f = v_set(factor);
    int64_t i = 0;
    for (; i + LANES <= vocab; i += LANES) v_store(z + i, v_mul(f, v_exp(v_fma(s, v_load(z + i), l))));
    if (i == vocab) return;
    const vec rest = v_load_part(z + i, vocab - i);
    v_store_part(z + i, v_mul(f, v_exp(v_fma(s, rest, l))), vocab - i);
}

/* --- optimizer ---------------------------------------------------------------------------------------------------- */

static inline vec load_moment(const void *p, dtype type, int64_t i) {
    return type == DT_F32 ? v_load((const float *)p + i) : v_load_bf16((const uint16_t *)p + i);
}

static inline void store_moment(void *p, dtype type, int64_t i, vec x) {
    if (type == DT_F32) v_store((float *)p + i, x);
    else v_store_bf16((uint16_t *)p + i, x);
}

static inline void adamw_vec(float *w, const float *g, void *m, void *v, dtype type, int64_t i,
                             const adamw_factors *f) {
    vec gi = v_mul(v_set(f->scale), v_load(g + i));
    vec mi = v_fma(v_set(f->grad1), gi, v_mul(v_set(f->beta1), load_moment(m, type, i)));
    vec vi = v_fma(v_set(f->grad2), v_mul(gi, gi), v_mul(v_set(f->beta2), load_moment(v, type, i)));
    store_moment(m, type, i, mi);
    store_moment(v, type, i, vi);
    vec step = v_div(v_mul(v_set(f->rate), mi), v_fma(v_sqrt(vi), v_set(f->root), v_set(f->eps)));
    v_store(w + i, v_sub(v_mul(v_set(f->keep), v_load(w + i)), step));
}

static void adamw_lanes(float *w, const float *g, void *m, void *v, dtype type, int64_t n, const adamw_factors *f) {
    int64_t i = 0;
    if (type == DT_F32)
        for (; i + LANES <= n; i += LANES) adamw_vec(w, g, m, v, DT_F32, i, f);
    else
        for (; i + LANES <= n; i += LANES) adamw_vec(w, g, m, v, DT_BF16, i, f);
    if (i == n) return;
    float w1[LANES] = {0}, g1[LANES] = {0}, m1[LANES] = {0}, v1[LANES] = {0}; /* moments of either type */
    const size_t rest = (size_t)(n - i), size = dtype_size(type);
    memcpy(w1, w + i, rest * sizeof *w);
    memcpy(g1, g + i, rest * sizeof *g);
    memcpy(m1, (char *)m + (size_t)i * size, rest * size);
    memcpy(v1, (char *)v + (size_t)i * size, rest * size);
    adamw_vec(w1, g1, m1, v1, type, 0, f);
    memcpy(w + i, w1, rest * sizeof *w);
    memcpy((char *)m + (size_t)i * size, m1, rest * size);
    memcpy((char *)v + (size_t)i * size, v1, rest * size);
}

static inline void fill_train_lanes(attn_micro *m) {
    m->rmsnorm_dx = rmsnorm_dx_lanes;
    m->layernorm_dx = layernorm_dx_lanes;
    m->swiglu_dx = swiglu_dx_lanes;
    m->cross_entropy = cross_entropy_lanes;
    m->logit_sums = logit_sums_lanes;
    m->softmax_row = softmax_row_lanes;
    m->adamw = adamw_lanes;
    m->sum_squares = sum_squares;
}

#endif
