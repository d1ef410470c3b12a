/* The policies of the reference data, as `make gold` compares them; and that the comparison sees a wrong constant. */
#include "../format/scratch.h"
#include "../gold/grpo.h"
#include "base/json.h"

/* HADAL_SHARED/golden/grpo/NAME; skips the test where it is not there. */
static char *folder_of(const char *name) {
    const char *shared = shared_folder();
    if (!shared) skip();
    char inside[60];
    snprintf(inside, sizeof inside, "golden/grpo/%s", name);
    char *folder = path_join(shared, inside);
    assert_non_null(folder);
    return folder;
}

static void test_folder(void **state) {
    const char *name = *state;
    char *folder = folder_of(name);
    gold g = {.out = stdout, .limit = GOLD_F32};
    gold_grpo(&g, folder, name);
    assert_int_equal(g.failed, 0);
    assert_true(g.passed > 15);
    free(folder);
}

/* Failures when a constant of one variant is another one. */
static int failures_with(const char *key, json_t *value) {
    char *folder = folder_of("v3"), *made, *from;
    scratch s = scratch_open();
    json_t *info = NULL;
    error e = {0};
    assert_non_null(from = path_join(folder, "golden.json"));
    if (json_read(&info, from, 1 << 20, &e) != OK) fail_msg("%s", e.text);
    free(from);
    json_t *variants = json_object_get(info, "variants");
    json_object_del(variants, "dapo");
    assert_int_equal(json_object_set_new(json_object_get(variants, "grpo"), key, value), 0);
    char *text = json_dumps(info, 0);
    assert_non_null(text);
    scratch_write(&s, "golden.json", text, strlen(text));
    static const char *const same[] = {"golden.safetensors", "checkpoint"};
    for (int i = 0; i < 2; i++) {
        assert_non_null(from = path_join(folder, same[i]));
        char *target = realpath(from, NULL);
        made = scratch_path(&s, same[i]);
        assert_non_null(target);
        assert_int_equal(symlink(target, made), 0);
        free(target), free(made), free(from);
    }
    gold g = {.out = fopen("/dev/null", "w"), .limit = GOLD_F32};
    assert_non_null(g.out);
    gold_grpo(&g, s.dir, "changed on purpose");
    fclose(g.out);
    assert_true(g.passed > 0);
    printf("%s changed on purpose: %d comparisons failed\n", key, g.failed);
    free(text), free(folder);
    json_decref(info);
    scratch_close(&s);
    return g.failed;
}

/* Loss and gradient, from stored numbers and through the model: both losses and more than one weight. */
static void test_can_fail(void **state) {
    (void)state;
    assert_int_equal(failures_with("low", json_real(0.2)), 0);
    assert_true(failures_with("low", json_real(0.3)) > 5);
    assert_true(failures_with("beta", json_real(0.05)) > 5);
    assert_true(failures_with("scale", json_string("none")) > 5);
    assert_true(failures_with("loss_type", json_string("bnpo")) > 5);
}

int main(void) {
    static char names[][8] = {"qwen2", "v3"};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_folder, names[0]),
        cmocka_unit_test_prestate(test_folder, names[1]),
        cmocka_unit_test(test_can_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
