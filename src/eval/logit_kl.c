#include "eval/logit_kl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "base/json.h"

enum { SHOWN = 48 }; /* bytes of a prompt in reports */
static const size_t LINE_MAX_BYTES = (size_t)2 << 30;

/* --- differences ------------------------------------------------------------------------------------------------ */

static double log_sum(const float *x, int64_t n) {
    double max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) max = x[i] > max ? (double)x[i] : max;
    for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - max);
    return max + log(sum);
}

double logit_kl(const float *golden, const float *ours, int64_t n) {
    const double a = log_sum(golden, n), b = log_sum(ours, n);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double p = (double)golden[i] - a, q = (double)ours[i] - b;
        sum += exp(p) * (p - q);
    }
    return sum;
}

void logit_difference_add(logit_difference *d, const float *golden, const float *ours, int64_t n) {
    const double kl = logit_kl(golden, ours, n);
    int64_t best = 0, ours_best = 0;
    for (int64_t i = 0; i < n; i++) {
        double difference = fabs((double)golden[i] - (double)ours[i]);
        if (!(difference <= d->max)) d->max = difference;
        if (golden[i] > golden[best]) best = i;
        if (ours[i] > ours[ours_best]) ours_best = i;
    }
    d->rows++;
    d->same_best += best == ours_best;
    d->kl_sum += kl;
    if (!(kl <= d->kl_max)) d->kl_max = kl;
}

static double mean_kl(const logit_difference *d) {
    return d->rows ? d->kl_sum / (double)d->rows : 0;
}

/* --- one line --------------------------------------------------------------------------------------------------- */

static status given_tokens(const json_t *list, int32_t **ids, size_t *n, error *e) {
    if (json_array_size(list) == 1 && json_is_array(json_array_get(list, 0))) list = json_array_get(list, 0);
    *n = json_array_size(list);
    *ids = malloc((*n + 1) * sizeof **ids);
    if (!*ids) return fail(e, ERR_NOMEM, "memory is out");
    for (size_t i = 0; i < *n; i++) {
        const json_t *v = json_array_get(list, i);
        json_int_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < 0 || id > INT32_MAX)
            return fail(e, ERR_FORMAT, "\"tokens\" should be a list of token ids");
        (*ids)[i] = (int32_t)id;
    }
    return OK;
}

static status tokens_of(const tokenizer *t, const json_t *line, int32_t **ids, size_t *n, error *e) {
    const json_t *list = json_object_get(line, "tokens"), *formatted = json_object_get(line, "formatted_prompt"),
                 *text = json_is_string(formatted) ? formatted : json_object_get(line, "prompt");
    if (json_is_array(list)) return given_tokens(list, ids, n, e);
    if (!json_is_string(text)) return fail(e, ERR_FORMAT, "neither \"tokens\" nor \"prompt\"");
    if (!t) return fail(e, ERR_FORMAT, "\"tokens\" is missing, and the model has no tokenizer for the prompt");
    return tokenizer_encode(t, json_string_value(text), json_string_length(text),
                            text == formatted ? TOK_PARSE_SPECIAL : TOK_ADD_SPECIAL, ids, n, e);
}

static status read_row(float *out, const json_t *row, int64_t vocab, error *e) {
    if (!json_is_array(row) || json_array_size(row) != (size_t)vocab)
        return fail(e, ERR_FORMAT, "a row of \"logits\" should have the model's %lld numbers, but has %zu",
                    (long long)vocab, json_array_size(row));
    for (int64_t i = 0; i < vocab; i++) {
        const json_t *v = json_array_get(row, (size_t)i);
        out[i] = (float)json_number_value(v);
        if (!json_is_number(v) || !isfinite(out[i]))
            return fail(e, ERR_FORMAT, "\"logits\" should hold finite numbers only");
    }
    return OK;
}

/* The prompt goes through the model in pieces, and each piece's logits meet the golden rows. */
static status compare(engine *g, const int32_t *ids, int64_t n, const json_t *rows, logit_difference *d, error *e) {
    const int64_t vocab = g->m->cfg.vocab_size;
    session *s;
    TRY(session_open(&s, g, n, e));
    float *golden = malloc((size_t)vocab * sizeof *golden);
    status st = golden ? OK : fail(e, ERR_NOMEM, "memory is out");
    while (st == OK && s->length < n) {
        const int64_t at = s->length, take = n - at < g->chunk ? n - at : g->chunk;
        st = sessions_extend(&s, 1, &(const int32_t *){ids + at}, &take, &take, e);
        for (int64_t i = 0; st == OK && i < take; i++) {
            st = read_row(golden, json_array_get(rows, (size_t)(at + i)), vocab, e);
            if (st == OK) logit_difference_add(d, golden, s->logits + i * vocab, vocab);
        }
    }
    free(golden);
    session_close(s);
    return st;
}

static status check_line(engine *g, const tokenizer *t, const json_t *line, logit_difference *d, error *e) {
    const json_t *rows = json_object_get(line, "logits");
    int32_t *ids = NULL;
    size_t n = 0;
    if (!json_is_object(line)) return fail(e, ERR_FORMAT, "should be an object");
    if (!json_is_array(rows)) return fail(e, ERR_FORMAT, "\"logits\" should be a list of rows");
    if (json_array_size(rows) == 1 && json_is_array(json_array_get(json_array_get(rows, 0), 0)))
        rows = json_array_get(rows, 0); /* a batch of one */
    status st = tokens_of(t, line, &ids, &n, e);
    if (st == OK && n == 0) st = fail(e, ERR_FORMAT, "no tokens");
    if (st == OK && json_array_size(rows) != n)
        st = fail(e, ERR_FORMAT, "%zu tokens, but %zu rows of logits", n, json_array_size(rows));
    if (st == OK) st = compare(g, ids, (int64_t)n, rows, d, e);
    free(ids);
    return st;
}

/* --- the file --------------------------------------------------------------------------------------------------- */

/* The first characters of the prompt, cut between characters. */
static json_t *shown(const json_t *line) {
    const json_t *prompt = json_object_get(line, "prompt");
    const char *s = json_is_string(prompt) ? json_string_value(prompt) : "";
    size_t n = strlen(s) < SHOWN ? strlen(s) : SHOWN;
    while (n && n < strlen(s) && ((unsigned char)s[n] & 0xc0) == 0x80) n--;
    return json_stringn(s, n);
}

static json_t *numbers(const logit_difference *d) {
    return json_pack("{s:I, s:f, s:f, s:f, s:f}", "tokens", (json_int_t)d->rows, "mean_kl", mean_kl(d), "max_kl",
                     d->kl_max, "max_difference", d->max, "top1_agreement",
                     d->rows ? (double)d->same_best / (double)d->rows : 1.0);
}

static char *line_report(size_t number, const json_t *line, const logit_difference *d, bool pass) {
    json_t *j = json_object();
    json_object_set_new(j, "line", json_integer((json_int_t)number));
    json_object_set_new(j, "prompt", shown(line));
    json_object_update_new(j, numbers(d));
    json_object_set_new(j, "pass", json_boolean(pass));
    char *text = json_dumps(j, JSON_COMPACT | JSON_REAL_PRECISION(6));
    json_decref(j);
    return text;
}

static status report(str *summary, int64_t prompts, const logit_difference *d, double limit, bool pass, error *e) {
    json_t *j = json_pack("{s:I}", "prompts", (json_int_t)prompts);
    json_object_update_new(j, numbers(d));
    json_object_set_new(j, "limit", json_real(limit));
    json_object_set_new(j, "pass", json_boolean(pass));
    char *text = json_dumps(j, JSON_COMPACT | JSON_REAL_PRECISION(6));
    json_decref(j);
    if (!text) return fail(e, ERR_NOMEM, "memory is out");
    str_puts(summary, text);
    free(text);
    return str_check(summary, e);
}

static void add(logit_difference *sum, const logit_difference *d) {
    sum->rows += d->rows;
    sum->same_best += d->same_best;
    sum->kl_sum += d->kl_sum;
    if (!(d->kl_max <= sum->kl_max)) sum->kl_max = d->kl_max;
    if (!(d->max <= sum->max)) sum->max = d->max;
}

static bool blank(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\r", p[i]) || !p[i]) return false;
    return true;
}

status logit_kl_check(engine *g, const tokenizer *t, const char *golden, double max_kl,
                      void (*line)(void *arg, const char *json), void *arg, str *summary, error *e) {
    mapping map; /* the lines are read where they lie: the file may be larger than memory */
    TRY(file_map(&map, golden, e));
    logit_difference sum = {0};
    bool pass = true;
    int64_t prompts = 0;
    status st = OK;
    for (size_t at = 0, number = 1; st == OK && at < map.n; number++) {
        const char *p = (const char *)map.p + at, *end = memchr(p, '\n', map.n - at);
        const size_t n = end ? (size_t)(end - p) : map.n - at;
        at += n + 1;
        if (blank(p, n)) continue;
        json_t *j = NULL;
        logit_difference d = {0};
        char name[40];
        snprintf(name, sizeof name, "line %zu", number);
        if (n > LINE_MAX_BYTES) st = fail(e, ERR_FORMAT, "%s: longer than 2 GiB", name);
        else if ((st = json_parse(&j, p, n, name, e)) == OK && (st = check_line(g, t, j, &d, e)) != OK)
            wrap(e, "%s", name);
        if (st == OK) {
            const bool good = mean_kl(&d) <= max_kl;
            char *text = line ? line_report(number, j, &d, good) : NULL;
            if (text) line(arg, text);
            else if (line) st = fail(e, ERR_NOMEM, "memory is out");
            free(text);
            pass &= good;
            prompts++;
            add(&sum, &d);
        } else wrap(e, "%s", golden);
        json_decref(j);
    }
    if (st == OK && !prompts) st = fail(e, ERR_FORMAT, "%s: no lines with logits", golden);
    if (st == OK) st = report(summary, prompts, &sum, max_kl, pass, e);
    file_unmap(&map);
    return st;
}
