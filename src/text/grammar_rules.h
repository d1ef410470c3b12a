/* The form in which a grammar is written and walked: a recursive transition network, that is, a finite automaton for
 * each rule whose arcs are bytes, single tokens and other rules.
 *
 * It is written from its end: each function takes the node that what it adds leads to and returns the node where that
 * begins, so a sequence a b is a(b(next)). Node RETURN ends a rule, node NEVER leads nowhere. Failures (memory, too
 * large) are kept in the set and said by rules_finish. */
#ifndef HADAL_TEXT_GRAMMAR_RULES_H
#define HADAL_TEXT_GRAMMAR_RULES_H

#include "text/template_text.h"
#include "text/token_bytes.h"

enum {
    RETURN = 0,
    NEVER = 1,
    UNBOUNDED = -1,   /* no upper bound of a repetition */
    MAX_NESTING = 128 /* arrays and objects in one another in an answer: fewer than any JSON parser takes */
};

typedef enum node_kind {
    NODE_RETURN,
    NODE_NEVER,
    NODE_BYTES, /* a byte of low..high, then next */
    NODE_TOKEN, /* the added token `other`, then next */
    NODE_SPLIT, /* next or other */
    NODE_CALL,  /* the rule `other`, then next */
    NODE_REPEAT /* the rule `other` min..max times, then next */
} node_kind;

typedef struct grammar_node {
    uint8_t kind, low, high;
    bool text; /* NODE_BYTES: the byte may be one of an added token's text */
    int32_t next, other, min, max;
} grammar_node;

typedef struct grammar_rule {
    int32_t start;
    bool nested; /* an array or object: counts for MAX_NESTING */
} grammar_rule;

typedef struct rules {
    grammar_node *node;
    grammar_rule *rule;
    int32_t n_nodes, n_rules, cap_nodes, cap_rules;
    status failed;
    /* by rules_finish: */
    uint8_t *need; /* by node: levels of nesting that every way to the rule's end takes at least; more than MAX_NESTING:
                      there is no way */
    uint8_t class_of[256]; /* bytes that no node tells apart have one class */
    uint8_t example[256];  /* a byte of each class */
    int n_classes;
    bool has_text;
} rules;

status rules_open(rules *r, error *e);
status rules_check(const rules *r, error *e); /* what has failed so far */
/* ERR_ARG: too large, or nothing is in the language of rule `start`; ERR_UNSUPPORTED: the tokens cannot write it. A
 * byte that is not a token by itself is never counted on. */
status rules_finish(rules *r, const token_bytes *b, int32_t start, error *e);
void rules_close(rules *r);

int32_t rules_add(rules *r, grammar_node n);
int32_t rules_bytes(rules *r, uint8_t low, uint8_t high, int32_t next);
int32_t rules_literal(rules *r, const char *p, size_t n, int32_t next);
int32_t rules_word(rules *r, const char *terminated, int32_t next);
int32_t rules_token(rules *r, int32_t id, int32_t next);
int32_t rules_either(rules *r, int32_t a, int32_t b);
int32_t rules_call(rules *r, int32_t rule, int32_t next);
int32_t rules_repeat(rules *r, int32_t rule, int32_t min, int32_t max, int32_t next); /* the rule is never empty */
/* One of these words. Sorts them. */
int32_t rules_words(rules *r, text *words, size_t n, int32_t next);
/* A character of low..high, as UTF-8. */
int32_t rules_chars(rules *r, uint32_t low, uint32_t high, int32_t next);

int32_t rules_rule(rules *r, bool nested);                   /* a new rule, to be given its start */
void rules_start(rules *r, int32_t rule, int32_t start);     /* gives it */
int32_t rules_rule_of(rules *r, bool nested, int32_t start); /* both */

#endif
