/* hadal eval: how often is a model right? */
#include <stdio.h>
#include "cli/commands.h"
#include "cli/generate.h"
#include "cli/table.h"
#include "cli/term.h"

typedef struct settings {
    const char *task;
    int limit, samples;
    double temperature;
    seed seed;
    bool json;
    machine_options machine;
} settings;
static const settings defaults = {.limit = 200, .samples = 1, .temperature = -1};

#define AT(field) offsetof(settings, field)
static const option rows[] = {
    {"task", 0, "NAME", OPT_TEXT, AT(task), 0, 0, "what to evaluate: tiny-r1, or some of its tasks: tiny-r1:calc,add"},
    {"limit", 'n', "N", OPT_INT, AT(limit), 1, 1 << 24, "prompts; default 200"},
    {"temperature", 0, "T", OPT_REAL, AT(temperature), 0, 100,
     "0: greedy answers only, else sampled ones only; default both, T = 1"},
    {"samples", 'k', "K", OPT_INT, AT(samples), 1, 4096, "sampled answers to each prompt; default 1"},
    {"seed", 0, "N", OPT_SEED, AT(seed), 0, 0, "same seed, same prompts and answers; default 0"},
    {"json", 0, NULL, OPT_SWITCH, AT(json), 0, 0, "JSON"},
    {0},
};
#undef AT

static int run(void *given, int n, char **args) {
    (void)n;
    const settings *o = given;
    hadal_error e = {0};
    hadal_model *m;
    char *text = NULL;
    json_t *result;
    if (!o->task) return wrong("--task is missing, such as --task tiny-r1; try 'hadal eval --help'");
    int code = open_model(&m, args[0], &o->machine);
    if (code) return code;
    progress p = {.what = "answers"};
    hadal_eval_options v = {.size = sizeof v,
                            .limit = o->limit,
                            .decoding = o->temperature < 0   ? NULL
                                        : o->temperature > 0 ? "sampled"
                                                             : "greedy",
                            .temperature = o->temperature > 0 ? o->temperature : 1,
                            .samples = o->samples,
                            .seed = o->seed.value,
                            .progress = progress_call,
                            .progress_arg = &p};
    term_catch_interrupt();
    int st = hadal_eval(m, o->task, &v, &text, &e);
    progress_end(&p);
    hadal_model_close(m);
    if (st) return report(&e);
    code = parse_own_json(&result, text);
    if (code) return code;
    if (o->json) code = print_json(result);
    else print_table(result);
    json_decref(result);
    return code;
}

const command command_eval = {
    .name = "eval",
    .arguments = "MODEL",
    .summary = "measures how often a model's answers are right",
    .more = "tiny-r1: small sums and searches on prompts held out of training, for models of 'hadal data tiny-r1'.",
    .examples = "hadal eval ./tiny --task tiny-r1\n"
                "hadal eval ./tiny --task tiny-r1:calc --limit 96 --temperature 1 --samples 8\n"
                "hadal eval ./tiny --task tiny-r1:calc --temperature 0 --json",
    .groups = {{"Options", rows, 0}, {"Machine", machine_rows, offsetof(settings, machine)}},
    .min_args = 1,
    .max_args = 1,
    .size = sizeof(settings),
    .defaults = &defaults,
    .run = run,
};
