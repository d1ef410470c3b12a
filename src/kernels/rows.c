/* Operations on rows. A row is computed by one call of an inner kernel, whoever makes the call: so results depend
 * neither on the number of threads nor on the other rows. Small work runs on the calling thread, since waking the
 * others costs more than it saves. */
#include "kernels/attn_micro.h"
#include "kernels/queue.h"

enum { ROWS_WORK = 32768 }; /* numbers in a task: about ten microseconds */

typedef struct rows {
    const attn_micro *m;
    void (*row)(const struct rows *r, int64_t i);
    int64_t n, rows_per_task;
    float *y;
    const float *a, *b, *w, *bias;
    int64_t ldy, lda, ldb, dim;
    float eps;
    int64_t heads, head_stride;
    const int32_t *pos;
    bool interleaved;
} rows;

static void run_task(void *arg, int64_t task, int thread) {
    (void)thread;
    const rows *r = arg;
    int64_t first = task * r->rows_per_task, end = first + r->rows_per_task;
    for (int64_t i = first; i < end && i < r->n; i++) r->row(r, i);
}

static void run(queue *q, rows *r, int64_t numbers_per_row) {
    r->m = q->attn;
    r->rows_per_task = 1 + ROWS_WORK / (numbers_per_row + 1);
    int64_t tasks = (r->n + r->rows_per_task - 1) / r->rows_per_task;
    if (tasks > 1) {
        pool_run(q->pool, tasks, run_task, r);
    } else {
        run_task(r, 0, 0);
    }
}

static void rmsnorm_row(const rows *r, int64_t i) {
    r->m->rmsnorm(r->y + i * r->ldy, r->a + i * r->lda, r->w, r->dim, r->eps);
}

void op_rmsnorm(queue *q, float *y, int64_t ldy, const float *x, int64_t ldx, const float *w, int64_t n, int64_t dim,
                float eps) {
    rows r = {.row = rmsnorm_row, .n = n, .y = y, .ldy = ldy, .a = x, .lda = ldx, .w = w, .dim = dim, .eps = eps};
    run(q, &r, dim);
}

static void layernorm_row(const rows *r, int64_t i) {
    r->m->layernorm(r->y + i * r->ldy, r->a + i * r->lda, r->w, r->bias, r->dim, r->eps);
}

void op_layernorm(queue *q, float *y, int64_t ldy, const float *x, int64_t ldx, const float *w, const float *b,
                  int64_t n, int64_t dim, float eps) {
    rows r = {.row = layernorm_row, .n = n, .y = y, .ldy = ldy, .a = x, .lda = ldx, .w = w, .bias = b, .dim = dim};
    r.eps = eps;
    run(q, &r, dim);
}

static void swiglu_row(const rows *r, int64_t i) {
    r->m->swiglu(r->y + i * r->ldy, r->a + i * r->lda, r->b + i * r->ldb, r->dim);
}

void op_swiglu(queue *q, float *y, int64_t ldy, const float *a, int64_t lda, const float *b, int64_t ldb, int64_t n,
               int64_t dim) {
    rows r = {.row = swiglu_row, .n = n, .y = y, .ldy = ldy, .a = a, .lda = lda, .b = b, .ldb = ldb, .dim = dim};
    run(q, &r, 2 * dim);
}

static void add_row(const rows *r, int64_t i) {
    r->m->add(r->y + i * r->ldy, r->a + i * r->lda, r->dim);
}

void op_add(queue *q, float *y, int64_t ldy, const float *x, int64_t ldx, int64_t n, int64_t dim) {
    rows r = {.row = add_row, .n = n, .y = y, .ldy = ldy, .a = x, .lda = ldx, .dim = dim};
    run(q, &r, dim);
}

static void rope_row(const rows *r, int64_t i) {
    const float *angles = r->w + r->pos[i] * r->dim;
    for (int64_t h = 0; h < r->heads; h++)
        r->m->rope(r->y + i * r->ldy + h * r->head_stride, r->dim, angles, r->interleaved);
}

void op_rope(queue *q, float *x, int64_t ldx, int64_t n, int64_t heads, int64_t head_stride, int64_t dim,
             const float *table, const int32_t *pos, bool interleaved) {
    rows r = {.row = rope_row, .n = n, .y = x, .ldy = ldx, .w = table, .dim = dim, .pos = pos};
    r.heads = heads;
    r.head_stride = head_stride;
    r.interleaved = interleaved;
    run(q, &r, heads * dim);
}
