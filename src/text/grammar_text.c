#include "text/grammar_text.h"

#include <stdlib.h>
#include <string.h>

status grammar_marker(rules *r, const token_bytes *b, const char *marker, int32_t next, int32_t *start, error *e) {
    int32_t *ids;
    size_t n;
    TRY(tokenizer_encode(b->t, marker, strlen(marker), TOK_PARSE_SPECIAL, &ids, &n, e));
    while (n--) {
        size_t bytes;
        const char *p = tokenizer_bytes(b->t, ids[n], &bytes);
        next = b->is_added[ids[n]] ? rules_token(r, ids[n], next) : rules_literal(r, p, bytes, next);
    }
    free(ids);
    *start = next;
    return OK;
}

/* ---- free text: the automaton of Aho and Corasick (1975) over the markers, times one that follows UTF-8 ---- */

enum { MAX_STATES = 128, UTF8_STATES = 8, DONE = MAX_STATES };

/* UTF-8 (RFC 3629, section 4): state 0 is between characters; -1: it cannot be. */
static int utf8_next(int state, int byte) {
    static const struct {
        uint8_t low, high, to;
    } rest[] = {{0, 0, 0},       {0x80, 0xbf, 0}, {0x80, 0xbf, 1}, {0x80, 0xbf, 2},
                {0xa0, 0xbf, 1}, {0x80, 0x9f, 1}, {0x90, 0xbf, 2}, {0x80, 0x8f, 2}};
    if (state) return byte >= rest[state].low && byte <= rest[state].high ? rest[state].to : -1;
    if (byte < 0x80) return byte ? 0 : -1;
    if (byte < 0xc2 || byte > 0xf4) return -1;
    if (byte < 0xe0) return 1;
    if (byte < 0xf0) return byte == 0xe0 ? 4 : byte == 0xed ? 5 : 2;
    return byte == 0xf0 ? 6 : byte == 0xf4 ? 7 : 3;
}

/* State i > 0 is the first length[i] bytes of marker[of[i]]. */
typedef struct matcher {
    const free_text *f;
    int n, of[MAX_STATES], length[MAX_STATES];
    uint8_t next[MAX_STATES][256]; /* the state behind a byte; DONE + k: marker k is complete */
} matcher;

static int find_state(const matcher *m, const char *p, size_t n) {
    for (int i = 0; i < m->n; i++)
        if ((size_t)m->length[i] == n && !memcmp(m->f->marker[m->of[i]], p, n)) return i;
    return -1;
}

/* The longest end of the state's text and the byte that begins a marker, or is one. */
static int match_next(const matcher *m, int state, int byte) {
    char seen[MAX_STATES + 1];
    size_t n = (size_t)m->length[state];
    memcpy(seen, m->f->marker[m->of[state]], n);
    seen[n++] = (char)byte;
    for (size_t from = 0; from < n; from++) {
        for (int k = 0; k < m->f->n; k++)
            if (strlen(m->f->marker[k]) == n - from && !memcmp(m->f->marker[k], seen + from, n - from)) return DONE + k;
        int to = find_state(m, seen + from, n - from);
        if (to >= 0) return to;
    }
    return 0;
}

static status open_matcher(matcher *m, const free_text *f, error *e) {
    memset(m, 0, sizeof *m);
    m->f = f;
    m->n = 1;
    for (int k = 0; k < f->n; k++)
        for (size_t n = 1; n < strlen(f->marker[k]); n++) {
            if (find_state(m, f->marker[k], n) >= 0) continue;
            if (m->n == MAX_STATES) return fail(e, ERR_ARG, "markers are too long");
            m->of[m->n] = k;
            m->length[m->n++] = (int)n;
        }
    for (int k = 0; k < f->n; k++)
        for (const char *p = f->marker[k]; *p; p++)
            for (int i = 0; i < m->n; i++) m->next[i][(uint8_t)*p] = (uint8_t)match_next(m, i, *p);
    return OK;
}

/* The node behind a byte; at[utf8 * MAX_STATES + state] are the nodes of the states. */
static int32_t free_next(const matcher *m, const int32_t *at, int utf8, int state, int byte) {
    int u = m->f->strict ? utf8_next(utf8, byte) : 0, to = m->next[state][byte];
    if (u < 0) return NEVER;
    return to >= DONE ? m->f->follows[to - DONE] : at[u * MAX_STATES + to];
}

static int32_t free_arcs(rules *r, const matcher *m, const int32_t *at, int utf8, int state) {
    int32_t start = utf8 == 0 ? m->f->also : NEVER;
    for (int low = 0, high; low < 256; low = high + 1) {
        int32_t next = free_next(m, at, utf8, state, low);
        for (high = low; high < 255 && free_next(m, at, utf8, state, high + 1) == next;) high++;
        if (next == NEVER) continue;
        int32_t arc = rules_bytes(r, (uint8_t)low, (uint8_t)high, next);
        if (r->failed == OK) r->node[arc].text = !m->f->strict;
        start = rules_either(r, start, arc);
    }
    return start;
}

status grammar_free_text(rules *r, const free_text *f, int32_t *start, error *e) {
    matcher m;
    int32_t at[UTF8_STATES * MAX_STATES];
    TRY(open_matcher(&m, f, e));
    const int utf8_states = f->strict ? UTF8_STATES : 1;
    for (int u = 0; u < utf8_states; u++)
        for (int i = 0; i < m.n; i++) at[u * MAX_STATES + i] = rules_add(r, (grammar_node){.kind = NODE_SPLIT});
    for (int u = 0; u < utf8_states && r->failed == OK; u++)
        for (int i = 0; i < m.n && r->failed == OK; i++) {
            int32_t arcs = free_arcs(r, &m, at, u, i);
            if (r->failed == OK) r->node[at[u * MAX_STATES + i]].next = r->node[at[u * MAX_STATES + i]].other = arcs;
        }
    *start = at[0];
    return rules_check(r, e);
}
