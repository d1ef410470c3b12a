/* Public functions around training: made-up data, evaluation, plots. */
#include <stdlib.h>
#include <string.h>
#include "api/internal.h"
#include "data/tiny_r1.h"
#include "eval/evals.h"
#include "train/metrics.h"

/* --- data ------------------------------------------------------------------------------------------------------- */

static status data(const char *kind, const char *out, const hadal_data_options *o, char **json, error *e) {
    tiny_r1_options t = {.held_out = o->held_out != 0, .seed = o->seed};
    tiny_r1_counts n;
    if (strcmp(kind, "tiny-r1") != 0) return fail(e, ERR_ARG, "there are no data \"%s\", but: tiny-r1", kind);
    if (o->documents < 0) return fail(e, ERR_ARG, "documents should not be negative");
    TRY(tiny_r1_tasks(o->task ? o->task : "all", &t.tasks, e));
    TRY(tiny_r1_phase(o->phase ? o->phase : "clean", t.share, e));
    TRY(tiny_r1_write(out, &t, o->documents ? o->documents : 40000, o->progress, o->progress_arg, &n, e));
    if (!json) return OK;
    str s = {0};
    str_addf(&s, "{\"documents\": %lld, \"bytes\": %llu, \"by_task\": {", (long long)n.documents,
             (unsigned long long)n.bytes);
    const char *comma = "";
    for (int i = 0; i < TINY_R1_TASKS; i++) {
        if (!n.task[i]) continue;
        str_addf(&s, "%s\"%s\": %lld", comma, tiny_r1_task_names[i], (long long)n.task[i]);
        comma = ", ";
    }
    str_puts(&s, "}, \"by_style\": {");
    for (int i = 0; i < TINY_R1_STYLES; i++)
        str_addf(&s, "%s\"%s\": %lld", i ? ", " : "", tiny_r1_style_names[i], (long long)n.style[i]);
    str_puts(&s, "}}");
    *json = str_take(&s);
    return *json ? OK : fail(e, ERR_NOMEM, "memory is out");
}

int hadal_data(const char *kind, const char *out, const hadal_data_options *o, char **json, hadal_error *e) {
    error why;
    if (json) *json = NULL;
    hadal_data_options options = {0};
    api_options(&options, sizeof options, o);
    if (!kind || !out) return api_result(fail(&why, ERR_ARG, "data need a kind and a file"), &why, e);
    return api_result(data(kind, out, &options, json, &why), &why, e);
}

/* --- evaluation ------------------------------------------------------------------------------------------------- */

static bool on_answers(void *arg, int64_t done, int64_t total) {
    const hadal_eval_options *o = arg;
    return !o->progress || o->progress(o->progress_arg, (uint64_t)done, (uint64_t)total, "answers") == 0;
}

static const char *const ways[] = {"greedy", "sampled"};

/* What nobody asked for is as the evaluation has it. */
static status eval_ways(const evaluation *v, const hadal_eval_options *o, eval_options *x, error *e) {
    const char *way = o->decoding;
    if (!way && !v->made_up) way = ways[o->temperature != 0 || o->samples > 1];
    x->greedy = !way || !strcmp(way, ways[0]);
    x->sampled = !way || !strcmp(way, ways[1]);
    if (!x->greedy && !x->sampled) return fail(e, ERR_ARG, "decoding \"%s\": use greedy or sampled", way);
    x->limit = o->limit ? o->limit : v->prompts;
    x->temperature = o->temperature != 0 ? o->temperature : v->temperature;
    x->top_p = o->top_p != 0 ? o->top_p : v->top_p;
    x->samples = o->samples ? o->samples : 1;
    x->shots = o->shots < 0 ? 0 : o->shots == 0 ? -1 : o->shots;
    return OK;
}

static status eval_chat(const hadal_model *m, const hadal_eval_options *o, eval_options *x, json_t **variables,
                        error *e) {
    *variables = NULL;
    if (!o->chat) return OK;
    if (m->text.template_error)
        return fail(e, ERR_UNSUPPORTED, "the checkpoint's chat template cannot be used: %s", m->text.template_error);
    if (!o->thinking) return OK;
    *variables = json_pack("{s:b, s:b}", "thinking", o->thinking > 0, "enable_thinking", o->thinking > 0);
    x->chat_options = *variables;
    return *variables ? OK : fail(e, ERR_NOMEM, "memory is out");
}

static status eval(hadal_model *m, const char *task, hadal_eval_options *o, char **json, error *e) {
    const chat_format format = {m->text.template, m->text.model_type, m->text.tokenizer.t};
    const evaluation *v;
    eval_options x = {.seed = o->seed,
                      .progress = on_answers,
                      .progress_arg = o,
                      .data = o->data,
                      .examples = o->examples,
                      .chat = o->chat != 0,
                      .format = &format,
                      .max_tokens = o->max_tokens,
                      .context = o->context,
                      .sequences = o->sequences,
                      .eos = m->text.eos,
                      .n_eos = m->text.n_eos,
                      .output = o->output,
                      .prompt_member = o->prompt_member,
                      .answer_member = o->answer_member};
    json_t *variables, *report = NULL;
    TRY(eval_find(&v, task, e));
    TRY(eval_ways(v, o, &x, e));
    status s = eval_chat(m, o, &x, &variables, e);
    if (s == OK) s = eval_run(m->g, m->text.tokenizer.t, task, &x, &report, e);
    json_decref(variables);
    return s == OK ? api_json(report, json, e) : s;
}

int hadal_eval(hadal_model *m, const char *task, const hadal_eval_options *o, char **json, hadal_error *e) {
    error why;
    hadal_eval_options options = {0};
    api_options(&options, sizeof options, o);
    if (json) *json = NULL;
    if (!m || !task || !json)
        return api_result(fail(&why, ERR_ARG, "eval needs a model, a task and a place for the report"), &why, e);
    return api_result(eval(m, task, &options, json, &why), &why, e);
}

/* --- plots ------------------------------------------------------------------------------------------------------ */

int hadal_plot(const char *run, const char *out, hadal_error *e) {
    error why;
    if (!run || !out) return api_result(fail(&why, ERR_ARG, "a plot needs the folder of a run and a file"), &why, e);
    return api_result(metrics_plot(run, out, &why), &why, e);
}
