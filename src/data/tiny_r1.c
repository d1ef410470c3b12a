#include "data/tiny_r1.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "base/rng.h"
#include "data/md5.h"

const char *const tiny_r1_task_names[TINY_R1_TASKS] = {"calc", "count", "add", "search"};
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

static int task_of(const char *name, size_t n) { /* -1: there is none */
    for (int t = 0; t < TINY_R1_TASKS; t++)
        if (strlen(tiny_r1_task_names[t]) == n && memcmp(tiny_r1_task_names[t], name, n) == 0) return t;
    return -1;
}

status tiny_r1_tasks(const char *names, unsigned *tasks, error *e) {
    *tasks = (1u << TINY_R1_TASKS) - 1;
    if (strcmp(names, "all") == 0) return OK;
    *tasks = 0;
    for (const char *p = names;; p++) {
        const size_t n = strcspn(p, ",");
        const int t = task_of(p, n);
        if (t < 0)
            return fail(e, ERR_ARG, "task \"%.*s\": use all, or calc, count, add and search with commas between",
                        (int)n, p);
        *tasks |= 1u << t;
        p += n;
        if (!*p) return OK;
    }
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

/* Each task draws a prompt, and writes the working and the answer of one. With draws the working has one wrong step. */

enum { DIGITS = 5, LETTERS = 6, PLACES = 4, SIGNS = 3, TRIES = 1 << SIGNS };

static int after(int value, char sign, int digit) { /* the value after one more digit, modulo 10 */
    return (value + (sign == '+' ? digit : 10 - digit)) % 10;
}

static void draw_calc(draws *d, char *prompt) {
    *prompt++ = 'c';
    for (int i = 0; i < DIGITS; i++) {
        if (i) *prompt++ = "+-"[below(d, 2)];
        *prompt++ = (char)('0' + below(d, 10));
    }
    *prompt = 0;
}

static void work_calc(const char *prompt, draws *d, char *out, char *answer) {
    const int wrong = d ? below(d, DIGITS - 1) : -1, slip = d ? 1 + below(d, 9) : 0;
    int value = prompt[1] - '0';
    *out++ = prompt[1];
    for (int i = 1; i < DIGITS; i++) {
        const char sign = prompt[2 * i];
        value = (after(value, sign, prompt[2 * i + 1] - '0') + (i - 1 == wrong ? slip : 0)) % 10;
        out += sprintf(out, "%c%d", sign, value);
    }
    sprintf(answer, "%d", value);
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

/* The slip is a letter taken for another: one too many or one too few. */
static void work_count(const char *prompt, draws *d, char *out, char *answer) {
    const int wrong = d ? below(d, LETTERS) : -1;
    int value = 0;
    for (int i = 0; i < LETTERS; i++) {
        value += (prompt[3 + i] == prompt[1]) != (i == wrong);
        out += sprintf(out, "%c%d", prompt[3 + i], value);
    }
    sprintf(answer, "%d", value);
}

static int draw_number(draws *d) { /* of 2, 3 or 4 digits, each length as often */
    static const int first[] = {10, 100, 1000};
    const int n = below(d, 3);
    return first[n] + below(d, 9 * first[n]);
}

static void draw_add(draws *d, char *prompt) {
    const int a = draw_number(d), b = draw_number(d);
    sprintf(prompt, "a%d+%d", a, b);
}

/* The slip is a wrong sum of a column, whose carry goes on. */
static void work_add(const char *prompt, draws *d, char *out, char *answer) {
    char *plus;
    long a = strtol(prompt + 1, &plus, 10), b = strtol(plus, NULL, 10), total = 0, place = 1;
    const int columns = a < 100 && b < 100 ? 2 : a < 1000 && b < 1000 ? 3 : 4;
    const int wrong = d ? below(d, columns) : -1, slip = d ? 1 + below(d, 19) : 0;
    int carry = 0;
    for (int i = 0; i < columns; i++, a /= 10, b /= 10, place *= 10) {
        const int x = (int)(a % 10), y = (int)(b % 10), sum = (x + y + carry + (i == wrong ? slip : 0)) % 20;
        out += sprintf(out, "%s%d+%d+%d=%02d", i ? ";" : "", x, y, carry, sum);
        total += place * (sum % 10);
        carry = sum / 10;
    }
    sprintf(answer, "%ld", total + place * carry);
}

static int value_of(const char *digits, const char *signs) {
    int value = digits[0] - '0';
    for (int i = 0; i < SIGNS; i++) value = after(value, signs[i], digits[i + 1] - '0');
    return value;
}

/* Of a try: its number's binary digits, + for 0. */
static const char *signs_of(int try, char out[SIGNS + 1]) {
    for (int i = 0; i < SIGNS; i++) out[i] = "+-"[try >> (SIGNS - 1 - i) & 1];
    out[SIGNS] = 0;
    return out;
}

static int first_hit(const char *digits, int target) { /* TRIES: none */
    char signs[SIGNS + 1];
    int try = 0;
    while (try < TRIES && value_of(digits, signs_of(try, signs)) != target) try++;
    return try;
}

/* The first try never hits, there would be nothing to search; each other one is the first that hits as often. */
static void draw_search(draws *d, char *prompt) {
    const int hit = 1 + below(d, TRIES - 1);
    char digits[SIGNS + 2] = {0}, signs[SIGNS + 1];
    int target;
    do {
        for (int i = 0; i <= SIGNS; i++) digits[i] = (char)('0' + below(d, 10));
        target = value_of(digits, signs_of(hit, signs));
    } while (first_hit(digits, target) != hit);
    sprintf(prompt, "s%d:%s", target, digits);
}

/* The slip makes a try seem to hit that does not. */
static void work_search(const char *prompt, draws *d, char *out, char *answer) {
    const char *digits = prompt + 3;
    const int target = prompt[1] - '0';
    const int hit = first_hit(digits, target), last = d ? below(d, hit) : hit;
    const int wrong = d ? below(d, SIGNS) : -1, slip = 10 + target - value_of(digits, signs_of(last, answer));
    for (int t = 0; t <= last; t++) {
        int value = digits[0] - '0';
        if (t) *out++ = ';';
        signs_of(t, answer);
        for (int i = 0; i < SIGNS; i++) {
            value = (after(value, answer[i], digits[i + 1] - '0') + (t == last && i == wrong ? slip : 0)) % 10;
            out += sprintf(out, "%c%d", answer[i], value);
        }
    }
}

static const struct {
    void (*draw)(draws *d, char *prompt);
    void (*work)(const char *prompt, draws *d, char *out, char *answer);
} tasks[TINY_R1_TASKS] = {
    {draw_calc, work_calc}, {draw_count, work_count}, {draw_add, work_add}, {draw_search, work_search}};

static tiny_r1_task draw_task(draws *d, unsigned set) {
    int list[TINY_R1_TASKS], n = 0;
    for (int t = 0; t < TINY_R1_TASKS; t++)
        if (set >> t & 1) list[n++] = t;
    return (tiny_r1_task)list[n > 1 ? below(d, n) : 0];
}

void tiny_r1_make(tiny_r1_document *out, const tiny_r1_options *o, uint64_t number) {
    draws d = {.seed = o->seed, .document = number};
    char text[64], said[8];
    *out = (tiny_r1_document){.task = draw_task(&d, o->tasks)};
    out->style = draw_style(&d, o->share);
    do tasks[out->task].draw(&d, out->prompt);
    while (tiny_r1_is_held_out(out->prompt) != o->held_out);
    tasks[out->task].work(out->prompt, NULL, text, out->answer);
    memcpy(said, out->answer, sizeof said);
    if (out->style == TINY_R1_ERR) tasks[out->task].work(out->prompt, &d, text, said);
    if (out->style == TINY_R1_DIRECT) *text = 0;
    if (out->style == TINY_R1_PLAIN) snprintf(out->completion, sizeof out->completion, "%s", said);
    else snprintf(out->completion, sizeof out->completion, "<think>%s</think><answer>%s</answer>", text, said);
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

/* D: a digit, S: a sign, L: a letter, others themselves */
static bool fits(const char *text, const char *form) {
    for (; *form; text++, form++) {
        const bool ok = *form == 'D'   ? *text >= '0' && *text <= '9'
                        : *form == 'S' ? *text == '+' || *text == '-'
                        : *form == 'L' ? *text >= 'a' && *text <= 'z'
                                       : *text == *form;
        if (!ok) return false;
    }
    return !*text;
}

static bool is_sum(const char *text) { /* what draw_add draws */
    static const char digits[] = "0123456789";
    const size_t n = strspn(text + 1, digits), m = text[1 + n] == '+' ? strspn(text + 2 + n, digits) : 0;
    return n >= 2 && n <= PLACES && m >= 2 && m <= PLACES && text[1] != '0' && text[2 + n] != '0' && !text[2 + n + m];
}

/* The task of a prompt without tags; TINY_R1_TASKS: of none. */
static tiny_r1_task recognise(const char *prompt) {
    if (fits(prompt, "cDSDSDSDSD")) return TINY_R1_CALC;
    if (fits(prompt, "nL:LLLLLL")) return TINY_R1_COUNT;
    if (*prompt == 'a' && is_sum(prompt)) return TINY_R1_ADD;
    if (fits(prompt, "sD:DDDD")) return TINY_R1_SEARCH;
    return TINY_R1_TASKS;
}

bool tiny_r1_right(const char *prompt, const char *answer, size_t n) {
    static const char before[] = "<user>";
    char bare[16], working[64], right[8], said[8];
    if (strncmp(prompt, before, sizeof before - 1) == 0) prompt += sizeof before - 1;
    const char *end = strstr(prompt, "<assistant>");
    const size_t length = end ? (size_t)(end - prompt) : strlen(prompt);
    if (length >= sizeof bare || n >= sizeof said) return false;
    snprintf(bare, sizeof bare, "%.*s", (int)length, prompt);
    snprintf(said, sizeof said, "%.*s", (int)n, answer);
    const tiny_r1_task task = recognise(bare);
    if (task == TINY_R1_TASKS || strlen(said) != n) return false;
    if (task == TINY_R1_SEARCH) return fits(said, "SSS") && value_of(bare + 3, said) == bare[1] - '0';
    tasks[task].work(bare, NULL, working, right);
    return strcmp(said, right) == 0;
}

/* --- writing ---------------------------------------------------------------------------------------------------- */

static status write_document(file_writer *w, const tiny_r1_document *t, error *e) {
    char line[320];
    int n = snprintf(line, sizeof line,
                     "{\"prompt\": \"<user>%s<assistant>\", \"completion\": \"%s\", \"task\": \"%s\", "
                     "\"style\": \"%s\", \"answer\": \"%s\"}\n",
                     t->prompt, t->completion, tiny_r1_task_names[t->task], tiny_r1_style_names[t->style], t->answer);
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
        counts->task[t.task]++;
        if (s == OK && i % 1024 == 0 && progress && progress(arg, (uint64_t)i, (uint64_t)n, "documents"))
            s = fail(e, ERR_CANCELLED, "cancelled");
    }
    counts->bytes = w.written;
    if (s == OK) return file_commit(&w, e);
    file_abort(&w);
    return s;
}
