/* The methods of strings in the template language: Python's str, as far as templates use it. */
#include "text/template_inner.h"

static status want_text(run *r, const value *v, const char *where, text *out) {
    *out = v->kind == V_STRING ? v->s : (text){"", 0};
    return v->kind == V_STRING ? OK : run_refuse(r, "%s wants a string, not %s", where, value_kind_name(v));
}

static status want_int(run *r, const value *v, int64_t fallback, const char *where, int64_t *out) {
    *out = fallback;
    if (v->kind == V_MISSING || v->kind == V_NONE) return OK;
    if (v->kind != V_INT && v->kind != V_BOOL)
        return run_refuse(r, "%s wants an integer, not %s", where, value_kind_name(v));
    *out = v->kind == V_INT ? v->i : v->b;
    return OK;
}

static status strip(run *r, const value *self, const value *a, bool left, bool right, value *out) {
    text chars;
    bool given = a[0].kind != V_MISSING && a[0].kind != V_NONE;
    if (given) TRY(want_text(r, a, "strip", &chars));
    TRY(run_spend(r, self->s.n / 16 * (given ? 1 + chars.n / 16 : 1)));
    *out = value_text(text_strip(self->s, given ? &chars : NULL, left, right));
    return OK;
}
static status m_strip(run *r, const value *self, const value *a, value *out) {
    return strip(r, self, a, true, true, out);
}
static status m_lstrip(run *r, const value *self, const value *a, value *out) {
    return strip(r, self, a, true, false, out);
}
static status m_rstrip(run *r, const value *self, const value *a, value *out) {
    return strip(r, self, a, false, true, out);
}

static status change_case(run *r, const value *self, int how, value *out) {
    TRY(run_spend(r, self->s.n / 2));
    str s = {0};
    text_case(&s, self->s, how);
    return value_from_str(r, &s, out);
}
static status m_upper(run *r, const value *self, const value *a, value *out) {
    (void)a;
    return change_case(r, self, 'u', out);
}
static status m_lower(run *r, const value *self, const value *a, value *out) {
    (void)a;
    return change_case(r, self, 'l', out);
}
static status m_capitalize(run *r, const value *self, const value *a, value *out) {
    (void)a;
    return change_case(r, self, 'c', out);
}
static status m_title(run *r, const value *self, const value *a, value *out) {
    (void)a;
    return change_case(r, self, 't', out);
}

/* startswith and endswith: a string or a tuple of them */
static status affix(run *r, const value *self, const value *a, bool end, value *out) {
    const value *v = a;
    size_t n = 1;
    if (a->kind == V_TUPLE) {
        v = a->list->at;
        n = a->list->n;
    }
    TRY(run_spend(r, n));
    *out = value_bool(false);
    for (size_t i = 0; i < n; i++) {
        text t, s = self->s;
        TRY(want_text(r, v + i, end ? "endswith" : "startswith", &t));
        if (t.n > s.n) continue;
        if (text_eq((text){s.p + (end ? s.n - t.n : 0), t.n}, t)) *out = value_bool(true);
    }
    return OK;
}
static status m_startswith(run *r, const value *self, const value *a, value *out) {
    return affix(r, self, a, false, out);
}
static status m_endswith(run *r, const value *self, const value *a, value *out) {
    return affix(r, self, a, true, out);
}

static status m_replace(run *r, const value *self, const value *a, value *out) {
    text s = self->s, old, new;
    int64_t left;
    TRY(want_text(r, a, "replace", &old));
    TRY(want_text(r, a + 1, "replace", &new));
    TRY(want_int(r, a + 2, -1, "replace", &left));
    str to = {0};
    size_t i = 0, at;
    status st = run_spend(r, s.n / 16);
    for (; st == OK && left != 0 && text_find(s, old, i, &at); left--) {
        if (old.n == 0 && at < s.n) { /* "" is found before every character and at the end */
            size_t n = utf8_size(s.p + at, s.n - at);
            str_add(&to, new.p, new.n);
            str_add(&to, s.p + at, n);
            i = at + n;
        } else {
            str_add(&to, s.p + i, at - i);
            str_add(&to, new.p, new.n);
            i = at + old.n;
        }
        st = to.n > LIMIT_OUTPUT ? run_refuse(r, "a string of more than %d bytes", LIMIT_OUTPUT)
                                 : run_spend(r, 1 + new.n / 16);
        if (old.n == 0 && at == s.n) break;
    }
    if (i < s.n) str_add(&to, s.p + i, s.n - i);
    if (st == OK) return value_from_str(r, &to, out);
    str_free(&to);
    return st;
}

/* Finds where the next piece of a split ends (*at) and the one after it starts (*next). */
static bool next_cut(text s, const text *sep, size_t from, size_t *at, size_t *next) {
    if (sep) {
        if (!text_find(s, *sep, from, at)) return false;
        *next = *at + sep->n;
        return true;
    }
    for (size_t i = from, n; i < s.n; i += n) {
        n = utf8_size(s.p + i, s.n - i);
        if (!utf8_is_space(utf8_point(s.p + i, n))) continue;
        *at = i;
        text rest = text_strip((text){s.p + i, s.n - i}, NULL, true, false);
        *next = s.n - rest.n;
        return true;
    }
    return false;
}

static status separator(run *r, const value *a, const char *where, text *buf, const text **sep) {
    *sep = NULL;
    if (a->kind == V_MISSING || a->kind == V_NONE) return OK;
    TRY(want_text(r, a, where, buf));
    if (buf->n == 0) return run_refuse(r, "%s with an empty separator", where);
    *sep = buf;
    return OK;
}

static status m_split(run *r, const value *self, const value *a, value *out) {
    text s = self->s, buf;
    const text *sep;
    int64_t max;
    TRY(separator(r, a, "split", &buf, &sep));
    TRY(want_int(r, a + 1, -1, "split", &max));
    TRY(run_spend(r, s.n / 8));
    if (!sep) s = text_strip(s, NULL, true, max < 0);
    size_t n = 1, from = 0, at, next;
    for (int64_t left = max; left != 0 && next_cut(s, sep, from, &at, &next); left--, from = next) n++;
    if (!sep && s.n == 0) n = 0;
    else if (!sep && from == s.n) n--; /* white space at the end */
    value *v;
    TRY(value_list(r, V_LIST, n, &v, out));
    from = 0;
    for (size_t i = 0; i < n; i++, from = next) {
        if (i + 1 == n && (sep || max >= 0) && (int64_t)i == max) at = next = s.n;
        else if (!next_cut(s, sep, from, &at, &next)) at = next = s.n;
        v[i] = value_text((text){s.p + from, at - from});
    }
    return OK;
}

/* with a separator only: nobody splits at white space from the right */
static status m_rsplit(run *r, const value *self, const value *a, value *out) {
    text s = self->s, buf;
    const text *sep;
    int64_t max;
    TRY(separator(r, a, "rsplit", &buf, &sep));
    TRY(want_int(r, a + 1, -1, "rsplit", &max));
    if (!sep || max < 0) return m_split(r, self, a, out);
    size_t n = 1, end = s.n, at, next, from = 0;
    TRY(run_spend(r, s.n / 4));
    for (; next_cut(s, sep, from, &at, &next); from = next) n++;
    size_t cuts = n - 1, skip = cuts > (uint64_t)max ? cuts - (size_t)max : 0; /* the first cuts are not made */
    value *v;
    TRY(value_list(r, V_LIST, cuts - skip + 1, &v, out));
    size_t start = 0, k = 0;
    from = 0;
    for (size_t i = 0; next_cut(s, sep, from, &at, &next); i++, from = next) {
        if (i < skip) continue;
        v[k++] = value_text((text){s.p + start, at - start});
        start = next;
    }
    v[k] = value_text((text){s.p + start, end - start});
    return OK;
}

static status m_splitlines(run *r, const value *self, const value *a, value *out) {
    (void)a;
    text s = self->s;
    TRY(run_spend(r, s.n / 8));
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) n += s.p[i] == '\n' || (s.p[i] == '\r' && !(i + 1 < s.n && s.p[i + 1] == '\n'));
    if (s.n && s.p[s.n - 1] != '\n' && s.p[s.n - 1] != '\r') n++;
    value *v;
    TRY(value_list(r, V_LIST, n, &v, out));
    for (size_t i = 0, k = 0; k < n; k++) {
        size_t end = i;
        while (end < s.n && s.p[end] != '\n' && s.p[end] != '\r') end++;
        v[k] = value_text((text){s.p + i, end - i});
        i = end + 1 + (end + 1 < s.n && s.p[end] == '\r' && s.p[end + 1] == '\n');
    }
    return OK;
}

static status find(run *r, const value *self, const value *a, bool last, value *out) {
    text what;
    TRY(want_text(r, a, "find", &what));
    TRY(run_spend(r, self->s.n / 8));
    int64_t found = -1;
    size_t at = 0;
    for (size_t from = 0; text_find(self->s, what, from, &at); from = at + 1) {
        found = (int64_t)utf8_count((text){self->s.p, at});
        TRY(run_spend(r, 1 + at / 16));
        if (!last || at == self->s.n) break;
    }
    *out = value_int(found);
    return OK;
}
static status m_find(run *r, const value *self, const value *a, value *out) {
    return find(r, self, a, false, out);
}
static status m_rfind(run *r, const value *self, const value *a, value *out) {
    return find(r, self, a, true, out);
}

static status m_count(run *r, const value *self, const value *a, value *out) {
    text what;
    TRY(want_text(r, a, "count", &what));
    TRY(run_spend(r, self->s.n / 8));
    int64_t n = 0;
    size_t at;
    if (what.n == 0) n = (int64_t)utf8_count(self->s) + 1;
    else
        for (size_t from = 0; text_find(self->s, what, from, &at); from = at + what.n) n++;
    *out = value_int(n);
    return OK;
}

static status m_join(run *r, const value *self, const value *a, value *out) {
    const value *at;
    size_t n;
    TRY(value_items(r, a, &at, &n));
    str s = {0};
    status st = OK;
    for (size_t i = 0; st == OK && i < n; i++) {
        text t;
        st = want_text(r, at + i, "join", &t);
        if (st == OK) st = run_spend(r, 1 + (t.n + self->s.n) / 16);
        if (st == OK && s.n > LIMIT_OUTPUT) st = run_refuse(r, "a string of more than %d bytes", LIMIT_OUTPUT);
        if (st != OK) break;
        if (i) str_add(&s, self->s.p, self->s.n);
        str_add(&s, t.p, t.n);
    }
    if (st == OK) return value_from_str(r, &s, out);
    str_free(&s);
    return st;
}

/* every character passes (and there is one) */
static status all_of(run *r, const value *self, bool (*is)(uint32_t), value *out) {
    text s = self->s;
    TRY(run_spend(r, s.n / 8));
    *out = value_bool(s.n > 0);
    for (size_t i = 0, n; i < s.n; i += n) {
        n = utf8_size(s.p + i, s.n - i);
        if (!is(utf8_point(s.p + i, n))) *out = value_bool(false);
    }
    return OK;
}
static bool is_digit(uint32_t c) {
    return c >= '0' && c <= '9';
}
static status m_isspace(run *r, const value *self, const value *a, value *out) {
    (void)a;
    return all_of(r, self, utf8_is_space, out);
}
static status m_isdigit(run *r, const value *self, const value *a, value *out) {
    (void)a;
    return all_of(r, self, is_digit, out);
}

const builtin string_methods[] = {{"strip", "chars", m_strip, NULL},
                                  {"lstrip", "chars", m_lstrip, NULL},
                                  {"rstrip", "chars", m_rstrip, NULL},
                                  {"upper", "", m_upper, NULL},
                                  {"lower", "", m_lower, NULL},
                                  {"capitalize", "", m_capitalize, NULL},
                                  {"title", "", m_title, NULL},
                                  {"startswith", "prefix", m_startswith, NULL},
                                  {"endswith", "suffix", m_endswith, NULL},
                                  {"replace", "old new count", m_replace, NULL},
                                  {"split", "sep maxsplit", m_split, NULL},
                                  {"rsplit", "sep maxsplit", m_rsplit, NULL},
                                  {"splitlines", "", m_splitlines, NULL},
                                  {"find", "sub", m_find, NULL},
                                  {"rfind", "sub", m_rfind, NULL},
                                  {"count", "sub", m_count, NULL},
                                  {"join", "iterable", m_join, NULL},
                                  {"isspace", "", m_isspace, NULL},
                                  {"isdigit", "", m_isdigit, NULL},
                                  {NULL, NULL, NULL, NULL}};
