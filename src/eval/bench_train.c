#include "eval/bench_train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/file.h"
#include "eval/bench.h"
#include "kernels/machine.h"
#include "train/trainer.h"

enum { WARM_STEPS = 2 }; /* the first touch of memory is not what is asked for */

typedef struct bench {
    const bench_train_options *o;
    train_config cfg;
    trainer t;
    dataset *data;
    int64_t row;
} bench;

static status next_rows(void *arg, int64_t i, token_batch *out, error *e) {
    const bench *b = arg;
    (void)i;
    return dataset_rows(b->data, b->row, b->o->batch, out, e);
}

static double peak_memory(void) {
    char line[128];
    double kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "VmHWM:", 6)) kib = strtod(line + 6, NULL);
    if (f) fclose(f);
    return kib * 1024;
}

static status measure(bench *b, double *seconds, error *e) {
    const batch_source s = {.get = next_rows, .arg = b, .count = 1};
    for (int64_t i = -WARM_STEPS; i < b->o->steps; i++) {
        step_metrics m;
        const double start = clock_seconds();
        TRY(trainer_step(&b->t, &s, &m, e));
        if (i >= 0) seconds[i] = clock_seconds() - start;
        if (m.skipped) return fail(e, ERR_FORMAT, "the loss is not finite: nothing to measure");
        b->row += b->o->batch;
        if (b->o->progress &&
            b->o->progress(b->o->arg, (uint64_t)(i + WARM_STEPS + 1), (uint64_t)(b->o->steps + WARM_STEPS), "steps"))
            return fail(e, ERR_CANCELLED, "cancelled");
    }
    return OK;
}

static status report(const bench *b, double *seconds, json_t **out, error *e) {
    const bench_train_options *o = b->o;
    const double tokens = (double)(o->batch * o->seq_len);
    const double memory = peak_memory(); /* before the measurement of the machine takes some of its own */
    machine_result machine;
    model_counts n;
    TRY(machine_measure(o->threads, o->kernels, &machine, e));
    model_count(&b->t.model, &n);
    bench_sort(seconds, o->steps);
    const double best = tokens / seconds[0], median = tokens / seconds[o->steps / 2],
                 peak = 1e9 * (o->precision == PRECISION_BF16 ? machine.bf16_gflops : machine.f32_gflops);
    *out = json_pack("{s:s, s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f}", "precision",
                     precision_names[o->precision], "kernels", machine.level, "threads", machine.threads, "batch",
                     (json_int_t)o->batch, "seq_len", (json_int_t)o->seq_len, "steps", (json_int_t)o->steps,
                     "parameters", (json_int_t)(n.parameters + n.mtp), "active", (json_int_t)n.active, "tokens_per_s",
                     best, "median_tokens_per_s", median, "gflops", best * b->t.flops_per_token / 1e9, "peak_gflops",
                     peak / 1e9, "mfu", best * b->t.flops_per_token / peak, "peak_memory_bytes", memory);
    return *out ? OK : fail(e, ERR_NOMEM, "memory is out");
}

static status open_data(bench *b, error *e) {
    const char *path = b->o->tokens ? b->o->tokens : "synthetic";
    data_options d = b->cfg.data.options;
    d.paths = &path;
    d.n_paths = 1;
    d.seq_len = b->o->seq_len;
    d.packing = PACK_CONCAT;
    d.shuffle = false;
    d.document_mask = false;
    d.eos = -1;
    d.vocab_size = b->t.model.vocab_size;
    return dataset_open(&b->data, &d, e);
}

static status run(bench *b, comm *world, json_t **out, error *e) {
    const bench_train_options *o = b->o;
    model *from = NULL;
    model_config m;
    double *seconds = malloc((size_t)o->steps * sizeof *seconds);
    if (!seconds) return fail(e, ERR_NOMEM, "memory is out");
    train_config_default(&b->cfg);
    b->cfg.training.precision = o->precision;
    b->cfg.training.threads = o->threads;
    b->cfg.training.kernels = o->kernels;
    b->cfg.data.options.seq_len = o->seq_len;
    status s = config_open(&m, o->path, e);
    if (s == OK && is_directory(o->path)) s = model_open(&from, o->path, e);
    if (from) m.num_nextn_predict_layers = from->n_mtp;
    if (s == OK) s = trainer_open(&b->t, &b->cfg, &m, world, e);
    if (s == OK && from) s = params_load(&b->t.p, from, e);
    if (s == OK && !from) params_init(&b->t.p, &m, 0);
    model_close(from);
    if (s == OK) s = trainer_ready(&b->t, e);
    if (s == OK) s = open_data(b, e);
    if (s == OK) s = measure(b, seconds, e);
    if (s == OK) s = report(b, seconds, out, e);
    free(seconds);
    return s;
}

status bench_train(const bench_train_options *o, json_t **out, error *e) {
    bench b = {.o = o};
    comm world;
    *out = NULL;
    TRY(comm_self(&world, e));
    status s = run(&b, &world, out, e);
    dataset_close(b.data);
    trainer_close(&b.t);
    return s;
}
