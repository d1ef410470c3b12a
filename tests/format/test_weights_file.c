/* Folders of weights: single file, shards with an index, hub caches made of links, and indexes that lie. */
#include "scratch.h"
#include "format/weights_file.h"

#define T(type, shape, begin, end) "{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"
#define INDEX "model.safetensors.index.json"

static void write_index(const scratch *d, const char *map) {
    char text[2000];
    snprintf(text, sizeof text, "{\"metadata\":{},\"weight_map\":%s}", map);
    scratch_write(d, INDEX, text, strlen(text));
}

static weights_file *open_good(const char *path) {
    weights_file *w;
    error e = {0};
    if (weights_open(&w, path, &e) != OK) fail_msg("%s", e.text);
    return w;
}

static void refused(const char *path, status code, const char *says) {
    weights_file *w;
    error e = {0};
    assert_int_equal(weights_open(&w, path, &e), code);
    printf("  %s\n", e.text);
    if (!strstr(e.text, says)) fail_msg("does not say %s", says);
    assert_null(w);
}

static void single_file(void **state) {
    (void)state;
    scratch d = scratch_open();
    scratch_raw(
        &d, "model.safetensors",
        "{\"__metadata__\":{\"format\":\"pt\"},\"b\":" T("U8", "[2,3]", 0, 6) ",\"a\":" T("U8", "[1]", 6, 7) "}", 7);
    scratch_write(&d, INDEX, "not read", 8); /* the single file is taken first, as in transformers */
    char *path = scratch_path(&d, "model.safetensors");
    const char *ways[] = {d.dir, path};
    for (int i = 0; i < 2; i++) {
        weights_file *w = open_good(ways[i]);
        assert_int_equal(weights_count(w), 2);
        assert_int_equal(weights_bytes(w), 7);
        assert_string_equal(weights_at(w, 0)->name, "b");
        assert_string_equal(weights_at(w, 1)->name, "a");
        assert_null(weights_at(w, 2));
        assert_ptr_equal(weights_find(w, "a"), weights_at(w, 1));
        assert_ptr_equal(weights_find(w, "b"), weights_at(w, 0));
        assert_null(weights_find(w, "c"));
        assert_null(weights_find(w, ""));
        assert_string_equal(weights_meta(w, "format"), "pt");
        assert_null(weights_meta(w, "other"));
        assert_int_equal(((const uint8_t *)weights_find(w, "a")->t.data)[0], 6);
        weights_close(w);
    }
    weights_close(NULL);
    free(path);
    scratch_close(&d);
}

static void shards(void **state) {
    (void)state;
    scratch d = scratch_open();
    scratch_raw(&d, "s1.safetensors", "{\"a\":" T("U8", "[1]", 0, 1) ",\"both\":" T("U8", "[1]", 1, 2) "}", 2);
    scratch_raw(
        &d, "sub/s2.safetensors",
        "{\"unlisted\":" T("U8", "[2]", 0, 2) ",\"both\":" T("U8", "[1]", 2, 3) ",\"b\":" T("U8", "[1]", 3, 4) "}", 4);
    scratch_raw(&d, "s3.safetensors", "{\"never\":" T("U8", "[1]", 0, 1) "}", 1);
    write_index(&d, "{\"b\":\"sub/s2.safetensors\",\"a\":\"s1.safetensors\",\"both\":\"sub/s2.safetensors\"}");
    weights_file *w = open_good(d.dir);
    assert_int_equal(weights_count(w), 4);
    assert_int_equal(weights_bytes(w), 5);
    assert_string_equal(weights_find(w, "a")->file, "s1.safetensors");
    assert_string_equal(weights_find(w, "both")->file, "sub/s2.safetensors"); /* the index decides */
    assert_non_null(weights_find(w, "unlisted"));                             /* offered, as transformers does */
    assert_null(weights_find(w, "never"));                                    /* its file is not in the index */
    assert_string_equal(weights_at(w, 0)->name, "a");
    weights_close(w);
    scratch_close(&d);
}

static void bad_indexes(void **state) {
    (void)state;
    scratch d = scratch_open();
    refused(d.dir, ERR_FORMAT, "neither");
    scratch_raw(&d, "s1.safetensors", "{\"a\":" T("U8", "[1]", 0, 1) ",\"u\":" T("U8", "[1]", 1, 2) "}", 2);
    scratch_raw(&d, "s2.safetensors", "{\"b\":" T("U8", "[1]", 0, 1) ",\"u\":" T("U8", "[1]", 1, 2) "}", 2);
    static const struct {
        const char *map, *says;
        status code;
    } c[] = {
        {"[]", "weight_map", ERR_FORMAT},
        {"{}", "empty", ERR_FORMAT},
        {"{\"a\":1}", "\"a\": its shard should be a file name", ERR_FORMAT},
        {"{\"a\":\"\"}", "not inside", ERR_FORMAT},
        {"{\"a\":\"/etc/passwd\"}", "not inside", ERR_FORMAT},
        {"{\"a\":\"../x/s1.safetensors\"}", "not inside", ERR_FORMAT},
        {"{\"a\":\"x/../s1.safetensors\"}", "not inside", ERR_FORMAT},
        {"{\"a\":\"x/..\"}", "not inside", ERR_FORMAT},
        {"{\"a\":\"pytorch_model.bin\"}", "not a .safetensors file", ERR_UNSUPPORTED},
        {"{\"a\":\"s1\\u0000.safetensors\"}", "file name", ERR_FORMAT},
        {"{\"a\":\"s1.safetensors\",\"a\":\"s1.safetensors\"}", "duplicate", ERR_FORMAT},
        {"{\"a\":\"s1.safetensors\",\"z\":\"s9.safetensors\"}", "s9.safetensors: cannot open", ERR_FORMAT},
        {"{\"a\":\"s1.safetensors\",\"missing\":\"s1.safetensors\"}", "\"missing\": not in its shard \"s1.saf",
         ERR_FORMAT},
        {"{\"a\":\"s1.safetensors\",\"b\":\"s2.safetensors\"}", "\"u\": in shards \"s1.safetensors\" and \"s2",
         ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        write_index(&d, c[i].map);
        refused(d.dir, c[i].code, c[i].says);
    }
    scratch_write(&d, INDEX, "{\"weight_map\":", 14);
    refused(d.dir, ERR_FORMAT, "not valid JSON");
    enum { DEEP = 1000000 };
    char *deep = malloc(DEEP);
    memset(deep, '[', DEEP);
    scratch_write(&d, INDEX, deep, DEEP);
    refused(d.dir, ERR_FORMAT, "depth");
    free(deep);
    scratch_close(&d);
}

/* snapshots/HASH/NAME -> ../../blobs/SHA, for the index and for the shards */
static void hub_cache(void **state) {
    (void)state;
    scratch d = scratch_open();
    scratch_raw(&d, "blobs/1234", "{\"a\":" T("U8", "[1]", 0, 1) "}", 1);
    static const char text[] = "{\"weight_map\":{\"a\":\"model-00001-of-000001.safetensors\"}}";
    scratch_write(&d, "blobs/5678", text, strlen(text));
    scratch_write(&d, "snapshots/abc/config.json", "{}", 2);
    char *shard = scratch_path(&d, "snapshots/abc/model-00001-of-000001.safetensors"),
         *index = scratch_path(&d, "snapshots/abc/" INDEX), *folder = scratch_path(&d, "snapshots/abc");
    assert_int_equal(symlink("../../blobs/1234", shard), 0);
    assert_int_equal(symlink("../../blobs/5678", index), 0);
    weights_file *w = open_good(folder);
    assert_non_null(weights_find(w, "a"));
    weights_close(w);
    free(shard);
    free(index);
    free(folder);
    scratch_close(&d);
}

static void unaligned_tensors(void **state) {
    (void)state;
    scratch d = scratch_open();
    for (int pad = 0; pad < 8; pad++) { /* one more space in the header moves the data by one byte */
        char header[300];
        snprintf(header, sizeof header,
                 "{\"a\":" T("F64", "[2]", 0, 16) ",\"b\":" T("U8", "[1]", 16, 17) ",\"c\":" T(
                     "BF16", "[2]", 17, 21) ",\"e\":" T("F64", "[0]", 21, 21) "}%*s",
                 pad, "");
        scratch_raw(&d, "model.safetensors", header, 21);
        weights_file *w = open_good(d.dir), *raw;
        error e;
        assert_int_equal(weights_open_in_place(&raw, d.dir, &e), OK);
        for (size_t i = 0; i < weights_count(w); i++) {
            const weights_entry *x = weights_at(w, i), *y = weights_at(raw, i);
            assert_int_equal((uintptr_t)x->t.data % dtype_size(x->t.type), 0);
            assert_memory_equal(x->t.data, y->t.data, (size_t)tensor_count(&x->t) * dtype_size(x->t.type));
        }
        assert_int_equal(((const uint8_t *)weights_find(w, "c")->t.data)[0], 17);
        weights_close(w);
        weights_close(raw);
    }
    scratch_close(&d);
}

static void pages_given_back(void **state) {
    (void)state;
    scratch d = scratch_open();
    scratch_raw(&d, "model.safetensors",
                "{\"a\":" T("U8", "[5000000]", 0, 5000000) ",\"b\":" T("F32", "[1]", 5000000, 5000004) "} ", 5000004);
    weights_file *w = open_good(d.dir);
    const weights_entry *a = weights_find(w, "a"), *b = weights_find(w, "b"); /* b is a copy */
    const uint8_t *p = a->t.data;
    weights_let_go(w, a, 0, 5000000);
    weights_let_go(w, a, 3000000, 1);
    weights_let_go(w, a, 4999999, 0);
    weights_let_go(w, b, 0, 4);
    for (size_t i = 0; i < 5000000; i++)
        if (p[i] != (uint8_t)i) fail_msg("byte %zu", i);
    assert_memory_equal(b->t.data, ((uint8_t[]){0x40, 0x41, 0x42, 0x43}), 4); /* 5000000 = 0x4c4b40 */
    weights_close(w);
    scratch_close(&d);
}

static void names_cannot_reach_the_terminal(void **state) {
    (void)state;
    scratch d = scratch_open();
    scratch_raw(&d, "model.safetensors", "{\"\\u001b[31mred\\n\":3}", 0);
    error e = {0};
    weights_file *w;
    assert_int_equal(weights_open(&w, d.dir, &e), ERR_FORMAT);
    printf("  %s\n", e.text);
    for (const char *p = e.text; *p; p++) assert_true((unsigned char)*p >= 0x20);
    scratch_close(&d);
}

static void golden_folders(void **state) {
    (void)state;
    const char *shared = shared_folder();
    if (!shared) skip();
    static const char *names[] = {"v2_lite",       "v2_full", "v3",    "v3_tied",    "v3_mtp", "v3_fp8",
                                  "v31_fp8_ue8m0", "v32",     "qwen2", "qwen2_tied", "llama"};
    size_t sum = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[600];
        snprintf(path, sizeof path, "%s/golden/models/%s/checkpoint", shared, names[i]);
        weights_file *w = open_good(path);
        assert_string_equal(weights_meta(w, "format"), "pt");
        assert_non_null(weights_find(w, "model.embed_tokens.weight"));
        for (size_t k = 0; k < weights_count(w); k++)
            assert_ptr_equal(weights_find(w, weights_at(w, k)->name), weights_at(w, k));
        sum += weights_count(w);
        weights_close(w);
    }
    printf("  %zu tensors in %zu folders\n", sum, sizeof names / sizeof *names);
    assert_true(sum > 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_file),
        cmocka_unit_test(shards),
        cmocka_unit_test(bad_indexes),
        cmocka_unit_test(hub_cache),
        cmocka_unit_test(unaligned_tensors),
        cmocka_unit_test(pages_given_back),
        cmocka_unit_test(names_cannot_reach_the_terminal),
        cmocka_unit_test(golden_folders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
