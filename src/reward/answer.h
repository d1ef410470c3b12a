/* Answers to questions: where they stand in a text (answer_find.c), and whether two mean the same (answer_equal.c).
 *
 * For that a short text is cleaned (answer_clean.c), cut into signs (answer_tokens.c) and read as a tree
 * (answer_parse.c); numbers in trees are compared by their values (answer_value.c), words behind them by what they
 * measure (answer_units.c).
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
    ANSWER_LETTER, /* of a multiple choice: "Answer: X", "the answer is (X)", \boxed{X}, or a lone one at the end */
    ANSWER_LATEX,  /* open-r1's accuracy: boxed, or else the last formula ($...$, \(...\), \[...\]) that begins within
                      50 characters behind the word "answer" */
    ANSWER_ANY,    /* the first of: boxed, tag, hashes, "answer is ...", last number */
    ANSWER_TEXT    /* all behind the reasoning */
} answer_place;

/* The answer in a completion; text behind </think> is searched when there is some. false: there is none. *out is
 * replaced; str_free it. */
bool answer_find(const char *text, answer_place place, str *out);

/* The right answer of a row of data: behind "#### " of a whole solution (GSM8K), or all of the text. false: it is
 * empty. *out is replaced. */
bool answer_gold(const char *text, str *out);

/* GSM8K as verl has it, in the last 300 characters: the last "#### (\-?[0-9\.\,]+)" without its commas; flexible: the
 * last number as it stands. *out is replaced. */
bool answer_gsm8k(const char *text, bool flexible, str *out);

/* What follows the last </think>: all of the text when there is none. */
const char *behind_reasoning(const char *text);

#endif
