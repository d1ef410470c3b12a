/* Two expressions are the same when they have the same values wherever both are defined.
 *
 * Exact: in expressions of numbers, variables, pi, and e with + - * / and whole powers, everything is computed modulo
 * three primes near 2^31, variables (pi and e are such, being transcendental) at pseudo-random points: equal
 * expressions agree, different ones agree with a chance of degree / 2^93 (Schwartz-Zippel). No size of a number
 * matters.
 *
 * Else: complex numbers at fixed points, to 13 digits. A point where gold is not real (a root of a negative) is outside
 * of its domain unless an i is written.
 *
 * Decimals: 0.333333 is 1/3, as grader.py of math-verify rounds to six decimals when one of the two is a decimal number
 * and none a whole one; here six digits must agree, too. */
#include "reward/answer_value.h"

#include <complex.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "reward/answer_chars.h"

typedef long double complex cplx;

enum { POINTS = 8, ENOUGH = 3, PRIMES = 3, FACTORIALS = 200 };

static const uint64_t primes[PRIMES] = {2147483647, 2147483629, 2147483587};

enum { HAS_VARIABLE = 1, HAS_I = 2, HAS_PM = 4, HAS_DEGREE = 8 };

struct values {
    int n;
    unsigned char *flags; /* [n] */
    cplx *at;             /* [2 signs][POINTS][n]; NAN: none */
    uint64_t *mod;        /* [2 signs][PRIMES][n]; NONE */
};

#define NONE UINT64_MAX

static cplx *row(const values *v, int sign, int point) {
    return v->at + (size_t)(sign * POINTS + point) * (size_t)v->n;
}

static uint64_t *row_mod(const values *v, int sign, int prime) {
    return v->mod + (size_t)(sign * PRIMES + prime) * (size_t)v->n;
}

/* --- leaves ------------------------------------------------------------------------------------------------------ */

/* What a number's text says: digits * 10^ten. Separators of thousands are passed over. */
typedef struct decimal {
    uint64_t leading; /* the first 18 digits */
    uint64_t mod;     /* all digits, modulo a prime */
    int64_t ten;      /* of mod */
    int64_t dropped;  /* digits that leading lacks */
    bool point;       /* it is written as a decimal */
    bool big;         /* its exponent is out of reach */
} decimal;

/* The number behind an e. */
static int64_t exponent_text(const char *p, const char *end, bool *big) {
    bool minus = p < end && *p == '-';
    int64_t e = 0;
    for (; p < end; p++) {
        if (is_digit(*p)) e = e * 10 + (*p - '0');
        if (e > 1000000) *big = true;
        if (*big) return 0;
    }
    return minus ? -e : e;
}

static decimal read_decimal(const node *x, uint64_t prime) {
    decimal d = {0};
    int kept = 0;
    const char *end = x->s + x->n;
    for (const char *p = x->s; p < end; p++) {
        if (*p == '.') d.point = true;
        if (*p == 'e' || *p == 'E') {
            d.ten += exponent_text(p + 1, end, &d.big);
            d.point = d.point || p[1] == '-';
            break;
        }
        if (!is_digit(*p)) continue;
        uint64_t digit = (uint64_t)(*p - '0');
        d.mod = (d.mod * 10 + digit) % prime;
        d.ten -= d.point;
        if (kept == 18) {
            d.dropped++;
        } else {
            d.leading = d.leading * 10 + digit;
            kept += d.leading > 0;
        }
    }
    return d;
}

static uint64_t mix(uint64_t x) { /* splitmix64 */
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* x_1 and x_{1} are one variable. */
static uint64_t hash_name(const node *x) {
    uint64_t h = 0;
    for (int i = 0; i < x->n; i++)
        if (!strchr("{}_ \\~", x->s[i])) h = mix(h ^ (unsigned char)x->s[i]);
    return h;
}

/* --- exact ------------------------------------------------------------------------------------------------------- */

static uint64_t power_mod(uint64_t a, uint64_t e, uint64_t p) {
    uint64_t r = 1;
    for (a %= p; e; e >>= 1, a = a * a % p)
        if (e & 1) r = r * a % p;
    return r;
}

static uint64_t divide_mod(uint64_t a, uint64_t b, uint64_t p) {
    return b ? a * power_mod(b, p - 2, p) % p : NONE;
}

static uint64_t number_mod(const node *x, uint64_t p) {
    decimal d = read_decimal(x, p);
    if (d.big) return NONE;
    uint64_t scale = power_mod(10, (uint64_t)(d.ten < 0 ? -d.ten : d.ten), p);
    return d.ten < 0 ? divide_mod(d.mod, scale, p) : d.mod * scale % p;
}

/* A whole exponent that is the same at every point. */
static bool whole_exponent(const values *v, int sign, int x, int64_t *e) {
    cplx value = row(v, sign, 0)[x];
    long double r = creall(value);
    if ((v->flags[x] & HAS_VARIABLE) || cimagl(value) != 0 || !(fabsl(r) < 4e15L) || r != floorl(r)) return false;
    *e = (int64_t)r;
    for (int k = 0; k < PRIMES; k++) { /* 2.0000000000000000000001 is not whole */
        int64_t p = (int64_t)primes[k], m = *e % p;
        if (row_mod(v, sign, k)[x] != (uint64_t)(m < 0 ? m + p : m)) return false;
    }
    return true;
}

static uint64_t raise_mod(uint64_t a, int64_t e, uint64_t p) {
    if (a == 0 && e <= 0) return NONE;
    uint64_t r = power_mod(a, (uint64_t)(e < 0 ? -e : e), p);
    return e < 0 ? divide_mod(1, r, p) : r;
}

static uint64_t factorial_mod(int64_t n, int64_t down_to, uint64_t p) {
    uint64_t r = 1;
    for (int64_t i = down_to + 1; i <= n; i++) r = r * ((uint64_t)i % p) % p;
    return r;
}

static uint64_t node_mod(const tree *t, const values *v, int sign, int prime, int i) {
    const node *x = &t->nodes[i];
    uint64_t p = primes[prime], *m = row_mod(v, sign, prime), a = x->first ? m[x->first] : 0, b = 0;
    int second = x->first ? t->nodes[x->first].next : 0;
    int64_t e, f;
    if (second) b = m[second];
    if (a == NONE || b == NONE) return NONE;
    switch (x->kind) {
    case N_NUM:
    case N_BASE: return number_mod(x, p);
    case N_VAR: return mix(hash_name(x) + (uint64_t)prime) % p;
    case N_CONST: return x->op == 'p' || x->op == 'e' ? mix((uint64_t)(x->op * 8 + prime)) % p : NONE;
    case N_ADD: return (a + b) % p;
    case N_SUB: return (a + p - b) % p;
    case N_PM: return (x->op == '+') == (sign == 0) ? (a + b) % p : (a + p - b) % p;
    case N_MUL: return a * b % p;
    case N_DIV: return divide_mod(a, b, p);
    case N_NEG: return (p - a) % p;
    case N_DEGREE: return a;
    case N_PERCENT: return divide_mod(a, 100, p);
    case N_POW: return whole_exponent(v, sign, second, &e) ? raise_mod(a, e, p) : NONE;
    case N_FACTORIAL:
        return whole_exponent(v, sign, x->first, &e) && e >= 0 && e <= FACTORIALS ? factorial_mod(e, 0, p) : NONE;
    case N_BINOM:
        if (!whole_exponent(v, sign, x->first, &e) || !whole_exponent(v, sign, second, &f)) return NONE;
        if (f < 0 || f > e || f > FACTORIALS) return NONE;
        return divide_mod(factorial_mod(e, e - f, p), factorial_mod(f, 0, p), p);
    default: return NONE;
    }
}

/* --- by value ---------------------------------------------------------------------------------------------------- */

static cplx number_at(const node *x) {
    decimal d = read_decimal(x, primes[0]);
    int64_t ten = d.ten + d.dropped;
    if (d.big || ten > 4000 || ten < -4000) return NAN;
    long double scale = powl(10, (long double)(ten < 0 ? -ten : ten)), r = (long double)d.leading;
    return ten < 0 ? r / scale : r * scale;
}

/* Between 0.3 and 2.9, half of them negative. */
static cplx variable_at(const node *x, int point) {
    uint64_t h = mix(hash_name(x) ^ mix((uint64_t)point + 77));
    long double r = 0.3L + 2.6L * (long double)(h >> 11) / 9007199254740992.0L;
    return point % 2 ? -r : r;
}

/* The real root of a negative number where the exponent is a fraction with an odd denominator. */
static bool odd_root(long double a, long double e, long double *r) {
    for (int q = 3; q <= 15; q += 2) {
        long double p = e * (long double)q;
        if (fabsl(p - roundl(p)) > 1e-15L) continue;
        *r = powl(-a, e) * (fmodl(roundl(p), 2) != 0 ? -1 : 1);
        return true;
    }
    return false;
}

static cplx power_at(cplx a, cplx e) {
    if (a == 0 && creall(e) <= 0) return NAN;
    if (cimagl(a) == 0 && cimagl(e) == 0) {
        long double x = creall(a), y = creall(e), r;
        if (x >= 0 || y == floorl(y)) return powl(x, y);
        if (odd_root(x, y, &r)) return r;
    }
    if (cimagl(e) == 0 && creall(e) == 2) return a * a;
    return cpowl(a, e);
}

static cplx function_at(int f, cplx a, bool has_base, cplx base) {
    bool real = cimagl(a) == 0;
    switch (f) {
    case F_SIN: return csinl(a);
    case F_COS: return ccosl(a);
    case F_TAN: return ctanl(a);
    case F_COT: return 1 / ctanl(a);
    case F_SEC: return 1 / ccosl(a);
    case F_CSC: return 1 / csinl(a);
    case F_ASIN: return casinl(a);
    case F_ACOS: return cacosl(a);
    case F_ATAN: return catanl(a);
    case F_SINH: return csinhl(a);
    case F_COSH: return ccoshl(a);
    case F_TANH: return ctanhl(a);
    case F_LN: return a == 0 ? (cplx)NAN : clogl(a);
    case F_LOG: return a == 0 ? (cplx)NAN : clogl(a) / clogl(has_base ? base : 10);
    case F_EXP: return cexpl(a);
    case F_ABS: return cabsl(a);
    case F_FLOOR: return real ? (cplx)floorl(creall(a)) : (cplx)NAN;
    case F_CEIL: return real ? (cplx)ceill(creall(a)) : (cplx)NAN;
    default: return NAN;
    }
}

static cplx factorial_at(cplx a) {
    long double n = creall(a);
    return cimagl(a) == 0 && n >= 0 && n <= 1000 ? (cplx)tgammal(n + 1) : (cplx)NAN;
}

static cplx binom_at(cplx a, cplx b) {
    long double n = creall(a), k = creall(b), r = 1;
    if (cimagl(a) != 0 || cimagl(b) != 0 || !(k >= 0 && k <= FACTORIALS) || k != floorl(k)) return NAN;
    for (long double i = 1; i <= k; i++) r = r * (n - k + i) / i;
    return r;
}

static cplx node_at(const tree *t, const values *v, int sign, int point, int i) {
    static const long double pi = 3.14159265358979323846264338327950288L,
                             euler = 2.71828182845904523536028747135266250L;
    const node *x = &t->nodes[i];
    const cplx *at = row(v, sign, point);
    int second = x->first ? t->nodes[x->first].next : 0;
    cplx a = x->first ? at[x->first] : 0, b = second ? at[second] : 0;
    switch (x->kind) {
    case N_NUM:
    case N_BASE: return number_at(x);
    case N_VAR: return variable_at(x, point);
    case N_CONST: return x->op == 'p' ? (cplx)pi : x->op == 'e' ? (cplx)euler : x->op == 'i' ? (cplx)I : (cplx)NAN;
    case N_ADD: return a + b;
    case N_SUB: return a - b;
    case N_PM: return (x->op == '+') == (sign == 0) ? a + b : a - b;
    case N_MUL: return a * b;
    case N_DIV: return b == 0 ? (cplx)NAN : a / b;
    case N_NEG: return -a;
    case N_DEGREE: return a;
    case N_PERCENT: return a / 100;
    case N_POW: return power_at(a, b);
    case N_ROOT: return second ? power_at(a, 1 / b) : csqrtl(a);
    case N_FACTORIAL: return factorial_at(a);
    case N_BINOM: return binom_at(a, b);
    case N_FUNC: /* of degrees */
        if (x->op <= F_CSC && (v->flags[x->first] & HAS_DEGREE)) a *= pi / 180;
        return function_at(x->op, a, second != 0, b);
    default: return NAN;
    }
}

/* --- tables ------------------------------------------------------------------------------------------------------ */

static unsigned char flags_of(const tree *t, const values *v, int i) {
    const node *x = &t->nodes[i];
    unsigned char f = 0;
    if (x->kind == N_VAR) f = HAS_VARIABLE;
    if (x->kind == N_PM) f = HAS_PM;
    if (x->kind == N_DEGREE) f = HAS_DEGREE;
    if (x->kind == N_CONST && x->op == 'i') f = HAS_I;
    for (int c = x->first; c; c = t->nodes[c].next) f |= v->flags[c];
    return f;
}

/* Children stand before their parents, so one walk over the list computes all. */
static void fill(const tree *t, values *v) {
    for (int i = 1; i < v->n; i++) v->flags[i] = flags_of(t, v, i);
    for (int sign = 0; sign < 2; sign++)
        for (int i = 1; i < v->n; i++) {
            for (int k = 0; k < POINTS; k++) {
                cplx a = node_at(t, v, sign, k, i);
                row(v, sign, k)[i] = isfinite(creall(a)) && isfinite(cimagl(a)) ? a : (cplx)NAN;
            }
            for (int k = 0; k < PRIMES; k++) row_mod(v, sign, k)[i] = node_mod(t, v, sign, k, i);
        }
}

values *values_open(const tree *t) {
    values *v = calloc(1, sizeof *v);
    if (!v) return NULL;
    size_t n = (size_t)t->n;
    v->n = t->n;
    v->flags = calloc(n + 1, 1);
    v->at = malloc((2 * POINTS * n + 1) * sizeof *v->at);
    v->mod = malloc((2 * PRIMES * n + 1) * sizeof *v->mod);
    if (!v->flags || !v->at || !v->mod) {
        values_close(v);
        return NULL;
    }
    fill(t, v);
    return v;
}

void values_close(values *v) {
    if (!v) return;
    free(v->flags);
    free(v->at);
    free(v->mod);
    free(v);
}

/* --- equality ---------------------------------------------------------------------------------------------------- */

static int flags(number a) {
    return a.v->flags[a.x];
}

static cplx value(number a, int point) {
    return row(a.v, a.sign == 2, point)[a.x];
}

static bool defined(cplx a) {
    return !isnan(creall(a)) && !isnan(cimagl(a));
}

bool number_is_constant(number a) {
    return !(flags(a) & HAS_VARIABLE);
}

bool number_has_sign(number a) {
    return (flags(a) & HAS_PM) != 0;
}

static int infinity(number a) { /* 1, -1; 0: not infinite */
    const node *x = &a.t->nodes[a.x];
    int sign = 1;
    for (; x->kind == N_NEG; x = &a.t->nodes[x->first]) sign = -sign;
    return x->kind == N_CONST && x->op == 'o' ? sign : 0;
}

bool number_real(number a, double *r) {
    cplx c = value(a, 0);
    if (infinity(a)) *r = (double)infinity(a) * INFINITY;
    else *r = (double)creall(c);
    return infinity(a) || (number_is_constant(a) && defined(c) && fabsl(cimagl(c)) <= 1e-15L * cabsl(c));
}

/* 1: equal, 0: different, -1: one cannot be computed so */
static int exactly_equal(number a, number b) {
    bool equal = true;
    for (int k = 0; k < PRIMES; k++) {
        uint64_t p = row_mod(a.v, a.sign == 2, k)[a.x], q = row_mod(b.v, b.sign == 2, k)[b.x];
        if (p == NONE || q == NONE) return -1;
        equal = equal && p == q;
    }
    return equal;
}

static bool close_to(cplx a, cplx b) {
    return cabsl(a - b) <= 1e-13L * fmaxl(cabsl(a), cabsl(b)) + 1e-17L;
}

static verdict equal_at_points(number g, number t) {
    bool constants = number_is_constant(g) && number_is_constant(t);
    bool complex_numbers = ((flags(g) | flags(t)) & HAS_I) != 0;
    int points = constants ? 1 : POINTS, met = 0;
    for (int k = 0; k < points; k++) {
        cplx a = value(g, k), b = value(t, k);
        if (!defined(a) || (!complex_numbers && fabsl(cimagl(a)) > 1e-12L * cabsl(a))) continue;
        if (!defined(b) || !close_to(a, b)) return WRONG;
        met++;
    }
    return met >= (constants ? 1 : ENOUGH) ? RIGHT : UNSURE;
}

/* The number under signs and percent; NULL: an expression. */
static const node *atom(number a, bool *percent, bool *minus) {
    const node *x = &a.t->nodes[a.x];
    for (*percent = *minus = false; x->kind == N_NEG || x->kind == N_PERCENT; x = &a.t->nodes[x->first]) {
        if (x->kind == N_PERCENT) *percent = true;
        else *minus = !*minus;
    }
    return x->kind == N_NUM ? x : NULL;
}

/* 50% is 50, too, when both are whole. */
static bool equal_but_for_percent(number g, number t) {
    bool p, q, m, n;
    const node *a = atom(g, &p, &m), *b = atom(t, &q, &n);
    if (!a || !b || p == q || m != n) return false;
    decimal d = read_decimal(a, primes[0]), e = read_decimal(b, primes[0]);
    return !d.point && !e.point && d.leading == e.leading && !d.dropped && !e.dropped && d.ten == 0 && e.ten == 0;
}

static bool is_decimal(number a) {
    bool percent, minus;
    const node *x = atom(a, &percent, &minus);
    return x && read_decimal(x, primes[0]).point;
}

static bool equal_in_decimals(number g, number t) {
    cplx a = value(g, 0), b = value(t, 0);
    if (!number_is_constant(g) || !number_is_constant(t) || !defined(a) || !defined(b)) return false;
    const cplx other = is_decimal(g) ? b : a;
    bool both = is_decimal(g) && is_decimal(t);
    if (!both && other == floorl(creall(other))) return false; /* whole: to be met exactly */
    long double d = cabsl(a - b);
    return d <= 5e-7L && d <= 1.1e-6L * fmaxl(cabsl(a), cabsl(b));
}

verdict numbers_equal(number g, number t) {
    if (infinity(g) || infinity(t)) return infinity(g) == infinity(t) ? RIGHT : WRONG;
    int exact = exactly_equal(g, t);
    if (exact == 1) return RIGHT;
    if (equal_but_for_percent(g, t)) return RIGHT;
    if ((is_decimal(g) || is_decimal(t)) && equal_in_decimals(g, t)) return RIGHT;
    return exact == 0 ? WRONG : equal_at_points(g, t);
}

int differences_proportional(number a, number b, number p, number q) {
    long double c = 0;
    int met = 0;
    for (int k = 0; k < POINTS; k++) {
        cplx d = value(a, k) - value(b, k), e = value(p, k) - value(q, k);
        if (!defined(d) || cimagl(d) != 0) continue;
        if (!defined(e) || cimagl(e) != 0 || (d == 0) != (e == 0)) return 0;
        if (d == 0) continue;
        long double ratio = creall(d) / creall(e);
        if (met++ && fabsl(ratio - c) > 1e-12L * fabsl(c)) return 0;
        c = ratio;
    }
    return met < ENOUGH ? 0 : c > 0 ? 1 : -1;
}
