/* Answers as trees. A short text in LaTeX or plain writing becomes a tree of numbers, variables, operations, relations,
 * and collections; what is not read (too long, too deep, prose) has none.
 *
 * Read as math-verify reads it: a product without a sign binds closer than "/" (1/2x = 1/(2x)); a whole number before a
 * fraction is a mixed number; a comma between a group of one to three digits and groups of exactly three separates
 * thousands unless it stands inside brackets; \log without a base has base 10. */
#ifndef HADAL_REWARD_ANSWER_PARSE_H
#define HADAL_REWARD_ANSWER_PARSE_H

#include <stdbool.h>
#include "base/str.h"

enum { ANSWER_BYTES = 4096 }; /* longer texts are no answers */

typedef enum node_kind {
    N_NUM,   /* s: digits and at most one point */
    N_VAR,   /* s: a letter or \name, with its subscript: x, \alpha, a_{n} */
    N_CONST, /* op: 'p' pi, 'e', 'i', 'o' infinity */
    N_WORD,  /* s: text */
    N_BASE,  /* s: digits; n_base: digits of the base */
    N_ADD,   /* from here to N_BINOM: numbers of one or two numbers */
    N_SUB,
    N_MUL,
    N_DIV,
    N_POW,
    N_PM, /* a +- b; op: '+' for \pm, '-' for \mp */
    N_NEG,
    N_ROOT, /* of a; of degree b when there is b */
    N_FUNC, /* op: enum function; \log_b a has b */
    N_FACTORIAL,
    N_PERCENT,
    N_DEGREE,
    N_BINOM,
    N_UNIT,   /* a with the unit s; op: 'k' known word, 't' other \text{}, 'w' other plain words */
    N_REL,    /* a op b; op: = < > l (<=) g (>=) n (not equal) e (element of) */
    N_LIST,   /* 1, 2 */
    N_SET,    /* {1, 2} */
    N_TUPLE,  /* op: '(' both round, '[' both square, 'l' [a,b), 'r' (a,b] */
    N_UNION,  /* of sets */
    N_MATRIX, /* its rows, each an N_LIST */
    N_REALS
} node_kind;

typedef enum function {
    F_SIN,
    F_COS,
    F_TAN,
    F_COT,
    F_SEC,
    F_CSC,
    F_ASIN,
    F_ACOS,
    F_ATAN,
    F_SINH,
    F_COSH,
    F_TANH,
    F_LN,
    F_LOG, /* base 10, or b */
    F_EXP,
    F_ABS,
    F_FLOOR,
    F_CEIL
} function;

typedef struct node {
    node_kind kind;
    int op;
    int first, next;  /* children form a list; 0: none */
    const char *s;    /* into the tree's text */
    int n;            /* its bytes */
    const char *base; /* N_BASE */
    int n_base;
} node;

typedef struct tree {
    str text; /* as it was read: without delimiters, in ASCII where a symbol has a LaTeX name */
    node *nodes;
    int n, root; /* root 0: not read */
} tree;

/* Fills t; root is 0 when text is not read, text.p is NULL when it is empty, too long or memory is out. tree_free it.
 */
void tree_read(tree *t, const char *text);
void tree_free(tree *t);

/* Adds the answer in text to out: the last box's contents when there is a box, without delimiters of formulas,
 * markdown and a full stop, symbols of Unicode by their LaTeX names. */
void answer_clean(str *out, const char *text);

#endif
