/* The evaluations on data, as rows of evals.c have them; docs/eval.md says what each asks and how it judges. */
#ifndef HADAL_EVAL_TASKS_H
#define HADAL_EVAL_TASKS_H

#include "base/str.h"
#include "eval/evals.h"

status gsm8k_eval(engine *g, const tokenizer *t, const char *kind, const eval_options *o, json_t *out, error *e);
status math_eval(engine *g, const tokenizer *t, const char *kind, const eval_options *o, json_t *out, error *e);
status mmlu_eval(engine *g, const tokenizer *t, const char *kind, const eval_options *o, json_t *out, error *e);
status gpqa_eval(engine *g, const tokenizer *t, const char *kind, const eval_options *o, json_t *out, error *e);
status humaneval_eval(engine *g, const tokenizer *t, const char *kind, const eval_options *o, json_t *out, error *e);
status jsonl_eval(engine *g, const tokenizer *t, const char *kind, const eval_options *o, json_t *out, error *e);

/* Adds the number that one of the rules of gsm8k finds in a completion; false: none. */
bool gsm8k_find(const char *text, bool flexible, str *out);

#endif
