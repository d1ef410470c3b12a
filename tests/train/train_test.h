/* Short trainings of tiny models for tests of the trainer: rows of made-up documents, any number of ranks, and all that
 * came out as one model, whoever held its parts. */
#ifndef HADAL_TESTS_TRAIN_TEST_H
#define HADAL_TESTS_TRAIN_TEST_H

#include "train/trainer.h"

enum { TT_STEPS = 5, TT_TOKENS = 512 };

typedef struct training {
    model_config model;
    const char *folder; /* weights are those of tests/data/models/<folder>, or of a path; NULL: random ones */
    train_config cfg;
    const char *rows; /* of a step: lengths of documents, rows parted by '|'; '!' before a row: it has no targets */
    int64_t micro;    /* rows of a micro-batch */
    int steps;
    void (*prepare)(trainer *t); /* changes weights before the first step */
    int failing_rank;            /* whose data end with an error in the second step; -1: none */
} training;

/* F32, one rank, V3's objective with visible factors (balance 0.01, bias speed 0.01, MTP 0.3), AdamW without decay.
 * eps is 1e-3 and norms are clipped to 1: an update is then at most lr / eps times as wrong as its gradient. */
status training_open(training *out, const char *folder, const char *rows, error *e);

typedef struct trained {
    params p;  /* the whole model: w at the end, g of the first step */
    float *w0; /* weights at the start */
    int steps;
    step_metrics step[TT_STEPS]; /* layers: not there, see load */
    int64_t *load[TT_STEPS];     /* [layers with MTP][experts] */
} trained;

/* Runs the steps. All ranks must come to the same weights and metrics, else that is the error. */
status train(const training *c, trained *out, error *e);
void trained_close(trained *r);

/* The first weight whose numbers differ in any bit (of w, or of g); NULL: none. */
const char *weights_differ(const trained *a, const trained *b);
const char *gradients_differ(const trained *a, const trained *b);
/* The largest difference of any number of w; the largest relative L2 distance of any weight's g (*who: its name). */
double weight_gap(const trained *a, const trained *b);
double gradient_gap(const params *a, const params *b, const char **who);

/* A trainer alone, for tests that look into it. */
typedef struct feed {
    const training *c;
    const int64_t *step; /* the trainer's */
    int rank, ranks;
    int32_t ids[TT_TOKENS], next[TT_TOKENS], target[TT_TOKENS];
    int64_t doc[TT_TOKENS], row[TT_TOKENS];
} feed;
status training_trainer(const training *c, comm *world, trainer *t, error *e);
batch_source training_source(const training *c, const trainer *t, feed *f);

/* Weights with the name's end and their numbers, first match; NULL: none. */
const param *find_weight(const params *p, const char *end);

#define assert_ok(call)                                       \
    do {                                                      \
        error e_ = {0};                                       \
        if ((call) != OK) fail_msg("%s: %s", #call, e_.text); \
    } while (0)
#define assert_same(a, b)                                                              \
    do {                                                                               \
        const char *who_ = weights_differ(a, b);                                       \
        if (who_) fail_msg("weights of %s differ", who_);                              \
        if ((who_ = gradients_differ(a, b))) fail_msg("gradients of %s differ", who_); \
    } while (0)

#endif
