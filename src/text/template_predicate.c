/* Tests (x is t) and global functions of the template language. */
#include "text/template_inner.h"

#include <math.h>
#include <string.h>

/* ---- tests ---- */

/* The tests that look at a value's kind alone. */
static status kind_test(const value *self, unsigned kinds, value *out) {
    *out = value_bool(kinds >> self->kind & 1);
    return OK;
}
#define KIND_TEST(name, kinds)                                                  \
    static status name(run *r, const value *self, const value *a, value *out) { \
        (void)r, (void)a;                                                       \
        return kind_test(self, kinds, out);                                     \
    }
#define BIT(kind) (1u << (kind))
#define SEQUENCES (BIT(V_UNDEFINED) | BIT(V_STRING) | BIT(V_LIST) | BIT(V_TUPLE) | BIT(V_DICT))
KIND_TEST(t_defined, ~BIT(V_UNDEFINED))
KIND_TEST(t_undefined, BIT(V_UNDEFINED))
KIND_TEST(t_none, BIT(V_NONE))
KIND_TEST(t_boolean, BIT(V_BOOL))
KIND_TEST(t_integer, BIT(V_INT))
KIND_TEST(t_float, BIT(V_FLOAT))
KIND_TEST(t_number, BIT(V_BOOL) | BIT(V_INT) | BIT(V_FLOAT))
KIND_TEST(t_string, BIT(V_STRING))
KIND_TEST(t_mapping, BIT(V_DICT))
KIND_TEST(t_sequence, SEQUENCES)
KIND_TEST(t_iterable, SEQUENCES | BIT(V_LOOP))
KIND_TEST(t_callable, BIT(V_UNDEFINED) | BIT(V_MACRO) | BIT(V_FUNCTION) | BIT(V_METHOD))

static status t_true(run *r, const value *self, const value *a, value *out) {
    (void)r, (void)a;
    *out = value_bool(self->kind == V_BOOL && self->b);
    return OK;
}
static status t_false(run *r, const value *self, const value *a, value *out) {
    (void)r, (void)a;
    *out = value_bool(self->kind == V_BOOL && !self->b);
    return OK;
}

static status equality(run *r, const value *self, const value *a, bool wanted, value *out) {
    bool same;
    TRY(values_equal(r, self, a, &same));
    *out = value_bool(same == wanted);
    return OK;
}
static status t_eq(run *r, const value *self, const value *a, value *out) {
    return equality(r, self, a, true, out);
}
static status t_ne(run *r, const value *self, const value *a, value *out) {
    return equality(r, self, a, false, out);
}

/* None, True and False are the same as themselves; for the rest equality within a kind stands for identity */
static status t_sameas(run *r, const value *self, const value *a, value *out) {
    if (self->kind == a->kind) return equality(r, self, a, true, out);
    *out = value_bool(false);
    return OK;
}

static status order_test(run *r, const value *self, const value *a, int sign, bool or_equal, value *out) {
    int order;
    TRY(values_order(r, self, a, &order));
    *out = value_bool(order * sign > 0 || (or_equal && order == 0));
    return OK;
}
static status t_lt(run *r, const value *self, const value *a, value *out) {
    return order_test(r, self, a, -1, false, out);
}
static status t_le(run *r, const value *self, const value *a, value *out) {
    return order_test(r, self, a, -1, true, out);
}
static status t_gt(run *r, const value *self, const value *a, value *out) {
    return order_test(r, self, a, 1, false, out);
}
static status t_ge(run *r, const value *self, const value *a, value *out) {
    return order_test(r, self, a, 1, true, out);
}

static status t_in(run *r, const value *self, const value *a, value *out) {
    bool found;
    TRY(value_contains(r, a, self, &found));
    *out = value_bool(found);
    return OK;
}

/* the remainder, which has the divisor's sign, is `wanted` (0 or 1) */
static status remainder_test(run *r, const value *self, int64_t by, int64_t wanted, value *out) {
    if (by == 0) return run_refuse(r, "division by zero");
    if (self->kind == V_FLOAT) {
        double rest = fmod(self->d, (double)by);
        *out = value_bool((rest < 0 ? rest + fabs((double)by) : rest) == (double)wanted);
        return OK;
    }
    if (self->kind != V_INT && self->kind != V_BOOL) return run_refuse(r, "%s is not a number", value_kind_name(self));
    int64_t i = self->kind == V_INT ? self->i : self->b;
    *out = value_bool((by == -1 ? 0 : i % by != 0) == wanted);
    return OK;
}
static status t_even(run *r, const value *self, const value *a, value *out) {
    (void)a;
    return remainder_test(r, self, 2, 0, out);
}
static status t_odd(run *r, const value *self, const value *a, value *out) {
    (void)a;
    return remainder_test(r, self, 2, 1, out);
}
static status t_divisibleby(run *r, const value *self, const value *a, value *out) {
    if (a->kind != V_INT) return run_refuse(r, "divisibleby wants an integer, not %s", value_kind_name(a));
    return remainder_test(r, self, a->i, 0, out);
}

static status case_test(run *r, const value *self, int how, value *out) {
    text t;
    value cased;
    TRY(value_to_text(r, self, &t));
    TRY(run_spend(r, t.n));
    str s = {0};
    text_case(&s, t, how);
    TRY(value_from_str(r, &s, &cased));
    bool same = text_eq(cased.s, t);
    s = (str){0};
    text_case(&s, t, how == 'u' ? 'l' : 'u'); /* and there is a letter */
    TRY(value_from_str(r, &s, &cased));
    *out = value_bool(same && !text_eq(cased.s, t));
    return OK;
}
static status t_lower(run *r, const value *self, const value *a, value *out) {
    (void)a;
    return case_test(r, self, 'l', out);
}
static status t_upper(run *r, const value *self, const value *a, value *out) {
    (void)a;
    return case_test(r, self, 'u', out);
}

static status known(run *r, const value *self, bool test, value *out) {
    if (self->kind != V_STRING) return run_refuse(r, "a name is wanted, not %s", value_kind_name(self));
    *out = value_bool(test ? test_find(self->s) != NULL : filter_find(self->s) != NULL);
    return OK;
}
static status t_filter(run *r, const value *self, const value *a, value *out) {
    (void)a;
    return known(r, self, false, out);
}
static status t_test(run *r, const value *self, const value *a, value *out) {
    (void)a;
    return known(r, self, true, out);
}

static const builtin tests[] = {{"defined", "", t_defined, NULL},
                                {"undefined", "", t_undefined, NULL},
                                {"none", "", t_none, NULL},
                                {"boolean", "", t_boolean, NULL},
                                {"true", "", t_true, NULL},
                                {"false", "", t_false, NULL},
                                {"integer", "", t_integer, NULL},
                                {"float", "", t_float, NULL},
                                {"number", "", t_number, NULL},
                                {"string", "", t_string, NULL},
                                {"mapping", "", t_mapping, NULL},
                                {"sequence", "", t_sequence, NULL},
                                {"iterable", "", t_iterable, NULL},
                                {"callable", "", t_callable, NULL},
                                {"sameas", "other", t_sameas, NULL},
                                {"equalto", "other", t_eq, NULL},
                                {"eq", "other", t_eq, NULL},
                                {"==", "other", t_eq, NULL},
                                {"ne", "other", t_ne, NULL},
                                {"!=", "other", t_ne, NULL},
                                {"lt", "other", t_lt, NULL},
                                {"lessthan", "other", t_lt, NULL},
                                {"<", "other", t_lt, NULL},
                                {"le", "other", t_le, NULL},
                                {"<=", "other", t_le, NULL},
                                {"gt", "other", t_gt, NULL},
                                {"greaterthan", "other", t_gt, NULL},
                                {">", "other", t_gt, NULL},
                                {"ge", "other", t_ge, NULL},
                                {">=", "other", t_ge, NULL},
                                {"in", "seq", t_in, NULL},
                                {"even", "", t_even, NULL},
                                {"odd", "", t_odd, NULL},
                                {"divisibleby", "num", t_divisibleby, NULL},
                                {"lower", "", t_lower, NULL},
                                {"upper", "", t_upper, NULL},
                                {"filter", "", t_filter, NULL},
                                {"test", "", t_test, NULL},
                                {NULL, NULL, NULL, NULL}};

const builtin *test_find(text name) {
    for (const builtin *f = tests; f->name; f++)
        if (text_is(name, f->name)) return f;
    return NULL;
}

/* ---- functions ---- */

static status g_raise(run *r, const value *self, const value *a, value *out) {
    (void)self, (void)out;
    text t;
    TRY(value_to_text(r, a, &t));
    return run_refuse(r, "%.*s", (int)(t.n < 400 ? t.n : 400), t.p);
}

static status g_range(run *r, const value *self, const value *a, value *out) {
    (void)self;
    int64_t v[3] = {0, 0, 1};
    for (int i = 0; i < 3; i++) {
        if (a[i].kind == V_MISSING) continue;
        if (a[i].kind != V_INT && a[i].kind != V_BOOL)
            return run_refuse(r, "range wants integers, not %s", value_kind_name(a + i));
        v[i] = a[i].kind == V_INT ? a[i].i : a[i].b;
    }
    if (a[0].kind == V_MISSING) return run_refuse(r, "range needs an argument");
    if (a[1].kind == V_MISSING) {
        v[1] = v[0];
        v[0] = 0;
    }
    if (v[2] == 0) return run_refuse(r, "range with a step of 0");
    uint64_t way = v[2] > 0 ? (uint64_t)v[1] - (uint64_t)v[0] : (uint64_t)v[0] - (uint64_t)v[1];
    uint64_t step = v[2] > 0 ? (uint64_t)v[2] : 0 - (uint64_t)v[2];
    uint64_t n = (v[2] > 0 ? v[0] < v[1] : v[0] > v[1]) ? (way - 1) / step + 1 : 0;
    if (n > LIMIT_RANGE) return run_refuse(r, "range of more than %d", LIMIT_RANGE);
    value *at;
    TRY(value_list(r, V_LIST, (size_t)n, &at, out));
    for (uint64_t i = 0; i < n; i++) at[i] = value_int((int64_t)((uint64_t)v[0] + i * (uint64_t)v[2]));
    return OK;
}

/* namespace(a=1), dict(a=1): from another dict and from names */
static status make_dict(run *r, const args *a, value_kind kind, value *out) {
    TRY(value_dict(r, 8, out));
    dict *d = out->dict;
    if (a->n > 1 || (a->n && a->at->kind != V_DICT)) return run_refuse(r, "one dict and names are wanted");
    for (size_t i = 0; a->n && i < a->at->dict->n; i++) TRY(dict_put(r, d, a->at->dict->key[i], a->at->dict->val[i]));
    for (size_t i = 0; i < a->n_named; i++) TRY(dict_put(r, d, value_text(a->names[i]), a->named[i]));
    out->kind = kind;
    return OK;
}
static status g_namespace(run *r, const value *self, const args *a, value *out) {
    (void)self;
    return make_dict(r, a, V_NAMESPACE, out);
}
static status g_dict(run *r, const value *self, const args *a, value *out) {
    (void)self;
    return make_dict(r, a, V_DICT, out);
}

/* strftime_now("%d %b %Y"). Only conversions that every C library knows go through. */
static status g_strftime_now(run *r, const value *self, const value *a, value *out) {
    (void)self;
    if (a->kind != V_STRING) return run_refuse(r, "strftime_now wants a format, not %s", value_kind_name(a));
    char format[128], buf[1024];
    struct tm tm;
    if (a->s.n >= sizeof format)
        return run_refuse(r, "strftime_now: a format of more than %zu bytes", sizeof format - 1);
    memcpy(format, a->s.p, a->s.n);
    format[a->s.n] = 0;
    for (size_t i = 0; i < a->s.n; i++) {
        if (format[i] == 0) return run_refuse(r, "strftime_now: a zero byte in the format");
        if (format[i] != '%') continue;
        i += 1 + (format[i + 1] == '-');
        if (!format[i] || !strchr("aAbBcdDeFHIjklmMpPSTuUwWxXyYzZ%", format[i]))
            return run_refuse(r, "strftime_now: '%%%c' is not a known conversion", format[i] ? format[i] : ' ');
    }
    if (!localtime_r(&r->now, &tm)) return run_refuse(r, "strftime_now: the time is out of range");
    return value_string(r, buf, strftime(buf, sizeof buf, format, &tm), out);
}

static const builtin functions[] = {{"raise_exception", "message", g_raise, NULL},
                                    {"range", "start stop step", g_range, NULL},
                                    {"namespace", NULL, NULL, g_namespace},
                                    {"dict", NULL, NULL, g_dict},
                                    {"strftime_now", "format", g_strftime_now, NULL}};

const builtin *function_find(text name) {
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (text_is(name, functions[i].name)) return functions + i;
    return NULL;
}
