#include "reward/answer_units.h"

#include <string.h>
#include "reward/answer_chars.h"

typedef struct unit {
    const char *word, *name; /* name NULL: what is counted, which says nothing about the number */
} unit;

static const unit units[] = {
    {"m", "m"},           {"meter", "m"},      {"metre", "m"},         {"cm", "cm"},         {"centimeter", "cm"},
    {"centimetre", "cm"}, {"mm", "mm"},        {"millimeter", "mm"},   {"millimetre", "mm"}, {"km", "km"},
    {"kilometer", "km"},  {"kilometre", "km"}, {"in", "in"},           {"inch", "in"},       {"ft", "ft"},
    {"foot", "ft"},       {"feet", "ft"},      {"yd", "yd"},           {"yard", "yd"},       {"mi", "mi"},
    {"mile", "mi"},       {"g", "g"},          {"gram", "g"},          {"kg", "kg"},         {"kilogram", "kg"},
    {"mg", "mg"},         {"lb", "lb"},        {"pound", "lb"},        {"oz", "oz"},         {"ounce", "oz"},
    {"ton", "ton"},       {"l", "l"},          {"liter", "l"},         {"litre", "l"},       {"ml", "ml"},
    {"milliliter", "ml"}, {"gallon", "gal"},   {"gal", "gal"},         {"s", "s"},           {"sec", "s"},
    {"second", "s"},      {"min", "min"},      {"minute", "min"},      {"h", "h"},           {"hr", "h"},
    {"hour", "h"},        {"day", "day"},      {"week", "week"},       {"month", "month"},   {"year", "year"},
    {"yr", "year"},       {"mph", "mi/h"},     {"kmh", "km/h"},        {"kmph", "km/h"},     {"dollar", "$"},
    {"euro", "euro"},     {"cent", "cent"},    {"rupee", "rupee"},     {"degree", "degree"}, {"deg", "degree"},
    {"radian", "radian"}, {"rad", "radian"},   {"hectare", "hectare"}, {"acre", "acre"},     {"unit", NULL},
    {"am", "am"},         {"pm", "pm"},        {"student", NULL},      {"people", NULL},     {"person", NULL},
    {"apple", NULL},      {"coin", NULL},      {"digit", NULL},        {"way", NULL},        {"point", NULL},
    {"value", NULL},      {"solution", NULL},  {"th", NULL},           {"nd", NULL},         {"rd", NULL},
    {"st", NULL},
};

static const unit scales[] = {{"dozen", "12"},        {"hundred", "100"},        {"thousand", "1000"},
                              {"million", "1000000"}, {"billion", "1000000000"}, {"trillion", "1000000000000"}};

static const char *const changing[] = {
    "squared", "cubed", "half",  "halves", "third",     "thirds", "quarter", "quarters", "fourths", "fifths",
    "times",   "plus",  "minus", "over",   "factorial", "mod",    "base",    "root",     "power",   "negative",
    "less",    "more",  "than",  "if",     "not",       "when",   "where",   "divided",  "except",  "only"};

static bool same(const char *p, size_t n, const char *word) {
    if (strlen(word) != n) return false;
    for (size_t i = 0; i < n; i++)
        if (to_small(p[i]) != word[i]) return false;
    return true;
}

/* The entry of a word or its plural. */
static const unit *entry(const unit *list, size_t count, const char *p, size_t n) {
    for (size_t cut = 0; cut <= 2 && cut < n; cut++) {
        if (cut && (to_small(p[n - 1]) != 's' || n < 4 || (cut == 2 && to_small(p[n - 2]) != 'e'))) break;
        for (size_t i = 0; i < count; i++)
            if (same(p, n - cut, list[i].word)) return &list[i];
    }
    return NULL;
}

static const unit *unit_entry(const char *p, size_t n) {
    return entry(units, sizeof units / sizeof *units, p, n);
}

/* 2 for "square", 3 for "cubic", else 0 */
static int power_word(const char *p, size_t n) {
    return same(p, n, "square") || same(p, n, "sq") ? 2 : same(p, n, "cubic") || same(p, n, "cu") ? 3 : 0;
}

bool unit_known(const char *p, size_t n) {
    return unit_entry(p, n) || power_word(p, n) || same(p, n, "per");
}

const char *unit_scale(const char *p, size_t n) {
    const unit *u = entry(scales, sizeof scales / sizeof *scales, p, n);
    return u ? u->name : NULL;
}

/* The next run of letters from *at; 0: none. */
static size_t next_word(const char *p, size_t n, size_t *at) {
    while (*at < n && !is_letter(p[*at])) ++*at;
    size_t end = *at;
    while (end < n && is_letter(p[end])) end++;
    return end - *at;
}

bool unit_changes_number(const char *p, size_t n) {
    size_t at = 0;
    for (size_t w; (w = next_word(p, n, &at)) > 0; at += w) {
        if (unit_scale(p + at, w)) return true;
        for (size_t i = 0; i < sizeof changing / sizeof *changing; i++)
            if (same(p + at, w, changing[i])) return true;
    }
    return false;
}

/* "square feet", "ft^2", "ft^{2}" -> "ft2"; "miles per hour" -> "mi/h". False: a word is not known. */
static bool usual_name(str *out, const char *p, size_t n) {
    bool known = true;
    int power = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '/') str_putc(out, '/');
        else if (p[i] == '$') str_putc(out, '$');
        else if (is_digit(p[i]) && out->n) str_addf(out, "%c", p[i]);
        if (!is_letter(p[i])) continue;
        size_t w = next_word(p, n, &i);
        const unit *u = unit_entry(p + i, w);
        if (power_word(p + i, w)) power = power_word(p + i, w);
        else if (same(p + i, w, "per")) str_putc(out, '/');
        else {
            known = known && u && u->name;
            for (size_t k = 0; !(u && u->name) && k < w; k++) str_putc(out, to_small(p[i + k]));
            if (u && u->name) str_puts(out, u->name);
            if (power) str_addf(out, "%d", power);
            power = 0;
        }
        i += w - 1;
    }
    return known;
}

int units_equal(const char *p, size_t n, const char *q, size_t m) {
    str a = {0}, b = {0};
    bool known = usual_name(&a, p, n);
    known = usual_name(&b, q, m) && known;
    int equal = !a.failed && !b.failed && a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0) ? 1 : known ? 0 : -1;
    str_free(&a);
    str_free(&b);
    return equal;
}
