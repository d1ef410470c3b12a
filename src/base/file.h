/* Files: read-only mappings, whole small files, and writing so that a reader never sees half a file. */
#ifndef HADAL_BASE_FILE_H
#define HADAL_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "base/str.h"

typedef struct mapping {
    const uint8_t *p; /* NULL for an empty file */
    size_t n;
} mapping;

status file_map(mapping *out, const char *path, error *e); /* regular files only */
void file_unmap(mapping *m);

status file_read(str *out, const char *path, size_t max_bytes, error *e); /* appends; larger files are ERR_FORMAT */
bool file_exists(const char *path);
bool is_directory(const char *path);
status make_directory(const char *path, error *e); /* with parents; fine when it is there already */

/* "dir/name"; caller frees; NULL when memory is out */
char *path_join(const char *dir, const char *name);

/* A file under a temporary name ("PATH.tmp") that takes its real name in file_commit after fsync, followed by fsync
 * of the directory. file_abort removes it. After a failure of file_write only file_abort is allowed. */
typedef struct file_writer {
    int fd;
    char *path, *temporary;
    uint8_t *buffer;
    size_t used;
    uint64_t written; /* bytes so far, buffered ones included */
} file_writer;

status file_begin(file_writer *w, const char *path, error *e);
status file_write(file_writer *w, const void *p, size_t n, error *e);
status file_commit(file_writer *w, error *e);
void file_abort(file_writer *w); /* accepts one that was committed or never begun ({.fd = -1}) */

status file_save(const char *path, const void *p, size_t n, error *e); /* the four above in one */

#endif
