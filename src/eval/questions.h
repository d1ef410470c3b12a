/* Questions of an evaluation, as the model reads them: worked examples before what is asked, as one text or as turns of
 * a conversation. The same as lm-evaluation-harness makes (its build_qa_turn):
 *
 *   DESCRIPTION QUESTION " " ANSWER "\n\n" ... QUESTION "" ANSWER "\n\n" QUESTION
 *   chat: the description is the system's, questions are the user's, answers the assistant's */
#ifndef HADAL_EVAL_QUESTIONS_H
#define HADAL_EVAL_QUESTIONS_H

#include "eval/evals.h"

typedef struct question {
    int64_t number; /* of the row in the data: the same whatever else is asked */
    char *prompt;
    int32_t *ids; /* of it */
    int64_t n;
    char *answer;                   /* the right one, as the judge reads it */
    int choices;                    /* letters that may be answered; 0: it is no multiple choice */
    const json_t *row;              /* of the data, held */
    const char *subject, *category; /* borrowed; NULL: none */
} question;

typedef struct new_question {
    int64_t number;
    const char *asked;
    const json_t *messages; /* instead of `asked`, a conversation to answer; it needs chat. NULL: none */
    const char *answer;
    int choices;
    const json_t *row;
} new_question;

typedef struct questions { /* questions_close it */
    const eval_options *o;
    const tokenizer *t;
    question *list;
    int64_t n, room;
    int64_t rows; /* of the data files read so far */
    /* for those added from now on: */
    const char *description; /* before everything else; NULL: nothing */
    json_t *shots;           /* worked examples: list of {"question", "answer"}; NULL: none */
    const char *subject, *category;
} questions;

status questions_add(questions *q, const new_question *x, error *e);
void questions_close(questions *q);

/* Adds a worked example for the questions that are added behind it. */
status questions_shot(questions *q, const char *asked, const char *answer, error *e);

/* Tokens that both prompts begin with; at least one of each remains. */
int64_t question_shared(const question *a, const question *b);

#endif
