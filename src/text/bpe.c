/* Byte pair encoding (Sennrich et al. 2016) over bytes (GPT-2): a word starts as the tokens of its bytes; as long as
 * some neighbouring pair has a merge, the pair whose merge stands first in the list is joined, the leftmost of equals.
 *
 * Short words look for the best pair by going through all of them; long ones keep candidates in a heap, so that n bytes
 * take n log n steps. Most words of a text repeat, so a run remembers them. */
#include "text/bpe.h"

#include <stdlib.h>
#include <string.h>
#include "base/str.h"
#include "text/unicode.h"

enum { MAX_IDS = 1 << 20, MAX_TOKEN_TEXT = 1 << 16 };
enum { SHORT_WORD = 48 };                      /* bytes; longer words use the heap */
enum { LEAST_SEEN = 64, MOST_SEEN = 1 << 14 }; /* words that a run remembers */
static const uint32_t no_rank = UINT32_MAX;    /* of a pair without a merge */

/* One step of a merge: where it stands in the list, and the token it makes. */
typedef struct merge {
    uint32_t left, right, rank;
    int32_t made; /* -1: an empty slot */
} merge;

struct bpe {
    const vocab *v;
    int32_t byte_id[256]; /* -1: this byte has no token */
    bool whole_words;     /* ignore_merges: a word that is a token is that token */
    merge *slot;
    uint32_t mask;
};

/* ---- Lists and hashes ---- */

void id_list_add(id_list *l, const int32_t *p, size_t n) {
    if (l->failed) return;
    if (n > l->cap - l->n) {
        size_t cap = l->cap ? l->cap : 64;
        while (cap - l->n < n && cap < SIZE_MAX / 4 / sizeof *p) cap *= 2;
        int32_t *more = cap - l->n < n ? NULL : realloc(l->p, cap * sizeof *more);
        if (!more) {
            l->failed = true;
            return;
        }
        l->p = more;
        l->cap = cap;
    }
    if (n) memcpy(l->p + l->n, p, n * sizeof *p);
    l->n += n;
}

static uint64_t mix(uint64_t h) {
    h ^= h >> 32;
    h *= 0x9E3779B97F4A7C15u;
    return h ^ h >> 29;
}

static uint32_t hash_bytes(const char *p, size_t n) {
    uint64_t h = n, w;
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&w, p, 8);
        h = mix(h ^ w) * 0xD6E8FEB86659FD93u;
    }
    w = 0;
    memcpy(&w, p, n);
    return (uint32_t)(mix(mix(h ^ w) * 0xD6E8FEB86659FD93u) >> 8);
}

static uint32_t hash_pair(uint32_t left, uint32_t right) {
    return (uint32_t)(mix(((uint64_t)left << 32 | right) * 0xD6E8FEB86659FD93u) >> 8);
}

/* A power of two, so that a table of that size is at most three quarters full. */
static uint32_t table_size(size_t n) {
    uint32_t size = 16;
    while (size / 4 * 3 < n) size *= 2;
    return size;
}

/* ---- The vocabulary ---- */

/* The slot that holds this text, or the empty one where it belongs. */
static vocab_slot *find_slot(const vocab *v, const char *text, size_t n, uint32_t hash) {
    for (uint32_t i = hash & v->mask;; i = (i + 1) & v->mask) {
        vocab_slot *s = &v->slot[i];
        if (s->id < 0) return s;
        if (s->hash != hash) continue;
        const token *t = &v->token[s->id];
        if (t->text_n == n && memcmp(t->text, text, n) == 0) return s;
    }
}

int32_t vocab_find(const vocab *v, const char *text, size_t n) {
    return find_slot(v, text, n, hash_bytes(text, n))->id;
}

/* Writes what the text decodes to into p (room for n bytes) and returns the length; SIZE_MAX when a character is not
 * in the byte alphabet. */
static size_t decode_letters(char *p, const char *text, size_t n) {
    size_t k = 0;
    for (size_t at = 0; at < n; k++) {
        uint32_t c;
        at += utf8_get(text + at, &c);
        int byte = letter_to_byte(c);
        if (byte < 0) return SIZE_MAX;
        p[k] = (char)byte;
    }
    return k;
}

/* Puts a token under its id; `texts` is where the next text goes and moves on (two copies fit). */
static status add_token(vocab *v, const char *text, size_t n, int64_t id, char **texts, error *e) {
    if (id < 0 || id >= v->size) return fail(e, ERR_FORMAT, "token \"%.60s\" has id %lld", text, (long long)id);
    token *t = &v->token[id];
    if (t->text)
        return fail(e, ERR_FORMAT, "tokens \"%.60s\" and \"%.60s\" have the same id %lld", t->text, text,
                    (long long)id);
    char *copy = *texts, *bytes = copy + n + 1;
    memcpy(copy, text, n);
    copy[n] = 0;
    size_t k = decode_letters(bytes, text, n);
    bool letters = k != SIZE_MAX;
    *t = (token){
        .text = copy, .text_n = (uint32_t)n, .bytes = letters ? bytes : copy, .bytes_n = (uint32_t)(letters ? k : n)};
    *texts = bytes + (letters ? k : 0);
    uint32_t hash = hash_bytes(copy, n);
    *find_slot(v, copy, n, hash) = (vocab_slot){hash, (int32_t)id};
    return OK;
}

/* What vocab_open counts before it takes memory. */
typedef struct extent {
    size_t tokens, bytes;
    int64_t max_id;
} extent;

static status measure(extent *x, const char *text, size_t n, const json_t *id, error *e) {
    if (!json_is_integer(id)) return fail(e, ERR_FORMAT, "the id of token \"%.60s\" should be an integer", text);
    int64_t value = json_integer_value(id);
    if (value < 0 || value >= MAX_IDS)
        return fail(e, ERR_FORMAT, "token \"%.60s\" has id %lld, outside 0..%d", text, (long long)value, MAX_IDS - 1);
    if (n > MAX_TOKEN_TEXT) return fail(e, ERR_FORMAT, "token %lld has %zu bytes", (long long)value, n);
    x->tokens++;
    x->bytes += 2 * n + 1;
    if (value > x->max_id) x->max_id = value;
    return OK;
}

static status measure_all(extent *x, const json_t *model_vocab, const json_t *added, error *e) {
    size_t i;
    const json_t *one;
    for (void *it = json_object_iter((json_t *)model_vocab); it; it = json_object_iter_next((json_t *)model_vocab, it))
        TRY(measure(x, json_object_iter_key(it), json_object_iter_key_len(it), json_object_iter_value(it), e));
    json_array_foreach(added, i, one) {
        const json_t *text = json_object_get(one, "content");
        if (!json_is_string(text)) return fail(e, ERR_FORMAT, "added_tokens: entry %zu has no \"content\"", i);
        TRY(measure(x, json_string_value(text), json_string_length(text), json_object_get(one, "id"), e));
    }
    return OK;
}

static status add_added(vocab *v, const json_t *one, char **texts, error *e) {
    const json_t *content = json_object_get(one, "content");
    const char *text = json_string_value(content);
    size_t n = json_string_length(content);
    int64_t id = json_integer_value(json_object_get(one, "id"));
    bool special;
    TRY(json_get_bool(one, "special", false, &special, e));
    int32_t there = vocab_find(v, text, n);
    if (there < 0) TRY(add_token(v, text, n, id, texts, e));
    else if (there != id)
        return fail(e, ERR_FORMAT, "token \"%.60s\" has two ids, %d and %lld", text, there, (long long)id);
    v->token[id].added = true;
    v->token[id].special = special;
    return OK;
}

static status fill(vocab *v, const json_t *model_vocab, const json_t *added, const extent *x, error *e) {
    uint32_t slots = table_size(x->tokens);
    v->size = (int32_t)(x->max_id + 1);
    v->mask = slots - 1;
    v->token = calloc((size_t)v->size + 1, sizeof *v->token); /* + 1: an empty vocabulary */
    v->slot = malloc(slots * sizeof *v->slot);
    v->memory = arena_open(x->bytes);
    char *texts = v->memory ? arena_take(v->memory, x->bytes) : NULL;
    if (!v->token || !v->slot || !texts) return fail(e, ERR_NOMEM, "memory is out");
    memset(v->slot, 0xFF, slots * sizeof *v->slot);
    for (void *it = json_object_iter((json_t *)model_vocab); it;
         it = json_object_iter_next((json_t *)model_vocab, it)) {
        int64_t id = json_integer_value(json_object_iter_value(it));
        TRY(add_token(v, json_object_iter_key(it), json_object_iter_key_len(it), id, &texts, e));
        v->token[id].in_model = true;
    }
    size_t i;
    const json_t *one;
    json_array_foreach(added, i, one) TRY(add_added(v, one, &texts, e));
    return OK;
}

status vocab_open(vocab *v, const json_t *model_vocab, const json_t *added, error *e) {
    *v = (vocab){0};
    if (!json_is_object(model_vocab)) return fail(e, ERR_FORMAT, "model: \"vocab\" should be an object");
    if (added && !json_is_null(added) && !json_is_array(added))
        return fail(e, ERR_FORMAT, "\"added_tokens\" should be a list");
    extent x = {.bytes = 1, .max_id = -1};
    TRY(measure_all(&x, model_vocab, added, e));
    status s = fill(v, model_vocab, added, &x, e);
    if (s != OK) vocab_close(v);
    return s;
}

void vocab_close(vocab *v) {
    free(v->token);
    free(v->slot);
    arena_close(v->memory);
    *v = (vocab){0};
}

/* ---- Merges ---- */

static merge *find_merge(const bpe *b, uint32_t left, uint32_t right) {
    uint32_t i = hash_pair(left, right) & b->mask;
    while (b->slot[i].made >= 0 && (b->slot[i].left != left || b->slot[i].right != right)) i = (i + 1) & b->mask;
    return &b->slot[i];
}

/* The two halves of a merge: ["a", "b"], or "a b". */
static status halves(const json_t *one, const char *text[2], size_t n[2]) {
    if (json_is_array(one) && json_array_size(one) == 2) {
        for (size_t i = 0; i < 2; i++) {
            const json_t *half = json_array_get(one, i);
            if (!json_is_string(half)) return ERR_FORMAT;
            text[i] = json_string_value(half);
            n[i] = json_string_length(half);
        }
        return OK;
    }
    const char *all = json_string_value(one);
    const char *space = all ? strchr(all, ' ') : NULL;
    if (!space || strchr(space + 1, ' ')) return ERR_FORMAT;
    text[0] = all;
    n[0] = (size_t)(space - all);
    text[1] = space + 1;
    n[1] = json_string_length(one) - n[0] - 1;
    return OK;
}

static status add_merge(bpe *b, const json_t *one, uint32_t rank, str *joined, error *e) {
    const char *text[2];
    size_t n[2];
    if (halves(one, text, n) != OK) return fail(e, ERR_FORMAT, "merge %u is not two tokens", rank);
    joined->n = 0;
    int32_t id[3];
    for (int i = 0; i < 2; i++) {
        str_add(joined, text[i], n[i]);
        id[i] = vocab_find(b->v, text[i], n[i]);
    }
    TRY(str_check(joined, e));
    id[2] = vocab_find(b->v, joined->p, joined->n);
    for (int i = 0; i < 3; i++)
        if (id[i] < 0 || !b->v->token[id[i]].in_model)
            return fail(e, ERR_FORMAT, "merge %u: token \"%.60s\" is not in the vocabulary", rank,
                        i < 2 ? text[i] : joined->p);
    if (b->v->token[id[2]].special) return OK; /* no plain text may become a special token */
    *find_merge(b, (uint32_t)id[0], (uint32_t)id[1]) = (merge){(uint32_t)id[0], (uint32_t)id[1], rank, id[2]};
    return OK;
}

static status read_merges(bpe *b, const json_t *merges, error *e) {
    if (!json_is_array(merges)) return fail(e, ERR_FORMAT, "model: \"merges\" should be a list");
    if (json_array_size(merges) > 4 * MAX_IDS)
        return fail(e, ERR_UNSUPPORTED, "model: %zu merges, more than %d", json_array_size(merges), 4 * MAX_IDS);
    uint32_t slots = table_size(json_array_size(merges));
    b->mask = slots - 1;
    b->slot = malloc(slots * sizeof *b->slot);
    if (!b->slot) return fail(e, ERR_NOMEM, "memory is out");
    for (uint32_t i = 0; i < slots; i++) b->slot[i].made = -1;
    str joined = {0};
    size_t i;
    const json_t *one;
    status s = OK;
    json_array_foreach(merges, i, one) {
        s = add_merge(b, one, (uint32_t)i, &joined, e);
        if (s != OK) break;
    }
    str_free(&joined);
    return s;
}

/* Options of "model" that change the result and are not done here. unk_token is not one of them: it stands for a byte
 * that has no token, which bpe_word refuses. */
static status check_options(const json_t *model, error *e) {
    const char *type, *text;
    const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    bool fallback;
    double dropout;
    TRY(json_get_string(model, "type", "BPE", &type, e));
    if (strcmp(type, "BPE") != 0) return fail(e, ERR_UNSUPPORTED, "model of type \"%.60s\" is not supported", type);
    for (int i = 0; i < 2; i++) {
        TRY(json_get_string(model, affixes[i], "", &text, e));
        if (*text) return fail(e, ERR_UNSUPPORTED, "model: %s \"%.60s\" is not supported", affixes[i], text);
    }
    TRY(json_get_bool(model, "byte_fallback", false, &fallback, e));
    if (fallback) return fail(e, ERR_UNSUPPORTED, "model: byte_fallback is not supported");
    TRY(json_get_real(model, "dropout", 0, &dropout, e));
    if (dropout != 0) return fail(e, ERR_UNSUPPORTED, "model: dropout is not supported");
    return OK;
}

static status read_model(bpe *b, const json_t *model, error *e) {
    TRY(check_options(model, e));
    TRY(json_get_bool(model, "ignore_merges", false, &b->whole_words, e));
    for (int i = 0; i < 256; i++) {
        char letter[4];
        int32_t id = vocab_find(b->v, letter, utf8_put(letter, byte_to_letter((uint8_t)i)));
        b->byte_id[i] = id >= 0 && b->v->token[id].in_model && !b->v->token[id].special ? id : -1;
    }
    return read_merges(b, json_object_get(model, "merges"), e);
}

status bpe_open(bpe **out, const vocab *v, const json_t *model, error *e) {
    bpe *b = calloc(1, sizeof *b);
    *out = NULL;
    if (!b) return fail(e, ERR_NOMEM, "memory is out");
    b->v = v;
    status s = read_model(b, model, e);
    if (s == OK) *out = b;
    else bpe_close(b);
    return s;
}

void bpe_close(bpe *b) {
    if (!b) return;
    free(b->slot);
    free(b);
}

/* ---- Encoding ---- */

/* A word seen before: its bytes, and where its ids stand in the list. */
typedef struct seen {
    const char *word; /* NULL: an empty slot */
    size_t n, first, count;
} seen;

/* A piece of a long word: pieces form a chain by index. */
typedef struct piece {
    int32_t id; /* -1: became part of the piece before it */
    int32_t previous, next;
} piece;

/* A pair that may be joined: the pieces that begin at `at` and after it, if they still are what they were. */
typedef struct candidate {
    uint32_t rank;
    int32_t at, left, right, made;
} candidate;

struct bpe_run {
    const bpe *b;
    id_list *ids;
    seen *seen; /* [mask + 1]; a new word takes the place of an old one */
    uint32_t mask;
    piece *piece;    /* [cap]: grown for the longest word */
    candidate *heap; /* [3 * cap]: a pair for each byte at first, and two more for each join */
    size_t cap, heap_n;
    str letters; /* a word in GPT-2's alphabet, for whole_words */
};

status bpe_begin(bpe_run **out, const bpe *b, id_list *ids, size_t text_bytes, error *e) {
    bpe_run *r = calloc(1, sizeof *r);
    *out = NULL;
    uint32_t slots = LEAST_SEEN;
    while (slots < text_bytes / 8 && slots < MOST_SEEN) slots *= 2;
    if (r) r->seen = calloc(slots, sizeof *r->seen);
    if (!r || !r->seen) {
        bpe_end(r);
        return fail(e, ERR_NOMEM, "memory is out");
    }
    r->b = b;
    r->ids = ids;
    r->mask = slots - 1;
    *out = r;
    return OK;
}

void bpe_end(bpe_run *r) {
    if (!r) return;
    free(r->seen);
    free(r->piece);
    free(r->heap);
    str_free(&r->letters);
    free(r);
}

/* rank[i] is that of joining pieces i and i + 1. */
static void short_word(bpe_run *r, int32_t *id, size_t n) {
    uint32_t rank[SHORT_WORD];
    int32_t made[SHORT_WORD];
    for (size_t i = 0; i + 1 < n; i++) {
        const merge *m = find_merge(r->b, (uint32_t)id[i], (uint32_t)id[i + 1]);
        rank[i] = m->made < 0 ? no_rank : m->rank;
        made[i] = m->made;
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == no_rank) break;
        id[best] = made[best];
        n--;
        memmove(id + best + 1, id + best + 2, (n - best - 1) * sizeof *id);
        memmove(rank + best, rank + best + 1, (n - best - 1) * sizeof *rank);
        memmove(made + best, made + best + 1, (n - best - 1) * sizeof *made);
        for (size_t i = best > 0 ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const merge *m = find_merge(r->b, (uint32_t)id[i], (uint32_t)id[i + 1]);
            rank[i] = m->made < 0 ? no_rank : m->rank;
            made[i] = m->made;
        }
    }
    id_list_add(r->ids, id, n);
}

static bool before(const candidate *a, const candidate *b) {
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_add(bpe_run *r, int32_t at) {
    int32_t next = r->piece[at].next;
    if (next < 0) return;
    const merge *m = find_merge(r->b, (uint32_t)r->piece[at].id, (uint32_t)r->piece[next].id);
    if (m->made < 0) return;
    candidate c = {m->rank, at, r->piece[at].id, r->piece[next].id, m->made};
    size_t i = r->heap_n++;
    for (; i > 0 && before(&c, &r->heap[(i - 1) / 2]); i = (i - 1) / 2) r->heap[i] = r->heap[(i - 1) / 2];
    r->heap[i] = c;
}

static candidate heap_take(bpe_run *r) {
    candidate top = r->heap[0], last = r->heap[--r->heap_n];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < r->heap_n; i = child) {
        if (child + 1 < r->heap_n && before(&r->heap[child + 1], &r->heap[child])) child++;
        if (!before(&r->heap[child], &last)) break;
        r->heap[i] = r->heap[child];
    }
    r->heap[i] = last;
    return top;
}

static status long_word(bpe_run *r, const char *word, size_t n, error *e) {
    if (n > r->cap) {
        free(r->piece);
        free(r->heap);
        r->cap = 0;
        r->piece = malloc(n * sizeof *r->piece);
        r->heap = malloc(3 * n * sizeof *r->heap);
        if (!r->piece || !r->heap) return fail(e, ERR_NOMEM, "memory is out");
        r->cap = n;
    }
    piece *p = r->piece;
    for (size_t i = 0; i < n; i++)
        p[i] = (piece){r->b->byte_id[(uint8_t)word[i]], (int32_t)i - 1, i + 1 < n ? (int32_t)i + 1 : -1};
    r->heap_n = 0;
    for (size_t i = 0; i < n; i++) heap_add(r, (int32_t)i);
    while (r->heap_n) {
        candidate c = heap_take(r);
        piece *left = &p[c.at];
        if (left->id != c.left || left->next < 0 || p[left->next].id != c.right) continue; /* out of date */
        piece *right = &p[left->next];
        left->id = c.made;
        right->id = -1;
        left->next = right->next;
        if (left->next >= 0) p[left->next].previous = c.at;
        heap_add(r, c.at);
        if (left->previous >= 0) heap_add(r, left->previous);
    }
    for (int32_t i = 0; i >= 0; i = p[i].next) id_list_add(r->ids, &p[i].id, 1);
    return OK;
}

/* The id of the token that is this word, -1 when there is none. */
static status whole_word(bpe_run *r, const char *word, size_t n, int32_t *id, error *e) {
    r->letters.n = 0;
    for (size_t i = 0; i < n; i++) {
        char letter[4];
        str_add(&r->letters, letter, utf8_put(letter, byte_to_letter((uint8_t)word[i])));
    }
    TRY(str_check(&r->letters, e));
    *id = vocab_find(r->b->v, r->letters.p, r->letters.n);
    if (*id >= 0 && (!r->b->v->token[*id].in_model || r->b->v->token[*id].special)) *id = -1;
    return OK;
}

static status new_word(bpe_run *r, const char *word, size_t n, error *e) {
    if (r->b->whole_words) {
        int32_t id;
        TRY(whole_word(r, word, n, &id, e));
        if (id >= 0) {
            id_list_add(r->ids, &id, 1);
            return OK;
        }
    }
    for (size_t i = 0; i < n; i++)
        if (r->b->byte_id[(uint8_t)word[i]] < 0)
            return fail(e, ERR_UNSUPPORTED, "the vocabulary has no token for byte 0x%02X", (uint8_t)word[i]);
    if (n > SHORT_WORD) return long_word(r, word, n, e);
    int32_t id[SHORT_WORD];
    for (size_t i = 0; i < n; i++) id[i] = r->b->byte_id[(uint8_t)word[i]];
    short_word(r, id, n);
    return OK;
}

status bpe_word(bpe_run *r, const char *word, size_t n, error *e) {
    seen *s = &r->seen[hash_bytes(word, n) & r->mask];
    if (s->word && s->n == n && memcmp(s->word, word, n) == 0) {
        for (size_t i = s->first; i < s->first + s->count; i++) {
            int32_t id = r->ids->p[i]; /* a copy: the list may move */
            id_list_add(r->ids, &id, 1);
        }
    } else {
        size_t first = r->ids->n;
        TRY(new_word(r, word, n, e));
        *s = (seen){word, n, first, r->ids->n - first};
    }
    return r->ids->failed ? fail(e, ERR_NOMEM, "memory is out") : OK;
}
