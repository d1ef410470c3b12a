/* Groups of ranks and what they say to each other. A rank is a thread here (thread.c), alone (self.c), or later a
 * process (MPI). Collectives are called by all ranks of a group in the same order. Sums are made in the order of the
 * ranks, so that they are the same on every rank and in every run. A rank that fails says so with comm_abort; all
 * others then get ERR_COMM with its text from the collective they are in or enter next. Returning an error from the
 * function that comm_run_threads runs does the same; a rank that returns OK while others still wait for it makes them
 * fail with "rank 1 left". Memory given to a collective is used by nobody else once the collective has returned, failed
 * or not. */
#ifndef HADAL_COMM_COMM_H
#define HADAL_COMM_COMM_H

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

typedef struct comm {
    int rank, size;
    const struct comm_kind *kind;
    void *group, *mine; /* the kind's own */
} comm;

/* One table for each transport. x, all, mine, ...: memory of the calling rank. */
typedef struct comm_kind {
    const char *name;
    status (*barrier)(comm *c, error *e);
    status (*all_reduce)(comm *c, float *x, int64_t n, error *e);      /* x = sum over ranks */
    status (*all_reduce_f64)(comm *c, double *x, int64_t n, error *e); /* the same */
    status (*all_reduce_max)(comm *c, double *x, int64_t n, error *e); /* the largest; NaN if there is one */
    /* first[r] .. first[r+1]-1 (size + 1 numbers, the same on all ranks) is rank r's range of x: afterwards a rank's
     * own range holds the sums, the others are undefined. */
    status (*reduce_scatter)(comm *c, float *x, const int64_t *first, error *e);
    /* Every rank's range is copied to all. */
    status (*all_gather)(comm *c, float *x, const int64_t *first, error *e);
    /* Blocks of `unit` bytes, got and sent do not overlap: n_sent[r] of them go to rank r, in the order of the ranks;
     * n_got[r] come from rank r. */
    status (*all_to_all)(comm *c, void *got, const int64_t *n_got, const void *sent, const int64_t *n_sent, size_t unit,
                         error *e);
    status (*broadcast)(comm *c, void *x, size_t bytes, int root, error *e);
    status (*split)(comm *c, int colour, comm *out, error *e);
    void (*abort)(comm *c, const error *why);
    void (*close)(comm *c);
} comm_kind;

/* A world of one. */
status comm_self(comm *out, error *e);

/* Cuts a group up: ranks that say the same colour (>= 0) form a group of their own, in the order of their ranks. A
 * collective of c. A group of one costs nothing. Groups live as long as the world they come from. */
static inline status comm_split(comm *c, int colour, comm *out, error *e) {
    return c->kind->split(c, colour, out, e);
}

/* This rank gives up: `why` is what all others of the world get to hear. */
static inline void comm_abort(comm *c, const error *why) {
    (*c->kind->abort)(c, why);
}

/* Runs f(arg, world of this rank, e) on `ranks` threads of this process and waits for all; the first failure is what it
 * returns. */
status comm_run_threads(int ranks, status (*f)(void *arg, comm *world, error *e), void *arg, error *e);

#endif
