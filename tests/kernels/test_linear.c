/* Products of every kernel level against sums in double precision, on odd shapes, slices and lists. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "kernels/ops.h"
#include <cmocka.h> /* behind base/error.h: it has a fail of its own */

static const char *const levels[] = {"portable", "avx2", "avx512", "avx512bf16", "amx"};
enum { LEVELS = 5, GUARD = 16 };
static const float canary = -1234.5f;

/* A weight and what its numbers are. */
typedef struct weight {
    tensor t;
    void *data;
    float *scale;
} weight;

static float uniform(uint64_t stream, uint64_t i) {
    return (float)(rng_uniform(7, stream, i) * 2 - 1);
}

/* The F16 code nearest below |v| (the tests need numbers, not a rounding). */
static uint16_t f16_code(float v) {
    uint16_t best = 0;
    for (int bit = 14; bit >= 0; bit--) {
        uint16_t tried = best | (uint16_t)(1u << bit);
        if (tried < 0x7c00 && f16_to_f32(tried) <= fabsf(v)) best = tried;
    }
    return v < 0 ? best | 0x8000 : best;
}

/* A slice of `rows` rows that begins at row0 of its block grid. */
static weight weight_make(dtype type, int64_t rows, int64_t columns, int64_t row0, uint64_t stream) {
    weight w = {.t = {.type = type, .ndim = 2, .dim = {rows, columns}, .row0 = row0}};
    size_t count = (size_t)(rows * columns), size = dtype_size(type);
    char *data = malloc(count * size + 1); /* exactly as long, so that sanitizers see what is read behind it */
    w.data = data;
    for (size_t i = 0; i < count; i++) {
        float v = uniform(stream, i);
        uint16_t half = type == DT_F16 ? f16_code(v) : f32_to_bf16(v);
        uint8_t code = f32_to_e4m3(v * (i % 5 == 0 ? 0.01f : 200.0f)); /* subnormal ones too */
        if (type == DT_F32) memcpy(data + 4 * i, &v, 4);
        else if (type == DT_E4M3) data[i] = (char)code;
        else memcpy(data + 2 * i, &half, 2);
    }
    w.t.data = data;
    if (type == DT_E4M3) {
        int64_t wide = (columns + FP8_BLOCK - 1) / FP8_BLOCK, high = (row0 + rows + FP8_BLOCK - 1) / FP8_BLOCK;
        w.scale = malloc((size_t)(wide * high) * sizeof(float));
        for (int64_t i = 0; i < wide * high; i++) w.scale[i] = 0.001f * (1.5f + uniform(stream + 1000, (uint64_t)i));
        w.t.scale = w.scale;
        w.t.scale_stride = wide;
    }
    return w;
}

static void weight_free(weight *w) {
    free(w->data);
    free(w->scale);
}

static double weight_value(const tensor *w, int64_t r, int64_t c) {
    double v = dtype_load(w->type, w->data, r * w->dim[1] + c);
    return w->scale ? v * w->scale[(w->row0 + r) / FP8_BLOCK * w->scale_stride + c / FP8_BLOCK] : v;
}

/* y as op_linear should leave it, and how far off it may be. With u = 2^-24 a sum of K F32 products in any order is off
 * by at most about K u sum|x w|; blockwise scales add one rounding a block, bias and add one each: (K + 8) u.
 * BF16 has 8 significant bits, so rounding to it is off by at most 2^-8 relative: for both operands of a product
 * 2 * 2^-8 + 2^-16 of sum|x w|, for an output 2^-8 of itself. */
typedef struct expected {
    double value, allowed;
} expected;

static expected expect(const product *p, compute mode, int64_t t, int64_t o, float before) {
    int64_t terms = p->w->dim[p->transposed ? 0 : 1];
    double sum = 0, size = 0;
    for (int64_t i = 0; i < terms; i++) {
        double w = p->transposed ? weight_value(p->w, i, o) : weight_value(p->w, o, i);
        double v = w * p->x[t * p->ldx + i];
        sum += v;
        size += fabs(v);
    }
    if (p->bias) sum += p->bias[o], size += fabsf(p->bias[o]);
    if (p->add) sum += before, size += fabsf(before);
    double allowed = size * ((double)terms + 8) * 0x1p-24;
    if (mode == COMPUTE_BF16) allowed += size * (0x1p-7 + 0x1p-16);
    if (p->y_type == DT_BF16) allowed += (fabs(sum) + allowed) * 0x1p-8;
    return (expected){sum, allowed + 1e-30};
}

/* One product with its own memory: x padded, y between canaries. */
typedef struct trial {
    weight w;
    product p;
    float *x, *bias, *y;
    size_t y_bytes;
    int64_t outs;
} trial;

typedef struct shape {
    dtype type;
    int64_t out, in, n, row0;
    const char *how; /* t: transposed, a: add, b: bias, h: output in BF16, f: F32 products on request */
} shape;

static bool has(const shape *s, char flag) {
    return strchr(s->how, flag) != NULL;
}

static float y_before(int64_t i) {
    return bf16_to_f32(f32_to_bf16(uniform(77, (uint64_t)i)));
}

static trial trial_make(const shape *s) {
    trial t = {.w = weight_make(s->type, s->out, s->in, s->row0, (uint64_t)(s->out * 131 + s->in))};
    int64_t terms = has(s, 't') ? s->out : s->in, ldx = terms + 3;
    t.outs = has(s, 't') ? s->in : s->out;
    t.x = malloc((size_t)(s->n * ldx) * sizeof(float));
    for (int64_t i = 0; i < s->n * ldx; i++) t.x[i] = i % ldx < terms ? uniform(5, (uint64_t)i) : NAN;
    t.bias = malloc((size_t)t.outs * sizeof(float));
    for (int64_t i = 0; i < t.outs; i++) t.bias[i] = uniform(6, (uint64_t)i);
    t.p = (product){.x = t.x,
                    .ldx = ldx,
                    .ldy = t.outs + 5,
                    .n = s->n,
                    .bias = has(s, 'b') ? t.bias : NULL,
                    .y_type = has(s, 'h') ? DT_BF16 : DT_F32,
                    .transposed = has(s, 't'),
                    .add = has(s, 'a'),
                    .f32 = has(s, 'f')};
    t.y_bytes = ((size_t)(s->n * t.p.ldy) + 2 * GUARD) * sizeof(float);
    t.y = malloc(t.y_bytes);
    return t;
}

static void trial_free(trial *t) {
    weight_free(&t->w);
    free(t->x);
    free(t->bias);
    free(t->y);
}

/* Fills y: canaries everywhere but in the result, which holds the numbers that `add` adds to. */
static void trial_reset(trial *t) {
    t->p.w = &t->w.t;
    for (size_t i = 0; i < t->y_bytes / sizeof(float); i++) t->y[i] = canary;
    t->p.y = t->y + GUARD;
    for (int64_t r = 0; r < t->p.n; r++) {
        for (int64_t o = 0; o < t->outs; o++) {
            int64_t at = r * t->p.ldy + o;
            float v = t->p.add ? y_before(at) : NAN; /* what is not added to may be anything */
            uint16_t code = f32_to_bf16(v);
            if (t->p.y_type == DT_F32) ((float *)t->p.y)[at] = v;
            else memcpy((char *)t->p.y + 2 * at, &code, 2);
        }
    }
}

static float trial_y(const trial *t, int64_t row, int64_t o) {
    int64_t at = row * t->p.ldy + o;
    return dtype_load(t->p.y_type, t->p.y, at);
}

/* The bytes outside the result are as trial_reset left them. */
static bool canaries_alive(trial *t) {
    size_t size = dtype_size(t->p.y_type);
    char *copy = malloc(t->y_bytes);
    memcpy(copy, t->y, t->y_bytes);
    trial_reset(t);
    for (int64_t r = 0; r < t->p.n; r++) {
        size_t at = GUARD * sizeof(float) + (size_t)(r * t->p.ldy) * size;
        memcpy((char *)t->y + at, copy + at, (size_t)t->outs * size);
    }
    bool alive = memcmp(copy, t->y, t->y_bytes) == 0;
    free(copy);
    return alive;
}

/* Largest error as a part of what is allowed. */
static double trial_error(const trial *t, compute mode) {
    if (t->p.f32) mode = COMPUTE_F32;
    double worst = 0;
    for (int64_t r = 0; r < t->p.n; r++) {
        for (int64_t o = 0; o < t->outs; o++) {
            expected want = expect(&t->p, mode, r, o, t->p.add ? y_before(r * t->p.ldy + o) : 0);
            double off = fabs(trial_y(t, r, o) - want.value) / want.allowed;
            if (!(off <= worst)) worst = isnan(off) ? INFINITY : off;
        }
    }
    return worst;
}

static queue *open_level(const char *name, int threads, compute mode) {
    queue *q;
    error e;
    status s = queue_open(&q, threads, name, mode, &e);
    if (s == ERR_UNSUPPORTED) return NULL;
    if (s != OK) fail_msg("%s", e.text);
    return q;
}

static const shape shapes[] = {
    {DT_F32, 1, 1, 1, 0, ""},          {DT_F32, 7, 5, 3, 0, "ab"},          {DT_F32, 33, 129, 8, 0, "bh"},
    {DT_F32, 130, 700, 9, 0, "a"},     {DT_F32, 40, 64, 33, 0, "b"},        {DT_BF16, 1, 3, 2, 0, ""},
    {DT_BF16, 9, 31, 8, 0, "ab"},      {DT_BF16, 129, 1056, 1, 0, ""},      {DT_BF16, 64, 1024, 7, 0, "h"},
    {DT_BF16, 144, 544, 20, 0, "b"},   {DT_BF16, 50, 527, 64, 0, "ah"},     {DT_BF16, 128, 64, 65, 0, "ab"},
    {DT_BF16, 17, 100, 600, 0, ""},    {DT_F16, 5, 77, 4, 0, "a"},          {DT_F16, 31, 200, 17, 0, "bh"},
    {DT_E4M3, 3, 100, 1, 0, ""},       {DT_E4M3, 30, 128, 5, 120, "a"},     {DT_E4M3, 150, 300, 2, 100, "bh"},
    {DT_E4M3, 141, 640, 8, 5, ""},     {DT_E4M3, 130, 700, 33, 70, "ab"},   {DT_E4M3, 16, 32, 9, 127, "h"},
    {DT_E4M3, 257, 512, 18, 0, ""},    {DT_F32, 20, 70, 3, 0, "t"},         {DT_BF16, 128, 512, 1, 0, "t"},
    {DT_BF16, 128, 512, 40, 0, "tbh"}, {DT_BF16, 19, 33, 11, 0, "tab"},     {DT_F16, 13, 300, 2, 0, "ta"},
    {DT_E4M3, 128, 512, 3, 192, "t"},  {DT_E4M3, 50, 150, 33, 100, "tabh"}, {DT_BF16, 64, 256, 6, 0, "f"},
    {DT_BF16, 64, 256, 21, 0, "f"},    {DT_E4M3, 64, 256, 6, 0, "tf"},      {DT_BF16, 50, 1100, 130, 0, ""},
    {DT_BF16, 64, 2112, 40, 0, "a"},   {DT_F32, 48, 1088, 70, 0, "b"},      {DT_E4M3, 300, 2200, 30, 3, ""},
    {DT_E4M3, 65, 640, 600, 64, "h"},  {DT_F32, 35, 20, 70, 0, "ab"},       {DT_F32, 36, 20, 70, 0, "b"},
    {DT_F32, 36, 20, 70, 0, "a"},      {DT_F32, 40, 6, 8, 0, ""},           {DT_BF16, 64, 256, 33, 0, "bf"},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void test_levels_agree(void **state) {
    (void)state;
    for (int l = 0; l < LEVELS; l++) {
        for (compute mode = COMPUTE_F32; mode <= COMPUTE_BF16; mode++) {
            queue *q = open_level(levels[l], 2, mode);
            if (!q) {
                printf("this machine has no %s\n", levels[l]);
                break;
            }
            double worst = 0;
            for (int i = 0; i < SHAPES; i++) {
                trial t = trial_make(&shapes[i]);
                trial_reset(&t);
                op_linear(q, &t.p, 1);
                double off = trial_error(&t, mode);
                if (off > worst) worst = off;
                if (!(off <= 1))
                    fail_msg("%s, %s products, shape %d: error is %g of what is allowed", levels[l],
                             mode == COMPUTE_F32 ? "F32" : "BF16", i, off);
                if (!canaries_alive(&t)) fail_msg("%s, shape %d: wrote outside its rows", levels[l], i);
                trial_free(&t);
            }
            printf("%-10s %s: %d shapes, largest error %.3f of what is allowed\n", levels[l],
                   mode == COMPUTE_F32 ? "F32 " : "BF16", SHAPES, worst);
            queue_close(q);
        }
    }
}

/* All n from 1 to 20, every type: in few-row products a row is what it is alone, to the bit. */
static void test_every_n(void **state) {
    (void)state;
    const dtype types[] = {DT_F32, DT_BF16, DT_F16, DT_E4M3};
    for (int l = 0; l < LEVELS; l++) {
        for (compute mode = COMPUTE_F32; mode <= COMPUTE_BF16; mode++) {
            queue *q = open_level(levels[l], 1, mode);
            if (!q) break;
            for (int type = 0; type < 4; type++) {
                for (int transposed = 0; transposed < 2; transposed++) {
                    shape s = {types[type], 35, 333, 20, 110, transposed ? "t" : ""};
                    trial t = trial_make(&s);
                    float *alone = malloc((size_t)(s.n * t.outs) * sizeof(float));
                    for (int64_t r = 0; r < s.n; r++) {
                        product p = t.p;
                        p.w = &t.w.t, p.x += r * p.ldx, p.y = alone + r * t.outs, p.n = 1;
                        op_linear(q, &p, 1);
                    }
                    for (int64_t n = 1; n <= s.n; n++) {
                        t.p.n = n;
                        trial_reset(&t);
                        op_linear(q, &t.p, 1);
                        if (!(trial_error(&t, mode) <= 1)) fail_msg("%s, type %d, n = %d", levels[l], type, (int)n);
                        if (!canaries_alive(&t)) fail_msg("%s, type %d, n = %d: canary", levels[l], type, (int)n);
                        for (int64_t r = 0; r < n && n <= OP_FEW_ROWS; r++)
                            assert_memory_equal((float *)t.p.y + r * t.p.ldy, alone + r * t.outs,
                                                (size_t)t.outs * sizeof(float));
                    }
                    free(alone);
                    trial_free(&t);
                }
            }
            queue_close(q);
        }
    }
}

/* With one way for all a row, and rows in a row, are what they are among all rows, to the bit. */
static void test_one_way(void **state) {
    (void)state;
    for (int l = 0; l < LEVELS; l++) {
        for (compute mode = COMPUTE_F32; mode <= COMPUTE_BF16; mode++) {
            queue *q = open_level(levels[l], 2, mode);
            if (!q) break;
            for (int i = 0; i < 2 * SHAPES; i++) {
                const shape *s = &shapes[i / 2];
                if (l == 0 && s->n * s->out * s->in > 1 << 22) continue; /* slow, and seen in the others */
                trial all = trial_make(s), few = trial_make(s);
                queue_rows(q, i % 2 ? ROWS_FEW : ROWS_MANY);
                trial_reset(&all);
                trial_reset(&few);
                op_linear(q, &all.p, 1);
                if (i % 2 && s->n > OP_FEW_ROWS && s->n < 100) { /* what test_levels_agree has not seen */
                    if (!(trial_error(&all, mode) <= 1)) fail_msg("%s, shape %d: wrong", levels[l], i / 2);
                    if (!canaries_alive(&all)) fail_msg("%s, shape %d: wrote outside its rows", levels[l], i / 2);
                    trial_reset(&all);
                    op_linear(q, &all.p, 1);
                }
                for (int64_t r = 0, n; r < s->n; r += n) {
                    product p = few.p;
                    n = r % 3 == 0 ? 1 : 1 + (r * 7) % 40;
                    if (n > s->n - r) n = s->n - r;
                    p.x += r * p.ldx;
                    p.y = (char *)p.y + (size_t)(r * p.ldy) * dtype_size(p.y_type);
                    p.n = n;
                    op_linear(q, &p, 1);
                }
                if (memcmp(all.y, few.y, all.y_bytes) != 0)
                    fail_msg("%s, %s, way %d, shape %d: rows in parts differ", levels[l],
                             mode == COMPUTE_F32 ? "F32" : "BF16", i % 2, i / 2);
                trial_free(&all);
                trial_free(&few);
            }
            queue_close(q);
        }
    }
}

/* A list of products, some on one input, gives what each gives alone, with any number of threads, to the bit. */
static void test_lists_and_threads(void **state) {
    (void)state;
    enum { COUNT = 12 };
    for (int l = 0; l < LEVELS; l++) {
        for (compute mode = COMPUTE_F32; mode <= COMPUTE_BF16; mode++) {
            trial t[COUNT];
            product list[COUNT];
            float *first[COUNT];
            for (int threads = 1; threads <= 4; threads += threads == 1 ? 1 : 2) {
                queue *q = open_level(levels[l], threads, mode);
                if (!q) break;
                for (int i = 0; i < COUNT; i++) {
                    shape s = {(dtype)(i % 4), 100 + 40 * i, 300, 1 + (i * 7) % 40, 30 * i, i % 3 == 0 ? "a" : ""};
                    if (threads == 1) t[i] = trial_make(&s);
                    if (i % 2) t[i].p.x = t[i - 1].x, t[i].p.n = t[i - 1].p.n < s.n ? t[i - 1].p.n : s.n;
                    trial_reset(&t[i]);
                    list[i] = t[i].p;
                    if (threads > 1) continue;
                    op_linear(q, &t[i].p, 1); /* alone */
                    first[i] = malloc(t[i].y_bytes);
                    memcpy(first[i], t[i].y, t[i].y_bytes);
                    trial_reset(&t[i]);
                }
                op_linear(q, list, COUNT);
                for (int i = 0; i < COUNT; i++) assert_memory_equal(first[i], t[i].y, t[i].y_bytes);
                if (threads == 4) {
                    for (int i = 0; i < COUNT; i++) {
                        trial_free(&t[i]);
                        free(first[i]);
                    }
                }
                queue_close(q);
            }
        }
    }
}

/* NaN among the weights gives NaN where it belongs and nowhere else; nothing crashes. */
static void test_nan(void **state) {
    (void)state;
    for (int l = 0; l < LEVELS; l++) {
        for (compute mode = COMPUTE_F32; mode <= COMPUTE_BF16; mode++) {
            queue *q = open_level(levels[l], 1, mode);
            if (!q) break;
            for (int i = 0; i < 8; i++) {
                shape s = {(dtype)(i % 4), 40, 200, i < 4 ? 3 : 30, 0, ""};
                trial t = trial_make(&s);
                const uint32_t nan[4] = {0x7fc00000u, 0x7fc0u, 0x7e00u, 0x7fu};
                size_t size = dtype_size(s.type);
                memcpy((char *)t.w.data + (size_t)(17 * s.in + 150) * size, &nan[s.type], size);
                trial_reset(&t);
                op_linear(q, &t.p, 1);
                for (int64_t r = 0; r < s.n; r++)
                    for (int64_t o = 0; o < s.out; o++) assert_true(isnan(trial_y(&t, r, o)) == (o == 17));
                trial_free(&t);
            }
            queue_close(q);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levels_agree),      cmocka_unit_test(test_every_n), cmocka_unit_test(test_one_way),
        cmocka_unit_test(test_lists_and_threads), cmocka_unit_test(test_nan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
