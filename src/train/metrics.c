/* metrics.jsonl: a JSON object for every step, in the order of the steps, each written by one call and so in the file
 * when the call is over: a crash loses at most the line it interrupts. Numbers that are not finite have no JSON and are
 * left out. The TensorBoard file beside it holds the same scalars. */
#include "train/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "base/str.h"
#include "train/tensorboard.h"

struct metrics {
    int fd; /* of metrics.jsonl; -1: not wanted */
    char *path;
    off_t size;        /* bytes of whole lines */
    event_file *board; /* NULL: not wanted */
};

/* --- opening ---------------------------------------------------------------------------------------------------- */

/* The step of a line that we wrote, which begins with it; -1: no such line. */
static int64_t line_step(const char *p, size_t n) {
    static const char start[] = "{\"step\": ";
    const size_t at = sizeof start - 1;
    if (n <= at || memcmp(p, start, at) != 0) return -1;
    int64_t step = 0;
    for (size_t i = at; i < n && p[i] >= '0' && p[i] <= '9' && step < INT64_MAX / 10 - 9; i++)
        step = 10 * step + (p[i] - '0');
    return step;
}

/* Bytes of the lines before step `first`. Steps grow from line to line, so what is cut is the end of the file, and
 * cutting it is one call. A line without its newline is torn. */
static status kept_bytes(const char *path, int64_t first, off_t *keep, error *e) {
    mapping file;
    size_t at = 0;
    TRY(file_map(&file, path, e));
    const char *p = (const char *)file.p;
    while (at < file.n) {
        const char *end = memchr(p + at, '\n', file.n - at);
        if (!end || line_step(p + at, (size_t)(end - p) - at) >= first) break;
        at = (size_t)(end - p) + 1;
    }
    file_unmap(&file);
    *keep = (off_t)at;
    return OK;
}

static status open_lines(metrics *m, const char *folder, int64_t first, error *e) {
    if (!(m->path = path_join(folder, "metrics.jsonl"))) return fail(e, ERR_NOMEM, "memory is out");
    if (file_exists(m->path)) TRY(kept_bytes(m->path, first, &m->size, e));
    m->fd = open(m->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (m->fd < 0) return fail(e, ERR_IO, "%s: cannot open: %s", m->path, strerror(errno));
    if (ftruncate(m->fd, m->size) != 0)
        return fail(e, ERR_IO, "%s: cannot cut old steps: %s", m->path, strerror(errno));
    return OK;
}

status metrics_open(metrics **out, const char *folder, bool jsonl, bool tensorboard, int64_t first_step, error *e) {
    metrics *m = calloc(1, sizeof *m);
    *out = NULL;
    if (!m) return fail(e, ERR_NOMEM, "memory is out");
    m->fd = -1;
    status s = make_directory(folder, e);
    if (s == OK && jsonl) s = open_lines(m, folder, first_step, e);
    if (s == OK && tensorboard) s = event_file_open(&m->board, folder, first_step, e);
    if (s == OK) *out = m;
    else metrics_close(m, NULL);
    return s;
}

status metrics_close(metrics *m, error *e) {
    status s = OK;
    if (!m) return OK;
    if (m->fd >= 0 && close(m->fd) != 0) s = fail(e, ERR_IO, "%s: cannot close: %s", m->path, strerror(errno));
    event_file_close(m->board);
    free(m->path);
    free(m);
    return s;
}

/* --- writing ---------------------------------------------------------------------------------------------------- */

typedef struct scalar {
    const char *name, *tag; /* in metrics.jsonl, in TensorBoard (NULL: not there) */
    double value;
} scalar;

enum { SCALARS = 16, MOST_SCALARS = SCALARS + MOST_MORE };

static int scalars(const step_metrics *s, scalar out[MOST_SCALARS]) {
    const scalar all[SCALARS] = {
        {"tokens", NULL, s->tokens},
        {"loss", "loss", s->loss},
        {"lm_loss", "lm_loss", s->lm_loss},
        {"mtp_loss", "mtp_loss", s->mtp_loss},
        {"balance_loss", "balance_loss", s->balance_loss},
        {"indexer_loss", "indexer_loss", s->indexer_loss},
        {"mtp_acceptance", "mtp_acceptance", s->mtp_acceptance},
        {"validation_loss", "validation_loss", s->validation_loss},
        {"grad_norm", "grad_norm", s->grad_norm},
        {"lr", "lr", s->lr},
        {"seconds", NULL, s->seconds},
        {"tokens_per_second", "tokens_per_second", s->tokens_per_second},
        {"mfu", "mfu", s->mfu},
        {"memory", "memory", s->memory},
        {"max_vio", "max_vio", s->max_vio},
        {"dropped", "dropped", s->dropped},
    };
    int n = 0;
    for (int i = 0; i < SCALARS; i++)
        if (isfinite(all[i].value)) out[n++] = all[i];
    for (int i = 0; i < s->n_more && i < MOST_MORE; i++)
        if (isfinite(s->more[i].value)) out[n++] = (scalar){s->more[i].name, s->more[i].name, s->more[i].value};
    return n;
}

static void add_layers(str *line, const step_metrics *s) {
    str_puts(line, ", \"layers\": [");
    for (int i = 0; i < s->n_layers; i++) {
        const layer_load *l = &s->layers[i];
        str_addf(line, "%s{\"layer\": %lld", i ? ", " : "", (long long)l->layer);
        if (isfinite(l->max_vio)) str_addf(line, ", \"max_vio\": %.6g", l->max_vio);
        str_puts(line, ", \"load\": [");
        for (int x = 0; x < s->n_experts; x++) str_addf(line, "%s%lld", x ? ", " : "", (long long)l->load[x]);
        str_puts(line, "]}");
    }
    str_putc(line, ']');
}

/* The shortest of the texts that give the same double back, so that runs can be compared bit by bit. */
static void add_number(str *line, double v) {
    char text[32];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    str_puts(line, text);
}

static void add_line(str *line, const step_metrics *s, const scalar *v, int n) {
    str_addf(line, "{\"step\": %lld", (long long)s->step);
    for (int i = 0; i < n; i++) {
        str_addf(line, ", \"%s\": ", v[i].name);
        add_number(line, v[i].value);
    }
    str_addf(line, ", \"skipped\": %s", s->skipped ? "true" : "false");
    if (s->n_layers) add_layers(line, s);
    str_puts(line, "}\n");
}

static status append(metrics *m, const str *line, error *e) {
    for (size_t done = 0; done < line->n;) {
        ssize_t k = write(m->fd, line->p + done, line->n - done);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) {
            status s = fail(e, ERR_IO, "%s: cannot write: %s", m->path, strerror(errno));
            return ftruncate(m->fd, m->size) == 0 ? s : wrap(e, "a torn line stays");
        }
        done += (size_t)k;
    }
    m->size += (off_t)line->n;
    return OK;
}

static status write_board(event_file *t, const step_metrics *s, const scalar *v, int n, error *e) {
    for (int i = 0; i < n; i++)
        if (v[i].tag) event_file_add(t, v[i].tag, v[i].value);
    for (int i = 0; i < s->n_layers; i++) {
        char tag[48];
        snprintf(tag, sizeof tag, "load/layer%lld/max_vio", (long long)s->layers[i].layer);
        event_file_add(t, tag, s->layers[i].max_vio);
    }
    return event_file_write(t, s->step, e);
}

status metrics_write(metrics *m, const step_metrics *s, error *e) {
    scalar v[MOST_SCALARS];
    int n = scalars(s, v);
    if (m->fd >= 0) {
        str line = {0};
        add_line(&line, s, v, n);
        status st = str_check(&line, e);
        if (st == OK) st = append(m, &line, e);
        str_free(&line);
        TRY(st);
    }
    return m->board ? write_board(m->board, s, v, n, e) : OK;
}
