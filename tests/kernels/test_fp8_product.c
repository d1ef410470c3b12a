/* Products in E4M3: quantisation and products bit by bit as the formulas say, on every level. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "kernels/fp8_product.h"
#include "kernels/train_ops.h"
#include <cmocka.h> /* behind base/error.h: it has a fail of its own */

static const char *const levels[] = {"portable", "avx2", "avx512", "avx512bf16", "amx"};
enum { LEVELS = 5 };

static queue *open_level(const char *name, int threads, compute mode) {
    queue *q;
    error e;
    status s = queue_open(&q, threads, name, mode, &e);
    if (s == ERR_UNSUPPORTED) return NULL;
    if (s != OK) fail_msg("%s", e.text);
    return q;
}

static float *numbers(int64_t count, uint64_t stream) {
    float *x = malloc((size_t)count * sizeof *x);
    for (int64_t i = 0; i < count; i++) x[i] = (float)rng_normal(3, stream, (uint64_t)i);
    return x;
}

/* --- quantisation ------------------------------------------------------------------------------------------------ */

static void test_quantisation(void **state) {
    (void)state;
    const float edges[] = {0,         -0.0f,    448,      -448,          455.9f,         464,      1e30f,    INFINITY,
                           -INFINITY, NAN,      0x1p-6f,  0x1.fp-7f,     0x1.dp-7f,      0x1p-9f,  0x1p-10f, 0x1.8p-9f,
                           0x1p-11f,  0x1.1p0f, 0x1.3p0f, 0x1.fffffep7f, 0x1.0fffffep0f, 0x1p-149f};
    for (uint32_t i = 0; i < 200000; i += FP8_BLOCK) {
        float x[FP8_BLOCK], q[FP8_BLOCK], amax = 0;
        for (uint32_t j = 0; j < FP8_BLOCK; j++) {
            x[j] = (float)(rng_normal(1, 2, i + j) * exp2(rng_uniform(1, 3, i / FP8_BLOCK) * 40 - 20));
            amax = fmaxf(amax, fabsf(x[j]));
        }
        float scale = fp8_tile_scale(x, FP8_BLOCK, false);
        assert_true(scale == fmaxf(amax, 1e-4f) / 448.0f);
        fp8_tile_round(q, x, scale);
        for (int j = 0; j < FP8_BLOCK; j++) assert_true(q[j] == e4m3_to_f32(f32_to_e4m3(x[j] / scale)));
        fp8_tile_round(q, x, 0x1p-8f); /* many numbers beyond 448 and below 2^-6 */
        for (int j = 0; j < FP8_BLOCK; j++) assert_true(q[j] == e4m3_to_f32(f32_to_e4m3(x[j] * 0x1p8f)));
    }
    float x[FP8_BLOCK] = {0}, q[FP8_BLOCK];
    memcpy(x, edges, sizeof edges);
    fp8_tile_round(q, x, 1);
    for (int j = 0; j < FP8_BLOCK; j++) {
        float want = e4m3_to_f32(f32_to_e4m3(x[j]));
        assert_true(isnan(want) ? isnan(q[j]) : q[j] == want && !signbit(q[j]) == !signbit(want));
    }
    memset(x, 0, sizeof x);
    assert_true(fp8_tile_scale(x, FP8_BLOCK, false) == 1e-4f / 448.0f);
    assert_true(fp8_tile_scale(x, FP8_BLOCK, true) == 0x1p-22f); /* 2.2e-7 -> 2.4e-7 */
    x[77] = NAN;
    assert_true(isnan(fp8_tile_scale(x, FP8_BLOCK, false)));
}

/* --- products ---------------------------------------------------------------------------------------------------- */

/* Quantises x[r][k] in tiles of `high` x 128 (k) into values and scales of single numbers. The number [r][k] lies at
 * r * down + k * right. */
static void quantise(float *value, float *scale, const float *x, int64_t rows, int64_t ks, int64_t down, int64_t right,
                     int64_t high) {
    for (int64_t r0 = 0; r0 < rows; r0 += high) {
        for (int64_t k0 = 0; k0 < ks; k0 += FP8_BLOCK) {
            float amax = 0;
            for (int pass = 0; pass < 2; pass++) {
                for (int64_t r = r0; r < rows && r < r0 + high; r++) {
                    for (int64_t k = k0; k < ks && k < k0 + FP8_BLOCK; k++) {
                        float v = x[r * down + k * right], s = fmaxf(amax, 1e-4f) / 448.0f;
                        if (pass == 0) amax = fmaxf(amax, fabsf(v));
                        else value[r * ks + k] = e4m3_to_f32(f32_to_e4m3(v / s)), scale[r * ks + k] = s;
                    }
                }
            }
        }
    }
}

/* y[r][l] continues with sum_k a[r][k] b[l][k], as the header of train_ops.h says it. */
static void reference(float *y, const float *a, int64_t rows, int64_t a_down, int64_t a_right, int64_t a_high,
                      const float *b, int64_t columns, int64_t b_down, int64_t b_right, int64_t b_high, int64_t ks) {
    float *av = malloc(sizeof(float) * (size_t)(2 * rows * ks)), *as = av + rows * ks;
    float *bv = malloc(sizeof(float) * (size_t)(2 * columns * ks)), *bs = bv + columns * ks;
    quantise(av, as, a, rows, ks, a_down, a_right, a_high);
    quantise(bv, bs, b, columns, ks, b_down, b_right, b_high);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t l = 0; l < columns; l++) {
            volatile float total = y[r * columns + l]; /* every step is rounded */
            for (int64_t k0 = 0; k0 < ks; k0 += FP8_BLOCK) {
                volatile float sum = 0, scale = as[r * ks + k0] * bs[l * ks + k0], scaled;
                for (int64_t k = k0; k < ks && k < k0 + FP8_BLOCK; k++) sum = sum + av[r * ks + k] * bv[l * ks + k];
                scaled = scale * sum;
                total = total + scaled;
            }
            y[r * columns + l] = total;
        }
    }
    free(av);
    free(bv);
}

/* Sizes that are no multiples of 128, or of anything. */
enum { N = 141, OUT = 150, IN = 269, OUT2 = 33 };

typedef struct products {
    float *x, *dy, *dy2, *wide, *wide2;
    tensor w, w2;
    float y[N * OUT], dx[N * IN], dw[OUT * IN], bias[OUT];
} products;

static float bias(int o) {
    return (float)o / 128;
}

static products *products_make(void) {
    products *p = calloc(1, sizeof *p);
    p->x = numbers(N * IN, 1);
    p->dy = numbers(N * OUT, 2);
    p->dy2 = numbers(N * OUT2, 3);
    p->wide = numbers(OUT * IN, 4);
    p->wide2 = numbers(OUT2 * IN, 5);
    p->w = (tensor){.data = p->wide, .type = DT_F32, .ndim = 2, .dim = {OUT, IN}};
    p->w2 = (tensor){.data = p->wide2, .type = DT_F32, .ndim = 2, .dim = {OUT2, IN}};
    return p;
}

static void products_free(products *p) {
    free(p->x);
    free(p->dy);
    free(p->dy2);
    free(p->wide);
    free(p->wide2);
    free(p);
}

static void products_run(queue *q, products *p) {
    product forward = {.w = &p->w, .x = p->x, .ldx = IN, .y = p->y, .ldy = OUT, .n = N, .bias = p->bias};
    product_dx dx[2] = {{.w = &p->w, .dy = p->dy, .lddy = OUT, .dx = p->dx, .lddx = IN, .n = N},
                        {.w = &p->w2, .dy = p->dy2, .lddy = OUT2, .dx = p->dx, .lddx = IN, .n = N, .join = true}};
    product_dw dw = {.dw = p->dw, .out = OUT, .in = IN, .dy = p->dy, .lddy = OUT, .x = p->x, .ldx = IN, .n = N};
    for (int o = 0; o < OUT; o++) p->bias[o] = bias(o);
    memset(p->dw, 0, sizeof p->dw);
    op_linear(q, &forward, 1);
    op_linear_dx(q, dx, 2);
    op_linear_dw(q, &dw, 1);
}

static void test_products(void **state) {
    (void)state;
    products *p = products_make(), *want = calloc(1, sizeof *want);
    reference(want->y, p->x, N, IN, 1, 1, p->wide, OUT, IN, 1, FP8_BLOCK, IN);
    for (int i = 0; i < N * OUT; i++) want->y[i] += bias(i % OUT);
    reference(want->dx, p->dy, N, OUT, 1, 1, p->wide, IN, 1, IN, FP8_BLOCK, OUT);
    reference(want->dx, p->dy2, N, OUT2, 1, 1, p->wide2, IN, 1, IN, FP8_BLOCK, OUT2);
    reference(want->dw, p->dy, OUT, 1, OUT, 1, p->x, IN, 1, IN, 1, N);
    for (int l = 0; l < LEVELS; l++) {
        for (int threads = 1; threads <= 3; threads++) {
            queue *q = open_level(levels[l], threads, COMPUTE_FP8);
            if (!q) {
                printf("this machine has no %s\n", levels[l]);
                break;
            }
            assert_int_equal(queue_compute(q), COMPUTE_FP8);
            products_run(q, p);
            assert_memory_equal(p->y, want->y, sizeof p->y);
            assert_memory_equal(p->dx, want->dx, sizeof p->dx);
            assert_memory_equal(p->dw, want->dw, sizeof p->dw);
            queue_close(q);
        }
    }
    products_free(p);
    free(want);
}

/* 1 - 2 <x, y> / (|x|^2 + |y|^2), DeepGEMM's measure. */
static double difference(const float *x, const float *y, int64_t n) {
    double dot = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        dot += (double)x[i] * y[i];
        size += (double)x[i] * x[i] + (double)y[i] * y[i];
    }
    return 1 - 2 * dot / size;
}

/* Rounding to 4 bits is off by up to 2^-4 relative, about 0.026 in the mean square of both operands together: half its
 * square, 7e-4, is the difference; DeepGEMM accepts 1e-3. That it is not 0 shows that something was rounded. */
static void test_difference(void **state) {
    (void)state;
    products *p = products_make(), *f = products_make();
    queue *q = open_level(NULL, 2, COMPUTE_FP8), *plain = open_level(NULL, 2, COMPUTE_F32);
    products_run(q, p);
    products_run(plain, f);
    const double d[3] = {difference(p->y, f->y, N * OUT), difference(p->dx, f->dx, N * IN),
                         difference(p->dw, f->dw, OUT * IN)};
    for (int i = 0; i < 3; i++) {
        printf("difference %g\n", d[i]);
        assert_true(d[i] < 1e-3 && d[i] > 1e-5);
    }
    queue_close(q);
    queue_close(plain);
    products_free(p);
    products_free(f);
}

/* A sum of 4096 products of like signs: in every block one is 448^2 and the others 0.4375^2. Within a block the sum is
 * off by at most 128 u, u = 2^-24, the total of 32 blocks adds 32 u and the scales 2 u. A sum that is not promoted
 * every 128 numbers loses all small products once it is large: it misses that bound. */
static void test_promotion(void **state) {
    (void)state;
    enum { K = 4096 };
    float *x = malloc(K * sizeof *x), straight = 0, y;
    double exact = 0;
    for (int k = 0; k < K; k++) {
        x[k] = k % FP8_BLOCK == 0 ? 448 : 0.4375f; /* the scale is 1 */
        straight += x[k] * x[k];
        exact += (double)x[k] * x[k];
    }
    const double allowed = (128 + 32 + 2) * 0x1p-24 * exact;
    assert_true(fabs(straight - exact) > allowed);
    tensor w = {.data = x, .type = DT_F32, .ndim = 2, .dim = {1, K}}, turned = {.data = x, .ndim = 2, .dim = {K, 1}};
    for (int l = 0; l < LEVELS; l++) {
        queue *q = open_level(levels[l], 1, COMPUTE_FP8);
        if (!q) break;
        op_linear(q, &(product){.w = &w, .x = x, .ldx = K, .y = &y, .ldy = 1, .n = 1}, 1);
        assert_true(fabs(y - exact) <= allowed);
        op_linear_dx(q, &(product_dx){.w = &turned, .dy = x, .lddy = K, .dx = &y, .lddx = 1, .n = 1}, 1);
        assert_true(fabs(y - exact) <= allowed);
        y = 0;
        op_linear_dw(q, &(product_dw){.dw = &y, .out = 1, .in = 1, .dy = x, .lddy = 1, .x = x, .ldx = 1, .n = K}, 1);
        assert_true(fabs(y - exact) <= allowed);
        queue_close(q);
    }
    free(x);
}

/* A row alone is the same row among many; weights in BF16 are their values. */
static void test_rows_alike(void **state) {
    (void)state;
    products *p = products_make();
    queue *q = open_level(NULL, 2, COMPUTE_FP8);
    uint16_t *codes = malloc(sizeof *codes * OUT * IN);
    for (int i = 0; i < OUT * IN; i++) {
        codes[i] = f32_to_bf16(p->wide[i]);
        p->wide[i] = bf16_to_f32(codes[i]);
    }
    products_run(q, p);
    tensor w = {.data = codes, .type = DT_BF16, .ndim = 2, .dim = {OUT, IN}};
    float one[IN];
    for (int r = 0; r < N; r += 10) {
        op_linear(q, &(product){.w = &w, .x = p->x + r * IN, .y = one, .n = 1, .bias = p->bias}, 1);
        assert_memory_equal(one, p->y + r * OUT, sizeof(float) * OUT);
        const product_dx dx[2] = {{.w = &w, .dy = p->dy + r * OUT, .dx = one, .n = 1},
                                  {.w = &p->w2, .dy = p->dy2 + r * OUT2, .dx = one, .n = 1, .join = true}};
        op_linear_dx(q, dx, 2);
        assert_memory_equal(one, p->dx + r * IN, sizeof one);
    }
    free(codes);
    queue_close(q);
    products_free(p);
}

/* What asks for F32 and what is no product of training is what a queue for F32 computes; in one list with others. */
static void test_exempt(void **state) {
    (void)state;
    products *p = products_make();
    queue *q = open_level(NULL, 2, COMPUTE_FP8), *plain = open_level(NULL, 2, COMPUTE_F32);
    float *y = malloc(sizeof(float) * 4 * N * IN), *want = malloc(sizeof(float) * 4 * N * IN);
    memset(y, 0, sizeof(float) * 4 * N * IN);
    memset(want, 0, sizeof(float) * 4 * N * IN);
    for (int i = 0; i < 2; i++) {
        queue *by = i ? plain : q;
        float *to = i ? want : y, other[N * OUT];
        const product list[] = {
            {.w = &p->w, .x = p->x, .ldx = IN, .y = to, .ldy = OUT, .n = N, .f32 = true},
            {.w = &p->w, .x = p->x, .ldx = IN, .y = other, .ldy = OUT, .n = N},
            {.w = &p->w, .x = p->dy, .ldx = OUT, .y = to + N * IN, .ldy = IN, .n = N, .transposed = true}};
        op_linear(by, list, 3);
        const product_dx dx = {
            .w = &p->w, .dy = p->dy, .lddy = OUT, .dx = to + 2 * N * IN, .lddx = IN, .n = N, .f32 = true};
        op_linear_dx(by, &dx, 1);
        const product_dw dw = {.dw = to + 3 * N * IN,
                               .out = N, /* any numbers will do */
                               .in = IN,
                               .dy = p->dy,
                               .lddy = OUT,
                               .x = p->x,
                               .ldx = IN,
                               .n = 100,
                               .f32 = true};
        op_linear_dw(by, &dw, 1);
        const attention a = {.o = other,
                             .ldo = OUT,
                             .q = p->dy,
                             .ldq = OUT,
                             .n = 20,
                             .T = 20,
                             .k = p->dy,
                             .v = p->dy,
                             .kv_type = DT_F32,
                             .k_stride = OUT,
                             .v_stride = OUT,
                             .heads = 2,
                             .kv_heads = 2,
                             .d_qk = 64,
                             .d_v = 64,
                             .scale = 0.125f};
        op_attention(by, &a, 1);
        for (int r = 0; r < 20; r++) memcpy(to + N * OUT + r * 128, other + r * OUT, sizeof(float) * 128);
    }
    assert_memory_equal(y, want, sizeof(float) * 4 * N * IN);
    free(y);
    free(want);
    queue_close(q);
    queue_close(plain);
    products_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantisation), cmocka_unit_test(test_products),   cmocka_unit_test(test_difference),
        cmocka_unit_test(test_promotion),    cmocka_unit_test(test_rows_alike), cmocka_unit_test(test_exempt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
