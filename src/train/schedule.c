/* Schedules: pure functions of the step and of the tokens before it. */
#include <math.h>
#include "train/config.h"

/* A table at x (steps or tokens); beyond the last phase, its end. Cosine: from + (to - from) (1 - cos(pi u)) / 2. */
static double table_at(const phase *p, int n, double x) {
    double begin = 0;
    for (int i = 0; i < n; i++) {
        if (x >= p[i].until) {
            begin = p[i].until;
            continue;
        }
        double u = isinf(p[i].until) ? 0 : (x - begin) / (p[i].until - begin);
        if (p[i].shape == CURVE_COSINE) u = (1 - cos(3.141592653589793 * u)) / 2;
        return p[i].shape == CURVE_CONSTANT ? p[i].from : p[i].from + (p[i].to - p[i].from) * u;
    }
    return p[n - 1].to;
}

static double at_unit(phase_unit unit, int64_t step, double tokens) {
    return unit == UNIT_STEPS ? (double)step : tokens;
}

/* The learning rate without its warm-up. */
static double lr_after_warmup(const train_config *c, int64_t step, double tokens) {
    const double lr = c->optimizer.lr, min = c->optimizer.min_lr;
    const int64_t steps = c->training.steps, warmup = c->schedule.warmup_steps, decay = c->schedule.decay_steps;
    switch (c->schedule.kind) {
    case SCHEDULE_CONSTANT: break;
    case SCHEDULE_COSINE: /* from the end of the warm-up; would be at min_lr in step `steps` */
        if (step < warmup) break;
        if (step >= steps) return min;
        return min + (lr - min) * (1 + cos(3.141592653589793 * (double)(step - warmup) / (double)(steps - warmup))) / 2;
    case SCHEDULE_WSD: /* the last step is one (decay + 1)-th above min_lr */
        if (step < steps - decay) break;
        return step >= steps ? min : min + (lr - min) * (double)(steps - step) / (double)(decay + 1);
    case SCHEDULE_TABLE:
        return table_at(c->schedule.phases, c->schedule.n_phases, at_unit(c->schedule.unit, step, tokens));
    }
    return lr;
}

double schedule_lr(const train_config *c, int64_t step, double tokens) {
    double lr = lr_after_warmup(c, step, tokens);
    int64_t warmup = c->schedule.warmup_steps;
    return step < warmup ? lr * (double)(step + 1) / (double)warmup : lr;
}

int64_t schedule_batch(const train_config *c, double tokens) {
    const int64_t unit = c->training.micro_batch * c->training.ranks;
    const double from = c->training.batch_ramp_from, over = c->training.batch_ramp_tokens;
    if (!(over > 0) || tokens >= over) return c->training.batch;
    double rows = from + ((double)c->training.batch - from) * tokens / over;
    int64_t units = (int64_t)floor(rows / (double)unit + 0.5);
    return units < 1 ? unit : units * unit;
}

double schedule_mtp_weight(const train_config *c, int64_t step, double tokens) {
    if (!c->objective.n_mtp_schedule) return c->objective.mtp_weight;
    return table_at(c->objective.mtp_schedule, c->objective.n_mtp_schedule,
                    at_unit(c->objective.mtp_unit, step, tokens));
}

double schedule_bias_speed(const train_config *c, int64_t step, double tokens) {
    if (!c->objective.n_bias_schedule) return c->objective.bias_update_speed;
    return table_at(c->objective.bias_schedule, c->objective.n_bias_schedule,
                    at_unit(c->objective.bias_unit, step, tokens));
}
