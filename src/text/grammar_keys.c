#include "text/grammar_keys.h"

#include <stdlib.h>
#include <string.h>

static bool finish_key(key_watch *w) {
    key_level *l = w->level + w->at.depth;
    const int32_t start = w->at.key_start, n = (int32_t)w->text.n - start;
    for (int32_t k = l->last; k >= 0; k = w->keys[k].before)
        if (w->keys[k].n == n && !memcmp(w->text.p + w->keys[k].start, w->text.p + start, (size_t)n)) return false;
    if (w->n_keys == w->cap_keys) {
        int32_t cap = w->cap_keys ? 2 * w->cap_keys : 32;
        seen_key *more = realloc(w->keys, (size_t)cap * sizeof *more);
        if (!more) return w->failed = true;
        w->keys = more;
        w->cap_keys = cap;
    }
    w->keys[w->n_keys] = (seen_key){start, n, l->last};
    l->last = w->n_keys++;
    return true;
}

static bool read_in_string(key_watch *w, char c) {
    key_place *at = &w->at;
    if (c == '"' && !at->escape) {
        bool key = at->in_key;
        at->in_string = at->in_key = false;
        return !key || finish_key(w);
    }
    at->escape = c == '\\' && !at->escape;
    if (at->in_key) str_putc(&w->text, c);
    return true;
}

static void open_level(key_watch *w, bool object) {
    if (w->at.depth < MAX_NESTING) w->level[++w->at.depth] = (key_level){object, object, -1};
}

static bool read_byte(key_watch *w, char c) {
    key_place *at = &w->at;
    key_level *l = w->level + at->depth;
    if (at->in_string) return read_in_string(w, c);
    switch (c) {
    case '"':
        at->in_string = true;
        at->in_key = l->at_key;
        l->at_key = false;
        at->key_start = (int32_t)w->text.n;
        if (!w->text.p) str_puts(&w->text, ""); /* the first key may be empty */
        break;
    case ',': l->at_key = l->object; break;
    case '{':
    case '[': open_level(w, c == '{'); break;
    case '}':
    case ']': at->depth -= at->depth > 0; break;
    default: break;
    }
    return true;
}

bool keys_read(key_watch *w, const char *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!read_byte(w, p[i])) return false;
    w->failed |= w->text.failed;
    return true;
}

bool keys_allow(key_watch *w, const char *p, size_t n) {
    key_level level[MAX_NESTING + 1];
    const key_place at = w->at;
    const int32_t n_keys = w->n_keys;
    const size_t text_n = w->text.n;
    memcpy(level, w->level, ((size_t)at.depth + 1) * sizeof *level);
    bool ok = keys_read(w, p, n);
    memcpy(w->level, level, ((size_t)at.depth + 1) * sizeof *level);
    w->at = at;
    w->n_keys = n_keys; /* what was added stands behind the ends of the lists */
    w->text.n = text_n;
    return ok;
}

void keys_free(key_watch *w) {
    str_free(&w->text);
    free(w->keys);
}
