/* The mathematics of post-training over plain arrays: advantages of groups, losses of policies, of distillation, of
 * preferences, each with its gradient with respect to the log-probabilities. The model is not known here: the head
 * hands over log-probabilities and takes the gradients (train/execute.h). */
#ifndef HADAL_POST_LOSS_H
#define HADAL_POST_LOSS_H

#include <stdbool.h>
#include <stdint.h>
#include "tensor/real.h"
#include "train/config.h"

/* --- advantages (post/advantage.c) -----------------------------------------------------------------------------------
 */

/* Groups are `group` neighbours, the last one what is left. Rewards that are not finite (NaN: there is none) take no
 * part and get advantage 0, and so does a completion that has nothing to be compared with; equal rewards give exactly 0
 * (but ADVANTAGE_REWARD). kind: config.h says what each means and whose it is. */
void advantages(advantage_kind kind, const double *reward, int64_t n, int64_t group, double *out);

/* --- policies (post/policy_loss.c) -----------------------------------------------------------------------------------
 */

typedef struct policy_loss_options { /* from train_config.grpo */
    policy_loss_kind kind;
    double clip_low, clip_high; /* ratio in [1 - low, 1 + high]; a low of 1 is no lower bound (TRL's cispo) */
    double dual_clip;           /* c > 1: for A < 0 the loss is at most -c A; 0: off; not for cispo, reinforce */
    double kl_beta;
    kl_kind kl;
    bool kl_on_policy;      /* NeMo: KL times exp(logp - sg(logp)), so that the score-function gradient is in it;
                               the log-ratio clamped to +-20, the KL to +-10 */
    int64_t max_completion; /* dr_grpo's divisor */
} policy_loss_options;

typedef struct policy_batch { /* completions of a micro-batch */
    int64_t n_seq;
    const int64_t *first;    /* [n_seq + 1]: tokens of completion s are first[s] .. first[s+1]-1 */
    const real *logp;        /* of the policy now; [tokens] */
    const float *old, *ref;  /* when they were drawn (NULL: the policy is still the same, ratio 1); of the reference
                                (NULL: kl_beta is 0) */
    const float *mask;       /* 0: the token does not count; NULL: all do */
    const double *advantage; /* [n_seq] */
    /* That count in the whole optimizer step, all micro-batches together; for bnpo the tokens of this one, times the
     * micro-batches of the step. */
    double tokens, sequences;
} policy_batch;

typedef struct policy_stats { /* sums; divide by tokens */
    double loss;              /* the value that was minimised: sums up over micro-batches */
    double tokens, kl, ratio, clipped_low, clipped_high;
    double ratio_max, ratio_min; /* extremes */
} policy_stats;

/* d: [tokens], gradient of the loss with respect to logp, set. Adds to *s. token_loss, token_ratio, token_kl: [tokens]
 * or NULL, each token's own before aggregation. */
void policy_loss(const policy_loss_options *o, const policy_batch *b, real *d, policy_stats *s, real *token_loss,
                 real *token_ratio, real *token_kl);

/* --- distillation (post/distill_loss.c) ------------------------------------------------------------------------------
 */

/* One row: teacher's and student's log-probabilities of the same k tokens (teacher's most likely). forward: sum p
 * log(p/q); reverse: sum q log(q/p); mixed: weight * forward + (1 - weight) * reverse. The mass outside the k counts as
 * one more outcome when `rest` (else p and q are renormalised over the k). Returns the loss; d: [k] gradient with
 * respect to q_log. */
double distill_loss(distill_kind kind, double weight, bool rest, const float *p_log, const real *q_log, int k, real *d);

/* --- preferences (post/dpo_loss.c) -----------------------------------------------------------------------------------
 */

typedef struct dpo_pair { /* sums of log-probabilities over a completion's tokens */
    double chosen, rejected, ref_chosen, ref_rejected;
    int64_t chosen_tokens, rejected_tokens;
} dpo_pair;
/* -log sigmoid(beta (r_w - r_l)) + sft * NLL(chosen) / chosen_tokens, r = sum of (logp - ref), or its mean when
 * `average` (Rafailov et al. 2023, eq. 7). d_chosen, d_rejected: gradient for every token's logp. margin: r_w - r_l
 * (times beta). */
double dpo_loss(double beta, double sft, bool average, const dpo_pair *p, double *d_chosen, double *d_rejected,
                double *margin);

#endif
