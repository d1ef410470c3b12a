/* Numbers within bounds: an automaton that reads digits and knows whether what is written still agrees with the lower
 * and the upper bound (then the next digit is limited) or lies safely inside. A number of at most 15 digits and its
 * bound compare as decimals like they compare as doubles, so what is allowed here validates. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "text/json_schema_inner.h"

enum { MAX_MULTIPLE = 256, DIGITS = 40 };

/* A bound's distance from zero as digits: whole[n] without leading zeros ("0" for less than one), then fraction[]. */
typedef struct bound {
    bool there, exclusive, negative;
    double value;
    char whole[DIGITS + 1], fraction[DIGITS + 1];
} bound;

typedef struct range {
    rules *r;
    const bound *low, *high; /* of the magnitude; NULL: none */
    int length, max_fraction;
    int step, zeros, scale;                  /* multiples of step * 10^zeros / 10^scale; step 0: of anything */
    int32_t known[2 * DIGITS][MAX_MULTIPLE]; /* nodes inside both bounds, by the place before the point and rest */
} range;

/* ---- reading ---- */

/* -1.25e-3 and its like to digits. */
static status read_decimal(const schema_compiler *c, const char *key, const char *p, bound *b) {
    char digits[DIGITS + 1] = "";
    int n = 0, point = -1;
    b->negative = *p == '-';
    for (p += b->negative; *p && *p != 'e' && n < DIGITS; p++)
        if (*p == '.') point = n;
        else digits[n++] = *p;
    if (point < 0) point = n;
    if (*p == 'e') point += atoi(p + 1);
    while (n > point && n > 0 && digits[n - 1] == '0') n--;
    if (n - point > JSON_DIGITS) return schema_fail(c, ERR_UNSUPPORTED, "\"%s\": a number with that many digits", key);
    if (point > DIGITS) point = DIGITS; /* larger than any number that is written */
    int w = 0, f = 0;
    for (int i = 0; i < point; i++)
        if (w || (i < n && digits[i] != '0')) b->whole[w++] = i < n ? digits[i] : '0';
    if (!w) b->whole[w++] = '0';
    for (int i = point; i < n; i++) b->fraction[f++] = i < 0 ? '0' : digits[i];
    b->whole[w] = b->fraction[f] = 0;
    return OK;
}

static status read_number(const schema_compiler *c, const json_t *s, const char *key, bound *b) {
    const json_t *j = json_object_get(s, key);
    str digits = {0};
    *b = (bound){0};
    if (!j) return OK;
    if (!json_is_number(j)) return schema_fail(c, ERR_ARG, "\"%s\" should be a number", key);
    b->there = true;
    b->value = json_number_value(j);
    if (json_is_integer(j)) str_addf(&digits, "%lld", (long long)json_integer_value(j));
    else text_print_float(&digits, b->value);
    status st = str_check(&digits, c->e);
    if (st == OK) st = read_decimal(c, key, digits.p, b);
    str_free(&digits);
    return st;
}

/* The stricter of two bounds; side: 1 for lower bounds, -1 for upper ones. Draft 4's "exclusive..." is true or false.
 */
static status read_bound(const schema_compiler *c, const json_t *s, const char *key, const char *exclusive, int side,
                         bound *out) {
    const json_t *flag = json_object_get(s, exclusive);
    bound other = {0};
    TRY(read_number(c, s, key, out));
    if (json_is_boolean(flag)) out->exclusive = json_is_true(flag);
    else TRY(read_number(c, s, exclusive, &other));
    if (!other.there || (out->there && side * out->value > side * other.value)) return OK;
    *out = other;
    out->exclusive = true;
    return OK;
}

static status read_multiple(const schema_compiler *c, const json_t *s, range *g) {
    bound b;
    char digits[2 * DIGITS + 1];
    TRY(read_number(c, s, "multipleOf", &b));
    if (!b.there) return OK;
    if (b.value <= 0) return schema_fail(c, ERR_ARG, "\"multipleOf\" should be larger than 0");
    snprintf(digits, sizeof digits, "%s%s", b.whole, b.fraction);
    size_t n = strlen(digits);
    while (n > 1 && digits[n - 1] == '0' && !*b.fraction) n--, g->zeros++;
    digits[n] = 0;
    long long step = strtoll(digits, NULL, 10), fives = step;
    g->scale = (int)strlen(b.fraction);
    for (int i = 0; i < g->scale; i++) fives = fives % 5 ? 0 : fives / 5;
    if (step > MAX_MULTIPLE || fives == 0)
        return schema_fail(c, ERR_UNSUPPORTED,
                           fives ? "\"multipleOf\" larger than 256" : "\"multipleOf\" that no binary fraction equals");
    g->step = (int)step;
    return OK;
}

/* ---- writing ---- */

static int bound_digit(const range *g, const bound *b, int i) {
    if (i < g->length) return b->whole[i] - '0';
    i -= g->length;
    return i < (int)strlen(b->fraction) ? b->fraction[i] - '0' : 0;
}

static bool zeros_from(const range *g, const bound *b, int i) {
    for (; i < g->length + (int)strlen(b->fraction); i++)
        if (bound_digit(g, b, i)) return false;
    return true;
}

/* Whether a number may end with i digits. */
static bool may_end(const range *g, int i, bool low, bool high, int rest) {
    if (i < g->length) return false;
    if (low && (!zeros_from(g, g->low, i) || g->low->exclusive)) return false;
    if (high && zeros_from(g, g->high, i) && g->high->exclusive) return false;
    for (int k = i - g->length; g->step && k < g->scale; k++) rest = rest * 10 % g->step;
    return !g->step || rest == 0;
}

static int32_t digits_from(range *g, int i, bool low, bool high, int rest);

/* Digit number i and what follows. */
static int32_t one_digit(range *g, int i, bool low, bool high, int rest) {
    int from = low ? bound_digit(g, g->low, i) : 0, to = high ? bound_digit(g, g->high, i) : 9;
    int32_t start = NEVER;
    if (i == 0 && g->length > 1 && from == 0) from = 1;
    bool zero = i < g->length && g->length - i <= g->zeros; /* of a multiple of 10^zeros */
    if (zero) to = from == 0 ? 0 : -1;
    for (int a = from, b; a <= to; a = b + 1) {
        bool at_low = low && a == bound_digit(g, g->low, i), at_high = high && a == bound_digit(g, g->high, i);
        b = g->step || at_low || at_high ? a : to;
        if (b > a && high) b--;
        int next = g->step && !zero ? (rest * 10 + a) % g->step : rest;
        start = rules_either(
            g->r, start,
            rules_bytes(g->r, (uint8_t)('0' + a), (uint8_t)('0' + b), digits_from(g, i + 1, at_low, at_high, next)));
    }
    return start;
}

/* What may follow i digits that agree with the bounds as `low` and `high` say. */
static int32_t digits_from(range *g, int i, bool low, bool high, int rest) {
    int32_t *known = !low && !high && i > 0 ? &g->known[i - g->length + DIGITS][rest] : NULL, start = NEVER;
    if (known && *known) return *known;
    if (may_end(g, i, low, high, rest)) start = RETURN;
    if (i < g->length) start = one_digit(g, i, low, high, rest);
    else if (i - g->length < g->max_fraction) {
        int32_t more = one_digit(g, i, low, high, rest);
        start = rules_either(g->r, start, i == g->length ? rules_word(g->r, ".", more) : more);
    }
    if (known) *known = start;
    return start;
}

/* Distances from zero between two bounds. */
static int32_t magnitudes(range *g, const bound *low, const bound *high, int max_digits) {
    int32_t start = NEVER;
    const int from = low ? (int)strlen(low->whole) : 1, to = high ? (int)strlen(high->whole) : max_digits;
    g->low = low;
    g->high = high;
    for (int n = from; n <= to && n <= max_digits; n++) {
        if (n == from || !g->step) memset(g->known, 0, sizeof g->known);
        g->length = n;
        if (!g->step) g->max_fraction = g->max_fraction ? max_digits - n + 1 : 0;
        bool at_low = low && n == from, at_high = high && n == (int)strlen(high->whole);
        start = rules_either(g->r, start, digits_from(g, 0, at_low, at_high, 0));
    }
    return start;
}

static status write_range(const schema_compiler *c, const json_t *s, bool integer, range *g, int32_t *start) {
    static const bound zero = {.there = true, .whole = "0"},
                       above_zero = {.there = true, .exclusive = true, .whole = "0"};
    bound low, high;
    TRY(read_bound(c, s, "minimum", "exclusiveMinimum", 1, &low));
    TRY(read_bound(c, s, "maximum", "exclusiveMaximum", -1, &high));
    TRY(read_multiple(c, s, g));
    const bool whole = integer || (g->step && !g->scale);
    const int digits = !whole ? REAL_DIGITS - 1 - g->scale : g->step ? REAL_DIGITS : JSON_DIGITS;
    const int fraction = whole ? 0 : g->step ? g->scale : 1;
    *start = NEVER;
    g->max_fraction = fraction;
    if (!high.there || high.value >= 0)
        *start = magnitudes(g, low.there && low.value >= 0 ? &low : &zero, high.there ? &high : NULL, digits);
    g->max_fraction = fraction;
    if (!low.there || low.value < 0) {
        const bound *from = high.there && high.value < 0 ? &high : &above_zero;
        int32_t below = magnitudes(g, from, low.there ? &low : NULL, digits);
        *start = rules_either(c->t->r, *start, rules_word(c->t->r, "-", below));
    }
    return OK;
}

status schema_number(const schema_compiler *c, const json_t *s, bool integer, int32_t *start) {
    static const char *const keys[] = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"};
    bool limited = false;
    for (int i = 0; i < 5; i++) limited |= json_object_get(s, keys[i]) != NULL;
    *start = rules_call(c->t->r, integer ? c->t->integer : c->t->number, RETURN);
    if (!limited) return OK;
    range *g = calloc(1, sizeof *g);
    if (!g) return fail(c->e, ERR_NOMEM, "memory is out");
    g->r = c->t->r;
    status st = write_range(c, s, integer, g, start);
    free(g);
    return st;
}
