/* op_linear: a list of products as one parallel loop.
 *
 * A product is cut into tasks, and every number of the result is summed by one task in an order that its columns alone
 * decide: so results depend neither on threads nor on tiles. Before that, a first loop lays out or rounds the inputs;
 * products that share an input share that. Three kinds (see linear_micro.h):
 *   few         a task is some rows of w, up to 256 KiB of them, times all rows of x, OP_FEW_ROWS at a time;
 *   many        a task is up to 256 rows of w times up to 512 tokens, so that its sums and a block of columns of its
 *               tokens stay in the second cache; rows of w pass through the first one as panels (widened, scaled), or
 *               as they lie in the file when tokens are few;
 *   transposed  a task is 128 columns of w times up to 32 rows of x. */
#include "kernels/queue.h"

#include <stdlib.h>
#include <string.h>
#include "kernels/fp8_product.h"
#include "kernels/linear_micro.h"
#include "kernels/matmul.h"

enum {
    FEW_BYTES = 262144, /* of w in a task: at its end what was fetched ahead may be another thread's */
    FEW_ROWS = 512,     /* most rows of w in a task */
    OUT_TILE = 256,     /* most rows of w in a task of many */
    OUT_TILE_LEAST = 64,
    TOKEN_TILE = 512,
    K_BLOCK = 512,     /* columns of a panel; of E4M3 weights whole blocks */
    LONG_BLOCK = 2048, /* the same when tokens are so few that their whole rows stay in the cache */
    PANEL = 65536,     /* numbers in a panel */
    DIRECT_GROUPS = 4, /* up to so many groups of tokens a copy of the rows of w does not pay */
    TRANSPOSED_COLUMNS = 128,
    TRANSPOSED_TOKENS = 32,
    SERIAL_INPUT = 16384 /* numbers of input that are laid out faster than threads start */
};

typedef enum kind { FEW, MANY, TRANSPOSED } kind;

/* An input, laid out or rounded: shared by all products that read the same rows in the same way. */
typedef struct input {
    const float *x;
    int64_t ldx, n, in;
    kind kind;
    compute compute;
    void (*few_x)(uint16_t *to, const float *x, int64_t in); /* of FEW */
    char *to;                                                /* NULL: x is read as it is */
    size_t unit;                                             /* bytes of a row (FEW, TRANSPOSED) or a group (MANY) */
    int64_t units, first_task;
} input;

typedef struct piece { /* a product and its tasks */
    const product *p;
    kind kind;
    compute compute;
    int input;
    const float *scale;
    int64_t scale_stride;
    int64_t row_tile, token_tile, token_tiles, first_task;
} piece;

typedef struct plan {
    queue *q;
    int pieces, inputs;
    piece *piece;
    input *input;
    float *ones; /* scales of E4M3 weights that have none */
    char *thread;
    size_t thread_bytes;
} plan;

void linear_fill(linear_micro *m, level l) {
    ref_linear(m);
#if defined(__x86_64__)
    if (l >= LEVEL_AVX2) avx2_linear(m);
    if (l >= LEVEL_AVX512) avx512_linear(m);
    if (l >= LEVEL_AVX512BF16) avx512bf16_linear(m);
    if (l >= LEVEL_AMX) amx_linear(m);
#else
    (void)l;
#endif
}

static size_t compute_size(compute c) {
    return c == COMPUTE_F32 ? 4 : 2;
}

/* --- inputs ------------------------------------------------------------------------------------------------------ */

/* Columns that are taken at once when many rows are multiplied. */
static int64_t k_block(int64_t n) {
    return n <= DIRECT_GROUPS * GROUP ? LONG_BLOCK : K_BLOCK;
}

/* Where columns k0 .. of a group of tokens lie: [column block][group][column][16], blocks in one piece so that they
 * spread evenly over the sets of a cache. */
static char *laid_out(const input *in, int64_t k0, int64_t group) {
    int64_t k = round_up(least(k_block(in->n), in->in - k0), K_STEP);
    return in->to + (size_t)((k0 * in->units + group * k) * GROUP) * compute_size(in->compute);
}

static void prepare_unit(const plan *p, const input *in, int64_t unit) {
    char *to = in->to + (size_t)unit * in->unit;
    if (in->kind == MANY) {
        int64_t t = unit * GROUP, step = k_block(in->n);
        for (int64_t k0 = 0; k0 < in->in; k0 += step)
            p->q->linear->group_x[in->compute](laid_out(in, k0, unit), in->x + t * in->ldx + k0, in->ldx,
                                               least(GROUP, in->n - t), least(step, in->in - k0));
    } else if (in->kind == FEW) {
        in->few_x((uint16_t *)to, in->x + unit * in->ldx, in->in);
    } else {
        for (int64_t i = 0; i < in->in; i++) ((float *)to)[i] = bf16_to_f32(f32_to_bf16(in->x[unit * in->ldx + i]));
    }
}

static void input_task(void *arg, int64_t task, int thread) {
    const plan *p = arg;
    (void)thread;
    int i = 0;
    while (i + 1 < p->inputs && p->input[i + 1].first_task <= task) i++;
    prepare_unit(p, &p->input[i], task - p->input[i].first_task);
}

static input describe_input(const queue *q, const product *p, kind k, compute c) {
    input in = {.x = p->x, .ldx = p->ldx, .n = p->n, .in = p->w->dim[p->transposed ? 0 : 1], .kind = k, .compute = c};
    size_t size = compute_size(c);
    if (k == MANY) {
        in.unit = (size_t)round_up(in.in, K_STEP) * GROUP * size;
        in.units = (p->n + GROUP - 1) / GROUP;
    } else if (c == COMPUTE_BF16) {
        if (k == FEW) in.few_x = q->linear->few_x[p->w->type];
        in.unit = k == FEW ? (size_t)round_up(in.in, FEW_PAD) * 2 : (size_t)in.in * 4;
        in.units = p->n;
    }
    return in;
}

static int find_input(plan *p, const input *want) {
    for (int i = 0; i < p->inputs; i++) {
        const input *in = &p->input[i];
        if (in->x == want->x && in->ldx == want->ldx && in->n == want->n && in->in == want->in &&
            in->kind == want->kind && in->compute == want->compute && in->few_x == want->few_x)
            return i;
    }
    p->input[p->inputs] = *want;
    return p->inputs++;
}

/* Lays out all inputs; false when there is no memory for them. */
static bool prepare_inputs(plan *p) {
    size_t bytes = 0;
    int64_t tasks = 0, numbers = 0;
    for (int i = 0; i < p->inputs; i++) {
        input *in = &p->input[i];
        in->first_task = tasks;
        tasks += in->units;
        numbers += in->units ? in->n * in->in : 0;
        bytes += (size_t)in->units * in->unit + 64;
    }
    if (tasks == 0) return true;
    char *to = queue_scratch(p->q, SLOT_LINEAR_X, bytes);
    if (!to) return false;
    for (int i = 0; i < p->inputs; i++) {
        input *in = &p->input[i];
        if (in->units) in->to = to;
        to += round_up((int64_t)((size_t)in->units * in->unit), 64);
    }
    if (numbers > SERIAL_INPUT) pool_run(p->q->pool, tasks, input_task, p);
    else
        for (int64_t t = 0; t < tasks; t++) input_task(p, t, 0);
    return true;
}

/* --- tasks ------------------------------------------------------------------------------------------------------- */

/* Sums [t][o] of rows and columns as given, into y. */
static void finish(const product *p, const float *sums, int64_t ld, int64_t t0, int64_t n, int64_t o0, int64_t count) {
    for (int64_t t = 0; t < n; t++) {
        for (int64_t o = 0; o < count; o++) {
            float v = sums[t * ld + o] + (p->bias ? p->bias[o0 + o] : 0);
            int64_t at = (t0 + t) * p->ldy + o0 + o;
            if (p->y_type == DT_F32) {
                float *y = (float *)p->y + at;
                *y = p->add ? *y + v : v;
            } else {
                uint16_t *y = (uint16_t *)p->y + at;
                *y = f32_to_bf16(p->add ? bf16_to_f32(*y) + v : v);
            }
        }
    }
}

static bool plain_output(const product *p) {
    return p->y_type == DT_F32 && !p->bias && !p->add;
}

static const void *weight_row(const tensor *w, int64_t row) {
    return (const char *)w->data + (size_t)(row * w->dim[1]) * dtype_size(w->type);
}

static void few_task(const plan *pl, const piece *pc, int64_t tile, float *sums) {
    const product *p = pc->p;
    const tensor *w = p->w;
    const input *in = &pl->input[pc->input];
    int64_t row = tile * pc->row_tile, rows = least(pc->row_tile, w->dim[0] - row);
    bool plain = plain_output(p);
    for (int64_t t = 0; t < p->n; t += OP_FEW_ROWS) {
        few_call c = {.w = weight_row(w, row),
                      .in = w->dim[1],
                      .rows = rows,
                      .scale = pc->scale,
                      .scale_stride = pc->scale_stride,
                      .row = w->row0 + row,
                      .x = in->to ? (const void *)(in->to + (size_t)t * in->unit) : p->x + t * p->ldx,
                      .ldx = in->to ? (int64_t)(in->unit / 2) : p->ldx,
                      .n = (int)least(OP_FEW_ROWS, p->n - t),
                      .y = plain ? (float *)p->y + t * p->ldy + row : sums,
                      .ldy = plain ? p->ldy : FEW_ROWS};
        pl->q->linear->few[pc->compute][w->type](&c);
        if (!plain) finish(p, sums, FEW_ROWS, t, c.n, row, rows);
    }
}

static void transposed_task(const plan *pl, const piece *pc, int64_t tile, float *sums) {
    const product *p = pc->p;
    const tensor *w = p->w;
    const input *in = &pl->input[pc->input];
    int64_t first = tile / pc->token_tiles * pc->row_tile, columns = least(pc->row_tile, w->dim[1] - first);
    int64_t t = tile % pc->token_tiles * pc->token_tile, n = least(pc->token_tile, p->n - t);
    bool plain = plain_output(p);
    int64_t ldx = in->to ? (int64_t)(in->unit / 4) : p->ldx;
    transposed_call c = {.w = w->data,
                         .in = w->dim[1],
                         .out = w->dim[0],
                         .first = first,
                         .columns = columns,
                         .scale = pc->scale,
                         .scale_stride = pc->scale_stride,
                         .row = w->row0,
                         .x = (in->to ? (const float *)in->to : p->x) + t * ldx,
                         .ldx = ldx,
                         .round = pc->compute == COMPUTE_BF16,
                         .n = n,
                         .y = plain ? (float *)p->y + t * p->ldy + first : sums,
                         .ldy = plain ? p->ldy : TRANSPOSED_COLUMNS};
    pl->q->linear->transposed[w->type](&c);
    if (!plain) finish(p, sums, TRANSPOSED_COLUMNS, t, n, first, columns);
}

/* The rows of w can be the kernel's operand as they lie in the file. */
static bool direct(compute mode, const tensor *w, int64_t rows, int64_t groups) {
    dtype wanted = mode == COMPUTE_F32 ? DT_F32 : DT_BF16;
    return w->type == wanted && w->dim[1] % K_STEP == 0 && rows % GROUP == 0 && groups <= DIRECT_GROUPS;
}

/* A task of many: rows [row, end) of w, tokens [t, t + n), in blocks of k_block columns and panels of panel_rows rows.
 */
typedef struct many {
    const product *p;
    const piece *pc;
    const input *in;
    int64_t row, end, t, n, groups, k_block, panel_rows;
    size_t size; /* of a number in products */
    bool as_is;
    float *sums;
    char *panel;
} many;

/* The rows of w that are read after the panel that begins at row r and column k0: its successor in this task or in the
 * next one, which usually is the same thread's. */
static region look_ahead(const many *m, int64_t r, int64_t k0) {
    const tensor *w = m->p->w;
    int64_t columns = w->dim[1], element = (int64_t)dtype_size(w->type), k1 = k0;
    int64_t r1 = r + m->panel_rows;
    if (r1 >= m->end) {
        r1 = m->row;
        k1 = k0 + m->k_block;
        if (k1 >= columns) {
            k1 = 0;
            r1 = m->end;
        }
    }
    return (region){.at = (const char *)weight_row(w, r1) + k1 * element,
                    .rows = r1 < w->dim[0] ? least(m->panel_rows, w->dim[0] - r1) : 0,
                    .bytes = least(m->k_block, columns - k1) * element,
                    .stride = columns * element};
}

static void multiply_panel(const plan *pl, const many *m, int64_t r, int64_t k0) {
    const tensor *w = m->p->w;
    compute mode = m->pc->compute;
    int64_t k = least(m->k_block, w->dim[1] - k0), rows = least(m->panel_rows, m->end - r);
    block_call b = {.rows = round_up(rows, GROUP),
                    .k = round_up(k, K_STEP),
                    .x = laid_out(m->in, k0, m->t / GROUP),
                    .x_group = round_up(k, K_STEP) * GROUP,
                    .groups = m->groups,
                    .c = m->sums + (r - m->row) * m->groups * GROUP,
                    .first = k0 == 0};
    if (m->as_is) {
        b.w = (const char *)weight_row(w, r) + (size_t)k0 * m->size;
        b.ldw = w->dim[1];
    } else {
        b.w = m->panel;
        b.ldw = b.k;
        panel_call c = {.w = weight_row(w, r),
                        .in = w->dim[1],
                        .rows = rows,
                        .first = k0,
                        .k = k,
                        .scale = m->pc->scale,
                        .scale_stride = m->pc->scale_stride,
                        .row = w->row0 + r,
                        .panel = m->panel,
                        .ld = b.k};
        pl->q->linear->panel[mode][w->type](&c);
    }
    b.next = look_ahead(m, r, k0);
    pl->q->linear->block[mode](&b);
}

static void many_task(const plan *pl, const piece *pc, int64_t tile, float *sums) {
    const product *p = pc->p;
    many m = {.p = p, .pc = pc, .in = &pl->input[pc->input], .size = compute_size(pc->compute), .sums = sums};
    m.row = tile / pc->token_tiles * pc->row_tile;
    m.end = least(m.row + pc->row_tile, p->w->dim[0]);
    m.t = tile % pc->token_tiles * pc->token_tile;
    m.n = least(pc->token_tile, p->n - m.t);
    m.groups = (m.n + GROUP - 1) / GROUP;
    m.as_is = direct(pc->compute, p->w, m.end - m.row, m.groups);
    m.k_block = k_block(p->n);
    m.panel_rows = least(PANEL / m.k_block, OUT_TILE);
    m.panel = (char *)(sums + OUT_TILE * TOKEN_TILE);
    for (int64_t k0 = 0; k0 == 0 || k0 < p->w->dim[1]; k0 += m.k_block)
        for (int64_t r = m.row; r < m.end; r += m.panel_rows) multiply_panel(pl, &m, r, k0);
    store_call s = {.c = sums,
                    .groups = m.groups,
                    .rows = m.end - m.row,
                    .n = m.n,
                    .bias = p->bias ? p->bias + m.row : NULL,
                    .y = (char *)p->y + (size_t)(m.t * p->ldy + m.row) * dtype_size(p->y_type),
                    .ldy = p->ldy,
                    .y_type = p->y_type,
                    .add = p->add};
    pl->q->linear->store(&s);
}

static void product_task(void *arg, int64_t task, int thread) {
    const plan *p = arg;
    int low = 0, high = p->pieces; /* the last piece whose first task is <= task */
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (p->piece[middle].first_task <= task) low = middle;
        else high = middle;
    }
    const piece *pc = &p->piece[low];
    float *sums = (float *)(p->thread + (size_t)thread * p->thread_bytes);
    int64_t tile = task - pc->first_task;
    if (pc->kind == FEW) few_task(p, pc, tile, sums);
    else if (pc->kind == MANY) many_task(p, pc, tile, sums);
    else transposed_task(p, pc, tile, sums);
}

/* --- plan -------------------------------------------------------------------------------------------------------- */

static kind kind_of(const queue *q, const product *p) {
    if (p->transposed) return TRANSPOSED;
    return rows_are_few(q, p->n) ? FEW : MANY;
}

/* Bytes of scratch memory that a task of a kind needs. */
static size_t task_bytes(kind k) {
    if (k == FEW) return sizeof(float) * FEW_ROWS * OP_FEW_ROWS;
    if (k == TRANSPOSED) return sizeof(float) * TRANSPOSED_COLUMNS * TRANSPOSED_TOKENS;
    return sizeof(float) * (OUT_TILE * TOKEN_TILE + PANEL);
}

static int64_t cut(piece *pc, int64_t out_tile) {
    const tensor *w = pc->p->w;
    int64_t rows = pc->kind == TRANSPOSED ? w->dim[1] : w->dim[0];
    pc->token_tile = pc->p->n;
    if (pc->kind == FEW) {
        int64_t row_bytes = w->dim[1] * (int64_t)dtype_size(w->type) + 1;
        pc->row_tile = least(FEW_ROWS, round_up(FEW_BYTES / OUT_TILE * out_tile / row_bytes + 1, 8));
    } else if (pc->kind == MANY) {
        pc->row_tile = out_tile;
        pc->token_tile = TOKEN_TILE;
    } else {
        pc->row_tile = TRANSPOSED_COLUMNS;
        pc->token_tile = TRANSPOSED_TOKENS;
    }
    pc->token_tiles = (pc->p->n + pc->token_tile - 1) / pc->token_tile;
    return (rows + pc->row_tile - 1) / pc->row_tile * pc->token_tiles;
}

static int more_rows_first(const void *a, const void *b) {
    const piece *l = a, *r = b;
    if (l->p->n != r->p->n) return l->p->n > r->p->n ? -1 : 1;
    return l->p < r->p ? -1 : l->p > r->p;
}

/* Room for the plan of `count` products, the longest of which has `columns` columns. */
static bool open_plan(plan *p, int count, int64_t columns) {
    size_t pieces = (size_t)count * sizeof(piece), inputs = (size_t)count * sizeof(input);
    int64_t ones = (columns + FP8_BLOCK - 1) / FP8_BLOCK;
    char *at = queue_scratch(p->q, SLOT_LINEAR_PLAN, pieces + inputs + (size_t)ones * sizeof(float));
    if (!at) return false;
    p->piece = (piece *)at;
    p->input = (input *)(at + pieces);
    p->ones = (float *)(at + pieces + inputs);
    for (int64_t i = 0; i < ones; i++) p->ones[i] = 1;
    return true;
}

void op_linear(queue *q, const product *list, int count) {
    if (q->fp8) fp8_linear(q, list, count);
    if (matmul_takes(q, list, count)) {
        matmul_linear(q, list, count);
        return;
    }
    plan p = {.q = q};
    int64_t columns = 0, tasks = 0;
    for (int i = 0; i < count; i++)
        if (list[i].w->dim[1] > columns) columns = list[i].w->dim[1];
    if (count <= 0 || !open_plan(&p, count, columns)) return;
    for (int i = 0; i < count; i++) {
        if (list[i].n <= 0 || fp8_takes(q, &list[i])) continue;
        const tensor *w = list[i].w;
        piece *pc = &p.piece[p.pieces++];
        *pc = (piece){.p = &list[i], .kind = kind_of(q, &list[i]), .scale = w->scale, .scale_stride = w->scale_stride};
        pc->compute = list[i].f32 ? COMPUTE_F32 : q->compute;
        if (!pc->scale) {
            pc->scale = p.ones;
            pc->scale_stride = 0;
        }
        input in = describe_input(q, &list[i], pc->kind, pc->compute);
        pc->input = find_input(&p, &in);
        size_t bytes = task_bytes(pc->kind);
        if (bytes > p.thread_bytes) p.thread_bytes = bytes;
    }
    p.thread = queue_scratch(q, SLOT_LINEAR_THREAD, p.thread_bytes * (size_t)q->threads);
    if (!p.thread || !prepare_inputs(&p)) return;
    qsort(p.piece, (size_t)p.pieces, sizeof *p.piece, more_rows_first);
    /* Larger tiles read memory less often, but every thread wants some. (Sums do not depend on tiles.) */
    for (int64_t tile = OUT_TILE; tile >= OUT_TILE_LEAST && tasks < 3 * (int64_t)q->threads; tile /= 2) {
        tasks = 0;
        for (int i = 0; i < p.pieces; i++) {
            p.piece[i].first_task = tasks;
            tasks += cut(&p.piece[i], tile);
        }
    }
    pool_run(q->pool, tasks, product_task, &p);
}
