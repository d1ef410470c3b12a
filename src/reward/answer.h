/* Answers to questions: where they stand in a text, and whether two mean the same.
 *
 * Equality is that of the math-verify package where both decide (its grader.py): numbers by value, expressions by
 * value, sets without order, tuples and intervals with it, texts letter by letter. What cannot be decided is UNSURE,
 * which is not WRONG: a right answer that cannot be read must not be punished. Accepting a wrong answer is the worse
 * mistake. */
#ifndef HADAL_REWARD_ANSWER_H
#define HADAL_REWARD_ANSWER_H

#include <stdbool.h>
#include "base/str.h"

typedef enum verdict { WRONG, RIGHT, UNSURE } verdict;

/* Does `given` mean the same as `gold`? Both are short texts: numbers (integers, decimals, thousands separators,
 * fractions, mixed numbers, percent), LaTeX (\frac, \sqrt, \pi, \boxed, \text, $...$), units, tuples, sets, intervals,
 * words. UNSURE when gold cannot be read. */
verdict answer_equal(const char *gold, const char *given);

typedef enum answer_place {
    ANSWER_BOXED,       /* the last \boxed{...} (or \fbox) with balanced braces */
    ANSWER_HASHES,      /* behind the last "#### ", to the end of the line */
    ANSWER_TAG,         /* inside the last <answer>...</answer> */
    ANSWER_LAST_NUMBER, /* the last number in the text */
    ANSWER_LETTER, /* A multiple-choice letter: "Answer: X", "the answer is (X)", \boxed{X}, or a lone letter at the end
                    */
    ANSWER_LATEX,  /* open-r1's accuracy: boxed, or else the last formula ($...$, \(...\), \[...\]) that begins within
                      50 characters behind the word "answer" */
    ANSWER_ANY     /* the first of: boxed, tag, hashes, "answer is ...", last number */
} answer_place;

/* The answer in a completion; text behind </think> is searched when there is some. false: there is none. *out is
 * replaced; str_free it. */
bool answer_find(const char *text, answer_place place, str *out);

/* GSM8K as verl's and lm-evaluation-harness's strict match: "#### (\-?[0-9\.\,]+)", commas and $ removed. */
bool answer_gsm8k(const char *text, bool flexible, str *out);

#endif
