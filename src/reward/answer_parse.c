/* Recursive descent, one function a level:
 *
 *   list     element {, element}                 a separator is , ; "and" or "or"
 *   element  sets {relation sets}                = < > <= >= != in
 *   sets     sum {\cup sum}
 *   sum      product {+|-|\pm product} [unit]
 *   product  run {*|/|: run}
 *   run      {-} power {power}                   a product without a sign
 *   power    postfix [^ exponent]
 *   postfix  primary {!|%|degree}
 *
 * Every level gives the number of its node, 0 when the text is not read. All recursion passes primary or an exponent,
 * where the depth is counted. */
#include "reward/answer_parse.h"

#include <stdlib.h>
#include <string.h>
#include "reward/answer_tokens.h"
#include "reward/answer_units.h"

enum { DEPTH = 60 };

typedef struct parser {
    tree *t;
    const char *p;
    int cap, depth;
    int brackets; /* open ones: a comma in them never separates thousands */
    bool bar;     /* inside |...|: the next bar closes */
} parser;

static token look(const parser *ps) {
    return token_at(ps->p, ps->brackets);
}

static bool take(parser *ps, int op) {
    token k = look(ps);
    if (k.kind != T_OP || k.op != op) return false;
    ps->p = k.end;
    return true;
}

/* --- nodes ------------------------------------------------------------------------------------------------------- */

/* first: its children, already in a row. */
static int new_node(parser *ps, node_kind kind, int op, int first) {
    if (ps->t->n >= ps->cap) return 0;
    ps->t->nodes[ps->t->n] = (node){.kind = kind, .op = op, .first = first};
    return ps->t->n++;
}

static int one(parser *ps, node_kind kind, int op, int a) {
    return a ? new_node(ps, kind, op, a) : 0;
}

static int two(parser *ps, node_kind kind, int op, int a, int b) {
    if (!a || !b) return 0;
    ps->t->nodes[a].next = b;
    return new_node(ps, kind, op, a);
}

/* b may be missing. */
static int one_or_two(parser *ps, node_kind kind, int op, int a, int b) {
    return b ? two(ps, kind, op, a, b) : one(ps, kind, op, a);
}

static int leaf(parser *ps, node_kind kind, int op, const char *s, int n) {
    int x = new_node(ps, kind, op, 0);
    ps->t->nodes[x].s = s;
    ps->t->nodes[x].n = n;
    return x;
}

static int power(parser *ps);
static int primary(parser *ps);
static int sum(parser *ps);
static int list(parser *ps, node_kind kind);

/* --- what stands in front of others ------------------------------------------------------------------------------ */

/* {sum} with the opening brace taken: commas in it part no elements. */
static int group(parser *ps, int close) {
    const parser before = *ps;
    ps->bar = false;
    ps->brackets = 0;
    int a = sum(ps);
    ps->brackets = before.brackets;
    ps->bar = before.bar;
    return take(ps, close) ? a : 0;
}

/* What a command of LaTeX takes: {...}, one digit, or one thing. */
static int argument(parser *ps) {
    const char *p = token_skip(ps->p);
    ps->p = p;
    if (take(ps, '{')) return group(ps, '}');
    if (is_digit(*p)) {
        ps->p = p + 1;
        return leaf(ps, N_NUM, 0, p, 1);
    }
    if (is_letter(*p) && *p != 'e' && *p != 'i') {
        ps->p = p + 1;
        return leaf(ps, N_VAR, 0, p, 1);
    }
    return is_letter(*p) || *p == '\\' ? primary(ps) : 0;
}

static int fraction(parser *ps, node_kind kind) {
    int a = argument(ps);
    return a ? two(ps, kind, 0, a, argument(ps)) : 0;
}

/* \sqrt[n]{x}, sqrt(x) */
static int root(parser *ps, bool plain) {
    int degree = 0;
    if (!plain && *token_skip(ps->p) == '[') {
        take(ps, '[');
        if (!(degree = group(ps, ']'))) return 0;
    }
    int a = *token_skip(ps->p) == '(' ? (take(ps, '('), group(ps, ')')) : plain ? primary(ps) : argument(ps);
    return one_or_two(ps, N_ROOT, 0, a, degree);
}

/* What a function without brackets takes: 2x, \frac{\pi}{3}, x^2, but no other function. */
static int open_argument(parser *ps) {
    int a = 0;
    for (;;) {
        token k = look(ps);
        bool goes_on = k.kind == T_NUM ? !a : k.kind == T_VAR || k.kind == T_CONST || k.kind == T_CMD;
        if (k.kind == T_OP && k.op == '{' && !a) goes_on = true;
        if (!goes_on) return a;
        int b = power(ps);
        a = a ? two(ps, N_MUL, 0, a, b) : b;
        if (!b) return 0;
    }
}

/* The -1 of \sin^{-1}, which is the inverse. */
static bool inverse(parser *ps) {
    const char *p = token_skip(ps->p);
    size_t n = strncmp(p, "{-1}", 4) == 0 ? 4 : strncmp(p, "-1", 2) == 0 ? 2 : 0;
    if (n) ps->p = p + n;
    return n > 0;
}

static int function_of(parser *ps, int which) {
    int base = 0, exponent = 0;
    if (which == F_LOG && take(ps, '_') && !(base = argument(ps))) return 0;
    if (take(ps, '^')) {
        if (inverse(ps)) {
            if (which > F_TAN) return 0;
            which += F_ASIN - F_SIN;
        } else if (!(exponent = argument(ps))) return 0;
    }
    int a = *token_skip(ps->p) == '(' ? (take(ps, '('), group(ps, ')')) : open_argument(ps);
    int f = one_or_two(ps, N_FUNC, which, a, base);
    return exponent ? two(ps, N_POW, 0, f, exponent) : f;
}

/* x, x_1, x_{max} */
static int variable(parser *ps, token k) {
    const char *from = k.s;
    ps->p = k.end;
    if (*blanks_end(ps->p) == '_') {
        const char *p = blanks_end(blanks_end(ps->p) + 1);
        if (*p == '{') p = token_brace_end(p);
        else if (*p == '\\') p = letters_end(p + 1);
        else p = is_digit(*p) || is_letter(*p) ? p + 1 : NULL;
        if (!p) return 0;
        ps->p = p;
    }
    return leaf(ps, N_VAR, 0, from, (int)(ps->p - from));
}

/* Behind a digit or {digits}; NULL: something else is there. */
static const char *digits_in_braces(const char *p) {
    if (!p) return NULL;
    p = token_skip(p);
    if (is_digit(*p)) return p + 1;
    const char *end = *p == '{' ? blanks_end(digits_end(blanks_end(p + 1))) : NULL;
    return end && *end == '}' && is_digit(*blanks_end(p + 1)) ? end + 1 : NULL;
}

/* Behind a whole number: its base, or the fraction of a mixed number. */
static int number(parser *ps, token k) {
    ps->p = k.end;
    int a = leaf(ps, N_NUM, 0, k.s, k.n);
    if (digits_end(k.s) != k.end) return a;
    const char *p = blanks_end(k.end);
    if (*p == '_') {
        bool brace = *(p = blanks_end(p + 1)) == '{';
        const char *base = blanks_end(p + brace), *end = digits_end(base);
        if (end == base || (brace && *blanks_end(end) != '}')) return 0;
        ps->p = brace ? blanks_end(end) + 1 : end;
        node *x = &ps->t->nodes[a];
        x->kind = N_BASE;
        x->base = base;
        x->n_base = (int)(end - base);
        return a;
    }
    if (is_digit(*p) && p > k.end) { /* 1 1/2 */
        const char *up = digits_end(p), *slash = blanks_end(up), *down = blanks_end(slash + (*slash == '/')),
                   *end = digits_end(down);
        if (*slash != '/' || end == down || *end == '.') return 0;
        ps->p = end;
        int f = two(ps, N_DIV, 0, leaf(ps, N_NUM, 0, p, (int)(up - p)), leaf(ps, N_NUM, 0, down, (int)(end - down)));
        return two(ps, N_ADD, 0, a, f);
    }
    token f = look(ps);
    if (f.kind == T_CMD && f.n >= 4 && token_is(f.s + f.n - 4, 4, "frac") && digits_in_braces(digits_in_braces(f.end)))
        return two(ps, N_ADD, 0, a, primary(ps));
    return a;
}

/* (a) is a; (a, b) and the like are tuples or intervals. The opening bracket is taken. */
static int brackets(parser *ps, int open) {
    bool bar = ps->bar;
    ps->bar = false;
    ps->brackets++;
    int a = list(ps, N_TUPLE);
    ps->brackets--;
    ps->bar = bar;
    bool round = take(ps, ')');
    if (!a || (!round && !take(ps, ']'))) return 0;
    node *x = &ps->t->nodes[a];
    if (x->kind == N_TUPLE && x->op == 0) {
        x->op = open == '(' ? (round ? '(' : 'r') : round ? 'l' : '[';
        return a;
    }
    return (open == '(') == round ? a : 0;
}

/* \{a, b\}; a plain brace is a set when there is a comma in it. */
static int braces(parser *ps, bool set) {
    bool bar = ps->bar;
    if (set && take(ps, 's')) return new_node(ps, N_SET, '{', 0);
    ps->bar = false;
    ps->brackets += set;
    int a = list(ps, N_SET);
    ps->brackets -= set;
    ps->bar = bar;
    if (!a || !take(ps, set ? 's' : '}')) return 0;
    node *x = &ps->t->nodes[a];
    if (x->kind == N_SET && x->op == 0) {
        x->op = '{';
        return a;
    }
    return set ? new_node(ps, N_SET, '{', a) : a;
}

static int bars(parser *ps) {
    bool bar = ps->bar;
    ps->bar = true;
    int a = sum(ps);
    ps->bar = bar;
    return take(ps, '|') ? one(ps, N_FUNC, F_ABS, a) : 0;
}

static void append(parser *ps, int *first, int *last, int x) {
    if (*last) ps->t->nodes[*last].next = x;
    else *first = x;
    *last = x;
}

/* \begin{pmatrix} a & b \\ c & d \end{pmatrix}, with \begin taken */
static int matrix(parser *ps) {
    enum { KINDS = 6 };
    static const char *const kinds[KINDS] = {"{pmatrix}",     "{bmatrix}", "{matrix}",
                                             "{smallmatrix}", "{array}",   "{Bmatrix}"};
    const char *p = blanks_end(ps->p);
    size_t which = 0;
    while (which < KINDS && strncmp(p, kinds[which], strlen(kinds[which])) != 0) which++;
    if (which == KINDS) return 0;
    ps->p = p + strlen(kinds[which]);
    const char *columns = strcmp(kinds[which], "{array}") == 0 ? token_brace_end(blanks_end(ps->p)) : ps->p;
    if (!columns) return 0;
    ps->p = columns;
    int rows = 0, last_row = 0;
    do {
        if (strncmp(token_skip(ps->p), "\\end", 4) == 0) break;
        int cells = 0, last = 0;
        do {
            int x = sum(ps);
            if (!x) return 0;
            append(ps, &cells, &last, x);
        } while (take(ps, '&'));
        append(ps, &rows, &last_row, one(ps, N_LIST, 0, cells));
    } while (last_row && take(ps, 'N'));
    p = token_skip(ps->p);
    if (!last_row || strncmp(p, "\\end", 4) != 0) return 0;
    p = blanks_end(p + 4);
    if (strncmp(p, kinds[which], strlen(kinds[which])) != 0) return 0;
    ps->p = p + strlen(kinds[which]);
    return new_node(ps, N_MATRIX, 0, rows);
}

static int command(parser *ps, token k) {
    ps->p = k.end;
    if (k.n == 5 && token_is(k.s + 1, 4, "frac") && strchr("dtc", *k.s)) return fraction(ps, N_DIV);
    if (token_is(k.s, k.n, "frac")) return fraction(ps, N_DIV);
    if (token_is(k.s, k.n, "binom") || token_is(k.s, k.n, "dbinom") || token_is(k.s, k.n, "tbinom"))
        return fraction(ps, N_BINOM);
    if (token_is(k.s, k.n, "sqrt")) return root(ps, k.s == ps->t->text.p || k.s[-1] != '\\');
    if (token_is(k.s, k.n, "surd")) return root(ps, true);
    if (token_is(k.s, k.n, "begin")) return matrix(ps);
    if (token_is(k.s, k.n, "emptyset") || token_is(k.s, k.n, "varnothing")) return new_node(ps, N_SET, '{', 0);
    if (token_is(k.s, k.n, "R")) return new_node(ps, N_REALS, 0, 0);
    const char *set = blanks_end(k.end);
    size_t n = strncmp(set, "{R}", 3) == 0 ? 3 : *set == 'R' && !is_letter(set[1]);
    if (token_is(k.s, k.n, "mathbb") && n) {
        ps->p = set + n;
        return new_node(ps, N_REALS, 0, 0);
    }
    return 0;
}

static int sign_primary(parser *ps, int op) {
    int a;
    switch (op) {
    case '(':
    case '[': return brackets(ps, op);
    case '{': return braces(ps, false);
    case 'S': return braces(ps, true);
    case '|': return ps->bar ? 0 : bars(ps);
    case 'F': a = group(ps, 'f'); return one(ps, N_FUNC, F_FLOOR, a);
    case 'C': a = group(ps, 'c'); return one(ps, N_FUNC, F_CEIL, a);
    default: return 0;
    }
}

/* A letter in \text{} or \mathrm{} is a variable; other words are not numbers. */
static int text_letter(parser *ps, token k) {
    if (k.n != 1 || !is_letter(*k.s)) return 0;
    ps->p = k.end;
    return leaf(ps, N_VAR, 0, k.s, 1);
}

static int primary_of(parser *ps, token k) {
    ps->p = k.end;
    switch (k.kind) {
    case T_NUM: return number(ps, k);
    case T_VAR: return variable(ps, k);
    case T_CONST: return new_node(ps, N_CONST, k.op, 0);
    case T_FUNC: return function_of(ps, k.op);
    case T_CMD: return command(ps, k);
    case T_TEXT: return text_letter(ps, k);
    case T_OP: return sign_primary(ps, k.op);
    case T_WORD: /* xyz: its first letter */
        if (k.n > 3) return 0;
        k.end = k.s + 1;
        if (*k.s != 'e' && *k.s != 'i') return variable(ps, k);
        ps->p = k.end;
        return new_node(ps, N_CONST, *k.s, 0);
    default: return 0;
    }
}

static int primary(parser *ps) {
    if (++ps->depth > DEPTH) return 0; /* never goes back: all is given up */
    int a = primary_of(ps, look(ps));
    ps->depth--;
    return a;
}

/* --- operations -------------------------------------------------------------------------------------------------- */

static int postfix(parser *ps) {
    int a = primary(ps);
    while (a) {
        const char *back = ps->p;
        if (take(ps, '!')) {
            a = one(ps, N_FACTORIAL, 0, a);
            if (*token_skip(ps->p) == '!') return 0;
        } else if (take(ps, '%')) a = one(ps, N_PERCENT, 0, a);
        else if (take(ps, 'd')) a = one(ps, N_DEGREE, 0, a);
        else if (take(ps, '^')) {
            bool brace = take(ps, '{');
            if (!take(ps, 'o') || (brace && !take(ps, '}'))) {
                ps->p = back;
                return a;
            }
            a = one(ps, N_DEGREE, 0, a);
        } else break;
    }
    return a;
}

static int exponent(parser *ps) {
    if (take(ps, '{')) return group(ps, '}');
    bool minus = take(ps, '-');
    token k = token_at(ps->p, 1); /* in 2^3,456 the comma parts elements */
    int a;
    if (k.kind == T_NUM) { /* without what may follow a number elsewhere */
        ps->p = k.end;
        a = leaf(ps, N_NUM, 0, k.s, k.n);
    } else if (k.kind == T_WORD || k.kind == T_VAR) a = argument(ps);
    else a = primary(ps);
    return minus ? one(ps, N_NEG, 0, a) : a;
}

static int power(parser *ps) {
    int a = postfix(ps);
    if (!a || !take(ps, '^')) return a;
    if (++ps->depth > DEPTH) return 0;
    a = two(ps, N_POW, 0, a, exponent(ps));
    ps->depth--;
    token k = look(ps);
    return k.kind == T_OP && (k.op == '^' || k.op == '_') ? 0 : a; /* 2^3^2: either way */
}

/* Known words behind a number, and single letters behind a number and a blank at the end or before a slash: "5 m" and
 * "5 m/s", but 5m is a product. */
static bool is_unit(const parser *ps, token k) {
    const char *from = ps->t->text.p;
    if (k.kind == T_WORD) return k.s > from && strchr("0123456789 }~)", k.s[-1]) && unit_known(k.s, (size_t)k.n);
    return k.kind == T_VAR && strchr("mgsLh", *k.s) && k.s - from >= 2 && k.s[-1] == ' ' && is_digit(k.s[-2]) &&
           (!*blanks_end(k.end) || (*k.end == '/' && is_letter(k.end[1])));
}

static bool begins_factor(const parser *ps, token k) {
    switch (k.kind) {
    case T_OP: return strchr("({FC", k.op) || (k.op == '|' && !ps->bar);
    case T_WORD: return k.n <= 3 && !is_unit(ps, k);
    case T_CMD: return !token_is(k.s, k.n, "end");
    case T_VAR: return !is_unit(ps, k);
    default: return k.kind == T_CONST || k.kind == T_FUNC;
    }
}

static int run(parser *ps) {
    int minus = 0;
    while (take(ps, '-')) minus++;
    int a = power(ps);
    while (a && begins_factor(ps, look(ps))) a = two(ps, N_MUL, 0, a, power(ps));
    return minus % 2 ? one(ps, N_NEG, 0, a) : a;
}

static int product(parser *ps) {
    int a = run(ps);
    while (a) {
        if (take(ps, '*')) a = two(ps, N_MUL, 0, a, run(ps));
        else if (take(ps, '/')) a = two(ps, N_DIV, 0, a, run(ps));
        else if (take(ps, ':')) {
            const char *p = token_skip(ps->p);
            if (*p == '0') return 0; /* 3:05 is a time */
            a = two(ps, N_DIV, 0, a, run(ps));
            if (take(ps, ':')) return 0;
        } else break;
    }
    return a;
}

static bool has_variable(const parser *ps, int from) {
    for (int i = from; i < ps->t->n; i++)
        if (ps->t->nodes[i].kind == N_VAR) return true;
    return false;
}

/* The words behind a number: a scale, or a unit up to the next sign that belongs to no unit. */
static int with_unit(parser *ps, int a, int nodes_before) {
    token k = look(ps);
    if (k.kind == T_WORD && has_variable(ps, nodes_before)) return a; /* a sentence */
    if (k.kind == T_WORD || k.kind == T_TEXT) {
        const char *scale = unit_scale(k.s, (size_t)k.n);
        if (scale) {
            ps->p = k.end;
            a = two(ps, N_MUL, 0, a, leaf(ps, N_NUM, 0, scale, (int)strlen(scale)));
            k = look(ps);
        }
    }
    if (k.kind != T_WORD && k.kind != T_TEXT && !is_unit(ps, k)) return a;
    const char *from = k.s, *end = k.end;
    int op = k.kind == T_TEXT ? 't' : 'k';
    bool known = true;
    for (bool behind_slash = false;; k = look(ps)) {
        bool word = k.kind == T_WORD || k.kind == T_TEXT || (k.kind == T_VAR && (behind_slash || k.s == from));
        if (word && k.kind != T_TEXT) known = known && unit_known(k.s, (size_t)k.n);
        bool slash = k.kind == T_OP && k.op == '/', up = k.kind == T_OP && k.op == '^';
        if (!word && !slash && !up) break;
        ps->p = end = k.end;
        if (up) {
            bool brace = take(ps, '{');
            token e = look(ps);
            if (e.kind != T_NUM || e.n != 1) return 0;
            ps->p = end = e.end;
            if (brace && !take(ps, '}')) return 0;
            end = ps->p;
        }
        behind_slash = slash;
    }
    if (unit_changes_number(from, (size_t)(end - from))) return 0;
    int x = one(ps, N_UNIT, !known ? 'w' : op, a);
    ps->t->nodes[x].s = from;
    ps->t->nodes[x].n = (int)(end - from);
    return x;
}

/* Takes "\$" or "-\$" with what it is; false: there is none. */
static bool take_money(parser *ps, token *money, bool *minus) {
    const char *back = ps->p;
    *minus = take(ps, '-');
    *money = look(ps);
    if (take(ps, '$')) return true;
    ps->p = back;
    *minus = false;
    return false;
}

static int plain_sum(parser *ps) {
    static const char zero[] = "0";
    take(ps, '+');
    token k = look(ps);
    bool begins_with_pm = k.kind == T_OP && (k.op == 'p' || k.op == 'm');
    int a = begins_with_pm ? leaf(ps, N_NUM, 0, zero, 1) : product(ps);
    while (a) {
        if (take(ps, '+')) a = two(ps, N_ADD, 0, a, product(ps));
        else if (take(ps, '-')) a = two(ps, N_SUB, 0, a, product(ps));
        else if (take(ps, 'p')) a = two(ps, N_PM, '+', a, product(ps));
        else if (take(ps, 'm')) a = two(ps, N_PM, '-', a, product(ps));
        else break;
    }
    return a;
}

static int sum(parser *ps) {
    const int before = ps->t->n;
    token money;
    bool minus, has_money = take_money(ps, &money, &minus);
    int a = plain_sum(ps);
    if (minus) a = one(ps, N_NEG, 0, a);
    if (a) a = with_unit(ps, a, before); /* behind money, too: \$3 million, \$5 per hour */
    if (!has_money || !a) return a;
    int x = one(ps, N_UNIT, 'k', a);
    ps->t->nodes[x].s = money.s;
    ps->t->nodes[x].n = money.n;
    return x;
}

/* --- collections ------------------------------------------------------------------------------------------------- */

static int sets(parser *ps) {
    int first = sum(ps), last = first, n = 1;
    for (; last && take(ps, 'u'); n++) {
        int x = sum(ps);
        if (x) ps->t->nodes[last].next = x;
        last = x;
    }
    return last && n > 1 ? new_node(ps, N_UNION, 0, first) : last;
}

static int relation(parser *ps) {
    token k = look(ps);
    if (k.kind != T_OP || !strchr("=<>lgne", k.op)) return 0;
    ps->p = k.end;
    return k.op;
}

/* Words in the place of a number: a label or an answer. */
static int words(parser *ps, token k) {
    const char *from = k.s, *end = k.s + k.n;
    do {
        end = k.s + k.n;
        ps->p = k.end;
        k = look(ps);
    } while (k.kind == T_WORD || (k.kind == T_TEXT && !unit_scale(k.s, (size_t)k.n)));
    return leaf(ps, N_WORD, 0, from, (int)(end - from));
}

static bool has_digit(token k) {
    for (int i = 0; i < k.n; i++)
        if (is_digit(k.s[i])) return true;
    return false;
}

static int element(parser *ps) {
    token k = look(ps);
    if (k.kind == T_TEXT && has_digit(k)) { /* \text{12} */
        ps->p = k.s - 1;
        while (*ps->p != '{') ps->p--;
    }
    bool prose = (k.kind == T_TEXT && k.n > 1 && !has_digit(k)) || (k.kind == T_WORD && k.n > 3);
    int a = prose ? words(ps, k) : sets(ps);
    for (int op; a && (op = relation(ps));) a = two(ps, N_REL, op, a, sets(ps));
    return a;
}

static bool separator(parser *ps) {
    if (!take(ps, ',')) return false;
    token k = look(ps); /* ", and" */
    if (k.kind == T_OP && k.op == ',' && token_joins(k.s, k.n)) ps->p = k.end;
    return true;
}

/* One element, or a node of kind, with op 0, that has all. */
static int list(parser *ps, node_kind kind) {
    int first = element(ps), last = first, n = 1;
    for (; last && separator(ps); n++) {
        int x = element(ps);
        if (x) ps->t->nodes[last].next = x;
        last = x;
    }
    return last && n > 1 ? new_node(ps, kind, 0, first) : last;
}

/* --- whole texts ------------------------------------------------------------------------------------------------- */

/* One word of two letters or more that is no number. */
static bool single_word(const char *p) {
    const char *end = letters_end(p);
    return end - p > 1 && !*end && token_at(p, 0).kind == T_WORD;
}

void tree_read(tree *t, const char *text) {
    *t = (tree){0};
    answer_clean(&t->text, text);
    if (t->text.failed || t->text.n > ANSWER_BYTES) str_free(&t->text);
    if (!t->text.p) return;
    parser ps = {.t = t, .p = t->text.p, .cap = 4 * (int)t->text.n + 16};
    t->nodes = calloc((size_t)ps.cap, sizeof *t->nodes);
    if (!t->nodes) {
        str_free(&t->text);
        return;
    }
    t->n = 1;
    take(&ps, '=');
    t->root = single_word(t->text.p) ? 0 : list(&ps, N_LIST);
    if (t->root && look(&ps).kind == T_END) return;
    t->n = 1;
    t->root = token_prose(t->text.p) ? leaf(&ps, N_WORD, 0, t->text.p, (int)t->text.n) : 0;
}

void tree_free(tree *t) {
    str_free(&t->text);
    free(t->nodes);
    *t = (tree){0};
}
