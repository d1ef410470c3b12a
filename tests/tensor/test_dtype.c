/* Number types: names and sizes, and conversions against their definitions in double precision. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "tensor/dtype.h"
#include <cmocka.h>

static uint32_t bits(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

static float of_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}

static void names_and_sizes(void **state) {
    (void)state;
    static const struct {
        const char *name;
        dtype type;
        size_t size;
    } all[] = {{"F32", DT_F32, 4},      {"BF16", DT_BF16, 2}, {"F16", DT_F16, 2}, {"F8_E4M3", DT_E4M3, 1},
               {"F8_E5M2", DT_E5M2, 1}, {"F64", DT_F64, 8},   {"I64", DT_I64, 8}, {"I32", DT_I32, 4},
               {"I16", DT_I16, 2},      {"I8", DT_I8, 1},     {"U8", DT_U8, 1},   {"BOOL", DT_BOOL, 1}};
    assert_int_equal(sizeof all / sizeof *all, DT_COUNT);
    for (int i = 0; i < DT_COUNT; i++) {
        assert_int_equal(dtype_find(all[i].name), all[i].type);
        assert_string_equal(dtype_name(all[i].type), all[i].name);
        assert_int_equal(dtype_size(all[i].type), all[i].size);
    }
    assert_int_equal(dtype_find("f32"), -1);
    assert_int_equal(dtype_find("F3"), -1);
    assert_int_equal(dtype_find("F322"), -1);
    assert_int_equal(dtype_find(""), -1);
}

/* A number with `mantissa_bits` and a bias, as its definition says; e4m3 alone has no infinities. */
static double defined(uint32_t code, int exponent_bits, int mantissa_bits, int bias, bool e4m3) {
    int most = (1 << exponent_bits) - 1, exponent = (int)(code >> mantissa_bits) & most,
        mantissa = (int)code & ((1 << mantissa_bits) - 1);
    double sign = code >> (exponent_bits + mantissa_bits) & 1 ? -1 : 1, one = ldexp(1, mantissa_bits);
    if (e4m3 ? exponent == most && mantissa == (1 << mantissa_bits) - 1 : exponent == most && mantissa) return NAN;
    if (!e4m3 && exponent == most) return sign * INFINITY;
    if (!exponent) return sign * ldexp(mantissa / one, 1 - bias);
    return sign * ldexp(1 + mantissa / one, exponent - bias);
}

static void same(float got, double want, const char *what, unsigned code) {
    if (isnan(want) ? !isnan(got) : (double)got != want || !signbit(got) != !signbit(want))
        fail_msg("%s 0x%x is %.9g, wanted %.9g", what, code, (double)got, want);
}

static void all_codes(void **state) {
    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        uint8_t code = (uint8_t)c;
        same(e4m3_to_f32(code), defined(c, 4, 3, 7, true), "E4M3", c);
        same(dtype_load(DT_E4M3, &code, 0), defined(c, 4, 3, 7, true), "loaded E4M3", c);
        same(dtype_load(DT_E5M2, &code, 0), defined(c, 5, 2, 15, false), "E5M2", c);
    }
    for (unsigned c = 0; c < 65536; c++) {
        uint16_t code = (uint16_t)c;
        same(f16_to_f32(code), defined(c, 5, 10, 15, false), "F16", c);
        same(dtype_load(DT_F16, &code, 0), defined(c, 5, 10, 15, false), "loaded F16", c);
        same(bf16_to_f32(code), defined(c, 8, 7, 127, false), "BF16", c);
        same(dtype_load(DT_BF16, &code, 0), defined(c, 8, 7, 127, false), "loaded BF16", c);
    }
}

static void e4m3_round_trip(void **state) {
    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        float x = e4m3_to_f32((uint8_t)c);
        unsigned want = isnan(x) ? 0x7f : c; /* zero and minus zero are two codes */
        assert_int_equal(f32_to_e4m3(x), want);
    }
}

/* Between neighbours the nearer one wins, in the middle the even one; so do the numbers beside the middle. */
static void e4m3_rounding(void **state) {
    (void)state;
    for (unsigned c = 0; c < 0x7e; c++) {
        float low = e4m3_to_f32((uint8_t)c), high = e4m3_to_f32((uint8_t)(c + 1)), middle = (low + high) / 2;
        for (int negative = 0; negative < 2; negative++) {
            float sign = negative ? -1.0f : 1.0f;
            unsigned s = negative ? 0x80u : 0;
            assert_int_equal(f32_to_e4m3(sign * middle), s | (c & 1 ? c + 1 : c));
            assert_int_equal(f32_to_e4m3(sign * nextafterf(middle, 0)), s | c);
            assert_int_equal(f32_to_e4m3(sign * nextafterf(middle, 1000)), s | (c + 1));
            assert_int_equal(f32_to_e4m3(sign * nextafterf(high, 0)), s | (c + 1));
        }
    }
    static const float large[] = {448, 449, 463.9f, 464, 480, 1e30f, INFINITY};
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        assert_int_equal(f32_to_e4m3(large[i]), 0x7e);
        assert_int_equal(f32_to_e4m3(-large[i]), 0xfe);
    }
    assert_int_equal(f32_to_e4m3(of_bits(1)), 0); /* the smallest F32 */
    assert_int_equal(f32_to_e4m3(-of_bits(1)), 0x80);
    assert_int_equal(f32_to_e4m3(NAN), 0x7f);
    assert_int_equal(f32_to_e4m3(-NAN), 0x7f);
}

static void bf16_rounding(void **state) {
    (void)state;
    for (unsigned c = 0; c < 65536; c++) {
        float x = bf16_to_f32((uint16_t)c);
        uint16_t back = f32_to_bf16(x);
        if (isnan(x)) assert_true(isnan(bf16_to_f32(back)));
        else assert_int_equal(back, c);
    }
    /* Halves and their neighbours, from zero through subnormals to the largest number, which rounds to infinity. */
    for (uint32_t c = 0; c < 0x7f80; c++)
        for (uint32_t s = 0; s < 2; s++) {
            uint32_t u = s << 31 | c << 16, code = s << 15 | c;
            assert_int_equal(f32_to_bf16(of_bits(u | 0x7fff)), code);
            assert_int_equal(f32_to_bf16(of_bits(u | 0x8000)), code + (c & 1));
            assert_int_equal(f32_to_bf16(of_bits(u | 0x8001)), code + 1);
        }
    assert_int_equal(f32_to_bf16(INFINITY), 0x7f80);
    assert_int_equal(f32_to_bf16(-INFINITY), 0xff80);
    /* A NaN whose upper half alone would be an infinity, and one that rounding up would carry past the sign. */
    static const uint32_t nans[] = {0x7f800001, 0xff800001, 0x7fffffff, 0xffffffff, 0x7fc00000, 0x7f80ffff};
    for (size_t i = 0; i < sizeof nans / sizeof *nans; i++) {
        uint16_t code = f32_to_bf16(of_bits(nans[i]));
        if (!isnan(bf16_to_f32(code)) || code >> 15 != nans[i] >> 31) fail_msg("NaN %08x became %04x", nans[i], code);
    }
    for (uint64_t i = 0; i < 20000; i++) { /* any bits: the nearest, by the distance to its neighbours */
        uint32_t w[4];
        rng_words(3, 0, i, w);
        float x = of_bits(w[0]);
        if (!isfinite(x) || fabsf(x) > 3e38f) continue;
        uint16_t code = f32_to_bf16(x);
        double d = fabs((double)bf16_to_f32(code) - (double)x);
        assert_true(d <= fabs((double)bf16_to_f32((uint16_t)(code + 1)) - (double)x));
        assert_true((code & 0x7fff) == 0 || d <= fabs((double)bf16_to_f32((uint16_t)(code - 1)) - (double)x));
    }
}

static void loading_rows(void **state) {
    (void)state;
    float f[] = {1.5f, -0.0f, INFINITY};
    double d[] = {0.1, 1e-300, -2};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(bits(dtype_load(DT_F32, f, i)), bits(f[i]));
        assert_int_equal(bits(dtype_load(DT_F64, d, i)), bits((float)d[i]));
    }
    char odd[9]; /* rows in a file need not be aligned */
    memcpy(odd + 1, &d[2], 8);
    assert_true(dtype_load(DT_F64, odd + 1, 0) == -2);
    assert_true(isnan(dtype_load(DT_I32, f, 0))); /* no floating-point type */
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(names_and_sizes), cmocka_unit_test(all_codes),
                                       cmocka_unit_test(e4m3_round_trip), cmocka_unit_test(e4m3_rounding),
                                       cmocka_unit_test(bf16_rounding),   cmocka_unit_test(loading_rows)};
    return cmocka_run_group_tests_name("tensor/dtype", tests, NULL, NULL);
}
