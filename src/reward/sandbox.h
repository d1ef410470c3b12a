/* A child process for code that nobody knows: no network, limited memory, processor time and wall time, output cut at a
 * limit, killed with all its children when time is over. Linux: own process group, resource limits, and, where the
 * kernel allows it to ordinary users, namespaces of its own for network, processes and mounts. */
#ifndef HADAL_REWARD_SANDBOX_H
#define HADAL_REWARD_SANDBOX_H

#include <stdbool.h>
#include <stdint.h>
#include "base/str.h"

typedef struct sandbox_limits {
    double seconds;     /* wall time */
    double cpu_seconds; /* 0: as `seconds` */
    uint64_t memory;    /* bytes of address space; 0: no limit */
    uint64_t output;    /* bytes kept of standard output */
    bool network;       /* allowed */
} sandbox_limits;

typedef enum sandbox_end { SANDBOX_EXITED, SANDBOX_SIGNAL, SANDBOX_TIME, SANDBOX_OUTPUT } sandbox_end;

typedef struct sandbox_result {
    sandbox_end end;
    int code;     /* exit status, or number of the signal */
    str out, err; /* str_free both; err: the last 4 KiB */
} sandbox_result;

/* Runs argv (ended by NULL; argv[0] is looked up in PATH) with `input` on its standard input, in an empty temporary
 * folder that is removed afterwards. ERR_IO when it cannot be started or, unless limits->network, not be cut off from
 * the network. */
status sandbox_run(const char *const *argv, const char *input, size_t n, const sandbox_limits *limits,
                   sandbox_result *out, error *e);

#endif
