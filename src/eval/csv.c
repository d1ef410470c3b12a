#include "eval/csv.h"

#include <string.h>
#include "base/str.h"

csv csv_open(const char *text, size_t n, const char *name) {
    static const char mark[] = "\xef\xbb\xbf"; /* the byte order mark that some programs put before everything */
    const size_t skip = n >= 3 && memcmp(text, mark, 3) == 0 ? 3 : 0;
    return (csv){.p = text, .n = n, .at = skip, .name = name, .next = 1};
}

static status wrong(const csv *c, int64_t line, const char *what, error *e) {
    return fail(e, ERR_FORMAT, "%s, line %lld: %s", c->name, (long long)line, what);
}

/* The bytes of a line end at `at`, or 0. */
static size_t line_end(const csv *c) {
    if (c->at < c->n && c->p[c->at] == '\n') return 1;
    return c->at + 1 < c->n && c->p[c->at] == '\r' && c->p[c->at + 1] == '\n' ? 2 : 0;
}

static status quoted(csv *c, str *field, error *e) {
    const int64_t begun = c->next;
    for (c->at++;;) {
        const char *end = memchr(c->p + c->at, '"', c->n - c->at);
        if (!end) return wrong(c, begun, "a quote is opened and not closed", e);
        for (const char *p = c->p + c->at; p < end; p++) c->next += *p == '\n';
        str_add(field, c->p + c->at, (size_t)(end - c->p) - c->at);
        c->at = (size_t)(end - c->p) + 1;
        if (c->at == c->n || c->p[c->at] != '"') break;
        str_putc(field, '"');
        c->at++;
    }
    if (c->at < c->n && c->p[c->at] != ',' && !line_end(c)) return wrong(c, c->next, "text behind a closing quote", e);
    return OK;
}

static void plain(csv *c, str *field) {
    const size_t from = c->at;
    while (c->at < c->n && c->p[c->at] != ',' && !line_end(c)) c->at++;
    str_add(field, c->p + from, c->at - from);
}

static status add_field(const csv *c, json_t *record, const str *field, error *e) {
    TRY(str_check(field, e));
    if (field->n && memchr(field->p, 0, field->n)) return wrong(c, c->line, "a zero byte", e);
    json_t *v = json_stringn(field->p ? field->p : "", field->n);
    if (!v) return wrong(c, c->line, "not UTF-8", e);
    return json_array_append_new(record, v) ? fail(e, ERR_NOMEM, "memory is out") : OK;
}

static status read_record(csv *c, json_t *record, error *e) {
    status s = OK;
    str field = {0};
    for (bool more = true; s == OK && more;) {
        field.n = 0;
        if (c->at < c->n && c->p[c->at] == '"') s = quoted(c, &field, e);
        else plain(c, &field);
        if (s == OK) s = add_field(c, record, &field, e);
        more = c->at < c->n && c->p[c->at] == ',';
        c->at += more;
    }
    str_free(&field);
    c->next += line_end(c) > 0;
    c->at += line_end(c);
    return s;
}

status csv_next(csv *c, json_t **out, error *e) {
    *out = NULL;
    for (size_t n; (n = line_end(c)) > 0; c->next++) c->at += n;
    if (c->at == c->n) return OK;
    c->line = c->next;
    json_t *record = json_array();
    if (!record) return fail(e, ERR_NOMEM, "memory is out");
    status s = read_record(c, record, e);
    if (s == OK) *out = record;
    else json_decref(record);
    return s;
}
