/* A batch of rows through the model: embedding, blocks, final norm, head; and the same through an MTP layer. */
#include <math.h>
#include <string.h>
#include "model/model.h"
#include "model/rope.h"

static void embed_row(const tensor *w, int32_t id, float *to) {
    const int64_t dim = w->dim[1];
    const char *row = (const char *)w->data + (size_t)(id * dim) * dtype_size(w->type);
    if (w->type == DT_BF16)
        for (int64_t i = 0; i < dim; i++) to[i] = bf16_to_f32(((const uint16_t *)(const void *)row)[i]);
    else if (w->type == DT_F32) memcpy(to, row, (size_t)dim * sizeof *to);
    else
        for (int64_t i = 0; i < dim; i++) to[i] = dtype_load(w->type, row, i);
}

static status start_flow(const model *m, workspace *ws, const batch *b, flow *x, error *e) {
    arena_reset(ws->step);
    const int64_t n = b->n, half = m->rope_dim / 2;
    int32_t *row = arena_take(ws->step, (size_t)n * sizeof *row);
    float *rope = arena_take(ws->step, (size_t)(n * half) * 2 * sizeof *rope);
    float *h = arena_take(ws->step, (size_t)(n * m->cfg.hidden_size) * sizeof *h);
    if (!row || !rope || !h) return fail(e, ERR_NOMEM, "memory is out");
    for (int64_t i = 0; i < n; i++) row[i] = (int32_t)i;
    for (int s = 0; s < b->n_seq; s++)
        rope_table(rope + b->seq[s].first * half * 2, m->inv_freq, m->rope_factor, m->rope_dim, b->seq[s].pos,
                   b->seq[s].n);
    *x = (flow){.n = n, .h = h, .row = row, .rope = rope, .seq = b->seq, .n_seq = b->n_seq};
    return OK;
}

static status block_forward(const model *m, workspace *ws, const batch *b, int64_t number, flow *x, error *e) {
    const model_layer *y = &m->layers[number];
    arena_reset(ws->block);
    x->keep = x->keep_n = NULL;
    for (int i = 0; y->parts[i]; i++) {
        part_call c = {.cfg = &m->cfg,
                       .q = ws->q,
                       .w = y->w[i],
                       .layer = number,
                       .x = x,
                       .scratch = ws->block,
                       .form = b->form,
                       .watch = b->watch,
                       .e = e};
        const part *p = y->parts[i];
        TRY(p->decode ? p->decode(&c) : p->forward(&c));
        TRY(queue_failed(ws->q, e));
    }
    return OK;
}

static void see(const batch *b, const char *name, int64_t layer, const float *x, int64_t width) {
    if (b->watch) b->watch->see(b->watch->arg, name, layer, x, width, b->n, width);
}

static status explain(const model *m, error *e) {
    int64_t at;
    const weights_entry *t = model_find_not_finite(m, &at);
    if (!t) return fail(e, ERR_FORMAT, "the logits are not finite: the weights are, but the sums overflow");
    return fail(e, ERR_FORMAT, "%s: tensor \"%s\" holds %s at element %lld", t->file, t->name,
                isnan(dtype_load(t->t.type, t->t.data, at)) ? "NaN" : "infinity", (long long)at);
}

/* Final norm and head of the wanted rows. NaN and infinity are errors here: all that follows would be noise. */
static status finish(const model *m, workspace *ws, const batch *b, const flow *x, const float *norm,
                     const tensor *head, error *e) {
    const int64_t hidden = m->cfg.hidden_size, vocab = m->cfg.vocab_size;
    const float eps = (float)m->cfg.rms_norm_eps;
    if (b->prenorm) memcpy(b->prenorm, x->h, (size_t)(b->n * hidden) * sizeof *x->h);
    if (b->hidden) op_rmsnorm(ws->q, b->hidden, hidden, x->h, hidden, norm, b->n, hidden, eps);
    if (b->hidden) see(b, "final_norm", -1, b->hidden, hidden);
    arena_reset(ws->block);
    float *last = arena_take(ws->block, (size_t)(b->n_out * hidden) * sizeof *last);
    if (!last) return fail(e, ERR_NOMEM, "memory is out");
    for (int64_t i = 0; i < b->n_out; i++)
        memcpy(last + i * hidden, x->h + b->out[i] * hidden, (size_t)hidden * sizeof *last);
    op_rmsnorm(ws->q, last, hidden, last, hidden, norm, b->n_out, hidden, eps);
    op_linear(ws->q, &(product){.w = head, .x = last, .ldx = hidden, .y = b->logits, .ldy = vocab, .n = b->n_out}, 1);
    TRY(queue_failed(ws->q, e));
    for (int64_t i = 0; i < b->n_out * vocab; i++)
        if (!isfinite(b->logits[i])) return explain(m, e);
    return OK;
}

status model_forward(const model *m, workspace *ws, const batch *b, error *e) {
    flow x;
    TRY(start_flow(m, ws, b, &x, e));
    for (int64_t i = 0; i < b->n; i++) embed_row(&m->outer.embed, b->ids[i], x.h + i * m->cfg.hidden_size);
    see(b, "embed", -1, x.h, m->cfg.hidden_size);
    for (int64_t l = 0; l < m->cfg.num_hidden_layers; l++) {
        TRY(block_forward(m, ws, b, l, &x, e));
        see(b, "hidden", l, x.h, m->cfg.hidden_size);
    }
    return finish(m, ws, b, &x, m->outer.norm, &m->outer.head, e);
}

status model_forward_mtp(const model *m, workspace *ws, int64_t depth, const float *h, const batch *b, error *e) {
    const mtp_weights *w = &m->mtp[depth];
    const int64_t hidden = m->cfg.hidden_size;
    const float eps = (float)m->cfg.rms_norm_eps;
    flow x;
    TRY(start_flow(m, ws, b, &x, e));
    float *both = arena_take(ws->step, (size_t)(b->n * 2 * hidden) * sizeof *both);
    if (!both) return fail(e, ERR_NOMEM, "memory is out");
    for (int64_t i = 0; i < b->n; i++) embed_row(&w->embed, b->ids[i], both + i * 2 * hidden);
    op_rmsnorm(ws->q, both, 2 * hidden, both, 2 * hidden, w->enorm, b->n, hidden, eps);
    op_rmsnorm(ws->q, both + hidden, 2 * hidden, h, hidden, w->hnorm, b->n, hidden, eps);
    op_linear(ws->q, &(product){.w = &w->proj, .x = both, .ldx = 2 * hidden, .y = x.h, .ldy = hidden, .n = b->n}, 1);
    TRY(block_forward(m, ws, b, m->cfg.num_hidden_layers + depth, &x, e));
    return finish(m, ws, b, &x, w->norm, &w->head, e);
}
