/* Derivatives of products on every kernel level against sums in double precision: odd sizes, joined sums, lists. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "kernels/train_ops.h"
#include <cmocka.h> /* behind base/error.h: it has a fail of its own */

static const char *const levels[] = {"portable", "avx2", "avx512", "avx512bf16", "amx"};
enum { LEVELS = 5, GUARD = 16, JOINS = 3 };
static const float canary = -1234.5f;

static float uniform(uint64_t stream, uint64_t i) {
    return (float)(rng_uniform(11, stream, i) * 2 - 1);
}

static queue *open_level(const char *name, int threads, compute mode) {
    queue *q;
    error e;
    status s = queue_open(&q, threads, name, mode, &e);
    if (s == ERR_UNSUPPORTED) return NULL;
    if (s != OK) fail_msg("%s", e.text);
    return q;
}

/* n rows of `columns` numbers, ld apart, with NaN between the rows; exactly as long as that, so that sanitizers see
 * what is read behind it. */
static float *rows_make(int64_t n, int64_t columns, int64_t ld, uint64_t stream) {
    size_t count = n > 0 ? (size_t)((n - 1) * ld + columns) : 0;
    float *x = malloc(count * sizeof *x + 1);
    for (size_t i = 0; i < count; i++) x[i] = (int64_t)i % ld < columns ? uniform(stream, i) : NAN;
    return x;
}

/* A result between canaries. */
typedef struct result {
    float *memory, *at;
    int64_t rows, columns, ld;
} result;

static size_t result_count(const result *r) {
    return (size_t)(r->rows * r->ld) + 2 * GUARD;
}

static float before(int64_t i) {
    return uniform(99, (uint64_t)i);
}

/* What is not added to may be anything. */
static void result_reset(result *r, bool add) {
    for (size_t i = 0; i < result_count(r); i++) r->memory[i] = canary;
    r->at = r->memory + GUARD;
    for (int64_t i = 0; i < r->rows; i++)
        for (int64_t j = 0; j < r->columns; j++) r->at[i * r->ld + j] = add ? before(i * r->ld + j) : NAN;
}

static result result_make(int64_t rows, int64_t columns, int64_t ld, bool add) {
    result r = {.rows = rows, .columns = columns, .ld = ld};
    r.memory = malloc(result_count(&r) * sizeof(float));
    result_reset(&r, add);
    return r;
}

static bool canaries_alive(const result *r) {
    for (int64_t i = -GUARD; i < r->rows * r->ld + GUARD; i++) {
        bool inside = i >= 0 && i < r->rows * r->ld && i % r->ld < r->columns;
        if (!inside && r->at[i] != canary) return false;
    }
    return true;
}

static float rounded(float v, compute mode) {
    return mode == COMPUTE_BF16 ? bf16_to_f32(f32_to_bf16(v)) : v;
}

/* A sum and how far off it may be. With u = 2^-24, a sum of K products of given operands is off by at most K u sum|a b|
 * in any order when multiplying and adding are fused or the product is exact (BF16), and (K + 1) u otherwise; what
 * multiplies pairs rounds twice a pair, which is the same number. Adding to what was there rounds once more. */
typedef struct sum {
    double value, size;
    int64_t terms;
} sum;

static void sum_add(sum *s, double a, double b) {
    s->value += a * b;
    s->size += fabs(a * b);
    s->terms++;
}

static void check(const result *r, int64_t i, int64_t j, sum s, bool add, const char *what) {
    if (add) sum_add(&s, before(i * r->ld + j), 1);
    double allowed = (double)(s.terms + 2) * 0x1p-24 * s.size + 1e-30;
    double off = fabs(r->at[i * r->ld + j] - s.value);
    if (!(off <= allowed)) fail_msg("%s: [%d][%d] is off by %g, allowed %g", what, (int)i, (int)j, off, allowed);
}

/* --- dx ---------------------------------------------------------------------------------------------------------- */

/* how: a: add, f: F32 products on request, h: weights in BF16, j and jj: one and two joined sums. */
typedef struct shape {
    int64_t n, out, in;
    const char *how;
} shape;

static bool has(const shape *s, char flag) {
    return strchr(s->how, flag) != NULL;
}

typedef struct dx_trial {
    shape s;
    int count;
    tensor w[JOINS];
    void *data[JOINS];
    float *dy[JOINS];
    result dx;
    product_dx list[JOINS];
} dx_trial;

static tensor weight_make(bool bf16, int64_t out, int64_t in, uint64_t stream, void **data) {
    size_t count = (size_t)(out * in), size = bf16 ? 2 : 4;
    char *p = malloc(count * size + 1);
    for (size_t i = 0; i < count; i++) {
        float v = uniform(stream, i);
        uint16_t code = f32_to_bf16(v);
        memcpy(p + i * size, bf16 ? (void *)&code : (void *)&v, size);
    }
    *data = p;
    return (tensor){.data = p, .type = bf16 ? DT_BF16 : DT_F32, .ndim = 2, .dim = {out, in}};
}

static void dx_make(dx_trial *t, const shape *s) {
    *t = (dx_trial){.s = *s, .count = 1};
    for (const char *c = s->how; *c; c++) t->count += *c == 'j';
    t->dx = result_make(s->n, s->in, s->in + 5, has(s, 'a'));
    for (int i = 0; i < t->count; i++) {
        int64_t out = s->out + 13 * i, ld = out + 3;
        t->w[i] = weight_make(has(s, 'h'), out, s->in, (uint64_t)(s->out + i), &t->data[i]);
        t->dy[i] = rows_make(s->n, out, ld, (uint64_t)(50 + i));
        t->list[i] = (product_dx){.w = &t->w[i],
                                  .dy = t->dy[i],
                                  .lddy = ld,
                                  .dx = t->dx.at,
                                  .lddx = t->dx.ld,
                                  .n = s->n,
                                  .add = has(s, 'a'),
                                  .join = i > 0,
                                  .f32 = has(s, 'f')};
    }
}

static void dx_free(dx_trial *t) {
    for (int i = 0; i < t->count; i++) {
        free(t->data[i]);
        free(t->dy[i]);
    }
    free(t->dx.memory);
}

static void dx_check(const dx_trial *t, compute mode, const char *what) {
    if (has(&t->s, 'f')) mode = COMPUTE_F32;
    for (int64_t r = 0; r < t->s.n; r++) {
        for (int64_t i = 0; i < t->s.in; i++) {
            sum s = {0};
            for (int j = 0; j < t->count; j++)
                for (int64_t o = 0; o < t->w[j].dim[0]; o++)
                    sum_add(&s, rounded(t->dy[j][r * t->list[j].lddy + o], mode),
                            rounded(dtype_load(t->w[j].type, t->data[j], o * t->s.in + i), mode));
            check(&t->dx, r, i, s, has(&t->s, 'a'), what);
        }
    }
    if (!canaries_alive(&t->dx)) fail_msg("%s: wrote outside its rows", what);
}

/* --- dw ---------------------------------------------------------------------------------------------------------- */

typedef struct dw_trial {
    shape s;
    float *x, *dy;
    result dw, dbias;
    product_dw p;
} dw_trial;

static void dw_make(dw_trial *t, const shape *s) {
    *t = (dw_trial){.s = *s};
    t->x = rows_make(s->n, s->in, s->in + 3, (uint64_t)(60 + s->out));
    t->dy = rows_make(s->n, s->out, s->out + 1, 40);
    t->dw = result_make(s->out, s->in, s->in, true);
    t->dbias = result_make(1, s->out, s->out, true);
    t->p = (product_dw){.dw = t->dw.at,
                        .out = s->out,
                        .in = s->in,
                        .dy = t->dy,
                        .lddy = s->out + 1,
                        .x = t->x,
                        .ldx = s->in + 3,
                        .n = s->n,
                        .dbias = has(s, 'a') ? t->dbias.at : NULL,
                        .f32 = has(s, 'f')};
}

static void dw_reset(dw_trial *t) {
    result_reset(&t->dw, true);
    result_reset(&t->dbias, true);
}

static void dw_free(dw_trial *t) {
    free(t->x);
    free(t->dy);
    free(t->dw.memory);
    free(t->dbias.memory);
}

static void dw_check(const dw_trial *t, compute mode, const char *what) {
    if (has(&t->s, 'f')) mode = COMPUTE_F32;
    for (int64_t o = 0; o < t->s.out; o++) {
        sum bias = {0};
        for (int64_t r = 0; r < t->s.n && t->p.dbias; r++) sum_add(&bias, t->dy[r * t->p.lddy + o], 1);
        check(&t->dbias, 0, o, bias, true, what);
        for (int64_t i = 0; i < t->s.in; i++) {
            sum s = {0};
            for (int64_t r = 0; r < t->s.n; r++)
                sum_add(&s, rounded(t->dy[r * t->p.lddy + o], mode), rounded(t->x[r * t->p.ldx + i], mode));
            check(&t->dw, o, i, s, true, what);
        }
    }
    if (!canaries_alive(&t->dw) || !canaries_alive(&t->dbias)) fail_msg("%s: wrote outside", what);
}

/* --- tests ------------------------------------------------------------------------------------------------------- */

static const shape shapes[] = {
    {1, 1, 1, ""},       {3, 7, 5, "a"},      {16, 32, 16, ""},    {17, 33, 47, "ahj"}, {40, 256, 64, "h"},
    {130, 5, 200, "aj"}, {31, 600, 80, "jj"}, {64, 96, 530, "af"}, {600, 40, 33, "h"},  {2, 300, 130, "fhj"},
    {0, 20, 30, "a"},    {150, 513, 17, ""},  {40, 9, 64, ""},     {40, 20, 64, ""},    {25, 30, 64, "a"},
};
/* From SHARES on the weight gradients read the x of shape SHARED: all of its rows, then fewer. The shape before them
 * has an x of its own with the same size. */
enum { SHARED = 4, SHARES = 13 };
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void test_levels(void **state) {
    (void)state;
    for (int l = 0; l < LEVELS; l++) {
        for (compute mode = COMPUTE_F32; mode <= COMPUTE_BF16; mode++) {
            queue *q = open_level(levels[l], 2, mode);
            if (!q) {
                printf("this machine has no %s\n", levels[l]);
                break;
            }
            for (int i = 0; i < SHAPES; i++) {
                char what[80];
                dx_trial x;
                dw_trial w;
                dx_make(&x, &shapes[i]);
                op_linear_dx(q, x.list, x.count);
                snprintf(what, sizeof what, "%s, compute %d, shape %d, dx", levels[l], (int)mode, i);
                dx_check(&x, mode, what);
                dx_free(&x);
                dw_make(&w, &shapes[i]);
                op_linear_dw(q, &w.p, 1);
                snprintf(what, sizeof what, "%s, compute %d, shape %d, dw", levels[l], (int)mode, i);
                dw_check(&w, mode, what);
                dw_free(&w);
            }
            queue_close(q);
        }
    }
}

/* All shapes in one list, with any number of threads, give what each gives alone: to the last bit. */
static void test_lists_and_threads(void **state) {
    (void)state;
    for (int l = 0; l < LEVELS; l++) {
        for (compute mode = COMPUTE_F32; mode <= COMPUTE_BF16; mode++) {
            dx_trial x[SHAPES];
            dw_trial w[SHAPES];
            float *dx[SHAPES], *dw[SHAPES], *dbias[SHAPES];
            queue *q = open_level(levels[l], 1, mode);
            if (!q) break;
            for (int i = 0; i < SHAPES; i++) {
                dx_make(&x[i], &shapes[i]);
                dw_make(&w[i], &shapes[i]);
                if (i >= SHARES) w[i].p.x = w[SHARED].x;
                op_linear_dx(q, x[i].list, x[i].count);
                op_linear_dw(q, &w[i].p, 1);
                dx[i] = x[i].dx.memory, dw[i] = w[i].dw.memory, dbias[i] = w[i].dbias.memory;
            }
            queue_close(q);
            for (int threads = 1; threads <= 3; threads++) {
                product_dx dx_list[SHAPES * JOINS];
                product_dw dw_list[SHAPES];
                int count = 0;
                for (int i = 0; i < SHAPES; i++) {
                    x[i].dx = result_make(shapes[i].n, shapes[i].in, shapes[i].in + 5, has(&shapes[i], 'a'));
                    w[i].dw.memory = malloc(result_count(&w[i].dw) * sizeof(float));
                    w[i].dbias.memory = malloc(result_count(&w[i].dbias) * sizeof(float));
                    dw_reset(&w[i]);
                    for (int j = 0; j < x[i].count; j++) {
                        dx_list[count] = x[i].list[j];
                        dx_list[count++].dx = x[i].dx.at;
                    }
                    dw_list[i] = w[i].p;
                    dw_list[i].dw = w[i].dw.at;
                    if (dw_list[i].dbias) dw_list[i].dbias = w[i].dbias.at;
                }
                q = open_level(levels[l], threads, mode);
                op_linear_dx(q, dx_list, count);
                op_linear_dw(q, dw_list, SHAPES);
                queue_close(q);
                for (int i = 0; i < SHAPES; i++) {
                    assert_memory_equal(x[i].dx.memory, dx[i], result_count(&x[i].dx) * sizeof(float));
                    assert_memory_equal(w[i].dw.memory, dw[i], result_count(&w[i].dw) * sizeof(float));
                    assert_memory_equal(w[i].dbias.memory, dbias[i], result_count(&w[i].dbias) * sizeof(float));
                    free(x[i].dx.memory);
                    free(w[i].dw.memory);
                    free(w[i].dbias.memory);
                }
            }
            for (int i = 0; i < SHAPES; i++) {
                x[i].dx.memory = dx[i], w[i].dw.memory = dw[i], w[i].dbias.memory = dbias[i];
                dx_free(&x[i]);
                dw_free(&w[i]);
            }
        }
    }
}

/* A row alone is the same row among many, to the last bit: forward (once the queue is told so) and backward. The sums
 * are so long that they are cut into blocks. */
static void test_rows_alike(void **state) {
    (void)state;
    enum { N = 150, LONG = 1100, SHORT = 50 };
    for (int l = 0; l < LEVELS; l++) {
        for (compute mode = COMPUTE_F32; mode <= COMPUTE_BF16; mode++) {
            queue *q = open_level(levels[l], 2, mode);
            if (!q) break;
            queue_rows(q, ROWS_MANY);
            void *up, *down;
            tensor forward = weight_make(false, SHORT, LONG, 1, &up),
                   backward = weight_make(false, LONG, SHORT, 2, &down);
            float *x = rows_make(N, LONG, LONG, 3), *all = malloc(sizeof(float) * N * SHORT), one[SHORT];
            product y = {.w = &forward, .x = x, .ldx = LONG, .y = all, .ldy = SHORT, .n = N};
            op_linear(q, &y, 1);
            for (int r = 0; r < N; r += 7) {
                product alone = {.w = &forward, .x = x + r * LONG, .ldx = LONG, .y = one, .ldy = SHORT, .n = 1};
                op_linear(q, &alone, 1);
                assert_memory_equal(one, all + r * SHORT, sizeof one);
            }
            product_dx d = {.w = &backward, .dy = x, .lddy = LONG, .dx = all, .lddx = SHORT, .n = N};
            op_linear_dx(q, &d, 1);
            for (int r = 0; r < N; r += 7) {
                product_dx alone = {.w = &backward, .dy = x + r * LONG, .lddy = LONG, .dx = one, .lddx = SHORT, .n = 1};
                op_linear_dx(q, &alone, 1);
                assert_memory_equal(one, all + r * SHORT, sizeof one);
            }
            free(up);
            free(down);
            free(x);
            free(all);
            queue_close(q);
        }
    }
}

/* NaN in dy or x goes into the sums that it belongs to and into no others. */
static void test_nan(void **state) {
    (void)state;
    for (int l = 0; l < LEVELS; l++) {
        for (compute mode = COMPUTE_F32; mode <= COMPUTE_BF16; mode++) {
            queue *q = open_level(levels[l], 1, mode);
            if (!q) break;
            shape s = {21, 37, 19, ""};
            dx_trial x;
            dw_trial w;
            dx_make(&x, &s);
            x.dy[0][20 * x.list[0].lddy + 36] = NAN;
            op_linear_dx(q, x.list, 1);
            for (int64_t r = 0; r < s.n; r++)
                for (int64_t i = 0; i < s.in; i++) assert_true(isnan(x.dx.at[r * x.dx.ld + i]) == (r == 20));
            dw_make(&w, &s);
            w.x[20 * w.p.ldx + 18] = NAN;
            op_linear_dw(q, &w.p, 1);
            for (int64_t o = 0; o < s.out; o++)
                for (int64_t i = 0; i < s.in; i++) assert_true(isnan(w.dw.at[o * s.in + i]) == (i == 18));
            dx_free(&x);
            dw_free(&w);
            queue_close(q);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_lists_and_threads),
        cmocka_unit_test(test_rows_alike),
        cmocka_unit_test(test_nan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
