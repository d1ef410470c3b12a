#include "train/params.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/regex.h"
#include "model/init.h"

enum { ALIGN = 16 }; /* numbers: a cache line */

typedef struct list_call {
    params *p;
    int64_t first_expert, end_expert, capacity;
    bool routed; /* this pass takes the routed experts, the other one the rest */
    const train_config *c;
    regex_list *trainable, *no_decay, *groups;
    error *e;
} list_call;

static bool is_param(const list_call *l, const weight_item *w) {
    if (w->slot->flags & W_NOT_PARAMETER || (w->expert >= 0) != l->routed) return false;
    return w->expert < 0 || (w->expert >= l->first_expert && w->expert < l->end_expert);
}

static status count_param(void *arg, const weight_item *w) {
    list_call *l = arg;
    l->capacity += is_param(l, w);
    return OK;
}

/* Nothing but the indexer's loss moves the indexer, and in the dense warm-up nothing moves but the indexer: what gets
 * no gradient shall not decay either. */
static bool has_loss(const train_config *c, const param *x) {
    const bool indexer = strstr(x->name, ".indexer.");
    if (c->objective.dsa == DSA_OFF) return !indexer;
    return c->objective.dsa == DSA_SPARSE || indexer;
}

static status add_param(void *arg, const weight_item *w) {
    list_call *l = arg;
    int which;
    if (!is_param(l, w)) return OK;
    param *x = &l->p->list[l->p->count++];
    *x = (param){.first = l->p->total,
                 .n = w->dim[0] * w->dim[1],
                 .ndim = w->ndim,
                 .dim = {w->dim[0], w->dim[1]},
                 .layer = w->layer,
                 .expert = w->expert,
                 .buffer = w->slot->flags & W_F32,
                 .lr_scale = 1};
    memcpy(x->name, w->name, sizeof x->name);
    l->p->total += (x->n + ALIGN - 1) / ALIGN * ALIGN;
    TRY(regex_list_find(l->trainable, x->name, &which, l->e));
    x->trainable = !x->buffer && (which >= 0 || !l->c->objective.trainable_parameters_mask.n) && has_loss(l->c, x);
    TRY(regex_list_find(l->no_decay, x->name, &which, l->e));
    x->decay = which < 0 && (x->ndim > 1 || l->c->optimizer.decay_vectors);
    TRY(regex_list_find(l->groups, x->name, &which, l->e));
    if (which >= 0) x->lr_scale = l->c->optimizer.groups[which].scale;
    return OK;
}

static status open_masks(list_call *l) {
    const train_config *c = l->c;
    const char *groups[MOST_LIST];
    for (int i = 0; i < c->optimizer.n_groups; i++) groups[i] = c->optimizer.groups[i].match;
    TRY(regex_list_open(&l->trainable, c->objective.trainable_parameters_mask.item,
                        c->objective.trainable_parameters_mask.n, l->e));
    TRY(regex_list_open(&l->no_decay, c->optimizer.no_decay.item, c->optimizer.no_decay.n, l->e));
    return regex_list_open(&l->groups, groups, c->optimizer.n_groups, l->e);
}

static status open_into(list_call *l, const model_config *m) {
    params *p = l->p;
    TRY(open_masks(l));
    for (int pass = 0; pass < 2; pass++) {
        l->routed = pass;
        model_each_weight(m, count_param, l);
    }
    p->list = arena_zero(p->mem, (size_t)l->capacity, sizeof *p->list);
    if (!p->list) return fail(l->e, ERR_NOMEM, "memory is out");
    for (int pass = 0; pass < 2; pass++) {
        l->routed = pass;
        if (pass) p->shared = p->count;
        TRY(model_each_weight(m, add_param, l));
    }
    p->w = arena_zero(p->mem, (size_t)p->total, sizeof *p->w);
    p->g = arena_zero(p->mem, (size_t)p->total, sizeof *p->g);
    if (!p->w || !p->g)
        return fail(l->e, ERR_NOMEM, "memory is out: weights and gradients take %.1f GB",
                    (double)p->total * 2 * sizeof *p->w / 1e9);
    return OK;
}

status params_open(params *out, const model_config *m, const train_config *c, int64_t first_expert, int64_t end_expert,
                   error *e) {
    *out = (params){.mem = arena_open(1 << 16)};
    if (!out->mem) return fail(e, ERR_NOMEM, "memory is out");
    list_call l = {.p = out, .first_expert = first_expert, .end_expert = end_expert, .c = c, .e = e};
    status s = open_into(&l, m);
    regex_list_close(l.trainable);
    regex_list_close(l.no_decay);
    regex_list_close(l.groups);
    if (s != OK) params_close(out);
    return s;
}

void params_close(params *p) {
    arena_close(p->mem);
    *p = (params){0};
}

int64_t params_find(const params *p, const char *name) {
    for (int64_t i = 0; i < p->count; i++)
        if (strcmp(p->list[i].name, name) == 0) return i;
    return -1;
}

/* --- the model over the flat arrays ------------------------------------------------------------------------------ */

typedef struct place_call {
    const params *p;
    bool gradients;
    int64_t next[2]; /* model_each_weight comes in the order of the list, in both halves */
} place_call;

static real *place(void *arg, const weight_item *w) {
    place_call *c = arg;
    int64_t *next = &c->next[w->expert >= 0];
    if (w->slot->flags & W_NOT_PARAMETER || *next >= c->p->count) return NULL;
    const param *x = &c->p->list[*next];
    if (strcmp(x->name, w->name) != 0) return NULL;
    ++*next;
    if (!c->gradients) return c->p->w + x->first;
    return x->trainable || x->adapted ? c->p->g + x->first : NULL;
}

status params_model(model **out, const model_config *m, const params *p, bool gradients, error *e) {
    return model_make(out, m, place, &(place_call){p, gradients, {0, p->shared}}, e);
}

/* --- where weights come from ------------------------------------------------------------------------------------- */

typedef struct load_call {
    params *p;
    const model *from;
    error *e;
} load_call;

static const char *find_not_finite(const float *x, int64_t n, int64_t *at) {
    for (*at = 0; *at < n; ++*at)
        if (!isfinite(x[*at])) return isnan(x[*at]) ? "NaN" : "infinity";
    return NULL;
}

static status load_one(const load_call *l, const param *x) {
    const weights_entry *t = weights_find(l->from->file, x->name);
    float *to = l->p->w + x->first;
    int64_t at;
    if (!t) return fail(l->e, ERR_FORMAT, "tensor \"%s\" is missing", x->name);
    for (int64_t i = 0; i < x->n; i++) to[i] = dtype_load(t->t.type, t->t.data, i);
    if (t->t.type == DT_E4M3) {
        char name[192];
        snprintf(name, sizeof name, "%s_scale_inv", x->name);
        const weights_entry *scale = weights_find(l->from->file, name); /* there and of the right shape: it was bound */
        const int64_t cols = x->dim[1], stride = (cols + FP8_BLOCK - 1) / FP8_BLOCK;
        for (int64_t i = 0; i < x->n; i++)
            to[i] *= dtype_load(scale->t.type, scale->t.data, i / cols / FP8_BLOCK * stride + i % cols / FP8_BLOCK);
    }
    const char *what = find_not_finite(to, x->n, &at);
    if (what)
        return fail(l->e, ERR_FORMAT, "%s: tensor \"%s\" holds %s at element %lld", t->file, x->name, what,
                    (long long)at);
    return OK;
}

status params_load(params *p, const model *from, error *e) {
    const load_call l = {p, from, e};
    const int64_t layers = from->cfg.num_hidden_layers + from->n_mtp;
    for (int64_t i = 0; i < p->count; i++)
        if (p->list[i].layer < layers) TRY(load_one(&l, &p->list[i]));
    return OK;
}

typedef struct init_call {
    params *p;
    const model_config *m;
    uint64_t seed;
    int64_t first_layer, next[2];
} init_call;

static status init_one(void *arg, const weight_item *w) {
    init_call *c = arg;
    int64_t *next = &c->next[w->expert >= 0];
    if (*next >= c->p->count || strcmp(c->p->list[*next].name, w->name) != 0) return OK;
    if (w->layer >= c->first_layer) init_fill(c->m, c->seed, w, c->p->w + c->p->list[*next].first);
    ++*next;
    return OK;
}

void params_init(params *p, const model_config *m, uint64_t seed) {
    params_init_layers(p, m, seed, -1);
}

void params_init_layers(params *p, const model_config *m, uint64_t seed, int64_t first_layer) {
    model_each_weight(m, init_one, &(init_call){p, m, seed, first_layer, {0, p->shared}});
}
