/* Losses of logit distillation over the teacher's most likely tokens (Hinton et al. 2015; Gu et al. 2023 for the
 * reverse form). With p the teacher and q the student over the outcomes j:
 *
 *   forward   F = sum p log(p / q)      dF/dlog q = -p      (of outcomes that are free of each other)
 *   reverse   R = sum q log(q / p)      dR/dlog q = q (log(q / p) + 1)
 *
 * The outcomes are not free. With `rest`, Q = 1 - sum q is one outcome more, dQ/dlog q[j] = -q[j]:
 *
 *   dF/dlog q[j] = -p[j] + q[j] P / Q            dR/dlog q[j] = q[j] (log(q[j] / p[j]) - log(Q / P)).
 *
 * Without, q stands for q / sum q, p likewise:
 *
 *   dF/dlog q[j] = q[j] - p[j]                   dR/dlog q[j] = q[j] (log(q[j] / p[j]) - R). */
#include <math.h>
#include "post/loss.h"

/* What F32 log-probabilities can tell from 1: P and Q are never taken for less. */
static const double LEAST_REST = 1e-6;

/* log of the sum of exp(x), a base that makes the largest 1 */
static double log_sum(const float *f, const real *r, int k) {
    double most = -INFINITY, sum = 0;
    for (int j = 0; j < k; j++) {
        const double x = f ? (double)f[j] : (double)r[j];
        most = x > most ? x : most;
    }
    for (int j = 0; j < k; j++) sum += exp((f ? (double)f[j] : (double)r[j]) - most);
    return most + log(sum);
}

static double log_rest(double log_of_sum) {
    const double rest = -expm1(log_of_sum);
    return log(rest < LEAST_REST ? LEAST_REST : rest);
}

double distill_loss(distill_kind kind, double weight, bool rest, const float *p_log, const real *q_log, int k,
                    real *d) {
    const double ahead = kind == DISTILL_FORWARD ? 1 : kind == DISTILL_REVERSE ? 0 : weight;
    const double p_sum = log_sum(p_log, NULL, k), q_sum = log_sum(NULL, q_log, k);
    const double p_base = rest ? 0 : p_sum, q_base = rest ? 0 : q_sum;
    const double P = log_rest(p_sum), Q = log_rest(q_sum);
    double forward = rest ? exp(P) * (P - Q) : 0, reverse = rest ? exp(Q) * (Q - P) : 0;
    for (int j = 0; j < k; j++) {
        const double lp = p_log[j] - p_base, lq = (double)q_log[j] - q_base;
        forward += lp > -INFINITY ? exp(lp) * (lp - lq) : 0;
        reverse += exp(lq) * (lq - lp);
    }
    for (int j = 0; j < k; j++) {
        const double lp = p_log[j] - p_base, lq = (double)q_log[j] - q_base, p = exp(lp), q = exp(lq);
        const double df = rest ? q * exp(P - Q) - p : q - p, dr = q * (lq - lp - (rest ? Q - P : reverse));
        d[j] = (real)((ahead != 0 ? ahead * df : 0) + (ahead != 1 ? (1 - ahead) * dr : 0));
    }
    return (ahead != 0 ? ahead * forward : 0) + (ahead != 1 ? (1 - ahead) * reverse : 0);
}
