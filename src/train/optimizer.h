/* AdamW and Muon over this rank's share of the weights. */
#ifndef HADAL_TRAIN_OPTIMIZER_H
#define HADAL_TRAIN_OPTIMIZER_H

#include "kernels/train_ops.h"
#include "train/params.h"

typedef struct optimizer optimizer;

/* Moments for the weights list[first_param .. end_param) of p (whole weights: shares are cut between weights). */
status optimizer_open(optimizer **out, const train_config *c, const params *p, int64_t first_param, int64_t end_param,
                      error *e);
void optimizer_close(optimizer *o); /* accepts NULL */

/* One update with p->g * grad_scale as gradient, at learning rate lr; `step` counts updates from 1 (bias correction).
 * Buffers and weights that are not trainable stay as they are. */
status optimizer_step(optimizer *o, queue *q, params *p, int64_t step, double lr, double grad_scale, error *e);

/* For checkpoints: the moment arrays of weight i (first_param <= i < end_param), NULL when it has none. Muon's weights
 * have only the first. */
typedef struct moments {
    void *m, *v;
    dtype type;
} moments;
moments optimizer_moments(optimizer *o, int64_t i);

#endif
