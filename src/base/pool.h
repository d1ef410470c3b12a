/* A pool of threads for short parallel loops. Every thread begins with a range of neighbouring tasks and, when it is
 * done, takes what others have not come to: a thread that loses its core leaves its work to the others. Threads with
 * nothing to do spin for a moment and then sleep in the kernel. */
#ifndef HADAL_BASE_POOL_H
#define HADAL_BASE_POOL_H

#include <stdint.h>
#include "base/error.h"

typedef struct pool pool;

/* The threads to use when `wanted` were asked for; 0: one for each processor. */
int pool_size(int wanted);

/* `threads` counts the calling thread: pool_open(1) starts none. */
status pool_open(pool **out, int threads, error *e);
void pool_close(pool *p); /* accepts NULL */
int pool_threads(const pool *p);

/* Calls f(arg, task, thread) for task = 0 .. tasks-1 and returns when all are done. `thread` is 0 for the caller and
 * below pool_threads(p): an index for scratch memory. Two callers at once take turns. f must not call pool_run. */
typedef void pool_function(void *arg, int64_t task, int thread);
void pool_run(pool *p, int64_t tasks, pool_function *f, void *arg);

#endif
