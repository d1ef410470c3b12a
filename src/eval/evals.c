#include "eval/evals.h"

#include <math.h>
#include <string.h>
#include "base/str.h"
#include "eval/tasks.h"
#include "eval/tiny_r1.h"

/* Sampled answers at 0.6 and 0.95: DeepSeek-R1 was evaluated so (its section 3). */
#define ON_DATA .prompts = EVAL_ALL, .temperature = 0.6, .top_p = 0.95

const evaluation evaluations[] = {
    {.name = "tiny-r1",
     .description = "made-up problems that are held out of training; tiny-r1:calc,count,add,search: some of the tasks",
     .run = tiny_r1_eval,
     .has_kinds = true,
     .prompts = 200,
     .made_up = true,
     .temperature = 1,
     .top_p = 1},
    {.name = "gsm8k", .description = "sums in words: strict match and flexible extract", .run = gsm8k_eval, ON_DATA},
    {.name = "math", .description = "contest problems: answers that mean the same", .run = math_eval, ON_DATA},
    {.name = "mmlu",
     .description = "log-likelihood of the letters, per subject; mmlu:SUBJECT: one of them",
     .run = mmlu_eval,
     .has_kinds = true,
     ON_DATA},
    {.name = "gpqa", .description = "log-likelihood of the letters of any multiple choice", .run = gpqa_eval, ON_DATA},
    {.name = "humaneval", .description = "Python functions that pass their tests", .run = humaneval_eval, ON_DATA},
    {.name = "jsonl",
     .description = "any prompts and answers: answers that mean the same; jsonl:exact: that are the same text; "
                    "jsonl:letter: letters of choices",
     .run = jsonl_eval,
     .has_kinds = true,
     ON_DATA},
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

status eval_find(const evaluation **out, const char *task, error *e) {
    const size_t n = strcspn(task, ":");
    const evaluation *v = evaluations;
    while (v->name && (strlen(v->name) != n || memcmp(v->name, task, n) != 0)) v++;
    *out = v;
    return v->name ? OK : unknown(task, e);
}

static status check_data(const char *task, const eval_options *o, error *e) {
    if (!o->data) return fail(e, ERR_ARG, "%s needs its data: --data FILE or FOLDER", task);
    if (o->greedy && o->sampled) return fail(e, ERR_ARG, "answers on data are greedy or sampled, not both");
    if ((o->prompt_member || o->answer_member) && strncmp(task, "jsonl", 5) != 0)
        return fail(e, ERR_ARG, "%s knows the members of its rows: --prompt-member and --answer-member are for jsonl",
                    task);
    if (o->chat && !o->format) return fail(e, ERR_ARG, "this checkpoint has no chat template: leave out --chat");
    if (!(o->top_p >= 0 && o->top_p <= 1)) return fail(e, ERR_ARG, "top-p should be from 0 to 1");
    if (o->max_tokens < 0 || o->context < 0 || o->sequences < 0 || o->shots < -1)
        return fail(e, ERR_ARG, "numbers of tokens, sequences and shots should not be negative");
    return OK;
}

static status check(const evaluation *v, const char *task, const char *kind, const eval_options *o, error *e) {
    if (kind && !v->has_kinds) return fail(e, ERR_ARG, "%s has no kind \"%s\"", v->name, kind);
    if (o->limit < 1) return fail(e, ERR_ARG, "an evaluation needs at least one prompt");
    if (o->sampled && (o->samples < 1 || !(o->temperature > 0) || !isfinite(o->temperature)))
        return fail(e, ERR_ARG, "sampled answers need samples >= 1 and a temperature above 0");
    if (!o->greedy && !o->sampled) return fail(e, ERR_ARG, "neither greedy nor sampled answers are wanted");
    if (v->made_up && (o->data || o->chat || o->output || o->shots > 0))
        return fail(e, ERR_ARG, "%s makes its prompts itself: it knows no --data, --shots, --chat or --output", task);
    return v->made_up ? OK : check_data(task, o, e);
}

status eval_run(engine *g, const tokenizer *t, const char *task, const eval_options *o, json_t **out, error *e) {
    const evaluation *v;
    const char *colon = strchr(task, ':'), *kind = colon ? colon + 1 : NULL;
    *out = NULL;
    TRY(eval_find(&v, task, e));
    TRY(check(v, task, kind, o, e));
    if (!t) return fail(e, ERR_ARG, "this checkpoint has no tokenizer for the prompts");
    json_t *report = json_object();
    bool bad = !report || json_object_set_new(report, "task", json_string(task));
    if (!bad && v->made_up) bad = json_object_set_new(report, "prompts", json_integer(o->limit)) != 0;
    if (!bad) bad = json_object_set_new(report, "seed", json_integer((json_int_t)o->seed)) != 0;
    status s = bad ? fail(e, ERR_NOMEM, "memory is out") : v->run(g, t, kind, o, report, e);
    if (s == OK) *out = report;
    else json_decref(report);
    return s;
}
