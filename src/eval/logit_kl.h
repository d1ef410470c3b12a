/* Are our logits those of another implementation? The other one's are in a file of JSON lines, as MaxText's
 * generate_hf_golden_logits writes it:
 *
 *   {"prompt": "I love to", "tokens": [0, 40, 3021, 304], "logits": [[-1.4, ...], ...]}
 *
 * logits[i] follows tokens[0 .. i]; the file's lines may be of any length. A line without "tokens" has its
 * "formatted_prompt" tokenized (special tokens in it are recognised, nothing is added), or else its "prompt" (BOS is
 * added as the tokenizer does). Other members are ignored.
 *
 * For every row, with p the other's and q our distribution after softmax: KL(p || q) = sum_v p_v (log p_v - log q_v). A
 * prompt passes when the mean over its rows is at most the limit. */
#ifndef HADAL_EVAL_LOGIT_KL_H
#define HADAL_EVAL_LOGIT_KL_H

#include "base/str.h"
#include "infer/session.h"
#include "text/tokenizer.h"

/* KL(p || q) of two rows of n logits, in nats; NaN when a row has no finite maximum. */
double logit_kl(const float *golden, const float *ours, int64_t n);

typedef struct logit_difference { /* over rows */
    int64_t rows, same_best;      /* rows whose most likely token agrees */
    double kl_sum, kl_max, max;   /* max: largest difference of two logits */
} logit_difference;
void logit_difference_add(logit_difference *d, const float *golden, const float *ours, int64_t n);

/* t: for lines without tokens; may be NULL. `line` (may be NULL) gets for every line a JSON object of "line", "prompt"
 * (its first characters), "tokens", "mean_kl", "max_kl", "max_difference", "top1_agreement", "pass". summary: the same
 * over all lines, with "prompts" and "limit". A line that is damaged or does not fit the model is an error that says
 * its number. */
status logit_kl_check(engine *g, const tokenizer *t, const char *golden, double max_kl,
                      void (*line)(void *arg, const char *json), void *arg, str *summary, error *e);

#endif
