/* A program started with most of what a process may do taken away: what sandbox.c and line_program.c stand on.
 *
 * Two ways. Where the kernel gives namespaces to whoever asks, the program is process 1 of a process namespace of its
 * own: it sees and signals no other process, all its descendants die with it, and it has no network device (as process
 * 1 it is deaf to signals that it sends itself and has no handler for; real faults end it). Elsewhere (most containers)
 * it leads a session of its own that a system-call filter keeps it and its descendants in, so that one signal ends them
 * all. Both ways the filter refuses every socket, so that there is no network; socketpair() stays.
 */
#ifndef HADAL_REWARD_CHILD_H
#define HADAL_REWARD_CHILD_H

#include <stdbool.h>
#include <sys/resource.h>
#include <sys/types.h>
#include "reward/sandbox.h"

typedef struct child_plan {
    const char *path;  /* of child_find */
    char *const *argv; /* ended by NULL */
    char *const *envp;
    const char *folder; /* it starts there; NULL: where the caller is */
    bool shut_in;       /* files are read-only but for the folder (without namespaces: since Linux 5.13), which with
                           namespaces is memory of its own */
    int in, out, err;   /* its standard descriptors; it gets no others */
    double cpu_seconds; /* of each process; 0: no limit */
    const sandbox_limits *limits;
} child_plan;

typedef struct child {
    pid_t pid; /* 0: none */
    int pidfd; /* readable when it is over; -1: the kernel is too old */
    bool namespaces;
} child;

/* The program's path: a name without a slash is looked up in PATH, another one from here. The
 * caller frees it. ERR_IO: there is none. */
status child_find(char **path, const char *name, error *e);

status child_start(child *c, const child_plan *plan, error *e);
bool child_is_over(const child *c); /* it is still there to be ended */
/* Kills it with all its descendants and waits for it. false: its status is lost, because the process ignores SIGCHLD.
 */
bool child_end(child *c, int *wait_status, struct rusage *used);
/* Milliseconds to wait in poll for what has a deadline (of clock_seconds). */
int child_poll_time(const child *c, double deadline);
/* Closes it and makes it -1, unless it is -1. */
void child_close(int *fd);
/* Adds what is in the pipe (O_NONBLOCK) until s has more than `most` bytes, which is true; closes the pipe at its end.
 */
bool child_read(int *fd, str *s, size_t most);
/* The same without end: the last 4 KiB are kept. */
void child_read_errors(int *fd, str *s);
/* "exit status 1", "signal 11 (SEGV)", with the last line that it wrote to its standard error. */
void child_epitaph(char *out, size_t size, const sandbox_result *r);

#endif
