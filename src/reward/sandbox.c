#define _GNU_SOURCE
#include "reward/sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "reward/child.h"

enum { ENVIRONMENT = 8 };

/* --- its folder -------------------------------------------------------------------------------------------------- */

/* Removes what is in the folder. Entries of folders in it move up one by one, so that no depth is too deep. */
static bool empty_folder(int top) {
    unsigned moved = 0;
    for (bool again = true; again;) {
        DIR *d = fdopendir(openat(top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (!d) return false;
        again = false;
        for (struct dirent *x; (x = readdir(d));) {
            if (!strcmp(x->d_name, ".") || !strcmp(x->d_name, "..") || unlinkat(top, x->d_name, 0) == 0) continue;
            if (unlinkat(top, x->d_name, AT_REMOVEDIR) == 0) continue;
            fchmodat(top, x->d_name, 0700, 0);
            DIR *inner = fdopendir(openat(top, x->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
            for (struct dirent *y; inner && (y = readdir(inner));) {
                char name[32];
                if (!strcmp(y->d_name, ".") || !strcmp(y->d_name, "..")) continue;
                snprintf(name, sizeof name, ".moved-%u", moved++);
                if (unlinkat(dirfd(inner), y->d_name, 0) == 0) continue;
                fchmodat(dirfd(inner), y->d_name, 0700, 0);
                again |= renameat(dirfd(inner), y->d_name, top, name) == 0;
            }
            if (inner) closedir(inner);
            unlinkat(top, x->d_name, AT_REMOVEDIR);
        }
        closedir(d);
    }
    return true;
}

/* Without namespaces what was killed a moment ago may finish writing a file yet. */
static void remove_folder(const char *path) {
    int top = rmdir(path) == 0 ? -1 : open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (top < 0) return;
    fchmod(top, 0700);
    for (int i = 0; i < 50 && empty_folder(top) && rmdir(path) != 0; i++) poll(NULL, 0, 10);
    close(top);
}

/* --- running ----------------------------------------------------------------------------------------------------- */

typedef struct run { /* -1: not open */
    char folder[256];
    int in, out[2], err[2];
    child child;
    char *environment[ENVIRONMENT];
} run;

static status system_error(error *e, const char *what) {
    return fail(e, errno == ENOMEM ? ERR_NOMEM : ERR_IO, "%s: %s", what, strerror(errno));
}

static status make_folder(run *r, error *e) {
    const char *base = getenv("TMPDIR");
    char path[sizeof r->folder];
    int n = snprintf(path, sizeof path, "%s/hadal-XXXXXX", base && base[0] == '/' ? base : "/tmp");
    if (n >= (int)sizeof path) return fail(e, ERR_IO, "TMPDIR is too long a path");
    if (!mkdtemp(path)) return system_error(e, path);
    memcpy(r->folder, path, sizeof path);
    return OK;
}

/* A file in memory rather than a pipe: nobody has to write while the program reads, or gets a signal when it does not.
 */
static status make_input(run *r, const char *input, size_t n, error *e) {
    r->in = memfd_create("input", MFD_CLOEXEC);
    if (r->in < 0) return system_error(e, "a file in memory");
    for (size_t done = 0; done < n;) {
        ssize_t k = write(r->in, input + done, n - done);
        if (k < 0 && errno != EINTR) return system_error(e, "a file in memory");
        if (k > 0) done += (size_t)k;
    }
    return lseek(r->in, 0, SEEK_SET) == 0 ? OK : system_error(e, "a file in memory");
}

/* The caller's environment may hold keys and passwords: only what programs need to be found and to run as they should.
 */
static status make_environment(run *r, error *e) {
    static const char *const passed[] = {"PATH", "LD_LIBRARY_PATH"};
    str s[ENVIRONMENT] = {0};
    size_t n = 0;
    for (size_t i = 0; i < sizeof passed / sizeof *passed; i++)
        if (getenv(passed[i])) str_addf(&s[n++], "%s=%s", passed[i], getenv(passed[i]));
    str_addf(&s[n++], "HOME=%s", r->folder);
    str_addf(&s[n++], "TMPDIR=%s", r->folder);
    str_puts(&s[n++], "LANG=C.UTF-8");
    str_puts(&s[n++], "OMP_NUM_THREADS=1"); /* the limits are not for pools of threads */
    str_puts(&s[n++], "OPENBLAS_NUM_THREADS=1");
    status st = OK;
    for (size_t i = 0; i < n; i++) {
        if (str_check(&s[i], e) != OK) st = ERR_NOMEM, str_free(&s[i]);
        else r->environment[i] = str_take(&s[i]);
    }
    return st;
}

static status open_pipe(int fd[2], error *e) {
    if (pipe2(fd, O_CLOEXEC) != 0) return fd[0] = fd[1] = -1, system_error(e, "a pipe");
    fcntl(fd[0], F_SETFL, O_NONBLOCK);
    return OK;
}

static status start(run *r, const char *const *argv, const sandbox_limits *l, error *e) {
    char *path;
    TRY(child_find(&path, argv[0], e));
    child_plan plan = {.path = path,
                       .argv = (char *const *)argv,
                       .envp = r->environment,
                       .folder = r->folder,
                       .shut_in = true,
                       .in = r->in,
                       .out = r->out[1],
                       .err = r->err[1],
                       .cpu_seconds = l->cpu_seconds > 0 ? l->cpu_seconds : l->seconds,
                       .limits = l};
    status s = child_start(&r->child, &plan, e);
    free(path);
    child_close(&r->in);
    child_close(&r->out[1]);
    child_close(&r->err[1]);
    return s;
}

/* Takes what the program wrote. false: more than it may; what is too much is cut off. */
static bool take_output(run *r, const sandbox_limits *l, str *out) {
    if (!child_read(&r->out[0], out, l->output)) return true;
    out->n = l->output;
    out->p[out->n] = 0;
    return false;
}

/* Until it is over, or too much. */
static sandbox_end watch(run *r, const sandbox_limits *l, sandbox_result *out) {
    const double deadline = clock_seconds() + l->seconds;
    for (;;) {
        struct pollfd p[] = {{.fd = r->out[0], .events = POLLIN},
                             {.fd = r->err[0], .events = POLLIN},
                             {.fd = r->child.pidfd, .events = POLLIN}};
        poll(p, 3, child_poll_time(&r->child, deadline));
        if (!take_output(r, l, &out->out)) return SANDBOX_OUTPUT;
        child_read_errors(&r->err[0], &out->err);
        if (child_is_over(&r->child)) return SANDBOX_EXITED;
        if (clock_seconds() >= deadline) return SANDBOX_TIME;
    }
}

static status follow(run *r, const sandbox_limits *l, sandbox_result *out, error *e) {
    struct rusage used;
    int how = 0;
    out->end = watch(r, l, out);
    if (!child_end(&r->child, &how, &used)) return fail(e, ERR_IO, "a program's end is unknown: SIGCHLD is ignored");
    if (out->end != SANDBOX_OUTPUT && !take_output(r, l, &out->out)) out->end = SANDBOX_OUTPUT;
    child_read_errors(&r->err[0], &out->err);
    out->code = WIFSIGNALED(how) ? WTERMSIG(how) : WEXITSTATUS(how);
    if (out->end == SANDBOX_EXITED && WIFSIGNALED(how)) {
        double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                     1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
        bool late =
            cpu >= (l->cpu_seconds > 0 ? l->cpu_seconds : l->seconds) && (out->code == SIGKILL || out->code == SIGXCPU);
        out->end = late ? SANDBOX_TIME : SANDBOX_SIGNAL;
    }
    TRY(str_check(&out->out, e));
    return str_check(&out->err, e);
}

status sandbox_run(const char *const *argv, const char *input, size_t n, const sandbox_limits *limits,
                   sandbox_result *out, error *e) {
    run r = {.in = -1, .out = {-1, -1}, .err = {-1, -1}};
    *out = (sandbox_result){0};
    status s = make_folder(&r, e);
    if (s == OK) s = make_environment(&r, e);
    if (s == OK) s = make_input(&r, input, n, e);
    if (s == OK) s = open_pipe(r.out, e);
    if (s == OK) s = open_pipe(r.err, e);
    if (s == OK) s = start(&r, argv, limits, e);
    if (s == OK) s = follow(&r, limits, out, e);
    if (r.folder[0]) remove_folder(r.folder);
    child_close(&r.in);
    for (int i = 0; i < 2; i++) child_close(&r.out[i]), child_close(&r.err[i]);
    for (int i = 0; i < ENVIRONMENT; i++) free(r.environment[i]);
    if (s == OK) return OK;
    str_free(&out->out);
    str_free(&out->err);
    return s;
}
