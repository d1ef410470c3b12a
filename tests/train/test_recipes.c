/* Every file of recipes/: it reads, and after all merging it says the published numbers (their sources are named in the
 * files themselves). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/file.h"
#include "post/pipeline.h"
#include "train/config_table.h"
#include <cmocka.h>

static char recipes[1024], dir[40], *home;

/* A folder in which the files lie that the recipes name: empty ones, they are not opened. */
static int setup(void **state) {
    static const char *const files[] = {
        "deepscaler.jsonl", "aime2024.jsonl",    "problems.jsonl",    "cold-start.jsonl",
        "other-200k.jsonl", "preferences.jsonl", "traces-800k.jsonl", NULL};
    static const char *const folders[] = {"DeepSeek-R1-Distill-Qwen-1.5B", "DeepSeek-V3-Base", "Qwen2.5-Math-1.5B",
                                          NULL};
    (void)state;
    error e;
    strcpy(dir, "/tmp/hadal-recipes-XXXXXX");
    home = getcwd(NULL, 0);
    if (!home || !mkdtemp(dir)) return -1;
    snprintf(recipes, sizeof recipes, "%s/recipes", home);
    if (chdir(dir)) return -1;
    for (int i = 0; files[i]; i++)
        if (file_save(files[i], "", 0, &e) != OK) return -1;
    for (int i = 0; folders[i]; i++)
        if (mkdir(folders[i], 0777)) return -1;
    return 0;
}

static int teardown(void **state) {
    (void)state;
    char command[64];
    int code = chdir(home);
    free(home);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return code ? code : system(command);
}

static status never(const train_config *c, const run_hooks *h, run_result *out, error *e) {
    (void)c;
    (void)h;
    (void)out;
    return (fail)(e, ERR_ARG, "nothing runs here");
}
static const pipeline_kind kinds[] = {
    {"sft", MAKES_MODEL, never, NULL}, {"grpo", MAKES_MODEL, never, NULL}, {"sample", MAKES_DATA, never, NULL}, {0}};

typedef struct number {
    const char *file, *stage, *section, *key, *value; /* stage NULL: a run file of its own */
} number;

#define SCALER(file, stage)                                                                                       \
    {file, stage, "grpo", "prompts", "128"}, {file, stage, "grpo", "generations", "8"},                           \
        {file, stage, "grpo", "batch", "64"}, {file, stage, "grpo", "micro_batch", "1"},                          \
        {file, stage, "grpo", "clip_low", "0.2"}, {file, stage, "grpo", "loss", "dapo"},                          \
        {file, stage, "grpo", "advantage", "leave_one_out"}, {file, stage, "grpo", "kl", "k3"},                   \
        {file, stage, "grpo", "dual_clip", "0"}, {file, stage, "grpo", "mask_unfinished", "false"},               \
        {file, stage, "grpo", "validation_samples", "16"}, {file, stage, "data", "validation_rows", "30"},        \
        {file, stage, "rollout", "temperature", "1"}, {file, stage, "rollout", "top_p", "1"},                     \
        {file, stage, "rollout", "top_k", "0"}, {file, stage, "rollout", "max_tokens", "0"},                      \
        {file, stage, "rollout", "seed", "42"}, {file, stage, "rollout", "rewards", "[{\"name\":\"accuracy\"}]"}, \
        {file, stage, "optimizer", "beta1", "0.9"}, {file, stage, "optimizer", "beta2", "0.999"},                 \
        {file, stage, "optimizer", "eps", "1e-08"}, {file, stage, "optimizer", "weight_decay", "0.01"},           \
        {file, stage, "optimizer", "clip", "1"}, {file, stage, "training", "precision", "bf16"},                  \
        {file, stage, "training", "recompute", "[\"block\"]"}, {file, stage, "training", "validate_every", "10"}, \
        {file, stage, "checkpoint", "every", "10"}, {                                                             \
        file, stage, "checkpoint", "keep_last", "10"                                                              \
    }

#define SCALER_8K(file, stage)                                                                                   \
    SCALER(file, stage), {file, stage, "data", "seq_len", "8192"}, {file, stage, "optimizer", "lr", "2e-06"},    \
        {file, stage, "grpo", "kl_beta", "0"}, {file, stage, "grpo", "clip_high", "0.2"},                        \
        {file, stage, "training", "steps", "240"}, {                                                             \
        file, stage, "schedule", "phases",                                                                       \
            "[{until: 50, from: 2e-07, to: 2e-06, shape: linear}, {until: .inf, from: 2e-06, to: 2e-06, shape: " \
            "constant}]"                                                                                         \
    }
#define SCALER_16K(file, stage)                                                                                \
    SCALER(file, stage), {file, stage, "data", "seq_len", "16384"}, {file, stage, "optimizer", "lr", "2e-06"}, \
        {file, stage, "grpo", "kl_beta", "0.001"}, {file, stage, "grpo", "clip_high", "0.28"}, {               \
        file, stage, "training", "steps", "290"                                                                \
    }
#define SCALER_24K(file, stage)                                                                                \
    SCALER(file, stage), {file, stage, "data", "seq_len", "24576"}, {file, stage, "optimizer", "lr", "5e-07"}, \
        {file, stage, "grpo", "kl_beta", "0.0001"}, {file, stage, "grpo", "clip_high", "0.28"}, {              \
        file, stage, "training", "steps", "50"                                                                 \
    }

/* R1 and R1-Zero: 8,192 outputs a rollout, in minibatches of 32 questions x 16 outputs, once. */
#define R1_RL(file, stage)                                                                           \
    {file, stage, "grpo", "generations", "16"}, {file, stage, "grpo", "prompts", "512"},             \
        {file, stage, "grpo", "batch", "512"}, {file, stage, "grpo", "epochs", "1"},                 \
        {file, stage, "grpo", "kl_beta", "0.001"}, {file, stage, "grpo", "reference_every", "25"}, { \
        file, stage, "optimizer", "lr", "3e-06"                                                      \
    }

static const number numbers[] = {
    SCALER_8K("grpo-deepscaler-1.5b-8k.yaml", NULL),
    SCALER_16K("grpo-deepscaler-1.5b-16k.yaml", NULL),
    SCALER_24K("grpo-deepscaler-1.5b-24k.yaml", NULL),
    {"grpo-deepscaler-1.5b-16k.yaml", NULL, "model", "path", "\"results/grpo-deepscaler-1.5b-8k/hf-00000240\""},
    {"grpo-deepscaler-1.5b-24k.yaml", NULL, "model", "path", "\"results/grpo-deepscaler-1.5b-16k/hf-00000290\""},
    SCALER_8K("deepscaler-1.5b.yaml", "8k"),
    SCALER_16K("deepscaler-1.5b.yaml", "16k"),
    SCALER_24K("deepscaler-1.5b.yaml", "24k"),
    {"deepscaler-1.5b.yaml", "16k", "model", "path", "\"results/deepscaler-1.5b/01-8k/hf\""},
    {"deepscaler-1.5b.yaml", "24k", "model", "path", "\"results/deepscaler-1.5b/02-16k/hf\""},

    R1_RL("r1-zero.yaml", "32k"),
    {"r1-zero.yaml", "32k", "data", "seq_len", "32768"},
    {"r1-zero.yaml", "32k", "rollout", "temperature", "1"},
    {"r1-zero.yaml", "32k", "rollout", "rewards", "[{\"name\":\"accuracy\"},{\"name\":\"format\"}]"},
    {"r1-zero.yaml", "32k", "training", "steps", "512"}, /* x 16 = 8,192: the switch of step 8,200 */
    R1_RL("r1-zero.yaml", "64k"),
    {"r1-zero.yaml", "64k", "data", "seq_len", "65536"},
    {"r1-zero.yaml", "64k", "training", "steps", "138"}, /* (512 + 138) x 16 = 10,400 */
    {"r1-zero.yaml", "64k", "model", "path", "\"results/r1-zero/01-32k/hf\""},

    {"r1.yaml", "cold-start", "data", "loss", "assistant"},
    R1_RL("r1.yaml", "reasoning"),
    {"r1.yaml", "reasoning", "grpo", "clip_low", "10"},
    {"r1.yaml", "reasoning", "grpo", "clip_high", "10"},
    {"r1.yaml", "reasoning", "rollout", "temperature", "1"},
    {"r1.yaml", "reasoning", "rollout", "rewards",
     "[{\"name\":\"accuracy\"},{\"name\":\"format\"},{\"name\":\"language\"}]"},
    {"r1.yaml", "reasoning", "model", "path", "\"results/r1/01-cold-start/hf\""},
    {"r1.yaml", "samples", "sample", "keep", "correct"},
    {"r1.yaml", "samples", "model", "path", "\"results/r1/02-reasoning/hf\""},
    {"r1.yaml", "general", "model", "path", "\"./DeepSeek-V3-Base\""}, /* from the base model again */
    {"r1.yaml", "general", "data", "train", "[\"results/r1/03-samples/samples.jsonl\", \"other-200k.jsonl\"]"},
    {"r1.yaml", "general", "training", "steps", "12500"}, /* x 128 = 2 x 800,000 */
    {"r1.yaml", "general", "training", "batch", "128"},
    R1_RL("r1.yaml", "all-scenarios"),
    {"r1.yaml", "all-scenarios", "rollout", "temperature", "0.7"},
    {"r1.yaml", "all-scenarios", "training", "steps", "106"}, /* x 16 = 1,696 of 1,700 */
    {"r1.yaml", "all-scenarios", "model", "path", "\"results/r1/04-general/hf\""},
    {"r1.yaml", "student", "model", "path", "\"./Qwen2.5-Math-1.5B\""},

    {"distill.yaml", NULL, "distill", "kind", "sft"},
    {"distill.yaml", NULL, "data", "loss", "assistant"},
    {"distill.yaml", NULL, "data", "seq_len", "32768"},
    {"distill.yaml", NULL, "training", "steps", "25000"}, /* x 64 = 2 x 800,000 */
    {"distill.yaml", NULL, "training", "batch", "64"},
};

static const train_config *config_of(const number *n, const pipeline *p, train_config *own, arena *mem) {
    char path[1200];
    error e;
    snprintf(path, sizeof path, "%s/%s", recipes, n->file);
    for (int i = 0; n->stage && i < p->n; i++)
        if (strcmp(p->stage[i].name, n->stage) == 0) return &p->stage[i].c;
    if (n->stage) fail_msg("%s has no stage %s", n->file, n->stage);
    if (train_config_read(own, path, NULL, 0, mem, &e) != OK) fail_msg("%s", e.text);
    assert_null(own->note); /* nothing in it is idle */
    return own;
}

static void published_numbers(void **state) {
    (void)state;
    const char *open = "";
    pipeline *p = NULL;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        const number *n = &numbers[i];
        char path[1200];
        error e;
        train_config own;
        str s = {0};
        arena *mem = arena_open(1 << 12);
        snprintf(path, sizeof path, "%s/%s", recipes, n->file);
        if (n->stage && strcmp(open, n->file) != 0) {
            pipeline_close(p);
            if (pipeline_open(&p, path, NULL, 0, kinds, &e) != OK) fail_msg("%s", e.text);
            open = n->file;
        }
        const config_option *o = config_find(n->section, n->key);
        assert_non_null(o);
        config_put(&s, o, config_of(n, p, &own, mem));
        if (strcmp(s.p, n->value) != 0)
            fail_msg("%s %s: %s.%s is %s, not %s", n->file, n->stage ? n->stage : "", n->section, n->key, s.p,
                     n->value);
        str_free(&s);
        arena_close(mem);
    }
    pipeline_close(p);
}

/* A recipe without numbers above would be a recipe that nobody checks. */
static void every_file(void **state) {
    (void)state;
    DIR *d = opendir(recipes);
    int n = 0;
    assert_non_null(d);
    for (struct dirent *f; (f = readdir(d));) {
        bool known = f->d_name[0] == '.';
        for (size_t i = 0; !known && i < sizeof numbers / sizeof *numbers; i++)
            known = strcmp(numbers[i].file, f->d_name) == 0;
        if (!known) fail_msg("recipes/%s has no numbers here", f->d_name);
        n += f->d_name[0] != '.';
    }
    closedir(d);
    assert_true(n >= 7);
}

/* All rewards of the stages that learn by them are named. */
static void rewards_are_there(void **state) {
    (void)state;
    static const char *const files[] = {"deepscaler-1.5b.yaml", "r1-zero.yaml", "r1.yaml"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[1200];
        pipeline *p;
        error e;
        snprintf(path, sizeof path, "%s/%s", recipes, files[i]);
        if (pipeline_open(&p, path, NULL, 0, kinds, &e) != OK) fail_msg("%s", e.text);
        for (int k = 0; k < p->n; k++)
            if (strcmp(p->stage[k].kind->name, "sft") != 0) assert_non_null(p->stage[k].c.rollout.rewards);
        pipeline_close(p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(published_numbers), cmocka_unit_test(every_file),
                                       cmocka_unit_test(rewards_are_there)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
