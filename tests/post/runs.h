/* Whole runs for tests of post-training: a folder for one test, models whose weights are moved one at a time, and the
 * gradient that a run's optimizer saw, read from its checkpoint. */
#ifndef HADAL_TESTS_POST_RUNS_H
#define HADAL_TESTS_POST_RUNS_H

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
#include "format/safetensors.h"
#include "train/run.h"
#include <cmocka.h>

enum { MOST_STEPS = 64, MOST_TOLD = 48, MOST_KEYS = 48 };

typedef struct told { /* by the hooks */
    int64_t steps, stop_at;
    double loss[MOST_STEPS], grad_norm[MOST_STEPS], validation_loss[MOST_STEPS];
    named_number more[MOST_STEPS][MOST_TOLD];
    char names[MOST_STEPS][MOST_TOLD][40], note[300];
} told;

static inline int on_step(void *arg, const step_metrics *m, int64_t steps) {
    told *t = arg;
    (void)steps;
    assert_true(m->step < MOST_STEPS && m->n_more <= MOST_TOLD);
    t->loss[m->step] = m->loss;
    t->grad_norm[m->step] = m->grad_norm;
    t->validation_loss[m->step] = m->validation_loss;
    for (int i = 0; i < MOST_TOLD; i++) {
        snprintf(t->names[m->step][i], sizeof t->names[0][0], "%s", i < m->n_more ? m->more[i].name : "");
        t->more[m->step][i] = (named_number){t->names[m->step][i], i < m->n_more ? m->more[i].value : NAN};
    }
    return ++t->steps == t->stop_at;
}

static inline void on_note(void *arg, const char *line) {
    snprintf(((told *)arg)->note, sizeof((told *)arg)->note, "%s", line);
}

static inline double told_number(const told *t, int step, const char *name) {
    for (int i = 0; i < MOST_TOLD; i++)
        if (strcmp(t->names[step][i], name) == 0) return t->more[step][i].value;
    fail_msg("the step tells no \"%s\"", name);
    return 0;
}

typedef struct place {
    char folder[40], data[64];
} place;

static inline void place_open(place *p, const char *data, const void *bytes, size_t n) {
    error e;
    strcpy(p->folder, "/tmp/hadal-post-XXXXXX");
    assert_non_null(mkdtemp(p->folder));
    snprintf(p->data, sizeof p->data, "%s/%s", p->folder, data);
    assert_int_equal(file_save(p->data, bytes, n, &e), OK);
}

static inline void place_close(const place *p) {
    char command[80];
    snprintf(command, sizeof command, "rm -r '%s'", p->folder);
    assert_int_equal(system(command), 0);
}

typedef status runner(const train_config *c, const run_hooks *hooks, run_result *out, error *e);

/* A run into FOLDER/NAME. Its optimizer keeps the gradient of the last step as exp_avg (beta1 = 0, nothing clipped). */
static inline status run_with(runner *f, const place *p, const char *name, told *t, error *e, const char *const *fixed,
                              va_list more) {
    char data[100], folder[100];
    const char *keys[MOST_KEYS] = {"training.precision=f32",
                                   "training.threads=2",
                                   "optimizer.beta1=0",
                                   "optimizer.clip=0",
                                   "optimizer.weight_decay=0",
                                   "data.shuffle=false",
                                   "checkpoint.export=false",
                                   data,
                                   folder};
    int n = 9;
    train_config c;
    run_result r;
    arena *mem = arena_open(1 << 12);
    const run_hooks hooks = {.step = on_step, .note = on_note, .arg = t};
    snprintf(data, sizeof data, "data.train=%s", p->data);
    snprintf(folder, sizeof folder, "checkpoint.folder=%s/%s", p->folder, name);
    for (; *fixed; fixed++) keys[n++] = *fixed;
    for (const char *key; (key = va_arg(more, const char *));) {
        assert_true(n < MOST_KEYS);
        keys[n++] = key;
    }
    status s = train_config_read(&c, NULL, keys, n, mem, e);
    if (s == OK) s = f(&c, &hooks, &r, e);
    arena_close(mem);
    return s;
}

/* --- gradients of a run ------------------------------------------------------------------------------------------- */

/* A tensor of the run's checkpoint, such as "lm_head.weight.exp_avg"; freed by the caller. */
static inline float *checkpoint_tensor(const place *p, const char *name, int64_t step, const char *weight, int64_t *n) {
    char run[80], *folder;
    native_file *f;
    error e = {0};
    snprintf(run, sizeof run, "%s/%s", p->folder, name);
    folder = native_step_folder(run, step);
    if (native_open(&f, folder, true, &e) != OK) fail_msg("%s", e.text);
    const native_slice *t = native_find(f, weight);
    if (!t) fail_msg("%s has no %s", folder, weight);
    float *x = malloc((size_t)t->n * sizeof *x);
    assert_non_null(x);
    assert_int_equal(native_read(f, weight, 0, t->n, x, &e), OK);
    *n = t->n;
    native_close(f);
    free(folder);
    return x;
}

static inline float *gradient(const place *p, const char *name, const char *weight, int64_t *n) {
    char moment[200];
    snprintf(moment, sizeof moment, "%s.exp_avg", weight);
    return checkpoint_tensor(p, name, 1, moment, n);
}

/* --- weights that are moved --------------------------------------------------------------------------------------- */

/* FOLDER/NAME becomes a copy of a model folder. */
static inline char *copy_model(const place *p, const char *from, const char *name) {
    char command[300], *to = path_join(p->folder, name);
    snprintf(command, sizeof command, "cp -r '%s' '%s' && chmod -R u+w '%s'", from, to, to);
    assert_int_equal(system(command), 0);
    return to;
}

static inline float bf16_value(uint16_t bits) {
    const uint32_t u = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* Element i of a BF16 tensor in a copied model's one file: set to the BF16 number nearest to its value + by. Returns
 * the old bits; *moved: what it was really moved by. */
static inline uint16_t move_weight(const char *folder, const char *weight, int64_t i, double by, double *moved) {
    char *path = path_join(folder, "model.safetensors");
    safetensors s;
    error e = {0};
    uint16_t old = 0;
    long at = -1;
    if (safetensors_open(&s, path, &e) != OK) fail_msg("%s", e.text);
    for (size_t k = 0; k < s.count; k++) {
        if (strcmp(s.entries[k].name, weight) != 0) continue;
        assert_int_equal(s.entries[k].t.type, DT_BF16);
        at = (long)((const char *)s.entries[k].t.data - (const char *)s.map.p) + 2 * (long)i;
        memcpy(&old, (const char *)s.map.p + at, 2);
    }
    safetensors_close(&s);
    assert_true(at >= 0);
    const float to = (float)(bf16_value(old) + by);
    uint32_t u;
    memcpy(&u, &to, sizeof u);
    const uint16_t bits = (uint16_t)((u + 0x8000U) >> 16);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    assert_int_equal(fwrite(&bits, 2, 1, f), 1);
    assert_int_equal(fclose(f), 0);
    *moved = (double)bf16_value(bits) - (double)bf16_value(old);
    free(path);
    return old;
}

static inline void restore_weight(const char *folder, const char *weight, int64_t i, uint16_t old) {
    double moved;
    const uint16_t now = move_weight(folder, weight, i, 0, &moved);
    move_weight(folder, weight, i, (double)bf16_value(old) - (double)bf16_value(now), &moved);
}

/* A run by the test's own `start` (place, name, told, error, keys ... NULL) that must succeed. */
#define assert_run(p, name, told, ...)                                                             \
    do {                                                                                           \
        error e_ = {0};                                                                            \
        if (start(p, name, told, &e_, __VA_ARGS__, NULL) != OK) fail_msg("%s: %s", name, e_.text); \
    } while (0)

#endif
