/* One rank of a training: its weights, gradients and optimizer, and a step over the whole batch. Data, files and the
 * order of steps are run.c's. */
#ifndef HADAL_TRAIN_TRAINER_H
#define HADAL_TRAIN_TRAINER_H

#include "comm/mesh.h"
#include "train/execute.h"
#include "train/metrics.h"
#include "train/optimizer.h"
#include "train/params.h"

typedef struct shard { /* weights first .. end-1 of params.list: this rank's share of a group's */
    int64_t first, end;
} shard;

typedef struct trainer {
    const train_config *cfg;
    model_config model;
    mesh net;
    queue *q;
    params p;
    struct lora *lora; /* NULL: none */
    model *m, *g;      /* over p.w and p.g */
    executor *x;
    shard share[2];          /* of the weights that all ranks hold, and of the routed experts: what it saves; adapters
                                are the first rank's */
    int64_t *cut[2];         /* where each rank's share of them begins in its half of the flat arrays */
    optimizer *optimizer[2]; /* of trainer_owned */
    step_sums sums;
    layer_load *layers;                 /* of the step metrics */
    double flops_per_token, peak_flops; /* forward and backward; of all ranks' threads, NaN: not known */
    /* state that a checkpoint holds */
    int64_t step, updates; /* steps done; those that were not skipped */
    double tokens, rows;   /* seen */
    double norm_mean;      /* running mean of the gradient norm, for spikes */
} trainer;

/* c and world live as long as the trainer. Weights are zero: params_load or params_init fills t->p, then trainer_ready
 * makes all that depends on them (adapters, optimizers). */
status trainer_open(trainer *out, const train_config *c, const model_config *m, comm *world, error *e);
status trainer_ready(trainer *t, error *e);
void trainer_close(trainer *t); /* accepts a zeroed one */

/* Where a step's micro-batches come from: number `micro` of this rank; asked for twice in the same order. */
typedef struct batch_source {
    status (*get)(void *arg, int64_t micro, token_batch *out, error *e);
    void *arg;
    int64_t count;
    const token_loss *judge; /* NULL: cross-entropy of the targets */
} batch_source;

/* One optimizer step over all micro-batches of all ranks: gradients, clipping, update, router bias.
 * out->validation_loss is left to the caller. A step whose loss or gradients are not finite, or whose norm is a spike,
 * changes no weight and is reported as skipped. */
status trainer_step(trainer *t, const batch_source *s, step_metrics *out, error *e);

/* Its two halves, without the counting of steps: gradients of the whole step in p.g (in this rank's shares, when there
 * are several ranks) and its losses; update with them. */
status trainer_gradients(trainer *t, const batch_source *s, step_metrics *out, error *e);
status trainer_update(trainer *t, step_metrics *out, error *e);

/* Trees (data/batch.h) are not told from their documents laid out one by one: no term of the loss and no balancing
 * counts the tokens of documents other than by their targets. */
bool trainer_takes_trees(const trainer *t);

/* Mean cross-entropy of the main model over batches, nothing changed; with a judge, the sum of what it says. */
status trainer_loss(trainer *t, const batch_source *s, double *loss, error *e);

/* The same with other weights of the same model, such as a reference's (laid out like t->p.w; NULL: this trainer's
 * without its adapters). */
status trainer_loss_of(trainer *t, const real *w, const batch_source *s, double *loss, error *e);

/* t->m becomes the model as it is now, adapters included: for rollouts. */
void trainer_settle(trainer *t);

/* What is trained: the weights, or the adapters. */
params *trainer_params(trainer *t);

/* Weights that this rank's optimizers update: its shares (ZeRO-1), or all. */
shard trainer_owned(const trainer *t, int half);

double balance_alpha(const train_config *c, const model_config *m); /* what "auto" means: V3 and V3.2 1e-4, else 0 */
double mtp_weight(const train_config *c, const model_config *m, int64_t step, double tokens);

#endif
