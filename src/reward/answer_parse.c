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
 * Every level gives the number of its node, 0 when the text is not read. All recursion passes primary or power, which
 * count the depth. */
#include "reward/answer_parse.h"

#include <stdlib.h>
#include <string.h>
#include "reward/answer_units.h"

enum { DEPTH = 60 };

typedef enum token_kind { T_END, T_NUM, T_VAR, T_CONST, T_FUNC, T_WORD, T_TEXT, T_CMD, T_OP, T_BAD } token_kind;

typedef struct token {
    token_kind kind;
    int op; /* T_OP: its character; T_FUNC: function; T_CONST: as in node */
    const char *s;
    int n; /* what it is: the name without the backslash, the text without the command around it */
    const char *end;
} token;

typedef struct parser {
    tree *t;
    const char *p;
    int cap, depth;
    int brackets; /* open ones: a comma in them never separates thousands */
    bool bar;     /* inside |...|: the next bar closes */
} parser;

typedef struct name {
    const char *text;
    int op;
} name;

static const name functions[] = {
    {"sin", F_SIN},     {"cos", F_COS},     {"tan", F_TAN},     {"cot", F_COT},   {"sec", F_SEC},   {"csc", F_CSC},
    {"arcsin", F_ASIN}, {"arccos", F_ACOS}, {"arctan", F_ATAN}, {"asin", F_ASIN}, {"acos", F_ACOS}, {"atan", F_ATAN},
    {"sinh", F_SINH},   {"cosh", F_COSH},   {"tanh", F_TANH},   {"ln", F_LN},     {"log", F_LOG},   {"exp", F_EXP},
    {"abs", F_ABS},     {"floor", F_FLOOR}, {"ceil", F_CEIL},
};

static const name constants[] = {
    {"pi", 'p'}, {"infty", 'o'}, {"infinity", 'o'}, {"inf", 'o'}, {"e", 'e'}, {"i", 'i'}, {"imath", 'i'},
};

/* Commands that are signs. N: a new row; S and s: braces of a set; F, f, C, c: floor and ceiling; $: money */
static const name signs[] = {
    {"cdot", '*'},   {"times", '*'},    {"ast", '*'},    {"div", '/'},    {"colon", ':'},    {"le", 'l'},
    {"leq", 'l'},    {"leqslant", 'l'}, {"ge", 'g'},     {"geq", 'g'},    {"geqslant", 'g'}, {"ne", 'n'},
    {"neq", 'n'},    {"lt", '<'},       {"gt", '>'},     {"in", 'e'},     {"approx", '='},   {"equiv", '='},
    {"pm", 'p'},     {"mp", 'm'},       {"cup", 'u'},    {"lbrace", 'S'}, {"rbrace", 's'},   {"lvert", '|'},
    {"rvert", '|'},  {"vert", '|'},     {"lfloor", 'F'}, {"rfloor", 'f'}, {"lceil", 'C'},    {"rceil", 'c'},
    {"lbrack", '['}, {"rbrack", ']'},   {"lparen", '('}, {"rparen", ')'}, {"euro", '$'},     {"pounds", '$'},
    {"circ", 'o'},   {"degree", 'd'},
};

static const char *const greek[] = {
    "alpha",    "beta",    "gamma", "delta",  "epsilon", "varepsilon", "zeta",  "eta",   "theta",
    "vartheta", "iota",    "kappa", "lambda", "mu",      "nu",         "xi",    "rho",   "sigma",
    "tau",      "upsilon", "phi",   "varphi", "chi",     "psi",        "omega", "Gamma", "Delta",
    "Theta",    "Lambda",  "Sigma", "Phi",    "Psi",     "Omega",      "ell",
};

/* Commands that change how things look. */
static const char *const looks[] = {
    "left",       "right", "displaystyle", "textstyle", "limits", "nolimits", "quad",   "qquad",  "big",    "Big",
    "bigg",       "Bigg",  "bigl",         "bigr",      "Bigl",   "Bigr",     "boxed",  "fbox",   "mathbf", "mathit",
    "boldsymbol", "bf",    "rm",           "it",        "vec",    "mleft",    "mright", "middle", "hspace", "bm",
};

/* Commands around words. */
static const char *const texts[] = {"text",   "mbox",   "textbf", "textit", "textrm",      "textnormal",
                                    "mathrm", "mathsf", "hbox",   "texttt", "operatorname"};

#define COUNT(list) (sizeof(list) / sizeof *(list))

static bool is(const char *s, int n, const char *text) {
    return (int)strlen(text) == n && memcmp(s, text, (size_t)n) == 0;
}

static bool among(const char *const *list, size_t count, const char *s, int n) {
    for (size_t i = 0; i < count; i++)
        if (is(s, n, list[i])) return true;
    return false;
}

static const name *find(const name *list, size_t count, const char *s, int n) {
    for (size_t i = 0; i < count; i++)
        if (is(s, n, list[i].text)) return &list[i];
    return NULL;
}

static bool digit(char c) {
    return c >= '0' && c <= '9';
}

static bool letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static const char *digits(const char *p) {
    while (digit(*p)) p++;
    return p;
}

static const char *letters(const char *p) {
    while (letter(*p)) p++;
    return p;
}

static const char *blanks(const char *p) {
    while (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r' || *p == '~') p++;
    return p;
}

/* --- tokens ------------------------------------------------------------------------------------------------------ */

/* Over blanks, thin spaces and commands of looks. */
static const char *skip(const char *p) {
    for (;;) {
        p = blanks(p);
        if (*p != '\\') return p;
        if (p[1] && strchr(",;:! ", p[1])) p += 2;
        else if (among(looks, COUNT(looks), p + 1, (int)(letters(p + 1) - p - 1))) p = letters(p + 1);
        else return p;
    }
}

/* Behind the sign that may stand between thousands: "," "{,}" ",\!" "\," and a blank. NULL: there is none. */
static const char *thousands_sign(const char *p, int brackets) {
    if (strncmp(p, "{,}", 3) == 0) return p + 3;
    if (strncmp(p, ",\\!", 3) == 0) return blanks(p + 3);
    if (strncmp(p, "\\,", 2) == 0 || strncmp(p, "\\ ", 2) == 0) return p + 2;
    return (*p == ',' && !brackets) || *p == ' ' ? p + 1 : NULL;
}

static const char *exponent_of_ten(const char *from, const char *p) {
    if (*p != 'e' && *p != 'E') return p;
    bool sign = p[1] == '-' || p[1] == '+';
    if (!digit(p[1 + sign]) || (sign && *p == 'e' && !memchr(from, '.', (size_t)(p - from))))
        return p; /* 2e-3: 2 e - 3 */
    return digits(p + 1 + sign);
}

/* The end of the number at p, which begins with a digit or a point before one. */
static const char *number_end(const char *p, int brackets) {
    const char *from = p;
    p = digits(p);
    if (p - from >= 1 && p - from <= 3 && *from != '0') {
        for (const char *q; (q = thousands_sign(p, brackets)) && digits(q) == q + 3; p = q + 3) {
            const char *after = blanks(q + 3);
            if (*p == ' ' && (*after == '/' || strncmp(after, "\\frac", 5) == 0)) break; /* a mixed number */
        }
    }
    if (*p == '.' && digit(p[1])) p = digits(p + 1);
    else if (*p == '.' && p > from && p[1] != '.' && !letter(p[1])) p++;
    return exponent_of_ten(from, p);
}

/* Behind the brace that closes the one at p; NULL: none does. */
static const char *close_brace(const char *p) {
    int depth = 0;
    for (; *p; p++) {
        if (*p == '\\' && p[1]) p++;
        else if (*p == '{') depth++;
        else if (*p == '}' && --depth == 0) return p + 1;
    }
    return NULL;
}

static bool joins(const char *s, int n) { /* and, or, with commas and blanks */
    while (n && (*s == ' ' || *s == ',')) {
        s++;
        n--;
    }
    while (n && s[n - 1] == ' ') n--;
    return is(s, n, "and") || is(s, n, "or");
}

static token text_token(const char *name_end) {
    const char *open = blanks(name_end), *end = *open == '{' ? close_brace(open) : NULL;
    if (!end) return (token){.kind = T_BAD};
    const char *s = open + 1;
    int n = (int)(end - 1 - s);
    while (n && *s == ' ') {
        s++;
        n--;
    }
    while (n && s[n - 1] == ' ') n--;
    if (n == 1 && (*s == 'e' || *s == 'i')) return (token){.kind = T_CONST, .op = *s, .s = s, .n = n, .end = end};
    if (joins(s, n)) return (token){.kind = T_OP, .op = ',', .s = s, .n = n, .end = end};
    return (token){.kind = T_TEXT, .s = s, .n = n, .end = end};
}

static token command_token(const char *p) {
    const char *end = letters(p + 1);
    token k = {.s = p + 1, .n = (int)(end - p - 1), .end = end};
    if (k.n == 0) {
        static const char from[] = "{}%$|\\&", to[] = "Ss%$bN&";
        const char *c = p[1] ? strchr(from, p[1]) : NULL;
        return (token){.kind = c ? T_OP : T_BAD, .op = c ? to[c - from] : 0, .s = p, .n = 2, .end = p + 1 + !!p[1]};
    }
    const name *f;
    if ((f = find(signs, COUNT(signs), k.s, k.n))) {
        k.kind = T_OP;
        k.op = f->op;
    } else if ((f = find(functions, COUNT(functions), k.s, k.n))) {
        k.kind = T_FUNC;
        k.op = f->op;
    } else if (k.n > 1 && (f = find(constants, COUNT(constants), k.s, k.n))) {
        k.kind = T_CONST;
        k.op = f->op;
    } else if (among(greek, COUNT(greek), k.s, k.n)) k.kind = T_VAR;
    else if (among(texts, COUNT(texts), k.s, k.n)) return text_token(end);
    else k.kind = T_CMD;
    return k;
}

/* A run of letters: a function, a constant, a variable, or a word. */
static token letters_token(const char *p) {
    const char *end = letters(p);
    token k = {.kind = T_WORD, .s = p, .n = (int)(end - p), .end = end};
    const name *f;
    if ((f = find(functions, COUNT(functions), p, k.n))) {
        k.kind = T_FUNC;
        k.op = f->op;
    } else if ((f = find(constants, COUNT(constants), p, k.n))) {
        k.kind = T_CONST;
        k.op = f->op;
    } else if (joins(p, k.n)) {
        k.kind = T_OP;
        k.op = ',';
    } else if (is(p, k.n, "percent")) {
        k.kind = T_OP;
        k.op = '%';
    } else if (is(p, k.n, "sqrt")) k.kind = T_CMD;
    else if (k.n == 1) k.kind = T_VAR;
    return k;
}

static token look(const parser *ps) {
    const char *p = skip(ps->p);
    if (!*p) return (token){.kind = T_END, .s = p, .end = p};
    if (digit(*p) || (*p == '.' && digit(p[1]))) {
        const char *end = number_end(p, ps->brackets);
        return (token){.kind = T_NUM, .s = p, .n = (int)(end - p), .end = end};
    }
    if (letter(*p)) return letters_token(p);
    if (*p == '\\') return command_token(p);
    static const struct {
        const char *text;
        int op;
    } two[] = {{"<=", 'l'}, {">=", 'g'}, {"!=", 'n'}, {"**", '^'}, {"==", '='}};
    for (size_t i = 0; i < COUNT(two); i++)
        if (strncmp(p, two[i].text, 2) == 0)
            return (token){.kind = T_OP, .op = two[i].op, .s = p, .n = 2, .end = p + 2};
    if (!strchr("+-*/^_!,;()[]{}|=<>%:$&", *p)) return (token){.kind = T_BAD, .s = p, .end = p};
    return (token){.kind = T_OP, .op = *p == ';' ? ',' : *p, .s = p, .n = 1, .end = p + 1};
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

/* {sum} with the opening brace taken */
static int group(parser *ps, int close) {
    bool bar = ps->bar;
    ps->bar = false;
    ps->brackets++;
    int a = sum(ps);
    ps->brackets--;
    ps->bar = bar;
    return take(ps, close) ? a : 0;
}

/* What a command of LaTeX takes: {...}, one digit, or one thing. */
static int argument(parser *ps) {
    const char *p = skip(ps->p);
    ps->p = p;
    if (take(ps, '{')) return group(ps, '}');
    if (digit(*p)) {
        ps->p = p + 1;
        return leaf(ps, N_NUM, 0, p, 1);
    }
    if (letter(*p) && *p != 'e' && *p != 'i') {
        ps->p = p + 1;
        return leaf(ps, N_VAR, 0, p, 1);
    }
    return letter(*p) || *p == '\\' ? primary(ps) : 0;
}

static int fraction(parser *ps, node_kind kind) {
    int a = argument(ps);
    return a ? two(ps, kind, 0, a, argument(ps)) : 0;
}

/* \sqrt[n]{x}, sqrt(x) */
static int root(parser *ps, bool plain) {
    int degree = 0;
    if (!plain && *skip(ps->p) == '[') {
        take(ps, '[');
        if (!(degree = group(ps, ']'))) return 0;
    }
    int a = *skip(ps->p) == '(' ? (take(ps, '('), group(ps, ')')) : plain ? primary(ps) : argument(ps);
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

static int function_of(parser *ps, int which) {
    int base = 0, exponent = 0;
    if (which == F_LOG && take(ps, '_') && !(base = argument(ps))) return 0;
    if (take(ps, '^')) {
        bool minus = *skip(ps->p) == '-' && take(ps, '-');
        exponent = argument(ps);
        if (!exponent || minus) return 0;
    }
    int a = *skip(ps->p) == '(' ? (take(ps, '('), group(ps, ')')) : open_argument(ps);
    if (!a) return 0;
    bool inverse = false;
    if (exponent) { /* \sin^{-1} is the inverse */
        const node *x = &ps->t->nodes[exponent], *y = x->kind == N_NEG ? &ps->t->nodes[x->first] : NULL;
        inverse = y && y->kind == N_NUM && is(y->s, y->n, "1");
        if (y && !(inverse && which <= F_TAN)) return 0;
    }
    if (inverse) return one(ps, N_FUNC, F_ASIN + which - F_SIN, a);
    int f = one_or_two(ps, N_FUNC, which, a, base);
    return exponent ? two(ps, N_POW, 0, f, exponent) : f;
}

/* x, x_1, x_{max} */
static int variable(parser *ps, token k) {
    const char *from = k.s;
    ps->p = k.end;
    if (*blanks(ps->p) == '_') {
        const char *p = blanks(blanks(ps->p) + 1);
        if (*p == '{') p = close_brace(p);
        else if (*p == '\\') p = letters(p + 1);
        else p = digit(*p) || letter(*p) ? p + 1 : NULL;
        if (!p) return 0;
        ps->p = p;
    }
    return leaf(ps, N_VAR, 0, from, (int)(ps->p - from));
}

/* Behind a digit or {digits}; NULL: something else is there. */
static const char *digits_in_braces(const char *p) {
    if (!p) return NULL;
    p = skip(p);
    if (digit(*p)) return p + 1;
    const char *end = *p == '{' ? blanks(digits(blanks(p + 1))) : NULL;
    return end && *end == '}' && digit(*blanks(p + 1)) ? end + 1 : NULL;
}

/* Behind a whole number: its base, or the fraction of a mixed number. */
static int number(parser *ps, token k) {
    ps->p = k.end;
    int a = leaf(ps, N_NUM, 0, k.s, k.n);
    if (digits(k.s) != k.end) return a;
    const char *p = blanks(k.end);
    if (*p == '_') {
        bool brace = *(p = blanks(p + 1)) == '{';
        const char *base = blanks(p + brace), *end = digits(base);
        if (end == base || (brace && *blanks(end) != '}')) return 0;
        ps->p = brace ? blanks(end) + 1 : end;
        node *x = &ps->t->nodes[a];
        x->kind = N_BASE;
        x->base = base;
        x->n_base = (int)(end - base);
        return a;
    }
    if (digit(*p) && p > k.end) { /* 1 1/2 */
        const char *up = digits(p), *slash = blanks(up), *down = blanks(slash + (*slash == '/')), *end = digits(down);
        if (*slash != '/' || end == down || *end == '.') return 0;
        ps->p = end;
        int f = two(ps, N_DIV, 0, leaf(ps, N_NUM, 0, p, (int)(up - p)), leaf(ps, N_NUM, 0, down, (int)(end - down)));
        return two(ps, N_ADD, 0, a, f);
    }
    token f = look(ps);
    if (f.kind == T_CMD && f.n >= 4 && is(f.s + f.n - 4, 4, "frac") && digits_in_braces(digits_in_braces(f.end)))
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
    ps->brackets++;
    int a = list(ps, N_SET);
    ps->brackets--;
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
    static const char *const kinds[] = {"{pmatrix}", "{bmatrix}", "{matrix}", "{smallmatrix}", "{array}", "{Bmatrix}"};
    const char *p = blanks(ps->p);
    size_t which = 0;
    while (which < COUNT(kinds) && strncmp(p, kinds[which], strlen(kinds[which])) != 0) which++;
    if (which == COUNT(kinds)) return 0;
    ps->p = p + strlen(kinds[which]);
    if (strcmp(kinds[which], "{array}") == 0 && !(ps->p = close_brace(blanks(ps->p)))) return 0;
    int rows = 0, last_row = 0;
    do {
        if (strncmp(skip(ps->p), "\\end", 4) == 0) break;
        int cells = 0, last = 0;
        do {
            int x = sum(ps);
            if (!x) return 0;
            append(ps, &cells, &last, x);
        } while (take(ps, '&'));
        append(ps, &rows, &last_row, one(ps, N_LIST, 0, cells));
    } while (last_row && take(ps, 'N'));
    p = skip(ps->p);
    if (!last_row || strncmp(p, "\\end", 4) != 0) return 0;
    p = blanks(p + 4);
    if (strncmp(p, kinds[which], strlen(kinds[which])) != 0) return 0;
    ps->p = p + strlen(kinds[which]);
    return new_node(ps, N_MATRIX, 0, rows);
}

static int command(parser *ps, token k) {
    ps->p = k.end;
    if (k.n == 5 && is(k.s + 1, 4, "frac") && strchr("dtc", *k.s)) return fraction(ps, N_DIV);
    if (is(k.s, k.n, "frac")) return fraction(ps, N_DIV);
    if (is(k.s, k.n, "binom") || is(k.s, k.n, "dbinom") || is(k.s, k.n, "tbinom")) return fraction(ps, N_BINOM);
    if (is(k.s, k.n, "sqrt")) return root(ps, k.s == ps->t->text.p || k.s[-1] != '\\');
    if (is(k.s, k.n, "surd")) return root(ps, true);
    if (is(k.s, k.n, "begin")) return matrix(ps);
    if (is(k.s, k.n, "emptyset") || is(k.s, k.n, "varnothing")) return new_node(ps, N_SET, '{', 0);
    if (is(k.s, k.n, "R")) return new_node(ps, N_REALS, 0, 0);
    if (is(k.s, k.n, "mathbb") && strncmp(blanks(k.end), "{R}", 3) == 0) {
        ps->p = blanks(k.end) + 3;
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
    if (k.n != 1 || !letter(*k.s)) return 0;
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
            if (*skip(ps->p) == '!') return 0;
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
    token k = look(ps);
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
    a = two(ps, N_POW, 0, a, exponent(ps));
    token k = look(ps);
    return k.kind == T_OP && (k.op == '^' || k.op == '_') ? 0 : a; /* 2^3^2: either way */
}

/* Known words behind a number, and single letters behind a number and a blank at the end: "5 m", but 5m is a product.
 */
static bool is_unit(const parser *ps, token k) {
    const char *from = ps->t->text.p;
    if (k.kind == T_WORD) return k.s > from && strchr("0123456789 }~)", k.s[-1]) && unit_known(k.s, (size_t)k.n);
    return k.kind == T_VAR && strchr("mgsLh", *k.s) && k.s - from >= 2 && k.s[-1] == ' ' && digit(k.s[-2]) &&
           !*blanks(k.end);
}

static bool begins_factor(const parser *ps, token k) {
    switch (k.kind) {
    case T_OP: return strchr("({FC", k.op) || (k.op == '|' && !ps->bar);
    case T_WORD: return k.n <= 3 && !is_unit(ps, k);
    case T_CMD: return !is(k.s, k.n, "end");
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
            const char *p = skip(ps->p);
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

static int sum(parser *ps) {
    const int before = ps->t->n;
    static const char zero[] = "0";
    token money = look(ps);
    bool negative_money = false;
    if (money.kind == T_OP && money.op == '-') { /* -\$5 */
        const char *back = ps->p;
        ps->p = money.end;
        money = look(ps);
        negative_money = money.kind == T_OP && money.op == '$';
        if (!negative_money) ps->p = back;
    }
    bool has_money = take(ps, '$');
    int a = 0;
    take(ps, '+');
    token k = look(ps);
    if (k.kind == T_OP && (k.op == 'p' || k.op == 'm')) a = leaf(ps, N_NUM, 0, zero, 1);
    else a = product(ps);
    if (negative_money) a = one(ps, N_NEG, 0, a);
    while (a) {
        if (take(ps, '+')) a = two(ps, N_ADD, 0, a, product(ps));
        else if (take(ps, '-')) a = two(ps, N_SUB, 0, a, product(ps));
        else if (take(ps, 'p')) a = two(ps, N_PM, '+', a, product(ps));
        else if (take(ps, 'm')) a = two(ps, N_PM, '-', a, product(ps));
        else break;
    }
    if (a && has_money) {
        token w = look(ps);
        if (w.kind == T_WORD || w.kind == T_TEXT) a = with_unit(ps, a, before); /* \$3 million, \$5 per hour */
        int x = one(ps, N_UNIT, 'k', a);
        ps->t->nodes[x].s = money.s;
        ps->t->nodes[x].n = money.n;
        return x;
    }
    return a ? with_unit(ps, a, before) : 0;
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
        if (digit(k.s[i])) return true;
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
    if (k.kind == T_OP && k.op == ',' && joins(k.s, k.n)) ps->p = k.end;
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

/* Letters, digits and punctuation with a word among them. */
static bool prose(const char *p) {
    bool word = false;
    for (; *p; p++) {
        if (*p == '\\') {
            const char *end = letters(p + 1);
            if (!among(texts, COUNT(texts), p + 1, (int)(end - p - 1))) return false;
            p = end - 1;
        } else if (letter(*p)) word = word || letter(p[1]);
        else if (!digit(*p) && (unsigned char)*p < 128 && !strchr(" \t\n\r.,;:'\"?!()-{}&/", *p)) return false;
        else word = word || (unsigned char)*p > 127;
    }
    return word;
}

/* One word of two letters or more that is no number. */
static bool single_word(const char *p) {
    const char *end = letters(p);
    return end - p > 1 && !*end && letters_token(p).kind == T_WORD;
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
    t->root = prose(t->text.p) ? leaf(&ps, N_WORD, 0, t->text.p, (int)t->text.n) : 0;
}

void tree_free(tree *t) {
    str_free(&t->text);
    free(t->nodes);
    *t = (tree){0};
}
