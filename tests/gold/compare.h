/* What every comparison with reference data shares: where the lines go, how tensors are compared, and the tolerances
 * (those that come with the reference data). */
#ifndef HADAL_TESTS_GOLD_COMPARE_H
#define HADAL_TESTS_GOLD_COMPARE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include "base/error.h"
#include "format/safetensors.h"

typedef struct gold { /* one run of comparisons */
    FILE *out;
    int passed, failed, skipped;
    const char *scratch; /* a folder for files of our own */
    double limit;        /* of F32 differences: GOLD_F32, or less for data that are known to be closer */
} gold;

/* One line: "ok   FILE ASPECT: text", "FAIL ..." ; gold_skip does not count. */
bool gold_say(gold *g, bool pass, const char *file, const char *aspect, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
void gold_skip(gold *g, const char *file, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Floats: largest difference / largest golden number. */
static const double GOLD_F32 = 1e-4, GOLD_KL = 1e-7;

typedef struct gold_gap {
    double max, scale; /* largest difference; largest golden number */
    bool finite;       /* all of ours */
} gold_gap;
gold_gap gold_gap_of(const float *golden, const float *ours, int64_t n);
double gold_relative(gold_gap d);

/* KL(golden || ours) of rows of v logits: mean, median, largest. */
typedef struct gold_kl {
    double mean, median, max;
} gold_kl;
gold_kl gold_kl_of(const float *golden, const float *ours, int64_t rows, int64_t v);

/* Every golden tensor that `made` has too, one line for each group of names (logits, hidden, router ...): floats
 * within the limit and logits within GOLD_KL, integers equal; chosen experts are sorted first.
 * Nothing in common is a failure. */
void gold_tensors(gold *g, const char *file, const char *aspect, const char *golden, const char *made);

/* Do two checkpoint folders have the same tensors in the same shards, byte by byte, and the same config.json? */
void gold_exact(gold *g, const char *file, const char *aspect, const char *golden, const char *made);

const tensor *gold_find(const safetensors *f, const char *name);
/* "folder/name" in memory of its own; ends the program when there is none: this is a test program. */
char *gold_path(const char *folder, const char *name);

#endif
