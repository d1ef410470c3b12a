#include "cli/watch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/clock.h"
#include "cli/commands.h"

static void add(str *s, const char *name, double value, const char *fmt) {
    if (isnan(value)) return;
    str_addf(s, "  %s ", name);
    str_addf(s, fmt, value);
}

static double more(const hadal_train_step *t, const char *name) {
    for (int i = 0; i < t->n_more; i++)
        if (strcmp(t->more[i].name, name) == 0) return t->more[i].value;
    return NAN;
}

/* What reinforcement learning is watched by: "reward 0.412  accuracy 39 %  length 13.1". */
static void add_rewards(str *s, const hadal_train_step *t) {
    add(s, "reward", more(t, "reward"), "%.3f");
    add(s, "accuracy", 100 * more(t, "accuracy"), "%.0f %%");
    add(s, "held out", 100 * more(t, "validation_accuracy"), "%.1f %%");
    add(s, "length", more(t, "completion_tokens"), "%.1f");
}

/* What sampling has kept so far. */
static void add_kept(str *s, const hadal_train_step *t) {
    add(s, "pass rate", 100 * more(t, "pass_rate"), "%.1f %%");
    add(s, "kept", more(t, "kept"), "%.0f");
}

/* "step 120/1000  loss 3.2101  12.3 K tok/s  ETA 3:20  lm 3.1001  ...": a narrow terminal cuts the end. */
static void line_of(str *s, const watch *w, const hadal_train_step *t) {
    const bool rewarded = !isnan(more(t, "reward"));
    const double rate = rewarded ? more(t, "rollout_tokens_per_second") : t->tokens_per_second;
    str_addf(s, "step %lld/%lld", (long long)t->step, (long long)t->steps);
    if (rewarded) add_rewards(s, t);
    else if (!isnan(t->loss)) str_addf(s, "  loss %.4f", t->loss);
    if (t->skipped) str_puts(s, "  SKIPPED");
    add(s, "val", t->validation_loss, "%.4f");
    add_kept(s, t);
    if (!isnan(rate)) {
        str_puts(s, "  ");
        human_count(s, rate);
        str_puts(s, rewarded ? " tok/s drawn" : " tok/s");
    }
    if (t->step < t->steps) {
        str_puts(s, "  ETA ");
        human_time(s, w->rate * (double)(t->steps - t->step));
    }
    if (fabs(t->loss - t->lm_loss) > 5e-5) add(s, "lm", t->lm_loss, "%.4f");
    add(s, "mtp", t->mtp_loss, "%.4f");
    add(s, "kl", t->indexer_loss, "%.4f");
    add(s, "entropy", more(t, "entropy"), "%.3f");
    add(s, "kl", more(t, "kl"), "%.2g");
    add(s, "grad", t->grad_norm, "%.3g");
    add(s, "lr", t->lr, "%.3g");
    add(s, "vio", t->max_vio, "%.2f");
    if (!isnan(t->dropped)) str_addf(s, "  dropped %.1f %%", 100 * t->dropped);
    if (!isnan(t->mfu)) str_addf(s, "  MFU %.0f %%", 100 * t->mfu);
    if (isnan(t->memory)) return;
    str_puts(s, "  ");
    human_bytes(s, t->memory);
}

/* A line of metrics.jsonl, but for the loads; steps count from 1. */
static void print_json_step(const hadal_train_step *t) {
    const struct {
        const char *name;
        double value;
    } all[] = {
        {"tokens", t->tokens},
        {"loss", t->loss},
        {"lm_loss", t->lm_loss},
        {"mtp_loss", t->mtp_loss},
        {"balance_loss", t->balance_loss},
        {"indexer_loss", t->indexer_loss},
        {"mtp_acceptance", t->mtp_acceptance},
        {"validation_loss", t->validation_loss},
        {"grad_norm", t->grad_norm},
        {"lr", t->lr},
        {"seconds", t->seconds},
        {"tokens_per_second", t->tokens_per_second},
        {"mfu", t->mfu},
        {"memory", t->memory},
        {"max_vio", t->max_vio},
        {"dropped", t->dropped},
    };
    json_t *j = json_pack("{s:I, s:I}", "step", (json_int_t)t->step, "steps", (json_int_t)t->steps);
    for (size_t i = 0; j && i < sizeof all / sizeof *all; i++)
        if (isfinite(all[i].value)) json_object_set_new(j, all[i].name, json_real(all[i].value));
    for (int i = 0; j && i < t->n_more; i++)
        if (isfinite(t->more[i].value)) json_object_set_new(j, t->more[i].name, json_real(t->more[i].value));
    if (j) json_object_set_new(j, "skipped", json_boolean(t->skipped));
    if (j) print_json_line(j);
    json_decref(j);
    fflush(stdout);
}

static size_t columns(void) {
    struct winsize size = {0};
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 10 ? size.ws_col : 80u;
}

/* On a terminal the line is drawn anew at most ten times a second; validations and every skipped step stay. Elsewhere
 * at most one line a second, so that a log stays readable. */
static void show(watch *w, const hadal_train_step *t) {
    const double now = clock_seconds();
    const bool keep = !isnan(t->validation_loss) || !isnan(more(t, "validation_reward")) || t->skipped ||
                      t->step == t->steps || t->step == 1;
    str s = {0};
    if (!keep && now - w->last < (w->live ? 0.1 : 1)) return;
    w->last = now;
    line_of(&s, w, t);
    if (w->live && s.n > columns() - 1) s.p[columns() - 1] = '\0';
    printf(w->live ? "\r\033[K%s%s" : "%s%s", s.p ? s.p : "", keep || !w->live ? "\n" : "");
    fflush(stdout);
    str_free(&s);
}

static int on_step(void *arg, const hadal_train_step *t) {
    watch *w = arg;
    progress_end(&w->p);
    w->rate = w->rate > 0 ? 0.9 * w->rate + 0.1 * t->seconds : t->seconds;
    if (w->o->json) print_json_step(t);
    else if (!w->o->quiet) show(w, t);
    if (!term_interrupts) return 0;
    if (w->live && w->last > 0) putchar('\n');
    fprintf(stderr, "hadal: interrupted: a checkpoint is written; Ctrl-C twice more ends at once\n");
    return 1;
}

static void on_note(void *arg, const char *line) {
    watch *w = arg;
    progress_end(&w->p);
    fprintf(stderr, "hadal: %s\n", line);
}

static int on_progress(void *arg, uint64_t done, uint64_t total, const char *what) {
    watch *w = arg;
    return progress_call(&w->p, done, total, what);
}

static void put_trained(str *s, const json_t *j, bool stopped) {
    const char *exported = json_string_value(json_object_get(j, "exported"));
    str_addf(s, "%s after %lld steps and ", stopped ? "stopped" : "done",
             (long long)json_integer_value(json_object_get(j, "steps")));
    human_count(s, json_number_value(json_object_get(j, "tokens")));
    str_addf(s, " tokens; checkpoints in %s", json_string_value(json_object_get(j, "folder")));
    if (exported) str_addf(s, ", model in %s", exported);
}

static void put_sampled(str *s, const json_t *j, const char *output, bool stopped) {
    str_addf(s, "%.0f of %.0f completions of %.0f prompts kept, ", json_number_value(json_object_get(j, "kept")),
             json_number_value(json_object_get(j, "completions")), json_number_value(json_object_get(j, "prompts")));
    human_count(s, json_number_value(json_object_get(j, "tokens")));
    str_addf(s, " tokens; %s%s", stopped ? "stopped: not yet in " : "in ", output);
}

static int say(const watch_options *o, char *text) {
    json_t *j;
    str s = {0};
    int code = parse_own_json(&j, text);
    if (code) return code;
    const bool stopped = json_is_true(json_object_get(j, "stopped"));
    const char *output = json_string_value(json_object_get(j, "output"));
    if (o->json) {
        print_json_line(j);
    } else {
        if (output) put_sampled(&s, j, output, stopped);
        else put_trained(&s, j, stopped);
        if (stopped) str_puts(&s, "; the same command goes on");
        printf("%s\n", s.p ? s.p : "");
    }
    str_free(&s);
    json_decref(j);
    return stopped ? EXIT_INTERRUPTED : EXIT_FINE;
}

int watch_run(int (*f)(const hadal_train_options *o, char **json, hadal_error *e), const watch_options *o, int n,
              char **args) {
    watch w = {.o = o, .live = term_is(stdout)};
    const bool file = n && !strchr(args[0], '=');
    hadal_train_options t = {.size = sizeof t,
                             .run_file = file ? args[0] : NULL,
                             .overrides = (const char *const *)(args + file),
                             .n_overrides = n - file,
                             .step = on_step,
                             .note = on_note,
                             .progress = on_progress,
                             .arg = &w};
    hadal_error e = {0};
    char *text = NULL;
    if (!n) return wrong("RUN.yaml or section.key=value is missing; --help shows examples");
    if (file) {
        int code = need_file(args[0]);
        if (code) return code;
    }
    term_catch_interrupt();
    int st = f(&t, &text, &e);
    progress_end(&w.p);
    if (st && w.live && w.last > 0) putchar('\n');
    return st ? report(&e) : say(o, text);
}
