/* metrics.jsonl: every number back as it was, nothing that is no number, and the cut at the step where a run goes on.
 */
#include "../format/scratch.h"
#include <math.h>
#include "base/json.h"
#include "train/metrics.h"

static step_metrics sample(int64_t step) {
    return (step_metrics){.step = step,
                          .tokens = 1024.0 * (double)(step + 1),
                          .loss = 0.1 + 0.2,
                          .lm_loss = 1.0 / 3,
                          .mtp_loss = NAN,
                          .balance_loss = 1e-17,
                          .indexer_loss = NAN,
                          .mtp_acceptance = NAN,
                          .validation_loss = step == 2 ? 2.75 : (double)NAN,
                          .grad_norm = 5e-324,
                          .lr = 3e-4,
                          .seconds = 0.5,
                          .tokens_per_second = 2048,
                          .mfu = NAN,
                          .memory = 9007199254740991.0,
                          .max_vio = 0.25,
                          .dropped = NAN};
}

static void write_steps(const scratch *s, int64_t first, int64_t end) {
    metrics *m;
    error e = {0};
    if (metrics_open(&m, s->dir, true, false, first, &e) != OK) fail_msg("%s", e.text);
    for (int64_t i = first; i < end; i++) {
        step_metrics v = sample(i);
        assert_int_equal(metrics_write(m, &v, &e), OK);
    }
    assert_int_equal(metrics_close(m, &e), OK);
}

static str read_lines(const scratch *s) {
    char *path = scratch_path(s, "metrics.jsonl");
    str text = {0};
    assert_int_equal(file_read(&text, path, 1 << 20, NULL), OK);
    free(path);
    return text;
}

/* Parses line `number`, counted from 0; NULL: there is none. */
static json_t *line_at(const str *text, int number) {
    const char *p = text->p;
    while (number-- && p) p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL;
    if (!p || !*p) return NULL;
    const char *end = strchr(p, '\n');
    json_t *j;
    error e = {0};
    assert_non_null(end);
    if (json_parse(&j, p, (size_t)(end - p), "line", &e) != OK) fail_msg("%s", e.text);
    return j;
}

static double number(const json_t *j, const char *key) {
    const json_t *v = json_object_get(j, key);
    return v ? json_number_value(v) : (double)NAN;
}

static void every_field(void **state) {
    (void)state;
    scratch s = scratch_open();
    const int64_t load[2][3] = {{5, 0, 7}, {4, 4, 4}};
    const layer_load layers[] = {{1, 0.75, load[0]}, {2, 0, load[1]}};
    step_metrics v = sample(2);
    metrics *m;
    error e = {0};
    v.layers = layers;
    v.n_layers = 2;
    v.n_experts = 3;
    v.skipped = true;
    v.loss = INFINITY; /* JSON has no word for it */
    assert_int_equal(metrics_open(&m, s.dir, true, true, 0, &e), OK);
    assert_int_equal(metrics_write(m, &v, &e), OK);
    str text = read_lines(&s); /* while the file is open: nothing waits in a buffer */
    json_t *j = line_at(&text, 0);
    assert_int_equal(metrics_close(m, &e), OK);
    assert_non_null(j);
    static const char *const absent[] = {"loss", "mtp_loss", "indexer_loss", "mtp_acceptance", "mfu", "dropped"};
    for (int i = 0; i < 6; i++) assert_null(json_object_get(j, absent[i]));
    assert_true(number(j, "step") == 2 && number(j, "tokens") == v.tokens && number(j, "lm_loss") == v.lm_loss);
    assert_true(number(j, "balance_loss") == v.balance_loss && number(j, "validation_loss") == 2.75);
    assert_true(number(j, "grad_norm") == v.grad_norm && number(j, "lr") == v.lr && number(j, "seconds") == v.seconds);
    assert_true(number(j, "memory") == v.memory && number(j, "max_vio") == v.max_vio);
    assert_true(number(j, "tokens_per_second") == v.tokens_per_second);
    assert_true(json_is_true(json_object_get(j, "skipped")));
    const json_t *list = json_object_get(j, "layers");
    assert_int_equal(json_array_size(list), 2);
    for (size_t i = 0; i < 2; i++) {
        const json_t *l = json_array_get(list, i), *counts = json_object_get(l, "load");
        assert_true(number(l, "layer") == (double)layers[i].layer && number(l, "max_vio") == layers[i].max_vio);
        assert_int_equal(json_array_size(counts), 3);
        for (size_t x = 0; x < 3; x++) assert_int_equal(json_integer_value(json_array_get(counts, x)), load[i][x]);
    }
    json_decref(j);
    str_free(&text);
    scratch_close(&s);
}

/* What a run wrote that was killed at step 5, amid its line; it goes on at step 3. */
static void goes_on(void **state) {
    (void)state;
    scratch s = scratch_open();
    write_steps(&s, 0, 5);
    str whole = read_lines(&s), torn = {0};
    str_add(&torn, whole.p, whole.n);
    str_puts(&torn, "{\"step\": 5, \"tok");
    scratch_write(&s, "metrics.jsonl", torn.p, torn.n);
    write_steps(&s, 3, 5);
    str again = read_lines(&s);
    assert_string_equal(again.p, whole.p); /* the same numbers, the same bytes */
    scratch_write(&s, "metrics.jsonl", torn.p, torn.n);
    write_steps(&s, 100, 101); /* nothing to cut but the torn line */
    str_free(&again);
    again = read_lines(&s);
    assert_memory_equal(again.p, whole.p, whole.n);
    assert_memory_equal(again.p + whole.n, "{\"step\": 100,", 13);
    write_steps(&s, 0, 1); /* from the start */
    str_free(&again);
    again = read_lines(&s);
    json_t *first = line_at(&again, 0);
    assert_true(number(first, "step") == 0);
    assert_null(line_at(&again, 1));
    json_decref(first);
    str_free(&again);
    str_free(&whole);
    str_free(&torn);
    scratch_close(&s);
}

static void refused(void **state) {
    (void)state;
    scratch s = scratch_open();
    metrics *m;
    error e = {0};
    step_metrics v = sample(0);
    assert_int_equal(metrics_open(&m, "/proc/no such folder", true, false, 0, &e), ERR_IO);
    assert_null(m);
    assert_int_equal(metrics_close(NULL, &e), OK);
    assert_int_equal(metrics_open(&m, s.dir, false, false, 0, &e), OK); /* neither is wanted: nothing is written */
    assert_int_equal(metrics_write(m, &v, &e), OK);
    assert_int_equal(metrics_close(m, &e), OK);
    char *path = scratch_path(&s, "metrics.jsonl");
    assert_false(file_exists(path));
    if (symlink("/dev/full", path) == 0) { /* a disk without room */
        status st = metrics_open(&m, s.dir, true, false, 0, &e);
        assert_int_equal(st, ERR_FORMAT); /* no regular file */
        assert_non_null(strstr(e.text, "metrics.jsonl"));
    }
    free(path);
    scratch_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_field), cmocka_unit_test(goes_on),
                                       cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
