/* What a grammar is to those that make and walk it. */
#ifndef HADAL_TEXT_GRAMMAR_INNER_H
#define HADAL_TEXT_GRAMMAR_INNER_H

#include "text/grammar_rules.h"

struct grammar {
    const token_bytes *bytes;
    rules r;
    int32_t start;                 /* rule of a whole answer */
    bool watch_keys;               /* its objects may have keys that no property names */
    const char *json_behind[2][2]; /* JSON begins behind one of the first pair, then one of the second; NULL: none */
};

#endif
