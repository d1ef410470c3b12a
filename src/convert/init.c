#include "convert/init.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/hash.h"
#include "base/file.h"
#include "convert/config_file.h"
#include "convert/fp8.h"
#include "convert/output.h"
#include "format/safetensors_write.h"
#include "model/init.h"
#include "model/presets.h"

typedef struct made { /* a tensor to be written: a weight, or the scales of the weight before it in the list */
    weight_item w;
    tensor t;
    bool scales;
} made;

typedef struct maker {
    const init_options *o;
    config_file file; /* config.json */
    model_config cfg;
    convert_type to;
    made *list;
    size_t n, capacity;
    shard_plan *plan;
    float *rows; /* FP8_BLOCK rows of the widest weight */
    char *bytes; /* the same rows as stored */
    uint64_t done, total;
} maker;

static status add(maker *k, const made *m, const char *name, error *e) {
    if (k->n == k->capacity) {
        size_t more = k->capacity ? 2 * k->capacity : 256;
        made *list = realloc(k->list, more * sizeof *list);
        if (!list) return fail(e, ERR_NOMEM, "memory is out");
        k->list = list;
        k->capacity = more;
    }
    k->list[k->n++] = *m;
    return shard_plan_add(k->plan, NULL, name, &m->t, e);
}

typedef struct plan_call {
    maker *k;
    error *e;
} plan_call;

static status plan_weight(void *arg, const weight_item *w) {
    const plan_call *p = arg;
    const bool fp8 = p->k->cfg.fp8 && (w->slot->flags & W_FP8);
    made m = {.w = *w,
              .t = {.type = fp8                                                 ? DT_E4M3
                            : w->slot->flags & W_F32 || p->k->to == CONVERT_F32 ? DT_F32
                                                                                : DT_BF16,
                    .ndim = w->ndim,
                    .dim = {w->dim[0], w->dim[1]}}};
    TRY(add(p->k, &m, w->name, p->e));
    if (!fp8) return OK;
    m.scales = true;
    m.t = (tensor){.type = DT_F32, .ndim = 2, .dim = {fp8_blocks(w->dim[0]), fp8_blocks(w->dim[1])}};
    char name[192];
    snprintf(name, sizeof name, "%s_scale_inv", w->name);
    return add(p->k, &m, name, p->e);
}

/* The block scales of the rows at hand, which begin at a block's edge. */
static void scales_of(const maker *k, int64_t n, int64_t cols, float *scales) {
    tensor t = {.data = k->rows, .type = DT_F32, .ndim = 2, .dim = {n, cols}};
    for (int64_t j = 0; j < fp8_blocks(cols); j++)
        fp8_block_scale(&scales[j], &t, 0, j, k->cfg.fp8_ue8m0 ? SCALE_UE8M0 : SCALE_F32);
}

static status write_made(maker *k, shard_writer *w, const made *m, error *e) {
    const int64_t cols = m->w.ndim == 2 ? m->w.dim[1] : 1, rows = m->w.dim[0];
    float *scales = malloc((size_t)fp8_blocks(cols) * sizeof *scales);
    status s = scales ? OK : fail(e, ERR_NOMEM, "memory is out");
    for (int64_t first = 0; first < rows && s == OK; first += FP8_BLOCK) {
        int64_t n = rows - first < FP8_BLOCK ? rows - first : FP8_BLOCK;
        size_t size = (size_t)(n * cols) * dtype_size(m->t.type);
        init_rows(&k->cfg, k->o->seed, &m->w, first, n, k->rows);
        if (m->scales || m->t.type == DT_E4M3) scales_of(k, n, cols, scales);
        if (m->scales) {
            memcpy(k->bytes, scales, size = (size_t)fp8_blocks(cols) * sizeof *scales);
        } else if (m->t.type == DT_F32) {
            memcpy(k->bytes, k->rows, size);
        } else if (m->t.type == DT_BF16) {
            for (int64_t i = 0; i < n * cols; i++) ((uint16_t *)(void *)k->bytes)[i] = f32_to_bf16(k->rows[i]);
        } else {
            for (int64_t r = 0; r < n; r++)
                fp8_quantize((uint8_t *)k->bytes + r * cols, k->rows + r * cols, 0, cols, scales);
        }
        s = shard_write(w, k->bytes, size, e);
        k->done += size;
        if (s == OK && k->o->progress && k->o->progress(k->o->arg, k->done, k->total, m->w.name))
            s = fail(e, ERR_CANCELLED, "cancelled; run it again to go on");
    }
    free(scales);
    return s;
}

static status write_shard(maker *k, const planned_shard *p, const char *out, error *e) {
    if (shard_is_complete(p, out)) {
        k->done += p->bytes;
        return OK;
    }
    shard_writer w;
    TRY(shard_begin(&w, p, out, e));
    status s = OK;
    for (size_t i = 0; i < p->count && s == OK; i++) s = write_made(k, &w, &k->list[p->tensors[i].added], e);
    if (s == OK) return shard_commit(&w, e);
    shard_abort(&w);
    return s;
}

/* --- the folder ------------------------------------------------------------------------------------------------- */

static status copy_file(const char *from_folder, const char *to_folder, const char *name, error *e) {
    char *from = path_join(from_folder, name), *to = path_join(to_folder, name);
    str text = {0};
    status s = from && to ? OK : fail(e, ERR_NOMEM, "memory is out");
    if (s == OK && file_exists(from)) {
        s = file_read(&text, from, 256 << 20, e);
        if (s == OK) s = file_save(to, text.p, text.n, e);
    }
    str_free(&text);
    free(from);
    free(to);
    return s;
}

static status write_other_files(const maker *k, error *e) {
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                        "generation_config.json", "chat_template.jinja"};
    const preset *p = preset_find(k->o->config);
    convert_options c = {.out = k->o->out, .to = k->to, .scale = config_file_scale(&k->file)};
    if (p) TRY(preset_write_tokenizer(p, k->o->out, e));
    for (size_t i = 0; !p && is_directory(k->o->config) && i < sizeof names / sizeof *names; i++)
        TRY(copy_file(k->o->config, k->o->out, names[i], e));
    return config_file_write(&k->file, &c, e);
}

static status read_type(maker *k, error *e) {
    static const char *const names[] = {[CONVERT_BF16] = "bf16", [CONVERT_F32] = "f32", [CONVERT_FP8] = "fp8"};
    const char *stored = json_string_value(json_object_get(k->file.root, "dtype"));
    if (!stored) stored = json_string_value(json_object_get(k->file.root, "torch_dtype"));
    if (!k->o->type) {
        k->to = k->cfg.fp8 ? CONVERT_FP8 : stored && !strcmp(stored, "float32") ? CONVERT_F32 : CONVERT_BF16;
        return OK;
    }
    for (k->to = 0; k->to < sizeof names / sizeof *names; k->to++)
        if (names[k->to] && strcmp(k->o->type, names[k->to]) == 0) break;
    if (k->to == sizeof names / sizeof *names)
        return fail(e, ERR_ARG, "cannot make weights of type \"%.40s\": use f32, bf16 or fp8", k->o->type);
    k->cfg.fp8 = k->to == CONVERT_FP8;
    return OK;
}

static status read_config(maker *k, error *e) {
    const char *path = k->o->config;
    if (preset_find(path)) TRY(preset_json(&k->file.root, path, e));
    else if (is_directory(path)) TRY(config_file_read(&k->file, path, e));
    else TRY(json_read(&k->file.root, path, 1 << 24, e));
    if (config_read(&k->cfg, k->file.root, e) != OK) return wrap(e, "%s", path);
    return read_type(k, e);
}

/* What convert.json says while the folder is unfinished: of which configuration, seed and type it is. */
static status marker_text(const maker *k, char **out, error *e) {
    char *config = json_dumps(k->file.root, JSON_COMPACT), seed[24];
    const uint64_t h = hash_bytes(HASH_BEGIN, config, config ? strlen(config) : 0);
    free(config);
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)k->o->seed);
    json_t *root = json_pack("{s:s, s:I, s:s, s:i}", "unfinished", "run the same hadal init again to go on", "config",
                             (json_int_t)(h >> 1), "seed", seed, "type", (int)k->to);
    *out = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    return *out ? OK : fail(e, ERR_NOMEM, "memory is out");
}

static status write_folder(maker *k, error *e) {
    for (size_t i = 0; i < shard_plan_count(k->plan); i++) TRY(write_shard(k, shard_plan_at(k->plan, i), k->o->out, e));
    TRY(shard_plan_write_index(k->plan, k->o->out, true, e));
    return write_other_files(k, e);
}

static status enter_and_write(maker *k, error *e) {
    output folder = {.lock = -1};
    char *text;
    TRY(marker_text(k, &text, e));
    status s = output_enter(&folder, preset_find(k->o->config) ? "" : k->o->config, k->o->out, text, e);
    if (s == OK) s = write_folder(k, e);
    if (s == OK) s = output_done(&folder, e);
    output_leave(&folder);
    free(text);
    return s;
}

static status run(maker *k, error *e) {
    TRY(read_config(k, e));
    TRY(shard_plan_open(&k->plan, e));
    TRY(model_each_weight(&k->cfg, plan_weight, &(plan_call){k, e}));
    TRY(shard_plan_finish(k->plan, SHARD_BYTES, e));
    int64_t widest = 1;
    for (size_t i = 0; i < k->n; i++)
        if (k->list[i].w.ndim == 2 && k->list[i].w.dim[1] > widest) widest = k->list[i].w.dim[1];
    k->rows = malloc((size_t)(FP8_BLOCK * widest) * sizeof *k->rows);
    k->bytes = malloc((size_t)(FP8_BLOCK * widest) * sizeof *k->rows);
    if (!k->rows || !k->bytes) return fail(e, ERR_NOMEM, "memory is out");
    k->total = shard_plan_bytes(k->plan);
    return enter_and_write(k, e);
}

static void tell(const maker *k, init_result *r) {
    static const char *const names[] = {[CONVERT_BF16] = "bf16", [CONVERT_F32] = "f32", [CONVERT_FP8] = "fp8"};
    model_counts n;
    model_count(&k->cfg, &n);
    *r = (init_result){.model_type = k->cfg.arch->model_type,
                       .type = names[k->to],
                       .parameters = n.parameters,
                       .tensors = k->n,
                       .shards = shard_plan_count(k->plan),
                       .bytes = k->total};
}

status init_run(const init_options *o, init_result *r, error *e) {
    maker k = {.o = o};
    status s = run(&k, e);
    if (s == OK) tell(&k, r);
    shard_plan_close(k.plan);
    config_file_close(&k.file);
    free(k.list);
    free(k.rows);
    free(k.bytes);
    return s;
}
