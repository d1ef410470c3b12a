#define _GNU_SOURCE
#include "base/pool.h"

#include <linux/futex.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* How long a thread spins before it sleeps: longer than the serial pieces between two loops of one layer (a few
 * microseconds), shorter than what a neighbour on a shared core would miss. */
enum { SPINS = 2000 };

typedef struct worker { /* one for each thread; the caller of pool_run is number 0 */
    pool *p;
    int index;
    pthread_t thread;
    /* Its tasks that nobody has taken yet: the first in the lower half, the end in the upper. */
    _Alignas(64) _Atomic uint64_t range;
} worker;

struct pool {
    int threads;
    pthread_mutex_t turn;   /* held by the caller for one pool_run */
    _Atomic uint32_t round; /* odd while a loop is open; workers wait for it to change */
    _Atomic int32_t inside; /* workers that are between entering and leaving the open loop */
    _Atomic uint32_t left;  /* changes when a worker leaves: the caller may wait for it */
    int64_t base;           /* number of the first task of the round */
    pool_function *f;
    void *arg;
    atomic_bool stop;
    worker *workers;
};

static void futex_wait(_Atomic uint32_t *at, uint32_t seen) {
    syscall(SYS_futex, (uint32_t *)at, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *at) {
    syscall(SYS_futex, (uint32_t *)at, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void wait_change(_Atomic uint32_t *at, uint32_t seen) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(at, memory_order_acquire) != seen) return;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    while (atomic_load_explicit(at, memory_order_acquire) == seen) futex_wait(at, seen);
}

static uint64_t range_of(uint64_t first, uint64_t end) {
    return end << 32 | first;
}

/* The next task of a range: its first one for the owner, its last one for others. -1: there is none. */
static int64_t take(worker *w, bool owner) {
    uint64_t seen = atomic_load_explicit(&w->range, memory_order_relaxed);
    for (;;) {
        uint64_t first = seen & UINT32_MAX, end = seen >> 32;
        if (first >= end) return -1;
        uint64_t rest = owner ? range_of(first + 1, end) : range_of(first, end - 1);
        if (atomic_compare_exchange_weak_explicit(&w->range, &seen, rest, memory_order_relaxed, memory_order_relaxed))
            return (int64_t)(owner ? first : end - 1);
    }
}

/* Own tasks in their order, so that memory is read in one stream; then those that others have not come to. */
static void take_tasks(pool *p, int thread) {
    for (int i = 0; i < p->threads; i++) {
        worker *w = &p->workers[(thread + i) % p->threads];
        for (int64_t t; (t = take(w, i == 0)) >= 0;) p->f(p->arg, p->base + t, thread);
    }
}

static void *work(void *arg) {
    worker *w = arg;
    pool *p = w->p;
    uint32_t seen = 0;
    for (;;) {
        wait_change(&p->round, seen);
        seen = atomic_load(&p->round);
        if (atomic_load(&p->stop)) return NULL;
        if (!(seen & 1)) continue;
        /* Announce, then look again: the caller closes the loop (round becomes even) before it reads `inside`, so
         * either it sees us and waits, or we see that the loop is closed. */
        atomic_fetch_add(&p->inside, 1);
        if (atomic_load(&p->round) == seen) take_tasks(p, w->index);
        atomic_fetch_sub(&p->inside, 1);
        atomic_fetch_add(&p->left, 1);
        futex_wake(&p->left);
    }
}

int pool_size(int wanted) {
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    return wanted ? wanted : processors > 0 && processors <= 1024 ? (int)processors : 1;
}

status pool_open(pool **out, int threads, error *e) {
    *out = NULL;
    if (threads < 1 || threads > 1024) return fail(e, ERR_ARG, "%d threads: use 1 to 1024", threads);
    pool *p = calloc(1, sizeof *p);
    worker *workers = aligned_alloc(64, (size_t)threads * sizeof *workers);
    if (!p || !workers) {
        free(p);
        free(workers);
        return fail(e, ERR_NOMEM, "memory is out");
    }
    p->workers = workers;
    p->threads = 1;
    pthread_mutex_init(&p->turn, NULL);
    for (int i = 0; i < threads; i++) {
        workers[i] = (worker){.p = p, .index = i};
        if (i == 0) continue;
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0) {
            pool_close(p);
            return fail(e, ERR_NOMEM, "cannot start %d threads", threads);
        }
        p->threads = i + 1;
    }
    *out = p;
    return OK;
}

void pool_close(pool *p) {
    if (!p) return;
    atomic_store(&p->stop, true);
    atomic_fetch_add(&p->round, 2);
    futex_wake(&p->round);
    for (int i = 1; i < p->threads; i++) pthread_join(p->workers[i].thread, NULL);
    pthread_mutex_destroy(&p->turn);
    free(p->workers);
    free(p);
}

int pool_threads(const pool *p) {
    return p->threads;
}

/* One round: at most 2^31 tasks, a range of neighbours for each thread. */
static void run_round(pool *p, uint64_t tasks) {
    const uint64_t threads = (uint64_t)p->threads;
    if (threads == 1 || tasks == 1) { /* nobody to share with */
        for (uint64_t t = 0; t < tasks; t++) p->f(p->arg, p->base + (int64_t)t, 0);
        return;
    }
    for (uint64_t i = 0; i < threads; i++)
        atomic_store_explicit(&p->workers[i].range, range_of(tasks * i / threads, tasks * (i + 1) / threads),
                              memory_order_relaxed);
    atomic_fetch_add(&p->round, 1); /* open */
    futex_wake(&p->round);
    take_tasks(p, 0);
    atomic_fetch_add(&p->round, 1); /* close */
    for (;;) {
        uint32_t seen = atomic_load(&p->left);
        if (atomic_load(&p->inside) == 0) break;
        wait_change(&p->left, seen);
    }
}

void pool_run(pool *p, int64_t tasks, pool_function *f, void *arg) {
    const int64_t most = (int64_t)1 << 31;
    if (tasks <= 0) return;
    pthread_mutex_lock(&p->turn);
    p->f = f;
    p->arg = arg;
    for (p->base = 0; p->base < tasks; p->base += most)
        run_round(p, (uint64_t)(tasks - p->base < most ? tasks - p->base : most));
    pthread_mutex_unlock(&p->turn);
}
