/* Products of E4M3 numbers as DeepSeek-V3 was trained with them (DeepSeek-V3 report, 3.3; DeepGEMM's
 * per_token_cast_to_fp8 and per_block_cast_to_fp8), computed with F32 arithmetic: the machine need not know the type.
 *
 *   scale = max(amax, 1e-4) / 448 of a tile,  q = e4m3(x / scale),
 *   C[r][l] = sum over blocks of 128 k, ascending:  (scale_A[r][block] scale_B[block][l]) (sum_k qA[r][k] qB[k][l])
 *
 * A product of two E4M3 numbers has at most 8 significant bits and is exact in F32, so it makes no difference whether
 * multiplying and adding are fused, and every level's F32 kernel gives the same sum of a block, whose terms it adds in
 * ascending order to zero. The two scales are multiplied first, then the sum by them, then that is added to the total;
 * each step is rounded to F32.
 *
 * A first loop makes the operands: the values of the codes and the scales, in units of 128 x 128 numbers. The second
 * one multiplies tiles. */
#include "kernels/fp8_product.h"

#include "kernels/linear_micro.h"

enum { UNIT = FP8_BLOCK, ROW_TILE = 64, COLUMN_TILE = 256 };

/* A matrix [count][k] of an operand: values as rows [count][k], or as lanes [group][k][16], k rounded up to UNIT. */
typedef struct operand {
    const void *data;
    dtype type;
    int64_t ld, count, k;
    bool lanes, k_down, blocks; /* k_down: number k of row r is data[k * ld + r]; blocks: a scale for 128 x 128 */
    float *values, *scales;     /* scales: [block of k][count rounded up to UNIT] */
    int64_t first_task;
} operand;

typedef struct segment {
    int rows, lanes; /* operands */
} segment;

typedef struct piece { /* one C */
    int segment, segments;
    int64_t rows, columns;
    const float *bias;
    void *y;
    int64_t ldy;
    dtype y_type;
    bool add;
    int64_t row_tiles, first_task;
} piece;

typedef struct plan {
    queue *q;
    int pieces, segments, operands;
    piece *piece;
    segment *segment;
    operand *operand;
    float *thread; /* for each thread: a unit of numbers, or sums and totals of a tile */
} plan;

enum { THREAD_FLOATS = 2 * ROW_TILE * COLUMN_TILE > UNIT *UNIT ? 2 * ROW_TILE *COLUMN_TILE : UNIT *UNIT };

/* --- rounding ---------------------------------------------------------------------------------------------------- */

/* Absolute values order like their bits, with infinity and then NaN on top: a tile with a NaN is NaN altogether. */
float fp8_tile_scale(const float *x, int64_t n, bool powers) {
    int32_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t a = (int32_t)(f32_bits(x[i]) & 0x7fffffffu);
        most = a > most ? a : most;
    }
    float amax = f32_from_bits((uint32_t)most);
    const float s = (amax < 1e-4f ? 1e-4f : amax) / 448.0f;
    return powers ? f32_from_bits((f32_bits(s) + 0x7fffffu) & 0x7f800000u)
                  : s; /* any bit of the mantissa: the next power */
}

/* Three bits of mantissa down to 2^-6, multiples of 2^-9 below, which is one unit in the last place of 2^14. */
static float round_e4m3(float x) {
    const int32_t least_normal = 0x3c800000, most = 0x43e00000, infinity = 0x7f800000; /* 2^-6, 448 */
    int32_t u = (int32_t)f32_bits(x), a = u & 0x7fffffff;
    int32_t normal = (int32_t)(((uint32_t)a + 0x7ffffu + (uint32_t)(a >> 20 & 1)) & 0xfff00000u);
    float shifted = f32_from_bits((uint32_t)a) + 0x1p14f;
    int32_t small = (int32_t)f32_bits(shifted - 0x1p14f);
    int32_t is_small = -(a < least_normal), r = (small & is_small) | (normal & ~is_small);
    r = a > most ? most : r;
    r = a > infinity ? a : r;
    return f32_from_bits((uint32_t)(r | (u & INT32_MIN)));
}

void fp8_tile_round(float *restrict to, const float *restrict x, float scale) {
    for (int64_t i = 0; i < FP8_BLOCK; i++) to[i] = round_e4m3(x[i] / scale);
}

/* --- operands ---------------------------------------------------------------------------------------------------- */

static int64_t k_units(const operand *o) {
    return (o->k + UNIT - 1) / UNIT;
}

static float *scales_of(const operand *o, int64_t k_unit) {
    return o->scales + k_unit * round_up(o->count, UNIT);
}

static float number(const operand *o, int64_t at) {
    return o->type == DT_F32 ? ((const float *)o->data)[at] : bf16_to_f32(((const uint16_t *)o->data)[at]);
}

/* The numbers of a unit as x[row][k], zeros where there are none. */
static void load_unit(const operand *o, int64_t r0, int64_t k0, float *x) {
    int64_t rows = least(UNIT, o->count - r0), columns = least(UNIT, o->k - k0);
    int64_t first = o->k_down ? k0 * o->ld + r0 : r0 * o->ld + k0, down = o->k_down ? 1 : o->ld;
    int64_t right = o->k_down ? o->ld : 1;
    if (rows < UNIT || columns < UNIT) memset(x, 0, sizeof(float) * UNIT * UNIT);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < columns; k++) x[r * UNIT + k] = number(o, first + r * down + k * right);
}

static void operand_task(void *arg, int64_t task, int thread) {
    const plan *p = arg;
    int i = 0;
    while (i + 1 < p->operands && p->operand[i + 1].first_task <= task) i++;
    const operand *o = &p->operand[i];
    int64_t unit = task - o->first_task, r0 = unit / k_units(o) * UNIT, k0 = unit % k_units(o) * UNIT;
    int64_t k_padded = k_units(o) * UNIT;
    float *x = p->thread + (size_t)thread * THREAD_FLOATS, *scales = scales_of(o, k0 / UNIT) + r0;
    load_unit(o, r0, k0, x);
    if (o->blocks) scales[0] = fp8_tile_scale(x, UNIT * UNIT, p->q->fp8_powers);
    for (int64_t r = 0; r < UNIT; r++) {
        scales[r] = o->blocks ? scales[0] : fp8_tile_scale(x + r * UNIT, UNIT, p->q->fp8_powers);
        if (r >= round_up(o->count - r0, GROUP)) break;
        if (o->lanes) {
            float row[UNIT], *to = o->values + (((r0 + r) / GROUP * k_padded) + k0) * GROUP + r % GROUP;
            fp8_tile_round(row, x + r * UNIT, scales[r]);
            for (int64_t k = 0; k < UNIT; k++) to[k * GROUP] = row[k];
        } else {
            fp8_tile_round(o->values + (r0 + r) * k_padded + k0, x + r * UNIT, scales[r]);
        }
    }
}

static int find_operand(plan *p, const operand *want) {
    for (int i = 0; i < p->operands; i++) {
        const operand *o = &p->operand[i];
        if (o->data == want->data && o->type == want->type && o->ld == want->ld && o->count == want->count &&
            o->k == want->k && o->lanes == want->lanes && o->k_down == want->k_down && o->blocks == want->blocks)
            return i;
    }
    p->operand[p->operands] = *want;
    return p->operands++;
}

/* Makes all operands; false when there is no memory for them. */
static bool prepare_operands(plan *p) {
    int64_t tasks = 0, floats = 0;
    for (int pass = 0; pass < 2; pass++) {
        float *to = pass ? queue_scratch(p->q, SLOT_FP8_VALUES, (size_t)floats * sizeof(float)) : NULL;
        if (pass && !to) return false;
        floats = tasks = 0;
        for (int i = 0; i < p->operands; i++) {
            operand *o = &p->operand[i];
            int64_t values = round_up(o->count, GROUP) * k_units(o) * UNIT;
            o->first_task = tasks;
            if (pass) o->values = to + floats;
            if (pass) o->scales = to + floats + values;
            floats += values + k_units(o) * round_up(o->count, UNIT);
            tasks += k_units(o) * ((o->count + UNIT - 1) / UNIT);
        }
    }
    pool_run(p->q->pool, tasks, operand_task, p);
    return true;
}

/* --- tiles ------------------------------------------------------------------------------------------------------- */

/* total += (a b) sum for a row of a tile. */
static void promote_row(float *restrict total, const float *restrict sum, float a, const float *restrict b) {
    for (int64_t l = 0; l < GROUP; l++) {
        float scale = a * b[l];
        float scaled = scale * sum[l];
        total[l] += scaled;
    }
}

static void promote(float *total, const float *sum, const float *a, const float *b, int64_t rows, int64_t groups) {
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t g = 0; g < groups; g++) {
            int64_t at = ((r / GROUP * groups + g) * GROUP + r % GROUP) * GROUP;
            promote_row(total + at, sum + at, a[r], b + g * GROUP);
        }
    }
}

static void store(const piece *pc, const float *total, int64_t row, int64_t column, int64_t rows, int64_t columns) {
    int64_t groups = (columns + GROUP - 1) / GROUP;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t l = 0; l < columns; l++) {
            float v = total[((r / GROUP * groups + l / GROUP) * GROUP + r % GROUP) * GROUP + l % GROUP];
            if (pc->bias) v += pc->bias[column + l];
            int64_t at = (row + r) * pc->ldy + column + l;
            if (pc->y_type == DT_F32) {
                float *y = (float *)pc->y + at;
                *y = pc->add ? *y + v : v;
            } else {
                uint16_t *y = (uint16_t *)pc->y + at;
                *y = f32_to_bf16(pc->add ? bf16_to_f32(*y) + v : v);
            }
        }
    }
}

static void tile_task(void *arg, int64_t task, int thread) {
    const plan *p = arg;
    int i = 0;
    while (i + 1 < p->pieces && p->piece[i + 1].first_task <= task) i++;
    const piece *pc = &p->piece[i];
    int64_t tile = task - pc->first_task, row = tile % pc->row_tiles * ROW_TILE;
    int64_t column = tile / pc->row_tiles * COLUMN_TILE;
    int64_t rows = least(ROW_TILE, pc->rows - row), columns = least(COLUMN_TILE, pc->columns - column);
    int64_t groups = (columns + GROUP - 1) / GROUP;
    float *total = p->thread + (size_t)thread * THREAD_FLOATS, *sum = total + ROW_TILE * COLUMN_TILE;
    memset(total, 0, sizeof(float) * ROW_TILE * COLUMN_TILE);
    for (const segment *s = &p->segment[pc->segment]; s < &p->segment[pc->segment + pc->segments]; s++) {
        const operand *a = &p->operand[s->rows], *b = &p->operand[s->lanes];
        int64_t ld = k_units(a) * UNIT;
        for (int64_t k0 = 0; k0 < a->k; k0 += UNIT) {
            block_call c = {.w = a->values + row * ld + k0,
                            .ldw = ld,
                            .rows = round_up(rows, GROUP),
                            .k = round_up(least(UNIT, a->k - k0), K_STEP),
                            .x = b->values + (column / GROUP * ld + k0) * GROUP,
                            .x_group = ld * GROUP,
                            .groups = groups,
                            .c = sum,
                            .first = true};
            p->q->linear->block[COMPUTE_F32](&c);
            promote(total, sum, scales_of(a, k0 / UNIT) + row, scales_of(b, k0 / UNIT) + column, rows, groups);
        }
    }
    store(pc, total, row, column, rows, columns);
}

/* --- plan -------------------------------------------------------------------------------------------------------- */

static bool open_plan(plan *p, int count) {
    size_t n = count > 0 ? (size_t)count : 0;
    char *at = queue_scratch(p->q, SLOT_FP8_PLAN, n * (sizeof(piece) + 2 * sizeof(operand) + sizeof(segment)));
    if (!at) return false;
    p->piece = (piece *)at;
    p->operand = (operand *)(at + n * sizeof(piece));
    p->segment = (segment *)(at + n * (sizeof(piece) + 2 * sizeof(operand)));
    return true;
}

static void add_piece(plan *p, const piece *pc) {
    p->piece[p->pieces] = *pc;
    p->piece[p->pieces++].segment = p->segments;
}

static void add_segment(plan *p, const operand *rows, const operand *lanes) {
    int r = find_operand(p, rows), l = find_operand(p, lanes);
    p->segment[p->segments++] = (segment){r, l};
    p->piece[p->pieces - 1].segments++;
}

static void run(plan *p) {
    if (p->pieces == 0) return;
    p->thread = queue_scratch(p->q, SLOT_FP8_THREAD, sizeof(float) * THREAD_FLOATS * (size_t)p->q->threads);
    if (!p->thread || !prepare_operands(p)) return;
    int64_t tasks = 0;
    for (int i = 0; i < p->pieces; i++) {
        piece *pc = &p->piece[i];
        pc->first_task = tasks;
        pc->row_tiles = (pc->rows + ROW_TILE - 1) / ROW_TILE;
        tasks += pc->row_tiles * ((pc->columns + COLUMN_TILE - 1) / COLUMN_TILE);
    }
    pool_run(p->q->pool, tasks, tile_task, p);
}

/* Rows of activations with tiles of 1 x 128; blocks of a weight, as [out][in] or the other way. */
static operand row_tiles(const float *x, int64_t ld, int64_t n, int64_t k) {
    return (operand){.data = x, .type = DT_F32, .ld = ld, .count = n, .k = k};
}

static operand weight_blocks(const tensor *w, bool k_down) {
    return (operand){.data = w->data,
                     .type = w->type,
                     .ld = w->dim[1],
                     .count = w->dim[k_down],
                     .k = w->dim[!k_down],
                     .lanes = true,
                     .k_down = k_down,
                     .blocks = true};
}

bool fp8_takes(const queue *q, const product *p) {
    return q->fp8 && !p->f32 && !p->transposed && (p->w->type == DT_F32 || p->w->type == DT_BF16);
}

void fp8_linear(queue *q, const product *list, int count) {
    plan p = {.q = q};
    if (!open_plan(&p, count)) return;
    for (int i = 0; i < count; i++) {
        const product *d = &list[i];
        if (!fp8_takes(q, d) || d->n <= 0) continue;
        add_piece(&p, &(piece){.rows = d->n,
                               .columns = d->w->dim[0],
                               .bias = d->bias,
                               .y = d->y,
                               .ldy = d->ldy,
                               .y_type = d->y_type,
                               .add = d->add});
        operand x = row_tiles(d->x, d->ldx, d->n, d->w->dim[1]), w = weight_blocks(d->w, false);
        add_segment(&p, &x, &w);
    }
    run(&p);
}

void fp8_linear_dx(queue *q, const product_dx *list, int count) {
    plan p = {.q = q};
    if (!open_plan(&p, count)) return;
    bool skip = false; /* what the first entry of a joined sum says holds for all */
    for (int i = 0; i < count; i++) {
        const product_dx *d = &list[i];
        if (!d->join) skip = d->f32 || d->n <= 0;
        if (skip) continue;
        piece pc = {.rows = d->n, .columns = d->w->dim[1], .y = d->dx, .ldy = d->lddx, .add = d->add};
        if (!d->join) add_piece(&p, &pc);
        operand dy = row_tiles(d->dy, d->lddy, d->n, d->w->dim[0]), w = weight_blocks(d->w, true);
        add_segment(&p, &dy, &w);
    }
    run(&p);
}

void fp8_linear_dw(queue *q, const product_dw *list, int count) {
    plan p = {.q = q};
    if (!open_plan(&p, count)) return;
    for (int i = 0; i < count; i++) {
        const product_dw *d = &list[i];
        if (d->f32 || d->n <= 0 || !d->dw) continue;
        add_piece(&p, &(piece){.rows = d->out, .columns = d->in, .y = d->dw, .ldy = d->in, .add = true});
        operand dy = {.data = d->dy, .type = DT_F32, .ld = d->lddy, .count = d->out, .k = d->n, .k_down = true};
        operand x = {.data = d->x, .type = DT_F32, .ld = d->ldx, .count = d->in, .k = d->n, .k_down = true};
        x.lanes = true;
        add_segment(&p, &dy, &x);
    }
    run(&p);
}
