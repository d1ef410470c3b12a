/* Public functions of training (hadal_train.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "api/internal.h"
#include "base/pool.h"
#include "eval/bench_train.h"
#include "post/bench_grpo.h"
#include "post/distill.h"
#include "post/dpo.h"
#include "post/export.h"
#include "post/grpo.h"
#include "post/sample.h"
#include "reward/reward.h"

typedef status runner(const train_config *c, const run_hooks *hooks, run_result *out, error *e);

_Static_assert(sizeof(hadal_number) == sizeof(named_number), "one is handed out as the other");

static int on_step(void *arg, const step_metrics *m, int64_t steps) {
    const hadal_train_options *o = arg;
    const hadal_train_step s = {.step = m->step + 1,
                                .steps = steps,
                                .tokens = m->tokens,
                                .loss = m->loss,
                                .lm_loss = m->lm_loss,
                                .mtp_loss = m->mtp_loss,
                                .balance_loss = m->balance_loss,
                                .indexer_loss = m->indexer_loss,
                                .mtp_acceptance = m->mtp_acceptance,
                                .validation_loss = m->validation_loss,
                                .grad_norm = m->grad_norm,
                                .lr = m->lr,
                                .skipped = m->skipped,
                                .seconds = m->seconds,
                                .tokens_per_second = m->tokens_per_second,
                                .mfu = m->mfu,
                                .memory = m->memory,
                                .max_vio = m->max_vio,
                                .dropped = m->dropped,
                                .more = (const hadal_number *)(const void *)m->more,
                                .n_more = m->n_more};
    return o->step ? o->step(o->arg, &s) : 0;
}

static void on_note(void *arg, const char *line) {
    const hadal_train_options *o = arg;
    if (o->note) o->note(o->arg, line);
}

static int on_progress(void *arg, uint64_t done, uint64_t total, const char *what) {
    const hadal_train_options *o = arg;
    return o->progress ? o->progress(o->arg, done, total, what) : 0;
}

run_hooks api_hooks(hadal_train_options *o) {
    return (run_hooks){on_step, on_note, on_progress, o};
}

static status train(hadal_train_options *o, runner *run, arena *mem, char **json, error *e) {
    const run_hooks hooks = api_hooks(o);
    train_config c;
    run_result r;
    TRY(train_config_read(&c, o->run_file, o->overrides, o->n_overrides, mem, e));
    if (c.note) on_note(o, c.note);
    TRY(run(&c, &hooks, &r, e));
    json_t *j =
        json_pack("{s:I, s:f, s:f, s:I, s:b, s:s*}", "steps", (json_int_t)r.steps, "tokens", r.tokens, "seconds",
                  r.seconds, "skipped", (json_int_t)r.skipped, "stopped", r.stopped, "folder", c.checkpoint.folder);
    if (!j) return fail(e, ERR_NOMEM, "memory is out");
    if (r.loss == r.loss) json_object_set_new(j, "loss", json_real(r.loss));
    if (r.validation_loss == r.validation_loss) json_object_set_new(j, "validation_loss", json_real(r.validation_loss));
    for (int i = 0; i < r.n_more; i++) json_object_set_new(j, r.more[i].name, json_real(r.more[i].value));
    if (r.output[0]) json_object_set_new(j, "output", json_string(r.output));
    char *exported = NULL;
    status s = c.checkpoint.export && !r.stopped && !r.output[0] ? export_newest(&c, &hooks, &exported, e) : OK;
    if (exported) json_object_set_new(j, "exported", json_string(exported));
    free(exported);
    if (s != OK) {
        json_decref(j);
        return s;
    }
    return api_json(j, json, e);
}

static int call(const hadal_train_options *given, runner *run, char **json, hadal_error *e) {
    hadal_train_options o = {0};
    error why;
    if (json) *json = NULL;
    api_options(&o, sizeof o, given);
    arena *mem = arena_open(1 << 16);
    status s = mem ? train(&o, run, mem, json, &why) : fail(&why, ERR_NOMEM, "memory is out");
    arena_close(mem);
    return api_result(s, &why, e);
}

int hadal_train(const hadal_train_options *o, char **json, hadal_error *e) {
    return call(o, train_run, json, e);
}

int hadal_grpo(const hadal_train_options *o, char **json, hadal_error *e) {
    return call(o, grpo_run, json, e);
}

int hadal_sample(const hadal_train_options *o, char **json, hadal_error *e) {
    return call(o, sample_run, json, e);
}

int hadal_distill(const hadal_train_options *o, char **json, hadal_error *e) {
    return call(o, distill_run, json, e);
}

int hadal_dpo(const hadal_train_options *o, char **json, hadal_error *e) {
    return call(o, dpo_run, json, e);
}

int hadal_rewards(char **text, hadal_error *e) {
    str out = {0};
    error why;
    *text = NULL;
    status s = reward_help(&out);
    if (s != OK) fail(&why, s, "memory is out");
    else *text = str_take(&out);
    str_free(&out);
    return api_result(s, &why, e);
}

int hadal_train_keys(char **text, hadal_error *e) {
    str out = {0};
    error why;
    *text = NULL;
    status s = train_config_help(&out);
    if (s != OK) fail(&why, s, "memory is out");
    else *text = str_take(&out);
    str_free(&out);
    return api_result(s, &why, e);
}

static status read_precision(const char *wanted, precision *out, error *e) {
    int kind = 0;
    while (kind < PRECISIONS && strcmp(precision_names[kind], wanted)) kind++;
    if (kind == PRECISIONS) return fail(e, ERR_ARG, "precision is \"%s\": use f32, bf16 or fp8", wanted);
    *out = (precision)kind;
    return OK;
}

static status bench(const hadal_bench_train_options *o, char **json, error *e) {
    bench_train_options b = {.path = o->path, .tokens = o->tokens, .kernels = o->kernels};
    TRY(read_precision(o->precision ? o->precision : "bf16", &b.precision, e));
    b.threads = pool_size(o->threads);
    b.batch = o->batch ? o->batch : 4;
    b.seq_len = o->seq_len ? o->seq_len : 512;
    b.steps = o->steps ? o->steps : 10;
    b.progress = o->progress;
    b.arg = o->progress_arg;
    json_t *j;
    TRY(bench_train(&b, &j, e));
    return api_json(j, json, e);
}

int hadal_bench_train(const hadal_bench_train_options *given, char **json, hadal_error *e) {
    hadal_bench_train_options o = {0};
    error why;
    if (json) *json = NULL;
    api_options(&o, sizeof o, given);
    status s = o.path ? bench(&o, json, &why) : fail(&why, ERR_ARG, "no model was named");
    return api_result(s, &why, e);
}

static status bench_policy(const hadal_bench_grpo_options *o, char **json, error *e) {
    bench_grpo_options b = {.path = o->path,
                            .kernels = o->kernels,
                            .threads = pool_size(o->threads),
                            .prompts = o->prompts ? o->prompts : 24,
                            .generations = o->generations ? o->generations : 8,
                            .max_tokens = o->max_tokens ? o->max_tokens : 40,
                            .steps = o->steps ? o->steps : 10,
                            .progress = o->progress,
                            .arg = o->progress_arg};
    json_t *j;
    TRY(read_precision(o->precision ? o->precision : "f32", &b.precision, e));
    TRY(bench_grpo(&b, &j, e));
    return api_json(j, json, e);
}

int hadal_bench_grpo(const hadal_bench_grpo_options *given, char **json, hadal_error *e) {
    hadal_bench_grpo_options o = {0};
    error why;
    if (json) *json = NULL;
    api_options(&o, sizeof o, given);
    status s = o.path ? bench_policy(&o, json, &why) : fail(&why, ERR_ARG, "no model was named");
    return api_result(s, &why, e);
}
