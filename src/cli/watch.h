/* Watching a training on the terminal: a line that is drawn anew, or lines of a log, or JSON. */
#ifndef HADAL_CLI_WATCH_H
#define HADAL_CLI_WATCH_H

#include "cli/cli.h"
#include "cli/term.h"
#include "hadal_train.h"

typedef struct watch_options {
    bool quiet, json;
} watch_options;

typedef struct watch {
    const watch_options *o;
    progress p;
    double last; /* when a line was printed, 0: never */
    double rate; /* smoothed seconds a step */
    bool live;   /* standard output is a terminal: one line that is drawn anew */
} watch;

/* Reads RUN.yaml and overrides from the arguments, runs `f` and says how it ended; the command's exit code. */
int watch_run(int (*f)(const hadal_train_options *o, char **json, hadal_error *e), const watch_options *o, int n,
              char **args);

#endif
