/* Run files: defaults, every key there and back, overrides, what is refused and with which words, presets, and that the
 * documentation lists the table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "train/config_table.h"
#include <cmocka.h>

static const char base_text[] = "model: {path: m}\ndata: {train: [a.bin]}\ncheckpoint: {folder: run}\n";

static arena *mem; /* of the test that runs */

static int setup(void **state) {
    (void)state;
    mem = arena_open(1 << 12);
    return mem ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    arena_close(mem);
    return 0;
}

static status parse(train_config *c, const char *text, const char *const *overrides, int n, error *e) {
    return config_parse(c, text, strlen(text), "dir/run.yaml", overrides, n, mem, e);
}

static train_config good(const char *text, const char *const *overrides, int n) {
    train_config c;
    error e;
    if (parse(&c, text, overrides, n, &e) != OK) fail_msg("%s: %s", n ? overrides[n - 1] : text, e.text);
    return c;
}

/* base_text with one override */
static train_config with(const char *override) {
    return good(base_text, &override, 1);
}

static char *written(const train_config *c) {
    str s = {0};
    error e;
    if (train_config_write(c, &s, &e) != OK) fail_msg("%s", e.text);
    return str_take(&s);
}

static void has_words(const error *e, const char *a, const char *b) {
    if (!strstr(e->text, a) || !strstr(e->text, b)) fail_msg("\"%s\" lacks \"%s\" or \"%s\"", e->text, a, b);
    assert_null(strchr(e->text, '\n'));
}

static void refused(const char *override, const char *key, const char *why) {
    train_config c;
    error e = {0};
    status s = parse(&c, base_text, &override, 1, &e);
    if (s != ERR_FORMAT && s != ERR_ARG && s != ERR_UNSUPPORTED) fail_msg("%s was taken", override);
    has_words(&e, key, why);
}

static void text_refused(const char *text, const char *place, const char *why) {
    train_config c;
    error e = {0};
    if (parse(&c, text, NULL, 0, &e) == OK) fail_msg("taken: %s", text);
    has_words(&e, place, why);
}

static void defaults(void **state) {
    (void)state;
    train_config c = good(base_text, NULL, 0);
    assert_string_equal(c.model.path, "m");
    assert_int_equal(c.data.train.n, 1);
    assert_string_equal(c.data.train.item[0], "a.bin");
    assert_true(c.optimizer.lr == 3e-4 && c.optimizer.beta1 == 0.9 && c.optimizer.beta2 == 0.95);
    assert_true(c.optimizer.eps == 1e-8 && c.optimizer.weight_decay == 0.1 && c.optimizer.clip == 1);
    assert_int_equal(c.optimizer.kind, OPTIMIZER_ADAMW);
    assert_int_equal(c.schedule.kind, SCHEDULE_CONSTANT);
    assert_int_equal(c.training.batch, 8);
    assert_int_equal(c.training.micro_batch, 8);
    assert_int_equal(c.training.precision, PRECISION_BF16);
    assert_int_equal(c.data.options.seq_len, 1024);
    assert_int_equal(c.data.options.packing, PACK_CONCAT);
    assert_int_equal(c.data.options.eos, EOS_AUTO);
    assert_string_equal(c.data.options.format, "auto");
    assert_true(c.data.options.document_mask && c.data.options.shuffle);
    assert_true(isnan(c.objective.balance_alpha) && isnan(c.objective.bias_update_speed));
    assert_true(c.objective.mtp_weight == 0.3);
    assert_int_equal(c.objective.dsa, DSA_OFF);
    assert_true(c.objective.capacity_factor <= 0 && c.objective.sparse_matmul);
    assert_int_equal(c.checkpoint.keep_last, 2);
    assert_int_equal(c.metrics.every, 1);
    assert_int_equal(c.lora.rank, 0);
    for (const config_option *o = config_options; o->section; o++) /* defaults are within their own ranges */
        if (o->max > 0 && o->type != O_EOS && !isnan(o->value)) assert_true(o->value >= o->min && o->value <= o->max);
}

/* A value for a key that is not its default. */
static const char *sample(const config_option *o, char *to, size_t size) {
    static const char *const special[][2] = {
        {"training.batch", "24"},
        {"training.micro_batch", "4"},
        {"training.ranks", "2"},
        {"schedule.kind", "cosine"},
        {"objective.capacity_factor", "1.25"},
        {"optimizer.min_lr", "1.1e-5"},
        {"schedule.phases", "[{until: 7, from: 0, to: 0.1, shape: cosine}, {from: 0.3333333333333333}]"},
        {"training.batch_ramp_from", "3"},
        {"training.kernels", "avx2"}};
    char name[128];
    snprintf(name, sizeof name, "%s.%s", o->section, o->key);
    for (size_t i = 0; i < sizeof special / sizeof *special; i++)
        if (strcmp(name, special[i][0]) == 0) return special[i][1];
    const char *bar = o->words ? strchr(o->words, '|') : NULL;
    switch (o->type) {
    case O_INT:
    case O_INT32: snprintf(to, size, "%d", (int)o->value + 7); return to;
    case O_SEED: return "9223372036854775807";
    case O_EOS: return "none";
    case O_REAL: snprintf(to, size, "%.17g", o->value / 3 + 0.01); return to;
    case O_AUTO: return "0.1234567890123456";
    case O_BOOL: return o->value != 0 ? "false" : "true";
    case O_TEXT: return "'a \"b\": #\xc3\xa9'";
    case O_CHOICE:
    case O_WORD:
        assert_non_null(bar);
        if (o->value != 0) snprintf(to, size, "%.*s", (int)(bar - o->words), o->words);
        else snprintf(to, size, "%.*s", (int)strcspn(bar + 1, "|"), bar + 1);
        return to;
    case O_LIST: return "[x.bin, 'y, z']";
    case O_WORDS: snprintf(to, size, "[%s]", bar ? strrchr(o->words, '|') + 1 : o->words); return to;
    case O_MASKS: return "['.*indexer.*', \"\\\\bnorm$\"]";
    case O_PHASES: return "[{until: 1e12, from: 0.3}, {until: .inf, from: 0.1}]";
    case O_GROUPS: return "[{match: 'embed', scale: 0.1}, {match: head, scale: 2}]";
    case O_JSON: return "[{name: accuracy, needs: format}, {name: format, weight: 0.1, pattern: '^<think>\"\xc3\xa9'}]";
    case O_RANGE: return "[0, 1, -1, 0.3333333333333333]";
    case O_PRESET: return NULL;
    }
    return NULL;
}

/* What a key wants beside it. */
static const char *const companions[][2] = {{"training.expert_parallel", "training.ranks=8"},
                                            {"training.batch_ramp_tokens", "training.batch_ramp_from=2"},
                                            {"training.until_loss", "training.validate_every=5"},
                                            {"training.until_loss", "data.validation=[v.bin]"},
                                            {"lora.rank", "lora.target_modules=q_proj"}};

/* The override and its companions. */
static int with_companions(const char *override, const char *out[8]) {
    int n = 0;
    out[n++] = override;
    for (size_t i = 0; i < sizeof companions / sizeof *companions; i++)
        if (!strncmp(override, companions[i][0], strlen(companions[i][0]))) out[n++] = companions[i][1];
    return n;
}

/* Every key takes a value that is not the default, is written, and reads back to the same bytes. */
static void every_key_there_and_back(void **state) {
    (void)state;
    int keys = 0;
    train_config plain = good(base_text, NULL, 0);
    for (const config_option *o = config_options; o->section; o++, keys++) {
        char value[128], text[256];
        const char *v = sample(o, value, sizeof value);
        if (!v) continue;
        snprintf(text, sizeof text, "%s.%s=%s", o->section, o->key, v);
        const char *overrides[8];
        train_config c = good(base_text, overrides, with_companions(text, overrides));
        str changed = {0}, before = {0};
        config_put(&changed, o, &c);
        config_put(&before, o, &plain);
        if (strcmp(changed.p, before.p) == 0) fail_msg("%s.%s is still %s", o->section, o->key, before.p);
        char *one = written(&c);
        train_config again = good(one, NULL, 0);
        char *two = written(&again);
        assert_string_equal(one, two);
        str there = {0};
        config_put(&there, o, &again);
        assert_string_equal(changed.p, there.p);
        str_free(&there);
        str_free(&changed);
        str_free(&before);
        free(one);
        free(two);
    }
    assert_true(keys > 60);
}

static void overrides_win(void **state) {
    (void)state;
    static const char *const list[] = {"data.train=[a.jsonl,b.jsonl]",
                                       "optimizer.lr=1e-3",
                                       "training.steps=2e3",
                                       "model.init=true",
                                       "optimizer.lr=2e-3",
                                       "data.tokenizer=tok"};
    train_config c = good("model: {path: m}\noptimizer:\n  lr: 7\ncheckpoint: {folder: run}\n", list, 6);
    assert_int_equal(c.data.train.n, 2);
    assert_string_equal(c.data.train.item[1], "b.jsonl");
    assert_true(c.optimizer.lr == 2e-3);
    assert_int_equal(c.training.steps, 2000);
    assert_true(c.model.init);
    assert_string_equal(c.data.tokenizer, "tok");
    static const char *const undo[] = {"optimizer.lr=null",
                                       "data.train=one.bin"}; /* null: the default; a list of one */
    c = good("model: {path: m}\noptimizer:\n  lr: 7\ncheckpoint: {folder: run}\n", undo, 2);
    assert_true(c.optimizer.lr == 3e-4);
    assert_string_equal(c.data.train.item[0], "one.bin");
}

static void unknown_names(void **state) {
    (void)state;
    text_refused("optimizer:\n  lr: 1\n  weight_deacy: 0\n", "dir/run.yaml:3: optimizer.weight_deacy",
                 "did you mean optimizer.weight_decay?");
    text_refused("optimiser:\n  lr: 1\n", "dir/run.yaml:1: optimiser", "did you mean optimizer?");
    text_refused("training: {lr: 1}\n", "training.lr", "did you mean optimizer.lr?");
    text_refused("seq_len: 5\n", "seq_len", "did you mean data.seq_len?");
    text_refused("model: {zebra_crossing: 1}\n", "model.zebra_crossing", "--keys");
    text_refused("xylophone: {}\n", "xylophone", "they are model");
    text_refused("model: 5\n", "dir/run.yaml:1: model", "section");
    text_refused("[1]", "dir/run.yaml", "sections");
    text_refused("model: {path: a}\nmodel: {path: b}\n", "dir/run.yaml:2", "twice");
    refused("optimizer.lrr=1", "override: optimizer.lrr", "optimizer.lr?");
    refused("optimizer=1", "optimizer=1", "section.key=value");
    refused("lr", "lr", "section.key=value");
    refused("a=b.c", "a=b.c", "section.key=value");
    refused("optimizer.lr=[1", "override optimizer.lr", "not valid YAML");
    char longest[400] = "model.";
    memset(longest + 6, 'k', 300);
    strcpy(longest + 306, "=1");
    refused(longest, "override", "section.key=value");
}

static void wrong_values(void **state) {
    (void)state;
    text_refused("model: {path: m}\ndata:\n  train: [a]\n  seq_len: long\n", "dir/run.yaml:4: data.seq_len", "integer");
    refused("optimizer.lr=fast", "override: optimizer.lr", "number");
    refused("optimizer.lr=-1", "optimizer.lr", "outside 0 .. 1000");
    refused("optimizer.lr=.nan", "optimizer.lr", "number");
    refused("optimizer.lr=1e999", "optimizer.lr", "number");
    refused("optimizer.beta2=1", "optimizer.beta2", "outside");
    refused("training.steps=-1", "training.steps", "outside");
    refused("training.steps=1.5", "training.steps", "integer");
    refused("training.steps=1e300", "training.steps", "outside");
    refused("model.seed=-1", "model.seed", "2^63");
    refused("model.init=yes", "model.init", "true or false");
    refused("model.path=5", "model.path", "text");
    refused("model.path=\"a\\0b\"", "model.path", "zero byte");
    refused("training.precision=fp16", "training.precision", "f32|bf16|fp8");
    refused("training.recompute=[norm, all]", "training.recompute", "norm|mla_up|swiglu|block");
    refused("training.kernels=sse", "training.kernels", "portable|");
    refused("data.eos=-3", "data.eos", "outside");
    refused("data.train=[1]", "data.train", "text");
    refused("optimizer.no_decay=['a(b']", "optimizer.no_decay", "regular expression \"a(b\"");
    refused("objective.trainable_parameters_mask=['[']", "objective.trainable_parameters_mask", "regular expression");
    refused("optimizer.groups=[{match: '(', scale: 1}]", "optimizer.groups", "regular expression");
    refused("optimizer.groups=[{match: a}]", "optimizer.groups", "\"scale\" is missing");
    refused("optimizer.groups=[{scale: 1}]", "optimizer.groups", "\"match\" is missing");
    refused("optimizer.groups=[{match: a, scale: 1, x: 2}]", "optimizer.groups", "\"x\" is not one of match|scale");
    refused("optimizer.groups={match: a}", "optimizer.groups", "list");
    refused("optimizer.groups=[a]", "optimizer.groups", "entry 1");
    char many[1000] = "data.train=[";
    for (int i = 0; i <= MOST_LIST; i++) strcat(many, "a,");
    strcat(many, "]");
    refused(many, "data.train", "more than 64");
}

static void wrong_phases(void **state) {
    (void)state;
#define P "schedule.phases="
    refused(P "[{until: 5, from: 1, too: 2}]", "schedule.phases", "entry 1: \"too\"");
    refused(P "[{until: 5, to: 1}]", "schedule.phases", "\"from\" is missing");
    refused(P "[{until: 5, from: 1}, {until: 5, from: 2}]", "schedule.phases", "entry 2: \"until\" 5 is not beyond 5");
    refused(P "[{from: 1}, {until: 5, from: 2}]", "schedule.phases", "entry 1: only the last");
    refused(P "[{until: soon, from: 1}]", "schedule.phases", "number or .inf");
    refused(P "[{until: 0, from: 1}]", "schedule.phases", "not beyond 0");
    refused(P "[{from: 1, to: 2}]", "schedule.phases", "needs \"until\"");
    refused(P "[{until: 5, from: 1, to: 2, shape: constant}]", "schedule.phases", "constant phase");
    refused(P "[{until: 5, from: 1, to: 2, shape: round}]", "schedule.phases", "constant|linear|cosine");
    refused(P "[{until: 5, from: -1}]", "schedule.phases", "outside");
    refused(P "[{until: 5, from: x}]", "schedule.phases", "number");
    refused(P "[7]", "schedule.phases", "entry 1");
    refused(P "7", "schedule.phases", "list");
#undef P
    refused("schedule.kind=table", "schedule.phases", "missing");
    refused("schedule.kind=wsd", "schedule.decay_steps", "1 to training.steps");
    text_refused("model: {path: m}\ndata: {train: a}\ncheckpoint: {folder: r}\nschedule:\n  kind: cosine\n  phases: "
                 "[{from: 1}]\n",
                 "dir/run.yaml:5: schedule.kind", "table");
}

static void keys_together(void **state) {
    (void)state;
    text_refused("data: {train: [a]}\ncheckpoint: {folder: r}\n", "model.path", "missing");
    text_refused("model: {path: m}\ncheckpoint: {folder: r}\n", "data.train", "missing");
    text_refused("model: {path: m}\ndata: {train: [a]}\n", "checkpoint.folder", "missing");
    text_refused("", "model.path", "missing");
    refused("training.micro_batch=3", "training.batch", "not a multiple of 3 = micro_batch 3 x ranks 1");
    refused("training.expert_parallel=2", "training.expert_parallel", "divide");
    refused("training.batch_ramp_tokens=100", "training.batch_ramp_from", "from 1 to training.batch");
    refused("lora.rank=8", "lora.target_modules", "missing");
    static const char *const min[] = {"schedule.kind=cosine", "optimizer.min_lr=1"};
    train_config c;
    error e;
    assert_int_equal(parse(&c, base_text, min, 2, &e), ERR_FORMAT);
    has_words(&e, "optimizer.min_lr", "above");
    static const char *const two[] = {"training.ranks=2"};
    assert_int_equal(good(base_text, two, 1).training.micro_batch, 4);
    static const char *const ramp[] = {"training.batch=12", "training.batch_ramp_from=4",
                                       "training.batch_ramp_tokens=1e6"};
    assert_int_equal(good(base_text, ramp, 3).training.micro_batch, 4); /* the ramp goes in its steps */
}

/* MaxText: sparse_matmul + megablox: grouped product; sparse_matmul alone: ragged_dot; neither: dense product, or
 * dropping with capacity_factor > 0. */
static void maxtext_flags(void **state) {
    (void)state;
    static const char *const dense[] = {"objective.sparse_matmul=false", "objective.megablox=false",
                                        "objective.capacity_factor=-1"};
    train_config c = good(base_text, dense, 3);
    assert_true(!c.objective.sparse_matmul && !c.objective.megablox && !(c.objective.capacity_factor > 0));
    static const char *const drop[] = {"objective.sparse_matmul=false", "objective.capacity_factor=1.5"};
    c = good(base_text, drop, 2);
    assert_true(c.objective.capacity_factor == 1.5 && c.objective.capacity_per_row);
    assert_int_equal(c.objective.drop_policy, DROP_POSITION);
    static const char *const clash[] = {"objective.sparse_matmul=true", "objective.capacity_factor=1"};
    error e;
    assert_int_equal(parse(&c, base_text, clash, 2, &e), ERR_FORMAT);
    has_words(&e, "objective.capacity_factor", "dropless");
    c = with("objective.capacity_factor=1"); /* nobody said sparse_matmul */
    assert_false(c.objective.sparse_matmul);
    assert_int_equal(with("objective.indexer_loss_scaling_factor=1").objective.dsa, DSA_DENSE_WARMUP);
    assert_int_equal(with("objective.indexer_sparse_training=true").objective.dsa, DSA_SPARSE);
    c = with("objective.trainable_parameters_mask=['.*indexer.*']");
    assert_string_equal(c.objective.trainable_parameters_mask.item[0], ".*indexer.*");
}

static void preset_v3(void **state) {
    (void)state;
    train_config c = with("schedule.preset=v3");
    assert_int_equal(c.schedule.kind, SCHEDULE_TABLE);
    assert_int_equal(c.schedule.unit, UNIT_TOKENS);
    assert_int_equal(c.schedule.warmup_steps, 2000);
    assert_int_equal(c.schedule.n_phases, 4);
    assert_int_equal(c.objective.n_mtp_schedule, 2);
    assert_int_equal(c.objective.n_bias_schedule, 2);
    static const char *const own[] = {"schedule.preset=v3", "schedule.warmup_steps=10", "objective.mtp_weight=0.5",
                                      "objective.bias_update_speed=0"};
    c = good(base_text, own, 4); /* what is given goes before the preset */
    assert_int_equal(c.schedule.warmup_steps, 10);
    assert_int_equal(c.objective.n_mtp_schedule, 0);
    assert_int_equal(c.objective.n_bias_schedule, 0);
    char *text = written(&c);
    train_config again = good(text, NULL, 0);
    assert_int_equal(again.schedule.n_phases, 4);
    assert_true(isinf(again.schedule.phases[3].until));
    free(text);
    refused("schedule.preset=v4", "schedule.preset", "v3");
}

static void files(void **state) {
    (void)state;
    char dir[] = "/tmp/hadal-config-XXXXXX", path[64];
    train_config c;
    error e;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/run.yaml", dir);
    assert_int_equal(train_config_read(&c, path, NULL, 0, mem, &e), ERR_FORMAT);
    has_words(&e, path, "");
    assert_int_equal(file_save(path, base_text, sizeof base_text - 1, &e), OK);
    assert_int_equal(train_config_read(&c, path, NULL, 0, mem, &e), OK);
    assert_string_equal(c.checkpoint.folder, "run");
    unlink(path);
    rmdir(dir);
    static const char *const all[] = {"model.path=debug", "data.train=synthetic", "checkpoint.folder=r"};
    assert_int_equal(train_config_read(&c, NULL, all, 3, mem, &e), OK);
    assert_string_equal(c.data.train.item[0], "synthetic");
}

/* docs/run_file.md holds the text of `hadal train --keys`, line by line. */
static void documentation(void **state) {
    (void)state;
    str help = {0}, page = {0};
    error e;
    assert_int_equal(train_config_help(&help), OK);
    if (getenv("HADAL_KEYS")) printf("%s", help.p);
    if (file_read(&page, "docs/run_file.md", 1 << 20, &e) != OK) fail_msg("%s", e.text);
    if (!strstr(page.p, help.p)) fail_msg("docs/run_file.md does not hold the table: HADAL_KEYS=1 prints it");
    for (const config_option *o = config_options; o->section; o++) assert_true(o->help && *o->help);
    str_free(&help);
    str_free(&page);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(defaults),      T(every_key_there_and_back),
                                       T(overrides_win), T(unknown_names),
                                       T(wrong_values),  T(wrong_phases),
                                       T(keys_together), T(maxtext_flags),
                                       T(preset_v3),     T(files),
                                       T(documentation)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
