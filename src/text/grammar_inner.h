/* What a grammar is to those that make and walk it. */
#ifndef HADAL_TEXT_GRAMMAR_INNER_H
#define HADAL_TEXT_GRAMMAR_INNER_H

#include "text/grammar_rules.h"

struct grammar {
    const token_bytes *bytes;
    rules r;
    int32_t start; /* rule of a whole answer */
};

#endif
