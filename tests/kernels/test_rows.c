/* Row operations at every level of the machine against double precision; in place; a row as it would be alone. */
#include "attn_test.h"

static const int64_t dims[] = {1, 7, 16, 20, 33, 64, 100, 577, 2048};
enum { GAP = 3 };

/* Sums of dim numbers in F32, in any order, are off by dim u of the sum of sizes at most; a handful of operations
 * more. The norm is a square root, so half of that of the squares. */
static double norm_error(int64_t dim) {
    return ((double)dim / 2 + 6) * ldexp(1, -24);
}

static void check_norm(queue *q, int64_t n, int64_t dim, bool in_place, worst *rms, worst *layer) {
    int64_t ld = dim + GAP, size = (n - 1) * ld + dim;
    float *x = random_rows(1, n, dim, ld, 3), *w = random_rows(2, 1, dim, dim, 1), *b = random_rows(3, 1, dim, dim, 1);
    for (int kind = 0; kind < 2; kind++) {
        float *y = numbers(size);
        for (int64_t i = 0; in_place && i < size; i++) y[i] = i % ld < dim ? x[i] : canary;
        const float *from = in_place ? y : x;
        if (kind == 0) op_rmsnorm(q, y, ld, from, ld, w, n, dim, 1e-6f);
        if (kind == 1) op_layernorm(q, y, ld, from, ld, w, b, n, dim, 1e-6f);
        for (int64_t r = 0; r < n; r++) {
            const float *row = x + r * ld;
            double mean = 0, largest = 0, squares = 0;
            for (int64_t i = 0; i < dim; i++) mean += kind ? row[i] / (double)dim : 0;
            for (int64_t i = 0; i < dim; i++) {
                squares += (row[i] - mean) * (row[i] - mean);
                largest = fmax(largest, fabs(row[i]));
            }
            double scale = 1 / sqrt(squares / (double)dim + (double)1e-6f);
            for (int64_t i = 0; i < dim; i++) {
                double want = (row[i] - mean) * scale * w[i], bound = fabs(want) * norm_error(dim);
                if (kind == 1) { /* the mean is off by dim u of the largest, which goes into both factors */
                    double shift = (double)dim * ldexp(1, -24) * largest * scale;
                    bound += fabs(w[i]) * shift * (1 + fabs(row[i] - mean) * scale) + ldexp(1, -23) * fabs(b[i]);
                    want += b[i];
                }
                compare(kind ? layer : rms, r * dim + i, y[r * ld + i], want, bound + 1e-37);
            }
            for (int64_t g = dim; r + 1 < n && g < ld; g++) assert_true(y[r * ld + g] == canary);
        }
        release(y, size);
    }
    free(x);
    free(w);
    free(b);
}

static void test_norms(void **state) {
    (void)state;
    for (int l = 0; l < LENGTH(test_levels); l++) {
        queue *q = open_level(l, 2, COMPUTE_F32);
        if (!q) continue;
        worst rms = {0}, layer = {0};
        for (int i = 0; i < LENGTH(dims); i++) {
            check_norm(q, 1, dims[i], false, &rms, &layer);
            check_norm(q, 40, dims[i], true, &rms, &layer);
        }
        report(&rms, "rmsnorm %s", test_levels[l]);
        report(&layer, "layernorm %s", test_levels[l]);
        queue_close(q);
    }
}

/* silu to 1e-6 relative over the whole range of F32, where the result is a normal number. */
static void test_swiglu(void **state) {
    (void)state;
    enum { DIM = 4099, N = 3 };
    for (int l = 0; l < LENGTH(test_levels); l++) {
        queue *q = open_level(l, 2, COMPUTE_F32);
        if (!q) continue;
        worst w = {0};
        float *a = random_rows(1, N, DIM, DIM, 1), *b = random_rows(2, N, DIM, DIM, 1), *y = numbers(N * DIM);
        static const double sizes[N] = {1, 20, 100};
        for (int64_t i = 0; i < N * DIM; i++) a[i] *= (float)sizes[i / DIM];
        a[0] = 0, a[1] = -0.0f, a[2] = 3e38f, a[3] = -3e38f, a[4] = INFINITY, a[5] = 1e-40f, a[6] = -87.5f,
        a[7] = 88.9f;
        op_swiglu(q, y, DIM, a, DIM, b, DIM, N, DIM);
        for (int64_t i = 0; i < N * DIM; i++) {
            double want = a[i] / (1 + exp(-(double)a[i])) * b[i];
            if (isinf(want) || i == 2 || i == 4) {
                assert_true(!isnan(y[i]));
            } else {
                compare(&w, i, y[i], want, 1e-6 * fabs(want) + 3e-37);
            }
        }
        release(y, N * DIM);
        float *in_place = numbers(N * DIM);
        memcpy(in_place, a, N * DIM * sizeof *a);
        in_place[9] = NAN;
        op_swiglu(q, in_place, DIM, in_place, DIM, b, DIM, N, DIM);
        assert_true(isnan(in_place[9]));
        release(in_place, N * DIM);
        report(&w, "swiglu %s", test_levels[l]);
        free(a);
        free(b);
        queue_close(q);
    }
}

static void test_add(void **state) {
    (void)state;
    for (int l = 0; l < LENGTH(test_levels); l++) {
        queue *q = open_level(l, 2, COMPUTE_F32);
        if (!q) continue;
        for (int i = 0; i < LENGTH(dims); i++) {
            int64_t n = 21, dim = dims[i], ld = dim + GAP, size = (n - 1) * ld + dim;
            float *x = random_rows(1, n, dim, dim, 1), *y = numbers(size);
            for (int64_t r = 0; r < n; r++)
                for (int64_t c = 0; c < dim; c++) y[r * ld + c] = (float)(r - c);
            op_add(q, y, ld, x, dim, n, dim);
            for (int64_t r = 0; r < n; r++)
                for (int64_t c = 0; c < dim; c++) assert_true(y[r * ld + c] == (float)(r - c) + x[r * dim + c]);
            for (int64_t g = dim; g < ld; g++) assert_true(y[g] == canary);
            release(y, size);
            free(x);
        }
        queue_close(q);
    }
}

static void check_rope(queue *q, int64_t n, int64_t heads, int64_t dim, bool interleaved, worst *w) {
    enum { POSITIONS = 50 };
    int64_t head_stride = dim + 5, ld = heads * head_stride + GAP,
            size = (n - 1) * ld + (heads - 1) * head_stride + dim;
    float *start = random_rows(1, 1, size, size, 1), *x = numbers(size), *table = numbers(POSITIONS * dim);
    memcpy(x, start, (size_t)size * sizeof *x);
    int32_t *pos = malloc((size_t)n * sizeof *pos);
    for (int64_t p = 0; p < POSITIONS; p++) {
        for (int64_t i = 0; i < dim / 2; i++) {
            table[p * dim + 2 * i] = cosf((float)(p * (i + 1)));
            table[p * dim + 2 * i + 1] = sinf((float)(p * (i + 1)));
        }
    }
    for (int64_t i = 0; i < n; i++) pos[i] = (int32_t)((i * 17 + 3) % POSITIONS);
    op_rope(q, x, ld, n, heads, head_stride, dim, table, pos, interleaved);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t h = 0; h < heads; h++) {
            float *from = start + i * ld + h * head_stride, *got = x + i * ld + h * head_stride;
            for (int64_t j = 0; j < dim / 2; j++) {
                int64_t re = interleaved ? 2 * j : j, im = interleaved ? re + 1 : j + dim / 2;
                double a = from[re], b = from[im], c = table[pos[i] * dim + 2 * j], s = table[pos[i] * dim + 2 * j + 1];
                double bound = (fabs(a) + fabs(b)) * ldexp(1, -23);
                compare(w, i, got[re], a * c - b * s, bound);
                compare(w, i, got[im], a * s + b * c, bound);
            }
            for (int64_t g = dim; h + 1 < heads && g < head_stride; g++) assert_true(got[g] == from[g]);
        }
    }
    release(x, size);
    release(table, POSITIONS * dim);
    free(start);
    free(pos);
}

static void test_rope(void **state) {
    (void)state;
    static const int64_t rope_dims[] = {2, 8, 20, 28, 32, 64, 128};
    for (int l = 0; l < LENGTH(test_levels); l++) {
        queue *q = open_level(l, 2, COMPUTE_F32);
        if (!q) continue;
        worst w = {0};
        for (int i = 0; i < LENGTH(rope_dims); i++) {
            for (int interleaved = 0; interleaved < 2; interleaved++) {
                check_rope(q, 1, 5, rope_dims[i], interleaved, &w);
                check_rope(q, 200, 14, rope_dims[i], interleaved, &w);
            }
        }
        report(&w, "rope %s", test_levels[l]);
        queue_close(q);
    }
}

/* Rows of one call with three threads, and one by one with one. */
static void test_rows_as_alone(void **state) {
    (void)state;
    enum { N = 50, DIM = 2050 };
    float *x = random_rows(1, N, DIM, DIM, 2), *w = random_rows(2, 1, DIM, DIM, 1);
    for (int l = 0; l < LENGTH(test_levels); l++) {
        queue *three = open_level(l, 3, COMPUTE_F32), *one = open_level(l, 1, COMPUTE_F32);
        if (!three) continue;
        float *a = numbers(N * DIM), *b = numbers(N * DIM);
        for (int kind = 0; kind < 3; kind++) {
            if (kind == 0) op_rmsnorm(three, a, DIM, x, DIM, w, N, DIM, 1e-6f);
            if (kind == 1) op_layernorm(three, a, DIM, x, DIM, w, w, N, DIM, 1e-6f);
            if (kind == 2) op_swiglu(three, a, DIM, x, DIM, x, DIM, N, DIM);
            for (int64_t i = 0; i < N; i++) {
                if (kind == 0) op_rmsnorm(one, b + i * DIM, DIM, x + i * DIM, DIM, w, 1, DIM, 1e-6f);
                if (kind == 1) op_layernorm(one, b + i * DIM, DIM, x + i * DIM, DIM, w, w, 1, DIM, 1e-6f);
                if (kind == 2) op_swiglu(one, b + i * DIM, DIM, x + i * DIM, DIM, x + i * DIM, DIM, 1, DIM);
            }
            assert_memory_equal(a, b, N * DIM * sizeof *a);
        }
        release(a, N * DIM);
        release(b, N * DIM);
        queue_close(three);
        queue_close(one);
    }
    free(x);
    free(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norms), cmocka_unit_test(test_swiglu),        cmocka_unit_test(test_add),
        cmocka_unit_test(test_rope),  cmocka_unit_test(test_rows_as_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
