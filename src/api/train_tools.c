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

static status eval(hadal_model *m, const char *task, hadal_eval_options *o, char **json, error *e) {
    const char *way = o->decoding;
    eval_options v = {.limit = o->limit ? o->limit : 200,
                      .greedy = !way || !strcmp(way, "greedy"),
                      .sampled = !way || !strcmp(way, "sampled"),
                      .temperature = o->temperature != 0 ? o->temperature : 1,
                      .samples = o->samples ? o->samples : 1,
                      .seed = o->seed,
                      .progress = on_answers,
                      .progress_arg = o};
    json_t *report;
    if (!v.greedy && !v.sampled) return fail(e, ERR_ARG, "decoding \"%s\": use greedy or sampled", way);
    TRY(eval_run(m->g, m->text.tokenizer.t, task, &v, &report, e));
    return api_json(report, json, e);
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
