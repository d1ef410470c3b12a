/* hadal eval: how often is a model right? */
#include <stdio.h>
#include <string.h>
#include "cli/commands.h"
#include "cli/generate.h"
#include "cli/table.h"
#include "cli/term.h"

typedef struct settings {
    const char *task, *data, *examples, *output, *think, *prompt_member, *answer_member;
    int limit, samples, shots, max_tokens, context, sequences;
    double temperature, top_p;
    seed seed;
    bool chat, json;
    machine_options machine;
} settings;
static const settings defaults = {.shots = -1, .temperature = -1};

#define AT(field) offsetof(settings, field)
static const option rows[] = {
    {"task", 0, "NAME", OPT_TEXT, AT(task), 0, 0, "what to evaluate, one of these tasks"},
    {"data", 0, "PATH", OPT_TEXT, AT(data), 0, 0, "the task's file or folder"},
    {"output", 'o', "FILE", OPT_TEXT, AT(output), 0, 0,
     "every prompt, answer and score as JSON lines; what is in it already is not asked again"},
    {"limit", 'n', "N", OPT_INT, AT(limit), 1, 1 << 24, "prompts (mmlu: of each subject); default all, tiny-r1 200"},
    {"seed", 0, "N", OPT_SEED, AT(seed), 0, 0, "same seed, same prompts and answers; default 0"},
    {"json", 0, NULL, OPT_SWITCH, AT(json), 0, 0, "JSON"},
    {0},
};
static const option prompt_rows[] = {
    {"shots", 0, "N", OPT_INT, AT(shots), 0, 1000,
     "worked examples before each question; default as usual for the task"},
    {"examples", 0, "FILE", OPT_TEXT, AT(examples), 0, 0, "where they come from; default a file beside the data"},
    {"chat", 0, NULL, OPT_SWITCH, AT(chat), 0, 0, "through the model's chat template; default plain text"},
    {"think", 0, "on|off", OPT_TEXT, AT(think), 0, 0, "reasoning before the answer, where the model has the choice"},
    {"prompt-member", 0, "NAME", OPT_TEXT, AT(prompt_member), 0, 0, "jsonl: what is asked; default prompt"},
    {"answer-member", 0, "NAME", OPT_TEXT, AT(answer_member), 0, 0, "jsonl: the right answer; default answer"},
    {0},
};
static const option answer_rows[] = {
    {"temperature", 0, "T", OPT_REAL, AT(temperature), 0, 100,
     "0: greedy answers only, else sampled ones; default greedy without --samples, tiny-r1 both"},
    {"samples", 'k', "K", OPT_INT, AT(samples), 1, 4096, "sampled answers to each prompt; default 1"},
    {"top-p", 0, "P", OPT_REAL, AT(top_p), 0, 1, "among the tokens that make up this probability; default 0.95"},
    {"max-tokens", 0, "N", OPT_INT, AT(max_tokens), 1, 1 << 30, "longest answer; default as usual for the task"},
    {"context", 'c', "N", OPT_INT, AT(context), 1, 1 << 30, "tokens of prompt and answer; default the model's"},
    {"sequences", 0, "N", OPT_INT, AT(sequences), 1, 4096, "answers written at once; default 32"},
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
    if (!o->task) return wrong("--task is missing, such as --task gsm8k; try 'hadal eval --help'");
    int code = open_model(&m, args[0], &o->machine);
    if (code) return code;
    progress p = {.what = "answers"};
    hadal_eval_options v = {.size = sizeof v,
                            .limit = o->limit,
                            .decoding = o->temperature < 0   ? NULL
                                        : o->temperature > 0 ? "sampled"
                                                             : "greedy",
                            .temperature = o->temperature > 0 ? o->temperature : 0,
                            .samples = o->samples,
                            .seed = o->seed.value,
                            .progress = progress_call,
                            .progress_arg = &p,
                            .data = o->data,
                            .examples = o->examples,
                            .shots = o->shots == 0  ? -1
                                     : o->shots < 0 ? 0
                                                    : o->shots,
                            .chat = o->chat,
                            .thinking = !o->think                 ? 0
                                        : !strcmp(o->think, "on") ? 1
                                                                  : -1,
                            .top_p = o->top_p,
                            .max_tokens = o->max_tokens,
                            .context = o->context,
                            .sequences = o->sequences,
                            .output = o->output,
                            .prompt_member = o->prompt_member,
                            .answer_member = o->answer_member};
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
    .more = "Tasks: gsm8k, math, mmlu (mmlu:SUBJECT), gpqa, humaneval, jsonl (jsonl:exact, jsonl:letter) on --data;\n"
            "tiny-r1 (tiny-r1:calc,count,add,search: some of its tasks) for models of 'hadal data tiny-r1'.",
    .examples =
        "hadal eval ./DeepSeek-V2-Lite --task gsm8k --data ./gsm8k\n"
        "hadal eval ./DeepSeek-V2-Lite --task mmlu:anatomy --data ./mmlu --output anatomy.jsonl\n"
        "hadal eval ./R1-Distill-Qwen-1.5B --task math --data math500.jsonl --chat --samples 8 --max-tokens 8192\n"
        "hadal eval ./tiny --task tiny-r1:calc --temperature 0 --json",
    .groups = {{"Options", rows, 0},
               {"Prompts", prompt_rows, 0},
               {"Answers", answer_rows, 0},
               {"Machine", machine_rows, offsetof(settings, machine)}},
    .min_args = 1,
    .max_args = 1,
    .size = sizeof(settings),
    .defaults = &defaults,
    .run = run,
};
