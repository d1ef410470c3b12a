/* Rows on their way to the experts of other ranks and back, for expert parallelism.
 *
 * Every rank of the group has rows sorted by expert; rank r of R owns the experts [r E/R, (r+1) E/R) of E. Sending
 * brings every row to the owner of its expert, where rows lie ordered by (expert, source rank, order there); returning
 * brings the owners' rows back to where they came from, in the order in which they were. The gradients of a backward
 * pass travel the same two ways: those of results with exchange_send, those of inputs with exchange_return.
 *
 * All ranks of the group call the functions in the same order, also with no rows. In a group of one nothing moves and
 * nothing is copied. */
#ifndef HADAL_MODEL_EXCHANGE_H
#define HADAL_MODEL_EXCHANGE_H

#include "base/arena.h"
#include "comm/comm.h"
#include "tensor/real.h"

typedef struct exchange {
    comm *ep;
    int64_t first_expert, experts; /* that this rank owns */
    int64_t rows, got;             /* rows that it sends away (its own experts' ones included); that its experts get */
    const int64_t *first;          /* [experts + 1]: rows first[e] .. first[e+1]-1 of the `got` are those of its e-th */
    int64_t *n_sent, *n_got;       /* [R] rows */
    int64_t *segment;              /* [experts * R + 1]: rows of expert e from rank s begin at segment[e * R + s] */
} exchange;

/* first: [n_experts + 1], rows first[e] .. first[e+1]-1 of this rank are for expert e. Tables live in mem; in a group
 * of one `first` is the caller's and must stay. */
status exchange_plan(exchange *out, comm *ep, const int64_t *first, int64_t n_experts, arena *mem, error *e);

/* rows: [x->rows][width] sorted by expert. *out: [x->got][width] in mem, or rows itself in a group of one. What only
 * this call needs comes from scratch, which may be mem. */
status exchange_send(const exchange *x, real *rows, int64_t width, arena *mem, arena *scratch, real **out, error *e);

/* rows: [x->got][width] in the order of exchange_send. *out: [x->rows][width] in the order of the sender. */
status exchange_return(const exchange *x, real *rows, int64_t width, arena *mem, arena *scratch, real **out, error *e);

#endif
