#include "eval/ask.h"

#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "eval/exam.h"
#include "infer/answers.h"

enum { SEQUENCES = 32 }; /* answers at once, unless the options say */

typedef struct asking {
    exam x;
    const ask_rules *rules;
    answer_request *list; /* [open questions] */
    json_t **answers;     /* [open questions] lists of those that came, by sample; NULL: none yet */
    int *missing;         /* [open questions] */
} asking;

/* --- one answer --------------------------------------------------------------------------------------------------- */

/* The first place where a stop text begins. */
static size_t stop_at(const ask_rules *r, const char *text, size_t n) {
    for (int i = 0; i < r->n_stop; i++) {
        const char *at = strstr(text, r->stop[i]);
        if (at && (size_t)(at - text) < n) n = (size_t)(at - text);
    }
    return n;
}

/* What the model wrote, special tokens as texts. */
static status completion_of(const asking *a, const answer *w, str *out, error *e) {
    const int64_t n = w->n - (w->finish == FINISH_EOS);
    tokenizer_decode(a->x.q->t, w->ids, (size_t)n, false, out);
    str_puts(out, "");
    TRY(str_check(out, e));
    if (!out->p) return OK;
    out->n = stop_at(a->rules, out->p, out->n);
    out->p[out->n] = 0;
    return OK;
}

static bool put_judgement(json_t *o, const judgement *j) {
    json_t *found = j->extracted.p ? json_stringn(j->extracted.p, j->extracted.n) : json_null();
    return json_object_set_new(o, "extracted", found) ||
           json_object_set_new(o, "score", j->verdict == UNSURE ? json_null() : json_integer(j->verdict == RIGHT));
}

static status judge(const asking *a, const question *q, const char *completion, json_t *o, error *e) {
    const char *const *names = a->rules->names;
    for (int i = 0; i == 0 || (names && names[i]); i++) {
        judgement j = {0};
        status s = a->rules->judge(q, completion, i, &j, e);
        json_t *inner = names ? json_object() : json_incref(o);
        if (s == OK) s = str_check(&j.extracted, e);
        if (s == OK && put_judgement(inner, &j)) s = fail(e, ERR_NOMEM, "memory is out");
        str_free(&j.extracted);
        if (names && s == OK && json_object_set(o, names[i], inner)) s = fail(e, ERR_NOMEM, "memory is out");
        json_decref(inner);
        TRY(s);
    }
    return OK;
}

static status make_answer(const asking *a, int64_t i, int sample, const answer *w, json_t **out, error *e) {
    static const char *const finishes[] = {
        [FINISH_LENGTH] = "length", [FINISH_EOS] = "eos", [FINISH_STOP] = "stop", [FINISH_CANCELLED] = "cancelled"};
    str text = {0};
    status s = completion_of(a, w, &text, e);
    json_t *o = s == OK ? exam_answer(&a->x, i, sample) : NULL;
    if (s == OK && (!o || json_object_set_new(o, "completion", json_stringn(text.p ? text.p : "", text.n)) ||
                    json_object_set_new(o, "tokens", json_integer((json_int_t)w->n)) ||
                    json_object_set_new(o, "finish", json_string(finishes[w->finish]))))
        s = fail(e, ERR_NOMEM, "memory is out");
    if (s == OK) s = judge(a, &a->x.q->list[i], text.p ? text.p : "", o, e);
    str_free(&text);
    if (s == OK) *out = o;
    else json_decref(o);
    return s;
}

/* --- all of them -------------------------------------------------------------------------------------------------- */

/* Answers wait until all samples of their prompt are there, so that the file holds whole prompts. */
static status on_answer(void *arg, int64_t request, int sample, answer *w, error *e) {
    asking *a = arg;
    const int samples = a->x.way.samples;
    json_t *one, **list = &a->answers[request];
    TRY(make_answer(a, a->x.open[request], sample, w, &one, e));
    if (!*list) {
        *list = json_array();
        for (int i = 0; i < samples; i++) json_array_append_new(*list, json_null());
        a->missing[request] = samples;
    }
    if (json_array_set_new(*list, (size_t)sample, one)) return fail(e, ERR_NOMEM, "memory is out");
    if (--a->missing[request]) return OK;
    status s = exam_add(&a->x, a->x.open[request], *list, e);
    json_decref(*list);
    *list = NULL;
    return s;
}

static bool on_step(void *arg, int64_t answers, int64_t total, int64_t tokens) {
    const asking *a = arg;
    (void)answers, (void)total, (void)tokens;
    return exam_goes_on(&a->x);
}

/* A seed for each question by its number: an answer depends on no other one. */
static uint64_t seed_of(uint64_t seed, int64_t number) {
    uint32_t w[4];
    rng_words(seed, UINT64_MAX, (uint64_t)number, w);
    return (uint64_t)w[0] << 32 | w[1];
}

static status run(asking *a, error *e) {
    exam *x = &a->x;
    const eval_options *o = x->q->o;
    const answer_options how = {
        .sampling = {.temperature = (float)x->way.temperature, .top_p = (float)x->way.top_p, .repetition_penalty = 1},
        .eos = o->eos,
        .n_eos = o->n_eos,
        .stop = a->rules->stop,
        .n_stop = a->rules->n_stop,
        .tokenizer = x->q->t,
        .capacity = x->capacity,
        .sequences = o->sequences ? o->sequences : SEQUENCES,
        .done = on_answer,
        .progress = on_step,
        .arg = a};
    const size_t n = (size_t)x->n_open + 1;
    a->list = calloc(n, sizeof *a->list);
    a->answers = calloc(n, sizeof *a->answers);
    a->missing = calloc(n, sizeof *a->missing);
    if (!a->list || !a->answers || !a->missing) return fail(e, ERR_NOMEM, "memory is out");
    for (int64_t i = 0; i < x->n_open; i++) {
        const question *q = &x->q->list[x->open[i]];
        a->list[i] = (answer_request){.prompt = q->ids,
                                      .n = q->n,
                                      .samples = x->way.samples,
                                      .max_tokens = x->way.max_tokens,
                                      .seed = seed_of(o->seed, q->number)};
    }
    return x->n_open ? answers_run(x->g, a->list, x->n_open, &how, e) : OK;
}

status ask_written(engine *g, const questions *q, const ask_rules *r, json_t *out, error *e) {
    const eval_options *o = q->o;
    const exam_way way = {.name = o->greedy ? "greedy" : "sampled",
                          .samples = o->greedy ? 1 : o->samples,
                          .temperature = o->greedy ? 0 : o->temperature,
                          .top_p = o->greedy || o->top_p == 0 ? 1 : o->top_p,
                          .max_tokens = o->max_tokens ? o->max_tokens : r->max_tokens,
                          .room = 1,
                          .rules = r->names,
                          .same = r->same};
    asking a = {.rules = r};
    TRY(exam_open(&a.x, g, q, &way, json_string_value(json_object_get(out, "task")), e));
    status s = run(&a, e);
    if (s == OK) s = exam_report(&a.x, out, e);
    for (int64_t i = 0; a.answers && i < a.x.n_open; i++) json_decref(a.answers[i]);
    free(a.list);
    free(a.answers);
    free(a.missing);
    exam_close(&a.x);
    return s;
}
