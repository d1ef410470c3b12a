#include "train/muon.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 32 }; /* rows of a task */

typedef struct work {
    const muon_shape *shape;
    const muon_step *list;
    int64_t s, l; /* shorter and longer side: X is [s][l], the transpose of a tall matrix */
    bool tall;
    struct {
        float *x, *y, *a, *b; /* [s][l] twice, [s][s] twice */
        float scale;
    } at[MUON_MOST];
} work;

bool muon_takes(const param *p) {
    if (p->ndim != 2 || p->layer < 0 || p->buffer) return false;
    return !strstr(p->name, "embed_tokens.") && !strstr(p->name, ".shared_head.head.") &&
           !strstr(p->name, ".mlp.gate.");
}

size_t muon_scratch(int64_t rows, int64_t cols) {
    int64_t s = rows < cols ? rows : cols;
    return (size_t)(2 * rows * cols + 2 * s * s);
}

static int64_t blocks(int64_t rows) {
    return (rows + BLOCK - 1) / BLOCK;
}

/* The matrix and the rows first .. end-1 of a task, where every matrix has n rows. */
static int matrix_of(int64_t task, int64_t n, int64_t *first, int64_t *end) {
    *first = task % blocks(n) * BLOCK;
    *end = *first + BLOCK < n ? *first + BLOCK : n;
    return (int)(task / blocks(n));
}

/* Momentum, and X = u. */
static void gather(void *arg, int64_t task, int thread) {
    (void)thread;
    const work *k = arg;
    const muon_shape *p = k->shape;
    const float mu = (float)p->momentum, scale = (float)p->grad_scale;
    int64_t first, end;
    const int i = matrix_of(task, p->rows, &first, &end);
    const float *grad = k->list[i].g;
    float *x = k->at[i].x, *m32 = k->list[i].m;
    uint16_t *m16 = k->list[i].m;
    for (int64_t r = first; r < end; r++)
        for (int64_t c = 0; c < p->cols; c++) {
            const int64_t j = r * p->cols + c;
            const float g = grad[j] * scale, m = mu * (p->moments == DT_BF16 ? bf16_to_f32(m16[j]) : m32[j]) + g;
            if (p->moments == DT_BF16) m16[j] = f32_to_bf16(m);
            else m32[j] = m;
            x[k->tall ? c * p->rows + r : j] = mu * m + g;
        }
}

static void normalise(void *arg, int64_t task, int thread) {
    (void)thread;
    const work *k = arg;
    int64_t first, end;
    const int i = matrix_of(task, k->s, &first, &end);
    float *x = k->at[i].x;
    for (int64_t j = first * k->l; j < end * k->l; j++) x[j] *= k->at[i].scale;
}

/* B holds A A: B = 3.4445 I - 4.7750 A + 2.0315 A A, so that the next X is B X. */
static void polynomial(void *arg, int64_t task, int thread) {
    (void)thread;
    const work *k = arg;
    int64_t first, end;
    const int i = matrix_of(task, k->s, &first, &end);
    const float *a = k->at[i].a;
    float *b = k->at[i].b;
    for (int64_t j = first * k->s; j < end * k->s; j++) b[j] = 2.0315f * b[j] - 4.7750f * a[j];
    for (int64_t r = first; r < end; r++) b[r * k->s + r] += 3.4445f;
}

static void apply(void *arg, int64_t task, int thread) {
    (void)thread;
    const work *k = arg;
    const muon_shape *p = k->shape;
    int64_t first, end;
    const int i = matrix_of(task, p->rows, &first, &end);
    const float keep = (float)(1 - k->list[i].lr * k->list[i].decay);
    const float rate = (float)(k->list[i].lr * 0.2 * sqrt((double)k->l));
    const float *x = k->at[i].x;
    float *w = k->list[i].w;
    for (int64_t r = first; r < end; r++)
        for (int64_t c = 0; c < p->cols; c++) {
            const int64_t j = r * p->cols + c;
            w[j] = w[j] * keep - rate * x[k->tall ? c * p->rows + r : j];
        }
}

static void newton_schulz(queue *q, work *k, int count) {
    product list[MUON_MOST];
    tensor w[MUON_MOST];
    for (int i = 0; i < count; i++) { /* A = X X' */
        w[i] = (tensor){.data = k->at[i].x, .type = DT_F32, .ndim = 2, .dim = {k->s, k->l}};
        list[i] = (product){.w = &w[i],
                            .x = k->at[i].x,
                            .ldx = k->l,
                            .y = k->at[i].a,
                            .ldy = k->s,
                            .n = k->s,
                            .y_type = DT_F32,
                            .f32 = true};
    }
    op_linear(q, list, count);
    for (int i = 0; i < count; i++) { /* B = A A' = A A */
        w[i] = (tensor){.data = k->at[i].a, .type = DT_F32, .ndim = 2, .dim = {k->s, k->s}};
        list[i].x = k->at[i].a;
        list[i].ldx = k->s;
        list[i].y = k->at[i].b;
    }
    op_linear(q, list, count);
    queue_run(q, count * blocks(k->s), polynomial, k);
    product_dx back[MUON_MOST];
    for (int i = 0; i < count; i++) { /* Y = B X */
        w[i] = (tensor){.data = k->at[i].x, .type = DT_F32, .ndim = 2, .dim = {k->s, k->l}};
        back[i] = (product_dx){
            .w = &w[i], .dy = k->at[i].b, .lddy = k->s, .dx = k->at[i].y, .lddx = k->l, .n = k->s, .f32 = true};
    }
    op_linear_dx(q, back, count);
    for (int i = 0; i < count; i++) {
        float *x = k->at[i].x;
        k->at[i].x = k->at[i].y;
        k->at[i].y = x;
    }
}

void muon_update(queue *q, const muon_shape *shape, const muon_step *list, int count, float *scratch) {
    work k = {.shape = shape, .list = list, .tall = shape->rows > shape->cols};
    k.s = k.tall ? shape->cols : shape->rows;
    k.l = k.tall ? shape->rows : shape->cols;
    for (int i = 0; i < count; i++) {
        k.at[i].x = scratch + (size_t)i * muon_scratch(shape->rows, shape->cols);
        k.at[i].y = k.at[i].x + k.s * k.l;
        k.at[i].a = k.at[i].y + k.s * k.l;
        k.at[i].b = k.at[i].a + k.s * k.s;
    }
    queue_run(q, count * blocks(shape->rows), gather, &k);
    for (int i = 0; i < count; i++) k.at[i].scale = (float)(1 / (sqrt(op_sum_squares(q, k.at[i].x, k.s * k.l)) + 1e-7));
    queue_run(q, count * blocks(k.s), normalise, &k);
    for (int i = 0; i < shape->iterations; i++) newton_schulz(q, &k, count);
    queue_run(q, count * blocks(shape->rows), apply, &k);
}
