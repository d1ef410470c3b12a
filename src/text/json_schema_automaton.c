/* From the nondeterministic automaton of a pattern to a deterministic one (subset construction), whose states and
 * counts of characters become nodes of the grammar: so an answer is always at one place in a pattern, however it is
 * written, and all bombs go off here, where there is a limit.
 *
 * Characters are told apart only as far as the pattern does: its alphabet are the intervals between the bounds of all
 * its ranges. */
#include <stdlib.h>
#include <string.h>
#include "text/json_schema_pattern.h"

enum {
    MAX_STATES = 4096,
    MAX_LETTERS = 1024,
    MAX_WORK = 50000000,
    MAX_PAIRS = 200000,
    SLOTS = 2 * MAX_STATES,
    DEAD = -1
};

typedef struct state { /* a set of NFA nodes, sorted: members[first .. first + n) */
    int32_t first, n;
    bool accepts;
} state;

typedef struct dfa {
    const schema_compiler *c;
    const nfa *a;
    uint32_t *cut; /* letter i is the characters cut[i] .. cut[i + 1] - 1 */
    int32_t n_letters;
    state *states;
    int32_t n, *slot;
    int32_t *members, n_members, cap_members;
    int32_t *row; /* [state][letter] */
    /* the set that is being made */
    int32_t *set, *stack, *mark, n_set, now;
    int64_t work;
} dfa;

/* ---- letters ---- */

static int by_value(const void *left, const void *right) {
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

static status find_letters(dfa *d) {
    const nfa *a = d->a;
    d->cut = malloc((2 * (size_t)a->n_ranges + 2) * sizeof *d->cut);
    if (!d->cut) return fail(d->c->e, ERR_NOMEM, "memory is out");
    int32_t n = 0, kept = 0;
    d->cut[n++] = 0;
    d->cut[n++] = LAST_CHAR + 1;
    for (int32_t i = 0; i < a->n_ranges; i++) {
        d->cut[n++] = a->range[i].low;
        d->cut[n++] = a->range[i].high + 1;
    }
    qsort(d->cut, (size_t)n, sizeof *d->cut, by_value);
    for (int32_t i = 0; i < n; i++)
        if (i == 0 || d->cut[i] != d->cut[kept - 1]) d->cut[kept++] = d->cut[i];
    d->n_letters = kept - 1;
    return d->n_letters <= MAX_LETTERS
               ? OK
               : schema_fail(d->c, ERR_UNSUPPORTED, "\"pattern\": too many different characters");
}

static bool takes(const dfa *d, const nfa_node *n, int32_t letter) {
    for (int32_t i = 0; i < n->n_ranges; i++) {
        const char_range *r = d->a->range + n->ranges + i;
        if (r->low <= d->cut[letter] && d->cut[letter] <= r->high) return true;
    }
    return false;
}

/* ---- states ---- */

/* Adds a node and what it leads to without a character. Of what is beside a match nothing matters. */
static void add_closure(dfa *d, int32_t from, bool begin, bool end) {
    int32_t n = 0;
    if (d->mark[from] == d->now) return;
    d->mark[d->stack[n++] = from] = d->now;
    while (n) {
        int32_t at = d->stack[--n], to[2] = {DEAD, DEAD};
        const nfa_node *k = d->a->node + at;
        d->work++;
        if (k->kind == NFA_SPLIT) to[0] = k->other, to[1] = k->next;
        else if ((k->kind == NFA_BEGIN && begin) || (k->kind == NFA_END && end)) to[0] = k->next;
        else if (k->kind != NFA_BEGIN) d->set[d->n_set++] = at;
        for (int i = 0; i < 2; i++)
            if (to[i] != DEAD && d->mark[to[i]] != d->now) d->mark[d->stack[n++] = to[i]] = d->now;
    }
}

static bool has_match(const dfa *d) {
    for (int32_t i = 0; i < d->n_set; i++)
        if (d->a->node[d->set[i]].kind == NFA_MATCH) return true;
    return false;
}

static int by_number(const void *left, const void *right) {
    int32_t a = *(const int32_t *)left, b = *(const int32_t *)right;
    return (a > b) - (a < b);
}

/* Whether a text may end in the set (which this spoils); `begin`: it is also the text's beginning. */
static bool accepts_at_end(dfa *d, const state *s, bool begin) {
    d->n_set = 0;
    d->now++;
    for (int32_t i = 0; i < s->n; i++) add_closure(d, d->members[s->first + i], begin, true);
    return has_match(d);
}

static status find_state(dfa *d, bool begin, int32_t *out) {
    *out = DEAD;
    if (d->n_set == 0) return OK;
    if (has_match(d)) d->set[0] = 0, d->n_set = 1;
    qsort(d->set, (size_t)d->n_set, sizeof *d->set, by_number);
    uint32_t h = 7;
    for (int32_t i = 0; i < d->n_set; i++) h = (h ^ (uint32_t)d->set[i]) * 0x9e3779b1u, h ^= h >> 15;
    d->work += d->n_set;
    for (; d->slot[h % SLOTS] != DEAD; h++) {
        const state *s = d->states + d->slot[h % SLOTS];
        if (s->n != d->n_set || memcmp(d->members + s->first, d->set, (size_t)s->n * sizeof *d->set)) continue;
        *out = d->slot[h % SLOTS];
        return OK;
    }
    if (d->n == MAX_STATES || d->work > MAX_WORK)
        return schema_fail(d->c, ERR_UNSUPPORTED,
                           "\"pattern\": it takes too many states: make its repetitions simpler");
    while (d->n_members + d->n_set > d->cap_members) {
        int32_t cap = d->cap_members ? 2 * d->cap_members : 1024,
                *more = realloc(d->members, (size_t)cap * sizeof *more);
        if (!more) return fail(d->c->e, ERR_NOMEM, "memory is out");
        d->members = more;
        d->cap_members = cap;
    }
    memcpy(d->members + d->n_members, d->set, (size_t)d->n_set * sizeof *d->set);
    state *s = d->states + d->n;
    *s = (state){.first = d->n_members, .n = d->n_set};
    d->n_members += d->n_set;
    s->accepts = accepts_at_end(d, s, begin);
    *out = d->slot[h % SLOTS] = d->n++;
    return OK;
}

static status build(dfa *d) {
    d->now++;
    add_closure(d, d->a->start, true, false);
    int32_t first;
    TRY(find_state(d, true, &first));
    for (int32_t at = 0; at < d->n; at++) {
        int32_t *more = realloc(d->row, (size_t)(at + 1) * (size_t)d->n_letters * sizeof *more);
        if (!more) return fail(d->c->e, ERR_NOMEM, "memory is out");
        d->row = more;
        for (int32_t letter = 0; letter < d->n_letters; letter++) {
            const state s = d->states[at];
            d->n_set = 0;
            d->now++;
            for (int32_t i = 0; i < s.n; i++) {
                const nfa_node *n = d->a->node + d->members[s.first + i];
                d->work += 1 + n->n_ranges;
                if (n->kind == NFA_MATCH) add_closure(d, 0, false, false);
                else if (n->kind == NFA_CHARS && takes(d, n, letter)) add_closure(d, n->next, false, false);
            }
            TRY(find_state(d, false, d->row + (size_t)at * (size_t)d->n_letters + letter));
        }
    }
    return OK;
}

static status open_dfa(dfa *d, const schema_compiler *c, const nfa *a) {
    *d = (dfa){.c = c, .a = a};
    size_t n = (size_t)a->n;
    TRY(find_letters(d));
    d->states = malloc(MAX_STATES * sizeof *d->states);
    d->slot = malloc(SLOTS * sizeof *d->slot);
    d->set = malloc(n * sizeof *d->set);
    d->stack = malloc(n * sizeof *d->stack);
    d->mark = calloc(n, sizeof *d->mark);
    if (!d->states || !d->slot || !d->set || !d->stack || !d->mark) return fail(c->e, ERR_NOMEM, "memory is out");
    for (int32_t i = 0; i < SLOTS; i++) d->slot[i] = DEAD;
    return build(d);
}

static void close_dfa(dfa *d) {
    free(d->cut);
    free(d->states);
    free(d->slot);
    free(d->members);
    free(d->row);
    free(d->set);
    free(d->stack);
    free(d->mark);
}

/* ---- nodes ---- */

typedef struct writer {
    const dfa *d;
    rules *r;
    spelling how;
    int32_t min, most; /* counts go from 0 to most; without a maximum they stop at min */
    bool bounded;
    int32_t end;
    int32_t *at;     /* [state][count]: the node */
    int32_t n_known; /* sets of letters that have a rule: class_set[n_known][n_letters] */
    int32_t *class_rule;
    bool *class_set;
} writer;

/* The rule of a character of the letters that lead from state q to `to`. Sets that were met before have one. */
static int32_t letters_rule(writer *w, int32_t q, int32_t to) {
    const dfa *d = w->d;
    const int32_t n = d->n_letters, *row = d->row + (size_t)q * (size_t)n;
    bool *set = w->class_set + (size_t)w->n_known * (size_t)n;
    for (int32_t i = 0; i < n; i++) set[i] = row[i] == to;
    for (int32_t k = 0; k < w->n_known; k++)
        if (!memcmp(w->class_set + (size_t)k * (size_t)n, set, (size_t)n * sizeof *set)) return w->class_rule[k];
    int32_t start = NEVER;
    for (int32_t i = 0, k; i < n; i = k) {
        for (k = i + 1; k < n && set[k] == set[i];) k++;
        if (set[i]) start = rules_either(w->r, start, json_chars(d->c->t, w->how, d->cut[i], d->cut[k] - 1, RETURN));
    }
    int32_t rule = rules_rule_of(w->r, false, start);
    if (w->n_known < MAX_LETTERS) w->class_rule[w->n_known++] = rule;
    return rule;
}

static int32_t write_state(writer *w, int32_t q, int32_t count) {
    const dfa *d = w->d;
    const int32_t n = d->n_letters, *row = d->row + (size_t)q * (size_t)n, width = w->most + 1;
    int32_t start = d->states[q].accepts && count >= w->min ? w->end : NEVER;
    if (w->bounded && count == w->most) return start;
    int32_t next = count < w->most ? count + 1 : count;
    for (int32_t i = 0; i < n; i++) {
        int32_t to = row[i], k = 0;
        while (k < i && row[k] != to) k++;
        if (to == DEAD || k < i) continue;
        int32_t rule = letters_rule(w, q, to);
        start = rules_either(w->r, start, rules_call(w->r, rule, w->at[(size_t)to * (size_t)width + (size_t)next]));
    }
    return start;
}

static void write_all(writer *w) {
    const int32_t width = w->most + 1;
    for (int32_t i = 0; i < w->d->n * width; i++) w->at[i] = rules_add(w->r, (grammar_node){.kind = NODE_SPLIT});
    for (int32_t i = 0; i < w->d->n * width && w->r->failed == OK; i++) {
        int32_t start = write_state(w, i / width, i % width);
        if (w->r->failed == OK) w->r->node[w->at[i]].next = w->r->node[w->at[i]].other = start;
    }
}

static status write(const dfa *d, spelling how, int32_t min, int32_t max, int32_t end, int32_t *start) {
    writer w = {.d = d, .r = d->c->t->r, .how = how, .min = min, .most = max == UNBOUNDED ? min : max, .end = end};
    w.bounded = max != UNBOUNDED;
    if (((int64_t)w.most + 1) * d->n > MAX_PAIRS)
        return schema_fail(d->c, ERR_UNSUPPORTED, "\"pattern\" with these lengths takes too many states");
    w.at = malloc((size_t)(w.most + 1) * (size_t)d->n * sizeof *w.at);
    w.class_rule = malloc(MAX_LETTERS * sizeof *w.class_rule);
    w.class_set = malloc((MAX_LETTERS + 1) * (size_t)d->n_letters * sizeof *w.class_set);
    bool ready = w.at && w.class_rule && w.class_set;
    if (ready) write_all(&w);
    *start = ready ? w.at[0] : NEVER;
    free(w.at);
    free(w.class_rule);
    free(w.class_set);
    return ready ? OK : fail(d->c->e, ERR_NOMEM, "memory is out");
}

status pattern_rules(schema_compiler *c, const nfa *a, spelling how, int32_t min, int32_t max, int32_t end,
                     int32_t *start) {
    dfa d;
    status s = open_dfa(&d, c, a);
    if (s == OK) s = schema_spend(c, (size_t)d.work);
    if (s == OK) s = write(&d, how, min, max, end, start);
    close_dfa(&d);
    return s;
}
