/* The models of tests/data against their reference results: a quick part of what `make gold` compares. */
#include "../format/scratch.h"
#include "../gold/models.h"
#include "format/safetensors_write.h"

#define MODELS "tests/data/models/"

/* Ours are within 3e-6 of these; a wrong epsilon in the norms is 1.4e-5 away and would pass GOLD_F32. */
static const double LIMIT = 1e-5;

static void model(void **state) {
    const char *name = *state;
    char folder[100];
    scratch s = scratch_open();
    gold g = {.out = stdout, .scratch = s.dir, .limit = LIMIT};
    snprintf(folder, sizeof folder, MODELS "%s", name);
    gold_model(&g, folder, name, true);
    scratch_close(&s);
    assert_int_equal(g.failed, 0);
    assert_true(g.passed > 10);
}

/* --- can the comparisons fail? ---------------------------------------------------------------------------------- */

/* The golden file of v3_mtp with one number of one tensor changed; compares it with the unchanged one. */
static int failures_after(const char *tensor_name, double factor, int64_t at) {
    scratch s = scratch_open();
    safetensors f;
    error e = {0};
    const char *golden = MODELS "v3_mtp/golden.safetensors";
    assert_int_equal(safetensors_open(&f, golden, &e), OK);
    char *made = scratch_path(&s, "model.safetensors"), *copy = NULL;
    for (size_t i = 0; i < f.count; i++) {
        tensor *t = &f.entries[i].t;
        if (strcmp(f.entries[i].name, tensor_name) != 0) continue;
        const size_t bytes = (size_t)tensor_count(t) * dtype_size(t->type);
        copy = malloc(bytes);
        assert_non_null(copy);
        memcpy(copy, t->data, bytes);
        if (t->type == DT_I32) ((int32_t *)(void *)copy)[at] += (int32_t)factor;
        else ((float *)(void *)copy)[at] *= (float)factor;
        t->data = copy;
    }
    assert_non_null(copy);
    assert_int_equal(safetensors_save(s.dir, f.entries, f.count, SHARD_BYTES, &e), OK);
    gold g = {.out = stdout, .scratch = s.dir, .limit = LIMIT};
    gold_tensors(&g, "changed on purpose:", tensor_name, golden, made);
    free(copy);
    free(made);
    safetensors_close(&f);
    scratch_close(&s);
    return g.failed;
}

static void comparisons_can_fail(void **state) {
    (void)state;
    assert_int_equal(failures_after("logits.p64", 1, 7), 0);
    assert_int_equal(failures_after("logits.p64", 2, 7), 1);
    assert_int_equal(failures_after("hidden.layer1.p64", 1.5, 11), 1);
    assert_int_equal(failures_after("router.layer1.p64.index", 1, 3), 1);
    assert_int_equal(failures_after("router.layer1.p64.weight", 1.5, 3), 1);
    assert_int_equal(failures_after("gen.p7", 1, 31), 1);
    assert_int_equal(failures_after("mtp.hidden.p7", 1.5, 5), 1);
}

int main(void) {
    static char names[][20] = {"v2_lite", "v3_mtp", "v31_fp8_ue8m0", "v32", "qwen2", "llama"};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(model, names[0]), cmocka_unit_test_prestate(model, names[1]),
        cmocka_unit_test_prestate(model, names[2]), cmocka_unit_test_prestate(model, names[3]),
        cmocka_unit_test_prestate(model, names[4]), cmocka_unit_test_prestate(model, names[5]),
        cmocka_unit_test(comparisons_can_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
