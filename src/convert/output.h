/* The folder that a conversion writes. A file convert.json in it, written first and removed last, says that it is
 * unfinished and what it is of. */
#ifndef HADAL_CONVERT_OUTPUT_H
#define HADAL_CONVERT_OUTPUT_H

#include "base/error.h"

typedef struct output {
    char *marker; /* path of convert.json */
    int lock;     /* the folder, or -1 */
} output;

/* Takes possession of `folder`: new, empty, or left unfinished by a run with the same text. */
status output_enter(output *o, const char *in, const char *folder, const char *text, error *e);
status output_done(const output *o, error *e);
void output_leave(output *o); /* accepts one that was never entered ({.lock = -1}) */

#endif
