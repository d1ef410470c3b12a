/* Public functions for checkpoints and measurements: convert, init, check, trace, bench. */
#include <stdlib.h>
#include <string.h>
#include "api/internal.h"
#include "base/pool.h"
#include "convert/convert.h"
#include "convert/init.h"
#include "eval/bench.h"
#include "eval/golden_logits.h"
#include "eval/logit_kl.h"
#include "eval/trace.h"

typedef struct progress_call {
    hadal_progress *f;
    void *arg;
} progress_call;

static int on_bytes(void *arg, uint64_t done, uint64_t total, const char *what) {
    const progress_call *p = arg;
    return p->f ? p->f(p->arg, done, total, what) : 0;
}

/* --- convert, init ---------------------------------------------------------------------------------------------- */

static status convert_options_read(convert_options *c, const hadal_convert_options *o, error *e) {
    if (!o->to) c->to = CONVERT_SAME;
    else if (!strcmp(o->to, "bf16")) c->to = CONVERT_BF16;
    else if (!strcmp(o->to, "f32")) c->to = CONVERT_F32;
    else if (!strcmp(o->to, "fp8")) c->to = CONVERT_FP8;
    else if (!strcmp(o->to, "native")) c->to = CONVERT_NATIVE;
    else return fail(e, ERR_ARG, "cannot convert to \"%s\": use bf16, f32, fp8 or native", o->to);
    if (!o->mtp || !strcmp(o->mtp, "keep")) c->mtp = CONVERT_MTP_KEEP;
    else if (!strcmp(o->mtp, "hide")) c->mtp = CONVERT_MTP_HIDE;
    else if (!strcmp(o->mtp, "drop")) c->mtp = CONVERT_MTP_DROP;
    else return fail(e, ERR_ARG, "mtp \"%s\": use keep, hide or drop", o->mtp);
    if (!o->scale_fmt) c->scale = SCALE_F32;
    else if (!strcmp(o->scale_fmt, "ue8m0")) c->scale = SCALE_UE8M0;
    else return fail(e, ERR_ARG, "scale format \"%s\": only ue8m0 is known", o->scale_fmt);
    return OK;
}

static status convert(const char *in, const char *out, const hadal_convert_options *o, char **json, error *e) {
    progress_call progress = {o->progress, o->progress_arg};
    convert_options c = {.in = in, .out = out, .progress = on_bytes, .progress_arg = &progress};
    convert_result r = {0};
    TRY(convert_options_read(&c, o, e));
    TRY(pool_open(&c.threads, pool_size(o->threads), e));
    status s = convert_run(&c, &r, e);
    pool_close(c.threads);
    if (s != OK || !json) return s;
    json_t *j = json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I}", "in", in, "out", out, "tensors", (json_int_t)r.tensors,
                          "shards", (json_int_t)r.shards, "shards_found", (json_int_t)r.shards_found, "bytes",
                          (json_int_t)r.bytes, "nan_codes", (json_int_t)r.nan_codes);
    if (j && r.nan_codes) json_object_set_new(j, "nan_tensor", json_string(r.nan_tensor));
    return api_json(j, json, e);
}

int hadal_convert(const char *in, const char *out, const hadal_convert_options *o, char **json, hadal_error *e) {
    error why;
    if (json) *json = NULL;
    hadal_convert_options options = {0};
    api_options(&options, sizeof options, o);
    if (!in || !out) return api_result(fail(&why, ERR_ARG, "convert needs two folders"), &why, e);
    return api_result(convert(in, out, &options, json, &why), &why, e);
}

static status init(const char *config, const char *out, const hadal_init_options *o, char **json, error *e) {
    progress_call p = {o->progress, o->progress_arg};
    init_options i = {.config = config, .out = out, .seed = o->seed, .type = o->type, .progress = on_bytes, .arg = &p};
    init_result r;
    if (!config || !out) return fail(e, ERR_ARG, "init needs a configuration and a folder");
    TRY(init_run(&i, &r, e));
    if (!json) return OK;
    return api_json(json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:I}", "out", out, "model_type", r.model_type, "type", r.type,
                              "parameters", (json_int_t)r.parameters, "tensors", (json_int_t)r.tensors, "shards",
                              (json_int_t)r.shards, "bytes", (json_int_t)r.bytes),
                    json, e);
}

int hadal_init_with(const char *config, const char *out, const hadal_init_options *o, char **json, hadal_error *e) {
    error why;
    if (json) *json = NULL;
    hadal_init_options options = {0};
    api_options(&options, sizeof options, o);
    return api_result(init(config, out, &options, json, &why), &why, e);
}

int hadal_init(const char *config, const char *out, uint64_t seed, hadal_progress *progress, void *arg,
               hadal_error *e) {
    hadal_init_options o = {.size = sizeof o, .seed = seed, .progress = progress, .progress_arg = arg};
    return hadal_init_with(config, out, &o, NULL, e);
}

/* --- check, trace ----------------------------------------------------------------------------------------------- */

int hadal_check(hadal_model *m, const char *golden, double max_kl, void (*line)(void *arg, const char *json), void *arg,
                char **json, hadal_error *e) {
    error why;
    if (json) *json = NULL;
    str summary = {0};
    status s = logit_kl_check(m->g, m->text.tokenizer.t, golden, max_kl, line, arg, &summary, &why);
    if (s == OK && json && !(*json = str_take(&summary))) s = fail(&why, ERR_NOMEM, "memory is out");
    str_free(&summary);
    return api_result(s, &why, e);
}

int hadal_golden_write(hadal_model *m, const char *const *prompts, int count, const char *path, hadal_error *e) {
    error why;
    return api_result(golden_logits_write(m->g, m->text.tokenizer.t, prompts, count, path, &why), &why, e);
}

int hadal_trace(hadal_model *m, const char *golden, const char *out, char **missing, hadal_progress *progress,
                void *arg, hadal_error *e) {
    error why;
    if (missing) *missing = NULL;
    progress_call p = {progress, arg};
    str names = {0};
    status s = trace_run(m->g, golden, out, &names, on_bytes, &p, &why);
    if (s == OK && missing && !(*missing = str_take(&names))) s = fail(&why, ERR_NOMEM, "memory is out");
    str_free(&names);
    return api_result(s, &why, e);
}

/* --- bench ------------------------------------------------------------------------------------------------------ */

static bool on_runs(void *arg, int64_t done, int64_t total) {
    const progress_call *p = arg;
    return !p->f || p->f(p->arg, (uint64_t)done, (uint64_t)total, "runs") == 0;
}

static status bench(hadal_model *m, const hadal_bench_options *o, char **json, error *e) {
    progress_call progress = {o->progress, o->progress_arg};
    bench_options b = {.prompt = o->prompt,
                       .generate = o->generate,
                       .depth = o->depth,
                       .repeat = o->repeat ? o->repeat : 3,
                       .progress = on_runs,
                       .progress_arg = &progress};
    if (!b.prompt && !b.generate) b.prompt = 512, b.generate = 64;
    json_t *j;
    TRY(bench_run(m->g, &b, &j, e));
    return api_json(j, json, e);
}

int hadal_bench(hadal_model *m, const hadal_bench_options *o, char **json, hadal_error *e) {
    error why;
    if (json) *json = NULL;
    hadal_bench_options options = {0};
    api_options(&options, sizeof options, o);
    return api_result(bench(m, &options, json, &why), &why, e);
}

int hadal_bench_machine(int threads, const char *kernels, char **json, hadal_error *e) {
    error why;
    if (json) *json = NULL;
    json_t *j = NULL;
    status s = bench_machine(pool_size(threads), kernels, &j, &why);
    if (s == OK) s = api_json(j, json, &why);
    return api_result(s, &why, e);
}
