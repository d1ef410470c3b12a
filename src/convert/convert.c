#include "convert/convert.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/hash.h"
#include "base/file.h"
#include "base/json.h"
#include "convert/config_file.h"
#include "convert/native.h"
#include "convert/output.h"
#include "convert/scales.h"
#include "format/model_files.h"
#include "format/safetensors_write.h"
#include "format/weights_file.h"

enum {
    CHUNK = 1 << 22, /* elements that are converted before they are written: at most 16 MB */
    TASK = 1 << 16,  /* elements of one task of the pool */
    PIECE = 512      /* elements that pass through F32 at once */
};

/* How one tensor of the output comes about. */
typedef enum how { COPY, CAST, DEQUANTIZE, QUANTIZE, MAKE_SCALES } how;

typedef struct job {
    const weights_entry *from;  /* the weight, also for MAKE_SCALES */
    const weights_entry *scale; /* DEQUANTIZE: its block scales */
    how how;
    dtype to;
} job;

typedef struct conversion {
    const convert_options *o;
    convert_result *r;
    weights_file *in;
    config_file config;
    bool f32_only; /* no floating-point tensor of the input is smaller than F32 */
    shard_plan *plan;
    job *jobs; /* [added] */
    size_t n_jobs;
    uint64_t done, total;
    uint8_t *out; /* [CHUNK * 4] */
} conversion;

static status out_of_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

/* --- what becomes of which tensor ------------------------------------------------------------------------------ */

static bool is_float(dtype t) {
    return t == DT_F32 || t == DT_BF16 || t == DT_F16 || t == DT_F64;
}

/* The matrices that are FP8 in DeepSeek's checkpoints: not embeddings, head, router, eh_proj, the indexer's
 * weights_proj, or anything with one dimension. */
static bool is_quantizable(const weights_entry *x) {
    static const char *const names[] = {"q_proj",    "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj",
                                        "k_proj",    "v_proj",   "o_proj",   "gate_proj",          "up_proj",
                                        "down_proj", "wq_b",     "wk"};
    if (x->t.ndim != 2 || !is_float(x->t.type) || tensor_count(&x->t) == 0) return false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char end[40];
        snprintf(end, sizeof end, ".%s.weight", names[i]);
        if (name_ends_with(x->name, end)) return true;
    }
    return false;
}

/* model.layers.N. with N >= num_hidden_layers */
static bool is_mtp(const conversion *c, const char *name) {
    static const char start[] = "model.layers.";
    if (strncmp(name, start, strlen(start)) != 0) return false;
    char *end;
    errno = 0;
    long long n = strtoll(name + strlen(start), &end, 10);
    return *end == '.' && errno == 0 && n >= c->config.n_layers;
}

static status add_job(conversion *c, const char *name, const tensor *shape, job j, error *e) {
    tensor t = *shape;
    t.type = j.to;
    TRY(shard_plan_add(c->plan, j.from->file, name, &t, e));
    c->jobs[c->n_jobs++] = j;
    return OK;
}

static dtype target(const conversion *c, const weights_entry *x) {
    if (!is_float(x->t.type)) return x->t.type;
    if (c->o->to == CONVERT_F32) return DT_F32;
    bool stays = x->t.type == DT_F32 && (!c->f32_only || name_ends_with(x->name, ".e_score_correction_bias"));
    return stays ? DT_F32 : DT_BF16;
}

static status add_quantized(conversion *c, const weights_entry *x, error *e) {
    tensor blocks = {.ndim = 2, .dim = {fp8_blocks(x->t.dim[0]), fp8_blocks(x->t.dim[1])}};
    str name = {0};
    str_addf(&name, "%s" SCALE_SUFFIX, x->name);
    status s = str_check(&name, e);
    if (s == OK) s = add_job(c, x->name, &x->t, (job){x, NULL, QUANTIZE, DT_E4M3}, e);
    if (s == OK) s = add_job(c, name.p, &blocks, (job){x, NULL, MAKE_SCALES, DT_F32}, e);
    str_free(&name);
    return s;
}

static status add_tensor(conversion *c, const weights_entry *x, error *e) {
    bool is_scale;
    const weights_entry *scale = NULL;
    if (c->o->mtp == CONVERT_MTP_DROP && is_mtp(c, x->name)) return OK;
    TRY(scales_are(&is_scale, c->in, x, e));
    if (x->t.type == DT_E4M3) TRY(scales_find(&scale, c->in, x, e));
    if (is_scale || scale) {
        if (c->o->to == CONVERT_FP8) {
            if (c->o->scale != config_file_scale(&c->config))
                return fail(e, ERR_ARG, "%s: FP8 already, with scales of the other format; convert it to BF16 first",
                            c->o->in);
            return add_job(c, x->name, &x->t, (job){x, NULL, COPY, x->t.type}, e);
        }
        dtype to = c->o->to == CONVERT_F32 ? DT_F32 : DT_BF16;
        return is_scale ? OK : add_job(c, x->name, &x->t, (job){x, scale, DEQUANTIZE, to}, e);
    }
    if (x->t.type == DT_E5M2)
        return fail(e, ERR_UNSUPPORTED, "%s: tensor \"%.160s\": F8_E5M2 cannot be converted", x->file, x->name);
    if (c->o->to == CONVERT_FP8 && is_quantizable(x)) return add_quantized(c, x, e);
    dtype to = target(c, x);
    return add_job(c, x->name, &x->t, (job){x, NULL, to == x->t.type ? COPY : CAST, to}, e);
}

static status make_plan(conversion *c, error *e) {
    size_t n = weights_count(c->in);
    if (c->o->mtp == CONVERT_MTP_DROP && c->config.n_layers == INT64_MAX)
        return fail(e, ERR_FORMAT, "%s/config.json: no \"num_hidden_layers\", so which layers are MTP is not known",
                    c->o->in);
    c->jobs = calloc(2 * n + 1, sizeof *c->jobs);
    if (!c->jobs) return out_of_memory(e);
    TRY(shard_plan_open(&c->plan, e));
    c->f32_only = true;
    for (size_t i = 0; i < n; i++) {
        dtype t = weights_at(c->in, i)->t.type;
        if (t == DT_BF16 || t == DT_F16 || t == DT_E4M3 || t == DT_E5M2) c->f32_only = false;
    }
    for (size_t i = 0; i < n; i++) TRY(add_tensor(c, weights_at(c->in, i), e));
    if (!c->n_jobs) return fail(e, ERR_FORMAT, "%s: no tensors", c->o->in);
    TRY(shard_plan_finish(c->plan, SHARD_BYTES, e));
    c->total = shard_plan_bytes(c->plan);
    return OK;
}

/* --- the arithmetic -------------------------------------------------------------------------------------------- */

typedef struct chunk {
    const job *j;
    int64_t cols;  /* of a matrix; the element count of anything else */
    int64_t first; /* element of the tensor where the chunk begins */
    int64_t n;
    const float *scales; /* QUANTIZE: of this row of blocks; DEQUANTIZE: of the matrix */
    uint8_t *out;
    _Atomic int64_t nan_codes;
} chunk;

static void store(uint8_t *out, dtype to, const float *x, int64_t n) {
    if (to == DT_F32) memcpy(out, x, (size_t)n * 4);
    else
        for (int64_t i = 0; i < n; i++) {
            uint16_t h = f32_to_bf16(x[i]);
            memcpy(out + 2 * i, &h, 2);
        }
}

static void convert_piece(chunk *k, int64_t at, int64_t n) { /* n elements of one row, at most PIECE */
    const job *j = k->j;
    const tensor *t = &j->from->t;
    const uint8_t *src = (const uint8_t *)t->data + (size_t)at * dtype_size(t->type);
    uint8_t *out = k->out + (size_t)(at - k->first) * dtype_size(j->to);
    int64_t row = at / k->cols, col = at % k->cols;
    float x[PIECE];
    if (j->how == DEQUANTIZE) {
        int64_t nan = fp8_dequantize(x, src, col, n, k->scales + row / FP8_BLOCK * fp8_blocks(k->cols));
        if (nan) atomic_fetch_add(&k->nan_codes, nan);
    } else fp8_load(x, t->type, src, n);
    if (j->how == QUANTIZE) fp8_quantize(out, x, col, n, k->scales);
    else store(out, j->to, x, n);
}

static void convert_task(void *arg, int64_t task, int thread) {
    (void)thread;
    chunk *k = arg;
    int64_t at = k->first + task * TASK, end = k->first + k->n;
    if (end - at > TASK) end = at + TASK;
    while (at < end) {
        int64_t n = k->cols - at % k->cols;
        if (n > end - at) n = end - at;
        if (n > PIECE) n = PIECE;
        convert_piece(k, at, n);
        at += n;
    }
}

typedef struct block_row {
    const tensor *w;
    int64_t i;
    scale_format format;
    float *scales;
    _Atomic bool bad;
} block_row;

static void scale_task(void *arg, int64_t task, int thread) {
    (void)thread;
    block_row *b = arg;
    if (!fp8_block_scale(&b->scales[task], b->w, b->i, task, b->format)) atomic_store(&b->bad, true);
}

static void run_tasks(const conversion *c, int64_t n, pool_function *f, void *arg) {
    if (c->o->threads) pool_run(c->o->threads, n, f, arg);
    else
        for (int64_t i = 0; i < n; i++) f(arg, i, 0);
}

static status make_scales(const conversion *c, const weights_entry *x, int64_t i, float *scales, error *e) {
    block_row b = {.w = &x->t, .i = i, .format = c->o->scale, .scales = scales};
    run_tasks(c, fp8_blocks(x->t.dim[1]), scale_task, &b);
    if (!b.bad) return OK;
    return fail(e, ERR_FORMAT, "%s: tensor \"%.160s\": NaN or infinity in rows %lld and on, FP8 wants finite weights",
                x->file, x->name, (long long)i * FP8_BLOCK);
}

/* --- streaming ------------------------------------------------------------------------------------------------- */

/* Elements first .. first+n-1 of x will not be read again soon. */
static void let_go(const conversion *c, const weights_entry *x, int64_t first, int64_t n) {
    size_t size = dtype_size(x->t.type);
    weights_let_go(c->in, x, (size_t)first * size, (size_t)n * size);
}

static status put(conversion *c, shard_writer *w, const void *p, size_t n, const char *what, error *e) {
    TRY(shard_write(w, p, n, e));
    c->done += n;
    if (c->o->progress && c->o->progress(c->o->progress_arg, c->done, c->total, what))
        return fail(e, ERR_CANCELLED, "%s: cancelled", c->o->out);
    return OK;
}

/* Elements first .. end-1 of a job, chunk by chunk. */
static status write_range(conversion *c, shard_writer *w, const job *j, const float *scales, int64_t first, int64_t end,
                          error *e) {
    const tensor *t = &j->from->t;
    int64_t cols = t->ndim == 2 ? t->dim[1] : tensor_count(t);
    for (int64_t at = first, n; at < end; at += n) {
        n = end - at < CHUNK ? end - at : CHUNK;
        const void *bytes = (const uint8_t *)t->data + (size_t)at * dtype_size(t->type);
        if (j->how != COPY) {
            chunk k = {.j = j, .cols = cols, .first = at, .n = n, .scales = scales, .out = c->out};
            run_tasks(c, (n + TASK - 1) / TASK, convert_task, &k);
            if (k.nan_codes && !c->r->nan_codes)
                snprintf(c->r->nan_tensor, sizeof c->r->nan_tensor, "%s", j->from->name);
            c->r->nan_codes += (uint64_t)k.nan_codes;
            bytes = c->out;
        }
        TRY(put(c, w, bytes, (size_t)n * dtype_size(j->to), j->from->name, e));
        let_go(c, j->from, at, n);
    }
    return OK;
}

static status write_dequantized(conversion *c, shard_writer *w, const job *j, error *e) {
    size_t n = (size_t)tensor_count(&j->scale->t) * sizeof(float);
    float *scales = malloc(n ? n : 1); /* a copy, because the file's may be unaligned */
    if (!scales) return out_of_memory(e);
    if (n) memcpy(scales, j->scale->t.data, n);
    status s = write_range(c, w, j, scales, 0, tensor_count(&j->from->t), e);
    free(scales);
    return s;
}

/* Codes, or scales, of an FP8 weight, one row of blocks after the other. Scales stand before the codes in the file and
 * need the weight as well, so it is read twice; that keeps memory bounded. */
static status write_quantized(conversion *c, shard_writer *w, const job *j, error *e) {
    const tensor *t = &j->from->t;
    int64_t cols = t->dim[1], blocks = fp8_blocks(cols);
    float *scales = malloc((size_t)blocks * sizeof *scales);
    status s = scales ? OK : out_of_memory(e);
    for (int64_t i = 0; s == OK && i < fp8_blocks(t->dim[0]); i++) {
        int64_t row = i * FP8_BLOCK, rows = t->dim[0] - row < FP8_BLOCK ? t->dim[0] - row : FP8_BLOCK;
        s = make_scales(c, j->from, i, scales, e);
        if (s == OK && j->how == MAKE_SCALES) s = put(c, w, scales, (size_t)blocks * sizeof *scales, j->from->name, e);
        else if (s == OK) s = write_range(c, w, j, scales, row * cols, (row + rows) * cols, e);
        let_go(c, j->from, row * cols, rows * cols);
    }
    free(scales);
    return s;
}

static status write_job(conversion *c, shard_writer *w, const job *j, error *e) {
    if (j->how == QUANTIZE || j->how == MAKE_SCALES) return write_quantized(c, w, j, e);
    if (j->how == DEQUANTIZE) return write_dequantized(c, w, j, e);
    return write_range(c, w, j, NULL, 0, tensor_count(&j->from->t), e);
}

/* An index may put shards into subfolders. */
static status make_parent(const conversion *c, const char *file, error *e) {
    if (!strchr(file, '/')) return OK;
    char *path = path_join(c->o->out, file);
    if (!path) return out_of_memory(e);
    *strrchr(path, '/') = 0;
    status s = make_directory(path, e);
    free(path);
    return s;
}

static status write_shard(conversion *c, const planned_shard *s, error *e) {
    uint64_t end = c->done + s->bytes;
    c->r->shards++;
    c->r->tensors += s->count;
    c->r->bytes += s->bytes;
    if (shard_is_complete(s, c->o->out)) {
        c->r->shards_found++;
        c->done = end;
        return OK;
    }
    shard_writer w;
    TRY(make_parent(c, s->file, e));
    TRY(shard_begin(&w, s, c->o->out, e));
    c->done += s->header_bytes;
    status st = OK;
    for (size_t i = 0; st == OK && i < s->count; i++) st = write_job(c, &w, &c->jobs[s->tensors[i].added], e);
    if (st == OK) return shard_commit(&w, e);
    shard_abort(&w);
    return st;
}

static status write_shards(conversion *c, error *e) {
    c->out = malloc((size_t)CHUNK * 4);
    if (!c->out) return out_of_memory(e);
    for (size_t i = 0; i < shard_plan_count(c->plan); i++) TRY(write_shard(c, shard_plan_at(c->plan, i), e));
    return OK;
}

/* --- the folder ------------------------------------------------------------------------------------------------ */

/* Of all names, types and shapes, and of the lengths and times of the files: a run that goes on must find the input as
 * it was. */
static status fingerprint(const conversion *c, uint64_t *out, error *e) {
    uint64_t h = HASH_BEGIN;
    const char *file = "";
    for (size_t i = 0; i < weights_count(c->in); i++) {
        const weights_entry *x = weights_at(c->in, i);
        h = hash_bytes(h, x->name, strlen(x->name) + 1);
        h = hash_bytes(h, &x->t.type, sizeof x->t.type);
        h = hash_bytes(h, x->t.dim, (size_t)x->t.ndim * sizeof *x->t.dim);
        if (strcmp(file, x->file) == 0) continue;
        file = x->file;
        char *path = path_join(c->o->in, file);
        struct stat st;
        int bad = path ? stat(path, &st) : 0;
        free(path);
        if (!path) return out_of_memory(e);
        if (bad) return fail(e, ERR_IO, "%s/%s: %s", c->o->in, file, strerror(errno));
        int64_t facts[] = {st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec};
        h = hash_bytes(h, facts, sizeof facts);
    }
    *out = h;
    return OK;
}

/* The text of convert.json. */
static status marker_text(const conversion *c, char **out, error *e) {
    static const char *const to[] = {"bf16", "f32", "fp8"}, *const mtp[] = {"keep", "hide", "drop"};
    uint64_t h = 0;
    char hex[20];
    TRY(fingerprint(c, &h, e));
    snprintf(hex, sizeof hex, "%016llx", (unsigned long long)h);
    json_t *root = json_pack("{s:s, s:s, s:s, s:s, s:s}", "unfinished", "run the same conversion again to go on", "to",
                             to[c->o->to], "mtp", mtp[c->o->mtp], "scale_fmt",
                             c->o->scale == SCALE_UE8M0 ? "ue8m0" : "f32", "source", hex);
    *out = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    return *out ? OK : out_of_memory(e);
}

static status enter(conversion *c, output *target, error *e) {
    char *text = NULL;
    TRY(marker_text(c, &text, e));
    status s = output_enter(target, c->o->in, c->o->out, text, e);
    free(text);
    return s;
}

static status run(conversion *c, output *target, error *e) {
    if (!is_directory(c->o->in)) return fail(e, ERR_ARG, "%s: not a folder", c->o->in);
    TRY(config_file_read(&c->config, c->o->in, e));
    TRY(weights_open_in_place(&c->in, c->o->in, e));
    TRY(make_plan(c, e));
    TRY(enter(c, target, e));
    TRY(write_shards(c, e));
    TRY(model_files_copy(c->o->in, c->o->out, e));
    TRY(config_file_write(&c->config, c->o, e));
    /* DeepSeek's FP8 checkpoints have total_size in their index, those that its conversion script writes have not */
    TRY(shard_plan_write_index(c->plan, c->o->out, c->o->to == CONVERT_FP8, e));
    return output_done(target, e);
}

status convert_run(const convert_options *o, convert_result *result, error *e) {
    *result = (convert_result){0};
    if (o->to == CONVERT_NATIVE) return native_from_model(o, result, e);
    if (is_native_input(o->in)) return native_to_model(o, result, e);
    if (o->to == CONVERT_SAME) return fail(e, ERR_ARG, "%s: convert needs a type: bf16, f32 or fp8", o->in);
    conversion c = {.o = o, .r = result};
    output target = {.lock = -1};
    status s = run(&c, &target, e);
    output_leave(&target);
    free(c.out);
    free(c.jobs);
    shard_plan_close(c.plan);
    weights_close(c.in);
    config_file_close(&c.config);
    return s;
}
