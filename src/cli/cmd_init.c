/* hadal init: a checkpoint of random weights. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "cli/commands.h"
#include "cli/table.h"
#include "cli/term.h"

typedef struct settings {
    seed seed;
    const char *dtype;
    bool json;
} settings;

#define AT(field) offsetof(settings, field)
static const option rows[] = {
    {"seed", 0, "N", OPT_SEED, AT(seed), 0, 0, "same seed, same weights; default 0"},
    {"dtype", 0, "f32|bf16|fp8", OPT_TEXT, AT(dtype), 0, 0, "number type of the weights; default: the configuration's"},
    {"json", 0, NULL, OPT_SWITCH, AT(json), 0, 0, "what was made as JSON"},
    {0},
};
#undef AT

static int run(void *given, int n, char **args) {
    (void)n;
    const settings *o = given;
    static const char *const presets[] = {"debug", "tiny", "tiny-dense", "16b", "671b", "v3.2"};
    hadal_error e = {0};
    char *text = NULL;
    json_t *made;
    bool preset = false;
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) preset |= !strcmp(args[0], presets[i]);
    int code = EXIT_FINE;
    if (!preset && access(args[0], F_OK) != 0)
        return wrong("%s: neither a file nor a preset: debug, tiny, tiny-dense, 16b, 671b, v3.2", args[0]);
    term_catch_interrupt();
    progress p = {.what = "writing", .bytes = true};
    hadal_init_options i = {
        .size = sizeof i, .seed = o->seed.value, .type = o->dtype, .progress = progress_call, .progress_arg = &p};
    int st = hadal_init_with(args[0], args[1], &i, &text, &e);
    progress_end(&p);
    if (st == HADAL_ERR_CANCELLED) {
        wrong("interrupted; the same command goes on from here");
        return EXIT_INTERRUPTED;
    }
    if (st) return report(&e);
    code = parse_own_json(&made, text);
    if (code) return code;
    if (o->json) code = print_json(made);
    else print_table(made);
    json_decref(made);
    return code;
}

const command command_init = {
    .name = "init",
    .arguments = "CONFIG OUT",
    .summary = "writes a checkpoint of random weights",
    .more =
        "CONFIG: a config.json, a folder with one, or a preset: debug (a DeepSeek-V3 of 0.2M parameters), tiny (0.76M, "
        "the tiny-r1\nrecipe), tiny-dense (a student for it, of Qwen2's shape), 16b (DeepSeek-V2-Lite), 671b "
        "(DeepSeek-V3), v3.2. OUT: a new or an empty folder.",
    .examples = "hadal init tiny ./tiny --seed 1\n"
                "hadal init ./DeepSeek-V2-Lite/config.json ./random --dtype f32\n"
                "hadal init 16b ./random",
    .groups = {{"Options", rows, 0}},
    .min_args = 2,
    .max_args = 2,
    .size = sizeof(settings),
    .run = run,
};
