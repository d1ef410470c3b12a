/* Pipelines with stages that only pretend: what is read, what is handed on, what is refused before anything runs, what
 * is skipped, how a run that was stopped or failed goes on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/file.h"
#include "post/pipeline.h"
#include <cmocka.h>

static char dir[40], run[64];

static struct {
    str calls;         /* "sft:01-cold grpo:02-rl " */
    const char *fails; /* name of a stage that fails, of one that is stopped */
    const char *stops;
    train_config last;
    str notes;
} seen;

static int setup(void **state) {
    (void)state;
    strcpy(dir, "/tmp/hadal-pipeline-XXXXXX");
    if (!mkdtemp(dir)) return -1;
    snprintf(run, sizeof run, "%s/run", dir);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    str_free(&seen.calls);
    str_free(&seen.notes);
    memset(&seen, 0, sizeof seen);
    return system(command);
}

static const char *path_of(const char *name) {
    static char path[4][128];
    static int i;
    i = (i + 1) % 4;
    snprintf(path[i], sizeof path[i], "%s/%s", dir, name);
    return path[i];
}

static void put(const char *name, const char *text) {
    error e;
    if (file_save(path_of(name), text, strlen(text), &e) != OK) fail_msg("%s", e.text);
}

/* --- stages that pretend ----------------------------------------------------------------------------------------- */

static status called(const char *kind, const train_config *c, run_result *out, error *e) {
    const char *name = strrchr(c->checkpoint.folder, '/') + 1;
    *out = (run_result){.steps = c->training.steps, .tokens = 10, .loss = 1.5};
    str_addf(&seen.calls, "%s:%s ", kind, name);
    seen.last = *c;
    if (seen.fails && strcmp(seen.fails, name + 3) == 0) return (fail)(e, ERR_IO, "the disk is full");
    out->stopped = seen.stops && strcmp(seen.stops, name + 3) == 0;
    return OK;
}

static status make_model(const char *kind, const train_config *c, run_result *out, error *e) {
    TRY(called(kind, c, out, e));
    char *folder = path_join(c->checkpoint.folder, "hf");
    status s = out->stopped ? OK : make_directory(folder, e);
    free(folder);
    return s;
}

static status sft(const train_config *c, const run_hooks *h, run_result *out, error *e) {
    (void)h;
    return make_model("sft", c, out, e);
}

static status grpo(const train_config *c, const run_hooks *h, run_result *out, error *e) {
    (void)h;
    return make_model("grpo", c, out, e);
}

static status sample(const train_config *c, const run_hooks *h, run_result *out, error *e) {
    (void)h;
    TRY(called("sample", c, out, e));
    return out->stopped ? OK : file_save(c->sample.output, "{}\n", 3, e);
}

static status eval(const train_config *c, const run_hooks *h, run_result *out, error *e) {
    (void)h;
    char *path = path_join(c->checkpoint.folder, "eval.json");
    status s = called("eval", c, out, e);
    if (s == OK && !out->stopped) s = file_save(path, "{}\n", 3, e);
    free(path);
    return s;
}

static status check_grpo(const train_config *c, error *e) {
    return c->rollout.rewards ? OK : (fail)(e, ERR_FORMAT, "rollout.rewards is missing");
}

static const pipeline_kind kinds[] = {{"sft", MAKES_MODEL, sft, NULL},
                                      {"grpo", MAKES_MODEL, grpo, check_grpo},
                                      {"sample", MAKES_DATA, sample, NULL},
                                      {"eval", MAKES_SCORES, eval, NULL},
                                      {0}};

/* --- calls ------------------------------------------------------------------------------------------------------- */

static void on_note(void *arg, const char *line) {
    (void)arg;
    str_addf(&seen.notes, "%s\n", line);
}
static const run_hooks hooks = {.note = on_note};

enum { MOST = 8 };
static status open_with(pipeline **p, error *e, const char *const *overrides) {
    const char *all[MOST];
    char folder[96];
    int n = 0;
    snprintf(folder, sizeof folder, "folder=%s", run);
    all[n++] = folder;
    while (overrides && *overrides) all[n++] = *overrides++;
    return pipeline_open(p, path_of("r1.yaml"), all, n, kinds, e);
}

static pipeline *opened(const char *const *overrides) {
    pipeline *p;
    error e;
    if (open_with(&p, &e, overrides) != OK) fail_msg("%s", e.text);
    return p;
}
#define OPENED(...) opened((const char *const[]){__VA_ARGS__, NULL})

static void refused_with(const char *override, const char *a, const char *b) {
    pipeline *p;
    error e = {0};
    const char *overrides[] = {override, NULL};
    status s = open_with(&p, &e, overrides);
    if (s == OK) fail_msg("taken, but should have said \"%s\" and \"%s\"", a, b);
    if (!strstr(e.text, a) || !strstr(e.text, b)) fail_msg("\"%s\" lacks \"%s\" or \"%s\"", e.text, a, b);
    assert_null(strchr(e.text, '\n'));
    assert_null(p);
    assert_null(seen.calls.p); /* nothing has run */
}

static void refused(const char *text, const char *a, const char *b) {
    put("r1.yaml", text);
    refused_with(NULL, a, b);
}

static status run_all(const char *const *overrides, pipeline_result *r, error *e) {
    pipeline *p = opened(overrides);
    str_free(&seen.calls);
    str_free(&seen.notes);
    str_puts(&seen.calls, "");
    status s = pipeline_run(p, &hooks, r, e);
    pipeline_close(p);
    return s;
}

/* A run whose calls are `calls`. */
static pipeline_result ran(const char *calls, const char *override) {
    pipeline_result r;
    error e;
    const char *overrides[] = {override, NULL};
    if (run_all(overrides, &r, &e) != OK) fail_msg("%s", e.text);
    assert_string_equal(seen.calls.p ? seen.calls.p : "", calls);
    return r;
}

static const char four[] = "model: {path: debug, init: true}\n"
                           "data: {train: synthetic, seq_len: 64}\n"
                           "optimizer: {lr: 1e-3}\n"
                           "checkpoint: {folder: elsewhere}\n"
                           "stages:\n"
                           "  - {name: cold, kind: sft, training: {steps: 3}}\n"
                           "  - name: rl\n"
                           "    kind: grpo\n"
                           "    model: {path: '@cold', init: false}\n"
                           "    optimizer: {lr: 1e-5}\n"
                           "    rollout: {rewards: [{name: accuracy}], system: '@@home'}\n"
                           "    training: {steps: 7}\n"
                           "  - {name: best, kind: sample, model: {path: '@rl', init: false}, "
                           "rollout: {rewards: [{name: accuracy}]}}\n"
                           "  - {name: final, kind: sft, data: {train: [synthetic, '@best']}, training: {steps: 2}}\n"
                           "  - {name: score, kind: eval, model: {path: '@final', init: false}, "
                           "eval: {tasks: [{task: tiny-r1}]}}\n";
static const char four_calls[] = "sft:01-cold grpo:02-rl sample:03-best sft:04-final eval:05-score ";

/* --- tests ------------------------------------------------------------------------------------------------------- */

static void what_is_read(void **state) {
    (void)state;
    put("r1.yaml", four);
    pipeline *p =
        OPENED("training.precision=f32", "stages.rl.grpo.generations=4", "++stages.rl.policy.max_grad_norm=2");
    assert_int_equal(p->n, 5);
    assert_string_equal(p->folder, run);
    const pipeline_stage *cold = &p->stage[0], *rl = &p->stage[1], *best = &p->stage[2], *final = &p->stage[3],
                         *score = &p->stage[4];
    assert_true(cold->c.optimizer.lr == 1e-3 && rl->c.optimizer.lr == 1e-5 && best->c.optimizer.lr == 1e-3);
    for (int i = 0; i < p->n; i++) assert_int_equal(p->stage[i].c.training.precision, PRECISION_F32);
    assert_int_equal(rl->c.grpo.generations, 4);
    assert_int_equal(best->c.grpo.generations, 16);
    assert_true(rl->c.optimizer.clip == 2);
    char want[128];
    snprintf(want, sizeof want, "%s/01-cold", run);
    assert_string_equal(cold->c.checkpoint.folder, want); /* whatever the file says */
    snprintf(want, sizeof want, "%s/01-cold/hf", run);
    assert_string_equal(cold->output, want);
    assert_string_equal(rl->c.model.path, want);
    assert_string_equal(rl->c.rollout.system, "@home");
    snprintf(want, sizeof want, "%s/03-best/best.jsonl", run);
    assert_string_equal(best->c.sample.output, want);
    assert_int_equal(final->c.data.train.n, 2);
    assert_string_equal(final->c.data.train.item[1], want);
    assert_string_equal(score->c.model.path, final->output);
    assert_int_equal(score->uses, 1 << 3);
    assert_int_equal(final->uses, 1 << 2);
    assert_true(cold->c.checkpoint.export && !score->c.checkpoint.export);
    pipeline_close(p);
}

static void stages_inherit(void **state) {
    (void)state;
    put("base.yaml", "model: {path: debug, init: true}\ndata: {train: synthetic}\noptimizer: {lr: 1e-4, beta1: 0.5}\n");
    put("more.yaml", "optimizer: {lr: 2e-4, beta2: 0.6}\n");
    put("r1.yaml", "defaults: base.yaml\nstages:\n  - {name: a, kind: sft}\n"
                   "  - {name: b, kind: sft, defaults: more.yaml, optimizer: {beta2: 0.7}}\n");
    pipeline *p = OPENED("training.steps=1");
    assert_true(p->stage[0].c.optimizer.lr == 1e-4 && p->stage[0].c.optimizer.beta2 == 0.95);
    assert_true(p->stage[1].c.optimizer.lr == 2e-4 && p->stage[1].c.optimizer.beta1 == 0.5);
    assert_true(p->stage[1].c.optimizer.beta2 == 0.7);
    pipeline_close(p);
}

static void all_in_order_and_once(void **state) {
    (void)state;
    put("r1.yaml", four);
    pipeline_result r = ran(four_calls, NULL);
    assert_int_equal(r.done, 5);
    assert_int_equal(r.of, 5);
    assert_int_equal(r.steps, 3 + 7 + 1000 + 2); /* the sampling tells its own */
    assert_false(r.stopped);
    assert_non_null(strstr(seen.notes.p, "stage 2 of 5: rl (grpo), in "));
    assert_true(file_exists(path_of("run/02-rl/stage.json")));
    r = ran("", NULL);
    assert_int_equal(r.done, 5);
    assert_int_equal(r.steps, 0);
    assert_non_null(strstr(seen.notes.p, "stage 5 of 5: score (eval), done before: "));
    r = ran("", "training.threads=1"); /* changes nothing in what was done */
    assert_int_equal(r.done, 5);
}

static void stops_and_goes_on(void **state) {
    (void)state;
    put("r1.yaml", four);
    seen.stops = "rl";
    pipeline_result r = ran("sft:01-cold grpo:02-rl ", NULL);
    assert_true(r.stopped);
    assert_int_equal(r.done, 1);
    assert_false(file_exists(path_of("run/02-rl/stage.json")));
    seen.stops = NULL;
    r = ran("grpo:02-rl sample:03-best sft:04-final eval:05-score ", NULL);
    assert_int_equal(r.done, 5);
}

static void fails_and_goes_on(void **state) {
    (void)state;
    pipeline_result r;
    error e;
    put("r1.yaml", four);
    seen.fails = "best";
    assert_int_equal(run_all(NULL, &r, &e), ERR_IO);
    assert_string_equal(e.text, "stage 3 (best): the disk is full");
    assert_string_equal(seen.calls.p, "sft:01-cold grpo:02-rl sample:03-best ");
    seen.fails = NULL;
    ran("sample:03-best sft:04-final eval:05-score ", NULL);
}

/* A stage that is done was done with its configuration. */
static void changes_after_a_stage(void **state) {
    (void)state;
    put("r1.yaml", four);
    ran(four_calls, NULL);
    str_free(&seen.calls);
    memset(&seen.calls, 0, sizeof seen.calls);
    refused_with("stages.rl.optimizer.lr=2e-5", "stage 2 (rl)", "optimizer.lr = 1e-5, but now that is 2e-5");
    refused_with("stages.rl.optimizer.lr=2e-5", "remove", "02-rl");
    refused_with("stages.cold.training.steps=4", "stage 1 (cold)", "training.steps = 3");
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", path_of("run/02-rl"));
    assert_int_equal(system(command), 0);
    refused_with(NULL, "stage 3 (best) is done, but stage 2 (rl), which it uses, is not", "03-best");
    snprintf(command, sizeof command, "rm -r %s", path_of("run/03-best"));
    assert_int_equal(system(command), 0);
    refused_with(NULL, "stage 4 (final) is done", "04-final");
    snprintf(command, sizeof command, "rm -r %s %s", path_of("run/04-final"), path_of("run/05-score"));
    assert_int_equal(system(command), 0);
    ran("grpo:02-rl sample:03-best sft:04-final eval:05-score ", "stages.rl.optimizer.lr=2e-5");
    str_free(&seen.calls);
    memset(&seen.calls, 0, sizeof seen.calls);
    snprintf(command, sizeof command, "rm -r %s", path_of("run/01-cold/hf"));
    assert_int_equal(system(command), 0);
    refused_with("stages.rl.optimizer.lr=2e-5", "stage 1 (cold)", "is gone");
    put("run/01-cold/stage.json", "{\"kind\": \"dpo\"}");
    refused_with(NULL, "stage 1 (cold)", "of the kind dpo");
    put("run/01-cold/stage.json", "{\"kind\": ");
    refused_with(NULL, "stage.json", "JSON");
}

#define HEAD "folder: x\nmodel: {path: debug, init: true}\ndata: {train: synthetic}\nstages:\n"
static void names_and_kinds(void **state) {
    (void)state;
    refused(HEAD "  - {name: a}\n", "stage 1 has the kind \"\"", "none of sft, grpo, sample, eval");
    refused(HEAD "  - {name: a, kind: ppo}\n", "stage 1 has the kind \"ppo\"", "none of sft");
    refused(HEAD "  - {kind: sft}\n", "stage 1 needs a name", "letters");
    refused(HEAD "  - {name: a/b, kind: sft}\n", "stage 1 needs a name", "letters");
    refused(HEAD "  - {name: a, kind: sft}\n  - {name: a, kind: sft}\n", "stage 2 has the name \"a\"", "as another");
    refused(HEAD "  - sft\n", "stage 1 should be", "kind");
    refused("folder: x\nstages: []\n", "stages is missing", "kind");
    refused("folder: x\nstages: {a: b}\n", "stages is missing", "kind");
    refused("folder: x\n", "stages is missing", "kind");
    put("r1.yaml", "stages: [{name: a, kind: sft}]\n");
    pipeline *p;
    error e;
    assert_int_equal(pipeline_open(&p, path_of("r1.yaml"), NULL, 0, kinds, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "folder is missing"));
    str many = {0};
    str_puts(&many, HEAD);
    for (int i = 0; i <= MOST_STAGES; i++) str_addf(&many, "  - {name: a%d, kind: sft}\n", i);
    refused(many.p, "more than 32", "stages");
    str_free(&many);
}

static void what_uses_what(void **state) {
    (void)state;
    refused(HEAD "  - {name: a, kind: sft, model: {path: '@b'}}\n", "stage 1 (a) uses \"@b\"", "no stage of that name");
    refused(HEAD "  - {name: a, kind: sft, model: {path: '@b'}}\n  - {name: b, kind: sft}\n", "stage 1 (a) uses \"@b\"",
            "does not come before");
    refused(HEAD "  - {name: a, kind: sft, model: {path: '@a'}}\n", "stage 1 (a) uses \"@a\"", "does not come before");
    refused(HEAD "  - {name: a, kind: eval}\n  - {name: b, kind: sft, data: {train: ['@a']}}\n",
            "stage 2 (b) uses \"@a\"", "nothing that a stage can use");
}

static void everything_before_anything(void **state) {
    (void)state;
    refused(HEAD "  - {name: a, kind: sft}\n  - {name: b, kind: sft, optimizer: {lrr: 1}}\n", "stage 2 (b)",
            "optimizer.lrr is not a key: did you mean optimizer.lr?");
    refused(HEAD "  - {name: a, kind: sft}\n  - {name: b, kind: sft, optimizer: {lr: fast}}\n", "stage 2 (b)",
            "optimizer.lr should be a number");
    refused(HEAD "  - {name: a, kind: sft}\n  - {name: b, kind: grpo}\n", "stage 2 (b)", "rollout.rewards is missing");
    refused(HEAD "  - {name: a, kind: sft, data: {train: [gone.jsonl]}}\n", "stage 1 (a): data.train", "no gone.jsonl");
    refused(HEAD "  - {name: a, kind: sft, model: {path: gone, init: false}}\n", "stage 1 (a): model.path", "no gone");
    refused(HEAD "  - {name: a, kind: sft, distill: {teacher: gone}}\n", "stage 1 (a): distill.teacher", "no gone");
    refused(
        "folder: x\nmodel: {path: debug, init: true}\noptimizer: {lr: fast}\ndata: {train: synthetic}\nstages: [{name: "
        "a, kind: sft}]\n",
        "r1.yaml:3: optimizer.lr", "number"); /* of all stages: the file's line */
    refused(HEAD "  - {name: a, kind: sft, defaults: gone.yaml}\n", "gone.yaml", "No such file");
    put("r1.yaml", HEAD "  - {name: a, kind: sft}\n");
    refused_with("stages.b.optimizer.lr=1", "stages.b.optimizer.lr", "no stage of that name");
    refused_with("optimizer=1", "optimizer=1", "section.key=value");
}

/* One warning for all stages, not one each. */
static void one_warning(void **state) {
    (void)state;
    put("r1.yaml", HEAD "  - {name: a, kind: sft}\n  - {name: b, kind: sft}\n");
    ran("sft:01-a sft:02-b ", "cluster.num_nodes=2");
    const char *first = strstr(seen.notes.p, "cluster");
    assert_non_null(first);
    assert_null(strstr(first + 1, "cluster"));
}

static void the_plan(void **state) {
    (void)state;
    json_t *plan;
    error e;
    put("r1.yaml", four);
    pipeline *p = OPENED("training.batch=4");
    assert_int_equal(pipeline_plan(p, &plan, &e), OK);
    assert_int_equal(json_array_size(plan), 5);
    const json_t *cold = json_array_get(plan, 0), *rl = json_array_get(plan, 1);
    assert_string_equal(json_string_value(json_object_get(cold, "kind")), "sft");
    assert_int_equal(json_integer_value(json_object_get(cold, "steps")), 3);
    assert_int_equal(json_integer_value(json_object_get(cold, "rows")), 4);
    assert_int_equal(json_integer_value(json_object_get(cold, "most_tokens")), 3 * 4 * 64);
    assert_int_equal(json_integer_value(json_object_get(rl, "completions")), 32 * 16);
    assert_int_equal(json_integer_value(json_object_get(rl, "most_tokens")), 7 * 32 * 16 * 64);
    assert_true(json_is_false(json_object_get(rl, "done")));
    assert_null(json_object_get(json_array_get(plan, 4), "steps"));
    json_decref(plan);
    pipeline_close(p);
    assert_false(is_directory(run)); /* a plan makes nothing */
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(what_is_read),      T(stages_inherit),    T(all_in_order_and_once),
                                       T(stops_and_goes_on), T(fails_and_goes_on), T(changes_after_a_stage),
                                       T(names_and_kinds),   T(what_uses_what),    T(everything_before_anything),
                                       T(one_warning),       T(the_plan)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
