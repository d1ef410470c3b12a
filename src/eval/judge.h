/* Rules that several evaluations judge by. */
#ifndef HADAL_EVAL_JUDGE_H
#define HADAL_EVAL_JUDGE_H

#include "eval/ask.h"

/* The answer in the completion (ANSWER_ANY) means the same as the right one (answer_gold). */
status judge_meaning(const question *q, const char *completion, int rule, judgement *out, error *e);
bool same_meaning(const char *a, const char *b);

/* The letter of a multiple choice (ANSWER_LETTER). */
status judge_letter(const question *q, const char *completion, int rule, judgement *out, error *e);
bool same_text(const char *a, const char *b);

#endif
