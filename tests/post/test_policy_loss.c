/* Losses of policies against reference values and, for every kind with every KL, against differences; weights that add
 * up over micro-batches; numbers that run away. `make gold` compares them with whole models.
 *
 * Log-probabilities are F32, losses F64: with log-probabilities that are multiples of 2^-12 and steps that are, too,
 * differences know nothing of F32. */
#include "math_data.h"

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))
enum { MOST_TOKENS = 64 };
static const double u = 0x1p-24;

static const char *const kind_names[] = {"grpo", "dapo", "bnpo", "dr_grpo", "gspo", "cispo", "reinforce"};
enum { KINDS = LENGTH(kind_names) };

typedef struct sample { /* a batch with memory of its own */
    int64_t first[16];
    real logp[MOST_TOKENS];
    float old[MOST_TOKENS], ref[MOST_TOKENS], mask[MOST_TOKENS];
    double advantage[16];
    policy_batch b;
} sample;

static void join(sample *s) {
    s->b.first = s->first;
    s->b.logp = s->logp, s->b.old = s->old, s->b.ref = s->ref, s->b.mask = s->mask;
    s->b.advantage = s->advantage;
}

static double loss_of(const policy_loss_options *o, const policy_batch *b) {
    real d[MOST_TOKENS];
    policy_stats s = {0};
    policy_loss(o, b, d, &s, NULL, NULL, NULL);
    return s.loss;
}

/* --- reference values --------------------------------------------------------------------------------------------- */

static void fill(sample *s, const math_data *m) {
    *s = (sample){.b = {.n_seq = m->n, .sequences = (double)m->n}};
    const json_t *now = json_object_get(m->all, "new_logprobs"), *old = json_object_get(m->all, "old_logprobs"),
                 *ref = json_object_get(m->all, "ref_logprobs");
    double row[3][MOST_NUMBERS];
    for (int64_t i = 0; i < m->n; i++) {
        const size_t at = (size_t)i;
        const int64_t width = math_numbers(json_array_get(now, at), row[0]);
        math_numbers(json_array_get(old, at), row[1]);
        math_numbers(json_array_get(ref, at), row[2]);
        s->first[i + 1] = s->first[i] + width;
        assert_true(s->first[i + 1] <= MOST_TOKENS);
        for (int64_t j = 0; j < width; j++) {
            const int64_t t = s->first[i] + j;
            s->logp[t] = (real)row[0][j], s->old[t] = (float)row[1][j], s->ref[t] = (float)row[2][j];
            s->mask[t] = j < (int64_t)m->length[i];
            s->b.tokens += s->mask[t] != 0;
        }
    }
    math_numbers(json_object_get(json_object_get(m->all, "advantages"), "trl_group"), s->advantage);
    join(s);
}

/* What rounding the three log-probabilities to F32 can change: their roundings times a bound of the derivatives, which
 * are (1 + |logp|) rho A at most (cispo's), and |exp(x) - 1| of the KL. */
static double rounding(const policy_loss_options *o, const sample *s, const double *weight) {
    double off = 0;
    for (int64_t i = 0; i < s->b.n_seq; i++) {
        for (int64_t t = s->first[i]; t < s->first[i + 1]; t++) {
            const double logp = s->logp[t], old = s->old[t], ref = s->ref[t];
            const double slope = (1 + fabs(logp)) * exp(logp - old) * fabs(s->advantage[i]) +
                                 o->kl_beta * fmax(fabs(expm1(ref - logp)), 1);
            if (s->mask[t] != 0) off += weight[i] * slope * u * (fabs(logp) + fabs(old) + fabs(ref));
        }
    }
    return off;
}

static void check_value(const sample *s, const policy_loss_options *o, const json_t *want, const char *name) {
    double weight[16];
    assert_true(json_is_number(want));
    for (int64_t i = 0; i < s->b.n_seq; i++) { /* the greatest that a token of a completion can have here */
        double n = 0;
        for (int64_t t = s->first[i]; t < s->first[i + 1]; t++) n += s->mask[t] != 0;
        weight[i] = o->kind == POLICY_DR_GRPO ? 1 / (s->b.sequences * (double)o->max_completion)
                                              : fmax(1 / (n * s->b.sequences), 1 / s->b.tokens);
    }
    const double got = loss_of(o, &s->b), off = rounding(o, s, weight);
    printf("%s: %.12f, off by %.1e of %.1e\n", name, got, fabs(got - json_number_value(want)), off);
    assert_true(fabs(got - json_number_value(want)) <= off);
    assert_true(off < 2e-5); /* the bound says something */
}

static void test_reference(void **state) {
    (void)state;
    math_data m = math_open();
    sample s;
    fill(&s, &m);
    const struct {
        const char *name;
        policy_loss_kind kind;
        int64_t longest;
    } cases[] = {
        {"grpo", POLICY_GRPO, 0},
        {"dapo", POLICY_DAPO, 0},
        {"dr_grpo", POLICY_DR_GRPO, 8},
        {"seq_sum_mean", POLICY_DR_GRPO, 1}, /* verl's: sums of completions, their mean */
    };
    const json_t *losses = json_object_get(m.all, "losses");
    for (int i = 0; i < LENGTH(cases); i++) {
        const json_t *want = json_object_get(losses, cases[i].name);
        policy_loss_options o = {.kind = cases[i].kind, .clip_low = 0.2, .clip_high = 0.28};
        o.max_completion = cases[i].longest;
        check_value(&s, &o, json_object_get(want, "pg"), cases[i].name);
        o.dual_clip = 3;
        check_value(&s, &o, json_object_get(want, "dual_clip3"), "with dual clip");
        o.dual_clip = 0, o.kl_beta = 0.04;
        check_value(&s, &o, json_object_get(want, "pg_kl"), "with KL");
    }
    policy_loss_options o = {.kind = POLICY_CISPO, .clip_low = 0.2, .clip_high = 0.28};
    check_value(&s, &o, json_object_get(losses, "cispo_dapo_agg"), "cispo");
    o = (policy_loss_options){.kind = POLICY_GSPO, .clip_low = 3e-4, .clip_high = 4e-4};
    check_value(&s, &o, json_object_get(losses, "gspo_grpo_agg"), "gspo");
    math_close(&m);
}

static void test_reference_stats(void **state) {
    (void)state;
    math_data m = math_open();
    sample s;
    fill(&s, &m);
    const json_t *losses = json_object_get(m.all, "losses");
    double want[MOST_NUMBERS], weight[16];
    static const kl_kind kinds[] = {KL_K1, KL_K2, KL_K3};
    math_numbers(json_object_get(losses, "kl_k1_k2_k3_token_mean"), want);
    for (int i = 0; i < 16; i++) weight[i] = 1 / s.b.tokens;
    for (int k = 0; k < 3; k++) {
        const policy_loss_options o = {.clip_low = 0.2, .clip_high = 0.28, .kl = kinds[k], .kl_beta = 1};
        policy_stats got = {0};
        real d[MOST_TOKENS];
        policy_loss(&o, &s.b, d, &got, NULL, NULL, NULL);
        assert_true(got.tokens == s.b.tokens);
        assert_true(fabs(got.kl / got.tokens - want[k]) <= rounding(&o, &s, weight));
        assert_true(fabs((got.clipped_low + got.clipped_high) / got.tokens -
                         json_number_value(json_object_get(losses, "clip_fraction"))) <= 1e-15);
    }
    math_close(&m);
}

/* --- differences -------------------------------------------------------------------------------------------------- */

static const double H = 0x1p-10;

static double grid(double x) {
    return rint(x * 4096) / 4096;
}

/* Completions whose ratios lie on all sides of the bounds 0.8, 1.28 and 3 (and so do their means), with advantages of
 * both signs and 0; one is empty, one has no token that counts, two have some. KLs reach both clamps where there are
 * any, and are small otherwise. What does not count is NaN. */
static void make_sample(sample *s, bool clamped) {
    static const double change[] = {-0.1, 0.1, 0, -0.5, -0.3, 0.3, 0.5, 2, -0.1, 0.2},
                        far[] = {0.5, -25, 2.5, -12, 25, 0, -3, 3, -0.5}, near[] = {0.5, -3, 2.5, 0, 3, -0.5, -1},
                        base[] = {-0.2, -0.3, -0.9, 0.7, 0, 1.8, 0, 1.8, 0, -0.9, 0},
                        gain[] = {1.2, -0.7, -1.5, 0.4, 1, 1, 0.9, -2, 0, 1, -1};
    static const int length[] = {10, 7, 3, 4, 0, 5, 3, 6, 4, 3, 4};
    *s = (sample){.b = {.n_seq = LENGTH(length), .sequences = LENGTH(length)}};
    for (int64_t i = 0, t = 0; i < s->b.n_seq; i++) {
        for (int j = 0; j < length[i]; j++, t++) {
            s->logp[t] = (real)grid(-0.05 - fmod(2.37 * (double)t, 5));
            s->old[t] = (float)grid((double)s->logp[t] - base[i] - change[(t + i) % 10]);
            s->ref[t] = (float)grid((double)s->logp[t] + (clamped ? far[t % 9] : near[t % 7]));
            s->mask[t] = !(i == 7 && j != 0) && i != 6 && !(i == 0 && j == 4);
            if (s->mask[t] == 0) s->logp[t] = NAN;
            s->b.tokens += s->mask[t] != 0;
        }
        s->first[i + 1] = t;
        s->advantage[i] = gain[i];
    }
    join(s);
}

/* Moves token t; cispo's ratio is held, which is what its stopped gradient means: old moves along. */
static double moved(const policy_loss_options *o, sample *s, int64_t t, double by) {
    const real logp = s->logp[t];
    const float old = s->old[t];
    s->logp[t] += (real)by;
    if (o->kind == POLICY_CISPO) s->old[t] += (float)by;
    const double loss = loss_of(o, &s->b);
    s->logp[t] = logp, s->old[t] = old;
    return loss;
}

static double weight_of(const policy_loss_options *o, const sample *s, int64_t i) {
    double n = 0;
    for (int64_t t = s->first[i]; t < s->first[i + 1]; t++) n += s->mask[t] != 0;
    if (o->kind == POLICY_GRPO || o->kind == POLICY_GSPO) return 1 / (n * s->b.sequences);
    return o->kind == POLICY_DR_GRPO ? 1 / (s->b.sequences * (double)o->max_completion) : 1 / s->b.tokens;
}

/* (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h is off by h^4 / 30 of the fifth derivative, 4e-14 of terms below 60, and
 * by the rounding of losses below 20: 2e-15 / h, some 4e-12. The derivative itself is rounded to F32, and so is the KL
 * whose score-function gradient is added. No bound is within 2h of a ratio, a mean or a KL. */
static void check_differences(const policy_loss_options *o, sample *s) {
    real d[MOST_TOKENS], each[MOST_TOKENS], kl[MOST_TOKENS];
    policy_stats stats = {0};
    double worst = 0;
    policy_loss(o, &s->b, d, &stats, each, NULL, kl);
    double sum = 0;
    for (int64_t i = 0; i < s->b.n_seq; i++) {
        for (int64_t t = s->first[i]; t < s->first[i + 1]; t++) {
            if (s->mask[t] == 0) {
                assert_true(d[t] == 0 && each[t] == 0 && kl[t] == 0);
                continue;
            }
            const double w = weight_of(o, s, i);
            double want =
                (8 * (moved(o, s, t, H) - moved(o, s, t, -H)) - (moved(o, s, t, 2 * H) - moved(o, s, t, -2 * H))) /
                (12 * H);
            const bool score = o->kl_on_policy && fabs((double)kl[t]) < 10;
            if (score) want += w * o->kl_beta * (double)kl[t];
            const double off = 2 * u * fabs(want) + score * w * o->kl_beta * 10 * u + 1e-10;
            worst = fmax(worst, fabs((double)d[t] - want) / off);
            sum += w * (double)each[t];
        }
    }
    if (!(worst <= 1))
        printf("%s, KL %d, dual clip %g, on policy %d: %g\n", kind_names[o->kind], (int)o->kl + 0, o->dual_clip,
               o->kl_on_policy, worst);
    assert_true(worst <= 1);
    assert_true(fabs(stats.loss) < 20 && fabs(sum - stats.loss) <= 40 * 60 * u);
}

static void test_differences(void **state) {
    (void)state;
    int tried = 0;
    for (int kind = 0; kind < KINDS; kind++) {
        for (int kl = 0; kl < 3; kl++) {
            for (int way = 0; way < 4; way++) {
                policy_loss_options o = {.kind = (policy_loss_kind)kind, .kl = (kl_kind)kl, .clip_low = 0.2};
                sample s;
                o.clip_high = 0.28, o.kl_beta = 0.5, o.max_completion = 16;
                o.dual_clip = way & 1 ? 3 : 0, o.kl_on_policy = way & 2;
                make_sample(&s, o.kl_on_policy);
                check_differences(&o, &s);
                o.kl_beta = 0;
                s.b.ref = NULL;
                check_differences(&o, &s);
                tried++;
            }
        }
    }
    assert_int_equal(tried, KINDS * 3 * 4);
}

/* What the sample above reaches: every side of every bound, else the differences say little. */
static void test_sides(void **state) {
    (void)state;
    for (int sequence = 0; sequence < 2; sequence++) {
        sample s;
        make_sample(&s, true);
        const policy_loss_options o = {
            .kind = sequence ? POLICY_GSPO : POLICY_GRPO, .clip_low = 0.2, .clip_high = 0.28, .dual_clip = 3};
        real d[MOST_TOKENS], ratio[MOST_TOKENS];
        policy_stats stats = {0};
        int sides[2][4] = {{0}};
        policy_loss(&o, &s.b, d, &stats, NULL, ratio, NULL);
        for (int64_t i = 0; i < s.b.n_seq; i++) {
            for (int64_t t = s.first[i]; t < s.first[i + 1]; t++) {
                if (s.mask[t] == 0 || s.advantage[i] == 0) continue;
                const double r = (double)ratio[t];
                sides[s.advantage[i] > 0][r < 0.8 ? 0 : r < 1.28 ? 1 : r < 3 ? 2 : 3]++;
                assert_true(fabs(log(r / 0.8)) > 3 * H && fabs(log(r / 1.28)) > 3 * H && fabs(log(r / 3)) > 3 * H);
            }
        }
        for (int side = 0; side < 4; side++) {
            printf("%s: %d tokens with negative, %d with positive advantage\n", sequence ? "mean" : "token",
                   sides[0][side], sides[1][side]);
            assert_true(sides[0][side] && sides[1][side]);
        }
        assert_true(stats.clipped_low == sides[0][0] && stats.clipped_high == sides[1][2] + sides[1][3]);
    }
}

/* --- the rest ----------------------------------------------------------------------------------------------------- */

/* A step's gradient does not depend on how it is cut into micro-batches, to the last bit; sums and extremes go on. */
static void test_micro_batches(void **state) {
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        const policy_loss_options o = {
            .kind = (policy_loss_kind)kind, .clip_low = 0.2, .clip_high = 0.28, .kl_beta = 0.1, .max_completion = 16};
        sample s;
        real all[MOST_TOKENS], part[MOST_TOKENS];
        policy_stats a = {0}, b = {0};
        make_sample(&s, false);
        policy_loss(&o, &s.b, all, &a, NULL, NULL, NULL);
        for (int64_t i = 0; i < s.b.n_seq; i++) {
            policy_batch one = s.b;
            one.n_seq = 1;
            one.first += i, one.advantage += i;
            policy_loss(&o, &one, part, &b, NULL, NULL, NULL);
        }
        assert_memory_equal(all, part, (size_t)s.first[s.b.n_seq] * sizeof *all);
        assert_memory_equal(&a, &b, sizeof a);
        assert_true(a.tokens == s.b.tokens);
        assert_true(a.ratio_min > 0 && a.ratio_min < 0.7 && a.ratio_max > 3);
    }
}

/* Without `old` the policy has not moved: as with old = logp. */
static void test_on_policy(void **state) {
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        const policy_loss_options o = {
            .kind = (policy_loss_kind)kind, .clip_low = 0.2, .clip_high = 0.28, .max_completion = 16};
        sample s;
        real d[2][MOST_TOKENS];
        policy_stats stats[2] = {{0}};
        make_sample(&s, false);
        for (int64_t t = 0; t < MOST_TOKENS; t++) s.old[t] = (float)s.logp[t];
        policy_loss(&o, &s.b, d[0], &stats[0], NULL, NULL, NULL);
        s.b.old = NULL;
        policy_loss(&o, &s.b, d[1], &stats[1], NULL, NULL, NULL);
        assert_memory_equal(d[0], d[1], (size_t)s.first[s.b.n_seq] * sizeof *d[0]);
        assert_memory_equal(&stats[0], &stats[1], sizeof stats[0]);
        assert_true(stats[0].ratio_max == 1 && stats[0].ratio_min == 1);
        for (int64_t i = 0; i < s.b.n_seq; i++) /* the score function, whatever the kind */
            for (int64_t t = s.first[i]; t < s.first[i + 1]; t++)
                if (s.mask[t] != 0) assert_true(d[0][t] == (real)(-weight_of(&o, &s, i) * s.advantage[i]));
    }
}

/* A ratio that has left F64: nothing where the advantage is 0 or positive, a loss that is not finite where it is
 * negative, unless dual clip bounds it. NaN never hides behind a clamp. */
static void test_runaway(void **state) {
    (void)state;
    const int64_t first[] = {0, 1};
    const float old = -1000, ref = -1;
    real logp = 0, d;
    double advantage;
    const policy_batch b = {.n_seq = 1,
                            .first = first,
                            .logp = &logp,
                            .old = &old,
                            .advantage = &advantage,
                            .ref = &ref,
                            .tokens = 1,
                            .sequences = 1};
    for (int kind = 0; kind < KINDS; kind++) {
        for (int sign = -1; sign <= 1; sign++) {
            for (int dual = 0; dual < 2; dual++) {
                policy_loss_options o = {.kind = (policy_loss_kind)kind, .clip_low = 0.2, .clip_high = 0.28};
                policy_stats s = {0};
                o.dual_clip = dual ? 3 : 0, o.max_completion = 1;
                advantage = sign, logp = 0;
                policy_loss(&o, &b, &d, &s, NULL, NULL, NULL);
                const bool bounded = kind == POLICY_CISPO || kind == POLICY_REINFORCE || sign >= 0 || dual;
                assert_true(bounded ? isfinite(s.loss) && isfinite(d) : !isfinite(s.loss) && !isfinite(d));
                if (sign == 0) assert_true(d == 0 && s.loss == 0);
                s = (policy_stats){0};
                logp = NAN;
                policy_loss(&o, &b, &d, &s, NULL, NULL, NULL);
                if (sign && kind != POLICY_REINFORCE) assert_true(isnan(s.loss) && isnan(d));
                o.kl_beta = 0.1, o.kl_on_policy = dual;
                policy_loss(&o, &b, &d, &s, NULL, NULL, NULL);
                assert_true(isnan(s.loss) && isnan(d));
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference), cmocka_unit_test(test_reference_stats), cmocka_unit_test(test_differences),
        cmocka_unit_test(test_sides),     cmocka_unit_test(test_micro_batches),   cmocka_unit_test(test_on_policy),
        cmocka_unit_test(test_runaway),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
