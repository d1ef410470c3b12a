/* Native checkpoints: what is written is read, in any layout; what is damaged is refused by name; nothing that is
 * killed or refused halfway is seen. */
#include "scratch.h"
#include "base/json.h"
#include "base/rng.h"
#include "format/model_files.h"
#include "format/native.h"

static json_t *state_of(int64_t step) {
    return json_pack("{s:I, s:f, s:s}", "step", (json_int_t)step, "lr", 0.1 / 3, "dtype", "F32");
}

/* Byte i of tensor t. */
static uint8_t byte_of(int t, size_t i) {
    return (uint8_t)(t * 37 + i * 11 + i / 251);
}

typedef struct layout { /* tensors, and where each rank's slices begin */
    const char *name;
    dtype type;
    int ndim;
    int64_t dim[3];
} layout;

static const layout tensors[] = {
    {"model.embed_tokens.weight", DT_F32, 2, {7, 5}},
    {"model.norm.weight", DT_BF16, 1, {6}},
    {"lm_head.weight", DT_F32, 2, {7, 5}},
    {"lm_head.weight.exp_avg", DT_BF16, 2, {7, 5}},
    {"odd@name@3", DT_F64, 3, {2, 3, 2}},
    {"codes", DT_U8, 1, {1000}},
    {"scalar", DT_I64, 0, {0}},
    {"empty", DT_F32, 2, {0, 9}},
};
enum { TENSORS = sizeof tensors / sizeof *tensors, MOST_RANKS = 5 };

static int64_t count_of(const layout *t) {
    int64_t n = 1;
    for (int i = 0; i < t->ndim; i++) n *= t->dim[i];
    return n;
}

static void *bytes_of(int t) {
    size_t n = (size_t)count_of(&tensors[t]) * dtype_size(tensors[t].type);
    uint8_t *p = malloc(n + 1);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++) p[i] = byte_of(t, i);
    return p;
}

/* Cuts all tensors, laid one behind the other, into `ranks` ranges of about the same number of elements, which cut
 * through tensors; every tensor is in every rank's list, empty slices included. */
static void write_folder(const char *folder, int ranks, int64_t step) {
    error e = {0};
    int64_t total = 0;
    for (int t = 0; t < TENSORS; t++) total += count_of(&tensors[t]);
    native_shard shards[MOST_RANKS] = {{0}};
    assert_int_equal(native_begin(folder, &e), OK);
    for (int r = ranks - 1; r >= 0; r--) { /* any order */
        int64_t from = total * r / ranks, to = total * (r + 1) / ranks, at = 0;
        native_slice list[TENSORS];
        void *data[TENSORS];
        for (int t = 0; t < TENSORS; t++) {
            const layout *x = &tensors[t];
            int64_t n = count_of(x), a = from > at ? from - at : 0, b = to - at < n ? to - at : n;
            if (a > n) a = n;
            if (b < a) b = a;
            data[t] = bytes_of(t);
            list[t] = (native_slice){.name = x->name, .type = x->type, .ndim = x->ndim, .first = a, .n = b - a};
            memcpy(list[t].dim, x->dim, sizeof x->dim);
            list[t].data = (uint8_t *)data[t] + (size_t)a * dtype_size(x->type);
            at += n;
        }
        if (native_write_shard(folder, r, list, TENSORS, &shards[r], &e) != OK) fail_msg("%s", e.text);
        for (int t = 0; t < TENSORS; t++) free(data[t]);
    }
    json_t *state = state_of(step);
    if (native_finish(folder, shards, ranks, state, &e) != OK) fail_msg("%s", e.text);
    json_decref(state);
    for (int r = 0; r < ranks; r++) native_shard_free(&shards[r]);
}

static native_file *open_folder(const char *folder) {
    native_file *f;
    error e = {0};
    if (native_open(&f, folder, true, &e) != OK) fail_msg("%s", e.text);
    return f;
}

static int64_t step_in(const char *folder) {
    native_file *f = open_folder(folder);
    int64_t step = json_integer_value(json_object_get(native_state(f), "step"));
    native_close(f);
    return step;
}

/* --- what is written is read ------------------------------------------------------------------------------------ */

static void check_range(const native_file *f, int t, int64_t first, int64_t n) {
    error e = {0};
    size_t size = dtype_size(tensors[t].type);
    uint8_t *got = malloc((size_t)n * size + 1); /* exact but for a guard byte */
    got[(size_t)n * size] = 0x5a;
    if (native_read(f, tensors[t].name, first, n, got, &e) != OK) fail_msg("%s", e.text);
    for (size_t i = 0; i < (size_t)n * size; i++) assert_int_equal(got[i], byte_of(t, (size_t)first * size + i));
    assert_int_equal(got[(size_t)n * size], 0x5a);
    free(got);
}

static void any_layout_any_range(void **unused) {
    (void)unused;
    scratch d = scratch_open();
    char *folder = scratch_path(&d, "step-00000007");
    for (int ranks = 1; ranks <= MOST_RANKS; ranks++) {
        write_folder(folder, ranks, ranks); /* replaces the one before */
        native_file *f = open_folder(folder);
        assert_int_equal(native_count(f), TENSORS);
        assert_int_equal(json_integer_value(json_object_get(native_state(f), "step")), ranks);
        assert_true(json_real_value(json_object_get(native_state(f), "lr")) == 0.1 / 3);
        for (int t = 0; t < TENSORS; t++) {
            const native_slice *x = native_find(f, tensors[t].name);
            assert_non_null(x);
            assert_int_equal(x->type, tensors[t].type);
            assert_int_equal(x->ndim, tensors[t].ndim);
            for (int i = 0; i < x->ndim; i++) assert_int_equal(x->dim[i], tensors[t].dim[i]);
            assert_int_equal(x->n, count_of(&tensors[t]));
            check_range(f, t, 0, x->n);
        }
        for (uint64_t i = 0; i < 2000; i++) {
            int t = (int)(rng_uniform(1, (uint64_t)ranks, 3 * i) * TENSORS);
            int64_t n = count_of(&tensors[t]),
                    first = (int64_t)(rng_uniform(1, (uint64_t)ranks, 3 * i + 1) * (double)(n + 1));
            check_range(f, t, first, (int64_t)(rng_uniform(1, (uint64_t)ranks, 3 * i + 2) * (double)(n - first + 1)));
        }
        native_close(f);
    }
    char *left = scratch_path(&d, "step-00000007.tmp");
    assert_false(file_exists(left));
    free(left);
    free(folder);
    scratch_close(&d);
}

static void wrong_questions(void **unused) {
    (void)unused;
    scratch d = scratch_open();
    char *folder = scratch_path(&d, "a");
    write_folder(folder, 2, 1);
    native_file *f = open_folder(folder);
    double to[100];
    static const int64_t ranges[][2] = {{-1, 1}, {0, 36}, {36, 0}, {35, 1}, {1, -1}, {INT64_MAX, 1}, {1, INT64_MAX}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        error e = {0};
        assert_int_equal(native_read(f, "lm_head.weight", ranges[i][0], ranges[i][1], to, &e), ERR_ARG);
        assert_non_null(strstr(e.text, "lm_head.weight"));
    }
    error e = {0};
    assert_int_equal(native_read(f, "nobody", 0, 1, to, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "nobody"));
    assert_null(native_find(f, "nobody"));
    assert_int_equal(native_read(f, "lm_head.weight", 35, 0, to, &e), OK);
    native_close(f);
    assert_true(is_native(folder));
    assert_false(is_native(d.dir));
    free(folder);
    scratch_close(&d);
}

/* Data that are made while they are written arrive like data in memory, also past the size of one portion. */
static status count_up(void *arg, int64_t i, int64_t first, int64_t n, void *to, error *e) {
    (void)e;
    ++*(int *)arg;
    for (int64_t k = 0; k < n; k++) ((int32_t *)to)[k] = (int32_t)(first + k + 1000 * i);
    return OK;
}

static void made_data(void **unused) {
    (void)unused;
    enum { N = 3000001 };
    scratch d = scratch_open();
    char *folder = scratch_path(&d, "a");
    native_slice list[] = {{.name = "a", .type = DT_I32, .ndim = 1, .dim = {N}, .first = 0, .n = 5},
                           {.name = "a", .type = DT_I32, .ndim = 1, .dim = {N}, .first = 5, .n = N - 5}};
    native_shard shard;
    error e = {0};
    int calls = 0;
    assert_int_equal(native_begin(folder, &e), OK);
    if (native_write_shard_from(folder, 3, list, 2, count_up, &calls, &shard, &e) != OK) fail_msg("%s", e.text);
    assert_in_range(calls, 3, 100);
    json_t *state = json_object();
    if (native_finish(folder, &shard, 1, state, &e) != OK) fail_msg("%s", e.text);
    native_file *f = open_folder(folder);
    int32_t *got = malloc(N * sizeof *got);
    assert_int_equal(native_read(f, "a", 0, N, got, &e), OK);
    for (int32_t i = 0; i < N; i++) assert_int_equal(got[i], i < 5 ? i : i + 1000);
    free(got);
    native_close(f);
    native_shard_free(&shard);
    json_decref(state);
    free(folder);
    scratch_close(&d);
}

/* --- writing wrongly -------------------------------------------------------------------------------------------- */

static void refused_writes(void **unused) {
    (void)unused;
    scratch d = scratch_open();
    char *folder = scratch_path(&d, "a");
    float x[8] = {0};
    static const struct {
        native_slice list[2];
        status at_shard, at_finish;
        const char *says;
    } c[] = {
        {{{"a", DT_F32, 1, {8}, 0, 9, NULL}}, ERR_ARG, OK, "not a slice"},
        {{{"a", DT_F32, 1, {8}, 4, 5, NULL}}, ERR_ARG, OK, "not a slice"},
        {{{"a", DT_F32, 1, {-8}, 0, 0, NULL}}, ERR_ARG, OK, "not a slice"},
        {{{"a", DT_F32, 2, {INT64_MAX, 3}, 0, 0, NULL}}, ERR_ARG, OK, "not a slice"},
        {{{"", DT_F32, 1, {8}, 0, 8, NULL}}, ERR_ARG, OK, "not a slice"},
        {{{"\xff", DT_F32, 1, {8}, 0, 8, NULL}}, ERR_ARG, OK, "UTF-8"},
        {{{"a", DT_F32, 1, {8}, 0, 8, NULL}, {"a", DT_F32, 1, {8}, 0, 8, NULL}}, ERR_ARG, OK, "planned twice"},
        {{{"a", DT_F32, 1, {8}, 0, 4, NULL}, {"a", DT_F32, 2, {4, 2}, 4, 4, NULL}}, ERR_ARG, OK, "different"},
        {{{"a", DT_F32, 1, {8}, 0, 4, NULL}, {"a", DT_F32, 1, {8}, 5, 3, NULL}}, OK, ERR_FORMAT, "element 4 of 8"},
        {{{"a", DT_F32, 1, {8}, 0, 5, NULL}, {"a", DT_F32, 1, {8}, 4, 4, NULL}}, OK, ERR_FORMAT, "element 4"},
        {{{"a", DT_F32, 1, {8}, 0, 8, NULL}, {"b", DT_F32, 1, {8}, 0, 0, NULL}}, OK, ERR_FORMAT, "\"b\""},
    };
    write_folder(folder, 1, 77);
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        native_slice list[2];
        native_shard shard;
        error e = {0};
        json_t *state = json_object();
        int n = c[i].list[1].name ? 2 : 1;
        memcpy(list, c[i].list, sizeof list);
        for (int k = 0; k < n; k++) list[k].data = x;
        assert_int_equal(native_begin(folder, &e), OK);
        status s = native_write_shard(folder, 0, list, n, &shard, &e);
        assert_int_equal(s, c[i].at_shard);
        if (s == OK) {
            assert_int_equal(native_finish(folder, &shard, 1, state, &e), c[i].at_finish);
            native_shard_free(&shard);
        }
        if (!strstr(e.text, c[i].says)) fail_msg("%zu: %s", i, e.text);
        native_abort(folder);
        json_decref(state);
        assert_int_equal(step_in(folder), 77); /* untouched */
    }
    error e = {0};
    native_shard shard;
    assert_int_equal(native_write_shard(folder, 0, &(native_slice){"a", DT_F32, 1, {8}, 0, 8, NULL}, 1, &shard, &e),
                     ERR_ARG);
    free(folder);
    scratch_close(&d);
}

/* Two ranks that disagree on a shape. */
static void shards_that_disagree(void **unused) {
    (void)unused;
    scratch d = scratch_open();
    char *folder = scratch_path(&d, "a");
    float x[8] = {0};
    native_slice a = {"a", DT_F32, 1, {8}, 0, 4, x}, b = {"a", DT_BF16, 1, {8}, 4, 4, x};
    native_shard shards[2];
    error e = {0};
    assert_int_equal(native_begin(folder, &e), OK);
    assert_int_equal(native_write_shard(folder, 0, &a, 1, &shards[0], &e), OK);
    assert_int_equal(native_write_shard(folder, 1, &b, 1, &shards[1], &e), OK);
    json_t *state = json_object();
    assert_int_equal(native_finish(folder, shards, 2, state, &e), ERR_ARG);
    assert_non_null(strstr(e.text, "\"a\""));
    assert_false(file_exists(folder));
    json_decref(state);
    native_shard_free(&shards[0]);
    native_shard_free(&shards[1]);
    free(folder);
    scratch_close(&d);
}

/* --- damage ----------------------------------------------------------------------------------------------------- */

static str text_of(const char *path) {
    str s = {0};
    error e = {0};
    if (file_read(&s, path, 1 << 24, &e) != OK) fail_msg("%s", e.text);
    return s;
}

static void expect(const char *folder, bool verify, const char *says, const char *says_too) {
    native_file *f;
    error e = {0};
    status s = native_open(&f, folder, verify, &e);
    if (s == OK) fail_msg("accepted, should say: %s", says);
    assert_null(f);
    if (!strstr(e.text, says) || !strstr(e.text, says_too) || strchr(e.text, '\n'))
        fail_msg("\"%s\" does not say \"%s\", \"%s\"", e.text, says, says_too);
}

/* Every byte of the shards and of state.json, one bit flipped, is noticed. */
static void flipped_bits(void **unused) {
    (void)unused;
    scratch d = scratch_open();
    char *folder = scratch_path(&d, "a");
    write_folder(folder, 2, 1);
    json_t *state = state_of(1);
    static const char *const files[] = {"a/shard-0000.safetensors", "a/shard-0001.safetensors", "a/state.json"};
    for (int k = 0; k < 3; k++) {
        char *path = scratch_path(&d, files[k]);
        str s = text_of(path);
        for (size_t i = 0; i < s.n; i += k == 2 ? 1 : 7) {
            native_file *f;
            error e = {0};
            FILE *h = fopen(path, "r+");
            assert_non_null(h);
            fseek(h, (long)i, SEEK_SET);
            fputc((uint8_t)s.p[i] ^ 1, h);
            fclose(h);
            if (native_open(&f, folder, true, &e) == OK) { /* the last digit of 0.1 / 3 need not change the number */
                if (k < 2 || !json_equal(native_state(f), state)) fail_msg("byte %zu of %s: not noticed", i, files[k]);
                native_close(f);
            }
            h = fopen(path, "r+");
            fseek(h, (long)i, SEEK_SET);
            fputc((uint8_t)s.p[i], h);
            fclose(h);
        }
        assert_int_equal(step_in(folder), 1);
        str_free(&s);
        free(path);
    }
    json_decref(state);
    free(folder);
    scratch_close(&d);
}

static void damaged_files(void **unused) {
    (void)unused;
    scratch d = scratch_open();
    char *folder = scratch_path(&d, "a"), *shard = scratch_path(&d, "a/shard-0001.safetensors"),
         *state = scratch_path(&d, "a/state.json"), *aside = scratch_path(&d, "aside");
    write_folder(folder, 2, 1);
    struct stat st;
    assert_int_equal(stat(shard, &st), 0);
    assert_int_equal(truncate(shard, st.st_size - 1), 0);
    expect(folder, false, "shard-0001.safetensors", "damaged");
    assert_int_equal(truncate(shard, st.st_size), 0); /* the last byte is 0 now */
    expect(folder, true, "shard-0001.safetensors", "checksum");
    native_file *f;
    assert_int_equal(native_open(&f, folder, false, NULL), OK);
    native_close(f);
    assert_int_equal(rename(shard, aside), 0);
    expect(folder, false, "shard-0001.safetensors", "cannot open");
    assert_int_equal(mkdir(shard, 0777), 0);
    expect(folder, false, "shard-0001.safetensors", "regular");
    assert_int_equal(unlink(state), 0);
    expect(folder, false, "state.json", "cannot open");
    free(folder), free(shard), free(state), free(aside);
    scratch_close(&d);
}

#define HEAD "{\"format\":\"hadal-native\",\"version\":1,\"state\":{},"
#define ONE "\"shards\":[{\"file\":\"shard-0000.safetensors\",\"bytes\":%zu}],"
#define TENSOR(name, first, n, from, to) \
    "\"" name "@" #first "\":{\"dtype\":\"U8\",\"shape\":[" #n "],\"data_offsets\":[" #from "," #to "]}"

/* Lies, each with its checksum and length right. */
static void lies(void **unused) {
    (void)unused;
    static const struct {
        const char *state, *header;
        size_t bytes;
        const char *says, *says_too;
    } c[] = {
        {"[]", "{}", 0, "state.json", "format"},
        {"{\"format\":\"other\"}", "{}", 0, "state.json", "format"},
        {"{\"format\":\"hadal-native\",\"version\":2}", "{}", 0, "state.json", "version 2"},
        {"{\"format\":\"hadal-native\",\"version\":1}", "{}", 0, "state.json", "\"state\""},
        {HEAD "\"tensors\":[]}", "{}", 0, "state.json", "\"tensors\""},
        {HEAD "\"tensors\":{}}", "{}", 0, "state.json", "\"shards\""},
        {HEAD "\"tensors\":{},\"shards\":[3]}", "{}", 0, "state.json", "shard 0"},
        {HEAD "\"tensors\":{},\"shards\":[{\"file\":\"shard-/../x\",\"bytes\":1}]}", "{}", 0, "state.json", "shard 0"},
        {HEAD "\"tensors\":{},\"shards\":[{\"file\":\"../x\",\"bytes\":1}]}", "{}", 0, "state.json", "shard 0"},
        {HEAD "\"tensors\":{},\"shards\":[{\"file\":\"shard-0000.safetensors\",\"bytes\":\"1\"}]}", "{}", 0,
         "state.json", "shard 0"},
        {HEAD ONE "\"tensors\":{\"a\":[]}}", "{}", 0, "state.json", "\"a\""},
        {HEAD ONE "\"tensors\":{\"a\":\"F32\"}}", "{}", 0, "state.json", "\"a\""},
        {HEAD ONE "\"tensors\":{\"a\":[\"F33\",1]}}", "{}", 0, "state.json", "\"a\""},
        {HEAD ONE "\"tensors\":{\"\":[\"F32\",1]}}", "{}", 0, "state.json", "name"},
        {HEAD ONE "\"tensors\":{\"a\":[\"F32\",1,1,1,1,1]}}", "{}", 0, "\"a\"", "5 dimensions"},
        {HEAD ONE "\"tensors\":{\"a\":[\"F32\",-1]}}", "{}", 0, "\"a\"", "dimension 0"},
        {HEAD ONE "\"tensors\":{\"a\":[\"F32\",1.5]}}", "{}", 0, "\"a\"", "dimension 0"},
        {HEAD ONE "\"tensors\":{\"a\":[\"F32\",4611686018427387904]}}", "{}", 0, "\"a\"", "dimension 0"},
        {HEAD ONE "\"tensors\":{\"a\":[\"F32\",0,4294967296,4294967296]}}", "{}", 0, "\"a\"", "dimension 2"},
        {HEAD ONE "\"tensors\":{\"a\":[\"U8\",4],\"a\":[\"U8\",4]}}", "{}", 0, "state.json", "duplicate"},
        {HEAD ONE "\"tensors\":{\"a\":[\"U8\",4]}}", "{}", 0, "\"a\"", "element 0 of 4"},
        {HEAD ONE "\"tensors\":{\"a\":[\"U8\",4]}}", "{" TENSOR("a", 0, 3, 0, 3) "}", 3, "\"a\"", "element 3 of 4"},
        {HEAD ONE "\"tensors\":{\"a\":[\"U8\",4]}}", "{" TENSOR("a", 1, 3, 0, 3) "}", 3, "\"a\"", "element 0 of 4"},
        {HEAD ONE "\"tensors\":{\"a\":[\"U8\",4]}}", "{" TENSOR("a", 0, 5, 0, 5) "}", 5, "\"a@0\"", "has 4"},
        {HEAD ONE "\"tensors\":{\"a\":[\"U8\",4]}}", "{" TENSOR("a", 9, 1, 0, 1) "}", 1, "\"a@9\"", "has 4"},
        {HEAD ONE "\"tensors\":{\"a\":[\"U8\",4]}}", "{" TENSOR("a", 0, 0, 0, 0) "}", 0, "\"a@0\"", "0 elements"},
        {HEAD ONE "\"tensors\":{\"a\":[\"U8\",4]}}", "{" TENSOR("a", 0, 3, 0, 3) "," TENSOR("a", 2, 2, 3, 5) "}", 5,
         "shard-0000", "element 2"},
        {HEAD ONE "\"tensors\":{\"a\":[\"U8\",4]}}", "{" TENSOR("a", 0, 4, 0, 4) "," TENSOR("a", 00, 4, 4, 8) "}", 8,
         "shard-0000", "element 0"},
        {HEAD ONE "\"tensors\":{\"a\":[\"U8\",4]}}", "{" TENSOR("a", 0, 2, 0, 2) "," TENSOR("a", 3, 1, 2, 3) "}", 3,
         "\"a\"", "element 2 of 4"},
        {HEAD ONE "\"tensors\":{\"a\":[\"F32\",4]}}", "{" TENSOR("a", 0, 4, 0, 4) "}", 4, "\"a@0\"", "F32"},
        {HEAD ONE "\"tensors\":{\"a\":[\"U8\",4]}}", "{" TENSOR("b", 0, 4, 0, 4) "}", 4, "\"b@0\"",
         "not in state.json"},
        {HEAD ONE "\"tensors\":{\"a\":[\"U8\",4]}}", "{" TENSOR("", 0, 4, 0, 4) "}", 4, "\"@0\"", "NAME@FIRST"},
        {HEAD ONE "\"tensors\":{\"a\":[\"U8\",4]}}", "{" TENSOR("a", , 4, 0, 4) "}", 4, "\"a@\"", "NAME@FIRST"},
        {HEAD ONE "\"tensors\":{\"a\":[\"U8\",4]}}", "{" TENSOR("a", -1, 4, 0, 4) "}", 4, "\"a@-1\"", "NAME@FIRST"},
        {HEAD ONE "\"tensors\":{\"a\":[\"U8\",4]}}", "{" TENSOR("a", 99999999999999999999, 4, 0, 4) "}", 4, "a@999",
         "NAME@FIRST"},
        {HEAD ONE "\"tensors\":{\"a\":[\"U8\",4]}}",
         "{\"a@0\":{\"dtype\":\"U8\",\"shape\":[2,2],\"data_offsets\":[0,4]}}", 4, "\"a@0\"", "2 dimensions"},
        {HEAD ONE "\"tensors\":{\"a\":[\"U8\",4]}}", "{" TENSOR("a", 0, 4, 0, 4) "}", 3, "shard-0000", "a@0"},
        {HEAD ONE "\"tensors\":{\"a\":[\"U8\",4]}}", "{" TENSOR("a", 0, 4, 1, 5) "}", 5, "shard-0000", "a hole"},
        {HEAD ONE "\"tensors\":{\"a\":[\"U8\",4]}}", "nonsense", 4, "shard-0000", "header"},
    };
    scratch d = scratch_open();
    char *folder = scratch_path(&d, "a");
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        str text = {0};
        const char *number = strstr(c[i].state, "%zu");
        if (number) {
            str_add(&text, c[i].state, (size_t)(number - c[i].state));
            str_addf(&text, "%zu%s", 8 + strlen(c[i].header) + c[i].bytes, number + 3);
        } else str_puts(&text, c[i].state);
        scratch_write(&d, "a/state.json", text.p, text.n);
        scratch_raw(&d, "a/shard-0000.safetensors", c[i].header, c[i].bytes);
        expect(folder, false, c[i].says, c[i].says_too);
        str_free(&text);
    }
    free(folder);
    scratch_close(&d);
}

static void the_same_shard_twice(void **unused) {
    (void)unused;
    scratch d = scratch_open();
    char *folder = scratch_path(&d, "a"), text[400];
    const char header[] = "{" TENSOR("a", 0, 4, 0, 4) "}",
               *entry = "{\"file\":\"shard-0000.safetensors\",\"bytes\":%zu}";
    char one[100], two[100];
    snprintf(one, sizeof one, entry, 8 + strlen(header) + 4);
    snprintf(text, sizeof text, HEAD "\"shards\":[%s,%s],\"tensors\":{\"a\":[\"U8\",4]}}", one, one);
    scratch_raw(&d, "a/shard-0000.safetensors", header, 4);
    scratch_write(&d, "a/state.json", text, strlen(text));
    expect(folder, false, "shard-0000.safetensors", "listed twice");
    scratch_raw(&d, "a/shard-0001.safetensors", header, 4);
    snprintf(two, sizeof two, "{\"file\":\"shard-0001.safetensors\",\"bytes\":%zu}", 8 + strlen(header) + 4);
    snprintf(text, sizeof text, HEAD "\"shards\":[%s,%s],\"tensors\":{\"a\":[\"U8\",4]}}", one, two);
    scratch_write(&d, "a/state.json", text, strlen(text));
    expect(folder, false, "\"a\"", "slice before");
    snprintf(text, sizeof text, HEAD "\"shards\":[%s],\"tensors\":{\"a\":[\"U8\",4]}}", one);
    scratch_write(&d, "a/state.json", text, strlen(text));
    native_file *f; /* without the lie it opens: the list above fails for its lies alone */
    error e = {0};
    if (native_open(&f, folder, false, &e) != OK) fail_msg("%s", e.text);
    native_close(f);
    expect(folder, true, "state.json", "checksum");
    free(folder);
    scratch_close(&d);
}

/* --- folders of steps ------------------------------------------------------------------------------------------- */

static void steps_and_leftovers(void **unused) {
    (void)unused;
    scratch d = scratch_open();
    static const int64_t written[] = {100000000, 20, 3};
    for (int i = 0; i < 3; i++) {
        char *p = native_step_folder(d.dir, written[i]);
        write_folder(p, 1, written[i]);
        free(p);
    }
    scratch_write(&d, "step-00000004/state.json", "{}", 2); /* another format's */
    scratch_write(&d, "step-5/state.json", "{\"format\":\"hadal-native\"}", 25);
    scratch_write(&d, "step-00000005.tmp/shard-0000.safetensors", "x", 1);
    scratch_write(&d, "step-00000006.tmp/deep/er", "x", 1);
    scratch_write(&d, "mine.tmp/x", "x", 1);
    char *old = scratch_path(&d, "step-00000007.old"), *twice = scratch_path(&d, "step-00000020.old");
    write_folder(old, 1, 7); /* a process died between the two renames of a replacement */
    write_folder(twice, 1, 8);
    int64_t *steps, count;
    error e = {0};
    assert_int_equal(native_steps(d.dir, &steps, &count, &e), OK);
    assert_int_equal(count, 3);
    assert_int_equal(steps[0], 3), assert_int_equal(steps[1], 20), assert_int_equal(steps[2], 100000000);
    free(steps);
    if (native_clean(d.dir, &e) != OK) fail_msg("%s", e.text);
    static const char *const gone[] = {"step-00000005.tmp", "step-00000006.tmp", "step-00000007.old",
                                       "step-00000020.old"};
    for (int i = 0; i < 4; i++) {
        char *p = scratch_path(&d, gone[i]);
        assert_false(file_exists(p));
        free(p);
    }
    char *mine = scratch_path(&d, "mine.tmp/x"), *seven = native_step_folder(d.dir, 7);
    assert_true(file_exists(mine));
    assert_int_equal(step_in(seven), 7);
    assert_int_equal(native_remove(seven, &e), OK);
    assert_false(file_exists(seven));
    assert_int_equal(native_remove(seven, &e), ERR_IO);
    assert_int_equal(native_steps("/nonexistent/folder", &steps, &count, &e), OK);
    assert_int_equal(count, 0);
    free(mine), free(seven), free(old), free(twice);
    scratch_close(&d);
}

static void model_folder(void **unused) {
    (void)unused;
    scratch d = scratch_open();
    scratch_write(&d, "in/config.json", "{\"a\": 1}", 8);
    scratch_write(&d, "in/tokenizer.json", "{}", 2);
    scratch_write(&d, "in/modeling.py", "x", 1);
    scratch_write(&d, "in/model.safetensors", "x", 1);
    char *in = scratch_path(&d, "in"), *out = scratch_path(&d, "run/model");
    error e = {0};
    assert_int_equal(model_folder_copy(in, out, &e), OK);
    static const char *const files[] = {"run/model/config.json", "run/model/tokenizer.json", "run/model/modeling.py",
                                        "run/model/model.safetensors"};
    for (int i = 0; i < 4; i++) {
        char *p = scratch_path(&d, files[i]);
        assert_int_equal(file_exists(p), i < 2);
        free(p);
    }
    char *config = scratch_path(&d, "in/config.json"), *other = scratch_path(&d, "other"),
         *made = scratch_path(&d, "other/config.json");
    assert_int_equal(model_folder_copy(config, other, &e), OK);
    assert_true(file_exists(made));
    str s = text_of(made);
    assert_string_equal(s.p, "{\"a\": 1}");
    str_free(&s);
    free(config), free(other), free(made);
    free(in), free(out);
    scratch_close(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_layout_any_range),
        cmocka_unit_test(wrong_questions),
        cmocka_unit_test(made_data),
        cmocka_unit_test(refused_writes),
        cmocka_unit_test(shards_that_disagree),
        cmocka_unit_test(flipped_bits),
        cmocka_unit_test(damaged_files),
        cmocka_unit_test(lies),
        cmocka_unit_test(the_same_shard_twice),
        cmocka_unit_test(steps_and_leftovers),
        cmocka_unit_test(model_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
