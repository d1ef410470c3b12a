/* Sampling: each filter against its definition, the random numbers against the distribution. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "infer/sampler.h"
#include <cmocka.h> /* last: it defines fail() */

enum { V = 8, DRAWS = 20000 };
static const sampling plain = {.temperature = 1, .top_p = 1, .repetition_penalty = 1};
/* probabilities 0.4 0.3 0.15 0.1 0.05 and nearly nothing */
static const float p0[V] = {0.1f, 0.4f, 1e-6f, 0.3f, 0.05f, 0.15f, 1e-6f, 1e-6f};

static void frequencies(const sampling *o, double *f) {
    sampler *s;
    float logits[V];
    assert_int_equal(sampler_open(&s, V, NULL), OK);
    for (int i = 0; i < V; i++) logits[i] = logf(p0[i]), f[i] = 0;
    for (int i = 0; i < DRAWS; i++) f[sampler_choose(s, o, logits, NULL, 0, 0, 0, (uint64_t)i)] += 1.0 / DRAWS;
    sampler_close(s);
}

/* Within five standard deviations of a frequency in DRAWS draws: 5 sqrt(p (1 - p) / DRAWS) <= 0.018 */
static const double CLOSE = 0.018;

static void expect(const sampling *o, const double *wanted) {
    double f[V];
    frequencies(o, f);
    for (int i = 0; i < V; i++)
        if (fabs(f[i] - wanted[i]) > (wanted[i] == 0 ? 0 : CLOSE))
            fail_msg("token %d: %g, expected %g", i, f[i], wanted[i]);
}

static void temperature_one_is_the_distribution(void **state) {
    (void)state;
    double f[V];
    frequencies(&plain, f);
    for (int i = 0; i < V; i++) assert_true(fabs(f[i] - p0[i]) <= CLOSE);
}

static void top_k(void **state) {
    (void)state;
    sampling o = plain;
    o.top_k = 2;
    expect(&o, (double[V]){[1] = 0.4 / 0.7, [3] = 0.3 / 0.7});
}

static void top_p_keeps_the_token_that_crosses(void **state) {
    (void)state;
    sampling o = plain;
    o.top_p = 0.75f; /* 0.4 + 0.3 < 0.75 <= 0.85 */
    expect(&o, (double[V]){[1] = 0.4 / 0.85, [3] = 0.3 / 0.85, [5] = 0.15 / 0.85});
    o.top_p = 1e-6f;
    expect(&o, (double[V]){[1] = 1});
}

static void min_p(void **state) {
    (void)state;
    sampling o = plain;
    o.min_p = 0.3f; /* at least 0.12 */
    expect(&o, (double[V]){[1] = 0.4 / 0.85, [3] = 0.3 / 0.85, [5] = 0.15 / 0.85});
}

static void temperature_sharpens(void **state) {
    (void)state;
    sampling o = plain;
    o.temperature = 0.5f; /* p^2, normalised */
    double sum = 0, wanted[V];
    for (int i = 0; i < V; i++) sum += (double)p0[i] * p0[i];
    for (int i = 0; i < V; i++) wanted[i] = p0[i] * p0[i] / sum < 1e-9 ? 0 : p0[i] * p0[i] / sum;
    expect(&o, wanted);
    o.temperature = 0;
    expect(&o, (double[V]){[1] = 1});
}

static void penalties(void **state) {
    (void)state;
    sampler *s;
    assert_int_equal(sampler_open(&s, V, NULL), OK);
    sampling o = plain;
    o.temperature = 0;
    const float logits[V] = {1.0f, 2.0f, -1.0f, 1.9f};
    const int32_t history[] = {1, 1, 2};
    o.repetition_penalty = 1.1f; /* 2 / 1.1 < 1.9 */
    assert_int_equal(sampler_choose(s, &o, logits, history, 3, 0, 0, 0), 3);
    o.repetition_penalty = 1;
    o.presence_penalty = 0.2f; /* the prompt does not count */
    assert_int_equal(sampler_choose(s, &o, logits, history, 3, 1, 0, 0), 1);
    assert_int_equal(sampler_choose(s, &o, logits, history, 3, 3, 0, 0), 3);
    o.presence_penalty = 0;
    o.frequency_penalty = 0.06f; /* twice: 2 - 0.12 < 1.9; once would not do */
    assert_int_equal(sampler_choose(s, &o, logits, history, 3, 3, 0, 0), 3);
    assert_int_equal(sampler_choose(s, &o, logits, history + 1, 2, 2, 0, 0), 1);
    sampler_close(s);
}

static void same_seed_same_token(void **state) {
    (void)state;
    sampler *s;
    float logits[V];
    int differ = 0;
    for (int i = 0; i < V; i++) logits[i] = logf(p0[i]);
    assert_int_equal(sampler_open(&s, V, NULL), OK);
    for (int i = 0; i < 100; i++) {
        sampling o = plain, other = plain;
        o.seed = 42;
        other.seed = 43;
        int32_t a = sampler_choose(s, &o, logits, NULL, 0, 0, 0, (uint64_t)i);
        assert_int_equal(a, sampler_choose(s, &o, logits, NULL, 0, 0, 0, (uint64_t)i));
        differ += a != sampler_choose(s, &other, logits, NULL, 0, 0, 0, (uint64_t)i);
    }
    assert_true(differ > 30);
    sampler_close(s);
}

static void logprobs(void **state) {
    (void)state;
    sampler *s;
    float logits[V], top[3];
    int32_t ids[3];
    double sum = 0;
    assert_int_equal(sampler_open(&s, V, NULL), OK);
    for (int i = 0; i < V; i++) logits[i] = logf(p0[i]) + 7, sum += p0[i];
    assert_float_equal(sampler_logprobs(s, logits, 4, 3, ids, top), log(0.05 / sum), 1e-5);
    assert_int_equal(ids[0], 1);
    assert_int_equal(ids[1], 3);
    assert_int_equal(ids[2], 5);
    assert_float_equal(top[2], log(0.15 / sum), 1e-5);
    sampler_close(s);
}

/* The same token as sampler_choose, for plain sampling, greedy choice and all filters; its log-probability against the
 * definition in double: float results below 64 and float logits / T lose at most a few 2^-19. */
static void draws_are_choices_with_their_log_probability(void **state) {
    (void)state;
    enum { N = 1000 };
    sampler *s;
    float logits[N], logprob;
    int32_t history[30];
    double worst = 0;
    assert_int_equal(sampler_open(&s, N, NULL), OK);
    for (int i = 0; i < 30; i++) history[i] = i * 31 % N;
    for (uint64_t round = 0; round < 600; round++) {
        sampling o = plain;
        o.seed = round;
        if (round % 3 == 1) o.temperature = 0;
        if (round % 3 == 2)
            o = (sampling){.temperature = 0.6f, .top_k = 40, .top_p = 0.8f, .min_p = 0.02f, .repetition_penalty = 1.2f};
        for (int i = 0; i < N; i++) logits[i] = (float)(4 * rng_normal(9, round, (uint64_t)i));
        int32_t id = sampler_draw(s, &o, logits, history, 30, 10, round, 7, &logprob);
        assert_int_equal(id, sampler_choose(s, &o, logits, history, 30, 10, round, 7));
        double T = o.temperature == 0 ? 1 : o.temperature, sum = 0;
        for (int i = 0; i < N; i++) sum += exp(((double)logits[i] - logits[id]) / T);
        worst = fmax(worst, fabs(logprob + log(sum)));
    }
    assert_true(worst <= 1e-5);
    sampler_close(s);
}

static void senseless_settings(void **state) {
    (void)state;
    const sampling bad[] = {{.temperature = -1, .top_p = 1, .repetition_penalty = 1},
                            {.temperature = NAN, .top_p = 1, .repetition_penalty = 1},
                            {.top_p = 0, .repetition_penalty = 1},
                            {.top_p = 1.5f, .repetition_penalty = 1},
                            {.top_p = 1, .repetition_penalty = 0},
                            {.top_p = 1, .repetition_penalty = 1, .min_p = 2},
                            {.top_p = 1, .repetition_penalty = 1, .top_k = -1},
                            {.top_p = 1, .repetition_penalty = 1, .presence_penalty = INFINITY}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_int_equal(sampling_check(&bad[i], NULL), ERR_ARG);
    assert_int_equal(sampling_check(&plain, NULL), OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(temperature_one_is_the_distribution),
                                       cmocka_unit_test(top_k),
                                       cmocka_unit_test(top_p_keeps_the_token_that_crosses),
                                       cmocka_unit_test(min_p),
                                       cmocka_unit_test(temperature_sharpens),
                                       cmocka_unit_test(penalties),
                                       cmocka_unit_test(same_seed_same_token),
                                       cmocka_unit_test(logprobs),
                                       cmocka_unit_test(draws_are_choices_with_their_log_probability),
                                       cmocka_unit_test(senseless_settings)};
    return cmocka_run_group_tests_name("infer/sampler", tests, NULL, NULL);
}
