/* Whether two answers mean the same, kind by kind.
 *
 * As grader.py of math-verify has it: the value of "x = 5" is 5 where the other side has no "x ="; lists and sets have
 * no order, tuples and intervals have one; an inequality in one variable is an interval; units are dropped. Stricter:
 * units that differ, a base that differs, and a tuple out of order are not accepted. */
#include "reward/answer.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "reward/answer_parse.h"
#include "reward/answer_tokens.h"
#include "reward/answer_units.h"
#include "reward/answer_value.h"

typedef number side; /* a part of one answer */

static verdict equal(side g, side t);

static const node *node_of(side a) {
    return &a.t->nodes[a.x];
}

static node_kind kind_of(side a) {
    return node_of(a)->kind;
}

static side child(side a, int k) {
    a.x = node_of(a)->first;
    while (k--) a.x = a.t->nodes[a.x].next;
    return a;
}

static int children(side a) {
    int n = 0;
    for (int c = node_of(a)->first; c; c = a.t->nodes[c].next) n++;
    return n;
}

static bool is_collection(side a) {
    return kind_of(a) >= N_LIST;
}

static bool is_relation(side a, int op) {
    return kind_of(a) == N_REL && node_of(a)->op == op;
}

static verdict all(verdict a, verdict b) {
    return a == WRONG || b == WRONG ? WRONG : a == UNSURE || b == UNSURE ? UNSURE : RIGHT;
}

/* --- words ------------------------------------------------------------------------------------------------------- */

static bool same_words(const char *p, int n, const char *q, int m) {
    str a = {0}, b = {0};
    token_words(&a, p, (size_t)n);
    token_words(&b, q, (size_t)m);
    bool same = a.n && a.n == b.n && !a.failed && !b.failed && memcmp(a.p, b.p, a.n) == 0;
    str_free(&a);
    str_free(&b);
    return same;
}

static verdict words_equal(side g, side t) {
    const node *a = node_of(g), *b = node_of(t);
    const char letters[] = {(char)a->op, (char)b->op};
    if (is_collection(g) || is_collection(t)) /* "no solution", "all real numbers" */
        return (kind_of(g) == N_SET && !a->first) || (kind_of(t) == N_SET && !b->first) || kind_of(g) == N_REALS ||
                       kind_of(t) == N_REALS
                   ? UNSURE
                   : WRONG;
    bool letter_g = a->kind == N_CONST, letter_t = b->kind == N_CONST; /* e and i */
    return same_words(letter_g ? letters : a->s, letter_g ? 1 : a->n, letter_t ? letters + 1 : b->s,
                      letter_t ? 1 : b->n)
               ? RIGHT
               : WRONG;
}

/* --- units ------------------------------------------------------------------------------------------------------- */

typedef struct unit_text {
    const char *s;
    int n;
    int op; /* as in N_UNIT; 0: none */
} unit_text;

static unit_text take_unit(side *a) {
    unit_text u = {0};
    for (; kind_of(*a) == N_UNIT || kind_of(*a) == N_DEGREE; *a = child(*a, 0)) {
        const node *x = node_of(*a);
        if (x->kind == N_DEGREE) u = (unit_text){"degree", 6, 'k'};
        else if (!u.op || x->op != 'k') u = (unit_text){x->s, x->n, x->op};
    }
    return u;
}

static verdict with_units(verdict v, unit_text g, unit_text t) {
    if (v != RIGHT || (!g.op && !t.op)) return v;
    if (!g.op || !t.op) return g.op == 'w' || t.op == 'w' ? UNSURE : v;
    int same = units_equal(g.s, (size_t)g.n, t.s, (size_t)t.n);
    return same == 1 ? RIGHT : same == 0 ? WRONG : UNSURE;
}

/* --- numbers ----------------------------------------------------------------------------------------------------- */

/* The value of digits in their base; false: they are not such digits, or too many. */
static bool based_value(const node *x, uint64_t *value) {
    uint64_t base = 0;
    for (int i = 0; i < x->n_base && base < 100; i++) base = base * 10 + (uint64_t)(x->base[i] - '0');
    *value = 0;
    for (int i = 0; i < x->n; i++) {
        uint64_t d = (uint64_t)(x->s[i] - '0');
        if (d >= base || base > 10 || *value > UINT64_MAX / 16) return false;
        *value = *value * base + d;
    }
    return true;
}

/* Digits alone are taken for digits of the gold answer's base, since the question names it. */
static verdict based_equal(side g, side t) {
    const node *a = node_of(g), *b = node_of(t);
    verdict digits = numbers_equal(g, t);
    uint64_t p, q;
    if (a->kind != N_BASE) return digits == RIGHT ? UNSURE : digits;
    if (b->kind != N_BASE) return digits;
    if (a->n_base == b->n_base && memcmp(a->base, b->base, (size_t)a->n_base) == 0) return digits;
    return based_value(a, &p) && based_value(b, &q) ? (p == q ? RIGHT : WRONG) : UNSURE;
}

static verdict scalars_equal(side g, side t) {
    const node *a = node_of(g), *b = node_of(t);
    if (a->kind == N_WORD || b->kind == N_WORD) {
        bool words = (a->kind == N_WORD || a->kind == N_VAR || a->kind == N_CONST) &&
                     (b->kind == N_WORD || b->kind == N_VAR || b->kind == N_CONST);
        return words ? words_equal(g, t) : WRONG;
    }
    if (a->kind == N_VAR && b->kind == N_VAR && a->n == 1 && b->n == 1) return words_equal(g, t); /* B or b */
    if (a->kind == N_BASE || b->kind == N_BASE) return based_equal(g, t);
    return numbers_equal(g, t);
}

/* --- collections without and with order -------------------------------------------------------------------------- */

typedef struct sides {
    side *a;
    int n;
} sides;

/* The elements; one with \pm is two. NULL in a: memory is out. */
static sides elements(side c) {
    bool many = kind_of(c) == N_LIST || kind_of(c) == N_SET || kind_of(c) == N_TUPLE;
    int n = many ? children(c) : 1;
    sides s = {.a = malloc(((size_t)n * 2 + 1) * sizeof *s.a)};
    for (int i = 0, x = many ? node_of(c)->first : c.x; s.a && i < n; i++, x = c.t->nodes[x].next) {
        side e = c;
        e.x = x;
        bool twice = number_has_sign(e) && c.sign == 0;
        if (twice) e.sign = 1;
        s.a[s.n++] = e;
        if (!twice) continue;
        e.sign = 2;
        s.a[s.n++] = e;
    }
    return s;
}

static void improve(verdict *best, verdict v) {
    if (v == RIGHT || *best == WRONG) *best = v;
}

/* Every element of each is in the other. No pair is compared twice: sets in sets would double the work at each depth.
 */
static verdict sets_equal(sides g, sides t) {
    verdict *best = calloc((size_t)(g.n + t.n) + 1, sizeof *best), v = best ? RIGHT : UNSURE; /* WRONG is 0 */
    for (int i = 0; best && i < g.n && v != WRONG; i++) {
        for (int k = 0; k < t.n; k++) {
            if (best[i] == RIGHT && best[g.n + k] == RIGHT) continue;
            verdict pair = equal(g.a[i], t.a[k]);
            improve(&best[i], pair);
            improve(&best[g.n + k], pair);
        }
        v = all(v, best[i]);
    }
    for (int k = 0; best && k < t.n; k++) v = all(v, best[g.n + k]);
    free(best);
    return v;
}

static verdict rows_equal(sides g, sides t) {
    verdict v = g.n == t.n ? RIGHT : WRONG;
    for (int i = 0; i < g.n && v != WRONG; i++) v = all(v, equal(g.a[i], t.a[i]));
    return v;
}

/* x = 1, y = 2: different names say which is which. */
static bool names_its_elements(side a) {
    if (kind_of(a) != N_LIST || !is_relation(child(a, 0), '=') || !is_relation(child(a, 1), '=')) return false;
    return numbers_equal(child(child(a, 0), 0), child(child(a, 1), 0)) != RIGHT;
}

static verdict lists_equal(side g, side t) {
    bool tuple_g = kind_of(g) == N_TUPLE, tuple_t = kind_of(t) == N_TUPLE;
    bool named_g = names_its_elements(g), named_t = names_its_elements(t);
    sides a = elements(g), b = elements(t);
    verdict v = UNSURE;
    if (!a.a || !b.a) v = UNSURE;
    else if (tuple_g && tuple_t) v = a.n == 2 && node_of(g)->op != node_of(t)->op ? WRONG : rows_equal(a, b);
    else if (!tuple_g && !tuple_t && named_g == named_t) v = sets_equal(a, b);
    else { /* one has an order, the other may mean it */ bool braces = kind_of(g) == N_SET || kind_of(t) == N_SET;
        v = braces ? WRONG : rows_equal(a, b);
        if (v != RIGHT && sets_equal(a, b) == RIGHT) v = UNSURE;
    }
    free(a.a);
    free(b.a);
    return v;
}

/* The entries of a matrix row by row, or the elements of another collection. */
static sides entries(side m) {
    if (kind_of(m) != N_MATRIX) return elements(m);
    sides all_of = {0};
    int rows = children(m), n = 0;
    for (int r = 0; r < rows; r++) n += children(child(m, r));
    all_of.a = malloc((size_t)n * sizeof *all_of.a);
    for (int r = 0; all_of.a && r < rows; r++)
        for (int k = 0, columns = children(child(m, r)); k < columns; k++) all_of.a[all_of.n++] = child(child(m, r), k);
    return all_of;
}

static bool same_shape(side g, side t) {
    bool same = kind_of(g) == kind_of(t) && children(g) == children(t);
    for (int r = 0, rows = children(g); same && r < rows; r++) same = children(child(g, r)) == children(child(t, r));
    return same;
}

/* A vector may be written as a tuple. */
static verdict matrices_equal(side g, side t) {
    bool both = kind_of(g) == N_MATRIX && kind_of(t) == N_MATRIX;
    if (both && !same_shape(g, t)) return WRONG;
    sides a = entries(g), b = entries(t);
    verdict v = a.a && b.a ? rows_equal(a, b) : UNSURE;
    free(a.a);
    free(b.a);
    return v == RIGHT && !both ? UNSURE : v;
}

/* What stands left of "=" and is no claim: x, x_1, f(x), AB, |AB|, Area, (x, y). */
static bool is_name(side a) {
    const node *x = node_of(a);
    switch (x->kind) {
    case N_VAR:
    case N_WORD: return true;
    case N_FUNC: return x->op == F_ABS && is_name(child(a, 0));
    case N_MUL: return is_name(child(a, 0)) && is_name(child(a, 1));
    case N_TUPLE:
    case N_LIST:
        for (int i = 0, n = children(a); i < n; i++)
            if (!is_name(child(a, i))) return false;
        return true;
    default: return false;
    }
}

/* --- intervals --------------------------------------------------------------------------------------------------- */

enum { INTERVALS = 64 };

typedef struct interval {
    double low, high;
    bool has_low, has_high; /* the ends belong to it */
    side at_low, at_high;   /* t NULL: an infinity that is not written */
} interval;

typedef struct union_of {
    interval list[INTERVALS];
    int n;
    side variable; /* of an inequality; t NULL: none */
} union_of;

static bool add_interval(union_of *u, side a, side b, bool has_low, bool has_high) {
    interval i = {
        .has_low = has_low, .has_high = has_high, .at_low = a, .at_high = b, .low = -INFINITY, .high = INFINITY};
    if (u->n == INTERVALS || (a.t && !number_real(a, &i.low)) || (b.t && !number_real(b, &i.high))) return false;
    if (isinf(i.low)) i.has_low = false;
    if (isinf(i.high)) i.has_high = false;
    if (i.low < i.high || (i.low == i.high && i.has_low && i.has_high)) u->list[u->n++] = i;
    else if (i.low > i.high) return false;
    return true;
}

/* a op variable, or variable op a turned around. */
static bool half_line(union_of *u, side a, int op, side variable) {
    side none = {0};
    if (!is_name(variable) || !number_is_constant(a) || !strchr("<>lg", op)) return false;
    u->variable = variable;
    bool end = op == 'l' || op == 'g';
    return op == '<' || op == 'l' ? add_interval(u, a, none, end, false) : add_interval(u, none, a, false, end);
}

static int turned(int op) {
    static const char from[] = "<>lg", to[] = "><gl";
    const char *c = strchr(from, op);
    return c ? to[c - from] : op;
}

/* x < 3, -2 <= x < 7 */
static bool inequality(union_of *u, side a) {
    int op = node_of(a)->op;
    side left = child(a, 0), right = child(a, 1);
    if (kind_of(left) != N_REL)
        return is_name(right) ? half_line(u, left, op, right) : half_line(u, right, turned(op), left);
    int first = node_of(left)->op;
    side low = child(left, 0), variable = child(left, 1);
    bool rising = strchr("<l", first) && strchr("<l", op), falling = strchr(">g", first) && strchr(">g", op);
    if (kind_of(low) == N_REL || !is_name(variable) || (!rising && !falling)) return false;
    u->variable = variable;
    bool has_first = first == 'l' || first == 'g', has_second = op == 'l' || op == 'g';
    return rising ? add_interval(u, low, right, has_first, has_second)
                  : add_interval(u, right, low, has_second, has_first);
}

static bool intervals_of(union_of *u, side a, bool in_union) {
    int op = node_of(a)->op;
    side none = {0};
    switch (kind_of(a)) {
    case N_REALS: return add_interval(u, none, none, false, false);
    case N_TUPLE:
        return children(a) == 2 &&
               add_interval(u, child(a, 0), child(a, 1), op == '[' || op == 'l', op == '[' || op == 'r');
    case N_SET:
        for (int i = 0, n = children(a); in_union && i < n; i++)
            if (!add_interval(u, child(a, i), child(a, i), true, true)) return false;
        return in_union;
    case N_UNION:
        for (int i = 0, n = children(a); i < n; i++)
            if (kind_of(child(a, i)) == N_UNION || !intervals_of(u, child(a, i), true)) return false;
        return true;
    case N_REL: return inequality(u, a);
    default: return false;
    }
}

static int by_low(const void *p, const void *q) {
    const interval *a = p, *b = q;
    if (a->low != b->low) return a->low < b->low ? -1 : 1;
    return (int)b->has_low - (int)a->has_low;
}

/* Sorts, and joins what overlaps or touches. */
static void join(union_of *u) {
    qsort(u->list, (size_t)u->n, sizeof *u->list, by_low);
    int n = 0;
    for (int i = 0; i < u->n; i++) {
        interval *last = n ? &u->list[n - 1] : NULL, x = u->list[i];
        bool touches = last && (x.low < last->high || (x.low == last->high && (x.has_low || last->has_high)));
        if (!touches) {
            u->list[n++] = x;
        } else if (x.high > last->high || (x.high == last->high && x.has_high)) {
            last->high = x.high;
            last->has_high = x.has_high;
            last->at_high = x.at_high;
        }
    }
    u->n = n;
}

static verdict ends_equal(double a, double b, side g, side t) {
    if (isinf(a) || isinf(b)) return a == b ? RIGHT : WRONG;
    return equal(g, t);
}

static verdict unions_equal(union_of *g, union_of *t) {
    join(g);
    join(t);
    if (g->variable.t && t->variable.t && numbers_equal(g->variable, t->variable) != RIGHT) return WRONG;
    verdict v = g->n == t->n ? RIGHT : WRONG;
    for (int i = 0; i < g->n && v != WRONG; i++) {
        const interval *a = &g->list[i], *b = &t->list[i];
        if (a->has_low != b->has_low || a->has_high != b->has_high) return WRONG;
        v = all(v, ends_equal(a->low, b->low, a->at_low, b->at_low));
        v = all(v, ends_equal(a->high, b->high, a->at_high, b->at_high));
    }
    return v;
}

/* (1, 2) is a point as well. */
static bool may_be_point(side a) {
    double low, high;
    if (kind_of(a) != N_TUPLE || node_of(a)->op != '(') return false;
    return children(a) != 2 || !number_real(child(a, 0), &low) || !number_real(child(a, 1), &high) ||
           (!isinf(low) && !isinf(high));
}

static bool is_interval(side a) {
    node_kind k = kind_of(a);
    return k == N_UNION || k == N_REALS || (k == N_TUPLE && children(a) == 2 && !may_be_point(a));
}

static verdict intervals_equal(side g, side t) {
    union_of a = {0}, b = {0};
    bool tuples = kind_of(g) == N_TUPLE && kind_of(t) == N_TUPLE; /* with letters in them */
    bool read_g = intervals_of(&a, g, false), read_t = intervals_of(&b, t, false);
    if (tuples && !(read_g && read_t)) return lists_equal(g, t);
    if (!read_g) return is_interval(g) || kind_of(g) == N_REL ? UNSURE : WRONG;
    if (!read_t) return kind_of(t) == N_REL ? UNSURE : WRONG;
    verdict v = unions_equal(&a, &b);
    return v == RIGHT && may_be_point(g) && !may_be_point(t) ? UNSURE : v;
}

static verdict collections_equal(side g, side t) {
    if (kind_of(g) == N_WORD || kind_of(t) == N_WORD) return words_equal(g, t);
    if (kind_of(g) == N_MATRIX || kind_of(t) == N_MATRIX) return matrices_equal(g, t);
    if (is_interval(g) || is_interval(t)) return intervals_equal(g, t);
    return lists_equal(g, t);
}

/* --- relations --------------------------------------------------------------------------------------------------- */

/* Takes "name = ... = value" and "name in set" apart; an equation between equal numbers is their value, too. */
static bool assignment(side a, side *name, side *value) {
    if (kind_of(a) != N_REL || !strchr("=e", node_of(a)->op)) return false;
    side left = child(a, 0), right = child(a, 1);
    for (; kind_of(left) == N_REL; left = child(left, 0))
        if (node_of(left)->op != '=') return false;
    *name = left;
    *value = right;
    if (is_name(left)) return true;
    if (node_of(a)->op == '=' && is_name(right)) {
        *name = right;
        *value = left;
        return true;
    }
    return !is_collection(left) && !is_collection(right) && number_is_constant(left) && number_is_constant(right) &&
           kind_of(left) != N_WORD && kind_of(right) != N_WORD && numbers_equal(left, right) == RIGHT;
}

/* 0: =, 1: not equal, 2: in, 3: an inequality */
static int sort_of(side a) {
    int op = node_of(a)->op;
    return op == '=' ? 0 : op == 'n' ? 1 : op == 'e' ? 2 : 3;
}

/* lhs op rhs of both, moved to one side, differ by a factor. */
static verdict relations_proportional(side g, side t) {
    side a = child(g, 0), b = child(g, 1), p = child(t, 0), q = child(t, 1);
    if (sort_of(g) != sort_of(t) || (kind_of(a) == N_REL) != (kind_of(p) == N_REL)) return WRONG;
    if (kind_of(a) >= N_REL || kind_of(b) >= N_REL || kind_of(p) >= N_REL || kind_of(q) >= N_REL) return UNSURE;
    int op_g = node_of(g)->op, op_t = node_of(t)->op, c = differences_proportional(a, b, p, q);
    if (c == 0) return WRONG;
    return op_g == (c > 0 || sort_of(g) < 2 ? op_t : turned(op_t)) ? RIGHT : WRONG;
}

static verdict relations_equal(side g, side t) {
    side name_g, name_t, value_g, value_t;
    if (assignment(g, &name_g, &value_g) && assignment(t, &name_t, &value_t)) {
        bool words = kind_of(name_g) == N_WORD || kind_of(name_t) == N_WORD;
        if (words || equal(name_g, name_t) == RIGHT) return equal(value_g, value_t);
    }
    union_of a = {0}, b = {0};
    if (intervals_of(&a, g, false) && intervals_of(&b, t, false)) return unions_equal(&a, &b);
    return relations_proportional(g, t);
}

static verdict relation_and_value(side g, side t) {
    side name, value;
    if (kind_of(g) == N_REL) {
        if (assignment(g, &name, &value)) return equal(value, t);
        if (is_collection(t)) return intervals_equal(g, t);
        return WRONG;
    }
    if (assignment(t, &name, &value)) return equal(g, value);
    if (is_collection(g) && !is_relation(t, '=')) return intervals_equal(g, t);
    side right = child(t, 1); /* x + y = 5 for 5: the question may ask for x + y */
    return is_relation(t, '=') && !number_is_constant(child(t, 0)) && equal(g, right) == RIGHT ? UNSURE : WRONG;
}

static verdict equal(side g, side t) {
    unit_text unit_g = take_unit(&g), unit_t = take_unit(&t);
    bool rel_g = kind_of(g) == N_REL, rel_t = kind_of(t) == N_REL;
    verdict v;
    if (rel_g && rel_t) v = relations_equal(g, t);
    else if (rel_g || rel_t) v = relation_and_value(g, t);
    else if (is_collection(g) || is_collection(t)) v = collections_equal(g, t);
    else if ((number_has_sign(g) || number_has_sign(t)) && g.sign == 0 && t.sign == 0) v = lists_equal(g, t);
    else v = scalars_equal(g, t);
    return with_units(v, unit_g, unit_t);
}

/* --- whole answers ----------------------------------------------------------------------------------------------- */

static bool same_text(const tree *g, const tree *t) {
    const char *p = g->text.p, *q = t->text.p;
    for (;;) {
        const char *a = p, *b = q;
        while (*p == ' ') p++;
        while (*q == ' ') q++;
        if (*p != *q) return false;
        if (!*p) return true;
        bool apart_a = p > a, apart_b = q > b, begin = a == g->text.p;
        bool joined = !begin && strchr("0123456789", a[-1]) && strchr("0123456789", *p);
        if (joined && apart_a != apart_b) return false; /* 1 1/2 and 11/2 */
        p++;
        q++;
    }
}

static verdict trees_equal(const tree *g, const tree *t) {
    if (!g->text.p) return UNSURE;
    if (!t->text.p) return WRONG;
    if (same_text(g, t)) return RIGHT;
    if (!g->root) return UNSURE;
    if (!t->root) return WRONG;
    values *vg = values_open(g), *vt = values_open(t);
    verdict v = UNSURE;
    if (vg && vt) v = equal((side){g, vg, g->root, 0}, (side){t, vt, t->root, 0});
    values_close(vg);
    values_close(vt);
    return v;
}

verdict answer_equal(const char *gold, const char *given) {
    tree g, t;
    tree_read(&g, gold);
    tree_read(&t, given);
    verdict v = trees_equal(&g, &t);
    tree_free(&g);
    tree_free(&t);
    return v;
}
