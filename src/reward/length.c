/* Rewards for length and against repetition.
 *
 *   length         Kimi k1.5 (arXiv 2501.12599, 2.3.3; open-r1's len_reward): l = 1/2 - (len - min)/(max - min) with
 * the shortest and the longest of the group; right: l, wrong: min(0, l); all of one length: 0 cosine         open-r1's
 * get_cosine_scaled_reward (arXiv 2502.03373): a + (b - a)/2 (1 + cos(pi len/max_len)) with a = min_right, b =
 * max_right for right answers, a = max_wrong, b = min_wrong for wrong ones. What is longer than max_len scores as
 * max_len (in open-r1 the cosine rises again) soft_overlong  DAPO (arXiv 2503.14476, equation 13): L <= Lmax - Lc: 0; L
 * <= Lmax: (Lmax - Lc - L)/Lc; else -1 repetition     open-r1's get_repetition_penalty_reward: max_penalty (1 -
 * distinct n-grams / n-grams) of lower-case words between white space; fewer than n words: 0
 *
 * len is in characters (code points) unless `unit` says tokens. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>
#include "reward/kinds.h"
#include "text/unicode.h"

static const char *const units[] = {"characters", "tokens"};
enum { CHARACTERS, TOKENS };

static double length_of(int unit, const reward_input *in) {
    int64_t n = 0;
    if (unit == TOKENS) return (double)in->tokens;
    for (const char *p = in->completion; *p; p++) n += ((unsigned char)*p & 0xc0) != 0x80;
    return (double)n;
}

typedef struct scale {
    right_rule rule;
    int unit;
    double min_wrong, max_wrong, min_right, max_right, max_len; /* cosine; max_len 0: the limit of tokens */
} scale;

static status read_scale(scale *s, const json_t *o, error *e) {
    TRY(right_rule_read(&s->rule, o, e));
    return reward_choose(o, "unit", units, 2, CHARACTERS, &s->unit, e);
}

/* --- length ------------------------------------------------------------------------------------------------------ */

static status open_length(void **state, const json_t *o, const reward_context *c, error *e) {
    (void)c;
    scale s = {0};
    TRY(read_scale(&s, o, e));
    return reward_keep(state, &s, sizeof s, e);
}

static status score_group(const scale *s, const reward_input *in, int64_t n, double *score, error *e) {
    double shortest = INFINITY, longest = 0;
    for (int64_t i = 0; i < n; i++) {
        shortest = fmin(shortest, length_of(s->unit, &in[i]));
        longest = fmax(longest, length_of(s->unit, &in[i]));
    }
    for (int64_t i = 0; i < n && longest > shortest; i++) {
        double right, l = 0.5 - (length_of(s->unit, &in[i]) - shortest) / (longest - shortest);
        TRY(right_rule_ask(&s->rule, &in[i], &right, e));
        score[i] = isnan(right) ? NAN : right > 0 ? l : fmin(0, l);
    }
    return OK;
}

static status score_length(void *state, const reward_input *in, int64_t n, int64_t group, double *score, error *e) {
    for (int64_t i = 0; i < n; i += group) TRY(score_group(state, in + i, n - i < group ? n - i : group, score + i, e));
    return OK;
}

const reward_kind reward_length = {
    .name = "length",
    .help = "among the completions of a prompt 0.5 for the shortest to -0.5 for the longest, wrong answers at most 0 "
            "(Kimi k1.5; open-r1's len_reward). unit: characters (default) or tokens; " RIGHT_HELP,
    .members = "unit|" RIGHT_MEMBERS,
    .open = open_length,
    .close = free,
    .score = score_length,
};

/* --- cosine ------------------------------------------------------------------------------------------------------ */

static status open_cosine(void **state, const json_t *o, const reward_context *c, error *e) {
    (void)c;
    scale s = {0};
    TRY(read_scale(&s, o, e));
    TRY(json_get_real(o, "min_wrong", 0, &s.min_wrong, e));
    TRY(json_get_real(o, "max_wrong", -0.5, &s.max_wrong, e));
    TRY(json_get_real(o, "min_right", 0.5, &s.min_right, e));
    TRY(json_get_real(o, "max_right", 1, &s.max_right, e));
    TRY(json_get_real(o, "max_len", s.unit == TOKENS ? 0 : 1000, &s.max_len, e));
    if (s.max_len < (s.unit == TOKENS ? 0 : 1)) return fail(e, ERR_FORMAT, "\"max_len\" is %g, below 1", s.max_len);
    return reward_keep(state, &s, sizeof s, e);
}

static status score_cosine(void *state, const reward_input *in, int64_t n, int64_t group, double *score, error *e) {
    const scale *s = state;
    (void)group;
    for (int64_t i = 0; i < n; i++) {
        double right, most = s->max_len > 0 ? s->max_len : (double)in[i].max_tokens;
        TRY(right_rule_ask(&s->rule, &in[i], &right, e));
        double a = right > 0 ? s->min_right : s->max_wrong, b = right > 0 ? s->max_right : s->min_wrong;
        double share = most > 0 ? fmin(1, length_of(s->unit, &in[i]) / most) : 1;
        score[i] = isnan(right) ? NAN : a + 0.5 * (b - a) * (1 + cos(share * M_PI));
    }
    return OK;
}

const reward_kind reward_cosine = {
    .name = "cosine",
    .help =
        "right answers earn max_right (1) when short down to min_right (0.5) at max_len, wrong ones min_wrong (0) "
        "when short down to max_wrong (-0.5), along a cosine (open-r1's get_cosine_scaled_reward). unit: characters "
        "(default) or tokens; max_len: 1000 characters, or the limit of tokens; " RIGHT_HELP,
    .members = "min_wrong|max_wrong|min_right|max_right|max_len|unit|" RIGHT_MEMBERS,
    .open = open_cosine,
    .close = free,
    .score = score_cosine,
};

/* --- soft_overlong ----------------------------------------------------------------------------------------------- */

typedef struct overlong {
    int64_t max_length, buffer; /* 0: the limit of tokens; a fifth of max_length */
} overlong;

static status open_overlong(void **state, const json_t *o, const reward_context *c, error *e) {
    (void)c;
    overlong v;
    TRY(json_get_int(o, "max_length", 0, 1, INT32_MAX, &v.max_length, e));
    TRY(json_get_int(o, "buffer", 0, 1, INT32_MAX, &v.buffer, e));
    if (v.max_length && v.buffer > v.max_length)
        return fail(e, ERR_FORMAT, "\"buffer\" is %lld, more than \"max_length\", %lld", (long long)v.buffer,
                    (long long)v.max_length);
    return reward_keep(state, &v, sizeof v, e);
}

static status score_overlong(void *state, const reward_input *in, int64_t n, int64_t group, double *score, error *e) {
    const overlong *v = state;
    (void)group, (void)e;
    for (int64_t i = 0; i < n; i++) {
        double most = (double)(v->max_length ? v->max_length : in[i].max_tokens);
        double buffer = v->buffer ? (double)v->buffer : most / 5, over = (double)in[i].tokens - (most - buffer);
        score[i] = over <= 0 ? 0 : (double)in[i].tokens <= most ? -over / buffer : -1;
    }
    return OK;
}

const reward_kind reward_soft_overlong = {
    .name = "soft_overlong",
    .help = "0 for up to max_length - buffer tokens, from there falling to -1 at max_length (DAPO; open-r1's "
            "get_soft_overlong_punishment). max_length: default the limit of tokens; buffer: default a fifth of it",
    .members = "max_length|buffer",
    .open = open_overlong,
    .close = free,
    .score = score_overlong,
};

/* --- repetition -------------------------------------------------------------------------------------------------- */

typedef struct repetition {
    int64_t n;
    double max_penalty;
} repetition;

static status open_repetition(void **state, const json_t *o, const reward_context *c, error *e) {
    (void)c;
    repetition r;
    TRY(json_get_int(o, "n", 3, 1, 100, &r.n, e));
    TRY(json_get_real(o, "max_penalty", -1, &r.max_penalty, e));
    if (r.max_penalty > 0)
        return fail(e, ERR_FORMAT, "\"max_penalty\" is %g, it should not be positive", r.max_penalty);
    return reward_keep(state, &r, sizeof r, e);
}

typedef struct span {
    const char *p;
    size_t n;
} span;

static int by_text(const void *a, const void *b) {
    const span *x = a, *y = b;
    int order = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);
    return order ? order : (x->n > y->n) - (x->n < y->n);
}

/* The words in lower case with one space behind each; returns how many. */
static size_t lower_words(const char *text, str *out) {
    size_t words = 0;
    bool inside = false;
    for (const char *p = text; *p;) {
        uint32_t c;
        char letter[4];
        p += utf8_get(p, &c);
        bool white = is_white_space(c) || (c >= 0x1c && c <= 0x1f); /* as Python's str.split */
        if (white && inside) str_putc(out, ' ');
        if (!white) str_add(out, letter, utf8_put(letter, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c)));
        words += !white && !inside;
        inside = !white;
    }
    if (inside) str_putc(out, ' ');
    return words;
}

/* An n-gram is the span of n words: two of them are equal when their letters are. */
static status repeated_share(const char *text, size_t n, double *share, error *e) {
    str words = {0};
    size_t count = lower_words(text, &words), grams = count >= n ? count - n + 1 : 0, distinct = grams > 0;
    span *list = malloc((grams + 1) * sizeof *list);
    status s = list ? str_check(&words, e) : fail(e, ERR_NOMEM, "memory is out");
    const char *begin = words.p, *end = words.p;
    for (size_t i = 0; i < n && grams && s == OK; i++) end = strchr(end, ' ') + 1;
    for (size_t i = 0; i < grams && s == OK; i++) {
        list[i] = (span){begin, (size_t)(end - begin)};
        begin = strchr(begin, ' ') + 1;
        if (i + 1 < grams) end = strchr(end, ' ') + 1;
    }
    if (s == OK) qsort(list, grams, sizeof *list, by_text);
    for (size_t i = 1; i < grams && s == OK; i++) distinct += by_text(&list[i - 1], &list[i]) != 0;
    *share = grams ? 1 - (double)distinct / (double)grams : 0;
    free(list);
    str_free(&words);
    return s;
}

static status score_repetition(void *state, const reward_input *in, int64_t n, int64_t group, double *score, error *e) {
    const repetition *r = state;
    (void)group;
    for (int64_t i = 0; i < n; i++) {
        double share;
        TRY(repeated_share(in[i].completion, (size_t)r->n, &share, e));
        score[i] = share * r->max_penalty;
    }
    return OK;
}

const reward_kind reward_repetition = {
    .name = "repetition",
    .help = "max_penalty (default -1) times the share of n-grams of words (n, default 3) that are repetitions "
            "(open-r1's get_repetition_penalty_reward)",
    .members = "n|max_penalty",
    .open = open_repetition,
    .close = free,
    .score = score_repetition,
};
