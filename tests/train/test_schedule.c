/* Schedules at the borders of their phases. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "train/config_table.h"
#include <cmocka.h>

static arena *mem;

static int setup(void **state) {
    (void)state;
    mem = arena_open(1 << 12);
    return mem ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    arena_close(mem);
    return 0;
}

static train_config of(const char *text) {
    static const char *const base[] = {"model.path=m", "data.train=a", "checkpoint.folder=r"};
    train_config c;
    error e;
    if (config_parse(&c, text, strlen(text), "t", base, 3, mem, &e) != OK) fail_msg("%s", e.text);
    return c;
}

/* Values are single products and cosines of doubles: 1e-12 relative is a thousand roundings. */
static void near(double found, double wanted) {
    if (!(fabs(found - wanted) <= 1e-12 * fabs(wanted))) fail_msg("%.17g is not %.17g", found, wanted);
}

/* The DeepSeek-V3 report, 4.2. */
static void v3_learning_rate(void **state) {
    (void)state;
    const double T = 1e12;
    train_config c = of("schedule: {preset: v3}");
    near(schedule_lr(&c, 0, 0), 2.2e-4 / 2000);
    near(schedule_lr(&c, 999, 1e10), 1.1e-4);
    near(schedule_lr(&c, 1998, 2e10), 2.2e-4 * 1999 / 2000);
    near(schedule_lr(&c, 1999, 2e10), 2.2e-4);
    near(schedule_lr(&c, 2000, 2e10), 2.2e-4);
    near(schedule_lr(&c, 200000, nextafter(10 * T, 0)), 2.2e-4);
    near(schedule_lr(&c, 200000, 10 * T), 2.2e-4);
    near(schedule_lr(&c, 210000, 12.15 * T), (2.2e-4 + 2.2e-5) / 2); /* the middle of the cosine */
    near(schedule_lr(&c, 210000, 10 * T + 4.3 * T / 3), 2.2e-5 + (2.2e-4 - 2.2e-5) * 0.75); /* cos 60 degrees */
    assert_true(schedule_lr(&c, 220000, nextafter(14.3 * T, 0)) - 2.2e-5 < 1e-12);
    near(schedule_lr(&c, 220000, 14.3 * T), 2.2e-5);
    near(schedule_lr(&c, 230000, nextafter(14.633 * T, 0)), 2.2e-5);
    near(schedule_lr(&c, 230000, 14.633 * T), 7.3e-6);
    near(schedule_lr(&c, 240000, 14.8 * T), 7.3e-6);
    near(schedule_lr(&c, 250000, 20 * T), 7.3e-6);
}

static void v3_weights(void **state) {
    (void)state;
    train_config c = of("schedule: {preset: v3}");
    near(schedule_mtp_weight(&c, 0, 0), 0.3);
    near(schedule_mtp_weight(&c, 9, nextafter(1e13, 0)), 0.3);
    near(schedule_mtp_weight(&c, 9, 1e13), 0.1);
    near(schedule_mtp_weight(&c, 9, 14.8e12), 0.1);
    near(schedule_bias_speed(&c, 0, 0), 1e-3);
    near(schedule_bias_speed(&c, 9, nextafter(14.3e12, 0)), 1e-3);
    assert_true(schedule_bias_speed(&c, 9, 14.3e12) == 0);
    c = of("objective: {mtp_weight: 0.2, bias_update_speed: 5e-4}");
    near(schedule_mtp_weight(&c, 5, 1e15), 0.2);
    near(schedule_bias_speed(&c, 5, 1e15), 5e-4);
    c = of("");
    assert_true(isnan(schedule_bias_speed(&c, 0, 0)));
    c = of("objective: {mtp_unit: steps, mtp_schedule: [{until: 3, from: 1}, {from: 2}]}");
    near(schedule_mtp_weight(&c, 2, 1e9), 1);
    near(schedule_mtp_weight(&c, 3, 0), 2);
}

/* 3072 -> 15360 rows of 4096 tokens over the first 469B tokens. */
static void v3_batch(void **state) {
    (void)state;
    train_config c = of("training: {batch: 15360, batch_ramp_from: 3072, batch_ramp_tokens: 469e9, micro_batch: 8, "
                        "ranks: 16}");
    assert_int_equal(schedule_batch(&c, 0), 3072);
    assert_int_equal(schedule_batch(&c, 469e9 / 2), 9216);
    assert_int_equal(schedule_batch(&c, 469e9), 15360);
    assert_int_equal(schedule_batch(&c, 14.8e12), 15360);
    /* a step of 128 rows (8 x 16) every 1/96 of the way, rounded to the nearest */
    assert_int_equal(schedule_batch(&c, 469e9 / 96), 3200);
    assert_int_equal(schedule_batch(&c, 469e9 / 96 * 0.49), 3072);
    assert_int_equal(schedule_batch(&c, 469e9 / 96 * 0.51), 3200);
    double tokens = 0; /* the ramp as training walks it: rows never fall, and are always whole units */
    int64_t before = 0, steps = 0;
    for (; tokens < 469e9; steps++) {
        int64_t rows = schedule_batch(&c, tokens);
        assert_true(rows >= before && rows % 128 == 0 && rows <= 15360);
        before = rows;
        tokens += (double)rows * 4096;
    }
    /* d tokens / d step = 4096 (3072 + 12288 tokens / 469e9): steps = 469e9 ln 5 / (4096 x 12288) = 14997; rows that
     * are rounded and held for a step change that by less than a percent */
    assert_true(labs(steps - 14997) < 150);
    c = of("training: {batch: 64, batch_ramp_from: 2, batch_ramp_tokens: 1000, micro_batch: 4, ranks: 4}");
    assert_int_equal(schedule_batch(&c, 0), 16); /* never below one micro-batch a rank */
    c = of("training: {batch: 24}");
    assert_int_equal(schedule_batch(&c, 0), 24);
}

static void constant_with_warmup(void **state) {
    (void)state;
    train_config c = of("optimizer: {lr: 1e-3}\nschedule: {warmup_steps: 10}\ntraining: {steps: 50}");
    near(schedule_lr(&c, 0, 0), 1e-4);
    near(schedule_lr(&c, 8, 0), 9e-4);
    near(schedule_lr(&c, 9, 0), 1e-3);
    near(schedule_lr(&c, 10, 0), 1e-3);
    near(schedule_lr(&c, 1000, 0), 1e-3);
    c = of("optimizer: {lr: 1e-3}");
    near(schedule_lr(&c, 0, 0), 1e-3);
}

static void cosine(void **state) {
    (void)state;
    train_config c = of("optimizer: {lr: 1e-3, min_lr: 1e-4}\nschedule: {kind: cosine, warmup_steps: 10}\n"
                        "training: {steps: 110}");
    near(schedule_lr(&c, 4, 0), 5e-4);
    near(schedule_lr(&c, 9, 0), 1e-3);
    near(schedule_lr(&c, 10, 0), 1e-3);
    near(schedule_lr(&c, 60, 0), 5.5e-4);
    near(schedule_lr(&c, 85, 0), 1e-4 + 9e-4 * (1 - sqrt(0.5)) / 2);
    near(schedule_lr(&c, 109, 0), 1e-4 + 9e-4 * (1 + cos(3.141592653589793 * 0.99)) / 2);
    near(schedule_lr(&c, 110, 0), 1e-4);
    near(schedule_lr(&c, 5000, 0), 1e-4);
}

/* lr = min + (lr - min) (steps - s) / (decay + 1) in the last `decay` steps. */
static void warmup_stable_decay(void **state) {
    (void)state;
    train_config c = of("optimizer: {lr: 1e-3, min_lr: 1e-4}\n"
                        "schedule: {kind: wsd, warmup_steps: 5, decay_steps: 8}\ntraining: {steps: 50}");
    near(schedule_lr(&c, 0, 0), 2e-4);
    near(schedule_lr(&c, 41, 0), 1e-3);
    near(schedule_lr(&c, 42, 0), 1e-4 + 9e-4 * 8 / 9);
    near(schedule_lr(&c, 49, 0), 1e-4 + 9e-4 / 9);
    near(schedule_lr(&c, 50, 0), 1e-4);
}

static void table_in_steps(void **state) {
    (void)state;
    train_config c =
        of("schedule: {phases: [{until: 4, from: 0, to: 8}, {until: 6}, {until: 10, to: 4, shape: cosine}, "
           "{until: 12, from: 1, to: 0.5}]}");
    const double wanted[] = {0, 2,    4,   6,  8, 8, 8, 4 + 2 * (1 + sqrt(0.5)), 6, 4 + 2 * (1 - sqrt(0.5)),
                             1, 0.75, 0.5, 0.5};
    for (int64_t s = 0; s < 14; s++) near(schedule_lr(&c, s, 1e9), wanted[s]);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(v3_learning_rate),     T(v3_weights), T(v3_batch),
                                       T(constant_with_warmup), T(cosine),     T(warmup_stable_decay),
                                       T(table_in_steps)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
