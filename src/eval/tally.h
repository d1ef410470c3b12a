/* Counts answers, and makes the report of docs/eval.md of them. An answer is the JSON object that the file of answers
 * has a line of; what this counts are its members
 *
 *   score      1 right, 0 wrong, null: cannot be told (not right, but counted)
 *   extracted  the answer that was found in the text, null: none; samples that found the same one vote together
 *   tokens, finish   what it cost and how it ended, where the answer was written by the model
 *
 * With named rules, score and extracted are members of an object of that name instead. */
#ifndef HADAL_EVAL_TALLY_H
#define HADAL_EVAL_TALLY_H

#include <stdbool.h>
#include "base/json.h"

typedef struct tally tally;

enum { TALLY_RULES = 2 }; /* at most */

/* prompts, each with `samples` answers. rules: names, ends with NULL; NULL: one rule without a name. same: whether two
 * extracted answers mean the same; NULL: there are no votes. */
status tally_open(tally **out, int64_t prompts, int samples, const char *const *rules,
                  bool (*same)(const char *a, const char *b), error *e);
void tally_close(tally *t); /* accepts NULL */

/* The answers of prompt i, a list; each prompt once. One that is not added counts as wrong. */
status tally_add(tally *t, int64_t i, const json_t *answers, error *e);

/* Adds the members to out. subject, category: of every prompt, NULL: none. */
status tally_report(const tally *t, const char *const *subject, const char *const *category, json_t *out, error *e);

#endif
