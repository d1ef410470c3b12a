/* The head with a judge against plain loops in double precision, and against its own cross-entropy where the judge is
 * just that: some rows and many (several chunks of logits), one token a row and several, gradients and none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "train/head.h"
#include <cmocka.h>

enum { HIDDEN = 8, MOST_K = 4 };

typedef struct judge_state { /* the loss sum_i sum_c a x + b x^2 / 2 of log-probabilities x, a and b by row and column
                              */
    int k;
    bool plain; /* -x: the cross-entropy */
    const int32_t *target;
    int64_t vocab;
    int begun, applied, asked;
    int64_t rows;
    real *entropy; /* [rows] as told; NULL: not kept */
    bool gradients;
} judge_state;

static double slope(const judge_state *s, int64_t row, int c, double x) {
    return s->plain ? -1 : cos((double)(3 * row + c)) + 0.1 * x;
}

static double value(const judge_state *s, int64_t row, int c, double x) {
    return s->plain ? -x : cos((double)(3 * row + c)) * x + 0.05 * x * x;
}

/* Column 0: the target; others spread over the vocabulary, one of them twice, one is none. */
static int32_t wanted_token(const judge_state *s, int64_t row, int c) {
    if (c == 0) return s->target[row];
    if (c == 3) return row % 3 ? -1 : s->target[row];
    return (int32_t)((row * 7919 + c * 104729) % s->vocab);
}

static status begin(void *arg, const token_batch *b, error *e) {
    (void)e;
    assert_non_null(b);
    ((judge_state *)arg)->begun++;
    return OK;
}

static void wanted(void *arg, const token_batch *b, int64_t row, int32_t *ids) {
    judge_state *s = arg;
    assert_true(row < b->n && s->target[row] >= 0);
    s->asked++;
    for (int c = 0; c < s->k; c++) ids[c] = wanted_token(s, row, c);
}

static status apply(void *arg, const token_batch *b, int64_t n, const int64_t *row, const real *logp,
                    const real *entropy, real *d, double *loss, error *e) {
    judge_state *s = arg;
    (void)b, (void)e;
    s->applied++;
    s->rows = n;
    assert_true((d != NULL) == s->gradients);
    for (int64_t i = 0; i < n; i++) {
        assert_true(s->target[row[i]] >= 0 && (!i || row[i] > row[i - 1]));
        if (s->entropy) s->entropy[i] = entropy[i];
        for (int c = 0; c < s->k; c++) {
            const double x = (double)logp[i * s->k + c];
            if (wanted_token(s, row[i], c) < 0) {
                assert_true(x == 0);
                if (d) d[i * s->k + c] = 5; /* of no token: must not matter */
                continue;
            }
            *loss += value(s, row[i], c, x);
            if (d) d[i * s->k + c] = (real)slope(s, row[i], c, x);
        }
    }
    return OK;
}

/* --- a head ------------------------------------------------------------------------------------------------------- */

typedef struct head {
    int64_t n, vocab;
    float *w, *dw, *y, *dy;
    int32_t *target, *best;
    tensor tw, tdw;
    queue *q;
    arena *mem;
    token_batch b;
} head;

static float *normals(uint64_t seed, int64_t n, double scale) {
    float *x = malloc((size_t)n * sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(scale * rng_normal(seed, 0, (uint64_t)i));
    return x;
}

/* every: rows i with i % every == 0 have no target; 1: none has. */
static head head_open(int64_t n, int64_t vocab, int every) {
    head h = {.n = n, .vocab = vocab};
    error e = {0};
    h.w = normals(1, vocab * HIDDEN, 1);
    h.y = normals(2, n * HIDDEN, 0.7);
    h.dw = normals(3, vocab * HIDDEN, 1); /* gradients are added to what is there */
    h.dy = normals(4, n * HIDDEN, 1);
    h.target = malloc((size_t)n * sizeof *h.target);
    h.best = malloc((size_t)n * sizeof *h.best);
    for (int64_t i = 0; i < n; i++) h.target[i] = i % every ? (int32_t)((i * 31 + 5) % vocab) : -1;
    h.tw = (tensor){.data = h.w, .type = DT_F32, .ndim = 2, .dim = {vocab, HIDDEN}};
    h.tdw = h.tw;
    h.tdw.data = h.dw;
    h.b = (token_batch){.n = n, .target = h.target};
    if (queue_open(&h.q, 2, NULL, COMPUTE_F32, &e) != OK) fail_msg("%s", e.text);
    assert_non_null(h.mem = arena_open(1 << 16));
    return h;
}

static void head_close(head *h) {
    queue_close(h->q);
    arena_close(h->mem);
    free(h->w), free(h->dw), free(h->y), free(h->dy), free(h->target), free(h->best);
}

static head_call call_of(head *h, double factor, bool gradients, error *e) {
    return (head_call){.q = h->q,
                       .mem = h->mem,
                       .w = &h->tw,
                       .dw = &h->tdw,
                       .y = h->y,
                       .dy = h->dy,
                       .n = h->n,
                       .target = h->target,
                       .best = h->best,
                       .factor = (real)factor,
                       .f32 = true,
                       .gradients = gradients,
                       .e = e};
}

/* --- plain loops -------------------------------------------------------------------------------------------------- */

typedef struct loops {
    double loss, *dw, *dy, *entropy;
    int32_t *best;
    int64_t rows;
} loops;

static void row_of_loops(const head *h, const judge_state *s, double scale, double factor, int64_t i, double *z,
                         loops *l) {
    double most = -INFINITY, sum = 0, all = 0, entropy = 0, d[MOST_K] = {0};
    for (int64_t v = 0; v < h->vocab; v++) {
        z[v] = 0;
        for (int j = 0; j < HIDDEN; j++) z[v] += (double)h->w[v * HIDDEN + j] * h->y[i * HIDDEN + j];
        if (z[v] > most) l->best[i] = (int32_t)v, most = z[v];
    }
    for (int64_t v = 0; v < h->vocab; v++) sum += exp(scale * (z[v] - most));
    const double lse = scale * most + log(sum);
    for (int64_t v = 0; v < h->vocab; v++) entropy -= exp(scale * z[v] - lse) * (scale * z[v] - lse);
    for (int c = 0; c < s->k; c++) {
        const int32_t id = wanted_token(s, i, c);
        if (id < 0) continue;
        l->loss += factor * value(s, i, c, scale * z[id] - lse);
        d[c] = factor * slope(s, i, c, scale * z[id] - lse);
        all += d[c];
    }
    l->entropy[l->rows++] = entropy;
    for (int64_t v = 0; v < h->vocab; v++) {
        double dz = -all * exp(scale * z[v] - lse);
        for (int c = 0; c < s->k; c++) dz += wanted_token(s, i, c) == v ? d[c] : 0;
        for (int j = 0; j < HIDDEN; j++) {
            l->dy[i * HIDDEN + j] += scale * dz * h->w[v * HIDDEN + j];
            l->dw[v * HIDDEN + j] += scale * dz * h->y[i * HIDDEN + j];
        }
    }
}

static loops run_loops(const head *h, const judge_state *s, double temperature, double factor) {
    loops l = {.dw = calloc((size_t)(h->vocab * HIDDEN), sizeof *l.dw),
               .dy = calloc((size_t)(h->n * HIDDEN), sizeof *l.dy),
               .entropy = calloc((size_t)h->n, sizeof *l.entropy),
               .best = malloc((size_t)h->n * sizeof *l.best)};
    double *z = malloc((size_t)h->vocab * sizeof *z);
    for (int64_t i = 0; i < h->vocab * HIDDEN; i++) l.dw[i] = h->dw[i];
    for (int64_t i = 0; i < h->n * HIDDEN; i++) l.dy[i] = h->dy[i];
    for (int64_t i = 0; i < h->n; i++) {
        l.best[i] = -1;
        if (h->target[i] >= 0) row_of_loops(h, s, 1 / temperature, factor, i, z, &l);
    }
    free(z);
    return l;
}

static void loops_close(loops *l) {
    free(l->dw), free(l->dy), free(l->entropy), free(l->best);
}

static void compare(const char *what, const float *got, const double *want, int64_t n, double bound) {
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) <= bound * (1 + fabs(want[i]))))
            fail_msg("%s[%d] of %d: %.9g, wanted %.9g", what, (int)i, (int)n, (double)got[i], want[i]);
}

/* A logit is a sum of 8 products, |w y| some 2 each, u = 2^-24: off by 8 u 16 = 8e-6 at the most, usually 1e-6; so are
 * log-probabilities. Derivatives are of size 1, each off by as much; a row of dy sums them with weights of 1 that
 * cancel in sign, of dw over at most 300 rows: sqrt(300) 1e-6. A bound of 3e-5 leaves room. A row of dy is also a sum
 * over the vocabulary, of numbers whose sizes sum up to 2: an F32 sum of V numbers is off by V u / 2 of that when they
 * are added one by one, and products add in 4 lanes or more. With both, a token's
 * probability that was left out (1e-2 and more in the small vocabularies) or a factor would be seen. */
static const double BOUND = 3e-5;

typedef struct head_case {
    int64_t n, vocab;
    int every, k;
    double temperature;
    bool mean;
} head_case;

static void against_loops(void **unused) {
    static const head_case cases[] = {
        {40, 37, 4, 1, 1, false},      {40, 37, 4, 4, 1, false},   {40, 37, 4, 4, 0.6, true},
        {40, 37, 50, 2, 3, true},      {200, 501, 3, 4, 1, false}, {80, 131072, 90, 1, 1, true}, /* chunks of 64 */
        {80, 131072, 90, 4, 2, false},
    };
    (void)unused;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const head_case *k = &cases[i];
        const double factor = k->mean ? 0.25 : 1;
        head h = head_open(k->n, k->vocab, k->every);
        judge_state s = {.k = k->k, .target = h.target, .vocab = k->vocab, .gradients = true};
        const token_loss judge = {.temperature = (real)k->temperature,
                                  .mean = k->mean,
                                  .k = k->k,
                                  .begin = begin,
                                  .wanted = k->k > 1 ? wanted : NULL,
                                  .apply = apply,
                                  .arg = &s};
        double loss = 10;
        int64_t targets = 3;
        error e = {0};
        s.entropy = calloc((size_t)h.n, sizeof *s.entropy);
        loops l = run_loops(&h, &s, k->temperature, factor);
        const head_call call = call_of(&h, 0.25, true, &e); /* the factor counts when `mean` says so */
        assert_int_equal(head_judged(&call, &judge, &h.b, &loss, &targets), OK);
        assert_true(s.begun == 1 && s.applied == 1 && s.rows == l.rows);
        assert_int_equal(s.asked, k->k > 1 ? l.rows : 0);
        assert_int_equal(targets, 3 + l.rows);
        assert_true(fabs(loss - 10 - l.loss) < BOUND * (double)(l.rows * k->k));
        compare("dy", h.dy, l.dy, h.n * HIDDEN, BOUND + (double)k->vocab * 0x1p-24 / 4);
        compare("dw", h.dw, l.dw, h.vocab * HIDDEN, BOUND);
        compare("entropy", s.entropy, l.entropy, l.rows, BOUND);
        for (int64_t r = 0; r < h.n; r++) assert_int_equal(h.best[r], l.best[r]);
        free(s.entropy);
        loops_close(&l);
        head_close(&h);
    }
}

/* The same loss said in two ways. */
static void against_cross_entropy(void **unused) {
    static const int64_t size[][2] = {{50, 37}, {600, 501}, {80, 131072}};
    (void)unused;
    for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
        head a = head_open(size[i][0], size[i][1], 7), b = head_open(size[i][0], size[i][1], 7);
        judge_state s = {.k = 1, .plain = true, .target = a.target, .vocab = a.vocab, .gradients = true};
        const token_loss judge = {.temperature = 1, .mean = true, .k = 1, .apply = apply, .arg = &s};
        double one = 0, other = 0;
        int64_t n = 0, m = 0;
        error e = {0};
        const double factor = 1.0 / 64;
        const head_call x = call_of(&a, factor, true, &e), y = call_of(&b, factor, true, &e);
        assert_int_equal(head_judged(&x, &judge, &a.b, &one, &n), OK);
        assert_int_equal(head_cross_entropy(&y, &other, &m), OK);
        assert_int_equal(n, m);
        assert_true(fabs(one - other * factor) < 1e-6 * fabs(one)); /* a mean of rounding errors of 1e-6 */
        for (int64_t k = 0; k < a.n * HIDDEN; k++) assert_true(fabsf(a.dy[k] - b.dy[k]) < 1e-6F);
        for (int64_t k = 0; k < a.vocab * HIDDEN; k++) assert_true(fabsf(a.dw[k] - b.dw[k]) < 1e-5F);
        assert_memory_equal(a.best, b.best, (size_t)a.n * sizeof *a.best);
        head_close(&a);
        head_close(&b);
    }
}

/* Without gradients the loss is the same and nothing else is touched; without targets nothing is said; without dw the
 * way back still reaches dy. */
static void what_is_not_wanted(void **unused) {
    (void)unused;
    head h = head_open(40, 37, 4), none = head_open(40, 37, 1), half = head_open(40, 37, 4);
    error e = {0};
    for (int gradients = 0; gradients < 2; gradients++) {
        judge_state s = {.k = 1, .target = none.target, .vocab = 37, .gradients = gradients};
        const token_loss judge = {.temperature = 1, .k = 1, .apply = apply, .arg = &s};
        double loss = 0;
        int64_t targets = 0;
        head_call c = call_of(&none, 1, gradients, &e);
        float *dw = normals(3, 37 * HIDDEN, 1), *dy = normals(4, 40 * HIDDEN, 1);
        assert_int_equal(head_judged(&c, &judge, &none.b, &loss, &targets), OK);
        assert_true(loss == 0 && targets == 0 && s.rows == 0 && none.best[0] == -1);
        assert_memory_equal(none.dw, dw, 37 * HIDDEN * sizeof *dw);
        assert_memory_equal(none.dy, dy, 40 * HIDDEN * sizeof *dy);
        free(dw), free(dy);
    }
    judge_state s = {.k = 1, .target = h.target, .vocab = 37};
    const token_loss judge = {.temperature = 1, .k = 1, .apply = apply, .arg = &s};
    double loss = 0, same = 0;
    int64_t targets = 0;
    head_call c = call_of(&h, 1, false, &e), d = call_of(&half, 1, true, &e);
    float *dw = normals(3, 37 * HIDDEN, 1), *dy = normals(4, 40 * HIDDEN, 1);
    assert_int_equal(head_judged(&c, &judge, &h.b, &loss, &targets), OK);
    assert_memory_equal(h.dw, dw, 37 * HIDDEN * sizeof *dw);
    assert_memory_equal(h.dy, dy, 40 * HIDDEN * sizeof *dy);
    s.gradients = true;
    half.tdw.data = NULL;
    assert_int_equal(head_judged(&d, &judge, &half.b, &same, &targets), OK);
    assert_true(same == loss && loss != 0);
    assert_memory_equal(half.dw, dw, 37 * HIDDEN * sizeof *dw);
    assert_memory_not_equal(half.dy, dy, 40 * HIDDEN * sizeof *dy);
    free(dw), free(dy);
    head_close(&h);
    head_close(&none);
    head_close(&half);
}

static status refuse(void *arg, const token_batch *b, error *e) {
    (void)arg, (void)b;
    return (fail)(e, ERR_FORMAT, "not today");
}

static void a_judge_that_fails(void **unused) {
    (void)unused;
    head h = head_open(8, 37, 4);
    judge_state s = {.k = 1, .target = h.target, .vocab = 37};
    const token_loss judge = {.temperature = 1, .k = 1, .begin = refuse, .apply = apply, .arg = &s};
    double loss = 0;
    int64_t targets = 0;
    error e = {0};
    const head_call c = call_of(&h, 1, true, &e);
    assert_int_equal(head_judged(&c, &judge, &h.b, &loss, &targets), ERR_FORMAT);
    assert_string_equal(e.text, "not today");
    assert_int_equal(s.applied, 0);
    head_close(&h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_loops),
        cmocka_unit_test(against_cross_entropy),
        cmocka_unit_test(what_is_not_wanted),
        cmocka_unit_test(a_judge_that_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
