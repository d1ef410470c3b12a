/* Log-probabilities of chosen tokens and their derivative at every level of the machine against loops in double
 * precision and against differences; the same bits with any number of threads. */
#include "attn_test.h"
#include "kernels/train_ops.h"

enum { GAP = 3 };
static const double u = 0x1p-24;

/* One row in double precision, with bounds. x = scale (z - most) is off by 2 u of its size, its exponential by 4e-7 of
 * itself; a sum of at most 1024 numbers by 128 u (8 lanes), or over all in F64 (portable). So S is off by `sum` of
 * itself, the sum of e x by `weighted` S. */
typedef struct row_want {
    double most, total; /* total: log S */
    double entropy;
    double sum, weighted, mean; /* mean: of |x| */
    int64_t best;
} row_want;

static row_want reference(const float *z, int64_t vocab, double scale) {
    row_want w = {0};
    double sum = 0, dot = 0;
    for (int64_t i = 0; i < vocab; i++) w.best = z[i] > z[w.best] ? i : w.best;
    w.most = z[w.best];
    for (int64_t i = 0; i < vocab; i++) {
        const double x = scale * (z[i] - w.most), e = exp(x);
        sum += e;
        dot += e * x;
        w.sum += e * (4e-7 - 2 * u * x);
        w.weighted -= e * x * (4e-7 - 2 * u * x + 3 * u);
    }
    w.total = log(sum);
    w.mean = -dot / sum;
    w.entropy = w.total + w.mean;
    w.sum = w.sum / sum + 130 * u;
    w.weighted = w.weighted / sum + 130 * u * w.mean;
    return w;
}

typedef struct logprob_case {
    int64_t n, vocab;
    int k;
    double spread;
    float scale;
} logprob_case;

typedef struct result {
    float *z, *logp, *lse, *entropy;
    int32_t *best;
} result;

static int32_t *choose(const logprob_case *c) {
    int32_t *wanted = malloc((size_t)(c->n * c->k) * sizeof *wanted);
    assert_non_null(wanted);
    for (int64_t i = 0; i < c->n * c->k; i++) wanted[i] = i % 5 == 3 ? -1 : (int32_t)((i * 7919 + 1) % c->vocab);
    for (int64_t i = 0; c->k > 4 && i < c->n; i++) wanted[i * c->k + 4] = wanted[i * c->k + 1]; /* twice */
    return wanted;
}

static result run_case(queue *q, const logprob_case *c, const float *logits, int64_t ld, const int32_t *wanted,
                       const float *d) {
    const int64_t size = (c->n - 1) * ld + c->vocab;
    result r = {numbers(size), numbers(c->n * c->k), numbers(c->n), numbers(c->n), NULL};
    r.best = malloc((size_t)c->n * sizeof *r.best);
    assert_non_null(r.best);
    for (int64_t i = 0; i < size; i++)
        if (i % ld < c->vocab) r.z[i] = logits[i];
    op_logprobs(q, r.z, ld, c->n, c->vocab, c->scale, wanted, c->k, r.logp, r.lse, r.entropy, r.best);
    for (int64_t i = 0; i < size; i++) assert_true(i % ld < c->vocab ? r.z[i] == logits[i] : r.z[i] == canary);
    op_logprobs_dx(q, r.z, ld, c->n, c->vocab, c->scale, wanted, c->k, d, r.lse);
    return r;
}

/* The probability in the derivative comes from the rounded lse: exp(scale z - lse), off by u of both sizes. */
static void check_gradient(const logprob_case *c, const row_want *w, const float *row, const int32_t *wanted,
                           const float *d, const float *dz, int64_t at, worst *worst_z) {
    double all = 0, size = 0;
    const double lse = c->scale * w->most + w->total;
    for (int j = 0; j < c->k; j++) {
        all += wanted[j] < 0 ? 0 : d[j];
        size += wanted[j] < 0 ? 0 : fabs(d[j]);
    }
    for (int64_t i = 0; i < c->vocab; i++) {
        const double x = c->scale * (double)row[i] - lse, p = exp(x);
        const double off = 5e-7 + w->sum + u * (3 * fabs(lse) + fabs(c->scale * row[i]) + fabs(x));
        double chosen = 0, rounded = 0;
        for (int j = 0; j < c->k; j++) {
            chosen += wanted[j] == i ? d[j] : 0;
            rounded += wanted[j] == i ? fabs(d[j]) : 0;
        }
        compare(worst_z, at * c->vocab + i, dz[i], c->scale * (chosen - p * all),
                c->scale * (p * (fabs(all) * off + size * 4 * u) + (rounded + p * size) * (c->k + 3) * u) + 1e-37);
    }
}

static void check_case(queue *q, queue *alone, const logprob_case *c, worst *worst_p, worst *worst_h, worst *worst_z) {
    const int64_t ld = c->vocab + GAP, size = (c->n - 1) * ld + c->vocab;
    float *logits = random_rows(7, c->n, c->vocab, ld, c->spread), *d = random_rows(8, 1, c->n * c->k, c->n * c->k, 1);
    int32_t *wanted = choose(c);
    for (int64_t t = 1; t < c->n; t += 2) /* two best ones */
        logits[t * ld + c->vocab / 2] = logits[t * ld + c->vocab - 1] = (float)(9 * c->spread);
    for (int j = 0; j < c->k && c->n > 2; j++) d[2 * c->k + j] = 0; /* a masked row */
    const result a = run_case(q, c, logits, ld, wanted, d), b = run_case(alone, c, logits, ld, wanted, d);
    for (int64_t t = 0; t < c->n; t++) {
        const float *row = logits + t * ld;
        const row_want w = reference(row, c->vocab, c->scale);
        const double lse = c->scale * w.most + w.total;
        assert_int_equal(a.best[t], w.best);
        compare(worst_p, t, a.lse[t], lse, w.sum + 2 * u * fabs(lse));
        compare(worst_h, t, a.entropy[t], w.entropy, w.sum * (1 + w.mean) + w.weighted + 2 * u * w.entropy);
        assert_true(a.entropy[t] >= 0);
        for (int64_t j = t * c->k; j < (t + 1) * c->k; j++) {
            const double want = wanted[j] < 0 ? 0 : c->scale * (row[wanted[j]] - w.most) - w.total;
            compare(worst_p, j, a.logp[j], want, wanted[j] < 0 ? 0 : w.sum + 2 * u * fabs(want));
        }
        check_gradient(c, &w, row, wanted + t * c->k, d + t * c->k, a.z + t * ld, t, worst_z);
        for (int64_t i = c->vocab; t + 1 < c->n && i < ld; i++) assert_true(a.z[t * ld + i] == canary);
    }
    assert_memory_equal(a.z, b.z, (size_t)size * sizeof *a.z);
    assert_memory_equal(a.logp, b.logp, (size_t)(c->n * c->k) * sizeof *a.logp);
    assert_memory_equal(a.lse, b.lse, (size_t)c->n * sizeof *a.lse);
    assert_memory_equal(a.entropy, b.entropy, (size_t)c->n * sizeof *a.entropy);
    assert_memory_equal(a.best, b.best, (size_t)c->n * sizeof *a.best);
    for (int j = 0; j < 2; j++) {
        const result *r = j ? &b : &a;
        release(r->z, size), release(r->logp, c->n * c->k), release(r->lse, c->n), release(r->entropy, c->n);
        free(r->best);
    }
    free(logits), free(d), free(wanted);
}

static void test_values(void **state) {
    (void)state;
    static const int64_t vocabs[] = {1, 2, 16, 31, 54, 1024, 1025, 5003};
    for (int l = 0; l < LENGTH(test_levels); l++) {
        queue *three = open_level(l, 3, COMPUTE_F32), *one = open_level(l, 1, COMPUTE_F32);
        if (!three) continue;
        worst p = {0}, h = {0}, z = {0};
        for (int i = 0; i < LENGTH(vocabs); i++) {
            check_case(three, one, &(logprob_case){1, vocabs[i], 1, 1, 1}, &p, &h, &z);
            check_case(three, one, &(logprob_case){23, vocabs[i], 1, 8, 1 / 0.7f}, &p, &h, &z);
            check_case(three, one, &(logprob_case){17, vocabs[i], 8, 3, 1}, &p, &h, &z);
        }
        check_case(three, one, &(logprob_case){3, 129280, 1, 3, 1 / 0.7f}, &p, &h, &z);
        check_case(three, one, &(logprob_case){3, 129280, 8, 1, 1}, &p, &h, &z);
        report(&p, "log-probabilities %s", test_levels[l]);
        report(&h, "entropy %s", test_levels[l]);
        report(&z, "log-probabilities dz %s", test_levels[l]);
        queue_close(three);
        queue_close(one);
    }
}

/* entropy and best may be NULL. */
static void test_without(void **state) {
    (void)state;
    queue *q = open_level(0, 1, COMPUTE_F32);
    const float z[] = {1, 2, 3};
    const int32_t wanted[] = {2};
    float logp, lse;
    op_logprobs(q, z, 3, 1, 3, 1, wanted, 1, &logp, &lse, NULL, NULL);
    const double want = log(exp(-2.) + exp(-1.) + 1);
    assert_true(fabs(lse - 3 - want) < 1e-6 && fabs(logp + want) < 1e-6);
    queue_close(q);
}

/* Differences along a direction v of signs: L = sum d log p, (L(z + h v) - L(z - h v)) / 2h against dL/dz . v. Numbers
 * are multiples of 2^-8, so that z +- h v is exact. log p is off by 8e-7 + 2 u |log p| < 3e-6 (|log p| < 20); the
 * third derivative of log S along v is scale^3 times a third moment of a variable of +-1, at most 0.77. */
static void test_differences(void **state) {
    (void)state;
    enum { VOCAB = 54, K = 8 };
    const float h = 0x1p-6f, scales[] = {1, 1 / 0.7f};
    for (int l = 0; l < LENGTH(test_levels); l++) {
        queue *q = open_level(l, 1, COMPUTE_F32);
        if (!q) continue;
        worst w = {0};
        for (int round = 0; round < 40; round++) {
            const float scale = scales[round % 2];
            float z[2][VOCAB], dz[VOCAB], d[K], logp[K], lse;
            int32_t wanted[K];
            double v[VOCAB], value[2] = {0}, size = 0, want = 0, sum = 0;
            for (int j = 0; j < K; j++) {
                d[j] = (float)rng_normal(1, (uint64_t)round, (uint64_t)j);
                wanted[j] = (j * 13 + round) % 11 - 1;
                size += fabs(d[j]), sum += wanted[j] < 0 ? 0 : d[j];
            }
            for (int i = 0; i < VOCAB; i++) {
                dz[i] = (float)(rint(256 * rng_normal(2, (uint64_t)round, (uint64_t)i)) / 256);
                v[i] = rng_normal(3, (uint64_t)round, (uint64_t)i) < 0 ? -1 : 1;
                for (int side = 0; side < 2; side++) z[side][i] = dz[i] + (side ? -h : h) * (float)v[i];
            }
            for (int side = 0; side < 2; side++) {
                op_logprobs(q, z[side], VOCAB, 1, VOCAB, scale, wanted, K, logp, &lse, NULL, NULL);
                for (int j = 0; j < K; j++) value[side] += (double)d[j] * logp[j];
            }
            op_logprobs(q, dz, VOCAB, 1, VOCAB, scale, wanted, K, logp, &lse, NULL, NULL);
            op_logprobs_dx(q, dz, VOCAB, 1, VOCAB, scale, wanted, K, d, &lse);
            for (int i = 0; i < VOCAB; i++) want += v[i] * dz[i];
            compare(&w, round, (value[0] - value[1]) / (2 * h), want,
                    size * 3e-6 / h + fabs(sum) * pow(scale, 3) * 0.77 * h * h / 6);
        }
        report(&w, "log-probabilities, differences %s", test_levels[l]);
        queue_close(q);
    }
}

/* A row with NaN or infinity says so in all its results; its neighbours are as ever. */
static void test_not_finite(void **state) {
    (void)state;
    enum { N = 3, VOCAB = 37 };
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    static const int64_t places[] = {0, 5, VOCAB - 1};
    for (int l = 0; l < LENGTH(test_levels); l++) {
        queue *q = open_level(l, 1, COMPUTE_F32);
        if (!q) continue;
        for (int i = 0; i < LENGTH(odd) * LENGTH(places) + 1; i++) {
            float *z = random_rows(3, N, VOCAB, VOCAB, 1), logp[N], lse[N], entropy[N];
            const float d[N] = {1, 1, 1};
            const int32_t wanted[N] = {4, 5, 6};
            int32_t best[N];
            z[VOCAB + places[i % LENGTH(places)]] = odd[i / LENGTH(places) % LENGTH(odd)];
            for (int j = 0; i == LENGTH(odd) * LENGTH(places) && j < VOCAB; j++) z[VOCAB + j] = NAN;
            op_logprobs(q, z, VOCAB, N, VOCAB, 1, wanted, 1, logp, lse, entropy, best);
            assert_false(isfinite(logp[1]) || isfinite(lse[1]) || isfinite(entropy[1]));
            assert_in_range(best[1], 0, VOCAB - 1);
            assert_true(isfinite(logp[0]) && isfinite(logp[2]) && isfinite(entropy[0]) && isfinite(entropy[2]));
            op_logprobs_dx(q, z, VOCAB, N, VOCAB, 1, wanted, 1, d, lse);
            for (int j = 0; j < VOCAB; j++) assert_true(isfinite(z[j]) && !isfinite(z[VOCAB + j]));
            free(z);
        }
        queue_close(q);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_without),
        cmocka_unit_test(test_differences),
        cmocka_unit_test(test_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
