/* The notes of a reward: how many, and the last one. */
#ifndef HADAL_TESTS_HEARD_H
#define HADAL_TESTS_HEARD_H

#include <stdio.h>

typedef struct heard {
    int notes;
    char last[512];
} heard;

static inline void hear(void *arg, const char *line) {
    heard *h = arg;
    h->notes++;
    snprintf(h->last, sizeof h->last, "%s", line);
}

#endif
