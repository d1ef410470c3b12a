/* Every way of cutting a step over ranks and micro-batches is the same step. What that means:
 *
 *   losses      1e-6 relative; they are sums in F64 of the same F32 numbers, since no row's forward depends on others
 *   gradients   relative L2 of each weight 1e-5: sums of some hundred F32 products in another order
 *   weights     an AdamW update from the clipped gradient g is lr g / (|g| + eps): a gradient that is wrong by d moves
 * it by at most lr d / eps. |g| <= 1 (clipped) and d <= 1e-5 |g|: 1e-5 lr / eps = 1e-5 a step at lr = eps; three steps,
 * and as much again for what the first ones' errors do to the gradients of the later ones itself      every layout
 * repeats itself to the last bit */
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "train_test.h"

#include <setjmp.h>

#include <cmocka.h>

static const double LOSS = 1e-6, GRADIENT = 1e-5, WEIGHT = 6e-5;

/* Documents of unequal lengths, one of a single token; the second of four ranks has no targets. The vocabulary of 449
 * is divisible by nothing. */
static const char rows[] = "9 4|13|!6 6 1|!11|17|3 3 3 3|20|2 12";
static const char long_rows[] = "30|28 3|9 4|26"; /* longer than the 24 rows that V3.2's indexer chooses */

typedef struct layout {
    const char *name;
    int ranks, ep;
    bool zero;
    int64_t micro;
} layout;

enum { MUON = 3 }; /* beside the precisions, which are AdamW's */

static void run_model(const char *folder, const char *text, const layout *l, int numbers, trained *out) {
    training c;
    error e = {0};
    if (training_open(&c, folder, text, &e) != OK) fail_msg("%s", e.text);
    if (c.model.index_topk) c.cfg.objective.dsa = DSA_SPARSE, c.cfg.objective.indexer_loss_scaling_factor = 0.5;
    c.cfg.training.ranks = l->ranks;
    c.cfg.training.expert_parallel = l->ep;
    c.cfg.training.zero = l->zero;
    c.cfg.optimizer.kind = numbers == MUON ? OPTIMIZER_MUON : OPTIMIZER_ADAMW;
    c.cfg.training.precision = numbers == MUON ? PRECISION_F32 : (precision)numbers;
    c.micro = l->micro;
    if (train(&c, out, &e) != OK) fail_msg("%s: %s", l->name, e.text);
}

static void run(const layout *l, trained *out) {
    run_model("v3_mtp", rows, l, PRECISION_F32, out);
}

/* NaN: not part of this run. */
static bool near(double got, double want) {
    return isnan(want) ? isnan(got) : fabs(got - want) <= LOSS * fabs(want);
}

static void close_losses(const char *name, const trained *a, const trained *b) {
    const step_metrics *x = &a->step[0], *y = &b->step[0];
    const double got[] = {x->loss, x->lm_loss, x->mtp_loss, x->balance_loss, x->indexer_loss, x->grad_norm, x->max_vio},
                 want[] = {y->loss,         y->lm_loss,   y->mtp_loss, y->balance_loss,
                           y->indexer_loss, y->grad_norm, y->max_vio};
    for (int i = 0; i < 7; i++)
        if (!near(got[i], want[i])) fail_msg("%s: %d: %.9g, %.9g", name, i, got[i], want[i]);
    assert_true(x->tokens == y->tokens);
}

static void same_step(const char *name, const trained *a, const trained *b) {
    const char *who;
    double moved = 0;
    for (int64_t i = 0; i < a->p.total; i++) moved = fmax(moved, fabs((double)a->p.w[i] - (double)a->w0[i]));
    assert_true(moved > 10 * WEIGHT);
    close_losses(name, a, b);
    const double gradients = gradient_gap(&b->p, &a->p, &who), weights = weight_gap(a, b);
    print_message("%-16s gradients %.1e (%s), weights %.1e\n", name, gradients, who, weights);
    if (gradients > GRADIENT) fail_msg("%s: gradient of %s is off by %.1e", name, who, gradients);
    if (weights > WEIGHT) fail_msg("%s: weights are off by %.1e", name, weights);
}

/* Losses, norms, loads of every step, gradients and weights. */
static void same_bits(const trained *a, const trained *b, size_t loads) {
    for (int s = 0; s < a->steps; s++) {
        assert_true(a->step[s].loss == b->step[s].loss);
        assert_true(a->step[s].grad_norm == b->step[s].grad_norm);
        assert_memory_equal(a->load[s], b->load[s], loads * sizeof(int64_t));
    }
    assert_same(a, b);
}

enum { LOADS = 3 * 16 }; /* layers of v3_mtp and its MTP layer, experts */

static void layouts_agree(void **unused) {
    (void)unused;
    static const layout one = {"1 rank", 1, 1, true, 8}, list[] = {{"DP2", 2, 1, true, 4},
                                                                   {"DP2, no ZeRO", 2, 1, false, 4},
                                                                   {"DP4", 4, 1, true, 2},
                                                                   {"EP2", 2, 2, true, 4},
                                                                   {"EP4", 4, 4, true, 2},
                                                                   {"DP2 x EP2", 4, 2, true, 2},
                                                                   {"DP2 x EP2, no ZeRO", 4, 2, false, 2}};
    trained want;
    run(&one, &want);
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        trained got, again;
        run(&list[i], &got);
        run(&list[i], &again);
        same_step(list[i].name, &got, &want);
        same_bits(&got, &again, LOADS);
        trained_close(&got), trained_close(&again);
    }
    trained_close(&want);
}

/* Softmax routing, DSA with its indexer's loss, dense GQA. */
static void other_families(void **unused) {
    (void)unused;
    static const layout one = {"1 rank", 1, 1, true, 4}, two = {"2 ranks", 2, 1, true, 2}, ep = {"EP2", 2, 2, true, 2},
                        more = {"EP2, 1 row at once", 2, 2, true, 1};
    static const char *const folders[] = {"v2_lite", "v32", "qwen2"};
    for (int i = 0; i < 3; i++) {
        trained want, got;
        run_model(folders[i], long_rows, &one, PRECISION_F32, &want);
        run_model(folders[i], long_rows, &two, PRECISION_F32, &got);
        same_step(folders[i], &got, &want);
        trained_close(&got);
        for (int j = 0; j < 2 && want.p.shared < want.p.count; j++) {
            run_model(folders[i], long_rows, j ? &more : &ep, PRECISION_F32, &got);
            same_step(folders[i], &got, &want);
            trained_close(&got);
        }
        trained_close(&want);
    }
}

static void accumulation(void **unused) {
    (void)unused;
    static const layout list[] = {
        {"1 x 8", 1, 1, true, 8}, {"2 x 4", 1, 1, true, 4}, {"4 x 2", 1, 1, true, 2}, {"8 x 1", 1, 1, true, 1}};
    trained want;
    run(&list[0], &want);
    for (int i = 1; i < 4; i++) {
        trained got;
        run(&list[i], &got);
        same_step(list[i].name, &got, &want);
        trained_close(&got);
    }
    trained_close(&want);
}

/* Two layouts, in all number types and with both optimizers. */
static void equal_bits(const layout *a, const layout *b) {
    for (int numbers = 0; numbers <= MUON; numbers++) {
        trained x, y;
        run_model("v3_mtp", rows, a, numbers, &x);
        run_model("v3_mtp", rows, b, numbers, &y);
        same_bits(&x, &y, LOADS);
        trained_close(&x), trained_close(&y);
    }
}

static void zero_changes_no_bit(void **unused) {
    (void)unused;
    equal_bits(&(layout){"ZeRO", 2, 1, true, 2}, &(layout){"no ZeRO", 2, 1, false, 2});
    equal_bits(&(layout){"EP2, ZeRO", 4, 2, true, 1}, &(layout){"EP2, no ZeRO", 4, 2, false, 1});
}

/* Ranks that share experts add up their rows in the order of the ranks: to the last bit what ranks do that have all
 * experts each and add up their gradients. */
static void expert_parallel_changes_no_bit(void **unused) {
    (void)unused;
    equal_bits(&(layout){"EP2", 2, 2, true, 4}, &(layout){"DP2", 2, 1, true, 4});
    equal_bits(&(layout){"EP4", 4, 4, true, 2}, &(layout){"DP4", 4, 1, true, 2});
}

static void spoil_last_experts(trainer *t) {
    for (int64_t i = 0; i < t->p.count; i++)
        if (t->p.list[i].expert >= 12) t->p.w[t->p.list[i].first] = NAN;
}

/* One rank of four has experts that are not finite: all skip the step, and nothing moves. */
static void what_one_rank_finds_all_skip(void **unused) {
    (void)unused;
    training c;
    trained r;
    error e = {0};
    assert_int_equal(training_open(&c, "v3_mtp", rows, &e), OK);
    c.cfg.training.ranks = c.cfg.training.expert_parallel = 4;
    c.cfg.optimizer.weight_decay = 0.1;
    c.micro = 2;
    c.prepare = spoil_last_experts;
    if (train(&c, &r, &e) != OK) fail_msg("%s", e.text);
    for (int s = 0; s < r.steps; s++) assert_true(r.step[s].skipped && !isfinite(r.step[s].grad_norm));
    assert_memory_equal(r.w0, r.p.w, (size_t)r.p.total * sizeof *r.w0);
    trained_close(&r);
}

static void a_failing_rank_ends_all(void **unused) {
    (void)unused;
    for (int ep = 1; ep <= 2; ep++) {
        training c;
        trained out;
        error e = {0};
        assert_int_equal(training_open(&c, "v3_mtp", rows, &e), OK);
        c.cfg.training.ranks = 4;
        c.cfg.training.expert_parallel = ep;
        c.failing_rank = 2;
        c.micro = 2;
        assert_int_equal(train(&c, &out, &e), ERR_IO);
        assert_non_null(strstr(e.text, "the data of rank 2 end"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(layouts_agree),
                                       cmocka_unit_test(other_families),
                                       cmocka_unit_test(accumulation),
                                       cmocka_unit_test(zero_changes_no_bit),
                                       cmocka_unit_test(expert_parallel_changes_no_bit),
                                       cmocka_unit_test(what_one_rank_finds_all_skip),
                                       cmocka_unit_test(a_failing_rank_ends_all)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
