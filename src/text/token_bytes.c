#include "text/token_bytes.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_BYTES = 1024 }; /* of a token; longer ones are never allowed */

typedef struct word {
    const char *p;
    size_t n;
    int32_t id;
} word;

static int by_bytes(const void *left, const void *right) {
    const word *a = left, *b = right;
    int order = memcmp(a->p, b->p, a->n < b->n ? a->n : b->n);
    if (order) return order;
    return a->n != b->n ? (a->n > b->n) - (a->n < b->n) : (a->id > b->id) - (a->id < b->id);
}

/* The tokens that stand for bytes go to `words`, added tokens to b->added. */
static void sort_out(token_bytes *b, word *words) {
    for (int32_t id = 0; id < b->vocab; id++) {
        const char *text = tokenizer_token_text(b->t, id);
        word w = {.id = id};
        w.p = text ? tokenizer_bytes(b->t, id, &w.n) : NULL;
        if (!w.p || w.n == 0) continue;
        b->is_added[id] = tokenizer_id(b->t, text) == id;
        if (b->is_added[id]) b->added[b->n_added++] = id;
        else if (w.n <= MAX_BYTES) words[b->n_ids++] = w;
    }
    if (b->n_ids) qsort(words, (size_t)b->n_ids, sizeof *words, by_bytes);
}

static size_t shared(const word *a, const word *b) {
    size_t n = a->n < b->n ? a->n : b->n, i = 0;
    while (i < n && a->p[i] == b->p[i]) i++;
    return i;
}

/* The nodes of sorted words: each word adds those behind what it shares with the word before. open[d]: the node at
 * depth d on the way to the current word. */
static void plant(token_bytes *b, const word *words, int32_t *open) {
    size_t depth = 0;
    for (int32_t i = 0; i < b->n_ids; i++) {
        const word *w = words + i;
        size_t keep = i ? shared(words + i - 1, w) : 0;
        for (; depth > keep; depth--) b->node[open[depth]].skip = b->n_nodes;
        while (depth < w->n) {
            open[++depth] = b->n_nodes;
            b->node[b->n_nodes++] = (trie_node){.first = i, .depth = (uint16_t)depth, .byte = (uint8_t)w->p[depth - 1]};
        }
        if ((int32_t)depth > b->deepest) b->deepest = (int32_t)depth;
        trie_node *end = b->node + open[depth];
        if (end->count == 0) end->first = i;
        if (end->count < UINT16_MAX) end->count++;
        b->ids[i] = w->id;
        b->alone[(uint8_t)w->p[0]] |= w->n == 1;
        if (memchr(w->p, '"', w->n)) b->quoted[b->n_quoted++] = w->id;
    }
    for (; depth > 0; depth--) b->node[open[depth]].skip = b->n_nodes;
}

static status make_tree(token_bytes *b, error *e) {
    size_t vocab = (size_t)b->vocab, nodes = 0;
    word *words = malloc((vocab + 1) * sizeof *words);
    int32_t *open = malloc((MAX_BYTES + 1) * sizeof *open);
    b->is_added = calloc(vocab + 1, sizeof *b->is_added);
    b->added = malloc((vocab + 1) * sizeof *b->added);
    b->ids = malloc((vocab + 1) * sizeof *b->ids);
    b->quoted = malloc((vocab + 1) * sizeof *b->quoted);
    if (words && open && b->is_added && b->added && b->ids && b->quoted) {
        sort_out(b, words);
        for (int32_t i = 0; i < b->n_ids; i++) nodes += words[i].n - (i ? shared(words + i - 1, words + i) : 0);
        b->node = nodes < INT32_MAX ? malloc((nodes + 1) * sizeof *b->node) : NULL;
        if (b->node) plant(b, words, open);
    }
    free(words);
    free(open);
    return b->node ? OK : fail(e, ERR_NOMEM, "memory is out");
}

status token_bytes_open(token_bytes **out, const tokenizer *t, error *e) {
    token_bytes *b = *out = calloc(1, sizeof *b);
    if (!b) return fail(e, ERR_NOMEM, "memory is out");
    b->t = t;
    b->vocab = tokenizer_vocab_size(t);
    status s = make_tree(b, e);
    if (s == OK) return OK;
    token_bytes_close(b);
    *out = NULL;
    return s;
}

void token_bytes_close(token_bytes *b) {
    if (!b) return;
    free(b->node);
    free(b->ids);
    free(b->added);
    free(b->quoted);
    free(b->is_added);
    free(b);
}
