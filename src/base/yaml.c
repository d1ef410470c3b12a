#include "base/yaml.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

typedef struct reader {
    yaml_parser_t parser;
    yaml_event_t event; /* the one at hand */
    bool has_event;
    const char *name;
    json_t *lines;
    error *e;
} reader;

static status at(const reader *r, const yaml_mark_t *mark, status code, const char *what) {
    return fail(r->e, code, "%s:%zu: %s", r->name, mark->line + 1, what);
}

static status next(reader *r) {
    if (r->has_event) yaml_event_delete(&r->event);
    r->has_event = yaml_parser_parse(&r->parser, &r->event);
    if (r->has_event) return OK;
    if (r->parser.error == YAML_MEMORY_ERROR) return fail(r->e, ERR_NOMEM, "memory is out");
    const char *why = r->parser.problem, *when = r->parser.context;
    return fail(r->e, ERR_FORMAT, "%s:%zu: not valid YAML: %s%s%s", r->name, r->parser.problem_mark.line + 1,
                when ? when : "", when ? ": " : "", why ? why : "no reason given");
}

/* --- scalars: the core schema (YAML 1.2.2, 10.3.2) -------------------------------------------------------------- */

static bool one_of(const char *text, const char *const *words) {
    for (; *words; words++)
        if (strcmp(text, *words) == 0) return true;
    return false;
}

/* [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?, and whether it is an integer */
static bool is_number(const char *p, bool *integer) {
    p += *p == '-' || *p == '+';
    size_t whole = strspn(p, "0123456789"), part = 0;
    p += whole;
    *integer = *p == 0;
    if (*p == '.') p += 1 + (part = strspn(p + 1, "0123456789"));
    if (!whole && !part) return false;
    if (*p == 'e' || *p == 'E') {
        p++;
        p += *p == '-' || *p == '+';
        size_t digits = strspn(p, "0123456789");
        if (!digits) return false;
        p += digits;
    }
    return *p == 0;
}

static json_t *plain_value(const char *p, size_t n) {
    static const char *const null[] = {"", "~", "null", "Null", "NULL", NULL},
                             *const yes[] = {"true", "True", "TRUE", NULL},
                             *const no[] = {"false", "False", "FALSE", NULL};
    bool integer;
    if (strlen(p) != n) return json_stringn(p, n);
    if (one_of(p, null)) return json_null();
    if (one_of(p, yes)) return json_true();
    if (one_of(p, no)) return json_false();
    if (!is_number(p, &integer)) return json_stringn(p, n);
    errno = 0;
    long long i = integer ? strtoll(p, NULL, 10) : 0;
    if (integer && !errno) return json_integer(i);
    double x = strtod(p, NULL);
    return x - x == 0 ? json_real(x) : json_stringn(p, n); /* 1e999 is left to the reader's type check */
}

static status scalar(reader *r, json_t **out) {
    const yaml_event_t *v = &r->event;
    const char *p = (const char *)v->data.scalar.value;
    size_t n = v->data.scalar.length;
    if (v->data.scalar.anchor)
        return at(r, &v->start_mark, ERR_UNSUPPORTED,
                  "anchors (&name) are not taken: write the value where it is used");
    if (v->data.scalar.tag)
        return at(r, &v->start_mark, ERR_UNSUPPORTED, "tags (!name) are not taken: quote the text if it is one");
    *out = v->data.scalar.style == YAML_PLAIN_SCALAR_STYLE ? plain_value(p, n) : json_stringn(p, n);
    return *out ? OK : at(r, &v->start_mark, ERR_FORMAT, "not valid UTF-8 text");
}

/* --- collections ------------------------------------------------------------------------------------------------ */

static status value(reader *r, const char *path, int depth, json_t **out);

static status sequence(reader *r, int depth, json_t *list) {
    for (;;) {
        json_t *v;
        TRY(next(r));
        if (r->event.type == YAML_SEQUENCE_END_EVENT) return OK;
        TRY(value(r, NULL, depth + 1, &v));
        if (json_array_append_new(list, v) != 0) return fail(r->e, ERR_NOMEM, "memory is out");
    }
}

/* The key at hand as text; path: the same with the section before it, when it belongs to the first two levels. */
static status key_of(reader *r, const char *path, const json_t *object, char *key, size_t size, char *full) {
    const yaml_event_t *v = &r->event;
    if (v->type != YAML_SCALAR_EVENT) return at(r, &v->start_mark, ERR_FORMAT, "a key should be a word");
    if (v->data.scalar.anchor || v->data.scalar.tag)
        return at(r, &v->start_mark, ERR_UNSUPPORTED, "anchors and tags are not taken");
    size_t n = v->data.scalar.length;
    const char *p = (const char *)v->data.scalar.value;
    if (n >= size || strlen(p) != n) return at(r, &v->start_mark, ERR_FORMAT, "a key of this length cannot be");
    memcpy(key, p, n + 1);
    if (json_object_get(object, key))
        return fail(r->e, ERR_FORMAT, "%s:%zu: key \"%s\" comes twice", r->name, v->start_mark.line + 1, key);
    full[0] = 0;
    if (!r->lines || !path) return OK;
    snprintf(full, 2 * size, "%s%s%s", path, *path ? "." : "", key);
    if (json_object_set_new(r->lines, full, json_integer((json_int_t)v->start_mark.line + 1)) == 0) return OK;
    return at(r, &v->start_mark, ERR_FORMAT, "not valid UTF-8 text");
}

static status mapping_of(reader *r, const char *path, int depth, json_t *object) {
    char key[128], full[2 * sizeof key];
    for (;;) {
        json_t *v;
        TRY(next(r));
        if (r->event.type == YAML_MAPPING_END_EVENT) return OK;
        yaml_mark_t mark = r->event.start_mark;
        TRY(key_of(r, path, object, key, sizeof key, full));
        TRY(next(r));
        TRY(value(r, depth == 0 && full[0] ? full : NULL, depth + 1, &v));
        if (json_object_set_new(object, key, v) != 0) return at(r, &mark, ERR_FORMAT, "not valid UTF-8 text");
    }
}

static status value(reader *r, const char *path, int depth, json_t **out) {
    const yaml_event_t *v = &r->event;
    bool list = v->type == YAML_SEQUENCE_START_EVENT;
    if (v->type == YAML_ALIAS_EVENT)
        return at(r, &v->start_mark, ERR_UNSUPPORTED,
                  "aliases (*name) are not taken: quote the text if it begins with a star");
    if (v->type == YAML_SCALAR_EVENT) return scalar(r, out);
    if (depth >= YAML_DEPTH) return at(r, &v->start_mark, ERR_FORMAT, "nested too deeply");
    if (list ? v->data.sequence_start.anchor || v->data.sequence_start.tag
             : v->data.mapping_start.anchor || v->data.mapping_start.tag)
        return at(r, &v->start_mark, ERR_UNSUPPORTED, "anchors and tags are not taken");
    json_t *made = list ? json_array() : json_object();
    if (!made) return fail(r->e, ERR_NOMEM, "memory is out");
    status s = list ? sequence(r, depth, made) : mapping_of(r, path, depth, made);
    if (s == OK) *out = made;
    else json_decref(made);
    return s;
}

static status document(reader *r, json_t **out) {
    TRY(next(r)); /* the stream begins */
    TRY(next(r));
    if (r->event.type == YAML_STREAM_END_EVENT) {
        *out = json_null();
        return OK;
    }
    TRY(next(r)); /* the document has begun */
    TRY(value(r, "", 0, out));
    status s = next(r); /* it ends */
    if (s == OK) s = next(r);
    if (s == OK && r->event.type != YAML_STREAM_END_EVENT)
        s = at(r, &r->event.start_mark, ERR_FORMAT, "a second document begins here: one was wanted");
    if (s == OK) return OK;
    json_decref(*out);
    *out = NULL;
    return s;
}

status yaml_parse(json_t **out, json_t **lines, const char *text, size_t n, const char *name, error *e) {
    reader r = {.name = name, .e = e};
    *out = NULL;
    if (lines) *lines = NULL;
    if (!yaml_parser_initialize(&r.parser)) return fail(e, ERR_NOMEM, "memory is out");
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, n);
    status s = OK;
    if (lines && !(r.lines = json_object())) s = fail(e, ERR_NOMEM, "memory is out");
    if (s == OK) s = document(&r, out);
    if (r.has_event) yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    if (s == OK && lines) *lines = r.lines;
    else json_decref(r.lines);
    return s;
}

/* --- writing ---------------------------------------------------------------------------------------------------- */

/* One character of valid UTF-8; *n: its bytes. */
static unsigned character(const unsigned char *p, int *n) {
    *n = *p < 0x80 ? 1 : *p < 0xE0 ? 2 : *p < 0xF0 ? 3 : 4;
    unsigned c = *n == 1 ? *p : *p & (0xFFu >> (*n + 1));
    for (int i = 1; i < *n && p[i]; i++) c = c << 6 | (p[i] & 0x3F);
    return c;
}

void yaml_put_text(str *s, const char *text) {
    const unsigned char *p = (const unsigned char *)text;
    str_putc(s, '"');
    for (int n; *p; p += n) {
        unsigned c = character(p, &n);
        if (c == '"' || c == '\\') str_addf(s, "\\%c", (int)c);
        else if (c < ' ' || c == 0x7F) str_addf(s, "\\x%02X", c);
        else if (c < 0x7F || (c >= 0x4E00 && c < 0xA000)) str_add(s, (const char *)p, (size_t)n); /* ASCII, Han */
        else str_addf(s, "\\U%08X", c);
    }
    str_putc(s, '"');
}
