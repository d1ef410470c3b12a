/* Products, portable: plain C that says what the other levels compute. */
#include "kernels/linear_micro.h"

static float round_bf16(float v) {
    return bf16_to_f32(f32_to_bf16(v));
}

/* --- few rows ---------------------------------------------------------------------------------------------------- */

static void few_x(uint16_t *to, const float *x, int64_t in) {
    int64_t padded = (in + FEW_PAD - 1) / FEW_PAD * FEW_PAD;
    for (int64_t i = 0; i < padded; i++) to[i] = i < in ? f32_to_bf16(x[i]) : 0;
}

/* Sum over columns [from, to) of w[row][i] x[t][i]. */
static float few_sum(const few_call *c, dtype type, compute mode, int64_t row, int t, int64_t from, int64_t to) {
    const char *w = (const char *)c->w + (size_t)(row * c->in) * dtype_size(type);
    float sum = 0;
    for (int64_t i = from; i < to; i++) {
        float v = dtype_load(type, w, i);
        if (mode == COMPUTE_F32) sum += v * ((const float *)c->x)[t * c->ldx + i];
        else sum += round_bf16(v) * bf16_to_f32(((const uint16_t *)c->x)[t * c->ldx + i]);
    }
    return sum;
}

static void few(const few_call *c, dtype type, compute mode) {
    for (int64_t r = 0; r < c->rows; r++) {
        for (int t = 0; t < c->n; t++) c->y[t * c->ldy + r] = few_sum(c, type, mode, r, t, 0, c->in);
    }
}

/* A block of 128 columns has one scale, so it multiplies the block's sum. */
static void few_scaled(const few_call *c, compute mode) {
    for (int64_t r = 0; r < c->rows; r++) {
        const float *scale = c->scale + (c->row + r) / FP8_BLOCK * c->scale_stride;
        for (int t = 0; t < c->n; t++) {
            float sum = 0;
            for (int64_t i = 0; i < c->in; i += FP8_BLOCK) {
                int64_t end = i + FP8_BLOCK < c->in ? i + FP8_BLOCK : c->in;
                sum += scale[i / FP8_BLOCK] * few_sum(c, DT_E4M3, mode, r, t, i, end);
            }
            c->y[t * c->ldy + r] = sum;
        }
    }
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
    few_scaled(c, COMPUTE_F32);
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
    few_scaled(c, COMPUTE_BF16);
}

/* --- transposed -------------------------------------------------------------------------------------------------- */

/* Element i of a row as a number: `scale` are the scales of the row's blocks, or NULL. */
static float value(dtype type, const void *row, const float *scale, int64_t i) {
    float v = dtype_load(type, row, i);
    return scale ? v * scale[i / FP8_BLOCK] : v;
}

static void transposed(const transposed_call *c, dtype type) {
    for (int64_t t = 0; t < c->n; t++) {
        float *y = c->y + t * c->ldy;
        for (int64_t i = 0; i < c->columns; i++) y[i] = 0;
        for (int64_t o = 0; o < c->out; o++) {
            const char *w = (const char *)c->w + (size_t)(o * c->in) * dtype_size(type);
            const float *scale = type == DT_E4M3 ? c->scale + (c->row + o) / FP8_BLOCK * c->scale_stride : NULL;
            for (int64_t i = 0; i < c->columns; i++) {
                float v = value(type, w, scale, c->first + i);
                y[i] += c->x[t * c->ldx + o] * (c->round ? round_bf16(v) : v);
            }
        }
    }
}

static void transposed_f32(const transposed_call *c) {
    transposed(c, DT_F32);
}
static void transposed_bf16(const transposed_call *c) {
    transposed(c, DT_BF16);
}
static void transposed_f16(const transposed_call *c) {
    transposed(c, DT_F16);
}
static void transposed_e4m3(const transposed_call *c) {
    transposed(c, DT_E4M3);
}

/* --- many rows --------------------------------------------------------------------------------------------------- */

static void group_f32(void *to, const float *x, int64_t ldx, int64_t n, int64_t in) {
    float *p = to;
    int64_t padded = (in + K_STEP - 1) / K_STEP * K_STEP;
    for (int64_t i = 0; i < padded; i++)
        for (int64_t t = 0; t < GROUP; t++) *p++ = t < n && i < in ? x[t * ldx + i] : 0;
}

static void group_bf16(void *to, const float *x, int64_t ldx, int64_t n, int64_t in) {
    uint16_t *p = to;
    int64_t padded = (in + K_STEP - 1) / K_STEP * K_STEP;
    for (int64_t i = 0; i < padded; i += 2)
        for (int64_t t = 0; t < GROUP; t++)
            for (int64_t j = i; j < i + 2; j++) *p++ = t < n && j < in ? f32_to_bf16(x[t * ldx + j]) : 0;
}

static void panel(const panel_call *c, dtype type, compute mode) {
    int64_t rows = (c->rows + GROUP - 1) / GROUP * GROUP, k = (c->k + K_STEP - 1) / K_STEP * K_STEP;
    for (int64_t r = 0; r < rows; r++) {
        const char *w = (const char *)c->w + (size_t)(r * c->in) * dtype_size(type);
        const float *scale =
            type == DT_E4M3 && r < c->rows ? c->scale + (c->row + r) / FP8_BLOCK * c->scale_stride : NULL;
        for (int64_t i = 0; i < k; i++) {
            float v = r < c->rows && i < c->k ? value(type, w, scale, c->first + i) : 0;
            if (mode == COMPUTE_F32) ((float *)c->panel)[r * c->ld + i] = v;
            else ((uint16_t *)c->panel)[r * c->ld + i] = f32_to_bf16(v);
        }
    }
}

static void panel_f32_f32(const panel_call *c) {
    panel(c, DT_F32, COMPUTE_F32);
}
static void panel_f32_bf16(const panel_call *c) {
    panel(c, DT_BF16, COMPUTE_F32);
}
static void panel_f32_f16(const panel_call *c) {
    panel(c, DT_F16, COMPUTE_F32);
}
static void panel_f32_e4m3(const panel_call *c) {
    panel(c, DT_E4M3, COMPUTE_F32);
}
static void panel_bf16_f32(const panel_call *c) {
    panel(c, DT_F32, COMPUTE_BF16);
}
static void panel_bf16_bf16(const panel_call *c) {
    panel(c, DT_BF16, COMPUTE_BF16);
}
static void panel_bf16_f16(const panel_call *c) {
    panel(c, DT_F16, COMPUTE_BF16);
}
static void panel_bf16_e4m3(const panel_call *c) {
    panel(c, DT_E4M3, COMPUTE_BF16);
}

static void block_f32(const block_call *c) {
    for (int64_t r = 0; r < c->rows; r++) {
        const float *w = (const float *)c->w + r * c->ldw;
        for (int64_t g = 0; g < c->groups; g++) {
            const float *x = (const float *)c->x + g * c->x_group;
            float sum[GROUP], *to = block_tile(c, r, g) + r % GROUP * block_row_step(c);
            for (int t = 0; t < GROUP; t++) sum[t] = c->first ? 0 : to[t];
            for (int64_t i = 0; i < c->k; i++)
                for (int t = 0; t < GROUP; t++) sum[t] += w[i] * x[i * GROUP + t];
            memcpy(to, sum, sizeof sum);
        }
    }
}

static void block_bf16(const block_call *c) {
    for (int64_t r = 0; r < c->rows; r++) {
        const uint16_t *w = (const uint16_t *)c->w + r * c->ldw;
        for (int64_t g = 0; g < c->groups; g++) {
            const uint16_t *x = (const uint16_t *)c->x + g * c->x_group;
            float sum[GROUP], *to = block_tile(c, r, g) + r % GROUP * block_row_step(c);
            for (int t = 0; t < GROUP; t++) sum[t] = c->first ? 0 : to[t];
            for (int64_t i = 0; i < c->k; i++)
                for (int t = 0; t < GROUP; t++)
                    sum[t] += bf16_to_f32(w[i]) * bf16_to_f32(x[(i / 2 * GROUP + t) * 2 + i % 2]);
            memcpy(to, sum, sizeof sum);
        }
    }
}

static void store(const store_call *c) {
    for (int64_t t = 0; t < c->n; t++) {
        for (int64_t r = 0; r < c->rows; r++) {
            const float *tile = c->c + (r / GROUP * c->groups + t / GROUP) * GROUP * GROUP;
            float v = tile[r % GROUP * GROUP + t % GROUP] + (c->bias ? c->bias[r] : 0);
            int64_t at = t * c->ldy + r;
            if (c->y_type == DT_F32) {
                float *y = (float *)c->y + at;
                *y = c->add ? *y + v : v;
            } else {
                uint16_t *y = (uint16_t *)c->y + at;
                *y = f32_to_bf16(c->add ? bf16_to_f32(*y) + v : v);
            }
        }
    }
}

/* --- products of training ---------------------------------------------------------------------------------------- */

static void lanes(const lanes_call *c, dtype type, compute mode) {
    int64_t padded = (c->k + K_STEP - 1) / K_STEP * K_STEP;
    for (int64_t g = 0; g * GROUP < c->columns; g++) {
        for (int64_t i = 0; i < padded; i++) {
            for (int64_t t = 0; t < GROUP; t++) {
                bool there = i < c->k && g * GROUP + t < c->columns;
                float v = there ? dtype_load(type, c->b, i * c->ld + g * GROUP + t) : 0;
                if (mode == COMPUTE_F32) ((float *)c->to)[g * c->group + i * GROUP + t] = v;
                else ((uint16_t *)c->to)[g * c->group + (i / 2 * GROUP + t) * 2 + i % 2] = f32_to_bf16(v);
            }
        }
    }
}

static void lanes_f32_f32(const lanes_call *c) {
    lanes(c, DT_F32, COMPUTE_F32);
}
static void lanes_f32_bf16(const lanes_call *c) {
    lanes(c, DT_BF16, COMPUTE_F32);
}
static void lanes_bf16_f32(const lanes_call *c) {
    lanes(c, DT_F32, COMPUTE_BF16);
}
static void lanes_bf16_bf16(const lanes_call *c) {
    lanes(c, DT_BF16, COMPUTE_BF16);
}

static void turn(const turn_call *c, compute mode) {
    int64_t rows = (c->rows + GROUP - 1) / GROUP * GROUP, k = (c->k + K_STEP - 1) / K_STEP * K_STEP;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 0; i < k; i++) {
            float v = r < c->rows && i < c->k ? c->a[i * c->lda + r] : 0;
            if (mode == COMPUTE_F32) ((float *)c->panel)[r * c->ld + i] = v;
            else ((uint16_t *)c->panel)[r * c->ld + i] = f32_to_bf16(v);
        }
    }
}

static void turn_f32(const turn_call *c) {
    turn(c, COMPUTE_F32);
}
static void turn_bf16(const turn_call *c) {
    turn(c, COMPUTE_BF16);
}

static void place(const place_call *c) {
    for (int64_t r = 0; r < c->rows; r++) {
        for (int64_t l = 0; l < c->columns; l++) {
            float v = c->c[(r / GROUP * c->groups + l / GROUP) * GROUP * GROUP + r % GROUP * GROUP + l % GROUP];
            float *y = c->y + r * c->ldy + l;
            *y = c->add ? *y + v : v;
        }
    }
}

/* --- what the machine can do ------------------------------------------------------------------------------------- */

static float read_all(const void *p, int64_t bytes) {
    const uint64_t *w = p;
    uint64_t sum[8] = {0};
    for (int64_t i = 0; i < bytes / 8; i += 8)
        for (int j = 0; j < 8; j++) sum[j] += w[i + j];
    return (float)(sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7]);
}

static double peak(int64_t rounds, float *keep) {
    enum { SUMS = 32 };
    float sum[SUMS], a = *keep;
    for (int i = 0; i < SUMS; i++) sum[i] = (float)i;
    for (int64_t r = 0; r < rounds; r++)
        for (int i = 0; i < SUMS; i++) sum[i] = sum[i] * a + a;
    for (int i = 0; i < SUMS; i++) *keep += sum[i];
    return (double)rounds * SUMS * 2;
}

void ref_linear(linear_micro *m) {
    *m = (linear_micro){
        .few_x = {few_x, few_x, few_x, few_x},
        .few = {{few_f32_f32, few_f32_bf16, few_f32_f16, few_f32_e4m3},
                {few_bf16_f32, few_bf16_bf16, few_bf16_f16, few_bf16_e4m3}},
        .transposed = {transposed_f32, transposed_bf16, transposed_f16, transposed_e4m3},
        .group_x = {group_f32, group_bf16},
        .panel = {{panel_f32_f32, panel_f32_bf16, panel_f32_f16, panel_f32_e4m3},
                  {panel_bf16_f32, panel_bf16_bf16, panel_bf16_f16, panel_bf16_e4m3}},
        .block = {block_f32, block_bf16},
        .store = store,
        .lanes = {{lanes_f32_f32, lanes_f32_bf16}, {lanes_bf16_f32, lanes_bf16_bf16}},
        .turn = {turn_f32, turn_bf16},
        .place = place,
        .read = read_all,
        .peak = {peak, peak},
    };
}
