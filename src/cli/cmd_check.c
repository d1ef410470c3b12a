/* hadal check: are our logits those of another implementation? */
#include <stdio.h>
#include <string.h>
#include "cli/commands.h"
#include "cli/generate.h"
#include "cli/table.h"
#include "cli/term.h"

typedef struct settings {
    const char *golden, *write;
    texts prompts;
    double max_kl;
    bool json;
    machine_options machine;
} settings;
static const settings defaults = {.max_kl = 2e-4, .machine = {.compute = "f32"}};

#define AT(field) offsetof(settings, field)
static const option rows[] = {
    {"golden", 0, "FILE", OPT_TEXT, AT(golden), 0, 0, "JSON lines of {\"prompt\", \"tokens\", \"logits\"}"},
    {"max-kl", 0, "X", OPT_REAL, AT(max_kl), 0, 1e9, "largest KL divergence that passes; default 2e-4"},
    {"write", 0, "FILE", OPT_TEXT, AT(write), 0, 0, "instead writes such a file: the logits of the prompts"},
    {"prompt", 'p', "TEXT", OPT_TEXTS, AT(prompts), 0, 0, "with --write: a text; may be given several times"},
    {"json", 0, NULL, OPT_SWITCH, AT(json), 0, 0, "JSON lines: one for each prompt, then the summary"},
    {0},
};
#undef AT

static void on_line(void *arg, const char *text) {
    const settings *o = arg;
    json_t *line;
    if (json_parse(&line, text, strlen(text), "", NULL) != OK) return;
    if (o->json) print_json_line(line);
    else print_row(line);
    fflush(stdout);
    json_decref(line);
}

static int run(void *given, int n, char **args) {
    (void)n;
    settings *o = given;
    hadal_error e = {0};
    hadal_model *m;
    char *text = NULL;
    json_t *summary;
    if (!o->golden == !o->write) return wrong("either --golden or --write is wanted; try 'hadal check --help'");
    int code = o->golden ? need_file(o->golden) : EXIT_FINE;
    if (!code) code = open_model(&m, args[0], &o->machine);
    if (code) return code;
    if (o->write) {
        int written = hadal_golden_write(m, o->prompts.v, o->prompts.n, o->write, &e);
        hadal_model_close(m);
        return written ? report(&e) : EXIT_FINE;
    }
    int st = hadal_check(m, o->golden, o->max_kl, on_line, o, &text, &e);
    hadal_model_close(m);
    if (st) return report(&e);
    code = parse_own_json(&summary, text);
    if (code) return code;
    bool pass = json_is_true(json_object_get(summary, "pass"));
    if (o->json) code = print_json_line(summary);
    else {
        printf("%s: ", pass ? "pass" : "FAIL");
        json_object_del(summary, "pass");
        print_row(summary);
    }
    json_decref(summary);
    return code ? code : pass ? EXIT_FINE : EXIT_FAILED;
}

const command command_check = {
    .name = "check",
    .arguments = "MODEL",
    .summary = "compares the model's logits with those of another implementation",
    .more = "Computes in F32 unless --compute says otherwise. Exit code 0: pass, 1: the KL divergence is too large.",
    .examples = "hadal check ./model --golden golden_logits.jsonl\n"
                "hadal check ./model --golden golden_logits.jsonl --compute bf16 --max-kl 0.01\n"
                "hadal check ./model --write golden_logits.jsonl -p 'The deepest part of the sea'",
    .groups = {{"Options", rows, 0}, {"Machine", machine_rows, offsetof(settings, machine)}},
    .min_args = 1,
    .max_args = 1,
    .size = sizeof(settings),
    .defaults = &defaults,
    .run = run,
};
