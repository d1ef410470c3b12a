/* Direct preference optimisation (Rafailov et al. 2023, eq. 7), with the likelihood of the chosen completion as a
 * second term (Pang et al. 2024, eq. 1; NeMo RL):
 *
 *   m = beta (r_w - r_l),  L = -log sigmoid(m) - sft chosen / tokens,  dL/dm = -sigmoid(-m). */
#include <math.h>
#include "post/loss.h"

static double per_token(double x, int64_t tokens) {
    return tokens > 0 ? x / (double)tokens : 0;
}

double dpo_loss(double beta, double sft, bool average, const dpo_pair *p, double *d_chosen, double *d_rejected,
                double *margin) {
    double win = p->chosen - p->ref_chosen, lose = p->rejected - p->ref_rejected, d_win = 1, d_lose = 1;
    if (average) {
        win = per_token(win, p->chosen_tokens), d_win = per_token(1, p->chosen_tokens);
        lose = per_token(lose, p->rejected_tokens), d_lose = per_token(1, p->rejected_tokens);
    }
    const double m = beta * (win - lose), small = exp(-fabs(m));
    const double miss = (m > 0 ? small : 1) / (1 + small); /* sigmoid(-m) */
    *margin = m;
    *d_chosen = -beta * miss * d_win - sft * per_token(1, p->chosen_tokens);
    *d_rejected = beta * miss * d_lose;
    return (m < 0 ? -m : 0) + log1p(small) - sft * per_token(p->chosen, p->chosen_tokens);
}
