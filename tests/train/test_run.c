/* A whole training as code calls it: what the hooks are told, how many rows a validation has on any number of ranks,
 * the score that a checkpoint remembers, and runs that end early. tests/cli/train.sh has what a user sees of it. */
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
#include "train/checkpoint.h"
#include "train/run.h"
#include <cmocka.h>

typedef struct told {             /* by the hooks */
    int64_t steps, last, stop_at; /* calls of `step`; its last step; the call that asks to stop, 0: none */
    int validations, notes;
    double loss, validation_loss;
    char note[400]; /* the last one */
    bool cancel;    /* what `progress` answers */
} told;

static int on_step(void *arg, const step_metrics *m, int64_t steps) {
    told *t = arg;
    (void)steps;
    t->last = m->step;
    t->loss = m->loss;
    if (!isnan(m->validation_loss)) {
        t->validations++;
        t->validation_loss = m->validation_loss;
    }
    return ++t->steps == t->stop_at;
}

static void on_note(void *arg, const char *line) {
    told *t = arg;
    t->notes++;
    snprintf(t->note, sizeof t->note, "%s", line);
}

static int on_progress(void *arg, uint64_t done, uint64_t total, const char *what) {
    const told *t = arg;
    (void)done, (void)total, (void)what;
    return t->cancel;
}

typedef struct place { /* a folder for one test, with 7 rows of 16 tokens to train on and 5 for validation */
    char folder[40], train[64], held[64];
    int runs;
} place;

static void write_ids(const char *path, int n) {
    error e;
    uint32_t *ids = malloc((size_t)n * sizeof *ids);
    assert_non_null(ids);
    for (int i = 0; i < n; i++) ids[i] = 3 + (uint32_t)((i * 7 + i / 5) % 60);
    assert_int_equal(file_save(path, ids, (size_t)n * sizeof *ids, &e), OK);
    free(ids);
}

static place place_open(void) {
    place p = {.folder = "/tmp/hadal-run-XXXXXX"};
    assert_non_null(mkdtemp(p.folder));
    snprintf(p.train, sizeof p.train, "%s/train.bin", p.folder);
    snprintf(p.held, sizeof p.held, "%s/held.bin", p.folder);
    write_ids(p.train, 7 * 16 + 1);
    write_ids(p.held, 5 * 16 + 1);
    return p;
}

static void place_close(const place *p) {
    char command[80];
    snprintf(command, sizeof command, "rm -r '%s'", p->folder);
    assert_int_equal(system(command), 0);
}

enum { MOST_KEYS = 16 };

/* A run of the preset "debug", 4 rows a step, in the place's folder NAME; keys end with NULL. */
static status start(const place *p, const char *name, told *t, run_result *out, error *e, ...) {
    char train[128], held[128], folder[128];
    const char *keys[MOST_KEYS + 10] = {"model.path=debug",
                                        "model.init=true",
                                        "data.seq_len=16",
                                        "training.batch=4",
                                        "training.precision=f32",
                                        "training.threads=2",
                                        train,
                                        held,
                                        folder};
    int n = 9;
    va_list more;
    snprintf(train, sizeof train, "data.train=%s", p->train);
    snprintf(held, sizeof held, "data.validation=%s", p->held);
    snprintf(folder, sizeof folder, "checkpoint.folder=%s/%s", p->folder, name);
    va_start(more, e);
    for (const char *key; (key = va_arg(more, const char *));) keys[n++] = key;
    va_end(more);
    train_config c;
    arena *mem = arena_open(1 << 12);
    const run_hooks hooks = {on_step, on_note, on_progress, t};
    status s = train_config_read(&c, NULL, keys, n, mem, e);
    if (s == OK) s = train_run(&c, &hooks, out, e);
    arena_close(mem);
    return s;
}

#define assert_run(place, name, told, result, ...)                                                             \
    do {                                                                                                       \
        error e_ = {0};                                                                                        \
        if (start(place, name, told, result, &e_, __VA_ARGS__, NULL) != OK) fail_msg("%s: %s", name, e_.text); \
    } while (0)

static int64_t newest(const place *p, const char *name) {
    char folder[80], *path;
    int64_t step = -1;
    error e;
    snprintf(folder, sizeof folder, "%s/%s", p->folder, name);
    assert_int_equal(checkpoint_newest(folder, &path, &step, &e), OK);
    free(path);
    return step;
}

/* 5 rows on 2 and 4 ranks, one and two at once: some ranks have a row less, one may have none left for its last
 * micro-batch, and those that share experts meet in each. The mean is over all rows, so it is that of one rank but for
 * the order of a sum of 80 numbers: 80 eps of F32 sums is 1e-5 at the most, and terms are of one size. */
static void validation_rows_on_any_ranks(void **unused) {
    (void)unused;
    static const char *const layouts[][3] = {
        {"training.ranks=2", "training.expert_parallel=2", "training.micro_batch=2"},
        {"training.ranks=2", "training.expert_parallel=2", "training.micro_batch=1"},
        {"training.ranks=4", "training.expert_parallel=4", "training.micro_batch=1"},
        {"training.ranks=4", "training.expert_parallel=2", "training.zero=true"},
        {"training.ranks=4", "training.expert_parallel=1", "training.zero=false"}};
    place p = place_open();
    told one = {0};
    run_result r;
    assert_run(&p, "one", &one, &r, "training.steps=2", "training.validate_every=1");
    assert_int_equal(one.validations, 2);
    assert_true(r.validation_loss == one.validation_loss && r.loss == one.loss);
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        char name[16];
        told t = {0};
        snprintf(name, sizeof name, "ranks%d", (int)i);
        assert_run(&p, name, &t, &r, "training.steps=2", "training.validate_every=1", layouts[i][0], layouts[i][1],
                   layouts[i][2]);
        assert_int_equal(t.validations, 2);
        assert_int_equal(t.steps, 2); /* the first rank alone calls */
        assert_true(fabs(t.validation_loss - one.validation_loss) < 1e-5 * one.validation_loss);
        assert_true(fabs(t.loss - one.loss) < 1e-5 * one.loss);
    }
    told some = {0};
    assert_run(&p, "some", &some, &r, "training.steps=2", "data.validation_rows=3");
    assert_int_equal(some.validations, 1); /* validate_every 0: at the end */
    assert_true(some.validation_loss != one.validation_loss && fabs(some.validation_loss - one.validation_loss) < 0.5);
    place_close(&p);
}

/* The hook stops a run: it is saved, and goes on. A run that is over does nothing more. */
static void stopped_and_gone_on(void **unused) {
    (void)unused;
    place p = place_open();
    told t = {.stop_at = 3}, rest = {0}, over = {0}, at_end = {.stop_at = 5};
    run_result r;
    assert_run(&p, "run", &t, &r, "training.steps=5", "training.ranks=2");
    assert_true(r.stopped && r.steps == 3 && t.last == 2 && newest(&p, "run") == 3);
    assert_run(&p, "run", &rest, &r, "training.steps=5", "training.ranks=2");
    assert_true(!r.stopped && r.steps == 5 && rest.steps == 2 && rest.last == 4 && r.tokens == 5 * 4 * 16);
    assert_int_equal(rest.notes, 1);
    assert_non_null(strstr(rest.note, "3 steps done"));
    assert_run(&p, "run", &over, &r, "training.steps=5");
    assert_true(over.steps == 0 && r.steps == 5 && isnan(r.loss) && r.validation_loss == rest.validation_loss);
    assert_run(&p, "other", &at_end, &r, "training.steps=5"); /* asked at the last step: there is nothing to stop */
    assert_true(!r.stopped && r.steps == 5);
    place_close(&p);
}

static bool has(const place *p, const char *name, int64_t step) {
    char folder[80], *path;
    snprintf(folder, sizeof folder, "%s/%s", p->folder, name);
    assert_non_null(path = native_step_folder(folder, step));
    bool there = is_directory(path);
    free(path);
    return there;
}

/* The learning rate is absurd, so the model gets worse after the first validation. Step 1 stays as the best, also when
 * the run is stopped in between and goes on. */
static void the_best_stays(void **unused) {
    (void)unused;
    place p = place_open();
    told t = {.stop_at = 3}, rest = {0};
    run_result r;
#define KEYS                                                                                                    \
    "training.steps=6", "training.validate_every=1", "checkpoint.every=1", "checkpoint.keep_best=true",         \
        "checkpoint.keep_last=1", "schedule.unit=steps", "schedule.phases=[{until: 1, from: 1e-4}, {from: 3}]", \
        "optimizer.clip=0"
    assert_run(&p, "run", &t, &r, KEYS);
    assert_true(has(&p, "run", 1) && !has(&p, "run", 2) && has(&p, "run", 3));
    assert_run(&p, "run", &rest, &r, KEYS);
    assert_true(has(&p, "run", 1) && !has(&p, "run", 5) && has(&p, "run", 6));
#undef KEYS
    place_close(&p);
}

/* Whatever is wrong is said before anything is made. */
static void refused(void **unused) {
    (void)unused;
    static const struct {
        const char *key, *says;
        status code;
    } cases[] = {
        {"model.path=nothing", "no preset of that name", ERR_FORMAT},
        {"data.train=/nowhere/x.bin", "/nowhere/x.bin", ERR_FORMAT},
        {"data.seq_len=1000", "fewer than the 1001 of one row", ERR_FORMAT},
        {"objective.indexer_loss_scaling_factor=1", "no indexer", ERR_ARG},
        {"data.tokenizer=tests/data/models/v3_mtp/checkpoint", "443 tokens, but the model's vocab_size is 263",
         ERR_FORMAT},
    };
    place p = place_open();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int ranks = 1; ranks <= 2; ranks++) {
            told t = {0};
            run_result r;
            error e = {0};
            status s =
                start(&p, "none", &t, &r, &e, ranks == 2 ? "training.ranks=2" : "training.ranks=1", cases[i].key, NULL);
            if (s != cases[i].code || !strstr(e.text, cases[i].says))
                fail_msg("%s: %d: %s", cases[i].key, (int)s, e.text);
            assert_int_equal(t.steps, 0);
            char none[80];
            snprintf(none, sizeof none, "%s/none", p.folder);
            assert_false(is_directory(none));
        }
    place_close(&p);
}

/* Rows longer than the model's context are trained, and said. */
static void long_rows_are_said(void **unused) {
    (void)unused;
    place p = place_open();
    told t = {0};
    run_result r;
    write_ids(p.train, 4 * 1025 + 1);
    write_ids(p.held, 1025 + 1);
    assert_run(&p, "run", &t, &r, "data.seq_len=1025", "training.batch=1", "training.steps=1");
    assert_int_equal(t.notes, 1);
    assert_non_null(strstr(t.note, "longer than the model's context of 1024"));
    place_close(&p);
}

/* A run that has learned enough ends there, without having been stopped; called again it has nothing to do. */
static void until_a_validation_is_good_enough(void **unused) {
    (void)unused;
    place p = place_open();
    told t = {0};
    run_result r;
    assert_run(&p, "whole", &t, &r, "training.steps=40", "training.validate_every=4", "optimizer.lr=0.01");
    const double at = t.validation_loss + 0.3; /* reached on the way */
    char key[64];
    snprintf(key, sizeof key, "training.until_loss=%.9g", at);
    t = (told){0};
    assert_run(&p, "until", &t, &r, "training.steps=40", "training.validate_every=4", "optimizer.lr=0.01", key);
    assert_true(r.steps < 40 && r.steps % 4 == 0 && !r.stopped);
    assert_true(r.validation_loss <= at);
    const int64_t steps = r.steps;
    t = (told){0};
    assert_run(&p, "until", &t, &r, "training.steps=40", "training.validate_every=4", "optimizer.lr=0.01", key);
    assert_int_equal(t.steps, 0);
    assert_int_equal(newest(&p, "until"), steps);
    error e = {0};
    assert_int_equal(start(&p, "never", &t, &r, &e, "training.until_loss=1", NULL), ERR_FORMAT);
    assert_non_null(strstr(e.text, "training.validate_every"));
    place_close(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(until_a_validation_is_good_enough),
        cmocka_unit_test(validation_rows_on_any_ranks),
        cmocka_unit_test(stopped_and_gone_on),
        cmocka_unit_test(the_best_stays),
        cmocka_unit_test(refused),
        cmocka_unit_test(long_rows_are_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
