#include "eval/exam.h"

#include <stdlib.h>
#include <string.h>
#include "data/md5.h"

static status no_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

/* --- what the answers depend on ----------------------------------------------------------------------------------- */

/* Tells models apart: MD5 of names and first bytes of some of the weights, spread over all of them. */
static json_t *fingerprint(const model *m) {
    enum { WEIGHTS = 64, BYTES = 64 };
    const size_t n = m->file ? weights_count(m->file) : 0, step = n / WEIGHTS + 1;
    str all = {0};
    uint8_t sum[16];
    char hex[33];
    for (size_t i = 0; i < n; i += step) {
        const weights_entry *w = weights_at(m->file, i);
        const size_t bytes = (size_t)tensor_count(&w->t) * dtype_size(w->t.type);
        str_puts(&all, w->name);
        str_add(&all, w->t.data, bytes < BYTES ? bytes : BYTES);
    }
    md5(all.p ? all.p : "", all.n, sum);
    for (int i = 0; i < 16; i++) snprintf(hex + 2 * i, 3, "%02x", sum[i]);
    json_t *v = all.failed ? NULL : n ? json_string(hex) : json_null();
    str_free(&all);
    return v;
}

static json_t *evaluation_of(const exam *x, const char *task) {
    const bool f32 = queue_compute(x->g->ws.q) == COMPUTE_F32;
    json_t *j = json_pack("{s:s, s:s, s:i, s:s, s:o}", "task", task, "way", x->way.name, "samples", x->way.samples,
                          "compute", f32 ? "f32" : "bf16", "model", fingerprint(x->g->m));
    if (!j || !x->way.max_tokens) return j;
    json_t *more = json_pack("{s:I, s:f, s:f, s:I, s:I}", "seed", (json_int_t)x->q->o->seed, "temperature",
                             x->way.temperature, "top_p", x->way.top_p, "max_tokens", (json_int_t)x->way.max_tokens,
                             "context", (json_int_t)x->capacity);
    if (more && json_object_update_new(j, more) == 0) return j;
    json_decref(j);
    return NULL;
}

/* --- opening ------------------------------------------------------------------------------------------------------ */

static bool is_text(const json_t *answer, const char *member, const char *text) {
    const char *v = json_string_value(json_object_get(answer, member));
    return v && strcmp(v, text) == 0;
}

static status take_old(exam *x, int64_t i, const json_t *answers, error *e) {
    const question *q = &x->q->list[i];
    const json_t *first = json_array_get(answers, 0);
    if (!is_text(first, "prompt", q->prompt) || !is_text(first, "answer", q->answer))
        return fail(e, ERR_ARG,
                    "%s holds answers to other questions (number %lld is another prompt or has another answer): name "
                    "another file, or remove it",
                    x->q->o->output, (long long)q->number);
    x->done += x->way.samples;
    return tally_add(x->tally, i, answers, e);
}

static status sort_questions(exam *x, error *e) {
    x->open = malloc((size_t)x->q->n * sizeof *x->open);
    if (!x->open) return no_memory(e);
    for (int64_t i = 0; i < x->q->n; i++) {
        const json_t *old = results_find(x->file, x->q->list[i].number);
        if (old) TRY(take_old(x, i, old, e));
        else if (x->q->list[i].n + x->way.room > x->capacity) x->too_long++;
        else x->open[x->n_open++] = i;
    }
    x->total = x->done + x->n_open * x->way.samples;
    if (x->too_long < x->q->n) return OK;
    return fail(e, ERR_ARG,
                "all %lld prompts are longer than the context of %lld tokens: take a longer --context or fewer --shots",
                (long long)x->q->n, (long long)x->capacity);
}

status exam_open(exam *x, engine *g, const questions *q, const exam_way *way, const char *task, error *e) {
    const int64_t most = g->m->cfg.max_position_embeddings;
    *x = (exam){.g = g, .q = q, .way = *way};
    x->capacity = q->o->context && q->o->context < most ? q->o->context : most;
    json_t *depends = evaluation_of(x, task);
    status s = depends ? results_open(&x->file, q->o->output, depends, way->samples, e) : no_memory(e);
    json_decref(depends);
    if (s == OK) s = tally_open(&x->tally, q->n, way->samples, way->rules, way->same, e);
    if (s == OK) s = sort_questions(x, e);
    if (s != OK) exam_close(x);
    return s;
}

void exam_close(exam *x) {
    results_close(x->file);
    tally_close(x->tally);
    free(x->open);
    *x = (exam){0};
}

/* --- answers ------------------------------------------------------------------------------------------------------ */

json_t *exam_answer(const exam *x, int64_t i, int sample) {
    const question *q = &x->q->list[i];
    return json_pack("{s:I, s:i, s:s*, s:s, s:s}", "number", (json_int_t)q->number, "sample", sample, "subject",
                     q->subject, "prompt", q->prompt, "answer", q->answer);
}

status exam_add(exam *x, int64_t i, const json_t *answers, error *e) {
    TRY(results_add(x->file, answers, e));
    x->done += x->way.samples;
    return tally_add(x->tally, i, answers, e);
}

bool exam_goes_on(const exam *x) {
    const eval_options *o = x->q->o;
    return !o->progress || o->progress(o->progress_arg, x->done, x->total);
}

/* --- the report --------------------------------------------------------------------------------------------------- */

/* Names of all questions; NULL in *out when the first one has none. */
static status names_of(const questions *q, bool category, const char ***out, error *e) {
    *out = NULL;
    if (!(category ? q->list[0].category : q->list[0].subject)) return OK;
    if (!(*out = malloc((size_t)q->n * sizeof **out))) return no_memory(e);
    for (int64_t i = 0; i < q->n; i++) (*out)[i] = category ? q->list[i].category : q->list[i].subject;
    return OK;
}

status exam_report(const exam *x, json_t *out, error *e) {
    const char **subject = NULL, **category = NULL;
    json_t *way = json_object();
    bool bad = !way || json_object_set_new(out, "prompts", json_integer((json_int_t)x->q->n));
    bad |= json_object_set_new(out, "shots", json_integer((json_int_t)json_array_size(x->q->shots))) != 0;
    bad |= json_object_set_new(out, "chat", json_boolean(x->q->o->chat)) != 0;
    if (x->too_long) bad |= json_object_set_new(out, "too_long", json_integer((json_int_t)x->too_long)) != 0;
    if (!bad && x->way.max_tokens) {
        bad |= json_object_set_new(way, "temperature", json_real(x->way.temperature)) != 0;
        if (x->way.temperature > 0) bad |= json_object_set_new(way, "top_p", json_real(x->way.top_p)) != 0;
        bad |= json_object_set_new(way, "max_tokens", json_integer((json_int_t)x->way.max_tokens)) != 0;
    }
    status s = bad ? no_memory(e) : names_of(x->q, false, &subject, e);
    if (s == OK) s = names_of(x->q, true, &category, e);
    if (s == OK) s = tally_report(x->tally, subject, category, way, e);
    if (s == OK && json_object_set(out, x->way.name, way)) s = no_memory(e);
    free(subject);
    free(category);
    json_decref(way);
    return s;
}
