/* Direct preference optimisation against its definition and against differences, with average and the term of the
 * chosen completion, and where the margin is large. */
#include <math.h>
#include "post/loss.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static const dpo_pair pairs[] = {
    {-20.5, -31.25, -22, -30, 12, 17},
    {-31, -20, -30, -22.5, 17, 12},
    {-5, -5, -5, -5, 3, 3},
    {-1, -400, -300, -2, 1, 90},
};

static double loss_of(double beta, double sft, bool average, dpo_pair p, double chosen, double rejected) {
    double a, b, m;
    p.chosen += chosen * (double)p.chosen_tokens; /* every token moves by so much */
    p.rejected += rejected * (double)p.rejected_tokens;
    return dpo_loss(beta, sft, average, &p, &a, &b, &m);
}

/* A token's gradient is that of a step of all tokens, divided by their number. The fifth derivative is below
 * (beta tokens)^5, here 10^5 for tokens <= 90 and beta <= 0.1: with h = 2^-10, h^4 / 30 of it is 3e-9; the rounding of
 * a loss below 70 is 1.4e-14 / h. */
static double difference(double beta, double sft, bool average, const dpo_pair *p, bool chosen) {
    const double h = 0x1p-10, at[4] = {h, -h, 2 * h, -2 * h};
    double f[4];
    for (int i = 0; i < 4; i++) f[i] = loss_of(beta, sft, average, *p, chosen ? at[i] : 0, chosen ? 0 : at[i]);
    return (8 * (f[0] - f[1]) - (f[2] - f[3])) / (12 * h) / (double)(chosen ? p->chosen_tokens : p->rejected_tokens);
}

static void test_values(void **state) {
    (void)state;
    static const double betas[] = {0.01, 0.1};
    for (int i = 0; i < 4; i++) {
        for (int way = 0; way < 8; way++) {
            const dpo_pair *p = &pairs[i];
            const double beta = betas[way & 1], sft = way & 2 ? 0.25 : 0;
            const bool average = way & 4;
            double chosen, rejected, margin;
            const double got = dpo_loss(beta, sft, average, p, &chosen, &rejected, &margin);
            const double n_w = average ? (double)p->chosen_tokens : 1, n_l = average ? (double)p->rejected_tokens : 1;
            const double m = beta * ((p->chosen - p->ref_chosen) / n_w - (p->rejected - p->ref_rejected) / n_l);
            const double want = -log(1 / (1 + exp(-m))) - sft * p->chosen / (double)p->chosen_tokens;
            assert_true(fabs(margin - m) <= 1e-12);
            assert_true(fabs(got - want) <= 1e-12);
            assert_true(fabs(chosen - difference(beta, sft, average, p, true)) <= 1e-8);
            assert_true(fabs(rejected - difference(beta, sft, average, p, false)) <= 1e-8);
            assert_true(chosen < 0 && rejected > 0);
        }
    }
}

/* A policy that is its reference: log 2, and half of beta. */
static void test_start(void **state) {
    (void)state;
    double chosen, rejected, margin;
    assert_true(fabs(dpo_loss(0.1, 0, false, &pairs[2], &chosen, &rejected, &margin) - log(2)) <= 1e-15);
    assert_true(margin == 0 && fabs(chosen + 0.05) <= 1e-15 && fabs(rejected - 0.05) <= 1e-15);
}

/* Margins beyond exp's range: the loss is 0 or the margin, never infinite. No tokens: nothing is divided by 0. */
static void test_far(void **state) {
    (void)state;
    double chosen, rejected, margin;
    const dpo_pair won = {1e4, -1e4, 0, 0, 5, 5}, lost = {-1e4, 1e4, 0, 0, 5, 5}, none = {0};
    assert_true(dpo_loss(1, 0, false, &won, &chosen, &rejected, &margin) == 0);
    assert_true(margin == 2e4 && chosen == 0 && rejected == 0);
    assert_true(dpo_loss(1, 0, false, &lost, &chosen, &rejected, &margin) == 2e4);
    assert_true(chosen == -1 && rejected == 1);
    const dpo_pair odd = {NAN, -1, -1, -1, 1, 1};
    assert_true(isnan(dpo_loss(1, 0, false, &odd, &chosen, &rejected, &margin)) && isnan(chosen));
    assert_true(isfinite(dpo_loss(1, 1, true, &none, &chosen, &rejected, &margin)));
    assert_true(isfinite(chosen) && isfinite(rejected));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_start),
        cmocka_unit_test(test_far),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
