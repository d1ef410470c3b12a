/* Random numbers: Philox4x32-10's known answers (Random123, tests/kat_vectors), and what the numbers look like. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include "base/rng.h"
#include <cmocka.h>

/* Philox's counter is our counter in its lower words and the stream in its upper ones; the key is the seed. */
static void known_answers(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } known[] = {
        {{0}, {0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        const uint32_t *c = known[i].counter, *k = known[i].key;
        rng_words((uint64_t)k[1] << 32 | k[0], (uint64_t)c[3] << 32 | c[2], (uint64_t)c[1] << 32 | c[0], out);
        printf("%08x %08x %08x %08x\n", out[0], out[1], out[2], out[3]);
        assert_memory_equal(out, known[i].want, sizeof out);
    }
}

/* Mean and variance within five standard errors; a neighbour's number says nothing about one's own. */
static void look_at(double (*number)(uint64_t, uint64_t, uint64_t), double mean, double variance, double fourth) {
    enum { N = 200000 };
    double sum = 0, squares = 0, products[3] = {0};
    for (uint64_t i = 0; i < N; i++) {
        double x = number(11, 3, i) - mean;
        assert_true(isfinite(x));
        sum += x;
        squares += x * x;
        products[0] += x * (number(11, 3, i + 1) - mean);
        products[1] += x * (number(11, 4, i) - mean);
        products[2] += x * (number(12, 3, i) - mean);
    }
    printf("mean %+.5f off, variance %.5f (%.5f), products %+.5f %+.5f %+.5f\n", sum / N, squares / N, variance,
           products[0] / N, products[1] / N, products[2] / N);
    assert_true(fabs(sum / N) < 5 * sqrt(variance / N));
    assert_true(fabs(squares / N - variance) < 5 * sqrt((fourth - variance * variance) / N));
    for (int i = 0; i < 3; i++) assert_true(fabs(products[i] / N) < 5 * variance / sqrt(N));
}

static void uniform_numbers(void **state) {
    (void)state;
    look_at(rng_uniform, 0.5, 1.0 / 12, 1.0 / 80);
    double least = 1, most = 0;
    for (uint64_t i = 0; i < 100000; i++) {
        double x = rng_uniform(1, 2, i);
        least = fmin(least, x);
        most = fmax(most, x);
    }
    printf("%g .. %.9f\n", least, most);
    assert_true(least >= 0 && least < 1e-3 && most < 1 && most > 1 - 1e-3);
}

static void normal_numbers(void **state) {
    (void)state;
    look_at(rng_normal, 0, 1, 3);
    enum { N = 100000 };
    static const double at[] = {-2, -1, 0, 1, 2};
    for (int k = 0; k < 5; k++) { /* the distribution function at a few places */
        int below = 0;
        for (uint64_t i = 0; i < N; i++) below += rng_normal(5, 6, i) < at[k];
        double p = 0.5 * erfc(-at[k] / sqrt(2)), got = (double)below / N;
        printf("below %+g: %.5f, wanted %.5f\n", at[k], got, p);
        assert_true(fabs(got - p) < 5 * sqrt(p * (1 - p) / N));
    }
}

static void a_pure_function(void **state) {
    (void)state;
    uint32_t a[4], b[4];
    rng_words(1, 2, 3, a);
    rng_words(9, 9, 9, b);
    rng_words(1, 2, 3, b);
    assert_memory_equal(a, b, sizeof a);
    assert_true(rng_uniform(1, 2, 3) == ((double)(((uint64_t)a[0] << 32 | a[1]) >> 11)) * 0x1p-53);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_answers), cmocka_unit_test(uniform_numbers),
                                       cmocka_unit_test(normal_numbers), cmocka_unit_test(a_pure_function)};
    return cmocka_run_group_tests_name("base/rng", tests, NULL, NULL);
}
