#include "eval/rows.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "data/json_rows.h"
#include "data/lines.h"
#include "eval/csv.h"

/* --- which file --------------------------------------------------------------------------------------------------- */

static bool is_data(const char *name) {
    return name_ends_with(name, ".jsonl") || name_ends_with(name, ".jsonl.gz") || name_ends_with(name, ".jsonl.zst") ||
           name_ends_with(name, ".csv");
}

char *rows_folder(const char *path) {
    const char *slash = strrchr(path, '/');
    if (is_directory(path)) return strdup(path);
    return slash ? strndup(path, slash > path ? (size_t)(slash - path) : 1) : strdup(".");
}

/* The first name in the folder that begins like this, or NULL. */
static status find(const char *folder, const char *begin, char **out, error *e) {
    char *best = NULL;
    DIR *d = opendir(folder);
    *out = NULL;
    if (!d) return fail(e, ERR_FORMAT, "%s: cannot open: %s", folder, strerror(errno));
    for (struct dirent *f; (f = readdir(d));) {
        if (strncmp(f->d_name, begin, strlen(begin)) != 0 || !is_data(f->d_name)) continue;
        if (best && strcmp(f->d_name, best) >= 0) continue;
        free(best);
        if (!(best = strdup(f->d_name))) break;
    }
    closedir(d);
    if (best) *out = path_join(folder, best);
    free(best);
    return OK;
}

static status choose(const char *path, const char *const *names, char **out, error *e) {
    *out = NULL;
    if (!is_directory(path)) return (*out = strdup(path)) ? OK : fail(e, ERR_NOMEM, "memory is out");
    for (int i = 0; names[i] && !*out; i++) TRY(find(path, names[i], out, e));
    return *out ? OK
                : fail(e, ERR_FORMAT, "%s: no file %s*.jsonl or .csv in this folder: name the file itself", path,
                       names[0]);
}

/* --- what is in it ------------------------------------------------------------------------------------------------ */

static status add(json_t *list, json_t *row, error *e) {
    return json_array_append_new(list, row) ? fail(e, ERR_NOMEM, "memory is out") : OK;
}

static status read_csv(rows *r, error *e) {
    lines *l;
    str text = {0};
    TRY(lines_open(&l, r->path, e));
    status s = lines_rest(l, &text, e);
    lines_close(l);
    csv c = csv_open(text.p ? text.p : "", text.n, r->path);
    for (json_t *row; s == OK && (s = csv_next(&c, &row, e)) == OK && row;) s = add(r->list, row, e);
    str_free(&text);
    return s;
}

static status add_object(void *list, json_t *row, error *e) {
    return add(list, json_incref(row), e);
}

status rows_open(rows *out, const char *path, const char *const *names, error *e) {
    rows r = {.list = json_array()};
    *out = (rows){0};
    status s = r.list ? choose(path, names, &r.path, e) : fail(e, ERR_NOMEM, "memory is out");
    if (s == OK)
        s = name_ends_with(r.path, ".csv") ? read_csv(&r, e)
                                           : json_rows_read(r.path, &(json_rows){.row = add_object, .arg = r.list}, e);
    if (s == OK && !rows_count(&r)) s = fail(e, ERR_FORMAT, "%s: no rows", r.path);
    if (s == OK) *out = r;
    else rows_close(&r);
    return s;
}

/* --- names of columns --------------------------------------------------------------------------------------------- */

static bool has_text(const json_t *record, const char *text) {
    for (size_t i = 0; i < json_array_size(record); i++)
        if (strcmp(json_string_value(json_array_get(record, i)), text) == 0) return true;
    return false;
}

static status name_fields(const json_t *names, const json_t *record, json_t **out, error *e) {
    const size_t n = json_array_size(names);
    if (json_array_size(record) != n)
        return fail(e, ERR_FORMAT, "%zu fields, but the first record names %zu", json_array_size(record), n);
    bool bad = !(*out = json_object());
    for (size_t i = 0; i < n && !bad; i++)
        bad = json_object_set(*out, json_string_value(json_array_get(names, i)), json_array_get(record, i)) != 0;
    return bad ? fail(e, ERR_NOMEM, "memory is out") : OK;
}

status rows_name_columns(rows *r, const char *field, error *e) {
    if (!json_is_array(rows_at(r, 0)) || !has_text(rows_at(r, 0), field)) return OK;
    json_t *list = json_array();
    status s = list ? OK : fail(e, ERR_NOMEM, "memory is out");
    for (int64_t i = 1; i < rows_count(r) && s == OK; i++) {
        json_t *row = NULL;
        s = name_fields(rows_at(r, 0), rows_at(r, i), &row, e);
        if (s != OK) rows_wrap(r, i, e);
        if (s == OK) s = add(list, row, e);
        else json_decref(row);
    }
    if (s == OK && !json_array_size(list)) s = fail(e, ERR_FORMAT, "%s: no rows behind the names", r->path);
    if (s != OK) {
        json_decref(list);
        return s;
    }
    json_decref(r->list);
    r->list = list;
    return OK;
}

void rows_close(rows *r) {
    json_decref(r->list);
    free(r->path);
    *r = (rows){0};
}

int64_t rows_count(const rows *r) {
    return (int64_t)json_array_size(r->list);
}

const json_t *rows_at(const rows *r, int64_t i) {
    return json_array_get(r->list, (size_t)i);
}

status rows_wrap(const rows *r, int64_t i, error *e) {
    return wrap(e, "%s, row %lld", r->path, (long long)i + 1);
}

status rows_text(const rows *r, int64_t i, const char *member, const char **out, error *e) {
    const json_t *v = json_object_get(rows_at(r, i), member);
    *out = json_string_value(v);
    if (*out && strlen(*out) == json_string_length(v)) return OK;
    return fail(e, ERR_FORMAT, v ? "\"%s\" should be a text" : "\"%s\" is missing", member);
}
