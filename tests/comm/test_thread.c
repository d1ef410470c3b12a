/* Collectives of threads against plain loops, for 1 to 8 ranks: results, order of sums, faults of every rank at every
 * collective, ranks that leave, groups. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/rng.h"
#include "comm/mesh.h"
#include <cmocka.h>

enum { MOST = 8 };

/* Ranks are threads, which cmocka's assertions may not leave by longjmp: they return errors instead. (fail) in brackets
 * is that of base/error.h, not the macro. */
#define CHECK(ok)                                                                                                    \
    do {                                                                                                             \
        if (!(ok)) return (fail)(e, ERR_ARG, "line %d, rank %d of %d: %s", __LINE__, world->rank, world->size, #ok); \
    } while (0)

static void run_sized(int ranks, status (*f)(void *arg, comm *world, error *e), void *arg) {
    error e = {0};
    if (comm_run_threads(ranks, f, arg, &e) != OK) fail_msg("%d ranks: %s", ranks, e.text);
}

static void for_all_sizes(status (*f)(void *arg, comm *world, error *e)) {
    for (int ranks = 1; ranks <= MOST; ranks++) run_sized(ranks, f, NULL);
}

/* Of all sizes of number, so that the order of a sum shows in its last bits. */
static float number(int rank, int64_t i) {
    return (float)(rng_normal(7, (uint64_t)rank, (uint64_t)i) * exp2((double)((i * 7 + rank * 5) % 24)));
}

static float sum_at(int size, int64_t i) {
    float sum = number(0, i);
    for (int r = 1; r < size; r++) sum += number(r, i);
    return sum;
}

static const int64_t lengths[] = {0, 1, 3, 15, 16, 17, 100, 4095, 4096, 4097, 40000};
enum { LENGTHS = sizeof lengths / sizeof *lengths, LONGEST = 40000 };

/* --- results ---------------------------------------------------------------------------------------------------- */

static status sums(void *arg, comm *world, error *e) {
    (void)arg;
    float *x = malloc(LONGEST * sizeof *x);
    double *d = malloc(LONGEST * sizeof *d);
    status s = x && d ? OK : (fail)(e, ERR_NOMEM, "memory is out");
    for (int k = 0; k < LENGTHS && s == OK; k++) {
        const int64_t n = lengths[k];
        int64_t bad = 0;
        for (int64_t i = 0; i < n; i++) d[i] = x[i] = number(world->rank, i);
        s = world->kind->all_reduce(world, n ? x : NULL, n, e);
        if (s == OK) s = world->kind->all_reduce_f64(world, d, n, e);
        for (int64_t i = 0; i < n && s == OK; i++) {
            double wanted = number(0, i);
            for (int r = 1; r < world->size; r++) wanted += number(r, i);
            float wanted_f32 = sum_at(world->size, i);
            bad += memcmp(&x[i], &wanted_f32, sizeof *x) != 0 || d[i] != wanted;
        }
        for (int64_t i = 0; i < n; i++) d[i] = number(world->rank, i);
        if (n > 3 && world->rank == world->size / 2) d[3] = NAN;
        if (s == OK) s = world->kind->all_reduce_max(world, d, n, e);
        for (int64_t i = 0; i < n && s == OK; i++) {
            double most = number(0, i);
            for (int r = 1; r < world->size; r++) most = fmax(most, number(r, i));
            bad += i == 3 ? !isnan(d[i]) && n > 3 : d[i] != most;
        }
        if (s == OK && bad) s = (fail)(e, ERR_ARG, "%lld of %lld numbers are wrong", (long long)bad, (long long)n);
    }
    free(x);
    free(d);
    return s;
}

static void sums_in_the_order_of_ranks(void **state) {
    (void)state;
    for_all_sizes(sums);
}

/* Ranges of any lengths, empty ones among them. */
static int64_t ranges(int size, int kind, int64_t *first) {
    first[0] = 0;
    for (int r = 0; r < size; r++) {
        int64_t n = kind == 0 ? 0 : kind == 1 ? (r == size - 1) * 37 : kind == 2 ? 5000 * (r % 3) + r : 64;
        first[r + 1] = first[r] + n;
    }
    return first[size];
}

static status scatter_gather(void *arg, comm *world, error *e) {
    (void)arg;
    int64_t first[MOST + 1];
    for (int kind = 0; kind < 4; kind++) {
        const int64_t n = ranges(world->size, kind, first);
        float *x = malloc((size_t)(n + 1) * sizeof *x);
        if (!x) return (fail)(e, ERR_NOMEM, "memory is out");
        for (int64_t i = 0; i < n; i++) x[i] = number(world->rank, i);
        int64_t bad = 0;
        status s = world->kind->reduce_scatter(world, x, first, e);
        for (int64_t i = first[world->rank]; i < first[world->rank + 1]; i++) bad += x[i] != sum_at(world->size, i);
        if (s == OK) s = world->kind->all_gather(world, x, first, e);
        for (int64_t i = 0; i < n; i++) bad += x[i] != sum_at(world->size, i);
        free(x);
        TRY(s);
        CHECK(bad == 0);
    }
    return OK;
}

static void uneven_ranges(void **state) {
    (void)state;
    for_all_sizes(scatter_gather);
}

static int64_t blocks(int from, int to, int kind) {
    return kind == 0 ? 0 : kind == 1 ? (from * 3 + to * 5) % 7 : kind == 2 ? (to == 0) * 100 : 1;
}

static status everyone_to_everyone(void *arg, comm *world, error *e) {
    (void)arg;
    typedef struct block {
        int32_t from, to, i;
    } block; /* 12 bytes: no power of two */
    for (int kind = 0; kind < 4; kind++) {
        int64_t n_sent[MOST], n_got[MOST];
        block sent[MOST * 100], got[MOST * 100], *at = sent;
        for (int r = 0; r < world->size; r++) {
            n_sent[r] = blocks(world->rank, r, kind);
            n_got[r] = blocks(r, world->rank, kind);
            for (int64_t i = 0; i < n_sent[r]; i++) *at++ = (block){world->rank, r, (int32_t)i};
        }
        TRY(world->kind->all_to_all(world, got, n_got, sent, n_sent, sizeof(block), e));
        at = got;
        for (int r = 0; r < world->size; r++)
            for (int64_t i = 0; i < n_got[r]; i++, at++) CHECK(at->from == r && at->to == world->rank && at->i == i);
    }
    return OK;
}

static void all_to_all_of_any_counts(void **state) {
    (void)state;
    for_all_sizes(everyone_to_everyone);
}

static status broadcasts(void *arg, comm *world, error *e) {
    (void)arg;
    for (int root = 0; root < world->size; root++) {
        char x[777];
        memset(x, world->rank + 1, sizeof x);
        TRY(world->kind->broadcast(world, x, sizeof x - (size_t)root, root, e));
        for (size_t i = 0; i < sizeof x; i++) CHECK(x[i] == (i < sizeof x - (size_t)root ? root + 1 : world->rank + 1));
        TRY(world->kind->broadcast(world, NULL, 0, root, e));
    }
    return OK;
}

static void broadcast_from_every_root(void **state) {
    (void)state;
    for_all_sizes(broadcasts);
}

static status no_one_before_the_last(void *arg, comm *world, error *e) {
    atomic_int *arrived = arg;
    for (int i = 1; i <= 200; i++) {
        atomic_fetch_add(arrived, 1);
        TRY(world->kind->barrier(world, e));
        CHECK(atomic_load(arrived) >= i * world->size);
    }
    return OK;
}

static void barriers_hold(void **state) {
    (void)state;
    for (int ranks = 1; ranks <= MOST; ranks++) {
        atomic_int arrived = 0;
        run_sized(ranks, no_one_before_the_last, &arrived);
        assert_int_equal(arrived, 200 * ranks);
    }
}

/* Many small collectives after each other: memory of one must not be seen by the next. */
static status stress(void *arg, comm *world, error *e) {
    (void)arg;
    for (int i = 0; i < 1000; i++) {
        float x[20];
        const int n = 1 + i % 20;
        for (int k = 0; k < n; k++) x[k] = (float)(world->rank + i + k);
        TRY(world->kind->all_reduce(world, x, n, e));
        const int size = world->size;
        for (int k = 0; k < n; k++) CHECK(x[k] == (float)(size * (i + k) + size * (size - 1) / 2));
        int32_t root = world->rank == i % size ? i : -1;
        TRY(world->kind->broadcast(world, &root, sizeof root, i % size, e));
        CHECK(root == i);
    }
    return OK;
}

static void many_small_ones(void **state) {
    (void)state;
    run_sized(2, stress, NULL);
    run_sized(5, stress, NULL);
}

/* --- faults ----------------------------------------------------------------------------------------------------- */

enum { COLLECTIVES = 9 };

static status collective(comm *c, int which, error *e) {
    float x[40] = {0};
    double d[40] = {0};
    int64_t first[MOST + 1], n[MOST];
    comm sub;
    for (int r = 0; r < c->size; r++) n[r] = 2;
    for (int r = 0; r <= c->size; r++) first[r] = 3 * r;
    switch (which) {
    case 0: return c->kind->barrier(c, e);
    case 1: return c->kind->all_reduce(c, x, 40, e);
    case 2: return c->kind->all_reduce_f64(c, d, 40, e);
    case 3: return c->kind->all_reduce_max(c, d, 40, e);
    case 4: return c->kind->reduce_scatter(c, x, first, e);
    case 5: return c->kind->all_gather(c, x, first, e);
    case 6: return c->kind->all_to_all(c, x, n, d, n, 8, e);
    case 7: return c->kind->broadcast(c, x, sizeof x, 0, e);
    default: return comm_split(c, c->rank % 2, &sub, e);
    }
}

typedef struct fault {
    int rank, at; /* who, at which collective */
    enum { RETURN, ABORT, LEAVE } how;
    bool late; /* when the others wait already */
    atomic_int followers;
} fault;

static status faulty(void *arg, comm *world, error *e) {
    fault *f = arg;
    for (int i = 0; i < COLLECTIVES; i++) {
        if (world->rank == f->rank && i == f->at) {
            if (f->late) nanosleep(&(struct timespec){.tv_nsec = 300000}, NULL);
            if (f->how == LEAVE) return OK;
            (fail)(e, ERR_IO, "disk %d is full", i);
            if (f->how == RETURN) return ERR_IO;
            comm_abort(world, e);
            error mine = {0};
            if (world->kind->barrier(world, &mine) == ERR_COMM) atomic_fetch_add(&f->followers, 1);
            return ERR_IO;
        }
        status s = collective(world, i, e);
        if (s == OK) continue;
        char text[80];
        snprintf(text, sizeof text, "rank %d: disk %d is full", f->rank, f->at);
        if (f->how == LEAVE) snprintf(text, sizeof text, "rank %d left", f->rank);
        if (s == ERR_COMM && i == f->at && strstr(e->text, text)) atomic_fetch_add(&f->followers, 1);
        return s;
    }
    return OK;
}

static void every_rank_fails_at_every_collective(void **state) {
    (void)state;
    for (int ranks = 2; ranks <= 4; ranks++)
        for (int i = 0; i < ranks * COLLECTIVES * 6; i++) {
            fault f = {.rank = i / 6 / COLLECTIVES, .at = i / 6 % COLLECTIVES, .how = i % 3, .late = i / 3 % 2};
            error e = {0};
            status s = comm_run_threads(ranks, faulty, &f, &e);
            char text[40];
            snprintf(text, sizeof text, f.how == LEAVE ? "rank %d left" : "disk %d is full",
                     f.how == LEAVE ? f.rank : f.at);
            if (s != (f.how == LEAVE ? ERR_COMM : ERR_IO) || e.code != s || strncmp(e.text, text, strlen(text)) != 0)
                fail_msg("rank %d at %d: status %d, \"%s\"", f.rank, f.at, s, e.text);
            assert_int_equal(f.followers, f.how == ABORT ? ranks : ranks - 1);
        }
}

/* A rank that fails outside a group ends those who wait inside it; and what they do there is done or not done for all
 * members alike. */
static status groups_break(void *arg, comm *world, error *e) {
    atomic_int *ended = arg;
    comm pair;
    TRY(comm_split(world, world->rank / 2, &pair, e));
    if (world->rank == 4) return (fail)(e, ERR_NOMEM, "memory is out");
    float *x = malloc(5000 * sizeof *x); /* freed at once: nobody may still be reading it */
    status s = x ? OK : (fail)(e, ERR_NOMEM, "memory is out");
    while (s == OK) {
        for (int i = 0; i < 5000; i++) x[i] = (float)i;
        s = pair.kind->all_reduce(&pair, x, 5000, e);
        if (s == OK && x[4999] != 4999 * 2) s = (fail)(e, ERR_ARG, "wrong sum");
    }
    free(x);
    if (s == ERR_COMM && strstr(e->text, "rank 4: memory is out")) atomic_fetch_add(ended, 1);
    return s;
}

static void failures_reach_other_groups(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) {
        atomic_int ended = 0;
        error e = {0};
        assert_int_equal(comm_run_threads(6, groups_break, &ended, &e), ERR_NOMEM);
        assert_string_equal(e.text, "memory is out");
        assert_int_equal(ended, 5);
    }
}

static status different_calls(void *arg, comm *world, error *e) {
    float x[8] = {0};
    int64_t n_got[2] = {1, 1}, n_sent[2] = {1, world->rank};
    int how = *(int *)arg;
    if (how == 2) return world->kind->all_to_all(world, x, n_got, &x[4], n_sent, sizeof *x, e);
    if (world->rank == 1) return how ? world->kind->all_reduce(world, x, 5, e) : world->kind->barrier(world, e);
    return world->kind->all_reduce(world, x, 8, e);
}

static void different_calls_are_told(void **state) {
    (void)state;
    static const char *const texts[] = {"rank 0 calls all_reduce of 8 (root 0), rank 1 barrier of 0",
                                        "rank 0 calls all_reduce of 8 (root 0), rank 1 all_reduce of 5",
                                        "rank 0 sends 0 blocks to rank 1, which expects 1"};
    for (int how = 0; how < 3; how++) {
        error e = {0};
        assert_int_equal(comm_run_threads(2, different_calls, &how, &e), ERR_COMM);
        assert_non_null(strstr(e.text, texts[how]));
    }
}

static status not_called(void *arg, comm *world, error *e) {
    (void)world, (void)e;
    *(int *)arg = 1;
    return OK;
}

static void senseless_sizes(void **state) {
    (void)state;
    int called = 0;
    assert_int_equal(comm_run_threads(0, not_called, &called, NULL), ERR_ARG);
    assert_int_equal(comm_run_threads(-1, not_called, &called, NULL), ERR_ARG);
    assert_int_equal(comm_run_threads(1 << 20, not_called, &called, NULL), ERR_ARG);
    assert_int_equal(called, 0);
}

/* --- groups ----------------------------------------------------------------------------------------------------- */

static status meshes(void *arg, comm *world, error *e) {
    (void)arg;
    for (int ep = 1; ep <= world->size; ep++) {
        mesh m;
        if (world->size % ep) {
            CHECK(mesh_open(&m, world, ep, e) == ERR_ARG);
            continue;
        }
        TRY(mesh_open(&m, world, ep, e));
        CHECK(m.ep.size == ep && m.ep.rank == world->rank % ep);
        CHECK(m.edp.size == world->size / ep && m.edp.rank == world->rank / ep);
        CHECK(m.dp == world && m.world == world);
        double x = world->rank, y = x, in_ep = 0, in_edp = 0;
        TRY(m.ep.kind->all_reduce_f64(&m.ep, &x, 1, e));
        TRY(m.edp.kind->all_reduce_f64(&m.edp, &y, 1, e));
        for (int r = 0; r < world->size; r++) {
            in_ep += r / ep == world->rank / ep ? r : 0;
            in_edp += r % ep == world->rank % ep ? r : 0;
        }
        CHECK(x == in_ep && y == in_edp);
        mesh_close(&m);
        CHECK(!m.ep.kind);
    }
    return OK;
}

static void groups_of_a_mesh(void **state) {
    (void)state;
    for_all_sizes(meshes);
    error e = {0};
    comm self;
    mesh m;
    assert_int_equal(comm_self(&self, &e), OK);
    assert_int_equal(mesh_open(&m, &self, 2, &e), ERR_ARG);
    assert_int_equal(mesh_open(&m, &self, 0, &e), ERR_ARG);
    mesh_close(&m);
}

static status sub_groups(void *arg, comm *world, error *e) {
    (void)arg;
    comm half, quarter;
    TRY(comm_split(world, world->rank >= world->size / 2, &half, e));
    TRY(comm_split(&half, half.rank % 2, &quarter, e));
    double x = 1, y = 1;
    TRY(half.kind->all_reduce_f64(&half, &x, 1, e));
    TRY(quarter.kind->all_reduce_f64(&quarter, &y, 1, e));
    CHECK(x == half.size && y == quarter.size && quarter.size == 2);
    return OK;
}

static void groups_of_groups(void **state) {
    (void)state;
    run_sized(8, sub_groups, NULL);
}

int main(void) {
    alarm(300); /* a rank that waits for ever is a failure, too */
    const struct CMUnitTest tests[] = {cmocka_unit_test(sums_in_the_order_of_ranks),
                                       cmocka_unit_test(uneven_ranges),
                                       cmocka_unit_test(all_to_all_of_any_counts),
                                       cmocka_unit_test(broadcast_from_every_root),
                                       cmocka_unit_test(barriers_hold),
                                       cmocka_unit_test(many_small_ones),
                                       cmocka_unit_test(every_rank_fails_at_every_collective),
                                       cmocka_unit_test(failures_reach_other_groups),
                                       cmocka_unit_test(different_calls_are_told),
                                       cmocka_unit_test(senseless_sizes),
                                       cmocka_unit_test(groups_of_a_mesh),
                                       cmocka_unit_test(groups_of_groups)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
