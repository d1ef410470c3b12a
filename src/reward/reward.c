#include "reward/reward.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "reward/kinds.h"
#include "text/unicode.h"

static const reward_kind *const kinds[] = {
    &reward_accuracy,    &reward_gsm8k,     &reward_choice,          &reward_format,
    &reward_code_format, &reward_tag_count, &reward_reasoning_steps, &reward_finished,
    &reward_length,      &reward_cosine,    &reward_repetition,      &reward_soft_overlong,
    &reward_language,    &reward_countdown, &reward_tiny_r1,         &reward_program,
    &reward_code,
};
enum { KINDS = sizeof kinds / sizeof *kinds, LONGEST_LIST = 64 };

#define COMMON_MEMBERS "name|weight|needs|as"

typedef struct entry {
    const reward_kind *kind;
    reward_context context;
    double weight;
    int needs; /* its number in the list; -1: none */
    void *state;
} entry;

struct reward_set {
    json_t *list; /* holds the names */
    int n;        /* opened entries */
    entry entry[];
};

static status out_of_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

void reward_note(const reward_context *c, const char *fmt, ...) {
    char line[512];
    if (!c->note) return;
    int n = snprintf(line, sizeof line, "%.100s: ", c->name);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line + n, sizeof line - (size_t)n, fmt, ap);
    va_end(ap);
    for (char *p = line; *p; p++)
        if (iscntrl((unsigned char)*p)) *p = '?'; /* as in errors: what a program prints does not reach a terminal */
    c->note(c->arg, line);
}

/* --- reading the list -------------------------------------------------------------------------------------------- */

/* "a|b" as "a, b" behind what out holds */
static void add_words(str *out, const char *words) {
    for (; words && *words; words++)
        if (*words == '|') str_puts(out, ", ");
        else str_putc(out, *words);
}

static bool is_one_of(const char *words, const char *word) {
    size_t n = strlen(word);
    for (const char *p = words; p && *p; p += strcspn(p, "|"), p += *p == '|')
        if (strcspn(p, "|") == n && memcmp(p, word, n) == 0) return true;
    return false;
}

status reward_keep(void **state, const void *p, size_t n, error *e) {
    *state = malloc(n);
    if (!*state) return out_of_memory(e);
    memcpy(*state, p, n);
    return OK;
}

status reward_choose(const json_t *o, const char *key, const char *const *words, int n, int fallback, int *which,
                     error *e) {
    const char *given;
    TRY(json_get_string(o, key, words[fallback], &given, e));
    for (*which = 0; *which < n; ++*which)
        if (strcmp(given, words[*which]) == 0) return OK;
    str list = {0};
    for (int i = 0; i < n; i++) str_addf(&list, "%s%s", i ? ", " : "", words[i]);
    status s = str_check(&list, e);
    if (s == OK) s = fail(e, ERR_FORMAT, "\"%s\" is \"%.60s\"; it can be %s", key, given, list.p);
    str_free(&list);
    return s;
}

static status find_kind(const reward_kind **out, const json_t *o, error *e) {
    const char *name;
    TRY(json_get_string(o, "name", NULL, &name, e));
    for (int i = 0; name && i < KINDS; i++)
        if (strcmp(kinds[i]->name, name) == 0) return *out = kinds[i], OK;
    str list = {0};
    for (int i = 0; i < KINDS; i++) str_addf(&list, "%s%s", i ? ", " : "", kinds[i]->name);
    status s = str_check(&list, e);
    if (s == OK && name) s = fail(e, ERR_FORMAT, "there is no reward \"%.60s\"; there are %s", name, list.p);
    else if (s == OK) s = fail(e, ERR_FORMAT, "\"name\" is missing; there are %s", list.p);
    str_free(&list);
    return s;
}

static status check_members(const reward_kind *k, const json_t *o, error *e) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)o, key, v) {
        if (is_one_of(COMMON_MEMBERS, key) || is_one_of(k->members, key)) continue;
        str list = {0};
        add_words(&list, COMMON_MEMBERS);
        if (k->members) str_puts(&list, ", ");
        add_words(&list, k->members);
        status s = str_check(&list, e);
        if (s == OK) s = fail(e, ERR_FORMAT, "%s has no member \"%.60s\"; it has %s", k->name, key, list.p);
        str_free(&list);
        return s;
    }
    return OK;
}

static status open_entry(reward_set *s, const json_t *o, error *e) {
    entry *x = &s->entry[s->n];
    if (!json_is_object(o)) return fail(e, ERR_FORMAT, "should be a mapping such as {name: accuracy}");
    TRY(find_kind(&x->kind, o, e));
    TRY(check_members(x->kind, o, e));
    TRY(json_get_string(o, "as", x->kind->name, &x->context.name, e));
    TRY(json_get_real(o, "weight", 1, &x->weight, e));
    if (!*x->context.name) return fail(e, ERR_FORMAT, "\"as\" is empty: give a name, or leave it out");
    for (int i = 0; i < s->n; i++)
        if (strcmp(s->entry[i].context.name, x->context.name) == 0)
            return fail(e, ERR_FORMAT, "a second \"%.60s\": give it another name with \"as\"", x->context.name);
    if (x->kind->open && x->kind->open(&x->state, o, &x->context, e) != OK) return wrap(e, "%.60s", x->context.name);
    s->n++;
    return OK;
}

/* needs names any other entry; a ring of needs would be positive never. */
static status link_entry(reward_set *s, int i, const json_t *o, error *e) {
    const char *needs;
    TRY(json_get_string(o, "needs", NULL, &needs, e));
    s->entry[i].needs = -1;
    for (int k = 0; needs && k < s->n; k++)
        if (k != i && strcmp(s->entry[k].context.name, needs) == 0) s->entry[i].needs = k;
    if (needs && s->entry[i].needs < 0)
        return fail(e, ERR_FORMAT, "it needs \"%.60s\", and no other reward has this name", needs);
    return OK;
}

static status check_ring(const reward_set *s, int i, error *e) {
    int steps = 0;
    for (int k = s->entry[i].needs; k >= 0; k = s->entry[k].needs)
        if (++steps > s->n) return fail(e, ERR_FORMAT, "its chain of \"needs\" is a ring");
    return OK;
}

static status read_list(reward_set *s, int n, void (*note)(void *, const char *), void *arg, error *e) {
    for (int i = 0; i < n; i++) {
        s->entry[i].context = (reward_context){.note = note, .arg = arg};
        if (open_entry(s, json_array_get(s->list, (size_t)i), e) != OK) return wrap(e, "rewards[%d]", i);
    }
    for (int i = 0; i < n; i++)
        if (link_entry(s, i, json_array_get(s->list, (size_t)i), e) != OK) return wrap(e, "rewards[%d]", i);
    for (int i = 0; i < n; i++)
        if (check_ring(s, i, e) != OK) return wrap(e, "rewards[%d]", i);
    return OK;
}

status reward_set_open(reward_set **out, const json_t *list, void (*note)(void *arg, const char *line), void *arg,
                       error *e) {
    *out = NULL;
    size_t n = json_array_size(list);
    if (!json_is_array(list) || !n) return fail(e, ERR_FORMAT, "rewards: should be a list such as [{name: accuracy}]");
    if (n > LONGEST_LIST) return fail(e, ERR_FORMAT, "rewards: %zu of them, at most %d are possible", n, LONGEST_LIST);
    reward_set *s = calloc(1, sizeof *s + n * sizeof *s->entry);
    if (!s) return out_of_memory(e);
    s->list = json_deep_copy(list);
    status st = s->list ? read_list(s, (int)n, note, arg, e) : out_of_memory(e);
    if (st == OK) *out = s;
    else reward_set_close(s);
    return st;
}

void reward_set_close(reward_set *s) {
    if (!s) return;
    for (int i = 0; i < s->n; i++)
        if (s->entry[i].kind->close) s->entry[i].kind->close(s->entry[i].state);
    json_decref(s->list);
    free(s);
}

int reward_count(const reward_set *s) {
    return s ? s->n : 0;
}

const char *reward_name(const reward_set *s, int i) {
    return s->entry[i].context.name;
}

/* --- scores ------------------------------------------------------------------------------------------------------ */

/* NaN where a reward that is needed, or one that it needs, cannot tell; 0 where one is not positive. */
static double gated(const reward_set *s, const double *raw, int i) {
    double x = raw[i];
    for (int k = s->entry[i].needs; k >= 0; k = s->entry[k].needs)
        if (isnan(raw[k])) return NAN;
        else if (raw[k] <= 0) x = 0;
    return x;
}

static double finish(const reward_set *s, double *scores) {
    double raw[LONGEST_LIST], total = 0;
    for (int i = 0; i < s->n; i++) raw[i] = isfinite(scores[i]) ? scores[i] : NAN;
    for (int i = 0; i < s->n; i++) {
        scores[i] = gated(s, raw, i);
        if (s->entry[i].weight != 0) total += s->entry[i].weight * scores[i];
    }
    return total;
}

static status score_all(reward_set *s, const reward_input *in, int64_t n, int64_t group, double *column, double *scores,
                        error *e) {
    for (int i = 0; i < s->n; i++) {
        entry *x = &s->entry[i];
        memset(column, 0, (size_t)n * sizeof *column);
        if (x->kind->score(x->state, in, n, group, column, e) != OK) return wrap(e, "reward %.60s", x->context.name);
        for (int64_t k = 0; k < n; k++) scores[k * s->n + i] = column[k];
    }
    return OK;
}

/* Functions see valid UTF-8 only: what is none in a text becomes U+FFFD in a copy of it. */
static const char *clean(const char *text, str *copy) {
    size_t n = strlen(text);
    if (utf8_valid(text, n) == n) return text;
    utf8_tail tail = {0};
    utf8_lossy(copy, &tail, text, n);
    utf8_lossy_end(copy, &tail);
    return copy->p ? copy->p : "";
}

status reward_score(reward_set *s, const reward_input *in, int64_t n, int64_t group, double *scores, double *total,
                    error *e) {
    if (group < 1) return fail(e, ERR_ARG, "rewards in groups of %lld completions", (long long)group);
    if (n < 1) return OK;
    reward_input *own = malloc((size_t)n * sizeof *own);
    str *copies = calloc(2 * (size_t)n, sizeof *copies);
    double *column = malloc((size_t)n * sizeof *column);
    status st = own && copies && column ? OK : out_of_memory(e);
    for (int64_t i = 0; i < n && st == OK; i++) {
        own[i] = in[i];
        own[i].prompt = clean(in[i].prompt, &copies[2 * i]);
        own[i].completion = clean(in[i].completion, &copies[2 * i + 1]);
        for (int k = 0; k < 2 && st == OK; k++) st = str_check(&copies[2 * i + k], e);
    }
    if (st == OK) st = score_all(s, own, n, group, column, scores, e);
    for (int64_t i = 0; i < n && st == OK; i++) total[i] = finish(s, scores + i * s->n);
    for (int64_t i = 0; copies && i < 2 * n; i++) str_free(&copies[i]);
    free(copies);
    free(column);
    free(own);
    return st;
}

/* --- help -------------------------------------------------------------------------------------------------------- */

status reward_help(str *out) {
    for (int i = 0; i < KINDS; i++) {
        str_addf(out, "%s%s: %s\n  members: ", i ? "\n" : "", kinds[i]->name, kinds[i]->help);
        add_words(out, kinds[i]->members ? kinds[i]->members : "none");
        str_putc(out, '\n');
    }
    str_puts(out,
             "\nAll have name, weight (default 1), needs (0 unless the reward of this name is positive), as (another "
             "name in logs).\n");
    return out->failed ? ERR_NOMEM : OK;
}
