/* Native checkpoints of training from and to Hugging Face folders. */
#include "../format/scratch.h"
#include <dirent.h>
#include "base/json.h"
#include "base/rng.h"
#include "convert/convert.h"
#include "format/model_files.h"
#include "format/native.h"
#include "format/safetensors_write.h"
#include "format/weights_file.h"
#include "model/model.h"

/* --- helpers ---------------------------------------------------------------------------------------------------- */

static status try(const char *in, const char *out, convert_type to, convert_mtp mtp, convert_result *r, error *e) {
    pool *p;
    TRY(pool_open(&p, 3, e));
    convert_options o = {.in = in, .out = out, .to = to, .mtp = mtp, .threads = p};
    status s = convert_run(&o, r, e);
    pool_close(p);
    return s;
}

static convert_result good(const char *in, const char *out, convert_type to) {
    convert_result r;
    error e = {0};
    if (try(in, out, to, CONVERT_MTP_KEEP, &r, &e) != OK) fail_msg("%s", e.text);
    return r;
}

static void refused(const char *in, const char *out, convert_type to, convert_mtp mtp, const char *says) {
    convert_result r;
    error e = {0};
    status s = try(in, out, to, mtp, &r, &e);
    if (s == OK) fail_msg("accepted, should say: %s", says);
    if (!strstr(e.text, says) || strchr(e.text, '\n')) fail_msg("\"%s\" does not say \"%s\"", e.text, says);
}

static void same_file(const char *a, const char *b, const char *name) {
    char *x = path_join(a, name), *y = path_join(b, name);
    str s = {0}, t = {0};
    error e = {0};
    if (file_read(&s, x, 1 << 28, &e) != OK || file_read(&t, y, 1 << 28, &e) != OK) fail_msg("%s", e.text);
    if (s.n != t.n || memcmp(s.p, t.p, s.n) != 0) fail_msg("%s and %s differ", x, y);
    str_free(&s), str_free(&t);
    free(x), free(y);
}

static bool ends_in(const char *s, const char *end) {
    return strlen(s) >= strlen(end) && strcmp(s + strlen(s) - strlen(end), end) == 0;
}

/* Every file of a is in b, byte by byte (the index by its content), and nothing else is. */
static int same_folder(const char *a, const char *b) {
    int files = 0, others = 0;
    DIR *d = opendir(a);
    assert_non_null(d);
    for (const struct dirent *x; (x = readdir(d));) {
        if (*x->d_name == '.' || ends_in(x->d_name, ".py")) continue;
        files++;
        if (!ends_in(x->d_name, ".index.json")) same_file(a, b, x->d_name);
    }
    closedir(d);
    d = opendir(b);
    assert_non_null(d);
    for (const struct dirent *x; (x = readdir(d));) others += *x->d_name != '.';
    closedir(d);
    assert_int_equal(files, others);
    return files;
}

static weights_file *weights(const char *folder) {
    weights_file *w;
    error e = {0};
    if (weights_open(&w, folder, &e) != OK) fail_msg("%s", e.text);
    return w;
}

static void same_weights(const char *a, const char *b) {
    weights_file *x = weights(a), *y = weights(b);
    assert_int_equal(weights_count(x), weights_count(y));
    for (size_t i = 0; i < weights_count(x); i++) {
        const weights_entry *w = weights_at(x, i), *v = weights_find(y, w->name);
        if (!v) fail_msg("%s is missing", w->name);
        assert_int_equal(w->t.type, v->t.type);
        assert_memory_equal(w->t.dim, v->t.dim, sizeof w->t.dim);
        if (memcmp(w->t.data, v->t.data, (size_t)tensor_count(&w->t) * dtype_size(w->t.type)) != 0)
            fail_msg("%s differs", w->name);
    }
    weights_close(x), weights_close(y);
}

static json_t *read_json(const char *folder, const char *name) {
    char *path = path_join(folder, name);
    json_t *j;
    error e = {0};
    if (json_read(&j, path, 1 << 24, &e) != OK) fail_msg("%s", e.text);
    free(path);
    return j;
}

static native_file *open_step(const char *run, int64_t step) {
    char *path = native_step_folder(run, step);
    native_file *f;
    error e = {0};
    if (native_open(&f, path, true, &e) != OK) fail_msg("%s", e.text);
    free(path);
    return f;
}

/* The models of tests/data, and those of the shared folder when it is there. */
typedef void per_model(const char *checkpoint, const char *name, bool fp8);

static int each_model(per_model *f) {
    const char *shared = shared_folder();
    int count = 0;
    for (int k = 0; k < 2; k++) {
        char root[400];
        if (k == 0) snprintf(root, sizeof root, "tests/data/models");
        else if (shared) snprintf(root, sizeof root, "%s/golden/models", shared);
        else break;
        DIR *d = opendir(root);
        if (!d) continue;
        for (const struct dirent *x; (x = readdir(d));) {
            char folder[800];
            snprintf(folder, sizeof folder, "%s/%s/checkpoint", root, x->d_name);
            if (*x->d_name == '.' || !is_directory(folder)) continue;
            json_t *c = read_json(folder, "config.json");
            f(folder, x->d_name, json_object_get(c, "quantization_config") != NULL);
            json_decref(c);
            count++;
        }
        closedir(d);
    }
    return count;
}

/* --- there and back --------------------------------------------------------------------------------------------- */

static void round_trip(const char *in, const char *name, bool fp8) {
    scratch d = scratch_open();
    char *run = scratch_path(&d, "run"), *out = scratch_path(&d, "out"), *other = scratch_path(&d, "other");
    convert_result a, b;
    error e = {0};
    /* v3_fp8 and v31_fp8_ue8m0 may hide MTP layers: num_nextn_predict_layers is 0 and their tensors are there */
    if (try(in, run, CONVERT_NATIVE, CONVERT_MTP_KEEP, &a, &e) != OK) fail_msg("%s: %s", name, e.text);
    b = good(run, out, CONVERT_SAME);
    assert_int_equal(b.shards_found, 0);
    if (!fp8) {
        printf("  %s: %d files equal\n", name, same_folder(in, out));
        json_t *x = read_json(in, "config.json"), *y = read_json(out, "config.json");
        assert_true(json_equal(x, y));
        json_decref(x), json_decref(y);
    } else { /* rounded once, as convert does at one go */
        good(in, other, CONVERT_BF16);
        same_weights(other, out);
        same_file(other, out, "config.json");
    }
    /* the other type, from a step's own folder */
    char *step = native_step_folder(run, 0), *f32 = scratch_path(&d, "f32"), *want = scratch_path(&d, "want");
    good(step, f32, CONVERT_F32);
    good(in, want, CONVERT_F32);
    same_weights(want, f32);
    native_file *f = open_step(run, 0);
    for (int64_t i = 0; i < native_count(f); i++) assert_int_equal(native_tensor(f, i)->type, DT_F32);
    assert_int_equal(json_integer_value(json_object_get(native_state(f), "step")), 0);
    native_close(f);
    free(run), free(out), free(other), free(step), free(f32), free(want);
    scratch_close(&d);
}

static void there_and_back(void **unused) {
    (void)unused;
    int n = each_model(round_trip);
    if (!n) skip();
    printf("  %d models\n", n);
}

/* Cuts the weights of a step, laid one behind the other, into three ranges written by three ranks as a later step, with
 * moments as training has them. */
static void write_as_ranks(const char *run, int64_t step) {
    enum { RANKS = 3 };
    native_file *f = open_step(run, 0);
    char *folder = native_step_folder(run, step);
    native_shard shards[RANKS];
    int64_t total = 0, count = native_count(f);
    error e = {0};
    for (int64_t i = 0; i < count; i++) total += native_tensor(f, i)->n;
    assert_int_equal(native_begin(folder, &e), OK);
    for (int r = 0; r < RANKS; r++) {
        int64_t from = total * r / RANKS, to = total * (r + 1) / RANKS, at = 0, n = 0;
        native_slice *list = calloc((size_t)count * 2, sizeof *list);
        char(*names)[200] = calloc((size_t)count, sizeof *names);
        for (int64_t i = 0; i < count; at += native_tensor(f, i++)->n) {
            const native_slice *x = native_tensor(f, i);
            int64_t a = from > at ? from - at : 0, b = to - at < x->n ? to - at : x->n;
            if (a >= b) continue;
            float *data = malloc((size_t)(b - a) * sizeof *data);
            assert_int_equal(native_read(f, x->name, a, b - a, data, &e), OK);
            list[n] = *x;
            list[n].first = a;
            list[n].n = b - a;
            list[n].data = data;
            list[n + 1] = list[n];
            snprintf(names[i], sizeof names[i], "%s.exp_avg", x->name);
            list[n + 1].name = names[i];
            n += 2;
        }
        if (native_write_shard(folder, r, list, n, &shards[r], &e) != OK) fail_msg("%s", e.text);
        for (int64_t i = 0; i < n; i += 2) free((void *)list[i].data);
        free(list), free(names);
    }
    if (native_finish(folder, shards, RANKS, native_state(f), &e) != OK) fail_msg("%s", e.text);
    for (int r = 0; r < RANKS; r++) native_shard_free(&shards[r]);
    free(folder);
    native_close(f);
}

static void ranks_round_trip(const char *in, const char *name, bool fp8) {
    (void)name;
    if (fp8) return;
    scratch d = scratch_open();
    char *run = scratch_path(&d, "run"), *out = scratch_path(&d, "out");
    good(in, run, CONVERT_NATIVE);
    write_as_ranks(run, 12);
    good(run, out, CONVERT_SAME); /* the newest step */
    same_folder(in, out);
    free(run), free(out);
    scratch_close(&d);
}

static void three_ranks_there_and_back(void **unused) {
    (void)unused;
    if (!each_model(ranks_round_trip)) skip();
}

/* --- small models made here ------------------------------------------------------------------------------------- */

static const char small[] =
    "{\"architectures\": [\"DeepseekV3ForCausalLM\"], \"model_type\": \"deepseek_v3\", \"vocab_size\": 29,\n"
    " \"hidden_size\": 16, \"intermediate_size\": 24, \"moe_intermediate_size\": 8, \"num_hidden_layers\": 2,\n"
    " \"num_nextn_predict_layers\": 1, \"num_attention_heads\": 2, \"num_key_value_heads\": 2, \"n_routed_experts\": "
    "4,\n"
    " \"n_shared_experts\": 1, \"num_experts_per_tok\": 2, \"n_group\": 1, \"topk_group\": 1, "
    "\"first_k_dense_replace\": 1,\n"
    " \"moe_layer_freq\": 1, \"topk_method\": \"noaux_tc\", \"scoring_func\": \"sigmoid\", \"norm_topk_prob\": true,\n"
    " \"routed_scaling_factor\": 2.5, \"q_lora_rank\": 8, \"kv_lora_rank\": 8, \"qk_nope_head_dim\": 8,\n"
    " \"qk_rope_head_dim\": 8, \"v_head_dim\": 8, \"rope_theta\": 10000.0, \"rms_norm_eps\": 1e-06,\n"
    " \"max_position_embeddings\": 64, \"hidden_act\": \"silu\", \"attention_bias\": false, \"initializer_range\": "
    "0.02,\n"
    " \"tie_word_embeddings\": false, \"torch_dtype\": \"bfloat16\"}\n";

typedef struct made {
    safetensors_entry list[200];
    char names[200][160];
    size_t n;
    bool same;
} made;

/* Random BF16 numbers, F32 for the correction bias; the MTP layer's copies have other names' numbers when `same`. */
static status make_weight(void *arg, const weight_item *w) {
    made *m = arg;
    const char *stream = w->name;
    int64_t n = w->dim[0] * w->dim[1];
    dtype type = w->slot->flags & W_F32 ? DT_F32 : DT_BF16;
    if (m->same && ends_in(w->name, ".2.embed_tokens.weight")) stream = "model.embed_tokens.weight";
    if (m->same && ends_in(w->name, "shared_head.head.weight")) stream = "lm_head.weight";
    uint64_t h = 7;
    for (const char *c = stream; *c; c++) h = h * 131 + (uint64_t)*c;
    uint8_t *data = malloc((size_t)n * 4);
    for (int64_t i = 0; i < n; i++) {
        float x = (float)rng_normal(7, h, (uint64_t)i);
        uint16_t half = f32_to_bf16(x);
        memcpy(data + (size_t)i * dtype_size(type), type == DT_F32 ? (void *)&x : (void *)&half, dtype_size(type));
    }
    assert_in_range(m->n, 0, 199);
    snprintf(m->names[m->n], sizeof *m->names, "%s", w->name);
    m->list[m->n] = (safetensors_entry){
        m->names[m->n], {.data = data, .type = type, .ndim = w->ndim, .dim = {w->dim[0], w->ndim > 1 ? w->dim[1] : 0}}};
    m->n++;
    return OK;
}

/* A Hugging Face folder of the configuration `small`. */
static char *make_small(const scratch *d, const char *name, bool same) {
    char *config = scratch_path(d, "small.json"), *out = scratch_path(d, name), path[200];
    made *m = calloc(1, sizeof *m);
    model_config c;
    error e = {0};
    m->same = same;
    scratch_write(d, "small.json", small, strlen(small));
    if (config_open(&c, config, &e) != OK) fail_msg("%s", e.text);
    assert_int_equal(model_each_weight(&c, make_weight, m), OK);
    if (safetensors_save(out, m->list, m->n, SHARD_BYTES, &e) != OK) fail_msg("%s", e.text);
    snprintf(path, sizeof path, "%s/config.json", name);
    scratch_write(d, path, small, strlen(small));
    for (size_t i = 0; i < m->n; i++) free((void *)m->list[i].t.data);
    free(m), free(config);
    return out;
}

static void copies_of_mtp_layers(void **unused) {
    (void)unused;
    for (int same = 0; same < 2; same++) {
        scratch d = scratch_open();
        char *in = make_small(&d, "in", same), *run = scratch_path(&d, "run"), *out = scratch_path(&d, "out");
        good(in, run, CONVERT_NATIVE);
        native_file *f = open_step(run, 0);
        assert_int_equal(json_is_true(json_object_get(native_state(f), "mtp_copies")), same);
        assert_int_equal(!native_find(f, "model.layers.2.embed_tokens.weight"), same);
        assert_int_equal(!native_find(f, "model.layers.2.shared_head.head.weight"), same);
        native_close(f);
        good(run, out, CONVERT_SAME);
        same_folder(in, out);
        free(in), free(run), free(out);
        scratch_close(&d);
    }
}

static void mtp_layers_left_out(void **unused) {
    (void)unused;
    scratch d = scratch_open();
    char *in = make_small(&d, "in", true), *want = scratch_path(&d, "want"), *run = scratch_path(&d, "run"),
         *a = scratch_path(&d, "a"), *b = scratch_path(&d, "b"), *run2 = scratch_path(&d, "run2");
    convert_result r;
    error e = {0};
    assert_int_equal(try(in, want, CONVERT_BF16, CONVERT_MTP_DROP, &r, &e), OK);
    if (try(in, run, CONVERT_NATIVE, CONVERT_MTP_DROP, &r, &e) != OK) fail_msg("%s", e.text);
    good(run, a, CONVERT_SAME);
    same_weights(want, a);
    same_file(want, a, "config.json");
    good(in, run2, CONVERT_NATIVE);
    assert_int_equal(try(run2, b, CONVERT_SAME, CONVERT_MTP_DROP, &r, &e), OK);
    same_weights(want, b);
    same_file(want, b, "config.json");
    free(in), free(want), free(run), free(a), free(b), free(run2);
    scratch_close(&d);
}

/* Some weights had a type of their own. */
static void exceptional_types(void **unused) {
    (void)unused;
    scratch d = scratch_open();
    char *raw = make_small(&d, "raw2", true), *in = scratch_path(&d, "in"), *run = scratch_path(&d, "run"),
         *out = scratch_path(&d, "out"), *f32 = scratch_path(&d, "f32");
    weights_file *w = weights(raw);
    size_t n = weights_count(w);
    safetensors_entry *list = calloc(n, sizeof *list);
    float x[16 * 4];
    for (int i = 0; i < 64; i++) x[i] = (float)rng_normal(1, 2, (uint64_t)i);
    uint16_t bias[4] = {0x3f80, 0x4000, 0xbf80, 0};
    for (size_t i = 0; i < n; i++) {
        list[i] = (safetensors_entry){weights_at(w, i)->name, weights_at(w, i)->t};
        if (ends_in(list[i].name, "1.mlp.gate.weight")) list[i].t.type = DT_F32, list[i].t.data = x;
        if (ends_in(list[i].name, "1.mlp.gate.e_score_correction_bias"))
            list[i].t.type = DT_BF16, list[i].t.data = bias;
    }
    error e = {0};
    assert_int_equal(safetensors_save(in, list, n, SHARD_BYTES, &e), OK);
    scratch_write(&d, "in/config.json", small, strlen(small));
    good(in, run, CONVERT_NATIVE);
    good(run, out, CONVERT_SAME);
    same_folder(in, out);
    good(run, f32, CONVERT_F32);
    weights_file *v = weights(f32);
    for (size_t i = 0; i < weights_count(v); i++) assert_int_equal(weights_at(v, i)->t.type, DT_F32);
    weights_close(v), weights_close(w);
    free(list), free(raw), free(in), free(run), free(out), free(f32);
    scratch_close(&d);
}

/* --- several shards, interruption -------------------------------------------------------------------------------- */

static int stop_at(void *arg, uint64_t done, uint64_t total, const char *what) {
    (void)what;
    assert_true(done <= total);
    return done > *(uint64_t *)arg;
}

static void interrupted(void **unused) {
    (void)unused;
    scratch d = scratch_open();
    char *in = make_small(&d, "in", true), *run = scratch_path(&d, "run"), *out = scratch_path(&d, "out"),
         *step = native_step_folder(run, 0);
    uint64_t most = 5000;
    convert_options o = {.in = in, .out = run, .to = CONVERT_NATIVE, .progress = stop_at, .progress_arg = &most};
    convert_result r;
    error e = {0};
    assert_int_equal(convert_run(&o, &r, &e), ERR_CANCELLED);
    assert_false(file_exists(step));
    refused(run, out, CONVERT_SAME, CONVERT_MTP_KEEP, "needs a type"); /* nothing native yet */
    good(in, run, CONVERT_NATIVE);
    o = (convert_options){.in = run, .out = out, .to = CONVERT_SAME, .progress = stop_at, .progress_arg = &most};
    assert_int_equal(convert_run(&o, &r, &e), ERR_CANCELLED);
    refused(run, out, CONVERT_F32, CONVERT_MTP_KEEP, "unfinished");
    good(run, out, CONVERT_SAME);
    same_folder(in, out);
    free(in), free(run), free(out), free(step);
    scratch_close(&d);
}

/* --- what does not fit ------------------------------------------------------------------------------------------ */

/* The small folder with one tensor left out (NULL: none), one renamed, one reshaped. */
static char *spoil(const scratch *d, const char *good_one, const char *name, const char *without, const char *renamed,
                   const char *reshaped) {
    char *out = scratch_path(d, name), path[200];
    weights_file *w = weights(good_one);
    size_t n = weights_count(w), k = 0;
    safetensors_entry *list = calloc(n, sizeof *list);
    for (size_t i = 0; i < n; i++) {
        const weights_entry *x = weights_at(w, i);
        if (without && strcmp(x->name, without) == 0) continue;
        list[k] = (safetensors_entry){renamed && strcmp(x->name, renamed) == 0 ? "model.extra" : x->name, x->t};
        if (reshaped && strcmp(x->name, reshaped) == 0) {
            list[k].t.dim[0] = x->t.dim[1];
            list[k].t.dim[1] = x->t.dim[0];
        }
        k++;
    }
    error e = {0};
    assert_int_equal(safetensors_save(out, list, k, SHARD_BYTES, &e), OK);
    snprintf(path, sizeof path, "%s/config.json", name);
    scratch_write(d, path, small, strlen(small));
    free(list);
    weights_close(w);
    return out;
}

static void wrong_models(void **unused) {
    (void)unused;
    scratch d = scratch_open();
    char *in = make_small(&d, "in", true), *run = scratch_path(&d, "run");
    static const struct {
        const char *without, *renamed, *reshaped, *says;
        convert_mtp mtp;
    } c[] = {
        {"model.norm.weight", NULL, NULL, "\"model.norm.weight\" is missing", CONVERT_MTP_KEEP},
        {"model.layers.1.mlp.experts.3.up_proj.weight", NULL, NULL, "\"model.layers.1.mlp.experts.3.up_proj.weight\"",
         CONVERT_MTP_KEEP},
        {"model.layers.2.enorm.weight", NULL, NULL, "\"model.layers.2.enorm.weight\" is missing", CONVERT_MTP_KEEP},
        {NULL, "model.layers.2.shared_head.head.weight", NULL, "\"model.extra\" is no weight", CONVERT_MTP_KEEP},
        {NULL, NULL, "lm_head.weight", "\"lm_head.weight\" has shape [16, 29]", CONVERT_MTP_KEEP},
        {NULL, NULL, NULL, "keep or drop", CONVERT_MTP_HIDE},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        char name[20];
        snprintf(name, sizeof name, "bad%zu", i);
        char *bad = spoil(&d, in, name, c[i].without, c[i].renamed, c[i].reshaped);
        refused(bad, run, CONVERT_NATIVE, c[i].mtp, c[i].says);
        assert_false(file_exists(run)); /* found before anything is written */
        free(bad);
    }
    refused(in, in, CONVERT_NATIVE, CONVERT_MTP_KEEP, "same folder");
    refused(in, run, CONVERT_SAME, CONVERT_MTP_KEEP, "needs a type");
    good(in, run, CONVERT_NATIVE);
    refused(in, run, CONVERT_NATIVE, CONVERT_MTP_KEEP, "not empty");
    refused(run, in, CONVERT_NATIVE, CONVERT_MTP_KEEP, "native already");
    free(in), free(run);
    scratch_close(&d);
}

/* The tensors of a step again, changed by the caller, with this state. */
static void write_step(const char *run, int64_t step, const char *without, const char *extra, const char *reshaped,
                       const char *state_text) {
    native_file *f = open_step(run, 0);
    int64_t count = native_count(f), n = 0;
    native_slice *list = calloc((size_t)count + 1, sizeof *list);
    error e = {0};
    for (int64_t i = 0; i < count; i++) {
        const native_slice *x = native_tensor(f, i);
        if (without && strcmp(without, x->name) == 0) continue;
        float *data = malloc((size_t)x->n * sizeof *data);
        assert_int_equal(native_read(f, x->name, 0, x->n, data, &e), OK);
        list[n] = *x;
        list[n].data = data;
        if (reshaped && strcmp(reshaped, x->name) == 0) list[n].dim[0] = x->dim[1], list[n].dim[1] = x->dim[0];
        n++;
    }
    if (extra) {
        list[n] = list[0];
        list[n].name = extra;
    }
    char *folder = native_step_folder(run, step);
    native_shard shard;
    json_t *state = state_text ? json_loads(state_text, 0, NULL) : json_incref((json_t *)native_state(f));
    assert_int_equal(native_begin(folder, &e), OK);
    if (native_write_shard(folder, 0, list, n + (extra != NULL), &shard, &e) != OK) fail_msg("%s", e.text);
    if (native_finish(folder, &shard, 1, state, &e) != OK) fail_msg("%s", e.text);
    for (int64_t i = 0; i < n; i++) free((void *)list[i].data);
    free(list), free(folder);
    json_decref(state);
    native_shard_free(&shard);
    native_close(f);
}

static void wrong_checkpoints(void **unused) {
    (void)unused;
    scratch d = scratch_open();
    char *in = make_small(&d, "in", true), *run = scratch_path(&d, "run"), *out = scratch_path(&d, "out");
    good(in, run, CONVERT_NATIVE);
    static const struct {
        const char *without, *extra, *reshaped, *state, *says;
    } c[] = {
        {"lm_head.weight", NULL, NULL, NULL, "\"lm_head.weight\" is missing"},
        {NULL, "model.extra", NULL, NULL, "\"model.extra\" is no weight"},
        {NULL, "model.extra.exp_avg", NULL, NULL, "\"model.extra.exp_avg\" is no weight"},
        {NULL, NULL, "lm_head.weight", NULL, "\"lm_head.weight\" has shape [16, 29]"},
        {NULL, NULL, NULL, "{\"dtype\": \"F8_E4M3\"}", "\"dtype\""},
        {NULL, NULL, NULL, "{\"dtype\": 3}", "\"dtype\""},
        {NULL, NULL, NULL, "{\"types\": {\"lm_head.weight\": \"I8\"}}", "\"types\""},
        {NULL, NULL, NULL, "{\"mtp_copies\": 1}", "\"mtp_copies\""},
        {NULL, NULL, NULL, "{\"model\": \"/etc\"}", "\"model\""},
        {NULL, NULL, NULL, "{\"model\": \"../..\"}", "\"model\""},
        {NULL, NULL, NULL, "{\"model\": \"../../model\"}", "\"model\""},
        {NULL, NULL, NULL, "{\"model\": \"../nobody\"}", "nobody/config.json"},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        write_step(run, 5, c[i].without, c[i].extra, c[i].reshaped, c[i].state);
        refused(run, out, CONVERT_SAME, CONVERT_MTP_KEEP, c[i].says);
        assert_false(file_exists(out));
    }
    refused(run, out, CONVERT_FP8, CONVERT_MTP_KEEP, "fp8");
    write_step(run, 5, NULL, "lm_head.weight.exp_avg_sq", NULL, NULL); /* a moment is none too many */
    good(run, out, CONVERT_SAME);
    same_folder(in, out);
    free(in), free(run), free(out);
    scratch_close(&d);
}

/* An index that does not have all tensors, or leads out of the folder, is not followed. */
static void strange_index(void **unused) {
    (void)unused;
    static const char *const index[] = {
        "{\"weight_map\": {\"lm_head.weight\": \"a.safetensors\"}}",
        "{\"weight_map\": 3}",
        "[]",
    };
    for (size_t i = 0; i < sizeof index / sizeof *index; i++) {
        scratch d = scratch_open();
        char *in = make_small(&d, "in", true), *run = scratch_path(&d, "run"), *out = scratch_path(&d, "out");
        good(in, run, CONVERT_NATIVE);
        scratch_write(&d, "run/model/model.safetensors.index.json", index[i], strlen(index[i]));
        good(run, out, CONVERT_SAME);
        same_folder(in, out);
        free(in), free(run), free(out);
        scratch_close(&d);
    }
    scratch d = scratch_open();
    char *in = make_small(&d, "in", true), *run = scratch_path(&d, "run"), *out = scratch_path(&d, "out");
    good(in, run, CONVERT_NATIVE);
    json_t *map = json_object(), *root = json_pack("{s:o}", "weight_map", map);
    weights_file *w = weights(in);
    for (size_t i = 0; i < weights_count(w); i++)
        json_object_set_new(map, weights_at(w, i)->name, json_string(i ? "b.safetensors" : "../a.safetensors"));
    char *text = json_dumps(root, 0);
    scratch_write(&d, "run/model/model.safetensors.index.json", text, strlen(text));
    good(run, out, CONVERT_SAME);
    same_folder(in, out);
    weights_close(w);
    json_decref(root);
    free(text), free(in), free(run), free(out);
    scratch_close(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back),       cmocka_unit_test(three_ranks_there_and_back),
        cmocka_unit_test(copies_of_mtp_layers), cmocka_unit_test(mtp_layers_left_out),
        cmocka_unit_test(exceptional_types),    cmocka_unit_test(interrupted),
        cmocka_unit_test(wrong_models),         cmocka_unit_test(wrong_checkpoints),
        cmocka_unit_test(strange_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
