/* What stands around an answer and says nothing: delimiters of formulas, markdown, a full stop; and symbols of Unicode
 * as LaTeX writes them. */
#include "reward/answer_parse.h"

#include <string.h>
#include "reward/answer.h"
#include "reward/answer_chars.h"

typedef struct symbol {
    const char *utf8, *latex;
} symbol;

static const symbol symbols[] = {
    {"π", "\\pi "},     {"×", "\\times "}, {"÷", "/"},         {"−", "-"},           {"–", "-"},
    {"∞", "\\infty "},  {"≤", "\\le "},    {"≥", "\\ge "},     {"≠", "\\ne "},       {"∪", "\\cup "},
    {"∈", "\\in "},     {"±", "\\pm "},    {"∓", "\\mp "},     {"·", "\\cdot "},     {"⋅", "\\cdot "},
    {"°", "^\\circ "},  {"²", "^2"},       {"³", "^3"},        {"½", "\\frac12 "},   {"¼", "\\frac14 "},
    {"¾", "\\frac34 "}, {"√", "\\surd "},  {"≈", "\\approx "}, {"∅", "\\emptyset "}, {"ℝ", "\\R "},
    {"θ", "\\theta "},  {"α", "\\alpha "}, {"β", "\\beta "},   {"λ", "\\lambda "},   {"€", "\\euro "},
    {"£", "\\pounds "}, {"\u00a0", " "},   {"\u2009", " "},    {"\u202f", " "},      {"，", ","},
    {"（", "("},        {"）", ")"},       {"。", "."},
};

static const symbol *symbol_at(const char *p) {
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++)
        if (strncmp(p, symbols[i].utf8, strlen(symbols[i].utf8)) == 0) return &symbols[i];
    return NULL;
}

/* A lone $ is money; in pairs they are delimiters. */
static bool dollars_are_pairs(const char *p) {
    int n = 0;
    for (; *p; p++) {
        if (*p == '\\' && p[1]) p++;
        else n += *p == '$';
    }
    return n % 2 == 0;
}

static void replace_symbols(str *out, const char *p) {
    bool pairs = dollars_are_pairs(p);
    while (*p) {
        const symbol *u = (unsigned char)*p > 127 ? symbol_at(p) : NULL;
        if (u) {
            str_puts(out, u->latex);
            p += strlen(u->utf8);
        } else if (*p == '\\' && p[1]) {
            if (strchr("()[]", p[1])) str_putc(out, ' ');
            else str_add(out, p, 2);
            p += 2;
        } else {
            str_putc(out, *p == '$' && pairs ? ' ' : *p);
            p++;
        }
    }
}

/* Whether the closing character at p + n - 1 is escaped. */
static bool escaped(const char *p, size_t n) {
    size_t k = 0;
    while (k + 1 < n && p[n - 2 - k] == '\\') k++;
    return k % 2 == 1;
}

static bool around(char c) {
    return is_blank(c) || c == '*';
}

/* Cuts off blanks and stars of markdown on both sides and one full stop or comma at the end: "1, 2, ..." stays. */
static void trim(const char **p, size_t *n) {
    for (; *n && around(**p); --*n) ++*p;
    while (*n && around((*p)[*n - 1])) --*n;
    if (*n && strchr(".,;", (*p)[*n - 1]) && !escaped(*p, *n) && !(*n > 1 && (*p)[*n - 2] == '.')) --*n;
    while (*n && around((*p)[*n - 1])) --*n;
}

void answer_clean(str *out, const char *text) {
    str inner = {0}, plain = {0};
    const char *from = answer_find(text, ANSWER_BOXED, &inner) && inner.n ? inner.p : text;
    if (strnlen(from, ANSWER_BYTES + 1) <= ANSWER_BYTES) replace_symbols(&plain, from);
    if (plain.p) {
        const char *p = plain.p;
        size_t n = plain.n;
        trim(&p, &n);
        if (n) str_add(out, p, n);
    }
    if (plain.failed || inner.failed) out->failed = true;
    str_free(&plain);
    str_free(&inner);
}
