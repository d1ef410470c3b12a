/* Losses of policies from the log-probabilities of sampled tokens, and their gradients. With rho = exp(logp - old), of
 * gspo exp(mean of logp - old over the completion), and C = clamp(rho, 1 - low, 1 + high), a token's loss is
 *
 *   grpo, dapo, bnpo, dr_grpo, gspo   max(-rho A, -C A); with dual clip c and A < 0 at most -c A
 *                                     (Schulman et al. 2017, eq. 7; Ye et al. 2020, eq. 3)
 *   cispo                             -sg(C) A logp   (MiniMax-M1, eq. 4; NeMo RL. TRL has no lower bound: low = 1)
 *   reinforce                         -A logp   (NeMo RL with disable_ppo_ratio; RLOO, Ahmadian et al. 2024, eq. 3)
 *
 * each plus beta KL, where with x = ref - logp
 *
 *   k1: -x    k2: x^2 / 2    k3: exp(x) - x - 1   (Schulman 2020)
 *
 * and, on policy (NeMo RL, loss_functions.py): clamp(w KL(clamp(x, -20, 20)), -10, 10), w = exp(logp - sg(logp)).
 * The losses of tokens are joined with the weights
 *
 *   grpo, gspo                      1 / (tokens of the completion * completions of the step)
 *   dapo, cispo, reinforce, bnpo    1 / tokens of the step (bnpo: of the batch, which the caller says)
 *   dr_grpo                         1 / (completions of the step * the longest that may be)   (Liu et al. 2025). */
#include <math.h>
#include "post/loss.h"

/* A value and its derivative with respect to logp. */
typedef struct term {
    double value, slope;
} term;

static double clamp(double x, double low, double high) {
    return x < low ? low : x > high ? high : x; /* NaN stays */
}

static term surrogate(const policy_loss_options *o, double ratio, double logp, double advantage) {
    const double clamped = clamp(ratio, 1 - o->clip_low, 1 + o->clip_high);
    if (advantage == 0) return (term){0, 0}; /* whatever the ratio has grown to */
    if (o->kind == POLICY_REINFORCE) return (term){-advantage * logp, -advantage};
    if (o->kind == POLICY_CISPO) return (term){-clamped * advantage * logp, -clamped * advantage};
    const double free = -ratio * advantage, bound = -clamped * advantage, most = -o->dual_clip * advantage;
    if (o->dual_clip > 0 && advantage < 0 && free > most) return (term){most, 0};
    return free < bound ? (term){bound, 0} : (term){free, free}; /* d rho / d logp = rho */
}

static term divergence(const policy_loss_options *o, double x) {
    enum { MOST_X = 20, MOST_KL = 10 };
    const double in = o->kl_on_policy ? clamp(x, -MOST_X, MOST_X) : x;
    term t = o->kl == KL_K1   ? (term){-in, 1}
             : o->kl == KL_K2 ? (term){in * in / 2, -in}
                              : (term){expm1(in) - in, -expm1(in)};
    if (!o->kl_on_policy) return t;
    t.slope += t.value; /* of w; where x was clamped, |KL| is above 10 in every form */
    return fabs(t.value) > MOST_KL ? (term){clamp(t.value, -MOST_KL, MOST_KL), 0} : t;
}

/* Tokens of completion s that count, and the mean of their log-ratios. */
static int64_t count(const policy_batch *b, int64_t s, double *mean) {
    int64_t n = 0;
    double sum = 0;
    for (int64_t t = b->first[s]; t < b->first[s + 1]; t++) {
        if (b->mask && b->mask[t] == 0) continue;
        sum += b->old ? (double)b->logp[t] - b->old[t] : 0;
        n++;
    }
    *mean = n ? sum / (double)n : 0;
    return n;
}

static double weight(const policy_loss_options *o, const policy_batch *b, int64_t tokens) {
    switch (o->kind) {
    case POLICY_GRPO:
    case POLICY_GSPO: return 1 / ((double)tokens * b->sequences);
    case POLICY_DR_GRPO: return 1 / (b->sequences * (double)o->max_completion);
    default: return 1 / b->tokens;
    }
}

static void add_stats(const policy_loss_options *o, policy_stats *s, double ratio, double advantage, double kl) {
    s->ratio_max = s->tokens > 0 && s->ratio_max > ratio ? s->ratio_max : ratio;
    s->ratio_min = s->tokens > 0 && s->ratio_min < ratio ? s->ratio_min : ratio;
    s->tokens++;
    s->ratio += ratio;
    s->kl += kl;
    s->clipped_low += advantage < 0 && ratio < 1 - o->clip_low;
    s->clipped_high += advantage > 0 && ratio > 1 + o->clip_high;
}

void policy_loss(const policy_loss_options *o, const policy_batch *b, real *d, policy_stats *s, real *token_loss,
                 real *token_ratio, real *token_kl) {
    for (int64_t i = 0; i < b->n_seq; i++) {
        double mean;
        const int64_t tokens = count(b, i, &mean);
        const double w = weight(o, b, tokens), advantage = b->advantage[i];
        for (int64_t t = b->first[i]; t < b->first[i + 1]; t++) {
            const bool counts = !b->mask || b->mask[t] != 0;
            const double logp = (double)b->logp[t], change = b->old ? logp - b->old[t] : 0;
            const double ratio = exp(o->kind == POLICY_GSPO ? mean : change);
            const term kl = b->ref ? divergence(o, b->ref[t] - logp) : (term){0, 0};
            term loss = surrogate(o, ratio, logp, advantage);
            if (o->kl_beta != 0) loss = (term){loss.value + o->kl_beta * kl.value, loss.slope + o->kl_beta * kl.slope};
            if (counts) {
                add_stats(o, s, ratio, advantage, kl.value);
                s->loss += w * loss.value;
            }
            d[t] = counts ? (real)(w * loss.slope) : 0;
            if (token_loss) token_loss[t] = counts ? (real)loss.value : 0;
            if (token_ratio) token_ratio[t] = counts ? (real)ratio : 0;
            if (token_kl) token_kl[t] = counts ? (real)kl.value : 0;
        }
    }
}
