/* hadal plot: the curves of a training run. */
#include <stdio.h>
#include <stdlib.h>
#include "base/file.h"
#include "cli/commands.h"
#include "cli/term.h"

typedef struct settings {
    const char *output;
    bool json;
} settings;

#define AT(field) offsetof(settings, field)
static const option rows[] = {
    {"output", 'o', "FILE.svg", OPT_TEXT, AT(output), 0, 0, "where to write; default RUN/metrics.svg"},
    {"json", 0, NULL, OPT_SWITCH, AT(json), 0, 0, "the name of the file as JSON"},
    {0},
};
#undef AT

static int print_name(const settings *o, const char *path) {
    if (!o->json) {
        term_puts(stdout, path);
        putchar('\n');
        return EXIT_FINE;
    }
    json_t *result = json_pack("{s:s}", "output", path);
    int code = result ? print_json(result) : wrong("%s: written, but its name is not valid UTF-8", path);
    json_decref(result);
    return code;
}

static int run(void *given, int n, char **args) {
    (void)n;
    const settings *o = given;
    hadal_error e = {0};
    int code = need_file(args[0]);
    if (code) return code;
    if (!is_directory(args[0])) return wrong("%s: not a folder; a run is a folder with a metrics.jsonl", args[0]);
    char *path = o->output ? NULL : path_join(args[0], "metrics.svg");
    if (!o->output && !path) return no_memory();
    if (hadal_plot(args[0], o->output ? o->output : path, &e)) code = report(&e);
    else code = print_name(o, o->output ? o->output : path);
    free(path);
    return code;
}

const command command_plot = {
    .name = "plot",
    .arguments = "RUN",
    .summary = "draws the curves of a training run",
    .more = "RUN is the folder of a run, which holds a metrics.jsonl. Runs that are not over can be drawn, too.",
    .examples = "hadal plot runs/first\n"
                "hadal plot runs/first --output first.svg",
    .groups = {{"Options", rows, 0}},
    .min_args = 1,
    .max_args = 1,
    .size = sizeof(settings),
    .run = run,
};
