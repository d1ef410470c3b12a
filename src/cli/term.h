/* What has to do with the terminal: visible escapes, dimmed text, the progress line, Ctrl-C. */
#ifndef HADAL_CLI_TERM_H
#define HADAL_CLI_TERM_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "base/str.h"

/* Set by Ctrl-C once term_catch_interrupt was called, and looked at by callbacks; the third press ends the program
 * at once, for work that has no callback. The only global of the program. */
extern volatile sig_atomic_t term_interrupts;
void term_catch_interrupt(void);

bool term_is(FILE *f);        /* a terminal? */
bool term_has_color(FILE *f); /* a terminal, NO_COLOR is not set, and TERM is not "dumb" */

/* Text of a model or a file. On a terminal control characters other than newline and tab become visible escapes, so
 * that they cannot steer it; elsewhere the bytes pass as they are. */
void term_write(FILE *f, const char *p, size_t n, bool dim);
void term_puts(FILE *f, const char *text);
void term_escape(str *out, const char *p, size_t n); /* what term_write does on a terminal */

/* "1.5 GiB", "3.20 B" (parameters), "1:05" */
void human_bytes(str *out, double bytes);
void human_count(str *out, double count);
void human_time(str *out, double seconds);

/* A line on stderr for work that takes more than two seconds, when stderr is a terminal; progress_call is a
 * hadal_progress, its argument a progress. */
typedef struct progress {
    const char *what;           /* instead of the library's word; may be NULL */
    bool bytes;                 /* done and total are bytes */
    double start, stage, drawn; /* seconds: of the work, of its present stage, of the last redrawing */
    uint64_t first, last;       /* done at the stage's first call (an earlier run's work has no rate), and lately */
    bool begun, shown;
} progress;
int progress_call(void *arg, uint64_t done, uint64_t total, const char *what);
void progress_end(progress *p); /* erases the line */

#endif
