/* Number types of weights, with the names that safetensors gives them, and conversions of single numbers. */
#ifndef HADAL_TENSOR_DTYPE_H
#define HADAL_TENSOR_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum dtype {
    DT_F32,
    DT_BF16,
    DT_F16,
    DT_E4M3, /* 1-4-3 bits, bias 7, no infinities, NaN = 0x7f and 0xff, largest 448 (OCP 8-bit floating point, E4M3) */
    DT_E5M2,
    DT_F64,
    DT_I64,
    DT_I32,
    DT_I16,
    DT_I8,
    DT_U8,
    DT_BOOL,
    DT_COUNT
} dtype;

size_t dtype_size(dtype t);       /* bytes of one element */
const char *dtype_name(dtype t);  /* "BF16", "F8_E4M3" ... */
int dtype_find(const char *name); /* the type with that name, or -1 */
float e4m3_to_f32(uint8_t code);
uint8_t
f32_to_e4m3(float x); /* nearest even, saturating at 448; NaN -> 0x7f (what PyTorch's cast does after clamping) */
float f16_to_f32(uint16_t code);

static inline uint32_t f32_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

static inline float f32_from_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}

static inline float bf16_to_f32(uint16_t code) {
    return f32_from_bits((uint32_t)code << 16);
}

static inline uint16_t f32_to_bf16(float x) { /* nearest even; NaN stays NaN */
    uint32_t u = f32_bits(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

/* Element i of a row of any floating-point type, without its block scale. */
float dtype_load(dtype t, const void *row, int64_t i);

#endif
