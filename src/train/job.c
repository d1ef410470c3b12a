/* The order of opening: the model's folder is looked at, weights are loaded or made, adapters and optimizers follow,
 * then a checkpoint of an earlier run replaces all of it; the run's own files are written last, when nothing can be
 * wrong any more. */
#include "train/job.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/file.h"
#include "base/pool.h"
#include "format/model_files.h"
#include "kernels/machine.h"
#include "model/presets.h"
#include "train/lora.h"

bool job_first(const job *j) {
    return j->world->rank == 0;
}

void job_note(const job *j, const char *line) {
    if (job_first(j) && j->hooks->note) j->hooks->note(j->hooks->arg, line);
}

void job_on_note(void *arg, const char *line) {
    job_note(arg, line);
}

int job_on_progress(void *arg, uint64_t done, uint64_t total, const char *what) {
    const job *j = arg;
    return job_first(j) && j->hooks->progress ? j->hooks->progress(j->hooks->arg, done, total, what) : 0;
}

/* --- state ------------------------------------------------------------------------------------------------------- */

static json_t *state_of(const job *j) {
    const trainer *t = &j->t;
    json_t *x = json_pack("{s:I, s:I, s:f, s:f, s:f, s:I, s:i}", "step", (json_int_t)t->step, "updates",
                          (json_int_t)t->updates, "tokens", t->tokens, "rows", t->rows, "norm_mean", t->norm_mean,
                          "seed", (json_int_t)j->c->model.seed, "ranks", j->world->size);
    if (x && isfinite(j->validated)) json_object_set_new(x, "validation_loss", json_real(j->validated));
    if (x && j->state) json_object_set(x, "more", j->state);
    if (x) json_object_update(x, j->source);
    return x;
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

static void add_weight(slices *s, const job *j, const params *p, optimizer *o, int64_t i) {
    const param *x = &p->list[i];
    const moments m = o ? optimizer_moments(o, i) : (moments){0};
    add_slice(s, x, "", DT_F32, p->w + x->first);
    if (m.m) add_slice(s, x, ".exp_avg", m.type, m.m);
    if (m.v) add_slice(s, x, ".exp_avg_sq", m.type, m.v);
    if (j->reference) add_slice(s, x, ".reference", DT_F32, j->reference + x->first);
}

/* Everything this rank has to save. */
static status open_slices(job *j, slices *s) {
    trainer *t = &j->t;
    const params *p = trainer_params(t);
    s->count = 0;
    s->list = calloc((size_t)p->count * 4 + 1, sizeof *s->list);
    s->names = calloc((size_t)p->count * 4 + 1, sizeof *s->names);
    if (!s->list || !s->names) return fail(j->e, ERR_NOMEM, "memory is out");
    for (int half = 0; half < 2; half++)
        for (int64_t i = t->share[half].first; i < t->share[half].end; i++) add_weight(s, j, p, t->optimizer[half], i);
    return OK;
}

static void free_slices(slices *s) {
    free(s->list);
    free(s->names);
}

static status save(job *j) {
    slices s;
    json_t *state = state_of(j);
    status a = state ? open_slices(j, &s) : fail(j->e, ERR_NOMEM, "memory is out");
    if (state && a == OK)
        a = checkpoint_save(j->checkpoints, j->t.step, s.list, s.count, state,
                            isnan(j->score) ? j->validated : j->score, j->e);
    if (state) free_slices(&s);
    json_decref(state);
    if (a == OK) j->saved = j->t.step;
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

static status read_weights(job *j, const native_file *f) {
    trainer *t = &j->t;
    params *p = trainer_params(t);
    for (int64_t i = 0; i < p->count; i++) {
        const param *x = &p->list[i];
        const native_slice *s = native_find(f, x->name);
        if (!s) return fail(j->e, ERR_FORMAT, "tensor \"%s\" is missing: it is a checkpoint of another model", x->name);
        bool same = s->ndim == x->ndim && s->type == DT_F32;
        for (int d = 0; same && d < x->ndim; d++) same = s->dim[d] == x->dim[d];
        if (!same) return fail(j->e, ERR_FORMAT, "tensor \"%s\" has another shape or type than this run's", x->name);
        TRY(native_read(f, x->name, 0, x->n, p->w + x->first, j->e));
        if (j->reference) TRY(read_moment(f, x, ".reference", DT_F32, j->reference + x->first, j->e));
    }
    for (int half = 0; half < 2; half++) {
        const shard owned = trainer_owned(t, half);
        for (int64_t i = owned.first; i < owned.end; i++) {
            const moments m = optimizer_moments(t->optimizer[half], i);
            TRY(read_moment(f, &p->list[i], ".exp_avg", m.type, m.m, j->e));
            TRY(read_moment(f, &p->list[i], ".exp_avg_sq", m.type, m.v, j->e));
        }
    }
    return OK;
}

static status resume_from(job *j, const char *folder) {
    native_file *f = NULL;
    trainer *t = &j->t;
    if (native_open(&f, folder, true, j->e) != OK)
        return wrap(j->e, "cannot go on (without the folder %s the run goes on from the checkpoint before)", folder);
    const json_t *x = native_state(f);
    status s = json_get_int(x, "step", 0, 0, INT64_MAX, &t->step, j->e);
    if (s == OK) s = json_get_int(x, "updates", 0, 0, INT64_MAX, &t->updates, j->e);
    if (s == OK) s = json_get_real(x, "tokens", 0, &t->tokens, j->e);
    if (s == OK) s = json_get_real(x, "rows", 0, &t->rows, j->e);
    if (s == OK) s = json_get_real(x, "norm_mean", 0, &t->norm_mean, j->e);
    if (s == OK) s = json_get_real(x, "validation_loss", NAN, &j->validated, j->e);
    if (s == OK) s = read_weights(j, f);
    if (s == OK && json_object_get(x, "more") && !(j->state = json_deep_copy(json_object_get(x, "more"))))
        s = fail(j->e, ERR_NOMEM, "memory is out");
    native_close(f);
    if (s != OK) return wrap(j->e, "cannot go on from %s", folder);
    char line[160];
    j->saved = t->step;
    snprintf(line, sizeof line, "going on from %s: %" PRId64 " steps done", folder, t->step);
    job_note(j, line);
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

static status load_weights(job *j, const model *from) {
    char *newest = NULL;
    int64_t step;
    status s = OK;
    TRY(checkpoint_newest(j->c->checkpoint.folder, &newest, &step, j->e));
    if (newest && !j->c->checkpoint.resume) {
        s = fail(j->e, ERR_ARG, "checkpoint.resume is false, but %s is there: take another checkpoint.folder", newest);
        free(newest);
        return s;
    }
    const bool base = !newest || trains_adapters(j->c); /* adapters change weights that the checkpoint does not hold */
    if (base && from && (s = params_load(&j->t.p, from, j->e)) != OK) wrap(j->e, "%s", j->c->model.path);
    if (base && !from) params_init(&j->t.p, &j->t.model, j->c->model.seed);
    if (base && from)
        params_init_layers(&j->t.p, &j->t.model, j->c->model.seed, from->cfg.num_hidden_layers + from->n_mtp);
    if (s == OK && j->reference) memcpy(j->reference, j->t.p.w, (size_t)j->t.p.total * sizeof *j->reference);
    if (s == OK) s = trainer_ready(&j->t, j->e);
    if (s == OK && newest) s = resume_from(j, newest);
    free(newest);
    return s;
}

/* --- opening ----------------------------------------------------------------------------------------------------- */

static void check_length(const job *j) {
    const int64_t n = j->c->data.options.seq_len, most = j->t.model.max_position_embeddings;
    char line[160];
    if (!most || n <= most) return;
    snprintf(line, sizeof line, "data.seq_len is %" PRId64 ", longer than the model's context of %" PRId64 " tokens", n,
             most);
    job_note(j, line);
}

static status open_preset_tokenizer(job *j, const preset *p) {
    char *text, *config;
    TRY(preset_tokenizer(p, &text, &config, j->e));
    status s = text ? tokenizer_parse(&j->tok, text, strlen(text), config, strlen(config), j->e) : OK;
    free(text);
    free(config);
    return s;
}

static status open_tokenizer(job *j) {
    const preset *p = j->c->model.init ? preset_find(j->c->model.path) : NULL;
    if (p && !j->c->data.tokenizer) return open_preset_tokenizer(j, p);
    const char *folder = j->c->data.tokenizer ? j->c->data.tokenizer : j->c->model.path;
    char *path = path_join(folder, "tokenizer.json");
    const bool there = path && file_exists(path);
    free(path);
    if (!there && !j->c->data.tokenizer) return OK; /* token files need none */
    return tokenizer_open(&j->tok, folder, j->e);
}

static status check_vocabulary(const job *j) {
    if (j->tok && tokenizer_vocab_size(j->tok) > j->t.model.vocab_size)
        return fail(j->e, ERR_FORMAT,
                    "the tokenizer has %d tokens, but the model's vocab_size is %" PRId64
                    ": use the tokenizer of this model",
                    (int)tokenizer_vocab_size(j->tok), j->t.model.vocab_size);
    return OK;
}

static status write_run_files(const job *j) {
    const train_config *c = j->c;
    str text = {0};
    char *path = path_join(c->checkpoint.folder, "run.yaml"), *folder = path_join(c->checkpoint.folder, "model");
    status s = path && folder ? make_directory(c->checkpoint.folder, j->e) : fail(j->e, ERR_NOMEM, "memory is out");
    if (s == OK) s = train_config_write(c, &text, j->e);
    if (s == OK) s = file_save(path, text.p, text.n, j->e);
    const preset *p = c->model.init ? preset_find(c->model.path) : NULL;
    if (s == OK && p) s = make_directory(folder, j->e);
    if (s == OK && p) s = preset_write(p, folder, j->e);
    if (s == OK && !p) s = model_folder_copy(c->model.path, folder, j->e);
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

static status open_model(job *j, bool keep_reference) {
    const train_config *c = j->c;
    model_config m;
    model *from = NULL;
    TRY(c->model.init ? preset_or_config(&m, c->model.path, j->e) : config_open(&m, c->model.path, j->e));
    if (!c->model.init) TRY(model_open(&from, c->model.path, j->e));
    if (from && !c->model.new_mtp) m.num_nextn_predict_layers = from->n_mtp; /* those that the files have */
    j->source = origin_of(from);
    status s = trainer_open(&j->t, &j->own, &m, j->world, j->e);
    if (s == OK && keep_reference && !trains_adapters(c)) { /* adapters switched off are the reference */
        j->reference = malloc((size_t)j->t.p.total * sizeof *j->reference);
        if (!j->reference) s = fail(j->e, ERR_NOMEM, "memory is out for a reference model");
    }
    if (s == OK) s = load_weights(j, from);
    model_close(from);
    return s;
}

status job_begin(job *j) {
    const train_config *c = j->c;
    j->start = clock_seconds();
    if (job_first(j)) TRY(write_run_files(j));
    TRY(j->world->kind->barrier(j->world, j->e));
    TRY(checkpointer_open(&j->checkpoints, c->checkpoint.folder, c->checkpoint.keep_last, c->checkpoint.keep_best,
                          c->checkpoint.async, j->world, j->e));
    if (job_first(j) && j->t.step < c->training.steps)
        TRY(metrics_open(&j->metrics, c->checkpoint.folder, c->metrics.jsonl, c->metrics.tensorboard, j->t.step, j->e));
    return OK;
}

status job_open(job *j, const train_config *c, const run_hooks *hooks, run_result *out, comm *world,
                bool keep_reference, error *e) {
    *j = (job){.c = c,
               .own = *c,
               .hooks = hooks,
               .result = out,
               .world = world,
               .validated = NAN,
               .score = NAN,
               .saved = -1,
               .e = e};
    j->own.training.threads = pool_size(c->training.threads);
    if (!c->checkpoint.folder)
        return fail(e, ERR_ARG, "checkpoint.folder is missing: where shall checkpoints and metrics go?");
    TRY(check_path(c, e));
    TRY(open_model(j, keep_reference));
    TRY(machine_peak(j->t.q, &j->t.peak_flops, e));
    j->t.peak_flops *= world->size;
    if (j->t.lora && lora_note(j->t.lora)) job_note(j, lora_note(j->t.lora));
    check_length(j);
    TRY(open_tokenizer(j));
    return check_vocabulary(j);
}

void job_close(job *j) {
    checkpointer_close(j->checkpoints, NULL);
    metrics_close(j->metrics, NULL);
    tokenizer_close(j->tok);
    trainer_close(&j->t);
    json_decref(j->source);
    json_decref(j->state);
    free(j->reference);
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

/* Does somebody want to stop? The first rank asks, all do the same. */
static status ask(job *j, const step_metrics *m) {
    double answer = 0;
    if (job_first(j) && j->hooks->step) answer = j->hooks->step(j->hooks->arg, m, j->c->training.steps) != 0;
    TRY(j->world->kind->all_reduce_max(j->world, &answer, 1, j->e));
    j->stop = answer != 0;
    return OK;
}

status job_step_done(job *j, step_metrics *m, double seconds, double tokens) {
    const train_config *c = j->c;
    m->seconds = seconds;
    m->tokens_per_second = tokens / seconds;
    m->memory = resident_bytes();
    if (m->skipped) j->result->skipped += job_first(j);
    if (!isnan(m->validation_loss)) j->validated = m->validation_loss;
    if (job_first(j)) {
        j->result->loss = m->loss;
        if (j->metrics && (m->step % c->metrics.every == 0 || !isnan(m->validation_loss)))
            TRY(metrics_write(j->metrics, m, j->e));
    }
    TRY(ask(j, m));
    if (c->checkpoint.every && j->t.step % c->checkpoint.every == 0) TRY(save(j));
    return OK;
}

/* All weights with the adapters in them, as a checkpoint of one shard that `hadal convert` takes. */
static status write_merged(job *j, const char *folder) {
    const params *p = &j->t.p;
    slices s = {.list = calloc((size_t)p->count, sizeof *s.list), .names = calloc((size_t)p->count, sizeof *s.names)};
    native_shard written = {0};
    status a = s.list && s.names ? native_begin(folder, j->e) : fail(j->e, ERR_NOMEM, "memory is out");
    for (int64_t i = 0; a == OK && i < p->count; i++) add_slice(&s, &p->list[i], "", DT_F32, p->w + p->list[i].first);
    if (a == OK) a = native_write_shard(folder, 0, s.list, s.count, &written, j->e);
    if (a == OK) a = native_finish(folder, &written, 1, j->source, j->e);
    if (a != OK) native_abort(folder);
    native_shard_free(&written);
    free_slices(&s);
    return a;
}

/* FOLDER/adapter in PEFT's layout; FOLDER/merged for the export. */
static status save_adapter(job *j) {
    const train_config *c = j->c;
    char *adapter = path_join(c->checkpoint.folder, "adapter"), *merged = path_join(c->checkpoint.folder, "merged");
    status s =
        adapter && merged ? lora_save(j->t.lora, adapter, c->model.path, j->e) : fail(j->e, ERR_NOMEM, "memory is out");
    if (s == OK && c->checkpoint.export) {
        lora_apply(j->t.lora, j->t.q, &j->t.p);
        s = write_merged(j, merged);
    }
    free(adapter);
    free(merged);
    return s;
}

status job_finish(job *j) {
    if (j->saved != j->t.step) TRY(save(j));
    if (job_first(j)) {
        j->result->steps = j->t.step;
        j->result->tokens = j->t.tokens;
        j->result->seconds = clock_seconds() - j->start;
        j->result->validation_loss = j->validated;
        j->result->stopped = j->stop && j->t.step < j->c->training.steps;
        if (j->t.lora) TRY(save_adapter(j));
    }
    checkpointer *last = j->checkpoints;
    j->checkpoints = NULL;
    return checkpointer_close(last, j->e);
}
