/* Completions as batches of the trainer, and the policy's loss as its judge. Documents are prompt and completion
 * without the last token, back to back without padding; the targets are the completion's tokens. */
#ifndef HADAL_POST_POLICY_H
#define HADAL_POST_POLICY_H

#include "post/loss.h"
#include "post/rollout.h"
#include "train/trainer.h"

typedef struct policy_item { /* a completion to learn from */
    const int32_t *prompt, *ids;
    int64_t n_prompt, n;
    double advantage;
    const float *old;  /* [n] */
    float *ref;        /* [n]: written by policy_reference; NULL: no reference */
    const float *mask; /* [n], NULL: all tokens count */
} policy_item;

typedef struct policy_numbers { /* of an optimizer step */
    policy_stats stats;
    double entropy;              /* sum over tokens */
    double drift_max, drift_sum; /* |log-probability now - when drawn| */
    double error_sum;            /* exp of it (NeMo RL's token_mult_prob_error is its mean) */
    double drawn_tokens;         /* tokens behind the last three */
} policy_numbers;

typedef struct policy policy; /* buffers */

/* temperature: of the rollouts. Completions are cut into micro-batches of `micro` (0: of some thousand tokens). */
status policy_open(policy **out, const policy_loss_options *o, double temperature, int64_t micro, error *e);
void policy_close(policy *p);

/* Batches are laid out for this trainer from now on. If it takes trees (data/batch.h), neighbours with the same prompt
 * are one, so that the prompt is computed once for all of them; micro-batches of tokens get the size that suits its
 * weights. Losses and gradients are the same but for the rounding of sums. */
void policy_fit(policy *p, const trainer *t);

/* The micro-batches of these completions with the loss as judge, borrowed until the next call. tokens, sequences: what
 * losses are averaged over. *numbers is zeroed and then added to. */
status policy_source(policy *p, const policy_item *list, int64_t n, double tokens, double sequences,
                     policy_numbers *numbers, batch_source *out, error *e);

/* Writes log-probabilities of the weights w (trainer_loss_of) into every item's `ref`. */
status policy_reference(policy *p, trainer *t, const real *w, const policy_item *list, int64_t n, error *e);

/* Micro-batches for any judge of completions: row by row the targets of all items, in order. */
typedef struct completion_judge {
    /* tokens of the items first .. end-1, as policy_loss wants them */
    status (*apply)(void *arg, int64_t first, int64_t end, const int64_t *at, const real *logp, const real *entropy,
                    real *d, double *loss, error *e);
    void *arg;
} completion_judge;
/* unit: neighbours that stay together in a micro-batch. */
status policy_batches(policy *p, const policy_item *list, int64_t n, int64_t unit, const completion_judge *judge,
                      batch_source *out, error *e);

#endif
