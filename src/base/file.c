#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER = 1 << 20 };

static status system_error(error *e, const char *what, const char *path) {
    int code = errno;
    return fail(e, code == ENOMEM ? ERR_NOMEM : ERR_IO, "%s: %s: %s", path, what, strerror(code));
}

/* A file to be read that is not there or may not be read is a fault of the input; too many open files is not. */
static status cannot_open(error *e, const char *path) {
    int code = errno;
    if (code == ENOMEM || code == EMFILE || code == ENFILE || code == EIO) return system_error(e, "cannot open", path);
    return fail(e, ERR_FORMAT, "%s: cannot open: %s", path, strerror(code));
}

static status open_regular(int *fd, size_t *size, const char *path, error *e) {
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a FIFO must not hang us */
    if (*fd < 0) return cannot_open(e, path);
    struct stat st;
    if (fstat(*fd, &st) != 0) {
        status s = system_error(e, "cannot stat", path);
        close(*fd);
        return s;
    }
    if (!S_ISREG(st.st_mode)) {
        close(*fd);
        return fail(e, ERR_FORMAT, "%s: not a regular file", path);
    }
    *size = (size_t)st.st_size;
    return OK;
}

status file_map(mapping *out, const char *path, error *e) {
    int fd;
    *out = (mapping){0};
    TRY(open_regular(&fd, &out->n, path, e));
    if (out->n) {
        void *p = mmap(NULL, out->n, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
            status s = system_error(e, "cannot map", path);
            close(fd);
            *out = (mapping){0};
            return s;
        }
        out->p = p;
    }
    close(fd);
    return OK;
}

void file_unmap(mapping *m) {
    if (m->p) munmap((void *)m->p, m->n);
    *m = (mapping){0};
}

status file_read(str *out, const char *path, size_t max_bytes, error *e) {
    int fd;
    size_t size;
    TRY(open_regular(&fd, &size, path, e));
    status s = OK;
    if (size > max_bytes)
        s = fail(e, ERR_FORMAT, "%s: %zu bytes, more than the %zu allowed here", path, size, max_bytes);
    char *block = s == OK ? malloc(BUFFER) : NULL;
    if (s == OK && !block) s = fail(e, ERR_NOMEM, "memory is out");
    for (size_t got = 0; s == OK;) {
        ssize_t n = read(fd, block, BUFFER);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) s = system_error(e, "cannot read", path);
        if (n <= 0) break;
        if ((got += (size_t)n) > max_bytes) s = fail(e, ERR_FORMAT, "%s: grew while it was read", path);
        else str_add(out, block, (size_t)n);
    }
    free(block);
    close(fd);
    if (s == OK) str_add(out, "", 0); /* an empty file is "" */
    return s == OK ? str_check(out, e) : s;
}

bool file_exists(const char *path) {
    return access(path, F_OK) == 0;
}

bool is_directory(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

status make_directory(const char *path, error *e) {
    char *p = strdup(path);
    if (!p) return fail(e, ERR_NOMEM, "memory is out");
    status s = OK;
    for (char *at = p + 1; s == OK; at++) {
        if (*at != '/' && *at) continue;
        char was = *at;
        *at = 0;
        if (mkdir(p, 0777) != 0 && !(errno == EEXIST && is_directory(p))) s = system_error(e, "cannot make folder", p);
        *at = was;
        if (!was) break;
    }
    free(p);
    return s;
}

char *path_join(const char *dir, const char *name) {
    str s = {0};
    str_puts(&s, dir);
    if (s.n && s.p[s.n - 1] != '/') str_putc(&s, '/');
    str_puts(&s, name);
    return str_take(&s);
}

status file_begin(file_writer *w, const char *path, error *e) {
    *w = (file_writer){.fd = -1};
    str t = {0};
    str_addf(&t, "%s.tmp", path);
    w->temporary = str_take(&t);
    w->path = strdup(path);
    w->buffer = malloc(BUFFER);
    if (!w->temporary || !w->path || !w->buffer) {
        file_abort(w);
        return fail(e, ERR_NOMEM, "memory is out");
    }
    w->fd = open(w->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (w->fd < 0) {
        status s = system_error(e, "cannot create", w->temporary);
        file_abort(w);
        return s;
    }
    return OK;
}

static status put(file_writer *w, const uint8_t *p, size_t n, error *e) {
    while (n) {
        ssize_t k = write(w->fd, p, n > (1u << 30) ? 1u << 30 : n);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return system_error(e, "cannot write", w->temporary);
        p += k;
        n -= (size_t)k;
    }
    return OK;
}

static status flush(file_writer *w, error *e) {
    size_t n = w->used;
    w->used = 0;
    return put(w, w->buffer, n, e);
}

status file_write(file_writer *w, const void *p, size_t n, error *e) {
    w->written += n;
    if (n > BUFFER - w->used) TRY(flush(w, e));
    if (n >= BUFFER) return put(w, p, n, e);
    if (n) memcpy(w->buffer + w->used, p, n);
    w->used += n;
    return OK;
}

static status sync_directory(const char *path, error *e) {
    char *dir = strdup(path);
    if (!dir) return fail(e, ERR_NOMEM, "memory is out");
    char *slash = strrchr(dir, '/');
    if (slash) slash[slash == dir] = 0;
    int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    status s = OK;
    if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL)) s = system_error(e, "cannot sync the folder of", path);
    if (fd >= 0) close(fd);
    free(dir);
    return s;
}

status file_commit(file_writer *w, error *e) {
    status s = flush(w, e);
    if (s == OK && fsync(w->fd) != 0 && errno != EINVAL) s = system_error(e, "cannot sync", w->temporary);
    if (close(w->fd) != 0 && s == OK) s = system_error(e, "cannot close", w->temporary);
    w->fd = -1;
    if (s == OK && rename(w->temporary, w->path) != 0) s = system_error(e, "cannot rename to", w->path);
    if (s == OK) {
        free(w->temporary);
        w->temporary = NULL;
        s = sync_directory(w->path, e);
    }
    file_abort(w);
    return s;
}

void file_abort(file_writer *w) {
    if (w->fd >= 0) close(w->fd);
    if (w->temporary) unlink(w->temporary);
    free(w->temporary);
    free(w->path);
    free(w->buffer);
    *w = (file_writer){.fd = -1};
}

status file_save(const char *path, const void *p, size_t n, error *e) {
    file_writer w;
    TRY(file_begin(&w, path, e));
    status s = file_write(&w, p, n, e);
    if (s == OK) return file_commit(&w, e);
    file_abort(&w);
    return s;
}
