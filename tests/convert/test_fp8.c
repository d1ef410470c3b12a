/* FP8 quantisers against tensor/dtype.h, against their formulas at the edges, and against the reference data. */
#include "../format/scratch.h"
#include <math.h>
#include "base/rng.h"
#include "convert/fp8.h"
#include "format/weights_file.h"

static uint32_t bits(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

static float from_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}

/* With scale 1 the codes are those of tensor/dtype.c, for a walk over all of F32 that meets every exponent. */
static void codes_equal_dtype(void **state) {
    (void)state;
    const float one = 1;
    size_t n = 0;
    for (uint64_t u = 0; u < 0x100000000u; u += 997, n++) {
        float x = from_bits((uint32_t)u);
        uint8_t code;
        fp8_quantize(&code, &x, 0, 1, &one);
        if (code != f32_to_e4m3(x)) fail_msg("%a: code %02x, wanted %02x", (double)x, code, f32_to_e4m3(x));
    }
    for (int low = -2; low <= 2; low++) /* around every value that a code has and every middle between two */
        for (int c = 0; c < 0x7e; c++)
            for (int sign = 0; sign < 2; sign++) {
                float a = e4m3_to_f32((uint8_t)c), b = e4m3_to_f32((uint8_t)(c + 1));
                float all[] = {a, (a + b) / 2};
                for (int k = 0; k < 2; k++) {
                    float x = from_bits(bits(all[k]) + (uint32_t)(all[k] == 0 && low < 0 ? 0 : low));
                    if (sign) x = -x;
                    uint8_t code;
                    fp8_quantize(&code, &x, 0, 1, &one);
                    assert_int_equal(code, f32_to_e4m3(x));
                    n++;
                }
            }
    for (int c = 0; c < 256; c++) {
        uint8_t code = (uint8_t)c;
        float x;
        int64_t nan = fp8_dequantize(&x, &code, 0, 1, &one);
        if ((c & 0x7f) == 0x7f) assert_true(isnan(x) && nan == 1);
        else assert_true(nan == 0 && bits(x) == bits(e4m3_to_f32(code)));
    }
    printf("  %zu numbers\n", n);
}

static void scales(void **state) {
    (void)state;
    assert_true(fp8_scale(0, SCALE_F32) == 1e-4f / 448.0f);
    assert_true(fp8_scale(448, SCALE_F32) == 1);
    assert_true(fp8_scale(448, SCALE_UE8M0) == 1); /* a power of two stays */
    assert_true(fp8_scale(nextafterf(448, 1000), SCALE_UE8M0) == 2 || fp8_scale(450, SCALE_UE8M0) == 2);
    assert_true(fp8_scale(1e30f, SCALE_UE8M0) >= 1e30f / 448);
    for (int i = 0; i < 1000; i++) {
        float amax = (float)ldexp(1 + rng_uniform(1, 2, (uint64_t)i), i % 60 - 13);
        float s = fp8_scale(amax, SCALE_UE8M0), plain = fp8_scale(amax, SCALE_F32);
        assert_true(s >= plain && s < 2 * plain && (bits(s) & 0x7fffff) == 0);
    }
}

/* A ragged matrix in every type: piecewise calls equal whole rows, values come back within half a step. */
static void ragged_matrix(void **state) {
    (void)state;
    enum { R = 131, C = 259 };
    static float x[R * C];
    static uint8_t raw[R * C * 4 + 1];
    for (int i = 0; i < R * C; i++) x[i] = bf16_to_f32(f32_to_bf16((float)rng_normal(3, 0, (uint64_t)i)));
    for (int t = 0; t < 2; t++) {
        for (int i = 0; i < R * C; i++) { /* unaligned on purpose */
            uint16_t h = f32_to_bf16(x[i]);
            if (t) memcpy(raw + 1 + 2 * i, &h, 2);
            else memcpy(raw + 1 + 4 * i, &x[i], 4);
        }
        tensor w = {.data = raw + 1, .type = t ? DT_BF16 : DT_F32, .ndim = 2, .dim = {R, C}};
        for (int r = 0; r < R; r++) {
            float s[3], back[C];
            uint8_t codes[C], pieces[C];
            for (int j = 0; j < 3; j++) assert_true(fp8_block_scale(&s[j], &w, r / FP8_BLOCK, j, SCALE_F32));
            fp8_quantize(codes, x + r * C, 0, C, s);
            for (int c = 0; c < C; c += 50) fp8_quantize(pieces + c, x + r * C + c, c, C - c < 50 ? C - c : 50, s);
            assert_memory_equal(codes, pieces, C);
            assert_int_equal(fp8_dequantize(back, codes, 0, C, s), 0);
            for (int c = 0; c < C; c++) {
                float v = x[r * C + c], unit = fmaxf(fabsf(v) / 8, s[c / FP8_BLOCK] * 0x1p-9f);
                assert_true(fabsf(back[c] - v) <= unit / 2 * 1.0001f);
            }
        }
    }
    float s, bad[] = {1, NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 4; i++) {
        tensor w = {.data = &bad[i], .type = DT_F32, .ndim = 2, .dim = {1, 1}};
        assert_int_equal(fp8_block_scale(&s, &w, 0, 0, SCALE_F32), i == 0);
    }
}

static weights_file *reference(void) {
    const char *shared = shared_folder();
    if (!shared) return NULL;
    char path[600];
    snprintf(path, sizeof path, "%s/golden/components/golden.safetensors", shared);
    weights_file *w;
    error e = {0};
    if (weights_open(&w, path, &e) != OK) fail_msg("%s", e.text);
    return w;
}

static const tensor *get(const weights_file *w, const char *fmt, const char *kind) {
    char name[80];
    snprintf(name, sizeof name, fmt, kind);
    const weights_entry *x = weights_find(w, name);
    if (!x) fail_msg("no %s", name);
    return &x->t;
}

static const char *const kinds[] = {[SCALE_F32] = "plain", [SCALE_UE8M0] = "ue8m0"};

static void reference_codes(void **state) {
    (void)state;
    weights_file *w = reference();
    if (!w) skip();
    const tensor *in = get(w, "e4m3.in_f32", ""), *want = get(w, "e4m3.saturated_codes", "");
    const float one = 1;
    for (int64_t i = 0; i < in->dim[0]; i++) {
        uint8_t code;
        fp8_quantize(&code, (const float *)in->data + i, 0, 1, &one);
        if (code != ((const uint8_t *)want->data)[i]) fail_msg("number %d: %02x", (int)i, code);
    }
    const float *value = get(w, "e4m3.values_f32", "")->data;
    for (int c = 0; c < 256; c++) {
        uint8_t code = ((const uint8_t *)get(w, "e4m3.all_codes", "")->data)[c];
        float x;
        fp8_dequantize(&x, &code, 0, 1, &one);
        assert_true(isnan(value[c]) ? isnan(x) : bits(x) == bits(value[c]));
    }
    printf("  %d codes, 256 values: equal\n", (int)in->dim[0]);
    weights_close(w);
}

static void reference_rows(void **state) {
    (void)state;
    weights_file *w = reference();
    if (!w) skip();
    for (scale_format f = SCALE_F32; f <= SCALE_UE8M0; f++) {
        const tensor *in = get(w, "act.in_bf16", ""), *codes = get(w, "act.%s.codes", kinds[f]);
        const tensor *scale = get(w, "act.%s.scale", kinds[f]);
        int64_t n = in->dim[1], blocks = fp8_blocks(n);
        for (int64_t r = 0; r < in->dim[0]; r++) {
            float x[1024], s[8];
            uint8_t got[1024];
            fp8_load(x, DT_BF16, (const char *)in->data + r * n * 2, n);
            fp8_quantize_row(got, s, x, n, f);
            assert_memory_equal(s, (const float *)scale->data + r * blocks, (size_t)blocks * 4);
            assert_memory_equal(got, (const uint8_t *)codes->data + r * n, (size_t)n);
        }
        printf("  %s: %d rows equal\n", kinds[f], (int)in->dim[0]);
    }
    weights_close(w);
}

static void reference_blocks(void **state) {
    (void)state;
    weights_file *w = reference();
    if (!w) skip();
    for (scale_format f = SCALE_F32; f <= SCALE_UE8M0; f++) {
        const tensor *in = get(w, "weight.in_bf16", ""), *codes = get(w, "weight.%s.codes", kinds[f]);
        const float *scale = get(w, "weight.%s.scale_inv", kinds[f])->data;
        const uint16_t *back = get(w, "weight.%s.dequant_bf16", kinds[f])->data;
        int64_t n = in->dim[1], blocks = fp8_blocks(n);
        for (int64_t r = 0; r < in->dim[0]; r++) {
            float x[1024], s[8];
            uint8_t got[1024];
            for (int64_t j = 0; j < blocks; j++) assert_true(fp8_block_scale(&s[j], in, r / FP8_BLOCK, j, f));
            assert_memory_equal(s, scale + r / FP8_BLOCK * blocks, (size_t)blocks * 4);
            fp8_load(x, DT_BF16, (const char *)in->data + r * n * 2, n);
            fp8_quantize(got, x, 0, n, s);
            assert_memory_equal(got, (const uint8_t *)codes->data + r * n, (size_t)n);
            fp8_dequantize(x, got, 0, n, s);
            for (int64_t c = 0; c < n; c++) assert_int_equal(f32_to_bf16(x[c]), back[r * n + c]);
        }
        printf("  %s: %dx%d equal\n", kinds[f], (int)in->dim[0], (int)n);
    }
    weights_close(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_equal_dtype), cmocka_unit_test(scales),         cmocka_unit_test(ragged_matrix),
        cmocka_unit_test(reference_codes),   cmocka_unit_test(reference_rows), cmocka_unit_test(reference_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
