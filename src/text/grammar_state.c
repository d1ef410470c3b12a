/* Walking a grammar. A place in it is a set of configurations (a node and a stack of returns); stacks share their
 * lower parts. Places are numbered as they are met, and the place behind each byte is remembered, so that walking the
 * vocabulary's tree is walking a finite automaton that is built on the way.
 *
 * Sets that grow too large lose their last configurations: that forbids some answers and allows no wrong one, and
 * whatever is left can be brought to its end (rules.need sees to the nesting). */
#include <stdlib.h>
#include <string.h>
#include "text/grammar_inner.h"
#include "text/grammar_keys.h"

enum {
    MAX_VISITED = 4096, /* configurations, and what leads to them, of one set */
    VISITED_SLOTS = 2 * MAX_VISITED,
    MAX_PLACES = 4096,  /* at once */
    MANY_PLACES = 1024, /* before a token: all but the current one are forgotten */
    PLACE_SLOTS = 4 * MAX_PLACES,
    MANY_FRAMES = 1 << 15,
    MANY_CONFIGS = 1 << 16,
    MAX_STORED = 1 << 22, /* frames, configurations */
    MASKS = 16,           /* kept */
    MAX_EOS = 16,
    UNKNOWN = -1,
    NOWHERE = 0 /* the place of no configuration */
};

typedef struct frame { /* of a stack: where a rule returns to */
    int32_t below, node, count, depth;
} frame;

typedef struct config {
    int32_t node, frame;
} config;

typedef struct item { /* a node on the way to configurations; count: repetitions done at a NODE_REPEAT */
    int32_t node, frame, count;
} item;

typedef struct place {
    int32_t first, n; /* configurations */
    bool accepts;
} place;

typedef struct kept_mask {
    int32_t place; /* NOWHERE: none */
    uint32_t *bits;
} kept_mask;

struct grammar_state {
    const grammar *g;
    int32_t at;                /* the place */
    bool ended, stuck, failed; /* stuck: no token leads on */
    int32_t eos[MAX_EOS];
    int n_eos;
    frame *frames; /* frames[0] is the bottom of all stacks */
    place *places;
    config *configs;
    int32_t *row; /* [place][symbol]: the place behind it; symbols: classes of bytes, then those of added tokens */
    int32_t width;
    int32_t n_frames, n_places, n_configs, cap_frames, cap_places, cap_configs;
    int32_t *frame_slot, *place_slot; /* hash tables of numbers; UNKNOWN: empty */
    int32_t frame_slots;
    /* the set that is being made */
    item *todo, *seen; /* [MAX_VISITED], [VISITED_SLOTS] */
    uint32_t *stamp, now;
    config *set;
    int n_todo, n_seen, n_set;
    bool accepts;
    int32_t *path; /* of a walk: the place at each depth */
    kept_mask mask[MASKS];
    int next_mask;
    key_watch keys;
    int stage; /* of grammar.json_behind: how many of its markers have come */
    str tail;  /* the answer's text since then */
};

/* ---- tables ---- */

static uint32_t mix(uint32_t h, int32_t v) {
    h = (h ^ (uint32_t)v) * 0x9e3779b1u;
    return h ^ (h >> 15);
}

static bool grow(grammar_state *s, void **array, size_t size, int32_t need, int32_t *cap) {
    if (s->failed || need <= *cap) return !s->failed;
    int32_t more = *cap ? *cap : 256;
    while (more < need) more *= 2;
    void *p = more <= MAX_STORED ? realloc(*array, (size_t)more * size) : NULL;
    if (p) *array = p, *cap = more;
    else s->failed = true;
    return p != NULL;
}

static uint32_t frame_hash(const frame *f) {
    return mix(mix(mix(7, f->below), f->node), f->count);
}

static void frames_rehash(grammar_state *s, int32_t slots) {
    int32_t *p = realloc(s->frame_slot, (size_t)slots * sizeof *p);
    if (!p) {
        s->failed = true;
        return;
    }
    s->frame_slot = p;
    s->frame_slots = slots;
    for (int32_t i = 0; i < slots; i++) p[i] = UNKNOWN;
    for (int32_t i = 1; i < s->n_frames; i++) {
        uint32_t h = frame_hash(s->frames + i);
        while (p[h & (uint32_t)(slots - 1)] != UNKNOWN) h++;
        p[h & (uint32_t)(slots - 1)] = i;
    }
}

static int32_t frame_number(grammar_state *s, frame f) {
    if (s->n_frames * 2 >= s->frame_slots) frames_rehash(s, s->frame_slots * 2);
    if (!grow(s, (void **)&s->frames, sizeof f, s->n_frames + 1, &s->cap_frames)) return 0;
    const uint32_t mask = (uint32_t)(s->frame_slots - 1);
    uint32_t h = frame_hash(&f);
    for (; s->frame_slot[h & mask] != UNKNOWN; h++) {
        const frame *o = s->frames + s->frame_slot[h & mask];
        if (o->below == f.below && o->node == f.node && o->count == f.count) return s->frame_slot[h & mask];
    }
    s->frames[s->n_frames] = f;
    return s->frame_slot[h & mask] = s->n_frames++;
}

/* ---- sets of configurations ---- */

/* Whether the item is new to this set, and there is room for it. */
static bool first_visit(grammar_state *s, item it) {
    uint32_t h = mix(mix(mix(3, it.node), it.frame), it.count);
    for (;; h++) {
        uint32_t i = h & (VISITED_SLOTS - 1);
        if (s->stamp[i] != s->now) {
            if (s->n_seen == MAX_VISITED) return false;
            s->n_seen++;
            s->stamp[i] = s->now;
            s->seen[i] = it;
            return true;
        }
        const item *o = s->seen + i;
        if (o->node == it.node && o->frame == it.frame && o->count == it.count) return false;
    }
}

/* Adds an item, unless what it still needs goes deeper than answers may. */
static void put(grammar_state *s, int32_t n, int32_t f, int32_t count) {
    item it = {n, f, count};
    if (s->g->r.need[n] + s->frames[f].depth > MAX_NESTING || !first_visit(s, it)) return;
    s->todo[s->n_todo++] = it;
}

/* Goes into a rule, to come back to `node` with `count`. */
static void enter(grammar_state *s, int32_t rule, int32_t f, int32_t node, int32_t count) {
    const grammar_rule *to = s->g->r.rule + rule;
    int32_t depth = s->frames[f].depth + to->nested;
    if (node != RETURN || to->nested) f = frame_number(s, (frame){f, node, count, depth});
    put(s, to->start, f, 0);
}

static void repeat(grammar_state *s, const grammar_node *n, item it) {
    int32_t most = n->max == UNBOUNDED ? n->min : n->max; /* a count that matters */
    if (n->max == UNBOUNDED || it.count < n->max)
        enter(s, n->other, it.frame, it.node, it.count < most ? it.count + 1 : most);
    if (it.count >= n->min) put(s, n->next, it.frame, 0);
}

static void expand(grammar_state *s, item it) {
    const grammar_node *n = s->g->r.node + it.node;
    const frame back = s->frames[it.frame];
    switch ((node_kind)n->kind) {
    case NODE_BYTES:
    case NODE_TOKEN: s->set[s->n_set++] = (config){it.node, it.frame}; break;
    case NODE_SPLIT:
        put(s, n->other, it.frame, 0);
        put(s, n->next, it.frame, 0);
        break;
    case NODE_CALL: enter(s, n->other, it.frame, n->next, 0); break;
    case NODE_REPEAT: repeat(s, n, it); break;
    case NODE_RETURN:
        if (it.frame) put(s, back.node, back.below, back.count);
        else s->accepts = true;
        break;
    case NODE_NEVER: break;
    }
}

static void set_begin(grammar_state *s) {
    if (++s->now == 0) {
        memset(s->stamp, 0, VISITED_SLOTS * sizeof *s->stamp);
        s->now = 1;
    }
    s->n_seen = s->n_todo = s->n_set = 0;
    s->accepts = false;
}

static void set_add(grammar_state *s, int32_t n, int32_t f) {
    put(s, n, f, 0);
    while (s->n_todo && !s->failed) expand(s, s->todo[--s->n_todo]);
}

static int by_number(const void *left, const void *right) {
    const config *a = left, *b = right;
    if (a->node != b->node) return (a->node > b->node) - (a->node < b->node);
    return (a->frame > b->frame) - (a->frame < b->frame);
}

static bool same_place(const grammar_state *s, const place *p) {
    return p->n == s->n_set && p->accepts == s->accepts &&
           !memcmp(s->configs + p->first, s->set, (size_t)s->n_set * sizeof *s->set);
}

/* The number of the place that the set is. Out of room it is nowhere. */
static int32_t set_place(grammar_state *s) {
    if (s->n_set == 0 && !s->accepts) return NOWHERE;
    qsort(s->set, (size_t)s->n_set, sizeof *s->set, by_number);
    uint32_t h = s->accepts;
    for (int i = 0; i < s->n_set; i++) h = mix(mix(h, s->set[i].node), s->set[i].frame);
    for (; s->place_slot[h % PLACE_SLOTS] != UNKNOWN; h++)
        if (same_place(s, s->places + s->place_slot[h % PLACE_SLOTS])) return s->place_slot[h % PLACE_SLOTS];
    if (s->n_places == MAX_PLACES) return NOWHERE;
    int32_t cap = s->cap_places;
    if (!grow(s, (void **)&s->configs, sizeof *s->configs, s->n_configs + s->n_set, &s->cap_configs)) return NOWHERE;
    if (!grow(s, (void **)&s->places, sizeof *s->places, s->n_places + 1, &s->cap_places)) return NOWHERE;
    if (cap != s->cap_places) {
        int32_t *row = realloc(s->row, (size_t)s->cap_places * (size_t)s->width * sizeof *row);
        if (!row) s->cap_places = cap, s->failed = true;
        if (!row) return NOWHERE;
        s->row = row;
    }
    memcpy(s->configs + s->n_configs, s->set, (size_t)s->n_set * sizeof *s->set);
    s->places[s->n_places] = (place){s->n_configs, s->n_set, s->accepts};
    s->n_configs += s->n_set;
    for (int32_t i = 0; i < s->width; i++) s->row[s->n_places * s->width + i] = UNKNOWN;
    return s->place_slot[h % PLACE_SLOTS] = s->n_places++;
}

/* ---- steps ---- */

static int32_t find_step(grammar_state *s, int32_t from, int32_t symbol) {
    const rules *r = &s->g->r;
    const bool as_text = symbol >= r->n_classes;
    const uint8_t byte = r->example[as_text ? symbol - r->n_classes : symbol];
    set_begin(s);
    for (int32_t i = 0; i < s->places[from].n; i++) {
        const config c = s->configs[s->places[from].first + i];
        const grammar_node *n = r->node + c.node;
        if (n->kind == NODE_BYTES && n->low <= byte && byte <= n->high && (n->text || !as_text))
            set_add(s, n->next, c.frame);
    }
    int32_t to = set_place(s);
    return s->row[from * s->width + symbol] = to;
}

static int32_t step(grammar_state *s, int32_t from, uint8_t byte, bool as_text) {
    const rules *r = &s->g->r;
    int32_t symbol = r->class_of[byte] + (as_text ? r->n_classes : 0), to = s->row[from * s->width + symbol];
    return to == UNKNOWN ? find_step(s, from, symbol) : to;
}

/* Where an added token leads: by its text where added tokens are text, and by itself. */
static int32_t added_step(grammar_state *s, int32_t from, int32_t id) {
    size_t n;
    const char *p = tokenizer_bytes(s->g->bytes->t, id, &n);
    int32_t by_text = s->g->r.has_text ? from : NOWHERE;
    for (size_t i = 0; i < n && by_text; i++) by_text = step(s, by_text, (uint8_t)p[i], true);
    set_begin(s);
    for (int32_t i = 0; i < s->places[from].n; i++) {
        const config c = s->configs[s->places[from].first + i];
        const grammar_node *t = s->g->r.node + c.node;
        if (t->kind == NODE_TOKEN && t->other == id) set_add(s, t->next, c.frame);
    }
    if (s->n_set == 0 && !s->accepts) return by_text;
    for (int32_t i = 0; by_text && i < s->places[by_text].n; i++) {
        const config c = s->configs[s->places[by_text].first + i];
        set_add(s, c.node, c.frame);
    }
    s->accepts |= s->places[by_text].accepts;
    return set_place(s);
}

static int32_t token_step(grammar_state *s, int32_t id) {
    const token_bytes *b = s->g->bytes;
    if (id < 0 || id >= b->vocab) return NOWHERE;
    if (b->is_added[id]) return added_step(s, s->at, id);
    size_t n;
    const char *p = tokenizer_bytes(b->t, id, &n);
    int32_t at = p && n > 0 && n <= (size_t)b->deepest ? s->at : NOWHERE;
    for (size_t i = 0; i < n && at; i++) at = step(s, at, (uint8_t)p[i], false);
    return at;
}

/* ---- forgetting ---- */

/* Keeps the stacks of place `at` alone: their frames move down, in the same order, so that those below come first. */
static void compact_frames(grammar_state *s, config *c, int32_t n) {
    int32_t *moved = calloc((size_t)s->n_frames, sizeof *moved), kept = 1;
    if (!moved) {
        s->failed = true;
        return;
    }
    for (int32_t i = 0; i < n; i++) moved[c[i].frame] = 1;
    for (int32_t i = s->n_frames - 1; i > 0; i--)
        if (moved[i]) moved[s->frames[i].below] = 1;
    moved[0] = 0;
    for (int32_t i = 1; i < s->n_frames; i++) {
        if (!moved[i]) continue;
        frame f = s->frames[i];
        f.below = moved[f.below];
        moved[i] = kept;
        s->frames[kept++] = f;
    }
    for (int32_t i = 0; i < n; i++) c[i].frame = moved[c[i].frame];
    s->n_frames = kept;
    free(moved);
    frames_rehash(s, s->frame_slots);
}

static void forget(grammar_state *s) {
    place p = s->places[s->at];
    memcpy(s->set, s->configs + p.first, (size_t)p.n * sizeof *s->set);
    s->n_set = p.n;
    s->accepts = p.accepts;
    compact_frames(s, s->set, s->n_set);
    for (int i = 0; i < PLACE_SLOTS; i++) s->place_slot[i] = UNKNOWN;
    for (int i = 0; i < MASKS; i++) s->mask[i].place = NOWHERE;
    s->n_places = 1;
    s->n_configs = 0;
    s->at = set_place(s);
}

static status tidy(grammar_state *s, error *e) {
    if (s->n_places > MANY_PLACES || s->n_frames > MANY_FRAMES || s->n_configs > MANY_CONFIGS) forget(s);
    return s->failed ? fail(e, ERR_NOMEM, "memory is out") : OK;
}

/* ---- keys ---- */

/* Whether JSON has begun, whose keys are watched. */
static bool watching(const grammar_state *s) {
    return s->g->watch_keys && s->stage == 2;
}

/* Goes over markers that stand in the text; what is behind the last one is JSON. */
static void find_json(grammar_state *s) {
    for (; s->stage < 2; s->stage++) {
        const char *const *m = s->g->json_behind[s->stage];
        size_t behind = 0, at;
        for (int i = 0; i < 2 && m[i]; i++)
            if (text_find((text){s->tail.p, s->tail.n}, (text){m[i], strlen(m[i])}, 0, &at) &&
                (!behind || at + strlen(m[i]) < behind))
                behind = at + strlen(m[i]);
        if (m[0] && !behind) return;
        if (behind) memmove(s->tail.p, s->tail.p + behind, s->tail.n -= behind);
    }
    if (s->tail.n) keys_read(&s->keys, s->tail.p, s->tail.n);
    s->tail.n = 0;
}

/* Reads the token's text along; false: it would repeat a key. */
static bool watch(grammar_state *s, int32_t id) {
    enum { TAIL = 4096 }; /* longer than a token and a marker */
    size_t n;
    const char *p = tokenizer_bytes(s->g->bytes->t, id, &n);
    if (!s->g->watch_keys) return true;
    if (watching(s)) return keys_allow(&s->keys, p, n) && keys_read(&s->keys, p, n);
    str_add(&s->tail, p, n);
    find_json(s);
    if (s->tail.n > 2 * TAIL) {
        memmove(s->tail.p, s->tail.p + s->tail.n - TAIL, TAIL);
        s->tail.n = TAIL;
    }
    s->failed |= s->tail.failed || s->keys.failed;
    return true;
}

/* Takes the tokens that would repeat a key out of the mask. */
static void forbid_keys(grammar_state *s, uint32_t *mask, int64_t words) {
    const token_bytes *b = s->g->bytes;
    for (int32_t i = 0; i < b->n_quoted; i++) {
        const int32_t id = b->quoted[i];
        size_t n;
        if (id / 32 >= words || !(mask[id / 32] >> (id % 32) & 1)) continue;
        const char *p = tokenizer_bytes(b->t, id, &n);
        if (!keys_allow(&s->keys, p, n)) mask[id / 32] &= ~(1u << (id % 32));
    }
}

/* ---- masks ---- */

static void allow(uint32_t *mask, int32_t id) {
    mask[id / 32] |= 1u << (id % 32);
}

static void walk(grammar_state *s, uint32_t *mask) {
    const token_bytes *b = s->g->bytes;
    s->path[0] = s->at;
    for (int32_t i = 0; i < b->n_nodes;) {
        const trie_node *t = b->node + i;
        int32_t to = step(s, s->path[t->depth - 1], t->byte, false);
        if (to == NOWHERE) {
            i = t->skip;
            continue;
        }
        s->path[t->depth] = to;
        for (int k = 0; k < t->count; k++) allow(mask, b->ids[t->first + k]);
        i++;
    }
}

static bool is_eos(const grammar_state *s, int32_t id) {
    for (int i = 0; i < s->n_eos; i++)
        if (s->eos[i] == id) return true;
    return false;
}

static bool may_end(const grammar_state *s) {
    return s->ended || s->stuck || s->places[s->at].accepts;
}

/* Added tokens: those that stand at this place, and all whose text goes on where they are text. */
static void walk_added(grammar_state *s, uint32_t *mask) {
    const token_bytes *b = s->g->bytes;
    const place p = s->places[s->at];
    bool in_text = false;
    for (int32_t i = 0; i < p.n; i++) {
        const grammar_node *n = s->g->r.node + s->configs[p.first + i].node;
        if (n->kind == NODE_TOKEN) allow(mask, n->other);
        in_text |= n->kind == NODE_BYTES && n->text;
    }
    for (int32_t i = 0; in_text && i < b->n_added; i++)
        if (added_step(s, s->at, b->added[i]) != NOWHERE) allow(mask, b->added[i]);
}

/* The mask of this place without end tokens, made or kept from before. */
static const uint32_t *place_mask(grammar_state *s, error *e) {
    for (int i = 0; i < MASKS; i++)
        if (s->mask[i].place == s->at) return s->mask[i].bits;
    const size_t bytes = (size_t)(s->g->bytes->vocab + 31) / 32 * sizeof(uint32_t);
    kept_mask *m = s->mask + s->next_mask;
    if (!m->bits) m->bits = malloc(bytes);
    if (!m->bits) return fail(e, ERR_NOMEM, "memory is out"), NULL;
    memset(m->bits, 0, bytes);
    walk(s, m->bits);
    walk_added(s, m->bits);
    if (s->failed) return fail(e, ERR_NOMEM, "memory is out"), NULL;
    m->place = s->at;
    s->next_mask = (s->next_mask + 1) % MASKS;
    return m->bits;
}

status grammar_mask(grammar_state *s, const int32_t *eos, int n_eos, uint32_t *mask, int64_t words, error *e) {
    TRY(tidy(s, e));
    s->n_eos = n_eos < MAX_EOS ? n_eos : MAX_EOS;
    memcpy(s->eos, eos, (size_t)s->n_eos * sizeof *eos);
    memset(mask, 0, (size_t)words * sizeof *mask);
    bool any = false;
    s->stuck = false;
    if (!grammar_complete(s)) {
        const uint32_t *bits = place_mask(s, e);
        if (!bits) return e ? e->code : ERR_NOMEM;
        int64_t n = (s->g->bytes->vocab + 31) / 32;
        memcpy(mask, bits, (size_t)(n < words ? n : words) * sizeof *mask);
        if (watching(s)) forbid_keys(s, mask, words);
    }
    for (int i = 0; i < n_eos; i++)
        if (eos[i] >= 0 && eos[i] / 32 < words) mask[eos[i] / 32] &= ~(1u << (eos[i] % 32));
    for (int64_t i = 0; i < words && !any; i++) any = mask[i] != 0;
    s->stuck = !any;
    for (int i = 0; i < n_eos && may_end(s); i++)
        if (eos[i] >= 0 && eos[i] / 32 < words) allow(mask, eos[i]);
    return OK;
}

status grammar_take(grammar_state *s, int32_t id, error *e) {
    TRY(tidy(s, e));
    if (is_eos(s, id) && may_end(s)) {
        s->ended = true;
        return OK;
    }
    int32_t to = s->ended || is_eos(s, id) ? NOWHERE : token_step(s, id);
    if (to != NOWHERE && !watch(s, id)) to = NOWHERE;
    if (s->failed || s->keys.failed) return fail(e, ERR_NOMEM, "memory is out");
    if (to == NOWHERE) return fail(e, ERR_ARG, "token %d may not follow in the grammar of this answer", id);
    s->at = to;
    s->stuck = false;
    return OK;
}

bool grammar_complete(const grammar_state *s) {
    return s->ended || (s->places[s->at].n == 0 && s->places[s->at].accepts);
}

/* ---- opening ---- */

static bool begin(grammar_state *s) {
    const grammar *g = s->g;
    s->width = g->r.n_classes * (g->r.has_text ? 2 : 1);
    s->todo = malloc(MAX_VISITED * sizeof *s->todo);
    s->seen = malloc(VISITED_SLOTS * sizeof *s->seen);
    s->stamp = calloc(VISITED_SLOTS, sizeof *s->stamp);
    s->set = malloc(MAX_VISITED * sizeof *s->set);
    s->place_slot = malloc(PLACE_SLOTS * sizeof *s->place_slot);
    s->path = malloc(((size_t)g->bytes->deepest + 1) * sizeof *s->path);
    if (!s->todo || !s->seen || !s->stamp || !s->set || !s->place_slot || !s->path) return false;
    for (int i = 0; i < PLACE_SLOTS; i++) s->place_slot[i] = UNKNOWN;
    frames_rehash(s, 256);
    if (!grow(s, (void **)&s->frames, sizeof *s->frames, 1, &s->cap_frames)) return false;
    if (!grow(s, (void **)&s->places, sizeof *s->places, 1, &s->cap_places)) return false;
    s->row = malloc((size_t)s->cap_places * (size_t)s->width * sizeof *s->row);
    if (!s->row) return false;
    s->frames[0] = (frame){0};
    s->places[NOWHERE] = (place){0};
    s->n_frames = s->n_places = 1;
    set_begin(s);
    set_add(s, g->r.rule[g->start].start, 0);
    s->at = set_place(s);
    find_json(s);
    return !s->failed;
}

status grammar_begin(grammar_state **out, const grammar *g, error *e) {
    grammar_state *s = *out = calloc(1, sizeof *s);
    if (s) {
        s->g = g;
        s->n_eos = tokenizer_eos(g->bytes->t) >= 0;
        s->eos[0] = tokenizer_eos(g->bytes->t);
    }
    if (s && begin(s)) return OK;
    grammar_end(s);
    *out = NULL;
    return fail(e, ERR_NOMEM, "memory is out");
}

void grammar_end(grammar_state *s) {
    if (!s) return;
    for (int i = 0; i < MASKS; i++) free(s->mask[i].bits);
    free(s->frames);
    free(s->places);
    free(s->configs);
    free(s->row);
    free(s->frame_slot);
    free(s->place_slot);
    free(s->todo);
    free(s->seen);
    free(s->stamp);
    free(s->set);
    free(s->path);
    keys_free(&s->keys);
    str_free(&s->tail);
    free(s);
}
