/* Speed of training on this machine: whole steps, optimizer and clipping included. */
#ifndef HADAL_EVAL_BENCH_TRAIN_H
#define HADAL_EVAL_BENCH_TRAIN_H

#include "base/json.h"
#include "train/config.h"

typedef struct bench_train_options {
    const char *path;   /* model folder, or config.json (random weights) */
    const char *tokens; /* .bin file, or NULL: random tokens */
    precision precision;
    const char *kernels;
    int threads;
    int64_t batch, seq_len, steps;
    int (*progress)(void *arg, uint64_t done, uint64_t total, const char *what);
    void *arg;
} bench_train_options;

/* docs/performance.md describes the fields. *out: json_decref it. */
status bench_train(const bench_train_options *o, json_t **out, error *e);

#endif
