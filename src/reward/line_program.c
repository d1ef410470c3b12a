#define _GNU_SOURCE
#include "reward/line_program.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "reward/child.h"

extern char **environ;

struct line_program {
    char *path, **argv;
    sandbox_limits limits;
    child child;      /* pid 0: it does not run */
    int in, out, err; /* our ends; -1: not open */
    str held;         /* what it wrote behind the last line that was an answer */
    str errors;       /* the end of its standard error */
};

static status start(line_program *p, error *e) {
    int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};
    status s = OK;
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0)
        s = fail(e, ERR_IO, "a pipe: %s", strerror(errno));
    child_plan plan = {.path = p->path,
                       .argv = p->argv,
                       .envp = environ,
                       .in = in[0],
                       .out = out[1],
                       .err = err[1],
                       .cpu_seconds = p->limits.cpu_seconds,
                       .limits = &p->limits};
    if (s == OK) s = child_start(&p->child, &plan, e);
    child_close(&in[0]);
    child_close(&out[1]);
    child_close(&err[1]);
    p->in = in[1];
    p->out = out[0];
    p->err = err[0];
    p->held.n = p->errors.n = 0;
    if (s != OK) line_program_stop(p);
    else
        for (int i = 0; i < 3; i++) fcntl((int[]){p->in, p->out, p->err}[i], F_SETFL, O_NONBLOCK);
    return s;
}

void line_program_stop(line_program *p) {
    if (p->child.pid) child_end(&p->child, NULL, NULL);
    child_close(&p->in);
    child_close(&p->out);
    child_close(&p->err);
}

static status copy_arguments(line_program *p, const char *const *argv, error *e) {
    size_t n = 0;
    while (argv[n]) n++;
    p->argv = calloc(n + 1, sizeof *p->argv);
    bool all = p->argv;
    for (size_t i = 0; all && i < n; i++) all = (p->argv[i] = strdup(argv[i]));
    return all ? OK : fail(e, ERR_NOMEM, "memory is out");
}

status line_program_open(line_program **out, const char *const *argv, const sandbox_limits *limits, error *e) {
    *out = NULL;
    line_program *p = calloc(1, sizeof *p);
    if (!p) return fail(e, ERR_NOMEM, "memory is out");
    *p = (line_program){.limits = *limits, .in = -1, .out = -1, .err = -1};
    status s = copy_arguments(p, argv, e);
    if (s == OK) s = child_find(&p->path, argv[0], e);
    if (s == OK) s = start(p, e);
    if (s == OK) *out = p;
    else line_program_close(p);
    return s;
}

void line_program_close(line_program *p) {
    if (!p) return;
    line_program_stop(p);
    for (size_t i = 0; p->argv && p->argv[i]; i++) free(p->argv[i]);
    free(p->argv);
    free(p->path);
    str_free(&p->held);
    str_free(&p->errors);
    free(p);
}

/* --- talking ----------------------------------------------------------------------------------------------------- */

/* write() without the signal that a pipe nobody reads any more gives to the thread. */
static ssize_t write_quietly(int fd, const char *text, size_t n) {
    sigset_t set, before, pending;
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &set, &before);
    ssize_t k = write(fd, text, n);
    int code = errno;
    if (k < 0 && code == EPIPE && !sigismember(&pending, SIGPIPE)) sigtimedwait(&set, NULL, &(struct timespec){0});
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = code;
    return k;
}

typedef struct talk {
    const char *text; /* to be sent */
    size_t left;
    str *answers;
    int64_t n, answered;
    double deadline;
} talk;

static void send_some(line_program *p, talk *t) {
    while (t->left) {
        ssize_t k = write_quietly(p->in, t->text, t->left);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0 && errno == EAGAIN) return;
        if (k < 0) t->left = 0; /* it reads no more; whether it answers will be seen */
        if (k < 0) return;
        t->text += k;
        t->left -= (size_t)k;
    }
}

/* Lines that are whole become answers, up to one that is too long. */
static void take_answers(line_program *p, talk *t) {
    size_t begin = 0;
    for (char *end; t->answered < t->n && begin < p->held.n; begin = (size_t)(end - p->held.p) + 1) {
        if (!(end = memchr(p->held.p + begin, '\n', p->held.n - begin))) break;
        if ((size_t)(end - p->held.p) - begin > p->limits.output) break;
        str *a = &t->answers[t->answered++];
        a->n = 0;
        str_add(a, p->held.p + begin, (size_t)(end - p->held.p) - begin);
        t->deadline = clock_seconds() + p->limits.seconds;
    }
    if (!begin) return;
    p->held.n -= begin;
    memmove(p->held.p, p->held.p + begin, p->held.n + 1);
}

/* How it ended; a moment is given to one that has closed its output because it is ending. */
static void say_end(line_program *p, char *why) {
    sandbox_result r = {.err = p->errors};
    int how = 0;
    char end[LINE_PROGRAM_WHY - 32];
    for (double late = clock_seconds() + 0.5; !child_is_over(&p->child) && clock_seconds() < late;)
        poll(&(struct pollfd){.fd = p->child.pidfd, .events = POLLIN}, 1, child_poll_time(&p->child, late));
    child_read_errors(&p->err, &p->errors);
    r.err = p->errors;
    bool over = child_is_over(&p->child);
    child_end(&p->child, &how, NULL);
    r.end = WIFSIGNALED(how) ? SANDBOX_SIGNAL : SANDBOX_EXITED;
    r.code = WIFSIGNALED(how) ? WTERMSIG(how) : WEXITSTATUS(how);
    child_epitaph(end, sizeof end, &r);
    if (over) snprintf(why, LINE_PROGRAM_WHY, "it ended with %s", end);
    else snprintf(why, LINE_PROGRAM_WHY, "it closed its output");
}

/* One look at all there is. false: it cannot go on, and why. */
static bool turn(line_program *p, talk *t, char *why) {
    struct pollfd fd[] = {{.fd = t->left ? p->in : -1, .events = POLLOUT},
                          {.fd = p->out, .events = POLLIN},
                          {.fd = p->err, .events = POLLIN},
                          {.fd = p->child.pidfd, .events = POLLIN}};
    poll(fd, 4, child_poll_time(&p->child, t->deadline));
    bool over = child_is_over(&p->child); /* asked first: what it wrote before is read now */
    send_some(p, t);
    child_read(&p->out, &p->held, p->limits.output);
    child_read_errors(&p->err, &p->errors);
    take_answers(p, t);
    if (t->answered == t->n) return true;
    if (p->held.n > p->limits.output)
        snprintf(why, LINE_PROGRAM_WHY, "an answer is longer than %llu bytes", (unsigned long long)p->limits.output);
    else if (over || p->out < 0 || p->held.failed) say_end(p, why);
    else if (clock_seconds() >= t->deadline) snprintf(why, LINE_PROGRAM_WHY, "no answer in %g s", p->limits.seconds);
    else return true;
    return false;
}

status line_program_ask(line_program *p, const char *const *lines, int64_t n, str *answers, int64_t *answered,
                        char *why, error *e) {
    str all = {0};
    *answered = 0;
    if (p->child.pid) {
        child_read(&p->out, &p->held, p->limits.output);
        if (p->held.n) line_program_stop(p); /* more lines than it was asked for: whose answers would be next? */
        if (p->held.n) return snprintf(why, LINE_PROGRAM_WHY, "it wrote more than one line for one"), OK;
    } else {
        error not_again;
        if (start(p, &not_again) != OK) return snprintf(why, LINE_PROGRAM_WHY, "%.150s", not_again.text), OK;
    }
    for (int64_t i = 0; i < n; i++) str_puts(&all, lines[i]), str_putc(&all, '\n');
    talk t = {
        .text = all.p, .left = all.n, .answers = answers, .n = n, .deadline = clock_seconds() + p->limits.seconds};
    status s = str_check(&all, e);
    bool well = s == OK;
    while (well && t.answered < n) well = turn(p, &t, why);
    if (!well) line_program_stop(p);
    for (int64_t i = 0; i < t.answered && s == OK; i++) s = str_check(&answers[i], e);
    if (s == OK) s = str_check(&p->held, e);
    *answered = t.answered;
    str_free(&all);
    return s;
}
