/* Evaluations of a model's answers by a rule, one row in the table each. */
#ifndef HADAL_EVAL_EVALS_H
#define HADAL_EVAL_EVALS_H

#include <stdbool.h>
#include "base/json.h"
#include "infer/session.h"
#include "text/tokenizer.h"

typedef struct eval_options {
    int64_t limit;        /* prompts */
    bool greedy, sampled; /* answers: the most likely one; `samples` others at `temperature` */
    double temperature;
    int samples;
    uint64_t seed; /* of prompts and answers: the same seed gives the same report */
    bool (*progress)(void *arg, int64_t done, int64_t total); /* answers; false cancels; NULL: none */
    void *progress_arg;
} eval_options;

typedef struct evaluation {
    const char *name, *description;
    /* kind: what stands behind the colon in "name:kind", or NULL. Adds its report to `out`. */
    status (*run)(engine *g, const tokenizer *t, const char *kind, const eval_options *o, json_t *out, error *e);
} evaluation;

extern const evaluation evaluations[]; /* ends with a NULL name */

/* task: "name" or "name:kind". *out: json_decref it. t may be NULL (an error). */
status eval_run(engine *g, const tokenizer *t, const char *task, const eval_options *o, json_t **out, error *e);

#endif
