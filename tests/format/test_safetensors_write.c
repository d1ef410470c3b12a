/* What is written is read back; names, places and padding follow the conventions; failures leave nothing behind. */
#include "scratch.h"
#include <signal.h>
#include <sys/resource.h>
#include "format/safetensors_write.h"
#include "format/weights_file.h"

static const uint8_t data[64] = {1, 2, 3, 4, 5, 6, 7, 8, 9};

static const safetensors_entry some[] = {
    {"c", {.data = data, .type = DT_BF16, .ndim = 2, .dim = {3, 5}}},
    {"b\xc3\xa4\"\n", {.data = data + 1, .type = DT_E4M3, .ndim = 1, .dim = {7}}},
    {"a", {.data = data + 2, .type = DT_F32, .ndim = 0}},
    {"e", {.data = data, .type = DT_F64, .ndim = 2, .dim = {0, 9}}},
    {"d", {.data = data + 3, .type = DT_BF16, .ndim = 4, .dim = {1, 2, 1, 2}}},
};
enum { SOME = sizeof some / sizeof *some };

static void round_trip(uint64_t max, const char *const *files, size_t n_files) {
    scratch d = scratch_open();
    error e = {0};
    if (safetensors_save(d.dir, some, SOME, max, &e) != OK) fail_msg("%s", e.text);
    for (size_t i = 0; i < n_files; i++) {
        char *path = scratch_path(&d, files[i]);
        if (!file_exists(path)) fail_msg("no %s", path);
        free(path);
    }
    weights_file *w;
    if (weights_open_in_place(&w, d.dir, &e) != OK) fail_msg("%s", e.text);
    assert_int_equal(weights_count(w), SOME);
    for (size_t i = 0; i < SOME; i++) {
        const weights_entry *x = weights_find(w, some[i].name);
        assert_non_null(x);
        assert_int_equal(x->t.type, some[i].t.type);
        assert_int_equal(x->t.ndim, some[i].t.ndim);
        assert_memory_equal(x->t.dim, some[i].t.dim, sizeof x->t.dim);
        assert_memory_equal(x->t.data, some[i].t.data, (size_t)tensor_count(&x->t) * dtype_size(x->t.type));
        assert_int_equal((uintptr_t)x->t.data % dtype_size(x->t.type), 0); /* what we write is aligned */
    }
    assert_string_equal(weights_meta(w, "format"), "pt");
    weights_close(w);
    scratch_close(&d);
}

static void one_file(void **state) {
    (void)state;
    round_trip(SHARD_BYTES, (const char *const[]){"model.safetensors"}, 1);
}

static void several_shards(void **state) {
    (void)state;
    round_trip(30,
               (const char *const[]){"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                                     "model.safetensors.index.json"},
               3);
    round_trip(1, (const char *const[]){"model-00004-of-00004.safetensors"}, 1); /* a tensor larger than a shard */
}

static void order_and_padding(void **state) {
    (void)state;
    scratch d = scratch_open();
    error e = {0};
    assert_int_equal(safetensors_save(d.dir, some, SOME, SHARD_BYTES, &e), OK);
    char *path = scratch_path(&d, "model.safetensors");
    str s = {0};
    assert_int_equal(file_read(&s, path, 100000, &e), OK);
    assert_int_equal((uint8_t)s.p[0] % 8, 0);
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},\"e\":{\"dtype\":\"F64\",\"shape\":[0,9],"
        "\"data_offsets\":[0,0]},\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},\"c\":";
    printf("  %.*s\n", 200, s.p + 8);
    assert_memory_equal(s.p + 8, header, strlen(header));
    str_free(&s);
    free(path);
    scratch_close(&d);
}

static shard_plan *two_file_plan(void) {
    shard_plan *p;
    error e = {0};
    assert_int_equal(shard_plan_open(&p, &e), OK);
    assert_int_equal(shard_plan_add(p, "z.safetensors", "x", &some[0].t, &e), OK);
    assert_int_equal(shard_plan_add(p, "m.safetensors", "y", &some[1].t, &e), OK);
    assert_int_equal(shard_plan_add(p, "z.safetensors", "w", &some[2].t, &e), OK);
    if (shard_plan_finish(p, 0, &e) != OK) fail_msg("%s", e.text);
    return p;
}

static void given_shards(void **state) {
    (void)state;
    shard_plan *p = two_file_plan();
    assert_int_equal(shard_plan_count(p), 2);
    const planned_shard *s = shard_plan_at(p, 1);
    assert_string_equal(s->file, "z.safetensors");
    assert_int_equal(s->count, 2);
    assert_int_equal(s->tensors[0].added, 2); /* F32 before BF16 */
    assert_int_equal(s->tensors[1].added, 0);
    assert_int_equal(s->bytes, s->header_bytes + 4 + 30);
    shard_plan_close(p);
    shard_plan_close(NULL);
}

static void complete_or_not(void **state) {
    (void)state;
    scratch d = scratch_open();
    shard_plan *p = two_file_plan();
    const planned_shard *s = shard_plan_at(p, 1);
    error e = {0};
    shard_writer w;
    char *path = scratch_path(&d, s->file);
    assert_false(shard_is_complete(s, d.dir));
    assert_int_equal(shard_begin(&w, s, d.dir, &e), OK);
    assert_int_equal(shard_write(&w, data, 33, &e), OK);
    assert_false(file_exists(path));
    assert_int_equal(shard_write(&w, data, 2, &e), ERR_ARG); /* one too many */
    printf("  %s\n", e.text);
    assert_int_equal(shard_commit(&w, &e), ERR_ARG); /* one is missing */
    printf("  %s\n", e.text);
    assert_false(file_exists(path));
    assert_int_equal(shard_begin(&w, s, d.dir, &e), OK);
    for (int i = 0; i < 34; i++) assert_int_equal(shard_write(&w, data + i, 1, &e), OK);
    assert_int_equal(shard_commit(&w, &e), OK);
    assert_true(shard_is_complete(s, d.dir));
    assert_int_equal(truncate(path, (off_t)s->bytes - 1), 0);
    assert_false(shard_is_complete(s, d.dir));
    assert_int_equal(truncate(path, (off_t)s->bytes), 0);
    assert_true(shard_is_complete(s, d.dir));
    assert_false(shard_is_complete(shard_plan_at(p, 0), d.dir));
    free(path);
    shard_plan_close(p);
    scratch_close(&d);
}

static void wrong_plans(void **state) {
    (void)state;
    error e = {0};
    shard_plan *p;
    assert_int_equal(shard_plan_open(&p, &e), OK);
    assert_int_equal(shard_plan_finish(p, 0, &e), ERR_ARG); /* empty */
    assert_int_equal(shard_plan_add(p, "f", "__metadata__", &some[0].t, &e), ERR_ARG);
    tensor t = {.type = DT_F32, .ndim = 2, .dim = {INT64_MAX / 2, 8}};
    assert_int_equal(shard_plan_add(p, "f", "big", &t, &e), ERR_ARG);
    assert_int_equal(shard_plan_add(p, "f", "same", &some[0].t, &e), OK);
    assert_int_equal(shard_plan_add(p, NULL, "mixed", &some[0].t, &e), ERR_ARG);
    assert_int_equal(shard_plan_add(p, "f", "same", &some[0].t, &e), OK);
    assert_int_equal(shard_plan_finish(p, 0, &e), ERR_ARG);
    printf("  %s\n", e.text);
    shard_plan_close(p);
    scratch d = scratch_open();
    static const char *const names[] = {
        "\xff",    "a\x80", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf0\x80\x80\x80",
        "\xe6\xb7"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        safetensors_entry bad = {names[i], some[0].t};
        assert_int_equal(safetensors_save(d.dir, &bad, 1, SHARD_BYTES, &e), ERR_ARG);
        assert_non_null(strstr(e.text, "not UTF-8"));
    }
    safetensors_entry fine = {"\xc2\x80\xe6\xb7\xb1\xf0\x9f\x98\x80", some[0].t};
    assert_int_equal(safetensors_save(d.dir, &fine, 1, SHARD_BYTES, &e), OK);
    safetensors_entry twice[] = {some[0], some[1], some[0]}; /* in two shards: found when the index is made */
    assert_int_equal(safetensors_save(d.dir, twice, 3, 30, &e), ERR_ARG);
    printf("  %s\n", e.text);
    scratch_close(&d);
}

static void disk_full(void **state) {
    (void)state;
    scratch d = scratch_open();
    struct rlimit old, small;
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 100;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    error e = {0};
    status s = safetensors_save(d.dir, some, SOME, SHARD_BYTES, &e);
    setrlimit(RLIMIT_FSIZE, &old);
    printf("  %s\n", e.text);
    assert_int_equal(s, ERR_IO);
    char *path = scratch_path(&d, "model.safetensors"), *temporary = scratch_path(&d, "model.safetensors.tmp");
    assert_false(file_exists(path));
    assert_false(file_exists(temporary));
    free(path);
    free(temporary);
    scratch_close(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_file),     cmocka_unit_test(several_shards),  cmocka_unit_test(order_and_padding),
        cmocka_unit_test(given_shards), cmocka_unit_test(complete_or_not), cmocka_unit_test(wrong_plans),
        cmocka_unit_test(disk_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
