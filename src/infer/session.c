#include "infer/session.h"

#include <stdlib.h>
#include <string.h>

/* Rows of prompt in one walk. Every walk reads all experts once, so more rows are faster (V2-Lite's width, 2 threads,
 * prompt of 4096: 512 rows 1057, 1024 rows 1192, 2048 rows 1449 tokens/s); their activations take memory (about 0.2 MB
 * a row). */
enum { CHUNK = 1024 };

/* All of an engine but its queue. */
static status engine_make(engine **out, const model *m, mla_form form, error *e) {
    engine *g = calloc(1, sizeof *g);
    *out = g;
    if (!g) return fail(e, ERR_NOMEM, "memory is out");
    *g = (engine){.m = m, .form = form, .chunk = CHUNK};
    pthread_mutex_init(&g->turn, NULL);
    g->ws.step = arena_open(1 << 16);
    g->ws.block = arena_open(1 << 16);
    return g->ws.step && g->ws.block ? OK : fail(e, ERR_NOMEM, "memory is out");
}

static status give(engine **out, engine *g, status s) {
    *out = s == OK ? g : NULL;
    if (s != OK) engine_close(g);
    return s;
}

status engine_open(engine **out, const model *m, int threads, const char *level, compute c, mla_form form, error *e) {
    engine *g;
    status s = engine_make(&g, m, form, e);
    if (s == OK) s = queue_open(&g->ws.q, threads, level, c, e);
    return give(out, g, s);
}

status engine_borrow(engine **out, const model *m, queue *q, mla_form form, error *e) {
    engine *g;
    status s = engine_make(&g, m, form, e);
    if (g) {
        g->ws.q = q;
        g->borrowed = true;
    }
    return give(out, g, s);
}

void engine_close(engine *g) {
    if (!g) return;
    if (!g->borrowed) queue_close(g->ws.q);
    arena_close(g->ws.step);
    arena_close(g->ws.block);
    pthread_mutex_destroy(&g->turn);
    free(g);
}

/* --- memory ----------------------------------------------------------------------------------------------------- */

dtype engine_cache_type(const engine *g) {
    return queue_compute(g->ws.q) == COMPUTE_BF16 ? DT_BF16 : DT_F32;
}

/* All of a session but its pages. */
static status session_make(session **out, engine *g, page_pool *pool, int64_t capacity, error *e) {
    session *s = calloc(1, sizeof *s);
    if (!s) return fail(e, ERR_NOMEM, "memory is out");
    *s = (session){.g = g, .pool = pool, .capacity = capacity};
    s->tokens = malloc((size_t)capacity * sizeof *s->tokens);
    s->pages = malloc((size_t)pages_of(capacity) * sizeof *s->pages);
    s->cache = malloc((size_t)cached_layers(g->m) * sizeof *s->cache);
    if (!s->tokens || !s->pages || !s->cache) {
        session_close(s);
        return fail(e, ERR_NOMEM, "memory is out");
    }
    memcpy(s->cache, pool->slots, (size_t)cached_layers(g->m) * sizeof *s->cache);
    *out = s;
    return OK;
}

status session_open(session **out, engine *g, int64_t capacity, error *e) {
    page_pool *pool;
    *out = NULL;
    if (capacity < 1) return fail(e, ERR_ARG, "a session of %lld tokens", (long long)capacity);
    TRY(pages_open(&pool, g->m, engine_cache_type(g), pages_of(capacity), e));
    status st = session_make(out, g, pool, capacity, e);
    if (st != OK) pages_close(pool);
    else (*out)->alone = session_reserve(*out, capacity);
    return st;
}

status session_open_in(session **out, engine *g, page_pool *pool, int64_t capacity, error *e) {
    *out = NULL;
    TRY(session_make(out, g, pool, capacity, e));
    for (int64_t l = 0; l < cached_layers(g->m); l++)
        for (int i = 0; i < CACHE_SLOTS; i++) (*out)->cache[l][i].pages = (*out)->pages;
    return OK;
}

void session_close(session *s) {
    if (!s) return;
    if (s->alone) pages_close(s->pool);
    else
        for (int64_t i = 0; i < s->n_pages; i++) pages_drop(s->pool, s->pages[i]);
    free(s->tokens);
    free(s->pages);
    free(s->cache);
    free(s->logits);
    free(s->hidden);
    free(s);
}

bool session_reserve(session *s, int64_t n) {
    const int64_t need = pages_of(n) - s->n_pages;
    if (need > s->pool->free) return false;
    for (int64_t i = 0; i < need; i++) s->pages[s->n_pages++] = pages_take(s->pool);
    return true;
}

void session_begin(session *s, const int32_t *tokens, int64_t n, const int32_t *pages) {
    for (int64_t i = 0; i < pages_of(n); i++) s->pages[s->n_pages++] = pages[i];
    memcpy(s->tokens, tokens, (size_t)n * sizeof *tokens);
    s->length = s->mtp_length = n;
}

/* Bytes of the rows in use of a layer's slot. */
static size_t held_bytes(const session *s, int64_t l, int slot) {
    int64_t held = l < s->g->m->cfg.num_hidden_layers ? s->length : s->mtp_length;
    return (size_t)(held * s->cache[l][slot].width) * dtype_size(s->cache[l][slot].type);
}

uint64_t session_cache_bytes(const session *s) {
    uint64_t sum = 0;
    for (int64_t l = 0; l < cached_layers(s->g->m); l++)
        for (int i = 0; i < CACHE_SLOTS; i++) sum += held_bytes(s, l, i);
    return sum;
}

static status need(float **p, int64_t *capacity, int64_t rows, int64_t width, error *e) {
    if (rows <= *capacity) return OK;
    float *more = realloc(*p, (size_t)(rows * width) * sizeof *more);
    if (!more) return fail(e, ERR_NOMEM, "memory is out");
    *p = more;
    *capacity = rows;
    return OK;
}

void session_truncate(session *s, int64_t n) {
    if (n >= s->length) return;
    s->length = n;
    s->rows = 0;
    if (s->mtp_length > n) s->mtp_length = n; /* else the first n - mtp_length waiting states stay right */
}

/* Full pages of a common pool are shared, all else is copied. */
static status fork_pages(session *to, const session *from, error *e) {
    for (int64_t i = 0; i < pages_of(from->length); i++) {
        const int64_t left = from->length - i * CACHE_PAGE;
        if (to->pool == from->pool && left >= CACHE_PAGE) {
            pages_hold(to->pool, from->pages[i]);
            to->pages[to->n_pages++] = from->pages[i];
            continue;
        }
        if (!session_reserve(to, from->length)) return fail(e, ERR_NOMEM, "the cache has no page for a fork");
        pages_copy(to->pool, to->pages[i], from->pool, from->pages[i], left < CACHE_PAGE ? left : CACHE_PAGE);
    }
    return OK;
}

status session_fork(session *to, const session *from, error *e) {
    const model *m = from->g->m;
    const int64_t vocab = m->cfg.vocab_size, waiting = from->drafting ? from->length - from->mtp_length : 0;
    if (from->length > to->capacity)
        return fail(e, ERR_ARG, "a fork of %lld tokens, but the context holds %lld", (long long)from->length,
                    (long long)to->capacity);
    to->rows = from->rows > 0;
    TRY(need(&to->logits, &to->rows_capacity, to->rows, vocab, e));
    TRY(need(&to->hidden, &to->hidden_capacity, waiting, m->cfg.hidden_size, e));
    if (to->rows) memcpy(to->logits, from->logits + (from->rows - 1) * vocab, (size_t)vocab * sizeof *to->logits);
    if (waiting) memcpy(to->hidden, from->hidden, (size_t)(waiting * m->cfg.hidden_size) * sizeof *to->hidden);
    memcpy(to->tokens, from->tokens, (size_t)from->length * sizeof *to->tokens);
    TRY(fork_pages(to, from, e));
    to->length = from->length;
    to->mtp_length = from->mtp_length;
    to->drafting = from->drafting;
    return OK;
}

void session_set_drafting(session *s, bool on) {
    on = on && s->g->m->n_mtp > 0;
    if (on && !s->drafting) session_truncate(s, s->mtp_length);
    s->drafting = on;
}

/* --- steps ------------------------------------------------------------------------------------------------------ */

typedef struct slice { /* of one session in a batch */
    session *s;
    const int32_t *tokens;
    int64_t n, first_row, outs;
} slice;

/* The MTP layer reads the states that now have a next token: of `known` new tokens behind the held ones. */
static status feed_mtp(session *s, const int32_t *next, int64_t known, float *logits, float *h_out, error *e) {
    engine *g = s->g;
    int64_t waiting = s->length - s->mtp_length, n = waiting - 1 + known;
    if (n > waiting) n = waiting;
    if (n <= 0) return OK;
    int32_t *ids = malloc((size_t)n * sizeof *ids);
    if (!ids) return fail(e, ERR_NOMEM, "memory is out");
    for (int64_t i = 0; i < n; i++) {
        int64_t p = s->mtp_length + i + 1;
        ids[i] = p < s->length ? s->tokens[p] : next[p - s->length];
    }
    sequence seq = {.first = 0, .n = n, .pos = s->mtp_length, .cache = s->cache};
    int64_t out = n - 1;
    batch b = {.n = n,
               .ids = ids,
               .seq = &seq,
               .n_seq = 1,
               .n_out = logits ? 1 : 0,
               .out = &out,
               .logits = logits,
               .form = g->form};
    float *states = h_out ? malloc((size_t)(n * g->m->cfg.hidden_size) * sizeof *states) : NULL;
    status st = h_out && !states ? fail(e, ERR_NOMEM, "memory is out") : OK;
    b.hidden = states;
    if (st == OK) st = model_forward_mtp(g->m, &g->ws, 0, s->hidden, &b, e);
    if (st == OK) {
        size_t row = (size_t)g->m->cfg.hidden_size;
        if (h_out) memcpy(h_out, states + (size_t)(n - 1) * row, row * sizeof *h_out);
        memmove(s->hidden, s->hidden + (size_t)n * row, (size_t)(waiting - n) * row * sizeof *s->hidden);
        s->mtp_length += n;
    }
    free(states);
    free(ids);
    return st;
}

/* One batch: the slices' rows, one after the other. way: NULL, or as in sessions_extend_alike. */
static status run_batch(engine *g, slice *parts, int count, const rows_way *way, error *e) {
    const model *m = g->m;
    const int64_t vocab = m->cfg.vocab_size, hidden = m->cfg.hidden_size;
    int64_t n = 0, n_out = 0;
    bool drafting = false;
    for (int i = 0; i < count; i++) {
        parts[i].first_row = n;
        n += parts[i].n;
        n_out += parts[i].outs;
        drafting |= parts[i].s->drafting;
    }
    arena *mem = arena_open((size_t)n * 16 + 4096);
    if (!mem) return fail(e, ERR_NOMEM, "memory is out");
    int32_t *ids = arena_take(mem, (size_t)n * sizeof *ids);
    int64_t *out = arena_take(mem, (size_t)n_out * sizeof *out);
    sequence *seq = arena_take(mem, (size_t)count * sizeof *seq);
    float *logits = arena_take(mem, (size_t)(n_out * vocab) * sizeof *logits);
    float *states = drafting ? arena_take(mem, (size_t)(n * hidden) * sizeof *states) : NULL;
    if (!ids || !out || !seq || !logits || (drafting && !states)) {
        arena_close(mem);
        return fail(e, ERR_NOMEM, "memory is out");
    }
    for (int i = 0, at = 0; i < count; i++) {
        slice *p = &parts[i];
        seq[i] = (sequence){.first = p->first_row, .n = p->n, .pos = p->s->length, .cache = p->s->cache};
        memcpy(ids + p->first_row, p->tokens, (size_t)p->n * sizeof *ids);
        for (int64_t r = 0; r < p->outs; r++) out[at++] = p->first_row + p->n - p->outs + r;
    }
    batch b = {.n = n,
               .ids = ids,
               .seq = seq,
               .n_seq = count,
               .n_out = n_out,
               .out = out,
               .logits = logits,
               .hidden = states,
               .form = way ? MLA_ABSORBED : g->form};
    pthread_mutex_lock(&g->turn);
    const rows_way before = way ? queue_rows(g->ws.q, *way) : ROWS_BY_NUMBER;
    status st = model_forward(m, &g->ws, &b, e);
    if (way) queue_rows(g->ws.q, before);
    for (int64_t i = 0, at = 0; i < count && st == OK; i++) {
        slice *p = &parts[i];
        session *s = p->s;
        if (p->outs && (st = need(&s->logits, &s->rows_capacity, p->outs, vocab, e)) == OK) {
            memcpy(s->logits, logits + at * vocab, (size_t)(p->outs * vocab) * sizeof *logits);
            at += p->outs;
        }
        s->rows = p->outs;
        int64_t waiting = s->length - s->mtp_length;
        if (st == OK && s->drafting && (st = need(&s->hidden, &s->hidden_capacity, waiting + p->n, hidden, e)) == OK)
            memcpy(s->hidden + waiting * hidden, states + p->first_row * hidden,
                   (size_t)(p->n * hidden) * sizeof *states);
        memcpy(s->tokens + s->length, p->tokens, (size_t)p->n * sizeof *s->tokens);
        s->length += p->n;
        if (st == OK && s->drafting && s->length - s->mtp_length > OP_FEW_ROWS)
            st = feed_mtp(s, NULL, 0, NULL, NULL, e);
    }
    pthread_mutex_unlock(&g->turn);
    arena_close(mem);
    return st;
}

static status check_tokens(const session *s, const int32_t *tokens, int64_t n, error *e) {
    if (n > s->capacity - s->length)
        return fail(e, ERR_ARG, "the context is full: %lld tokens and %lld more, but it holds %lld",
                    (long long)s->length, (long long)n, (long long)s->capacity);
    for (int64_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= s->g->m->cfg.vocab_size)
            return fail(e, ERR_ARG, "token id %d at %lld is outside the vocabulary of %lld", tokens[i], (long long)i,
                        (long long)s->g->m->cfg.vocab_size);
    return OK;
}

static status extend(session *const *s, int count, const int32_t *const *tokens, const int64_t *n, const int64_t *want,
                     const rows_way *way, error *e) {
    if (count < 1) return fail(e, ERR_ARG, "no sessions");
    slice *parts = calloc((size_t)count, sizeof *parts);
    int64_t *done = calloc((size_t)count, sizeof *done);
    status st = parts && done ? OK : fail(e, ERR_NOMEM, "memory is out");
    for (int i = 0; i < count && st == OK; i++) st = check_tokens(s[i], tokens[i], n[i], e);
    for (int i = 0; st == OK && i < count;) {
        int used = 0;
        int64_t room = s[0]->g->chunk > count ? s[0]->g->chunk : count;
        for (int k = i; k < count && room > 0; k++) { /* sessions in order; the last one may go on in the next batch */
            int64_t left = n[k] - done[k], take = left < room ? left : room, wanted = want ? want[k] : 1;
            if (take < left && wanted > left - take)
                take = left > wanted ? left - wanted : take; /* wanted rows come together */
            parts[used++] = (slice){.s = s[k],
                                    .tokens = tokens[k] + done[k],
                                    .n = take,
                                    .outs = take < left     ? 0
                                            : wanted < take ? wanted
                                                            : take};
            room -= take;
            done[k] += take;
            if (done[k] < n[k]) break;
        }
        st = run_batch(s[0]->g, parts, used, way, e);
        while (i < count && done[i] == n[i]) i++;
    }
    free(parts);
    free(done);
    return st;
}

status sessions_extend(session *const *s, int count, const int32_t *const *tokens, const int64_t *n,
                       const int64_t *want, error *e) {
    return extend(s, count, tokens, n, want, NULL, e);
}

status sessions_extend_alike(session *const *s, int count, const int32_t *const *tokens, const int64_t *n,
                             const int64_t *want, rows_way way, error *e) {
    return extend(s, count, tokens, n, want, &way, e);
}

status session_sync(session *s, const int32_t *tokens, int64_t n, int64_t *kept, session_progress *progress, void *arg,
                    error *e) {
    if (n < 1) return fail(e, ERR_ARG, "an empty prompt: give at least one token");
    if (n > s->capacity)
        return fail(e, ERR_ARG, "the prompt has %lld tokens, but the context holds %lld", (long long)n,
                    (long long)s->capacity);
    int64_t common = 0;
    while (common < s->length && common < n - 1 && s->tokens[common] == tokens[common]) common++;
    if (common == n - 1 && s->length == n && s->tokens[n - 1] == tokens[n - 1] && s->rows > 0)
        common = n;                   /* nothing to do */
    if (common == n && s->rows > 1) { /* the last step checked drafts: its last row is that of the next token */
        const size_t vocab = (size_t)s->g->m->cfg.vocab_size;
        memcpy(s->logits, s->logits + (size_t)(s->rows - 1) * vocab, vocab * sizeof *s->logits);
        s->rows = 1;
    }
    session_truncate(s, common);
    if (kept) *kept = common;
    while (s->length < n) {
        int64_t left = n - s->length, take = left < s->g->chunk ? left : s->g->chunk;
        const int32_t *from = tokens + s->length;
        if (progress && !progress(arg, s->length - common, n - common)) return fail(e, ERR_CANCELLED, "cancelled");
        TRY(sessions_extend(&s, 1, &from, &take, NULL, e));
    }
    return OK;
}

static int32_t best_of(const float *x, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return (int32_t)best;
}

/* The first draft joins the last held state with `next`; each further one joins the MTP layer's own state with the
 * draft before. Rows of the MTP cache that rest on drafts are not kept: mtp_length is set back. */
status session_draft(session *s, int32_t next, int n, int32_t *draft, int *count, error *e) {
    engine *g = s->g;
    const int64_t hidden = g->m->cfg.hidden_size, vocab = g->m->cfg.vocab_size;
    *count = 0;
    if (!s->drafting || !g->m->n_mtp || s->length == s->mtp_length) return OK;
    float *logits = malloc((size_t)(vocab + hidden) * sizeof *logits), *h = logits ? logits + vocab : NULL;
    if (!logits) return fail(e, ERR_NOMEM, "memory is out");
    pthread_mutex_lock(&g->turn);
    status st = feed_mtp(s, &next, 1, logits, h, e);
    if (st == OK) draft[(*count)++] = best_of(logits, vocab);
    while (st == OK && *count < n && s->mtp_length + *count <= s->capacity) {
        int64_t out = 0;
        sequence seq = {.first = 0, .n = 1, .pos = s->mtp_length + *count - 1, .cache = s->cache};
        batch b = {.n = 1,
                   .ids = &draft[*count - 1],
                   .seq = &seq,
                   .n_seq = 1,
                   .n_out = 1,
                   .out = &out,
                   .logits = logits,
                   .hidden = h,
                   .form = g->form};
        st = model_forward_mtp(g->m, &g->ws, 0, h, &b, e);
        if (st == OK) draft[(*count)++] = best_of(logits, vocab);
    }
    pthread_mutex_unlock(&g->turn);
    free(logits);
    return st;
}
