/* op_index_loss: the lightning indexer learns the weights of attention (see train_ops.h).
 *
 * A task goes through blocks of QUERIES rows. For each it sums up the weights of all heads of attention and the scores
 * I of the indexer, keys x queries as in attn_train_micro.h, turns I into dI, and multiplies the indexer's heads once
 * more for its derivatives: with z = k q_j',
 *     g = dI w_j [z > 0],   dq_j' = k' g,   dk = sum_j g q_j,   dw_j = sum over keys of dI relu(z).
 * dk is a sum over blocks: a document's blocks are dealt to at most PARTS tasks, and each task sums up its own. How
 * many there are depends on the document alone, and so does every sum. */
#include <string.h>
#include "kernels/train_blocks.h"

enum {
    QUERIES = 64,
    KEYS = 256, /* keys of a product */
    PARTS = 16,
    CHUNK = 64 /* rows of dk that a task adds up */
};

static const float LOG2_E = 1.44269504f;

typedef struct unit {
    const index_loss *l;
    int64_t part, parts;
    float *dk; /* [parts][n][dim] */
} unit;

/* Scratch memory of a thread. Heads lie behind each other, each with room for QUERIES. */
typedef struct space {
    float *joined;            /* [KEYS][d_qk] */
    void *k, *k_turned;       /* keys, of attention or of the indexer, as rows; the indexer's turned */
    void *aq;                 /* a head's queries of attention */
    void *q, *q_lanes;        /* the indexer's heads */
    void *rows, *x;           /* g as operands */
    float *s;                 /* tiles [KEYS][QUERIES] */
    float *p, *i;             /* tiles [n][QUERIES]: weights; I and dI */
    float *dq, *dk;           /* tiles of sums: every head's; of KEYS keys */
    float *w, *dw, *lse, *kl; /* [heads][QUERIES], [heads][QUERIES], [QUERIES], [QUERIES] */
    uint16_t *mask;
} space;

typedef struct run {
    block_products b;
    const unit *units;
    char *scratch;
    size_t scratch_bytes;
    int64_t d_qk, heads, dim, n; /* the largest of the list */
} run;

static int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static int64_t parts_of(const index_loss *l) {
    return least(PARTS, (l->a->n + QUERIES - 1) / QUERIES);
}

static space carve_space(block_memory *at, const run *r) {
    int64_t d_qk = block_pad(r->d_qk), dim = block_pad(r->dim), n = block_pad(r->n);
    size_t size = r->b.size, f = sizeof(float);
    space s;
    s.joined = block_carve(at, KEYS * r->d_qk, f);
    s.k = block_carve(at, KEYS * most(d_qk, dim), size);
    s.k_turned = block_carve(at, KEYS * dim, size);
    s.aq = block_carve(at, QUERIES * d_qk, size);
    s.q = block_carve(at, r->heads * QUERIES * dim, size);
    s.q_lanes = block_carve(at, r->heads * QUERIES * dim, size);
    s.rows = block_carve(at, KEYS * QUERIES, size);
    s.x = block_carve(at, KEYS * QUERIES, size);
    s.s = block_carve(at, KEYS * QUERIES, f);
    s.p = block_carve(at, n * QUERIES, f);
    s.i = block_carve(at, n * QUERIES, f);
    s.dq = block_carve(at, r->heads * QUERIES * dim, f);
    s.dk = block_carve(at, KEYS * dim, f);
    s.w = block_carve(at, r->heads * QUERIES, f);
    s.dw = block_carve(at, r->heads * QUERIES, f);
    s.lse = block_carve(at, QUERIES, f);
    s.kl = block_carve(at, QUERIES, f);
    s.mask = block_carve(at, n * QUERIES / GROUP, sizeof(uint16_t));
    return s;
}

/* Keys [key, key + KEYS) of a block: tiles that hold s, and where their numbers are in p and i; false when no query
 * sees any. */
static bool part_of(const run *r, const space *w, const block_pair *p, int64_t key, train_tiles *t, int64_t *at) {
    *t = block_tiles(&r->b, p, w->s);
    t->keys = least(KEYS, p->padded - key);
    t->mask = p->mask + key * p->groups;
    *at = key * p->groups * GROUP;
    for (int64_t i = 0; i < t->keys * t->groups; i++)
        if (t->mask[i]) return true;
    return false;
}

/* p = the weights of all heads of attention. */
static void sum_weights(const run *r, const space *w, const block_pair *p, const attention_train *a) {
    int64_t d = block_pad(a->d_qk), at, ld;
    train_tiles t;
    memset(w->p, 0, (size_t)(p->padded * p->groups * GROUP) * sizeof *w->p);
    for (int64_t h = 0; h < a->heads; h++) {
        block_columns_of(&r->b, w->aq, a->q + p->q * a->ldq + h * a->d_qk, a->ldq, p->nq, a->d_qk);
        for (int64_t i = 0; i < p->groups * GROUP; i++)
            w->lse[i] = i < p->nq ? a->lse[(p->q + i) * a->heads + h] * LOG2_E : 0;
        for (int64_t key = 0; key < p->keys; key += KEYS) {
            if (!part_of(r, w, p, key, &t, &at)) continue;
            int64_t keys = least(KEYS, p->keys - key);
            const float *k = block_keys(a, key, keys, h / (a->heads / a->kv_heads), w->joined, &ld);
            block_rows(&r->b, w->k, k, ld, keys, a->d_qk);
            block_multiply(&r->b, w->s, true, w->k, d, t.keys, d, w->aq, d * GROUP, p->groups);
            r->b.train->weights(&t, a->scale * LOG2_E, w->lse, w->p + at);
        }
    }
}

/* Lays out the indexer's heads of a block. */
static void take_heads(const run *r, const space *w, const block_pair *p, const index_loss *l) {
    for (int64_t j = 0; j < l->heads; j++) {
        const float *q = l->q + p->q * l->ldq + j * l->dim;
        int64_t at = j * QUERIES * block_pad(l->dim);
        block_columns_of(&r->b, block_at(&r->b, w->q, at), q, l->ldq, p->nq, l->dim);
        block_lanes(&r->b, block_at(&r->b, w->q_lanes, at), q, l->ldq, p->nq, l->dim);
        for (int64_t i = 0; i < p->groups * GROUP; i++)
            w->w[j * QUERIES + i] = i < p->nq ? l->w[(p->q + i) * l->ldw + j] : 0;
    }
}

/* s = z of one head; the keys are laid out. */
static void score(const run *r, const space *w, const train_tiles *t, const index_loss *l, int64_t j) {
    int64_t d = block_pad(l->dim);
    block_multiply(&r->b, w->s, true, w->k, d, t->keys, d, block_at(&r->b, w->q, j * QUERIES * d), d * GROUP,
                   t->groups);
}

/* i = I. */
static void sum_scores(const run *r, const space *w, const block_pair *p, const index_loss *l) {
    train_tiles t;
    int64_t at;
    memset(w->i, 0, (size_t)(p->padded * p->groups * GROUP) * sizeof *w->i);
    for (int64_t key = 0; key < p->keys; key += KEYS) {
        if (!part_of(r, w, p, key, &t, &at)) continue;
        block_rows(&r->b, w->k, l->k + key * l->ldk, l->ldk, least(KEYS, p->keys - key), l->dim);
        for (int64_t j = 0; j < l->heads; j++) {
            score(r, w, &t, l, j);
            r->b.train->relu_sum(&t, w->w + j * QUERIES, w->i + at);
        }
    }
}

/* The derivatives of I; dk: this task's sum. */
static void add_gradients(const run *r, const space *w, const block_pair *p, const index_loss *l, float *dk) {
    int64_t d = block_pad(l->dim), rows = block_groups(l->dim) * GROUP, nq = p->groups * GROUP, at;
    train_tiles t;
    memset(w->dw, 0, (size_t)(l->heads * QUERIES) * sizeof *w->dw);
    memset(w->dq, 0, (size_t)(l->heads * QUERIES * d) * sizeof *w->dq);
    for (int64_t key = 0; key < p->keys; key += KEYS) {
        if (!part_of(r, w, p, key, &t, &at)) continue;
        int64_t keys = least(KEYS, p->keys - key);
        const float *k = l->k + key * l->ldk;
        block_rows(&r->b, w->k, k, l->ldk, keys, l->dim);
        block_turned(&r->b, w->k_turned, KEYS, k, l->ldk, keys, l->dim);
        for (int64_t j = 0; j < l->heads; j++) {
            score(r, w, &t, l, j);
            train_relu g = {.t = t,
                            .di = w->i + at,
                            .w = w->w + j * QUERIES,
                            .dw = w->dw + j * QUERIES,
                            .rows = w->rows,
                            .x = w->x};
            r->b.train->relu_gradient(&g);
            block_multiply(&r->b, w->dq + j * QUERIES * d, false, w->k_turned, KEYS, rows, t.keys, w->x, t.keys * GROUP,
                           p->groups);
            block_multiply(&r->b, w->dk, j == 0, w->rows, nq, t.keys, nq, block_at(&r->b, w->q_lanes, j * QUERIES * d),
                           nq * GROUP, rows / GROUP);
        }
        block_place(&r->b, w->dk, rows / GROUP, keys, l->dim, dk + key * l->dim, l->dim, true);
    }
    for (int64_t j = 0; j < l->heads; j++) {
        block_store(&r->b, w->dq + j * QUERIES * d, p->groups, l->dim, p->nq, l->dq + p->q * l->ldq + j * l->dim,
                    l->ldq, false);
        for (int64_t i = 0; i < p->nq; i++) l->dw[(p->q + i) * l->ldw + j] = w->dw[j * QUERIES + i];
    }
}

static void loss_task(void *arg, int64_t task, int thread) {
    const run *r = arg;
    const unit *u = &r->units[task];
    const index_loss *l = u->l;
    block_memory start = {.base = r->scratch + (size_t)thread * r->scratch_bytes};
    space w = carve_space(&start, r);
    float *dk = u->dk + u->part * l->a->n * l->dim;
    memset(dk, 0, (size_t)(l->a->n * l->dim) * sizeof *dk);
    for (int64_t q = u->part * QUERIES; q < l->a->n; q += u->parts * QUERIES) {
        block_pair p;
        block_meet(&p, l->a, q, least(QUERIES, l->a->n - q), 0, l->a->n, w.mask);
        sum_weights(r, &w, &p, l->a);
        take_heads(r, &w, &p, l);
        sum_scores(r, &w, &p, l);
        train_tiles all = block_tiles(&r->b, &p, w.p);
        r->b.train->divergence(&all, w.i, l->scale, w.kl);
        memcpy(l->kl + q, w.kl, (size_t)p.nq * sizeof *w.kl);
        add_gradients(r, &w, &p, l, dk);
    }
}

/* CHUNK rows of dk: the sums of the tasks in their order. */
static void dk_task(void *arg, int64_t task, int thread) {
    const run *r = arg;
    const unit *u = &r->units[task];
    const index_loss *l = u->l;
    (void)thread;
    for (int64_t i = u->part * CHUNK; i < least((u->part + 1) * CHUNK, l->a->n); i++) {
        float *dk = l->dk + i * l->ldk;
        memcpy(dk, u->dk + i * l->dim, (size_t)l->dim * sizeof *dk);
        for (int64_t part = 1; part < u->parts; part++) r->b.add(dk, u->dk + (part * l->a->n + i) * l->dim, l->dim);
    }
}

/* The tasks of a list: its parts, those with the longest rows first, or the chunks of rows of dk. */
static int64_t list_units(const index_loss *list, int count, bool chunks, float *dk, unit *units) {
    int64_t n = 0;
    for (int i = 0; i < count; i++) {
        const index_loss *l = &list[i];
        int64_t parts = parts_of(l), tasks = chunks ? (l->a->n + CHUNK - 1) / CHUNK : parts;
        for (int64_t t = tasks - 1; t >= 0; t--) units[n++] = (unit){.l = l, .part = t, .parts = parts, .dk = dk};
        dk += parts * l->a->n * l->dim;
    }
    return n;
}

void op_index_loss(queue *q, const index_loss *list, int count) {
    run r = {.b = block_products_of(q)};
    int64_t tasks = 0, sums = 0;
    for (int i = 0; i < count; i++) {
        r.d_qk = most(r.d_qk, list[i].a->d_qk);
        r.heads = most(r.heads, list[i].heads);
        r.dim = most(r.dim, list[i].dim);
        r.n = most(r.n, list[i].a->n);
        tasks += (list[i].a->n + CHUNK - 1) / CHUNK; /* no fewer than parts */
        sums += parts_of(&list[i]) * list[i].a->n * list[i].dim;
    }
    if (tasks == 0) return;
    block_memory needed = {0}, at = {0};
    carve_space(&needed, &r);
    r.scratch_bytes = needed.used;
    size_t bytes = (size_t)q->threads * r.scratch_bytes + (size_t)tasks * sizeof(unit) + (size_t)sums * sizeof(float);
    at.base = queue_scratch(q, SLOT_INDEX_LOSS, bytes + 3 * BLOCK_ALIGN);
    if (!at.base) return;
    r.scratch = block_carve(&at, q->threads, r.scratch_bytes);
    unit *units = block_carve(&at, tasks, sizeof(unit));
    float *dk = block_carve(&at, sums, sizeof(float));
    r.units = units;
    pool_run(q->pool, list_units(list, count, false, dk, units), loss_task, &r);
    pool_run(q->pool, list_units(list, count, true, dk, units), dk_task, &r);
}
