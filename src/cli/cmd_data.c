/* hadal data: training data made by rule. */
#include <stdio.h>
#include <stdlib.h>
#include "cli/commands.h"
#include "cli/table.h"
#include "cli/term.h"

typedef struct settings {
    const char *task, *phase;
    int documents;
    seed seed;
    bool held_out, json;
} settings;
static const settings defaults = {.task = "all", .phase = "clean", .documents = 40000};

#define AT(field) offsetof(settings, field)
static const option rows[] = {
    {"task", 0, "LIST", OPT_TEXT, AT(task), 0, 0, "calc, count, add, search with commas between, or all; default all"},
    {"phase", 0, "clean|mixed|work", OPT_TEXT, AT(phase), 0, 0,
     "clean: nearly all with their working; mixed: working is a minority, and some is wrong; work: all with working"},
    {"documents", 'n', "N", OPT_INT, AT(documents), 1, 1 << 30, "lines to write; default 40000"},
    {"seed", 0, "N", OPT_SEED, AT(seed), 0, 0, "same seed, same documents; default 0"},
    {"held-out", 0, NULL, OPT_SWITCH, AT(held_out), 0, 0, "only prompts that are kept out of training, for validation"},
    {"json", 0, NULL, OPT_SWITCH, AT(json), 0, 0, "what was written as JSON"},
    {0},
};
#undef AT

static int run(void *given, int n, char **args) {
    (void)n;
    const settings *o = given;
    hadal_error e = {0};
    char *text = NULL;
    json_t *written;
    progress p = {.what = "writing"};
    term_catch_interrupt();
    hadal_data_options d = {.size = sizeof d,
                            .task = o->task,
                            .phase = o->phase,
                            .documents = o->documents,
                            .seed = o->seed.value,
                            .held_out = o->held_out,
                            .progress = progress_call,
                            .progress_arg = &p};
    int st = hadal_data(args[0], args[1], &d, &text, &e);
    progress_end(&p);
    if (st) return report(&e);
    int code = parse_own_json(&written, text);
    if (code) return code;
    if (o->json) code = print_json(written);
    else print_table(written);
    json_decref(written);
    return code;
}

const command command_data = {
    .name = "data",
    .arguments = "KIND OUT",
    .summary = "writes training data that are made by rule",
    .more = "KIND is tiny-r1: small sums and searches with or without their working, as JSON lines of prompt and "
            "completion.\n"
            "One prompt in sixteen is held out of all data unless --held-out asks for just those.",
    .examples = "hadal data tiny-r1 clean.jsonl\n"
                "hadal data tiny-r1 mixed.jsonl --task calc,add --phase mixed --documents 8000 --seed 1\n"
                "hadal data tiny-r1 validation.jsonl --documents 500 --held-out",
    .groups = {{"Options", rows, 0}},
    .min_args = 2,
    .max_args = 2,
    .size = sizeof(settings),
    .defaults = &defaults,
    .run = run,
};
