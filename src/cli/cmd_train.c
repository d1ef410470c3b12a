/* hadal train: a training, watched on the terminal. */
#include <stdio.h>
#include "cli/commands.h"
#include "cli/watch.h"

typedef struct settings {
    watch_options watch;
    bool keys;
} settings;

#define AT(field) offsetof(settings, field)
static const option rows[] = {
    {"keys", 0, NULL, OPT_SWITCH, AT(keys), 0, 0, "lists every key of run files with its default and meaning"},
    {"quiet", 'q', NULL, OPT_SWITCH, AT(watch.quiet), 0, 0, "prints no line for each step"},
    {"json", 0, NULL, OPT_SWITCH, AT(watch.json), 0, 0,
     "prints each step, and at the end the result, as one line of JSON"},
    {0},
};
#undef AT

static int list_keys(void) {
    hadal_error e = {0};
    char *text;
    if (hadal_train_keys(&text, &e)) return report(&e);
    fputs(text, stdout);
    hadal_free(text);
    return EXIT_FINE;
}

static int run(void *given, int n, char **args) {
    const settings *o = given;
    return o->keys ? list_keys() : watch_run(hadal_train, &o->watch, n, args);
}

const command command_train = {
    .name = "train",
    .arguments = "RUN.yaml [section.key=value ...]",
    .summary = "trains a model: from scratch, further, on conversations",
    .more = "A run file states everything (docs/train.md; --keys lists the keys). Ctrl-C saves and ends; the same\n"
            "command goes on where it stopped.",
    .examples = "hadal init tiny ./tiny\n"
                "hadal train model.path=./tiny data.train=corpus.jsonl checkpoint.folder=./run training.steps=1000\n"
                "hadal train pretrain.yaml optimizer.lr=2e-4\n"
                "hadal train --keys",
    .groups = {{"Options", rows, 0}},
    .max_args = MAX_TEXTS,
    .size = sizeof(settings),
    .run = run,
};
