#include "text/grammar_rules.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_RULES = 100000, MAX_NODES = 1000000, MAX_BRANCHES = 256, UNKNOWN = UINT8_MAX };

/* ---- writing ---- */

status rules_open(rules *r, error *e) {
    *r = (rules){0};
    rules_add(r, (grammar_node){.kind = NODE_RETURN});
    rules_add(r, (grammar_node){.kind = NODE_NEVER});
    return r->failed == OK ? OK : fail(e, ERR_NOMEM, "memory is out");
}

void rules_close(rules *r) {
    free(r->node);
    free(r->rule);
    free(r->need);
    *r = (rules){0};
}

/* Room for one more of `size` bytes in *array. */
static bool grow(rules *r, void **array, size_t size, int32_t n, int32_t *cap, int32_t max) {
    if (r->failed == OK && n == max) r->failed = ERR_ARG;
    if (r->failed == OK && n == *cap) {
        int32_t more = *cap ? 2 * *cap : 64;
        void *p = realloc(*array, (size_t)more * size);
        if (p) *array = p, *cap = more;
        else r->failed = ERR_NOMEM;
    }
    return r->failed == OK;
}

int32_t rules_add(rules *r, grammar_node n) {
    if (!grow(r, (void **)&r->node, sizeof n, r->n_nodes, &r->cap_nodes, MAX_NODES)) return NEVER;
    r->node[r->n_nodes] = n;
    return r->n_nodes++;
}

int32_t rules_bytes(rules *r, uint8_t low, uint8_t high, int32_t next) {
    if (next == NEVER) return NEVER;
    return rules_add(r, (grammar_node){.kind = NODE_BYTES, .low = low, .high = high, .next = next});
}

int32_t rules_literal(rules *r, const char *p, size_t n, int32_t next) {
    while (n--) next = rules_bytes(r, (uint8_t)p[n], (uint8_t)p[n], next);
    return next;
}

int32_t rules_word(rules *r, const char *terminated, int32_t next) {
    return rules_literal(r, terminated, strlen(terminated), next);
}

int32_t rules_token(rules *r, int32_t id, int32_t next) {
    return rules_add(r, (grammar_node){.kind = NODE_TOKEN, .other = id, .next = next});
}

int32_t rules_either(rules *r, int32_t a, int32_t b) {
    if (a == NEVER || a == b) return b;
    return b == NEVER ? a : rules_add(r, (grammar_node){.kind = NODE_SPLIT, .next = a, .other = b});
}

int32_t rules_call(rules *r, int32_t rule, int32_t next) {
    return rules_add(r, (grammar_node){.kind = NODE_CALL, .other = rule, .next = next});
}

int32_t rules_repeat(rules *r, int32_t rule, int32_t min, int32_t max, int32_t next) {
    if (max == 0) return next;
    return rules_add(r, (grammar_node){.kind = NODE_REPEAT, .other = rule, .min = min, .max = max, .next = next});
}

int32_t rules_rule(rules *r, bool nested) {
    if (!grow(r, (void **)&r->rule, sizeof *r->rule, r->n_rules, &r->cap_rules, MAX_RULES)) return 0;
    r->rule[r->n_rules] = (grammar_rule){NEVER, nested};
    return r->n_rules++;
}

void rules_start(rules *r, int32_t rule, int32_t start) {
    if (r->failed == OK) r->rule[rule].start = start;
}

int32_t rules_rule_of(rules *r, bool nested, int32_t start) {
    int32_t rule = rules_rule(r, nested);
    rules_start(r, rule, start);
    return rule;
}

static int by_bytes(const void *left, const void *right) {
    const text *a = left, *b = right;
    int order = memcmp(a->p, b->p, a->n < b->n ? a->n : b->n);
    return order ? order : (a->n > b->n) - (a->n < b->n);
}

/* Of sorted words that agree in the first `at` bytes: what all share comes first, then the words part. Where too many
 * branch off one another they are written one by one. */
static int32_t branch(rules *r, const text *words, size_t n, size_t at, int32_t next, int level) {
    const text *last = words + n - 1;
    size_t same = at;
    while (same < words->n && same < last->n && words->p[same] == last->p[same]) same++;
    if (n == 1) same = words->n;
    int32_t start = NEVER;
    for (size_t i = 0; i < n;) {
        size_t k = i + 1;
        if (words[i].n == same) {
            start = rules_either(r, start, next);
            while (k < n && words[k].n == same) k++;
        } else {
            while (level < MAX_BRANCHES && k < n && words[k].p[same] == words[i].p[same]) k++;
            start = rules_either(r, start, branch(r, words + i, k - i, same, next, level + 1));
        }
        i = k;
    }
    return rules_literal(r, words->p + at, same - at, start);
}

int32_t rules_words(rules *r, text *words, size_t n, int32_t next) {
    if (n == 0) return NEVER;
    qsort(words, n, sizeof *words, by_bytes);
    return branch(r, words, n, 0, next, 0);
}

/* low and high have equally many bytes in UTF-8 and all but the first of those that differ run through their range. */
static int32_t char_bytes(rules *r, uint32_t low, uint32_t high, int32_t next) {
    char a[4], b[4];
    size_t n = utf8_put(a, low);
    utf8_put(b, high);
    while (n--) next = rules_bytes(r, (uint8_t)a[n], (uint8_t)b[n], next);
    return next;
}

int32_t rules_chars(rules *r, uint32_t low, uint32_t high, int32_t next) {
    static const uint32_t ends[] = {0x7f, 0x7ff, 0xd7ff, 0xdfff, 0xffff};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (low <= ends[i] && ends[i] < high)
            return rules_either(r, rules_chars(r, low, ends[i], next), rules_chars(r, ends[i] + 1, high, next));
    if (low >= 0xd800 && high <= 0xdfff) return NEVER; /* surrogates are not characters */
    for (unsigned i = 6; high > 0x7f && i <= 18; i += 6) {
        uint32_t m = (1u << i) - 1;
        if ((low & ~m) == (high & ~m)) continue;
        uint32_t cut = low & m ? low | m : (high & m) != m ? (high & ~m) - 1 : high;
        if (cut < high) return rules_either(r, rules_chars(r, low, cut, next), rules_chars(r, cut + 1, high, next));
    }
    return char_bytes(r, low, high, next);
}

/* ---- finishing ---- */

/* Who needs whom: the nodes that lead to node i are from[first[i] .. first[i + 1]), a rule's start to its callers. */
typedef struct leads {
    int32_t *first, *from, *link, *bucket;
} leads;

static bool can_be_written(const token_bytes *b, const grammar_node *n) {
    for (int c = n->low; c <= n->high; c++)
        if (b->alone[c]) return true;
    return false;
}

/* The nodes that n leads to; their number. */
static int targets(const rules *r, const token_bytes *b, const grammar_node *n, int32_t to[2]) {
    switch ((node_kind)n->kind) {
    case NODE_BYTES: to[0] = n->next; return can_be_written(b, n);
    case NODE_TOKEN: to[0] = n->next; return 1;
    case NODE_SPLIT: to[0] = n->next, to[1] = n->other; return 2;
    case NODE_REPEAT: to[0] = n->next, to[1] = r->rule[n->other].start; return n->min ? 2 : 1;
    case NODE_CALL: to[0] = n->next, to[1] = r->rule[n->other].start; return 2;
    default: return 0;
    }
}

static void find_leads(const rules *r, const token_bytes *b, leads *l) {
    int32_t to[2];
    for (int32_t i = 0; i < r->n_nodes; i++)
        for (int k = targets(r, b, r->node + i, to); k--;) l->first[to[k] + 1]++;
    for (int32_t i = 0; i < r->n_nodes; i++) l->first[i + 1] += l->first[i];
    for (int32_t i = 0; i < r->n_nodes; i++)
        for (int k = targets(r, b, r->node + i, to); k--;) l->from[l->first[to[k]]++] = i;
    memmove(l->first + 1, l->first, (size_t)r->n_nodes * sizeof *l->first);
    l->first[0] = 0;
}

/* What node i needs by what is known; UNKNOWN. */
static int need_of(const rules *r, const token_bytes *b, int32_t i) {
    const grammar_node *n = r->node + i;
    int32_t to[2] = {NEVER, NEVER};
    int k = targets(r, b, n, to), first = r->need[to[0]], second = r->need[to[1]];
    if (n->kind == NODE_SPLIT) return first < second ? first : second;
    if (k == 1) return first;
    if (first == UNKNOWN || second == UNKNOWN) return UNKNOWN;
    second += r->rule[n->other].nested;
    return first > second ? first : second;
}

/* Knuth's generalization of Dijkstra's algorithm (1977): needs are found in rising order, so the first one found for a
 * node is its least. Nodes that wait stand in a list for each value. */
static void find_needs(rules *r, const token_bytes *b, leads *l) {
    memset(r->need, UNKNOWN, (size_t)r->n_nodes);
    for (int i = 0; i <= MAX_NESTING; i++) l->bucket[i] = -1;
    uint8_t *need = r->need;
    need[RETURN] = 0;
    l->bucket[0] = RETURN;
    l->link[RETURN] = -1;
    for (int level = 0; level <= MAX_NESTING; level++)
        while (l->bucket[level] >= 0) {
            int32_t at = l->bucket[level];
            l->bucket[level] = l->link[at];
            for (int32_t k = l->first[at]; k < l->first[at + 1]; k++) {
                int32_t i = l->from[k];
                int value = need[i] == UNKNOWN ? need_of(r, b, i) : UNKNOWN;
                if (value > MAX_NESTING) continue;
                need[i] = (uint8_t)value;
                l->link[i] = l->bucket[value];
                l->bucket[value] = i;
            }
        }
}

static void find_classes(rules *r) {
    bool cut[257] = {false};
    for (int32_t i = 0; i < r->n_nodes; i++) {
        const grammar_node *n = r->node + i;
        if (n->kind != NODE_BYTES) continue;
        cut[n->low] = cut[n->high + 1] = true;
        r->has_text |= n->text;
    }
    r->n_classes = 0;
    for (int c = 0; c < 256; c++) {
        if (c == 0 || cut[c]) r->example[r->n_classes++] = (uint8_t)c;
        r->class_of[c] = (uint8_t)(r->n_classes - 1);
    }
}

status rules_check(const rules *r, error *e) {
    if (r->failed == ERR_ARG)
        return fail(e, ERR_ARG, "the grammar is too large (more than %d rules or %d steps): make the schema simpler",
                    MAX_RULES, MAX_NODES);
    return r->failed == OK ? OK : fail(e, ERR_NOMEM, "memory is out");
}

status rules_finish(rules *r, const token_bytes *b, int32_t start, error *e) {
    TRY(rules_check(r, e));
    size_t n = (size_t)r->n_nodes;
    leads l = {.first = calloc(n + 2, sizeof(int32_t)),
               .from = malloc(2 * n * sizeof(int32_t)),
               .link = malloc(n * sizeof(int32_t)),
               .bucket = malloc((MAX_NESTING + 1) * sizeof(int32_t))};
    r->need = malloc(n);
    bool ready = l.first && l.from && l.link && l.bucket && r->need;
    if (ready) {
        find_leads(r, b, &l);
        find_needs(r, b, &l);
        find_classes(r);
    }
    free(l.first);
    free(l.from);
    free(l.link);
    free(l.bucket);
    if (!ready) return fail(e, ERR_NOMEM, "memory is out");
    int need = r->need[r->rule[start].start] + r->rule[start].nested;
    if (need <= MAX_NESTING) return OK;
    for (int c = ' '; c < 0x7f; c++)
        if (!b->alone[c])
            return fail(e, ERR_UNSUPPORTED,
                        "the tokenizer has no token for '%c' by itself, so such answers "
                        "cannot be written with it",
                        c);
    return fail(e, ERR_ARG, "no answer is possible: the schema allows no (finite) value");
}
