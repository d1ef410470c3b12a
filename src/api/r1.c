/* Public functions of pipelines (hadal_train.h): the kinds of stages there are, evaluation as one of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "api/internal.h"
#include "base/file.h"
#include "eval/evals.h"
#include "post/distill.h"
#include "post/dpo.h"
#include "post/grpo.h"
#include "post/pipeline.h"
#include "post/sample.h"
#include "reward/reward.h"

/* --- evaluation as a stage --------------------------------------------------------------------------------------- */

typedef enum member_kind { INT, REAL, TEXT, SEED } member_kind;
typedef struct member {
    const char *name;
    member_kind kind;
    size_t at; /* in hadal_eval_options */
} member;

#define AT(field) offsetof(hadal_eval_options, field)
static const member members[] = {
    {"limit", INT, AT(limit)},
    {"decoding", TEXT, AT(decoding)},
    {"temperature", REAL, AT(temperature)},
    {"samples", INT, AT(samples)},
    {"seed", SEED, AT(seed)},
    {"data", TEXT, AT(data)},
    {"examples", TEXT, AT(examples)},
    {"shots", INT, AT(shots)},
    {"chat", INT, AT(chat)},
    {"thinking", INT, AT(thinking)},
    {"top_p", REAL, AT(top_p)},
    {"max_tokens", INT, AT(max_tokens)},
    {"context", INT, AT(context)},
    {"sequences", INT, AT(sequences)},
    {"prompt_member", TEXT, AT(prompt_member)},
    {"answer_member", TEXT, AT(answer_member)},
};
#undef AT
enum { MEMBERS = sizeof members / sizeof *members };

static status set_member(const member *m, const json_t *v, hadal_eval_options *o, error *e) {
    void *at = (char *)o + m->at;
    switch (m->kind) {
    case INT:
        if (json_is_boolean(v)) *(int *)at = json_is_true(v);
        else if (json_is_integer(v) && json_integer_value(v) == (int)json_integer_value(v))
            *(int *)at = (int)json_integer_value(v);
        else return fail(e, ERR_FORMAT, "eval.tasks: \"%s\" should be an integer", m->name);
        return OK;
    case REAL:
        *(double *)at = json_number_value(v);
        return json_is_number(v) ? OK : fail(e, ERR_FORMAT, "eval.tasks: \"%s\" should be a number", m->name);
    case TEXT:
        *(const char **)at = json_string_value(v);
        return json_is_string(v) ? OK : fail(e, ERR_FORMAT, "eval.tasks: \"%s\" should be a text", m->name);
    case SEED:
        *(uint64_t *)at = (uint64_t)json_integer_value(v);
        return json_is_integer(v) && json_integer_value(v) >= 0
                   ? OK
                   : fail(e, ERR_FORMAT, "eval.tasks: \"%s\" should be an integer from 0 on", m->name);
    }
    return OK;
}

/* One task's name and options; texts are borrowed from x. */
static status read_task(const json_t *x, const char **task, hadal_eval_options *o, error *e) {
    const char *key;
    const evaluation *found;
    json_t *v;
    *o = (hadal_eval_options){.size = sizeof *o};
    *task = json_string_value(json_object_get(x, "task"));
    if (!*task) return fail(e, ERR_FORMAT, "eval.tasks: an entry has no task: {task: NAME, data: FILE, ...}");
    json_object_foreach((json_t *)x, key, v) {
        const member *m = members;
        while (m < members + MEMBERS && strcmp(m->name, key) != 0) m++;
        if (m < members + MEMBERS) TRY(set_member(m, v, o, e));
        else if (strcmp(key, "task") != 0)
            return fail(e, ERR_FORMAT, "eval.tasks: \"%.60s\" is no member of a task; docs/r1.md lists them", key);
    }
    return eval_find(&found, *task, e);
}

static status check_eval(const train_config *c, error *e) {
    json_t *tasks, *x;
    size_t i;
    if (!c->eval.tasks) return fail(e, ERR_FORMAT, "eval.tasks is missing: [{task: NAME, data: FILE, ...}, ...]");
    TRY(json_parse(&tasks, c->eval.tasks, strlen(c->eval.tasks), "eval.tasks", e));
    status s = json_array_size(tasks) ? OK : fail(e, ERR_FORMAT, "eval.tasks is empty");
    json_array_foreach(tasks, i, x) {
        hadal_eval_options o;
        const char *task;
        if (s == OK) s = read_task(x, &task, &o, e);
    }
    json_decref(tasks);
    return s;
}

static status inner(int code, const hadal_error *from, error *e) {
    return code ? fail(e, (status)code, "%s", from->text) : OK;
}

/* Answers of task number i go to FOLDER/answers-I.jsonl: a stage that was stopped goes on there. */
static status run_task(hadal_model *m, const json_t *x, size_t i, const char *folder, const run_hooks *hooks,
                       json_t *reports, error *e) {
    hadal_eval_options o;
    hadal_error why = {0};
    const char *task;
    char name[40], *report = NULL;
    TRY(read_task(x, &task, &o, e));
    snprintf(name, sizeof name, "answers-%zu.jsonl", i + 1);
    char *path = path_join(folder, name);
    if (o.data) o.output = path;
    o.progress = hooks->progress;
    o.progress_arg = hooks->arg;
    status s = inner(hadal_eval(m, task, &o, &report, &why), &why, e);
    json_t *j = NULL;
    if (s == OK) s = json_parse(&j, report, strlen(report), task, e);
    if (s == OK && json_array_append_new(reports, j) != 0) s = fail(e, ERR_NOMEM, "memory is out");
    hadal_free(report);
    free(path);
    return s;
}

static status save_reports(const char *folder, json_t *reports, error *e) {
    char *path = path_join(folder, "eval.json");
    json_t *all = json_pack("{s:O}", "tasks", reports);
    char *text = all ? json_dumps(all, JSON_INDENT(2)) : NULL;
    status s = path && text ? file_save(path, text, strlen(text), e) : fail(e, ERR_NOMEM, "memory is out");
    json_decref(all);
    free(text);
    free(path);
    return s;
}

static status run_eval(const train_config *c, const run_hooks *hooks, run_result *out, error *e) {
    const hadal_model_options o = {.size = sizeof o,
                                   .threads = c->training.threads,
                                   .compute = c->training.precision == PRECISION_F32 ? "f32" : "bf16",
                                   .kernels = c->training.kernels};
    hadal_error why = {0};
    hadal_model *m = NULL;
    json_t *tasks = NULL, *x, *reports = json_array();
    size_t i;
    *out = (run_result){0};
    status s = inner(hadal_model_open(&m, c->model.path, &o, &why), &why, e);
    if (s == OK) s = json_parse(&tasks, c->eval.tasks, strlen(c->eval.tasks), "eval.tasks", e);
    json_array_foreach(tasks, i, x) {
        if (s == OK) s = run_task(m, x, i, c->checkpoint.folder, hooks, reports, e);
    }
    if (s == OK) s = save_reports(c->checkpoint.folder, reports, e);
    hadal_model_close(m);
    json_decref(tasks);
    json_decref(reports);
    return s;
}

/* --- kinds ------------------------------------------------------------------------------------------------------ */

/* Rewards that cannot be opened should stop a pipeline before its first stage, not in its third. */
static status check_rewards(const train_config *c, error *e) {
    json_t *list;
    reward_set *set;
    if (!c->rollout.rewards) return fail(e, ERR_FORMAT, "rollout.rewards is missing: docs/rewards.md");
    TRY(json_parse(&list, c->rollout.rewards, strlen(c->rollout.rewards), "rollout.rewards", e));
    status s = reward_set_open(&set, list, NULL, NULL, e);
    if (s == OK) reward_set_close(set);
    json_decref(list);
    return s;
}

static const pipeline_kind kinds[] = {
    {"sft", MAKES_MODEL, train_run, NULL},
    {"grpo", MAKES_MODEL, grpo_run, check_rewards},
    {"sample", MAKES_DATA, sample_run, NULL},
    {"distill", MAKES_MODEL, distill_run, NULL},
    {"dpo", MAKES_MODEL, dpo_run, NULL},
    {"eval", MAKES_SCORES, run_eval, check_eval},
    {0},
};

/* --- public ----------------------------------------------------------------------------------------------------- */

static status open_pipeline(const hadal_train_options *o, pipeline **p, error *e) {
    if (!o->run_file) return fail(e, ERR_ARG, "a pipeline needs a file with its stages");
    return pipeline_open(p, o->run_file, o->overrides, o->n_overrides, kinds, e);
}

static status run(hadal_train_options *o, char **json, error *e) {
    const run_hooks hooks = api_hooks(o);
    pipeline *p;
    pipeline_result r;
    TRY(open_pipeline(o, &p, e));
    status s = pipeline_run(p, &hooks, &r, e);
    char *report = path_join(p->folder, "report.html");
    json_t *j = s == OK ? json_pack("{s:i, s:i, s:I, s:f, s:f, s:b, s:s, s:s*, s:s*}", "done", r.done, "stages", r.of,
                                    "steps", (json_int_t)r.steps, "tokens", r.tokens, "seconds", r.seconds, "stopped",
                                    r.stopped, "folder", p->folder, "exported", r.model, "report", report)
                        : NULL;
    free(report);
    pipeline_close(p);
    TRY(s);
    return j ? api_json(j, json, e) : fail(e, ERR_NOMEM, "memory is out");
}

int hadal_r1(const hadal_train_options *given, char **json, hadal_error *e) {
    hadal_train_options o = {0};
    error why;
    if (json) *json = NULL;
    api_options(&o, sizeof o, given);
    return api_result(run(&o, json, &why), &why, e);
}

static status plan(const hadal_train_options *o, char **json, error *e) {
    pipeline *p;
    json_t *list = NULL;
    TRY(open_pipeline(o, &p, e));
    status s = pipeline_plan(p, &list, e);
    json_t *j = s == OK ? json_pack("{s:s, s:o}", "folder", p->folder, "stages", list) : NULL;
    pipeline_close(p);
    TRY(s);
    return j ? api_json(j, json, e) : fail(e, ERR_NOMEM, "memory is out");
}

int hadal_r1_plan(const hadal_train_options *given, char **json, hadal_error *e) {
    hadal_train_options o = {0};
    error why;
    *json = NULL;
    api_options(&o, sizeof o, given);
    return api_result(plan(&o, json, &why), &why, e);
}
