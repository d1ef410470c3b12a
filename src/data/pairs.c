#include "data/pairs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/arena.h"
#include "data/json_rows.h"
#include "data/order.h"
#include "data/row.h"

struct pairs {
    pair *list;
    int64_t n, room;
    bool shuffle;
    uint64_t seed;
    arena *mem;
};

typedef struct reader {
    pairs *p;
    const data_options *o;
    row_encoder rows;
    int64_t too_long;
    error *e;
} reader;

static status no_memory(const reader *r) {
    return fail(r->e, ERR_NOMEM, "memory is out");
}

/* The row as one of prompt and completion, which is what a data set reads. */
static json_t *as_pair(const json_t *row, const char *which) {
    json_t *prompt = json_object_get(row, "prompt"), *answer = json_object_get(row, which), *list = NULL;
    if (json_is_array(prompt) && json_is_string(answer))
        list = json_pack("[{s:s, s:O}]", "role", "assistant", "content", answer);
    return json_pack("{s:O, s:o}", "prompt", prompt, "completion", list ? list : json_incref(answer));
}

static status keep_side(reader *r, const token_list *l, pair_side *out) {
    int64_t first = 0, n = (int64_t)l->n;
    while (first < n && l->p[first] & TOKEN_SILENT) first++;
    while (n > first && l->p[n - 1] & TOKEN_SILENT) n--; /* what a template writes behind the answer */
    if (first == n || !first) return fail(r->e, ERR_FORMAT, "an empty prompt or answer");
    int32_t *ids = arena_take(r->p->mem, (size_t)n * sizeof *ids);
    float *counts = arena_take(r->p->mem, (size_t)(n - first) * sizeof *counts);
    if (!ids || !counts) return no_memory(r);
    for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)(l->p[i] & ~TOKEN_SILENT);
    for (int64_t i = first; i < n; i++) counts[i - first] = l->p[i] & TOKEN_SILENT ? 0 : 1;
    *out = (pair_side){.ids = ids, .n_prompt = first, .n = n, .counts = counts};
    return OK;
}

static status encode_side(reader *r, const json_t *row, const char *which, pair_side *out) {
    token_list tokens = {0};
    unsigned seen;
    json_t *j = as_pair(row, which);
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    json_decref(j);
    if (!text) return no_memory(r);
    status s = row_encode(&r->rows, text, strlen(text), &tokens, &seen, r->e);
    if (s == OK) s = keep_side(r, &tokens, out);
    free(tokens.p);
    free(text);
    return s;
}

static status add_row(reader *r, const json_t *row) {
    static const char *const names[] = {"prompt", "chosen", "rejected"};
    pairs *p = r->p;
    pair x;
    for (int i = 0; i < 3; i++)
        if (!json_object_get(row, names[i])) return fail(r->e, ERR_FORMAT, "\"%s\" is missing", names[i]);
    for (int i = 0; i < 2; i++) TRY(encode_side(r, row, names[i + 1], &x.side[i]));
    if (x.side[0].n > r->o->seq_len || x.side[1].n > r->o->seq_len) {
        r->too_long++;
        return OK;
    }
    if (p->n == p->room) {
        const int64_t room = p->room ? 2 * p->room : 256;
        pair *list = realloc(p->list, (size_t)room * sizeof *list);
        if (!list) return no_memory(r);
        p->list = list;
        p->room = room;
    }
    p->list[p->n++] = x;
    return OK;
}

static status take_row(void *arg, json_t *row, error *e) {
    (void)e;
    return add_row(arg, row);
}

static status read_file(reader *r, const char *path) {
    return json_rows_read(path,
                          &(json_rows){.row = take_row,
                                       .arg = r,
                                       .skip_damaged = r->o->skip_damaged,
                                       .note = r->o->note,
                                       .progress = r->o->progress,
                                       .what = "reading pairs",
                                       .told = r->o->arg},
                          r->e);
}

static status check_count(const reader *r) {
    char line[160];
    if (!r->p->n)
        return fail(r->e, ERR_FORMAT, "%s: no pairs%s", r->o->n_paths ? r->o->paths[0] : "data.train",
                    r->too_long ? " that data.seq_len has room for" : "");
    if (r->too_long && r->o->note) {
        snprintf(line, sizeof line, "%lld of %lld pairs are left out: they are longer than data.seq_len = %lld tokens",
                 (long long)r->too_long, (long long)(r->too_long + r->p->n), (long long)r->o->seq_len);
        r->o->note(r->o->arg, line);
    }
    return OK;
}

status pairs_open(pairs **out, const data_options *given, error *e) {
    data_options o = *given;
    reader r = {.o = &o, .e = e};
    *out = NULL;
    o.loss = LOSS_LAST;
    if (!o.tokenizer) return fail(e, ERR_ARG, "pairs need a tokenizer: the model's folder has none (data.tokenizer)");
    pairs *p = r.p = calloc(1, sizeof *p);
    if (!p || !(p->mem = arena_open(1 << 16))) {
        free(p);
        return fail(e, ERR_NOMEM, "memory is out");
    }
    p->shuffle = o.shuffle;
    p->seed = o.seed;
    status s = row_encoder_open(&r.rows, &o, e);
    for (int i = 0; s == OK && i < o.n_paths; i++) s = read_file(&r, o.paths[i]);
    if (s == OK) s = check_count(&r);
    row_encoder_close(&r.rows);
    if (s == OK) *out = p;
    else pairs_close(p);
    return s;
}

void pairs_close(pairs *p) {
    if (!p) return;
    free(p->list);
    arena_close(p->mem);
    free(p);
}

int64_t pairs_count(const pairs *p) {
    return p->n;
}

const pair *pairs_get(const pairs *p, int64_t i) {
    const int64_t at = i % p->n;
    return &p->list[p->shuffle ? order_at(p->seed, i / p->n, p->n, at) : at];
}
