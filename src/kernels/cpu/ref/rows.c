/* Row operations in plain C: the specification of the other levels. */
#include "kernels/attn_micro.h"

#include <math.h>

static void rmsnorm(float *y, const float *x, const float *w, int64_t dim, float eps) {
    float sum = 0;
    for (int64_t i = 0; i < dim; i++) sum += x[i] * x[i];
    float scale = 1 / sqrtf(sum / (float)dim + eps);
    for (int64_t i = 0; i < dim; i++) y[i] = x[i] * scale * w[i];
}

static void layernorm(float *y, const float *x, const float *w, const float *b, int64_t dim, float eps) {
    float sum = 0, squares = 0;
    for (int64_t i = 0; i < dim; i++) sum += x[i];
    float mean = sum / (float)dim;
    for (int64_t i = 0; i < dim; i++) squares += (x[i] - mean) * (x[i] - mean);
    float scale = 1 / sqrtf(squares / (float)dim + eps);
    for (int64_t i = 0; i < dim; i++) y[i] = (x[i] - mean) * scale * w[i] + b[i];
}

static void swiglu(float *y, const float *a, const float *b, int64_t dim) {
    for (int64_t i = 0; i < dim; i++) y[i] = a[i] / (1 + expf(-a[i])) * b[i];
}

static void add(float *y, const float *x, int64_t dim) {
    for (int64_t i = 0; i < dim; i++) y[i] += x[i];
}

static void rope(float *x, int64_t dim, const float *angles, bool interleaved) {
    for (int64_t i = 0; i < dim / 2; i++) {
        float *re = x + (interleaved ? 2 * i : i), *im = interleaved ? re + 1 : x + i + dim / 2;
        float c = angles[2 * i], s = angles[2 * i + 1], a = *re, b = *im;
        *re = a * c - b * s;
        *im = a * s + b * c;
    }
}

void ref_rows(attn_micro *m) {
    m->rmsnorm = rmsnorm;
    m->layernorm = layernorm;
    m->swiglu = swiglu;
    m->add = add;
    m->rope = rope;
    ref_train(m);
}
