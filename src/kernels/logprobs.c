/* Log-probabilities of chosen tokens and their derivative: with m the largest logit of a row,
 *
 *   lse = scale m + log S,  S = sum_j exp(scale (z[j] - m)),  log p[j] = scale (z[j] - m) - log S,
 *   entropy = log S - sum_j exp(scale (z[j] - m)) scale (z[j] - m) / S,
 *   dL/dz[j] = scale (sum_c d[c] 1[j = wanted[c]] - p[j] sum_c d[c]).
 *
 * Rows are whole tasks, so that threads change nothing; sums over the vocabulary end in F64. */
#include <math.h>
#include <string.h>
#include "kernels/attn_micro.h"
#include "kernels/queue.h"
#include "kernels/train_ops.h"

enum { ROWS_WORK = 32768 }; /* numbers in a task: some ten microseconds */

typedef struct call {
    const attn_micro *m;
    void (*row)(const struct call *c, int64_t i);
    const float *z, *d;
    float *dz, *logp, *lse, *entropy;
    const float *known_lse;
    int64_t ldz, n, vocab, rows_per_task;
    const int32_t *wanted;
    int32_t *best;
    int k;
    float scale;
} call;

static void run_task(void *arg, int64_t task, int thread) {
    (void)thread;
    const call *c = arg;
    const int64_t first = task * c->rows_per_task, end = first + c->rows_per_task;
    for (int64_t i = first; i < end && i < c->n; i++) c->row(c, i);
}

static void run(queue *q, call *c) {
    c->m = q->attn;
    c->rows_per_task = 1 + ROWS_WORK / (4 * c->vocab + c->k + 1);
    const int64_t tasks = (c->n + c->rows_per_task - 1) / c->rows_per_task;
    if (tasks > 1) pool_run(q->pool, tasks, run_task, c);
    else if (tasks == 1) run_task(c, 0, 0);
}

static void logprobs_row(const call *c, int64_t i) {
    const float *z = c->z + i * c->ldz;
    const int32_t *wanted = c->wanted + i * c->k;
    logit_sums s;
    c->m->logit_sums(&s, z, c->vocab, c->scale);
    const double total = log(s.sum), scale = c->scale, most = s.most;
    for (int j = 0; j < c->k; j++)
        c->logp[i * c->k + j] = wanted[j] < 0 ? 0 : (float)(scale * (z[wanted[j]] - most) - total);
    c->lse[i] = (float)(scale * most + total);
    if (c->entropy) c->entropy[i] = (float)(total - s.weighted / s.sum);
    if (c->best) c->best[i] = s.best;
}

void op_logprobs(queue *q, const float *z, int64_t ldz, int64_t n, int64_t vocab, float scale, const int32_t *wanted,
                 int k, float *logp, float *lse, float *entropy, int32_t *best) {
    call c = {
        .row = logprobs_row, .z = z, .ldz = ldz, .n = n, .vocab = vocab, .scale = scale, .wanted = wanted, .k = k};
    c.logp = logp, c.lse = lse, c.entropy = entropy, c.best = best;
    run(q, &c);
}

static void logprobs_dx_row(const call *c, int64_t i) {
    float *z = c->dz + i * c->ldz;
    const float *d = c->d + i * c->k;
    const int32_t *wanted = c->wanted + i * c->k;
    double sum = 0;
    for (int j = 0; j < c->k; j++) sum += wanted[j] < 0 ? 0 : d[j];
    if (sum == 0) memset(z, 0, (size_t)c->vocab * sizeof *z); /* masked: nothing of the logits comes in */
    else c->m->softmax_row(z, c->vocab, c->scale, c->known_lse[i], (float)(-sum * c->scale));
    for (int j = 0; j < c->k; j++)
        if (wanted[j] >= 0) z[wanted[j]] += c->scale * d[j];
}

void op_logprobs_dx(queue *q, float *z, int64_t ldz, int64_t n, int64_t vocab, float scale, const int32_t *wanted,
                    int k, const float *d, const float *lse) {
    call c = {.row = logprobs_dx_row, .ldz = ldz, .n = n, .vocab = vocab, .scale = scale, .wanted = wanted, .k = k};
    c.dz = z, c.d = d, c.known_lse = lse;
    run(q, &c);
}
