#include "eval/tally.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "eval/pass_at_k.h"

enum { MOST_K = 40 }; /* of sample_counts */

struct tally {
    int64_t n, answers, tokens, finished, written; /* written: by the model, with tokens */
    int samples, n_rules, n_k, k[MOST_K];
    const char *names[TALLY_RULES]; /* NULL: no name */
    bool (*same)(const char *a, const char *b);
    int64_t unsure[TALLY_RULES];
    int *right[TALLY_RULES];    /* [n] answers that are */
    double *votes[TALLY_RULES]; /* [n][n_k] */
    int *camp;                  /* [samples] */
};

static status no_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

status tally_open(tally **out, int64_t n, int samples, const char *const *rules,
                  bool (*same)(const char *a, const char *b), error *e) {
    tally *t = calloc(1, sizeof *t);
    *out = NULL;
    if (!t) return no_memory(e);
    *t = (tally){.n = n, .samples = samples, .n_rules = rules ? 0 : 1, .same = same};
    for (int i = 0; rules && rules[i] && i < TALLY_RULES; i++) t->names[t->n_rules++] = rules[i];
    t->n_k = sample_counts(samples, t->k);
    t->camp = malloc((size_t)samples * sizeof *t->camp);
    bool bad = !t->camp;
    for (int r = 0; r < t->n_rules; r++) {
        t->right[r] = calloc((size_t)n + 1, sizeof *t->right[r]);
        t->votes[r] = calloc((size_t)(n * t->n_k) + 1, sizeof *t->votes[r]);
        bad |= !t->right[r] || !t->votes[r];
    }
    if (!bad) *out = t;
    else tally_close(t);
    return bad ? no_memory(e) : OK;
}

void tally_close(tally *t) {
    if (!t) return;
    for (int r = 0; r < TALLY_RULES; r++) {
        free(t->right[r]);
        free(t->votes[r]);
    }
    free(t->camp);
    free(t);
}

/* --- counting ----------------------------------------------------------------------------------------------------- */

static const json_t *member(const tally *t, int rule, const json_t *answer, const char *name) {
    return json_object_get(t->names[rule] ? json_object_get(answer, t->names[rule]) : answer, name);
}

static int score(const tally *t, int rule, const json_t *answers, int i) {
    return json_number_value(member(t, rule, json_array_get(answers, (size_t)i), "score")) > 0;
}

static void make_camps(const tally *t, int rule, const json_t *answers) {
    for (int i = 0; i < t->samples; i++) {
        const char *mine = json_string_value(member(t, rule, json_array_get(answers, (size_t)i), "extracted"));
        t->camp[i] = mine ? i : -1;
        for (int j = 0; mine && j < i && t->camp[i] == i; j++) {
            const char *other = json_string_value(member(t, rule, json_array_get(answers, (size_t)j), "extracted"));
            if (t->camp[j] == j && t->same(other, mine)) t->camp[i] = j;
        }
    }
}

/* The mean over the groups of k neighbouring samples: each is an election of its own. */
static double elections(const tally *t, int rule, const json_t *answers, int k) {
    const int groups = t->samples / k;
    int won = 0;
    for (int g = 0; g < groups; g++) {
        const int best = majority(t->camp + g * k, k);
        won += best >= 0 && score(t, rule, answers, g * k + best);
    }
    return (double)won / groups;
}

status tally_add(tally *t, int64_t i, const json_t *answers, error *e) {
    if (json_array_size(answers) != (size_t)t->samples)
        return fail(e, ERR_FORMAT, "prompt %lld has %zu answers, not %d", (long long)i, json_array_size(answers),
                    t->samples);
    t->answers += t->samples;
    for (int k = 0; k < t->samples; k++) {
        const json_t *a = json_array_get(answers, (size_t)k), *tokens = json_object_get(a, "tokens");
        const char *finish = json_string_value(json_object_get(a, "finish"));
        t->written += tokens != NULL;
        t->tokens += json_integer_value(tokens);
        t->finished += finish && strcmp(finish, "length") != 0;
    }
    for (int r = 0; r < t->n_rules; r++) {
        for (int k = 0; k < t->samples; k++) {
            t->right[r][i] += score(t, r, answers, k);
            t->unsure[r] += json_is_null(member(t, r, json_array_get(answers, (size_t)k), "score"));
        }
        if (!t->same || t->samples < 2) continue;
        make_camps(t, r, answers);
        for (int k = 0; k < t->n_k; k++) t->votes[r][i * t->n_k + k] = elections(t, r, answers, t->k[k]);
    }
    return OK;
}

/* --- the report --------------------------------------------------------------------------------------------------- */

static bool put(json_t *o, const char *name, json_t *v) {
    return json_object_set_new(o, name, v) != 0;
}

static bool report_rule(const tally *t, int r, double *x, json_t *o) {
    char name[40];
    for (int64_t i = 0; i < t->n; i++) x[i] = (double)t->right[r][i] / t->samples;
    const mean_error m = mean_of(x, t->n);
    bool bad = put(o, "accuracy", json_real(m.mean)) || put(o, "standard_error", json_real(m.error));
    for (int k = 0; k < t->n_k; k++) {
        for (int64_t i = 0; i < t->n; i++) x[i] = pass_at_k(t->samples, t->right[r][i], t->k[k]);
        snprintf(name, sizeof name, "pass_at_%d", t->k[k]);
        bad |= put(o, name, json_real(mean_of(x, t->n).mean));
    }
    for (int k = 0; t->same && k < t->n_k; k++) {
        if (t->k[k] < 3) continue; /* two votes decide nothing */
        for (int64_t i = 0; i < t->n; i++) x[i] = t->votes[r][i * t->n_k + k];
        snprintf(name, sizeof name, "cons_at_%d", t->k[k]);
        bad |= put(o, name, json_real(mean_of(x, t->n).mean));
    }
    if (t->unsure[r]) bad |= put(o, "undecided", json_integer((json_int_t)t->unsure[r]));
    return bad;
}

/* {"NAME": {"prompts", "accuracy"}} of the first rule, in the order in which the names come first. */
static bool report_groups(const tally *t, const char *title, const char *const *group, json_t *out) {
    json_t *table = json_object();
    bool bad = !table;
    for (int64_t i = 0; i < t->n && !bad; i++) {
        if (!group[i] || json_object_get(table, group[i])) continue;
        int64_t n = 0, right = 0;
        for (int64_t j = i; j < t->n; j++) {
            if (!group[j] || strcmp(group[j], group[i]) != 0) continue;
            n++;
            right += t->right[0][j];
        }
        bad |= put(
            table, group[i],
            json_pack("{s:I, s:f}", "prompts", (json_int_t)n, "accuracy", (double)right / (double)(n * t->samples)));
    }
    return put(out, title, table) || bad;
}

status tally_report(const tally *t, const char *const *subject, const char *const *category, json_t *out, error *e) {
    double *x = malloc((size_t)t->n * sizeof *x);
    if (!x) return no_memory(e);
    bool bad = put(out, "answers", json_integer((json_int_t)t->answers));
    if (t->written) {
        bad |= put(out, "finished", json_real((double)t->finished / (double)t->written));
        bad |= put(out, "mean_tokens", json_real((double)t->tokens / (double)t->written));
    }
    for (int r = 0; r < t->n_rules; r++) {
        json_t *o = t->names[r] ? json_object() : json_incref(out);
        bad |= report_rule(t, r, x, o);
        if (t->names[r]) bad |= put(out, t->names[r], o);
        else json_decref(o);
    }
    if (category) bad |= report_groups(t, "by_category", category, out);
    if (subject) bad |= report_groups(t, "by_subject", subject, out);
    free(x);
    return bad ? no_memory(e) : OK;
}
