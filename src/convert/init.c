#include "convert/init.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "base/rng.h"
#include "convert/fp8.h"
#include "format/safetensors_write.h"
#include "model/model.h"

typedef struct made { /* a tensor to be written: a weight, or the scales of the weight before it in the list */
    weight_item w;
    tensor t;
    bool scales;
} made;

typedef struct maker {
    model_config cfg;
    uint64_t seed;
    made *list;
    size_t n, capacity;
    shard_plan *plan;
    float *rows; /* FP8_BLOCK rows of the widest weight */
    char *bytes; /* the same rows as stored */
    uint64_t done, total;
    init_progress *progress;
    void *arg;
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
              .t = {.type = fp8                      ? DT_E4M3
                            : w->slot->flags & W_F32 ? DT_F32
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

static uint64_t hash(const char *name) { /* FNV-1a: the tensor's stream of random numbers */
    uint64_t h = 14695981039346656037u;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 1099511628211u;
    return h;
}

/* Rows first .. first+n-1 of a weight in F32. */
static void fill(const maker *k, const weight_item *w, int64_t first, int64_t n) {
    const int64_t cols = w->ndim == 2 ? w->dim[1] : 1;
    const uint64_t stream = hash(w->name);
    for (int64_t i = 0; i < n * cols; i++) {
        if (w->slot->flags & W_ONES) k->rows[i] = 1;
        else if (w->slot->flags & W_ZERO) k->rows[i] = 0;
        else k->rows[i] = (float)(k->cfg.initializer_range * rng_normal(k->seed, stream, (uint64_t)(first * cols + i)));
    }
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
        fill(k, &m->w, first, n);
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
        if (s == OK && k->progress && k->progress(k->arg, k->done, k->total, m->w.name))
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

static status copy_file(const char *from_folder, const char *to_folder, const char *name, const char *from_path,
                        error *e) {
    char *from = from_path ? strdup(from_path) : path_join(from_folder, name), *to = path_join(to_folder, name);
    str text = {0};
    status s = from && to ? OK : fail(e, ERR_NOMEM, "memory is out");
    if (s == OK && (from_path || file_exists(from))) {
        s = file_read(&text, from, 256 << 20, e);
        if (s == OK) s = file_save(to, text.p, text.n, e);
    }
    str_free(&text);
    free(from);
    free(to);
    return s;
}

static status copy_files(const char *config, const char *out, error *e) {
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                        "generation_config.json", "chat_template.jinja"};
    if (!is_directory(config)) return copy_file(NULL, out, "config.json", config, e);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) TRY(copy_file(config, out, names[i], NULL, e));
    return copy_file(config, out, "config.json", NULL, e);
}

/* A folder with shards of another plan would end as a mixture of both: only a new, an empty, or our own one is taken.
 */
static status check_folder(const maker *k, const char *out, error *e) {
    DIR *d = opendir(out);
    if (!d) return OK;
    status s = OK;
    for (struct dirent *f; s == OK && (f = readdir(d));) {
        size_t n = strlen(f->d_name);
        if (n < 12 || strcmp(f->d_name + n - 12, ".safetensors") != 0) continue;
        bool ours = false;
        for (size_t i = 0; i < shard_plan_count(k->plan); i++)
            ours |= strcmp(shard_plan_at(k->plan, i)->file, f->d_name) == 0 &&
                    shard_is_complete(shard_plan_at(k->plan, i), out);
        if (!ours) s = fail(e, ERR_ARG, "%s: holds %s of another checkpoint: give a new folder", out, f->d_name);
    }
    closedir(d);
    return s;
}

static status run(maker *k, const char *config, const char *out, error *e) {
    TRY(config_open(&k->cfg, config, e));
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
    TRY(make_directory(out, e));
    TRY(check_folder(k, out, e));
    for (size_t i = 0; i < shard_plan_count(k->plan); i++) TRY(write_shard(k, shard_plan_at(k->plan, i), out, e));
    TRY(shard_plan_write_index(k->plan, out, true, e));
    return copy_files(config, out, e);
}

status init_run(const char *config, const char *out, uint64_t seed, init_progress *progress, void *arg, error *e) {
    maker k = {.seed = seed, .progress = progress, .arg = arg};
    status s = run(&k, config, out, e);
    shard_plan_close(k.plan);
    free(k.list);
    free(k.rows);
    free(k.bytes);
    return s;
}
