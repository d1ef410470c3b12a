/* A program that answers lines with lines (one JSON document each), started once and started anew after a failure. It
 * is the user's own: it has the caller's environment and files, starts where the caller is and has
 * the processor as long as it likes when cpu_seconds is 0; limits->output is the longest answer. It ends with the
 * thread that started it. One caller at a time. */
#ifndef HADAL_REWARD_LINE_PROGRAM_H
#define HADAL_REWARD_LINE_PROGRAM_H

#include "reward/sandbox.h"

enum { LINE_PROGRAM_WHY = 160 }; /* bytes for the sentence why there is no answer */

typedef struct line_program line_program;
status line_program_open(line_program **out, const char *const *argv, const sandbox_limits *limits, error *e);
void line_program_close(line_program *p); /* accepts NULL; ends the program */
/* Sends n lines at once and waits for their answers, which come in their order, each at most limits->seconds.
 * *answered: how many came, with answers[0 .. *answered-1] replaced. Fewer than n: the program died, ran out of time,
 * or closed its output; `why` (LINE_PROGRAM_WHY bytes) says it; the next call starts it again. */
status line_program_ask(line_program *p, const char *const *lines, int64_t n, str *answers, int64_t *answered,
                        char *why, error *e);
/* Ends the program, as after an answer that makes no sense; the next call starts it again. */
void line_program_stop(line_program *p);

#endif
