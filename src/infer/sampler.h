/* From logits to a token: penalties, temperature, top-k, top-p, min-p, and a random number that depends on the seed and
 * the token's place alone. */
#ifndef HADAL_INFER_SAMPLER_H
#define HADAL_INFER_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"

typedef struct sampling {
    float temperature;        /* 0: greedy */
    int top_k;                /* 0: off */
    float top_p, min_p;       /* 1 and 0: off */
    float repetition_penalty; /* 1: off */
    float presence_penalty, frequency_penalty;
    uint64_t seed;
} sampling;

/* Finite and in range, or one sentence. */
status sampling_check(const sampling *o, error *e);

typedef struct sampler sampler; /* buffers for one vocabulary; one thread at a time */
status sampler_open(sampler **out, int64_t vocab, error *e);
void sampler_close(sampler *s);

/* Chooses the token at place `position` of the answer number `sequence`. history: prompt and answer so far (n tokens,
 * of which the last n_answer are the answer). logits are not changed. */
int32_t sampler_choose(sampler *s, const sampling *o, const float *logits, const int32_t *history, int64_t n,
                       int64_t n_answer, uint64_t sequence, uint64_t position);

/* The same token, and in *logprob its log-probability under softmax(logits / temperature) (greedy: temperature 1),
 * before penalties, top-k, top-p and min-p: what a policy's update compares with. Without these filters both take one
 * pass. */
int32_t sampler_draw(sampler *s, const sampling *o, const float *logits, const int32_t *history, int64_t n,
                     int64_t n_answer, uint64_t sequence, uint64_t position, float *logprob);

/* Natural logarithm of the probability of `token`, and of the `n_top` most likely tokens (most likely first, of equal
 * ones the lower id), before temperature and penalties. */
float sampler_logprobs(sampler *s, const float *logits, int32_t token, int n_top, int32_t *top_ids,
                       float *top_logprobs);

#endif
