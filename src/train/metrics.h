/* What a training step has to tell, and the files it is written to: metrics.jsonl and TensorBoard events. */
#ifndef HADAL_TRAIN_METRICS_H
#define HADAL_TRAIN_METRICS_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"

typedef struct layer_load { /* of one mixture-of-experts layer */
    int64_t layer;
    double max_vio;      /* (largest load) / (mean load) - 1 */
    const int64_t *load; /* [experts] tokens of the step */
} layer_load;

typedef struct named_number {
    const char *name;
    double value; /* NaN: not in this step */
} named_number;

typedef struct step_metrics {
    int64_t step;                                         /* 0-based */
    double tokens;                                        /* seen so far, this step included */
    double loss;                                          /* total: what was minimised */
    double lm_loss, mtp_loss, balance_loss, indexer_loss; /* NaN: not part of this run */
    double mtp_acceptance;                                /* NaN: none */
    double validation_loss;                               /* NaN: not in this step */
    double grad_norm, lr;
    bool skipped;                           /* gradients were not finite, or a spike */
    double seconds, tokens_per_second, mfu; /* mfu NaN: peak unknown */
    double memory;                          /* resident bytes */
    double max_vio;                         /* largest of all layers; NaN: no experts */
    double dropped;                         /* share of (token, expert) pairs dropped; NaN: dropless */
    const layer_load *layers;
    int n_layers, n_experts;
    const named_number *more; /* what post-training has to tell besides */
    int n_more;               /* at most MOST_MORE */
} step_metrics;

enum { MOST_MORE = 48 };

/* Metrics of which nothing is known yet: NaN in every number. */
static inline step_metrics metrics_unknown(void) {
    return (step_metrics){.loss = NAN,
                          .lm_loss = NAN,
                          .mtp_loss = NAN,
                          .balance_loss = NAN,
                          .indexer_loss = NAN,
                          .mtp_acceptance = NAN,
                          .validation_loss = NAN,
                          .grad_norm = NAN,
                          .lr = NAN,
                          .seconds = NAN,
                          .tokens_per_second = NAN,
                          .mfu = NAN,
                          .memory = NAN,
                          .max_vio = NAN,
                          .dropped = NAN};
}

typedef struct metrics metrics;
/* Appends to folder/metrics.jsonl and folder/events.out.tfevents.*; when resuming, lines of steps >= first_step are cut
 * from metrics.jsonl first. */
status metrics_open(metrics **out, const char *folder, bool jsonl, bool tensorboard, int64_t first_step, error *e);
status metrics_write(metrics *m, const step_metrics *s, error *e);
status metrics_close(metrics *m, error *e); /* accepts NULL */

/* An SVG of the curves in folder/metrics.jsonl (loss terms, validation, gradient norm, learning rate, tokens/s,
 * MaxVio), written to `path`. */
status metrics_plot(const char *folder, const char *path, error *e);

#endif
