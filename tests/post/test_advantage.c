/* Advantages against the reference values of five conventions, and where rewards are missing, alone or equal. */
#include "math_data.h"

static const int64_t GROUP = 4;

static void check(const math_data *m, advantage_kind kind, const char *name) {
    double want[MOST_NUMBERS], got[MOST_NUMBERS];
    const int64_t n = math_numbers(json_object_get(json_object_get(m->all, "advantages"), name), want);
    assert_int_equal(n, m->n);
    advantages(kind, m->reward, n, GROUP, got);
    for (int64_t i = 0; i < n; i++) assert_true(fabs(got[i] - want[i]) <= 1e-12);
}

static void test_reference(void **state) {
    (void)state;
    math_data m = math_open();
    check(&m, ADVANTAGE_GROUP, "trl_group");
    check(&m, ADVANTAGE_MEAN, "trl_none_dr_grpo");
    check(&m, ADVANTAGE_BATCH, "trl_batch");
    check(&m, ADVANTAGE_LEAVE_ONE_OUT, "nemo_loo");
    math_close(&m);
}

/* r = 1, 0, 0.5 and one without: mean 0.5, squares 0.5. */
static void test_by_hand(void **state) {
    (void)state;
    const double r[] = {1, NAN, 0, 0.5};
    const struct {
        advantage_kind kind;
        double want[4];
    } cases[] = {
        {ADVANTAGE_GROUP, {0.5 / (0.5 + 1e-4), 0, -0.5 / (0.5 + 1e-4), 0}},
        {ADVANTAGE_GROUP_BIASED, {0.5 / (sqrt(0.5 / 3) + 1e-4), 0, -0.5 / (sqrt(0.5 / 3) + 1e-4), 0}},
        {ADVANTAGE_LEAVE_ONE_OUT, {0.75 / (sqrt(0.125) + 1e-6), 0, -0.75 / (sqrt(0.125) + 1e-6), 0}},
        {ADVANTAGE_RLOO, {0.75, 0, -0.75, 0}},
        {ADVANTAGE_MEAN, {0.5, 0, -0.5, 0}},
        {ADVANTAGE_BATCH, {0.5 / (0.5 + 1e-4), 0, -0.5 / (0.5 + 1e-4), 0}},
        {ADVANTAGE_REWARD, {1, 0, 0, 0.5}},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        double got[4];
        advantages(cases[c].kind, r, 4, 4, got);
        for (int i = 0; i < 4; i++) assert_true(fabs(got[i] - cases[c].want[i]) <= 1e-14);
    }
}

/* The batch's deviation is that of all groups: 0, 1, 4, 5 have 17/3; those of a group have 1/2. */
static void test_batch(void **state) {
    (void)state;
    const double r[] = {0, 1, 4, 5};
    double got[4];
    advantages(ADVANTAGE_BATCH, r, 4, 2, got);
    for (int i = 0; i < 4; i++) assert_true(fabs(got[i] - (i % 2 ? 0.5 : -0.5) / (sqrt(17. / 3) + 1e-4)) <= 1e-14);
}

static const advantage_kind relative[] = {ADVANTAGE_GROUP, ADVANTAGE_GROUP_BIASED, ADVANTAGE_LEAVE_ONE_OUT,
                                          ADVANTAGE_RLOO,  ADVANTAGE_MEAN,         ADVANTAGE_BATCH};

/* 0.1 seven times has a mean of 0.09999999999999999 when it is summed: equal rewards, groups of one and rewards alone
 * among missing ones must give 0 all the same, to the last bit; and so must groups without any reward. */
static void test_nothing_to_learn(void **state) {
    (void)state;
    const double equal[] = {0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1}, odd[] = {0.3, -2, 1e9},
                 alone[] = {NAN, 3, NAN, INFINITY, NAN, NAN, NAN, NAN};
    double out[8];
    for (size_t k = 0; k < sizeof relative / sizeof *relative; k++) {
        advantages(relative[k], equal, 7, 7, out);
        for (int i = 0; i < 7; i++) assert_true(out[i] == 0);
        advantages(relative[k], odd, 3, 1, out);
        for (int i = 0; i < 3; i++) assert_true(out[i] == 0);
        advantages(relative[k], alone, 8, 4, out);
        for (int i = 0; i < 8; i++) assert_true(out[i] == 0);
    }
    advantages(ADVANTAGE_REWARD, alone, 8, 4, out);
    for (int i = 0; i < 8; i++) assert_true(out[i] == (i == 1 ? 3 : 0));
}

/* The last group is what is left; a missing reward changes no other group. */
static void test_groups(void **state) {
    (void)state;
    const double r[] = {1, 0, 1, 0, 1, 5}, without[] = {NAN, 0, 1, 0, 1, 5};
    for (size_t k = 0; k < sizeof relative / sizeof *relative; k++) {
        double all[6], some[6], last[2];
        if (relative[k] == ADVANTAGE_BATCH) continue;
        advantages(relative[k], r, 6, 4, all);
        advantages(relative[k], r + 4, 2, 2, last);
        assert_memory_equal(all + 4, last, sizeof last);
        advantages(relative[k], without, 6, 4, some);
        assert_memory_equal(some + 4, last, sizeof last);
        assert_true(some[0] == 0 && some[2] != all[2]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),        cmocka_unit_test(test_by_hand), cmocka_unit_test(test_batch),
        cmocka_unit_test(test_nothing_to_learn), cmocka_unit_test(test_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
