/* The filter of system calls for programs that nobody knows (seccomp with classic BPF; man 2 seccomp). */
#ifndef HADAL_REWARD_CALL_FILTER_H
#define HADAL_REWARD_CALL_FILTER_H

#include <linux/filter.h>
#include <stdbool.h>
#include <sys/types.h>

enum { FILTER_MAX = 128 };

/* Refuses (EPERM) sockets unless `network`. `keep`: for a program without namespaces, which must not leave its process
 * group and not reach the process `host`. The number of instructions; 0: not known for this processor. */
unsigned short filter_build(struct sock_filter out[FILTER_MAX], bool network, bool keep, pid_t host);

#endif
