/* Few-row products of the levels that multiply in F32: the including file has defined INLINE, FEW_R and few_rows(call,
 * type, mode, row, t0, R, n), which meets R rows of w with n rows of x; here are the calls for all rows and types. */
#ifndef HADAL_KERNELS_CPU_FEW_LANES_H
#define HADAL_KERNELS_CPU_FEW_LANES_H

/* All rows of x, in parts of at most 4: what is read of w stays in the first cache meanwhile. */
INLINE void few_all(const few_call *c, dtype type, compute mode, int64_t row, int R) {
    int t = 0;
    for (; t + 4 <= c->n; t += 4) few_rows(c, type, mode, row, t, R, 4);
    if (t + 2 <= c->n) {
        few_rows(c, type, mode, row, t, R, 2);
        t += 2;
    }
    if (t < c->n) few_rows(c, type, mode, row, t, R, 1);
}

INLINE void few(const few_call *c, dtype type, compute mode) {
    int64_t row = 0;
    for (; row + FEW_R <= c->rows; row += FEW_R) few_all(c, type, mode, row, FEW_R);
    for (; row < c->rows; row++) few_all(c, type, mode, row, 1);
}

static void few_f32_f32(const few_call *c) {
    few(c, DT_F32, COMPUTE_F32);
}
static void few_f32_bf16(const few_call *c) {
    few(c, DT_BF16, COMPUTE_F32);
}
static void few_f32_f16(const few_call *c) {
    few(c, DT_F16, COMPUTE_F32);
}
static void few_f32_e4m3(const few_call *c) {
    few(c, DT_E4M3, COMPUTE_F32);
}
static void few_bf16_f32(const few_call *c) {
    few(c, DT_F32, COMPUTE_BF16);
}
static void few_bf16_bf16(const few_call *c) {
    few(c, DT_BF16, COMPUTE_BF16);
}
static void few_bf16_f16(const few_call *c) {
    few(c, DT_F16, COMPUTE_BF16);
}
static void few_bf16_e4m3(const few_call *c) {
    few(c, DT_E4M3, COMPUTE_BF16);
}

#endif
