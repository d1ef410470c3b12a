#include "tensor/dtype.h"

#include <math.h>

static const struct {
    const char *name;
    size_t size;
} types[DT_COUNT] = {
    [DT_F32] = {"F32", 4},      [DT_BF16] = {"BF16", 2}, [DT_F16] = {"F16", 2}, [DT_E4M3] = {"F8_E4M3", 1},
    [DT_E5M2] = {"F8_E5M2", 1}, [DT_F64] = {"F64", 8},   [DT_I64] = {"I64", 8}, [DT_I32] = {"I32", 4},
    [DT_I16] = {"I16", 2},      [DT_I8] = {"I8", 1},     [DT_U8] = {"U8", 1},   [DT_BOOL] = {"BOOL", 1},
};

size_t dtype_size(dtype t) {
    return types[t].size;
}

const char *dtype_name(dtype t) {
    return types[t].name;
}

int dtype_find(const char *name) {
    for (int i = 0; i < DT_COUNT; i++)
        if (strcmp(types[i].name, name) == 0) return i;
    return -1;
}

float e4m3_to_f32(uint8_t code) {
    int exponent = (code >> 3) & 15, mantissa = code & 7;
    float v;
    if (exponent == 15 && mantissa == 7) v = NAN;
    else if (exponent == 0) v = (float)mantissa * 0x1p-9f;
    else v = ldexpf((float)(8 + mantissa), exponent - 10);
    return code & 0x80 ? -v : v;
}

uint8_t f32_to_e4m3(float x) {
    if (isnan(x)) return 0x7f;
    uint8_t sign = signbit(x) ? 0x80 : 0;
    float a = fabsf(x);
    if (a >= 448.0f) return sign | 0x7e;
    int exponent;
    frexpf(a, &exponent); /* a = m 2^exponent, m in [0.5, 1): the unit in the last place is 2^(exponent-4) */
    if (exponent < -5) exponent = -5;
    float quantum = ldexpf(1.0f, exponent - 4);
    int steps = (int)nearbyintf(a / quantum); /* exact division; ties to even */
    if (steps == 16) {
        steps = 8;
        exponent++;
    }
    return sign | (uint8_t)(steps < 8 ? steps : ((exponent + 6) << 3) | (steps - 8));
}

float f16_to_f32(uint16_t code) {
    int exponent = (code >> 10) & 31, mantissa = code & 1023;
    float v;
    if (exponent == 31) v = mantissa ? NAN : INFINITY;
    else if (exponent == 0) v = (float)mantissa * 0x1p-24f;
    else v = ldexpf((float)(1024 + mantissa), exponent - 25);
    return code & 0x8000 ? -v : v;
}

float dtype_load(dtype t, const void *row, int64_t i) {
    float f;
    double d;
    uint16_t h;
    const char *p = row;
    switch (t) {
    case DT_F32: memcpy(&f, p + 4 * i, 4); return f;
    case DT_F64: memcpy(&d, p + 8 * i, 8); return (float)d;
    case DT_BF16: memcpy(&h, p + 2 * i, 2); return bf16_to_f32(h);
    case DT_F16: memcpy(&h, p + 2 * i, 2); return f16_to_f32(h);
    case DT_E4M3: return e4m3_to_f32((uint8_t)p[i]);
    case DT_E5M2: return f16_to_f32((uint16_t)((uint8_t)p[i] << 8)); /* the upper half of an F16 */
    default: return NAN;
    }
}
