/* The signs of an answer: numbers, letters, words, commands of LaTeX. */
#ifndef HADAL_REWARD_ANSWER_TOKENS_H
#define HADAL_REWARD_ANSWER_TOKENS_H

#include "reward/answer_chars.h"
#include "reward/answer_parse.h"

typedef enum token_kind {
    T_END,
    T_NUM,
    T_VAR,   /* a letter, or the name of a Greek one */
    T_CONST, /* op: as in node */
    T_FUNC,  /* op: function */
    T_WORD,  /* two letters or more that are none of those */
    T_TEXT,  /* \text{s} */
    T_CMD,   /* another command: its name */
    T_OP, /* op: its character. l: <=, g: >=, n: not equal, e: element of, p and m: plus-minus and minus-plus, u: union,
             S and s: braces of a set, F, f, C, c: floor and ceiling, N: a new row, o and d: degrees, $: money;
             "and", "or" and ; are commas */
    T_BAD
} token_kind;

typedef struct token {
    token_kind kind;
    int op;
    const char *s;
    int n;
    const char *end; /* behind the whole token */
} token;

/* brackets: how many are open. A comma in them never separates thousands. */
token token_at(const char *p, int brackets);
const char *token_skip(const char *p);      /* over blanks, thin spaces and commands of looks */
const char *token_brace_end(const char *p); /* behind the brace that closes the one at p; NULL: none does */
bool token_joins(const char *s, int n);     /* "and", "or", with commas and blanks */
bool token_is(const char *s, int n, const char *text);

/* Letters, digits and punctuation with a word or a time among them. */
bool token_prose(const char *p);

/* p[n] as words are compared: small, without blanks but between digits, without what only parts words, and without the
 * names of \text{} and its like. */
void token_words(str *out, const char *p, size_t n);

#endif
