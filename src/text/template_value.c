/* Values of the template language: making them within the limits, comparing, printing as Python prints, JSON. */
#include "text/template_inner.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- limits ---- */

status run_refuse(run *r, const char *fmt, ...) {
    char sentence[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(sentence, sizeof sentence, fmt, ap);
    va_end(ap);
    return fail(&r->err, ERR_ARG, "%s", sentence);
}

status run_spend(run *r, size_t work) {
    r->steps += work;
    return r->steps <= LIMIT_STEPS ? OK : run_refuse(r, "the template does not end within %d steps", LIMIT_STEPS);
}

status run_take(run *r, size_t bytes, void *out) {
    if (bytes > LIMIT_MEMORY || r->taken + bytes > LIMIT_MEMORY)
        return run_refuse(r, "the template's values need more than %d MB", LIMIT_MEMORY >> 20);
    r->taken += (bytes + 63) / 64 * 64; /* what the arena takes */
    void *p = arena_take(r->mem, bytes);
    memcpy(out, &p, sizeof p);
    return p ? OK : fail(&r->err, ERR_NOMEM, "memory is out");
}

status run_take_values(run *r, size_t n, value **out) {
    if (n > LIMIT_MEMORY / sizeof **out)
        return run_refuse(r, "the template's values need more than %d MB", LIMIT_MEMORY >> 20);
    TRY(run_spend(r, n));
    return run_take(r, n * sizeof **out, out);
}

/* ---- making ---- */

value value_undefined(text name) {
    return (value){V_UNDEFINED, {.s = name}};
}
value value_bool(bool b) {
    return (value){V_BOOL, {.b = b}};
}
value value_int(int64_t i) {
    return (value){V_INT, {.i = i}};
}
value value_float(double d) {
    return (value){V_FLOAT, {.d = d}};
}
value value_text(text s) {
    return (value){V_STRING, {.s = s}};
}
value value_name(const char *s) {
    return value_text((text){s, strlen(s)});
}

status value_string(run *r, const char *p, size_t n, value *out) {
    char *copy;
    TRY(run_spend(r, n / 16));
    TRY(run_take(r, n + 1, &copy));
    if (n) memcpy(copy, p, n);
    *out = value_text((text){copy, n});
    return OK;
}

status value_from_str(run *r, str *s, value *out) {
    status st = s->failed ? fail(&r->err, ERR_NOMEM, "memory is out") : value_string(r, s->p, s->n, out);
    str_free(s);
    return st;
}

status value_list(run *r, value_kind kind, size_t n, value **at, value *out) {
    list *l;
    TRY(run_take(r, sizeof *l, &l));
    TRY(run_take_values(r, n, at));
    *l = (list){n, *at};
    *out = (value){kind, {.list = l}};
    return OK;
}

status value_dict(run *r, size_t cap, value *out) {
    dict *d;
    TRY(run_take(r, sizeof *d, &d));
    *d = (dict){.cap = cap};
    TRY(run_take_values(r, cap, &d->key));
    TRY(run_take_values(r, cap, &d->val));
    *out = (value){V_DICT, {.dict = d}};
    return OK;
}

static bool hashable(const value *v, int depth) {
    if (v->kind == V_LIST || v->kind == V_DICT || v->kind == V_NAMESPACE || depth > 8) return false;
    if (v->kind != V_TUPLE) return true;
    for (size_t i = 0; i < v->list->n; i++)
        if (!hashable(v->list->at + i, depth + 1)) return false;
    return true;
}

status dict_find(run *r, const dict *d, const value *key, value **out) {
    *out = NULL;
    TRY(run_spend(r, d->n / 8));
    for (size_t i = 0; i < d->n; i++) {
        bool same = false;
        if (key->kind == V_STRING) same = d->key[i].kind == V_STRING && text_eq(d->key[i].s, key->s);
        else TRY(values_equal(r, d->key + i, key, &same));
        if (!same) continue;
        *out = d->val + i;
        break;
    }
    return OK;
}

status dict_put(run *r, dict *d, value key, value val) {
    value *old;
    if (!hashable(&key, 0)) return run_refuse(r, "%s cannot be a key", value_kind_name(&key));
    TRY(dict_find(r, d, &key, &old));
    if (old) {
        *old = val;
        return OK;
    }
    if (d->n == d->cap) {
        value *k, *v;
        size_t cap = d->cap ? d->cap * 2 : 8;
        TRY(run_take_values(r, cap, &k));
        TRY(run_take_values(r, cap, &v));
        if (d->n) memcpy(k, d->key, d->n * sizeof *k);
        if (d->n) memcpy(v, d->val, d->n * sizeof *v);
        d->key = k;
        d->val = v;
        d->cap = cap;
    }
    d->key[d->n] = key;
    d->val[d->n++] = val;
    return OK;
}

static status deeper(run *r) {
    return ++r->depth <= LIMIT_DEPTH ? OK : run_refuse(r, "nested deeper than %d", LIMIT_DEPTH);
}

/* Strings are borrowed: the JSON outlives the rendering. Keys of an object differ, so they need no search. */
status value_from_json(run *r, const json_t *j, value *out) {
    TRY(deeper(r));
    *out = (value){.kind = V_NONE};
    if (json_is_boolean(j)) *out = value_bool(json_is_true(j));
    if (json_is_integer(j)) *out = value_int(json_integer_value(j));
    if (json_is_real(j)) *out = value_float(json_real_value(j));
    if (json_is_string(j)) *out = value_text((text){json_string_value(j), json_string_length(j)});
    if (json_is_array(j)) {
        value *at;
        TRY(value_list(r, V_LIST, json_array_size(j), &at, out));
        for (size_t i = 0; i < json_array_size(j); i++) TRY(value_from_json(r, json_array_get(j, i), at + i));
    }
    if (json_is_object(j)) {
        const char *key;
        const json_t *val;
        TRY(value_dict(r, json_object_size(j), out));
        dict *d = out->dict;
        void *it = json_object_iter((json_t *)(uintptr_t)j);
        for (; it && d->n < d->cap; it = json_object_iter_next((json_t *)(uintptr_t)j, it), d->n++) {
            key = json_object_iter_key(it);
            val = json_object_iter_value(it);
            d->key[d->n] = value_text((text){key, json_object_iter_key_len(it)});
            TRY(value_from_json(r, val, d->val + d->n));
        }
    }
    r->depth--;
    return OK;
}

/* ---- looking ---- */

const char *value_kind_name(const value *v) {
    static const char *const names[] = {"nothing",   "undefined", "None",  "bool",     "int",
                                        "float",     "str",       "list",  "tuple",    "dict",
                                        "namespace", "loop",      "macro", "function", "method"};
    return names[v->kind];
}

bool value_is_number(const value *v) {
    return v->kind == V_BOOL || v->kind == V_INT || v->kind == V_FLOAT;
}

bool value_is(const value *v, const char *s) {
    return v->kind == V_STRING && text_is(v->s, s);
}

double value_as_float(const value *v) {
    return v->kind == V_FLOAT ? v->d : v->kind == V_INT ? (double)v->i : v->b;
}

static int64_t as_int(const value *v) {
    return v->kind == V_INT ? v->i : v->b;
}

bool value_truth(const value *v) {
    switch (v->kind) {
    case V_MISSING:
    case V_UNDEFINED:
    case V_NONE: return false;
    case V_BOOL: return v->b;
    case V_INT: return v->i != 0;
    case V_FLOAT: return v->d != 0;
    case V_STRING: return v->s.n > 0;
    case V_LIST:
    case V_TUPLE: return v->list->n > 0;
    case V_DICT: return v->dict->n > 0;
    default: return true;
    }
}

status value_items(run *r, const value *v, const value **at, size_t *n) {
    *at = NULL;
    *n = 0;
    if (v->kind == V_UNDEFINED) return OK;
    if (v->kind == V_LIST || v->kind == V_TUPLE) {
        *at = v->list->at;
        *n = v->list->n;
        return OK;
    }
    if (v->kind == V_DICT) { /* its keys */
        *at = v->dict->key;
        *n = v->dict->n;
        return OK;
    }
    if (v->kind != V_STRING) return run_refuse(r, "%s cannot be gone through", value_kind_name(v));
    value *c;
    TRY(run_take_values(r, utf8_count(v->s), &c));
    for (size_t i = 0, k; i < v->s.n; i += k) {
        k = utf8_size(v->s.p + i, v->s.n - i);
        c[(*n)++] = value_text((text){v->s.p + i, k});
    }
    *at = c;
    return OK;
}

/* ---- comparing ---- */

static status dicts_equal(run *r, const dict *a, const dict *b, bool *out) {
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n; i++) {
        value *other;
        TRY(dict_find(r, b, a->key + i, &other));
        *out = other != NULL;
        if (other) TRY(values_equal(r, a->val + i, other, out));
    }
    return OK;
}

status values_equal(run *r, const value *a, const value *b, bool *out) {
    TRY(run_spend(r, 1));
    TRY(deeper(r));
    *out = false;
    if (value_is_number(a) && value_is_number(b)) {
        *out =
            a->kind == V_FLOAT || b->kind == V_FLOAT ? value_as_float(a) == value_as_float(b) : as_int(a) == as_int(b);
    } else if (a->kind == b->kind) {
        switch (a->kind) {
        case V_STRING:
            TRY(run_spend(r, a->s.n / 64));
            *out = text_eq(a->s, b->s);
            break;
        case V_LIST:
        case V_TUPLE:
            *out = a->list->n == b->list->n;
            for (size_t i = 0; *out && i < a->list->n; i++) TRY(values_equal(r, a->list->at + i, b->list->at + i, out));
            break;
        case V_DICT: TRY(dicts_equal(r, a->dict, b->dict, out)); break;
        case V_NAMESPACE: *out = a->dict == b->dict; break;
        case V_LOOP: *out = a->loop == b->loop; break;
        case V_MACRO: *out = a->macro == b->macro; break;
        case V_FUNCTION: *out = a->function == b->function; break;
        case V_METHOD: *out = false; break;
        default: *out = true; /* None, undefined */
        }
    }
    r->depth--;
    return OK;
}

status values_order(run *r, const value *a, const value *b, int *out) {
    TRY(run_spend(r, 1));
    TRY(deeper(r));
    if (value_is_number(a) && value_is_number(b)) {
        bool real = a->kind == V_FLOAT || b->kind == V_FLOAT;
        double x = real ? value_as_float(a) : 0, y = real ? value_as_float(b) : 0;
        int64_t i = real ? 0 : as_int(a), k = real ? 0 : as_int(b);
        *out = real ? (x > y) - (x < y) : (i > k) - (i < k);
    } else if (a->kind == V_STRING && b->kind == V_STRING) { /* bytes of UTF-8 sort as code points do */
        size_t n = a->s.n < b->s.n ? a->s.n : b->s.n;
        TRY(run_spend(r, n / 64));
        *out = n ? memcmp(a->s.p, b->s.p, n) : 0;
        if (!*out) *out = (a->s.n > b->s.n) - (a->s.n < b->s.n);
    } else if (a->kind == b->kind && (a->kind == V_LIST || a->kind == V_TUPLE)) {
        size_t n = a->list->n < b->list->n ? a->list->n : b->list->n;
        *out = 0;
        for (size_t i = 0; !*out && i < n; i++) {
            bool same; /* as Python: the first pair that is not equal decides, and only it must have an order */
            TRY(values_equal(r, a->list->at + i, b->list->at + i, &same));
            if (!same) TRY(values_order(r, a->list->at + i, b->list->at + i, out));
        }
        if (!*out) *out = (a->list->n > b->list->n) - (a->list->n < b->list->n);
    } else {
        const value *u = a->kind == V_UNDEFINED ? a : b;
        if (u->kind == V_UNDEFINED) return run_refuse(r, "'%.*s' is undefined", (int)u->s.n, u->s.p);
        return run_refuse(r, "%s and %s have no order", value_kind_name(a), value_kind_name(b));
    }
    r->depth--;
    return OK;
}

/* ---- printing ---- */

static status fits(run *r, const str *s, size_t more) {
    TRY(run_spend(r, 1 + more / 16));
    if (s->n + more > LIMIT_OUTPUT) return run_refuse(r, "the text has more than %d MB", LIMIT_OUTPUT >> 20);
    return s->failed ? fail(&r->err, ERR_NOMEM, "memory is out") : OK;
}

/* What printing v itself costs, without what it holds: characters that may need escapes, floats that are tried in
 * several lengths. */
static status spend_on_printing(run *r, const value *v) {
    return run_spend(r, v->kind == V_STRING ? v->s.n / 2 : v->kind == V_FLOAT ? 64 : 1);
}

static status print_list(run *r, str *s, const value *v) {
    bool tuple = v->kind == V_TUPLE;
    str_putc(s, tuple ? '(' : '[');
    for (size_t i = 0; i < v->list->n; i++) {
        if (i) str_puts(s, ", ");
        TRY(value_repr(r, s, v->list->at + i));
    }
    if (tuple && v->list->n == 1) str_putc(s, ',');
    str_putc(s, tuple ? ')' : ']');
    return OK;
}

static status print_dict(run *r, str *s, const dict *d) {
    str_putc(s, '{');
    for (size_t i = 0; i < d->n; i++) {
        if (i) str_puts(s, ", ");
        TRY(value_repr(r, s, d->key + i));
        str_puts(s, ": ");
        TRY(value_repr(r, s, d->val + i));
    }
    str_putc(s, '}');
    return OK;
}

status value_repr(run *r, str *s, const value *v) {
    TRY(deeper(r));
    TRY(spend_on_printing(r, v));
    TRY(fits(r, s, v->kind == V_STRING ? v->s.n : 1));
    switch (v->kind) {
    case V_MISSING: break;
    case V_UNDEFINED: str_puts(s, "Undefined"); break;
    case V_NONE: str_puts(s, "None"); break;
    case V_BOOL: str_puts(s, v->b ? "True" : "False"); break;
    case V_INT: str_addf(s, "%lld", (long long)v->i); break;
    case V_FLOAT: text_print_float(s, v->d); break;
    case V_STRING: text_print_repr(s, v->s); break;
    case V_LIST:
    case V_TUPLE: TRY(print_list(r, s, v)); break;
    case V_DICT: TRY(print_dict(r, s, v->dict)); break;
    case V_NAMESPACE:
        str_puts(s, "<Namespace ");
        TRY(print_dict(r, s, v->dict));
        str_putc(s, '>');
        break;
    case V_LOOP: str_addf(s, "<LoopContext %zu/%zu>", v->loop->index + 1, v->loop->n); break;
    default: str_addf(s, "<%s>", value_kind_name(v)); /* Python would print an address */
    }
    r->depth--;
    return OK;
}

status value_print(run *r, str *s, const value *v) {
    if (v->kind == V_UNDEFINED) return OK;
    if (v->kind != V_STRING) return value_repr(r, s, v);
    TRY(fits(r, s, v->s.n));
    str_add(s, v->s.p, v->s.n);
    return OK;
}

status value_to_text(run *r, const value *v, text *out) {
    value copy = *v;
    if (v->kind != V_STRING) {
        str s = {0};
        status st = value_print(r, &s, v);
        if (st != OK) {
            str_free(&s);
            return st;
        }
        TRY(value_from_str(r, &s, &copy));
    }
    *out = copy.s;
    return OK;
}

/* Templates build long texts by adding to them over and over. The bytes behind the text that was joined last are free,
 * so adding to that one again copies only what is new; a text never changes, it only may be followed by more. */
status value_join(run *r, text a, text b, value *out) {
    size_t n = a.n + b.n;
    if (n > LIMIT_OUTPUT) return run_refuse(r, "a string of more than %d bytes", LIMIT_OUTPUT);
    TRY(run_spend(r, b.n / 16));
    bool at_end = r->grow && a.n && a.p + a.n == r->grow && (size_t)(r->grow_end - r->grow) >= b.n;
    if (!at_end) {
        char *p;
        size_t room = n < 256 ? n : n * 2; /* short texts are seldom added to twice */
        TRY(run_spend(r, a.n / 16));
        TRY(run_take(r, room + 1, &p));
        if (a.n) memcpy(p, a.p, a.n);
        a.p = p;
        if (n >= 256 || !r->grow) {
            r->grow = p + a.n;
            r->grow_end = p + room;
        } else {
            if (b.n) memcpy(p + a.n, b.p, b.n);
            *out = value_text((text){p, n});
            return OK;
        }
    }
    if (b.n) memcpy(r->grow, b.p, b.n);
    r->grow += b.n;
    *out = value_text((text){a.p, n});
    return OK;
}

/* ---- JSON, as json.dumps writes it ---- */

static void line_break(str *s, const json_style *style, int level) {
    if (!style->has_indent) return;
    str_putc(s, '\n');
    for (int i = 0; i < level; i++) str_add(s, style->indent.p, style->indent.n);
}

static status dump_key(run *r, str *s, const value *key, const json_style *style) {
    if (key->kind == V_STRING) {
        text_print_json(s, key->s, style->ascii);
        return OK;
    }
    if (!value_is_number(key) && key->kind != V_NONE)
        return run_refuse(r, "a key of JSON cannot be %s", value_kind_name(key));
    str_putc(s, '"');
    TRY(value_dump_json(r, s, key, style, 0));
    str_putc(s, '"');
    return OK;
}

static status sorted_keys(run *r, const dict *d, size_t **out) {
    TRY(run_take(r, d->n * sizeof **out + 1, out));
    for (size_t i = 0; i < d->n; i++) { /* insertion sort: schemas have few keys, and steps are counted */
        size_t k = i;
        for (; k > 0; k--) {
            int order;
            TRY(values_order(r, d->key + (*out)[k - 1], d->key + i, &order));
            if (order <= 0) break;
            (*out)[k] = (*out)[k - 1];
        }
        (*out)[k] = i;
    }
    return OK;
}

static status dump_dict(run *r, str *s, const dict *d, const json_style *style, int level) {
    size_t *order = NULL;
    if (style->sort) TRY(sorted_keys(r, d, &order));
    str_putc(s, '{');
    for (size_t i = 0; i < d->n; i++) {
        size_t k = order ? order[i] : i;
        if (i) str_add(s, style->comma.p, style->comma.n);
        line_break(s, style, level + 1);
        TRY(dump_key(r, s, d->key + k, style));
        str_add(s, style->colon.p, style->colon.n);
        TRY(value_dump_json(r, s, d->val + k, style, level + 1));
    }
    if (d->n) line_break(s, style, level);
    str_putc(s, '}');
    return OK;
}

static status dump_list(run *r, str *s, const list *l, const json_style *style, int level) {
    str_putc(s, '[');
    for (size_t i = 0; i < l->n; i++) {
        if (i) str_add(s, style->comma.p, style->comma.n);
        line_break(s, style, level + 1);
        TRY(value_dump_json(r, s, l->at + i, style, level + 1));
    }
    if (l->n) line_break(s, style, level);
    str_putc(s, ']');
    return OK;
}

status value_dump_json(run *r, str *s, const value *v, const json_style *style, int level) {
    TRY(deeper(r));
    TRY(spend_on_printing(r, v));
    TRY(fits(r, s, (v->kind == V_STRING ? v->s.n : 1) + (size_t)level * style->indent.n));
    switch (v->kind) {
    case V_NONE: str_puts(s, "null"); break;
    case V_BOOL: str_puts(s, v->b ? "true" : "false"); break;
    case V_INT: str_addf(s, "%lld", (long long)v->i); break;
    case V_FLOAT:
        if (isfinite(v->d)) text_print_float(s, v->d);
        else str_puts(s, isnan(v->d) ? "NaN" : v->d < 0 ? "-Infinity" : "Infinity");
        break;
    case V_STRING: text_print_json(s, v->s, style->ascii); break;
    case V_LIST:
    case V_TUPLE: TRY(dump_list(r, s, v->list, style, level)); break;
    case V_DICT: TRY(dump_dict(r, s, v->dict, style, level)); break;
    default: return run_refuse(r, "%s cannot be written as JSON", value_kind_name(v));
    }
    r->depth--;
    return OK;
}
