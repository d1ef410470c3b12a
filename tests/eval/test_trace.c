/* Tracing: names, shapes and types are the golden ones; what this arithmetic cannot make is told; files and prompts
 * that do not fit are refused. (That the numbers are right is for tests/model/test_golden.c.) */
#include "../format/scratch.h"
#include "eval/logit_kl.h"
#include "eval/trace.h"
#include "format/safetensors_write.h"
#include "tiny.h"

enum { MOST = 8 };

/* A golden file of these tensors, whose numbers are all zero except in prompts. */
typedef struct wanted_file {
    scratch dir;
    safetensors_entry list[MOST];
    void *data[MOST];
    size_t n;
    char *path, *out;
} wanted_file;

static wanted_file begin(void) {
    wanted_file f = {.dir = scratch_open()};
    f.path = scratch_path(&f.dir, "model.safetensors");
    f.out = scratch_path(&f.dir, "ours.safetensors");
    return f;
}

static void *want(wanted_file *f, const char *name, dtype type, int64_t rows, int64_t columns) {
    tensor t = {.type = type, .ndim = rows ? 2 : 1, .dim = {rows ? rows : columns, rows ? columns : 0}};
    assert_true(f->n < MOST);
    f->data[f->n] = calloc((size_t)tensor_count(&t) + 1, 8);
    assert_non_null(f->data[f->n]);
    t.data = f->data[f->n];
    f->list[f->n] = (safetensors_entry){.name = name, .t = t};
    return f->data[f->n++];
}

static void want_ids(wanted_file *f, const char *name, int32_t first, int64_t n) {
    int32_t *ids = want(f, name, DT_I32, 0, n);
    for (int64_t i = 0; i < n; i++) ids[i] = (first + 37 * (int32_t)i) % 449;
}

static status run(wanted_file *f, engine *g, str *missing, error *e) {
    assert_int_equal(safetensors_save(f->dir.dir, f->list, f->n, SHARD_BYTES, e), OK);
    return trace_run(g, f->path, f->out, missing, NULL, NULL, e);
}

static void end(wanted_file *f) {
    for (size_t i = 0; i < f->n; i++) free(f->data[i]);
    free(f->path);
    free(f->out);
    scratch_close(&f->dir);
}

static const tensor *find(const safetensors *f, const char *name) {
    for (size_t i = 0; i < f->count; i++)
        if (!strcmp(f->entries[i].name, name)) return &f->entries[i].t;
    return NULL;
}

static void all_names(void **state) {
    const tiny *t = *state;
    scratch s = scratch_open();
    char *out = scratch_path(&s, "ours.safetensors");
    str missing = {0};
    safetensors golden, ours;
    error e = {0};
    if (trace_run(t->f32, TINY "golden.safetensors", out, &missing, NULL, NULL, &e) != OK) fail_msg("%s", e.text);
    assert_int_equal(missing.n, 0);
    assert_int_equal(safetensors_open(&golden, TINY "golden.safetensors", &e), OK);
    assert_int_equal(safetensors_open(&ours, out, &e), OK);
    assert_int_equal(ours.count, golden.count);
    for (size_t i = 0; i < golden.count; i++) {
        const tensor *x = &golden.entries[i].t, *y = find(&ours, golden.entries[i].name);
        assert_non_null(y);
        assert_int_equal(x->type, y->type);
        assert_int_equal(x->ndim, y->ndim);
        for (int d = 0; d < x->ndim; d++) assert_int_equal(x->dim[d], y->dim[d]);
    }
    printf("  %zu names\n", ours.count);
    safetensors_close(&golden);
    safetensors_close(&ours);
    str_free(&missing);
    free(out);
    scratch_close(&s);
}

static void names_of_the_arithmetic(void **state) {
    const tiny *t = *state;
    const int64_t vocab = t->m->cfg.vocab_size;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        wanted_file f = begin();
        str missing = {0};
        safetensors ours;
        error e = {0};
        want_ids(&f, "ids.a", 5, 9);
        want(&f, "logits.a", DT_F32, 9, vocab);
        want(&f, "logits_bf16.a", DT_F32, 9, vocab);
        want(&f, "logits_bf16_last.a", DT_F32, 0, vocab);
        want(&f, "logits_fp8act.a", DT_F32, 9, vocab);
        want(&f, "logits_fp8weights_fp32.a", DT_F32, 9, vocab);
        assert_int_equal(run(&f, bf16 ? t->bf16 : t->f32, &missing, &e), OK);
        assert_int_equal(safetensors_open(&ours, f.out, &e), OK);
        assert_int_equal(ours.count, bf16 ? 3 : 2);
        assert_int_equal(find(&ours, "logits.a") != NULL, !bf16);
        assert_int_equal(find(&ours, "logits_bf16_last.a") != NULL, bf16);
        assert_non_null(strstr(missing.p, "logits_fp8act.a\n"));
        assert_non_null(strstr(missing.p, "logits_fp8weights_fp32.a\n"));
        const tensor *x = find(&ours, bf16 ? "logits_bf16.a" : "logits.a");
        float *wanted = tiny_logits(bf16 ? t->bf16 : t->f32, f.data[0], 9);
        assert_non_null(x);
        assert_memory_equal(x->data, wanted, (size_t)(9 * vocab) * sizeof(float));
        if (bf16)
            assert_memory_equal(find(&ours, "logits_bf16_last.a")->data, wanted + 8 * vocab,
                                (size_t)vocab * sizeof(float));
        free(wanted);
        safetensors_close(&ours);
        str_free(&missing);
        end(&f);
    }
}

static void expect(wanted_file *f, engine *g, status st, const char *words) {
    error e = {0};
    status got = run(f, g, NULL, &e);
    if (got != st || !strstr(e.text, words)) fail_msg("wanted \"%s\", got %d \"%s\"", words, got, e.text);
    assert_false(file_exists(f->out));
    end(f);
}

static void refused(void **state) {
    const tiny *t = *state;
    const int64_t vocab = t->m->cfg.vocab_size;
    wanted_file f = begin();
    want_ids(&f, "ids.a", 5, 9);
    want(&f, "logits.a", DT_F32, 9, vocab + 1);
    expect(&f, t->f32, ERR_FORMAT, "\"logits.a\" has another shape");
    f = begin();
    want_ids(&f, "ids.a", 5, 9);
    want(&f, "logits.a", DT_F32, 10, vocab);
    expect(&f, t->f32, ERR_FORMAT, "\"logits.a\" has another shape");
    f = begin();
    want_ids(&f, "ids.a", 5, 9);
    want(&f, "hidden.layer1.a", DT_F32, 9, 4);
    expect(&f, t->f32, ERR_FORMAT, "\"hidden.layer1.a\" has another shape");
    f = begin();
    want(&f, "logits.a", DT_F32, 9, vocab);
    expect(&f, t->f32, ERR_FORMAT, "its prompt \"ids.a\" is not");
    f = begin();
    ((int32_t *)want(&f, "ids.a", DT_I32, 0, 3))[2] = (int32_t)vocab;
    want(&f, "logits.a", DT_F32, 3, vocab);
    expect(&f, t->f32, ERR_FORMAT, "the token 449, but the model has 449");
    f = begin();
    ((int32_t *)want(&f, "ids.a", DT_I32, 0, 3))[0] = -1;
    want(&f, "gen.a", DT_I32, 0, 4);
    expect(&f, t->f32, ERR_FORMAT, "the token -1");
    f = begin();
    want(&f, "ids.a", DT_I64, 0, 3);
    want(&f, "gen.a", DT_I32, 0, 4);
    expect(&f, t->f32, ERR_FORMAT, "list of I32 ids");
    f = begin();
    want_ids(&f, "ids.a", 5, 9);
    want(&f, "logits.a", DT_F32, 9, vocab);
    expect(&f, t->bf16, ERR_FORMAT, "logits_bf16.p1");
}

/* Names that look like ours and are not, beside one that is. */
static void strange_names(void **state) {
    const tiny *t = *state;
    static const char *const names[] = {"part.layer99999999999999999999.attn_out.a",
                                        "part.layer-1.attn_out.a",
                                        "hidden.layer77.a",
                                        "router.layer0.a.logits",
                                        "dsa.layer0.a.mask",
                                        ".",
                                        ""};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        wanted_file f = begin();
        str missing = {0};
        error e = {0};
        want_ids(&f, "ids.a", 5, 9);
        want(&f, "gen.a", DT_I32, 0, 3);
        want(&f, "gen.empty", DT_I32, 0, 0);
        want_ids(&f, "ids.empty", 1, 1);
        want(&f, names[i], strstr(names[i], "mask") ? DT_U8 : DT_F32, 9, 16);
        if (run(&f, t->f32, &missing, &e) != OK) fail_msg("\"%s\": %s", names[i], e.text);
        assert_non_null(strstr(missing.p, names[i]));
        str_free(&missing);
        end(&f);
    }
}

static int stop(void *arg, uint64_t done, uint64_t total, const char *what) {
    assert_true(done <= total);
    assert_non_null(what);
    return ++*(int *)arg == 2;
}

static void cancelled(void **state) {
    const tiny *t = *state;
    scratch s = scratch_open();
    char *out = scratch_path(&s, "ours.safetensors"), *nowhere = scratch_path(&s, "no/where/ours.safetensors");
    int calls = 0;
    error e = {0};
    assert_int_equal(trace_run(t->f32, TINY "golden.safetensors", out, NULL, stop, &calls, &e), ERR_CANCELLED);
    assert_int_equal(calls, 2);
    assert_false(file_exists(out));
    assert_int_equal(trace_run(t->f32, "tests/no such file", out, NULL, NULL, NULL, &e), ERR_FORMAT);
    assert_int_equal(trace_run(t->f32, TINY "golden.safetensors", nowhere, NULL, NULL, NULL, &e), ERR_IO);
    free(out);
    free(nowhere);
    scratch_close(&s);
}

/* A header whose length leaves every number at an odd address. */
static void unaligned(void **state) {
    const tiny *t = *state;
    static const char header[] = "{\"ids.a\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                                 "\"gen.a\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[8,16]}}",
                      pad[] = " ";
    scratch s = scratch_open();
    char text[sizeof header + sizeof pad], *out = scratch_path(&s, "ours.safetensors"),
                                           *in = scratch_path(&s, "in.safetensors");
    error e = {0};
    snprintf(text, sizeof text, "%s%s", header, strlen(header) % 2 ? "" : pad);
    uint8_t *bytes = calloc(1, 8 + strlen(text) + 16);
    assert_non_null(bytes);
    bytes[0] = (uint8_t)strlen(text);
    memcpy(bytes + 8, text, strlen(text));
    bytes[8 + strlen(text)] = 7;
    bytes[8 + strlen(text) + 4] = 9;
    scratch_write(&s, "in.safetensors", bytes, 8 + strlen(text) + 16);
    if (trace_run(t->f32, in, out, NULL, NULL, NULL, &e) != OK) fail_msg("%s", e.text);
    free(bytes);
    free(in);
    free(out);
    scratch_close(&s);
}

static int setup(void **state) {
    *state = tiny_open();
    return 0;
}

static int teardown(void **state) {
    tiny_close(*state);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_names), cmocka_unit_test(names_of_the_arithmetic),
        cmocka_unit_test(refused),   cmocka_unit_test(strange_names),
        cmocka_unit_test(cancelled), cmocka_unit_test(unaligned),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
