/* Tokens -> tree: a recursive descent through jinja2's grammar, with its precedences (from loose to tight):
 * if-else, or, and, not, comparisons and `in`, + -, ~, * / // %, **, sign, .x [x] (x), filters and `is`. */
#include "text/template_inner.h"

#include <stdlib.h>
#include <string.h>

typedef struct parser {
    chat_template *t;
    token *tok, *all;
    int depth; /* of blocks and expressions */
    int loops; /* of for blocks round this place, for break and continue */
    int cap_names;
    error *e;
} parser;

static status parse_expr(parser *p, node **out);
static status parse_or(parser *p, node **out);
static status parse_unary(parser *p, bool filters, node **out);
static status parse_body(parser *p, const char *const *ends, node **out);

static status no_memory(parser *p) {
    return fail(p->e, ERR_NOMEM, "template: memory is out");
}

static status unexpected(parser *p, const char *wanted) {
    const token *t = p->tok;
    static const char *const what[] = {"text", "{{", "}}", "{%", "%}"};
    if (t->kind == T_EOF)
        return fail(p->e, ERR_FORMAT, "template: line %d: the template ends, but %s was expected", t->line, wanted);
    if (t->kind <= T_BLOCK_END)
        return fail(p->e, ERR_FORMAT, "template: line %d: unexpected %s, %s was expected", t->line, what[t->kind],
                    wanted);
    return fail(p->e, ERR_FORMAT, "template: line %d: unexpected '%.*s', %s was expected", t->line,
                (int)(t->s.n < 60 ? t->s.n : 60), t->s.p, wanted);
}

static status deeper(parser *p) {
    if (++p->depth <= LIMIT_NESTING) return OK;
    return fail(p->e, ERR_FORMAT, "template: line %d: nested deeper than %d", p->tok->line, LIMIT_NESTING);
}

static status make(parser *p, node_kind kind, node **out) {
    node *n = *out = arena_zero(p->t->mem, 1, sizeof **out);
    if (!n) return no_memory(p);
    n->kind = kind;
    n->line = p->tok->line;
    return OK;
}

static bool at_op(const parser *p, op o) {
    return p->tok->kind == T_OP && p->tok->op == o;
}

static bool at_word(const parser *p, const char *w) {
    return p->tok->kind == T_NAME && text_is(p->tok->s, w);
}

static bool skip_op(parser *p, op o) {
    return at_op(p, o) && p->tok++;
}

static bool skip_word(parser *p, const char *w) {
    return at_word(p, w) && p->tok++;
}

static status want_op(parser *p, op o, const char *what) {
    return skip_op(p, o) ? OK : unexpected(p, what);
}

static status want_kind(parser *p, token_kind kind, const char *what) {
    if (p->tok->kind != kind) return unexpected(p, what);
    p->tok++;
    return OK;
}

static status want_name(parser *p, text *out) {
    *out = p->tok->s;
    return want_kind(p, T_NAME, "a name");
}

static value string_value(text s) {
    return (value){V_STRING, {.s = s}};
}

static status name_number(parser *p, text name, int *out) {
    chat_template *t = p->t;
    for (*out = 0; *out < t->n_names; ++*out)
        if (text_eq(t->names[*out], name)) return OK;
    if (t->n_names == 1024) return fail(p->e, ERR_FORMAT, "template: more than 1024 different names");
    if (t->n_names == p->cap_names) {
        int cap = p->cap_names ? p->cap_names * 2 : 32;
        text *names = arena_take(t->mem, (size_t)cap * sizeof *names);
        if (!names) return no_memory(p);
        if (t->n_names) memcpy(names, t->names, (size_t)t->n_names * sizeof *names);
        t->names = names;
        p->cap_names = cap;
    }
    t->names[t->n_names++] = name;
    return OK;
}

/* ---- literals ---- */

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : 99;
}

static status parse_int(parser *p, node *n) {
    text s = p->tok->s;
    int base = 10;
    size_t i = 0;
    if (s.n > 2 && s.p[0] == '0' && strchr("xXoObB", s.p[1])) {
        base = strchr("xX", s.p[1]) ? 16 : strchr("oO", s.p[1]) ? 8 : 2;
        i = 2;
    }
    int64_t v = 0;
    for (; i < s.n; i++) {
        if (s.p[i] == '_') continue;
        int d = hex_digit(s.p[i]);
        if (d >= base) return unexpected(p, "a number");
        if (__builtin_mul_overflow(v, (int64_t)base, &v) || __builtin_add_overflow(v, (int64_t)d, &v))
            return fail(p->e, ERR_UNSUPPORTED, "template: line %d: an integer beyond 64 bits", n->line);
    }
    n->v = value_int(v);
    return OK;
}

/* Through jansson, which does not mind the process's decimal point. */
static status parse_float(parser *p, node *n) {
    str s = {0};
    size_t i = 0;
    while (i + 1 < p->tok->s.n && (p->tok->s.p[i] == '0' || p->tok->s.p[i] == '_') && p->tok->s.p[i + 1] != '.' &&
           p->tok->s.p[i + 1] != 'e' && p->tok->s.p[i + 1] != 'E')
        i++; /* JSON has no leading zeros */
    for (; i < p->tok->s.n; i++)
        if (p->tok->s.p[i] != '_') str_putc(&s, p->tok->s.p[i]);
    json_t *j = NULL;
    status st = s.failed ? no_memory(p) : text_read_json(&j, (text){s.p, s.n}, 0, p->e);
    str_free(&s);
    if (st != OK) return st;
    if (!j) return fail(p->e, ERR_FORMAT, "template: line %d: not a number that fits", n->line);
    n->v = value_float(json_number_value(j));
    json_decref(j);
    return OK;
}

/* \xHH, \uHHHH, \UHHHHHHHH behind the backslash at i: bytes read, 0 if it is none */
static size_t read_hex(text s, size_t i, uint32_t *out) {
    size_t n = s.p[i] == 'x' ? 2 : s.p[i] == 'u' ? 4 : 8;
    if (n > s.n - i - 1) return 0;
    *out = 0;
    for (size_t k = 1; k <= n; k++) {
        int d = hex_digit(s.p[i + k]);
        if (d > 15) return 0;
        *out = *out << 4 | (uint32_t)d;
    }
    return *out < 0xd800 || (*out > 0xdfff && *out < 0x110000) ? n + 1 : 0;
}

/* The escapes of Python's string literals; an unknown one stays as it is. */
static status unescape(parser *p, text s, str *out) {
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] != '\\' || i + 1 == s.n) {
            str_putc(out, s.p[i]);
            continue;
        }
        static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
        char c = s.p[++i];
        const char *k = c ? strchr(from, c) : NULL;
        uint32_t point = 0;
        if (k) {
            str_putc(out, to[k - from]);
        } else if (c == 'x' || c == 'u' || c == 'U') {
            size_t n = read_hex(s, i, &point);
            if (!n) return fail(p->e, ERR_FORMAT, "template: line %d: bad \\%c escape in a string", p->tok->line, c);
            utf8_add(out, point);
            i += n - 1;
        } else if (c >= '0' && c <= '7') {
            size_t n = 0;
            for (; n < 3 && i + n < s.n && s.p[i + n] >= '0' && s.p[i + n] <= '7'; n++)
                point = point * 8 + (uint32_t)(s.p[i + n] - '0');
            utf8_add(out, point);
            i += n - 1;
        } else if (c == 'N') {
            return fail(p->e, ERR_UNSUPPORTED, "template: line %d: \\N{...} in a string", p->tok->line);
        } else if (c != '\n') { /* a backslash before a line's end joins the lines */
            str_putc(out, '\\');
            str_putc(out, c);
        }
    }
    return OK;
}

static status parse_string(parser *p, node **out) {
    TRY(make(p, N_CONST, out));
    str s = {0};
    status st = OK;
    for (; st == OK && p->tok->kind == T_STRING; p->tok++)
        st = unescape(p, (text){p->tok->s.p + 1, p->tok->s.n - 2}, &s);
    char *copy = st == OK && !s.failed ? arena_copy(p->t->mem, s.p ? s.p : "", s.n) : NULL;
    (*out)->v = string_value((text){copy, s.n});
    str_free(&s);
    return st == OK && !copy ? no_memory(p) : st;
}

/* ---- expressions ---- */

/* `a, b, c` up to the closing bracket; a comma at the end is allowed */
static status parse_items(parser *p, op close, bool pairs, node **out) {
    while (!at_op(p, close)) {
        TRY(parse_expr(p, out));
        if (pairs) {
            node *pair;
            TRY(make(p, N_PAIR, &pair));
            pair->a = *out;
            TRY(want_op(p, OP_COLON, "':'"));
            TRY(parse_expr(p, &pair->b));
            *out = pair;
        }
        out = &(*out)->next;
        if (!skip_op(p, OP_COMMA)) break;
    }
    return want_op(p, close, "',' or a closing bracket");
}

/* An expression, or several with commas: a tuple. conditional: `a if b` may stand here. */
static status parse_tuple(parser *p, bool conditional, node **out) {
    node *first;
    TRY(conditional ? parse_expr(p, &first) : parse_or(p, &first));
    *out = first;
    if (!at_op(p, OP_COMMA)) return OK;
    TRY(make(p, N_TUPLE, out));
    (*out)->a = first;
    for (node **end = &first->next; skip_op(p, OP_COMMA); end = &(*end)->next) {
        if (p->tok->kind == T_PRINT_END || p->tok->kind == T_BLOCK_END || at_op(p, OP_RPAREN)) break;
        TRY(conditional ? parse_expr(p, end) : parse_or(p, end));
    }
    return OK;
}

static status parse_parentheses(parser *p, node **out) {
    if (at_op(p, OP_RPAREN)) TRY(make(p, N_TUPLE, out));
    else TRY(parse_tuple(p, true, out));
    return want_op(p, OP_RPAREN, "')'");
}

static status parse_primary(parser *p, node **out) {
    const token *t = p->tok;
    if (t->kind == T_STRING) return parse_string(p, out);
    if (t->kind == T_INT || t->kind == T_FLOAT) {
        TRY(make(p, N_CONST, out));
        TRY(t->kind == T_INT ? parse_int(p, *out) : parse_float(p, *out));
        p->tok++;
        return OK;
    }
    if (t->kind == T_NAME) {
        bool yes = at_word(p, "true") || at_word(p, "True");
        bool constant = yes || at_word(p, "false") || at_word(p, "False");
        bool none = at_word(p, "none") || at_word(p, "None");
        TRY(make(p, constant || none ? N_CONST : N_NAME, out));
        if (constant) (*out)->v = value_bool(yes);
        else if (none) (*out)->v = (value){.kind = V_NONE};
        else TRY(name_number(p, t->s, &(*out)->name));
        p->tok++;
        return OK;
    }
    if (skip_op(p, OP_LPAREN)) return parse_parentheses(p, out);
    if (at_op(p, OP_LBRACKET) || at_op(p, OP_LBRACE)) {
        bool is_dict = at_op(p, OP_LBRACE);
        TRY(make(p, is_dict ? N_DICT : N_LIST, out));
        p->tok++;
        return parse_items(p, is_dict ? OP_RBRACE : OP_RBRACKET, is_dict, &(*out)->a);
    }
    return unexpected(p, "an expression");
}

/* behind '(' */
static status parse_args(parser *p, node **out) {
    bool named = false;
    int n = 0;
    while (!at_op(p, OP_RPAREN)) {
        if (at_op(p, OP_MUL) || at_op(p, OP_POW))
            return fail(p->e, ERR_UNSUPPORTED, "template: line %d: arguments with * or **", p->tok->line);
        if (++n > LIMIT_ARGS)
            return fail(p->e, ERR_FORMAT, "template: line %d: more than %d arguments", p->tok->line, LIMIT_ARGS);
        if (p->tok->kind == T_NAME && p->tok[1].kind == T_OP && p->tok[1].op == OP_ASSIGN) {
            named = true;
            TRY(make(p, N_KEYWORD, out));
            (*out)->v = string_value(p->tok->s);
            p->tok += 2;
            TRY(parse_expr(p, &(*out)->a));
        } else if (named) {
            return unexpected(p, "a named argument");
        } else {
            TRY(parse_expr(p, out));
        }
        out = &(*out)->next;
        if (!skip_op(p, OP_COMMA)) break;
    }
    return want_op(p, OP_RPAREN, "',' or ')'");
}

/* behind '[' */
static status parse_subscript(parser *p, node **out) {
    node *n = *out;
    n->kind = N_ITEM;
    if (!at_op(p, OP_COLON)) TRY(parse_expr(p, &n->b));
    if (skip_op(p, OP_COLON)) {
        n->kind = N_SLICE;
        if (!at_op(p, OP_COLON) && !at_op(p, OP_RBRACKET)) TRY(parse_expr(p, &n->c));
        if (skip_op(p, OP_COLON) && !at_op(p, OP_RBRACKET)) TRY(parse_expr(p, &n->d));
    }
    return want_op(p, OP_RBRACKET, "']'");
}

static status parse_postfix(parser *p, node **out) {
    for (;;) {
        node *n;
        if (!at_op(p, OP_DOT) && !at_op(p, OP_LBRACKET) && !at_op(p, OP_LPAREN)) return OK;
        TRY(make(p, N_ATTR, &n));
        n->a = *out;
        *out = n;
        op o = p->tok++->op;
        if (o == OP_LBRACKET) {
            TRY(parse_subscript(p, out));
        } else if (o == OP_LPAREN) {
            n->kind = N_CALL;
            TRY(parse_args(p, &n->b));
        } else if (p->tok->kind == T_INT) {
            n->kind = N_ITEM;
            TRY(make(p, N_CONST, &n->b));
            TRY(parse_int(p, n->b));
            p->tok++;
        } else {
            TRY(want_name(p, &n->v.s));
            n->v.kind = V_STRING;
        }
    }
}

/* The name of a filter or test and what stands in parentheses behind it. */
static status parse_called(parser *p, node *n, bool test) {
    TRY(want_name(p, &n->v.s));
    n->v.kind = V_STRING;
    n->builtin = test ? test_find(n->v.s) : filter_find(n->v.s);
    return skip_op(p, OP_LPAREN) ? parse_args(p, &n->b) : OK;
}

/* behind `is`: defined, not none, equalto 3, in [1, 2], divisibleby(3) */
static status parse_test(parser *p, node **out) {
    node *n;
    TRY(make(p, N_TEST, &n));
    n->a = *out;
    *out = n;
    bool negated = skip_word(p, "not");
    TRY(parse_called(p, n, true));
    token_kind k = p->tok->kind;
    bool operand = k == T_STRING || k == T_INT || k == T_FLOAT || at_op(p, OP_LPAREN) || at_op(p, OP_LBRACKET) ||
                   at_op(p, OP_LBRACE) ||
                   (k == T_NAME && !at_word(p, "else") && !at_word(p, "or") && !at_word(p, "and"));
    bool called = p->tok[-1].kind == T_OP;
    if (operand && !called) {
        if (at_word(p, "is")) return unexpected(p, "the end of the test");
        TRY(parse_primary(p, &n->b));
        TRY(parse_postfix(p, &n->b));
    }
    if (!negated) return OK;
    TRY(make(p, N_NOT, out));
    (*out)->a = n;
    return OK;
}

static status parse_filters(parser *p, node **out) {
    for (;;) {
        node *n;
        if (skip_op(p, OP_PIPE)) {
            TRY(make(p, N_FILTER, &n));
            n->a = *out;
            *out = n;
            TRY(parse_called(p, n, false));
        } else if (skip_word(p, "is")) {
            TRY(parse_test(p, out));
        } else if (at_op(p, OP_LPAREN)) {
            TRY(parse_postfix(p, out));
        } else {
            return OK;
        }
    }
}

static status parse_unary(parser *p, bool filters, node **out) {
    TRY(deeper(p));
    if (at_op(p, OP_SUB) || at_op(p, OP_ADD)) {
        TRY(make(p, at_op(p, OP_SUB) ? N_NEGATE : N_PLUS, out));
        p->tok++;
        TRY(parse_unary(p, false, &(*out)->a));
    } else {
        TRY(parse_primary(p, out));
    }
    TRY(parse_postfix(p, out));
    if (filters) TRY(parse_filters(p, out));
    p->depth--;
    return OK;
}

/* Left-associative operators, loosest first; the last level's operands are unary. */
static status parse_binary(parser *p, int level, node **out) {
    static const op ops[4][4] = {{OP_ADD, OP_SUB}, {OP_TILDE}, {OP_MUL, OP_DIV, OP_FLOORDIV, OP_MOD}, {OP_POW}};
    if (level == 4) return parse_unary(p, true, out);
    TRY(parse_binary(p, level + 1, out));
    for (;;) {
        op found = OP_NONE;
        for (int i = 0; i < 4; i++)
            if (ops[level][i] && at_op(p, ops[level][i])) found = ops[level][i];
        if (!found) return OK;
        node *n;
        TRY(make(p, N_BINARY, &n));
        n->op = found;
        n->a = *out;
        *out = n;
        p->tok++;
        TRY(parse_binary(p, level + 1, &n->b));
    }
}

static op compare_operator(parser *p) {
    if (p->tok->kind == T_OP && p->tok->op >= OP_EQ && p->tok->op <= OP_GE) return p->tok++->op;
    if (skip_word(p, "in")) return OP_IN;
    if (at_word(p, "not") && p->tok[1].kind == T_NAME && text_is(p->tok[1].s, "in")) {
        p->tok += 2;
        return OP_NOT_IN;
    }
    return OP_NONE;
}

static status parse_compare(parser *p, node **out) {
    node *n, *first;
    TRY(parse_binary(p, 0, &first));
    *out = first;
    node **end = NULL;
    for (op o; (o = compare_operator(p)) != OP_NONE; end = &(*end)->next) {
        if (!end) {
            TRY(make(p, N_COMPARE, &n));
            n->a = first;
            *out = n;
            end = &n->b;
        }
        TRY(make(p, N_OPERAND, end));
        (*end)->op = o;
        TRY(parse_binary(p, 0, &(*end)->a));
    }
    return OK;
}

static status parse_not(parser *p, node **out) {
    if (!at_word(p, "not")) return parse_compare(p, out);
    TRY(deeper(p));
    TRY(make(p, N_NOT, out));
    p->tok++;
    TRY(parse_not(p, &(*out)->a));
    p->depth--;
    return OK;
}

static status parse_and(parser *p, node **out) {
    TRY(parse_not(p, out));
    while (at_word(p, "and")) {
        node *n;
        TRY(make(p, N_AND, &n));
        p->tok++;
        n->a = *out;
        *out = n;
        TRY(parse_not(p, &n->b));
    }
    return OK;
}

static status parse_or(parser *p, node **out) {
    TRY(deeper(p));
    TRY(parse_and(p, out));
    while (at_word(p, "or")) {
        node *n;
        TRY(make(p, N_OR, &n));
        p->tok++;
        n->a = *out;
        *out = n;
        TRY(parse_and(p, &n->b));
    }
    p->depth--;
    return OK;
}

static status parse_expr(parser *p, node **out) {
    TRY(deeper(p));
    TRY(parse_or(p, out));
    while (at_word(p, "if")) {
        node *n;
        TRY(make(p, N_CONDEXPR, &n));
        p->tok++;
        n->a = *out;
        *out = n;
        TRY(parse_or(p, &n->b));
        if (skip_word(p, "else")) TRY(parse_expr(p, &n->c));
    }
    p->depth--;
    return OK;
}

/* ---- statements ---- */

/* What for and set assign to: names, name.attribute (set only), several of them with commas or in parentheses. */
static status parse_target(parser *p, bool attributes, node **out) {
    TRY(deeper(p));
    node *several = NULL, **end = NULL;
    for (;;) {
        node *n;
        if (skip_op(p, OP_LPAREN)) {
            TRY(parse_target(p, attributes, &n));
            TRY(want_op(p, OP_RPAREN, "')'"));
        } else {
            TRY(make(p, N_NAME, &n));
            text name;
            TRY(want_name(p, &name));
            TRY(name_number(p, name, &n->name));
            if (attributes && skip_op(p, OP_DOT)) {
                node *object = n;
                TRY(make(p, N_ATTR, &n));
                n->a = object;
                n->v.kind = V_STRING;
                TRY(want_name(p, &n->v.s));
            }
        }
        if (!several) {
            *out = n;
            if (!at_op(p, OP_COMMA)) break;
            TRY(make(p, N_TUPLE, &several));
            *out = several;
            end = &several->a;
        }
        *end = n;
        end = &n->next;
        if (!skip_op(p, OP_COMMA) || at_word(p, "in") || at_op(p, OP_ASSIGN) || at_op(p, OP_RPAREN)) break;
    }
    p->depth--;
    return OK;
}

/* The end of the tag, the block's body, and the word that ended it (its tag is still open). */
static status parse_block(parser *p, const char *const *ends, node **out) {
    TRY(want_kind(p, T_BLOCK_END, "%}"));
    TRY(deeper(p));
    TRY(parse_body(p, ends, out));
    p->depth--;
    return OK;
}

static status parse_for(parser *p, node *n) {
    static const char *const ends[] = {"endfor", "else", NULL};
    n->kind = S_FOR;
    TRY(parse_target(p, false, &n->a));
    if (!skip_word(p, "in")) return unexpected(p, "in");
    TRY(parse_tuple(p, false, &n->b));
    if (skip_word(p, "if")) TRY(parse_expr(p, &n->c));
    if (at_word(p, "recursive")) return fail(p->e, ERR_UNSUPPORTED, "template: line %d: recursive loops", p->tok->line);
    p->loops++;
    TRY(parse_block(p, ends, &n->body));
    p->loops--;
    if (skip_word(p, "else")) TRY(parse_block(p, ends, &n->or_else));
    return skip_word(p, "endfor") ? OK : unexpected(p, "endfor");
}

/* elif chains are read in a loop, so that a long one is not deep */
static status parse_if(parser *p, node *n) {
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    for (;;) {
        n->kind = S_IF;
        TRY(parse_tuple(p, false, &n->a));
        TRY(parse_block(p, ends, &n->body));
        if (!at_word(p, "elif")) break;
        p->tok++;
        n->elif = true;
        TRY(make(p, S_IF, &n->or_else));
        n = n->or_else;
    }
    if (skip_word(p, "else")) TRY(parse_block(p, ends, &n->or_else));
    return skip_word(p, "endif") ? OK : unexpected(p, "endif");
}

static status parse_set(parser *p, node *n) {
    static const char *const ends[] = {"endset", NULL};
    TRY(parse_target(p, true, &n->a));
    if (skip_op(p, OP_ASSIGN)) {
        n->kind = S_SET;
        return parse_tuple(p, true, &n->b);
    }
    n->kind = S_CAPTURE;
    TRY(make(p, N_CONST, &n->b)); /* stands for the captured text, innermost in the filters */
    TRY(parse_filters(p, &n->b));
    TRY(parse_block(p, ends, &n->body));
    return skip_word(p, "endset") ? OK : unexpected(p, "endset");
}

static status parse_macro(parser *p, node *n) {
    static const char *const ends[] = {"endmacro", NULL};
    n->kind = S_MACRO;
    text name;
    TRY(want_name(p, &name));
    TRY(name_number(p, name, &n->name));
    TRY(want_op(p, OP_LPAREN, "'('"));
    int count = 0;
    for (node **end = &n->a; !at_op(p, OP_RPAREN); end = &(*end)->next) {
        if (++count > LIMIT_ARGS)
            return fail(p->e, ERR_FORMAT, "template: line %d: more than %d parameters", p->tok->line, LIMIT_ARGS);
        TRY(make(p, N_NAME, end));
        TRY(want_name(p, &name));
        (*end)->v = string_value(name);
        TRY(name_number(p, name, &(*end)->name));
        if (skip_op(p, OP_ASSIGN)) TRY(parse_expr(p, &(*end)->a));
        if (!skip_op(p, OP_COMMA)) break;
    }
    TRY(want_op(p, OP_RPAREN, "',' or ')'"));
    int loops = p->loops;
    p->loops = 0;
    TRY(parse_block(p, ends, &n->body));
    p->loops = loops;
    return skip_word(p, "endmacro") ? OK : unexpected(p, "endmacro");
}

static status parse_statement(parser *p, node **out) {
    static const char *const generation[] = {"endgeneration", NULL};
    text word = p->tok->s;
    TRY(make(p, S_BREAK, out));
    if (skip_word(p, "for")) return parse_for(p, *out);
    if (skip_word(p, "if")) return parse_if(p, *out);
    if (skip_word(p, "set")) return parse_set(p, *out);
    if (skip_word(p, "macro")) return parse_macro(p, *out);
    if (at_word(p, "break") || at_word(p, "continue")) {
        if (!p->loops) return unexpected(p, "a for loop round it");
        (*out)->kind = at_word(p, "break") ? S_BREAK : S_CONTINUE;
        p->tok++;
        return OK;
    }
    if (skip_word(p, "generation")) { /* marks what the assistant wrote; prints nothing of its own */
        TRY(parse_block(p, generation, out));
        return skip_word(p, "endgeneration") ? OK : unexpected(p, "endgeneration");
    }
    static const char *const known[] = {"block",   "call",  "extends", "filter",     "from", "import",
                                        "include", "print", "with",    "autoescape", "do"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (at_word(p, known[i]))
            return fail(p->e, ERR_UNSUPPORTED, "template: line %d: {%% %s %%} is not in the supported subset of Jinja",
                        p->tok->line, known[i]);
    if (word.n == 0 || p->tok->kind != T_NAME) return unexpected(p, "a statement");
    return unexpected(p, "another statement");
}

static bool at_end_word(const parser *p, const char *const *ends) {
    for (; *ends; ends++)
        if (at_word(p, *ends)) return true;
    return false;
}

/* Statements up to {% ends[i]; the word itself is left. ends NULL: up to the end of the template. */
static status parse_body(parser *p, const char *const *ends, node **out) {
    *out = NULL;
    for (;;) {
        token_kind kind = p->tok->kind;
        if (kind == T_EOF) return ends ? unexpected(p, ends[0]) : OK;
        if (kind == T_DATA) {
            TRY(make(p, S_TEXT, out));
            (*out)->v = string_value(p->tok++->s);
        } else if (kind == T_PRINT_BEGIN) {
            TRY(make(p, S_PRINT, out));
            p->tok++;
            TRY(parse_tuple(p, true, &(*out)->a));
            TRY(want_kind(p, T_PRINT_END, "}}"));
        } else {
            p->tok++;
            if (ends && at_end_word(p, ends)) return OK;
            TRY(parse_statement(p, out));
            TRY(want_kind(p, T_BLOCK_END, "%}"));
        }
        while (*out) out = &(*out)->next; /* a generation block gives several */
    }
}

/* ---- the whole ---- */

static status check_utf8(text s, error *e) {
    for (size_t i = 0; i < s.n;) {
        size_t k = utf8_size(s.p + i, s.n - i);
        if (k == 1 && (unsigned char)s.p[i] >= 0x80) return fail(e, ERR_FORMAT, "template: byte %zu is not UTF-8", i);
        i += k;
    }
    return OK;
}

/* A copy with \n for every newline, without the one at the end. */
static status copy_source(chat_template *t, const char *s, size_t n, text *out, error *e) {
    char *c = arena_take(t->mem, n + 1);
    if (!c) return fail(e, ERR_NOMEM, "template: memory is out");
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] != '\r') c[k++] = s[i];
        else if (i + 1 == n || s[i + 1] != '\n') c[k++] = '\n';
    }
    if (k && c[k - 1] == '\n') k--;
    *out = (text){c, k};
    return check_utf8(*out, e);
}

static status compile(chat_template *t, const char *source, size_t n, error *e) {
    text s;
    TRY(copy_source(t, source, n, &s, e));
    parser p = {.t = t, .e = e};
    size_t n_tokens;
    int first; /* NAME_LOOP */
    TRY(name_number(&p, (text){"loop", 4}, &first));
    status st = template_lex(&p.all, &n_tokens, s, e);
    p.tok = p.all;
    if (st == OK) st = parse_body(&p, NULL, &t->body);
    free(p.all);
    return st;
}

status template_open(chat_template **out, const char *source, size_t n, error *e) {
    *out = NULL;
    if (n > LIMIT_SOURCE) return fail(e, ERR_FORMAT, "template: %zu bytes, more than %d", n, LIMIT_SOURCE);
    chat_template *t = calloc(1, sizeof *t);
    if (!t || !(t->mem = arena_open(n * 16))) {
        free(t);
        return fail(e, ERR_NOMEM, "template: memory is out");
    }
    status st = compile(t, source, n, e);
    if (st == OK) *out = t;
    else template_close(t);
    return st;
}

void template_close(chat_template *t) {
    if (!t) return;
    arena_close(t->mem);
    free(t);
}
