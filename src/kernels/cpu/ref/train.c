/* Row operations of training in plain C: the specification of the other levels. Formulas: train_ops.h. */
#include <math.h>
#include <string.h>
#include "kernels/attn_micro.h"
#include "kernels/cpu/sum_squares.h"

static void rmsnorm_dx(float *dx, float *dw, const float *dy, const float *x, const float *w, int64_t dim, float eps,
                       bool add) {
    float square = 0, dot = 0;
    for (int64_t i = 0; i < dim; i++) {
        square += x[i] * x[i];
        dot += dy[i] * w[i] * x[i];
    }
    const float r = 1 / sqrtf(square / (float)dim + eps), back = r * r * dot / (float)dim;
    for (int64_t i = 0; i < dim; i++) {
        float y = dy[i], d = r * (y * w[i] - x[i] * back);
        if (dw) dw[i] += y * r * x[i];
        dx[i] = add ? dx[i] + d : d;
    }
}

static void layernorm_dx(float *dx, float *dw, float *db, const float *dy, const float *x, const float *w, int64_t dim,
                         float eps, bool add) {
    const float count = (float)dim;
    float mean = 0, square = 0, g = 0, dot = 0;
    for (int64_t i = 0; i < dim; i++) mean += x[i];
    mean /= count;
    for (int64_t i = 0; i < dim; i++) {
        float d = x[i] - mean;
        square += d * d;
        g += dy[i] * w[i];
        dot += dy[i] * w[i] * d;
    }
    const float r = 1 / sqrtf(square / count + eps);
    g /= count;
    dot *= r * r / count;
    for (int64_t i = 0; i < dim; i++) {
        float d = x[i] - mean, y = dy[i], out = r * (y * w[i] - g - d * dot);
        if (dw) dw[i] += y * r * d;
        if (db) db[i] += y;
        dx[i] = add ? dx[i] + out : out;
    }
}

static void swiglu_dx(float *da, float *db, const float *dy, const float *a, const float *b, int64_t dim) {
    for (int64_t i = 0; i < dim; i++) {
        float ai = a[i], bi = b[i], s = 1 / (1 + expf(-ai));
        da[i] = dy[i] * bi * s * (1 + ai * (1 - s));
        db[i] = dy[i] * (ai * s);
    }
}

static void rope_dx(float *x, int64_t dim, const float *angles, bool interleaved) {
    for (int64_t i = 0; i < dim / 2; i++) {
        float *re = x + (interleaved ? 2 * i : i), *im = interleaved ? re + 1 : x + i + dim / 2;
        float c = angles[2 * i], s = angles[2 * i + 1], a = *re, b = *im;
        *re = a * c + b * s;
        *im = b * c - a * s;
    }
}

static float cross_entropy(float *z, int32_t target, int64_t vocab, float scale, int32_t *best) {
    float most = -INFINITY, odd = 0; /* odd: NaN when a logit is not finite */
    int32_t at = 0;
    for (int64_t i = 0; i < vocab; i++) {
        if (z[i] > most) {
            most = z[i];
            at = (int32_t)i;
        }
        odd += 0 * z[i];
    }
    if (best) *best = at;
    if (target < 0) {
        memset(z, 0, (size_t)vocab * sizeof *z);
        return 0;
    }
    float chosen = z[target];
    double sum = 0;
    for (int64_t i = 0; i < vocab; i++) sum += z[i] = expf(z[i] - most);
    for (int64_t i = 0; i < vocab; i++) z[i] *= (float)(scale / sum);
    z[target] -= scale;
    return (float)(log(sum) + ((double)most - chosen) + odd);
}

static void sum_logits(logit_sums *out, const float *z, int64_t vocab, float scale) {
    float odd = 0;
    *out = (logit_sums){.most = -INFINITY};
    for (int64_t i = 0; i < vocab; i++) {
        if (z[i] > out->most) {
            out->most = z[i];
            out->best = (int32_t)i;
        }
        odd += 0 * z[i];
    }
    for (int64_t i = 0; i < vocab; i++) {
        const float x = scale * (z[i] - out->most), e = expf(x);
        out->sum += e;
        out->weighted += e * x;
    }
    out->sum += odd;
    out->weighted += odd;
}

static void softmax_row(float *z, int64_t vocab, float scale, float lse, float factor) {
    for (int64_t i = 0; i < vocab; i++) z[i] = factor * expf(scale * z[i] - lse);
}

static void adamw(float *w, const float *g, void *m, void *v, dtype type, int64_t n, const adamw_factors *f) {
    float *mf = m, *vf = v;
    uint16_t *mh = m, *vh = v;
    for (int64_t i = 0; i < n; i++) {
        const bool wide = type == DT_F32;
        const float gi = f->scale * g[i];
        float mi = f->beta1 * (wide ? mf[i] : bf16_to_f32(mh[i])) + f->grad1 * gi;
        float vi = f->beta2 * (wide ? vf[i] : bf16_to_f32(vh[i])) + f->grad2 * (gi * gi);
        if (wide) mf[i] = mi, vf[i] = vi;
        else mh[i] = f32_to_bf16(mi), vh[i] = f32_to_bf16(vi);
        w[i] = f->keep * w[i] - f->rate * mi / (sqrtf(vi) * f->root + f->eps);
    }
}

void ref_train(attn_micro *m) {
    m->rmsnorm_dx = rmsnorm_dx;
    m->layernorm_dx = layernorm_dx;
    m->swiglu_dx = swiglu_dx;
    m->rope_dx = rope_dx;
    m->cross_entropy = cross_entropy;
    m->logit_sums = sum_logits;
    m->softmax_row = softmax_row;
    m->adamw = adamw;
    m->sum_squares = sum_squares;
}
