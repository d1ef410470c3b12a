/* hadal trace: the tensors inside a run of the model, for comparison with another implementation. */
#include <stdio.h>
#include "cli/commands.h"
#include "cli/generate.h"
#include "cli/term.h"

typedef struct settings {
    const char *golden, *out;
    machine_options machine;
} settings;
static const settings defaults = {.machine = {.compute = "f32"}};

#define AT(field) offsetof(settings, field)
static const option rows[] = {
    {"golden", 0, "FILE", OPT_TEXT, AT(golden), 0, 0, "safetensors file with the prompts (ids.*) and the names wanted"},
    {"out", 'o', "FILE", OPT_TEXT, AT(out), 0, 0, "safetensors file to write"},
    {0},
};
#undef AT

static int run(void *given, int n, char **args) {
    (void)n;
    const settings *o = given;
    hadal_error e = {0};
    hadal_model *m;
    if (!o->golden || !o->out) return wrong("--golden and --out are wanted; try 'hadal trace --help'");
    int code = need_file(o->golden);
    term_catch_interrupt();
    if (!code) code = open_model(&m, args[0], &o->machine);
    if (code) return code;
    progress p = {.what = "tracing"};
    char *missing = NULL;
    int st = hadal_trace(m, o->golden, o->out, &missing, progress_call, &p, &e);
    progress_end(&p);
    hadal_model_close(m);
    if (st) return report(&e);
    if (*missing) fprintf(stderr, "not made (another number format or model):\n%s", missing);
    hadal_free(missing);
    return EXIT_FINE;
}

const command command_trace = {
    .name = "trace",
    .arguments = "MODEL",
    .summary = "writes the model's inner tensors under the names of a golden file",
    .more = "Computes in F32 unless --compute says otherwise.",
    .examples = "hadal trace ./model --golden golden.safetensors -o ours.safetensors\n"
                "hadal trace ./model --golden golden.safetensors -o ours.safetensors --compute bf16",
    .groups = {{"Options", rows, 0}, {"Machine", machine_rows, offsetof(settings, machine)}},
    .min_args = 1,
    .max_args = 1,
    .size = sizeof(settings),
    .defaults = &defaults,
    .run = run,
};
