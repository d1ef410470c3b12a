/* Load of the experts: the correction bias, the balance loss, capacity. */
#include "train/balance.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "model/moe.h"
#include "train_test.h"

#include <cmocka.h>

static const char rows[] = "30|28 3|9 4|26 1|17|3 3 3 3|20|2 12";

enum { LAYERS = 3, EXPERTS = 16, CHOICES = 5 }; /* v3_mtp: one dense layer, one of experts, the MTP layer of experts */

static training setup(void) {
    training c;
    assert_ok(training_open(&c, "v3_mtp", rows, &e_));
    assert_int_equal(c.model.n_routed_experts, EXPERTS);
    assert_int_equal(c.model.num_experts_per_tok, CHOICES);
    c.micro = 8;
    return c;
}

static trained run(const training *c) {
    trained r;
    assert_ok(train(c, &r, &e_));
    return r;
}

static const param *bias_of(const trained *r, int64_t layer) {
    for (int64_t i = 0; i < r->p.count; i++)
        if (r->p.list[i].buffer && r->p.list[i].layer == layer) return &r->p.list[i];
    fail_msg("layer %d has no bias", (int)layer);
    return NULL;
}

/* --- the bias ---------------------------------------------------------------------------------------------------- */

/* The rule, from the loads of the steps: b += speed sign(mean - load), less the mean of all movements if wanted. F32
 * additions as the trainer's: to the last bit. */
static void expect_biases(const trained *r, double speed, bool zero_mean) {
    for (int64_t layer = 1; layer < LAYERS; layer++) {
        const param *x = bias_of(r, layer);
        float want[EXPERTS];
        memcpy(want, r->w0 + x->first, sizeof want);
        for (int s = 0; s < r->steps; s++) {
            const int64_t *load = r->load[s] + layer * EXPERTS;
            double mean = 0, sign[EXPERTS], middle = 0;
            for (int i = 0; i < EXPERTS; i++) mean += (double)load[i] / EXPERTS;
            for (int i = 0; i < EXPERTS; i++) {
                sign[i] = (double)load[i] < mean ? 1 : (double)load[i] > mean ? -1 : 0;
                middle += sign[i] / EXPERTS;
            }
            for (int i = 0; i < EXPERTS; i++) want[i] += (float)(speed * (sign[i] - (zero_mean ? middle : 0)));
        }
        assert_memory_equal(want, r->p.w + x->first, sizeof want);
        assert_int_equal(speed == 0, memcmp(want, r->w0 + x->first, sizeof want) == 0);
    }
}

static void the_sign_rule_trap_6_mtp_layers_too(void **unused) {
    (void)unused;
    for (int zero_mean = 0; zero_mean < 2; zero_mean++) {
        training c = setup();
        c.cfg.objective.bias_zero_mean = zero_mean;
        trained r = run(&c);
        expect_biases(&r, 0.01, zero_mean);
        trained_close(&r);
    }
}

static void speed_zero_moves_nothing(void **unused) {
    (void)unused;
    training c = setup();
    c.cfg.objective.bias_update_speed = 0;
    trained r = run(&c);
    expect_biases(&r, 0, false);
    trained_close(&r);
    c.cfg.objective.bias_update_speed = NAN; /* auto: V3 report, 4.2 */
    r = run(&c);
    expect_biases(&r, 1e-3, false);
    trained_close(&r);
}

/* The bias is a buffer: whatever decays, it moves by the rule. */
static void trap_7_the_bias_does_not_decay(void **unused) {
    (void)unused;
    training c = setup();
    c.cfg.optimizer.weight_decay = 0.5;
    c.cfg.optimizer.decay_vectors = true;
    trained r = run(&c);
    expect_biases(&r, 0.01, false);
    trained_close(&r);
}

/* Loads are those of the whole step: of all micro-batches and ranks, every choice of every token once. */
static void loads_are_of_the_whole_step(void **unused) {
    (void)unused;
    static const struct {
        int ranks, ep;
        int64_t micro;
    } list[] = {{1, 1, 8}, {1, 1, 1}, {2, 1, 4}, {4, 1, 1}, {2, 2, 2}, {4, 2, 2}};
    training c = setup();
    trained want = {0};
    c.steps = 1;
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        c.cfg.training.ranks = list[i].ranks;
        c.cfg.training.expert_parallel = list[i].ep;
        c.micro = list[i].micro;
        trained r = run(&c);
        expect_biases(&r, 0.01, false);
        int64_t sum[LAYERS] = {0};
        for (int l = 0; l < LAYERS; l++)
            for (int k = 0; k < EXPERTS; k++) sum[l] += r.load[0][l * EXPERTS + k];
        assert_int_equal(sum[0], 0);
        assert_int_equal(sum[1], 164 * CHOICES);
        assert_int_equal(sum[2], (164 - 15) * CHOICES); /* the last token of 15 documents has no next one */
        if (i > 0) {
            assert_memory_equal(r.load[0], want.load[0], LAYERS * EXPERTS * sizeof(int64_t));
            for (int l = 1; l < LAYERS; l++)
                assert_memory_equal(r.p.w + bias_of(&r, l)->first, want.p.w + bias_of(&want, l)->first,
                                    EXPERTS * sizeof(float));
            trained_close(&r);
        } else {
            want = r;
        }
    }
    trained_close(&want);
}

/* --- one router -------------------------------------------------------------------------------------------------- */

enum { N = 61, HIDDEN = 24, BATCH_ROWS = 3 };
static const int64_t edges[BATCH_ROWS + 1] = {0, 20, 21, N};

typedef struct router { /* forward of part_route over random rows */
    model_config cfg;
    float h[N * HIDDEN], norm[HIDDEN], gate[EXPERTS * HIDDEN], bias[EXPERTS];
    route_weights w;
    objective goal;
    int64_t load[EXPERTS];
    layer_stats stats;
    int32_t expert[N * CHOICES];
    float weight[N * CHOICES];
} router;

static void router_open(router *r, uint64_t seed) {
    *r = (router){.cfg = {.hidden_size = HIDDEN,
                          .n_routed_experts = EXPERTS,
                          .num_experts_per_tok = CHOICES,
                          .n_group = 4,
                          .topk_group = 2,
                          .topk_method = TOPK_NOAUX_TC,
                          .sigmoid_scores = true,
                          .norm_topk_prob = true,
                          .routed_scaling_factor = 2.5,
                          .rms_norm_eps = 1e-6}};
    for (int i = 0; i < N * HIDDEN; i++) r->h[i] = (float)rng_normal(seed, 1, (uint64_t)i);
    for (int i = 0; i < EXPERTS * HIDDEN; i++) r->gate[i] = (float)(0.3 * rng_normal(seed, 2, (uint64_t)i));
    for (int i = 0; i < EXPERTS; i++) r->bias[i] = (float)(0.3 * rng_normal(seed, 3, (uint64_t)i));
    for (int i = 0; i < HIDDEN; i++) r->norm[i] = 1;
    r->w = (route_weights){.norm = r->norm, .bias = r->bias};
    r->w.gate = (tensor){.data = r->gate, .type = DT_F32, .ndim = 2, .dim = {EXPERTS, HIDDEN}};
}

static void router_run(router *r, compute kind) {
    error e;
    flow x = {.n = N, .h = r->h, .batch_row = edges, .n_batch_rows = BATCH_ROWS};
    part_call c = {.cfg = &r->cfg, .w = &r->w, .x = &x, .goal = &r->goal, .stats = &r->stats, .e = &e};
    c.scratch = arena_open(1 << 16);
    c.keep = arena_open(1 << 16);
    c.saved = arena_zero(c.keep, 1, part_route.saved_size);
    memset(r->load, 0, sizeof r->load);
    r->stats = (layer_stats){.load = r->load};
    assert_ok(queue_open(&c.q, 2, NULL, kind, &e_));
    assert_ok(part_route.forward(&c));
    memcpy(r->expert, x.expert, sizeof r->expert);
    memcpy(r->weight, x.gate, sizeof r->weight);
    arena_close(c.keep);
    arena_close(c.scratch);
    queue_close(c.q);
}

/* Scores of a token, in F64. */
static void scores_of(const router *r, int64_t t, double *s) {
    double square = 0;
    for (int j = 0; j < HIDDEN; j++) square += (double)r->h[t * HIDDEN + j] * r->h[t * HIDDEN + j];
    const double scale = 1 / sqrt(square / HIDDEN + r->cfg.rms_norm_eps);
    double all = 0;
    for (int i = 0; i < EXPERTS; i++) {
        double z = 0;
        for (int j = 0; j < HIDDEN; j++) z += (double)r->gate[i * HIDDEN + j] * r->h[t * HIDDEN + j] * scale;
        s[i] = r->cfg.sigmoid_scores ? 1 / (1 + exp(-z)) : exp(z);
        all += s[i];
    }
    for (int i = 0; i < EXPERTS && !r->cfg.sigmoid_scores; i++) s[i] /= all;
}

/* Whatever type the other products have. */
static void trap_4_the_router_is_f32(void **unused) {
    (void)unused;
    static router want, got;
    router_open(&want, 3);
    router_run(&want, COMPUTE_F32);
    for (int kind = COMPUTE_BF16; kind <= COMPUTE_FP8; kind++) {
        router_open(&got, 3);
        router_run(&got, (compute)kind);
        assert_memory_equal(got.expert, want.expert, sizeof want.expert);
        assert_memory_equal(got.weight, want.weight, sizeof want.weight);
        assert_true(got.stats.balance == want.stats.balance);
    }
}

/* sum_i f_i P_i of each row, from its definition (V3 report, eq. 17-20): f_i = E / (K T) times how often i is among the
 * K largest plain scores. */
static double balance_of(const router *r) {
    double sum = 0;
    for (int row = 0; row < BATCH_ROWS; row++) {
        const int64_t T = edges[row + 1] - edges[row];
        double f[EXPERTS] = {0}, P[EXPERTS] = {0};
        for (int64_t t = edges[row]; t < edges[row + 1]; t++) {
            double s[EXPERTS], all = 0;
            scores_of(r, t, s);
            for (int i = 0; i < EXPERTS; i++) all += s[i];
            for (int i = 0; i < EXPERTS; i++) {
                int larger = 0;
                for (int j = 0; j < EXPERTS; j++) larger += s[j] > s[i];
                f[i] += larger < CHOICES ? (double)EXPERTS / (double)(CHOICES * T) : 0;
                P[i] += s[i] / all / (double)T;
            }
        }
        for (int i = 0; i < EXPERTS; i++) sum += f[i] * P[i];
    }
    return sum;
}

/* Neither the bias nor the groups have a part in it, 1 / K does, and P is normalised (other trainers: K times as much,
 * or a softmax of the sigmoid). F32 sums of 60 tokens: 1e-5. */
static void trap_8_balance_loss_of_plain_scores(void **unused) {
    (void)unused;
    static router r;
    for (uint64_t seed = 1; seed < 6; seed++)
        for (int softmax = 0; softmax < 2; softmax++) {
            router_open(&r, seed);
            r.cfg.sigmoid_scores = !softmax;
            if (softmax) r.cfg.topk_method = TOPK_GROUP_LIMITED_GREEDY, r.cfg.norm_topk_prob = false, r.w.bias = NULL;
            router_run(&r, COMPUTE_F32);
            const double want = balance_of(&r);
            if (fabs(r.stats.balance - want) > 1e-5 * want) fail_msg("%.8g instead of %.8g", r.stats.balance, want);
            assert_true(fabs(want - BATCH_ROWS) > 0.01); /* not the balanced one */
        }
}

/* A router of zeros has equal scores: every P_i is 1 / E and the sum of f is E, so a layer's loss is 1. */
static void balance_loss_of_equal_scores(void **unused) {
    (void)unused;
    training c = setup();
    c.folder = NULL;
    c.model.initializer_range = 0;
    c.steps = 1;
    trained r = run(&c);
    assert_true(fabs(r.step[0].balance_loss - 2) <= 1e-5);
    assert_true(fabs(r.step[0].loss - r.step[0].lm_loss - 0.3 * r.step[0].mtp_loss - 0.01 * r.step[0].balance_loss) <=
                1e-12);
    trained_close(&r);
}

/* --- capacity ---------------------------------------------------------------------------------------------------- */

/* Does pair i go, when of the pairs first .. end-1 every expert keeps `capacity`? It does when so many come before it:
 * those with a larger weight, or with the same and an earlier place; by position: the earlier ones. */
static bool must_go(const router *all, int64_t i, int64_t first, int64_t end, bool by_weight, double capacity) {
    int64_t before = 0;
    for (int64_t j = first; j < end; j++) {
        if (all->expert[j] != all->expert[i] || j == i) continue;
        if (by_weight && all->weight[j] != all->weight[i]) before += all->weight[j] > all->weight[i];
        else before += j < i;
    }
    return (double)before >= floor(capacity);
}

static void capacity_drops_what_each_policy_says(void **unused) {
    (void)unused;
    static router all, some;
    static const double factors[] = {0.5, 1, 1.3};
    for (int k = 0; k < 3 * 4; k++) {
        const double factor = factors[k / 4];
        const bool by_weight = k & 1, per_row = k & 2;
        router_open(&all, 7);
        router_open(&some, 7);
        router_run(&all, COMPUTE_F32);
        assert_int_equal(all.stats.dropped, 0);
        some.goal = (objective){.capacity_factor = factor, .drop_by_probs = by_weight, .capacity_per_row = per_row};
        router_run(&some, COMPUTE_F32);
        int64_t gone = 0;
        for (int row = 0; row < BATCH_ROWS; row++)
            for (int64_t i = edges[row] * CHOICES; i < edges[row + 1] * CHOICES; i++) {
                const int64_t first = per_row ? edges[row] * CHOICES : 0,
                              end = per_row ? edges[row + 1] * CHOICES : N * CHOICES;
                const double pairs = (double)(end - first);
                const double capacity =
                    per_row ? fmax(ceil(pairs / EXPERTS) * factor, factor) : ceil(pairs / EXPERTS * factor);
                const bool go = must_go(&all, i, first, end, by_weight, capacity);
                gone += go;
                if ((some.expert[i] < 0) != go) fail_msg("case %d, pair %d: %d", k, (int)i, go);
                if (!go) assert_true(some.expert[i] == all.expert[i] && some.weight[i] == all.weight[i]);
                else assert_true(some.weight[i] == 0);
            }
        assert_int_equal(some.stats.dropped, gone);
        assert_true(gone > 10);
        assert_memory_equal(some.load, all.load, sizeof all.load); /* loads count what was dropped, too */
    }
}

/* The share that a step reports, from its loads: an expert with more pairs than its capacity loses the rest. */
static void the_dropped_share_is_reported(void **unused) {
    (void)unused;
    for (int by_weight = 0; by_weight < 2; by_weight++) {
        training c = setup();
        c.cfg.objective.capacity_factor = 1;
        c.cfg.objective.capacity_per_row = false;
        c.cfg.objective.drop_policy = by_weight ? DROP_PROBS : DROP_POSITION;
        trained r = run(&c);
        for (int s = 0; s < r.steps; s++) {
            double pairs = 0, dropped = 0;
            for (int l = 1; l < LAYERS; l++) {
                const int64_t *load = r.load[s] + l * EXPERTS;
                int64_t sum = 0;
                for (int i = 0; i < EXPERTS; i++) sum += load[i];
                const int64_t capacity = (sum + EXPERTS - 1) / EXPERTS;
                for (int i = 0; i < EXPERTS; i++) dropped += load[i] > capacity ? (double)(load[i] - capacity) : 0;
                pairs += (double)sum;
            }
            assert_true(dropped > 0 && r.step[s].dropped == dropped / pairs);
        }
        trained_close(&r);
    }
}

/* Through whole steps, with ranks that exchange rows and with what is computed again. */
static void a_large_capacity_is_none(void **unused) {
    (void)unused;
    static const char *const folders[] = {"v3_mtp", "v2_lite"};
    for (int k = 0; k < 2 * 4; k++) {
        training c;
        assert_ok(training_open(&c, folders[k / 4], rows, &e_));
        c.micro = 4;
        c.cfg.training.ranks = 2;
        c.cfg.training.expert_parallel = 2;
        trained want = run(&c);
        c.cfg.objective.capacity_factor = 1000;
        c.cfg.objective.drop_policy = k & 1 ? DROP_PROBS : DROP_POSITION;
        c.cfg.objective.capacity_per_row = k & 2;
        if (k & 1) c.cfg.training.recompute = (string_list){{"block"}, 1};
        trained got = run(&c);
        assert_same(&want, &got);
        for (int s = 0; s < c.steps; s++) {
            assert_true(want.step[s].loss == got.step[s].loss);
            assert_true(isnan(want.step[s].dropped) && got.step[s].dropped == 0);
        }
        trained_close(&want), trained_close(&got);
    }
}

/* Dropped pairs travel nowhere: two ranks that share the experts do what two do that have all. */
static void dropping_with_shared_experts(void **unused) {
    (void)unused;
    trained r[2];
    for (int k = 0; k < 2; k++) {
        training c = setup();
        c.micro = 4;
        c.cfg.training.ranks = 2;
        c.cfg.training.expert_parallel = 1 + k;
        c.cfg.objective.capacity_factor = 0.8;
        r[k] = run(&c);
        assert_true(r[k].step[0].dropped > 0.05);
    }
    assert_same(&r[0], &r[1]);
    assert_true(r[0].step[0].dropped == r[1].step[0].dropped);
    trained_close(&r[0]), trained_close(&r[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_sign_rule_trap_6_mtp_layers_too),
                                       cmocka_unit_test(speed_zero_moves_nothing),
                                       cmocka_unit_test(trap_7_the_bias_does_not_decay),
                                       cmocka_unit_test(loads_are_of_the_whole_step),
                                       cmocka_unit_test(trap_4_the_router_is_f32),
                                       cmocka_unit_test(trap_8_balance_loss_of_plain_scores),
                                       cmocka_unit_test(balance_loss_of_equal_scores),
                                       cmocka_unit_test(capacity_drops_what_each_policy_says),
                                       cmocka_unit_test(the_dropped_share_is_reported),
                                       cmocka_unit_test(a_large_capacity_is_none),
                                       cmocka_unit_test(dropping_with_shared_experts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
