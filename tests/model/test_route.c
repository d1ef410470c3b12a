/* The router's choice: groups, bias, ties, and what the two families do differently. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "model/moe.h"
#include <cmocka.h> /* last: it defines fail() */

static float logit(float p) {
    return logf(p / (1 - p));
}

/* Routes one token; scores are given as probabilities for the sigmoid gate. */
static void route(const model_config *m, const float *s, const float *bias, int32_t *expert, float *gate) {
    float x[64];
    for (int64_t i = 0; i < m->n_routed_experts; i++) x[i] = m->sigmoid_scores ? logit(s[i]) : logf(s[i]);
    unsigned char *scratch = aligned_alloc(64, (route_scratch(m) + 63) / 64 * 64);
    route_token(m, x, bias, scratch, expert, gate);
    free(scratch);
}

static const model_config v3 = {.n_routed_experts = 8,
                                .num_experts_per_tok = 2,
                                .n_group = 4,
                                .topk_group = 2,
                                .topk_method = TOPK_NOAUX_TC,
                                .sigmoid_scores = true,
                                .norm_topk_prob = true,
                                .routed_scaling_factor = 2.5};

/* V3: a group's score is the sum of its two best. Group 0 has the single best expert but a weak second. */
static void v3_groups_by_the_sum_of_two(void **state) {
    (void)state;
    const float s[] = {0.9f, 0.01f, 0.5f, 0.6f, 0.55f, 0.5f, 0.1f, 0.1f}, zero[8] = {0};
    int32_t expert[2];
    float gate[2];
    route(&v3, s, zero, expert, gate); /* sums 0.91, 1.1, 1.05, 0.2: groups 1 and 2 */
    assert_int_equal(expert[0], 3);
    assert_int_equal(expert[1], 4);
    assert_float_equal(gate[0], 2.5f * 0.6f / 1.15f, 1e-5f);
    assert_float_equal(gate[1], 2.5f * 0.55f / 1.15f, 1e-5f);
}

/* V2: a group's score is its best. The same scores choose group 0 now. */
static void v2_groups_by_the_maximum(void **state) {
    (void)state;
    model_config v2 = v3;
    v2.topk_method = TOPK_GROUP_LIMITED_GREEDY;
    v2.sigmoid_scores = v2.norm_topk_prob = false;
    v2.routed_scaling_factor = 16;
    const float s[] = {0.3f, 0.01f, 0.15f, 0.2f, 0.14f, 0.1f, 0.05f, 0.05f};
    int32_t expert[2];
    float gate[2];
    route(&v2, s, NULL, expert, gate);
    assert_int_equal(expert[0], 0);
    assert_int_equal(expert[1], 3);
    assert_float_equal(gate[0], 16 * 0.3f, 1e-4f);
    assert_float_equal(gate[1], 16 * 0.2f, 1e-4f);
}

/* The bias acts in the choice and not in the weight. */
static void bias_only_in_the_choice(void **state) {
    (void)state;
    const float s[] = {0.9f, 0.8f, 0.1f, 0.1f, 0.1f, 0.1f, 0.1f, 0.1f}, bias[] = {0, 0, 0, 0, 0, 0, 2, 2};
    int32_t expert[2];
    float gate[2];
    route(&v3, s, bias, expert, gate);
    assert_int_equal(expert[0], 6);
    assert_int_equal(expert[1], 7);
    assert_float_equal(gate[0], 1.25f, 1e-5f); /* equal scores: half of 2.5 each */
}

/* Choice scores below zero must still beat experts outside the chosen groups. */
static void negative_choice_scores(void **state) {
    (void)state;
    const float s[] = {0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f}, bias[] = {-1, -1, -2, -2, -3, -3, -4, -4};
    int32_t expert[2];
    float gate[2];
    route(&v3, s, bias, expert, gate);
    assert_int_equal(expert[0], 0);
    assert_int_equal(expert[1], 1);
}

static void ties_go_to_the_lower_index(void **state) {
    (void)state;
    const float s[] = {0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f}, zero[8] = {0};
    int32_t expert[2];
    float gate[2];
    route(&v3, s, zero, expert, gate);
    assert_int_equal(expert[0], 0);
    assert_int_equal(expert[1], 1);
}

/* All experts of the kept groups. */
static void as_many_as_the_groups_hold(void **state) {
    (void)state;
    model_config all = v3;
    all.num_experts_per_tok = 4;
    const float s[] = {0.1f, 0.2f, 0.9f, 0.8f, 0.7f, 0.6f, 0.1f, 0.1f}, zero[8] = {0};
    int32_t expert[4];
    float gate[4];
    route(&all, s, zero, expert, gate);
    for (int i = 0; i < 4; i++) assert_int_equal(expert[i], 2 + i);
    assert_float_equal(gate[0] + gate[1] + gate[2] + gate[3], 2.5f, 1e-5f);
}

/* NaN scores cannot break the choice: distinct experts, all in range. */
static void nan_scores(void **state) {
    (void)state;
    const float nan8[] = {NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN}, zero[8] = {0};
    int32_t expert[2];
    float gate[2];
    route(&v3, nan8, zero, expert, gate);
    assert_in_range(expert[0], 0, 7);
    assert_in_range(expert[1], 0, 7);
    assert_int_not_equal(expert[0], expert[1]);
    const float one[] = {NAN, 0.2f, NAN, 0.3f, NAN, NAN, NAN, NAN};
    model_config greedy = v3;
    greedy.n_group = greedy.topk_group = 1;
    route(&greedy, one, zero, expert, gate);
    assert_int_equal(expert[0], 3);
    assert_int_equal(expert[1], 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(v3_groups_by_the_sum_of_two),
                                       cmocka_unit_test(v2_groups_by_the_maximum),
                                       cmocka_unit_test(bias_only_in_the_choice),
                                       cmocka_unit_test(negative_choice_scores),
                                       cmocka_unit_test(ties_go_to_the_lower_index),
                                       cmocka_unit_test(as_many_as_the_groups_hold),
                                       cmocka_unit_test(nan_scores)};
    return cmocka_run_group_tests_name("model/route", tests, NULL, NULL);
}
