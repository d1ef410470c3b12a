/* hadal convert: a checkpoint in another number type. */
#include <stdio.h>
#include <stdlib.h>
#include "base/file.h"
#include "cli/commands.h"
#include "cli/table.h"
#include "cli/term.h"

typedef struct settings {
    const char *to, *mtp, *scale_fmt;
    int threads;
    bool json;
} settings;

#define AT(field) offsetof(settings, field)
static const option rows[] = {
    {"to", 0, "bf16|f32|fp8|native", OPT_TEXT, AT(to), 0, 0,
     "the number type wanted; native: a checkpoint to train from"},
    {"mtp", 0, "keep|hide|drop", OPT_TEXT, AT(mtp), 0, 0,
     "MTP layers: keep (default), keep the weights only, leave out"},
    {"scale-fmt", 0, "ue8m0", OPT_TEXT, AT(scale_fmt), 0, 0, "fp8: scales that are powers of two, as in V3.1"},
    {"threads", 't', "N", OPT_INT, AT(threads), 0, 4096, "threads; 0: one per processor (default)"},
    {"json", 0, NULL, OPT_SWITCH, AT(json), 0, 0, "the summary as JSON"},
    {0},
};
#undef AT

/* A run's folder of training, or one of its steps. */
static bool is_training(const char *folder) {
    char *state = path_join(folder, "state.json"), *config = path_join(folder, "model/config.json");
    bool yes = (state && file_exists(state)) || (config && file_exists(config));
    free(state);
    free(config);
    return yes;
}

static int run(void *given, int n, char **args) {
    (void)n;
    const settings *o = given;
    hadal_error e = {0};
    char *text = NULL;
    json_t *done;
    bool training = is_training(args[0]);
    if (!o->to && !training) return wrong("--to is missing; try 'hadal convert --help'");
    int code = training ? EXIT_FINE : need_model(args[0]);
    if (code) return code;
    term_catch_interrupt();
    progress p = {.what = "converting", .bytes = true};
    hadal_convert_options c = {.size = sizeof c,
                               .to = o->to,
                               .mtp = o->mtp,
                               .scale_fmt = o->scale_fmt,
                               .threads = o->threads,
                               .progress = progress_call,
                               .progress_arg = &p};
    int st = hadal_convert(args[0], args[1], &c, &text, &e);
    progress_end(&p);
    if (st == HADAL_ERR_CANCELLED) {
        wrong("interrupted; the same command goes on from here");
        return EXIT_INTERRUPTED;
    }
    if (st) return report(&e);
    code = parse_own_json(&done, text);
    if (code) return code;
    if (o->json) code = print_json(done);
    else print_table(done);
    json_decref(done);
    return code;
}

const command command_convert = {
    .name = "convert",
    .arguments = "IN OUT",
    .summary = "writes a checkpoint in another number type",
    .more = "IN and OUT are Hugging Face folders. Memory stays small; an interrupted run goes on when repeated.\n"
            "IN may be a run's folder of training or one of its steps: OUT gets the weights in the type they had.",
    .examples = "hadal convert ./DeepSeek-V3 ./DeepSeek-V3-bf16 --to bf16\n"
                "hadal convert ./DeepSeek-V2-Lite ./DeepSeek-V2-Lite-fp8 --to fp8 --scale-fmt ue8m0\n"
                "hadal convert ./DeepSeek-V3 ./DeepSeek-V3-small --to bf16 --mtp drop\n"
                "hadal convert ./run/step-00001000 ./trained",
    .groups = {{"Options", rows, 0}},
    .min_args = 2,
    .max_args = 2,
    .size = sizeof(settings),
    .run = run,
};
