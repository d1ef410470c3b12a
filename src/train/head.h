/* The head: logits of rows, a loss of them, and the way back, some hundred rows of logits at a time. All logits are
 * never held at once. */
#ifndef HADAL_TRAIN_HEAD_H
#define HADAL_TRAIN_HEAD_H

#include "train/execute.h"

typedef struct head_call {
    queue *q;
    arena *mem;
    const tensor *w, *dw; /* [vocab][hidden]; dw's data NULL: not wanted */
    const real *y;        /* [n][hidden] */
    real *dy;             /* the same: added to */
    int64_t n;
    const int32_t *target; /* [n], -1: the row has none */
    int32_t *best;         /* [n]: the largest logit of each row with a target, else -1 */
    real factor;           /* of each cross-entropy */
    bool f32, gradients;
    error *e;
} head_call;

/* Sum of -log softmax(w y)[target]; gradients times `factor`. */
status head_cross_entropy(const head_call *c, double *loss, int64_t *targets);

/* A loss that needs the log-probabilities of all rows before it can say any gradient. Logits are computed a second time
 * for the way back, unless they are few enough to be kept. */
status head_judged(const head_call *c, const token_loss *judge, const token_batch *b, double *loss, int64_t *targets);

#endif
