#include "reward/call_filter.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/syscall.h>

#if defined __x86_64__
#define ARCH AUDIT_ARCH_X86_64
#elif defined __aarch64__
#define ARCH AUDIT_ARCH_AARCH64
#endif

#ifdef ARCH

/* io_uring opens sockets beside the system call. AF_UNIX is refused with the rest: behind a socket in the file system
 * may stand somebody who has a network (a name service, a container's manager). */
static const int network_calls[] = {SYS_socket, SYS_io_uring_setup};

/* Ways out of the process group, into other processes, and to what outlives a process. */
static const int group_calls[] = {SYS_setsid,
                                  SYS_setpgid,
                                  SYS_tkill,
                                  SYS_pidfd_send_signal,
                                  SYS_ptrace,
                                  SYS_process_vm_readv,
                                  SYS_process_vm_writev,
                                  SYS_pidfd_getfd,
                                  SYS_shmget,
                                  SYS_semget,
                                  SYS_msgget,
                                  SYS_mq_open,
                                  SYS_add_key,
                                  SYS_keyctl};

/* Their first argument is a process. */
static const int process_calls[] = {SYS_kill, SYS_tgkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo, SYS_prlimit64};

#define COUNT(list) (sizeof(list) / sizeof *(list))

typedef struct writer {
    struct sock_filter *p;
    unsigned short n;
} writer;

static void load(writer *w, unsigned offset) {
    w->p[w->n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset);
}

/* Goes on behind the next yes (no) instructions. */
static void jump(writer *w, unsigned short test, unsigned k, unsigned char yes, unsigned char no) {
    w->p[w->n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | test | BPF_K, k, yes, no);
}

static void give(writer *w, unsigned action) {
    w->p[w->n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action);
}

static void refuse(writer *w, const int *calls, size_t n) {
    for (size_t i = 0; i < n; i++) {
        jump(w, BPF_JEQ, (unsigned)calls[i], 0, 1);
        give(w, SECCOMP_RET_ERRNO | EPERM);
    }
}

/* Neither the host nor, by a negative number, a group or everybody. */
static void refuse_host(writer *w, int call, pid_t host) {
    jump(w, BPF_JEQ, (unsigned)call, 0, 5);
    load(w, offsetof(struct seccomp_data, args)); /* the low half: both processors are little-endian */
    jump(w, BPF_JEQ, (unsigned)host, 1, 0);
    jump(w, BPF_JSET, 0x80000000u, 0, 1);
    give(w, SECCOMP_RET_ERRNO | EPERM);
    give(w, SECCOMP_RET_ALLOW);
}

unsigned short filter_build(struct sock_filter out[FILTER_MAX], bool network, bool keep, pid_t host) {
    writer w = {.p = out};
    load(&w, offsetof(struct seccomp_data, arch));
    jump(&w, BPF_JEQ, ARCH, 1, 0);
    give(&w, SECCOMP_RET_KILL_PROCESS); /* other numbers for the same calls */
    load(&w, offsetof(struct seccomp_data, nr));
    jump(&w, BPF_JGE, 0x40000000u, 0, 1); /* x32 */
    give(&w, SECCOMP_RET_ERRNO | ENOSYS);
    if (!network) refuse(&w, network_calls, COUNT(network_calls));
    if (keep) {
        refuse(&w, group_calls, COUNT(group_calls));
        for (size_t i = 0; i < COUNT(process_calls); i++) refuse_host(&w, process_calls[i], host);
    }
    give(&w, SECCOMP_RET_ALLOW);
    return w.n;
}

#else

unsigned short filter_build(struct sock_filter out[FILTER_MAX], bool network, bool keep, pid_t host) {
    (void)out, (void)network, (void)keep, (void)host;
    return 0;
}

#endif
