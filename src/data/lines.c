#include "data/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

enum { BLOCK = 256 << 10, LONGEST_WINDOW = 31 /* log2: what zstd --long=31 writes */ };

struct lines {
    char *path;
    int fd;
    uint64_t size, done;
    gzFile gz;
    ZSTD_DCtx *zstd;
    ZSTD_inBuffer in; /* of raw */
    bool in_frame;    /* a zstd frame has begun and not ended */
    char *raw, *block;
    size_t n, at; /* bytes of the block, and those already given away */
    int64_t number;
};

static status open_file(lines *l, const char *path, error *e) {
    struct stat st;
    if (!(l->path = strdup(path))) return fail(e, ERR_NOMEM, "memory is out");
    l->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a FIFO must not hang us */
    if (l->fd < 0) return fail(e, ERR_FORMAT, "%s: cannot open: %s", path, strerror(errno));
    if (fstat(l->fd, &st) != 0) return fail(e, ERR_IO, "%s: cannot stat: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return fail(e, ERR_FORMAT, "%s: not a regular file", path);
    l->size = (uint64_t)st.st_size;
    l->block = malloc(BLOCK);
    bool ready = l->block != NULL;
    if (name_ends_with(path, ".gz")) {
        int own = dup(l->fd); /* gzclose closes its own */
        l->gz = own >= 0 ? gzdopen(own, "rb") : NULL;
        if (!l->gz && own >= 0) close(own);
        if (!l->gz) return fail(e, ERR_NOMEM, "%s: cannot open for zlib", path);
        gzbuffer(l->gz, BLOCK);
    } else if (name_ends_with(path, ".zst")) {
        l->raw = malloc(BLOCK);
        l->zstd = ZSTD_createDCtx();
        ready = ready && l->raw && l->zstd;
        if (ready) ZSTD_DCtx_setParameter(l->zstd, ZSTD_d_windowLogMax, LONGEST_WINDOW);
    }
    return ready ? OK : fail(e, ERR_NOMEM, "memory is out");
}

status lines_open(lines **out, const char *path, error *e) {
    *out = NULL;
    lines *l = calloc(1, sizeof *l);
    if (!l) return fail(e, ERR_NOMEM, "memory is out");
    l->fd = -1;
    status s = open_file(l, path, e);
    if (s == OK) *out = l;
    else lines_close(l);
    return s;
}

void lines_close(lines *l) {
    if (!l) return;
    if (l->gz) gzclose(l->gz);
    if (l->fd >= 0) close(l->fd);
    ZSTD_freeDCtx(l->zstd);
    free(l->raw);
    free(l->block);
    free(l->path);
    free(l);
}

/* ---- bytes ---- */

static status read_bytes(lines *l, char *to, size_t *n, error *e) {
    ssize_t k;
    do k = read(l->fd, to, BLOCK);
    while (k < 0 && errno == EINTR);
    if (k < 0) return fail(e, ERR_IO, "%s: cannot read: %s", l->path, strerror(errno));
    *n = (size_t)k;
    l->done += (uint64_t)k;
    return OK;
}

static status read_gz(lines *l, error *e) {
    int k = gzread(l->gz, l->block, BLOCK), code;
    const char *why = gzerror(l->gz, &code);
    if (k < 0 || (code != Z_OK && code != Z_STREAM_END))
        return fail(e, code == Z_MEM_ERROR ? ERR_NOMEM : ERR_FORMAT, "%s: damaged or truncated gzip data: %s", l->path,
                    why);
    if (gzdirect(l->gz) && l->size) return fail(e, ERR_FORMAT, "%s: named .gz, but not gzip data", l->path);
    l->n = (size_t)k;
    z_off_t at = gzoffset(l->gz);
    if (at > 0) l->done = (uint64_t)at;
    return OK;
}

static status read_zstd(lines *l, error *e) {
    ZSTD_outBuffer out = {l->block, BLOCK, 0};
    while (out.pos == 0) {
        bool end = false;
        if (l->in.pos == l->in.size) {
            size_t n;
            TRY(read_bytes(l, l->raw, &n, e));
            l->in = (ZSTD_inBuffer){l->raw, n, 0};
            end = n == 0;
        }
        if (end && !l->in_frame) break;
        size_t left = ZSTD_decompressStream(l->zstd, &out, &l->in);
        if (ZSTD_isError(left))
            return fail(e, ERR_FORMAT, "%s: damaged zstd data: %s", l->path, ZSTD_getErrorName(left));
        l->in_frame = left != 0;
        if (end && l->in_frame && out.pos == 0)
            return fail(e, ERR_FORMAT, "%s: truncated zstd data: the last frame has no end", l->path);
    }
    l->n = out.pos;
    return OK;
}

/* The next block; l->n is 0 at the end of the file. */
static status refill(lines *l, error *e) {
    l->at = l->n = 0;
    if (l->gz) return read_gz(l, e);
    return l->zstd ? read_zstd(l, e) : read_bytes(l, l->block, &l->n, e);
}

/* ---- lines ---- */

static status add(lines *l, str *out, size_t before, size_t n, error *e) {
    if (out->n - before + n > LONGEST_LINE)
        return fail(e, ERR_FORMAT, "%s, line %lld: more than %d MiB in one document; split it", l->path,
                    (long long)l->number, LONGEST_LINE >> 20);
    str_add(out, l->block + l->at, n);
    l->at += n;
    return str_check(out, e);
}

status lines_next(lines *l, str *out, bool *end, error *e) {
    size_t before = out->n;
    *end = false;
    l->number++;
    for (bool begun = false;; begun = true) {
        if (l->at == l->n) TRY(refill(l, e));
        if (l->n == 0) {
            *end = !begun;
            break;
        }
        const char *from = l->block + l->at, *stop = memchr(from, '\n', l->n - l->at);
        TRY(add(l, out, before, stop ? (size_t)(stop - from) : l->n - l->at, e));
        if (stop) {
            l->at++;
            break;
        }
    }
    if (out->n > before && out->p[out->n - 1] == '\r') out->p[--out->n] = 0;
    return OK;
}

status lines_rest(lines *l, str *out, error *e) {
    size_t before = out->n;
    l->number++;
    for (;;) {
        if (l->at == l->n) TRY(refill(l, e));
        if (l->n == 0) return OK;
        TRY(add(l, out, before, l->n - l->at, e));
    }
}

uint64_t lines_size(const lines *l) {
    return l->size;
}
uint64_t lines_done(const lines *l) {
    return l->done;
}
int64_t lines_number(const lines *l) {
    return l->number;
}
