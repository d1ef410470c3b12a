#include "post/policy.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/arena.h"

/* Tokens of a micro-batch, when nobody says how many completions it should have. With BF16 products moving rows between
 * caches is most of the time: fewer tokens, as long as the weights are so few that passing through them is not. */
enum { MICRO_TOKENS = 8192, MICRO_LEAST = 768, WEIGHTS_PER_TOKEN = 1024 };

struct policy {
    policy_loss_options o;
    int64_t micro, most; /* completions of a micro-batch, 0: `most` tokens */
    bool trees;
    arena *mem, *step; /* of a micro-batch; of a call of policy_batches */
    const policy_item *list;
    int64_t n, count;    /* items, micro-batches */
    int64_t *first, now; /* [count + 1]: items of the micro-batches; the one that was handed out last */
    completion_judge judge;
    token_loss loss;
    /* the policy's own judge */
    double tokens, sequences;
    policy_numbers *numbers;
};

status policy_open(policy **out, const policy_loss_options *o, double temperature, int64_t micro, error *e) {
    policy *p = calloc(1, sizeof *p);
    *out = p;
    if (!p) return fail(e, ERR_NOMEM, "memory is out");
    p->o = *o;
    p->micro = micro;
    p->most = MICRO_TOKENS;
    p->loss.temperature = (real)temperature;
    p->mem = arena_open(1 << 16);
    p->step = arena_open(1 << 12);
    if (p->mem && p->step) return OK;
    policy_close(p);
    *out = NULL;
    return fail(e, ERR_NOMEM, "memory is out");
}

void policy_fit(policy *p, const trainer *t) {
    const int64_t few = t->p.total / WEIGHTS_PER_TOKEN > MICRO_LEAST ? t->p.total / WEIGHTS_PER_TOKEN : MICRO_LEAST;
    p->trees = trainer_takes_trees(t);
    p->most = queue_compute(t->q) == COMPUTE_BF16 && few < MICRO_TOKENS ? few : MICRO_TOKENS;
}

void policy_close(policy *p) {
    if (!p) return;
    arena_close(p->mem);
    arena_close(p->step);
    free(p);
}

/* --- batches ----------------------------------------------------------------------------------------------------- */

static int64_t rows_of(const policy_item *x) { /* the last token is nobody's input */
    return x->n_prompt + x->n - 1;
}

/* How many items from i on have the same prompt: they become one tree. */
static int64_t alike(const policy *p, int64_t i, int64_t end) {
    const policy_item *x = &p->list[i];
    int64_t n = 1;
    if (!p->trees || x->n_prompt < 2) return 1;
    while (i + n < end && x[n].n_prompt == x->n_prompt &&
           memcmp(x[n].prompt, x->prompt, (size_t)x->n_prompt * sizeof *x->prompt) == 0)
        n++;
    return n;
}

typedef struct layout { /* of a micro-batch */
    token_batch *b;
    int32_t *ids, *next, *target, *from;
    int64_t *doc, *row, *trunk, at;
} layout;

static status open_layout(policy *p, layout *l, int64_t n, int64_t items, error *e) {
    arena *m = p->mem;
    arena_reset(m);
    l->ids = arena_take(m, (size_t)n * sizeof *l->ids);
    l->next = arena_take(m, (size_t)n * sizeof *l->next);
    l->target = arena_take(m, (size_t)n * sizeof *l->target);
    l->from = arena_take(m, (size_t)n * sizeof *l->from);
    l->doc = arena_take(m, (size_t)(items + 1) * sizeof *l->doc);
    l->row = arena_take(m, (size_t)(items + 1) * sizeof *l->row);
    l->trunk = arena_take(m, (size_t)items * sizeof *l->trunk);
    const bool ok = l->ids && l->next && l->target && l->from && l->doc && l->row && l->trunk;
    return ok ? OK : fail(e, ERR_NOMEM, "memory is out");
}

/* The prompt but its last token: the row that predicts a completion's first token is the completion's own. */
static void add_trunk(layout *l, const policy_item *x, int64_t trunk) {
    memcpy(l->ids + l->at, x->prompt, (size_t)trunk * sizeof *l->ids);
    memcpy(l->next + l->at, x->prompt + 1, (size_t)trunk * sizeof *l->next);
    for (int64_t r = 0; r < trunk; r++) {
        l->target[l->at + r] = -1;
        l->from[l->at + r] = 0;
    }
    l->at += trunk;
}

/* What comes after the first `trunk` tokens. */
static void add_branch(layout *l, const policy_item *x, int64_t trunk, int64_t from) {
    const int64_t own = x->n_prompt - trunk, rows = own + x->n - 1;
    int32_t *ids = l->ids + l->at, *next = l->next + l->at;
    memcpy(ids, x->prompt + trunk, (size_t)own * sizeof *ids);
    memcpy(ids + own, x->ids, (size_t)(x->n - 1) * sizeof *ids);
    for (int64_t r = 0; r < rows; r++) {
        next[r] = r + 1 < rows ? ids[r + 1] : x->ids[x->n - 1];
        l->target[l->at + r] = r + 1 >= own ? next[r] : -1;
        l->from[l->at + r] = (int32_t)from;
    }
    l->b->n_targets += x->n;
    l->at += rows;
}

static status lay_out(policy *p, token_batch *b, int64_t first, int64_t end, error *e) {
    layout l = {.b = b};
    int64_t n = 0;
    for (int64_t i = first; i < end; i++) n += rows_of(&p->list[i]);
    TRY(open_layout(p, &l, n, end - first, e));
    *b = (token_batch){.ids = l.ids, .next = l.next, .target = l.target, .doc = l.doc, .row = l.row};
    for (int64_t i = first, group; i < end; i += group) {
        const policy_item *x = &p->list[i];
        const int64_t start = l.at;
        group = alike(p, i, end);
        const int64_t trunk = group > 1 ? x->n_prompt - 1 : 0;
        l.doc[b->n_docs] = start;
        l.trunk[b->n_docs++] = trunk;
        for (int64_t k = 0; k < group; k++) {
            l.row[b->n_rows++] = l.at;
            if (k == 0) add_trunk(&l, x, trunk);
            add_branch(&l, &x[k], trunk, trunk ? l.at - start : 0);
        }
    }
    b->n = l.doc[b->n_docs] = l.row[b->n_rows] = l.at;
    b->spared = n - b->n;
    if (b->spared) {
        b->trunk = l.trunk;
        b->from = l.from;
    }
    return OK;
}

static status get(void *arg, int64_t micro, token_batch *out, error *e) {
    policy *p = arg;
    p->now = micro;
    return lay_out(p, out, p->first[micro], p->first[micro + 1], e);
}

static status on_rows(void *arg, const token_batch *b, int64_t n, const int64_t *row, const real *logp,
                      const real *entropy, real *d, double *loss, error *e) {
    policy *p = arg;
    const int64_t first = p->first[p->now], end = p->first[p->now + 1];
    (void)b, (void)row, (void)n;
    int64_t *at = arena_take(p->mem, (size_t)(end - first + 1) * sizeof *at);
    if (!at) return fail(e, ERR_NOMEM, "memory is out");
    at[0] = 0;
    for (int64_t i = first; i < end; i++) at[i - first + 1] = at[i - first] + p->list[i].n;
    return p->judge.apply(p->judge.arg, first, end, at, logp, entropy, d, loss, e);
}

status policy_batches(policy *p, const policy_item *list, int64_t n, int64_t unit, const completion_judge *judge,
                      batch_source *out, error *e) {
    arena_reset(p->step);
    p->list = list;
    p->judge = *judge;
    p->first = arena_take(p->step, (size_t)(n + 1) * sizeof *p->first);
    if (!p->first) return fail(e, ERR_NOMEM, "memory is out");
    p->count = 0;
    int64_t tokens = 0, items = 0;
    for (int64_t i = 0; i < n; i += unit) {
        int64_t rows = 0;
        for (int64_t k = i; k < n && k < i + unit; k++) rows += rows_of(&list[k]);
        const bool full = p->micro ? items + unit > p->micro : tokens + rows > p->most;
        if (!i || full) {
            p->first[p->count++] = i;
            tokens = items = 0;
        }
        tokens += rows;
        items += unit;
    }
    p->first[p->count] = n;
    p->loss = (token_loss){.temperature = p->loss.temperature, .k = 1, .apply = on_rows, .arg = p};
    *out = (batch_source){.get = get, .arg = p, .count = p->count, .judge = &p->loss};
    return OK;
}

/* --- the policy's loss ------------------------------------------------------------------------------------------- */

static status join(policy *p, int64_t first, int64_t end, const int64_t *at, policy_batch *b, error *e) {
    const size_t n = (size_t)at[end - first];
    float *old = arena_take(p->mem, n * sizeof *old), *ref = arena_take(p->mem, n * sizeof *ref),
          *mask = arena_take(p->mem, n * sizeof *mask);
    double *advantage = arena_take(p->mem, (size_t)(end - first) * sizeof *advantage);
    if (!old || !ref || !mask || !advantage) return fail(e, ERR_NOMEM, "memory is out");
    for (int64_t i = first; i < end; i++) {
        const policy_item *x = &p->list[i];
        const int64_t to = at[i - first];
        memcpy(old + to, x->old, (size_t)x->n * sizeof *old);
        if (x->ref) memcpy(ref + to, x->ref, (size_t)x->n * sizeof *ref);
        for (int64_t k = 0; k < x->n; k++) mask[to + k] = x->mask ? x->mask[k] : 1;
        advantage[i - first] = x->advantage;
    }
    *b = (policy_batch){.n_seq = end - first,
                        .first = at,
                        .old = old,
                        .ref = p->list[first].ref ? ref : NULL,
                        .mask = mask,
                        .advantage = advantage,
                        .tokens = p->tokens,
                        .sequences = p->sequences};
    if (p->o.kind == POLICY_BNPO) { /* the mean of the micro-batches' own means */
        b->tokens = 0;
        for (size_t k = 0; k < n; k++) b->tokens += (double)mask[k];
        b->tokens *= (double)p->count;
    }
    return OK;
}

static status judge_policy(void *arg, int64_t first, int64_t end, const int64_t *at, const real *logp,
                           const real *entropy, real *d, double *loss, error *e) {
    policy *p = arg;
    policy_numbers *s = p->numbers;
    const int64_t n = at[end - first];
    policy_batch b;
    TRY(join(p, first, end, at, &b, e));
    b.logp = logp;
    real *unused = d ? d : arena_take(p->mem, (size_t)n * sizeof *unused);
    if (!unused) return fail(e, ERR_NOMEM, "memory is out");
    const double before = s->stats.loss;
    policy_loss(&p->o, &b, unused, &s->stats, NULL, NULL, NULL);
    *loss += s->stats.loss - before;
    for (int64_t i = 0; i < n; i++) {
        const double drift = fabs((double)logp[i] - (double)b.old[i]);
        s->entropy += (double)entropy[i];
        s->drift_sum += drift;
        s->error_sum += exp(drift);
        if (!(drift <= s->drift_max)) s->drift_max = drift;
    }
    s->drawn_tokens += (double)n;
    return OK;
}

status policy_source(policy *p, const policy_item *list, int64_t n, double tokens, double sequences,
                     policy_numbers *numbers, batch_source *out, error *e) {
    *numbers = (policy_numbers){0};
    p->numbers = numbers;
    p->tokens = tokens;
    p->sequences = sequences;
    return policy_batches(p, list, n, 1, &(completion_judge){judge_policy, p}, out, e);
}

/* --- the reference ----------------------------------------------------------------------------------------------- */

static status note_reference(void *arg, int64_t first, int64_t end, const int64_t *at, const real *logp,
                             const real *entropy, real *d, double *loss, error *e) {
    const policy *p = arg;
    (void)entropy, (void)d, (void)loss, (void)e;
    for (int64_t i = first; i < end; i++)
        for (int64_t k = at[i - first]; k < at[i - first + 1]; k++) p->list[i].ref[k - at[i - first]] = (float)logp[k];
    return OK;
}

status policy_reference(policy *p, trainer *t, const real *w, const policy_item *list, int64_t n, error *e) {
    batch_source s;
    double loss;
    if (!n) return OK;
    TRY(policy_batches(p, list, n, 1, &(completion_judge){note_reference, p}, &s, e));
    return trainer_loss_of(t, w, &s, &loss, e);
}
