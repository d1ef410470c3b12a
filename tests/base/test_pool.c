/* The pool: every task exactly once, by threads that exist, whatever the numbers; and callers at the same time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/pool.h"
#include <cmocka.h>

static pool *pool_of(int threads) {
    pool *p;
    error e;
    if (pool_open(&p, threads, &e) != OK) fail_msg("%s", e.text);
    return p;
}

enum { MOST_TASKS = 5000 };

typedef struct count { /* what a loop did */
    atomic_int done[MOST_TASKS];
    atomic_int by[8], outside;
    int64_t tasks;
    int threads;
} count;

static void count_one(void *arg, int64_t task, int thread) {
    count *c = arg;
    if (task < 0 || task >= c->tasks || thread < 0 || thread >= c->threads) {
        atomic_fetch_add(&c->outside, 1);
        return;
    }
    atomic_fetch_add(&c->done[task], 1);
    atomic_fetch_add(&c->by[thread], 1);
}

static void every_task_once(void **state) {
    (void)state;
    static const int64_t counts[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 63, 64, 100, 257, 1000, MOST_TASKS, -3};
    count *c = malloc(sizeof *c);
    assert_non_null(c);
    for (int threads = 1; threads <= 8; threads++) {
        pool *p = pool_of(threads);
        assert_int_equal(pool_threads(p), threads);
        for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
            memset(c, 0, sizeof *c);
            c->tasks = counts[k] > 0 ? counts[k] : 0;
            c->threads = threads;
            pool_run(p, counts[k], count_one, c);
            int sum = 0;
            for (int t = 0; t < 8; t++) sum += c->by[t];
            assert_int_equal(c->outside, 0);
            assert_int_equal(sum, c->tasks);
            for (int64_t i = 0; i < c->tasks; i++)
                if (c->done[i] != 1)
                    fail_msg("%d threads: task %d of %d was done %d times", threads, (int)i, (int)c->tasks, c->done[i]);
        }
        pool_close(p);
    }
    free(c);
}

/* `thread` is an index for scratch memory: never two tasks with the same index at once, and the caller is 0. */
typedef struct seats {
    atomic_int taken[8];
    atomic_int clashes, wrong_caller;
    pthread_t caller;
} seats;

static void sit(void *arg, int64_t task, int thread) {
    seats *s = arg;
    (void)task;
    if (atomic_exchange(&s->taken[thread], 1)) atomic_fetch_add(&s->clashes, 1);
    if ((thread == 0) != (pthread_equal(pthread_self(), s->caller) != 0)) atomic_fetch_add(&s->wrong_caller, 1);
    atomic_store(&s->taken[thread], 0);
}

static void an_index_is_one_thread(void **state) {
    (void)state;
    for (int threads = 1; threads <= 8; threads++) {
        pool *p = pool_of(threads);
        seats s = {.caller = pthread_self()};
        for (int i = 0; i < 20; i++) pool_run(p, 500, sit, &s);
        assert_int_equal(s.clashes, 0);
        assert_int_equal(s.wrong_caller, 0);
        pool_close(p);
    }
}

/* Many rounds with next to nothing to do: none is lost, none hangs; plain memory written by a task is seen after. */
typedef struct tiny {
    int64_t value[4];
} tiny;

static void add_one(void *arg, int64_t task, int thread) {
    (void)thread;
    ((tiny *)arg)->value[task]++;
}

static void many_tiny_rounds(void **state) {
    (void)state;
    enum { ROUNDS = 100000 };
    for (int threads = 2; threads <= 3; threads++) {
        pool *p = pool_of(threads);
        tiny t = {{0}};
        int64_t sum = 0;
        for (int i = 0; i < ROUNDS; i++) {
            int64_t tasks = 1 + i % 4;
            pool_run(p, tasks, add_one, &t);
            sum += tasks;
        }
        assert_int_equal(t.value[0], ROUNDS);
        assert_int_equal(t.value[0] + t.value[1] + t.value[2] + t.value[3], sum);
        pool_close(p);
    }
}

/* Two callers at once: while a task of one runs, none of the other does. */
typedef struct turn {
    pool *p;
    atomic_int running, *other_running, mixed;
    int64_t sum[64]; /* by task, written without locks */
} turn;

static void in_turn(void *arg, int64_t task, int thread) {
    turn *t = arg;
    (void)thread;
    atomic_fetch_add(&t->running, 1);
    if (atomic_load(t->other_running) != 0) atomic_fetch_add(&t->mixed, 1);
    t->sum[task] += task;
    atomic_fetch_sub(&t->running, 1);
}

static void *caller(void *arg) {
    turn *t = arg;
    for (int i = 0; i < 2000; i++) pool_run(t->p, 64, in_turn, t);
    return NULL;
}

static void callers_take_turns(void **state) {
    (void)state;
    pool *p = pool_of(3);
    turn t[2] = {{.p = p, .other_running = &t[1].running}, {.p = p, .other_running = &t[0].running}};
    pthread_t thread[2];
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&thread[i], NULL, caller, &t[i]), 0);
    for (int i = 0; i < 2; i++) pthread_join(thread[i], NULL);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(t[i].mixed, 0);
        for (int k = 0; k < 64; k++) assert_int_equal(t[i].sum[k], 2000 * k);
    }
    pool_close(p);
}

/* A thread that sleeps in its first task leaves its other tasks to the rest. Nobody goes on before it sleeps, and it
 * sleeps until all the others are done: a wait that never ends is given up after some seconds, and the test fails. */
typedef struct sleepy {
    atomic_int done, by_sleeper;
    int sleeper, tasks;
} sleepy;

static void wait_for(atomic_int *reached, int wanted) {
    for (int i = 0; i < 20000 && atomic_load(reached) < wanted; i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void doze(void *arg, int64_t task, int thread) {
    sleepy *s = arg;
    (void)task;
    if (thread == s->sleeper) {
        atomic_fetch_add(&s->by_sleeper, 1);
        wait_for(&s->done, s->tasks - 1);
    } else {
        wait_for(&s->by_sleeper, 1);
    }
    atomic_fetch_add(&s->done, 1);
}

static void a_sleeper_is_relieved(void **state) {
    (void)state;
    pool *p = pool_of(4);
    for (int sleeper = 0; sleeper < 4; sleeper++) {
        sleepy s = {.sleeper = sleeper, .tasks = 40};
        pool_run(p, 40, doze, &s);
        printf("thread %d did %d of 40 tasks\n", sleeper, s.by_sleeper);
        assert_int_equal(s.done, 40);
        assert_int_equal(s.by_sleeper, 1);
    }
    pool_close(p);
}

static void refusals(void **state) {
    (void)state;
    pool *p = (pool *)1;
    error e;
    static const int bad[] = {0, -1, 1025};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pool_open(&p, bad[i], &e), ERR_ARG);
        assert_null(p);
    }
    assert_string_equal(e.text, "1025 threads: use 1 to 1024");
    pool_close(NULL);
    for (int i = 0; i < 50; i++) pool_close(pool_of(4)); /* threads that never worked end, too */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_once),       cmocka_unit_test(an_index_is_one_thread),
        cmocka_unit_test(many_tiny_rounds),      cmocka_unit_test(callers_take_turns),
        cmocka_unit_test(a_sleeper_is_relieved), cmocka_unit_test(refusals)};
    return cmocka_run_group_tests_name("base/pool", tests, NULL, NULL);
}
