/* Records of comma-separated values (RFC 4180): fields in quotes may hold commas, line ends and doubled quotes; lines
 * end with LF or CRLF. As other readers do, a quote inside a field that does not begin with one stands for itself, and
 * empty lines are passed over. */
#ifndef HADAL_EVAL_CSV_H
#define HADAL_EVAL_CSV_H

#include "base/json.h"

typedef struct csv { /* over n bytes of text that stay the caller's; name: for errors */
    const char *p, *name;
    size_t n, at;
    int64_t line; /* of the record read last, from 1 */
    int64_t next; /* line at `at` */
} csv;

csv csv_open(const char *text, size_t n, const char *name);

/* The next record, a list of texts, or *out NULL at the end. */
status csv_next(csv *c, json_t **out, error *e);

#endif
