#include "data/prompts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/arena.h"
#include "data/json_rows.h"
#include "data/order.h"
#include "data/row.h"
#include "text/chat.h"

struct prompts {
    prompt *list;
    int64_t n, room;
    bool shuffle;
    uint64_t seed;
    arena *mem;
};

typedef struct reader {
    prompts *p;
    const prompt_options *o;
    row_encoder rows; /* for its chat template */
    int64_t too_long;
    error *e;
} reader;

static status no_memory(const reader *r) {
    return fail(r->e, ERR_NOMEM, "memory is out");
}

/* --- a row ------------------------------------------------------------------------------------------------------- */

static const json_t *find_answer(const json_t *row) {
    static const char *const names[] = {"ground_truth", "expected_answer", "answer", "solution", "target"};
    const json_t *v = json_object_get(json_object_get(row, "reward_model"), "ground_truth");
    for (size_t i = 0; !v && i < sizeof names / sizeof *names; i++) v = json_object_get(row, names[i]);
    return json_is_string(v) || json_is_number(v) ? v : NULL;
}

/* With the fewest digits that give the same number again: 0.1, not 0.10000000000000001. */
static const char *write_number(const json_t *v, char out[40]) {
    const double x = json_number_value(v);
    if (json_is_integer(v)) snprintf(out, 40, "%lld", (long long)json_integer_value(v));
    else
        for (int digits = 15; digits <= 17; digits++)
            if (snprintf(out, 40, "%.*g", digits, x) > 0 && strtod(out, NULL) == x) break;
    return out;
}

static status keep_answer(const reader *r, const json_t *row, const char **out) {
    const json_t *v = find_answer(row);
    char number[40];
    const char *text = json_string_value(v), *at = text || !v ? text : write_number(v, number);
    *out = NULL;
    if (!v) return OK;
    for (const char *p = text; p && (p = strstr(p, "#### ")); p++) at = p + strlen("#### ");
    *out = arena_copy(r->p->mem, at, strlen(at));
    return *out ? OK : no_memory(r);
}

/* The question, a text, or NULL and *messages. *raw: it stands as it is when the form is auto. */
static const json_t *find_question(const json_t *row, const json_t **messages, bool *raw) {
    static const char *const names[] = {"prompt", "question", "problem", "input"};
    *messages = json_object_get(row, "messages");
    *raw = false;
    if (*messages) return NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const json_t *v = json_object_get(row, names[i]);
        if (!v) continue;
        *raw = i == 0 && json_is_string(v);
        *messages = json_is_array(v) ? v : NULL;
        return json_is_string(v) ? v : NULL;
    }
    return NULL;
}

/* Messages before the answer: those of the row without answers at the end. */
static json_t *conversation_of(const reader *r, const char *question, const json_t *messages) {
    json_t *list = json_array(), *m;
    size_t n = json_array_size(messages), i;
    while (n) {
        const char *role = json_string_value(json_object_get(json_array_get(messages, n - 1), "role"));
        if (!role || strcmp(role, "assistant") != 0) break;
        n--;
    }
    bool bad = !list;
    if (!bad && r->o->system)
        bad |= json_array_append_new(list, json_pack("{s:s, s:s}", "role", "system", "content", r->o->system));
    if (!bad && question)
        bad |= json_array_append_new(list, json_pack("{s:s, s:s}", "role", "user", "content", question));
    json_array_foreach((json_t *)(uintptr_t)messages, i, m) if (!bad && i < n) bad |= json_array_append(list, m);
    if (!bad) return list;
    json_decref(list);
    return NULL;
}

static status template_options(const reader *r, const json_t *row, json_t **out) {
    TRY(row_chat_options(row, out, r->e));
    bool bad = json_object_set_new(*out, "add_generation_prompt", json_true());
    if (r->o->thinking != THINKING_AUTO)
        bad |= json_object_set_new(*out, "thinking", json_boolean(r->o->thinking == THINKING_ON));
    return bad ? no_memory(r) : chat_add_tokens(*out, r->o->data->tokenizer, r->e);
}

static status render(const reader *r, const json_t *row, const char *question, const json_t *messages, str *text,
                     json_t **rendered) {
    if (!r->rows.has_chat)
        return fail(r->e, ERR_UNSUPPORTED,
                    "a conversation, but the tokenizer has no chat template%s%s: set "
                    "data.chat_template, or rollout.prompt=raw",
                    *r->rows.template_error ? " that can be used: " : "", r->rows.template_error);
    json_t *list = *rendered = conversation_of(r, question, messages), *options = NULL;
    status s = list ? template_options(r, row, &options) : no_memory(r);
    if (s == OK && !json_array_size(list)) s = fail(r->e, ERR_FORMAT, "no message to answer");
    if (s == OK) s = chat_render(r->rows.chat.template, r->o->data->model_type, list, options, text, r->e);
    json_decref(options);
    return s;
}

/* What of the rendered prompt belongs to the answer. */
static size_t begun_length(const str *text, const char *begin) {
    static const char *const opened[] = {"<think>\n", "<think>"};
    if (begin && *begin) return strlen(begin);
    for (size_t i = 0; i < sizeof opened / sizeof *opened; i++) {
        const size_t n = strlen(opened[i]);
        if (text->n >= n && memcmp(text->p + text->n - n, opened[i], n) == 0) return n;
    }
    return 0;
}

static status keep(reader *r, json_t *row, const str *text, json_t *messages) {
    prompts *p = r->p;
    int32_t *ids;
    size_t n;
    prompt *x = &p->list[p->n];
    TRY(tokenizer_encode(r->o->data->tokenizer, text->p, text->n, TOK_PARSE_SPECIAL, &ids, &n, r->e));
    if (!n || (int64_t)n > r->o->most) {
        r->too_long += n > 0;
        free(ids);
        return n ? OK : fail(r->e, ERR_FORMAT, "an empty prompt");
    }
    const char *copy = arena_copy(p->mem, text->p, text->n);
    int32_t *kept = arena_take(p->mem, n * sizeof *kept);
    if (kept) memcpy(kept, ids, n * sizeof *kept);
    free(ids);
    if (!copy || !kept) return no_memory(r);
    *x = (prompt){.text = copy, .begun = copy + text->n, .ids = kept, .n = (int64_t)n};
    if (messages || (r->o->begin && *r->o->begin)) x->begun -= begun_length(text, r->o->begin);
    TRY(keep_answer(r, row, &x->answer));
    x->row = json_incref(row);
    x->messages = json_incref(messages);
    p->n++;
    return OK;
}

static status add_row(reader *r, json_t *row) {
    const prompt_form form = r->o->form;
    const json_t *messages;
    bool raw;
    str text = {0};
    json_t *rendered = NULL;
    const json_t *asked = find_question(row, &messages, &raw);
    const char *question = json_string_value(asked);
    if (!question && !json_is_array(messages))
        return fail(r->e, ERR_FORMAT,
                    "nothing is asked: a row should have \"messages\", \"prompt\", \"question\", "
                    "\"problem\" or \"input\"");
    if (question && strlen(question) != json_string_length(asked))
        return fail(r->e, ERR_FORMAT, "the question holds a NUL character");
    if (form == PROMPT_RAW && !question) return fail(r->e, ERR_FORMAT, "messages, but rollout.prompt is raw");
    const bool as_is = form == PROMPT_RAW || (form == PROMPT_AUTO && question && (raw || !r->rows.has_chat));
    status s = OK;
    if (as_is) str_puts(&text, question);
    else s = render(r, row, question, messages, &text, &rendered);
    if (s == OK && r->o->begin) str_puts(&text, r->o->begin);
    if (s == OK) s = str_check(&text, r->e);
    if (s == OK) s = keep(r, row, &text, rendered);
    json_decref(rendered);
    str_free(&text);
    return s;
}

/* --- files ------------------------------------------------------------------------------------------------------- */

static status grow(reader *r) {
    prompts *p = r->p;
    if (p->n < p->room) return OK;
    const int64_t room = p->room ? 2 * p->room : 1024;
    prompt *list = realloc(p->list, (size_t)room * sizeof *list);
    if (!list) return no_memory(r);
    p->list = list;
    p->room = room;
    return OK;
}

static status take_row(void *arg, json_t *row, error *e) {
    reader *r = arg;
    (void)e;
    TRY(grow(r));
    return add_row(r, row);
}

static status read_file(reader *r, const char *path) {
    const data_options *d = r->o->data;
    return json_rows_read(path,
                          &(json_rows){.row = take_row,
                                       .arg = r,
                                       .skip_damaged = d->skip_damaged,
                                       .note = d->note,
                                       .progress = d->progress,
                                       .what = "reading prompts",
                                       .told = d->arg},
                          r->e);
}

static status check_count(const reader *r) {
    const data_options *d = r->o->data;
    char line[200];
    if (!r->p->n && r->too_long)
        return fail(r->e, ERR_FORMAT,
                    "%s: all %lld prompts are longer than %lld tokens: data.seq_len leaves no room for "
                    "an answer",
                    d->paths[0], (long long)r->too_long, (long long)r->o->most);
    if (!r->p->n) return fail(r->e, ERR_FORMAT, "%s: no prompts", d->n_paths ? d->paths[0] : "data.train");
    if (r->too_long && d->note) {
        snprintf(line, sizeof line, "%lld of %lld prompts are left out: they are longer than %lld tokens",
                 (long long)r->too_long, (long long)(r->too_long + r->p->n), (long long)r->o->most);
        d->note(d->arg, line);
    }
    return OK;
}

status prompts_open(prompts **out, const prompt_options *o, error *e) {
    reader r = {.o = o, .e = e};
    *out = NULL;
    if (!o->data->tokenizer)
        return fail(e, ERR_ARG, "prompts need a tokenizer: the model's folder has none (data.tokenizer)");
    prompts *p = calloc(1, sizeof *p);
    if (!p || !(p->mem = arena_open(1 << 16))) {
        free(p);
        return fail(e, ERR_NOMEM, "memory is out");
    }
    p->shuffle = o->data->shuffle;
    p->seed = o->data->seed;
    r.p = p;
    status s = row_encoder_open(&r.rows, o->data, e);
    for (int i = 0; s == OK && i < o->data->n_paths; i++) s = read_file(&r, o->data->paths[i]);
    if (s == OK) s = check_count(&r);
    row_encoder_close(&r.rows);
    if (s == OK) *out = p;
    else prompts_close(p);
    return s;
}

void prompts_close(prompts *p) {
    if (!p) return;
    for (int64_t i = 0; i < p->n; i++) {
        json_decref((json_t *)(uintptr_t)p->list[i].row);
        json_decref((json_t *)(uintptr_t)p->list[i].messages);
    }
    free(p->list);
    arena_close(p->mem);
    free(p);
}

int64_t prompts_count(const prompts *p) {
    return p->n;
}

const prompt *prompts_get(const prompts *p, int64_t i) {
    const int64_t at = i % p->n;
    return &p->list[p->shuffle ? order_at(p->seed, i / p->n, p->n, at) : at];
}
