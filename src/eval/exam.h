/* What every way to answer questions has in common: which of them are still open, the file of answers, the tally. */
#ifndef HADAL_EVAL_EXAM_H
#define HADAL_EVAL_EXAM_H

#include "eval/questions.h"
#include "eval/results.h"
#include "eval/tally.h"

typedef struct exam_way { /* how answers come about */
    const char *name;     /* "greedy", "sampled", "likelihood": the member of the report */
    int samples;
    double temperature, top_p; /* of written answers */
    int64_t max_tokens;        /* the same; 0: answers are not written */
    int64_t room;              /* tokens that have to fit behind a prompt */
    const char *const *rules;  /* as in tally_open */
    bool (*same)(const char *a, const char *b);
} exam_way;

typedef struct exam {
    engine *g;
    const questions *q;
    exam_way way;
    int64_t capacity; /* tokens of prompt and answer */
    int64_t *open, n_open;
    int64_t too_long, done, total; /* answers done of all */
    results *file;
    tally *tally;
} exam;

/* Takes what the file holds. Prompts that do not fit into the context are no questions any more: they count as wrong.
 */
status exam_open(exam *x, engine *g, const questions *q, const exam_way *way, const char *task, error *e);

/* The answers to question i: a list of way.samples objects as tally.h and docs/eval.md have them. */
status exam_add(exam *x, int64_t i, const json_t *answers, error *e);

/* A new object with what every answer begins with; NULL: memory is out. */
json_t *exam_answer(const exam *x, int64_t i, int sample);

bool exam_goes_on(const exam *x); /* tells the progress; false: cancelled */

/* Adds the report to out. */
status exam_report(const exam *x, json_t *out, error *e);
void exam_close(exam *x); /* accepts a zeroed one */

#endif
