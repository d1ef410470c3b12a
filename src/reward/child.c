/* From clone() to exec the new process shares the memory of the calling thread, which stands still meanwhile (as in
 * vfork and posix_spawn): a process with a large model must not be copied, and no other thread's lock may be waited
 * for. So everything is prepared before, and the child makes system calls only. */
#define _GNU_SOURCE
#include "reward/child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/file.h"
#include "reward/call_filter.h"

enum {
    STACK = 64 << 10,      /* of the child until it is another program */
    FILE_BYTES = 64 << 20, /* the longest file, and all files of a folder in memory */
    DESCRIPTORS = 256,
    KEPT_ERRORS = 4096,
    PROCESSES = 256 /* more than there are when it starts */
};

typedef struct job {
    const child_plan *plan;
    bool namespaces, own_pid_max;
    char uid_map[40], gid_map[40], size[40];
    struct limit {
        int which;
        struct rlimit value;
    } limits[6];
    int n_limits, descriptors; /* descriptors: those this process may have */
    struct sock_filter filter[FILTER_MAX];
    struct sock_fprog program;
    const char *refused; /* by the child: what it could not do, and errno */
    int code;
} job;

/* --- in the child ------------------------------------------------------------------------------------------------- */

static bool refused(job *j, const char *what) {
    j->code = errno;
    j->refused = what;
    return false;
}

static bool put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    close(fd);
    return ok;
}

static bool set_descriptors(job *j) {
    int fd[3] = {j->plan->in, j->plan->out, j->plan->err};
    for (int i = 0; i < 3; i++)
        if ((fd[i] = fcntl(fd[i], F_DUPFD, 3)) < 0) return refused(j, "its standard descriptors");
    for (int i = 0; i < 3; i++)
        if (dup2(fd[i], i) < 0) return refused(j, "its standard descriptors");
    if (syscall(SYS_close_range, 3u, ~0u, 0u) == 0) return true;
    for (int i = 3; i < j->descriptors; i++) close(i); /* Linux before 5.9 */
    return true;
}

/* Its own copy of the mounts, read-only but for the folder. */
static bool shut_in(job *j) {
    struct mount_attr on = {.attr_set = MOUNT_ATTR_RDONLY}, off = {.attr_clr = MOUNT_ATTR_RDONLY};
    const char *folder = j->plan->folder;
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, j->size) != 0 ||
        syscall(SYS_mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &on, sizeof on) != 0 ||
        syscall(SYS_mount_setattr, AT_FDCWD, folder, 0, &off, sizeof off) != 0)
        return refused(j, "mounts of its own");
    if (mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, j->size) != 0) errno = 0; /* without it, then */
    return true;
}

/* The same as far as it goes without mounts, where the kernel has it (man 7 landlock): nothing is written but in the
 * folder, and, from its sixth version, no other process gets a signal. */
static bool shut_in_without_mounts(job *j) {
    enum { WRITE_FILE = 1 << 1, REMOVE_TO_MAKE = 0x1ff0, REFER = 1 << 13, TRUNCATE = 1 << 14, SCOPES = 3 };
    struct {
        uint64_t files, network, scopes;
    } rules = {WRITE_FILE | REMOVE_TO_MAKE, 0, SCOPES};
    struct __attribute__((packed)) {
        uint64_t allowed;
        int32_t fd;
    } rule;
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, 1);
    if (version < 1) return true;
    if (version >= 2) rules.files |= REFER;
    if (version >= 3) rules.files |= TRUNCATE;
    int set = (int)syscall(SYS_landlock_create_ruleset, &rules, version >= 6 ? 24 : 8, 0);
    const char *path[] = {j->plan->folder, "/dev/null"};
    for (int i = 0; i < 2 && set >= 0; i++) {
        rule.fd = open(path[i], O_PATH | O_CLOEXEC);
        rule.allowed = i == 0 ? rules.files : rules.files & (WRITE_FILE | TRUNCATE);
        if (rule.fd < 0 || syscall(SYS_landlock_add_rule, set, 1, &rule, 0) != 0)
            return refused(j, "a folder of its own");
        close(rule.fd);
    }
    if (set < 0 || syscall(SYS_landlock_restrict_self, set, 0) != 0) return refused(j, "a folder of its own");
    close(set);
    return true;
}

static bool enter_namespaces(job *j) {
    if (!put("/proc/self/setgroups", "deny") || !put("/proc/self/uid_map", j->uid_map) ||
        !put("/proc/self/gid_map", j->gid_map))
        return refused(j, "a user namespace");
    if (j->own_pid_max) put("/proc/sys/kernel/pid_max", "1024"); /* for root, whom RLIMIT_NPROC does not stop */
    return !j->plan->shut_in || shut_in(j);
}

static bool set_limits(job *j) {
    for (int i = 0; i < j->n_limits; i++)
        if (syscall(SYS_prlimit64, 0, j->limits[i].which, &j->limits[i].value, NULL) != 0)
            return refused(j, "resource limits");
    return true;
}

static bool give_up_rights(job *j) {
    prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED); /* root: without capabilities after exec */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return refused(j, "a process without new rights");
    if (!j->namespaces && j->plan->shut_in && !shut_in_without_mounts(j)) return false;
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &j->program) != 0) return refused(j, "a filter of system calls");
    return true;
}

static int enter(void *arg) {
    job *j = arg;
    static const unsigned long by_default[8]; /* struct sigaction of the kernel: SIG_DFL is 0 */
    for (int s = 1; s < NSIG; s++) syscall(SYS_rt_sigaction, s, by_default, NULL, (NSIG - 1) / 8);
    setsid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!set_descriptors(j) || (j->namespaces && !enter_namespaces(j))) return 127;
    if (j->plan->folder && chdir(j->plan->folder) != 0) return refused(j, "its folder"), 127;
    if (!set_limits(j) || !give_up_rights(j)) return 127;
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(j->plan->path, j->plan->argv, j->plan->envp);
    return refused(j, "to be executed"), 127;
}

/* --- its preparation ---------------------------------------------------------------------------------------------- */

static bool is_program(const char *path) {
    return access(path, X_OK) == 0 && !is_directory(path);
}

static char *absolute(const char *path) {
    char *here = path[0] == '/' ? strdup(path) : NULL, *folder = here ? NULL : getcwd(NULL, 0);
    if (folder) here = path_join(folder, path);
    free(folder);
    return here;
}

static status find_in_path(char **path, const char *name, error *e) {
    const char *list = getenv("PATH");
    for (const char *p = list ? list : "/usr/local/bin:/usr/bin:/bin", *end; *p; p = end + (*end == ':')) {
        end = p + strcspn(p, ":");
        char *folder = strndup(p, (size_t)(end - p)), *file = folder ? path_join(*folder ? folder : ".", name) : NULL;
        bool found = file && is_program(file);
        if (found) *path = absolute(file);
        free(folder);
        free(file);
        if (found) return *path ? OK : fail(e, ERR_NOMEM, "memory is out");
    }
    return fail(e, ERR_IO, "%.200s: there is no such program in PATH: install it, or give its path", name);
}

status child_find(char **path, const char *name, error *e) {
    *path = NULL;
    if (!strchr(name, '/')) return find_in_path(path, name, e);
    *path = absolute(name);
    if (!*path) return fail(e, ERR_NOMEM, "memory is out");
    if (is_program(*path)) return OK;
    status s =
        fail(e, ERR_IO, "%.200s: %s", *path, access(*path, F_OK) == 0 ? "not a program (chmod +x?)" : "no such file");
    free(*path);
    *path = NULL;
    return s;
}

/* Threads on this machine: RLIMIT_NPROC counts all of a user, wherever they come from. */
static rlim_t threads_now(void) {
    char text[128] = "";
    int fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC), all = 0;
    if (fd < 0 || read(fd, text, sizeof text - 1) < 0) text[0] = 0;
    if (fd >= 0) close(fd);
    return sscanf(text, "%*f %*f %*f %*d/%d", &all) == 1 ? (rlim_t)all : 4096;
}

static void add_limit(job *j, int which, double most) {
    struct rlimit now;
    if (getrlimit((__rlimit_resource_t)which, &now) != 0) return;
    rlim_t value = most < (double)now.rlim_max ? (rlim_t)most : now.rlim_max; /* RLIM_INFINITY is the largest */
    j->limits[j->n_limits++] = (struct limit){which, {value, value}};
}

/* Since Linux 6.14 a process namespace has a pid_max of its own; before, writing it changed the machine's. */
static bool has_own_pid_max(void) {
    struct utsname u;
    int major, minor;
    return uname(&u) == 0 && sscanf(u.release, "%d.%d", &major, &minor) == 2 &&
           (major > 6 || (major == 6 && minor >= 14));
}

static void prepare(job *j, const child_plan *plan, bool namespaces) {
    const sandbox_limits *l = plan->limits;
    struct rlimit files;
    *j = (job){.plan = plan, .namespaces = namespaces, .own_pid_max = namespaces && has_own_pid_max()};
    j->descriptors = getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < 1 << 20 ? (int)files.rlim_cur : 1 << 20;
    snprintf(j->uid_map, sizeof j->uid_map, "%u %u 1", (unsigned)geteuid(), (unsigned)geteuid());
    snprintf(j->gid_map, sizeof j->gid_map, "%u %u 1", (unsigned)getegid(), (unsigned)getegid());
    snprintf(j->size, sizeof j->size, "size=%d,mode=700", FILE_BYTES);
    if (plan->cpu_seconds > 0) add_limit(j, RLIMIT_CPU, ceil(plan->cpu_seconds));
    if (l->memory) add_limit(j, RLIMIT_AS, (double)l->memory);
    if (plan->shut_in) add_limit(j, RLIMIT_FSIZE, FILE_BYTES);
    add_limit(j, RLIMIT_NOFILE, DESCRIPTORS);
    add_limit(j, RLIMIT_NPROC, (double)(threads_now() + PROCESSES));
    add_limit(j, RLIMIT_CORE, 0);
    j->program.filter = j->filter;
    j->program.len = filter_build(j->filter, l->network, !namespaces, getpid());
}

/* --- start and end ------------------------------------------------------------------------------------------------ */

static bool start(child *c, job *j, void *stack) {
    const int spaces = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWIPC | (j->plan->limits->network ? 0 : CLONE_NEWNET) |
                       (j->plan->shut_in ? CLONE_NEWNS : 0);
    int pidfd = -1; /* older kernels do not know the flag and leave it */
    pid_t pid = clone(enter, (char *)stack + STACK,
                      CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD | (j->namespaces ? spaces : 0), j, &pidfd);
    if (pid < 0) return refused(j, "a process");
    *c = (child){.pid = pid, .pidfd = pidfd, .namespaces = j->namespaces};
    if (!j->refused) return true;
    child_end(c, NULL, NULL);
    return false;
}

status child_start(child *c, const child_plan *plan, error *e) {
    *c = (child){.pidfd = -1};
    job *j = malloc(sizeof *j);
    void *stack = aligned_alloc(64, STACK);
    sigset_t all, before;
    status s = j && stack ? OK : fail(e, ERR_NOMEM, "memory is out");
    sigfillset(&all);
    for (int namespaces = 1; s == OK && namespaces >= 0; namespaces--) {
        prepare(j, plan, namespaces);
        if (!j->program.len) {
            s = fail(e, ERR_UNSUPPORTED, "programs are confined on x86-64 and aarch64 only");
            break;
        }
        pthread_sigmask(SIG_SETMASK, &all, &before); /* a handler of ours must not run in the child */
        bool ok = start(c, j, stack);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (ok) break;
        if (!namespaces)
            s = fail(e, ERR_IO, "%.200s: the system refuses it %s: %s", plan->path, j->refused, strerror(j->code));
    }
    free(stack);
    free(j);
    return s;
}

bool child_is_over(const child *c) {
    siginfo_t how = {0};
    return waitid(P_PID, (id_t)c->pid, &how, WEXITED | WNOHANG | WNOWAIT) != 0 || how.si_pid == c->pid;
}

/* It is not waited for yet, so its number, which is the group's, too, means nobody else. */
bool child_end(child *c, int *wait_status, struct rusage *used) {
    pid_t got;
    kill(c->namespaces ? c->pid : -c->pid, SIGKILL);
    kill(c->pid, SIGKILL);
    while ((got = wait4(c->pid, wait_status, 0, used)) < 0 && errno == EINTR) {}
    if (c->pidfd >= 0) close(c->pidfd);
    *c = (child){.pidfd = -1};
    return got > 0;
}

int child_poll_time(const child *c, double deadline) {
    double left = ceil(1000 * (deadline - clock_seconds()));
    if (c->pidfd < 0 && left > 10) left = 10;
    return left <= 0 ? 0 : left < 1e9 ? (int)left : (int)1e9;
}

void child_close(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

bool child_read(int *fd, str *s, size_t most) {
    char block[1 << 14];
    while (*fd >= 0 && s->n <= most && !s->failed) {
        ssize_t k = read(*fd, block, sizeof block);
        if (k > 0) str_add(s, block, (size_t)k);
        else if (k < 0 && errno == EAGAIN) break;
        else if (k == 0 || errno != EINTR) child_close(fd);
    }
    return s->n > most;
}

void child_read_errors(int *fd, str *s) {
    while (child_read(fd, s, KEPT_ERRORS)) {
        memmove(s->p, s->p + s->n - KEPT_ERRORS, KEPT_ERRORS + 1);
        s->n = KEPT_ERRORS;
    }
}

static void last_line(char *out, size_t size, const str *text) {
    size_t end = text->n, begin;
    while (end && (unsigned char)text->p[end - 1] <= ' ') end--;
    for (begin = end; begin && text->p[begin - 1] != '\n';) begin--;
    snprintf(out, size, "%.*s", (int)(end - begin), text->p ? text->p + begin : "");
}

void child_epitaph(char *out, size_t size, const sandbox_result *r) {
    char line[120];
    const char *name = r->end == SANDBOX_SIGNAL ? sigabbrev_np(r->code) : NULL;
    last_line(line, sizeof line, &r->err);
    if (name) snprintf(out, size, "signal %d (%s)%s%s", r->code, name, *line ? ": " : "", line);
    else
        snprintf(out, size, "%s %d%s%s", r->end == SANDBOX_SIGNAL ? "signal" : "exit status", r->code,
                 *line ? ": " : "", line);
}
