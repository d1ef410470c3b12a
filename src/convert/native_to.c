/* Native -> Hugging Face: the weights of one step, a few megabytes at a time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/hash.h"
#include "base/arena.h"
#include "base/file.h"
#include "convert/config_file.h"
#include "convert/native.h"
#include "convert/output.h"
#include "convert/scales.h"
#include "format/model_files.h"
#include "format/native.h"
#include "format/safetensors_write.h"

enum { CHUNK = 1 << 21 /* elements that are converted before they are written */, INDEX_MAX = 64 << 20 };

typedef struct job {
    const char *name, *file; /* in the output; file NULL: wherever there is room */
    const native_slice *from;
    dtype to;
} job;

typedef struct export {
    const convert_options *o;
    convert_result *r;
    error *e;
    char *step, *model; /* folders */
    native_file *in;
    config_file config;
    model_config cfg;
    dtype to;
    const json_t *types; /* exceptions, or NULL */
    bool copies;
    json_t *index; /* model.safetensors.index.json, or NULL */
    bool *used;    /* by number of the step's tensors */
    job *jobs;
    size_t n_jobs, room;
    arena *names;
    shard_plan *plan;
    void *raw, *out; /* [CHUNK * 4] each */
    uint64_t done, total;
}
export;

static status out_of_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

/* --- the step and its model folder ------------------------------------------------------------------------------ */

static status find_step(export *k, error *e) {
    int64_t *steps = NULL, count = 0;
    if (is_native(k->o->in)) {
        k->step = strdup(k->o->in);
    } else {
        TRY(native_steps(k->o->in, &steps, &count, e));
        k->step = native_step_folder(k->o->in, count ? steps[count - 1] : 0);
        free(steps);
    }
    return k->step ? OK : out_of_memory(e);
}

/* "NAME" or "../NAME": a folder in the step's, or beside it. */
static status find_model(export *k, const json_t *state, error *e) {
    const char *name;
    if (json_get_string(state, "model", "../model", &name, e) != OK) return wrap(e, "%s/state.json", k->step);
    const char *plain = strncmp(name, "../", 3) == 0 ? name + 3 : name;
    if (!*plain || strchr(plain, '/') || plain[0] == '.')
        return fail(e, ERR_FORMAT, "%s/state.json: \"model\" is \"%.160s\", \"../model\" was wanted", k->step, name);
    k->model = path_join(k->step, name);
    return k->model ? OK : out_of_memory(e);
}

static status read_type(dtype *out, const char *name, const char *what, const export *k, error *e) {
    int t = name ? dtype_find(name) : -1;
    if (t != DT_F32 && t != DT_BF16)
        return fail(e, ERR_FORMAT, "%s/state.json: %s should be \"BF16\" or \"F32\"", k->step, what);
    *out = (dtype)t;
    return OK;
}

static status read_state(export *k, error *e) {
    const json_t *state = native_state(k->in);
    const char *type;
    TRY(find_model(k, state, e));
    if (json_get_string(state, "dtype", "BF16", &type, e) != OK ||
        json_get_bool(state, "mtp_copies", false, &k->copies, e) != OK)
        return wrap(e, "%s/state.json", k->step);
    TRY(read_type(&k->to, type, "\"dtype\"", k, e));
    if (k->o->to == CONVERT_BF16) k->to = DT_BF16;
    if (k->o->to == CONVERT_F32) k->to = DT_F32;
    else k->types = json_object_get(state, "types");
    return OK;
}

static status read_index(export *k, error *e) {
    char *path = path_join(k->model, "model.safetensors.index.json");
    status s = path ? OK : out_of_memory(e);
    if (s == OK && file_exists(path)) s = json_read(&k->index, path, INDEX_MAX, e);
    free(path);
    return s;
}

/* --- which tensors ---------------------------------------------------------------------------------------------- */

static const char *file_of(const export *k, const char *name) { /* NULL: the index does not say, or not well */
    const char *file = json_string_value(json_object_get(json_object_get(k->index, "weight_map"), name));
    return file && !strchr(file, '/') && name_ends_with(file, ".safetensors") && *file != '.' ? file : NULL;
}

static status add_job(export *k, const weight_item *w, const native_slice *from) {
    if (k->n_jobs == k->room) {
        size_t room = k->room ? 2 * k->room : 256;
        job *more = realloc(k->jobs, room * sizeof *more);
        if (!more) return out_of_memory(k->e);
        k->jobs = more;
        k->room = room;
    }
    job *j = &k->jobs[k->n_jobs++];
    *j = (job){arena_copy(k->names, w->name, strlen(w->name)), file_of(k, w->name), from, k->to};
    if (!j->name) return out_of_memory(k->e);
    const json_t *type = json_object_get(k->types, w->name);
    if (w->slot->flags & W_F32) j->to = DT_F32;
    return type ? read_type(&j->to, json_string_value(type), "a member of \"types\"", k, k->e) : OK;
}

static status add_weight(void *arg, const weight_item *w) {
    export *k = arg;
    const native_slice *x = native_find(k->in, w->name);
    if (x) k->used[x - native_tensor(k->in, 0)] = true;
    if (k->o->mtp == CONVERT_MTP_DROP && w->layer >= k->cfg.num_hidden_layers) return OK;
    if (!x && w->slot->flags & W_OPTIONAL) {
        if (!k->copies) return OK;
        x = native_find(k->in, native_copy_of(&k->cfg, w));
    }
    if (!x) return fail(k->e, ERR_FORMAT, "%s: tensor \"%s\" is missing, config.json asks for it", k->step, w->name);
    TRY(native_check_shape(k->step, w, x->ndim, x->dim, k->e));
    if (!native_is_number(x->type))
        return fail(k->e, ERR_FORMAT, "%s: tensor \"%s\" is %s: weights may be F32, BF16 or F16", k->step, w->name,
                    dtype_name(x->type));
    return add_job(k, w, x);
}

/* MTP layers that config.json announces and the step lacks altogether were not in its Hugging Face folder either. */
static void count_mtp(export *k) {
    model_config *c = &k->cfg;
    for (; c->num_nextn_predict_layers > 0; c->num_nextn_predict_layers--) {
        char start[48];
        int n = snprintf(start, sizeof start, "model.layers.%lld.",
                         (long long)(c->num_hidden_layers + c->num_nextn_predict_layers - 1));
        for (int64_t i = 0; i < native_count(k->in); i++)
            if (strncmp(native_tensor(k->in, i)->name, start, (size_t)n) == 0) return;
    }
}

/* Is it a moment of a weight, or the reference of one? Everything else that is no weight is one too many. */
static bool is_moment(const export *k, const char *name) {
    static const char *const ends[] = {".exp_avg", ".exp_avg_sq", ".reference"};
    char stem[200];
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t n = strlen(name) - (name_ends_with(name, ends[i]) ? strlen(ends[i]) : 0);
        if (n == strlen(name) || n >= sizeof stem) continue;
        memcpy(stem, name, n);
        stem[n] = 0;
        const native_slice *x = native_find(k->in, stem);
        if (x && k->used[x - native_tensor(k->in, 0)]) return true;
    }
    return false;
}

static status check_extra(const export *k, error *e) {
    for (int64_t i = 0; i < native_count(k->in); i++) {
        const char *name = native_tensor(k->in, i)->name;
        if (!k->used[i] && !is_moment(k, name))
            return fail(e, ERR_FORMAT, "%s: tensor \"%.160s\" is no weight of the model that %s/config.json describes",
                        k->step, name, k->model);
    }
    return OK;
}

/* Shards as the index has them when it has all tensors, else by size. */
static status make_plan(export *k, error *e) {
    k->used = calloc((size_t)native_count(k->in) + 1, sizeof *k->used);
    k->names = arena_open(1 << 16);
    if (!k->used || !k->names) return out_of_memory(e);
    count_mtp(k);
    TRY(model_each_weight(&k->cfg, add_weight, k));
    TRY(check_extra(k, e));
    bool listed = true;
    for (size_t i = 0; i < k->n_jobs; i++) listed &= k->jobs[i].file != NULL;
    TRY(shard_plan_open(&k->plan, e));
    for (size_t i = 0; i < k->n_jobs; i++) {
        const job *j = &k->jobs[i];
        tensor t = {.type = j->to, .ndim = j->from->ndim};
        memcpy(t.dim, j->from->dim, sizeof t.dim);
        TRY(shard_plan_add(k->plan, listed ? j->file : NULL, j->name, &t, e));
    }
    TRY(shard_plan_finish(k->plan, SHARD_BYTES, e));
    k->total = shard_plan_bytes(k->plan);
    return OK;
}

/* --- writing ---------------------------------------------------------------------------------------------------- */

static status write_job(export *k, shard_writer *w, const job *j, error *e) {
    const native_slice *x = j->from;
    for (int64_t at = 0, n; at < x->n; at += n) {
        n = x->n - at < CHUNK ? x->n - at : CHUNK;
        size_t bytes = (size_t)n * dtype_size(j->to);
        TRY(native_read(k->in, x->name, at, n, k->raw, e));
        native_cast(k->o->threads, k->out, j->to, k->raw, x->type, n);
        TRY(shard_write(w, k->out, bytes, e));
        k->done += bytes;
        if (k->o->progress && k->o->progress(k->o->progress_arg, k->done, k->total, j->name))
            return fail(e, ERR_CANCELLED, "%s: cancelled", k->o->out);
    }
    return OK;
}

static status write_shard(export *k, const planned_shard *s, error *e) {
    k->r->shards++;
    k->r->tensors += s->count;
    k->r->bytes += s->bytes;
    if (shard_is_complete(s, k->o->out)) {
        k->r->shards_found++;
        k->done += s->bytes;
        return OK;
    }
    shard_writer w;
    TRY(shard_begin(&w, s, k->o->out, e));
    k->done += s->header_bytes;
    status st = OK;
    for (size_t i = 0; st == OK && i < s->count; i++) st = write_job(k, &w, &k->jobs[s->tensors[i].added], e);
    if (st == OK) return shard_commit(&w, e);
    shard_abort(&w);
    return st;
}

static status write_shards(export *k, error *e) {
    k->raw = malloc((size_t)CHUNK * 4);
    k->out = malloc((size_t)CHUNK * 4);
    if (!k->raw || !k->out) return out_of_memory(e);
    for (size_t i = 0; i < shard_plan_count(k->plan); i++) TRY(write_shard(k, shard_plan_at(k->plan, i), e));
    return OK;
}

/* The configuration as it was, byte by byte, when it says already what is written. */
static status write_config(const export *k, error *e) {
    const json_t *root = k->config.root, *type = json_object_get(root, "dtype");
    if (!type) type = json_object_get(root, "torch_dtype");
    const char *name = json_string_value(type);
    bool same = name ? strcmp(name, k->to == DT_F32 ? "float32" : "bfloat16") == 0 : k->o->to == CONVERT_SAME;
    if (same && k->o->mtp == CONVERT_MTP_KEEP && !json_object_get(root, "quantization_config"))
        return model_file_copy(k->model, k->o->out, "config.json", e);
    convert_options o = *k->o;
    o.to = k->to == DT_F32 ? CONVERT_F32 : CONVERT_BF16;
    return config_file_write(&k->config, &o, e);
}

/* state.json has the checksums of all that is read. */
static status enter(const export *k, output *target, error *e) {
    static const char *const mtp[] = {"keep", "hide", "drop"};
    str text = {0};
    char *path = path_join(k->step, "state.json");
    status s = path ? file_read(&text, path, (size_t)1 << 30, e) : out_of_memory(e);
    const uint64_t h = hash_bytes(HASH_BEGIN, text.p, s == OK ? text.n : 0);
    str_free(&text);
    str_addf(&text, "{\"unfinished\": \"run the same conversion again to go on\", \"to\": \"%s\", \"mtp\": \"%s\", ",
             k->o->to == CONVERT_SAME ? "as trained" : dtype_name(k->to), mtp[k->o->mtp]);
    str_addf(&text, "\"source\": \"%016llx\"}\n", (unsigned long long)h);
    if (s == OK) s = str_check(&text, e);
    if (s == OK) s = output_enter(target, k->step, k->o->out, text.p, e);
    str_free(&text);
    free(path);
    return s;
}

static status run(export *k, output *target, error *e) {
    if (k->o->to == CONVERT_FP8)
        return fail(e, ERR_ARG, "%s: a native checkpoint becomes bf16 or f32; convert that to fp8", k->o->in);
    TRY(find_step(k, e));
    TRY(native_open(&k->in, k->step, true, e));
    TRY(read_state(k, e));
    TRY(config_file_read(&k->config, k->model, e));
    TRY(config_open(&k->cfg, k->model, e));
    TRY(read_index(k, e));
    TRY(make_plan(k, e));
    TRY(enter(k, target, e));
    TRY(write_shards(k, e));
    TRY(model_files_copy(k->model, k->o->out, e));
    TRY(write_config(k, e));
    TRY(shard_plan_write_index(k->plan, k->o->out, true, e));
    return output_done(target, e);
}

status native_to_model(const convert_options *o, convert_result *r, error *e) {
    export k = {.o = o, .r = r, .e = e};
    output target = {.lock = -1};
    *r = (convert_result){0};
    status s = run(&k, &target, e);
    output_leave(&target);
    free(k.step);
    free(k.model);
    free(k.used);
    free(k.jobs);
    free(k.raw);
    free(k.out);
    arena_close(k.names);
    json_decref(k.index);
    shard_plan_close(k.plan);
    config_file_close(&k.config);
    native_close(k.in);
    return s;
}
