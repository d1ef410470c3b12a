/* hadal grpo: reinforcement learning from verifiable rewards, watched on the terminal. */
#include <stdio.h>
#include "cli/commands.h"
#include "cli/watch.h"

typedef struct settings {
    watch_options watch;
    bool rewards;
} settings;

#define AT(field) offsetof(settings, field)
static const option rows[] = {
    {"rewards", 0, NULL, OPT_SWITCH, AT(rewards), 0, 0, "lists every reward function with its members"},
    {"quiet", 'q', NULL, OPT_SWITCH, AT(watch.quiet), 0, 0, "prints no line for each step"},
    {"json", 0, NULL, OPT_SWITCH, AT(watch.json), 0, 0,
     "prints each step, and at the end the result, as one line of JSON"},
    {0},
};
#undef AT

static int list_rewards(void) {
    hadal_error e = {0};
    char *text;
    if (hadal_rewards(&text, &e)) return report(&e);
    fputs(text, stdout);
    hadal_free(text);
    return EXIT_FINE;
}

static int run(void *given, int n, char **args) {
    const settings *o = given;
    return o->rewards ? list_rewards() : watch_run(hadal_grpo, &o->watch, n, args);
}

const command command_grpo = {
    .name = "grpo",
    .arguments = "RUN.yaml [section.key=value ...]",
    .summary = "reinforcement learning from verifiable rewards (GRPO and its relatives)",
    .more =
        "The model answers prompts, rewards judge the answers, the model learns from the differences inside a group\n"
        "(docs/grpo.md; keys: hadal train --keys). Ctrl-C saves and ends; the same command goes on where it stopped.",
    .examples = "hadal grpo examples/tiny/grpo.yaml checkpoint.folder=./run\n"
                "hadal grpo recipes/grpo-deepscaler-1.5b-8k.yaml policy.model_name=./R1-Distill-Qwen-1.5B\n"
                "hadal grpo --rewards",
    .groups = {{"Options", rows, 0}},
    .max_args = MAX_TEXTS,
    .size = sizeof(settings),
    .run = run,
};
