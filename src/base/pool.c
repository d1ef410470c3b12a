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

typedef struct worker {
    pool *p;
    int index;
    pthread_t thread;
} worker;

struct pool {
    int threads;
    pthread_mutex_t turn;   /* held by the caller for one pool_run */
    _Atomic uint32_t round; /* odd while a loop is open; workers wait for it to change */
    _Atomic int64_t next;
    _Atomic int32_t inside; /* workers that are between entering and leaving the open loop */
    _Atomic uint32_t left;  /* changes when a worker leaves: the caller may wait for it */
    int64_t tasks;
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

static void take_tasks(pool *p, int thread) {
    for (;;) {
        int64_t t = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (t >= p->tasks) return;
        p->f(p->arg, t, thread);
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

status pool_open(pool **out, int threads, error *e) {
    *out = NULL;
    if (threads < 1 || threads > 1024) return fail(e, ERR_ARG, "%d threads: use 1 to 1024", threads);
    pool *p = calloc(1, sizeof *p);
    worker *workers = calloc((size_t)threads, sizeof *workers);
    if (!p || !workers) {
        free(p);
        free(workers);
        return fail(e, ERR_NOMEM, "memory is out");
    }
    p->workers = workers;
    p->threads = 1;
    pthread_mutex_init(&p->turn, NULL);
    for (int i = 1; i < threads; i++) {
        workers[i] = (worker){.p = p, .index = i};
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

void pool_run(pool *p, int64_t tasks, pool_function *f, void *arg) {
    if (tasks <= 0) return;
    pthread_mutex_lock(&p->turn);
    p->f = f;
    p->arg = arg;
    p->tasks = tasks;
    atomic_store(&p->next, 0);
    if (p->threads == 1 || tasks == 1) {
        take_tasks(p, 0);
    } else {
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
    pthread_mutex_unlock(&p->turn);
}
