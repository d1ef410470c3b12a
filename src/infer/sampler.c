/* The order of the steps is that of transformers' generate: penalties, temperature, top-k, top-p, min-p. A penalty of
 * repetition divides positive and multiplies negative logits of tokens seen before (Keskar et al. 2019, 4.1); presence
 * and frequency penalties are subtracted once, and once per occurrence, for tokens of the answer (OpenAI API). */
#include "infer/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"

typedef struct candidate {
    float p;
    int32_t id;
} candidate;

struct sampler {
    int64_t vocab;
    float *logits;
    candidate *list;
    uint16_t *seen; /* occurrences in the answer while penalties are applied; zero between calls */
};

status sampling_check(const sampling *o, error *e) {
    if (!(o->temperature >= 0 && o->temperature <= 100))
        return fail(e, ERR_ARG, "temperature %g is outside 0..100", o->temperature);
    if (o->top_k < 0) return fail(e, ERR_ARG, "top-k %d is negative", o->top_k);
    if (!(o->top_p > 0 && o->top_p <= 1)) return fail(e, ERR_ARG, "top-p %g is outside 0..1", o->top_p);
    if (!(o->min_p >= 0 && o->min_p <= 1)) return fail(e, ERR_ARG, "min-p %g is outside 0..1", o->min_p);
    if (!(o->repetition_penalty > 0 && o->repetition_penalty <= 100))
        return fail(e, ERR_ARG, "repetition penalty %g should be positive", o->repetition_penalty);
    if (!(fabsf(o->presence_penalty) <= 100) || !(fabsf(o->frequency_penalty) <= 100))
        return fail(e, ERR_ARG, "presence and frequency penalties should be within -100..100");
    return OK;
}

status sampler_open(sampler **out, int64_t vocab, error *e) {
    sampler *s = calloc(1, sizeof *s);
    *out = s;
    if (s) {
        s->vocab = vocab;
        s->logits = malloc((size_t)vocab * sizeof *s->logits);
        s->list = malloc((size_t)vocab * sizeof *s->list);
        s->seen = calloc((size_t)vocab, sizeof *s->seen);
    }
    if (s && s->logits && s->list && s->seen) return OK;
    sampler_close(s);
    *out = NULL;
    return fail(e, ERR_NOMEM, "memory is out");
}

void sampler_close(sampler *s) {
    if (!s) return;
    free(s->logits);
    free(s->list);
    free(s->seen);
    free(s);
}

static void penalise(sampler *s, const sampling *o, const int32_t *history, int64_t n, int64_t n_answer) {
    const int32_t *answer = history + n - n_answer;
    if (o->repetition_penalty != 1) {
        for (int64_t i = 0; i < n; i++) {
            if (s->seen[history[i]]) continue;
            s->seen[history[i]] = 1;
            float *x = &s->logits[history[i]];
            *x = *x > 0 ? *x / o->repetition_penalty : *x * o->repetition_penalty;
        }
        for (int64_t i = 0; i < n; i++) s->seen[history[i]] = 0;
    }
    if (o->presence_penalty != 0 || o->frequency_penalty != 0) {
        for (int64_t i = 0; i < n_answer; i++)
            if (s->seen[answer[i]] < UINT16_MAX) s->seen[answer[i]]++;
        for (int64_t i = 0; i < n_answer; i++) {
            uint16_t times = s->seen[answer[i]];
            if (times) s->logits[answer[i]] -= o->presence_penalty + o->frequency_penalty * (float)times;
            s->seen[answer[i]] = 0;
        }
    }
}

static int32_t argmax(const float *x, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return (int32_t)best;
}

static int by_probability(const void *a, const void *b) { /* falling; of equal ones the lower id first */
    const candidate *x = a, *y = b;
    if (x->p != y->p) return x->p < y->p ? 1 : -1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Keeps in list the candidates with p >= at_least; returns how many. */
static int64_t keep(candidate *list, int64_t n, float at_least) {
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++)
        if (list[i].p >= at_least) list[kept++] = list[i];
    return kept;
}

/* The value of the k-th largest (1-based) of n numbers; x is reordered. */
static float kth_largest(float *x, int64_t n, int64_t k) {
    int64_t low = 0, high = n - 1, at = k - 1;
    while (low < high) {
        float pivot = x[low + (high - low) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (x[i] > pivot) i++;
            while (x[j] < pivot) j--;
            if (i <= j) {
                float t = x[i];
                x[i++] = x[j];
                x[j--] = t;
            }
        }
        if (at <= j) high = j;
        else if (at >= i) low = i;
        else break;
    }
    return x[at];
}

int32_t sampler_choose(sampler *s, const sampling *o, const float *logits, const int32_t *history, int64_t n,
                       int64_t n_answer, uint64_t sequence, uint64_t position) {
    memcpy(s->logits, logits, (size_t)s->vocab * sizeof *logits);
    penalise(s, o, history, n, n_answer);
    int32_t best = argmax(s->logits, s->vocab);
    if (o->temperature == 0 || o->top_k == 1) return best;

    float max = s->logits[best];
    double sum = 0;
    for (int64_t i = 0; i < s->vocab; i++) {
        float p = expf((s->logits[i] - max) / o->temperature); /* 1 for the most likely */
        s->list[i] = (candidate){p, (int32_t)i};
        sum += p;
    }
    int64_t left = s->vocab;
    if (o->top_k > 0 && o->top_k < left) {
        for (int64_t i = 0; i < left; i++) s->logits[i] = s->list[i].p;
        left = keep(s->list, left, kth_largest(s->logits, left, o->top_k));
        sum = 0;
        for (int64_t i = 0; i < left; i++) sum += s->list[i].p;
    }
    if (o->top_p < 1) {
        /* Tokens below (1 - top_p) / left of the mass sum to less than 1 - top_p: they cannot be in the nucleus, so
         * only the few others need sorting. */
        int64_t few = keep(s->list, left, (float)((1 - (double)o->top_p) * sum / (double)left));
        qsort(s->list, (size_t)few, sizeof *s->list, by_probability);
        double mass = 0;
        left = 0;
        while (left < few && (left == 0 || mass < (double)o->top_p * sum)) mass += s->list[left++].p;
    }
    if (o->min_p > 0) left = keep(s->list, left, o->min_p); /* relative to the most likely, whose p is 1 */
    sum = 0;
    for (int64_t i = 0; i < left; i++) sum += s->list[i].p;
    double at = rng_uniform(o->seed, sequence, position) * sum;
    for (int64_t i = 0; i < left; i++) {
        at -= s->list[i].p;
        if (at < 0) return s->list[i].id;
    }
    return left ? s->list[left - 1].id : best;
}

static bool plain(const sampling *o) {
    return o->top_k == 0 && o->top_p == 1 && o->min_p == 0 && o->repetition_penalty == 1 && o->presence_penalty == 0 &&
           o->frequency_penalty == 0;
}

/* sum_i exp((logits[i] - max) / temperature), the terms in p. */
static double weights(float *p, const float *logits, int64_t n, float max, float temperature) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += p[i] = expf((logits[i] - max) / temperature);
    return sum;
}

int32_t sampler_draw(sampler *s, const sampling *o, const float *logits, const int32_t *history, int64_t n,
                     int64_t n_answer, uint64_t sequence, uint64_t position, float *logprob) {
    const bool simple = plain(o), greedy = o->temperature == 0;
    const float temperature = greedy ? 1 : o->temperature;
    int32_t id =
        simple ? argmax(logits, s->vocab) : sampler_choose(s, o, logits, history, n, n_answer, sequence, position);
    const float max = simple ? logits[id] : logits[argmax(logits, s->vocab)];
    const double sum = weights(s->logits, logits, s->vocab, max, temperature);
    if (simple && !greedy) {
        double at = rng_uniform(o->seed, sequence, position) * sum;
        for (id = 0; id < s->vocab - 1 && (at -= s->logits[id]) >= 0;) id++;
    }
    *logprob = (float)(((double)logits[id] - max) / temperature - log(sum));
    return id;
}

float sampler_logprobs(sampler *s, const float *logits, int32_t token, int n_top, int32_t *top_ids,
                       float *top_logprobs) {
    float max = logits[argmax(logits, s->vocab)];
    double sum = 0;
    for (int64_t i = 0; i < s->vocab; i++) sum += exp((double)logits[i] - max);
    const double log_sum = log(sum) + max;
    if (n_top > 0) {
        if (n_top > s->vocab) n_top = (int)s->vocab;
        memcpy(s->logits, logits, (size_t)s->vocab * sizeof *logits);
        float least = kth_largest(s->logits, s->vocab, n_top);
        int64_t count = 0;
        for (int64_t i = 0; i < s->vocab; i++)
            if (logits[i] >= least) s->list[count++] = (candidate){logits[i], (int32_t)i};
        qsort(s->list, (size_t)count, sizeof *s->list, by_probability);
        for (int i = 0; i < n_top; i++) {
            top_ids[i] = s->list[i].id;
            top_logprobs[i] = (float)(s->list[i].p - log_sum);
        }
    }
    return (float)(logits[token] - log_sum);
}
