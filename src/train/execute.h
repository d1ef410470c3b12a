/* One micro-batch forward and backward: embedding, blocks, MTP modules, heads and losses, and the whole way back, with
 * gradients added into the gradient model. Whose weights they are, how steps are made of micro-batches and what the
 * optimizer does is not known here. */
#ifndef HADAL_TRAIN_EXECUTE_H
#define HADAL_TRAIN_EXECUTE_H

#include "data/batch.h"
#include "model/model.h"
#include "train/config.h"

typedef struct executor executor;

/* m: weights; g: gradients of the same configuration (params_model). q: its rows go the way of many. ep: the ranks that
 * share the experts, NULL: this one has all. All borrowed. */
status executor_open(executor **out, const model *m, const model *g, queue *q, comm *ep, const train_config *c,
                     error *e);
void executor_close(executor *x); /* accepts NULL */

enum { MOST_MTP = 8 };

/* A loss of log-probabilities instead of the cross-entropy: of policies, of distillation. It sees every row that has a
 * target, in order, once per micro-batch. */
typedef struct token_loss {
    real temperature; /* of softmax(logits / temperature) */
    bool mean;        /* what apply says is multiplied by step_goal.language_model: 1 / (targets of the step) */
    int k;            /* tokens whose log-probabilities are wanted in each row; 1: the target */
    status (*begin)(void *arg, const token_batch *b, error *e); /* before all else of a batch; NULL: nothing to do */
    /* k > 1: the tokens of row `row` of the batch, -1: none */
    void (*wanted)(void *arg, const token_batch *b, int64_t row, int32_t *ids);
    /* n rows, whose numbers in the batch are row[0 .. n): from logp [n][k], entropy [n] and, when gradients are wanted,
     * d [n][k] = dL / dlogp, else d is NULL. Adds to *loss. */
    status (*apply)(void *arg, const token_batch *b, int64_t n, const int64_t *row, const real *logp,
                    const real *entropy, real *d, double *loss, error *e);
    void *arg;
} token_loss;

/* What each term of the loss is multiplied by: 1 / (what the step averages over) times the term's weight. */
typedef struct step_goal {
    real language_model; /* of each target's cross-entropy */
    real mtp[MOST_MTP];  /* of each target of MTP depth d + 1 */
    objective parts;
    const token_loss *judge; /* NULL: cross-entropy, times language_model */
} step_goal;

/* Sums over the micro-batches since they were zeroed. */
typedef struct step_sums {
    double language_model, mtp[MOST_MTP]; /* cross-entropy, natural logarithms; or what the judge says */
    int64_t targets, mtp_targets[MOST_MTP];
    int64_t drafts,
        accepted;       /* tokens that both the main model and MTP depth 1 predict; where their first choices agree */
    layer_stats *layer; /* [num_hidden_layers + MTP layers]; load NULL where there are no experts */
} step_sums;

/* How many targets each MTP depth has in a batch: what step_goal.mtp is divided by. */
int64_t mtp_targets(const token_batch *b, int depth);

/* Adds the batch's losses to *sums and, when `gradients`, its gradients to the gradient model. */
status execute(executor *x, const token_batch *b, const step_goal *goal, bool gradients, step_sums *sums, error *e);

/* Logits of all rows, [n][vocab_size]; goal->parts says how parts run. */
status executor_logits(executor *x, const token_batch *b, const step_goal *goal, real *logits, error *e);

/* Sums with loads for this model, zeroed; freed with free_sums. */
status open_sums(step_sums *out, const model_config *c, error *e);
void zero_sums(step_sums *s, const model_config *c);
void free_sums(step_sums *s);

#endif
