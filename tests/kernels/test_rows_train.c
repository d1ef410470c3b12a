/* Row operations of training at every level of the machine against double precision; in place and added to; the same
 * bits with any number of threads. */
#include "attn_test.h"
#include "kernels/train_ops.h"

static const int64_t dims[] = {1, 7, 16, 20, 33, 64, 100, 577, 2048};
enum { GAP = 3 };
static const float eps = 1e-6f;
static const double u = 0x1p-24;

/* --- norms -------------------------------------------------------------------------------------------------------- */

typedef struct norm_case {
    int64_t n, dim;
    bool layer, add, in_place; /* in place: dx is dy */
    bool sums;                 /* dw and db are wanted */
} norm_case;

/* dx, dw and db of rows in F64 (n <= 0: none), each with a bound of the operation's error. Sums of dim products are off
 * by (dim + 3) u of the sum of sizes, r by (dim / 2 + 6) u of itself; dx has r once or three times and one such sum:
 * less than 3 dim + 40 roundings of the terms' sizes. The mean of layernorm is off by dim u of the largest |x|, which
 * shifts all x - mean. dw is a sum of n such terms, in any order. */
typedef struct norm_want {
    double *dx, *dx_off, *dw, *dw_off, *db, *db_off;
} norm_want;

static void norm_reference(norm_want *o, const norm_case *k, const float *dy, const float *x, int64_t ld,
                           const float *w) {
    const double dim = (double)k->dim, e = (3 * dim + 40) * u, rows = (double)k->n;
    for (int64_t t = 0; t < k->n; t++) {
        const float *xr = x + t * ld, *yr = dy + t * ld;
        double mean = 0, most = 0, square = 0, g = 0, dot = 0, g_size = 0, dot_size = 0;
        for (int64_t i = 0; i < k->dim; i++) mean += k->layer ? xr[i] / dim : 0;
        for (int64_t i = 0; i < k->dim; i++) {
            double c = xr[i] - mean, gi = (double)yr[i] * w[i];
            most = fmax(most, fabs(xr[i]));
            square += c * c / dim;
            g += gi / dim, g_size += fabs(gi) / dim;
            dot += gi * c / dim, dot_size += fabs(gi * c) / dim;
        }
        const double r = 1 / sqrt(square + (double)eps), shift = k->layer ? dim * u * most : 0;
        if (!k->layer) g = g_size = 0;
        for (int64_t i = 0; i < k->dim; i++) {
            const double c = xr[i] - mean, gi = (double)yr[i] * w[i], size = fabs(c) + shift;
            o->dx[t * k->dim + i] = r * (gi - g - c * r * r * dot);
            o->dx_off[t * k->dim + i] = e * r * (fabs(gi) + g_size + size * r * r * dot_size) +
                                        shift * 3 * r * r * r * (dot_size + size * g_size) + 1e-37;
            o->dw[i] += yr[i] * c * r;
            o->dw_off[i] += fabs(yr[i]) * r * (size * (e + (rows + 4) * u) + 2 * shift);
            o->db[i] += yr[i];
            o->db_off[i] += fabs(yr[i]) * (rows + 4) * u;
        }
    }
}

static void run_norm(queue *q, const norm_case *k, float *dx, float *dw, float *db, const float *dy, const float *x,
                     int64_t ld, const float *w) {
    if (k->layer) op_layernorm_dx(q, dx, ld, dw, db, dy, ld, x, ld, w, k->n, k->dim, eps, k->add);
    else op_rmsnorm_dx(q, dx, ld, dw, dy, ld, x, ld, w, k->n, k->dim, eps, k->add);
}

static void check_norm(queue *q, queue *alone, const norm_case *k, worst *dx_worst, worst *dw_worst) {
    const int64_t n = k->n, dim = k->dim, ld = dim + GAP, size = n > 0 ? (n - 1) * ld + dim : 0;
    float *x = random_rows(1, n, dim, ld, 2), *y = random_rows(2, n, dim, ld, 1), *w = random_rows(3, 1, dim, dim, 1),
          *before = random_rows(4, n, dim, ld, 1);
    double *memory = calloc((size_t)(2 * n * dim + 4 * dim), sizeof *memory);
    assert_non_null(memory);
    norm_want want = {.dx = memory, .dx_off = memory + n * dim, .dw = memory + 2 * n * dim};
    want.dw_off = want.dw + dim, want.db = want.dw + 2 * dim, want.db_off = want.dw + 3 * dim;
    norm_reference(&want, k, y, x, ld, w);
    float *dx[2], *dw[2], *db[2];
    for (int j = 0; j < 2; j++) {
        dx[j] = numbers(size), dw[j] = numbers(dim), db[j] = numbers(dim);
        for (int64_t i = 0; i < size; i++)
            if (i % ld < dim && (k->add || k->in_place)) dx[j][i] = k->in_place ? y[i] : before[i];
        for (int64_t i = 0; i < dim; i++) dw[j][i] = 0.5f, db[j][i] = -0.25f;
        run_norm(j ? alone : q, k, dx[j], k->sums ? dw[j] : NULL, k->sums && k->layer ? db[j] : NULL,
                 k->in_place ? dx[j] : y, x, ld, w);
    }
    for (int64_t i = 0; i < size; i++) {
        if (i % ld >= dim) {
            assert_true(dx[0][i] == canary);
            continue;
        }
        const int64_t at = i / ld * dim + i % ld;
        const double start = k->add ? before[i] : 0;
        compare(dx_worst, at, dx[0][i], start + want.dx[at], want.dx_off[at] + 2 * u * fabs(start + want.dx[at]));
    }
    for (int64_t i = 0; i < dim; i++) {
        compare(dw_worst, i, dw[0][i], 0.5 + (k->sums ? want.dw[i] : 0),
                k->sums ? want.dw_off[i] + 2 * u * fabs(0.5 + want.dw[i]) : 0);
        compare(dw_worst, i, db[0][i], -0.25 + (k->sums && k->layer ? want.db[i] : 0),
                k->sums && k->layer ? want.db_off[i] + 2 * u * fabs(-0.25 + want.db[i]) : 0);
    }
    if (size) assert_memory_equal(dx[0], dx[1], (size_t)size * sizeof *dx[0]);
    assert_memory_equal(dw[0], dw[1], (size_t)dim * sizeof *dw[0]);
    assert_memory_equal(db[0], db[1], (size_t)dim * sizeof *db[0]);
    for (int j = 0; j < 2; j++) release(dx[j], size), release(dw[j], dim), release(db[j], dim);
    free(x), free(y), free(w), free(before), free(memory);
}

static void test_norms(void **state) {
    (void)state;
    for (int l = 0; l < LENGTH(test_levels); l++) {
        queue *three = open_level(l, 3, COMPUTE_F32), *one = open_level(l, 1, COMPUTE_F32);
        if (!three) continue;
        for (int layer = 0; layer < 2; layer++) {
            worst dx = {0}, dw = {0};
            for (int i = 0; i < LENGTH(dims); i++) {
                check_norm(three, one, &(norm_case){0, dims[i], layer, false, false, true}, &dx, &dw);
                check_norm(three, one, &(norm_case){1, dims[i], layer, true, false, true}, &dx, &dw);
                check_norm(three, one, &(norm_case){70, dims[i], layer, false, true, true}, &dx, &dw);
                check_norm(three, one, &(norm_case){40, dims[i], layer, true, false, false}, &dx, &dw);
            }
            check_norm(three, one, &(norm_case){1500, 100, layer, false, false, true}, &dx, &dw);
            report(&dx, "%s dx %s", layer ? "layernorm" : "rmsnorm", test_levels[l]);
            report(&dw, "%s dw %s", layer ? "layernorm" : "rmsnorm", test_levels[l]);
        }
        queue_close(three);
        queue_close(one);
    }
}

/* --- swiglu ------------------------------------------------------------------------------------------------------- */

/* The exponential is off by 4e-7 of itself, so that s and 1 - s are, 1 + a (1 - s) by 5e-7 of 1 + |a| (1 - s), and
 * where s is near one its rounding stands in 1 - s, times |a|. */
static void check_swiglu(queue *q, queue *alone, int64_t n, int64_t dim, bool in_place, worst *worst_a,
                         worst *worst_b) {
    const int64_t ld = dim + GAP, size = (n - 1) * ld + dim;
    float *a = random_rows(1, n, dim, ld, 4), *b = random_rows(2, n, dim, ld, 1), *dy = random_rows(3, n, dim, ld, 1);
    for (int64_t i = 0; i < dim; i++) a[i] = (float)(200 * i / (dim + 1) - 100) + 0.25f;
    float *da[2], *db[2];
    for (int j = 0; j < 2; j++) {
        da[j] = numbers(size), db[j] = numbers(size);
        for (int64_t i = 0; in_place && i < size; i++)
            if (i % ld < dim) da[j][i] = a[i], db[j][i] = b[i];
        op_swiglu_dx(j ? alone : q, da[j], ld, db[j], ld, dy, ld, in_place ? da[j] : a, ld, in_place ? db[j] : b, ld, n,
                     dim);
    }
    for (int64_t i = 0; i < size; i++) {
        if (i % ld >= dim) {
            assert_true(da[0][i] == canary && db[0][i] == canary);
            continue;
        }
        const double s = 1 / (1 + exp(-(double)a[i])), left = 1 / (1 + exp((double)a[i])), size_a = fabs(a[i]);
        const double base = dy[i] * (double)b[i] * s;
        compare(worst_a, i, da[0][i], base * (1 + a[i] * left),
                fabs(base) * (1e-6 * (1 + size_a * left) + 2 * u * size_a) + 1e-35);
        compare(worst_b, i, db[0][i], dy[i] * a[i] * s, fabs(dy[i] * a[i] * s) * 1e-6 + 1e-35);
    }
    assert_memory_equal(da[0], da[1], (size_t)size * sizeof *da[0]);
    assert_memory_equal(db[0], db[1], (size_t)size * sizeof *db[0]);
    for (int j = 0; j < 2; j++) release(da[j], size), release(db[j], size);
    free(a), free(b), free(dy);
}

static void test_swiglu(void **state) {
    (void)state;
    for (int l = 0; l < LENGTH(test_levels); l++) {
        queue *three = open_level(l, 3, COMPUTE_F32), *one = open_level(l, 1, COMPUTE_F32);
        if (!three) continue;
        worst a = {0}, b = {0};
        for (int i = 0; i < LENGTH(dims); i++) {
            check_swiglu(three, one, 1, dims[i], false, &a, &b);
            check_swiglu(three, one, 60, dims[i], true, &a, &b);
        }
        report(&a, "swiglu da %s", test_levels[l]);
        report(&b, "swiglu db %s", test_levels[l]);
        queue_close(three);
        queue_close(one);
    }
}

/* --- rope --------------------------------------------------------------------------------------------------------- */

/* <rope(x), y> = <x, rope_dx(y)> for any x and y, with a factor in the table, too: what a derivative of a linear map
 * is. A rotated number has three roundings of its terms' sizes, on either side. */
static void check_rope(queue *q, int64_t n, int64_t heads, int64_t dim, bool interleaved, worst *w) {
    enum { POSITIONS = 50 };
    const double factor = 1.25;
    const int64_t stride = dim + 5, ld = heads * stride + GAP, size = (n - 1) * ld + (heads - 1) * stride + dim;
    float *x = random_rows(1, 1, size, size, 1), *y = random_rows(2, 1, size, size, 1), *turned = numbers(size),
          *back = numbers(size), *table = numbers(POSITIONS * dim);
    int32_t *pos = malloc((size_t)n * sizeof *pos);
    assert_non_null(pos);
    memcpy(turned, x, (size_t)size * sizeof *x);
    memcpy(back, y, (size_t)size * sizeof *y);
    for (int64_t p = 0; p < POSITIONS; p++) {
        for (int64_t i = 0; i < dim / 2; i++) {
            table[p * dim + 2 * i] = (float)(factor * cos((double)(p * (i + 1))));
            table[p * dim + 2 * i + 1] = (float)(factor * sin((double)(p * (i + 1))));
        }
    }
    for (int64_t i = 0; i < n; i++) pos[i] = (int32_t)((i * 17 + 3) % POSITIONS);
    op_rope(q, turned, ld, n, heads, stride, dim, table, pos, interleaved);
    op_rope_dx(q, back, ld, n, heads, stride, dim, table, pos, interleaved);
    for (int64_t t = 0; t < n; t++) {
        for (int64_t h = 0; h < heads; h++) {
            const int64_t at = t * ld + h * stride;
            double left = 0, right = 0, off = 0;
            for (int64_t i = 0; i < dim; i++) {
                left += (double)turned[at + i] * y[at + i];
                right += (double)x[at + i] * back[at + i];
            }
            for (int64_t i = 0; i < dim / 2; i++) {
                const float *a = x + at + (interleaved ? 2 * i : i), *b = y + at + (interleaved ? 2 * i : i);
                const int64_t im = interleaved ? 1 : dim / 2;
                off += 2 * 3 * u * factor * (fabs(a[0]) + fabs(a[im])) * (fabs(b[0]) + fabs(b[im]));
            }
            compare(w, at, left, right, off);
            for (int64_t i = at + dim; h + 1 < heads && i < at + stride; i++) assert_true(back[i] == y[i]);
        }
    }
    release(turned, size), release(back, size), release(table, POSITIONS * dim);
    free(x), free(y), free(pos);
}

static void test_rope(void **state) {
    (void)state;
    static const int64_t rope_dims[] = {2, 8, 20, 28, 64, 128};
    for (int l = 0; l < LENGTH(test_levels); l++) {
        queue *q = open_level(l, 2, COMPUTE_F32);
        if (!q) continue;
        worst w = {0};
        for (int i = 0; i < LENGTH(rope_dims); i++) {
            for (int interleaved = 0; interleaved < 2; interleaved++) {
                check_rope(q, 1, 3, rope_dims[i], interleaved, &w);
                check_rope(q, 100, 5, rope_dims[i], interleaved, &w);
            }
        }
        report(&w, "rope dx %s", test_levels[l]);
        queue_close(q);
    }
}

/* --- cross-entropy ------------------------------------------------------------------------------------------------ */

/* z - max is off by u of its size, the exponential by 4e-7 of itself, a sum of at most 1024 numbers in F32 by 64 u (in
 * 16 parts; 128 u in 8) and then F64: so the probabilities are off by `off` of themselves, the loss by as much. */
static void check_entropy(queue *q, queue *alone, int64_t n, int64_t vocab, double spread, worst *loss_worst,
                          worst *z_worst) {
    const int64_t ld = vocab + GAP, size = (n - 1) * ld + vocab;
    const float scale = 0.125f;
    float *logits = random_rows(7, n, vocab, ld, spread), *z[2], *loss[2];
    int32_t *target = malloc((size_t)n * sizeof *target), *best[2];
    assert_non_null(target);
    for (int64_t t = 0; t < n; t++) {
        target[t] = t % 5 == 3 ? -1 : (int32_t)((t * 7919 + 1) % vocab);
        if (t % 2) logits[t * ld + vocab / 2] = logits[t * ld + vocab - 1] = (float)(9 * spread); /* two best ones */
    }
    for (int j = 0; j < 2; j++) {
        z[j] = numbers(size), loss[j] = numbers(n);
        best[j] = malloc((size_t)n * sizeof *best[j]);
        assert_non_null(best[j]);
        for (int64_t i = 0; i < size; i++)
            if (i % ld < vocab) z[j][i] = logits[i];
        op_cross_entropy(j ? alone : q, z[j], ld, target, n, vocab, scale, loss[j], best[j]);
    }
    for (int64_t t = 0; t < n; t++) {
        const float *row = logits + t * ld;
        double sum = 0;
        int64_t most = 0;
        for (int64_t i = 0; i < vocab; i++) most = row[i] > row[most] ? i : most;
        for (int64_t i = 0; i < vocab; i++) sum += exp((double)row[i] - row[most]);
        assert_int_equal(best[0][t], most);
        const double want = target[t] < 0 ? 0 : log(sum) + row[most] - row[target[t]];
        compare(loss_worst, t, loss[0][t], want, target[t] < 0 ? 0 : 5e-7 + 130 * u + 4 * u * fabs(want));
        for (int64_t i = 0; i < vocab; i++) {
            const double p = exp((double)row[i] - row[most]) / sum;
            const double off = 1e-6 + 130 * u + u * (row[most] - (double)row[i]);
            const double dz = target[t] < 0 ? 0 : scale * (p - (i == target[t]));
            compare(z_worst, t * vocab + i, z[0][t * ld + i], dz,
                    target[t] < 0 ? 0 : scale * (p * off + (i == target[t]) * 2 * u) + 1e-37);
        }
        for (int64_t i = vocab; t + 1 < n && i < ld; i++) assert_true(z[0][t * ld + i] == canary);
    }
    assert_memory_equal(z[0], z[1], (size_t)size * sizeof *z[0]);
    assert_memory_equal(loss[0], loss[1], (size_t)n * sizeof *loss[0]);
    assert_memory_equal(best[0], best[1], (size_t)n * sizeof *best[0]);
    for (int j = 0; j < 2; j++) {
        release(z[j], size), release(loss[j], n);
        free(best[j]);
    }
    free(logits), free(target);
}

static void test_cross_entropy(void **state) {
    (void)state;
    static const int64_t vocabs[] = {2, 3, 16, 31, 1000, 1024, 1025, 5003};
    for (int l = 0; l < LENGTH(test_levels); l++) {
        queue *three = open_level(l, 3, COMPUTE_F32), *one = open_level(l, 1, COMPUTE_F32);
        if (!three) continue;
        worst loss = {0}, z = {0};
        for (int i = 0; i < LENGTH(vocabs); i++) {
            check_entropy(three, one, 1, vocabs[i], 1, &loss, &z);
            check_entropy(three, one, 23, vocabs[i], 8, &loss, &z);
        }
        check_entropy(three, one, 3, 129280, 3, &loss, &z);
        report(&loss, "cross-entropy %s", test_levels[l]);
        report(&z, "cross-entropy dz %s", test_levels[l]);
        queue_close(three);
        queue_close(one);
    }
}

/* A row with NaN or infinity says so in its loss, wherever it stands; its neighbours are as ever; best may be NULL. */
static void test_not_finite(void **state) {
    (void)state;
    enum { N = 3, VOCAB = 37 };
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    static const int64_t places[] = {0, 5, VOCAB - 1};
    for (int l = 0; l < LENGTH(test_levels); l++) {
        queue *q = open_level(l, 1, COMPUTE_F32);
        if (!q) continue;
        for (int i = 0; i < LENGTH(odd); i++) {
            for (int j = 0; j < LENGTH(places); j++) {
                float *z = random_rows(3, N, VOCAB, VOCAB, 1), loss[N];
                const int32_t target[N] = {4, 5, 6};
                z[VOCAB + places[j]] = odd[i];
                op_cross_entropy(q, z, VOCAB, target, N, VOCAB, 1, loss, NULL);
                assert_false(isfinite(loss[1]));
                assert_true(isfinite(loss[0]) && isfinite(loss[2]));
                free(z);
            }
        }
        queue_close(q);
    }
}

/* --- embedding ---------------------------------------------------------------------------------------------------- */

/* Equal, to the last bit, to additions in the order of the tokens. */
static void test_embedding(void **state) {
    (void)state;
    enum { N = 200, VOCAB = 17 };
    static const int64_t widths[] = {1, 20, 128, 500};
    for (int l = 0; l < LENGTH(test_levels); l++) {
        queue *q = open_level(l, 3, COMPUTE_F32);
        if (!q) continue;
        for (int k = 0; k < LENGTH(widths); k++) {
            const int64_t dim = widths[k], ld = dim + GAP;
            float *dh = random_rows(1, N, dim, ld, 1), *dw = numbers(VOCAB * dim),
                  *want = random_rows(2, VOCAB, dim, dim, 1);
            memcpy(dw, want, (size_t)(VOCAB * dim) * sizeof *dw);
            int32_t ids[N];
            for (int t = 0; t < N; t++) ids[t] = t * 31 % 19 - 1 < VOCAB ? t * 31 % 19 - 1 : 2;
            for (int t = 0; t < N; t++)
                for (int64_t i = 0; ids[t] >= 0 && i < dim; i++) want[ids[t] * dim + i] += dh[t * ld + i];
            op_embedding_dw(q, dw, ids, dh, ld, N, dim);
            assert_memory_equal(dw, want, (size_t)(VOCAB * dim) * sizeof *dw);
            release(dw, VOCAB * dim);
            free(dh), free(want);
        }
        queue_close(q);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norms),         cmocka_unit_test(test_swiglu),     cmocka_unit_test(test_rope),
        cmocka_unit_test(test_cross_entropy), cmocka_unit_test(test_not_finite), cmocka_unit_test(test_embedding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
