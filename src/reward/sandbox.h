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

enum { LINE_PROGRAM_WHY = 160 }; /* bytes for the sentence why there is no answer */

/* A program that answers lines with lines (one JSON document each), started once and started anew after a failure. It
 * is the user's own: it has the caller's environment and files, starts in `folder` (NULL: where the caller is) and has
 * the processor as long as it likes when cpu_seconds is 0; limits->output is the longest answer. It ends with the
 * thread that started it. One caller at a time. */
typedef struct line_program line_program;
status line_program_open(line_program **out, const char *const *argv, const char *folder, const sandbox_limits *limits,
                         error *e);
void line_program_close(line_program *p); /* accepts NULL; ends the program */
/* Sends a line and waits for one line at most limits->seconds. *answer is replaced. false in *ok: the program died, ran
 * out of time, or closed its output; `why` (LINE_PROGRAM_WHY bytes) says it; the next call starts it again. */
status line_program_ask(line_program *p, const char *line, str *answer, bool *ok, char *why, error *e);
/* The same for n lines that are sent all at once and answered in their order; limits->seconds are for each answer.
 * *answered: how many were, with answers[0 .. *answered-1] replaced; fewer than n: `why` says it. */
status line_program_ask_all(line_program *p, const char *const *lines, int64_t n, str *answers, int64_t *answered,
                            char *why, error *e);
/* Ends the program, as after an answer that makes no sense; the next call starts it again. */
void line_program_stop(line_program *p);

#endif
