/* The rows of an evaluation's data: a file of JSON lines (also .gz and .zst), each an object, or of comma-separated
 * values, each a list of texts. */
#ifndef HADAL_EVAL_ROWS_H
#define HADAL_EVAL_ROWS_H

#include "base/json.h"

typedef struct rows { /* rows_close it */
    char *path;
    json_t *list;
} rows;

/* path: a file, or a folder with a file whose name begins with one of `names` (ends with NULL; the first one that is
 * there, of several files the first in alphabetical order). A file without rows is ERR_FORMAT. */
status rows_open(rows *out, const char *path, const char *const *names, error *e);
void rows_close(rows *r); /* accepts a zeroed one */

/* csv: if the first record has this field, its fields name the columns, and the others become objects. A record with
 * another number of fields is ERR_FORMAT. */
status rows_name_columns(rows *r, const char *field, error *e);

int64_t rows_count(const rows *r);
const json_t *rows_at(const rows *r, int64_t i);

/* A member that has to be a text; borrowed. The error names the member only. */
status rows_text(const rows *r, int64_t i, const char *member, const char **out, error *e);

/* Puts the file and the row before the sentence that e holds. */
status rows_wrap(const rows *r, int64_t i, error *e);

/* The folder of a path ("." when it has none), or the path itself when it is a folder; the caller's to free; NULL:
 * memory is out. */
char *rows_folder(const char *path);

#endif
