/* The way of a micro-batch through the model and back (V3 report, 2).
 *
 *   h = embed[ids];  blocks;  y = norm(h);  loss = mean over targets of cross-entropy(head y, target)
 *   MTP depth d = 1 .. D over the rows i whose token i + d is known (V3 report, 2.2, eq. 21-25):
 *     h_d = proj_d [norm_e(embed[t_{i+d}]) | norm_h(y_{d-1})];  block;  y_d = norm_d(h_d);  target t_{i+d+1}
 *     y_0 = y (or h, before the norm, when the run says so); embedding and head are the main model's, so their
 * gradients are sums
 *
 * Heads (head.h) make their gradient at once: the factor of every term is known before.
 * What a part keeps lies in one arena for the whole micro-batch; what a block needs on its way only, in another. */
#include "train/execute.h"

#include <stdlib.h>
#include <string.h>
#include "model/rope.h"
#include "train/head.h"

typedef struct block_state { /* what a block left for backward */
    flow x[MAX_PARTS];       /* after each part's forward */
    void *saved[MAX_PARTS];
    flow start; /* whole-block recompute: the flow before the block, h a copy */
} block_state;

typedef struct stage { /* rows that go through blocks together: the main model's, or an MTP depth's */
    flow x;
    int64_t n;
    real *y, *dy; /* after the final norm, and its gradient; [n][hidden] */
    real *h, *dh; /* before it */
    const int32_t *target;
    int32_t *best; /* the largest logit of each row that has a target, else -1 */
    /* MTP only */
    int64_t *from;      /* the row of the stage before, for each row */
    int32_t *ids;       /* embedded tokens */
    real *e, *p, *both; /* embedded tokens, rows from the stage before, both after their norms */
} stage;

struct executor {
    const model *m, *g;
    queue *q;
    comm *ep;
    unsigned recompute;
    bool recompute_block;
    mtp_hidden mtp_hidden;
    arena *keep, *again, *block; /* of the micro-batch; of a block's second forward; of a block on its way */
    block_state *state;          /* [layers and MTP layers] */
};

/* --- opening ----------------------------------------------------------------------------------------------------- */

status executor_open(executor **out, const model *m, const model *g, queue *q, comm *ep, const train_config *c,
                     error *e) {
    static const struct {
        const char *name;
        unsigned flag;
    } names[] = {{"norm", RECOMPUTE_NORM}, {"mla_up", RECOMPUTE_MLA_UP}, {"swiglu", RECOMPUTE_SWIGLU}};
    *out = NULL;
    executor *x = calloc(1, sizeof *x);
    if (!x) return fail(e, ERR_NOMEM, "memory is out");
    x->m = m;
    x->g = g;
    x->q = q;
    x->ep = ep;
    x->mtp_hidden = c->objective.mtp_hidden;
    for (int i = 0; i < c->training.recompute.n; i++) {
        for (int j = 0; j < 3; j++)
            if (strcmp(c->training.recompute.item[i], names[j].name) == 0) x->recompute |= names[j].flag;
        if (strcmp(c->training.recompute.item[i], "block") == 0) x->recompute_block = true;
    }
    x->keep = arena_open(1 << 20);
    x->again = arena_open(1 << 16);
    x->block = arena_open(1 << 20);
    x->state = calloc((size_t)(m->cfg.num_hidden_layers + m->n_mtp), sizeof *x->state);
    if (!x->keep || !x->again || !x->block || !x->state) {
        executor_close(x);
        return fail(e, ERR_NOMEM, "memory is out");
    }
    *out = x;
    return OK;
}

void executor_close(executor *x) {
    if (!x) return;
    arena_close(x->keep);
    arena_close(x->again);
    arena_close(x->block);
    free(x->state);
    free(x);
}

status open_sums(step_sums *out, const model_config *c, error *e) {
    const int64_t layers = c->num_hidden_layers + c->num_nextn_predict_layers, E = c->n_routed_experts;
    *out = (step_sums){.layer = calloc((size_t)layers, sizeof *out->layer)};
    int64_t *load = calloc((size_t)(layers * E) + 1, sizeof *load);
    if (!out->layer || !load) {
        free(load);
        free(out->layer);
        return fail(e, ERR_NOMEM, "memory is out");
    }
    for (int64_t l = 0; l < layers; l++) out->layer[l].load = load + l * E;
    return OK;
}

void zero_sums(step_sums *s, const model_config *c) {
    const int64_t layers = c->num_hidden_layers + c->num_nextn_predict_layers, E = c->n_routed_experts;
    layer_stats *layer = s->layer;
    memset(layer[0].load, 0, (size_t)(layers * E) * sizeof *layer[0].load);
    for (int64_t l = 0; l < layers; l++) layer[l] = (layer_stats){.load = layer[l].load};
    *s = (step_sums){.layer = layer};
}

void free_sums(step_sums *s) {
    if (s->layer) free(s->layer[0].load);
    free(s->layer);
    *s = (step_sums){0};
}

/* --- blocks ------------------------------------------------------------------------------------------------------ */

#define NEW(arena, pointer, count)                                          \
    do {                                                                    \
        (pointer) = arena_take(arena, (size_t)(count) * sizeof *(pointer)); \
        if (!(pointer)) return fail(e, ERR_NOMEM, "memory is out");         \
    } while (0)

typedef struct pass { /* what all parts of a micro-batch are called with */
    executor *x;
    const step_goal *goal;
    step_sums *sums;
    error *e;
} pass;

static part_call call_of(const pass *p, int64_t layer, int i, arena *keep, bool count) {
    const executor *x = p->x;
    const block_state *b = &x->state[layer];
    return (part_call){.cfg = &x->m->cfg,
                       .q = x->q,
                       .w = x->m->layers[layer].w[i],
                       .dw = x->g->layers[layer].w[i],
                       .layer = layer,
                       .scratch = x->block,
                       .saved = b->saved[i],
                       .ep = x->ep,
                       .keep = keep,
                       /* without the attention's backward nobody would make queries and keys again for the indexer */
                       .recompute = x->recompute & ~(p->goal->parts.language_model ? 0u : RECOMPUTE_MLA_UP),
                       .goal = &p->goal->parts,
                       .stats = count && p->sums->layer ? &p->sums->layer[layer] : NULL,
                       .e = p->e};
}

static status run_block(const pass *p, int64_t layer, flow *f, arena *keep, bool count) {
    executor *x = p->x;
    block_state *b = &x->state[layer];
    const part *const *parts = x->m->layers[layer].parts;
    arena_reset(x->block);
    for (int i = 0; parts[i]; i++) {
        b->saved[i] = arena_zero(keep, 1, parts[i]->saved_size);
        if (!b->saved[i]) return fail(p->e, ERR_NOMEM, "memory is out");
        part_call c = call_of(p, layer, i, keep, count);
        c.x = f;
        TRY(parts[i]->forward(&c));
        TRY(queue_failed(x->q, p->e));
        b->x[i] = *f;
    }
    return OK;
}

static status block_forward(const pass *p, int64_t layer, flow *f) {
    executor *x = p->x;
    error *e = p->e;
    if (x->recompute_block) {
        block_state *b = &x->state[layer];
        const size_t bytes = (size_t)(f->n * x->m->cfg.hidden_size) * sizeof *f->h;
        b->start = *f;
        NEW(x->keep, b->start.h, bytes / sizeof *f->h);
        memcpy(b->start.h, f->h, bytes);
        arena_reset(x->again);
        return run_block(p, layer, f, x->again, true);
    }
    return run_block(p, layer, f, x->keep, true);
}

/* dh: the gradient of the block's output, becomes that of its input. */
static status block_backward(const pass *p, int64_t layer, real *dh) {
    executor *x = p->x;
    block_state *b = &x->state[layer];
    const part *const *parts = x->m->layers[layer].parts;
    flow dx = {.h = dh};
    int last = 0;
    if (x->recompute_block) {
        arena_reset(x->again);
        flow again = b->start;
        TRY(run_block(p, layer, &again, x->again, false));
    } else {
        arena_reset(x->block);
    }
    while (parts[last + 1]) last++;
    for (int i = last; i >= 0; i--) {
        if (!p->goal->parts.language_model && parts[i] != &part_indexer) continue;
        part_call c = call_of(p, layer, i, x->again, true);
        c.x = &b->x[i];
        c.dx = &dx;
        TRY(parts[i]->backward(&c));
        TRY(parts[i]->wgrad(&c));
        TRY(queue_failed(x->q, p->e));
    }
    return OK;
}

/* --- stages ------------------------------------------------------------------------------------------------------ */

/* Positions of a document's rows; those of a tree's branches go on from its trunk. */
static void turn_rows(const executor *x, real *rope, int64_t n, int64_t trunk, const int32_t *from) {
    for (int64_t i = 0, end; i < n; i = end) {
        end = trunk && i < trunk ? trunk : i + 1;
        while (end < n && (!trunk || (i >= trunk && from[end] == from[i]))) end++;
        rope_table(rope + i * x->m->rope_dim, x->m->inv_freq, x->m->rope_factor, x->m->rope_dim, i < trunk ? 0 : trunk,
                   end - i);
    }
}

/* Documents and batch rows of a stage's rows; b of the main stage, or what is left of it. */
static status open_flow(const pass *p, stage *s, const int64_t *doc, int64_t n_docs, const int64_t *row, int64_t n_rows,
                        const int64_t *trunk, const int32_t *from) {
    executor *x = p->x;
    error *e = p->e;
    const int64_t half = x->m->rope_dim / 2, hidden = x->m->cfg.hidden_size;
    int32_t *number;
    int64_t *trunks;
    real *rope;
    sequence *seq;
    NEW(x->keep, number, s->n);
    NEW(x->keep, trunks, n_docs);
    NEW(x->keep, rope, s->n * half * 2);
    NEW(x->keep, seq, n_docs);
    NEW(x->keep, s->h, s->n * hidden);
    NEW(x->keep, s->y, s->n * hidden);
    NEW(x->keep, s->dy, s->n * hidden);
    NEW(x->keep, s->dh, s->n * hidden);
    NEW(x->keep, s->best, s->n);
    memset(s->dy, 0, (size_t)(s->n * hidden) * sizeof *s->dy);
    for (int64_t i = 0; i < s->n; i++) number[i] = (int32_t)i;
    int used = 0;
    for (int64_t d = 0; d < n_docs; d++) {
        if (doc[d + 1] == doc[d]) continue;
        trunks[used] = trunk ? trunk[d] : 0;
        seq[used++] = (sequence){.first = doc[d], .n = doc[d + 1] - doc[d]};
        turn_rows(x, rope + doc[d] * half * 2, doc[d + 1] - doc[d], trunks[used - 1], from ? from + doc[d] : NULL);
    }
    s->x = (flow){.n = s->n,
                  .h = s->h,
                  .row = number,
                  .rope = rope,
                  .seq = seq,
                  .n_seq = used,
                  .batch_row = row,
                  .n_batch_rows = n_rows,
                  .trunk = trunk ? trunks : NULL,
                  .from = from};
    return OK;
}

static void embed(const executor *x, const int32_t *ids, int64_t n, real *to) {
    const int64_t hidden = x->m->cfg.hidden_size;
    const real *from = x->m->outer.embed.data;
    for (int64_t i = 0; i < n; i++) memcpy(to + i * hidden, from + ids[i] * hidden, (size_t)hidden * sizeof *to);
}

static void final_norm(const executor *x, const stage *s, const real *weight) {
    const int64_t hidden = x->m->cfg.hidden_size;
    op_rmsnorm(x->q, s->y, hidden, s->h, hidden, weight, s->n, hidden, (real)x->m->cfg.rms_norm_eps);
}

static status main_forward(const pass *p, stage *s, const int32_t *ids) {
    const executor *x = p->x;
    embed(x, ids, s->n, s->h);
    for (int64_t l = 0; l < x->m->cfg.num_hidden_layers; l++) TRY(block_forward(p, l, &s->x));
    final_norm(x, s, x->m->outer.norm);
    return OK;
}

/* The head over a stage's rows: adds to s->dy and the head's gradient. judge NULL: cross-entropy. */
static status head(const pass *p, stage *s, const token_batch *b, real factor, const token_loss *judge, bool gradients,
                   double *loss, int64_t *targets) {
    executor *x = p->x;
    const tensor *dw = &x->g->outer.head;
    arena_reset(x->block);
    const head_call c = {.q = x->q,
                         .mem = x->block,
                         .w = &x->m->outer.head,
                         .dw = dw,
                         .y = s->y,
                         .dy = s->dy,
                         .n = s->n,
                         .target = s->target,
                         .best = s->best,
                         .factor = factor,
                         .f32 = p->goal->parts.high,
                         .gradients = gradients,
                         .e = p->e};
    return judge ? head_judged(&c, judge, b, loss, targets) : head_cross_entropy(&c, loss, targets);
}

status executor_logits(executor *x, const token_batch *b, const step_goal *goal, real *logits, error *e) {
    step_sums none = {0};
    const pass p = {x, goal, &none, e};
    stage s = {.n = b->n, .target = b->target};
    const int64_t hidden = x->m->cfg.hidden_size, vocab = x->m->cfg.vocab_size;
    arena_reset(x->keep);
    TRY(open_flow(&p, &s, b->doc, b->n_docs, b->row, b->n_rows, b->trunk, b->from));
    TRY(main_forward(&p, &s, b->ids));
    op_linear(x->q,
              &(product){.w = &x->m->outer.head,
                         .x = s.y,
                         .ldx = hidden,
                         .y = logits,
                         .ldy = vocab,
                         .n = s.n,
                         .f32 = goal->parts.high},
              1);
    return queue_failed(x->q, e);
}

/* --- MTP --------------------------------------------------------------------------------------------------------- */

int64_t mtp_targets(const token_batch *b, int depth) {
    int64_t n = 0;
    for (int64_t d = 0; d < b->n_docs; d++)
        for (int64_t i = b->doc[d]; i + depth < b->doc[d + 1]; i++) n += b->target[i + depth] >= 0;
    return n;
}

/* The rows of depth d: those of depth d - 1 whose next token but d - 1 is known; row i of it is main row origin[i]. */
static status open_mtp_stage(const pass *p, const token_batch *b, int depth, const stage *before, stage *s,
                             int64_t **origin, const int64_t *origin_before) {
    executor *x = p->x;
    error *e = p->e;
    const int64_t hidden = x->m->cfg.hidden_size;
    int64_t *doc, *row, at = 0, r = 0;
    int32_t *target;
    NEW(x->keep, doc, b->n_docs + 1);
    NEW(x->keep, row, b->n_rows + 1);
    NEW(x->keep, *origin, before->n);
    NEW(x->keep, s->from, before->n);
    NEW(x->keep, s->ids, before->n);
    NEW(x->keep, target, before->n);
    doc[0] = row[0] = 0;
    for (int64_t d = 0; d < b->n_docs; d++) {
        while (b->row[r + 1] <= b->doc[d] && r + 1 < b->n_rows) row[++r] = s->n;
        const int64_t end = b->doc[d + 1];
        for (; at < before->n; at++) {
            const int64_t i = origin_before ? origin_before[at] : at;
            if (i >= end) break;
            if (i + depth - 1 >= end || b->next[i + depth - 1] < 0) continue;
            (*origin)[s->n] = i;
            s->from[s->n] = at;
            s->ids[s->n] = b->next[i + depth - 1];
            target[s->n++] = i + depth < end ? b->target[i + depth] : -1;
        }
        doc[d + 1] = s->n;
    }
    while (r < b->n_rows) row[++r] = s->n;
    s->target = target;
    NEW(x->keep, s->e, s->n * hidden);
    NEW(x->keep, s->p, s->n * hidden);
    NEW(x->keep, s->both, s->n * 2 * hidden);
    return open_flow(p, s, doc, b->n_docs, row, b->n_rows, NULL, NULL);
}

static status mtp_forward(const pass *p, int depth, const stage *before, stage *s) {
    executor *x = p->x;
    const mtp_weights *w = &x->m->mtp[depth - 1];
    const int64_t hidden = x->m->cfg.hidden_size;
    const real eps = (real)x->m->cfg.rms_norm_eps;
    const real *rows = x->mtp_hidden == MTP_PRE_NORM ? before->h : before->y;
    embed(x, s->ids, s->n, s->e);
    for (int64_t i = 0; i < s->n; i++)
        memcpy(s->p + i * hidden, rows + s->from[i] * hidden, (size_t)hidden * sizeof *s->p);
    op_rmsnorm(x->q, s->both, 2 * hidden, s->e, hidden, w->enorm, s->n, hidden, eps);
    op_rmsnorm(x->q, s->both + hidden, 2 * hidden, s->p, hidden, w->hnorm, s->n, hidden, eps);
    op_linear(x->q,
              &(product){.w = &w->proj,
                         .x = s->both,
                         .ldx = 2 * hidden,
                         .y = s->h,
                         .ldy = hidden,
                         .n = s->n,
                         .f32 = p->goal->parts.high},
              1);
    TRY(block_forward(p, x->m->cfg.num_hidden_layers + depth - 1, &s->x));
    final_norm(x, s, w->norm);
    return OK;
}

static status mtp_backward(const pass *p, int depth, stage *before, const stage *s) {
    executor *x = p->x;
    error *e = p->e;
    const mtp_weights *w = &x->m->mtp[depth - 1], *dw = &x->g->mtp[depth - 1];
    const int64_t hidden = x->m->cfg.hidden_size;
    const real eps = (real)x->m->cfg.rms_norm_eps;
    real *dboth, *into = x->mtp_hidden == MTP_PRE_NORM ? before->dh : before->dy;
    op_rmsnorm_dx(x->q, s->dh, hidden, dw->norm, s->dy, hidden, s->h, hidden, w->norm, s->n, hidden, eps, true);
    TRY(block_backward(p, x->m->cfg.num_hidden_layers + depth - 1, s->dh));
    arena_reset(x->block);
    NEW(x->block, dboth, s->n * 2 * hidden);
    op_linear_dx(x->q,
                 &(product_dx){.w = &w->proj,
                               .dy = s->dh,
                               .lddy = hidden,
                               .dx = dboth,
                               .lddx = 2 * hidden,
                               .n = s->n,
                               .f32 = p->goal->parts.high},
                 1);
    product_dw sum = gradient_of(&dw->proj, s->dh, hidden, s->both, 2 * hidden, s->n);
    sum.f32 = p->goal->parts.high;
    op_linear_dw(x->q, &sum, 1);
    op_rmsnorm_dx(x->q, dboth, 2 * hidden, dw->enorm, dboth, 2 * hidden, s->e, hidden, w->enorm, s->n, hidden, eps,
                  false);
    op_rmsnorm_dx(x->q, dboth + hidden, 2 * hidden, dw->hnorm, dboth + hidden, 2 * hidden, s->p, hidden, w->hnorm, s->n,
                  hidden, eps, false);
    if (x->g->outer.embed.data)
        op_embedding_dw(x->q, (real *)x->g->outer.embed.data, s->ids, dboth, 2 * hidden, s->n, hidden);
    for (int64_t i = 0; i < s->n; i++)
        for (int64_t j = 0; j < hidden; j++) into[s->from[i] * hidden + j] += dboth[(2 * i + 1) * hidden + j];
    return queue_failed(x->q, e);
}

/* --- the micro-batch --------------------------------------------------------------------------------------------- */

static void count_drafts(const stage *main, const stage *draft, const int64_t *origin, step_sums *sums) {
    for (int64_t i = 0; i < draft->n; i++) {
        const int64_t at = origin[i] + 1; /* the main model predicts the same token one row later */
        if (draft->best[i] < 0 || at >= main->n || main->best[at] < 0) continue;
        sums->drafts++;
        sums->accepted += draft->best[i] == main->best[at];
    }
}

static status main_backward(const pass *p, stage *s) {
    executor *x = p->x;
    const int64_t hidden = x->m->cfg.hidden_size;
    if (p->goal->parts.language_model)
        op_rmsnorm_dx(x->q, s->dh, hidden, x->g->outer.norm, s->dy, hidden, s->h, hidden, x->m->outer.norm, s->n,
                      hidden, (real)x->m->cfg.rms_norm_eps, true);
    for (int64_t l = x->m->cfg.num_hidden_layers; l-- > 0;) TRY(block_backward(p, l, s->dh));
    return OK;
}

status execute(executor *x, const token_batch *b, const step_goal *goal, bool gradients, step_sums *sums, error *e) {
    const pass p = {x, goal, sums, e};
    const int64_t hidden = x->m->cfg.hidden_size;
    const bool learn = gradients && goal->parts.language_model;
    stage s[MOST_MTP + 1] = {{.n = b->n, .target = b->target}};
    int64_t *origin[MOST_MTP + 1] = {0};
    int depths = 0;
    arena_reset(x->keep);
    TRY(open_flow(&p, &s[0], b->doc, b->n_docs, b->row, b->n_rows, b->trunk, b->from));
    TRY(main_forward(&p, &s[0], b->ids));
    while (depths < x->m->n_mtp && depths < MOST_MTP && goal->mtp[depths] != 0) {
        depths++;
        TRY(open_mtp_stage(&p, b, depths, &s[depths - 1], &s[depths], &origin[depths], origin[depths - 1]));
        TRY(mtp_forward(&p, depths, &s[depths - 1], &s[depths]));
    }
    TRY(head(&p, &s[0], b, goal->language_model, goal->judge, learn, &sums->language_model, &sums->targets));
    for (int d = 1; d <= depths; d++)
        TRY(head(&p, &s[d], b, goal->mtp[d - 1], NULL, learn, &sums->mtp[d - 1], &sums->mtp_targets[d - 1]));
    if (depths) count_drafts(&s[0], &s[1], origin[1], sums);
    if (!gradients) return OK;
    for (int d = 0; d <= depths; d++) memset(s[d].dh, 0, (size_t)(s[d].n * hidden) * sizeof *s[d].dh);
    for (int d = depths; d > 0 && learn; d--) TRY(mtp_backward(&p, d, &s[d - 1], &s[d]));
    TRY(main_backward(&p, &s[0]));
    if (learn && x->g->outer.embed.data)
        op_embedding_dw(x->q, (real *)x->g->outer.embed.data, b->ids, s[0].dh, hidden, b->n, hidden);
    return queue_failed(x->q, e);
}
