/* Element-wise work of the optimizer: one pass over memory, whose speed is all that counts. Work is cut by the sizes
 * alone, so that sums do not depend on the number of threads. */
#include <math.h>
#include "kernels/attn_micro.h"
#include "kernels/queue.h"
#include "kernels/train_ops.h"

enum { PIECE = 32768 }; /* numbers of a task */

static int64_t pieces(int64_t n) {
    return (n + PIECE - 1) / PIECE;
}

typedef struct adamw_call {
    const attn_micro *m;
    const adamw_step *list;
    const adamw_factors *factors;
    const int64_t *end; /* of each entry's tasks */
    int count;
} adamw_call;

static void adamw_piece(void *arg, int64_t task, int thread) {
    (void)thread;
    const adamw_call *c = arg;
    int k = 0;
    for (int last = c->count - 1; k < last;) { /* the first entry that ends behind the task */
        int middle = k + (last - k) / 2;
        if (c->end[middle] > task) last = middle;
        else k = middle + 1;
    }
    const adamw_step *s = &c->list[k];
    const int64_t from = (task - (k ? c->end[k - 1] : 0)) * PIECE, n = s->n - from < PIECE ? s->n - from : PIECE;
    const size_t skip = (size_t)from * dtype_size(s->moments);
    c->m->adamw(s->w + from, s->g + from, (char *)s->m + skip, (char *)s->v + skip, s->moments, n, &c->factors[k]);
}

static adamw_factors factors_of(const adamw_step *s) {
    return (adamw_factors){.scale = (float)s->grad_scale,
                           .beta1 = (float)s->beta1,
                           .grad1 = (float)(1 - s->beta1),
                           .beta2 = (float)s->beta2,
                           .grad2 = (float)(1 - s->beta2),
                           .keep = (float)(1 - s->lr * s->decay),
                           .rate = (float)(s->lr / s->correction1),
                           .root = (float)(1 / sqrt(s->correction2)),
                           .eps = (float)s->eps};
}

void op_adamw(queue *q, const adamw_step *list, int count) {
    char *scratch = queue_scratch(q, SLOT_OPTIMIZER, (size_t)count * (sizeof(int64_t) + sizeof(adamw_factors)));
    if (!scratch || count <= 0) return;
    int64_t *end = (int64_t *)(void *)scratch, tasks = 0;
    adamw_factors *factors = (adamw_factors *)(void *)(end + count);
    for (int i = 0; i < count; i++) {
        end[i] = tasks += pieces(list[i].n);
        factors[i] = factors_of(&list[i]);
    }
    pool_run(q->pool, tasks, adamw_piece, &(adamw_call){q->attn, list, factors, end, count});
}

typedef struct squares_call {
    const attn_micro *m;
    const float *x;
    int64_t n;
    double *sum; /* of each piece */
} squares_call;

static void squares_piece(void *arg, int64_t task, int thread) {
    (void)thread;
    const squares_call *c = arg;
    const int64_t from = task * PIECE;
    c->sum[task] = c->m->sum_squares(c->x + from, c->n - from < PIECE ? c->n - from : PIECE);
}

double op_sum_squares(queue *q, const float *x, int64_t n) {
    const int64_t tasks = pieces(n);
    double *sum = queue_scratch(q, SLOT_OPTIMIZER, (size_t)tasks * sizeof *sum), total = 0;
    if (!sum) return 0;
    pool_run(q->pool, tasks, squares_piece, &(squares_call){q->attn, x, n, sum});
    for (int64_t i = 0; i < tasks; i++) total += sum[i];
    return total;
}
