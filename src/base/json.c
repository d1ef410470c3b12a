#include "base/json.h"

#include <math.h>
#include <string.h>
#include "base/file.h"

enum { LOAD_FLAGS = JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL };
enum { PARSED_MAX = 160 << 20 }; /* the largest known tokenizer.json (280,000 merges as pairs) takes about 130 MB */

/* A copy in which integers of more than 18 digits are real numbers: transformers writes 10^30 for "no limit". */
static json_t *load_long_integers(const char *text, size_t n, json_error_t *je) {
    str s = {0};
    for (size_t i = 0; i < n;) {
        const size_t from = i;
        if (text[i] == '"') {
            for (i++; i < n && text[i] != '"'; i++) i += text[i] == '\\';
            i = i < n ? i + 1 : n;
        } else if (text[i] >= '0' && text[i] <= '9') {
            while (i < n && text[i] >= '0' && text[i] <= '9') i++;
        } else {
            i++;
        }
        str_add(&s, text + from, i - from);
        const bool integer = i == n || !strchr(".eE", text[i]), whole = from == 0 || !strchr(".eE+", text[from - 1]);
        if (text[from] != '"' && i - from > 18 && integer && whole) str_puts(&s, ".0");
    }
    json_t *j = s.failed ? NULL : json_loadb(s.p, s.n, LOAD_FLAGS, je);
    str_free(&s);
    return j;
}

static status parse(json_t **out, const char *text, size_t n, const char *name, bool long_integers, error *e) {
    json_error_t je;
    *out = json_loadb(text, n, LOAD_FLAGS, &je);
    if (!*out && long_integers && json_error_code(&je) == json_error_numeric_overflow)
        *out = load_long_integers(text, n, &je);
    if (*out) return OK;
    /* when memory runs out in the middle of a value jansson leaves the text empty */
    if (json_error_code(&je) == json_error_out_of_memory || !je.text[0]) return fail(e, ERR_NOMEM, "memory is out");
    return fail(e, ERR_FORMAT, "%s: not valid JSON: %s (line %d, column %d)", name, je.text, je.line, je.column);
}

status json_parse(json_t **out, const char *text, size_t n, const char *name, error *e) {
    return parse(out, text, n, name, false, e);
}

/* Counts what stands outside strings; the figures are jansson's structs and their allocations on a 64-bit machine. */
size_t json_cost(const char *p, size_t n) {
    size_t sum = n;
    for (size_t i = 0; i < n; i++) switch (p[i]) {
        case '{': sum += 256; break;
        case '[': sum += 128; break;
        case ':': sum += 64; break;
        case ',': sum += 48; break;
        case '"':
            sum += 48;
            for (i++; i < n && p[i] != '"'; i++) i += p[i] == '\\';
            break;
        default: break;
        }
    return sum;
}

status json_read(json_t **out, const char *path, size_t max_bytes, error *e) {
    *out = NULL;
    str s = {0};
    status st = file_read(&s, path, max_bytes, e);
    if (st == OK && json_cost(s.p, s.n) > PARSED_MAX)
        st = fail(e, ERR_FORMAT, "%s: as parsed JSON it would take more than %d MB of memory", path, PARSED_MAX >> 20);
    if (st == OK) st = parse(out, s.p, s.n, path, true, e);
    str_free(&s);
    return st;
}

static const json_t *member(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    return json_is_null(v) ? NULL : v;
}

status json_get_int(const json_t *o, const char *key, int64_t fallback, int64_t min, int64_t max, int64_t *out,
                    error *e) {
    const json_t *v = member(o, key);
    *out = fallback;
    if (!v) return OK;
    double r = json_is_real(v) ? json_real_value(v) : 0.5; /* 1.0 is an integer to Python's writers */
    if (json_is_integer(v)) *out = json_integer_value(v);
    else if (r == floor(r) && fabs(r) < 9e15) *out = (int64_t)r;
    else return fail(e, ERR_FORMAT, "\"%s\" should be an integer", key);
    if (*out < min || *out > max)
        return fail(e, ERR_FORMAT, "\"%s\" is %lld, outside %lld..%lld", key, (long long)*out, (long long)min,
                    (long long)max);
    return OK;
}

status json_get_real(const json_t *o, const char *key, double fallback, double *out, error *e) {
    const json_t *v = member(o, key);
    *out = fallback;
    if (!v) return OK;
    if (!json_is_number(v)) return fail(e, ERR_FORMAT, "\"%s\" should be a number", key);
    *out = json_number_value(v);
    return isfinite(*out) ? OK : fail(e, ERR_FORMAT, "\"%s\" is not finite", key);
}

status json_get_bool(const json_t *o, const char *key, bool fallback, bool *out, error *e) {
    const json_t *v = member(o, key);
    *out = fallback;
    if (!v) return OK;
    if (!json_is_boolean(v)) return fail(e, ERR_FORMAT, "\"%s\" should be true or false", key);
    *out = json_is_true(v);
    return OK;
}

status json_get_string(const json_t *o, const char *key, const char *fallback, const char **out, error *e) {
    const json_t *v = member(o, key);
    *out = fallback;
    if (!v) return OK;
    if (!json_is_string(v)) return fail(e, ERR_FORMAT, "\"%s\" should be a string", key);
    *out = json_string_value(v);
    return OK;
}
