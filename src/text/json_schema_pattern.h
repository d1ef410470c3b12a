/* Regular expressions of schemas (ECMA-262's syntax, the part that is regular): from the text to an automaton over
 * characters. What is not regular or would be ambiguous between dialects is ERR_UNSUPPORTED: look-around, back
 * references, \b, \p{...}, flags. */
#ifndef HADAL_TEXT_JSON_SCHEMA_PATTERN_H
#define HADAL_TEXT_JSON_SCHEMA_PATTERN_H

#include "text/json_schema_inner.h"

typedef struct char_range {
    uint32_t low, high;
} char_range;

typedef enum nfa_kind { NFA_MATCH, NFA_CHARS, NFA_SPLIT, NFA_BEGIN, NFA_END } nfa_kind;
typedef struct nfa_node {
    nfa_kind kind;
    int32_t next, other;      /* other: of NFA_SPLIT */
    int32_t ranges, n_ranges; /* NFA_CHARS */
} nfa_node;

typedef struct nfa { /* node 0 is the match */
    nfa_node *node;
    char_range *range;
    int32_t n, cap, n_ranges, cap_ranges, start;
} nfa;

/* The expression is searched for anywhere in a text. */
status pattern_parse(const schema_compiler *c, const char *pattern, size_t n, nfa *out);
void pattern_free(nfa *a);

/* The rules of all texts of min..max characters in which the expression is found; they go on with `end`. */
status pattern_rules(schema_compiler *c, const nfa *a, spelling how, int32_t min, int32_t max, int32_t end,
                     int32_t *start);

#endif
