/* The products of training: op_linear with many rows of F32 weights, op_linear_dx and op_linear_dw, a list of them as
 * one parallel loop.
 *
 * All are C[r][l] (+)= sum_k A[r][k] B[k][l] with columns of B as lanes of a vector, so that C is stored as it is:
 *   y   rows are tokens, lanes the outputs o, k the inputs i:  A = x,              B = w turned round
 *   dx  rows are tokens, lanes the inputs i, k the outputs o:  A = dy,             B = w
 *   dw  rows are outputs o, lanes the inputs i, k the tokens:  A = dy turned round, B = x
 * A first loop lays out every B in groups of 16 columns, once for all products that share it. Then C is cut into
 * tiles, which are the tasks: their rows of A become a panel block by block, and the sums, which stay in the second
 * cache, are stored at the end. Every number of C is summed in the order of k by one task, so results depend neither
 * on threads nor on tiles. */

#include <string.h>
#include "kernels/fp8_product.h"
#include "kernels/linear_micro.h"
#include "kernels/matmul.h"
#include "kernels/queue.h"
#include "kernels/train_ops.h"

enum {
    ROW_TILE = 128, /* most rows of C in a task */
    COLUMN_TILE = 512,
    ROW_TILE_LEAST = 32,
    COLUMN_TILE_LEAST = 128,
    BLOCK_BYTES = 1024, /* of a row of a panel: so many k are taken at once */
    PAD = 64,
    LANES_UNIT = 128,    /* columns of B that a task lays out */
    SERIAL_LANES = 16384 /* numbers of B that are laid out faster than threads start */
};

/* A matrix B, laid out: [block of k][group][k][16]. */
typedef struct lanes {
    const void *b;
    dtype type;
    bool turned; /* B lies [column][k], F32 */
    compute compute;
    int64_t ld, k, columns;
    char *to;
    int64_t units, first_task;
} lanes;

/* A range of k: rows of A times a B. */
typedef struct segment {
    const float *a;
    int64_t lda, k;
    int lanes;
} segment;

/* One C: its segments and its tasks. */
typedef struct piece {
    int segment, segments;
    compute compute;
    bool turned, add; /* A lies [k][row] */
    int64_t rows, columns;
    float *c;
    int64_t ldc;
    int64_t row_tile, row_tiles, group_tile, first_task;
} piece;

typedef struct plan {
    queue *q;
    int pieces, segments, lanes_count;
    piece *piece;
    segment *segment;
    lanes *lanes;
    float *thread; /* sums and a panel for each thread */
} plan;

enum { THREAD_BYTES = ROW_TILE * (COLUMN_TILE * sizeof(float) + BLOCK_BYTES + PAD) };

static int64_t number_size(compute c) {
    return c == COMPUTE_F32 ? 4 : 2;
}

static int64_t k_block(compute c) {
    return BLOCK_BYTES / number_size(c);
}

/* --- laying out -------------------------------------------------------------------------------------------------- */

/* Where a group of columns lies in the block that begins with k0. */
static char *laid_out(const lanes *l, int64_t k0, int64_t group) {
    int64_t groups = (l->columns + GROUP - 1) / GROUP, k = round_up(least(k_block(l->compute), l->k - k0), K_STEP);
    return l->to + (k0 * groups + group * k) * GROUP * number_size(l->compute);
}

static void lanes_task(void *arg, int64_t task, int thread) {
    const plan *p = arg;
    (void)thread;
    int i = 0;
    while (i + 1 < p->lanes_count && p->lanes[i + 1].first_task <= task) i++;
    const lanes *l = &p->lanes[i];
    int64_t across = (l->columns + LANES_UNIT - 1) / LANES_UNIT, unit = task - l->first_task;
    int64_t column = unit % across * LANES_UNIT, k0 = unit / across * k_block(l->compute);
    int64_t k = least(k_block(l->compute), l->k - k0), group = round_up(k, K_STEP) * GROUP;
    if (l->turned) {
        const float *b = (const float *)l->b + k0;
        for (int64_t end = least(column + LANES_UNIT, l->columns); column < end; column += GROUP)
            p->q->linear->group_x[l->compute](laid_out(l, k0, column / GROUP), b + column * l->ld, l->ld,
                                              least(GROUP, l->columns - column), k);
        return;
    }
    lanes_call c = {.b = (const char *)l->b + (k0 * l->ld + column) * (int64_t)dtype_size(l->type),
                    .ld = l->ld,
                    .k = k,
                    .columns = least(LANES_UNIT, l->columns - column),
                    .to = laid_out(l, k0, column / GROUP),
                    .group = group};
    p->q->linear->lanes[l->compute][l->type](&c);
}

static int find_lanes(plan *p, const lanes *want) {
    for (int i = 0; i < p->lanes_count; i++) {
        const lanes *l = &p->lanes[i];
        if (l->b == want->b && l->ld == want->ld && l->k == want->k && l->columns == want->columns &&
            l->type == want->type && l->compute == want->compute && l->turned == want->turned)
            return i;
    }
    p->lanes[p->lanes_count] = *want;
    return p->lanes_count++;
}

/* Lays out all B; false when there is no memory for them. */
static bool prepare_lanes(plan *p) {
    int64_t tasks = 0, numbers = 0, bytes = 0;
    for (int i = 0; i < p->lanes_count; i++) {
        lanes *l = &p->lanes[i];
        int64_t block = k_block(l->compute);
        l->first_task = tasks;
        tasks += (l->k + block - 1) / block * ((l->columns + LANES_UNIT - 1) / LANES_UNIT);
        numbers += l->k * l->columns;
        bytes += round_up(l->k, K_STEP) * round_up(l->columns, GROUP) * number_size(l->compute);
    }
    char *to = queue_scratch(p->q, SLOT_MATMUL_LANES, (size_t)bytes);
    if (!to) return false;
    for (int i = 0; i < p->lanes_count; i++) {
        lanes *l = &p->lanes[i];
        l->to = to;
        to += round_up(l->k, K_STEP) * round_up(l->columns, GROUP) * number_size(l->compute);
    }
    if (numbers > SERIAL_LANES) pool_run(p->q->pool, tasks, lanes_task, p);
    else
        for (int64_t t = 0; t < tasks; t++) lanes_task(p, t, 0);
    return true;
}

/* --- tiles ------------------------------------------------------------------------------------------------------- */

/* Rows [row, row + rows) of A and k from k0 on, as a panel. */
static void make_panel(const plan *p, const piece *pc, const segment *s, int64_t row, int64_t rows, int64_t k0,
                       int64_t k, void *panel, int64_t ld) {
    const linear_micro *m = p->q->linear;
    if (pc->turned) {
        turn_call c = {.a = s->a + k0 * s->lda + row, .lda = s->lda, .rows = rows, .k = k, .panel = panel};
        c.ld = ld;
        m->turn[pc->compute](&c);
    } else {
        panel_call c = {.w = s->a + row * s->lda, .in = s->lda, .rows = rows, .first = k0, .k = k, .panel = panel};
        c.ld = ld;
        m->panel[pc->compute][DT_F32](&c);
    }
}

/* Rows of A can be the kernel's operand as they lie. */
static bool direct(const piece *pc, int64_t rows, int64_t k) {
    return !pc->turned && pc->compute == COMPUTE_F32 && rows % GROUP == 0 && k % K_STEP == 0;
}

/* Sums can be made in the result itself: whole tiles of a new result, which few products pass through. */
static bool in_place(const plan *p, const piece *pc, int64_t columns) {
    int64_t k = 0;
    for (int i = 0; i < pc->segments; i++) k += p->segment[pc->segment + i].k;
    return !pc->add && columns % GROUP == 0 && k <= k_block(pc->compute);
}

/* The numbers of A that are read after those of k0: the next block's, or the first of the next tile's rows. */
static region look_ahead(const piece *pc, const segment *s, const segment *end, int64_t row, int64_t rows, int64_t k0) {
    k0 += k_block(pc->compute);
    if (k0 >= s->k) {
        k0 = 0;
        if (++s == end) {
            s -= pc->segments;
            row += pc->row_tile;
        }
    }
    int64_t k = least(k_block(pc->compute), s->k - k0);
    rows = least(rows, pc->rows - row);
    if (rows <= 0) return (region){0};
    const float *at = pc->turned ? s->a + k0 * s->lda + row : s->a + row * s->lda + k0;
    return (region){.at = (const char *)at,
                    .rows = pc->turned ? k : rows,
                    .bytes = (pc->turned ? rows : k) * (int64_t)sizeof(float),
                    .stride = s->lda * (int64_t)sizeof(float)};
}

/* Rows of C in some groups of columns; `whole`: in C itself, else from the thread's sums. */
static void tile_rows(const plan *p, const piece *pc, int64_t row, int64_t rows, int64_t group, int64_t columns,
                      bool whole, float *sums) {
    float *c = pc->c + row * pc->ldc + group * GROUP;
    void *panel = sums + ROW_TILE * COLUMN_TILE;
    const int64_t ld = (BLOCK_BYTES + PAD) / number_size(pc->compute), groups = (columns + GROUP - 1) / GROUP;
    bool first = true;
    for (const segment *s = &p->segment[pc->segment]; s < &p->segment[pc->segment + pc->segments]; s++) {
        for (int64_t k0 = 0; k0 < s->k; k0 += k_block(pc->compute), first = false) {
            int64_t k = least(k_block(pc->compute), s->k - k0);
            const bool as_is = direct(pc, rows, k);
            if (!as_is) make_panel(p, pc, s, row, rows, k0, k, panel, ld);
            block_call b = {.w = as_is ? s->a + row * s->lda + k0 : panel,
                            .ldw = as_is ? s->lda : ld,
                            .rows = round_up(rows, GROUP),
                            .k = round_up(k, K_STEP),
                            .x = laid_out(&p->lanes[s->lanes], k0, group),
                            .x_group = round_up(k, K_STEP) * GROUP,
                            .groups = groups,
                            .c = whole ? c : sums,
                            .ldc = whole ? pc->ldc : 0,
                            .first = first,
                            .next = look_ahead(pc, s, &p->segment[pc->segment + pc->segments], row, rows, k0)};
            p->q->linear->block[pc->compute](&b);
        }
    }
    if (whole) return;
    place_call to = {
        .c = sums, .groups = groups, .rows = rows, .columns = columns, .y = c, .ldy = pc->ldc, .add = pc->add};
    p->q->linear->place(&to);
}

static void tile_task(void *arg, int64_t task, int thread) {
    const plan *p = arg;
    int low = 0, high = p->pieces; /* the last piece whose first task is <= task */
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (p->piece[middle].first_task <= task) low = middle;
        else high = middle;
    }
    const piece *pc = &p->piece[low];
    int64_t tile = task - pc->first_task, row = tile % pc->row_tiles * pc->row_tile;
    int64_t group = tile / pc->row_tiles * pc->group_tile, rows = least(pc->row_tile, pc->rows - row);
    int64_t columns = least(pc->group_tile * GROUP, pc->columns - group * GROUP);
    int64_t whole = in_place(p, pc, columns) ? rows / GROUP * GROUP : 0;
    float *sums = p->thread + (size_t)thread * (THREAD_BYTES / sizeof(float));
    if (whole > 0) tile_rows(p, pc, row, whole, group, columns, true, sums);
    if (whole < rows) tile_rows(p, pc, row + whole, rows - whole, group, columns, false, sums);
}

/* --- plan -------------------------------------------------------------------------------------------------------- */

/* A plan with room for `count` products. */
static bool open_plan(plan *p, int count) {
    size_t n = (size_t)count;
    char *at = queue_scratch(p->q, SLOT_MATMUL_PLAN, n * (sizeof(piece) + sizeof(segment) + sizeof(lanes)));
    if (!at) return false;
    p->piece = (piece *)at;
    p->segment = (segment *)(at + n * sizeof(piece));
    p->lanes = (lanes *)(at + n * (sizeof(piece) + sizeof(segment)));
    return true;
}

/* Cuts into equal tiles of at most so many rows and columns, and returns how many. */
static int64_t cut(piece *pc, int64_t row_tile, int64_t column_tile) {
    int64_t groups = (pc->columns + GROUP - 1) / GROUP, across = (pc->columns + column_tile - 1) / column_tile;
    pc->row_tiles = (pc->rows + row_tile - 1) / row_tile;
    pc->row_tile = round_up((pc->rows + pc->row_tiles - 1) / pc->row_tiles, 2 * GROUP);
    pc->row_tiles = (pc->rows + pc->row_tile - 1) / pc->row_tile;
    pc->group_tile = (groups + across - 1) / across;
    return pc->row_tiles * ((groups + pc->group_tile - 1) / pc->group_tile);
}

/* Cuts all pieces: larger tiles read memory less often, but every thread wants some. */
static int64_t cut_all(plan *p) {
    int64_t tasks = 0;
    for (int64_t r = ROW_TILE, c = COLUMN_TILE; r >= ROW_TILE_LEAST && c >= COLUMN_TILE_LEAST;) {
        tasks = 0;
        for (int i = 0; i < p->pieces; i++) {
            p->piece[i].first_task = tasks;
            tasks += cut(&p->piece[i], r, c);
        }
        if (tasks >= 3 * (int64_t)p->q->threads) break;
        if (c >= 4 * r) c /= 2;
        else r /= 2;
    }
    return tasks;
}

static void run(plan *p) {
    p->thread = queue_scratch(p->q, SLOT_MATMUL_THREAD, THREAD_BYTES * (size_t)p->q->threads);
    if (p->pieces == 0 || !p->thread || !prepare_lanes(p)) return;
    pool_run(p->q->pool, cut_all(p), tile_task, p);
}

static void add_segment(plan *p, const float *a, int64_t lda, const lanes *b) {
    p->segment[p->segments++] = (segment){.a = a, .lda = lda, .k = b->k, .lanes = find_lanes(p, b)};
    p->piece[p->pieces - 1].segments++;
}

/* Laying out w costs out x in, laying out x and turning the result round n x (in + out). */
bool matmul_takes(const queue *q, const product *list, int count) {
    int64_t weights = 0, results = 0;
    for (int i = 0; i < count; i++) {
        const product *p = &list[i];
        if (p->transposed || p->w->type != DT_F32 || p->y_type != DT_F32 || (q->fp8 && !p->f32)) return false;
        if (rows_are_few(q, p->n) || (p->add && p->bias)) return false; /* linear.c adds the bias to the sum first */
        weights += p->w->dim[0] * p->w->dim[1];
        results += p->n * p->w->dim[0];
    }
    return weights <= results;
}

typedef struct bias_call {
    const product *list;
} bias_call;

/* The sum begins with the bias. */
static void begin_with_bias(void *arg, int64_t task, int thread) {
    const product *p = ((const bias_call *)arg)->list + task;
    (void)thread;
    if (!p->bias) return;
    for (int64_t t = 0; t < p->n; t++) {
        float *y = (float *)p->y + t * p->ldy;
        memcpy(y, p->bias, (size_t)p->w->dim[0] * sizeof *y);
    }
}

void matmul_linear(queue *q, const product *list, int count) {
    plan p = {.q = q};
    bool bias = false;
    if (!open_plan(&p, count)) return;
    for (int i = 0; i < count; i++) {
        const product *d = &list[i];
        if (d->n <= 0) continue;
        bias |= d->bias != NULL;
        compute mode = d->f32 ? COMPUTE_F32 : q->compute;
        p.piece[p.pieces++] = (piece){.segment = p.segments,
                                      .compute = mode,
                                      .add = d->add || d->bias,
                                      .rows = d->n,
                                      .columns = d->w->dim[0],
                                      .c = d->y,
                                      .ldc = d->ldy};
        lanes b = {.b = d->w->data, .type = DT_F32, .turned = true, .compute = mode};
        b.ld = b.k = d->w->dim[1];
        b.columns = d->w->dim[0];
        add_segment(&p, d->x, d->ldx, &b);
    }
    if (bias) pool_run(q->pool, count, begin_with_bias, &(bias_call){list});
    run(&p);
}

void op_linear_dx(queue *q, const product_dx *list, int count) {
    if (q->fp8) fp8_linear_dx(q, list, count);
    plan p = {.q = q};
    if (count <= 0 || !open_plan(&p, count)) return;
    for (int i = 0; i < count;) {
        const product_dx *d = &list[i];
        int end = i + 1;
        while (end < count && list[end].join) end++;
        compute mode = d->f32 ? COMPUTE_F32 : q->compute;
        if (d->n > 0 && !(q->fp8 && !d->f32)) {
            p.piece[p.pieces++] = (piece){.segment = p.segments,
                                          .compute = mode,
                                          .add = d->add,
                                          .rows = d->n,
                                          .columns = d->w->dim[1],
                                          .c = d->dx,
                                          .ldc = d->lddx};
            for (int j = i; j < end; j++) {
                const tensor *w = list[j].w;
                lanes b = {.b = w->data, .type = w->type, .compute = mode};
                b.ld = b.columns = w->dim[1];
                b.k = w->dim[0];
                add_segment(&p, list[j].dy, list[j].lddy, &b);
            }
        }
        i = end;
    }
    run(&p);
}

/* dbias[o] += sum_t dy[t][o] of one product, 64 outputs at a time. */
static void bias_task(void *arg, int64_t task, int thread) {
    const product_dw *d = (const product_dw *)arg + task;
    (void)thread;
    if (!d->dbias) return;
    for (int64_t o = 0; o < d->out; o += 64) {
        float sum[64] = {0};
        int64_t columns = least(64, d->out - o);
        for (int64_t t = 0; t < d->n; t++)
            for (int64_t i = 0; i < columns; i++) sum[i] += d->dy[t * d->lddy + o + i];
        for (int64_t i = 0; i < columns; i++) d->dbias[o + i] += sum[i];
    }
}

void op_linear_dw(queue *q, const product_dw *list, int count) {
    if (q->fp8) fp8_linear_dw(q, list, count);
    plan p = {.q = q};
    bool bias = false;
    if (count <= 0 || !open_plan(&p, count)) return;
    for (int i = 0; i < count; i++) {
        const product_dw *d = &list[i];
        bias |= d->dbias != NULL;
        if (d->n <= 0 || !d->dw || (q->fp8 && !d->f32)) continue;
        p.piece[p.pieces++] = (piece){.segment = p.segments,
                                      .compute = d->f32 ? COMPUTE_F32 : q->compute,
                                      .turned = true,
                                      .add = true,
                                      .rows = d->out,
                                      .columns = d->in,
                                      .c = d->dw,
                                      .ldc = d->in};
        lanes b = {.b = d->x, .type = DT_F32, .compute = p.piece[p.pieces - 1].compute, .ld = d->ldx, .k = d->n};
        b.columns = d->in;
        add_segment(&p, d->dy, d->lddy, &b);
    }
    run(&p);
    union {
        const product_dw *in;
        void *out;
    } all = {list};
    if (bias) pool_run(q->pool, count, bias_task, all.out);
}
