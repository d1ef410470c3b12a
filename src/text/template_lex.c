/* Template text -> tokens. The rules for white space round tags are those of jinja2 with trim_blocks and
 * lstrip_blocks:
 *   - a sign `-` inside a tag takes all white space on its side; `+` keeps it
 *   - without a sign, white space between the start of a line and {% or {# goes, and so does one newline behind %} or
 * #}
 *   - one newline at the very end of the template goes; \r\n and \r are newlines */
#include "text/template_inner.h"

#include <stdlib.h>
#include <string.h>

typedef struct lexer {
    text s;
    size_t i; /* read up to here */
    int line;
    bool line_starts;         /* the last tag swallowed a newline, so what follows begins a line */
    char nest[LIMIT_NESTING]; /* closing brackets that are due */
    int depth;
    token *t;
    size_t n, cap;
    error *e;
} lexer;

static status add(lexer *l, token_kind kind, op o, size_t from, size_t to) {
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 256;
        token *t = realloc(l->t, l->cap * sizeof *t);
        if (!t) return fail(l->e, ERR_NOMEM, "template: memory is out");
        l->t = t;
    }
    l->t[l->n++] = (token){kind, o, l->line, {l->s.p + from, to - from}};
    return OK;
}

static bool here(const lexer *l, size_t i, const char *what) {
    size_t n = strlen(what);
    return i <= l->s.n && n <= l->s.n - i && !memcmp(l->s.p + i, what, n);
}

static size_t skip_space(const lexer *l, size_t i) {
    while (i < l->s.n && utf8_is_space(utf8_point(l->s.p + i, l->s.n - i))) i += utf8_size(l->s.p + i, l->s.n - i);
    return i;
}

static void advance(lexer *l, size_t to) {
    for (; l->i < to; l->i++) l->line += l->s.p[l->i] == '\n';
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || is_digit(c) || (unsigned char)c >= 0x80;
}

/* Behind the closing marker at i ("%}", "-%}", "+%}"; c is '%', '}' or '#'), with the white space that it takes.
 * trim: a newline behind it goes. 0: there is no such marker at i. */
static size_t tag_end(const lexer *l, size_t i, char c, bool trim) {
    const char end[3] = {c, '}', 0};
    if (here(l, i, end)) return i + 2 + (trim && here(l, i + 2, "\n"));
    if (here(l, i, "-") && here(l, i + 1, end)) return skip_space(l, i + 3);
    if (trim && here(l, i, "+") && here(l, i + 1, end)) return i + 3;
    return 0;
}

static void leave_tag(lexer *l, size_t end) {
    advance(l, end);
    l->line_starts = l->s.p[end - 1] == '\n';
}

/* The end of the text from..to in front of a tag, after the white space that the tag takes. */
static size_t strip_before(const lexer *l, size_t from, size_t to) {
    char sign = to + 2 < l->s.n ? l->s.p[to + 2] : 0;
    if (sign == '-') return from + text_strip((text){l->s.p + from, to - from}, NULL, false, true).n;
    if (sign == '+' || l->s.p[to + 1] == '{') return to; /* {{ is not a block */
    size_t line = to;
    while (line > from && l->s.p[line - 1] != '\n') line--;
    if (line == from && !l->line_starts) return to;
    return skip_space(l, line) >= to ? line : to;
}

/* Behind the opening marker at i and its sign. */
static size_t behind_sign(const lexer *l, size_t i) {
    return i + 2 + (here(l, i + 2, "-") || here(l, i + 2, "+"));
}

/* At "{%": 0, or the end of a tag that says just `word`. */
static size_t bare_tag(const lexer *l, size_t i, const char *word, bool trim) {
    i = skip_space(l, behind_sign(l, i));
    if (!here(l, i, word)) return 0;
    i = skip_space(l, i + strlen(word));
    return tag_end(l, i, '%', trim);
}

static status read_comment(lexer *l) {
    for (size_t i = behind_sign(l, l->i); i < l->s.n; i++) {
        size_t end = tag_end(l, i, '#', true);
        if (!end) continue;
        leave_tag(l, end);
        return OK;
    }
    return fail(l->e, ERR_FORMAT, "template: line %d: the comment has no end", l->line);
}

/* {% raw %} ended at `from` (it does not take the newline behind it); its text goes up to {% endraw %}. */
static status read_raw(lexer *l, size_t from) {
    advance(l, from);
    l->line_starts = false;
    for (size_t i = from; i < l->s.n; i++) {
        size_t end = here(l, i, "{%") ? bare_tag(l, i, "endraw", true) : 0;
        if (!end) continue;
        TRY(add(l, T_DATA, OP_NONE, from, strip_before(l, from, i)));
        leave_tag(l, end);
        return OK;
    }
    return fail(l->e, ERR_FORMAT, "template: line %d: {%% raw %%} has no {%% endraw %%}", l->line);
}

/* floats have digits on both sides of the point; 1.real is not one */
static token_kind read_number(const lexer *l, size_t *end) {
    size_t i = *end, i0 = i;
    if (here(l, i, "0x") || here(l, i, "0X") || here(l, i, "0o") || here(l, i, "0O") || here(l, i, "0b") ||
        here(l, i, "0B")) {
        for (i += 2; i < l->s.n && is_name(l->s.p[i]); i++) {}
        *end = i;
        return T_INT;
    }
    token_kind kind = T_INT;
    while (i < l->s.n && (is_digit(l->s.p[i]) || l->s.p[i] == '_')) i++;
    bool second = i0 && l->s.p[i0 - 1] == '.'; /* a.0.1 is an item of an item */
    if (!second && here(l, i, ".") && i + 1 < l->s.n && is_digit(l->s.p[i + 1])) {
        kind = T_FLOAT;
        for (i++; i < l->s.n && (is_digit(l->s.p[i]) || l->s.p[i] == '_'); i++) {}
    }
    if (here(l, i, "e") || here(l, i, "E")) {
        size_t k = i + 1;
        if (here(l, k, "+") || here(l, k, "-")) k++;
        if (k < l->s.n && is_digit(l->s.p[k])) {
            kind = T_FLOAT;
            for (i = k; i < l->s.n && is_digit(l->s.p[i]); i++) {}
        }
    }
    *end = i;
    return kind;
}

static op read_operator(const lexer *l, size_t i, size_t *len) {
    static const struct {
        char s[3];
        op o;
    } ops[] = {{"//", OP_FLOORDIV}, {"**", OP_POW},   {"==", OP_EQ},      {"!=", OP_NE},      {"<=", OP_LE},
               {">=", OP_GE},       {"+", OP_ADD},    {"-", OP_SUB},      {"*", OP_MUL},      {"/", OP_DIV},
               {"%", OP_MOD},       {"~", OP_TILDE},  {"<", OP_LT},       {">", OP_GT},       {"=", OP_ASSIGN},
               {".", OP_DOT},       {",", OP_COMMA},  {":", OP_COLON},    {"|", OP_PIPE},     {";", OP_SEMICOLON},
               {"(", OP_LPAREN},    {")", OP_RPAREN}, {"[", OP_LBRACKET}, {"]", OP_RBRACKET}, {"{", OP_LBRACE},
               {"}", OP_RBRACE}};
    for (size_t k = 0; k < sizeof ops / sizeof *ops; k++) {
        *len = strlen(ops[k].s);
        if (here(l, i, ops[k].s)) return ops[k].o;
    }
    return OP_NONE;
}

static status read_op_token(lexer *l) {
    size_t n;
    op o = read_operator(l, l->i, &n);
    char c = l->s.p[l->i];
    if (o == OP_NONE) return fail(l->e, ERR_FORMAT, "template: line %d: unexpected character '%c'", l->line, c);
    if (o == OP_LPAREN || o == OP_LBRACKET || o == OP_LBRACE) {
        if (l->depth == LIMIT_NESTING)
            return fail(l->e, ERR_FORMAT, "template: line %d: brackets nested deeper than %d", l->line, LIMIT_NESTING);
        l->nest[l->depth++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    }
    if (o == OP_RPAREN || o == OP_RBRACKET || o == OP_RBRACE) {
        if (!l->depth || l->nest[--l->depth] != c)
            return fail(l->e, ERR_FORMAT, "template: line %d: unexpected '%c'", l->line, c);
    }
    TRY(add(l, T_OP, o, l->i, l->i + n));
    advance(l, l->i + n);
    return OK;
}

/* The inside of {{ }} or {% %}; kind_of_end and c say which. */
static status read_tag(lexer *l, token_kind kind_of_end, char c) {
    int first_line = l->line;
    l->depth = 0;
    for (;;) {
        size_t i = skip_space(l, l->i);
        advance(l, i);
        if (i >= l->s.n) return fail(l->e, ERR_FORMAT, "template: line %d: the tag has no end", first_line);
        size_t end = l->depth ? 0 : tag_end(l, i, c, c == '%');
        if (end) {
            TRY(add(l, kind_of_end, OP_NONE, i, i));
            leave_tag(l, end);
            return OK;
        }
        char q = l->s.p[i];
        size_t to = i;
        token_kind kind;
        if (q == '"' || q == '\'') {
            for (to++; to < l->s.n && l->s.p[to] != q; to++)
                if (l->s.p[to] == '\\') to++;
            if (to >= l->s.n) return fail(l->e, ERR_FORMAT, "template: line %d: the string has no end", l->line);
            to++;
            kind = T_STRING;
        } else if (is_digit(q)) {
            kind = read_number(l, &to);
        } else if (is_name(q)) {
            while (to < l->s.n && is_name(l->s.p[to])) to++;
            kind = T_NAME;
        } else {
            TRY(read_op_token(l));
            continue;
        }
        TRY(add(l, kind, OP_NONE, i, to));
        advance(l, to);
    }
}

/* The next tag's start at or behind i. */
static size_t next_tag(const lexer *l, size_t i) {
    for (; i + 1 < l->s.n; i++)
        if (l->s.p[i] == '{' && strchr("{%#", l->s.p[i + 1]) && l->s.p[i + 1]) return i;
    return l->s.n;
}

static status read_all(lexer *l) {
    l->line_starts = true;
    while (l->i < l->s.n) {
        size_t tag = next_tag(l, l->i);
        size_t end = tag < l->s.n ? strip_before(l, l->i, tag) : tag;
        if (end > l->i) TRY(add(l, T_DATA, OP_NONE, l->i, end));
        advance(l, tag);
        if (tag == l->s.n) break;
        char c = l->s.p[tag + 1];
        if (c == '#') {
            TRY(read_comment(l));
            continue;
        }
        size_t raw = c == '%' ? bare_tag(l, tag, "raw", false) : 0;
        if (raw) {
            TRY(read_raw(l, raw));
            continue;
        }
        TRY(add(l, c == '%' ? T_BLOCK_BEGIN : T_PRINT_BEGIN, OP_NONE, tag, tag));
        advance(l, behind_sign(l, tag));
        TRY(read_tag(l, c == '%' ? T_BLOCK_END : T_PRINT_END, c == '%' ? '%' : '}'));
    }
    return add(l, T_EOF, OP_NONE, l->s.n, l->s.n);
}

status template_lex(token **out, size_t *n, text source, error *e) {
    lexer l = {.s = source, .line = 1, .e = e};
    status st = read_all(&l);
    *out = l.t;
    *n = l.n;
    return st;
}
