#include "reward/answer_tokens.h"

#include <string.h>

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

/* Commands that are signs. */
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

bool token_is(const char *s, int n, const char *text) {
    return (int)strlen(text) == n && memcmp(s, text, (size_t)n) == 0;
}

static bool among(const char *const *list, size_t count, const char *s, int n) {
    for (size_t i = 0; i < count; i++)
        if (token_is(s, n, list[i])) return true;
    return false;
}

static const name *find(const name *list, size_t count, const char *s, int n) {
    for (size_t i = 0; i < count; i++)
        if (token_is(s, n, list[i].text)) return &list[i];
    return NULL;
}

const char *token_skip(const char *p) {
    for (;;) {
        p = blanks_end(p);
        if (*p != '\\') return p;
        if (p[1] && strchr(",;:! ", p[1])) p += 2;
        else if (among(looks, COUNT(looks), p + 1, (int)(letters_end(p + 1) - p - 1))) p = letters_end(p + 1);
        else return p;
    }
}

/* Behind the sign that may stand between thousands: "," "{,}" ",\!" "\," and a blank. NULL: there is none. */
static const char *thousands_sign(const char *p, int brackets) {
    if (strncmp(p, "{,}", 3) == 0) return p + 3;
    if (strncmp(p, ",\\!", 3) == 0) return blanks_end(p + 3);
    if (strncmp(p, "\\,", 2) == 0 || strncmp(p, "\\ ", 2) == 0) return p + 2;
    return (*p == ',' && !brackets) || *p == ' ' ? p + 1 : NULL;
}

static const char *exponent_of_ten(const char *from, const char *p) {
    if (*p != 'e' && *p != 'E') return p;
    bool sign = p[1] == '-' || p[1] == '+';
    if (!is_digit(p[1 + sign]) || (sign && *p == 'e' && !memchr(from, '.', (size_t)(p - from))))
        return p; /* 2e-3: 2 e - 3 */
    return digits_end(p + 1 + sign);
}

/* The end of the number at p, which begins with a digit or a point before one. */
static const char *number_end(const char *p, int brackets) {
    const char *from = p;
    p = digits_end(p);
    if (p - from >= 1 && p - from <= 3 && *from != '0') {
        for (const char *q; (q = thousands_sign(p, brackets)) && digits_end(q) == q + 3; p = q + 3) {
            const char *after = blanks_end(q + 3);
            if (*p == ' ' && (*after == '/' || strncmp(after, "\\frac", 5) == 0)) break; /* a mixed number */
        }
    }
    if (*p == '.' && is_digit(p[1])) p = digits_end(p + 1);
    else if (*p == '.' && p > from && p[1] != '.' && !is_letter(p[1])) p++;
    return exponent_of_ten(from, p);
}

const char *token_brace_end(const char *p) {
    int depth = 0;
    for (; *p; p++) {
        if (*p == '\\' && p[1]) p++;
        else if (*p == '{') depth++;
        else if (*p == '}' && --depth == 0) return p + 1;
    }
    return NULL;
}

bool token_joins(const char *s, int n) {
    while (n && (*s == ' ' || *s == ',')) {
        s++;
        n--;
    }
    while (n && s[n - 1] == ' ') n--;
    return token_is(s, n, "and") || token_is(s, n, "or");
}

static token text_token(const char *name_end) {
    const char *open = blanks_end(name_end), *end = *open == '{' ? token_brace_end(open) : NULL;
    if (!end) return (token){.kind = T_BAD, .s = open, .end = open};
    const char *s = open + 1;
    int n = (int)(end - 1 - s);
    while (n && *s == ' ') {
        s++;
        n--;
    }
    while (n && s[n - 1] == ' ') n--;
    if (n == 1 && (*s == 'e' || *s == 'i')) return (token){.kind = T_CONST, .op = *s, .s = s, .n = n, .end = end};
    if (token_joins(s, n)) return (token){.kind = T_OP, .op = ',', .s = s, .n = n, .end = end};
    return (token){.kind = T_TEXT, .s = s, .n = n, .end = end};
}

static token command_token(const char *p) {
    const char *end = letters_end(p + 1);
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
    const char *end = letters_end(p);
    token k = {.kind = T_WORD, .s = p, .n = (int)(end - p), .end = end};
    const name *f;
    if ((f = find(functions, COUNT(functions), p, k.n))) {
        k.kind = T_FUNC;
        k.op = f->op;
    } else if ((f = find(constants, COUNT(constants), p, k.n))) {
        k.kind = T_CONST;
        k.op = f->op;
    } else if (token_joins(p, k.n)) {
        k.kind = T_OP;
        k.op = ',';
    } else if (token_is(p, k.n, "percent")) {
        k.kind = T_OP;
        k.op = '%';
    } else if (token_is(p, k.n, "sqrt")) k.kind = T_CMD;
    else if (k.n == 1) k.kind = T_VAR;
    return k;
}

token token_at(const char *p, int brackets) {
    p = token_skip(p);
    if (!*p) return (token){.kind = T_END, .s = p, .end = p};
    if (is_digit(*p) || (*p == '.' && is_digit(p[1]))) {
        const char *end = number_end(p, brackets);
        return (token){.kind = T_NUM, .s = p, .n = (int)(end - p), .end = end};
    }
    if (is_letter(*p)) return letters_token(p);
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

bool token_prose(const char *p) {
    bool word = false;
    for (; *p; p++) {
        if (*p == '\\') {
            const char *end = letters_end(p + 1);
            if (!among(texts, COUNT(texts), p + 1, (int)(end - p - 1))) return false;
            p = end - 1;
        } else if (is_letter(*p)) word = word || is_letter(p[1]);
        else if (!is_digit(*p) && (unsigned char)*p < 128 && !strchr(" \t\n\r.,;:'\"?!()-{}&/", *p)) return false;
        else word = word || (unsigned char)*p > 127 || (*p == ':' && is_digit(p[1]));
    }
    return word;
}

void token_words(str *out, const char *p, size_t n) {
    for (const char *end = p + n; p < end; p++) {
        int command = *p == '\\' ? (int)(letters_end(p + 1) - p - 1) : 0;
        bool apart = out->n && is_digit(out->p[out->n - 1]); /* 5 1/2 is not 51/2 */
        if (command && among(texts, COUNT(texts), p + 1, command)) p += command;
        else if (is_blank(*p) && apart && is_digit(*blanks_end(p))) str_putc(out, ' ');
        else if (strchr("-.,:", *p) ? is_digit(p[1]) : !strchr(" \t\r\n~;'\"?!(){}", *p)) str_putc(out, to_small(*p));
    }
}
