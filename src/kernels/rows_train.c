/* Operations on rows that only training needs. Rows are computed as in rows.c. What is summed over rows, the gradients
 * of norms, is summed over chunks of rows that the shapes alone decide, and then over the chunks in order. */
#include <string.h>
#include "kernels/attn_micro.h"
#include "kernels/queue.h"
#include "kernels/train_ops.h"

enum {
    ROWS_WORK = 32768,  /* numbers in a task: about ten microseconds */
    CHUNKS = 64,        /* of rows, at most */
    CHUNK_WORK = 8192,  /* numbers in a chunk, at least: its own sums must not cost more than its rows */
    JOIN_COLUMNS = 512, /* of a task that adds the chunks' sums */
    COLUMNS = 128       /* of a task of op_embedding_dw */
};

static void run(queue *q, int64_t tasks, void (*f)(void *arg, int64_t task, int thread), void *arg) {
    if (tasks > 1) pool_run(q->pool, tasks, f, arg);
    else if (tasks == 1) f(arg, 0, 0);
}

/* --- norms -------------------------------------------------------------------------------------------------------- */

typedef struct norm_call {
    const attn_micro *m;
    float *dx, *dw, *db;
    const float *dy, *x, *w;
    int64_t lddx, lddy, ldx, n, dim, chunk, chunks;
    float eps;
    bool add, layer;
    float *sums; /* [chunks][2][dim]: of dw, of db */
} norm_call;

static void norm_chunk(void *arg, int64_t task, int thread) {
    (void)thread;
    const norm_call *c = arg;
    float *dw = c->dw ? c->sums + task * 2 * c->dim : NULL, *db = c->db ? c->sums + (task * 2 + 1) * c->dim : NULL;
    if (dw) memset(dw, 0, (size_t)c->dim * sizeof *dw);
    if (db) memset(db, 0, (size_t)c->dim * sizeof *db);
    for (int64_t i = task * c->chunk; i < c->n && i < (task + 1) * c->chunk; i++) {
        float *dx = c->dx + i * c->lddx;
        const float *dy = c->dy + i * c->lddy, *x = c->x + i * c->ldx;
        if (c->layer) c->m->layernorm_dx(dx, dw, db, dy, x, c->w, c->dim, c->eps, c->add);
        else c->m->rmsnorm_dx(dx, dw, dy, x, c->w, c->dim, c->eps, c->add);
    }
}

static void join_chunks(void *arg, int64_t task, int thread) {
    (void)thread;
    const norm_call *c = arg;
    const int64_t from = task * JOIN_COLUMNS, n = c->dim - from < JOIN_COLUMNS ? c->dim - from : JOIN_COLUMNS;
    for (int which = 0; which < 2; which++) {
        float *to = which == 0 ? c->dw : c->db, *sum = c->sums + which * c->dim + from;
        if (!to) continue;
        for (int64_t i = 1; i < c->chunks; i++) c->m->add(sum, sum + i * 2 * c->dim, n);
        c->m->add(to + from, sum, n);
    }
}

static void norm_dx(queue *q, norm_call *c) {
    if (c->n <= 0) return;
    c->m = q->attn;
    c->chunk = (c->n + CHUNKS - 1) / CHUNKS;
    if (c->chunk * c->dim < CHUNK_WORK) c->chunk = (CHUNK_WORK + c->dim - 1) / c->dim;
    c->chunks = (c->n + c->chunk - 1) / c->chunk;
    const bool sums = c->dw || c->db;
    if (sums) {
        c->sums = queue_scratch(q, SLOT_ROWS_TRAIN, (size_t)(c->chunks * 2 * c->dim) * sizeof *c->sums);
        if (!c->sums) return;
    }
    run(q, c->chunks, norm_chunk, c);
    if (sums) run(q, (c->dim + JOIN_COLUMNS - 1) / JOIN_COLUMNS, join_chunks, c);
}

void op_rmsnorm_dx(queue *q, float *dx, int64_t lddx, float *dw, const float *dy, int64_t lddy, const float *x,
                   int64_t ldx, const float *w, int64_t n, int64_t dim, float eps, bool add) {
    norm_call c = {.dx = dx, .lddx = lddx, .dw = dw, .dy = dy, .lddy = lddy, .x = x, .ldx = ldx, .w = w, .n = n};
    c.dim = dim, c.eps = eps, c.add = add;
    norm_dx(q, &c);
}

void op_layernorm_dx(queue *q, float *dx, int64_t lddx, float *dw, float *db, const float *dy, int64_t lddy,
                     const float *x, int64_t ldx, const float *w, int64_t n, int64_t dim, float eps, bool add) {
    norm_call c = {.dx = dx, .lddx = lddx, .dw = dw, .dy = dy, .lddy = lddy, .x = x, .ldx = ldx, .w = w, .n = n};
    c.db = db, c.dim = dim, c.eps = eps, c.add = add, c.layer = true;
    norm_dx(q, &c);
}

/* --- row by row --------------------------------------------------------------------------------------------------- */

typedef struct rows {
    const attn_micro *m;
    void (*row)(const struct rows *r, int64_t i);
    int64_t n, rows_per_task, dim;
    float *y, *y2;
    const float *dy, *a, *b, *table;
    int64_t ldy, ldy2, lddy, lda, ldb;
    int64_t heads, head_stride;
    const int32_t *index;
    bool interleaved;
    float scale, *loss;
    int32_t *best;
} rows;

static void run_task(void *arg, int64_t task, int thread) {
    (void)thread;
    const rows *r = arg;
    int64_t first = task * r->rows_per_task, end = first + r->rows_per_task;
    for (int64_t i = first; i < end && i < r->n; i++) r->row(r, i);
}

static void run_rows(queue *q, rows *r, int64_t numbers_per_row) {
    r->m = q->attn;
    r->rows_per_task = 1 + ROWS_WORK / (numbers_per_row + 1);
    run(q, (r->n + r->rows_per_task - 1) / r->rows_per_task, run_task, r);
}

static void swiglu_dx_row(const rows *r, int64_t i) {
    r->m->swiglu_dx(r->y + i * r->ldy, r->y2 + i * r->ldy2, r->dy + i * r->lddy, r->a + i * r->lda, r->b + i * r->ldb,
                    r->dim);
}

void op_swiglu_dx(queue *q, float *da, int64_t ldda, float *db, int64_t lddb, const float *dy, int64_t lddy,
                  const float *a, int64_t lda, const float *b, int64_t ldb, int64_t n, int64_t dim) {
    rows r = {.row = swiglu_dx_row, .n = n, .dim = dim, .y = da, .ldy = ldda, .y2 = db, .ldy2 = lddb, .dy = dy};
    r.lddy = lddy, r.a = a, r.lda = lda, r.b = b, r.ldb = ldb;
    run_rows(q, &r, 3 * dim);
}

static void rope_dx_row(const rows *r, int64_t i) {
    const float *angles = r->table + r->index[i] * r->dim;
    for (int64_t h = 0; h < r->heads; h++)
        r->m->rope_dx(r->y + i * r->ldy + h * r->head_stride, r->dim, angles, r->interleaved);
}

void op_rope_dx(queue *q, float *dx, int64_t lddx, int64_t n, int64_t heads, int64_t head_stride, int64_t dim,
                const float *table, const int32_t *pos, bool interleaved) {
    rows r = {.row = rope_dx_row, .n = n, .dim = dim, .y = dx, .ldy = lddx, .table = table, .index = pos};
    r.heads = heads, r.head_stride = head_stride, r.interleaved = interleaved;
    run_rows(q, &r, heads * dim);
}

static void cross_entropy_row(const rows *r, int64_t i) {
    r->loss[i] = r->m->cross_entropy(r->y + i * r->ldy, r->index[i], r->dim, r->scale, r->best ? r->best + i : NULL);
}

void op_cross_entropy(queue *q, float *z, int64_t ldz, const int32_t *target, int64_t n, int64_t vocab, float scale,
                      float *loss, int32_t *best) {
    rows r = {.row = cross_entropy_row, .n = n, .dim = vocab, .y = z, .ldy = ldz, .index = target, .scale = scale};
    r.loss = loss, r.best = best;
    run_rows(q, &r, 4 * vocab);
}

/* --- embedding ---------------------------------------------------------------------------------------------------- */

typedef struct embedding_call {
    const attn_micro *m;
    float *dw;
    const int32_t *ids;
    const float *dh;
    int64_t lddh, n, dim;
} embedding_call;

/* A task has columns of its own: an id's rows are added in order, however often it occurs. */
static void embedding_columns(void *arg, int64_t task, int thread) {
    (void)thread;
    const embedding_call *c = arg;
    const int64_t from = task * COLUMNS, n = c->dim - from < COLUMNS ? c->dim - from : COLUMNS;
    for (int64_t t = 0; t < c->n; t++)
        if (c->ids[t] >= 0) c->m->add(c->dw + c->ids[t] * c->dim + from, c->dh + t * c->lddh + from, n);
}

void op_embedding_dw(queue *q, float *dw, const int32_t *ids, const float *dh, int64_t lddh, int64_t n, int64_t dim) {
    embedding_call c = {.m = q->attn, .dw = dw, .ids = ids, .dh = dh, .lddh = lddh, .n = n, .dim = dim};
    run(q, (dim + COLUMNS - 1) / COLUMNS, embedding_columns, &c);
}
