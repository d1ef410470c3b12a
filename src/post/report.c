/* The page of a pipeline: a head, the accuracies of evaluations, and a section for each stage with its numbers, its
 * curves, what it wrote, its configuration. All style is in the page, and nothing is loaded; colors follow the reader's
 * choice of light or dark. Texts of models are escaped: they may hold anything. */
#include "post/report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "base/json.h"
#include "train/plot.h"

enum { FILE_MOST = 64 << 20, TEXT_MOST = 4000, PAIRS = 4, ROWS = 3 };

/* --- texts ------------------------------------------------------------------------------------------------------ */

static void put(str *s, const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)text[i];
        if (c == '<') str_puts(s, "&lt;");
        else if (c == '>') str_puts(s, "&gt;");
        else if (c == '&') str_puts(s, "&amp;");
        else if (c == '"') str_puts(s, "&quot;");
        else if (c == '\'') str_puts(s, "&#39;");
        else if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f) str_puts(s, "\xef\xbf\xbd");
        else str_putc(s, (char)c);
    }
}

static void put_text(str *s, const char *text) {
    put(s, text, strlen(text));
}

/* Not more than TEXT_MOST bytes: the beginning and the end, cut between characters. */
static void put_cut(str *s, const char *text) {
    const size_t n = strlen(text);
    size_t head = TEXT_MOST / 2, tail = n - TEXT_MOST / 2;
    if (n <= TEXT_MOST) {
        put(s, text, n);
        return;
    }
    while (((unsigned char)text[head] & 0xC0) == 0x80) head--;
    while (((unsigned char)text[tail] & 0xC0) == 0x80) tail++;
    put(s, text, head);
    str_addf(s, "<span class='cut'> … %zu bytes … </span>", tail - head);
    put(s, text + tail, n - tail);
}

static void put_time(str *s, double seconds) {
    const int64_t t = (int64_t)(seconds + 0.5);
    if (seconds < 9.95) str_addf(s, "%.1f s", seconds);
    else if (t < 60) str_addf(s, "%" PRId64 " s", t);
    else if (t < 3600) str_addf(s, "%" PRId64 ":%02d min", t / 60, (int)(t % 60));
    else str_addf(s, "%" PRId64 ":%02d h", t / 3600, (int)(t % 3600 / 60));
}

static void put_count(str *s, double n) {
    static const char *const units[] = {"", " k", " M", " B", " T"};
    int unit = 0;
    for (; n >= (unit ? 999.5 : 9999.5) && unit < 4; unit++) n /= 1000;
    str_addf(s, unit ? "%.3g%s" : "%.0f%s", n, units[unit]);
}

/* --- files ------------------------------------------------------------------------------------------------------ */

/* A JSON file of a stage; NULL: there is none that can be read. */
static json_t *read_json(const char *folder, const char *name) {
    char *path = path_join(folder, name);
    json_t *j = NULL;
    if (path && file_exists(path) && json_read(&j, path, FILE_MOST, NULL) != OK) j = NULL;
    free(path);
    return j;
}

static const char *text_of(const json_t *j, const char *key) {
    const char *text = json_string_value(json_object_get(j, key));
    return text ? text : "";
}

/* Calls `take` with the lines of a file that are JSON objects, until it says no. */
static void read_lines(const char *path, bool (*take)(void *arg, json_t *line), void *arg) {
    mapping file = {0};
    if (!path || !file_exists(path) || file_map(&file, path, NULL) != OK) return;
    const char *p = (const char *)file.p, *end = p ? p + file.n : p, *stop;
    for (bool more = true; more && p < end && (stop = memchr(p, '\n', (size_t)(end - p))); p = stop + 1) {
        json_t *j = json_loadb(p, (size_t)(stop - p), 0, NULL);
        if (json_is_object(j)) more = take(arg, j);
        json_decref(j);
    }
    file_unmap(&file);
}

/* --- the head --------------------------------------------------------------------------------------------------- */

static const char style[] =
    ":root{color-scheme:light "
    "dark;--page:#f6f7f9;--card:#fff;--text:#1c2430;--soft:#5b6675;--line:#e2e6ec;--code:#f2f4f7;"
    "--good:#0b7a4b;--good-back:#dff5ea;--bad:#b3261e;--bad-back:#fde7e5;--mark:#2563eb;--mark-back:#e4ecfd}"
    "@media(prefers-color-scheme:dark){:root{--page:#101419;--card:#181e26;--text:#e6eaf0;--soft:#98a4b3;--line:#"
    "2a323d;"
    "--code:#11161d;--good:#5fd3a0;--good-back:#12352a;--bad:#ff9d94;--bad-back:#42201e;--mark:#8ab0ff;--mark-back:#"
    "1d2c4d}}"
    "*{box-sizing:border-box}"
    "body{margin:0;background:var(--page);color:var(--text);font:16px/1.5 system-ui,-apple-system,'Segoe "
    "UI',Roboto,sans-serif}"
    "main{max-width:1120px;margin:0 auto;padding:24px 16px 64px}"
    "h1{font-size:1.6rem;line-height:1.25;margin:.2em 0}h2{font-size:1.2rem;margin:0}h3{font-size:1rem;margin:1.4em 0 "
    ".5em}"
    "p{margin:.4em 0}.soft{color:var(--soft)}.path{overflow-wrap:anywhere}"
    ".card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:18px 20px;margin:16px 0}"
    ".head{display:flex;flex-wrap:wrap;gap:4px 12px;align-items:baseline}"
    ".chip{font-size:.78rem;font-weight:600;border-radius:99px;padding:2px "
    "10px;background:var(--mark-back);color:var(--mark);"
    "white-space:nowrap}.chip.good{background:var(--good-back);color:var(--good)}.chip.bad{background:var(--bad-back);"
    "color:var(--bad)}.chip.wait{background:var(--line);color:var(--soft)}"
    ".way{display:flex;flex-wrap:wrap;gap:8px;margin:14px 0 0;padding:0;list-style:none}"
    ".way a{display:block;text-decoration:none;color:inherit;border:1px solid "
    "var(--line);border-radius:8px;padding:5px 11px;"
    "background:var(--card);font-size:.9rem}.way a:hover{border-color:var(--mark)}"
    ".tiles{display:flex;flex-wrap:wrap;gap:10px;margin:14px 0 0}"
    ".tile{border:1px solid var(--line);border-radius:10px;padding:8px 13px;min-width:104px}"
    ".tile b{display:block;font-size:1.1rem;white-space:nowrap;font-variant-numeric:tabular-nums}"
    ".tile span{font-size:.82rem;color:var(--soft)}"
    ".curves{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));gap:6px;margin-top:14px}"
    ".panel{width:100%;height:auto;display:block}"
    ".panel text{fill:var(--text);font-family:inherit}.panel .title{font-size:15px;font-weight:600}"
    ".panel .unit{font-size:12px;font-weight:400;fill:var(--soft)}.panel .tick{font-size:12px;fill:var(--soft)}"
    ".panel .legend{font-size:11.5px}.panel .grid{stroke:var(--line);fill:none}.panel "
    ".axis{stroke:var(--soft);fill:none}"
    ".panel .raw{fill:none;stroke-width:1;stroke-opacity:.3}"
    ".panel .line{fill:none;stroke-width:1.9;stroke-linejoin:round;stroke-linecap:round}"
    "@media(prefers-color-scheme:dark){.panel .line,.panel .raw,.panel circle{filter:brightness(1.35)}}"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}"
    "th,td{text-align:right;padding:6px 12px;border-bottom:1px solid var(--line);white-space:nowrap}"
    "th:first-child,td:first-child{text-align:left;padding-left:0;white-space:normal;min-width:9em}thead "
    "th{color:var(--soft);font-weight:600;white-space:normal;font-size:.88rem}"
    ".pair{border-top:1px solid var(--line);padding:12px 0 2px}.pair>.prompt{font-weight:600}"
    ".two{display:grid;grid-template-columns:1fr 1fr;gap:12px}@media(max-width:640px){.two{grid-template-columns:1fr}"
    "main{padding:12px 10px 40px}.card{padding:14px 13px}th,td{padding:6px 7px;font-size:.9rem}}"
    ".two>div{min-width:0}.label{font-size:.82rem;color:var(--soft);display:flex;flex-wrap:wrap;gap:6px;align-items:"
    "center;"
    "margin-bottom:4px}"
    "pre{margin:0 0 10px;padding:9px 11px;background:var(--code);border-radius:8px;font:13px/1.45 ui-monospace,'SF "
    "Mono',Consolas,"
    "monospace;white-space:pre-wrap;overflow-wrap:anywhere;max-height:20em;overflow:auto}.cut{color:var(--soft)}"
    "details{margin-top:12px}summary{cursor:pointer;color:var(--soft)}a{color:var(--mark)}"
    "footer{color:var(--soft);font-size:.85rem;text-align:center;margin-top:28px}";

static const char *name_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static void add_chip(str *s, const char *kind, const char *text) {
    str_addf(s, "<span class='chip %s'>", kind);
    put_text(s, text);
    str_puts(s, "</span>");
}

static bool has_begun(const pipeline_stage *x) {
    return is_directory(x->folder);
}

static void add_head(str *s, const pipeline *p) {
    int done = 0;
    double seconds = 0;
    for (int i = 0; i < p->n; i++) {
        json_t *state = read_json(p->stage[i].folder, "stage.json");
        seconds += p->stage[i].done ? json_number_value(json_object_get(state, "seconds")) : 0;
        done += p->stage[i].done;
        json_decref(state);
    }
    str_puts(s, "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n<meta name='viewport' "
                "content='width=device-width,initial-scale=1'>\n<title>");
    put_text(s, name_of(p->folder));
    str_addf(s, "</title>\n<style>%s</style>\n</head>\n<body>\n<main>\n<h1>", style);
    put_text(s, name_of(p->folder));
    str_addf(s, "</h1>\n<p class='soft'>%d of %d stages done", done, p->n);
    if (seconds > 0) {
        str_puts(s, " in ");
        put_time(s, seconds);
    }
    str_puts(s, " · <span class='path'>");
    put_text(s, p->path);
    str_puts(s, "</span></p>\n<ul class='way'>\n");
    for (int i = 0; i < p->n; i++) {
        str_addf(s, "<li><a href='#stage-%d'>%d · ", i + 1, i + 1);
        put_text(s, p->stage[i].name);
        str_puts(s, p->stage[i].done ? " ✓</a></li>\n" : "</a></li>\n");
    }
    str_puts(s, "</ul>\n");
}

/* --- evaluations ------------------------------------------------------------------------------------------------- */

/* Members of a report that a table shows, in this order; shares are written in percent. */
static const struct {
    const char *name, *shown;
    bool share;
} measures[] = {{"accuracy", "accuracy", true},
                {"pass_at_k", "pass@k", true},
                {"cons_at_k", "cons@k", true},
                {"format", "format", true},
                {"mean_tokens", "mean length", false}};
enum { MEASURES = sizeof measures / sizeof *measures };

/* "pass_at_k" finds "pass_at_8", too. */
static const json_t *measure_of(const json_t *report, int m, char *shown, size_t size) {
    const char *key, *want = measures[m].name;
    json_t *v;
    const size_t n = strlen(want);
    json_object_foreach((json_t *)report, key, v) {
        const bool counted = n > 2 && strcmp(want + n - 2, "_k") == 0 && strncmp(key, want, n - 1) == 0;
        if (!json_is_number(v) || !(counted || strcmp(key, want) == 0)) continue;
        snprintf(shown, size, "%s", measures[m].shown);
        if (counted) snprintf(shown, size, "%.4s@%.20s", measures[m].shown, key + n - 1);
        return v;
    }
    return NULL;
}

typedef struct cells { /* rows of the table: a task's measure; columns: stages */
    json_t *rows;      /* label -> {stage name: text} */
} cells;

static void add_measures(cells *c, const char *label, const json_t *report, const char *stage) {
    for (int m = 0; m < MEASURES; m++) {
        char shown[32], text[40], row[200];
        const json_t *v = measure_of(report, m, shown, sizeof shown);
        if (!v) continue;
        snprintf(row, sizeof row, "%.150s, %s", label, shown);
        snprintf(text, sizeof text, measures[m].share ? "%.1f %%" : "%.1f",
                 json_number_value(v) * (measures[m].share ? 100 : 1));
        json_t *line = json_object_get(c->rows, row);
        if (!line) json_object_set_new(c->rows, row, line = json_object());
        json_object_set_new(line, stage, json_string(text));
    }
}

/* A report's own numbers, and those of its parts: "greedy", "sampled", rules. */
static void add_evaluation(cells *c, const json_t *report, const char *stage) {
    const char *task = text_of(report, "task"), *key;
    json_t *part;
    char label[160];
    add_measures(c, task, report, stage);
    json_object_foreach((json_t *)report, key, part) {
        if (!json_is_object(part) || strncmp(key, "by_", 3) == 0) continue;
        snprintf(label, sizeof label, "%.80s, %.60s", task, key);
        add_measures(c, label, part, stage);
    }
}

static void add_table(str *s, const pipeline *p, const cells *c) {
    const char *row;
    json_t *line;
    str_puts(s, "<section class='card'>\n<h2>Evaluations</h2>\n<div class='scroll'><table>\n<thead><tr><th></th>");
    for (int i = 0; i < p->n; i++) {
        if (p->stage[i].kind->makes != MAKES_SCORES || !p->stage[i].done) continue;
        str_puts(s, "<th>");
        put_text(s, p->stage[i].name);
        str_puts(s, "</th>");
    }
    str_puts(s, "</tr></thead>\n<tbody>\n");
    json_object_foreach(c->rows, row, line) {
        str_puts(s, "<tr><td>");
        put_text(s, row);
        str_puts(s, "</td>");
        for (int i = 0; i < p->n; i++) {
            if (p->stage[i].kind->makes != MAKES_SCORES || !p->stage[i].done) continue;
            const char *text = text_of(line, p->stage[i].name);
            str_puts(s, "<td>");
            put_text(s, *text ? text : "–");
            str_puts(s, "</td>");
        }
        str_puts(s, "</tr>\n");
    }
    str_puts(s, "</tbody></table></div>\n</section>\n");
}

static void add_evaluations(str *s, const pipeline *p) {
    cells c = {json_object()};
    for (int i = 0; i < p->n; i++) {
        if (p->stage[i].kind->makes != MAKES_SCORES || !p->stage[i].done) continue;
        json_t *j = read_json(p->stage[i].folder, "eval.json"), *report;
        size_t k;
        json_array_foreach(json_object_get(j, "tasks"), k, report) add_evaluation(&c, report, p->stage[i].name);
        json_decref(j);
    }
    if (json_object_size(c.rows)) add_table(s, p, &c);
    json_decref(c.rows);
}

/* --- what a model wrote ------------------------------------------------------------------------------------------ */

static void add_completion(str *s, const char *label, const json_t *x) {
    const json_t *reward = json_object_get(x, "reward"), *tokens = json_object_get(x, "tokens");
    str_puts(s, "<div><div class='label'>");
    put_text(s, label);
    if (json_is_number(reward)) {
        char text[32];
        snprintf(text, sizeof text, "reward %.3g", json_number_value(reward));
        add_chip(s, json_number_value(reward) >= 1 ? "good" : "bad", text);
    }
    if (json_is_integer(tokens)) str_addf(s, "%" PRId64 " tokens", (int64_t)json_integer_value(tokens));
    if (json_is_false(json_object_get(x, "finished"))) str_puts(s, ", cut");
    str_puts(s, "</div><pre>");
    put_cut(s, text_of(x, "completion"));
    str_puts(s, "</pre></div>\n");
}

static void add_prompt(str *s, const json_t *x) {
    const char *answer = text_of(x, "answer");
    str_puts(s, "<div class='pair'><div class='label'>prompt");
    if (*answer) {
        str_puts(s, " · right answer: ");
        put_cut(s, answer);
    }
    str_puts(s, "</div><pre>");
    put_cut(s, text_of(x, "prompt"));
    str_puts(s, "</pre><div class='two'>\n");
}

typedef struct samples { /* of the first step and of the last */
    json_t *first, *last;
    int64_t first_step, last_step;
} samples;

static bool take_sample(void *arg, json_t *line) {
    samples *x = arg;
    const int64_t step = json_integer_value(json_object_get(line, "step"));
    if (!json_array_size(x->first)) x->first_step = step;
    if (step != x->last_step) json_array_clear(x->last);
    x->last_step = step;
    if (step == x->first_step) json_array_append(x->first, line);
    json_array_append(x->last, line);
    return true;
}

/* The answer to the same prompt; NULL: there is none. */
static const json_t *same_prompt(const json_t *list, const json_t *like) {
    const json_t *x;
    size_t i;
    json_array_foreach((json_t *)list, i, x) {
        if (strcmp(text_of(x, "prompt"), text_of(like, "prompt")) == 0) return x;
    }
    return NULL;
}

static void add_answers(str *s, const json_t *asked, const char *when_a, const json_t *a, const char *when_b,
                        const json_t *b) {
    add_prompt(s, asked);
    if (a) add_completion(s, when_a, a);
    if (b) add_completion(s, when_b, b);
    str_puts(s, "</div></div>\n");
}

/* Answers to the same prompts at the first step and at the last; where a prompt does not come again, another one's. */
static void add_samples(str *s, const pipeline_stage *stage) {
    char *path = path_join(stage->folder, "samples.jsonl"), first[48], last[48];
    samples x = {.first = json_array(), .last = json_array()};
    read_lines(path, take_sample, &x);
    const bool one = x.first_step == x.last_step;
    snprintf(first, sizeof first, "at step %" PRId64, x.first_step);
    snprintf(last, sizeof last, "at step %" PRId64, x.last_step);
    if (json_array_size(x.first)) str_puts(s, "<h3>What it wrote</h3>\n");
    for (size_t i = 0; i < PAIRS && i < json_array_size(x.first); i++) {
        const json_t *a = json_array_get(x.first, i), *b = one ? NULL : same_prompt(x.last, a);
        add_answers(s, a, first, a, last, b);
        const json_t *other = one || b ? NULL : json_array_get(x.last, i);
        if (other) add_answers(s, other, last, other, NULL, NULL);
    }
    json_decref(x.first);
    json_decref(x.last);
    free(path);
}

static bool take_row(void *arg, json_t *line) {
    json_t *list = arg;
    json_array_append(list, line);
    return json_array_size(list) < ROWS;
}

/* The first rows that a sampling kept. */
static void add_rows(str *s, const pipeline_stage *x) {
    json_t *lines = json_array(), *row, *message;
    size_t i, k;
    read_lines(x->output, take_row, lines);
    if (json_array_size(lines)) str_puts(s, "<h3>First rows that were kept</h3>\n");
    json_array_foreach(lines, i, row) {
        str_puts(s, "<div class='pair'>");
        json_array_foreach(json_object_get(row, "messages"), k, message) {
            str_puts(s, "<div class='label'>");
            put_text(s, text_of(message, "role"));
            str_puts(s, "</div><pre>");
            put_cut(s, text_of(message, "content"));
            str_puts(s, "</pre>");
        }
        if (*text_of(row, "prompt")) {
            str_puts(s, "<div class='label'>prompt</div><pre>");
            put_cut(s, text_of(row, "prompt"));
            str_puts(s, "</pre>");
            add_completion(s, "completion", row);
        }
        str_puts(s, "</div>\n");
    }
    json_decref(lines);
}

/* --- stages ----------------------------------------------------------------------------------------------------- */

static void add_tile(str *s, const char *name, const char *value) {
    str_puts(s, "<div class='tile'><b>");
    put_text(s, value);
    str_puts(s, "</b><span>");
    put_text(s, name);
    str_puts(s, "</span></div>\n");
}

/* "31 % → 94 %" of a column of the metrics. */
static void add_change(str *s, const history *h, const char *column, const char *name, double scale, const char *fmt) {
    double first, last;
    char a[32], b[32], text[80];
    if (!history_ends(h, column, &first, &last)) return;
    snprintf(a, sizeof a, fmt, first * scale);
    snprintf(b, sizeof b, fmt, last * scale);
    snprintf(text, sizeof text, "%s → %s", a, b);
    add_tile(s, name, text);
}

/* What a stage without steps has told: "kept", "pass_rate" ... */
static void add_told(str *s, const json_t *state) {
    static const char *const shown[] = {"steps", "tokens", "seconds", "loss", "validation_loss", NULL};
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)state, key, v) {
        char name[48], text[32];
        bool own = false;
        for (int i = 0; shown[i]; i++) own |= strcmp(shown[i], key) == 0;
        if (own || !json_is_number(v)) continue;
        snprintf(name, sizeof name, "%s", key);
        for (char *p = name; *p; p++)
            if (*p == '_') *p = ' ';
        snprintf(text, sizeof text, "%.4g", json_number_value(v));
        add_tile(s, name, text);
    }
}

static void add_tiles(str *s, const json_t *state, const history *h) {
    const json_t *seconds = json_object_get(state, "seconds"), *tokens = json_object_get(state, "tokens");
    str text = {0};
    str_puts(s, "<div class='tiles'>\n");
    if (h) {
        add_change(s, h, "validation_accuracy", "accuracy, held out", 100, "%.1f %%");
        add_change(s, h, "accuracy", "accuracy, sampled", 100, "%.0f %%");
        add_change(s, h, "reward", "reward", 1, "%.3g");
        add_change(s, h, "completion_tokens", "tokens an answer", 1, "%.3g");
        add_change(s, h, "validation_preferred", "preferred, held out", 100, "%.0f %%");
        add_change(s, h, "validation_loss", "validation loss", 1, "%.4g");
        double first, last;
        if (!history_ends(h, "reward", &first, &last)) add_change(s, h, "loss", "loss", 1, "%.4g");
        str_addf(&text, "%.0f", history_steps(h));
        add_tile(s, "steps", text.p ? text.p : "");
        str_free(&text);
        text = (str){0};
    }
    if (!h) add_told(s, state);
    if (json_number_value(tokens) > 0) {
        put_count(&text, json_number_value(tokens));
        add_tile(s, "tokens", text.p ? text.p : "");
        str_free(&text);
        text = (str){0};
    }
    if (json_is_number(seconds)) {
        put_time(&text, json_number_value(seconds));
        add_tile(s, "time", text.p ? text.p : "");
    }
    str_free(&text);
    str_puts(s, "</div>\n");
}

static void add_config(str *s, const pipeline_stage *x) {
    str text = {0};
    if (train_config_write(&x->c, &text, NULL) == OK) {
        str_puts(s, "<details><summary>Configuration</summary><pre>");
        put(s, text.p, text.n);
        str_puts(s, "</pre></details>\n");
    }
    str_free(&text);
}

static void add_stage(str *s, const pipeline *p, int i) {
    const pipeline_stage *x = &p->stage[i];
    const bool begun = has_begun(x);
    json_t *state = x->done ? read_json(x->folder, "stage.json") : NULL;
    history *h = NULL;
    if (begun && history_open(&h, x->folder, NULL) != OK) h = NULL;
    str_addf(s, "<section class='card' id='stage-%d'>\n<div class='head'><h2>%d · ", i + 1, i + 1);
    put_text(s, x->name);
    str_puts(s, "</h2>");
    add_chip(s, "", x->kind->name);
    add_chip(s, x->done ? "good" : "wait", x->done ? "done" : begun ? "under way" : "not begun");
    str_puts(s, "</div>\n<p class='soft path'>");
    put_text(s, x->c.model.path);
    str_puts(s, " → ");
    put_text(s, x->output);
    str_puts(s, "</p>\n");
    if (h || state) add_tiles(s, state, h);
    if (h) {
        str_puts(s, "<div class='curves'>\n");
        history_panels(h, s);
        str_puts(s, "</div>\n");
    }
    if (begun) add_samples(s, x);
    if (x->done && x->kind->makes == MAKES_DATA) add_rows(s, x);
    add_config(s, x);
    str_puts(s, "</section>\n");
    history_close(h);
    json_decref(state);
}

status report_write(const pipeline *p, error *e) {
    str s = {0};
    char *path = path_join(p->folder, "report.html");
    add_head(&s, p);
    add_evaluations(&s, p);
    for (int i = 0; i < p->n; i++) add_stage(&s, p, i);
    str_puts(&s, "<footer>Made by hadal r1. Nothing on this page is loaded from "
                 "elsewhere.</footer>\n</main>\n</body>\n</html>\n");
    status st = path ? str_check(&s, e) : fail(e, ERR_NOMEM, "memory is out");
    if (st == OK) st = file_save(path, s.p, s.n, e);
    str_free(&s);
    free(path);
    return st;
}
