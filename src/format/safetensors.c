#include "format/safetensors.h"

#include <stdlib.h>
#include <string.h>
#include "base/arena.h"
#include "base/json.h"

/* How a tensor is named in an error; names come out of the file and may be long. */
#define TENSOR "%s: tensor \"%.160s\": "

/* The header is walked member by member and each member is parsed by itself, so that memory follows the number of
 * tensors and not what a hostile file fills its 100 MB with: a parsed JSON value takes fifty times its text. */
enum { ENTRY_MAX = 4096, META_MAX = 4 << 20 };

typedef struct cursor {
    const char *p, *end;
    const char *path;
} cursor;

static char next_char(cursor *c) { /* the next one that is not white space, left in place; 0 at the end */
    while (c->p < c->end && (*c->p == ' ' || *c->p == '\t' || *c->p == '\n' || *c->p == '\r')) c->p++;
    return c->p < c->end ? *c->p : 0;
}

static bool skip_char(cursor *c, char wanted) {
    if (next_char(c) != wanted) return false;
    c->p++;
    return true;
}

/* One JSON value of at most max bytes; `name` is for the error text. */
static status next_value(json_t **out, cursor *c, size_t max, const char *name, error *e) {
    size_t left = (size_t)(c->end - c->p);
    json_error_t je;
    *out = json_loadb(c->p, left < max ? left : max, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_DISABLE_EOF_CHECK,
                      &je);
    if (!*out) {
        if (json_error_code(&je) == json_error_out_of_memory || !je.text[0]) return fail(e, ERR_NOMEM, "memory is out");
        if (left > max && (size_t)je.position + 4 >= max) /* a character may be cut */
            return fail(e, ERR_FORMAT, "%s: \"%.160s\": longer than the %zu bytes allowed", c->path, name, max);
        return fail(e, ERR_FORMAT, "%s: \"%.160s\": not valid JSON: %s", c->path, name, je.text);
    }
    c->p += je.position;
    return OK;
}

/* The type and the shape; *bytes is what they need. */
static status read_shape(safetensors_entry *x, uint64_t *bytes, const json_t *o, const char *path, error *e) {
    const char *type = json_string_value(json_object_get(o, "dtype"));
    const json_t *shape = json_object_get(o, "shape");
    if (!type) return fail(e, ERR_FORMAT, TENSOR "no \"dtype\" string", path, x->name);
    int found = dtype_find(type);
    if (found < 0)
        return fail(e, ERR_UNSUPPORTED, TENSOR "element type \"%.40s\" is not one this program reads", path, x->name,
                    type);
    if (!json_is_array(shape)) return fail(e, ERR_FORMAT, TENSOR "no \"shape\" array", path, x->name);
    size_t ndim = json_array_size(shape);
    if (ndim > TENSOR_DIMS)
        return fail(e, ERR_UNSUPPORTED, TENSOR "%zu dimensions, at most %d are supported", path, x->name, ndim,
                    TENSOR_DIMS);
    x->t.type = (dtype)found;
    x->t.ndim = (int)ndim;
    /* No intermediate product may pass int64 either: others multiply dimensions in any order. A 0 does not excuse
     * the rest of the shape. */
    uint64_t nonzero = dtype_size(x->t.type);
    *bytes = nonzero;
    for (size_t i = 0; i < ndim; i++) {
        const json_t *d = json_array_get(shape, i);
        if (!json_is_integer(d) || json_integer_value(d) < 0)
            return fail(e, ERR_FORMAT, TENSOR "shape[%zu] should be an integer that is not negative", path, x->name, i);
        uint64_t n = (uint64_t)json_integer_value(d);
        x->t.dim[i] = json_integer_value(d);
        if (n && nonzero > INT64_MAX / n)
            return fail(e, ERR_FORMAT, TENSOR "the product of its shape overflows", path, x->name);
        nonzero *= n ? n : 1;
        *bytes *= n;
    }
    return OK;
}

static status read_entry(safetensors_entry *x, const json_t *o, const uint8_t *data, uint64_t n, const char *path,
                         error *e) {
    if (!json_is_object(o)) return fail(e, ERR_FORMAT, TENSOR "should be an object", path, x->name);
    uint64_t bytes = 0;
    TRY(read_shape(x, &bytes, o, path, e));
    const json_t *range = json_object_get(o, "data_offsets");
    const json_t *first = json_array_get(range, 0), *last = json_array_get(range, 1);
    if (json_array_size(range) != 2 || !json_is_integer(first) || !json_is_integer(last))
        return fail(e, ERR_FORMAT, TENSOR "\"data_offsets\" should be two integers", path, x->name);
    json_int_t begin = json_integer_value(first), end = json_integer_value(last);
    if (begin < 0 || end < begin)
        return fail(e, ERR_FORMAT, TENSOR "data_offsets [%lld, %lld] are not a range", path, x->name, (long long)begin,
                    (long long)end);
    if ((uint64_t)end > n)
        return fail(e, ERR_FORMAT, TENSOR "ends at byte %lld of the data, the file has %llu", path, x->name,
                    (long long)end, (unsigned long long)n);
    if ((uint64_t)(end - begin) != bytes)
        return fail(e, ERR_FORMAT, TENSOR "%lld bytes, its shape and type want %llu", path, x->name,
                    (long long)(end - begin), (unsigned long long)bytes);
    x->t.data = data + begin;
    return OK;
}

static int by_place(const void *a, const void *b) {
    const safetensors_entry *x = a, *y = b;
    const uint8_t *p = x->t.data, *q = y->t.data;
    if (p != q) return p < q ? -1 : 1;
    int64_t n = tensor_count(&x->t), m = tensor_count(&y->t); /* empty ones first, so that ranges join */
    if ((n > 0) != (m > 0)) return n > 0 ? 1 : -1;
    return strcmp(x->name, y->name);
}

static status check_cover(const safetensors *s, const uint8_t *data, uint64_t n, const char *path, error *e) {
    uint64_t at = 0;
    for (size_t i = 0; i < s->count; i++) {
        const safetensors_entry *x = &s->entries[i];
        uint64_t begin = (uint64_t)((const uint8_t *)x->t.data - data);
        if (begin != at)
            return fail(e, ERR_FORMAT, TENSOR "begins at byte %llu of the data, the one before it ends at %llu: %s",
                        path, x->name, (unsigned long long)begin, (unsigned long long)at,
                        begin > at ? "a hole" : "an overlap");
        at += (uint64_t)tensor_count(&x->t) * dtype_size(x->t.type);
    }
    if (at != n)
        return fail(e, ERR_FORMAT, "%s: the tensors end at byte %llu of the data, the file has %llu", path,
                    (unsigned long long)at, (unsigned long long)n);
    return OK;
}

static status read_meta(safetensors *s, const json_t *meta, const char *path, error *e) {
    if (s->meta) return fail(e, ERR_FORMAT, "%s: \"__metadata__\" stands there twice", path);
    if (!json_is_object(meta)) return fail(e, ERR_FORMAT, "%s: \"__metadata__\" should be an object", path);
    s->meta = arena_zero(s->memory, 2 * json_object_size(meta) + 1, sizeof *s->meta);
    if (!s->meta) return fail(e, ERR_NOMEM, "memory is out");
    const char *key, **at = s->meta;
    json_t *v;
    json_object_foreach((json_t *)meta, key, v) {
        const char *text = json_string_value(v);
        if (!text) return fail(e, ERR_FORMAT, "%s: \"__metadata__\": \"%.160s\" should be a string", path, key);
        *at++ = arena_copy(s->memory, key, strlen(key));
        *at++ = arena_copy(s->memory, text, strlen(text));
        if (!at[-1] || !at[-2]) return fail(e, ERR_NOMEM, "memory is out");
    }
    return OK;
}

typedef struct blob {
    const uint8_t *p;
    uint64_t n;
} blob;

static status add_entry(safetensors *s, size_t *room, const char *name, const json_t *value, blob data,
                        const char *path, error *e) {
    if (s->count == SAFETENSORS_MOST)
        return fail(e, ERR_UNSUPPORTED, "%s: more than %d tensors in one file", path, SAFETENSORS_MOST);
    if (s->count == *room) {
        size_t more = *room ? *room * 2 : 64;
        safetensors_entry *grown = realloc(s->entries, more * sizeof *grown);
        if (!grown) return fail(e, ERR_NOMEM, "memory is out");
        s->entries = grown;
        *room = more;
    }
    safetensors_entry *x = &s->entries[s->count];
    *x = (safetensors_entry){.name = arena_copy(s->memory, name, strlen(name))};
    if (!x->name) return fail(e, ERR_NOMEM, "memory is out");
    s->count++;
    return read_entry(x, value, data.p, data.n, path, e);
}

static status read_member(safetensors *s, size_t *room, cursor *c, blob data, error *e) {
    json_t *key = NULL, *value = NULL;
    if (next_char(c) != '"') return fail(e, ERR_FORMAT, "%s: header: a name in quotes was wanted", c->path);
    status st = next_value(&key, c, ENTRY_MAX, "header", e);
    if (st == OK) {
        const char *name = json_string_value(key);
        bool meta = strcmp(name, "__metadata__") == 0;
        if (!skip_char(c, ':'))
            st = fail(e, ERR_FORMAT, "%s: \"%.160s\": ':' was wanted after the name", c->path, name);
        if (st == OK) st = next_value(&value, c, meta ? META_MAX : ENTRY_MAX, name, e);
        if (st == OK) st = meta ? read_meta(s, value, c->path, e) : add_entry(s, room, name, value, data, c->path, e);
    }
    json_decref(key);
    json_decref(value);
    return st;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const safetensors_entry *)a)->name, ((const safetensors_entry *)b)->name);
}

static status check_names(const safetensors *s, const char *path, error *e) {
    for (size_t i = 1; i < s->count; i++)
        if (strcmp(s->entries[i - 1].name, s->entries[i].name) == 0)
            return fail(e, ERR_FORMAT, TENSOR "stands in the header twice", path, s->entries[i].name);
    return OK;
}

static status read_header(safetensors *s, cursor c, blob data, error *e) {
    size_t room = 0;
    c.p++; /* '{' */
    if (next_char(&c) != '}') do
            TRY(read_member(s, &room, &c, data, e));
        while (skip_char(&c, ','));
    if (!skip_char(&c, '}')) return fail(e, ERR_FORMAT, "%s: header: ',' or '}' was wanted", c.path);
    if (next_char(&c) || c.p != c.end) return fail(e, ERR_FORMAT, "%s: header: text after the last '}'", c.path);
    if (!s->meta) s->meta = arena_zero(s->memory, 1, sizeof *s->meta);
    if (!s->meta) return fail(e, ERR_NOMEM, "memory is out");

    if (s->count) qsort(s->entries, s->count, sizeof *s->entries, by_name);
    TRY(check_names(s, c.path, e));
    if (s->count) qsort(s->entries, s->count, sizeof *s->entries, by_place);
    return check_cover(s, data.p, data.n, c.path, e);
}

status safetensors_parse(safetensors *out, const uint8_t *p, size_t n, const char *path, error *e) {
    *out = (safetensors){0};
    if (n < 8) return fail(e, ERR_FORMAT, "%s: %zu bytes, a safetensors file has at least 8", path, n);
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--) length = length << 8 | p[i];
    if (length > SAFETENSORS_HEADER_MAX)
        return fail(e, ERR_FORMAT, "%s: header of %llu bytes, at most %d are allowed", path, (unsigned long long)length,
                    SAFETENSORS_HEADER_MAX);
    if (length > n - 8)
        return fail(e, ERR_FORMAT, "%s: header of %llu bytes in a file of %zu", path, (unsigned long long)length, n);
    const char *text = (const char *)p + 8;
    if (length == 0 || text[0] != '{') return fail(e, ERR_FORMAT, "%s: header does not begin with '{'", path);

    out->memory = arena_open(4096);
    if (!out->memory) return fail(e, ERR_NOMEM, "memory is out");
    cursor c = {text, text + length, path};
    status s = read_header(out, c, (blob){p + 8 + length, n - 8 - length}, e);
    if (s != OK) safetensors_close(out);
    return s;
}

status safetensors_open(safetensors *out, const char *path, error *e) {
    mapping map;
    *out = (safetensors){0};
    TRY(file_map(&map, path, e));
    status s = safetensors_parse(out, map.p, map.n, path, e);
    if (s == OK) out->map = map;
    else file_unmap(&map);
    return s;
}

void safetensors_close(safetensors *s) {
    arena_close(s->memory);
    free(s->entries);
    file_unmap(&s->map);
    *s = (safetensors){0};
}
