/* hadal bench: the speed of a model, or of the machine, as measured here and now. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli/bench_serve.h"
#include "cli/commands.h"
#include "cli/table.h"
#include "cli/term.h"
#include "hadal_train.h"

typedef struct settings {
    int prompt, generate, depth, repeat;
    const char *threads, *compute, *kernels, *tokens;
    int batch, seq_len, steps, generations, requests;
    const char *clients;
    bool machine, train, grpo, serve, json;
} settings;
static const settings defaults = {.prompt = -1, .generate = -1, .repeat = 3, .clients = "1,4,8,16", .requests = 8};

#define AT(field) offsetof(settings, field)
static const option rows[] = {
    {"prompt", 'p', "N", OPT_INT, AT(prompt), 0, 1 << 30,
     "tokens of the prompt; default 512, --serve: 64; 0: no prompt"},
    {"generate", 'n', "N", OPT_INT, AT(generate), 0, 1 << 30, "tokens to generate; default 64, 0: none"},
    {"depth", 'd', "N", OPT_INT, AT(depth), 0, 1 << 30, "tokens in the cache beforehand; default 0"},
    {"repeat", 'r', "N", OPT_INT, AT(repeat), 1, 1000, "measurements, of which the median counts; default 3"},
    {"threads", 't', "N,N..", OPT_TEXT, AT(threads), 0, 0, "measures with each of these numbers of threads"},
    {"compute", 0, "bf16|f32|fp8", OPT_TEXT, AT(compute), 0, 0, "type of the operands of matrix products"},
    {"kernels", 0, "portable|avx2|avx512|avx512bf16|amx", OPT_TEXT, AT(kernels), 0, 0,
     "instructions to use; default: the best of the machine"},
    {"machine", 0, NULL, OPT_SWITCH, AT(machine), 0, 0,
     "memory bandwidth and peak of matrix products, without a model"},
    {"train", 0, NULL, OPT_SWITCH, AT(train), 0, 0,
     "whole training steps of MODEL, a folder or a config.json; --compute may be fp8, too"},
    {"grpo", 0, NULL, OPT_SWITCH, AT(grpo), 0, 0,
     "steps of reinforcement learning of MODEL, rollout and update; --batch: prompts (24), --generate: most tokens "
     "(40)"},
    {"generations", 0, "N", OPT_INT, AT(generations), 1, 1 << 16, "--grpo: completions of a prompt; default 8"},
    {"serve", 0, NULL, OPT_SWITCH, AT(serve), 0, 0,
     "what clients of 'hadal serve MODEL' see, or of the server at http://HOST:PORT in the place of MODEL; --depth: "
     "first prompt of the long conversation (2048)"},
    {"clients", 'c', "N,N..", OPT_TEXT, AT(clients), 0, 0,
     "--serve: measures with each of these numbers of clients; default 1,4,8,16"},
    {"requests", 0, "N", OPT_INT, AT(requests), 1, 1 << 16, "--serve: requests of each client; default 8"},
    {"batch", 'b', "N", OPT_INT, AT(batch), 1, 1 << 20, "--train: rows of a step; default 4"},
    {"seq-len", 0, "N", OPT_INT, AT(seq_len), 2, 1 << 24, "--train: tokens of a row; default 512"},
    {"steps", 0, "N", OPT_INT, AT(steps), 1, 1 << 20, "--train, --grpo: steps that are measured; default 10"},
    {"tokens", 0, "FILE.bin", OPT_TEXT, AT(tokens), 0, 0, "--train: rows from this file; default: random tokens"},
    {"json", 0, NULL, OPT_SWITCH, AT(json), 0, 0, "JSON: a list with an object for each number of threads"},
    {0},
};
#undef AT

enum { MOST_NUMBERS = 32, MOST_CLIENTS = 400 };

/* "1,2,4" */
static int parse_numbers(const char *name, const char *text, int min, int max, int *out, int *n) {
    *n = 0;
    for (const char *p = text; p && *n < MOST_NUMBERS;) {
        char *end;
        errno = 0;
        long v = strtol(p, &end, 10);
        if (end == p || errno || v < min || v > max || (*end && *end != ','))
            return wrong("--%s is '%s', wanted numbers such as 1,2,4; try 'hadal bench --help'", name, text);
        out[(*n)++] = (int)v;
        p = *end ? end + 1 : NULL;
    }
    return EXIT_FINE;
}

static int measure_machine(const settings *o, int threads, json_t **out) {
    hadal_error e = {0};
    char *text = NULL;
    if (hadal_bench_machine(threads, o->kernels, &text, &e)) return report(&e);
    return parse_own_json(out, text);
}

static int measure_model(const settings *o, const char *folder, int threads, json_t **out) {
    hadal_error e = {0};
    hadal_model *m;
    char *text = NULL;
    int code = open_model(&m, folder, &(machine_options){threads, o->compute, o->kernels});
    if (code) return code;
    progress p = {.what = "measuring"};
    hadal_bench_options b = {.size = sizeof b,
                             .prompt = o->prompt < 0 ? 512 : o->prompt,
                             .generate = o->generate < 0 ? 64 : o->generate,
                             .depth = o->depth,
                             .repeat = o->repeat,
                             .progress = progress_call,
                             .progress_arg = &p};
    int st = hadal_bench(m, &b, &text, &e);
    progress_end(&p);
    hadal_model_close(m);
    return st ? report(&e) : parse_own_json(out, text);
}

static int measure_training(const settings *o, const char *path, int threads, json_t **out) {
    hadal_error e = {0};
    char *text = NULL;
    progress p = {.what = "measuring"};
    const hadal_bench_train_options b = {.size = sizeof b,
                                         .path = path,
                                         .tokens = o->tokens,
                                         .precision = o->compute,
                                         .kernels = o->kernels,
                                         .threads = threads,
                                         .batch = o->batch,
                                         .seq_len = o->seq_len,
                                         .steps = o->steps,
                                         .progress = progress_call,
                                         .progress_arg = &p};
    int st = hadal_bench_train(&b, &text, &e);
    progress_end(&p);
    return st ? report(&e) : parse_own_json(out, text);
}

static int measure_grpo(const settings *o, const char *path, int threads, json_t **out) {
    hadal_error e = {0};
    char *text = NULL;
    progress p = {.what = "measuring"};
    const hadal_bench_grpo_options b = {.size = sizeof b,
                                        .path = path,
                                        .precision = o->compute,
                                        .kernels = o->kernels,
                                        .threads = threads,
                                        .prompts = o->batch,
                                        .generations = o->generations,
                                        .max_tokens = o->generate < 0 ? 0 : o->generate,
                                        .steps = o->steps,
                                        .progress = progress_call,
                                        .progress_arg = &p};
    int st = hadal_bench_grpo(&b, &text, &e);
    progress_end(&p);
    return st ? report(&e) : parse_own_json(out, text);
}

static int measure_server(const settings *o, const char *target, int threads, json_t **out) {
    int clients[MOST_NUMBERS];
    serve_load load = {.target = target,
                       .clients = clients,
                       .requests = o->requests,
                       .prompt = o->prompt < 0 ? 64 : o->prompt,
                       .generate = o->generate < 0 ? 64 : o->generate,
                       .depth = o->depth,
                       .machine = {threads, o->compute, o->kernels}};
    int code = parse_numbers("clients", o->clients, 1, MOST_CLIENTS, clients, &load.n_clients);
    if (!code && (!load.prompt || !load.generate)) code = wrong("--serve needs --prompt and --generate above 0");
    return code ? code : bench_serve(&load, out);
}

static int measure(const settings *o, char **args, int threads, json_t **out) {
    if (o->serve) return measure_server(o, args[0], threads, out);
    if (o->machine) return measure_machine(o, threads, out);
    if (o->grpo) return measure_grpo(o, args[0], threads, out);
    return o->train ? measure_training(o, args[0], threads, out) : measure_model(o, args[0], threads, out);
}

static int run(void *given, int n, char **args) {
    const settings *o = given;
    int threads[MOST_NUMBERS], many, code;
    if (!o->train && !o->grpo && o->compute && !strcmp(o->compute, "fp8")) return wrong("--compute fp8 is for --train");
    if (o->machine && n) return wrong("--machine measures no model; try 'hadal bench --help'");
    if (!o->machine && !n) return wrong("MODEL is missing; try 'hadal bench --help'");
    if (!o->prompt && !o->generate) return wrong("--prompt 0 --generate 0 leaves nothing to measure");
    if ((code = parse_numbers("threads", o->threads ? o->threads : "0", 0, 4096, threads, &many))) return code;
    term_catch_interrupt();
    json_t *all = json_array();
    for (int i = 0; i < many && !code; i++) {
        json_t *one = NULL;
        code = measure(o, args, threads[i], &one);
        if (code) break;
        if (!o->json) {
            if (i) putchar('\n');
            (o->serve ? bench_serve_print : print_table)(one);
            fflush(stdout);
        }
        json_array_append_new(all, one);
        if (term_interrupts) code = EXIT_INTERRUPTED;
    }
    if (!code && o->json) code = print_json(all);
    json_decref(all);
    return code;
}

const command command_bench = {
    .name = "bench",
    .arguments = "[MODEL]",
    .summary = "measures the speed of a model or of the machine",
    .more = "Prompt processing and generation, with the share of what the machine could do at most.",
    .examples = "hadal bench ./DeepSeek-V2-Lite\n"
                "hadal bench ./DeepSeek-V2-Lite --prompt 2048 --generate 128 --threads 1,8,32 --json\n"
                "hadal bench --train ./config.json --batch 4 --seq-len 512 --compute f32\n"
                "hadal bench --grpo models/tiny --threads 1,2\n"
                "hadal bench --serve models/tiny --clients 1,8\n"
                "hadal bench --machine",
    .groups = {{"Options", rows, 0}},
    .max_args = 1,
    .size = sizeof(settings),
    .defaults = &defaults,
    .run = run,
};
