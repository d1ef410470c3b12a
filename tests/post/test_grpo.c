/* GRPO as a whole, on a mixture of experts: the one who samples and the one who learns agree, a run that is stopped and
 * goes on is the same run, and what happens when there is nothing to learn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "format/native.h"
#include "post/grpo.h"
#include "post/policy.h"
#include "train/checkpoint.h"
#include "train/job.h"
#include <cmocka.h>

enum { MOST_STEPS = 16, MOST_TOLD = 48 };

typedef struct told { /* by the hooks */
    int64_t steps, stop_at;
    int n[MOST_STEPS];
    char names[MOST_STEPS][MOST_TOLD][40];
    double values[MOST_STEPS][MOST_TOLD], loss[MOST_STEPS], grad_norm[MOST_STEPS];
    char note[400];
} told;

static int on_step(void *arg, const step_metrics *m, int64_t steps) {
    told *t = arg;
    (void)steps;
    assert_true(m->step < MOST_STEPS);
    t->loss[m->step] = m->loss;
    t->grad_norm[m->step] = m->grad_norm;
    t->n[m->step] = m->n_more;
    for (int i = 0; i < m->n_more; i++) {
        snprintf(t->names[m->step][i], sizeof t->names[0][0], "%s", m->more[i].name);
        t->values[m->step][i] = m->more[i].value;
    }
    return ++t->steps == t->stop_at;
}

static void on_note(void *arg, const char *line) {
    told *t = arg;
    snprintf(t->note, sizeof t->note, "%s", line);
}

static double value(const told *t, int step, const char *name) {
    for (int i = 0; i < t->n[step]; i++)
        if (strcmp(t->names[step][i], name) == 0) return t->values[step][i];
    return NAN;
}

typedef struct place {
    char folder[40], prompts[64];
} place;

static void write_prompts(const char *path) {
    str s = {0};
    error e;
    for (int i = 0; i < 40; i++)
        str_addf(&s, "{\"prompt\": \"<user>c%d+%d-%d+%d-%d<assistant>\", \"answer\": \"%d\"}\n", i % 10, i % 7, i % 3,
                 i % 9, i % 4, ((i % 10 + i % 7 - i % 3 + i % 9 - i % 4) % 10 + 10) % 10);
    assert_int_equal(file_save(path, s.p, s.n, &e), OK);
    str_free(&s);
}

static int open_place(void **state) {
    place *p = calloc(1, sizeof *p);
    strcpy(p->folder, "/tmp/hadal-grpo-XXXXXX");
    if (!mkdtemp(p->folder)) return 1;
    snprintf(p->prompts, sizeof p->prompts, "%s/prompts.jsonl", p->folder);
    write_prompts(p->prompts);
    *state = p;
    return 0;
}

static int close_place(void **state) {
    place *p = *state;
    char command[80];
    snprintf(command, sizeof command, "rm -r '%s'", p->folder);
    const int rc = system(command);
    free(p);
    return rc;
}

/* Some of what a hot model writes is worth something, whatever it has learned. */
#define REWARDS "rollout.rewards=[{name: format, pattern: '^[^5e]*$'}, {name: finished, weight: 0.5}]"

static status configure(train_config *c, const place *p, const char *name, arena *mem, error *e, va_list more) {
    char data[128], folder[128];
    const char *keys[32] = {"model.path=models/tiny",
                            "data.seq_len=64",
                            "training.precision=f32",
                            "training.threads=2",
                            "training.steps=4",
                            "rollout.max_tokens=24",
                            "rollout.temperature=4",
                            "grpo.prompts=6",
                            "grpo.generations=4",
                            "optimizer.lr=1e-3",
                            "checkpoint.every=1",
                            "checkpoint.keep_last=9",
                            REWARDS,
                            data,
                            folder};
    int n = 15;
    snprintf(data, sizeof data, "data.train=%s", p->prompts);
    snprintf(folder, sizeof folder, "checkpoint.folder=%s/%s", p->folder, name);
    for (const char *key; n < 32 && (key = va_arg(more, const char *));) keys[n++] = key;
    return train_config_read(c, NULL, keys, n, mem, e);
}

static status start(const place *p, const char *name, told *t, error *e, ...) {
    train_config c;
    run_result r;
    va_list more;
    arena *mem = arena_open(1 << 12);
    const run_hooks hooks = {.step = on_step, .note = on_note, .arg = t};
    va_start(more, e);
    status s = configure(&c, p, name, mem, e, more);
    va_end(more);
    if (s == OK) s = grpo_run(&c, &hooks, &r, e);
    arena_close(mem);
    return s;
}

#define assert_run(p, name, told, ...)                                                             \
    do {                                                                                           \
        error e_ = {0};                                                                            \
        if (start(p, name, told, &e_, __VA_ARGS__, NULL) != OK) fail_msg("%s: %s", name, e_.text); \
    } while (0)

static native_file *checkpoint(const place *p, const char *name, int64_t step) {
    char run[80], *folder;
    native_file *f;
    error e;
    snprintf(run, sizeof run, "%s/%s", p->folder, name);
    folder = native_step_folder(run, step);
    if (native_open(&f, folder, true, &e) != OK) fail_msg("%s", e.text);
    free(folder);
    return f;
}

static float *read_tensor(const native_file *f, const native_slice *t) {
    error e;
    float *x = malloc((size_t)t->n * sizeof *x);
    assert_non_null(x);
    assert_int_equal(native_read(f, t->name, 0, t->n, x, &e), OK);
    return x;
}

/* Tensors that differ between two checkpoints; those whose name holds `only` (NULL: all). */
static int differing(const place *p, const char *a, int64_t step_a, const char *b, int64_t step_b, const char *only) {
    native_file *f = checkpoint(p, a, step_a), *g = checkpoint(p, b, step_b);
    int n = 0;
    assert_int_equal(native_count(f), native_count(g));
    for (int64_t i = 0; i < native_count(f); i++) {
        const native_slice *t = native_tensor(f, i);
        if (only && !strstr(t->name, only)) continue;
        float *x = read_tensor(f, t), *y = read_tensor(g, native_find(g, t->name));
        n += memcmp(x, y, (size_t)t->n * sizeof *x) != 0;
        free(x);
        free(y);
    }
    native_close(f);
    native_close(g);
    return n;
}

/* --- sampler and trainer ----------------------------------------------------------------------------------------- */

/* Both compute every row by the same products, but in other batches and with another form of attention, so sums run in
 * another order. A dot product of n <= 256 terms of one size errs by about sqrt(n) u relative to its terms, u = 2^-24 =
 * 6e-8: 1e-6. Some 8 of them follow one another in each of the 3 layers, and a norm before each keeps errors from
 * growing by more than a small factor: 24e-6 of the largest logit, which stays below 20 here, so 5e-4. An engine whose
 * numbers were of another kind (BF16: u = 4e-3) would be off by 0.1 and more. The mean is of one row's typical error.
 */
static void log_probabilities_agree(void **state) {
    told t = {0};
    assert_run(*state, "agree", &t, "training.steps=3", "grpo.prompts=10");
    for (int s = 0; s < 3; s++) {
        const double worst = value(&t, s, "logprob_error_max"), mean = value(&t, s, "logprob_error_mean");
        assert_true(worst > 0 && worst < 5e-4); /* 0 would mean that one of them was copied from the other */
        assert_true(mean < 1e-5);
        assert_true(fabs(value(&t, s, "token_mult_prob_error") - 1) < 1e-5);
        assert_true(fabs(value(&t, s, "ratio_max") - 1) < 5e-4);
    }
    print_message("largest difference of log-probabilities: %.2g, mean %.2g\n", value(&t, 0, "logprob_error_max"),
                  value(&t, 0, "logprob_error_mean"));
}

typedef struct routes { /* which experts were chosen, [layers][experts] counts */
    int64_t load[8][64];
} routes;

static void see_ints(void *arg, const char *name, int64_t layer, const int32_t *x, int64_t ld, int64_t n,
                     int64_t width) {
    routes *r = arg;
    if (strcmp(name, "router.index") != 0) return;
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < width; k++) r->load[layer][x[i * ld + k]]++;
}

static void see(void *arg, const char *name, int64_t layer, const real *x, int64_t ld, int64_t n, int64_t width) {
    (void)arg, (void)name, (void)layer, (void)x, (void)ld, (void)n, (void)width;
}

/* One token after the other, as the sampler runs. */
static void decode(engine *g, const int32_t *ids, int64_t n, routes *out) {
    error e = {0};
    session *s;
    const watcher w = {.see = see, .see_ints = see_ints, .arg = out};
    float *logits = malloc((size_t)g->m->cfg.vocab_size * sizeof *logits);
    assert_int_equal(session_open(&s, g, n + 1, &e), OK);
    for (int64_t i = 0; i < n; i++) {
        sequence seq = {.n = 1, .pos = i, .cache = s->cache};
        const int64_t last = 0;
        const batch b = {.n = 1,
                         .ids = ids + i,
                         .seq = &seq,
                         .n_seq = 1,
                         .n_out = 1,
                         .out = &last,
                         .logits = logits,
                         .form = g->form,
                         .watch = &w};
        assert_int_equal(model_forward(g->m, &g->ws, &b, &e), OK);
    }
    session_close(s);
    free(logits);
}

/* Completion by completion, every expert of every layer is chosen as often in the trainer's forward pass as when the
 * tokens are decoded one by one. */
static void routing_is_identical(void **state) {
    const place *p = *state;
    arena *mem = arena_open(1 << 12);
    train_config c;
    run_result result;
    comm world;
    job j;
    engine *g;
    roller r;
    prompts *list;
    policy *policy;
    rollout a;
    error e = {0};
    const run_hooks hooks = {0};
    char folder[80], data[80];
    snprintf(folder, sizeof folder, "checkpoint.folder=%s/routes", p->folder);
    snprintf(data, sizeof data, "data.train=%s", p->prompts);
    const char *keys[] = {"model.path=models/tiny",
                          "data.seq_len=64",
                          "training.precision=f32",
                          "rollout.max_tokens=24",
                          "rollout.temperature=4",
                          "training.threads=2",
                          REWARDS,
                          folder,
                          data};
    assert_int_equal(train_config_read(&c, NULL, keys, sizeof keys / sizeof *keys, mem, &e), OK);
    assert_int_equal(comm_self(&world, &e), OK);
    if (job_open(&j, &c, &hooks, &result, &world, false, &e) != OK) fail_msg("%s", e.text);
    assert_int_equal(engine_borrow(&g, j.t.m, j.t.q, MLA_CHEAPER, &e), OK);
    assert_int_equal(roller_open(&r, &c, g, j.tok, true, NULL, NULL, &e), OK);
    assert_int_equal(rollout_prompts(&list, &c, &c.data.train, false, j.tok, "deepseek_v3", NULL, NULL, NULL, &e), OK);
    assert_int_equal(policy_open(&policy, &(policy_loss_options){0}, 4, 0, &e), OK);
    const prompt *ask[8];
    for (int i = 0; i < 8; i++) ask[i] = prompts_get(list, i);
    if (rollout_make(&r, ask, 8, 3, 4, 0, &a, &e) != OK) fail_msg("%s", e.text);
    for (int64_t i = 0; i < a.n; i++) {
        const completion *x = &a.list[i];
        const policy_item item = {.prompt = x->prompt->ids,
                                  .n_prompt = x->prompt->n,
                                  .ids = x->ids,
                                  .n = x->n,
                                  .advantage = 1,
                                  .old = x->logp};
        int32_t ids[64];
        routes by_decoding = {0};
        policy_numbers numbers;
        batch_source s;
        step_metrics m;
        memcpy(ids, item.prompt, (size_t)item.n_prompt * sizeof *ids);
        memcpy(ids + item.n_prompt, item.ids, (size_t)item.n * sizeof *ids);
        decode(g, ids, item.n_prompt + item.n - 1, &by_decoding);
        assert_int_equal(policy_source(policy, &item, 1, (double)item.n, 1, &numbers, &s, &e), OK);
        assert_int_equal(trainer_gradients(&j.t, &s, &m, &e), OK);
        assert_true(m.n_layers > 0);
        for (int l = 0; l < m.n_layers; l++)
            for (int k = 0; k < m.n_experts; k++)
                assert_int_equal(m.layers[l].load[k], by_decoding.load[m.layers[l].layer][k]);
    }
    rollout_free(&a);
    policy_close(policy);
    prompts_close(list);
    roller_close(&r);
    engine_close(g);
    job_close(&j);
    arena_close(mem);
}

/* --- runs -------------------------------------------------------------------------------------------------------- */

/* The reference becomes the policy after step 2, so what a checkpoint holds of it matters for steps 3 and 4; several
 * optimizer steps a rollout. One run to the end; one that is stopped after every step. Losses and weights, bit by bit.
 */
static void stopped_and_going_on_is_the_same_run(void **state) {
#define KEYS "grpo.kl_beta=0.05", "grpo.reference_every=2", "grpo.batch=8", "grpo.epochs=2", "training.steps=4"
    told whole = {0}, parts = {0};
    assert_run(*state, "whole", &whole, KEYS);
    for (int i = 0; i < 4; i++) {
        parts.steps = 0;
        parts.stop_at = 1;
        assert_run(*state, "parts", &parts, KEYS);
        assert_int_equal(parts.steps, 1);
    }
    for (int s = 0; s < 4; s++) {
        assert_true(whole.loss[s] == parts.loss[s] && whole.grad_norm[s] == parts.grad_norm[s]);
        assert_true(value(&whole, s, "reward") == value(&parts, s, "reward"));
        assert_true(value(&whole, s, "kl") == value(&parts, s, "kl"));
    }
    assert_int_equal(differing(*state, "whole", 4, "parts", 4, NULL), 0);
    assert_true(differing(*state, "whole", 1, "whole", 2, ".reference") > 0);     /* refreshed */
    assert_int_equal(differing(*state, "whole", 2, "whole", 3, ".reference"), 0); /* not refreshed */
    /* after the first of several steps the policy is not the one that sampled any more, but was at first */
    assert_true(value(&whole, 0, "ratio_max") > 1.001);
    assert_true(value(&whole, 0, "logprob_error_max") < 5e-4);
    assert_true(value(&whole, 3, "kl") > 0);
#undef KEYS
}

/* The first step of a policy that is its own reference has no KL; later ones do. */
static void reference_of_adapters_is_the_model_without_them(void **state) {
    told t = {0};
    assert_run(*state, "lora", &t, "grpo.kl_beta=0.01", "lora.rank=4", "lora.target_modules=[q_proj, o_proj]",
               "training.steps=3", "optimizer.lr=0.01");
    assert_true(fabs(value(&t, 0, "kl")) < 1e-9);
    assert_true(value(&t, 2, "kl") > 1e-6);
    assert_true(value(&t, 2, "logprob_error_max") < 5e-4); /* the sampler has the adapters, too */
}

static void nothing_to_learn(void **state) {
    error e = {0};
    told t = {0};
#define SAME "rollout.rewards=[{name: format, pattern: '^'}]" /* matches whatever is written */
    assert_run(*state, "flat", &t, SAME, "training.steps=2", "optimizer.weight_decay=0.5");
    assert_non_null(strstr(t.note, "nothing") ? t.note : strstr(t.note, "teach"));
    assert_int_equal(differing(*state, "flat", 1, "flat", 2, NULL), 0);
    assert_true(value(&t, 0, "groups_without_signal") == 6);
    assert_int_equal(start(*state, "flat2", &t, &e, SAME, "grpo.dynamic_sampling=true", "grpo.most_rollouts=3", NULL),
                     ERR_FORMAT);
    assert_non_null(strstr(e.text, "same reward"));
#undef SAME
}

/* With dynamic sampling all groups that are learned from have signal, and there are as many as were wanted. */
static void groups_without_signal_are_replaced(void **state) {
    told t = {0};
    assert_run(*state, "dynamic", &t, "grpo.dynamic_sampling=true", "grpo.generations=2", "training.steps=2");
    assert_true(value(&t, 0, "groups_without_signal") >= 1); /* of groups of two, half have none */
    assert_true(value(&t, 0, "reward_std") > 0);
}

static void frozen_routers_stay(void **state) {
    told t = {0};
    assert_run(*state, "router", &t, "grpo.train_router=false", "training.steps=2", "optimizer.weight_decay=0");
    assert_int_equal(differing(*state, "router", 1, "router", 2, ".mlp.gate."), 0);
    assert_true(differing(*state, "router", 1, "router", 2, ".self_attn.") > 0);
}

/* A right answer that is not known is not a wrong completion. */
static void what_cannot_be_judged_is_left_out(void **state) {
    const place *p = *state;
    char path[80], key[100];
    error e;
    told t = {0};
    const char rows[] = "{\"prompt\": \"<user>c1+1+1+1+1<assistant>\"}\n{\"prompt\": \"<user>c2+1+1+1+1<assistant>\", "
                        "\"answer\": \"6\"}\n";
    snprintf(path, sizeof path, "%s/half.jsonl", p->folder);
    snprintf(key, sizeof key, "data.train=%s", path);
    assert_int_equal(file_save(path, rows, sizeof rows - 1, &e), OK);
    assert_run(*state, "half", &t, key, "rollout.rewards=[{name: accuracy, exact: true, from: tag}]",
               "training.steps=1");
    assert_true(value(&t, 0, "not_judged") == 0.5);
}

static void settings_that_cannot_work(void **state) {
    error e = {0};
    told t = {0};
    assert_int_equal(start(*state, "x", &t, &e, "rollout.temperature=0", NULL), ERR_ARG);
    assert_non_null(strstr(e.text, "rollout.temperature"));
    assert_int_equal(start(*state, "x", &t, &e, "rollout.rewards=[]", NULL), ERR_ARG);
    assert_non_null(strstr(e.text, "rollout.rewards is missing"));
    assert_int_equal(start(*state, "x", &t, &e, "data.seq_len=30", NULL), ERR_FORMAT);
    assert_non_null(strstr(e.text, "longer than 6 tokens"));
    assert_int_equal(start(*state, "x", &t, &e, "training.ranks=2", NULL), ERR_UNSUPPORTED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(log_probabilities_agree),
        cmocka_unit_test(routing_is_identical),
        cmocka_unit_test(stopped_and_going_on_is_the_same_run),
        cmocka_unit_test(reference_of_adapters_is_the_model_without_them),
        cmocka_unit_test(nothing_to_learn),
        cmocka_unit_test(groups_without_signal_are_replaced),
        cmocka_unit_test(frozen_routers_stay),
        cmocka_unit_test(what_cannot_be_judged_is_left_out),
        cmocka_unit_test(settings_that_cannot_work),
    };
    return cmocka_run_group_tests(tests, open_place, close_place);
}
