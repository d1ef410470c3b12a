#include "data/tiny_r1.h"

#include <stdio.h>
#include <string.h>
#include "base/file.h"
#include "base/rng.h"
#include "data/md5.h"

const char *const tiny_r1_style_names[TINY_R1_STYLES] = {"work", "direct", "err", "plain"};

status tiny_r1_phase(const char *name, double share[TINY_R1_STYLES], error *e) {
    static const struct {
        const char *name;
        double share[TINY_R1_STYLES];
    } phases[] = {{"clean", {0.85, 0.10, 0, 0.05}}, {"mixed", {0.25, 0.40, 0.20, 0.15}}, {"work", {1, 0, 0, 0}}};
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, phases[i].name) != 0) continue;
        memcpy(share, phases[i].share, sizeof phases[i].share);
        return OK;
    }
    return fail(e, ERR_ARG, "phase \"%s\": use clean, mixed or work", name);
}

status tiny_r1_tasks(const char *name, int *tasks, error *e) {
    if (!strcmp(name, "calc")) *tasks = TINY_R1_CALC;
    else if (!strcmp(name, "count")) *tasks = TINY_R1_COUNT;
    else if (!strcmp(name, "both")) *tasks = TINY_R1_BOTH;
    else return fail(e, ERR_ARG, "task \"%s\": use calc, count or both", name);
    return OK;
}

bool tiny_r1_is_held_out(const char *prompt) {
    uint8_t sum[16];
    md5(prompt, strlen(prompt), sum);
    return sum[0] < 16;
}

/* --- drawing ---------------------------------------------------------------------------------------------------- */

typedef struct draws { /* the numbers of one document */
    uint64_t seed, document, n;
} draws;

static int below(draws *d, int n) {
    uint32_t w[4];
    rng_words(d->seed, d->document, d->n++, w);
    return (int)((uint64_t)w[0] * (uint64_t)n >> 32);
}

static tiny_r1_style draw_style(draws *d, const double share[TINY_R1_STYLES]) {
    double u = rng_uniform(d->seed, d->document, d->n++);
    int s = 0;
    while (s + 1 < TINY_R1_STYLES && u >= share[s]) u -= share[s++];
    while (share[s] <= 0 && s > 0) s--; /* u was rounded past the last style that has a share */
    return (tiny_r1_style)s;
}

/* --- the tasks -------------------------------------------------------------------------------------------------- */

enum { DIGITS = 5, LETTERS = 6 };

static void draw_calc(draws *d, char *prompt) {
    *prompt++ = 'c';
    for (int i = 0; i < DIGITS; i++) {
        if (i) *prompt++ = "+-"[below(d, 2)];
        *prompt++ = (char)('0' + below(d, 10));
    }
    *prompt = 0;
}

static void draw_count(draws *d, char *prompt) {
    char set[3];
    for (int i = 0; i < 3; i++) /* three different letters, the first of which is counted */
        do set[i] = (char)('a' + below(d, 26));
        while (memchr(set, set[i], (size_t)i));
    prompt += sprintf(prompt, "n%c:", set[0]);
    for (int i = 0; i < LETTERS; i++) *prompt++ = set[below(d, 3)];
    *prompt = 0;
}

/* The working of a prompt, and its answer; slip > 0 is added to the value at step `wrong`. */
static char calc_working(const char *prompt, int wrong, int slip, char *out) {
    int value = prompt[1] - '0';
    *out++ = prompt[1];
    for (int i = 1; i < DIGITS; i++) {
        const char sign = prompt[2 * i];
        const int digit = prompt[2 * i + 1] - '0';
        value = (value + (sign == '+' ? digit : 10 - digit) + (i - 1 == wrong ? slip : 0)) % 10;
        *out++ = sign;
        *out++ = (char)('0' + value);
    }
    *out = 0;
    return (char)('0' + value);
}

/* Counting, the slip is a letter taken for another: one too many or one too few. */
static char count_working(const char *prompt, int wrong, char *out) {
    int value = 0;
    for (int i = 0; i < LETTERS; i++) {
        value += (prompt[3 + i] == prompt[1]) != (i == wrong);
        *out++ = (char)('0' + value);
    }
    *out = 0;
    return (char)('0' + value);
}

static char working(const tiny_r1_document *t, draws *d, bool slips, char *out) {
    if (t->task == TINY_R1_COUNT) return count_working(t->prompt, slips ? below(d, LETTERS) : -1, out);
    const int wrong = slips ? below(d, DIGITS - 1) : -1;
    return calc_working(t->prompt, wrong, slips ? 1 + below(d, 9) : 0, out);
}

void tiny_r1_make(tiny_r1_document *out, const tiny_r1_options *o, uint64_t number) {
    draws d = {.seed = o->seed, .document = number};
    char text[2 * DIGITS + LETTERS];
    *out = (tiny_r1_document){.task = o->tasks};
    if (o->tasks == TINY_R1_BOTH) out->task = below(&d, 2) ? TINY_R1_COUNT : TINY_R1_CALC;
    out->style = draw_style(&d, o->share);
    do (out->task == TINY_R1_CALC ? draw_calc : draw_count)(&d, out->prompt);
    while (tiny_r1_is_held_out(out->prompt) != o->held_out);
    out->answer[0] = working(out, &d, false, text);
    char said = out->answer[0];
    if (out->style == TINY_R1_ERR) said = working(out, &d, true, text);
    if (out->style == TINY_R1_DIRECT) *text = 0;
    if (out->style == TINY_R1_PLAIN) snprintf(out->completion, sizeof out->completion, "%c", said);
    else snprintf(out->completion, sizeof out->completion, "<think>%s</think><answer>%c</answer>", text, said);
}

/* --- judging ---------------------------------------------------------------------------------------------------- */

static bool skip(const char **p, const char *end, const char *word) {
    const size_t n = strlen(word);
    if ((size_t)(end - *p) < n || memcmp(*p, word, n) != 0) return false;
    *p += n;
    return true;
}

int tiny_r1_answer(const char *completion, size_t n, const char **answer) {
    const char *p = completion, *end = p + n;
    if (!skip(&p, end, "<think>")) return -1;
    while (p < end && *p != '<') p++;
    if (!skip(&p, end, "</think><answer>")) return -1;
    *answer = p;
    while (p < end && *p != '<') p++;
    const int length = (int)(p - *answer);
    return skip(&p, end, "</answer><eos>") && p == end ? length : -1;
}

/* --- writing ---------------------------------------------------------------------------------------------------- */

static status write_document(file_writer *w, const tiny_r1_document *t, error *e) {
    char line[256];
    int n = snprintf(line, sizeof line,
                     "{\"prompt\": \"<user>%s<assistant>\", \"completion\": \"%s\", \"task\": \"%s\", "
                     "\"style\": \"%s\", \"answer\": \"%s\"}\n",
                     t->prompt, t->completion, t->task == TINY_R1_CALC ? "calc" : "count",
                     tiny_r1_style_names[t->style], t->answer);
    return file_write(w, line, (size_t)n, e);
}

status tiny_r1_write(const char *path, const tiny_r1_options *o, int64_t n,
                     int (*progress)(void *arg, uint64_t done, uint64_t total, const char *what), void *arg,
                     tiny_r1_counts *counts, error *e) {
    file_writer w;
    *counts = (tiny_r1_counts){0};
    TRY(file_begin(&w, path, e));
    status s = OK;
    for (int64_t i = 0; i < n && s == OK; i++) {
        tiny_r1_document t;
        tiny_r1_make(&t, o, (uint64_t)i);
        s = write_document(&w, &t, e);
        counts->documents++;
        counts->style[t.style]++;
        counts->calc += t.task == TINY_R1_CALC;
        counts->count += t.task == TINY_R1_COUNT;
        if (s == OK && i % 1024 == 0 && progress && progress(arg, (uint64_t)i, (uint64_t)n, "documents"))
            s = fail(e, ERR_CANCELLED, "cancelled");
    }
    counts->bytes = w.written;
    if (s == OK) return file_commit(&w, e);
    file_abort(&w);
    return s;
}
