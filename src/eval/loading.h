/* From rows of data to questions: which files, how many, worked examples before them. */
#ifndef HADAL_EVAL_LOADING_H
#define HADAL_EVAL_LOADING_H

#include "eval/questions.h"
#include "eval/rows.h"

typedef struct item { /* a row as a question; {0} before it is filled, item_free */
    str asked;
    const json_t *messages; /* instead of asked */
    str worked;             /* the answer as a worked example shows it */
    str answer;             /* as the judge reads it */
    int choices;            /* of a multiple choice */
} item;
void item_free(item *x);

typedef struct loader {
    /* Rows that cannot be read are ERR_FORMAT; file and row are put before the error. */
    status (*item)(const rows *r, int64_t i, const eval_options *o, item *out, error *e);
    const char *const *names;    /* of the file in a folder, as in rows_open */
    const char *const *examples; /* of the file with worked examples; NULL: there is none */
    int shots;                   /* worked examples, when nobody says how many */
    const char *header;          /* a first csv record with this field names the columns: rows are objects; or NULL */
} loader;

/* Adds the rows of o->data as questions, o->limit at most, behind worked examples: the first rows of o->examples or of
 * the file beside the data. */
status load_questions(const loader *l, const eval_options *o, questions *q, error *e);

#endif
