/* Finding added tokens, as the Hugging Face library does (tokenizers/src/tokenizer/added_vocabulary.rs): the leftmost
 * longest match, without overlaps; one that is turned down (a special token in plain text, a single_word token inside
 * a word) still covers its place.
 *
 * The tokens are sorted, so those that agree with the text so far are a range, which each further byte narrows. */
#include "text/added.h"

#include <stdlib.h>
#include <string.h>
#include "text/unicode.h"

enum { MAX_LENGTH = 1024 }; /* a bound on the work at each place of a text */

status added_add(added_set *s, const added_token *token, error *e) {
    if (token->n > MAX_LENGTH)
        return fail(e, ERR_UNSUPPORTED, "added token %d has %zu bytes, more than %d", token->id, token->n, MAX_LENGTH);
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 16;
        added_token *more = realloc(s->token, cap * sizeof *more);
        if (!more) return fail(e, ERR_NOMEM, "memory is out");
        s->token = more;
        s->cap = cap;
    }
    s->token[s->n++] = *token;
    s->first[(uint8_t)token->text[0]] = true;
    return OK;
}

static int by_text(const void *left, const void *right) {
    const added_token *a = left, *b = right;
    int order = memcmp(a->text, b->text, a->n < b->n ? a->n : b->n);
    return order ? order : (a->n > b->n) - (a->n < b->n);
}

void added_sort(added_set *s) {
    if (s->n) qsort(s->token, s->n, sizeof *s->token, by_text);
}

void added_free(added_set *s) {
    free(s->token);
    *s = (added_set){0};
}

/* The first of token[low, high) whose byte i is at least `byte`; all of them are longer than i. */
static size_t lower_bound(const added_set *s, size_t low, size_t high, size_t i, unsigned byte) {
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((uint8_t)s->token[middle].text[i] < byte) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* *cut: others are longer than the text, which is how they begin. */
static const added_token *longest_at(const added_set *s, const char *text, size_t n, bool *cut) {
    const added_token *best = NULL;
    size_t low = 0, high = n && s->first[(uint8_t)text[0]] ? s->n : 0;
    for (size_t i = 0; i < n && low < high; i++) {
        low = lower_bound(s, low, high, i, (uint8_t)text[i]);
        high = lower_bound(s, low, high, i, (uint8_t)text[i] + 1u);
        while (low < high && s->token[low].n == i + 1) best = &s->token[low++];
    }
    *cut = low < high;
    return best;
}

size_t added_at(const added_set *s, const char *text, size_t n, bool *cut) {
    uint32_t c;
    const added_token *t = longest_at(s, text, n, cut);
    return t && t->n > utf8_get(t->text, &c) ? t->n : 0;
}

static size_t space_before(const char *text, size_t at) {
    for (;;) {
        size_t start = at;
        while (start > 0 && ((uint8_t)text[--start] & 0xC0) == 0x80) {}
        uint32_t c;
        if (start == at || (utf8_get(text + start, &c), !is_white_space(c))) return at;
        at = start;
    }
}

static size_t space_after(const char *text, size_t n, size_t at) {
    while (at < n) {
        uint32_t c;
        size_t k = utf8_get(text + at, &c);
        if (!is_white_space(c)) break;
        at += k;
    }
    return at;
}

static bool inside_word(const char *text, size_t n, size_t start, size_t end) {
    uint32_t c;
    if (end < n) {
        utf8_get(text + end, &c);
        if (is_word(c)) return true;
    }
    if (start == 0) return false;
    while (((uint8_t)text[--start] & 0xC0) == 0x80) {}
    utf8_get(text + start, &c);
    return is_word(c);
}

bool added_next(const added_set *s, const char *text, size_t n, bool plain, size_t *from, size_t done, added_match *m) {
    if (!s->n) return false;
    while (*from < n) {
        bool cut;
        size_t start = *from;
        const added_token *t = longest_at(s, text + start, n - start, &cut);
        if (!t) {
            ++*from;
            continue;
        }
        size_t end = start + t->n;
        *from = end;
        if (plain && t->special) continue;
        if (t->single_word && inside_word(text, n, start, end)) continue;
        if (t->lstrip) start = space_before(text, start);
        if (t->rstrip) end = space_after(text, n, end);
        *m = (added_match){start < done ? done : start, end, t->id};
        return true;
    }
    return false;
}
