/* Steps over rows of a data set, with validation. */
#include "train/run.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/clock.h"
#include "train/job.h"

typedef struct run { /* one rank's */
    job j;
    dataset *train, *validation;
    int64_t first_row, rows_each; /* of the step under way: this rank's rows */
    dataset *from;                /* which data the batch source reads */
    int64_t micro;
    int32_t *masked; /* targets of a row that does not count */
    bool learned;    /* training.until_loss is reached */
    const run_judge *judge;
    token_loss loss;
} run;

/* --- data -------------------------------------------------------------------------------------------------------- */

static status open_data(run *r, const string_list *paths, bool training, dataset **out) {
    const train_config *c = r->j.c;
    data_options o = c->data.options;
    o.paths = paths->item;
    o.n_paths = paths->n;
    o.shuffle = o.shuffle && training;
    o.tokenizer = r->j.tok;
    o.vocab_size = r->j.t.model.vocab_size;
    if (o.eos == EOS_AUTO)
        o.eos = r->j.tok && tokenizer_eos(r->j.tok) >= 0 ? tokenizer_eos(r->j.tok)
                : r->j.t.model.n_eos                     ? (int32_t)r->j.t.model.eos_ids[0]
                                                         : -1;
    o.model_type = r->j.t.model.arch->model_type;
    o.threads = queue_threads(r->j.t.q);
    o.note = job_on_note;
    o.progress = job_on_progress;
    o.arg = &r->j;
    return dataset_open(out, &o, r->j.e);
}

/* A row whose loss does not count. */
static status get_nothing(run *r, token_batch *out, error *e) {
    TRY(dataset_rows(r->from, r->first_row, 1, out, e));
    if (!r->masked && !(r->masked = malloc((size_t)r->j.c->data.options.seq_len * sizeof *r->masked)))
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
    const int64_t each = rows / r->j.world->size, more = rows % r->j.world->size, rank = r->j.world->rank;
    r->from = d;
    r->micro = r->j.c->training.micro_batch;
    r->rows_each = each + (rank < more);
    r->first_row = first + rank * each + (rank < more ? rank : more);
    return (batch_source){.get = get_batch, .arg = r, .count = (each + (more > 0) + r->micro - 1) / r->micro};
}

/* --- opening ----------------------------------------------------------------------------------------------------- */

static status check_dsa(const run *r) {
    const train_config *c = r->j.c;
    if (c->objective.dsa == DSA_OFF) return OK;
    if (!r->j.t.model.index_topk)
        return fail(r->j.e, ERR_ARG,
                    "objective.indexer_loss_scaling_factor: the model has no indexer (only deepseek_v32 models do)");
    if (c->data.options.seq_len <= r->j.t.model.index_topk && c->objective.indexer_sparse_training) {
        char line[200];
        snprintf(line, sizeof line,
                 "sequences of %" PRId64 " tokens are not longer than index_topk = %" PRId64
                 ": everything is chosen, attention is dense and the indexer learns over all tokens",
                 c->data.options.seq_len, r->j.t.model.index_topk);
        job_note(&r->j, line);
    }
    return OK;
}

static status open_run(run *r) {
    const train_config *c = r->j.c;
    TRY(check_dsa(r));
    if (r->judge) TRY(r->judge->open(r->judge->arg, &r->j, &r->loss, r->j.e));
    if (c->training.steps) TRY(open_data(r, &c->data.train, true, &r->train));
    if (c->data.validation.n) TRY(open_data(r, &c->data.validation, false, &r->validation));
    return job_begin(&r->j);
}

static void close_run(run *r) {
    dataset_close(r->train);
    dataset_close(r->validation);
    free(r->masked);
    job_close(&r->j);
}

/* --- steps ------------------------------------------------------------------------------------------------------- */

static status validate(run *r, step_metrics *m) {
    const int64_t all = dataset_epoch_rows(r->validation), some = r->j.c->data.validation_rows;
    const int64_t rows = some > 0 && some < all ? some : all;
    batch_source s = rows_of(r, r->validation, 0, rows);
    return trainer_loss(&r->j.t, &s, &m->validation_loss, r->j.e);
}

static status one_step(run *r) {
    const train_config *c = r->j.c;
    trainer *t = &r->j.t;
    step_metrics m;
    const double start = clock_seconds(), before = t->tokens;
    batch_source s = rows_of(r, r->train, (int64_t)t->rows, schedule_batch(c, t->tokens));
    s.judge = r->judge ? &r->loss : NULL;
    const status done = trainer_step(t, &s, &m, r->j.e);
    if (done == ERR_NOMEM)
        return wrap(r->j.e,
                    "%" PRId64 " rows of %" PRId64 " tokens at once are too many (training.micro_batch, data.seq_len; "
                    "training.recompute=block takes less)",
                    r->micro < r->rows_each ? r->micro : r->rows_each, c->data.options.seq_len);
    TRY(done);
    m.mfu = (t->tokens - before) / (clock_seconds() - start) * t->flops_per_token / t->peak_flops;
    const int64_t every = c->training.validate_every;
    const double tokens = t->tokens - before, trained = clock_seconds() - start;
    if (r->validation && (t->step == c->training.steps || (every && t->step % every == 0))) TRY(validate(r, &m));
    r->learned = c->training.until_loss > 0 && m.validation_loss <= c->training.until_loss;
    return job_step_done(&r->j, &m, trained, tokens);
}

static status steps(run *r) {
    const train_config *c = r->j.c;
    r->learned = c->training.until_loss > 0 && r->j.validated <= c->training.until_loss; /* by an earlier run */
    while (!r->j.stop && !r->learned && r->j.t.step < c->training.steps) TRY(one_step(r));
    return job_finish(&r->j);
}

typedef struct run_call {
    const train_config *c;
    const run_judge *judge;
    const run_hooks *hooks;
    run_result *result;
} run_call;

static status run_rank(void *arg, comm *world, error *e) {
    const run_call *call = arg;
    run r = {.judge = call->judge};
    status s = job_open(&r.j, call->c, call->hooks, call->result, world, false, e);
    if (s == OK) s = open_run(&r);
    if (s == OK) s = steps(&r);
    close_run(&r);
    return s;
}

status train_run_judged(const train_config *c, const run_judge *judge, const run_hooks *hooks, run_result *out,
                        error *e) {
    run_call call = {c, judge, hooks, out};
    *out = (run_result){.loss = NAN, .validation_loss = NAN};
    if (c->training.ranks > 1) return comm_run_threads(c->training.ranks, run_rank, &call, e);
    comm world;
    TRY(comm_self(&world, e));
    return run_rank(&call, &world, e);
}

status train_run(const train_config *c, const run_hooks *hooks, run_result *out, error *e) {
    return train_run_judged(c, NULL, hooks, out, e);
}
