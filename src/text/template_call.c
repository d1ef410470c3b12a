/* What a template can call: filters (x | f), tests (x is t), functions, methods of dicts; and attributes and items.
 * Each list is one array; a name that is not in it is an error only when a rendering comes past it, as in jinja2. */
#include "text/template_inner.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- arguments ---- */

enum { MAX_PARAMS = 4 };

/* The position of a name in "first second third"; -1 if it is not there. */
static int param_index(const char *params, text name) {
    for (int i = 0; *params; i++) {
        size_t n = strcspn(params, " ");
        if (text_eq((text){params, n}, name)) return i;
        params += n + (params[n] == ' ');
    }
    return -1;
}

static size_t param_count(const char *params) {
    size_t n = *params != 0;
    for (; *params; params++) n += *params == ' ';
    return n;
}

status builtin_call(run *r, const builtin *f, const value *self, const args *a, value *out) {
    if (!f->params) return f->many(r, self, a, out);
    value v[MAX_PARAMS] = {{.kind = V_MISSING}};
    if (a->n > param_count(f->params))
        return run_refuse(r, "%s takes %zu arguments, not %zu", f->name, param_count(f->params), a->n);
    for (size_t i = 0; i < a->n; i++) v[i] = a->at[i];
    for (size_t i = 0; i < a->n_named; i++) {
        int k = param_index(f->params, a->names[i]);
        if (k < 0 || v[k].kind != V_MISSING)
            return run_refuse(r, "%s does not take the argument '%.*s' here", f->name, (int)a->names[i].n,
                              a->names[i].p);
        v[k] = a->named[i];
    }
    return f->few(r, self, v, out);
}

static status undefined_error(run *r, const value *v) {
    return run_refuse(r, "'%.*s' is undefined", (int)v->s.n, v->s.p);
}

static bool given(const value *v) {
    return v->kind != V_MISSING && v->kind != V_NONE;
}

static status int_arg(run *r, const value *v, int64_t fallback, int64_t *out) {
    *out = fallback;
    if (v->kind == V_MISSING) return OK;
    if (v->kind != V_INT && v->kind != V_BOOL) return run_refuse(r, "an integer is wanted, not %s", value_kind_name(v));
    *out = v->kind == V_INT ? v->i : v->b;
    return OK;
}

static status text_arg(run *r, const value *v, const char *fallback, text *out) {
    *out = (text){fallback, strlen(fallback)};
    return v->kind == V_MISSING ? OK : value_to_text(r, v, out);
}

/* ---- attributes and items ---- */

static status dict_pairs(run *r, const dict *d, value *out) {
    value *at;
    TRY(value_list(r, V_LIST, d->n, &at, out));
    for (size_t i = 0; i < d->n; i++) {
        value *pair;
        TRY(value_list(r, V_TUPLE, 2, &pair, at + i));
        pair[0] = d->key[i];
        pair[1] = d->val[i];
    }
    return OK;
}

static status m_items(run *r, const value *self, const value *a, value *out) {
    (void)a;
    return dict_pairs(r, self->dict, out);
}

static status half(run *r, const dict *d, bool keys, value *out) {
    value *at;
    TRY(value_list(r, V_LIST, d->n, &at, out));
    if (d->n) memcpy(at, keys ? d->key : d->val, d->n * sizeof *at);
    return OK;
}
static status m_keys(run *r, const value *self, const value *a, value *out) {
    (void)a;
    return half(r, self->dict, true, out);
}
static status m_values(run *r, const value *self, const value *a, value *out) {
    (void)a;
    return half(r, self->dict, false, out);
}

static status m_get(run *r, const value *self, const value *a, value *out) {
    value *found;
    TRY(dict_find(r, self->dict, a, &found));
    *out = found ? *found : a[1].kind == V_MISSING ? (value){.kind = V_NONE} : a[1];
    return OK;
}

static status m_copy(run *r, const value *self, const value *a, value *out) {
    (void)r;
    (void)a;
    *out = *self; /* nothing changes it */
    return OK;
}

static status m_forbidden(run *r, const value *self, const args *a, value *out) {
    (void)a;
    (void)out;
    return run_refuse(r, "a template must not change a %s", value_kind_name(self));
}

/* Names that are methods wherever a dict's or list's attribute is asked for, even if the dict has such a key. */
static const builtin dict_methods[] = {{"items", "", m_items, NULL},
                                       {"keys", "", m_keys, NULL},
                                       {"values", "", m_values, NULL},
                                       {"get", "key default", m_get, NULL},
                                       {"copy", "", m_copy, NULL},
                                       {"pop", NULL, NULL, m_forbidden},
                                       {"update", NULL, NULL, m_forbidden},
                                       {"clear", NULL, NULL, m_forbidden},
                                       {"popitem", NULL, NULL, m_forbidden},
                                       {"setdefault", NULL, NULL, m_forbidden},
                                       {NULL, NULL, NULL, NULL}};

static status m_list_count(run *r, const value *self, const value *a, value *out) {
    int64_t n = 0;
    for (size_t i = 0; i < self->list->n; i++) {
        bool same;
        TRY(values_equal(r, self->list->at + i, a, &same));
        n += same;
    }
    *out = value_int(n);
    return OK;
}

static status m_list_index(run *r, const value *self, const value *a, value *out) {
    for (size_t i = 0; i < self->list->n; i++) {
        bool same;
        TRY(values_equal(r, self->list->at + i, a, &same));
        *out = value_int((int64_t)i);
        if (same) return OK;
    }
    return run_refuse(r, "index: the list does not hold it");
}

static const builtin list_methods[] = {{"index", "value", m_list_index, NULL},
                                       {"count", "value", m_list_count, NULL},
                                       {"copy", "", m_copy, NULL},
                                       {"append", NULL, NULL, m_forbidden},
                                       {"extend", NULL, NULL, m_forbidden},
                                       {"insert", NULL, NULL, m_forbidden},
                                       {"pop", NULL, NULL, m_forbidden},
                                       {"remove", NULL, NULL, m_forbidden},
                                       {"reverse", NULL, NULL, m_forbidden},
                                       {"sort", NULL, NULL, m_forbidden},
                                       {"clear", NULL, NULL, m_forbidden},
                                       {NULL, NULL, NULL, NULL}};

static const builtin *find_in(const builtin *f, text name) {
    for (; f->name; f++)
        if (text_is(name, f->name)) return f;
    return NULL;
}

static value loop_attr(const loop *l, text name) {
    if (text_is(name, "index0")) return value_int((int64_t)l->index);
    if (text_is(name, "index")) return value_int((int64_t)l->index + 1);
    if (text_is(name, "revindex0")) return value_int((int64_t)(l->n - l->index - 1));
    if (text_is(name, "revindex")) return value_int((int64_t)(l->n - l->index));
    if (text_is(name, "length")) return value_int((int64_t)l->n);
    if (text_is(name, "first")) return value_bool(l->index == 0);
    if (text_is(name, "last")) return value_bool(l->index + 1 == l->n);
    if (text_is(name, "depth")) return value_int(1);
    if (text_is(name, "depth0")) return value_int(0);
    if (text_is(name, "previtem") && l->index) return l->items[l->index - 1];
    if (text_is(name, "nextitem") && l->index + 1 < l->n) return l->items[l->index + 1];
    return value_undefined(name);
}

static status m_cycle(run *r, const value *self, const args *a, value *out) {
    if (!a->n) return run_refuse(r, "cycle needs something to cycle through");
    *out = a->at[self->loop->index % a->n];
    return OK;
}

static const builtin loop_methods[] = {{"cycle", NULL, NULL, m_cycle}, {NULL, NULL, NULL, NULL}};

/* The method of that name that v has, if any. */
static const builtin *find_method(const value *v, text name) {
    switch (v->kind) {
    case V_STRING: return find_in(string_methods, name);
    case V_DICT: return find_in(dict_methods, name);
    case V_LIST:
    case V_TUPLE: return find_in(list_methods, name);
    case V_LOOP: return find_in(loop_methods, name);
    default: return NULL;
    }
}

static status bind_method(run *r, const value *v, const builtin *f, value *out) {
    method *m;
    TRY(run_take(r, sizeof *m, &m));
    *m = (method){*v, f};
    *out = (value){V_METHOD, {.method = m}};
    return OK;
}

static status find_key(run *r, const value *v, const value *key, value *out) {
    value *found;
    TRY(dict_find(r, v->dict, key, &found));
    if (found) *out = *found;
    return OK;
}

status value_attr(run *r, const value *v, text name, value *out) {
    if (v->kind == V_UNDEFINED) return undefined_error(r, v);
    *out = value_undefined(name);
    const builtin *f = find_method(v, name);
    if (f) return bind_method(r, v, f, out);
    value key = value_text(name);
    if (v->kind == V_LOOP) *out = loop_attr(v->loop, name);
    if (v->kind == V_MACRO && text_is(name, "name")) *out = value_text(r->t->names[v->macro->def->name]);
    return v->kind == V_DICT || v->kind == V_NAMESPACE ? find_key(r, v, &key, out) : OK;
}

static status char_at(run *r, text s, int64_t i, value *out) {
    TRY(run_spend(r, s.n / 16));
    int64_t n = (int64_t)utf8_count(s);
    if (i < 0) i += n;
    if (i < 0 || i >= n) return OK;
    size_t at = 0;
    while (i--) at += utf8_size(s.p + at, s.n - at);
    *out = value_text((text){s.p + at, utf8_size(s.p + at, s.n - at)});
    return OK;
}

status value_item(run *r, const value *v, const value *key, value *out) {
    if (v->kind == V_UNDEFINED) return undefined_error(r, v);
    *out = value_undefined(key->kind == V_STRING ? key->s : (text){"item", 4});
    if (v->kind == V_DICT) {
        TRY(find_key(r, v, key, out));
    } else if (key->kind == V_INT || key->kind == V_BOOL) {
        int64_t i = key->kind == V_INT ? key->i : key->b;
        if (v->kind == V_STRING) return char_at(r, v->s, i, out);
        if (v->kind != V_LIST && v->kind != V_TUPLE) return OK;
        if (i < 0) i += (int64_t)v->list->n;
        if (i >= 0 && i < (int64_t)v->list->n) *out = v->list->at[i];
    }
    if (out->kind == V_UNDEFINED && key->kind == V_STRING) return value_attr(r, v, key->s, out);
    return OK;
}

status value_contains(run *r, const value *all, const value *one, bool *out) {
    *out = false;
    if (all->kind == V_STRING) {
        size_t at;
        if (one->kind == V_UNDEFINED) return undefined_error(r, one);
        if (one->kind != V_STRING) return run_refuse(r, "'in' a string wants a string, not %s", value_kind_name(one));
        TRY(run_spend(r, all->s.n / 16));
        *out = text_find(all->s, one->s, 0, &at);
        return OK;
    }
    if (all->kind == V_DICT) {
        value *found;
        TRY(dict_find(r, all->dict, one, &found));
        *out = found != NULL;
        return OK;
    }
    const value *at;
    size_t n;
    TRY(value_items(r, all, &at, &n));
    for (size_t i = 0; !*out && i < n; i++) TRY(values_equal(r, at + i, one, out));
    return OK;
}

/* "function.name" or 0: the item of the item */
static status get_path(run *r, const value *v, const value *path, value *out) {
    *out = *v;
    if (path->kind != V_STRING) return value_item(r, v, path, out);
    text s = path->s;
    for (size_t i = 0; i <= s.n; i++) {
        size_t from = i;
        bool number = true;
        int64_t k = 0;
        for (; i < s.n && s.p[i] != '.'; i++) {
            number = number && s.p[i] >= '0' && s.p[i] <= '9' && k < 1000000000;
            if (number) k = k * 10 + (s.p[i] - '0');
        }
        value from_value = *out, key = number && i > from ? value_int(k) : value_text((text){s.p + from, i - from});
        TRY(value_item(r, &from_value, &key, out));
    }
    return OK;
}

/* ---- filters ---- */

static status f_tojson(run *r, const value *self, const value *a, value *out) {
    json_style style = {.ascii = value_truth(a), .comma = {", ", 2}, .colon = {": ", 2}, .sort = value_truth(a + 3)};
    str spaces = {0}, s = {0};
    if (given(a + 1)) {
        int64_t n;
        TRY(int_arg(r, a + 1, 0, &n));
        if (n > 64) return run_refuse(r, "an indent of more than 64");
        style.has_indent = true;
        style.comma.n = 1;
        for (; n > 0; n--) str_putc(&spaces, ' ');
        style.indent = (text){spaces.p, spaces.n};
    }
    status st = OK;
    if (given(a + 2)) {
        bool pair = (a[2].kind == V_LIST || a[2].kind == V_TUPLE) && a[2].list->n == 2;
        if (!pair || a[2].list->at[0].kind != V_STRING || a[2].list->at[1].kind != V_STRING) {
            st = run_refuse(r, "separators should be two strings");
        } else {
            style.comma = a[2].list->at[0].s;
            style.colon = a[2].list->at[1].s;
        }
        if (st == OK && style.comma.n + style.colon.n > 64) st = run_refuse(r, "separators of more than 64 bytes");
    }
    if (st == OK) st = value_dump_json(r, &s, self, &style, 0);
    str_free(&spaces);
    if (st == OK) return value_from_str(r, &s, out);
    str_free(&s);
    return st;
}

/* Filters that are string methods, after str(). */
static status as_method(run *r, const value *self, const char *name, const value *a, value *out) {
    value s = {.kind = V_STRING};
    TRY(value_to_text(r, self, &s.s));
    return find_in(string_methods, (text){name, strlen(name)})->few(r, &s, a, out);
}
static status f_trim(run *r, const value *self, const value *a, value *out) {
    return as_method(r, self, "strip", a, out);
}
static status f_upper(run *r, const value *self, const value *a, value *out) {
    return as_method(r, self, "upper", a, out);
}
static status f_lower(run *r, const value *self, const value *a, value *out) {
    return as_method(r, self, "lower", a, out);
}
static status f_capitalize(run *r, const value *self, const value *a, value *out) {
    return as_method(r, self, "capitalize", a, out);
}
static status f_replace(run *r, const value *self, const value *a, value *out) {
    value b[3] = {{.kind = V_STRING}, {.kind = V_STRING}, a[2]};
    if (a[0].kind == V_MISSING || a[1].kind == V_MISSING) return run_refuse(r, "replace needs two arguments");
    TRY(value_to_text(r, a, &b[0].s));
    TRY(value_to_text(r, a + 1, &b[1].s));
    return as_method(r, self, "replace", b, out);
}

static status f_title(run *r, const value *self, const value *a, value *out) {
    (void)a;
    text t;
    TRY(value_to_text(r, self, &t));
    TRY(run_spend(r, t.n / 2));
    str s = {0};
    text_case(&s, t, 'T');
    return value_from_str(r, &s, out);
}

static status f_string(run *r, const value *self, const value *a, value *out) {
    (void)a;
    out->kind = V_STRING;
    return value_to_text(r, self, &out->s);
}

static status f_length(run *r, const value *self, const value *a, value *out) {
    (void)a;
    switch (self->kind) {
    case V_UNDEFINED: *out = value_int(0); return OK;
    case V_STRING: *out = value_int((int64_t)utf8_count(self->s)); return run_spend(r, self->s.n / 16);
    case V_LIST:
    case V_TUPLE: *out = value_int((int64_t)self->list->n); return OK;
    case V_DICT: *out = value_int((int64_t)self->dict->n); return OK;
    case V_LOOP: *out = value_int((int64_t)self->loop->n); return OK;
    default: return run_refuse(r, "%s has no length", value_kind_name(self));
    }
}

static status f_default(run *r, const value *self, const value *a, value *out) {
    (void)r;
    bool use = self->kind == V_UNDEFINED || (value_truth(a + 1) && !value_truth(self));
    *out = !use ? *self : a[0].kind == V_MISSING ? value_name("") : a[0];
    return OK;
}

static status first_last(run *r, const value *self, bool last, value *out) {
    const value *at;
    size_t n;
    TRY(value_items(r, self, &at, &n));
    *out = n ? at[last ? n - 1 : 0] : value_undefined((text){last ? "last" : "first", last ? 4 : 5});
    return OK;
}
static status f_first(run *r, const value *self, const value *a, value *out) {
    (void)a;
    return first_last(r, self, false, out);
}
static status f_last(run *r, const value *self, const value *a, value *out) {
    (void)a;
    return first_last(r, self, true, out);
}

static status f_join(run *r, const value *self, const value *a, value *out) {
    const value *at;
    size_t n;
    text between;
    TRY(text_arg(r, a, "", &between));
    TRY(value_items(r, self, &at, &n));
    *out = value_name("");
    for (size_t i = 0; i < n; i++) {
        value item = at[i];
        text t;
        if (given(a + 1)) TRY(get_path(r, at + i, a + 1, &item));
        TRY(value_to_text(r, &item, &t));
        if (i) TRY(value_join(r, out->s, between, out));
        TRY(value_join(r, out->s, t, out));
    }
    return OK;
}

static status copy_items(run *r, const value *self, value **to, size_t *n, value *out) {
    const value *at;
    TRY(value_items(r, self, &at, n));
    TRY(value_list(r, V_LIST, *n, to, out));
    if (*n) memcpy(*to, at, *n * sizeof *at);
    return OK;
}

/* map, select and their kin: what is false has no items, whatever it is. */
static status copy_some(run *r, const value *self, value **to, size_t *n, value *out) {
    const value nothing = {.kind = V_UNDEFINED};
    return copy_items(r, value_truth(self) ? self : &nothing, to, n, out);
}

static status f_list(run *r, const value *self, const value *a, value *out) {
    (void)a;
    value *at;
    size_t n;
    return copy_items(r, self, &at, &n, out);
}

static status f_reverse(run *r, const value *self, const value *a, value *out) {
    (void)a;
    value *at;
    size_t n;
    TRY(copy_items(r, self, &at, &n, out));
    for (size_t i = 0; i < n / 2; i++) {
        value v = at[i];
        at[i] = at[n - 1 - i];
        at[n - 1 - i] = v;
    }
    if (self->kind != V_STRING) return OK;
    value none[MAX_PARAMS] = {{.kind = V_MISSING}}, chars = *out;
    return f_join(r, &chars, none, out);
}

/* What a text says as a number: "12", " -3 ". */
static bool read_int(text s, int64_t *out) {
    s = text_strip(s, NULL, true, true);
    bool minus = s.n && s.p[0] == '-';
    size_t i = s.n && (minus || s.p[0] == '+');
    if (i == s.n) return false;
    for (*out = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9') return false;
        if (__builtin_mul_overflow(*out, (int64_t)10, out)) return false;
        if (__builtin_sub_overflow(*out, (int64_t)(s.p[i] - '0'), out)) return false; /* below 0: the wider half */
    }
    return minus || !__builtin_sub_overflow((int64_t)0, *out, out);
}

static bool read_float(text s, double *out) {
    char buf[64];
    s = text_strip(s, NULL, true, true);
    if (s.n == 0 || s.n >= sizeof buf) return false;
    memcpy(buf, s.p, s.n);
    buf[s.n] = 0;
    if (strpbrk(buf, "xXpP(")) return false; /* C reads hexadecimal floats, Python does not */
    char *end;
    *out = strtod(buf, &end);
    return end == buf + s.n;
}

static status f_int(run *r, const value *self, const value *a, value *out) {
    double d = 0;
    int64_t i;
    if (self->kind == V_UNDEFINED) return undefined_error(r, self);
    *out = a[0].kind == V_MISSING ? value_int(0) : a[0];
    if (a[1].kind != V_MISSING && !(a[1].kind == V_INT && a[1].i == 10)) return run_refuse(r, "int knows base 10 only");
    if (self->kind == V_INT || self->kind == V_BOOL) {
        *out = value_int(self->kind == V_INT ? self->i : self->b);
    } else if (self->kind == V_STRING && read_int(self->s, &i)) {
        *out = value_int(i);
    } else {
        bool ok = self->kind == V_FLOAT || (self->kind == V_STRING && read_float(self->s, &d));
        if (self->kind == V_FLOAT) d = self->d;
        if (ok && fabs(d) < 9.2e18) *out = value_int((int64_t)d);
    }
    return OK;
}

static status f_float(run *r, const value *self, const value *a, value *out) {
    double d;
    if (self->kind == V_UNDEFINED) return undefined_error(r, self);
    *out = a[0].kind == V_MISSING ? value_float(0) : a[0];
    if (value_is_number(self)) *out = value_float(value_as_float(self));
    else if (self->kind == V_STRING && read_float(self->s, &d)) *out = value_float(d);
    return OK;
}

static status f_abs(run *r, const value *self, const value *a, value *out) {
    (void)a;
    if (!value_is_number(self) || (self->kind == V_INT && self->i == INT64_MIN))
        return run_refuse(r, "%s has no absolute value here", value_kind_name(self));
    *out =
        self->kind == V_FLOAT ? value_float(fabs(self->d)) : value_int(self->kind == V_INT ? llabs(self->i) : self->b);
    return OK;
}

static status f_round(run *r, const value *self, const value *a, value *out) {
    int64_t digits;
    TRY(int_arg(r, a, 0, &digits));
    if (!value_is_number(self) || digits < -15 || digits > 15)
        return run_refuse(r, "round wants a number and up to 15 digits");
    bool common = a[1].kind == V_MISSING || value_is(a + 1, "common"), up = value_is(a + 1, "ceil");
    if (!common && !up && !value_is(a + 1, "floor")) return run_refuse(r, "round's method is common, ceil or floor");
    double x = value_as_float(self), scale = pow(10, (double)digits);
    if (common && digits >= 0) { /* printf rounds what the double is exactly, as Python does */
        char buf[400];
        snprintf(buf, sizeof buf, "%.*f", (int)digits, x);
        *out =
            self->kind == V_FLOAT ? value_float(strtod(buf, NULL)) : value_int(self->kind == V_INT ? self->i : self->b);
        return OK;
    }
    *out = value_float((common ? nearbyint(x * scale) : up ? ceil(x * scale) : floor(x * scale)) / scale);
    return OK;
}

static status f_indent(run *r, const value *self, const value *a, value *out) {
    text t, width = {"    ", 4};
    str s = {0}, spaces = {0};
    if (self->kind != V_STRING) return run_refuse(r, "indent wants a string, not %s", value_kind_name(self));
    t = self->s;
    if (a[0].kind == V_STRING) {
        width = a[0].s;
    } else {
        int64_t n;
        TRY(int_arg(r, a, 4, &n));
        if (n > 1000) return run_refuse(r, "an indent of more than 1000");
        for (; n > 0; n--) str_putc(&spaces, ' ');
        width = (text){spaces.p, spaces.n};
    }
    status st = OK;
    bool blank = value_truth(a + 2);
    for (size_t i = 0; st == OK && i <= t.n;) {
        size_t end = i;
        while (end < t.n && t.p[end] != '\n') end++;
        if (i ? blank || end > i : value_truth(a + 1)) str_add(&s, width.p, width.n);
        str_add(&s, t.p + i, end - i);
        if (end < t.n) str_putc(&s, '\n');
        i = end + 1;
        st = s.n > LIMIT_OUTPUT ? run_refuse(r, "a string of more than %d bytes", LIMIT_OUTPUT)
                                : run_spend(r, 1 + width.n / 16);
    }
    str_free(&spaces);
    if (st == OK) return value_from_str(r, &s, out);
    str_free(&s);
    return st;
}

static status f_items(run *r, const value *self, const value *a, value *out) {
    (void)a;
    value *at;
    if (self->kind == V_UNDEFINED) return value_list(r, V_LIST, 0, &at, out);
    if (self->kind != V_DICT) return run_refuse(r, "items wants a dict, not %s", value_kind_name(self));
    return dict_pairs(r, self->dict, out);
}

static status f_attr(run *r, const value *self, const value *a, value *out) {
    if (a->kind != V_STRING) return run_refuse(r, "attr wants a name");
    *out = value_undefined(a->s);
    bool key = self->kind == V_DICT && !find_method(self, a->s); /* a dict's keys are no attributes */
    return key ? OK : value_attr(r, self, a->s, out);
}

/* ---- filters that go through lists ---- */

/* What an item is sorted or made unique by: its attribute if one is named, in lower case unless cases differ. */
static status sort_key(run *r, const value *item, const value *attribute, bool cases, value *out) {
    value none[MAX_PARAMS] = {{.kind = V_MISSING}}, v;
    *out = *item;
    if (given(attribute)) TRY(get_path(r, item, attribute, out));
    if (out->kind != V_STRING || cases) return OK;
    v = *out;
    return f_lower(r, &v, none, out);
}

/* Merge sort: stable, and n log n comparisons. key[] moves with v[]. */
static status merge_sort(run *r, value *v, value *key, value *tv, value *tk, size_t n, bool down) {
    if (n < 2) return OK;
    size_t m = n / 2, i = 0, k = m;
    TRY(merge_sort(r, v, key, tv, tk, m, down));
    TRY(merge_sort(r, v + m, key + m, tv, tk, n - m, down));
    for (size_t o = 0; o < n; o++) {
        int order = i == m ? 1 : -1;
        if (i < m && k < n) {
            TRY(values_order(r, key + i, key + k, &order));
            if (down) order = -order;
        }
        size_t from = order <= 0 ? i++ : k++;
        tv[o] = v[from];
        tk[o] = key[from];
    }
    memcpy(v, tv, n * sizeof *v);
    memcpy(key, tk, n * sizeof *v);
    return OK;
}

static status sort_by(run *r, value *v, value *key, size_t n, bool down) {
    value *tmp;
    TRY(run_take_values(r, 2 * n, &tmp));
    return merge_sort(r, v, key, tmp, tmp + n, n, down);
}

static status f_sort(run *r, const value *self, const value *a, value *out) {
    value *v, *key;
    size_t n;
    TRY(copy_items(r, self, &v, &n, out));
    TRY(run_take_values(r, n, &key));
    for (size_t i = 0; i < n; i++) TRY(sort_key(r, v + i, a + 2, value_truth(a + 1), key + i));
    return sort_by(r, v, key, n, value_truth(a));
}

static status f_dictsort(run *r, const value *self, const value *a, value *out) {
    if (self->kind != V_DICT) return run_refuse(r, "dictsort wants a dict, not %s", value_kind_name(self));
    size_t n = self->dict->n;
    value *key;
    const value none = {.kind = V_MISSING};
    const value *by = value_is(a + 1, "value") ? self->dict->val : self->dict->key;
    TRY(dict_pairs(r, self->dict, out));
    TRY(run_take_values(r, n, &key));
    for (size_t i = 0; i < n; i++) TRY(sort_key(r, by + i, &none, value_truth(a), key + i));
    return sort_by(r, out->list->at, key, n, value_truth(a + 2));
}

static status f_unique(run *r, const value *self, const value *a, value *out) {
    value seen, key, *found, *v;
    size_t n, kept = 0;
    TRY(copy_items(r, self, &v, &n, out));
    TRY(value_dict(r, n, &seen));
    for (size_t i = 0; i < n; i++) {
        TRY(sort_key(r, v + i, a + 1, value_truth(a), &key));
        TRY(dict_find(r, seen.dict, &key, &found));
        if (found) continue;
        TRY(dict_put(r, seen.dict, key, value_bool(true)));
        v[kept++] = v[i];
    }
    out->list->n = kept;
    return OK;
}

static status extreme(run *r, const value *self, const value *a, int sign, value *out) {
    const value *at;
    size_t n;
    value best, key;
    TRY(value_items(r, self, &at, &n));
    *out = value_undefined((text){"item", 4});
    for (size_t i = 0; i < n; i++) {
        int order = 1;
        TRY(sort_key(r, at + i, a + 1, value_truth(a), &key));
        if (i) TRY(values_order(r, &key, &best, &order));
        if (i && order * sign <= 0) continue;
        best = key;
        *out = at[i];
    }
    return OK;
}
static status f_min(run *r, const value *self, const value *a, value *out) {
    return extreme(r, self, a, -1, out);
}
static status f_max(run *r, const value *self, const value *a, value *out) {
    return extreme(r, self, a, 1, out);
}

static status f_sum(run *r, const value *self, const value *a, value *out) {
    const value *at;
    size_t n;
    *out = a[1].kind == V_MISSING ? value_int(0) : a[1];
    TRY(value_items(r, self, &at, &n));
    for (size_t i = 0; i < n; i++) {
        value v = at[i];
        if (given(a)) TRY(get_path(r, at + i, a, &v));
        if (!value_is_number(&v) || !value_is_number(out))
            return run_refuse(r, "sum wants numbers, not %s", value_kind_name(&v));
        if (v.kind == V_FLOAT || out->kind == V_FLOAT) *out = value_float(value_as_float(out) + value_as_float(&v));
        else if (__builtin_add_overflow(out->kind == V_INT ? out->i : out->b, v.kind == V_INT ? v.i : v.b, &out->i))
            return run_refuse(r, "a sum beyond 64 bits");
        else out->kind = V_INT;
    }
    return OK;
}

/* map('upper'), map('replace', 'a', 'b'), map(attribute='name', default=x) */
static status f_map(run *r, const value *self, const args *a, value *out) {
    value *v, path = {.kind = V_MISSING}, fallback = {.kind = V_MISSING};
    size_t n;
    const builtin *f = NULL;
    args rest = *a;
    for (size_t i = 0; !a->n && i < a->n_named; i++) {
        if (text_is(a->names[i], "attribute")) path = a->named[i];
        if (text_is(a->names[i], "default")) fallback = a->named[i];
    }
    if (a->n) {
        text name;
        TRY(value_to_text(r, a->at, &name));
        f = filter_find(name);
        if (!f) return run_refuse(r, "there is no filter '%.*s'", (int)name.n, name.p);
        rest.at++;
        rest.n--;
    } else if (path.kind == V_MISSING) {
        return run_refuse(r, "map needs the name of a filter, or attribute=");
    }
    TRY(copy_some(r, self, &v, &n, out));
    for (size_t i = 0; i < n; i++) {
        value item = v[i];
        TRY(f ? builtin_call(r, f, &item, &rest, v + i) : get_path(r, &item, &path, v + i));
        if (!f && v[i].kind == V_UNDEFINED && fallback.kind != V_MISSING) v[i] = fallback;
    }
    return OK;
}

/* select('odd'), selectattr('role', 'equalto', 'user'), and their opposites */
static status choose(run *r, const value *self, const args *a, bool attribute, bool wanted, value *out) {
    value *v;
    size_t n, kept = 0, skip = attribute;
    const builtin *test = NULL;
    args rest = *a;
    if (a->n < skip) return run_refuse(r, "the name of an attribute is missing");
    if (a->n > skip) {
        text name;
        TRY(value_to_text(r, a->at + skip, &name));
        test = test_find(name);
        if (!test) return run_refuse(r, "there is no test '%.*s'", (int)name.n, name.p);
        skip++;
    }
    if (skip) rest.at += skip;
    rest.n -= skip;
    TRY(copy_some(r, self, &v, &n, out));
    for (size_t i = 0; i < n; i++) {
        value item = v[i], yes;
        if (attribute) TRY(get_path(r, v + i, a->at, &item));
        yes = item;
        if (test) TRY(builtin_call(r, test, &item, &rest, &yes));
        TRY(run_spend(r, 1));
        if (value_truth(&yes) == wanted) v[kept++] = v[i];
    }
    out->list->n = kept;
    return OK;
}
static status f_select(run *r, const value *self, const args *a, value *out) {
    return choose(r, self, a, false, true, out);
}
static status f_reject(run *r, const value *self, const args *a, value *out) {
    return choose(r, self, a, false, false, out);
}
static status f_selectattr(run *r, const value *self, const args *a, value *out) {
    return choose(r, self, a, true, true, out);
}
static status f_rejectattr(run *r, const value *self, const args *a, value *out) {
    return choose(r, self, a, true, false, out);
}

static const builtin filters[] = {{"tojson", "ensure_ascii indent separators sort_keys", f_tojson, NULL},
                                  {"trim", "chars", f_trim, NULL},
                                  {"length", "", f_length, NULL},
                                  {"count", "", f_length, NULL},
                                  {"default", "default_value boolean", f_default, NULL},
                                  {"d", "default_value boolean", f_default, NULL},
                                  {"first", "", f_first, NULL},
                                  {"last", "", f_last, NULL},
                                  {"join", "d attribute", f_join, NULL},
                                  {"list", "", f_list, NULL},
                                  {"string", "", f_string, NULL},
                                  {"int", "default base", f_int, NULL},
                                  {"float", "default", f_float, NULL},
                                  {"abs", "", f_abs, NULL},
                                  {"round", "precision method", f_round, NULL},
                                  {"upper", "", f_upper, NULL},
                                  {"lower", "", f_lower, NULL},
                                  {"capitalize", "", f_capitalize, NULL},
                                  {"title", "", f_title, NULL},
                                  {"replace", "old new count", f_replace, NULL},
                                  {"indent", "width first blank", f_indent, NULL},
                                  {"items", "", f_items, NULL},
                                  {"safe", "", f_string, NULL},
                                  {"attr", "name", f_attr, NULL},
                                  {"reverse", "", f_reverse, NULL},
                                  {"sort", "reverse case_sensitive attribute", f_sort, NULL},
                                  {"dictsort", "case_sensitive by reverse", f_dictsort, NULL},
                                  {"unique", "case_sensitive attribute", f_unique, NULL},
                                  {"min", "case_sensitive attribute", f_min, NULL},
                                  {"max", "case_sensitive attribute", f_max, NULL},
                                  {"sum", "attribute start", f_sum, NULL},
                                  {"map", NULL, NULL, f_map},
                                  {"select", NULL, NULL, f_select},
                                  {"reject", NULL, NULL, f_reject},
                                  {"selectattr", NULL, NULL, f_selectattr},
                                  {"rejectattr", NULL, NULL, f_rejectattr},
                                  {NULL, NULL, NULL, NULL}};

const builtin *filter_find(text name) {
    return find_in(filters, name);
}
