/* What every training has around its steps: the model opened or made, the optimizer, the tokenizer; the folder of the
 * run with its effective run file, checkpoints and metrics; going on where an earlier run of the folder stopped. */
#ifndef HADAL_TRAIN_JOB_H
#define HADAL_TRAIN_JOB_H

#include <jansson.h>
#include "train/checkpoint.h"
#include "train/run.h"
#include "train/trainer.h"

typedef struct job { /* one rank's */
    const train_config *c;
    train_config own; /* what the trainer reads: with `threads` resolved */
    const run_hooks *hooks;
    run_result *result;
    comm *world;
    trainer t;
    tokenizer *tok; /* NULL: the folder has none */
    checkpointer *checkpoints;
    metrics *metrics;
    json_t *source;   /* what a checkpoint must say of the weights' origin */
    json_t *state;    /* the caller's own members of a checkpoint's state: found again when a run goes on */
    real *reference;  /* NULL, or weights like t.p.w that checkpoints hold, too */
    double validated; /* the last validation loss, NaN: none yet */
    double score;     /* what keep_best compares, the lower the better; NaN: `validated` */
    int64_t saved;    /* step of the last checkpoint, -1: none */
    bool stop;        /* the hook asked for it */
    double start;
    error *e;
} job;

/* keep_reference: j->reference is made, a copy of the first weights, or what the checkpoint holds. Nothing is written
 * yet: what else a training needs is opened and checked, then job_begin makes the folder's files. */
status job_open(job *j, const train_config *c, const run_hooks *hooks, run_result *out, comm *world,
                bool keep_reference, error *e);
status job_begin(job *j);
void job_close(job *j); /* also after job_open failed */

bool job_first(const job *j); /* the first rank: the one that speaks */
void job_note(const job *j, const char *line);

/* The same with a job as `arg`, for those who take callbacks. Nonzero: cancel. */
void job_on_note(void *arg, const char *line);
int job_on_progress(void *arg, uint64_t done, uint64_t total, const char *what);

/* A step is done that took `seconds`: fills in speed and memory, writes metrics, tells the hook (which
 * may set j->stop), saves when it is time. m->tokens_per_second counts `tokens`. */
status job_step_done(job *j, step_metrics *m, double seconds, double tokens);

/* After the last step: the last checkpoint, the adapter's folder, the result. */
status job_finish(job *j);

#endif
