/* Ranks as threads of one process.
 *
 * A collective lies between two barriers. Before the first a rank shows its memory to the others; between them each
 * rank reads and writes a part that is its own in the memory of all; after the second the memory is its owner's again.
 * A sum is made piece by piece on the stack, in the order of the ranks, by the one rank whose part it is, so it is the
 * same everywhere and in every run.
 *
 * Failures. A group is broken by setting the lowest bit of the word that its barriers count in. The first barrier of a
 * collective either counts or finds the bit, for all ranks alike, since both are changes of one word. From there to the
 * second barrier nothing can fail or wait for anything else, so the second one ignores the bit: nobody leaves a
 * collective while another still reads his memory. */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "comm/comm.h"

enum {
    MOST_RANKS = 1024,
    SPINS = 2000,       /* looks at a barrier before a rank sleeps; see base/pool.c */
    PIECE_BYTES = 16384 /* of a sum: stays in the first cache while all ranks' numbers are added to it */
};

typedef struct slot { /* what a rank shows in a collective; op, n and root are the same on all ranks */
    _Alignas(64) const char *op;
    int64_t n;
    int root, colour;
    void *x;
    const int64_t *counts;
} slot;

typedef struct group {
    struct run *run;
    struct group *next;
    int size, *ranks; /* of the world */
    int left;         /* a rank that has returned, or -1; under the run's lock */
    slot *slots;      /* [size] */
    /* Twice the number of barriers that all ranks have reached; odd: broken, no collective begins any more. */
    _Alignas(64) _Atomic uint32_t phase;
    _Atomic uint32_t arrived;
} group;

typedef struct run { /* one call of comm_run_threads */
    status (*f)(void *arg, comm *world, error *e);
    void *arg;
    group *world;
    pthread_mutex_t lock; /* for what follows */
    group *groups;
    bool failed;
    int failed_rank;
    error first;
} run;

/* --- barriers --------------------------------------------------------------------------------------------------- */

static void futex_wake(_Atomic uint32_t *at) {
    syscall(SYS_futex, (uint32_t *)at, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static uint32_t wait_change(_Atomic uint32_t *at, uint32_t seen) {
    uint32_t now;
    for (int i = 0; i < SPINS; i++) {
        if ((now = atomic_load_explicit(at, memory_order_acquire)) != seen) return now;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    while ((now = atomic_load_explicit(at, memory_order_acquire)) == seen)
        syscall(SYS_futex, (uint32_t *)at, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    return now;
}

/* Waits for all ranks of the group. false: it is broken; with `sure` that is not looked at. */
static bool meet(group *g, bool sure) {
    uint32_t seen = atomic_load_explicit(&g->phase, memory_order_acquire);
    if (!sure && (seen & 1)) return false;
    if (atomic_fetch_add_explicit(&g->arrived, 1, memory_order_acq_rel) + 1 == (uint32_t)g->size) {
        atomic_store_explicit(&g->arrived, 0, memory_order_relaxed);
        while (!atomic_compare_exchange_weak(&g->phase, &seen, seen + 2))
            if (!sure && (seen & 1)) return false;
        futex_wake(&g->phase);
        return true;
    }
    for (;;) {
        uint32_t now = wait_change(&g->phase, seen);
        if (now >> 1 != seen >> 1) return true;
        if (!sure) return false;
        seen = now;
    }
}

static void break_group(group *g) {
    atomic_fetch_or(&g->phase, 1);
    futex_wake(&g->phase);
}

static status broken(group *g, error *e) {
    run *r = g->run;
    pthread_mutex_lock(&r->lock);
    status s = r->failed ? fail(e, ERR_COMM, "rank %d: %s", r->failed_rank, r->first.text)
                         : fail(e, ERR_COMM, "rank %d left: it returned while others still wait for it", g->left);
    pthread_mutex_unlock(&r->lock);
    return s;
}

/* --- collectives ------------------------------------------------------------------------------------------------ */

static status begin(comm *c, const slot *mine, error *e) {
    group *g = c->group;
    g->slots[c->rank] = *mine;
    if (!meet(g, false)) return broken(g, e);
    const slot *a = &g->slots[0];
    for (int r = 1; r < g->size; r++) {
        const slot *b = &g->slots[r];
        if (a->op == b->op && a->n == b->n && a->root == b->root) continue;
        status s = fail(e, ERR_COMM, "ranks disagree: rank %d calls %s of %lld (root %d), rank %d %s of %lld (root %d)",
                        g->ranks[0], a->op, (long long)a->n, a->root, g->ranks[r], b->op, (long long)b->n, b->root);
        meet(g, true);
        return s;
    }
    return OK;
}

static status end(comm *c) {
    meet(c->group, true);
    return OK;
}

static const char op_barrier[] = "barrier", op_sum[] = "all_reduce", op_sum_f64[] = "all_reduce_f64",
                  op_max[] = "all_reduce_max", op_scatter[] = "reduce_scatter", op_gather[] = "all_gather",
                  op_exchange[] = "all_to_all", op_broadcast[] = "broadcast", op_split[] = "split";

static status barrier(comm *c, error *e) {
    TRY(begin(c, &(slot){.op = op_barrier}, e));
    return end(c);
}

typedef struct reduction {
    size_t unit;
    void (*add)(void *to, const void *x, int64_t n);
} reduction;

static void add_f32(void *to, const void *x, int64_t n) {
    float *a = to;
    const float *b = x;
    for (int64_t i = 0; i < n; i++) a[i] += b[i];
}

static void add_f64(void *to, const void *x, int64_t n) {
    double *a = to;
    const double *b = x;
    for (int64_t i = 0; i < n; i++) a[i] += b[i];
}

static void max_f64(void *to, const void *x, int64_t n) {
    double *a = to;
    const double *b = x;
    for (int64_t i = 0; i < n; i++)
        if (b[i] > a[i] || isnan(b[i])) a[i] = b[i];
}

static const reduction sum_f32 = {sizeof(float), add_f32}, sum_f64 = {sizeof(double), add_f64},
                       largest_f64 = {sizeof(double), max_f64};

/* Numbers first .. end-1 of all ranks' x, reduced, into x of the ranks from .. to-1. */
static void reduce_range(const group *g, const reduction *how, int64_t first, int64_t last, int from, int to) {
    _Alignas(64) char sum[PIECE_BYTES];
    const int64_t piece = PIECE_BYTES / (int64_t)how->unit;
    for (int64_t at = first; at < last; at += piece) {
        int64_t n = last - at < piece ? last - at : piece;
        size_t offset = (size_t)at * how->unit, bytes = (size_t)n * how->unit;
        memcpy(sum, (char *)g->slots[0].x + offset, bytes);
        for (int r = 1; r < g->size; r++) how->add(sum, (char *)g->slots[r].x + offset, n);
        for (int r = from; r < to; r++) memcpy((char *)g->slots[r].x + offset, sum, bytes);
    }
}

static status reduce(comm *c, const char *op, const reduction *how, void *x, int64_t n, error *e) {
    TRY(begin(c, &(slot){.op = op, .n = n, .x = x}, e));
    const int64_t line = 64 / (int64_t)how->unit; /* shares end with cache lines: no line has two writers */
    const int64_t share = ((n + c->size - 1) / c->size + line - 1) / line * line;
    int64_t first = c->rank * share, last = first + share < n ? first + share : n;
    reduce_range(c->group, how, first, last, 0, c->size);
    return end(c);
}

static status all_reduce(comm *c, float *x, int64_t n, error *e) {
    return reduce(c, op_sum, &sum_f32, x, n, e);
}

static status all_reduce_f64(comm *c, double *x, int64_t n, error *e) {
    return reduce(c, op_sum_f64, &sum_f64, x, n, e);
}

static status all_reduce_max(comm *c, double *x, int64_t n, error *e) {
    return reduce(c, op_max, &largest_f64, x, n, e);
}

static status reduce_scatter(comm *c, float *x, const int64_t *first, error *e) {
    TRY(begin(c, &(slot){.op = op_scatter, .n = first[c->size], .x = x}, e));
    reduce_range(c->group, &sum_f32, first[c->rank], first[c->rank + 1], c->rank, c->rank + 1);
    return end(c);
}

static void copy(void *to, const void *from, size_t n) { /* where nothing is to be copied there may be no memory */
    if (n) memcpy(to, from, n);
}

static status all_gather(comm *c, float *x, const int64_t *first, error *e) {
    const group *g = c->group;
    TRY(begin(c, &(slot){.op = op_gather, .n = first[c->size], .x = x}, e));
    for (int i = 1; i < c->size; i++) {
        int r = (c->rank + i) % c->size;
        copy(x + first[r], (float *)g->slots[r].x + first[r], (size_t)(first[r + 1] - first[r]) * sizeof *x);
    }
    return end(c);
}

static status all_to_all(comm *c, void *got, const int64_t *n_got, const void *sent, const int64_t *n_sent, size_t unit,
                         error *e) {
    const group *g = c->group;
    status s = OK;
    TRY(begin(c, &(slot){.op = op_exchange, .n = (int64_t)unit, .x = (void *)sent, .counts = n_sent}, e));
    char *to = got;
    for (int r = 0; r < c->size; r++) {
        const int64_t *counts = g->slots[r].counts;
        int64_t before = 0;
        for (int i = 0; i < c->rank; i++) before += counts[i];
        if (counts[c->rank] != n_got[r])
            s = fail(e, ERR_COMM, "all_to_all: rank %d sends %lld blocks to rank %d, which expects %lld", g->ranks[r],
                     (long long)counts[c->rank], g->ranks[c->rank], (long long)n_got[r]);
        else copy(to, (char *)g->slots[r].x + (size_t)before * unit, (size_t)n_got[r] * unit);
        to += (size_t)n_got[r] * unit;
    }
    end(c);
    return s;
}

static status broadcast(comm *c, void *x, size_t bytes, int root, error *e) {
    const group *g = c->group;
    TRY(begin(c, &(slot){.op = op_broadcast, .n = (int64_t)bytes, .root = root, .x = x}, e));
    if (c->rank != root) copy(x, g->slots[root].x, bytes);
    return end(c);
}

/* --- groups ----------------------------------------------------------------------------------------------------- */

static void group_free(group *g) {
    if (!g) return;
    free(g->ranks);
    free(g->slots);
    free(g);
}

/* A group of the run, not in its list yet; NULL when memory is out. */
static group *group_new(run *r, int size) {
    group *g = aligned_alloc(_Alignof(group), sizeof *g);
    if (!g) return NULL;
    *g = (group){.run = r, .size = size, .left = -1};
    g->ranks = malloc((size_t)size * sizeof *g->ranks);
    g->slots = aligned_alloc(_Alignof(slot), (size_t)size * sizeof *g->slots);
    if (g->ranks && g->slots) return g;
    group_free(g);
    return NULL;
}

static void group_add(run *r, group *g) {
    pthread_mutex_lock(&r->lock);
    g->next = r->groups;
    r->groups = g;
    if (r->failed) break_group(g);
    pthread_mutex_unlock(&r->lock);
}

static group *group_of_colour(const group *from, int colour, int size) {
    group *g = group_new(from->run, size);
    for (int r = 0, n = 0; g && r < from->size; r++)
        if (from->slots[r].colour == colour) g->ranks[n++] = from->ranks[r];
    if (g) group_add(from->run, g);
    return g;
}

/* The first rank of a colour makes the group, the others find it in its slot. */
static status split(comm *c, int colour, comm *out, error *e) {
    group *g = c->group;
    TRY(begin(c, &(slot){.op = op_split, .colour = colour}, e));
    int size = 0, rank = 0, first = -1;
    for (int r = 0; r < g->size; r++) {
        if (g->slots[r].colour != colour) continue;
        if (first < 0) first = r;
        if (r == c->rank) rank = size;
        size++;
    }
    group *sub = NULL;
    if (size > 1 && rank == 0) g->slots[c->rank].x = sub = group_of_colour(g, colour, size);
    meet(g, true);
    if (size > 1) sub = g->slots[first].x;
    end(c);
    if (size == 1) return comm_self(out, e);
    if (!sub) return fail(e, ERR_NOMEM, "memory is out");
    *out = (comm){.rank = rank, .size = size, .kind = c->kind, .group = sub};
    return OK;
}

/* --- ends ------------------------------------------------------------------------------------------------------- */

static void give_up(run *r, int rank, status code, const error *why) {
    pthread_mutex_lock(&r->lock);
    if (!r->failed) {
        r->failed = true;
        r->failed_rank = rank;
        r->first = *why;
        r->first.code = code;
        for (group *g = r->groups; g; g = g->next) break_group(g);
    }
    pthread_mutex_unlock(&r->lock);
}

static void leave(run *r, int rank) {
    pthread_mutex_lock(&r->lock);
    for (group *g = r->groups; g; g = g->next)
        for (int i = 0; i < g->size; i++) {
            if (g->ranks[i] != rank || g->left >= 0) continue;
            g->left = rank;
            break_group(g);
        }
    pthread_mutex_unlock(&r->lock);
}

static void tell_all(comm *c, const error *why) {
    group *g = c->group;
    give_up(g->run, g->ranks[c->rank], why->code ? why->code : ERR_COMM, why);
}

static void close_nothing(comm *c) { /* groups belong to the run */
    *c = (comm){0};
}

static const comm_kind threads = {.name = "thread",
                                  .barrier = barrier,
                                  .all_reduce = all_reduce,
                                  .all_reduce_f64 = all_reduce_f64,
                                  .all_reduce_max = all_reduce_max,
                                  .reduce_scatter = reduce_scatter,
                                  .all_gather = all_gather,
                                  .all_to_all = all_to_all,
                                  .broadcast = broadcast,
                                  .split = split,
                                  .abort = tell_all,
                                  .close = close_nothing};

typedef struct rank_thread {
    run *run;
    int rank;
    pthread_t thread;
} rank_thread;

static void *run_rank(void *arg) {
    rank_thread *t = arg;
    run *r = t->run;
    comm world = {.rank = t->rank, .size = r->world->size, .kind = &threads, .group = r->world};
    error e = {0};
    status s = r->f(r->arg, &world, &e);
    if (s == OK) leave(r, t->rank);
    else give_up(r, t->rank, s, &e);
    return NULL;
}

static status run_alone(status (*f)(void *arg, comm *world, error *e), void *arg, error *e) {
    comm world;
    TRY(comm_self(&world, e));
    return f(arg, &world, e);
}

/* Rank 0 runs on the calling thread. */
static void run_all(run *r, rank_thread *list) {
    int started = 1;
    error e;
    for (int i = 0; i < r->world->size; i++) list[i] = (rank_thread){.run = r, .rank = i};
    while (started < r->world->size && !pthread_create(&list[started].thread, NULL, run_rank, &list[started]))
        started++;
    if (started < r->world->size)
        give_up(r, started, fail(&e, ERR_NOMEM, "cannot start %d ranks as threads", r->world->size), &e);
    else run_rank(&list[0]);
    for (int i = 1; i < started; i++) pthread_join(list[i].thread, NULL);
}

status comm_run_threads(int ranks, status (*f)(void *arg, comm *world, error *e), void *arg, error *e) {
    if (ranks < 1 || ranks > MOST_RANKS) return fail(e, ERR_ARG, "%d ranks: use 1 to %d", ranks, MOST_RANKS);
    if (ranks == 1) return run_alone(f, arg, e);
    run r = {.f = f, .arg = arg};
    rank_thread *list = malloc((size_t)ranks * sizeof *list);
    r.world = group_new(&r, ranks);
    if (!list || !r.world) {
        free(list);
        group_free(r.world);
        return fail(e, ERR_NOMEM, "memory is out");
    }
    for (int i = 0; i < ranks; i++) r.world->ranks[i] = i;
    pthread_mutex_init(&r.lock, NULL);
    group_add(&r, r.world);
    run_all(&r, list);
    pthread_mutex_destroy(&r.lock);
    for (group *g = r.groups, *next; g; g = next) {
        next = g->next;
        group_free(g);
    }
    free(list);
    if (r.failed && e) *e = r.first;
    return r.failed ? r.first.code : OK;
}
