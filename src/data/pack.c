/* Best fit decreasing (Johnson 1974): pieces from the longest to the shortest, each into the row with the least room
 * that still holds it. Open rows lie in stacks by their room; a tree of bits finds the next stack that is not empty, so
 * n pieces take O(n log T). Rows are numbered by their first piece in the data's order, pieces keep it within a row. */
#include "data/pack.h"

#include <stdlib.h>

static status no_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

/* ---- documents to pieces ---- */

static int64_t cut(piece *out, const store *st, int64_t seq_len) {
    int64_t n = 0;
    for (int64_t at = 0; at < st->tokens;) {
        int64_t end = store_document_end(st, at, st->tokens);
        for (; at < end; n++) {
            int64_t k = end - at < seq_len ? end - at : seq_len;
            if (out) out[n] = (piece){at, (int32_t)k, at + k < end};
            at += k;
        }
    }
    return n;
}

/* ---- best fit ---- */

typedef struct bins {
    int64_t *row;   /* [n pieces] the row of each */
    int64_t *order; /* [n pieces] by falling length */
    int64_t *below; /* [n rows] the next row in its stack, -1: none */
    int64_t *top;   /* [seq_len + 1] the stack of rows with so much room */
    bool *tree;     /* [2 leaves] whether anything is in the stacks below a node */
    int64_t leaves;
} bins;

static void mark(bins *b, int64_t room, bool filled) {
    for (int64_t i = room + b->leaves; i; i /= 2) {
        b->tree[i] = filled;
        filled = b->tree[i ^ 1] || filled;
    }
}

/* The least room >= n that some row has; -1: none. */
static int64_t find_room(const bins *b, int64_t n) {
    int64_t i = n + b->leaves;
    while (i && !b->tree[i]) { /* to the next subtree on the right */
        while (i & 1) i /= 2;
        if (i) i++;
    }
    if (!i) return -1;
    while (i < b->leaves) i = b->tree[2 * i] ? 2 * i : 2 * i + 1;
    return i - b->leaves;
}

static void push(bins *b, int64_t row, int64_t room) {
    b->below[row] = b->top[room];
    b->top[room] = row;
    mark(b, room, true);
}

static int64_t pop(bins *b, int64_t room) {
    int64_t row = b->top[room];
    b->top[room] = b->below[row];
    if (b->top[room] < 0) mark(b, room, false);
    return row;
}

static void sort_by_length(bins *b, const piece *p, int64_t n, int64_t seq_len) {
    for (int64_t i = 0; i <= seq_len; i++) b->top[i] = 0;
    for (int64_t i = 0; i < n; i++) b->top[p[i].n - 1]++;
    for (int64_t i = seq_len; i > 0; i--) b->top[i - 1] += b->top[i]; /* how many are longer than i - 1 */
    for (int64_t i = 0; i < n; i++) b->order[b->top[p[i].n]++] = i;
}

/* Gives every piece a row; their number. */
static int64_t fill(bins *b, const piece *p, int64_t n, int64_t seq_len) {
    int64_t rows = 0;
    sort_by_length(b, p, n, seq_len);
    for (int64_t i = 0; i <= seq_len; i++) b->top[i] = -1;
    for (int64_t k = 0; k < n; k++) {
        int64_t i = b->order[k], room = find_room(b, p[i].n);
        if (room < 0) room = seq_len, b->row[i] = rows++;
        else b->row[i] = pop(b, room);
        if (room > p[i].n) push(b, b->row[i], room - p[i].n);
    }
    return rows;
}

/* Pieces sorted by row, rows by their first piece. `number` and `out` are scratch of n. */
static void arrange(row_plan *p, const bins *b, int64_t n, int64_t *number, piece *out) {
    int64_t rows = 0;
    for (int64_t i = 0; i < p->rows; i++) number[i] = -1;
    for (int64_t i = 0; i < n; i++) {
        int64_t *r = &number[b->row[i]];
        if (*r < 0) *r = rows++;
        b->row[i] = *r;
        p->row[*r + 1]++;
    }
    for (int64_t i = 0; i < rows; i++) p->row[i + 1] += p->row[i];
    for (int64_t i = 0; i < rows; i++) number[i] = p->row[i];
    for (int64_t i = 0; i < n; i++) out[number[b->row[i]]++] = p->pieces[i];
}

static status best_fit(row_plan *p, int64_t n, int64_t seq_len, error *e) {
    bins b = {.leaves = 1};
    while (b.leaves <= seq_len) b.leaves *= 2;
    b.row = malloc((size_t)n * sizeof *b.row);
    b.order = malloc((size_t)n * sizeof *b.order);
    b.below = malloc((size_t)n * sizeof *b.below);
    b.top = malloc((size_t)(seq_len + 1) * sizeof *b.top);
    b.tree = calloc((size_t)b.leaves, 2);
    piece *sorted = malloc((size_t)n * sizeof *sorted);
    bool ready = b.row && b.order && b.below && b.top && b.tree && sorted;
    if (ready) p->rows = fill(&b, p->pieces, n, seq_len);
    p->row = ready ? calloc((size_t)p->rows + 1, sizeof *p->row) : NULL;
    if (p->row) {
        arrange(p, &b, n, b.order, sorted);
        piece *was = p->pieces;
        p->pieces = sorted;
        sorted = was;
    }
    free(b.row);
    free(b.order);
    free(b.below);
    free(b.top);
    free(b.tree);
    free(sorted);
    return p->row ? OK : no_memory(e);
}

static status one_each(row_plan *p, int64_t n, error *e) {
    p->rows = n;
    p->row = malloc((size_t)(n + 1) * sizeof *p->row);
    for (int64_t i = 0; p->row && i <= n; i++) p->row[i] = i;
    return p->row ? OK : no_memory(e);
}

status row_plan_make(row_plan *p, const store *st, packing how, int64_t seq_len, error *e) {
    if (how == PACK_CONCAT) {
        p->rows = (st->tokens - 1) / seq_len;
        p->tokens = p->rows * seq_len;
        return OK;
    }
    int64_t n = cut(NULL, st, seq_len);
    p->tokens = st->tokens;
    p->pieces = malloc((size_t)n * sizeof *p->pieces);
    if (!p->pieces) return no_memory(e);
    cut(p->pieces, st, seq_len);
    return how == PACK_NONE ? one_each(p, n, e) : best_fit(p, n, seq_len, e);
}

void row_plan_free(row_plan *p) {
    free(p->pieces);
    free(p->row);
    *p = (row_plan){0};
}
