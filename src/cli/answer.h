/* One answer on the screen, as its pieces come: the reasoning (up to </think>) dimmed on a terminal, or left out. */
#ifndef HADAL_CLI_ANSWER_H
#define HADAL_CLI_ANSWER_H

#include <stdbool.h>
#include "base/str.h"

typedef struct answer {
    enum { ANSWER_START, ANSWER_THINKING, ANSWER_GAP, ANSWER_SAYING } state;
    bool hide;
    str held; /* what may turn out to be the beginning of a tag */
} answer;
void answer_begin(answer *a, bool thinking, bool hide);
void answer_add(answer *a, const char *p, size_t n);
void answer_end(answer *a); /* what is held comes out; releases */

#endif
