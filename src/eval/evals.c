#include "eval/evals.h"

#include <math.h>
#include <string.h>
#include "base/str.h"
#include "eval/tiny_r1.h"

const evaluation evaluations[] = {
    {"tiny-r1", "sums modulo 10 on prompts that are held out of training; tiny-r1:calc, tiny-r1:count: one kind",
     tiny_r1_eval},
    {0},
};

static status unknown(const char *task, error *e) {
    str names = {0};
    for (const evaluation *v = evaluations; v->name; v++) str_addf(&names, "%s%s", names.n ? ", " : "", v->name);
    status s = str_check(&names, e);
    if (s == OK) s = fail(e, ERR_ARG, "there is no evaluation \"%s\", but: %s", task, names.p);
    str_free(&names);
    return s;
}

static status check(const eval_options *o, error *e) {
    if (o->limit < 1) return fail(e, ERR_ARG, "an evaluation needs at least one prompt");
    if (o->sampled && (o->samples < 1 || !(o->temperature > 0) || !isfinite(o->temperature)))
        return fail(e, ERR_ARG, "sampled answers need samples >= 1 and a temperature above 0");
    return o->greedy || o->sampled ? OK : fail(e, ERR_ARG, "neither greedy nor sampled answers are wanted");
}

status eval_run(engine *g, const tokenizer *t, const char *task, const eval_options *o, json_t **out, error *e) {
    const size_t n = strcspn(task, ":");
    const evaluation *v = evaluations;
    *out = NULL;
    while (v->name && (strlen(v->name) != n || memcmp(v->name, task, n) != 0)) v++;
    if (!v->name) return unknown(task, e);
    TRY(check(o, e));
    if (!t) return fail(e, ERR_ARG, "this checkpoint has no tokenizer for the prompts");
    json_t *report = json_object();
    if (!report || json_object_set_new(report, "task", json_string(task)) ||
        json_object_set_new(report, "prompts", json_integer(o->limit)) ||
        json_object_set_new(report, "seed", json_integer((json_int_t)o->seed))) {
        json_decref(report);
        return fail(e, ERR_NOMEM, "memory is out");
    }
    status s = v->run(g, t, task[n] ? task + n + 1 : NULL, o, report, e);
    if (s == OK) *out = report;
    else json_decref(report);
    return s;
}
