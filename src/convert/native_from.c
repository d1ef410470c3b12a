/* Hugging Face -> native: every weight of the model as F32, a few megabytes at a time. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "convert/config_file.h"
#include "convert/native.h"
#include "convert/output.h"
#include "convert/scales.h"
#include "format/model_files.h"
#include "format/native.h"
#include "format/safetensors_write.h"

enum { TASK = 1 << 14 /* elements */ };

typedef struct source { /* of one weight */
    const weights_entry *x, *scale;
    bool f32;        /* F32 in every checkpoint */
    bool copy, same; /* of the embedding or the head; and equal to it */
} source;

typedef struct import {
    const convert_options *o;
    convert_result *r;
    error *e;
    config_file config;
    model_config cfg;
    weights_file *in;
    bool *used; /* by number of the file's tensors */
    native_slice *list;
    source *from;
    int64_t count, first;        /* first: where the shard at work begins in the list */
    const weights_entry *scaled; /* whose scales are in `scales` */
    float *scales;
    dtype outside; /* of most weights, in the Hugging Face folder that will be made of it */
    uint64_t done, total;
} import;

static status out_of_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

/* --- which tensors ---------------------------------------------------------------------------------------------- */

static void use(import *k, const weights_entry *x) {
    k->used[x - weights_at(k->in, 0)] = true;
}

static bool same_bytes(const import *k, const weights_entry *x, const char *name) {
    const weights_entry *y = weights_find(k->in, name);
    if (!y || y->t.type != x->t.type || tensor_count(&x->t) != tensor_count(&y->t)) return false;
    size_t bytes = (size_t)tensor_count(&x->t) * dtype_size(x->t.type), step = 1 << 22;
    for (size_t at = 0, n; at < bytes; at += n) {
        n = bytes - at < step ? bytes - at : step;
        if (memcmp((const uint8_t *)x->t.data + at, (const uint8_t *)y->t.data + at, n) != 0) return false;
        weights_let_go(k->in, x, at, n);
        weights_let_go(k->in, y, at, n);
    }
    return true;
}

static status add_weight(void *arg, const weight_item *w) {
    import *k = arg;
    const weights_entry *x = weights_find(k->in, w->name);
    if (!x && w->slot->flags & W_OPTIONAL) return OK;
    if (!x) return fail(k->e, ERR_FORMAT, "%s: tensor \"%s\" is missing, config.json asks for it", k->o->in, w->name);
    TRY(native_check_shape(x->file, w, x->t.ndim, x->t.dim, k->e));
    const char *original = native_copy_of(&k->cfg, w);
    source *s = &k->from[k->count];
    *s = (source){.x = x, .f32 = w->slot->flags & W_F32, .copy = original, .same = original};
    if (original) s->same = same_bytes(k, x, original);
    if (x->t.type == DT_E4M3) {
        TRY(scales_find(&s->scale, k->in, x, k->e));
        use(k, s->scale);
    } else if (!native_is_number(x->t.type)) {
        return fail(k->e, ERR_UNSUPPORTED, "%s: tensor \"%s\" is %s: weights may be F32, BF16, F16 or F8_E4M3", x->file,
                    x->name, dtype_name(x->t.type));
    }
    use(k, x);
    native_slice *t = &k->list[k->count++];
    *t = (native_slice){.name = x->name, .type = DT_F32, .ndim = x->t.ndim, .n = tensor_count(&x->t)};
    memcpy(t->dim, x->t.dim, sizeof t->dim);
    return OK;
}

static int64_t layer_of(const char *name) { /* -1: none */
    static const char start[] = "model.layers.";
    if (strncmp(name, start, sizeof start - 1) != 0) return -1;
    return strtoll(name + sizeof start - 1, NULL, 10);
}

static status check_extra(const import *k) {
    for (size_t i = 0; i < weights_count(k->in); i++) {
        const weights_entry *x = weights_at(k->in, i);
        bool mtp = layer_of(x->name) >= k->cfg.num_hidden_layers;
        if (k->used[i] || (mtp && k->o->mtp == CONVERT_MTP_DROP)) continue;
        return fail(k->e, ERR_FORMAT, "%s/%s: tensor \"%.160s\" is no weight of the model that config.json describes%s",
                    k->o->in, x->file, x->name, mtp ? "; MTP layers can be left out: mtp drop" : "");
    }
    return OK;
}

/* MTP layers that config.json announces but the files do not have are left out, as model_open does. */
static void count_mtp(import *k) {
    int64_t most = -1;
    for (size_t i = 0; i < weights_count(k->in); i++) {
        int64_t layer = layer_of(weights_at(k->in, i)->name);
        if (layer > most) most = layer;
    }
    int64_t there = most + 1 - k->cfg.num_hidden_layers;
    if (there < 0 || k->o->mtp == CONVERT_MTP_DROP) there = 0;
    if (there < k->cfg.num_nextn_predict_layers) k->cfg.num_nextn_predict_layers = there;
}

/* When all copies are there and equal, none is kept. */
static bool leave_copies(import *k) {
    int64_t same = 0, kept = 0;
    for (int64_t i = 0; i < k->count; i++) same += k->from[i].same;
    if (!same || same != 2 * k->cfg.num_nextn_predict_layers) return false;
    for (int64_t i = 0; i < k->count; i++) {
        if (k->from[i].copy) continue;
        k->from[kept] = k->from[i];
        k->list[kept++] = k->list[i];
    }
    k->count = kept;
    return true;
}

static dtype type_outside(const source *s) {
    return s->x->t.type == DT_F32 ? DT_F32 : DT_BF16;
}

static status make_list(import *k, bool *copies, error *e) {
    size_t n = weights_count(k->in);
    k->used = calloc(n + 1, sizeof *k->used);
    k->list = calloc(n + 1, sizeof *k->list);
    k->from = calloc(n + 1, sizeof *k->from);
    if (!k->used || !k->list || !k->from) return out_of_memory(e);
    count_mtp(k);
    TRY(model_each_weight(&k->cfg, add_weight, k));
    TRY(check_extra(k));
    *copies = leave_copies(k);
    k->outside = DT_F32;
    for (int64_t i = 0; i < k->count; i++)
        if (type_outside(&k->from[i]) == DT_BF16) k->outside = DT_BF16;
    for (int64_t i = 0; i < k->count; i++) k->total += (uint64_t)k->list[i].n * sizeof(float);
    return OK;
}

/* --- the numbers ------------------------------------------------------------------------------------------------ */

typedef struct chunk {
    const source *s;
    const float *scales;
    int64_t first, n;
    float *out;
    _Atomic int64_t nan_codes;
} chunk;

static void dequantize_task(void *arg, int64_t task, int thread) {
    (void)thread;
    chunk *c = arg;
    const tensor *t = &c->s->x->t;
    int64_t cols = t->dim[1], at = c->first + task * TASK, end = c->first + c->n;
    if (end - at > TASK) end = at + TASK;
    for (int64_t n; at < end; at += n) {
        int64_t row = at / cols, col = at % cols;
        n = cols - col < end - at ? cols - col : end - at;
        c->nan_codes += fp8_dequantize(c->out + (at - c->first), (const uint8_t *)t->data + at, col, n,
                                       c->scales + row / FP8_BLOCK * fp8_blocks(cols));
    }
}

/* A copy of a weight's scales, because the file's may be unaligned. */
static status take_scales(import *k, const source *s, error *e) {
    if (k->scaled == s->x) return OK;
    size_t n = (size_t)tensor_count(&s->scale->t) * sizeof(float);
    float *more = realloc(k->scales, n + 1);
    if (!more) return out_of_memory(e);
    memcpy(more, s->scale->t.data, n);
    k->scales = more;
    k->scaled = s->x;
    return OK;
}

static status fill(void *arg, int64_t i, int64_t first, int64_t n, void *to, error *e) {
    import *k = arg;
    const source *s = &k->from[k->first + i];
    const tensor *t = &s->x->t;
    size_t size = dtype_size(t->type);
    if (t->type == DT_E4M3) {
        TRY(take_scales(k, s, e));
        chunk c = {s, k->scales, first, n, to, 0};
        native_tasks(k->o->threads, (n + TASK - 1) / TASK, dequantize_task, &c);
        if (c.nan_codes && !k->r->nan_codes) snprintf(k->r->nan_tensor, sizeof k->r->nan_tensor, "%s", s->x->name);
        k->r->nan_codes += (uint64_t)c.nan_codes;
    } else native_cast(k->o->threads, to, DT_F32, (const uint8_t *)t->data + (size_t)first * size, t->type, n);
    weights_let_go(k->in, s->x, (size_t)first * size, (size_t)n * size);
    k->done += (uint64_t)n * sizeof(float);
    if (k->o->progress && k->o->progress(k->o->progress_arg, k->done, k->total, s->x->name))
        return fail(e, ERR_CANCELLED, "%s: cancelled", k->o->out);
    return OK;
}

/* --- the checkpoint --------------------------------------------------------------------------------------------- */

static json_t *make_state(const import *k, bool copies) {
    json_t *types = json_object();
    for (int64_t i = 0; i < k->count; i++) {
        dtype t = type_outside(&k->from[i]);
        if (t != (k->from[i].f32 ? DT_F32 : k->outside))
            json_object_set_new(types, k->list[i].name, json_string(dtype_name(t)));
    }
    return json_pack("{s:i, s:s, s:s, s:o, s:b}", "step", 0, "model", "../model", "dtype", dtype_name(k->outside),
                     "types", types, "mtp_copies", (int)copies);
}

/* Whole weights, as many as fit a shard. */
static status write_shards(import *k, const char *folder, native_shard *shards, int *count, error *e) {
    while (k->first < k->count) {
        int64_t end = k->first;
        for (uint64_t bytes = 0, n; end < k->count; end++, bytes += n) {
            n = (uint64_t)k->list[end].n * sizeof(float);
            if (end > k->first && bytes + n > SHARD_BYTES) break;
        }
        TRY(native_write_shard_from(folder, *count, k->list + k->first, end - k->first, fill, k, &shards[*count], e));
        k->r->bytes += (uint64_t)json_integer_value(json_object_get(shards[*count].json, "bytes"));
        k->r->shards = (size_t)++ * count;
        k->first = end;
    }
    k->r->tensors = (size_t)k->count;
    return OK;
}

static status write_step(import *k, bool copies, error *e) {
    char *folder = native_step_folder(k->o->out, 0);
    native_shard *shards = calloc((size_t)k->count + 1, sizeof *shards);
    json_t *state = make_state(k, copies);
    int count = 0;
    status s = folder && shards && state ? native_begin(folder, e) : out_of_memory(e);
    if (s == OK) s = write_shards(k, folder, shards, &count, e);
    if (s == OK) s = native_finish(folder, shards, count, state, e);
    if (s != OK && folder) native_abort(folder);
    for (int i = 0; i < count; i++) native_shard_free(&shards[i]);
    json_decref(state);
    free(shards);
    free(folder);
    return s;
}

/* What was FP8 or lost its MTP layers gets a configuration that says so. */
static status write_model(const import *k, error *e) {
    char *folder = path_join(k->o->out, "model");
    status s = folder ? model_folder_copy(k->o->in, folder, e) : out_of_memory(e);
    if (s == OK && (k->o->mtp == CONVERT_MTP_DROP || json_object_get(k->config.root, "quantization_config"))) {
        convert_options o = *k->o;
        o.out = folder;
        o.to = k->outside == DT_F32 ? CONVERT_F32 : CONVERT_BF16;
        s = config_file_write(&k->config, &o, e);
    }
    free(folder);
    return s;
}

static status enter(const import *k, output *target, error *e) {
    char *in = realpath(k->o->in, NULL);
    json_t *root = json_pack("{s:s, s:s, s:s, s:b}", "unfinished", "run the same conversion again", "to", "native",
                             "source", in ? in : k->o->in, "mtp_dropped", k->o->mtp == CONVERT_MTP_DROP);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    status s = text ? output_enter(target, k->o->in, k->o->out, text, e) : out_of_memory(e);
    json_decref(root);
    free(text);
    free(in);
    return s;
}

static status run(import *k, output *target, error *e) {
    bool copies = false;
    if (is_native_input(k->o->in)) return fail(e, ERR_ARG, "%s: native already", k->o->in);
    if (k->o->mtp == CONVERT_MTP_HIDE)
        return fail(e, ERR_ARG, "MTP layers cannot be hidden in a native checkpoint: keep or drop");
    TRY(config_file_read(&k->config, k->o->in, e));
    TRY(config_open(&k->cfg, k->o->in, e));
    TRY(weights_open_in_place(&k->in, k->o->in, e));
    TRY(make_list(k, &copies, e));
    TRY(enter(k, target, e));
    TRY(write_model(k, e));
    TRY(write_step(k, copies, e));
    return output_done(target, e);
}

status native_from_model(const convert_options *o, convert_result *r, error *e) {
import k = {.o = o, .r = r, .e = e };
    output target = {.lock = -1};
    *r = (convert_result){0};
    status s = run(&k, &target, e);
    output_leave(&target);
    free(k.used);
    free(k.list);
    free(k.from);
    free(k.scales);
    weights_close(k.in);
    config_file_close(&k.config);
    return s;
}
