#include "model/exchange.h"

#include <stdbool.h>
#include <string.h>

static status out_of_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

/* segment from the counts [R][experts] that arrived: of every source rank the rows of each expert here. */
static void lay_out(exchange *x, const int64_t *counts) {
    const int64_t R = x->ep->size;
    int64_t at = 0;
    for (int64_t s = 0; s < R; s++) x->n_got[s] = 0;
    for (int64_t i = 0; i < x->experts; i++)
        for (int64_t s = 0; s < R; s++) {
            x->segment[i * R + s] = at;
            at += counts[s * x->experts + i];
            x->n_got[s] += counts[s * x->experts + i];
        }
    x->segment[x->experts * R] = x->got = at;
}

status exchange_plan(exchange *out, comm *ep, const int64_t *first, int64_t n_experts, arena *mem, error *e) {
    const int64_t R = ep->size;
    if (n_experts % R)
        return fail(e, ERR_ARG, "%lld experts cannot be divided among %lld ranks", (long long)n_experts, (long long)R);
    exchange x = {
        .ep = ep, .experts = n_experts / R, .rows = first[n_experts], .got = first[n_experts], .first = first};
    x.first_expert = ep->rank * x.experts;
    *out = x;
    if (R == 1) return OK;
    int64_t *sent = arena_take(mem, (size_t)n_experts * sizeof *sent),
            *counts = arena_take(mem, (size_t)n_experts * sizeof *counts),
            *ones = arena_take(mem, (size_t)R * sizeof *ones),
            *starts = arena_take(mem, (size_t)(x.experts + 1) * sizeof *starts);
    x.n_sent = arena_take(mem, (size_t)R * sizeof *x.n_sent);
    x.n_got = arena_take(mem, (size_t)R * sizeof *x.n_got);
    x.segment = arena_take(mem, (size_t)(n_experts + 1) * sizeof *x.segment);
    if (!sent || !counts || !ones || !starts || !x.n_sent || !x.n_got || !x.segment) return out_of_memory(e);
    for (int64_t i = 0; i < n_experts; i++) sent[i] = first[i + 1] - first[i];
    for (int64_t r = 0; r < R; r++) {
        x.n_sent[r] = first[(r + 1) * x.experts] - first[r * x.experts];
        ones[r] = 1;
    }
    TRY(ep->kind->all_to_all(ep, counts, ones, sent, ones, (size_t)x.experts * sizeof *sent, e));
    lay_out(&x, counts);
    for (int64_t i = 0; i <= x.experts; i++) starts[i] = x.segment[i * R];
    x.first = starts;
    *out = x;
    return OK;
}

/* Between the order of travelling (rank, expert) and that of the experts (expert, rank). */
static void reorder(const exchange *x, real *by_expert, real *by_rank, int64_t width, bool arriving) {
    const int64_t R = x->ep->size;
    for (int64_t s = 0; s < R; s++)
        for (int64_t i = 0; i < x->experts; i++) {
            const int64_t *at = &x->segment[i * R + s], n = (at[1] - at[0]) * width;
            real *sorted = by_expert + at[0] * width;
            if (!n) continue;
            if (arriving) memcpy(sorted, by_rank, (size_t)n * sizeof *sorted);
            else memcpy(by_rank, sorted, (size_t)n * sizeof *sorted);
            by_rank += n;
        }
}

status exchange_send(const exchange *x, real *rows, int64_t width, arena *mem, arena *scratch, real **out, error *e) {
    *out = rows;
    if (x->ep->size == 1) return OK;
    const size_t unit = (size_t)width * sizeof *rows;
    real *arrived = arena_take(scratch, (size_t)x->got * unit), *sorted = arena_take(mem, (size_t)x->got * unit);
    if (!arrived || !sorted) return out_of_memory(e);
    TRY(x->ep->kind->all_to_all(x->ep, arrived, x->n_got, rows, x->n_sent, unit, e));
    reorder(x, sorted, arrived, width, true);
    *out = sorted;
    return OK;
}

status exchange_return(const exchange *x, real *rows, int64_t width, arena *mem, arena *scratch, real **out, error *e) {
    *out = rows;
    if (x->ep->size == 1) return OK;
    const size_t unit = (size_t)width * sizeof *rows;
    real *leaving = arena_take(scratch, (size_t)x->got * unit), *back = arena_take(mem, (size_t)x->rows * unit);
    if (!leaving || !back) return out_of_memory(e);
    reorder(x, rows, leaving, width, false);
    TRY(x->ep->kind->all_to_all(x->ep, back, x->n_sent, leaving, x->n_got, unit, e));
    *out = back;
    return OK;
}
