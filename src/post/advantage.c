/* Advantages of groups of completions. With r the reward and G the completions of the prompt that have one:
 *
 *   group          (r - mean) / (s + 1e-4), s^2 = sum (r - mean)^2 / (G - 1)   (DeepSeekMath 4.1.1; TRL, "group")
 *   group_biased   the same over G
 *   leave_one_out  m, s of the G - 1 others: (r - m) / (s + 1e-6), r - m where s = 0   (NeMo RL)
 *   rloo           r - mean of the others   (Ahmadian et al. 2024, section 3.3)
 *   mean           r - mean   (Dr. GRPO, Liu et al. 2025, eq. 3)
 *   batch          (r - mean) / (s + 1e-4), s of all rewards of the call   (TRL, "batch")
 *   reward         r
 *
 * A completion that has nothing to be compared with gets 0. Sums are made of differences to one of the rewards, so that
 * equal rewards give exactly 0: 1e-17 / 1e-4 would be learned from as soon as gradients are normalised. */
#include <math.h>
#include "post/loss.h"

typedef struct moments {
    int64_t n;
    double mean, squares; /* squares: sum (r - mean)^2 */
} moments;

/* Of n rewards without that at `except` (-1: of all). */
static moments moments_of(const double *r, int64_t n, int64_t except) {
    moments m = {0};
    double base = 0, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        if (i == except || !isfinite(r[i])) continue;
        if (!m.n++) base = r[i];
        sum += r[i] - base;
    }
    if (!m.n) return m;
    m.mean = base + sum / (double)m.n;
    for (int64_t i = 0; i < n; i++)
        if (i != except && isfinite(r[i])) m.squares += (r[i] - m.mean) * (r[i] - m.mean);
    return m;
}

static double deviation(moments m, int64_t divisor) {
    return divisor > 0 ? sqrt(m.squares / (double)divisor) : 0;
}

static double advantage(advantage_kind kind, const double *r, int64_t n, int64_t i, const moments *group,
                        double batch) {
    const double gain = r[i] - group->mean;
    if (kind == ADVANTAGE_REWARD) return r[i];
    if (kind == ADVANTAGE_LEAVE_ONE_OUT || kind == ADVANTAGE_RLOO) {
        const moments others = moments_of(r, n, i);
        const double s = deviation(others, others.n - 1);
        if (!others.n) return 0;
        return kind == ADVANTAGE_RLOO || s == 0 ? r[i] - others.mean : (r[i] - others.mean) / (s + 1e-6);
    }
    if (kind == ADVANTAGE_GROUP) return gain / (deviation(*group, group->n - 1) + 1e-4);
    if (kind == ADVANTAGE_GROUP_BIASED) return gain / (deviation(*group, group->n) + 1e-4);
    return kind == ADVANTAGE_BATCH ? gain / (batch + 1e-4) : gain;
}

void advantages(advantage_kind kind, const double *reward, int64_t n, int64_t group, double *out) {
    const moments all = moments_of(reward, n, -1);
    for (int64_t from = 0; from < n; from += group) {
        const double *r = reward + from;
        const int64_t size = n - from < group ? n - from : group;
        const moments m = moments_of(r, size, -1);
        for (int64_t i = 0; i < size; i++)
            out[from + i] = isfinite(r[i]) ? advantage(kind, r, size, i, &m, deviation(all, all.n - 1)) : 0;
    }
}
