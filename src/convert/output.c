#include "convert/output.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include "base/file.h"

#define MARKER "convert.json"

static status check_empty(const char *folder, error *e) {
    DIR *d = opendir(folder);
    if (!d) return fail(e, ERR_IO, "%s: %s", folder, strerror(errno));
    status s = OK;
    for (const struct dirent *x; s == OK && (x = readdir(d));)
        if (strcmp(x->d_name, ".") != 0 && strcmp(x->d_name, "..") != 0 && strcmp(x->d_name, MARKER ".tmp") != 0)
            s = fail(e, ERR_ARG, "%s: not empty (\"%.100s\"), a new folder was wanted", folder, x->d_name);
    closedir(d);
    return s;
}

/* Two runs at once would write into each other's temporary files. The lock goes with the process. */
static status lock_folder(output *o, const char *folder, error *e) {
    o->lock = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (o->lock < 0) return fail(e, ERR_IO, "%s: %s", folder, strerror(errno));
    if (flock(o->lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) /* file systems without locks: go on */
        return fail(e, ERR_ARG, "%s: another conversion is writing here", folder);
    return OK;
}

static status check_same(const char *marker, const char *text, error *e) {
    str found = {0};
    status s = file_read(&found, marker, 1 << 16, e);
    if (s == OK && strcmp(found.p, text) != 0)
        s = fail(e, ERR_ARG,
                 "%s: of an unfinished conversion with other options or of another or changed input; "
                 "go on with that one or take another folder",
                 marker);
    str_free(&found);
    return s;
}

static status check_folders(const char *input, const char *folder, error *e) {
    char *in = realpath(input, NULL), *out = realpath(folder, NULL);
    bool same = in && out && strcmp(in, out) == 0;
    free(in);
    free(out);
    return same ? fail(e, ERR_ARG, "%s: input and output are the same folder", folder) : OK;
}

status output_enter(output *o, const char *in, const char *folder, const char *text, error *e) {
    *o = (output){path_join(folder, MARKER), -1};
    if (!o->marker) return fail(e, ERR_NOMEM, "memory is out");
    TRY(check_folders(in, folder, e));
    TRY(make_directory(folder, e));
    TRY(lock_folder(o, folder, e));
    if (file_exists(o->marker)) return check_same(o->marker, text, e);
    TRY(check_empty(folder, e));
    return file_save(o->marker, text, strlen(text), e);
}

status output_done(const output *o, error *e) {
    return unlink(o->marker) == 0 ? OK : fail(e, ERR_IO, "%s: cannot remove: %s", o->marker, strerror(errno));
}

void output_leave(output *o) {
    if (o->lock >= 0) close(o->lock);
    free(o->marker);
    *o = (output){.lock = -1};
}
