/* Conversion of checkpoint folders: against the reference folders, and on small folders made here that are killed,
 * cancelled, run out of disk, and lie. */
#include "../format/scratch.h"
#include <math.h>
#include <signal.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include "base/clock.h"
#include "base/json.h"
#include "base/rng.h"
#include "convert/convert.h"
#include "format/safetensors_write.h"
#include "format/weights_file.h"

/* --- a small checkpoint ---------------------------------------------------------------------------------------- */

typedef struct item {
    const char *file, *name;
    dtype type;
    int ndim;
    int64_t dim[2];
} item;

#define A "model-00001-of-000002.safetensors"
#define B "model-00002-of-000002.safetensors"

static const item fp8_items[] = {
    {A, "model.embed_tokens.weight", DT_BF16, 2, {7, 200}},
    {A, "model.layers.0.input_layernorm.weight", DT_BF16, 1, {200}},
    {A, "model.layers.0.self_attn.q_proj.weight", DT_E4M3, 2, {130, 200}},
    {B, "model.layers.0.self_attn.q_proj.weight_scale_inv", DT_F32, 2, {2, 2}}, /* in the other shard */
    {A, "model.layers.0.mlp.gate.weight", DT_BF16, 2, {4, 200}},
    {A, "model.layers.0.mlp.gate.e_score_correction_bias", DT_F32, 1, {4}},
    {B, "model.layers.1.mlp.experts.0.down_proj.weight", DT_E4M3, 2, {200, 129}},
    {B, "model.layers.1.mlp.experts.0.down_proj.weight_scale_inv", DT_F32, 2, {2, 2}},
    {B, "model.layers.1.eh_proj.weight", DT_BF16, 2, {10, 20}},
    {B, "model.layers.1.counts", DT_I64, 1, {3}},
    {B, "model.layers.1.empty", DT_BF16, 2, {0, 5}},
    {B, "lm_head.weight", DT_BF16, 2, {13, 200}},
};
enum { FP8_ITEMS = sizeof fp8_items / sizeof *fp8_items };

static const char fp8_config[] =
    "{\"model_type\":\"deepseek_v3\",\"num_hidden_layers\":1,\"num_nextn_predict_layers\":1,\"rms_norm_eps\":1e-06,"
    "\"torch_dtype\":\"bfloat16\",\"quantization_config\":{\"activation_scheme\":\"dynamic\",\"fmt\":\"e4m3\","
    "\"quant_method\":\"fp8\",\"weight_block_size\":[128,128]},\"rope_theta\":10000.0,\"third\":0.3333333333333333,"
    "\"text\":\"\xe6\xb7\xb1\",\"vocab_size\":7}";

/* Random numbers that are finite in every type; the value of element i depends on the name and i alone. */
static void *make_data(const item *x, size_t *bytes) {
    int64_t n = 1;
    for (int i = 0; i < x->ndim; i++) n *= x->dim[i];
    *bytes = (size_t)n * dtype_size(x->type);
    uint8_t *p = malloc(*bytes ? *bytes : 1);
    assert_non_null(p);
    for (int64_t i = 0; i < n; i++) {
        float v = (float)rng_normal(7, (uint64_t)strlen(x->name) * 131 + (uint64_t)x->name[13], (uint64_t)i);
        if (strstr(x->name, "scale_inv")) v = 0.001f + fabsf(v);
        uint16_t h = f32_to_bf16(v);
        if (x->type == DT_F32) memcpy(p + 4 * i, &v, 4);
        else if (x->type == DT_BF16) memcpy(p + 2 * i, &h, 2);
        else if (x->type == DT_E4M3) p[i] = f32_to_e4m3(v * 100);
        else memset(p + (size_t)i * dtype_size(x->type), (int)i + 1, dtype_size(x->type));
    }
    return p;
}

static void make_folder(const scratch *d, const char *folder, const item *items, size_t n, const char *config) {
    shard_plan *p;
    error e = {0};
    char *dir = scratch_path(d, folder);
    assert_int_equal(make_directory(dir, &e), OK);
    assert_int_equal(shard_plan_open(&p, &e), OK);
    for (size_t i = 0; i < n; i++) {
        tensor t = {.type = items[i].type, .ndim = items[i].ndim, .dim = {items[i].dim[0], items[i].dim[1]}};
        assert_int_equal(shard_plan_add(p, items[i].file, items[i].name, &t, &e), OK);
    }
    if (shard_plan_finish(p, 0, &e) != OK) fail_msg("%s", e.text);
    for (size_t i = 0; i < shard_plan_count(p); i++) {
        const planned_shard *s = shard_plan_at(p, i);
        shard_writer w;
        assert_int_equal(shard_begin(&w, s, dir, &e), OK);
        for (size_t k = 0; k < s->count; k++) {
            size_t bytes;
            void *data = make_data(&items[s->tensors[k].added], &bytes);
            assert_int_equal(shard_write(&w, data, bytes, &e), OK);
            free(data);
        }
        assert_int_equal(shard_commit(&w, &e), OK);
    }
    assert_int_equal(shard_plan_write_index(p, dir, true, &e), OK);
    shard_plan_close(p);
    char name[200];
    snprintf(name, sizeof name, "%s/config.json", folder);
    scratch_write(d, name, config, strlen(config));
    snprintf(name, sizeof name, "%s/tokenizer.json", folder);
    scratch_write(d, name, "{\"a\": 1}\n", 9);
    snprintf(name, sizeof name, "%s/modeling.py", folder);
    scratch_write(d, name, "x", 1);
    free(dir);
}

static char *in_out[2];

static convert_options options(const scratch *d, const char *in, const char *out, convert_type to) {
    for (int i = 0; i < 2; i++) {
        free(in_out[i]);
        in_out[i] = scratch_path(d, i ? out : in);
    }
    return (convert_options){.in = in_out[0], .out = in_out[1], .to = to};
}

static convert_result good(const convert_options *o) {
    convert_result r;
    error e = {0};
    if (convert_run(o, &r, &e) != OK) fail_msg("%s", e.text);
    return r;
}

static void refused(const convert_options *o, status code, const char *says) {
    convert_result r;
    error e = {0};
    status s = convert_run(o, &r, &e);
    printf("  %s\n", e.text);
    assert_int_equal(s, code);
    if (!strstr(e.text, says)) fail_msg("does not say: %s", says);
}

static weights_file *weights(const char *folder) {
    weights_file *w;
    error e = {0};
    if (weights_open(&w, folder, &e) != OK) fail_msg("%s", e.text);
    return w;
}

static const tensor *find(const weights_file *w, const char *name) {
    const weights_entry *x = weights_find(w, name);
    if (!x) fail_msg("no %s", name);
    return &x->t;
}

static json_t *config_of(const char *folder) {
    char path[700];
    json_t *j;
    error e = {0};
    snprintf(path, sizeof path, "%s/config.json", folder);
    if (json_read(&j, path, 1 << 20, &e) != OK) fail_msg("%s", e.text);
    return j;
}

static void same_tensor(const weights_entry *x, const weights_entry *y, const char *name) {
    if (!x || !y) fail_msg("%s is missing", name);
    assert_int_equal(x->t.type, y->t.type);
    assert_int_equal(x->t.ndim, y->t.ndim);
    assert_memory_equal(x->t.dim, y->t.dim, sizeof x->t.dim);
    size_t n = (size_t)tensor_count(&x->t) * dtype_size(x->t.type);
    if (n && memcmp(x->t.data, y->t.data, n) != 0) fail_msg("%s differs", name);
}

static void same_weights(const char *a, const char *b) {
    weights_file *x = weights(a), *y = weights(b);
    assert_int_equal(weights_count(x), weights_count(y));
    for (size_t i = 0; i < weights_count(x); i++) {
        const weights_entry *w = weights_at(x, i), *v = weights_find(y, w->name);
        same_tensor(w, v, w->name);
        assert_string_equal(w->file, v->file);
    }
    printf("  %zu tensors, %llu bytes equal\n", weights_count(x), (unsigned long long)weights_bytes(x));
    weights_close(x);
    weights_close(y);
}

/* --- against the reference ------------------------------------------------------------------------------------- */

static const char *const reference_names[] = {"v3_fp8", "v31_fp8_ue8m0"};

static void reference_to_bf16(void **state) {
    (void)state;
    const char *shared = shared_folder();
    if (!shared) skip();
    scratch d = scratch_open();
    for (int i = 0; i < 2; i++) {
        char in[500], want[500];
        snprintf(in, sizeof in, "%s/golden/models/%s/checkpoint", shared, reference_names[i]);
        snprintf(want, sizeof want, "%s/golden/models/%s/checkpoint_bf16_expected", shared, reference_names[i]);
        convert_options o = options(&d, "", reference_names[i], CONVERT_BF16);
        o.in = in;
        o.mtp = CONVERT_MTP_HIDE;
        good(&o);
        same_weights(want, o.out);
        json_t *a = config_of(want), *b = config_of(o.out);
        assert_true(json_equal(a, b));
        json_decref(a);
        json_decref(b);
    }
    scratch_close(&d);
}

/* src_bf16/NAME quantises to exactly the codes and scales of the checkpoint. */
static void reference_to_fp8(void **state) {
    (void)state;
    const char *shared = shared_folder();
    if (!shared) skip();
    scratch d = scratch_open();
    for (int i = 0; i < 2; i++) {
        char path[500], want[500];
        snprintf(path, sizeof path, "%s/golden/models/%s/quantize_source.safetensors", shared, reference_names[i]);
        snprintf(want, sizeof want, "%s/golden/models/%s/checkpoint", shared, reference_names[i]);
        weights_file *source = weights(path), *w = weights(want);
        safetensors_entry entries[100];
        size_t n = weights_count(source);
        assert_in_range(n, 1, 100);
        for (size_t k = 0; k < n; k++)
            entries[k] =
                (safetensors_entry){weights_at(source, k)->name + strlen("src_bf16/"), weights_at(source, k)->t};
        convert_options o = options(&d, i ? "in1" : "in0", i ? "out1" : "out0", CONVERT_FP8);
        o.scale = i ? SCALE_UE8M0 : SCALE_F32;
        error e = {0};
        assert_int_equal(safetensors_save(o.in, entries, n, SHARD_BYTES, &e), OK);
        scratch_write(&d, i ? "in1/config.json" : "in0/config.json", "{}", 2);
        good(&o);
        weights_file *made = weights(o.out);
        assert_int_equal(weights_count(made), 2 * n);
        for (size_t k = 0; k < 2 * n; k++) {
            const weights_entry *x = weights_at(made, k);
            same_tensor(x, weights_find(w, x->name), x->name);
        }
        json_t *a = config_of(want), *b = config_of(o.out);
        assert_true(json_equal(json_object_get(a, "quantization_config"), json_object_get(b, "quantization_config")));
        json_decref(a);
        json_decref(b);
        printf("  %s: %zu weights with their scales equal\n", reference_names[i], n);
        weights_close(source);
        weights_close(w);
        weights_close(made);
    }
    scratch_close(&d);
}

/* --- what becomes of which tensor ------------------------------------------------------------------------------ */

static void to_f32_by_the_formula(void **state) {
    (void)state;
    scratch d = scratch_open();
    make_folder(&d, "in", fp8_items, FP8_ITEMS, fp8_config);
    convert_options o = options(&d, "in", "out", CONVERT_F32);
    convert_result r = good(&o);
    assert_int_equal(r.shards, 2);
    assert_int_equal(r.tensors, 10);
    assert_int_equal(r.nan_codes, 0);
    weights_file *in = weights(o.in), *out = weights(o.out);
    for (size_t i = 0; i < FP8_ITEMS; i++) {
        const item *x = &fp8_items[i];
        char name[200];
        snprintf(name, sizeof name, "%s_scale_inv", x->name);
        if (strstr(x->name, "scale_inv")) {
            assert_null(weights_find(out, x->name));
            continue;
        }
        const tensor *a = find(in, x->name), *b = find(out, x->name);
        assert_string_equal(weights_find(out, x->name)->file, x->file);
        assert_int_equal(b->type, x->type == DT_I64 ? DT_I64 : DT_F32);
        const float *scale = x->type == DT_E4M3 ? find(in, name)->data : NULL;
        for (int64_t k = 0; b->type == DT_F32 && k < tensor_count(a); k++) {
            float v = dtype_load(a->type, a->data, k), got = ((const float *)b->data)[k];
            if (scale) v *= scale[k / a->dim[1] / 128 * ((a->dim[1] + 127) / 128) + k % a->dim[1] / 128];
            if (memcmp(&v, &got, 4) != 0) fail_msg("%s[%d]: %a, wanted %a", x->name, (int)k, (double)got, (double)v);
        }
    }
    assert_memory_equal(find(in, "model.layers.1.counts")->data, find(out, "model.layers.1.counts")->data, 24);
    weights_close(in);
    weights_close(out);
    scratch_close(&d);
}

static void config_is_rewritten(void **state) {
    (void)state;
    scratch d = scratch_open();
    make_folder(&d, "in", fp8_items, FP8_ITEMS, fp8_config);
    static const struct {
        convert_type to;
        convert_mtp mtp;
        const char *folder, *wanted;
    } c[] = {
#define HEAD "{\n  \"model_type\": \"deepseek_v3\",\n  \"num_hidden_layers\": 1,\n  \"num_nextn_predict_layers\": "
#define TAIL                                                                                                          \
    "  \"rope_theta\": 10000.0,\n  \"third\": 0.3333333333333333,\n  \"text\": \"\xe6\xb7\xb1\",\n  \"vocab_size\": " \
    "7\n}"
        {CONVERT_BF16, CONVERT_MTP_KEEP, "a",
         HEAD "1,\n  \"rms_norm_eps\": 1e-6,\n  \"torch_dtype\": \"bfloat16\",\n" TAIL},
        {CONVERT_F32, CONVERT_MTP_HIDE, "b",
         HEAD "0,\n  \"rms_norm_eps\": 1e-6,\n  \"torch_dtype\": \"float32\",\n" TAIL},
        {CONVERT_BF16, CONVERT_MTP_DROP, "c",
         HEAD "0,\n  \"rms_norm_eps\": 1e-6,\n  \"torch_dtype\": \"bfloat16\",\n" TAIL},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        convert_options o = options(&d, "in", c[i].folder, c[i].to);
        o.mtp = c[i].mtp;
        good(&o);
        char path[700];
        str s = {0};
        error e;
        snprintf(path, sizeof path, "%s/config.json", o.out);
        assert_int_equal(file_read(&s, path, 1 << 20, &e), OK);
        /* "third" needs 16 digits, and 1e-06 is not 9.9999999999999995e-07 */
        assert_string_equal(s.p, c[i].wanted);
        str_free(&s);
        snprintf(path, sizeof path, "%s/tokenizer.json", o.out);
        assert_int_equal(file_read(&s, path, 1 << 20, &e), OK);
        assert_string_equal(s.p, "{\"a\": 1}\n");
        str_free(&s);
        snprintf(path, sizeof path, "%s/modeling.py", o.out);
        assert_false(file_exists(path));
        snprintf(path, sizeof path, "%s/convert.json", o.out);
        assert_false(file_exists(path));
        weights_file *w = weights(o.out);
        assert_true(!weights_find(w, "model.layers.1.eh_proj.weight") == (c[i].mtp == CONVERT_MTP_DROP));
        assert_non_null(weights_find(w, "lm_head.weight"));
        assert_int_equal(weights_count(w), c[i].mtp == CONVERT_MTP_DROP ? 6 : 10);
        weights_close(w);
    }
    scratch_close(&d);
}

static const item f32_items[] = {
    {"model.safetensors", "model.embed_tokens.weight", DT_F32, 2, {7, 200}},
    {"model.safetensors", "model.norm.weight", DT_F32, 1, {200}},
    {"model.safetensors", "model.layers.0.mlp.gate.weight", DT_F32, 2, {4, 200}},
    {"model.safetensors", "model.layers.0.mlp.gate.e_score_correction_bias", DT_F32, 1, {4}},
    {"model.safetensors", "model.layers.0.mlp.experts.3.gate_proj.weight", DT_F32, 2, {129, 200}},
    {"model.safetensors", "model.layers.0.self_attn.indexer.wk.weight", DT_F32, 2, {128, 200}},
    {"model.safetensors", "model.layers.0.self_attn.indexer.weights_proj.weight", DT_F32, 2, {8, 200}},
    {"model.safetensors", "model.layers.0.self_attn.kv_b_proj.weight", DT_F32, 2, {256, 130}},
    {"model.safetensors", "model.layers.1.eh_proj.weight", DT_F32, 2, {10, 20}},
    {"model.safetensors", "lm_head.weight", DT_F32, 2, {7, 200}},
};
enum { F32_ITEMS = sizeof f32_items / sizeof *f32_items };

static void which_are_quantised(void **state) {
    (void)state;
    scratch d = scratch_open();
    make_folder(&d, "in", f32_items, F32_ITEMS, "{\"torch_dtype\":\"float32\",\"dtype\":\"float32\"}");
    convert_options o = options(&d, "in", "out", CONVERT_FP8);
    o.scale = SCALE_UE8M0;
    good(&o);
    weights_file *w = weights(o.out);
    assert_int_equal(weights_count(w), F32_ITEMS + 3);
    for (size_t i = 0; i < F32_ITEMS; i++) {
        const char *n = f32_items[i].name;
        bool fp8 = strstr(n, "gate_proj") || strstr(n, "wk.") || strstr(n, "kv_b");
        dtype wanted = fp8 ? DT_E4M3 : strstr(n, "bias") ? DT_F32 : DT_BF16;
        printf("  %-55s %s\n", n, dtype_name(find(w, n)->type));
        assert_int_equal(find(w, n)->type, wanted);
    }
    assert_int_equal(find(w, "model.layers.0.mlp.experts.3.gate_proj.weight_scale_inv")->dim[1], 2);
    weights_close(w);
    json_t *j = config_of(o.out);
    assert_string_equal(json_string_value(json_object_get(j, "torch_dtype")), "bfloat16");
    assert_string_equal(json_string_value(json_object_get(j, "dtype")), "bfloat16");
    assert_string_equal(json_string_value(json_object_get(json_object_get(j, "quantization_config"), "scale_fmt")),
                        "ue8m0");
    json_decref(j);

    /* FP8 again: a copy with the same scales, refused with the other ones */
    convert_options again = options(&d, "out", "copy", CONVERT_FP8);
    again.scale = SCALE_UE8M0;
    good(&again);
    same_weights(again.in, again.out);
    again = options(&d, "out", "other", CONVERT_FP8);
    refused(&again, ERR_ARG, "FP8 already");
    scratch_close(&d);
}

static void nan_codes(void **state) {
    (void)state;
    scratch d = scratch_open();
    uint8_t codes[200] = {[3] = 0x7f, [150] = 0xff, [151] = 0x7e};
    float scales[2] = {2, 3};
    safetensors_entry x[] = {
        {"model.a.q_proj.weight", {.data = codes, .type = DT_E4M3, .ndim = 2, .dim = {1, 200}}},
        {"model.a.q_proj.weight_scale_inv", {.data = scales, .type = DT_F32, .ndim = 2, .dim = {1, 2}}}};
    convert_options o = options(&d, "in", "out", CONVERT_BF16);
    error e;
    assert_int_equal(safetensors_save(o.in, x, 2, SHARD_BYTES, &e), OK);
    scratch_write(&d, "in/config.json", "{}", 2);
    convert_result r = good(&o);
    assert_int_equal(r.nan_codes, 2);
    assert_string_equal(r.nan_tensor, "model.a.q_proj.weight");
    weights_file *w = weights(o.out);
    const uint16_t *got = find(w, "model.a.q_proj.weight")->data;
    for (int i = 0; i < 200; i++) assert_true(isnan(bf16_to_f32(got[i])) == (i == 3 || i == 150));
    assert_true(bf16_to_f32(got[151]) == 448 * 3);
    weights_close(w);

    /* the other way NaN has no block scale */
    float bad[] = {1, NAN};
    safetensors_entry y = {"model.a.q_proj.weight", {.data = bad, .type = DT_F32, .ndim = 2, .dim = {1, 2}}};
    o = options(&d, "in2", "out2", CONVERT_FP8);
    assert_int_equal(safetensors_save(o.in, &y, 1, SHARD_BYTES, &e), OK);
    scratch_write(&d, "in2/config.json", "{}", 2);
    refused(&o, ERR_FORMAT, "\"model.a.q_proj.weight\": NaN or infinity");
    scratch_close(&d);
}

static void bad_inputs(void **state) {
    (void)state;
#define M "model.safetensors"
#define W "model.layers.0.mlp.up_proj.weight"
    static const struct {
        item items[3];
        size_t n;
        const char *config, *says;
        status code;
    } c[] = {
        {{{M, W, DT_E4M3, 2, {10, 200}}}, 1, "{}", "\"" W "\": F8_E4M3 without block scales", ERR_FORMAT},
        {{{M, W, DT_E4M3, 2, {10, 200}}, {M, W "_scale_inv", DT_F32, 2, {2, 1}}},
         2,
         "{}",
         "2 x 1 scales, the weight wants 1 x 2",
         ERR_FORMAT},
        {{{M, W, DT_E4M3, 2, {10, 200}}, {M, W "_scale_inv", DT_F32, 1, {2}}},
         2,
         "{}",
         "scales, the weight wants",
         ERR_FORMAT},
        {{{M, W, DT_E4M3, 2, {10, 200}}, {M, W "_scale_inv", DT_BF16, 2, {1, 2}}}, 2, "{}", "type BF16", ERR_FORMAT},
        {{{M, W "_scale_inv", DT_F32, 2, {1, 2}}}, 1, "{}", "the weight is missing", ERR_FORMAT},
        {{{M, W, DT_BF16, 2, {10, 200}}, {M, W "_scale_inv", DT_F32, 2, {1, 2}}},
         2,
         "{}",
         "the weight is BF16",
         ERR_FORMAT},
        {{{M, W, DT_E4M3, 1, {10}}, {M, W "_scale_inv", DT_F32, 2, {1, 1}}}, 2, "{}", "1 dimensions", ERR_UNSUPPORTED},
        {{{M, W, DT_E5M2, 2, {10, 200}}}, 1, "{}", "F8_E5M2 cannot", ERR_UNSUPPORTED},
        {{{M, W, DT_BF16, 1, {10}}}, 1, "[]", "should be an object", ERR_FORMAT},
        {{{M, W, DT_BF16, 1, {10}}}, 1, "{", "not valid JSON", ERR_FORMAT},
        {{{M, W, DT_BF16, 1, {10}}},
         1,
         "{\"quantization_config\":{\"quant_method\":\"gptq\"}}",
         "gptq",
         ERR_UNSUPPORTED},
        {{{M, W, DT_BF16, 1, {10}}},
         1,
         "{\"quantization_config\":{\"quant_method\":\"fp8\"}}",
         "weight_block_size",
         ERR_UNSUPPORTED},
        {{{M, W, DT_BF16, 1, {10}}},
         1,
         "{\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[64,128]}}",
         "weight_block_size",
         ERR_UNSUPPORTED},
        {{{M, W, DT_BF16, 1, {10}}}, 1, "{\"num_hidden_layers\":\"x\"}", "num_hidden_layers", ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        scratch d = scratch_open();
        make_folder(&d, "in", c[i].items, c[i].n, c[i].config);
        convert_options o = options(&d, "in", "out", CONVERT_BF16);
        refused(&o, c[i].code, c[i].says);
        assert_false(file_exists(o.out)); /* found before anything is written */
        scratch_close(&d);
    }
}

/* --- folders that are not ours, threads, interruptions --------------------------------------------------------- */

static void folders(void **state) {
    (void)state;
    scratch d = scratch_open();
    make_folder(&d, "in", fp8_items, FP8_ITEMS, fp8_config);
    convert_options o = options(&d, "in", "in", CONVERT_BF16);
    refused(&o, ERR_ARG, "same folder");
    char *alias = scratch_path(&d, "alias");
    assert_int_equal(symlink("in", alias), 0);
    o = options(&d, "in", "alias", CONVERT_BF16);
    refused(&o, ERR_ARG, "same folder");
    free(alias);
    scratch_write(&d, "foreign/something", "x", 1);
    o = options(&d, "in", "foreign", CONVERT_BF16);
    refused(&o, ERR_ARG, "not empty");
    o = options(&d, "none", "out", CONVERT_BF16);
    refused(&o, ERR_ARG, "not a folder");
    o = options(&d, "in", "foreign/something", CONVERT_BF16);
    refused(&o, ERR_IO, "something");
    scratch_write(&d, "no-config/model.safetensors", "\2\0\0\0\0\0\0\0{}", 10);
    o = options(&d, "no-config", "out", CONVERT_BF16);
    refused(&o, ERR_FORMAT, "config.json");
    scratch_write(&d, "no-config/config.json", "{}", 2);
    refused(&o, ERR_FORMAT, "no tensors");
    scratch_raw(&d, "no-config/model.safetensors", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
                1);
    o.mtp = CONVERT_MTP_DROP;
    refused(&o, ERR_FORMAT, "num_hidden_layers");
    o = options(&d, "in", "out/deep/er", CONVERT_BF16);
    error e;
    assert_int_equal(make_directory(o.out, &e), OK);
    int fd = open(o.out, O_RDONLY);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    refused(&o, ERR_ARG, "another conversion");
    close(fd);
    good(&o);
    refused(&o, ERR_ARG, "not empty"); /* it is finished */
    scratch_close(&d);
}

/* Every file of two folders is equal. */
static void same_files(const char *a, const char *b) {
    char command[500];
    snprintf(command, sizeof command, "diff -r '%s' '%s'", a, b);
    assert_int_equal(system(command), 0);
}

static void threads_do_not_matter(void **state) {
    (void)state;
    scratch d = scratch_open();
    static const item big[] = {{"model.safetensors", "model.a.q_proj.weight", DT_F32, 2, {300, 1100}},
                               {"model.safetensors", "model.b.q_proj.weight", DT_BF16, 2, {129, 700}}};
    make_folder(&d, "in", big, 2, "{}");
    pool *p;
    error e;
    assert_int_equal(pool_open(&p, 4, &e), OK);
    convert_options one = options(&d, "in", "one", CONVERT_FP8);
    good(&one);
    convert_options four = options(&d, "in", "four", CONVERT_FP8);
    four.threads = p;
    good(&four);
    char *first = scratch_path(&d, "one");
    same_files(first, four.out);
    free(first);
    pool_close(p);
    scratch_close(&d);
}

typedef struct stopper {
    int calls, at, how; /* at the at-th call: how 0 cancels, 1 kills this process */
    uint64_t done, total;
} stopper;

static int stop(void *arg, uint64_t done, uint64_t total, const char *what) {
    stopper *s = arg;
    assert_true(done >= s->done && done <= total && what[0]);
    s->done = done;
    s->total = total;
    if (++s->calls != s->at) return 0;
    if (s->how) kill(getpid(), SIGKILL);
    return 1;
}

/* What carries a final name is whole: every shard opens. Returns how many there are. */
static int whole_shards(const char *folder) {
    static const char *const names[] = {A, B};
    int n = 0;
    for (int i = 0; i < 2; i++) {
        char path[700];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        if (!file_exists(path)) continue;
        safetensors s;
        error e = {0};
        if (safetensors_open(&s, path, &e) != OK) fail_msg("%s", e.text);
        safetensors_close(&s);
        n++;
    }
    return n;
}

static void cancelled_and_resumed(void **state) {
    (void)state;
    scratch d = scratch_open();
    make_folder(&d, "in", fp8_items, FP8_ITEMS, fp8_config);
    convert_options o = options(&d, "in", "whole", CONVERT_BF16);
    stopper count = {0};
    o.progress = stop;
    o.progress_arg = &count;
    good(&o);
    assert_true(count.calls > 5);
    assert_int_equal(count.done, count.total);
    o = options(&d, "in", "out", CONVERT_BF16);
    stopper s = {.at = count.calls}; /* in the last tensor of the second shard */
    o.progress = stop;
    o.progress_arg = &s;
    refused(&o, ERR_CANCELLED, "cancelled");
    assert_int_equal(whole_shards(o.out), 1);

    convert_options other = o; /* another conversion may not go on here */
    other.to = CONVERT_F32;
    refused(&other, ERR_ARG, "unfinished conversion");
    other.to = CONVERT_BF16;
    other.mtp = CONVERT_MTP_HIDE;
    refused(&other, ERR_ARG, "unfinished conversion");

    stopper rest = {0};
    o.progress_arg = &rest;
    convert_result r = good(&o);
    assert_int_equal(r.shards, 2);
    assert_int_equal(r.shards_found, 1);
    assert_int_equal(rest.done, rest.total);
    char *whole = scratch_path(&d, "whole");
    same_files(whole, o.out);
    free(whole);
    scratch_close(&d);
}

static void changed_input(void **state) {
    (void)state;
    scratch d = scratch_open();
    make_folder(&d, "in", fp8_items, FP8_ITEMS, fp8_config);
    convert_options o = options(&d, "in", "out", CONVERT_BF16);
    stopper s = {.at = 3};
    o.progress = stop;
    o.progress_arg = &s;
    refused(&o, ERR_CANCELLED, "cancelled");
    make_folder(&d, "in", fp8_items, FP8_ITEMS, fp8_config);
    refused(&o, ERR_ARG, "changed input");
    scratch_close(&d);
}

static void damaged_shard_is_made_again(void **state) {
    (void)state;
    scratch d = scratch_open();
    make_folder(&d, "in", fp8_items, FP8_ITEMS, fp8_config);
    convert_options o = options(&d, "in", "out", CONVERT_BF16);
    stopper s = {.at = 7};
    o.progress = stop;
    o.progress_arg = &s;
    refused(&o, ERR_CANCELLED, "cancelled");
    assert_int_equal(whole_shards(o.out), 1);
    char path[700];
    snprintf(path, sizeof path, "%s/" A, o.out);
    assert_int_equal(truncate(path, 1000), 0);
    o.progress = NULL;
    assert_int_equal(good(&o).shards_found, 0);
    assert_int_equal(whole_shards(o.out), 2);
    scratch_close(&d);
}

/* A child converts and is killed, by itself at its at-th piece or from outside after a while; then it goes on here. */
static bool kill_once(const scratch *d, const char *name, int at, int microseconds) {
    convert_options o = options(d, "in", name, CONVERT_BF16);
    stopper s = {.at = at, .how = 1};
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        convert_result r;
        error e;
        o.progress = stop;
        o.progress_arg = &s;
        _exit(convert_run(&o, &r, &e) == OK ? 0 : 1);
    }
    if (microseconds) {
        usleep((useconds_t)microseconds);
        kill(child, SIGKILL);
    }
    int st;
    assert_int_equal(waitpid(child, &st, 0), child);
    bool killed = WIFSIGNALED(st);
    if (!killed) assert_int_equal(WEXITSTATUS(st), 0);
    char marker[700], index[700];
    snprintf(marker, sizeof marker, "%s/convert.json", o.out);
    snprintf(index, sizeof index, "%s/model.safetensors.index.json", o.out);
    int whole = whole_shards(o.out);
    if (file_exists(index)) assert_int_equal(whole, 2); /* the index comes last */
    if (!file_exists(marker) && whole) return killed;   /* finished */
    convert_result r = good(&o);
    assert_int_equal(r.shards_found, whole);
    char *wanted = scratch_path(d, "whole");
    same_files(wanted, o.out);
    free(wanted);
    return killed;
}

static void killed_at_any_time(void **state) {
    (void)state;
    scratch d = scratch_open();
    make_folder(&d, "in", fp8_items, FP8_ITEMS, fp8_config);
    convert_options o = options(&d, "in", "whole", CONVERT_BF16);
    stopper count = {0};
    o.progress = stop;
    o.progress_arg = &count;
    double start = clock_seconds();
    good(&o);
    double seconds = clock_seconds() - start;
    char name[40];
    for (int at = 1; at <= count.calls; at++) {
        snprintf(name, sizeof name, "at%d", at);
        assert_true(kill_once(&d, name, at, 0));
    }
    int killed = 0;
    enum { ROUNDS = 20 };
    for (int i = 0; i < ROUNDS; i++) {
        snprintf(name, sizeof name, "time%d", i);
        killed += kill_once(&d, name, 0, 1 + (int)(1.3e6 * seconds * (i + 0.5) / ROUNDS));
    }
    printf("  killed at each of %d pieces, and %d times of %d in the course of time\n", count.calls, killed, ROUNDS);
    scratch_close(&d);
}

static void disk_full(void **state) {
    (void)state;
    scratch d = scratch_open();
    make_folder(&d, "in", fp8_items, FP8_ITEMS, fp8_config);
    convert_options o = options(&d, "in", "out", CONVERT_BF16);
    struct rlimit old, small;
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    convert_options probe = options(&d, "in", "probe", CONVERT_BF16);
    good(&probe);
    struct stat st[2];
    for (int i = 0; i < 2; i++) {
        char path[700];
        snprintf(path, sizeof path, "%s/%s", probe.out, i ? B : A);
        assert_int_equal(stat(path, &st[i]), 0);
    }
    printf("  shards of %lld and %lld bytes\n", (long long)st[0].st_size, (long long)st[1].st_size);
    assert_true(st[0].st_size < st[1].st_size);
    small.rlim_cur = (rlim_t)st[0].st_size;
    o = options(&d, "in", "out", CONVERT_BF16);
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    convert_result r;
    error e = {0};
    status s = convert_run(&o, &r, &e);
    setrlimit(RLIMIT_FSIZE, &old);
    printf("  %s\n", e.text);
    assert_int_equal(s, ERR_IO);
    assert_non_null(strstr(e.text, "cannot write"));
    assert_int_equal(whole_shards(o.out), 1);
    char *temporary = scratch_path(&d, "out/" B ".tmp");
    assert_false(file_exists(temporary));
    free(temporary);
    r = good(&o);
    assert_int_equal(r.shards_found, 1);
    char *wanted = scratch_path(&d, "probe");
    same_files(wanted, o.out);
    free(wanted);
    scratch_close(&d);
}

static int free_paths(void **state) {
    (void)state;
    free(in_out[0]);
    free(in_out[1]);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_to_bf16),
        cmocka_unit_test(reference_to_fp8),
        cmocka_unit_test(to_f32_by_the_formula),
        cmocka_unit_test(config_is_rewritten),
        cmocka_unit_test(which_are_quantised),
        cmocka_unit_test(nan_codes),
        cmocka_unit_test(bad_inputs),
        cmocka_unit_test(folders),
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(cancelled_and_resumed),
        cmocka_unit_test(changed_input),
        cmocka_unit_test(damaged_shard_is_made_again),
        cmocka_unit_test(killed_at_any_time),
        cmocka_unit_test(disk_full),
    };
    return cmocka_run_group_tests(tests, NULL, free_paths);
}
