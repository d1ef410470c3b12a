/* The lines of a text file that may be compressed: PATH, PATH.gz (zlib, also of several members), PATH.zst (libzstd,
 * also of several frames). Memory stays that of one line. */
#ifndef HADAL_DATA_LINES_H
#define HADAL_DATA_LINES_H

#include <stdint.h>
#include "base/error.h"
#include "base/str.h"

enum { LONGEST_LINE = 64 << 20 }; /* bytes of a line; of a whole file with lines_rest */

typedef struct lines lines;

status lines_open(lines **out, const char *path, error *e);
void lines_close(lines *l); /* accepts NULL */

/* Adds the next line, without its end, to `out`; *end instead when there is none. */
status lines_next(lines *l, str *out, bool *end, error *e);
status lines_rest(lines *l, str *out, error *e); /* all that was not read yet */

uint64_t lines_size(const lines *l);  /* of the file, in bytes, compressed as it is */
uint64_t lines_done(const lines *l);  /* of them read */
int64_t lines_number(const lines *l); /* of the line read last, from 1 */

#endif
