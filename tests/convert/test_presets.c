/* Presets and random weights: configurations against the published ones, the tiny-r1 recipe's network, ids and
 * deviations, and the folders that init makes. */
#include "../format/scratch.h"
#include <math.h>
#include "base/file.h"
#include "base/json.h"
#include "convert/init.h"
#include "format/weights_file.h"
#include "model/init.h"
#include "model/presets.h"
#include "text/template.h"
#include "text/tokenizer.h"

static model_config config_of(const char *name) {
    model_config c;
    error e;
    if (preset_or_config(&c, name, &e) != OK) fail_msg("%s", e.text);
    return c;
}

/* The files of ../shared/facts/configs, but for what only Python code reads. */
static void published_values(void **state) {
    (void)state;
    static const char *const pairs[][2] = {
        {"16b", "DeepSeek-V2-Lite"}, {"671b", "DeepSeek-V3"}, {"v3.2", "DeepSeek-V3.2"}};
    static const char *const python[] = {"auto_map",          "transformers_version", "use_cache",
                                         "attention_dropout", "pretraining_tp",       "ep_size"};
    const char *shared = getenv("HADAL_SHARED");
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char path[512];
        json_t *ours, *theirs;
        error e;
        snprintf(path, sizeof path, "%s/facts/configs/%s.json", shared ? shared : "../shared", pairs[i][1]);
        if (!file_exists(path)) skip();
        assert_int_equal(json_read(&theirs, path, 1 << 20, &e), OK);
        assert_int_equal(preset_json(&ours, pairs[i][0], &e), OK);
        for (size_t k = 0; k < sizeof python / sizeof *python; k++) json_object_del(theirs, python[k]);
        if (!json_equal(ours, theirs)) fail_msg("%s differs from %s", pairs[i][0], path);
        json_decref(ours);
        json_decref(theirs);
    }
}

static void sizes(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int64_t parameters;
    } wanted[] = {/* 756,800 (recipe) + 2 correction biases of 8 */ {"tiny", 756816},
                  /* 2 x 64 x 128 and a norm; a layer: q, o 128 x 128, k, v 64 x 128, biases 128 + 2 x 64, 3 x 192 x
                     128, two norms */
                  {"tiny-dense", 2 * 8192 + 128 + 3 * (2 * 16384 + 2 * 8192 + 256 + 73728 + 256)},
                  {"16b", 15706484224},
                  {"671b", 671026419200}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        model_config c = config_of(wanted[i].name);
        model_counts n;
        model_count(&c, &n);
        if (n.parameters != wanted[i].parameters) fail_msg("%s: %lld", wanted[i].name, (long long)n.parameters);
    }
    model_config c = config_of("debug");
    model_counts n;
    model_count(&c, &n);
    assert_true(n.parameters < 300000 && n.mtp > 0 && c.num_nextn_predict_layers == 1);
    assert_int_equal(config_of("v3.2").index_topk, 2048);
    error e = {0};
    json_t *j;
    assert_int_equal(preset_json(&j, "huge", &e), ERR_ARG);
    assert_non_null(strstr(e.text, "huge"));
    assert_null(j);
}

static tokenizer *tokenizer_of(const char *name) {
    char *text, *config;
    tokenizer *t;
    error e;
    assert_int_equal(preset_tokenizer(preset_find(name), &text, &config, &e), OK);
    if (tokenizer_parse(&t, text, strlen(text), config, strlen(config), &e) != OK) fail_msg("%s", e.text);
    free(text);
    free(config);
    return t;
}

static void encodes(const tokenizer *t, const char *text, const int32_t *wanted, size_t n) {
    int32_t *ids;
    size_t count;
    error e;
    str back = {0};
    if (tokenizer_encode(t, text, strlen(text), TOK_PARSE_SPECIAL | TOK_ADD_SPECIAL, &ids, &count, &e) != OK)
        fail_msg("%s: %s", text, e.text);
    assert_int_equal(count, n);
    assert_memory_equal(ids, wanted, n * sizeof *ids);
    tokenizer_decode(t, ids, count, false, &back);
    assert_string_equal(back.p, text);
    str_free(&back);
    free(ids);
}

/* ids 0..8 = <pad> <eos> <bos> <user> <assistant> <think> </think> <answer> </answer>, then
 * 0123456789+-*=;,:? abcdefghijklmnopqrstuvwxyz */
static void the_recipes_ids(void **state) {
    (void)state;
    assert_string_equal(preset_find("tiny")->characters, preset_find("tiny-dense")->characters);
    assert_ptr_equal(preset_find("tiny")->specials, preset_find("tiny-dense")->specials);
    tokenizer *t = tokenizer_of("tiny");
    static const int32_t tags[] = {0, 1, 2, 3, 4, 5, 6, 7, 8};
    int32_t characters[45], *ids;
    size_t n;
    error e;
    for (int i = 0; i < 45; i++) characters[i] = 9 + i;
    assert_int_equal(tokenizer_vocab_size(t), 54);
    assert_int_equal(config_of("tiny").vocab_size, 64); /* 756,800 parameters: ten rows are spare */
    encodes(t, "<pad><eos><bos><user><assistant><think></think><answer></answer>", tags, 9);
    encodes(t, "0123456789+-*=;,:? abcdefghijklmnopqrstuvwxyz", characters, 45);
    static const int32_t document[] = {3, 30, 16, 19, 17, 4, 5, 19, 17, 14, 6, 7, 14, 8, 1};
    encodes(t, "<user>c7+8<assistant><think>+85</think><answer>5</answer><eos>", document, 15);
    assert_int_equal(tokenizer_eos(t), 1);
    assert_int_equal(tokenizer_bos(t), 2);
    assert_int_equal(tokenizer_pad(t), 0);
    assert_true(tokenizer_is_special(t, 3) && !tokenizer_is_special(t, 5) && !tokenizer_is_special(t, 8));
    assert_int_equal(tokenizer_encode(t, "A", 1, 0, &ids, &n, &e), ERR_UNSUPPORTED);
    tokenizer_close(t);
}

static void every_byte_of_debug(void **state) {
    (void)state;
    tokenizer *t = tokenizer_of("debug");
    assert_int_equal(tokenizer_vocab_size(t), config_of("debug").vocab_size);
    for (int b = 0; b < 256; b++) {
        size_t n;
        const char *p = tokenizer_bytes(t, 7 + b, &n);
        assert_true(p && n == 1 && (unsigned char)*p == b);
    }
    static const int32_t ids[] = {7 + 'H', 7 + 'i', 7 + ' ', 7 + 0xC3, 7 + 0xA9, 7 + '\n'};
    encodes(t, "Hi \xC3\xA9\n", ids, 6);
    tokenizer_close(t);
}

/* What a trainer that starts from a preset leaves beside its weights. */
static void folder_of_a_preset(void **state) {
    (void)state;
    scratch d = scratch_open();
    model_config c;
    tokenizer *t;
    error e;
    assert_int_equal(preset_write(preset_find("tiny"), d.dir, &e), OK);
    assert_int_equal(config_open(&c, d.dir, &e), OK);
    assert_int_equal(c.n_routed_experts, 8);
    assert_int_equal(tokenizer_open(&t, d.dir, &e), OK);
    assert_int_equal(tokenizer_eos(t), c.eos_ids[0]);
    tokenizer_close(t);
    scratch_close(&d);
}

static void chat_form(void **state) {
    (void)state;
    tokenizer *t = tokenizer_of("tiny");
    const char *text = tokenizer_chat_template(t);
    chat_template *c;
    str out = {0};
    error e;
    assert_non_null(text);
    assert_int_equal(template_open(&c, text, strlen(text), &e), OK);
    json_t *v = json_loads("{\"messages\": [{\"role\": \"user\", \"content\": \"c1+1\"}, {\"role\": \"assistant\", "
                           "\"content\": \"2\"}, {\"role\": \"user\", \"content\": \"c2+2\"}], "
                           "\"add_generation_prompt\": true}",
                           0, NULL);
    if (template_render(c, v, &out, &e) != OK) fail_msg("%s", e.text);
    assert_string_equal(out.p, "<user>c1+1<assistant>2<eos><user>c2+2<assistant>");
    json_decref(v);
    str_free(&out);
    template_close(c);
    tokenizer_close(t);
}

/* --- deviations -------------------------------------------------------------------------------------------------- */

typedef struct measure {
    const model_config *c;
    int seen;
} measure;

static double wanted_deviation(const weight_item *w) {
    if (strcmp(w->name, "model.embed_tokens.weight") == 0) return 0.7;
    if (strcmp(w->name, "lm_head.weight") == 0) return 0.02;
    bool branch = strstr(w->name, "o_proj") || strstr(w->name, "down_proj");
    return (branch ? 0.3 : 1) / sqrt((double)w->dim[1]);
}

/* The deviation of n normal numbers has itself one of about 1 / sqrt(2 n): 6 of those are never seen by chance. */
static status measure_one(void *arg, const weight_item *w) {
    measure *k = arg;
    const int64_t n = w->dim[0] * w->dim[1];
    float *x = malloc((size_t)n * sizeof *x);
    double sum = 0, squares = 0;
    assert_non_null(x);
    init_fill(k->c, 5, w, x);
    for (int64_t i = 0; i < n; i++) {
        sum += (double)x[i];
        squares += (double)x[i] * (double)x[i];
    }
    if (w->slot->flags & W_ONES) assert_true(sum == (double)n && squares == (double)n);
    else if (w->slot->flags & W_ZERO) assert_true(squares == 0);
    else {
        const double d = k->c->init_fan_in ? wanted_deviation(w) : k->c->initializer_range, noise = 6 / sqrt((double)n);
        if (fabs(sqrt(squares / (double)n) / d - 1) > noise) fail_msg("%s: deviation is not %g", w->name, d);
        if (fabs(sum / (double)n) > d * noise) fail_msg("%s: mean %g", w->name, sum / (double)n);
        k->seen++;
    }
    free(x);
    return OK;
}

static void deviations(void **state) {
    (void)state;
    static const char *const names[] = {"tiny", "tiny-dense", "debug"};
    for (int i = 0; i < 3; i++) {
        model_config c = config_of(names[i]);
        measure k = {&c, 0};
        assert_int_equal(model_each_weight(&c, measure_one, &k), OK);
        assert_true(k.seen > (i == 1 ? 20 : 60)); /* a dense layer has seven matrices */
        assert_int_equal(c.init_fan_in, i < 2);
    }
}

/* --- folders ----------------------------------------------------------------------------------------------------- */

static status make(const char *config, const char *out, const char *type, uint64_t seed, init_result *r, error *e) {
    init_options o = {.config = config, .out = out, .seed = seed, .type = type};
    return init_run(&o, r, e);
}

static status same_as_memory(void *arg, const weight_item *w) {
    const weights_file *f = arg;
    model_config c = config_of("debug");
    const weights_entry *t = weights_find(f, w->name);
    const size_t n = (size_t)(w->dim[0] * w->dim[1]);
    float *x = malloc(n * sizeof *x);
    assert_true(t && x);
    assert_int_equal(t->t.type, DT_F32);
    init_fill(&c, 9, w, x);
    assert_memory_equal(t->t.data, x, n * sizeof *x);
    free(x);
    return OK;
}

/* A file's numbers are those that a trainer makes in memory; MTP copies are those of the main model. */
static void files_and_memory(void **state) {
    (void)state;
    scratch d = scratch_open();
    char *out = scratch_path(&d, "debug");
    init_result r;
    error e;
    model_config c = config_of("debug");
    weights_file *f;
    if (make("debug", out, NULL, 9, &r, &e) != OK) fail_msg("%s", e.text);
    assert_string_equal(r.type, "f32");
    assert_string_equal(r.model_type, "deepseek_v3");
    assert_int_equal(weights_open_in_place(&f, out, &e), OK);
    assert_int_equal(r.tensors, weights_count(f));
    assert_int_equal(model_each_weight(&c, same_as_memory, f), OK);
    const weights_entry *a = weights_find(f, "model.embed_tokens.weight"),
                        *b = weights_find(f, "model.layers.3.embed_tokens.weight");
    assert_memory_equal(a->t.data, b->t.data, (size_t)tensor_count(&a->t) * sizeof(float));
    weights_close(f);
    tokenizer *t;
    assert_int_equal(tokenizer_open(&t, out, &e), OK);
    tokenizer_close(t);
    model *m;
    if (model_open(&m, out, &e) != OK) fail_msg("%s", e.text);
    model_close(m);
    free(out);
    scratch_close(&d);
}

static void number_types(void **state) {
    (void)state;
    static const char *const types[] = {"f32", "bf16", "fp8"};
    static const dtype wanted[] = {DT_F32, DT_BF16, DT_E4M3};
    scratch d = scratch_open();
    for (int i = 0; i < 3; i++) {
        char *out = scratch_path(&d, types[i]);
        init_result r;
        error e;
        weights_file *f;
        model_config c;
        if (make("debug", out, types[i], 1, &r, &e) != OK) fail_msg("%s", e.text);
        assert_string_equal(r.type, types[i]);
        assert_int_equal(config_open(&c, out, &e), OK); /* config.json says so, too */
        assert_int_equal(c.fp8, i == 2);
        assert_int_equal(weights_open_in_place(&f, out, &e), OK);
        assert_int_equal(weights_find(f, "model.layers.1.mlp.experts.3.up_proj.weight")->t.type, wanted[i]);
        assert_int_equal(weights_find(f, "lm_head.weight")->t.type, i == 0 ? DT_F32 : DT_BF16);
        assert_int_equal(weights_find(f, "model.layers.1.mlp.gate.e_score_correction_bias")->t.type, DT_F32);
        weights_close(f);
        free(out);
    }
    init_result r;
    error e;
    char *out = scratch_path(&d, "other");
    assert_int_equal(make("debug", out, "f16", 1, &r, &e), ERR_ARG);
    assert_non_null(strstr(e.text, "f16"));
    assert_false(file_exists(out));
    free(out);
    scratch_close(&d);
}

static int stop_at_once(void *arg, uint64_t done, uint64_t total, const char *what) {
    (void)done;
    (void)total;
    (void)what;
    return ++*(int *)arg > 3;
}

static void nothing_is_overwritten(void **state) {
    (void)state;
    scratch d = scratch_open();
    char *out = scratch_path(&d, "out"), *note = path_join(out, "notes.txt");
    init_result r;
    error e;
    int calls = 0;
    init_options o = {.config = "debug", .out = out, .seed = 1, .progress = stop_at_once, .arg = &calls};
    assert_int_equal(init_run(&o, &r, &e), ERR_CANCELLED);
    assert_int_equal(make("debug", out, NULL, 2, &r, &e), ERR_ARG); /* unfinished, of another seed */
    assert_int_equal(make("tiny", out, NULL, 1, &r, &e), ERR_ARG);
    assert_int_equal(make("debug", out, NULL, 1, &r, &e), OK);      /* goes on */
    assert_int_equal(make("debug", out, NULL, 1, &r, &e), ERR_ARG); /* finished: never again */
    assert_non_null(strstr(e.text, "not empty"));
    free(out);
    free(note);
    out = scratch_path(&d, "mine");
    note = path_join(out, "notes.txt");
    assert_int_equal(make_directory(out, &e), OK);
    assert_int_equal(file_save(note, "x", 1, &e), OK);
    assert_int_equal(make("debug", out, NULL, 1, &r, &e), ERR_ARG);
    assert_non_null(strstr(e.text, "notes.txt"));
    free(out);
    free(note);
    scratch_close(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(published_values), cmocka_unit_test(sizes),
                                       cmocka_unit_test(the_recipes_ids),  cmocka_unit_test(every_byte_of_debug),
                                       cmocka_unit_test(chat_form),        cmocka_unit_test(folder_of_a_preset),
                                       cmocka_unit_test(deviations),       cmocka_unit_test(files_and_memory),
                                       cmocka_unit_test(number_types),     cmocka_unit_test(nothing_is_overwritten)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
