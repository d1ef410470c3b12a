/* Answers to a list of prompts: all of them through a scheduler, with a limited number of sequences at once. A prompt
 * is computed once for all its samples, and what prompts have in common as far as pages go. Rollouts and evaluations.
 */
#ifndef HADAL_INFER_ANSWERS_H
#define HADAL_INFER_ANSWERS_H

#include "infer/generate.h"

typedef struct answer_request {
    const int32_t *prompt; /* borrowed until the call is over */
    int64_t n;             /* tokens of it, at least 1 */
    int samples;           /* answers wanted, at least 1 */
    int64_t max_tokens;    /* of each; 0: until capacity */
    uint64_t seed; /* token t of sample k is drawn with rng(seed, k, t): a pure function of the logits and these */
} answer_request;

typedef struct answer { /* one sample; freed by answers_run after `done` returned, unless that took ids or logprobs (set
                           them NULL) */
    int32_t *ids;       /* [n], the end token included when there is one */
    float *logprobs;    /* [n] log-probability of each under the distribution it was drawn from, before top-k, top-p and
                           min-p: softmax(logits / temperature); greedy: temperature 1 */
    int64_t n;
    finish finish;
    int64_t draft_proposed, draft_accepted;
} answer;

typedef struct answer_options {
    sampling sampling; /* its seed is not used */
    const int32_t *eos;
    int n_eos;
    const char *const *stop; /* stop texts: needs the tokenizer; tokens of the stop text stay in ids */
    int n_stop;
    const tokenizer *tokenizer;
    int64_t capacity; /* tokens that a sequence may have, prompt included; a longer prompt is ERR_ARG (its number is
                         said) */
    int sequences;    /* at once, at least 1 */
    int drafts;       /* MTP drafts a step, 0: off; greedy answers do not change by them, sampled ones stay distributed
                         as without (Leviathan et al. 2023: here a draft counts when it is what would have been drawn) */
    status (*done)(void *arg, int64_t request, int sample, answer *a, error *e); /* in the order in which they end */
    bool (*progress)(void *arg, int64_t answers, int64_t total,
                     int64_t tokens); /* once a step; false: ERR_CANCELLED; NULL */
    void *arg;
} answer_options;

status answers_run(engine *g, const answer_request *list, int64_t n, const answer_options *o, error *e);

#endif
