/* The rows of a file of JSON lines (also .gz and .zst), each an object. */
#ifndef HADAL_DATA_JSON_ROWS_H
#define HADAL_DATA_JSON_ROWS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"

typedef struct json_rows {
    status (*row)(void *arg, json_t *row, error *e); /* borrowed; its error gets file and line before it */
    void *arg;
    bool skip_damaged;                         /* rows that are ERR_FORMAT are reported through `note`, not fatal */
    void (*note)(void *arg, const char *line); /* NULL: nobody */
    int (*progress)(void *arg, uint64_t done, uint64_t total, const char *what); /* NULL; nonzero cancels */
    const char *what;
    void *told; /* arg of note and progress */
} json_rows;

/* Empty lines are left out. */
status json_rows_read(const char *path, const json_rows *o, error *e);

#endif
