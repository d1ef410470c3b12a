/* A whole training as a run file describes it: data, weights, steps, validation, checkpoints and metrics; goes on where
 * an earlier run of the same folder stopped. */
#ifndef HADAL_TRAIN_RUN_H
#define HADAL_TRAIN_RUN_H

#include "train/config.h"
#include "train/metrics.h"

typedef struct run_hooks { /* called by the first rank's thread; any may be NULL */
    /* After every step. Nonzero: the run saves and ends. */
    int (*step)(void *arg, const step_metrics *m, int64_t steps);
    void (*note)(void *arg, const char *line); /* one sentence that a person should see */
    int (*progress)(void *arg, uint64_t done, uint64_t total, const char *what); /* nonzero cancels */
    void *arg;
} run_hooks;

typedef struct run_result {
    int64_t steps, skipped; /* done in all; skipped in this run */
    double tokens, seconds, loss, validation_loss;
    bool stopped;         /* by the hook */
    named_number more[8]; /* what else is to be told at the end */
    int n_more;
    char output[256]; /* a file that was made instead of a model; "": none */
} run_result;

/* A loss instead of the cross-entropy (execute.h), made when the model is there. */
struct job;
struct token_loss;
typedef struct run_judge {
    status (*open)(void *arg, struct job *j, struct token_loss *out, error *e);
    void *arg;
} run_judge;
status train_run_judged(const train_config *c, const run_judge *judge, const run_hooks *hooks, run_result *out,
                        error *e);

status train_run(const train_config *c, const run_hooks *hooks, run_result *out, error *e);

#endif
