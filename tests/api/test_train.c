/* Training through the public header: callbacks, stopping and going on, results, errors. */
#include "../format/scratch.h" /* first: it asks for more of the C library */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "hadal_train.h"

typedef struct seen {
    int steps, notes, stop_at;
    double first, last;
} seen;

static int on_step(void *arg, const hadal_train_step *s) {
    seen *v = arg;
    v->steps++;
    assert_int_equal(s->steps, 12);
    assert_true(isfinite(s->loss) && isfinite(s->grad_norm) && s->tokens > 0 && s->memory > 0);
    assert_true(isnan(s->validation_loss));
    if (s->step == 1) v->first = s->loss;
    v->last = s->loss;
    return v->steps == v->stop_at;
}

static void on_note(void *arg, const char *line) {
    ((seen *)arg)->notes++;
    assert_non_null(strstr(line, "going on from"));
}

static void train_stops_and_goes_on(void **state) {
    (void)state;
    scratch dir = scratch_open();
    char folder[300], *json, *path = scratch_path(&dir, "run");
    snprintf(folder, sizeof folder, "checkpoint.folder=%s", path);
    free(path);
    const char *keys[] = {
        "model.path=debug", "model.init=true",        "data.train=synthetic", "data.seq_len=32",   "training.steps=12",
        "training.batch=4", "training.precision=f32", "training.threads=1",   "optimizer.lr=3e-3", folder};
    seen v = {.stop_at = 5};
    hadal_train_options o = {.size = sizeof o,
                             .overrides = keys,
                             .n_overrides = (int)(sizeof keys / sizeof *keys),
                             .step = on_step,
                             .note = on_note,
                             .arg = &v};
    hadal_error e = {0};
    if (hadal_train(&o, &json, &e)) fail_msg("%s", e.text);
    assert_int_equal(v.steps, 5);
    assert_non_null(strstr(json, "\"stopped\": true"));
    hadal_free(json);
    v.steps = v.stop_at = 0;
    if (hadal_train(&o, &json, &e)) fail_msg("%s", e.text);
    assert_int_equal(v.steps, 7);
    assert_int_equal(v.notes, 1);
    assert_true(v.last < v.first);
    assert_non_null(strstr(json, "\"stopped\": false"));
    assert_non_null(strstr(json, "\"exported\""));
    hadal_free(json);
    scratch_close(&dir);
}

static void errors_are_one_line(void **state) {
    (void)state;
    const char *wrong[] = {"optimizer.lrr=1"};
    hadal_train_options o = {.size = sizeof o, .overrides = wrong, .n_overrides = 1};
    hadal_error e = {0};
    char *json = "";
    assert_int_equal(hadal_train(&o, &json, &e), HADAL_ERR_FORMAT);
    assert_null(json);
    assert_non_null(strstr(e.text, "optimizer.lr"));
    assert_null(strchr(e.text, '\n'));
    assert_int_equal(hadal_bench_train(NULL, NULL, &e), HADAL_ERR_ARG);
    assert_int_equal(
        hadal_bench_train(
            &(hadal_bench_train_options){.size = sizeof(hadal_bench_train_options), .path = "x", .precision = "f8"},
            NULL, &e),
        HADAL_ERR_ARG);
}

static void keys_are_listed(void **state) {
    (void)state;
    char *text;
    assert_int_equal(hadal_train_keys(&text, NULL), HADAL_OK);
    assert_non_null(strstr(text, "weight_decay"));
    hadal_free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(train_stops_and_goes_on), cmocka_unit_test(errors_are_one_line),
                                       cmocka_unit_test(keys_are_listed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
