/* Rotary tables against the formulas of the papers in double precision, and, where they are, against the tables of the
 * reference data. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "format/safetensors.h"
#include "model/rope.h"
#include <cmocka.h>

enum { MOST_DIM = 128 };

/* --- the formulas, written again in double precision ------------------------------------------------------------- */

static double turns_in_context(const rope_config *r, int64_t dim, double i) { /* of dimension i, real */
    return r->original_max_position / (2 * M_PI * pow(r->theta, 2 * i / (double)dim));
}

/* YaRN: the dimension that turns `beta` times, by bisection: turns fall with the dimension. */
static double dimension_that_turns(const rope_config *r, int64_t dim, double beta) {
    double low = -1000, high = 1000;
    for (int k = 0; k < 200; k++) {
        double middle = (low + high) / 2;
        *(turns_in_context(r, dim, middle) > beta ? &low : &high) = middle;
    }
    return low;
}

static double wanted_frequency(const rope_config *r, int64_t dim, int64_t i) {
    double f = pow(r->theta, -2.0 * (double)i / (double)dim), g;
    switch (r->type) {
    case ROPE_DEFAULT: return f;
    case ROPE_LINEAR: return f / r->factor;
    case ROPE_YARN: {
        double low = fmax(floor(dimension_that_turns(r, dim, r->beta_fast)), 0),
               high = fmin(ceil(dimension_that_turns(r, dim, r->beta_slow)), (double)(dim - 1));
        g = 1 - fmin(fmax(((double)i - low) / (high - low), 0), 1);
        return (1 - g) * f / r->factor + g * f;
    }
    case ROPE_LLAMA3: {
        double turns = turns_in_context(r, dim, (double)i);
        g = (turns - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
        g = fmin(fmax(g, 0), 1);
        return (1 - g) * f / r->factor + g * f;
    }
    }
    return NAN;
}

/* Frequencies within a few roundings of F32; cos and sin within what these and the rounding of the angle make of them,
 * at near and far positions. */
static void check(const char *name, const rope_config *r, int64_t dim, double factor) {
    float f[MOST_DIM / 2], table[2 * MOST_DIM];
    double worst = 0, angle = 0;
    float got = rope_frequencies(r, dim, f);
    if (fabs((double)got - factor) > 1e-6) fail_msg("%s: factor %.7f, wanted %.7f", name, (double)got, factor);
    for (int64_t i = 0; i < dim / 2; i++) {
        double want = wanted_frequency(r, dim, i);
        worst = fmax(worst, fabs((double)f[i] / want - 1));
    }
    static const int64_t positions[] = {0, 1, 2, 100, 4095, 163839};
    for (size_t p = 0; p < sizeof positions / sizeof *positions; p++) {
        rope_table(table, f, got, dim, positions[p], 2);
        for (int64_t t = 0; t < 2; t++)
            for (int64_t i = 0; i < dim / 2; i++) {
                double x = (double)(positions[p] + t) * wanted_frequency(r, dim, i), limit = (x * 1e-6 + 3e-7) * factor,
                       d = fmax(fabs((double)table[t * dim + 2 * i] - factor * cos(x)),
                                fabs((double)table[t * dim + 2 * i + 1] - factor * sin(x)));
                angle = fmax(angle, d / limit);
            }
    }
    printf("%-24s frequencies differ by %.1e, cos and sin by %.2f of what is allowed\n", name, worst, angle);
    assert_true(worst <= 5e-7);
    assert_true(angle <= 1);
}

static void formulas(void **state) {
    (void)state;
    rope_config r = {.type = ROPE_DEFAULT, .theta = 10000, .factor = 1};
    check("default", &r, 64, 1);
    check("default, 2 dimensions", &r, 2, 1);
    r.theta = 1e6;
    check("default, theta 1e6", &r, 128, 1);
    r = (rope_config){.type = ROPE_LINEAR, .theta = 10000, .factor = 4};
    check("linear", &r, 128, 1);
    r = (rope_config){.type = ROPE_LLAMA3,
                      .theta = 500000,
                      .factor = 8,
                      .original_max_position = 8192,
                      .low_freq_factor = 1,
                      .high_freq_factor = 4};
    check("llama3", &r, 128, 1);
}

static void yarn_formulas(void **state) {
    (void)state;
    rope_config r = {.type = ROPE_YARN,
                     .theta = 10000,
                     .factor = 40,
                     .original_max_position = 4096,
                     .beta_fast = 32,
                     .beta_slow = 1,
                     .mscale = 1,
                     .mscale_all_dim = 1};
    check("yarn, equal mscales", &r, 64, 1);
    r.mscale = 0.707, r.mscale_all_dim = 1.2;
    check("yarn, two mscales", &r, 64, (0.0707 * log(40) + 1) / (0.12 * log(40) + 1));
    r.mscale = r.mscale_all_dim = 0;
    check("yarn, no mscale", &r, 64, 0.1 * log(40) + 1);
    r.attention_factor = 0.75;
    check("yarn, attention_factor", &r, 64, 0.75);
    r = (rope_config){.type = ROPE_YARN,
                      .theta = 10000,
                      .factor = 4,
                      .original_max_position = 64,
                      .beta_fast = 32,
                      .beta_slow = 1,
                      .mscale = 1,
                      .mscale_all_dim = 1};
    check("yarn, a short context", &r, 16, 1); /* the ramp begins below dimension 0 */
    r.factor = 1;
    check("yarn, factor 1", &r, 16, 1);
}

/* The kinds differ where they should: the fastest dimension stays, the slowest is stretched. */
static void ends_of_the_ramp(void **state) {
    (void)state;
    static const rope_type kinds[] = {ROPE_YARN, ROPE_LLAMA3};
    for (int k = 0; k < 2; k++) {
        rope_config r = {.type = kinds[k],
                         .theta = 10000,
                         .factor = 40,
                         .original_max_position = 4096,
                         .beta_fast = 32,
                         .beta_slow = 1,
                         .low_freq_factor = 1,
                         .high_freq_factor = 4};
        float f[32], plain[32];
        rope_frequencies(&r, 64, f);
        r.type = ROPE_DEFAULT;
        rope_frequencies(&r, 64, plain);
        assert_true(f[0] == 1 && plain[0] == 1);
        assert_true(fabsf(f[31] * 40 / plain[31] - 1) < 1e-6f);
        for (int i = 1; i < 32; i++) assert_true(f[i] < f[i - 1]);
    }
}

/* A table of many positions is the tables of single ones: a prompt in pieces is the prompt. */
static void positions_one_by_one(void **state) {
    (void)state;
    rope_config r = {.type = ROPE_DEFAULT, .theta = 10000, .factor = 1};
    float f[8], all[10][16], one[16];
    rope_frequencies(&r, 16, f);
    rope_table(all[0], f, 1.25f, 16, 1000, 10);
    for (int t = 0; t < 10; t++) {
        rope_table(one, f, 1.25f, 16, 1000 + t, 1);
        assert_memory_equal(one, all[t], sizeof one);
    }
    rope_table(one, f, 1.25f, 16, 0, 1);
    for (int i = 0; i < 8; i++) assert_true(one[2 * i] == 1.25f && one[2 * i + 1] == 0);
}

/* --- reference data ---------------------------------------------------------------------------------------------- */

static const tensor *find(const safetensors *f, const char *key, const char *what) {
    char name[80];
    snprintf(name, sizeof name, "%s.%s", key, what);
    for (size_t i = 0; i < f->count; i++)
        if (strcmp(f->entries[i].name, name) == 0) return &f->entries[i].t;
    fail_msg("%s is missing", name);
    return NULL;
}

static void compare(const safetensors *file, const char *key, const rope_config *r, int64_t dim) {
    const tensor *freq = find(file, key, "inv_freq"), *pos = find(file, key, "pos"), *c = find(file, key, "cos"),
                 *s = find(file, key, "sin");
    float f[MOST_DIM / 2], table[MOST_DIM];
    double worst = 0, angle = 0;
    assert_int_equal(freq->dim[0], dim / 2);
    float factor = rope_frequencies(r, dim, f);
    for (int64_t i = 0; i < dim / 2; i++)
        worst = fmax(worst, fabs((double)f[i] / (double)dtype_load(freq->type, freq->data, i) - 1));
    for (int64_t p = 0; p < pos->dim[0]; p++) {
        int32_t at;
        memcpy(&at, (const char *)pos->data + 4 * p, 4);
        rope_table(table, f, factor, dim, at, 1);
        for (int64_t i = 0; i < dim / 2; i++) {
            double limit = (double)at * (double)f[i] * 0x1p-23 + 0x1p-23; /* half a unit of the angle, and roundings */
            double d = fmax(fabs((double)(table[2 * i] - dtype_load(c->type, c->data, p * (dim / 2) + i))),
                            fabs((double)(table[2 * i + 1] - dtype_load(s->type, s->data, p * (dim / 2) + i))));
            angle = fmax(angle, d / limit);
        }
    }
    printf("%-24s frequencies differ by %.1e, cos and sin by %.2f of what is allowed (%lld positions)\n", key, worst,
           angle, (long long)pos->dim[0]);
    assert_true(pos->dim[0] > 0 && worst <= 0x1p-22 && angle <= 1);
}

static void reference_tables(void **state) {
    (void)state;
    const char *shared = getenv("HADAL_SHARED");
    char path[600];
    safetensors file;
    error e;
    snprintf(path, sizeof path, "%s/golden/components/golden.safetensors", shared ? shared : "../shared");
    if (!file_exists(path)) {
        printf("SKIP rope: no reference data at %s\n", path);
        skip();
    }
    if (safetensors_open(&file, path, &e) != OK) fail_msg("%s", e.text);
    rope_config r = {.type = ROPE_YARN,
                     .theta = 10000,
                     .factor = 40,
                     .original_max_position = 4096,
                     .beta_fast = 32,
                     .beta_slow = 1,
                     .mscale = 1,
                     .mscale_all_dim = 1};
    compare(&file, "rope.yarn40", &r, 64);
    r.mscale = r.mscale_all_dim = 0.707;
    compare(&file, "rope.yarn40_lite", &r, 64);
    r = (rope_config){.type = ROPE_LLAMA3,
                      .theta = 500000,
                      .factor = 8,
                      .original_max_position = 8192,
                      .low_freq_factor = 1,
                      .high_freq_factor = 4};
    compare(&file, "rope.llama3", &r, 128);
    safetensors_close(&file);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(formulas), cmocka_unit_test(yarn_formulas),
                                       cmocka_unit_test(ends_of_the_ramp), cmocka_unit_test(positions_one_by_one),
                                       cmocka_unit_test(reference_tables)};
    return cmocka_run_group_tests_name("model/rope", tests, NULL, NULL);
}
