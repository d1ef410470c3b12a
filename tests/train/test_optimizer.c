/* AdamW and Muon against plain double implementations, over a small table of weights. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "train/muon.h"
#include "train/optimizer.h"
#include <cmocka.h>

enum { STEPS = 5, WEIGHTS = 11, MOST = 16384 };

typedef struct shape {
    const char *name;
    int ndim;
    int64_t dim[2], layer;
    bool buffer, frozen, decay;
    double lr_scale;
} shape;

static const shape shapes[WEIGHTS] = {
    {"model.embed_tokens.weight", 2, {19, 24}, -1, false, false, true, 1},
    {"model.layers.0.input_layernorm.weight", 1, {24, 1}, 0, false, false, false, 1},
    {"model.layers.0.self_attn.o_proj.weight", 2, {24, 72}, 0, false, false, true, 1},
    {"model.layers.0.mlp.gate.weight", 2, {8, 24}, 0, false, false, true, 1},
    {"model.layers.0.mlp.gate.e_score_correction_bias", 1, {8, 1}, 0, true, true, false, 1},
    {"model.layers.0.mlp.experts.0.up_proj.weight", 2, {40, 24}, 0, false, false, true, 1}, /* tall */
    {"model.layers.0.mlp.experts.1.up_proj.weight", 2, {40, 24}, 0, false, false, false, 0.25},
    {"model.layers.0.mlp.experts.2.up_proj.weight", 2, {40, 24}, 0, false, true, true, 1},
    {"model.layers.0.mlp.experts.3.up_proj.weight", 2, {40, 24}, 0, false, false, true, 1},
    {"model.layers.1.embed_tokens.weight", 2, {19, 24}, 1, false, false, true, 1}, /* an MTP layer's copy */
    {"lm_head.weight", 2, {19, 24}, -1, false, false, true, 2},
};

typedef struct fixture {
    params p;
    param list[WEIGHTS];
    double w[MOST], m[MOST], v[MOST]; /* the reference's */
    train_config c;
    queue *q;
    optimizer *o;
} fixture;

static fixture *start(optimizer_kind kind, bool bf16, int threads, int64_t first, int64_t end) {
    fixture *f = calloc(1, sizeof *f);
    error e;
    assert_non_null(f);
    for (int i = 0; i < WEIGHTS; i++) {
        const shape *s = &shapes[i];
        f->list[i] = (param){.first = f->p.total,
                             .n = s->dim[0] * s->dim[1],
                             .ndim = s->ndim,
                             .dim = {s->dim[0], s->dim[1]},
                             .layer = s->layer,
                             .expert = -1,
                             .buffer = s->buffer,
                             .trainable = !s->frozen,
                             .decay = s->decay,
                             .lr_scale = s->lr_scale};
        snprintf(f->list[i].name, sizeof f->list[i].name, "%s", s->name);
        f->p.total += (f->list[i].n + 15) / 16 * 16;
    }
    assert_true(f->p.total <= MOST);
    f->p.list = f->list;
    f->p.count = WEIGHTS;
    f->p.w = aligned_alloc(64, MOST * sizeof(float));
    f->p.g = aligned_alloc(64, MOST * sizeof(float));
    assert_true(f->p.w && f->p.g);
    for (int64_t i = 0; i < MOST; i++) f->w[i] = f->p.w[i] = (float)(0.1 * rng_normal(1, 0, (uint64_t)i));
    train_config_default(&f->c);
    f->c.optimizer.kind = kind;
    f->c.optimizer.bf16_moments = bf16;
    assert_int_equal(queue_open(&f->q, threads, NULL, COMPUTE_BF16, &e), OK); /* Muon's products stay F32 */
    assert_int_equal(optimizer_open(&f->o, &f->c, &f->p, first, end, &e), OK);
    return f;
}

static void stop(fixture *f) {
    optimizer_close(f->o);
    queue_close(f->q);
    free(f->p.w);
    free(f->p.g);
    free(f);
}

static void gradients(fixture *f, int step) {
    for (int64_t i = 0; i < MOST; i++) f->p.g[i] = (float)(3 * rng_normal(2, (uint64_t)step, (uint64_t)i));
}

static double rate(int step) {
    return 1e-2 / step;
}
static const double grad_scale = 0.37;

static double stored(double x, bool bf16) {
    return bf16 ? (double)bf16_to_f32(f32_to_bf16((float)x)) : x;
}

/* Loshchilov & Hutter 2019, algorithm 2, as torch.optim.AdamW orders it. */
static void reference_adamw(fixture *f, const param *x, int step, bool bf16) {
    const double b1 = 0.9, b2 = 0.95, lr = rate(step) * x->lr_scale;
    for (int64_t i = x->first; i < x->first + x->n; i++) {
        const double g = (double)f->p.g[i] * grad_scale;
        if (x->decay) f->w[i] -= lr * 0.1 * f->w[i];
        const double m = b1 * f->m[i] + (1 - b1) * g, v = b2 * f->v[i] + (1 - b2) * g * g;
        f->w[i] -= lr * (m / (1 - pow(b1, step))) / (sqrt(v / (1 - pow(b2, step))) + 1e-8);
        f->m[i] = stored(m, bf16);
        f->v[i] = stored(v, bf16);
    }
}

/* O(u) of a rows x cols matrix by the formula, in double, whatever its shape. */
static void orthogonal(double *u, int64_t rows, int64_t cols) {
    double *x = u, *y = calloc((size_t)(rows * cols), sizeof *y), *a = calloc((size_t)(rows * rows), sizeof *a),
           *b = calloc((size_t)(rows * rows), sizeof *b), norm = 0;
    assert_true(y && a && b);
    for (int64_t i = 0; i < rows * cols; i++) norm += u[i] * u[i];
    for (int64_t i = 0; i < rows * cols; i++) u[i] /= sqrt(norm) + 1e-7;
    for (int n = 0; n < 5; n++) {
        for (int64_t r = 0; r < rows; r++)
            for (int64_t s = 0; s < rows; s++) {
                double sum = 0;
                for (int64_t c = 0; c < cols; c++) sum += x[r * cols + c] * x[s * cols + c];
                a[r * rows + s] = sum;
            }
        for (int64_t r = 0; r < rows; r++)
            for (int64_t s = 0; s < rows; s++) {
                double sum = 0;
                for (int64_t k = 0; k < rows; k++) sum += a[r * rows + k] * a[k * rows + s];
                b[r * rows + s] = -4.7750 * a[r * rows + s] + 2.0315 * sum;
            }
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < cols; c++) {
                double sum = 3.4445 * x[r * cols + c];
                for (int64_t k = 0; k < rows; k++) sum += b[r * rows + k] * x[k * cols + c];
                y[r * cols + c] = sum;
            }
        memcpy(x, y, (size_t)(rows * cols) * sizeof *x);
    }
    free(y);
    free(a);
    free(b);
}

static void reference_muon(fixture *f, const param *x, int step, bool bf16) {
    const int64_t rows = x->dim[0], cols = x->dim[1];
    const double lr = rate(step) * x->lr_scale, scale = 0.2 * sqrt((double)(rows > cols ? rows : cols));
    double *u = calloc((size_t)x->n, sizeof *u);
    assert_non_null(u);
    for (int64_t i = 0; i < x->n; i++) {
        const double g = (double)f->p.g[x->first + i] * grad_scale, m = 0.95 * f->m[x->first + i] + g;
        u[i] = 0.95 * m + g;
        f->m[x->first + i] = stored(m, bf16);
    }
    orthogonal(u, rows, cols);
    for (int64_t i = 0; i < x->n; i++) {
        double *w = &f->w[x->first + i];
        *w -= lr * (scale * u[i] + (x->decay ? 0.1 * *w : 0));
    }
    free(u);
}

static double farthest(const fixture *f, const param *x) {
    double most = 0;
    for (int64_t i = x->first; i < x->first + x->n; i++) {
        double d = fabs((double)f->p.w[i] - f->w[i]);
        if (!(d <= most)) most = d;
    }
    return most;
}

/* AdamW. A step moves a weight by about lr <= 1e-2, computed with some 10 roundings of 6e-8: far below 1e-7 in all;
 * weights of size 0.5 are rounded to 3e-8 in each of 5 steps: 1.5e-7. With BF16 moments a value near a tie may round
 * the other way in the reference: 2^-8 of m or v, so at most 2^-8 of an update; the updates of 5 steps sum to 2.3e-2 x
 * 3
 * (|m| / sqrt(v) stays below 3 here): 3e-4. */
static void adamw(bool bf16, double tolerance) {
    fixture *f = start(OPTIMIZER_ADAMW, bf16, 2, 0, WEIGHTS);
    float before[MOST];
    error e;
    memcpy(before, f->p.w, sizeof before);
    for (int step = 1; step <= STEPS; step++) {
        gradients(f, step);
        for (int i = 0; i < WEIGHTS; i++)
            if (f->list[i].trainable) reference_adamw(f, &f->list[i], step, bf16);
        assert_int_equal(optimizer_step(f->o, f->q, &f->p, step, rate(step), grad_scale, &e), OK);
    }
    for (int i = 0; i < WEIGHTS; i++) {
        const param *x = &f->list[i];
        moments m = optimizer_moments(f->o, i);
        if (farthest(f, x) > tolerance) fail_msg("%s: %g", x->name, farthest(f, x));
        assert_true((m.m != NULL) == x->trainable && (m.v != NULL) == x->trainable);
        if (m.m) assert_int_equal(m.type, bf16 ? DT_BF16 : DT_F32);
        if (!x->trainable) assert_memory_equal(before + x->first, f->p.w + x->first, (size_t)x->n * 4);
    }
    stop(f);
}

static void adamw_f32(void **state) {
    (void)state;
    adamw(false, 3e-7);
}

static void adamw_bf16_moments(void **state) {
    (void)state;
    adamw(true, 3e-4);
}

/* Without decay the update is smaller by lr x decay x w exactly: the mask does something. */
static void the_decay_mask_counts(void **state) {
    (void)state;
    fixture *f = start(OPTIMIZER_ADAMW, false, 1, 0, WEIGHTS);
    error e;
    memset(f->p.g, 0, MOST * sizeof *f->p.g);
    assert_int_equal(optimizer_step(f->o, f->q, &f->p, 1, 0.5, 1, &e), OK);
    for (int i = 0; i < WEIGHTS; i++) {
        const param *x = &f->list[i];
        const double keep = x->trainable && x->decay ? 1 - 0.5 * x->lr_scale * 0.1 : 1;
        for (int64_t j = x->first; j < x->first + x->n; j++)
            assert_true(fabs((double)f->p.w[j] - keep * f->w[j]) <= 2e-7 * fabs(f->w[j])); /* three roundings of 6e-8 */
    }
    stop(f);
}

static void muon_kinds(void **state) {
    (void)state;
    static const bool wanted[WEIGHTS] = {false, false, true, false, false, true, true, true, true, false, false};
    fixture *f = start(OPTIMIZER_MUON, false, 1, 0, WEIGHTS);
    for (int i = 0; i < WEIGHTS; i++) {
        assert_int_equal(muon_takes(&f->list[i]), wanted[i]);
        moments m = optimizer_moments(f->o, i);
        if (wanted[i]) assert_null(m.v);
        else if (f->list[i].trainable) assert_non_null(m.v);
    }
    stop(f);
}

/* Muon. An entry of O(u) is at most 1.2 and known to about 1e-4: five iterations of products of 24 to 72 terms
 * (each rounded to 6e-8 of sums of size 1: 4e-7) amplify what is before them by at most 3.4445 a time, 3.4445^4 = 141:
 * 6e-5. Times lr 0.2 sqrt(72), summed over the steps' rates (2.3e-2): 6e-5 x 1.7 x 2.3e-2 = 2.3e-6. */
static void muon_sequence(void **state) {
    (void)state;
    fixture *f = start(OPTIMIZER_MUON, false, 2, 0, WEIGHTS);
    error e;
    for (int step = 1; step <= STEPS; step++) {
        gradients(f, step);
        for (int i = 0; i < WEIGHTS; i++) {
            if (!f->list[i].trainable) continue;
            if (muon_takes(&f->list[i])) reference_muon(f, &f->list[i], step, false);
            else reference_adamw(f, &f->list[i], step, false);
        }
        assert_int_equal(optimizer_step(f->o, f->q, &f->p, step, rate(step), grad_scale, &e), OK);
    }
    for (int i = 0; i < WEIGHTS; i++) {
        if (farthest(f, &f->list[i]) > 2.3e-6) fail_msg("%s: %g", f->list[i].name, farthest(f, &f->list[i]));
    }
    stop(f);
}

static void muon_bf16_momentum(void **state) {
    (void)state;
    fixture *f = start(OPTIMIZER_MUON, true, 1, 0, WEIGHTS);
    error e;
    const param *x = &f->list[2];
    for (int step = 1; step <= 2; step++) {
        gradients(f, step);
        reference_muon(f, x, step, true);
        assert_int_equal(optimizer_step(f->o, f->q, &f->p, step, rate(step), grad_scale, &e), OK);
    }
    const uint16_t *m = optimizer_moments(f->o, 2).m;
    for (int64_t i = 0; i < x->n; i++) /* one unit in the last place: the other side of a tie */
        assert_true(fabs((double)bf16_to_f32(m[i]) - f->m[x->first + i]) <= ldexp(fabs(f->m[x->first + i]), -7));
    stop(f);
}

/* Eigenvalues of a symmetric matrix by Jacobi's rotations: the diagonal at the end. */
static void eigenvalues(double *a, int64_t n) {
    for (int sweep = 0; sweep < 30; sweep++)
        for (int64_t p = 0; p < n; p++)
            for (int64_t q = p + 1; q < n; q++) {
                if (fabs(a[p * n + q]) < 1e-14) continue;
                double t = atan2(2 * a[p * n + q], a[q * n + q] - a[p * n + p]) / 2, c = cos(t), s = sin(t);
                for (int64_t k = 0; k < n; k++) {
                    double x = a[k * n + p], y = a[k * n + q];
                    a[k * n + p] = c * x - s * y;
                    a[k * n + q] = s * x + c * y;
                }
                for (int64_t k = 0; k < n; k++) {
                    double x = a[p * n + k], y = a[q * n + k];
                    a[p * n + k] = c * x - s * y;
                    a[q * n + k] = s * x + c * y;
                }
            }
}

/* The singular values of the update of a random 24 x 72 matrix. Those of the matrix, over its norm, lie within
 * (sqrt(72) -+ sqrt(24)) / sqrt(24 x 72) = 0.086 .. 0.32 (Marchenko-Pastur); five iterations of the polynomial take
 * that range to 0.68 .. 1.13 (the polynomial's own bound, Jordan et al. 2024). */
static void the_update_is_nearly_orthogonal(void **state) {
    (void)state;
    fixture *f = start(OPTIMIZER_MUON, false, 1, 2, 3);
    const param *x = &f->list[2];
    const int64_t rows = x->dim[0], cols = x->dim[1];
    double gram[24 * 24], step = 1e-1 * 0.2 * sqrt(72.0);
    error e;
    gradients(f, 1);
    assert_int_equal(optimizer_step(f->o, f->q, &f->p, 1, 1e-1, 1, &e), OK);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t s = 0; s < rows; s++) {
            double sum = 0;
            for (int64_t c = 0; c < cols; c++) {
                const int64_t i = x->first + r * cols + c, j = x->first + s * cols + c;
                sum += (f->w[i] * 0.99 - (double)f->p.w[i]) * (f->w[j] * 0.99 - (double)f->p.w[j]);
            }
            gram[r * rows + s] = sum / step / step;
        }
    eigenvalues(gram, rows);
    for (int64_t r = 0; r < rows; r++) {
        double singular = sqrt(gram[r * rows + r]);
        if (!(singular > 0.67 && singular < 1.14)) fail_msg("singular value %g", singular);
    }
    stop(f);
}

/* Shares of two ranks make the whole, and threads change nothing, to the last bit. */
static void shares_and_threads(void **state) {
    (void)state;
    for (int kind = OPTIMIZER_ADAMW; kind <= OPTIMIZER_MUON; kind++) {
        error e;
        fixture *one = start((optimizer_kind)kind, false, 1, 0, WEIGHTS),
                *a = start((optimizer_kind)kind, false, 3, 0, 6);
        optimizer *rest;
        assert_int_equal(optimizer_open(&rest, &a->c, &a->p, 6, WEIGHTS, &e), OK);
        for (int step = 1; step <= 3; step++) {
            gradients(one, step);
            gradients(a, step);
            assert_int_equal(optimizer_step(one->o, one->q, &one->p, step, rate(step), 1, &e), OK);
            assert_int_equal(optimizer_step(a->o, a->q, &a->p, step, rate(step), 1, &e), OK);
            assert_int_equal(optimizer_step(rest, a->q, &a->p, step, rate(step), 1, &e), OK);
        }
        assert_memory_equal(one->p.w, a->p.w, (size_t)one->p.total * sizeof(float));
        assert_non_null(optimizer_moments(rest, 6).m);
        optimizer_close(rest);
        stop(one);
        stop(a);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(adamw_f32),
                                       cmocka_unit_test(adamw_bf16_moments),
                                       cmocka_unit_test(the_decay_mask_counts),
                                       cmocka_unit_test(muon_kinds),
                                       cmocka_unit_test(muon_sequence),
                                       cmocka_unit_test(muon_bf16_momentum),
                                       cmocka_unit_test(the_update_is_nearly_orthogonal),
                                       cmocka_unit_test(shares_and_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
