#include "post/sample.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/arena.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/pool.h"
#include "post/rollout.h"

enum { MOST_STATE = 1 << 20 };

typedef struct condition { /* of sample.where */
    int reward;
    double least;
} condition;

typedef struct tally { /* also the state of a run that was stopped */
    int64_t prompts, completions, judged, correct, kept, tokens, bytes;
    double reward;
} tally;

typedef struct sampler_run {
    const train_config *c;
    const run_hooks *hooks;
    model *m;
    tokenizer *tok;
    engine *g;
    roller roller;
    prompts *train;
    condition where[MOST_LIST];
    tally t;
    FILE *out;
    char *partial, *progress, *identity; /* of the run: what decides its rows */
    error *e;
} sampler_run;

/* --- where it was ------------------------------------------------------------------------------------------------ */

static status no_memory(const sampler_run *r) {
    return fail(r->e, ERR_NOMEM, "memory is out");
}

static status save_progress(sampler_run *r) {
    const tally *t = &r->t;
    if (fflush(r->out) != 0 || fsync(fileno(r->out)) != 0)
        return fail(r->e, ERR_IO, "%s: cannot write: %s", r->partial, strerror(errno));
    json_t *j = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "run", r->identity, "prompts",
                          (json_int_t)t->prompts, "completions", (json_int_t)t->completions, "judged",
                          (json_int_t)t->judged, "correct", (json_int_t)t->correct, "kept", (json_int_t)t->kept,
                          "tokens", (json_int_t)t->tokens, "bytes", (json_int_t)t->bytes, "reward", t->reward);
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    status s = text ? file_save(r->progress, text, strlen(text), r->e) : no_memory(r);
    free(text);
    json_decref(j);
    return s;
}

static status load_progress(sampler_run *r) {
    json_t *j;
    tally *t = &r->t;
    TRY(json_read(&j, r->progress, MOST_STATE, r->e));
    const char *run = json_string_value(json_object_get(j, "run"));
    const bool same = run && strcmp(run, r->identity) == 0;
    t->prompts = json_integer_value(json_object_get(j, "prompts"));
    t->completions = json_integer_value(json_object_get(j, "completions"));
    t->judged = json_integer_value(json_object_get(j, "judged"));
    t->correct = json_integer_value(json_object_get(j, "correct"));
    t->kept = json_integer_value(json_object_get(j, "kept"));
    t->tokens = json_integer_value(json_object_get(j, "tokens"));
    t->bytes = json_integer_value(json_object_get(j, "bytes"));
    t->reward = json_number_value(json_object_get(j, "reward"));
    json_decref(j);
    if (!same)
        return fail(r->e, ERR_ARG, "%s was begun with other settings: remove it, or take another sample.output",
                    r->partial);
    return OK;
}

/* All settings but those that change no row. */
static status identify(sampler_run *r) {
    train_config c = *r->c;
    str s = {0};
    c.training.threads = 0;
    c.rollout.sequences = 1;
    c.sample.output = c.checkpoint.folder = NULL;
    status st = train_config_write(&c, &s, r->e);
    if (st == OK) r->identity = str_take(&s);
    str_free(&s);
    return st == OK && !r->identity ? no_memory(r) : st;
}

static status open_output(sampler_run *r) {
    const char *path = r->c->sample.output;
    str a = {0}, b = {0};
    if (!path) return fail(r->e, ERR_ARG, "sample.output is missing: which file shall the completions go to?");
    if (file_exists(path))
        return fail(r->e, ERR_ARG, "%s is there already: take another sample.output, or remove it", path);
    str_addf(&a, "%s.partial", path);
    str_addf(&b, "%s.progress", path);
    r->partial = str_take(&a);
    r->progress = str_take(&b);
    if (!r->partial || !r->progress) return no_memory(r);
    if (file_exists(r->partial) && file_exists(r->progress)) TRY(load_progress(r));
    r->out = fopen(r->partial, r->t.bytes ? "r+b" : "wb");
    if (!r->out || fseeko(r->out, 0, SEEK_END) != 0)
        return fail(r->e, ERR_IO, "%s: cannot open: %s", r->partial, strerror(errno));
    if (ftello(r->out) < r->t.bytes)
        return fail(r->e, ERR_FORMAT, "%s is shorter than it was: remove it, and all is sampled again", r->partial);
    if (ftruncate(fileno(r->out), r->t.bytes) != 0 || fseeko(r->out, r->t.bytes, SEEK_SET) != 0)
        return fail(r->e, ERR_IO, "%s: cannot write: %s", r->partial, strerror(errno));
    return OK;
}

/* --- opening ----------------------------------------------------------------------------------------------------- */

static void on_note(void *arg, const char *line) {
    const sampler_run *r = arg;
    if (r->hooks->note) r->hooks->note(r->hooks->arg, line);
}

static int on_progress(void *arg, uint64_t done, uint64_t total, const char *what) {
    const sampler_run *r = arg;
    return r->hooks->progress ? r->hooks->progress(r->hooks->arg, done, total, what) : 0;
}

/* "NAME >= NUMBER" */
static status read_condition(sampler_run *r, const char *text, condition *out) {
    const size_t n = strcspn(text, " >");
    const char *at = text + n + strspn(text + n, " ");
    char *end;
    out->reward = -1;
    for (int i = 0; i < reward_count(r->roller.rewards); i++) {
        const char *name = reward_name(r->roller.rewards, i);
        if (strlen(name) == n && memcmp(name, text, n) == 0) out->reward = i;
    }
    if (strncmp(at, ">=", 2) != 0)
        return fail(r->e, ERR_ARG, "sample.where: \"%s\" should be \"NAME >= NUMBER\"", text);
    out->least = strtod(at + 2, &end);
    if (end == at + 2 || *end) return fail(r->e, ERR_ARG, "sample.where: \"%s\" should be \"NAME >= NUMBER\"", text);
    if (out->reward < 0)
        return fail(r->e, ERR_ARG, "sample.where: no reward of rollout.rewards is called \"%.*s\"", (int)n, text);
    return OK;
}

static status open_all(sampler_run *r) {
    const train_config *c = r->c;
    static const compute kinds[] = {COMPUTE_F32, COMPUTE_BF16, COMPUTE_FP8};
    const int threads = pool_size(c->training.threads);
    TRY(identify(r));
    TRY(model_open(&r->m, c->model.path, r->e));
    TRY(tokenizer_open(&r->tok, c->data.tokenizer ? c->data.tokenizer : c->model.path, r->e));
    TRY(engine_open(&r->g, r->m, threads, c->training.kernels, kinds[c->training.precision], MLA_CHEAPER, r->e));
    TRY(roller_open(&r->roller, c, r->g, r->tok, c->sample.keep != KEEP_ALL, on_note, r, r->e));
    r->roller.progress = on_progress;
    r->roller.arg = r;
    for (int i = 0; i < c->sample.where.n; i++) TRY(read_condition(r, c->sample.where.item[i], &r->where[i]));
    TRY(rollout_prompts(&r->train, c, &c->data.train, false, r->tok, r->m->cfg.arch->model_type, on_note, on_progress,
                        r, r->e));
    return open_output(r);
}

static void close_all(sampler_run *r) {
    if (r->out) fclose(r->out);
    prompts_close(r->train);
    roller_close(&r->roller);
    engine_close(r->g);
    tokenizer_close(r->tok);
    model_close(r->m);
    free(r->partial);
    free(r->progress);
    free(r->identity);
}

/* --- choosing ---------------------------------------------------------------------------------------------------- */

static bool is_correct(const sampler_run *r, const completion *x) {
    return x->reward >= r->c->sample.threshold; /* NaN is not */
}

static bool may_stay(const sampler_run *r, const completion *group, int i, const bool *chosen) {
    const train_config *c = r->c;
    const completion *x = &group[i];
    if (c->sample.keep != KEEP_ALL && (!x->finished || isnan(x->reward))) return false;
    if (c->sample.keep == KEEP_CORRECT && !is_correct(r, x)) return false;
    for (int k = 0; k < c->sample.where.n; k++)
        if (!(x->score[r->where[k].reward] >= r->where[k].least)) return false;
    for (int k = 0; c->sample.distinct && k < i; k++)
        if (chosen[k] && strcmp(group[k].text, x->text) == 0) return false;
    return true;
}

/* The best of those that may stay; -1: none. */
static int best_of(const sampler_run *r, const completion *group, int n, const bool *none) {
    int best = -1;
    for (int i = 0; i < n; i++)
        if (may_stay(r, group, i, none) && (best < 0 || group[i].reward > group[best].reward)) best = i;
    return best;
}

static void choose(const sampler_run *r, const completion *group, int n, double pass_rate, bool *chosen) {
    const train_config *c = r->c;
    int kept = 0;
    if (pass_rate < c->sample.pass_from || pass_rate > c->sample.pass_to) return;
    if (c->sample.keep == KEEP_BEST) {
        const int best = best_of(r, group, n, chosen);
        if (best >= 0) chosen[best] = true;
        return;
    }
    for (int i = 0; i < n && (!c->sample.most || kept < c->sample.most); i++) {
        chosen[i] = may_stay(r, group, i, chosen);
        kept += chosen[i];
    }
}

/* --- writing ----------------------------------------------------------------------------------------------------- */

static json_t *row_of(const sampler_run *r, const completion *x, double pass_rate) {
    const prompt *p = x->prompt;
    const size_t begun = strlen(p->begun), n = strlen(p->text) - begun;
    json_t *scores = json_object(), *row = NULL;
    if (p->messages) {
        json_t *list = json_copy((json_t *)(uintptr_t)p->messages);
        json_array_append_new(list, json_pack("{s:s, s:s}", "role", "assistant", "content", x->text));
        row = json_pack("{s:o}", "messages", list);
    } else {
        row = json_pack("{s:s%, s:s}", "prompt", p->text, n, "completion", x->text);
    }
    for (int i = 0; i < reward_count(r->roller.rewards); i++)
        if (isfinite(x->score[i]))
            json_object_set_new(scores, reward_name(r->roller.rewards, i), json_real(x->score[i]));
    if (row && isfinite(x->reward)) json_object_set_new(row, "reward", json_real(x->reward));
    json_t *more = json_pack("{s:o, s:I, s:I, s:f}", "scores", scores, "tokens", (json_int_t)x->n, "prompt_tokens",
                             (json_int_t)p->n, "pass_rate", pass_rate);
    if (row && p->answer) json_object_set_new(row, "answer", json_string(p->answer));
    if (row) json_object_update(row, more);
    json_decref(more);
    return row;
}

static status write_row(sampler_run *r, const completion *x, double pass_rate) {
    json_t *row = row_of(r, x, pass_rate);
    char *text = row ? json_dumps(row, JSON_COMPACT) : NULL;
    json_decref(row);
    if (!text) return fail(r->e, ERR_FORMAT, "a completion is not UTF-8, or memory is out");
    const size_t n = strlen(text);
    const bool written = fwrite(text, 1, n, r->out) == n && fputc('\n', r->out) != EOF;
    free(text);
    if (!written) return fail(r->e, ERR_IO, "%s: cannot write: %s", r->partial, strerror(errno));
    r->t.bytes += (int64_t)n + 1;
    r->t.kept++;
    r->t.tokens += x->n;
    return OK;
}

static status write_group(sampler_run *r, const completion *group, int n, arena *mem) {
    bool *chosen = arena_zero(mem, (size_t)n, sizeof *chosen);
    int correct = 0;
    if (!chosen) return no_memory(r);
    for (int i = 0; i < n; i++) {
        correct += is_correct(r, &group[i]);
        if (!isfinite(group[i].reward)) continue;
        r->t.judged++;
        r->t.reward += group[i].reward;
    }
    const double pass_rate = (double)correct / n;
    choose(r, group, n, pass_rate, chosen);
    for (int i = 0; i < n; i++)
        if (chosen[i]) TRY(write_row(r, &group[i], pass_rate));
    r->t.prompts++;
    r->t.completions += n;
    r->t.correct += correct;
    return OK;
}

/* --- all prompts ------------------------------------------------------------------------------------------------- */

static int64_t chunk_of(const sampler_run *r) { /* prompts: twice what runs at once */
    const int64_t n = 2 * r->c->rollout.sequences / r->c->sample.samples;
    return n > 0 ? n : 1;
}

static status tell(sampler_run *r, const rollout *a, double seconds, bool *stop) {
    const tally *t = &r->t;
    const int64_t chunk = chunk_of(r), all = (prompts_count(r->train) + chunk - 1) / chunk;
    const named_number more[] = {{"reward", rollout_mean(a, -1)},
                                 {"pass_rate", (double)t->correct / (double)t->completions},
                                 {"completion_tokens", (double)a->tokens / (double)a->n},
                                 {"kept", (double)t->kept},
                                 {"rollout_tokens_per_second", (double)a->tokens / a->seconds}};
    step_metrics m = metrics_unknown();
    m.step = (t->prompts + chunk - 1) / chunk - 1;
    m.tokens = (double)t->tokens;
    m.seconds = seconds;
    m.more = more;
    m.n_more = sizeof more / sizeof *more;
    *stop = r->hooks->step && r->hooks->step(r->hooks->arg, &m, all) != 0;
    return OK;
}

static status one_chunk(sampler_run *r, arena *mem, bool *stop) {
    const int64_t left = prompts_count(r->train) - r->t.prompts, chunk = chunk_of(r), n = left < chunk ? left : chunk;
    const int samples = r->c->sample.samples;
    const double start = clock_seconds();
    rollout a;
    arena_reset(mem);
    const prompt **list = arena_take(mem, (size_t)n * sizeof *list);
    if (!list) return no_memory(r);
    for (int64_t i = 0; i < n; i++) list[i] = prompts_get(r->train, r->t.prompts + i);
    TRY(rollout_make(&r->roller, list, n, samples, r->c->rollout.temperature, r->t.prompts, &a, r->e));
    status s = OK;
    for (int64_t i = 0; s == OK && i < a.n; i += samples) s = write_group(r, a.list + i, samples, mem);
    if (s == OK) s = save_progress(r);
    if (s == OK) s = tell(r, &a, clock_seconds() - start, stop);
    rollout_free(&a);
    return s;
}

static status take_name(sampler_run *r) {
    if (fclose(r->out) != 0) {
        r->out = NULL;
        return fail(r->e, ERR_IO, "%s: cannot write: %s", r->partial, strerror(errno));
    }
    r->out = NULL;
    if (rename(r->partial, r->c->sample.output) != 0)
        return fail(r->e, ERR_IO, "%s: cannot take the name %s: %s", r->partial, r->c->sample.output, strerror(errno));
    unlink(r->progress);
    return OK;
}

static status all_chunks(sampler_run *r, run_result *out) {
    arena *mem = arena_open(1 << 14);
    bool stop = false;
    const double start = clock_seconds();
    status s = mem ? OK : no_memory(r);
    while (s == OK && !stop && r->t.prompts < prompts_count(r->train)) s = one_chunk(r, mem, &stop);
    arena_close(mem);
    out->stopped = s == ERR_CANCELLED || (stop && r->t.prompts < prompts_count(r->train));
    if (s == ERR_CANCELLED) s = OK;
    if (s == OK && !out->stopped) s = take_name(r);
    out->seconds = clock_seconds() - start;
    return s;
}

status sample_run(const train_config *c, const run_hooks *hooks, run_result *out, error *e) {
    sampler_run r = {.c = c, .hooks = hooks, .e = e};
    *out = (run_result){.loss = NAN, .validation_loss = NAN};
    status s = open_all(&r);
    if (s == OK) s = all_chunks(&r, out);
    const tally *t = &r.t;
    const double n = t->completions ? (double)t->completions : NAN;
    const named_number more[] = {{"prompts", (double)t->prompts},
                                 {"completions", (double)t->completions},
                                 {"kept", (double)t->kept},
                                 {"pass_rate", (double)t->correct / n},
                                 {"reward", t->judged ? t->reward / (double)t->judged : NAN}};
    out->tokens = (double)t->tokens;
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        if (isfinite(more[i].value)) out->more[out->n_more++] = more[i];
    if (c->sample.output) snprintf(out->output, sizeof out->output, "%s", c->sample.output);
    close_all(&r);
    return s;
}
