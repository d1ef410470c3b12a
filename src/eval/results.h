/* The file of an evaluation's answers: JSON lines, first {"evaluation": {...}} with all that the answers depend on,
 * then a line for every answer, those of one prompt together. What is in the file already is not asked again, so the
 * same command goes on where it was interrupted. */
#ifndef HADAL_EVAL_RESULTS_H
#define HADAL_EVAL_RESULTS_H

#include "base/json.h"

typedef struct results results;

/* path NULL: nothing is written or read. A prompt has `samples` lines; a torn end of the file is cut. A file of another
 * evaluation, or of something else, is ERR_ARG. */
status results_open(results **out, const char *path, const json_t *evaluation, int samples, error *e);
void results_close(results *r); /* accepts NULL */

/* The lines of a prompt, a list; NULL: not in the file. */
const json_t *results_find(const results *r, int64_t number);

/* Writes the lines of a prompt, objects that begin with "number". They are in the file when this returns. */
status results_add(results *r, const json_t *list, error *e);

#endif
