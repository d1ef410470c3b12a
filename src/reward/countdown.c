/* Countdown: make the target of the numbers, each used once. Rule and scores are TinyZero's (verl/utils/reward_score/
 * countdown.py), which reads the last line of the completion only, and in it the last <answer>...</answer>:
 *
 *   0             there is none
 *   format_score  (0.1) the expression's numbers are not the given ones, or it is none, or its value is not the target
 *   1             |value - target| < 1e-5
 *
 * An expression is one of Python's with + - * / // ** ( ) and numbers. It is reckoned in double precision; what leaves
 * +-2^53, where sums are no longer exact, has no value here.
 *
 *   sum = product {(+|-) product}   product = sign {(*|/|//) sign}   sign = {+|-} power   power = atom [** sign]
 */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "reward/kinds.h"

#define LARGEST 9007199254740992.0 /* 2^53 */
enum { DEEPEST = 100, MOST_NUMBERS = 64 };

/* --- the value of an expression ---------------------------------------------------------------------------------- */

typedef struct reader {
    const char *p, *end;
    int depth;
    bool bad; /* what was read is no expression */
} reader;

static double read_sum(reader *r);
static double read_sign(reader *r);

static void skip_spaces(reader *r) {
    while (r->p < r->end && strchr(" \t\f", *r->p)) r->p++;
}

static bool eat(reader *r, const char *sign) {
    size_t n = strlen(sign);
    skip_spaces(r);
    if ((size_t)(r->end - r->p) < n || memcmp(r->p, sign, n) != 0) return false;
    r->p += n;
    return true;
}

static double checked(reader *r, double x) {
    if (!(fabs(x) <= LARGEST)) r->bad = true; /* a division by zero, too */
    return x;
}

/* 12, 1.5, 1., .5; Python allows no leading zeros but in 0, 00 and before a point. */
static double read_number(reader *r) {
    const char *begin = r->p;
    double value = 0, scale = 1;
    while (r->p < r->end && isdigit((unsigned char)*r->p)) value = 10 * value + (*r->p++ - '0');
    int64_t digits = r->p - begin;
    if (r->p < r->end && *r->p == '.') {
        for (r->p++; r->p < r->end && isdigit((unsigned char)*r->p); digits++) {
            value = 10 * value + (*r->p++ - '0');
            scale *= 10;
        }
    } else if (digits > 1 && *begin == '0' && value != 0) r->bad = true;
    if (!digits) r->bad = true;
    return checked(r, value / scale);
}

static double read_atom(reader *r) {
    if (!eat(r, "(")) return read_number(r);
    if (++r->depth > DEEPEST) r->bad = true;
    double x = r->bad ? 0 : read_sum(r);
    r->depth--;
    if (!eat(r, ")")) r->bad = true;
    return x;
}

static double read_power(reader *r) {
    double base = read_atom(r);
    if (r->bad || !eat(r, "**")) return base;
    return checked(r, pow(base, read_sign(r)));
}

static double read_sign(reader *r) {
    bool minus = false;
    for (;;)
        if (eat(r, "-")) minus = !minus;
        else if (!eat(r, "+")) break;
    double x = read_power(r);
    return minus ? -x : x;
}

static double read_product(reader *r) {
    double x = read_sign(r);
    while (!r->bad) {
        if (eat(r, "//")) x = checked(r, floor(x / read_sign(r)));
        else if (eat(r, "*")) x = checked(r, x * read_sign(r));
        else if (eat(r, "/")) x = checked(r, x / read_sign(r));
        else break;
    }
    return x;
}

static double read_sum(reader *r) {
    double x = read_product(r);
    while (!r->bad) {
        if (eat(r, "+")) x = checked(r, x + read_product(r));
        else if (eat(r, "-")) x = checked(r, x - read_product(r));
        else break;
    }
    return x;
}

/* NaN: it is no expression, or has no value */
static double value_of(const char *p, const char *end) {
    reader r = {.p = p, .end = end};
    double x = read_sum(&r);
    skip_spaces(&r);
    return r.bad || r.p != r.end ? NAN : x;
}

/* --- the numbers in it ------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The runs of digits in p .. end; -1: more than there is room for. */
static int find_numbers(const char *p, const char *end, double *list) {
    int n = 0;
    while (p < end) {
        double value = 0;
        if (!isdigit((unsigned char)*p)) {
            p++;
            continue;
        }
        while (p < end && isdigit((unsigned char)*p)) value = 10 * value + (*p++ - '0');
        if (n == MOST_NUMBERS) return -1;
        list[n++] = value;
    }
    return n;
}

static bool same_numbers(const json_t *given, const char *p, const char *end) {
    double own[MOST_NUMBERS], theirs[MOST_NUMBERS];
    int n = find_numbers(p, end, own);
    if (n < 0 || (size_t)n != json_array_size(given)) return false;
    for (int i = 0; i < n; i++) theirs[i] = json_number_value(json_array_get(given, (size_t)i));
    qsort(own, (size_t)n, sizeof *own, by_value);
    qsort(theirs, (size_t)n, sizeof *theirs, by_value);
    for (int i = 0; i < n; i++)
        if (own[i] != theirs[i]) return false;
    return true;
}

/* --- the reward -------------------------------------------------------------------------------------------------- */

/* The last <answer>...</answer> in the last line; each begins behind the end of the one before. */
static bool find_answer(const char *text, const char **begin, const char **end) {
    const char *line = strrchr(text, '\n');
    bool found = false;
    for (const char *p = line ? line + 1 : text; (p = strstr(p, "<answer>"));) {
        const char *close = strstr(p, "</answer>");
        if (!close) break;
        *begin = p + strlen("<answer>");
        *end = close;
        found = true;
        p = close;
    }
    return found;
}

static double score_one(double format_score, const reward_input *in) {
    const json_t *target = json_object_get(in->row, "target"), *numbers = json_object_get(in->row, "numbers");
    const char *begin, *end;
    if (!numbers) numbers = json_object_get(in->row, "nums");
    if (!json_is_number(target) || !json_is_array(numbers)) return NAN;
    if (!find_answer(in->completion, &begin, &end)) return 0;
    while (begin < end && isspace((unsigned char)*begin)) begin++;
    while (begin < end && isspace((unsigned char)end[-1])) end--;
    if (!same_numbers(numbers, begin, end)) return format_score;
    return fabs(value_of(begin, end) - json_number_value(target)) < 1e-5 ? 1 : format_score;
}

static status open_countdown(void **state, const json_t *o, const reward_context *c, error *e) {
    (void)c;
    double format_score;
    TRY(json_get_real(o, "format_score", 0.1, &format_score, e));
    return reward_keep(state, &format_score, sizeof format_score, e);
}

static status score_countdown(void *state, const reward_input *in, int64_t n, int64_t group, double *score, error *e) {
    (void)group, (void)e;
    for (int64_t i = 0; i < n; i++) score[i] = score_one(*(double *)state, &in[i]);
    return OK;
}

const reward_kind reward_countdown = {
    .name = "countdown",
    .help =
        "1 when the expression in the last line's <answer> uses the row's \"numbers\" (or \"nums\") once each and has "
        "the value of the row's \"target\" (TinyZero's countdown.py). format_score: for any other <answer>, default "
        "0.1",
    .members = "format_score",
    .open = open_countdown,
    .close = free,
    .score = score_countdown,
};
