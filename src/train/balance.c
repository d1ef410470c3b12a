#include "train/balance.h"

static void move_bias(float *bias, const int64_t *load, int64_t n, double speed, bool zero_mean) {
    int64_t sum = 0, signs = 0;
    for (int64_t i = 0; i < n; i++) sum += load[i];
    for (int64_t i = 0; i < n; i++) signs += (sum > load[i] * n) - (sum < load[i] * n);
    const double mean = zero_mean ? speed * (double)signs / (double)n : 0;
    for (int64_t i = 0; i < n; i++) {
        const int sign = (sum > load[i] * n) - (sum < load[i] * n);
        bias[i] += (float)(speed * sign - mean);
    }
}

void balance_step(params *p, const model_config *m, const layer_stats *layer, double speed, bool zero_mean) {
    for (int64_t i = 0; i < p->shared && speed != 0; i++)
        if (p->list[i].buffer)
            move_bias(p->w + p->list[i].first, layer[p->list[i].layer].load, m->n_routed_experts, speed, zero_mean);
}
