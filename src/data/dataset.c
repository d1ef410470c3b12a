#include "data/dataset.h"

#include <stdlib.h>
#include <string.h>
#include "data/order.h"
#include "data/pack.h"

enum { HEAD = 1 << 24 }; /* tokens of a stream that PACK_CONCAT looks at beforehand; others when they are read */

struct dataset {
    store store;
    row_plan plan;
    int64_t seq_len;
    bool document_mask, shuffle;
    uint64_t seed;
    uint32_t *raw;                /* [seq_len + 1] */
    int32_t *ids, *next, *target; /* [cap] of the batch */
    int64_t *doc, *row;           /* [cap + 1], [cap_rows + 1] */
    int64_t cap, cap_rows;
};

static status no_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

/* ---- opening ---- */

static status check_options(const data_options *o, error *e) {
    if (o->seq_len < 1 || o->seq_len > INT32_MAX - 1)
        return fail(e, ERR_ARG, "seq_len is %lld: use 1 to %d", (long long)o->seq_len, INT32_MAX - 1);
    if (o->eos >= 0 && o->vocab_size > 0 && o->eos >= o->vocab_size)
        return fail(e, ERR_ARG, "the eos token is %d, but the model's vocabulary has %lld", (int)o->eos,
                    (long long)o->vocab_size);
    return OK;
}

static status open_all(dataset *d, const data_options *o, error *e) {
    TRY(check_options(o, e));
    TRY(store_open(&d->store, o, e));
    int64_t look = o->packing == PACK_CONCAT && d->store.tokens > HEAD ? HEAD : d->store.tokens;
    TRY(store_check(&d->store, 0, look, e));
    TRY(row_plan_make(&d->plan, &d->store, o->packing, o->seq_len, e));
    if (!d->plan.rows)
        return fail(e, ERR_FORMAT,
                    "%s: %lld tokens, fewer than the %lld of one row: give more data or a shorter seq_len", o->paths[0],
                    (long long)d->store.tokens, (long long)o->seq_len + 1);
    d->seq_len = o->seq_len;
    d->document_mask = o->document_mask;
    d->shuffle = o->shuffle;
    d->seed = o->seed;
    d->raw = malloc((size_t)(o->seq_len + 1) * sizeof *d->raw);
    return d->raw ? OK : no_memory(e);
}

status dataset_open(dataset **out, const data_options *o, error *e) {
    *out = NULL;
    dataset *d = calloc(1, sizeof *d);
    if (!d) return no_memory(e);
    status s = open_all(d, o, e);
    if (s == OK) *out = d;
    else dataset_close(d);
    return s;
}

void dataset_close(dataset *d) {
    if (!d) return;
    store_close(&d->store);
    row_plan_free(&d->plan);
    free(d->raw);
    free(d->ids);
    free(d->next);
    free(d->target);
    free(d->doc);
    free(d->row);
    free(d);
}

int64_t dataset_epoch_rows(const dataset *d) {
    return d->plan.rows;
}
int64_t dataset_tokens(const dataset *d) {
    return d->plan.tokens;
}

/* ---- rows ---- */

static int64_t place(const dataset *d, int64_t row) {
    int64_t n = d->plan.rows, i = row % n;
    return d->shuffle ? order_at(d->seed, row / n, n, i) : i;
}

static int64_t row_tokens(const dataset *d, int64_t i) {
    if (!d->plan.pieces) return d->seq_len;
    int64_t n = 0;
    for (int64_t k = d->plan.row[i]; k < d->plan.row[i + 1]; k++) n += d->plan.pieces[k].n;
    return n;
}

static status grow(void **p, size_t bytes, error *e) {
    void *q = realloc(*p, bytes);
    if (!q) return no_memory(e);
    *p = q;
    return OK;
}

static status reserve(dataset *d, int64_t tokens, int64_t rows, error *e) {
    if (tokens > d->cap) {
        size_t bytes = (size_t)tokens * sizeof(int32_t);
        d->cap = 0; /* after a failure the next call tries again */
        TRY(grow((void **)&d->ids, bytes, e));
        TRY(grow((void **)&d->next, bytes, e));
        TRY(grow((void **)&d->target, bytes, e));
        TRY(grow((void **)&d->doc, (size_t)(tokens + 1) * sizeof(int64_t), e));
        d->cap = tokens;
    }
    if (rows > d->cap_rows) {
        d->cap_rows = 0;
        TRY(grow((void **)&d->row, (size_t)(rows + 1) * sizeof(int64_t), e));
        d->cap_rows = rows;
    }
    return OK;
}

static int32_t id_of(uint32_t token) {
    return (int32_t)(token & ~TOKEN_SILENT);
}

/* What follows token i of the batch. */
static void set_next(dataset *d, token_batch *b, int64_t i, uint32_t token) {
    bool counts = !(token & TOKEN_SILENT);
    d->next[i] = id_of(token);
    d->target[i] = counts ? id_of(token) : -1;
    b->n_targets += counts;
}

/* Adds n tokens of a document; what follows the last one is t[n] if `more`. They join the document before them in a row
 * without document mask. */
static void add_tokens(dataset *d, token_batch *b, const uint32_t *t, int64_t n, bool more) {
    int64_t at = b->n;
    bool joins = !d->document_mask && at > d->row[b->n_rows];
    if (joins && d->next[at - 1] < 0) set_next(d, b, at - 1, t[0]);
    for (int64_t i = 0; i < n; i++) {
        d->ids[at + i] = id_of(t[i]);
        d->next[at + i] = d->target[at + i] = -1;
        if (i + 1 < n || more) set_next(d, b, at + i, t[i + 1]);
    }
    b->n += n;
    if (!joins) b->n_docs++;
    d->doc[b->n_docs] = b->n;
}

static status add_piece(dataset *d, token_batch *b, piece p, error *e) {
    TRY(store_read(&d->store, p.at, p.n + p.more, d->raw, e));
    add_tokens(d, b, d->raw, p.n, p.more);
    return OK;
}

/* Row i of the joined stream: documents that end in it, and beginnings and ends of others. */
static status add_cut(dataset *d, token_batch *b, int64_t i, error *e) {
    int64_t first = i * d->seq_len, end = first + d->seq_len;
    TRY(store_read(&d->store, first, d->seq_len + 1, d->raw, e));
    for (int64_t at = first, stop; at < end; at = stop) {
        int64_t ends = d->document_mask ? store_document_end(&d->store, at, end + 1) : end + 1;
        stop = ends > end ? end : ends;
        add_tokens(d, b, d->raw + (at - first), stop - at, ends > end);
    }
    return OK;
}

static status add_row(dataset *d, token_batch *b, int64_t i, error *e) {
    if (!d->plan.pieces) TRY(add_cut(d, b, i, e));
    else
        for (int64_t k = d->plan.row[i]; k < d->plan.row[i + 1]; k++) TRY(add_piece(d, b, d->plan.pieces[k], e));
    d->row[++b->n_rows] = b->n;
    return OK;
}

status dataset_rows(dataset *d, int64_t first, int64_t n, token_batch *out, error *e) {
    int64_t tokens = 0;
    *out = (token_batch){0};
    if (first < 0 || n < 1) return fail(e, ERR_ARG, "%lld rows from row %lld", (long long)n, (long long)first);
    for (int64_t i = 0; i < n; i++) tokens += row_tokens(d, place(d, first + i));
    TRY(reserve(d, tokens, n, e));
    d->row[0] = d->doc[0] = 0;
    for (int64_t i = 0; i < n; i++) TRY(add_row(d, out, place(d, first + i), e));
    out->ids = d->ids;
    out->next = d->next;
    out->target = d->target;
    out->doc = d->doc;
    out->row = d->row;
    return OK;
}
