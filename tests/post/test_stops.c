/* GRPO runs that are cancelled while completions are drawn: of a step, which is then drawn again, and of a validation,
 * which leaves its step as it is; and names of rewards as metrics. */
#include "runs.h"
#include "post/grpo.h"
#include <cmocka.h>

enum { PROMPTS = 6, GENERATIONS = 4, HELD = 5 };

typedef struct watching {
    told t;
    int64_t validations, rollouts;             /* begun so far */
    int64_t cancel_validation, cancel_rollout; /* the one that is cancelled, from 1; 0: none */
    int64_t last_total;
    uint64_t last_done;
} watching;

static int on_completions(void *arg, uint64_t done, uint64_t total, const char *what) {
    watching *w = arg;
    if (strcmp(what, "completions") != 0) return 0;
    const bool training = total == PROMPTS * GENERATIONS,
               begins = w->last_total != (int64_t)total || done < w->last_done;
    w->last_total = (int64_t)total;
    w->last_done = done;
    if (begins && training) w->rollouts++;
    if (begins && !training) w->validations++;
    return training ? w->rollouts == w->cancel_rollout : w->validations == w->cancel_validation;
}

static int on_watched_step(void *arg, const step_metrics *m, int64_t steps) {
    return on_step(&((watching *)arg)->t, m, steps);
}

static void on_watched_note(void *arg, const char *line) {
    on_note(&((watching *)arg)->t, line);
}

static status start(const place *p, const char *name, watching *w, run_result *r, error *e, const char *key) {
    char data[100], folder[100], held[100];
    const char *keys[] = {"model.path=models/tiny",
                          "data.seq_len=64",
                          "training.precision=f32",
                          "training.threads=2",
                          "training.steps=3",
                          "training.validate_every=1",
                          "rollout.max_tokens=24",
                          "rollout.temperature=20",
                          "grpo.prompts=6",
                          "grpo.generations=4",
                          "optimizer.lr=1e-3",
                          "rollout.rewards=[{name: format, pattern: '^[a-z<]'}, {name: finished, weight: 0.3}]",
                          data,
                          held,
                          folder,
                          key};
    train_config c;
    arena *mem = arena_open(1 << 12);
    const run_hooks hooks = {on_watched_step, on_watched_note, on_completions, w};
    snprintf(data, sizeof data, "data.train=%s", p->data);
    snprintf(held, sizeof held, "data.validation=%s/held.jsonl", p->folder);
    snprintf(folder, sizeof folder, "checkpoint.folder=%s/%s", p->folder, name);
    status s = train_config_read(&c, NULL, keys, key ? 16 : 15, mem, e);
    if (s == OK) s = grpo_run(&c, &hooks, r, e);
    arena_close(mem);
    return s;
}

static run_result run_of(const place *p, const char *name, watching *w) {
    run_result r;
    error e = {0};
    if (start(p, name, w, &r, &e, NULL) != OK) fail_msg("%s: %s", name, e.text);
    return r;
}

static void add_rows(str *s, int n, int first) {
    for (int i = first; i < first + n; i++) str_addf(s, "{\"prompt\": \"<user>c%d+%d<assistant>\"}\n", i % 10, i / 10);
}

static int open_place(void **state) {
    place *p = calloc(1, sizeof *p);
    str s = {0};
    char held[64];
    error e;
    add_rows(&s, 40, 0);
    place_open(p, "prompts.jsonl", s.p, s.n);
    s.n = 0;
    add_rows(&s, HELD, 60);
    snprintf(held, sizeof held, "%s/held.jsonl", p->folder);
    assert_int_equal(file_save(held, s.p, s.n, &e), OK);
    str_free(&s);
    *state = p;
    return 0;
}

static int close_place(void **state) {
    place_close(*state);
    free(*state);
    return 0;
}

static void assert_same_weights(const place *p, const char *a, const char *b) {
    static const char *const names[] = {"lm_head.weight", "model.layers.1.self_attn.o_proj.weight",
                                        "model.layers.2.mlp.experts.3.up_proj.weight"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int64_t n, m;
        float *x = checkpoint_tensor(p, a, 3, names[i], &n), *y = checkpoint_tensor(p, b, 3, names[i], &m);
        assert_true(n == m && memcmp(x, y, (size_t)n * sizeof *x) == 0);
        free(x);
        free(y);
    }
}

/* The weights are what they are without the interruption; only the validation's numbers are missing, and it is said. */
static void a_validation_is_cancelled(void **state) {
    const place *p = *state;
    watching whole = {0}, first = {.cancel_validation = 2}, rest = {0};
    run_result r = run_of(p, "whole", &whole);
    assert_true(whole.validations == 4 && whole.rollouts == 3 && !r.stopped); /* one before the first step */
    r = run_of(p, "held", &first);
    assert_true(r.stopped && r.steps == 1 && first.t.steps == 1 && first.rollouts == 1);
    assert_non_null(strstr(first.t.note, "the validation was interrupted"));
    run_of(p, "held", &rest);
    assert_true(rest.t.steps == 2 && rest.rollouts == 2 && rest.validations == 2);
    for (int i = 1; i < 3; i++) assert_true(whole.t.loss[i] == rest.t.loss[i]);
    assert_same_weights(p, "whole", "held");
}

static void a_rollout_is_cancelled(void **state) {
    const place *p = *state;
    watching first = {.cancel_rollout = 2}, rest = {0}, before = {.cancel_validation = 1}, after = {0};
    run_result r = run_of(p, "drawn", &first);
    assert_true(r.stopped && r.steps == 1 && first.t.steps == 1);
    run_of(p, "drawn", &rest);
    assert_int_equal(rest.t.steps, 2);
    assert_same_weights(p, "whole", "drawn");
    r = run_of(p, "begun", &before); /* the validation before the first step */
    assert_true(r.stopped && r.steps == 0);
    run_of(p, "begun", &after);
    assert_true(after.validations == 4);
    assert_same_weights(p, "whole", "begun");
}

static void names_of_rewards(void **state) {
    static const char *const taken[] = {"kl", "loss", "step", "reward", "update_seconds", "layers"};
    const place *p = *state;
    watching w = {0};
    run_result r;
    error e = {0};
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) {
        char key[100];
        snprintf(key, sizeof key, "rollout.rewards=[{name: format, as: %s}]", taken[i]);
        assert_int_equal(start(p, "none", &w, &r, &e, key), ERR_ARG);
        assert_non_null(strstr(e.text, "is the name of another metric"));
        assert_non_null(strstr(e.text, taken[i]));
    }
    assert_int_equal(w.rollouts, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_validation_is_cancelled),
        cmocka_unit_test(a_rollout_is_cancelled),
        cmocka_unit_test(names_of_rewards),
    };
    return cmocka_run_group_tests(tests, open_place, close_place);
}
