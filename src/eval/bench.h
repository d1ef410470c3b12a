/* Speed of a model on this machine, beside what the machine could do: decoding reads every active weight and the cache
 * once a token, prefill multiplies. */
#ifndef HADAL_EVAL_BENCH_H
#define HADAL_EVAL_BENCH_H

#include "base/json.h"
#include "infer/session.h"

typedef struct bench_options {
    int64_t prompt, generate, depth; /* tokens; 0 of one of the first two leaves that part out */
    int repeat;                      /* the median counts */
    session_progress *progress;      /* runs done, runs in all */
    void *progress_arg;
} bench_options;

/* The fields are described in docs/performance.md. *out: json_decref it. */
status bench_run(engine *g, const bench_options *o, json_t **out, error *e);

/* Read bandwidth and product peaks with this many threads. */
status bench_machine(int threads, const char *level, json_t **out, error *e);

/* Times of repeated measurements, the shortest first. */
void bench_sort(double *seconds, int64_t n);

#endif
