#include "train/run.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/file.h"
#include "format/model_files.h"
#include "kernels/machine.h"
#include "model/presets.h"
#include "train/checkpoint.h"
#include "train/lora.h"
#include "train/trainer.h"

typedef struct run { /* one rank's */
    const train_config *c;
    train_config own; /* what the trainer reads: with `threads` resolved */
    const run_hooks *hooks;
    run_result *result;
    comm *world;
    trainer t;
    tokenizer *tok;
    dataset *train, *validation;
    checkpointer *checkpoints;
    metrics *metrics;
    json_t *source;               /* what a checkpoint must say of the weights' origin */
    int64_t first_row, rows_each; /* of the step under way: this rank's rows */
    dataset *from;                /* which data the batch source reads */
    int64_t micro;
    int32_t *masked;  /* targets of a row that does not count */
    double validated; /* the last validation loss, NaN: none yet */
    int64_t saved;    /* step of the last checkpoint, -1: none */
    error *e;
} run;

static bool first_rank(const run *r) {
    return r->world->rank == 0;
}

static void note(const run *r, const char *line) {
    if (first_rank(r) && r->hooks->note) r->hooks->note(r->hooks->arg, line);
}

/* --- data -------------------------------------------------------------------------------------------------------- */

static void note_of_data(void *arg, const char *line) {
    note(arg, line);
}

static int progress_of_data(void *arg, uint64_t done, uint64_t total, const char *what) {
    const run *r = arg;
    return first_rank(r) && r->hooks->progress ? r->hooks->progress(r->hooks->arg, done, total, what) : 0;
}

static status open_data(run *r, const string_list *paths, bool training, dataset **out) {
    const train_config *c = r->c;
    data_options o = c->data.options;
    o.paths = paths->item;
    o.n_paths = paths->n;
    o.shuffle = o.shuffle && training;
    o.tokenizer = r->tok;
    o.vocab_size = r->t.model.vocab_size;
    if (o.eos == EOS_AUTO)
        o.eos = r->tok && tokenizer_eos(r->tok) >= 0 ? tokenizer_eos(r->tok)
                : r->t.model.n_eos                   ? (int32_t)r->t.model.eos_ids[0]
                                                     : -1;
    o.model_type = r->t.model.arch->model_type;
    o.threads = queue_threads(r->t.q);
    o.note = note_of_data;
    o.progress = progress_of_data;
    o.arg = r;
    return dataset_open(out, &o, r->e);
}

static status open_preset_tokenizer(run *r, const preset *p) {
    char *text, *config;
    TRY(preset_tokenizer(p, &text, &config, r->e));
    status s = text ? tokenizer_parse(&r->tok, text, strlen(text), config, strlen(config), r->e) : OK;
    free(text);
    free(config);
    return s;
}

static status open_tokenizer(run *r) {
    const preset *p = r->c->model.init ? preset_find(r->c->model.path) : NULL;
    if (p && !r->c->data.tokenizer) return open_preset_tokenizer(r, p);
    const char *folder = r->c->data.tokenizer ? r->c->data.tokenizer : r->c->model.path;
    char *path = path_join(folder, "tokenizer.json");
    const bool there = path && file_exists(path);
    free(path);
    if (!there && !r->c->data.tokenizer) return OK; /* token files need none */
    return tokenizer_open(&r->tok, folder, r->e);
}

/* A row whose loss does not count. */
static status get_nothing(run *r, token_batch *out, error *e) {
    TRY(dataset_rows(r->from, r->first_row, 1, out, e));
    if (!r->masked && !(r->masked = malloc((size_t)r->c->data.options.seq_len * sizeof *r->masked)))
        return fail(e, ERR_NOMEM, "memory is out");
    for (int64_t i = 0; i < out->n; i++) r->masked[i] = -1;
    out->target = r->masked;
    out->n_targets = 0;
    return OK;
}

/* This rank's share of rows, `micro` at a time. All ranks have as many micro-batches, since those that share experts
 * meet in each; in a validation a rank may have a row less than another. */
static status get_batch(void *arg, int64_t i, token_batch *out, error *e) {
    run *r = arg;
    const int64_t first = i * r->micro, left = r->rows_each - first;
    if (left <= 0) return get_nothing(r, out, e);
    return dataset_rows(r->from, r->first_row + first, left < r->micro ? left : r->micro, out, e);
}

static batch_source rows_of(run *r, dataset *d, int64_t first, int64_t rows) {
    const int64_t each = rows / r->world->size, more = rows % r->world->size, rank = r->world->rank;
    r->from = d;
    r->micro = r->c->training.micro_batch;
    r->rows_each = each + (rank < more);
    r->first_row = first + rank * each + (rank < more ? rank : more);
    return (batch_source){get_batch, r, (each + (more > 0) + r->micro - 1) / r->micro};
}

/* --- state ------------------------------------------------------------------------------------------------------- */

static json_t *state_of(const run *r) {
    const trainer *t = &r->t;
    json_t *j = json_pack("{s:I, s:I, s:f, s:f, s:f, s:I, s:i}", "step", (json_int_t)t->step, "updates",
                          (json_int_t)t->updates, "tokens", t->tokens, "rows", t->rows, "norm_mean", t->norm_mean,
                          "seed", (json_int_t)r->c->model.seed, "ranks", r->world->size);
    if (j && isfinite(r->validated)) json_object_set_new(j, "validation_loss", json_real(r->validated));
    if (j) json_object_update(j, r->source);
    return j;
}

typedef struct slices {
    native_slice *list;
    int64_t count;
    char (*names)[200];
} slices;

static void add_slice(slices *s, const param *x, const char *suffix, dtype type, const void *data) {
    native_slice *n = &s->list[s->count];
    snprintf(s->names[s->count], sizeof *s->names, "%s%s", x->name, suffix);
    *n = (native_slice){.name = s->names[s->count], .type = type, .ndim = x->ndim, .n = x->n, .data = data};
    for (int d = 0; d < x->ndim; d++) n->dim[d] = x->dim[d];
    s->count++;
}

static void add_weight(slices *s, const params *p, optimizer *o, int64_t i) {
    const param *x = &p->list[i];
    const moments m = o ? optimizer_moments(o, i) : (moments){0};
    add_slice(s, x, "", DT_F32, p->w + x->first);
    if (m.m) add_slice(s, x, ".exp_avg", m.type, m.m);
    if (m.v) add_slice(s, x, ".exp_avg_sq", m.type, m.v);
}

/* Everything this rank has to save. */
static status open_slices(run *r, slices *s) {
    trainer *t = &r->t;
    const params *p = trainer_params(t);
    s->count = 0;
    s->list = calloc((size_t)p->count * 3 + 1, sizeof *s->list);
    s->names = calloc((size_t)p->count * 3 + 1, sizeof *s->names);
    if (!s->list || !s->names) return fail(r->e, ERR_NOMEM, "memory is out");
    for (int half = 0; half < 2; half++)
        for (int64_t i = t->share[half].first; i < t->share[half].end; i++) add_weight(s, p, t->optimizer[half], i);
    return OK;
}

static void free_slices(slices *s) {
    free(s->list);
    free(s->names);
}

static status save(run *r) {
    slices s;
    json_t *state = state_of(r);
    status a = state ? open_slices(r, &s) : fail(r->e, ERR_NOMEM, "memory is out");
    if (state && a == OK) a = checkpoint_save(r->checkpoints, r->t.step, s.list, s.count, state, r->validated, r->e);
    if (state) free_slices(&s);
    json_decref(state);
    if (a == OK) r->saved = r->t.step;
    return a;
}

static status read_moment(const native_file *f, const param *x, const char *suffix, dtype type, void *to, error *e) {
    char name[200];
    snprintf(name, sizeof name, "%s%s", x->name, suffix);
    const native_slice *t = native_find(f, name);
    if (!to && !t) return OK;
    if (!to || !t)
        return fail(e, ERR_FORMAT, "tensor \"%s\" is %s: it was saved with another optimizer or other trained weights",
                    name, t ? "not one of this run" : "missing");
    if (t->type != type)
        return fail(e, ERR_FORMAT, "tensor \"%s\" is %s, but this run keeps moments in %s (optimizer.bf16_moments)",
                    name, dtype_name(t->type), dtype_name(type));
    return native_read(f, name, 0, x->n, to, e);
}

static status read_weights(run *r, const native_file *f) {
    trainer *t = &r->t;
    params *p = trainer_params(t);
    for (int64_t i = 0; i < p->count; i++) {
        const param *x = &p->list[i];
        const native_slice *s = native_find(f, x->name);
        if (!s) return fail(r->e, ERR_FORMAT, "tensor \"%s\" is missing: it is a checkpoint of another model", x->name);
        bool same = s->ndim == x->ndim && s->type == DT_F32;
        for (int d = 0; same && d < x->ndim; d++) same = s->dim[d] == x->dim[d];
        if (!same) return fail(r->e, ERR_FORMAT, "tensor \"%s\" has another shape or type than this run's", x->name);
        TRY(native_read(f, x->name, 0, x->n, p->w + x->first, r->e));
    }
    for (int half = 0; half < 2; half++) {
        const shard owned = trainer_owned(t, half);
        for (int64_t i = owned.first; i < owned.end; i++) {
            const moments m = optimizer_moments(t->optimizer[half], i);
            TRY(read_moment(f, &p->list[i], ".exp_avg", m.type, m.m, r->e));
            TRY(read_moment(f, &p->list[i], ".exp_avg_sq", m.type, m.v, r->e));
        }
    }
    return OK;
}

static status resume_from(run *r, const char *folder) {
    native_file *f = NULL;
    trainer *t = &r->t;
    if (native_open(&f, folder, true, r->e) != OK)
        return wrap(r->e, "cannot go on (without the folder %s the run goes on from the checkpoint before)", folder);
    const json_t *j = native_state(f);
    status s = json_get_int(j, "step", 0, 0, INT64_MAX, &t->step, r->e);
    if (s == OK) s = json_get_int(j, "updates", 0, 0, INT64_MAX, &t->updates, r->e);
    if (s == OK) s = json_get_real(j, "tokens", 0, &t->tokens, r->e);
    if (s == OK) s = json_get_real(j, "rows", 0, &t->rows, r->e);
    if (s == OK) s = json_get_real(j, "norm_mean", 0, &t->norm_mean, r->e);
    if (s == OK) s = json_get_real(j, "validation_loss", NAN, &r->validated, r->e);
    if (s == OK) s = read_weights(r, f);
    native_close(f);
    if (s != OK) return wrap(r->e, "cannot go on from %s", folder);
    char line[160];
    r->saved = t->step;
    snprintf(line, sizeof line, "going on from %s: %" PRId64 " steps done", folder, t->step);
    note(r, line);
    return OK;
}

/* What the weights were in the folder they came from, for converting back. */
static json_t *origin_of(const model *m) {
    const weights_entry *first = m && m->file ? weights_find(m->file, "model.embed_tokens.weight") : NULL;
    bool copies = false;
    char name[64];
    if (m && m->n_mtp) {
        snprintf(name, sizeof name, "model.layers.%" PRId64 ".embed_tokens.weight", m->cfg.num_hidden_layers);
        copies = weights_find(m->file, name);
    }
    return json_pack("{s:s, s:s, s:b}", "model", "../model", "dtype", first && first->t.type == DT_F32 ? "F32" : "BF16",
                     "mtp_copies", copies);
}

static status load_weights(run *r, const model *from) {
    char *newest = NULL;
    int64_t step;
    status s = OK;
    TRY(checkpoint_newest(r->c->checkpoint.folder, &newest, &step, r->e));
    if (newest && !r->c->checkpoint.resume) {
        s = fail(r->e, ERR_ARG, "checkpoint.resume is false, but %s is there: take another checkpoint.folder", newest);
        free(newest);
        return s;
    }
    const bool base = !newest || trains_adapters(r->c); /* adapters change weights that the checkpoint does not hold */
    if (base && from && (s = params_load(&r->t.p, from, r->e)) != OK) wrap(r->e, "%s", r->c->model.path);
    if (base && !from) params_init(&r->t.p, &r->t.model, r->c->model.seed);
    if (base && from)
        params_init_layers(&r->t.p, &r->t.model, r->c->model.seed, from->cfg.num_hidden_layers + from->n_mtp);
    if (s == OK) s = trainer_ready(&r->t, r->e);
    if (s == OK && newest) s = resume_from(r, newest);
    free(newest);
    return s;
}

/* --- opening ----------------------------------------------------------------------------------------------------- */

static status check_dsa(const run *r) {
    const train_config *c = r->c;
    if (c->objective.dsa == DSA_OFF) return OK;
    if (!r->t.model.index_topk)
        return fail(r->e, ERR_ARG,
                    "objective.indexer_loss_scaling_factor: the model has no indexer (only deepseek_v32 models do)");
    if (c->data.options.seq_len <= r->t.model.index_topk && c->objective.indexer_sparse_training) {
        char line[200];
        snprintf(line, sizeof line,
                 "sequences of %" PRId64 " tokens are not longer than index_topk = %" PRId64
                 ": everything is chosen, attention is dense and the indexer learns over all tokens",
                 c->data.options.seq_len, r->t.model.index_topk);
        note(r, line);
    }
    return OK;
}

static void check_length(const run *r) {
    const int64_t n = r->c->data.options.seq_len, most = r->t.model.max_position_embeddings;
    char line[160];
    if (!most || n <= most) return;
    snprintf(line, sizeof line, "data.seq_len is %" PRId64 ", longer than the model's context of %" PRId64 " tokens", n,
             most);
    note(r, line);
}

static status check_vocabulary(const run *r) {
    if (r->tok && tokenizer_vocab_size(r->tok) > r->t.model.vocab_size)
        return fail(r->e, ERR_FORMAT,
                    "the tokenizer has %d tokens, but the model's vocab_size is %" PRId64
                    ": use the tokenizer of this model",
                    (int)tokenizer_vocab_size(r->tok), r->t.model.vocab_size);
    return OK;
}

static status write_run_files(const run *r) {
    const train_config *c = r->c;
    str text = {0};
    char *path = path_join(c->checkpoint.folder, "run.yaml"), *folder = path_join(c->checkpoint.folder, "model");
    status s = path && folder ? make_directory(c->checkpoint.folder, r->e) : fail(r->e, ERR_NOMEM, "memory is out");
    if (s == OK) s = train_config_write(c, &text, r->e);
    if (s == OK) s = file_save(path, text.p, text.n, r->e);
    const preset *p = c->model.init ? preset_find(c->model.path) : NULL;
    if (s == OK && p) s = make_directory(folder, r->e);
    if (s == OK && p) s = preset_write(p, folder, r->e);
    if (s == OK && !p) s = model_folder_copy(c->model.path, folder, r->e);
    str_free(&text);
    free(path);
    free(folder);
    return s;
}

/* Weights of a training that were not made a model yet? */
static bool holds_checkpoints(const char *folder) {
    char *newest = NULL;
    int64_t step;
    bool yes = is_native(folder) || (checkpoint_newest(folder, &newest, &step, NULL) == OK && newest);
    free(newest);
    return yes;
}

static status check_path(const train_config *c, error *e) {
    const char *path = c->model.path;
    if (is_directory(path) && holds_checkpoints(path))
        return fail(e, ERR_FORMAT,
                    "model.path: %s holds checkpoints of a training: take a folder hf-... of it, or make one "
                    "with 'hadal convert %s OUT'",
                    path, path);
    if (is_directory(path) || file_exists(path) || (c->model.init && preset_find(path))) return OK;
    if (preset_find(path))
        return fail(e, ERR_FORMAT, "model.path: there is no folder %s; a preset's name wants model.init=true", path);
    return fail(e, ERR_FORMAT, "model.path: there is no folder %s%s", path,
                c->model.init ? ", and no preset of that name (hadal init --help lists them)" : "");
}

static status open_run(run *r) {
    const train_config *c = r->c;
    model_config m;
    model *from = NULL;
    r->own = *c;
    if (!r->own.training.threads) r->own.training.threads = (int)sysconf(_SC_NPROCESSORS_ONLN);
    TRY(check_path(c, r->e));
    TRY(c->model.init ? preset_or_config(&m, c->model.path, r->e) : config_open(&m, c->model.path, r->e));
    if (!c->model.init) TRY(model_open(&from, c->model.path, r->e));
    if (from && !c->model.new_mtp) m.num_nextn_predict_layers = from->n_mtp; /* those that the files have */
    r->source = origin_of(from);
    status s = trainer_open(&r->t, &r->own, &m, r->world, r->e);
    if (s == OK) s = load_weights(r, from);
    model_close(from);
    TRY(s);
    TRY(machine_peak(r->t.q, &r->t.peak_flops, r->e));
    r->t.peak_flops *= r->world->size;
    if (r->t.lora && lora_note(r->t.lora)) note(r, lora_note(r->t.lora));
    check_length(r);
    TRY(check_dsa(r));
    TRY(open_tokenizer(r));
    TRY(check_vocabulary(r));
    if (c->training.steps) TRY(open_data(r, &c->data.train, true, &r->train));
    if (c->data.validation.n) TRY(open_data(r, &c->data.validation, false, &r->validation));
    if (first_rank(r)) TRY(write_run_files(r));
    TRY(r->world->kind->barrier(r->world, r->e));
    TRY(checkpointer_open(&r->checkpoints, c->checkpoint.folder, c->checkpoint.keep_last, c->checkpoint.keep_best,
                          c->checkpoint.async, r->world, r->e));
    if (first_rank(r) && r->t.step < c->training.steps)
        TRY(metrics_open(&r->metrics, c->checkpoint.folder, c->metrics.jsonl, c->metrics.tensorboard, r->t.step, r->e));
    return OK;
}

static void close_run(run *r) {
    metrics_close(r->metrics, NULL);
    dataset_close(r->train);
    dataset_close(r->validation);
    tokenizer_close(r->tok);
    trainer_close(&r->t);
    json_decref(r->source);
    free(r->masked);
}

/* --- steps ------------------------------------------------------------------------------------------------------- */

static double resident_bytes(void) {
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f) return 0;
    if (fscanf(f, "%*s %ld", &pages) != 1) pages = 0;
    fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static status validate(run *r, step_metrics *m) {
    const int64_t all = dataset_epoch_rows(r->validation), some = r->c->data.validation_rows;
    const int64_t rows = some > 0 && some < all ? some : all;
    batch_source s = rows_of(r, r->validation, 0, rows);
    TRY(trainer_loss(&r->t, &s, &m->validation_loss, r->e));
    r->validated = m->validation_loss;
    return OK;
}

/* Does somebody want to stop? The first rank asks, all do the same. */
static status ask(run *r, const step_metrics *m, bool *stop) {
    double answer = 0;
    if (first_rank(r) && r->hooks->step) answer = r->hooks->step(r->hooks->arg, m, r->c->training.steps) != 0;
    TRY(r->world->kind->all_reduce_max(r->world, &answer, 1, r->e));
    *stop = answer != 0;
    return OK;
}

static status one_step(run *r, bool *stop) {
    const train_config *c = r->c;
    trainer *t = &r->t;
    step_metrics m;
    const double start = clock_seconds(), before = t->tokens;
    batch_source s = rows_of(r, r->train, (int64_t)t->rows, schedule_batch(c, t->tokens));
    const status done = trainer_step(t, &s, &m, r->e);
    if (done == ERR_NOMEM)
        return wrap(r->e,
                    "%" PRId64 " rows of %" PRId64 " tokens at once are too many (training.micro_batch, data.seq_len; "
                    "training.recompute=block takes less)",
                    r->micro < r->rows_each ? r->micro : r->rows_each, c->data.options.seq_len);
    TRY(done);
    m.seconds = clock_seconds() - start;
    m.tokens_per_second = (t->tokens - before) / m.seconds;
    m.memory = resident_bytes();
    m.mfu = m.tokens_per_second * t->flops_per_token / t->peak_flops;
    const int64_t every = c->training.validate_every;
    if (r->validation && (t->step == c->training.steps || (every && t->step % every == 0))) TRY(validate(r, &m));
    if (m.skipped) r->result->skipped += first_rank(r);
    if (first_rank(r)) {
        r->result->loss = m.loss;
        if (r->metrics && (m.step % c->metrics.every == 0 || !isnan(m.validation_loss)))
            TRY(metrics_write(r->metrics, &m, r->e));
    }
    TRY(ask(r, &m, stop));
    if (c->checkpoint.every && t->step % c->checkpoint.every == 0) TRY(save(r));
    return OK;
}

/* All weights with the adapters in them, as a checkpoint of one shard that `hadal convert` takes. */
static status write_merged(run *r, const char *folder) {
    const params *p = &r->t.p;
    slices s = {.list = calloc((size_t)p->count, sizeof *s.list), .names = calloc((size_t)p->count, sizeof *s.names)};
    native_shard written = {0};
    status a = s.list && s.names ? native_begin(folder, r->e) : fail(r->e, ERR_NOMEM, "memory is out");
    for (int64_t i = 0; a == OK && i < p->count; i++) add_slice(&s, &p->list[i], "", DT_F32, p->w + p->list[i].first);
    if (a == OK) a = native_write_shard(folder, 0, s.list, s.count, &written, r->e);
    if (a == OK) a = native_finish(folder, &written, 1, r->source, r->e);
    if (a != OK) native_abort(folder);
    native_shard_free(&written);
    free_slices(&s);
    return a;
}

/* FOLDER/adapter in PEFT's layout; FOLDER/merged for the export. */
static status save_adapter(run *r) {
    const train_config *c = r->c;
    char *adapter = path_join(c->checkpoint.folder, "adapter"), *merged = path_join(c->checkpoint.folder, "merged");
    status s =
        adapter && merged ? lora_save(r->t.lora, adapter, c->model.path, r->e) : fail(r->e, ERR_NOMEM, "memory is out");
    if (s == OK && c->checkpoint.export) {
        lora_apply(r->t.lora, r->t.q, &r->t.p);
        s = write_merged(r, merged);
    }
    free(adapter);
    free(merged);
    return s;
}

static status steps(run *r) {
    const train_config *c = r->c;
    const double start = clock_seconds();
    bool stop = false;
    while (!stop && r->t.step < c->training.steps) TRY(one_step(r, &stop));
    if (r->saved != r->t.step) TRY(save(r));
    if (first_rank(r)) {
        r->result->steps = r->t.step;
        r->result->tokens = r->t.tokens;
        r->result->seconds = clock_seconds() - start;
        r->result->validation_loss = r->validated;
        r->result->stopped = stop && r->t.step < c->training.steps;
        if (r->t.lora) TRY(save_adapter(r));
    }
    return OK;
}

typedef struct run_call {
    const train_config *c;
    const run_hooks *hooks;
    run_result *result;
} run_call;

static status run_rank(void *arg, comm *world, error *e) {
    const run_call *call = arg;
    run r = {.c = call->c,
             .hooks = call->hooks,
             .result = call->result,
             .world = world,
             .validated = NAN,
             .saved = -1,
             .e = e};
    status s = open_run(&r);
    if (s == OK) s = steps(&r);
    error late;
    status closed = checkpointer_close(r.checkpoints, s == OK ? e : &late);
    close_run(&r);
    return s == OK ? closed : s;
}

status train_run(const train_config *c, const run_hooks *hooks, run_result *out, error *e) {
    run_call call = {c, hooks, out};
    *out = (run_result){.loss = NAN, .validation_loss = NAN};
    if (c->training.ranks > 1) return comm_run_threads(c->training.ranks, run_rank, &call, e);
    comm world;
    TRY(comm_self(&world, e));
    return run_rank(&call, &world, e);
}
