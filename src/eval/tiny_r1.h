/* The evaluation of tiny-r1 models: prompts that are held out of training (data/tiny_r1.h), answers judged by rule.
 *
 * An answer is right when the whole completion has the form <think>...</think><answer>...</answer><eos> and the answer
 * is right by tiny_r1_right. Its style is how it was written: working, directly, or plainly, without tags. */
#ifndef HADAL_EVAL_TINY_R1_H
#define HADAL_EVAL_TINY_R1_H

#include "data/tiny_r1.h"
#include "eval/evals.h"

enum { TINY_R1_MOST_TOKENS = 72 }; /* of an answer */

typedef struct tiny_r1_tally {
    int64_t answers, right;
} tiny_r1_tally;

typedef struct tiny_r1_score {
    tiny_r1_tally all, task[TINY_R1_TASKS], style[TINY_R1_TASKS][TINY_R1_STYLES]; /* style ERR stays empty: it is
                                                                                      working that erred */
    int64_t solved[TINY_R1_TASKS]; /* prompts of which one answer at least is right */
    int64_t formatted, tokens;
} tiny_r1_score;

/* Judges a completion of n bytes with its <eos>, made of `tokens` tokens; whether it is right. */
bool tiny_r1_judge(tiny_r1_score *s, const tiny_r1_document *t, const char *completion, size_t n, int64_t tokens);

/* kind: tasks as tiny_r1_tasks takes them, NULL for all. docs/eval.md describes the report. */
status tiny_r1_eval(engine *g, const tokenizer *t, const char *kind, const eval_options *o, json_t *out, error *e);

#endif
