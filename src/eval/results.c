#include "eval/results.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"

struct results {
    int fd; /* -1: nothing is written */
    char *path;
    int samples;
    json_t *old; /* number (as text) to the list of its lines */
    off_t whole; /* bytes of the file's beginning that are whole prompts */
};

/* --- what is there ------------------------------------------------------------------------------------------------ */

static void add_value(str *s, const json_t *v) {
    char *text = v ? json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    str_puts(s, text ? text : "nothing");
    free(text);
}

static status other_evaluation(const results *r, const json_t *there, const json_t *here, error *e) {
    const char *key;
    json_t *v;
    str why = {0};
    json_object_foreach((json_t *)(uintptr_t)here, key, v) {
        const json_t *old = json_object_get(there, key);
        if (why.n || (old && json_equal(old, v))) continue;
        str_addf(&why, "%s is ", key);
        add_value(&why, old);
        str_puts(&why, " there and ");
        add_value(&why, v);
        str_puts(&why, " here");
    }
    status s = fail(e, ERR_ARG, "%s holds answers of another evaluation (%s): name another file, or remove it", r->path,
                    why.n ? why.p : "it has more options");
    str_free(&why);
    return s;
}

static status check_first(results *r, const char *p, size_t n, const json_t *evaluation, error *e) {
    json_t *line = NULL;
    const bool ours = json_parse(&line, p, n, r->path, e) == OK && json_is_object(json_object_get(line, "evaluation"));
    const json_t *there = json_object_get(line, "evaluation");
    status s = OK;
    if (!ours) s = fail(e, ERR_ARG, "%s is there and holds no answers of an evaluation: name another file", r->path);
    else if (!json_equal(there, evaluation)) s = other_evaluation(r, there, evaluation, e);
    json_decref(line);
    return s;
}

/* Lines of one prompt begin in the file at `from`. *next: behind them; 0: they are not all there. */
static status read_prompt(results *r, const char *p, size_t n, size_t from, size_t *next, error *e) {
    json_t *list = json_array();
    size_t at = from;
    status s = list ? OK : fail(e, ERR_NOMEM, "memory is out");
    *next = 0;
    for (int k = 0; s == OK && k < r->samples; k++) {
        json_t *line = NULL;
        const char *end = at < n ? memchr(p + at, '\n', n - at) : NULL;
        if (!end) {
            json_decref(list);
            return OK;
        }
        s = json_parse(&line, p + at, (size_t)(end - p) - at, r->path, e);
        const json_t *number = json_object_get(line, "number"), *first = json_array_get(list, 0);
        if (s == OK && (!json_is_integer(number) || (first && !json_equal(number, json_object_get(first, "number")))))
            s = fail(e, ERR_FORMAT, "%s: a line at byte %zu is not an answer, or out of its place", r->path, at);
        if (s == OK && json_array_append_new(list, line)) s = fail(e, ERR_NOMEM, "memory is out");
        else if (s != OK) json_decref(line);
        at = (size_t)(end - p) + 1;
    }
    char key[24];
    snprintf(key, sizeof key, "%lld",
             (long long)json_integer_value(json_object_get(json_array_get(list, 0), "number")));
    if (s == OK && json_object_set(r->old, key, list)) s = fail(e, ERR_NOMEM, "memory is out");
    json_decref(list);
    *next = at;
    return s;
}

static status read_old(results *r, const json_t *evaluation, error *e) {
    mapping map;
    TRY(file_map(&map, r->path, e));
    const char *p = (const char *)map.p, *end = map.n ? memchr(p, '\n', map.n) : NULL;
    status s = OK;
    if (map.n) s = check_first(r, p, end ? (size_t)(end - p) : map.n, evaluation, e);
    for (size_t at = end ? (size_t)(end - p) + 1 : 0, next; s == OK && at; at = next) {
        r->whole = (off_t)at;
        s = read_prompt(r, p, map.n, at, &next, e);
    }
    file_unmap(&map);
    return s;
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

static status put(results *r, const str *text, error *e) {
    TRY(str_check(text, e));
    for (size_t at = 0; at < text->n;) {
        const ssize_t n = write(r->fd, text->p + at, text->n - at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail(e, ERR_IO, "%s: cannot write: %s", r->path, strerror(errno));
        at += (size_t)n;
    }
    return OK;
}

static void add_line(str *text, const json_t *line) {
    char *json = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(9));
    text->failed |= !json;
    if (json) str_puts(text, json);
    str_putc(text, '\n');
    free(json);
}

static status begin(results *r, const json_t *evaluation, error *e) {
    r->fd = open(r->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (r->fd < 0) return fail(e, ERR_IO, "%s: cannot open: %s", r->path, strerror(errno));
    if (ftruncate(r->fd, r->whole) != 0) return fail(e, ERR_IO, "%s: cannot cut: %s", r->path, strerror(errno));
    if (r->whole) return OK;
    str text = {0};
    json_t *line = json_pack("{s:O}", "evaluation", evaluation);
    add_line(&text, line);
    json_decref(line);
    status s = put(r, &text, e);
    str_free(&text);
    return s;
}

status results_open(results **out, const char *path, const json_t *evaluation, int samples, error *e) {
    results *r = calloc(1, sizeof *r);
    *out = NULL;
    if (!r) return fail(e, ERR_NOMEM, "memory is out");
    *r = (results){.fd = -1, .samples = samples, .old = json_object(), .path = path ? strdup(path) : NULL};
    status s = r->old && (r->path || !path) ? OK : fail(e, ERR_NOMEM, "memory is out");
    if (s == OK && path && file_exists(path)) s = read_old(r, evaluation, e);
    if (s == OK && path) s = begin(r, evaluation, e);
    if (s == OK) *out = r;
    else results_close(r);
    return s;
}

void results_close(results *r) {
    if (!r) return;
    if (r->fd >= 0) close(r->fd);
    json_decref(r->old);
    free(r->path);
    free(r);
}

const json_t *results_find(const results *r, int64_t number) {
    char key[24];
    snprintf(key, sizeof key, "%lld", (long long)number);
    return json_object_get(r->old, key);
}

status results_add(results *r, const json_t *list, error *e) {
    if (r->fd < 0) return OK;
    str text = {0};
    size_t i;
    const json_t *line;
    json_array_foreach((json_t *)(uintptr_t)list, i, line) add_line(&text, line);
    status s = put(r, &text, e);
    str_free(&text);
    return s;
}
