/* Runs the questions of an evaluation through the model, judges the answers, writes the file of answers, and makes the
 * report. Questions whose answers are in the file already are not asked again. */
#ifndef HADAL_EVAL_ASK_H
#define HADAL_EVAL_ASK_H

#include "eval/questions.h"
#include "reward/answer.h"

typedef struct judgement {
    str extracted; /* the answer that was found; p NULL: none */
    verdict verdict;
} judgement;

typedef struct ask_rules {
    const char *const *stop; /* texts that end an answer */
    int n_stop;
    int64_t max_tokens;       /* of an answer, unless the options say */
    const char *const *names; /* of the rules that judge, ends with NULL; NULL: one rule without a name */
    /* rule: index in names. completion: what the model wrote, without stop text and end token. */
    status (*judge)(const question *q, const char *completion, int rule, judgement *out, error *e);
    bool (*same)(const char *a, const char *b); /* of two extracted answers, for votes; NULL: none */
} ask_rules;

/* Answers written by the model. */
status ask_written(engine *g, const questions *q, const ask_rules *r, json_t *out, error *e);

/* Answers by log-likelihood: of the texts before + letter + behind that may follow the prompt, one for each choice, the
 * likeliest is taken. The right answer of a question is its letter. */
typedef struct ask_letters {
    const char *before, *behind;
} ask_letters;
status ask_likelihood(engine *g, const questions *q, const ask_letters *r, json_t *out, error *e);

#endif
