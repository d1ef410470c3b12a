/* Evaluations of a model's answers by a rule, one row in the table each. */
#ifndef HADAL_EVAL_EVALS_H
#define HADAL_EVAL_EVALS_H

#include <stdbool.h>
#include "base/json.h"
#include "data/conversation.h"
#include "infer/session.h"
#include "text/tokenizer.h"

#define EVAL_ALL INT64_MAX /* prompts */

typedef struct eval_options {
    int64_t limit;             /* prompts; EVAL_ALL: as many as the data have */
    bool greedy, sampled;      /* answers: the most likely one; `samples` others at `temperature` */
    double temperature, top_p; /* top_p 0: 1 */
    int samples;
    uint64_t seed; /* of prompts and answers: the same seed gives the same report */
    bool (*progress)(void *arg, int64_t done, int64_t total); /* answers; false cancels; NULL: none */
    void *progress_arg;
    /* --- evaluations on data: in one way only, greedy or sampled --- */
    const char *data, *examples; /* file or folder; where worked examples come from, NULL: beside the data */
    int shots;                   /* worked examples before a question; -1: as many as the evaluation has by itself */
    bool chat;                   /* through the chat template */
    const chat_format *format;   /* NULL: this model has no conversations */
    const json_t *chat_options;  /* variables of the template ("thinking"); NULL: none */
    int64_t max_tokens, context; /* of an answer, of prompt and answer; 0: the evaluation's, the model's */
    int sequences;               /* answers at once; 0: 32 */
    const int32_t *eos;          /* tokens that end an answer */
    int n_eos;
    const char *output;                        /* the file of answers (results.h); NULL: none */
    const char *prompt_member, *answer_member; /* jsonl: names in a row; NULL: "prompt", "answer" */
} eval_options;

typedef struct evaluation {
    const char *name, *description;
    /* kind: what stands behind the colon in "name:kind", or NULL; NULL without has_kinds. Adds its report to `out`. */
    status (*run)(engine *g, const tokenizer *t, const char *kind, const eval_options *o, json_t *out, error *e);
    int64_t prompts;    /* when nobody says how many */
    bool has_kinds;     /* a colon may follow its name */
    bool made_up;       /* its prompts are made, not read; it answers greedily and sampled, unless told otherwise */
    double temperature; /* of sampled answers, when nobody says */
    double top_p;
} evaluation;

extern const evaluation evaluations[]; /* ends with a NULL name */

/* task: "name" or "name:kind". An unknown name is ERR_ARG that lists those that are there. */
status eval_find(const evaluation **out, const char *task, error *e);

/* *out: json_decref it. t may be NULL (an error). */
status eval_run(engine *g, const tokenizer *t, const char *task, const eval_options *o, json_t **out, error *e);

#endif
