#include "convert/fp8.h"

#include <math.h>
#include <string.h>

/* f32_to_e4m3 and e4m3_to_f32 of tensor/dtype.h in a few integer operations: a checkpoint has 10^12 of them. */
static uint8_t encode(float x) {
    uint32_t u = f32_bits(x), a = u & 0x7fffffffu, sign = u >> 24 & 0x80u;
    if (a > 0x7f800000u) return 0x7f;
    if (a >= f32_bits(448.0f)) return (uint8_t)(sign | 0x7e);
    if (a >= f32_bits(0x1p-6f)) { /* normal: keep 3 bits of mantissa, move the exponent's bias from 127 to 7 */
        a += 0x7ffffu + (a >> 20 & 1u);
        return (uint8_t)(sign | ((a >> 20) - (120u << 3)));
    }
    /* below: multiples of 2^-9, which is one unit in the last place of 2^14 */
    return (uint8_t)(sign | (f32_bits(f32_from_bits(a) + 0x1p14f) & 0xffu));
}

static float decode(uint8_t code) {
    uint32_t exponent = code >> 3 & 15u, mantissa = code & 7u;
    float unit = f32_from_bits(((exponent ? exponent : 1) + 117) << 23); /* 2^(exponent - 10) */
    float x = (float)(mantissa | (exponent ? 8u : 0u)) * unit;
    if ((code & 0x7f) == 0x7f) x = NAN;
    return code & 0x80 ? -x : x;
}

float fp8_scale(float amax, scale_format f) {
    float s = fmaxf(amax, 1e-4f) / 448.0f;
    if (f == SCALE_F32) return s;
    return f32_from_bits((f32_bits(s) + 0x7fffffu) &
                         0x7f800000u); /* any bit of the mantissa carries into the exponent */
}

void fp8_quantize_row(uint8_t *codes, float *scales, const float *x, int64_t n, scale_format f) {
    for (int64_t b = 0; b < n; b += FP8_BLOCK) {
        int64_t end = n - b < FP8_BLOCK ? n : b + FP8_BLOCK;
        float amax = 0;
        for (int64_t i = b; i < end; i++) amax = fmaxf(amax, fabsf(x[i]));
        float s = fp8_scale(amax, f);
        scales[b / FP8_BLOCK] = s;
        for (int64_t i = b; i < end; i++) codes[i] = encode(x[i] / s);
    }
}

void fp8_load(float *out, dtype type, const void *src, int64_t n) {
    const char *p = src;
    uint16_t h;
    if (type == DT_F32) memcpy(out, src, (size_t)n * 4);
    else if (type == DT_BF16)
        for (int64_t i = 0; i < n; i++) {
            memcpy(&h, p + 2 * i, 2);
            out[i] = bf16_to_f32(h);
        }
    else
        for (int64_t i = 0; i < n; i++) out[i] = dtype_load(type, src, i);
}

bool fp8_block_scale(float *scale, const tensor *w, int64_t i, int64_t j, scale_format f) {
    int64_t r = i * FP8_BLOCK, c = j * FP8_BLOCK, cols = w->dim[1];
    int64_t rows = w->dim[0] - r < FP8_BLOCK ? w->dim[0] - r : FP8_BLOCK;
    int64_t n = cols - c < FP8_BLOCK ? cols - c : FP8_BLOCK;
    uint32_t amax = 0; /* as bits: they order like the absolute values, with infinity and then NaN on top */
    for (int64_t k = 0; k < rows; k++) {
        float x[FP8_BLOCK];
        fp8_load(x, w->type, (const char *)w->data + (size_t)((r + k) * cols + c) * dtype_size(w->type), n);
        for (int64_t m = 0; m < n; m++) {
            uint32_t a = f32_bits(x[m]) & 0x7fffffffu;
            if (a > amax) amax = a;
        }
    }
    *scale = fp8_scale(f32_from_bits(amax), f);
    return amax < 0x7f800000u;
}

void fp8_quantize(uint8_t *codes, const float *x, int64_t column, int64_t n, const float *scales) {
    for (int64_t i = 0; i < n;) {
        int64_t block = (column + i) / FP8_BLOCK, end = (block + 1) * FP8_BLOCK - column;
        if (end > n) end = n;
        float inverse = 1.0f / scales[block];
        for (; i < end; i++) codes[i] = encode(x[i] * inverse);
    }
}

int64_t fp8_dequantize(float *out, const uint8_t *codes, int64_t column, int64_t n, const float *scales) {
    int64_t nan = 0;
    for (int64_t i = 0; i < n;) {
        int64_t block = (column + i) / FP8_BLOCK, end = (block + 1) * FP8_BLOCK - column;
        if (end > n) end = n;
        float s = scales[block];
        for (; i < end; i++) {
            out[i] = decode(codes[i]) * s;
            nan += (codes[i] & 0x7f) == 0x7f;
        }
    }
    return nan;
}
