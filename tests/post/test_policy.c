/* Completions as batches: prompts that are shared give the losses, log-probabilities and gradients of documents that
 * are laid out one by one, whatever the number of threads. */
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "comm/comm.h"
#include "post/grpo.h"
#include "post/policy.h"

#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h> /* after the headers of the program: it makes a macro of `fail` */

enum { ITEMS = 13, MOST = 90, VOCAB = 54 };

typedef struct lesson {
    policy_item item[ITEMS];
    int32_t prompt[ITEMS][MOST], ids[ITEMS][MOST];
    float old[ITEMS][MOST], ref[ITEMS][MOST];
    double tokens;
} lesson;

/* Prompts of 1, 40 and 7 tokens with 3, 6 and 4 completions of 1 to 80 tokens. */
static void open_lesson(lesson *l) {
    static const int n_prompt[ITEMS] = {1, 1, 1, 40, 40, 40, 40, 40, 40, 7, 7, 7, 7};
    l->tokens = 0;
    for (int i = 0; i < ITEMS; i++) {
        const int64_t n = 1 + (int64_t)(rng_uniform(1, (uint64_t)i, 0) * 79);
        for (int k = 0; k < MOST; k++) {
            l->prompt[i][k] = (int32_t)(rng_uniform(2, (uint64_t)n_prompt[i], (uint64_t)k) * VOCAB);
            l->ids[i][k] = (int32_t)(rng_uniform(3, (uint64_t)i, (uint64_t)k) * VOCAB);
            l->old[i][k] = -4;
        }
        l->item[i] = (policy_item){.prompt = l->prompt[i],
                                   .n_prompt = n_prompt[i],
                                   .ids = l->ids[i],
                                   .n = n,
                                   .advantage = rng_normal(4, (uint64_t)i, 0),
                                   .old = l->old[i],
                                   .ref = l->ref[i]};
        l->tokens += (double)n;
    }
}

typedef struct pupil {
    train_config c;
    comm world;
    trainer t;
    error e;
} pupil;

static void open_pupil(pupil *p, int threads, precision kind, double balance) {
    model *from;
    train_config_default(&p->c);
    p->c.training.precision = kind;
    p->c.training.threads = threads;
    p->c.data.options.seq_len = 2 * MOST;
    p->c.objective.balance_alpha = balance;
    assert_int_equal(grpo_settle(&p->c, &p->e), OK);
    assert_int_equal(comm_self(&p->world, &p->e), OK);
    if (model_open(&from, "models/tiny", &p->e) != OK) fail_msg("%s", p->e.text);
    assert_int_equal(trainer_open(&p->t, &p->c, &from->cfg, &p->world, &p->e), OK);
    assert_int_equal(params_load(&p->t.p, from, &p->e), OK);
    model_close(from);
    assert_int_equal(trainer_ready(&p->t, &p->e), OK);
}

/* Log-probabilities of all completions into l->ref, gradients into p->t.p.g; returns the loss. Micro-batches of 4
 * completions cut groups. */
static double learn(pupil *p, lesson *l, bool share, int64_t micro, step_metrics *m) {
    policy *x;
    policy_numbers numbers;
    batch_source s;
    assert_int_equal(policy_open(&x, &(policy_loss_options){.clip_low = 9, .clip_high = 1e9}, 1, micro, &p->e), OK);
    if (share) policy_fit(x, &p->t);
    assert_int_equal(policy_reference(x, &p->t, NULL, l->item, ITEMS, &p->e), OK);
    assert_int_equal(policy_source(x, l->item, ITEMS, l->tokens, ITEMS, &numbers, &s, &p->e), OK);
    assert_int_equal(trainer_gradients(&p->t, &s, m, &p->e), OK);
    policy_close(x);
    return m->loss;
}

/* Sums in another order: some hundred roundings of 2^-24 that add up at random, 1e-6 of a number, and ten times that
 * for what layers make of it; gradients in units of their norms. */
static void shared_prompts_change_nothing(void **state) {
    (void)state;
    lesson *apart = malloc(sizeof *apart), *shared = malloc(sizeof *shared);
    pupil *p = calloc(1, sizeof *p), *q = calloc(1, sizeof *q);
    step_metrics m, n;
    open_lesson(apart);
    open_lesson(shared);
    open_pupil(p, 1, PRECISION_F32, 0);
    open_pupil(q, 2, PRECISION_F32, 0);
    assert_true(trainer_takes_trees(&q->t));
    for (int micro = 0; micro <= 4; micro += 4) {
        const double loss = learn(p, apart, false, micro, &m), same = learn(q, shared, true, micro, &n);
        assert_true(fabs(loss - same) < 1e-5 * (1 + fabs(loss)));
        assert_true(m.tokens == n.tokens);
        for (int i = 0; i < ITEMS; i++)
            for (int64_t k = 0; k < apart->item[i].n; k++)
                assert_true(fabsf(apart->ref[i][k] - shared->ref[i][k]) < 1e-5f * (1 + fabsf(apart->ref[i][k])));
        for (int64_t i = 0; i < p->t.p.count; i++) {
            const int64_t first = p->t.p.list[i].first;
            double all = 0, off = 0;
            for (int64_t k = first; k < first + p->t.p.list[i].n; k++) {
                all += (double)p->t.p.g[k] * (double)p->t.p.g[k];
                off += pow((double)p->t.p.g[k] - (double)q->t.p.g[k], 2);
            }
            assert_true(sqrt(off) <= 1e-5 * sqrt(all));
        }
    }
    /* fewer rows go through the experts */
    int64_t before = 0, after = 0;
    for (int k = 0; k < m.n_experts; k++) {
        before += m.layers[0].load[k];
        after += n.layers[0].load[k];
    }
    assert_true(after < before);
    trainer_close(&p->t);
    trainer_close(&q->t);
    free(p);
    free(q);
    free(apart);
    free(shared);
}

static void same_bits_for_any_number_of_threads(void **state) {
    (void)state;
    for (precision c = PRECISION_F32; c <= PRECISION_BF16; c++) {
        lesson *l = malloc(sizeof *l);
        pupil *p = calloc(1, sizeof *p), *q = calloc(1, sizeof *q);
        step_metrics m;
        open_lesson(l);
        open_pupil(p, 1, c, 0);
        open_pupil(q, 3, c, 0);
        const double loss = learn(p, l, true, 0, &m);
        assert_true(loss == learn(q, l, true, 0, &m));
        assert_memory_equal(p->t.p.g, q->t.p.g, (size_t)p->t.p.total * sizeof *p->t.p.g);
        trainer_close(&p->t);
        trainer_close(&q->t);
        free(p);
        free(q);
        free(l);
    }
}

/* The balance loss averages over the tokens of each document, prompts included. */
static void balance_wants_documents(void **state) {
    (void)state;
    pupil *p = calloc(1, sizeof *p);
    open_pupil(p, 1, PRECISION_F32, 1e-3);
    assert_false(trainer_takes_trees(&p->t));
    trainer_close(&p->t);
    free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_prompts_change_nothing),
        cmocka_unit_test(same_bits_for_any_number_of_threads),
        cmocka_unit_test(balance_wants_documents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
