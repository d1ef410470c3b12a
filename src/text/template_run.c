/* Walks the tree of a template and prints. Scopes are those of jinja2: for bodies, macros and captured blocks have
 * their own, if has not; an assignment goes into the innermost one and is gone with it, which is why templates carry
 * state in namespaces. Every node costs a step and a level of depth, so no template runs for long or deep. */
#include "text/template_inner.h"

#include <math.h>
#include <string.h>

static status eval(run *r, const node *n, value *out);
static status exec_all(run *r, const node *n);

/* One more node, one level deeper; who enters takes the level off again when it is done. */
static status enter(run *r) {
    if (++r->depth > LIMIT_DEPTH) return run_refuse(r, "evaluation nested deeper than %d", LIMIT_DEPTH);
    return run_spend(r, 1);
}

/* ---- names ---- */

static status scope_new(run *r, scope *parent, scope **out) {
    TRY(run_take(r, sizeof **out, out));
    **out = (scope){.parent = parent};
    return OK;
}

static status bind(run *r, scope *s, int name, value v) {
    for (size_t i = 0; i < s->n; i++) {
        if (s->at[i].name != name) continue;
        s->at[i].v = v;
        return OK;
    }
    if (s->n == s->cap) {
        struct binding *at;
        size_t cap = s->cap ? s->cap * 2 : 4;
        TRY(run_take(r, cap * sizeof *at, &at));
        if (s->n) memcpy(at, s->at, s->n * sizeof *at);
        s->at = at;
        s->cap = cap;
    }
    s->at[s->n++] = (struct binding){name, v};
    return OK;
}

static status look_up(run *r, int name, value *out) {
    for (const scope *s = r->scope; s; s = s->parent) {
        TRY(run_spend(r, s->n / 8));
        for (size_t i = 0; i < s->n; i++) {
            if (s->at[i].name != name) continue;
            *out = s->at[i].v;
            return OK;
        }
    }
    *out = value_undefined(r->t->names[name]);
    return OK;
}

/* What the template's names mean before it begins: the caller's variables, then functions. */
static status bind_variables(run *r, const json_t *variables) {
    for (int i = 0; i < r->t->n_names; i++) {
        text name = r->t->names[i];
        const json_t *j = json_object_getn(variables, name.p, name.n);
        const builtin *f = function_find(name);
        value v = {V_FUNCTION, {.function = f}};
        if (j) TRY(value_from_json(r, j, &v));
        if (j || f) TRY(bind(r, r->scope, i, v));
    }
    return OK;
}

/* ---- operators ---- */

static status wrong_operands(run *r, const char *sign, const value *a, const value *b) {
    const value *u = a->kind == V_UNDEFINED ? a : b;
    if (u->kind == V_UNDEFINED) return run_refuse(r, "'%.*s' is undefined", (int)u->s.n, u->s.p);
    return run_refuse(r, "%s %s %s is not possible", value_kind_name(a), sign, value_kind_name(b));
}

static status too_large(run *r) {
    return run_refuse(r, "an integer beyond 64 bits");
}

/* quotient rounded down, remainder with the divisor's sign */
static int64_t floor_div(int64_t a, int64_t b) {
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

static status int_power(run *r, int64_t base, int64_t exponent, value *out) {
    int64_t v = 1;
    if (exponent < 0) {
        if (base == 0) return run_refuse(r, "division by zero");
        *out = value_float(pow((double)base, (double)exponent));
        return OK;
    }
    for (; exponent; exponent >>= 1) {
        if ((exponent & 1) && __builtin_mul_overflow(v, base, &v)) return too_large(r);
        if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) return too_large(r);
    }
    *out = value_int(v);
    return OK;
}

static status int_arithmetic(run *r, op o, int64_t a, int64_t b, value *out) {
    int64_t v = 0;
    bool over = false;
    if ((o == OP_DIV || o == OP_FLOORDIV || o == OP_MOD) && b == 0) return run_refuse(r, "division by zero");
    switch (o) {
    case OP_ADD: over = __builtin_add_overflow(a, b, &v); break;
    case OP_SUB: over = __builtin_sub_overflow(a, b, &v); break;
    case OP_MUL: over = __builtin_mul_overflow(a, b, &v); break;
    case OP_DIV: *out = value_float((double)a / (double)b); return OK;
    case OP_POW: return int_power(r, a, b, out);
    default:
        if (b == -1) over = o == OP_FLOORDIV && __builtin_sub_overflow((int64_t)0, a, &v);
        else v = o == OP_FLOORDIV ? floor_div(a, b) : a - floor_div(a, b) * b;
    }
    *out = value_int(v);
    return over ? too_large(r) : OK;
}

static status float_arithmetic(run *r, op o, double a, double b, value *out) {
    if ((o == OP_DIV || o == OP_FLOORDIV || o == OP_MOD) && b == 0) return run_refuse(r, "division by zero");
    double v;
    switch (o) {
    case OP_ADD: v = a + b; break;
    case OP_SUB: v = a - b; break;
    case OP_MUL: v = a * b; break;
    case OP_DIV: v = a / b; break;
    case OP_POW: v = pow(a, b); break;
    default:
        v = fmod(a, b);
        if (v != 0 && (v < 0) != (b < 0)) v += b;
        if (o == OP_FLOORDIV) v = nearbyint((a - v) / b);
    }
    *out = value_float(v);
    return OK;
}

static status join_lists(run *r, const value *a, const value *b, value *out) {
    value *at;
    TRY(value_list(r, a->kind, a->list->n + b->list->n, &at, out));
    if (a->list->n) memcpy(at, a->list->at, a->list->n * sizeof *at);
    if (b->list->n) memcpy(at + a->list->n, b->list->at, b->list->n * sizeof *at);
    return OK;
}

/* "ab" * 3, [0] * 3 */
static status repeat(run *r, const value *v, int64_t times, value *out) {
    size_t n = v->kind == V_STRING ? v->s.n : v->list->n;
    if (times < 0 || n == 0) times = 0;
    if (times && n > LIMIT_OUTPUT / (uint64_t)times)
        return run_refuse(r, "a product of more than %d bytes", LIMIT_OUTPUT);
    size_t all = n * (size_t)times;
    TRY(run_spend(r, (size_t)times + all / 16));
    if (v->kind != V_STRING) {
        value *at;
        TRY(value_list(r, v->kind, all, &at, out));
        for (size_t i = 0; i < all; i++) at[i] = v->list->at[i % n];
        return OK;
    }
    char *p;
    TRY(run_take(r, all + 1, &p));
    for (size_t i = 0; i < all; i += n) memcpy(p + i, v->s.p, n);
    *out = value_text((text){p, all});
    return OK;
}

static status binary(run *r, op o, const value *a, const value *b, value *out) {
    static const char *const sign[] = {"", "+", "-", "*", "/", "//", "%", "**"};
    if (o == OP_TILDE) {
        text x, y;
        TRY(value_to_text(r, a, &x));
        TRY(value_to_text(r, b, &y));
        return value_join(r, x, y, out);
    }
    if (value_is_number(a) && value_is_number(b)) {
        if (a->kind == V_FLOAT || b->kind == V_FLOAT)
            return float_arithmetic(r, o, value_as_float(a), value_as_float(b), out);
        return int_arithmetic(r, o, a->kind == V_INT ? a->i : a->b, b->kind == V_INT ? b->i : b->b, out);
    }
    if (o == OP_ADD && a->kind == b->kind) {
        if (a->kind == V_STRING) return value_join(r, a->s, b->s, out);
        if (a->kind == V_LIST || a->kind == V_TUPLE) return join_lists(r, a, b, out);
    }
    if (o == OP_MUL) {
        const value *count = value_is_number(a) ? a : b, *v = value_is_number(a) ? b : a;
        if ((count->kind == V_INT || count->kind == V_BOOL) &&
            (v->kind == V_STRING || v->kind == V_LIST || v->kind == V_TUPLE))
            return repeat(r, v, count->kind == V_INT ? count->i : count->b, out);
    }
    if (o == OP_MOD && a->kind == V_STRING)
        return fail(&r->err, ERR_UNSUPPORTED, "formatting with %% is not in the supported subset of Jinja");
    return wrong_operands(r, sign[o], a, b);
}

static status compare(run *r, op o, const value *a, const value *b, bool *out) {
    int order;
    if (o == OP_EQ || o == OP_NE) {
        TRY(values_equal(r, a, b, out));
        *out = *out == (o == OP_EQ);
        return OK;
    }
    if (o == OP_IN || o == OP_NOT_IN) {
        TRY(value_contains(r, b, a, out));
        *out = *out == (o == OP_IN);
        return OK;
    }
    TRY(values_order(r, a, b, &order));
    *out = o == OP_LT ? order < 0 : o == OP_LE ? order <= 0 : o == OP_GT ? order > 0 : order >= 0;
    return OK;
}

/* a < b < c: b is computed once, and c only if a < b holds */
static status eval_compare(run *r, const node *n, value *out) {
    value left, right;
    bool holds = true;
    TRY(eval(r, n->a, &left));
    for (const node *k = n->b; k && holds; k = k->next) {
        TRY(eval(r, k->a, &right));
        TRY(compare(r, k->op, &left, &right, &holds));
        left = right;
    }
    *out = value_bool(holds);
    return OK;
}

static status eval_sign(run *r, const node *n, value *out) {
    value v, zero = value_int(0);
    TRY(eval(r, n->a, &v));
    if (!value_is_number(&v)) return wrong_operands(r, n->kind == N_NEGATE ? "-" : "+", &zero, &v);
    if (v.kind == V_FLOAT) {
        *out = value_float(n->kind == N_NEGATE ? -v.d : v.d);
        return OK;
    }
    return binary(r, n->kind == N_NEGATE ? OP_SUB : OP_ADD, &zero, &v, out);
}

/* ---- slices ---- */

/* A bound as Python reads it: negative counts from the end, and nothing goes beyond the ends. */
static status slice_bound(run *r, const node *n, int64_t len, bool backwards, int64_t absent, int64_t *out) {
    value v = {.kind = V_NONE};
    if (n) TRY(eval(r, n, &v));
    *out = absent;
    if (v.kind == V_NONE) return OK;
    if (v.kind != V_INT && v.kind != V_BOOL)
        return run_refuse(r, "a slice wants integers, not %s", value_kind_name(&v));
    int64_t i = v.kind == V_INT ? v.i : v.b;
    if (i < 0) i += len;
    int64_t low = backwards ? -1 : 0, high = backwards ? len - 1 : len;
    *out = i < low ? low : i > high ? high : i;
    return OK;
}

static status eval_slice(run *r, const node *n, value *out) {
    value v, step = value_int(1);
    const value *at;
    size_t len, count = 0;
    int64_t from, to;
    TRY(eval(r, n->a, &v));
    if (v.kind != V_STRING && v.kind != V_LIST && v.kind != V_TUPLE) {
        if (v.kind == V_UNDEFINED) return run_refuse(r, "'%.*s' is undefined", (int)v.s.n, v.s.p);
        return run_refuse(r, "%s cannot be sliced", value_kind_name(&v));
    }
    TRY(value_items(r, &v, &at, &len));
    if (n->d) TRY(eval(r, n->d, &step));
    if (step.kind == V_NONE) step = value_int(1);
    if (step.kind != V_INT || step.i == 0)
        return run_refuse(r, "the step of a slice should be an integer other than 0");
    bool back = step.i < 0;
    int64_t l = (int64_t)len, s = step.i > l ? l + 1 : step.i < -l ? -l - 1 : step.i; /* no overflow in from + s */
    TRY(slice_bound(r, n->b, l, back, back ? l - 1 : 0, &from));
    TRY(slice_bound(r, n->c, l, back, back ? -1 : l, &to));
    for (int64_t i = from; back ? i > to : i < to; i += s) count++;
    TRY(run_spend(r, count));
    if (v.kind != V_STRING) {
        value *items;
        TRY(value_list(r, v.kind, count, &items, out));
        for (size_t i = 0; i < count; i++) items[i] = at[from + (int64_t)i * s];
        return OK;
    }
    if (s == 1 && count) { /* a piece of the string itself */
        const char *first = at[from].s.p, *end = at[to - 1].s.p + at[to - 1].s.n;
        *out = value_text((text){first, (size_t)(end - first)});
        return OK;
    }
    str t = {0};
    for (size_t i = 0; i < count; i++) {
        text c = at[from + (int64_t)i * s].s;
        str_add(&t, c.p, c.n);
    }
    return value_from_str(r, &t, out);
}

/* ---- calls ---- */

static status eval_args(run *r, const node *n, args *out) {
    size_t count = 0;
    *out = (args){0};
    for (const node *k = n; k; k = k->next) count++;
    if (!count) return OK;
    TRY(run_take_values(r, count, &out->at));
    TRY(run_take_values(r, count, &out->named));
    TRY(run_take(r, count * sizeof(text), &out->names));
    for (; n; n = n->next) {
        if (n->kind != N_KEYWORD) {
            TRY(eval(r, n, out->at + out->n++));
            continue;
        }
        out->names[out->n_named] = n->v.s;
        TRY(eval(r, n->a, out->named + out->n_named++));
    }
    return OK;
}

/* What the statements print, as a value. */
static status capture(run *r, const node *body, value *out) {
    str saved = r->out;
    r->out = (str){0};
    status st = exec_all(r, body);
    str got = r->out;
    r->out = saved;
    if (st == OK) return value_from_str(r, &got, out);
    str_free(&got);
    return st;
}

static status bind_parameters(run *r, const macro *m, const args *a) {
    size_t i = 0, used = 0;
    for (const node *p = m->def->a; p; p = p->next, i++) {
        value v = value_undefined(p->v.s);
        bool found = i < a->n;
        if (found) v = a->at[i];
        for (size_t k = 0; k < a->n_named; k++) {
            if (!text_eq(a->names[k], p->v.s)) continue;
            if (found) return run_refuse(r, "the argument '%.*s' is given twice", (int)p->v.s.n, p->v.s.p);
            v = a->named[k];
            found = true;
            used++;
        }
        if (!found && p->a) TRY(eval(r, p->a, &v));
        TRY(bind(r, r->scope, p->name, v));
    }
    text name = r->t->names[m->def->name];
    if (a->n > i || used < a->n_named)
        return run_refuse(r, "the macro '%.*s' does not take these arguments", (int)name.n, name.p);
    return OK;
}

static status call_macro(run *r, const macro *m, const args *a, value *out) {
    scope *caller = r->scope;
    TRY(run_spend(r, 64)); /* a text of its own, and a scope */
    TRY(scope_new(r, m->closure, &r->scope));
    TRY(bind_parameters(r, m, a));
    TRY(capture(r, m->def->body, out));
    r->scope = caller;
    return OK;
}

static status eval_call(run *r, const node *n, value *out) {
    value f;
    args a;
    TRY(eval(r, n->a, &f));
    TRY(eval_args(r, n->b, &a));
    switch (f.kind) {
    case V_FUNCTION: return builtin_call(r, f.function, NULL, &a, out);
    case V_METHOD: return builtin_call(r, f.method->f, &f.method->self, &a, out);
    case V_MACRO: return call_macro(r, f.macro, &a, out);
    case V_UNDEFINED: return run_refuse(r, "'%.*s' is undefined", (int)f.s.n, f.s.p);
    default: return run_refuse(r, "%s cannot be called", value_kind_name(&f));
    }
}

static status apply(run *r, const node *n, const value *self, value *out) {
    args a;
    if (!n->builtin)
        return run_refuse(r, "there is no %s '%.*s'", n->kind == N_TEST ? "test" : "filter", (int)n->v.s.n, n->v.s.p);
    TRY(eval_args(r, n->b, &a));
    return builtin_call(r, n->builtin, self, &a, out);
}

/* The filters of a {% set x | f | g %} block, from the inside out. */
static status apply_filters(run *r, const node *n, const value *captured, value *out) {
    if (n->kind == N_CONST) {
        *out = *captured;
        return OK;
    }
    value v;
    if (n->kind != N_FILTER) return run_refuse(r, "only filters may stand in a set block");
    TRY(enter(r));
    TRY(apply_filters(r, n->a, captured, &v));
    r->depth--;
    return apply(r, n, &v, out);
}

/* ---- expressions ---- */

static status eval_items(run *r, const node *n, value *out) {
    size_t count = 0;
    value *at;
    for (const node *k = n->a; k; k = k->next) count++;
    TRY(value_list(r, n->kind == N_TUPLE ? V_TUPLE : V_LIST, count, &at, out));
    for (const node *k = n->a; k; k = k->next) TRY(eval(r, k, at++));
    return OK;
}

static status eval_dict(run *r, const node *n, value *out) {
    TRY(value_dict(r, 4, out));
    for (const node *k = n->a; k; k = k->next) {
        value key, val;
        TRY(eval(r, k->a, &key));
        TRY(eval(r, k->b, &val));
        TRY(dict_put(r, out->dict, key, val));
    }
    return OK;
}

static status eval_kind(run *r, const node *n, value *out) {
    value a, b;
    switch (n->kind) {
    case N_CONST: *out = n->v; return OK;
    case N_NAME: return look_up(r, n->name, out);
    case N_LIST:
    case N_TUPLE: return eval_items(r, n, out);
    case N_DICT: return eval_dict(r, n, out);
    case N_COMPARE: return eval_compare(r, n, out);
    case N_SLICE: return eval_slice(r, n, out);
    case N_CALL: return eval_call(r, n, out);
    case N_NEGATE:
    case N_PLUS: return eval_sign(r, n, out);
    case N_CONDEXPR:
        TRY(eval(r, n->b, &b));
        if (value_truth(&b)) return eval(r, n->a, out);
        *out = value_undefined((text){"the value of an if without else", 31});
        return n->c ? eval(r, n->c, out) : OK;
    default: break;
    }
    TRY(eval(r, n->a, &a)); /* the others begin with their operand */
    switch (n->kind) {
    case N_ATTR: return value_attr(r, &a, n->v.s, out);
    case N_FILTER:
    case N_TEST: return apply(r, n, &a, out);
    case N_NOT: *out = value_bool(!value_truth(&a)); return OK;
    case N_AND:
    case N_OR: *out = a; return value_truth(&a) == (n->kind == N_AND) ? eval(r, n->b, out) : OK;
    default: break;
    }
    TRY(eval(r, n->b, &b));
    return n->kind == N_ITEM ? value_item(r, &a, &b, out) : binary(r, n->op, &a, &b, out);
}

/* The line is put before the sentence once, where it went wrong first. */
static status locate(run *r, const node *n, status st) {
    if (st == OK || r->located) return st;
    r->located = true;
    return wrap(&r->err, "template: line %d", n->line);
}

static status eval(run *r, const node *n, value *out) {
    status st = enter(r);
    if (st == OK) st = eval_kind(r, n, out);
    r->depth--;
    return locate(r, n, st);
}

/* ---- statements ---- */

static status assign(run *r, const node *target, const value *v) {
    if (target->kind == N_NAME) return bind(r, r->scope, target->name, *v);
    if (target->kind == N_ATTR) {
        value object;
        TRY(eval(r, target->a, &object));
        if (object.kind != V_NAMESPACE) return run_refuse(r, "only a namespace's attributes can be set");
        return dict_put(r, object.dict, target->v, *v);
    }
    const value *at;
    size_t n, count = 0;
    for (const node *k = target->a; k; k = k->next) count++;
    TRY(value_items(r, v, &at, &n));
    if (n != count) return run_refuse(r, "%zu values for %zu names", n, count);
    for (const node *k = target->a; k; k = k->next) TRY(assign(r, k, at++));
    return OK;
}

/* for x in list if condition: the items that pass */
static status filter_items(run *r, const node *n, const value **at, size_t *len) {
    value *kept, yes;
    size_t count = 0;
    TRY(run_take_values(r, *len, &kept));
    for (size_t i = 0; i < *len; i++) {
        TRY(assign(r, n->a, *at + i));
        TRY(eval(r, n->c, &yes));
        if (value_truth(&yes)) kept[count++] = (*at)[i];
    }
    *at = kept;
    *len = count;
    return OK;
}

static status exec_for(run *r, const node *n) {
    value over;
    const value *at;
    loop *l;
    size_t len;
    TRY(eval(r, n->b, &over));
    TRY(value_items(r, &over, &at, &len));
    scope *outer = r->scope;
    TRY(scope_new(r, outer, &r->scope));
    if (n->c) TRY(filter_items(r, n, &at, &len));
    TRY(run_take(r, sizeof *l, &l));
    *l = (loop){at, len, 0};
    for (; l->index < len && !r->leave; l->index++) {
        r->scope->n = 0; /* every round has a fresh scope */
        TRY(run_spend(r, 1));
        TRY(bind(r, r->scope, NAME_LOOP, (value){V_LOOP, {.loop = l}}));
        TRY(assign(r, n->a, at + l->index));
        TRY(exec_all(r, n->body));
        r->again = false;
    }
    r->leave = false;
    r->scope = outer;
    return len == 0 ? exec_all(r, n->or_else) : OK;
}

static status exec_if(run *r, const node *n) {
    for (;; n = n->or_else) { /* along the elifs */
        value v;
        TRY(eval(r, n->a, &v));
        if (value_truth(&v)) return exec_all(r, n->body);
        if (!n->elif) return exec_all(r, n->or_else);
    }
}

static status exec_capture(run *r, const node *n) {
    value v, filtered;
    scope *outer = r->scope;
    TRY(scope_new(r, outer, &r->scope));
    TRY(capture(r, n->body, &v));
    r->scope = outer;
    TRY(apply_filters(r, n->b, &v, &filtered));
    return assign(r, n->a, &filtered);
}

static status exec_macro(run *r, const node *n) {
    macro *m;
    TRY(run_take(r, sizeof *m, &m));
    *m = (macro){n, r->scope};
    return bind(r, r->scope, n->name, (value){V_MACRO, {.macro = m}});
}

static status exec_kind(run *r, const node *n) {
    value v;
    switch (n->kind) {
    case S_TEXT: return value_print(r, &r->out, &n->v);
    case S_PRINT: TRY(eval(r, n->a, &v)); return value_print(r, &r->out, &v);
    case S_FOR: return exec_for(r, n);
    case S_IF: return exec_if(r, n);
    case S_SET: TRY(eval(r, n->b, &v)); return assign(r, n->a, &v);
    case S_CAPTURE: return exec_capture(r, n);
    case S_MACRO: return exec_macro(r, n);
    case S_BREAK: r->leave = true; return OK;
    default: r->again = true; return OK; /* S_CONTINUE */
    }
}

static status exec_all(run *r, const node *n) {
    for (; n && !r->leave && !r->again; n = n->next) {
        status st = enter(r);
        if (st == OK) st = exec_kind(r, n);
        r->depth--;
        TRY(locate(r, n, st));
    }
    return OK;
}

/* ---- the door ---- */

static status run_all(run *r, const json_t *variables) {
    TRY(scope_new(r, NULL, &r->scope));
    TRY(bind_variables(r, variables));
    TRY(exec_all(r, r->t->body));
    return str_check(&r->out, &r->err);
}

status template_render(const chat_template *t, const json_t *variables, str *out, error *e) {
    run r = {.t = t, .mem = arena_open(64 << 10), .now = time(NULL)};
    if (!r.mem) return fail(e, ERR_NOMEM, "template: memory is out");
    const json_t *now = json_object_get(variables, "now");
    if (json_is_integer(now)) r.now = (time_t)json_integer_value(now);
    status st = run_all(&r, variables);
    if (st == OK) {
        str_add(out, r.out.p, r.out.n);
        st = str_check(out, &r.err);
    }
    if (st != OK && !r.located) wrap(&r.err, "template");
    if (st != OK) fail(e, st, "%s", r.err.text);
    str_free(&r.out);
    arena_close(r.mem);
    return st;
}
