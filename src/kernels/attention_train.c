/* op_attention_forward and op_attention_backward: attention of whole documents and its derivative without an n x n
 * matrix (FlashAttention, Dao et al. 2022, algorithm 1 and appendix B; online softmax as in flash.h).
 *
 * Documents are cut into chunks of CHUNK rows. Blocks of weights lie keys x queries (see attn_train_micro.h):
 *     s = k q',  o' = v' p;   dp = v d_o',  ds = p (dp - delta),  dq' = k' ds,  dk = ds q,  dv = p d_o.
 * Forward: a task is one head's chunk of queries and goes through the chunks of keys.
 * Backward: a task is a few kv heads' pair (chunk of keys, chunk of queries), and the pairs run in waves: wave w has
 * all pairs that lie w chunks apart. So no two tasks of a wave add to the same rows, every row of dq, dk and dv is
 * summed in the order of the waves whatever the threads do, and few long documents make as many tasks as many short
 * ones. The tail's derivative is a sum over heads: each task's heads have an own partial sum, added up at the end. With
 * keep, blocks are multiplied whole and weights of rows that are not kept are zeros; blocks with no kept row are left
 * out. In trees, too, and a block has up to two parts: the trunk's keys and those of the queries' branches. */
#include <math.h>
#include <string.h>
#include "kernels/train_blocks.h"

enum {
    CHUNK = 256,    /* rows whose operands stay in the second cache */
    QUERIES = 64,   /* queries of a block; blocks on the diagonal are multiplied whole */
    BRANCHING = 32, /* the same where it would have several branches of a tree */
    TAIL_SUMS = 16  /* partial sums of a tail at most */
};

static const float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;

typedef struct unit {
    const attention_train *a;
    int64_t chunk; /* of queries in forward, of keys in backward */
    int head;      /* forward: query head; backward: the first kv head */
    float *tail;   /* partial sum of dtail: [n][d_tail] of this unit's heads */
} unit;

/* Scratch memory of a thread. */
typedef struct space {
    float *joined;          /* [CHUNK][d_qk] */
    void *k, *k_turned;     /* keys as rows, and turned */
    void *v, *v_turned;     /* values likewise */
    void *q, *q_lanes;      /* queries as columns, and as rows of the second operand */
    void *d_o, *d_o_lanes;  /* d_o likewise */
    float *s, *dp;          /* tiles */
    void *p, *ds, *x;       /* weights and derivatives as operands */
    float *dk, *dv, *dq;    /* tiles of sums; dq also those of o */
    float *lse, *delta;     /* [CHUNK]; lse in units of ln 2 */
    float *max, *sum, *fix; /* [CHUNK], [CHUNK], [QUERIES] */
    uint16_t *mask;
} space;

typedef struct run {
    block_products b;
    const unit *units;
    char *scratch; /* per thread */
    size_t scratch_bytes;
    int64_t d_qk, d_v; /* the largest of the list */
    int64_t wave;
} run;

static int64_t chunks_of(const attention_train *a) {
    return (a->n + CHUNK - 1) / CHUNK;
}

static space carve_space(block_memory *at, const run *r) {
    int64_t d_qk = block_pad(r->d_qk), d_v = block_pad(r->d_v);
    size_t size = r->b.size, f = sizeof(float);
    space s;
    s.joined = block_carve(at, CHUNK * r->d_qk, f);
    s.k = block_carve(at, CHUNK * d_qk, size);
    s.k_turned = block_carve(at, CHUNK * d_qk, size);
    s.v = block_carve(at, CHUNK * d_v, size);
    s.v_turned = block_carve(at, CHUNK * d_v, size);
    s.q = block_carve(at, CHUNK * d_qk, size);
    s.q_lanes = block_carve(at, CHUNK * d_qk, size);
    s.d_o = block_carve(at, CHUNK * d_v, size);
    s.d_o_lanes = block_carve(at, CHUNK * d_v, size);
    s.s = block_carve(at, CHUNK * QUERIES, f);
    s.dp = block_carve(at, CHUNK * QUERIES, f);
    s.p = block_carve(at, CHUNK * QUERIES, size);
    s.ds = block_carve(at, CHUNK * QUERIES, size);
    s.x = block_carve(at, CHUNK * QUERIES, size);
    s.dk = block_carve(at, CHUNK * d_qk, f);
    s.dv = block_carve(at, CHUNK * d_v, f);
    s.dq = block_carve(at, d_qk > 4 * d_v ? QUERIES * d_qk : CHUNK * d_v, f);
    s.lse = block_carve(at, CHUNK, f);
    s.delta = block_carve(at, CHUNK, f);
    s.max = block_carve(at, CHUNK, f);
    s.sum = block_carve(at, CHUNK, f);
    s.fix = block_carve(at, QUERIES, f);
    s.mask = block_carve(at, CHUNK * QUERIES / GROUP, sizeof(uint16_t));
    return s;
}

static space space_of(const run *r, int thread) {
    block_memory at = {.base = r->scratch + (size_t)thread * r->scratch_bytes};
    return carve_space(&at, r);
}

/* --- blocks ---------------------------------------------------------------------------------------------------------
 */

/* Of a block, for the rows [first, first + n) of a chunk. */
static int64_t queries_of(const attention_train *a, int64_t first, int64_t n) {
    int64_t branches = 0;
    for (int64_t i = first + 1; i < first + n && a->from; i++) branches += a->from[i] != a->from[i - 1];
    return branches > 2 ? BRANCHING : QUERIES;
}

/* Part 0 or 1 of the block of queries [q, q + nq) and the keys of a chunk. */
static bool meet(const space *w, block_pair *p, const attention_train *a, int64_t q, int64_t nq, int64_t key,
                 int part) {
    if (a->from) return block_meet_tree(p, a, q, nq, key, CHUNK, part, w->mask);
    return part == 0 && block_meet(p, a, q, nq, key, CHUNK, w->mask);
}

/* Queries of the chunk that begins with q see keys of that which begins with key <= q; false: certainly none. */
static bool may_see(const attention_train *a, int64_t q, int64_t key) {
    return !a->from || key < a->trunk || a->from[q] < key + CHUNK;
}

/* s = k q' of a block, both laid out. */
static void score(const run *r, const space *w, const block_pair *p, const attention_train *a, int64_t chunk) {
    int64_t d = block_pad(a->d_qk);
    block_multiply(&r->b, w->s, true, block_at(&r->b, w->k, p->key % CHUNK * d), d, p->padded, d,
                   block_at(&r->b, w->q, (p->q - chunk) * d), d * GROUP, p->groups);
}

static const float *query_rows(const attention_train *a, int64_t q, int64_t head) {
    return a->q + q * a->ldq + head * a->d_qk;
}

static const float *value_rows(const attention_train *a, int64_t key, int64_t head) {
    return a->v + key * a->ldv + head * a->v_head;
}

/* --- forward ------------------------------------------------------------------------------------------------------ */

/* o' = fix o' + v' p of one block; `first`: nothing is there yet. */
static void add_values(const run *r, const space *w, const block_pair *p, const attention_train *a, bool first,
                       float *o) {
    int64_t rows = block_groups(a->d_v) * GROUP;
    if (!first) r->b.train->multiply(o, rows, p->groups, w->fix);
    block_multiply(&r->b, o, first, block_at(&r->b, w->v_turned, p->key % CHUNK), CHUNK, rows, p->padded, w->x,
                   p->padded * GROUP, p->groups);
}

/* o and lse of the queries of a block, from tiles of o' and sums that become their inverses. */
static void finish_forward(const run *r, const space *w, const unit *u, int64_t q, int64_t nq, int64_t first,
                           float *o) {
    const attention_train *a = u->a;
    int64_t groups = block_pad(nq) / GROUP;
    for (int64_t i = first; i < first + groups * GROUP; i++) {
        if (i < first + nq) a->lse[(q + i - first) * a->heads + u->head] = (w->max[i] + log2f(w->sum[i])) * LN_2;
        w->sum[i] = w->sum[i] > 0 ? 1 / w->sum[i] : 0;
    }
    r->b.train->multiply(o, block_groups(a->d_v) * GROUP, groups, w->sum + first);
    block_store(&r->b, o, groups, a->d_v, nq, a->o + q * a->ldo + u->head * a->d_v, a->ldo, false);
}

/* A block of queries against the keys that are laid out; o' are its tiles. Returns whether they are begun. */
static bool forward_block(const run *r, const space *w, const unit *u, int64_t q, int64_t nq, int64_t first,
                          int64_t key, bool begun, float *o) {
    const attention_train *a = u->a;
    for (int part = 0; part < 2; part++) {
        block_pair p;
        if (!meet(w, &p, a, q, nq, key, part)) continue;
        score(r, w, &p, a, first);
        train_softmax s = {.t = block_tiles(&r->b, &p, w->s),
                           .scale = a->scale * LOG2_E,
                           .max = w->max + (q - first),
                           .sum = w->sum + (q - first),
                           .correction = w->fix,
                           .x = w->x};
        r->b.train->softmax(&s);
        add_values(r, w, &p, a, !begun, o);
        begun = true;
    }
    return begun;
}

static void forward_task(void *arg, int64_t task, int thread) {
    const run *r = arg;
    const unit *u = &r->units[task];
    const attention_train *a = u->a;
    space w = space_of(r, thread);
    int64_t first = u->chunk * CHUNK, end = least(first + CHUNK, a->n), d_v = block_groups(a->d_v) * GROUP, ld;
    int64_t kv_head = u->head / (a->heads / a->kv_heads), step = queries_of(a, first, end - first);
    block_columns_of(&r->b, w.q, query_rows(a, first, u->head), a->ldq, end - first, a->d_qk);
    bool begun[CHUNK / BRANCHING] = {false};
    memset(w.sum, 0, CHUNK * sizeof *w.sum);
    for (int64_t i = 0; i < CHUNK; i++) w.max[i] = -INFINITY;
    for (int64_t key = 0; key < end; key += CHUNK) {
        if (!may_see(a, first, key)) continue;
        int64_t keys = least(CHUNK, end - key);
        const float *k = block_keys(a, key, keys, kv_head, w.joined, &ld);
        block_rows(&r->b, w.k, k, ld, keys, a->d_qk);
        block_turned(&r->b, w.v_turned, CHUNK, value_rows(a, key, kv_head), a->ldv, keys, a->d_v);
        for (int64_t q = first; q < end; q += step) {
            bool *b = &begun[(q - first) / step];
            *b = forward_block(r, &w, u, q, least(step, end - q), first, key, *b, w.dq + (q - first) * d_v);
        }
    }
    for (int64_t q = first; q < end; q += step) {
        if (!begun[(q - first) / step]) memset(w.dq + (q - first) * d_v, 0, (size_t)(step * d_v) * sizeof *w.dq);
        finish_forward(r, &w, u, q, least(step, end - q), q - first, w.dq + (q - first) * d_v);
    }
}

/* --- backward ----------------------------------------------------------------------------------------------------- */

/* lse and delta = sum_j d_o o of a chunk of queries. */
static void take_rows(const run *r, const space *w, const attention_train *a, int64_t first, int64_t n, int64_t head) {
    for (int64_t i = 0; i < n; i++) {
        const float *o = a->o + (first + i) * a->ldo + head * a->d_v,
                    *d_o = a->d_o + (first + i) * a->ldo + head * a->d_v;
        w->delta[i] = r->b.train->dot(o, d_o, a->d_v);
        w->lse[i] = a->lse[(first + i) * a->heads + head] * LOG2_E;
    }
    for (int64_t i = n; i < block_pad(n); i++) w->delta[i] = w->lse[i] = 0;
}

/* One block: adds to the tiles of dk and dv, makes those of dq. */
static void block_gradient(const run *r, const space *w, const block_pair *p, const attention_train *a, int64_t chunk,
                           int64_t n) {
    int64_t at = p->q - chunk, d_v = block_pad(a->d_v), nq = p->groups * GROUP, x_group = block_pad(n) * GROUP;
    int64_t row = p->key % CHUNK;
    score(r, w, p, a, chunk);
    block_multiply(&r->b, w->dp, true, block_at(&r->b, w->v, row * d_v), d_v, p->padded, d_v,
                   block_at(&r->b, w->d_o, at * d_v), d_v * GROUP, p->groups);
    train_gradient g = {.t = block_tiles(&r->b, p, w->s),
                        .dp = w->dp,
                        .scale = a->scale * LOG2_E,
                        .factor = a->scale,
                        .lse = w->lse + at,
                        .delta = w->delta + at,
                        .p_rows = w->p,
                        .ds_rows = w->ds,
                        .ds_x = w->x};
    r->b.train->gradient(&g);
    block_multiply(&r->b, w->dq, true, block_at(&r->b, w->k_turned, row), CHUNK, block_groups(a->d_qk) * GROUP,
                   p->padded, w->x, p->padded * GROUP, p->groups);
    block_multiply(&r->b, w->dv + row * block_groups(a->d_v) * GROUP, false, w->p, nq, p->padded, nq,
                   block_at(&r->b, w->d_o_lanes, at * GROUP), x_group, block_groups(a->d_v));
    block_multiply(&r->b, w->dk + row * block_groups(a->d_qk) * GROUP, false, w->ds, nq, p->padded, nq,
                   block_at(&r->b, w->q_lanes, at * GROUP), x_group, block_groups(a->d_qk));
}

/* The queries of one head against the keys that are laid out. */
static void head_gradient(const run *r, const space *w, const attention_train *a, int64_t head, int64_t key,
                          int64_t first, int64_t n) {
    const float *q_rows = query_rows(a, first, head), *d_o = a->d_o + first * a->ldo + head * a->d_v;
    block_columns_of(&r->b, w->q, q_rows, a->ldq, n, a->d_qk);
    block_lanes(&r->b, w->q_lanes, q_rows, a->ldq, n, a->d_qk);
    block_columns_of(&r->b, w->d_o, d_o, a->ldo, n, a->d_v);
    block_lanes(&r->b, w->d_o_lanes, d_o, a->ldo, n, a->d_v);
    take_rows(r, w, a, first, n, head);
    const int64_t step = queries_of(a, first, n);
    for (int64_t q = first; q < first + n; q += step) {
        int64_t nq = least(step, first + n - q);
        float *dq = a->dq + q * a->ldq + head * a->d_qk;
        bool there = r->wave > 0;
        for (int part = 0; part < 2; part++) {
            block_pair p;
            if (!meet(w, &p, a, q, nq, key, part)) continue;
            block_gradient(r, w, &p, a, first, n);
            block_store(&r->b, w->dq, p.groups, a->d_qk, nq, dq, a->ldq, there);
            there = true;
        }
        for (int64_t i = 0; i < nq && !there; i++) memset(dq + i * a->ldq, 0, (size_t)a->d_qk * sizeof *dq);
    }
}

static void put_row(const run *r, float *to, const float *x, int64_t n, bool add) {
    if (add) r->b.add(to, x, n);
    else memcpy(to, x, (size_t)n * sizeof *x);
}

/* Sums of dk and dv from tiles to their places. */
static void place_gradients(const run *r, const space *w, const unit *u, int64_t head, int64_t key, int64_t keys) {
    const attention_train *a = u->a;
    int64_t own = a->d_qk - a->d_tail;
    bool add = r->wave > 0, add_tail = add || head > u->head;
    float *dk = a->dk + key * a->ldk + head * a->k_head, *dv = a->dv + key * a->ldv + head * a->v_head;
    block_place(&r->b, w->dv, block_groups(a->d_v), keys, a->d_v, dv, a->ldv, add);
    if (a->d_tail == 0) {
        block_place(&r->b, w->dk, block_groups(a->d_qk), keys, a->d_qk, dk, a->ldk, add);
        return;
    }
    block_place(&r->b, w->dk, block_groups(a->d_qk), keys, a->d_qk, w->joined, a->d_qk, false);
    for (int64_t i = 0; i < keys; i++) {
        const float *row = w->joined + i * a->d_qk;
        put_row(r, dk + i * a->ldk, row, own, add);
        put_row(r, u->tail + (key + i) * a->d_tail, row + own, a->d_tail, add_tail);
    }
}

/* How many kv heads a task has, and how many tasks there are for all heads. */
static int heads_together(const attention_train *a) {
    return (a->kv_heads + TAIL_SUMS - 1) / TAIL_SUMS;
}

static int head_units(const attention_train *a) {
    return (a->kv_heads + heads_together(a) - 1) / heads_together(a);
}

static void backward_task(void *arg, int64_t task, int thread) {
    const run *r = arg;
    const unit *u = &r->units[task];
    const attention_train *a = u->a;
    space w = space_of(r, thread);
    int64_t key = u->chunk * CHUNK, keys = least(CHUNK, a->n - key), group = a->heads / a->kv_heads, ld;
    int64_t first = key + r->wave * CHUNK, n = least(CHUNK, a->n - first);
    int64_t end = least(a->kv_heads, u->head + heads_together(a));
    for (int64_t g = u->head; g < end; g++) {
        const float *k = block_keys(a, key, keys, g, w.joined, &ld), *v = value_rows(a, key, g);
        block_rows(&r->b, w.k, k, ld, keys, a->d_qk);
        block_turned(&r->b, w.k_turned, CHUNK, k, ld, keys, a->d_qk);
        block_rows(&r->b, w.v, v, a->ldv, keys, a->d_v);
        memset(w.dk, 0, (size_t)(block_pad(keys) * block_groups(a->d_qk) * GROUP) * sizeof *w.dk);
        memset(w.dv, 0, (size_t)(block_pad(keys) * block_groups(a->d_v) * GROUP) * sizeof *w.dv);
        for (int64_t h = g * group; h < (g + 1) * group; h++) head_gradient(r, &w, a, h, key, first, n);
        place_gradients(r, &w, u, g, key, keys);
    }
}

/* dtail of one chunk: the partial sums in their order. */
static void tail_task(void *arg, int64_t task, int thread) {
    const run *r = arg;
    const unit *u = &r->units[task];
    const attention_train *a = u->a;
    (void)thread;
    if (a->d_tail == 0) return;
    for (int64_t i = u->chunk * CHUNK; i < least((u->chunk + 1) * CHUNK, a->n); i++)
        for (int g = 0; g < head_units(a); g++)
            put_row(r, a->dtail + i * a->ldtail, u->tail + (g * a->n + i) * a->d_tail, a->d_tail, g > 0);
}

/* --- the list ----------------------------------------------------------------------------------------------------- */

/* Forward: every head's chunks, those that see most first. */
static int64_t list_forward(const attention_train *list, int count, unit *units) {
    int64_t most = 0, n = 0;
    for (int i = 0; i < count; i++)
        if (chunks_of(&list[i]) > most) most = chunks_of(&list[i]);
    for (int64_t c = most - 1; c >= 0; c--)
        for (int i = 0; i < count; i++)
            for (int h = 0; h < list[i].heads && c < chunks_of(&list[i]); h++)
                units[n++] = (unit){.a = &list[i], .chunk = c, .head = h};
    return n;
}

/* The pairs of chunks of a wave; `once`: the chunks themselves, for what is done once for all heads. */
static int64_t list_wave(const attention_train *list, int count, int64_t wave, bool once, float *tails, unit *units) {
    int64_t n = 0;
    for (int i = 0; i < count; i++) {
        const attention_train *a = &list[i];
        int64_t numbers = a->n * a->d_tail;
        for (int64_t c = 0; c + wave < chunks_of(a); c++)
            for (int g = 0; g < (once ? 1 : head_units(a)) && may_see(a, (c + wave) * CHUNK, c * CHUNK); g++)
                units[n++] = (unit){.a = a, .chunk = c, .head = g * heads_together(a), .tail = tails + g * numbers};
        tails += head_units(a) * numbers;
    }
    return n;
}

/* Room for the units, the threads and `tails` numbers of partial sums. */
static bool open_run(queue *q, run *r, const attention_train *list, int count, int64_t units, int64_t tails,
                     unit **unit_list, float **tail_sums) {
    *r = (run){.b = block_products_of(q)};
    for (int i = 0; i < count; i++) {
        if (list[i].d_qk > r->d_qk) r->d_qk = list[i].d_qk;
        if (list[i].d_v > r->d_v) r->d_v = list[i].d_v;
    }
    block_memory needed = {0}, at = {0};
    carve_space(&needed, r);
    r->scratch_bytes = needed.used;
    size_t bytes = (size_t)q->threads * r->scratch_bytes + (size_t)units * sizeof(unit) +
                   (size_t)tails * sizeof(float) + 3 * BLOCK_ALIGN;
    at.base = queue_scratch(q, SLOT_ATTENTION_TRAIN, bytes);
    if (!at.base) return false;
    r->scratch = block_carve(&at, q->threads, r->scratch_bytes);
    *unit_list = block_carve(&at, units, sizeof(unit));
    *tail_sums = block_carve(&at, tails, sizeof(float));
    r->units = *unit_list;
    return true;
}

void op_attention_forward(queue *q, const attention_train *list, int count) {
    run r;
    unit *units;
    float *tails;
    int64_t n = 0;
    for (int i = 0; i < count; i++) n += chunks_of(&list[i]) * list[i].heads;
    if (n == 0 || !open_run(q, &r, list, count, n, 0, &units, &tails)) return;
    pool_run(q->pool, list_forward(list, count, units), forward_task, &r);
}

void op_attention_backward(queue *q, const attention_train *list, int count) {
    run r;
    unit *units;
    float *tails;
    int64_t n = 0, numbers = 0, waves = 0;
    for (int i = 0; i < count; i++) {
        n += chunks_of(&list[i]) * head_units(&list[i]);
        numbers += head_units(&list[i]) * list[i].n * list[i].d_tail;
        if (chunks_of(&list[i]) > waves) waves = chunks_of(&list[i]);
    }
    if (n == 0 || !open_run(q, &r, list, count, n, numbers, &units, &tails)) return;
    for (r.wave = 0; r.wave < waves; r.wave++)
        pool_run(q->pool, list_wave(list, count, r.wave, false, tails, units), backward_task, &r);
    if (numbers > 0) pool_run(q->pool, list_wave(list, count, 0, true, tails, units), tail_task, &r);
}
