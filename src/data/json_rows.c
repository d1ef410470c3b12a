#include "data/json_rows.h"

#include <stdio.h>
#include <string.h>
#include "base/json.h"
#include "data/lines.h"

static status read_row(const char *path, const lines *l, const str *line, const json_rows *o, error *e) {
    char name[300];
    json_t *row;
    snprintf(name, sizeof name, "%.250s:%lld", path, (long long)lines_number(l));
    TRY(json_parse(&row, line->p, line->n, name, e));
    status s = json_is_object(row) ? o->row(o->arg, row, e) : fail(e, ERR_FORMAT, "should be a JSON object");
    if (s != OK && s != ERR_CANCELLED) wrap(e, "%s", name);
    json_decref(row);
    return s;
}

static status read_all(const char *path, lines *l, str *line, const json_rows *o, error *e) {
    for (bool end = false;;) {
        line->n = 0;
        TRY(lines_next(l, line, &end, e));
        if (end) return OK;
        if (strspn(line->p ? line->p : "", " \t\r") == line->n) continue;
        const status s = read_row(path, l, line, o, e);
        if (s == ERR_FORMAT && o->skip_damaged) {
            if (o->note) o->note(o->told, e->text);
        } else if (s != OK) {
            return s;
        }
        if (o->progress && o->progress(o->told, lines_done(l), lines_size(l), o->what))
            return fail(e, ERR_CANCELLED, "cancelled");
    }
}

status json_rows_read(const char *path, const json_rows *o, error *e) {
    lines *l;
    str line = {0};
    TRY(lines_open(&l, path, e));
    status s = read_all(path, l, &line, o, e);
    str_free(&line);
    lines_close(l);
    return s;
}
