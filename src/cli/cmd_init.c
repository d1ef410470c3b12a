/* hadal init: a checkpoint of random weights. */
#include <stdio.h>
#include "cli/commands.h"
#include "cli/term.h"

typedef struct settings {
    seed seed;
} settings;

static const option rows[] = {
    {"seed", 0, "N", OPT_SEED, offsetof(settings, seed), 0, 0, "same seed, same weights; default 0"},
    {0},
};

static int run(void *given, int n, char **args) {
    (void)n;
    const settings *o = given;
    hadal_error e = {0};
    int code = need_file(args[0]);
    if (code) return code;
    term_catch_interrupt();
    progress p = {.what = "writing", .bytes = true};
    int st = hadal_init(args[0], args[1], o->seed.value, progress_call, &p, &e);
    progress_end(&p);
    return st ? report(&e) : EXIT_FINE;
}

const command command_init = {
    .name = "init",
    .arguments = "CONFIG OUT",
    .summary = "writes a checkpoint of random weights for a config.json",
    .more = "For tests, demonstrations and measurements of speed. BF16, or FP8 when the configuration says so.",
    .examples = "hadal init ./DeepSeek-V2-Lite/config.json ./random\n"
                "hadal init small.json ./random --seed 7",
    .groups = {{"Options", rows, 0}},
    .min_args = 2,
    .max_args = 2,
    .size = sizeof(settings),
    .run = run,
};
