/* Logit distillation against its definition over whole distributions and, for every kind with and without the rest,
 * against differences; rows that are equal, certain, or out of range. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "post/loss.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h> /* after the headers of the program: it makes a macro of `fail` */

enum { VOCAB = 12, MOST_K = VOCAB };
static const double u = 0x1p-24;

static const distill_kind kinds[] = {DISTILL_FORWARD, DISTILL_REVERSE, DISTILL_MIXED};

/* Log-probabilities of VOCAB tokens as multiples of 2^-12, so that steps of 2^-10 are exact in F32; the first k have
 * less than all of the mass. */
static void make_row(uint64_t seed, float *p, real *q) {
    for (int side = 0; side < 2; side++) {
        double z[VOCAB], sum = 0;
        for (int i = 0; i < VOCAB; i++) sum += exp(z[i] = 1.5 * rng_normal(seed, (uint64_t)side, (uint64_t)i));
        for (int i = 0; i < VOCAB; i++) {
            const double x = rint((z[i] - log(sum)) * 4096) / 4096;
            if (side) q[i] = (real)x;
            else p[i] = (float)x;
        }
    }
}

/* The definition: divergences of outcomes, the last of which is the rest. */
static double definition(distill_kind kind, double weight, bool rest, const float *p, const real *q, int k) {
    double a[MOST_K + 1], b[MOST_K + 1], p_sum = 0, q_sum = 0, forward = 0, reverse = 0;
    for (int i = 0; i < k; i++) p_sum += a[i] = exp((double)p[i]), q_sum += b[i] = exp((double)q[i]);
    for (int i = 0; i < k && !rest; i++) a[i] /= p_sum, b[i] /= q_sum;
    a[k] = 1 - p_sum, b[k] = 1 - q_sum;
    for (int i = 0; i < k + rest; i++) {
        forward += a[i] * log(a[i] / b[i]);
        reverse += b[i] * log(b[i] / a[i]);
    }
    return kind == DISTILL_FORWARD   ? forward
           : kind == DISTILL_REVERSE ? reverse
                                     : weight * forward + (1 - weight) * reverse;
}

/* Four-point differences with h = 2^-10: h^4 / 30 = 3e-14 of the fifth derivative, which with the rest is below
 * 24 / Q^4 times probabilities (Q > 0.05: 1e7), so 4e-7; the rounding of the loss gives 1e-15 / h. Without the rest
 * derivatives are below 100. */
static void check_row(distill_kind kind, bool rest, uint64_t seed, int k) {
    const double h = 0x1p-10, weight = 0.3;
    float p[VOCAB];
    real q[VOCAB], d[VOCAB], unused[VOCAB];
    make_row(seed, p, q);
    const double got = distill_loss(kind, weight, rest, p, q, k, d);
    assert_true(fabs(got - definition(kind, weight, rest, p, q, k)) <= 1e-12);
    assert_true(rest ? isfinite(got) : got >= 0);
    for (int i = 0; i < k; i++) {
        double side[4], at[4] = {h, -h, 2 * h, -2 * h};
        const real before = q[i];
        for (int j = 0; j < 4; j++) {
            q[i] = before + (real)at[j];
            side[j] = distill_loss(kind, weight, rest, p, q, k, unused);
        }
        q[i] = before;
        const double want = (8 * (side[0] - side[1]) - (side[2] - side[3])) / (12 * h);
        assert_true(fabs((double)d[i] - want) <= 2 * u * fabs(want) + (rest ? 4e-7 : 1e-11));
    }
}

static double mass(const real *q, int k) {
    double sum = 0;
    for (int i = 0; i < k; i++) sum += exp((double)q[i]);
    return sum;
}

static void test_rows(void **state) {
    (void)state;
    static const int widths[] = {1, 2, 5, 8};
    int with_rest = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        const int k = widths[seed % 4];
        float p[VOCAB];
        real q[VOCAB];
        make_row(seed, p, q);
        const bool room = mass(q, k) < 0.95;
        for (int i = 0; i < 3; i++) {
            check_row(kinds[i], false, seed, k);
            if (room) check_row(kinds[i], true, seed, k);
        }
        with_rest += room;
    }
    assert_true(with_rest > 30);
}

/* What a gradient of log-probabilities does to logits (op_logprobs_dx): dL/dz = d - softmax sum d. Forward with the
 * rest moves every token of the top by q - p, however the rest is spread. */
static void test_logits(void **state) {
    (void)state;
    enum { K = 5 };
    float p[VOCAB];
    real q[VOCAB], d[K];
    for (uint64_t seed = 100; seed < 130; seed++) {
        double sum = 0;
        make_row(seed, p, q);
        if (mass(q, K) > 0.95) continue;
        distill_loss(DISTILL_FORWARD, 0, true, p, q, K, d);
        for (int i = 0; i < K; i++) sum += (double)d[i];
        for (int i = 0; i < K; i++) {
            const double dz = (double)d[i] - exp((double)q[i]) * sum;
            assert_true(fabs(dz - (exp((double)q[i]) - exp((double)p[i]))) <= 1e-5); /* d is F32 and below 20 */
        }
    }
}

/* A student that is its teacher has loss 0 and gradient 0, whatever is left over: even nothing. */
static void test_equal(void **state) {
    (void)state;
    const float rows[][2] = {{-1, -2}, {-0.6931472f, -0.6931472f}, {0, -200}, {-50, -60}};
    for (int r = 0; r < 4; r++) {
        for (int i = 0; i < 6; i++) {
            const real q[2] = {(real)rows[r][0], (real)rows[r][1]};
            real d[2];
            assert_true(fabs(distill_loss(kinds[i % 3], 0.3, i >= 3, rows[r], q, 2, d)) <= 1e-12);
            assert_true(fabs((double)d[0]) <= 1e-12 && fabs((double)d[1]) <= 1e-12);
        }
    }
}

/* A student that is certain, and right or wrong; a teacher that rules a token out. */
static void test_certain(void **state) {
    (void)state;
    const float p[2] = {-0.105360515f, -2.9957323f}; /* 0.9, 0.05 */
    const real right[2] = {0, -30}, wrong[2] = {-30, 0};
    real d[2];
    for (int i = 0; i < 6; i++) {
        for (int j = 0; j < 2; j++) {
            const double loss = distill_loss(kinds[i % 3], 0.5, i >= 3, p, j ? wrong : right, 2, d);
            assert_true(isfinite(loss) && loss > 0 && isfinite(d[0]) && isfinite(d[1]));
        }
    }
    const float none[2] = {0, -INFINITY};
    const real q[2] = {(real)-0.5, (real)-2};
    assert_true(fabs(distill_loss(DISTILL_FORWARD, 0, false, none, q, 2, d) - log1p(exp(-1.5))) <= 1e-12);
    assert_true(isfinite(d[0]) && isfinite(d[1]));
    assert_false(isfinite(distill_loss(DISTILL_REVERSE, 0, false, none, q, 2, d)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_logits),
        cmocka_unit_test(test_equal),
        cmocka_unit_test(test_certain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
