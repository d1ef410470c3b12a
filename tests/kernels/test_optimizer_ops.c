/* AdamW against a scalar reference in F64, step by step; sums of squares: the same bits on every level. */
#include "attn_test.h"
#include "kernels/train_ops.h"

static const double u = 0x1p-24, half = 0x1p-8; /* roundings to F32 and to BF16, relative */
enum { ENTRIES = 5, STEPS = 6 };
static const int64_t sizes[ENTRIES] = {1, 17, 0, 32768, 70001};

/* One entry's numbers, between canaries; moments are behind m and v as the type has them. */
typedef struct entry {
    float *w, *g;
    void *m, *v;
} entry;

static double moment(const void *p, dtype type, int64_t i) {
    return type == DT_F32 ? ((const float *)p)[i] : bf16_to_f32(((const uint16_t *)p)[i]);
}

static void open_entry(entry *e, int64_t n, dtype type) {
    e->w = numbers(n), e->g = numbers(n);
    e->m = calloc((size_t)n + 1, dtype_size(type));
    e->v = calloc((size_t)n + 1, dtype_size(type));
    assert_non_null(e->m);
    assert_non_null(e->v);
    for (int64_t i = 0; i < n; i++) e->w[i] = (float)rng_normal(1, (uint64_t)n, (uint64_t)i);
    memset((char *)e->m + (size_t)n * dtype_size(type), 0x77, dtype_size(type)); /* a canary */
    memset((char *)e->v + (size_t)n * dtype_size(type), 0x77, dtype_size(type));
}

static void close_entry(entry *e, int64_t n, dtype type) {
    const size_t size = dtype_size(type);
    assert_memory_equal((char *)e->m + (size_t)n * size, "wwww", size);
    assert_memory_equal((char *)e->v + (size_t)n * size, "wwww", size);
    release(e->w, n), release(e->g, n);
    free(e->m), free(e->v);
}

/* One number, from the state before to the state after. Both moments are sums of two terms: three roundings of the
 * terms' sizes, then one to the moments' type. The update has ten roundings of its size, besides what m is off by; w
 * two of its own. */
static void check_number(const adamw_step *s, int64_t i, double w, double g, double m, double v, worst *worst_of) {
    g *= s->grad_scale;
    const double m_size = fabs(s->beta1 * m) + fabs((1 - s->beta1) * g), rounding = s->moments == DT_F32 ? 0 : half;
    m = s->beta1 * m + (1 - s->beta1) * g;
    v = s->beta2 * v + (1 - s->beta2) * g * g;
    const double rate = s->lr / s->correction1 / (sqrt(v / s->correction2) + s->eps);
    w -= s->lr * s->decay * w;
    compare(worst_of, i, moment(s->m, s->moments, i), m, 4 * u * m_size + rounding * fabs(m) + 1e-40);
    compare(worst_of, i, moment(s->v, s->moments, i), v, (6 * u + rounding) * v + 1e-40);
    compare(worst_of, i, s->w[i], w - rate * m, 3 * u * (fabs(w) + fabs(rate * m)) + rate * (10 * u) * m_size);
}

/* Several steps with gradients of very different sizes; three threads and one give the same bits. */
static void check_adamw(int l, dtype type, double decay, double grad_scale, worst *worst_of) {
    queue *queues[2] = {open_level(l, 3, COMPUTE_F32), open_level(l, 1, COMPUTE_F32)};
    if (!queues[0]) return;
    entry e[2][ENTRIES];
    float *w = numbers(70001);
    double *m = malloc(70001 * sizeof *m), *v = malloc(70001 * sizeof *v);
    assert_true(m && v);
    for (int k = 0; k < ENTRIES; k++) open_entry(&e[0][k], sizes[k], type), open_entry(&e[1][k], sizes[k], type);
    for (int step = 1; step <= STEPS; step++) {
        adamw_step list[2][ENTRIES];
        for (int j = 0; j < 2; j++) {
            for (int k = 0; k < ENTRIES; k++) {
                for (int64_t i = 0; i < sizes[k]; i++)
                    e[j][k].g[i] =
                        i % 13 == 5
                            ? 0
                            : (float)(rng_normal(2, (uint64_t)step, (uint64_t)(i + k)) * pow(10, (double)(i % 7) - 5));
                list[j][k] = (adamw_step){e[j][k].w,
                                          e[j][k].g,
                                          e[j][k].m,
                                          e[j][k].v,
                                          type,
                                          sizes[k],
                                          .lr = 3e-3,
                                          .beta1 = 0.9,
                                          .beta2 = 0.95,
                                          .eps = 1e-8,
                                          .decay = decay,
                                          .correction1 = 1 - pow(0.9, step),
                                          .correction2 = 1 - pow(0.95, step),
                                          .grad_scale = grad_scale};
            }
        }
        const int64_t n = sizes[ENTRIES - 1];
        const adamw_step *last = &list[0][ENTRIES - 1];
        memcpy(w, last->w, (size_t)n * sizeof *w);
        for (int64_t i = 0; i < n; i++) m[i] = moment(last->m, type, i), v[i] = moment(last->v, type, i);
        op_adamw(queues[0], list[0], ENTRIES);
        for (int64_t i = 0; i < n; i++) check_number(last, i, w[i], last->g[i], m[i], v[i], worst_of);
        for (int k = ENTRIES - 1; k >= 0; k--) op_adamw(queues[1], &list[1][k], 1); /* one by one: all the same */
        for (int k = 0; k < ENTRIES; k++) {
            const size_t count = (size_t)sizes[k], size = dtype_size(type);
            assert_memory_equal(e[0][k].w, e[1][k].w, count * sizeof *w);
            assert_memory_equal(e[0][k].m, e[1][k].m, count * size);
            assert_memory_equal(e[0][k].v, e[1][k].v, count * size);
        }
    }
    for (int k = 0; k < ENTRIES; k++) close_entry(&e[0][k], sizes[k], type), close_entry(&e[1][k], sizes[k], type);
    release(w, 70001);
    free(m), free(v);
    queue_close(queues[0]);
    queue_close(queues[1]);
}

static void test_adamw(void **state) {
    (void)state;
    for (int l = 0; l < LENGTH(test_levels); l++) {
        worst f32 = {0}, bf16 = {0};
        check_adamw(l, DT_F32, 0.1, 1, &f32);
        check_adamw(l, DT_F32, 0, 0.037, &f32);
        check_adamw(l, DT_BF16, 0.1, 0.037, &bf16);
        report(&f32, "adamw, moments F32, %s", test_levels[l]);
        report(&bf16, "adamw, moments BF16, %s", test_levels[l]);
    }
}

/* Many steps on one number: the F32 path stays with the F64 path. Each step moves w by at most lr or so, with ten
 * roundings of that and two of w: over STEPS_LONG steps that many times as much. */
static void test_adamw_path(void **state) {
    (void)state;
    enum { STEPS_LONG = 300 };
    for (int l = 0; l < LENGTH(test_levels); l++) {
        queue *q = open_level(l, 1, COMPUTE_F32);
        if (!q) continue;
        float w = 0.7f, g, m = 0, v = 0;
        double rw = w, rm = 0, rv = 0;
        const double lr = 1e-2, decay = 0.1, b1 = 0.9, b2 = 0.95;
        for (int t = 1; t <= STEPS_LONG; t++) {
            g = (float)(rng_normal(5, 0, (uint64_t)t) + sin(t / 20.0));
            adamw_step s = {.w = &w, .g = &g, .m = &m, .v = &v, .moments = DT_F32, .n = 1, .lr = lr, .decay = decay};
            s.beta1 = b1, s.beta2 = b2, s.eps = 1e-8, s.grad_scale = 0.5;
            s.correction1 = 1 - pow(b1, t), s.correction2 = 1 - pow(b2, t);
            op_adamw(q, &s, 1);
            rm = b1 * rm + (1 - b1) * g * 0.5;
            rv = b2 * rv + (1 - b2) * g * g * 0.25;
            rw = rw - lr * decay * rw - lr * rm / s.correction1 / (sqrt(rv / s.correction2) + 1e-8);
        }
        worst off = {0};
        compare(&off, 0, w, rw, STEPS_LONG * (2 * u + 30 * u * lr));
        report(&off, "adamw, %d steps, %s", STEPS_LONG, test_levels[l]);
        assert_true(fabs(rw - 0.7) > 1e-2); /* it went somewhere */
        queue_close(q);
    }
}

static void test_adamw_nan(void **state) {
    (void)state;
    enum { N = 40 };
    for (int l = 0; l < LENGTH(test_levels); l++) {
        queue *q = open_level(l, 1, COMPUTE_F32);
        if (!q) continue;
        float w[N] = {0}, g[N] = {0};
        uint16_t m[N] = {0}, v[N] = {0};
        g[3] = NAN, g[38] = NAN;
        adamw_step s = {.w = w, .g = g, .m = m, .v = v, .moments = DT_BF16, .n = N, .lr = 1, .beta1 = 0.9};
        s.beta2 = 0.9, s.eps = 1e-8, s.correction1 = s.correction2 = 0.1, s.grad_scale = 1;
        op_adamw(q, &s, 1);
        for (int i = 0; i < N; i++) {
            const bool odd = i == 3 || i == 38;
            assert_true(isnan(w[i]) == odd && isnan(bf16_to_f32(m[i])) == odd && isnan(bf16_to_f32(v[i])) == odd);
        }
        queue_close(q);
    }
}

/* Squares of F32 numbers are exact in F64; n sums are off by n 2^-53 of the total at most. */
static void test_sum_squares(void **state) {
    (void)state;
    static const int64_t counts[] = {0, 1, 31, 32, 33, 1000, 32768, 32769, 100003};
    for (int i = 0; i < LENGTH(counts); i++) {
        const int64_t n = counts[i];
        float *x = random_rows(4, 1, n, n, 3);
        double want = 0, first = -1;
        for (int64_t j = 0; j < n; j++) want += (double)x[j] * x[j];
        for (int l = 0; l < LENGTH(test_levels); l++) {
            for (int threads = 1; threads <= 3; threads += 2) {
                queue *q = open_level(l, threads, COMPUTE_F32);
                if (!q) continue;
                const double got = op_sum_squares(q, x, n);
                if (first < 0) first = got;
                assert_true(got == first);
                assert_true(fabs(got - want) <= 2 * (double)n * 0x1p-53 * want);
                queue_close(q);
            }
        }
        free(x);
    }
}

static void test_sum_squares_not_finite(void **state) {
    (void)state;
    enum { N = 40000 };
    for (int l = 0; l < LENGTH(test_levels); l++) {
        queue *q = open_level(l, 2, COMPUTE_F32);
        if (!q) continue;
        float *x = random_rows(4, 1, N, N, 1);
        x[N - 3] = -INFINITY;
        assert_true(isinf(op_sum_squares(q, x, N)));
        x[7] = NAN;
        assert_true(isnan(op_sum_squares(q, x, N)));
        free(x);
        queue_close(q);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_adamw_path),
        cmocka_unit_test(test_adamw_nan),
        cmocka_unit_test(test_sum_squares),
        cmocka_unit_test(test_sum_squares_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
