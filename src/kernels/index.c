/* op_index_select: the lightning indexer. Keys stand in panels and the heads of the queries are the rows of the
 * product, so that the sum over heads runs lane by lane:
 *     s[j][c] = q[j] . k[c],   I[c] = sum_j w[j] relu(s[j][c]).
 * Many queries: a task is a block of queries, which scores all keys and then selects. Few queries: one loop over
 * blocks of keys scores, a second over the queries selects. */
#include "kernels/attn_micro.h"
#include "kernels/queue.h"

#include <string.h>

enum {
    KEYS = CACHE_PAGE, /* keys that are packed together */
    QUERIES = 32,      /* queries of a task at most: they share the packed keys */
    ROWS = 32, /* rows (heads of queries) that are multiplied together: queries with few heads go several at a time */
    ALIGN = 64
};

/* A piece of memory that is handed out from its start; without a base it only counts the bytes. */
typedef struct memory {
    char *base;
    size_t used;
} memory;

typedef struct selection {
    const attn_micro *m;
    const attn_product *p;
    const index_select *a;
    char *scratch; /* per thread: q, panels, products, bits of scores */
    size_t thread_bytes;
    int64_t queries; /* of a task */
    float *scores;   /* [n] rows ld apart; NULL: per thread */
    int64_t ld;
} selection;

typedef struct space {
    void *q, *panels; /* [QUERIES][heads padded][dim padded]; keys */
    float *s, *sums;  /* [together][heads padded][KEYS]; [KEYS] */
    float *scores;    /* [QUERIES][T padded] */
    uint32_t *bits;   /* [2 T + PANEL] */
} space;

static size_t pad(size_t n, size_t to) {
    return (n + to - 1) / to * to;
}

static void *carve(memory *at, size_t bytes) {
    void *p = at->base ? at->base + at->used : NULL;
    at->used += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return p;
}

/* How many queries are scored together. */
static int64_t together(const attn_product *p, const index_select *a) {
    int64_t heads = (int64_t)pad((size_t)a->heads, (size_t)p->row_pad);
    return heads < ROWS ? ROWS / heads : 1;
}

static space carve_space(memory *at, const attn_product *p, const index_select *a) {
    size_t d = pad((size_t)a->dim, (size_t)p->dim_pad), heads = pad((size_t)a->heads, (size_t)p->row_pad);
    size_t T = pad((size_t)a->T, KEYS), size = dtype_size(p->type);
    space s;
    s.q = carve(at, QUERIES * heads * d * size);
    s.panels = carve(at, KEYS * d * size);
    s.s = carve(at, (size_t)together(p, a) * heads * KEYS * sizeof(float));
    s.sums = carve(at, KEYS * sizeof(float));
    s.bits = carve(at, (2 * T + PANEL) * sizeof(uint32_t));
    s.scores = carve(at, QUERIES * T * sizeof(float));
    return s;
}

static int64_t visible(const index_select *a, int64_t query) {
    return a->T - a->n + query + 1;
}

static bool scored(const index_select *a, int64_t query) {
    return a->scores || visible(a, query) > a->top_k;
}

/* How many of `keys` keys from `key` on are to be scored for a query. */
static int64_t seen(const index_select *a, int64_t query, int64_t key, int64_t keys) {
    int64_t see = visible(a, query) - key;
    return !scored(a, query) ? 0 : see < keys ? see : keys;
}

static void pack_queries(const selection *s, const space *at, int64_t first, int64_t end) {
    const index_select *a = s->a;
    size_t bytes = pad((size_t)a->heads, (size_t)s->p->row_pad) * pad((size_t)a->dim, (size_t)s->p->dim_pad) *
                   dtype_size(s->p->type);
    for (int64_t i = first; i < end; i++)
        s->p->pack_rows((char *)at->q + (size_t)(i - first) * bytes, a->q + i * a->ldq, DT_F32, a->dim, NULL, a->heads,
                        a->dim);
}

/* Scores keys key .. key+KEYS-1 for queries first .. end-1 (packed already) into rows of `out`. */
static void score_block(const selection *s, const space *at, int64_t first, int64_t end, int64_t key, float *out) {
    const index_select *a = s->a;
    int64_t d = (int64_t)pad((size_t)a->dim, (size_t)s->p->dim_pad);
    int64_t heads = (int64_t)pad((size_t)a->heads, (size_t)s->p->row_pad);
    size_t size = dtype_size(s->p->type), panel_bytes = (size_t)(d * PANEL) * size;
    int64_t keys = visible(a, end - 1) - key;
    if (keys > KEYS) keys = KEYS;
    const int64_t row = a->pages ? (int64_t)a->pages[key / KEYS] * KEYS : key;
    for (int64_t c = 0; c < keys; c += PANEL) {
        int count = keys - c < PANEL ? (int)(keys - c) : PANEL;
        const void *rows[PANEL];
        for (int r = 0; r < count; r++)
            rows[r] = (const char *)a->keys + (size_t)((row + c + r) * a->key_stride) * dtype_size(a->key_type);
        s->p->pack_panel((char *)at->panels + (size_t)(c / PANEL) * panel_bytes, rows, a->key_type, count, a->dim);
    }
    int64_t step = together(s->p, a);
    for (int64_t i = first, next; i < end; i = next) {
        next = i + step < end ? i + step : end;
        int64_t most = seen(a, next - 1, key, keys); /* the last one sees most */
        if (most <= 0) continue;
        int64_t width = (int64_t)pad((size_t)most, PANEL);
        const char *q = (const char *)at->q + (size_t)((i - first) * heads * d) * size;
        s->p->scores(at->s, q, d, (next - i - 1) * heads + a->heads, at->panels, (int)(width / PANEL), d);
        for (int64_t j = i; j < next; j++) {
            int64_t see = seen(a, j, key, keys);
            if (see <= 0) continue;
            s->m->relu_sum(at->sums, at->s + (j - i) * heads * width, width, a->w + j * a->ldw, a->heads,
                           (int64_t)pad((size_t)see, PANEL));
            memcpy(out + (j - first) * s->ld + key, at->sums, (size_t)see * sizeof(float));
        }
    }
}

static void select_query(const selection *s, const space *at, int64_t query, float *score) {
    const index_select *a = s->a;
    int64_t see = visible(a, query);
    int32_t *keep = a->keep + query * a->keep_stride;
    if (see <= a->top_k) {
        for (int64_t i = 0; i < see; i++) keep[i] = (int32_t)i;
        a->keep_n[query] = (int32_t)see;
    } else {
        s->m->top_k(keep, score, see, a->top_k, at->bits);
        a->keep_n[query] = a->top_k;
    }
    if (a->scores) memset(score + see, 0, (size_t)(a->T - see) * sizeof(float));
}

static void many_task(void *arg, int64_t task, int thread) {
    const selection *s = arg;
    const index_select *a = s->a;
    memory start = {.base = s->scratch + (size_t)thread * s->thread_bytes};
    space at = carve_space(&start, s->p, a);
    int64_t first = task * s->queries, end = first + s->queries < a->n ? first + s->queries : a->n;
    float *out = a->scores ? a->scores + first * a->ld_scores : at.scores;
    if (scored(a, end - 1)) {
        pack_queries(s, &at, first, end);
        for (int64_t key = 0; key < visible(a, end - 1); key += KEYS) score_block(s, &at, first, end, key, out);
    }
    for (int64_t i = first; i < end; i++) select_query(s, &at, i, out + (i - first) * s->ld);
}

static void few_score_task(void *arg, int64_t task, int thread) {
    const selection *s = arg;
    memory start = {.base = s->scratch + (size_t)thread * s->thread_bytes};
    space at = carve_space(&start, s->p, s->a);
    pack_queries(s, &at, 0, s->a->n);
    score_block(s, &at, 0, s->a->n, task * KEYS, s->scores);
}

static void few_select_task(void *arg, int64_t task, int thread) {
    const selection *s = arg;
    memory start = {.base = s->scratch + (size_t)thread * s->thread_bytes};
    space at = carve_space(&start, s->p, s->a);
    select_query(s, &at, task, s->scores + task * s->ld);
}

static void select_for(queue *q, const index_select *a) {
    selection s = {.m = q->attn, .p = &q->attn->product[q->compute], .a = a};
    memory needed = {0};
    carve_space(&needed, s.p, a);
    s.thread_bytes = needed.used;
    int64_t threads = pool_threads(q->pool);
    size_t shared = OP_FEW_ROWS * pad((size_t)a->T, KEYS) * sizeof(float);
    s.scratch = queue_scratch(q, SLOT_INDEX, (size_t)threads * s.thread_bytes + shared);
    if (!s.scratch) return;
    s.ld = a->scores ? a->ld_scores : (int64_t)pad((size_t)a->T, KEYS);
    if (a->n > OP_FEW_ROWS) {
        s.queries = a->n < 4 * threads * QUERIES ? QUERIES / 4 : QUERIES;
        pool_run(q->pool, (a->n + s.queries - 1) / s.queries, many_task, &s);
        return;
    }
    s.scores = a->scores ? a->scores : (float *)(s.scratch + (size_t)threads * s.thread_bytes);
    if (scored(a, a->n - 1)) pool_run(q->pool, (a->T + KEYS - 1) / KEYS, few_score_task, &s);
    pool_run(q->pool, a->n, few_select_task, &s);
}

void op_index_select(queue *q, const index_select *list, int count) {
    for (int i = 0; i < count; i++)
        if (list[i].n > 0) select_for(q, &list[i]);
}
