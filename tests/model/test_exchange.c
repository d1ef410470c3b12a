/* Rows that travel to the owners of their experts and back: every row arrives, in the order (expert, source rank, order
 * there), and comes home unchanged. A row carries its expert, its source and its number. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "model/exchange.h"
#include <cmocka.h>

enum { EXPERTS = 24, WIDTH = 5, ALL = -1, NOBODY = -2, ODD = -3 };

/* Ranks are threads: they return errors. (fail) in brackets is that of base/error.h, not the macro. */
#define CHECK(ok)                                                                              \
    do {                                                                                       \
        if (!(ok)) return (fail)(e, ERR_ARG, "line %d, rank %d: %s", __LINE__, ep->rank, #ok); \
    } while (0)

/* Rows of rank r for expert i: all to expert `load`, or one of the patterns above. */
static int64_t rows_of(int load, int r, int64_t i) {
    uint32_t w[4];
    rng_words(3, (uint64_t)r, (uint64_t)i, w);
    switch (load) {
    case ALL: return (int64_t)(w[0] % 9); /* about every ninth expert has no row */
    case NOBODY: return 0;
    case ODD: return r % 2 ? 2 * (int64_t)(w[0] % 3) + 1 : 0; /* even ranks have no rows at all */
    default: return i == load ? 100 + r : 0;
    }
}

static void fill(real *row, int64_t expert, int rank, int64_t i) {
    for (int k = 0; k < WIDTH; k++) row[k] = (real)(expert * 100000 + rank * 10000 + i * 10 + k); /* exact in F32 */
}

static int is_row(const real *row, int64_t expert, int rank, int64_t i) {
    real wanted[WIDTH];
    fill(wanted, expert, rank, i);
    return memcmp(row, wanted, sizeof wanted) == 0;
}

static status there_and_back(comm *ep, int load, arena *mem, error *e) {
    int64_t first[EXPERTS + 1] = {0};
    for (int64_t i = 0; i < EXPERTS; i++) first[i + 1] = first[i] + rows_of(load, ep->rank, i);
    real *rows = first[EXPERTS] ? arena_take(mem, (size_t)(first[EXPERTS] * WIDTH) * sizeof *rows) : NULL, *there,
         *back;
    for (int64_t i = 0; i < EXPERTS; i++)
        for (int64_t k = first[i]; k < first[i + 1]; k++) fill(rows + k * WIDTH, i, ep->rank, k - first[i]);
    exchange x;
    TRY(exchange_plan(&x, ep, first, EXPERTS, mem, e));
    CHECK(x.experts == EXPERTS / ep->size && x.first_expert == ep->rank * x.experts && x.rows == first[EXPERTS]);
    TRY(exchange_send(&x, rows, WIDTH, mem, mem, &there, e));
    int64_t at = 0;
    for (int64_t i = 0; i < x.experts; i++) {
        CHECK(x.first[i] == at);
        for (int s = 0; s < ep->size; s++) {
            if (ep->size > 1) CHECK(x.segment[i * ep->size + s] == at);
            for (int64_t k = 0; k < rows_of(load, s, x.first_expert + i); k++, at++)
                CHECK(is_row(there + at * WIDTH, x.first_expert + i, s, k));
        }
    }
    CHECK(x.got == at && x.first[x.experts] == at);
    if (ep->size == 1) CHECK(there == rows);
    for (int64_t i = 0; i < x.got * WIDTH; i++) there[i] += 1;
    TRY(exchange_return(&x, there, WIDTH, mem, mem, &back, e));
    for (int64_t i = 0; i < EXPERTS; i++)
        for (int64_t k = first[i]; k < first[i + 1]; k++) {
            for (int j = 0; j < WIDTH; j++) back[k * WIDTH + j] -= 1;
            CHECK(is_row(back + k * WIDTH, i, ep->rank, k - first[i]));
        }
    TRY(exchange_return(&x, there, WIDTH, mem, mem, &back, e)); /* twice: the plan stays as it is */
    return OK;
}

static status all_loads(void *arg, comm *ep, error *e) {
    (void)arg;
    arena *mem = arena_open(1 << 16);
    status s = mem ? OK : (fail)(e, ERR_NOMEM, "memory is out");
    for (int load = ODD; load < EXPERTS && s == OK; load++) {
        s = there_and_back(ep, load, mem, e);
        if (s == OK) arena_reset(mem);
    }
    arena_close(mem);
    return s;
}

static void rows_arrive_and_return(void **state) {
    (void)state;
    static const int sizes[] = {1, 2, 3, 4, 6, 8};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        error e = {0};
        if (comm_run_threads(sizes[i], all_loads, NULL, &e) != OK) fail_msg("%d ranks: %s", sizes[i], e.text);
    }
}

static status undividable(void *arg, comm *ep, error *e) {
    (void)arg;
    int64_t first[EXPERTS + 1] = {0};
    exchange x;
    return exchange_plan(&x, ep, first, EXPERTS, NULL, e);
}

static void experts_that_cannot_be_divided(void **state) {
    (void)state;
    error e = {0};
    assert_int_equal(comm_run_threads(5, undividable, NULL, &e), ERR_ARG);
    assert_string_equal(e.text, "24 experts cannot be divided among 5 ranks");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_arrive_and_return),
                                       cmocka_unit_test(experts_that_cannot_be_divided)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
