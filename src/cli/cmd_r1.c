/* hadal r1: the stages of a recipe, watched on the terminal; or its plan. */
#include <stdio.h>
#include <string.h>
#include "cli/commands.h"
#include "cli/watch.h"

typedef struct settings {
    watch_options watch;
    bool dry_run;
} settings;

#define AT(field) offsetof(settings, field)
static const option rows[] = {
    {"dry-run", 0, NULL, OPT_SWITCH, AT(dry_run), 0, 0, "reads and checks everything, prints the plan, runs nothing"},
    {"quiet", 'q', NULL, OPT_SWITCH, AT(watch.quiet), 0, 0, "prints no line for each step"},
    {"json", 0, NULL, OPT_SWITCH, AT(watch.json), 0, 0,
     "prints each step, and at the end the result, as one line of JSON; the plan as JSON"},
    {0},
};
#undef AT

static const char *text(const json_t *j, const char *key) {
    const char *t = json_string_value(json_object_get(j, key));
    return t ? t : "";
}

/* ", up to 12.3 M tokens" */
static void add_tokens(str *s, const json_t *j) {
    const double most = json_number_value(json_object_get(j, "most_tokens"));
    if (!(most > 0)) return;
    str_puts(s, ", up to ");
    human_count(s, most);
    str_puts(s, " tokens");
}

/* "240 steps of 128 prompts, 1024 completions, up to 2.01 G tokens" */
static void add_amounts(str *s, const json_t *j) {
    const json_t *steps = json_object_get(j, "steps"), *prompts = json_object_get(j, "prompts"),
                 *completions = json_object_get(j, "completions"), *rows_ = json_object_get(j, "rows");
    if (steps) str_addf(s, "%lld steps", (long long)json_integer_value(steps));
    if (prompts) str_addf(s, " of %lld prompts,", (long long)json_integer_value(prompts));
    if (completions)
        str_addf(s, " %lld completions%s", (long long)json_integer_value(completions), prompts ? "" : " a prompt");
    if (rows_) str_addf(s, " of %lld rows", (long long)json_integer_value(rows_));
    add_tokens(s, j);
}

static void add_stage(str *s, const json_t *j) {
    json_t *name;
    size_t i;
    str_addf(s, "%2lld  %-16s %-8s ", (long long)json_integer_value(json_object_get(j, "stage")), text(j, "name"),
             text(j, "kind"));
    add_amounts(s, j);
    if (json_is_true(json_object_get(j, "done"))) str_puts(s, "  (done)");
    str_addf(s, "\n    model %s\n", text(j, "model"));
    json_array_foreach(json_object_get(j, "data"), i, name) str_addf(s, "    data  %s\n", json_string_value(name));
    str_addf(s, "    makes %s\n", text(j, "output"));
}

static int print_plan(const settings *o, int n, char **args) {
    const hadal_train_options t = {
        .size = sizeof t, .run_file = args[0], .overrides = (const char *const *)args + 1, .n_overrides = n - 1};
    hadal_error e = {0};
    char *made;
    json_t *plan, *stage;
    size_t i;
    if (hadal_r1_plan(&t, &made, &e)) return report(&e);
    int code = parse_own_json(&plan, made);
    if (code) return code;
    str s = {0};
    json_array_foreach(json_object_get(plan, "stages"), i, stage) add_stage(&s, stage);
    if (o->watch.json) code = print_json(plan);
    else term_puts(stdout, s.p ? s.p : "");
    str_free(&s);
    json_decref(plan);
    return code;
}

static int run(void *given, int n, char **args) {
    const settings *o = given;
    if (strchr(args[0], '=')) return wrong("RUN.yaml comes first: the file with the stages");
    int code = need_file(args[0]);
    if (code) return code;
    return o->dry_run ? print_plan(o, n, args) : watch_run(hadal_r1, &o->watch, n, args);
}

const command command_r1 = {
    .name = "r1",
    .arguments = "RUN.yaml [section.key=value ...] [stages.NAME.section.key=value ...] [folder=FOLDER]",
    .summary = "the stages of R1, or others, one after the other from one file",
    .more = "Fine-tuning, GRPO, sampling, distillation, DPO and evaluation, each from what earlier ones made "
            "(docs/r1.md).\n"
            "Stages that are done are skipped. Ctrl-C saves and ends; the same command goes on where it stopped. At "
            "the end\n"
            "FOLDER/report.html shows curves, samples and accuracies.",
    .examples = "hadal r1 recipes/r1.yaml --dry-run\n"
                "hadal r1 recipes/deepscaler-1.5b.yaml data.train=deepscaler.jsonl\n"
                "hadal r1 r1.yaml stages.reasoning.training.steps=100",
    .groups = {{"Options", rows, 0}},
    .min_args = 1,
    .max_args = MAX_TEXTS,
    .size = sizeof(settings),
    .run = run,
};
