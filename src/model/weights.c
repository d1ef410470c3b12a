/* The weight table: sizes, enumeration, counting, and binding to files. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "model/model.h"
#include "model/rope.h"

static bool not_tied(const model_config *c) {
    return !c->tie_word_embeddings;
}

#define P(f) offsetof(outer_weights, f)
static const weight_slot outer_slots[] = {
    {"model.embed_tokens.weight", P(embed), {DIM_VOCAB, DIM_HIDDEN}, W_EMBEDDING, NULL},
    {"model.norm.weight", P(norm), {DIM_HIDDEN}, W_VECTOR | W_ONES, NULL},
    {"lm_head.weight", P(head), {DIM_VOCAB, DIM_HIDDEN}, 0, not_tied},
    {.name = ""}};
#undef P

#define P(f) offsetof(mtp_weights, f)
static const weight_slot mtp_slots[] = {
    {"enorm.weight", P(enorm), {DIM_HIDDEN}, W_VECTOR | W_ONES, NULL},
    {"hnorm.weight", P(hnorm), {DIM_HIDDEN}, W_VECTOR | W_ONES, NULL},
    {"eh_proj.weight", P(proj), {DIM_HIDDEN, DIM_2_HIDDEN}, 0, NULL},
    {"shared_head.norm.weight", P(norm), {DIM_HIDDEN}, W_VECTOR | W_ONES, NULL},
    {"embed_tokens.weight", P(embed), {DIM_VOCAB, DIM_HIDDEN}, W_OPTIONAL | W_NOT_PARAMETER, NULL},
    {"shared_head.head.weight", P(head), {DIM_VOCAB, DIM_HIDDEN}, W_OPTIONAL | W_NOT_PARAMETER, NULL},
    {.name = ""}};
#undef P

static status each_slot(const model_config *c, const weight_slot *slots, int64_t layer, int owner,
                        status (*f)(void *, const weight_item *), void *arg) {
    for (const weight_slot *s = slots; *s->name; s++) {
        if (s->when && !s->when(c)) continue;
        weight_item w = {.slot = s,
                         .layer = layer,
                         .expert = -1,
                         .owner = owner,
                         .ndim = s->flags & W_VECTOR ? 1 : 2,
                         .dim = {dim_size(c, s->dim[0]), dim_size(c, s->dim[1])}};
        int64_t experts = s->flags & W_PER_EXPERT ? c->n_routed_experts : 1;
        const char *mark = s->flags & W_PER_EXPERT ? strstr(s->name, "%d") : NULL;
        for (int64_t x = 0; x < experts; x++) {
            int at = layer < 0 ? 0 : snprintf(w.name, sizeof w.name, "model.layers.%lld.", (long long)layer);
            if (mark) {
                w.expert = x;
                snprintf(w.name + at, sizeof w.name - (size_t)at, "%.*s%lld%s", (int)(mark - s->name), s->name,
                         (long long)x, mark + 2);
            } else {
                snprintf(w.name + at, sizeof w.name - (size_t)at, "%s", s->name);
            }
            TRY(f(arg, &w));
        }
    }
    return OK;
}

status model_each_weight(const model_config *c, status (*f)(void *, const weight_item *), void *arg) {
    TRY(each_slot(c, outer_slots, -1, OWNER_OUTER, f, arg));
    for (int64_t l = 0; l < c->num_hidden_layers + c->num_nextn_predict_layers; l++) {
        if (l >= c->num_hidden_layers) TRY(each_slot(c, mtp_slots, l, OWNER_MTP, f, arg));
        const part *const *parts = c->arch->block(c, l);
        for (int i = 0; parts[i]; i++) TRY(each_slot(c, parts[i]->weights, l, i, f, arg));
    }
    return OK;
}

typedef struct count_call {
    const model_config *c;
    model_counts *out;
} count_call;

static status count(void *arg, const weight_item *w) {
    const count_call *k = arg;
    int64_t n = w->dim[0] * w->dim[1];
    k->out->tensors += 1 + (k->c->fp8 && (w->slot->flags & W_FP8));
    if (w->layer >= k->c->num_hidden_layers) {
        if (!(w->slot->flags & W_NOT_PARAMETER)) k->out->mtp += n;
        return OK;
    }
    k->out->parameters += n;
    if (w->expert >= 0) k->out->routed += n;
    if (w->slot->flags & W_EMBEDDING && !k->c->tie_word_embeddings) return OK;
    if (w->slot->flags & W_F32) return OK; /* the correction bias takes part in choices, not in products */
    if (w->expert < k->c->num_experts_per_tok) k->out->active += n; /* every expert of a layer has the same size */
    return OK;
}

void model_count(const model_config *c, model_counts *out) {
    *out = (model_counts){0};
    model_each_weight(c, count, &(count_call){c, out});
}

int64_t model_cache_width(const model_config *c, cache_slot slot) {
    int64_t sum = 0;
    for (int64_t l = 0; l < c->num_hidden_layers; l++) {
        const part *const *parts = c->arch->block(c, l);
        for (int i = 0; parts[i]; i++)
            if (parts[i]->cache == slot && slot != CACHE_NONE) sum += parts[i]->cache_width(c);
    }
    return sum;
}

/* --- binding ---------------------------------------------------------------------------------------------------- */

typedef struct bind_call {
    model *m;
    error *e;
} bind_call;

static void shape_text(char *to, size_t size, int ndim, const int64_t *dim) {
    size_t at = (size_t)snprintf(to, size, "[");
    for (int i = 0; i < ndim && at < size; i++)
        at += (size_t)snprintf(to + at, size - at, "%s%lld", i ? ", " : "", (long long)dim[i]);
    if (at < size) snprintf(to + at, size - at, "]");
}

static status check_shape(const weights_entry *t, int ndim, const int64_t *dim, error *e) {
    bool same = t->t.ndim == ndim;
    for (int i = 0; same && i < ndim; i++) same = t->t.dim[i] == dim[i];
    if (same) return OK;
    char found[128], wanted[128];
    shape_text(found, sizeof found, t->t.ndim, t->t.dim);
    shape_text(wanted, sizeof wanted, ndim, dim);
    return fail(e, ERR_FORMAT, "%s: tensor \"%s\" has shape %s, but config.json asks for %s", t->file, t->name, found,
                wanted);
}

/* FP8 weights need their block scales: NAME_scale_inv of ceil(rows/128) x ceil(cols/128). */
static status bind_scale(const model *m, tensor *t, const weights_entry *weight, error *e) {
    char name[192];
    snprintf(name, sizeof name, "%s_scale_inv", weight->name);
    const weights_entry *s = weights_find(m->file, name);
    if (!s)
        return fail(e, ERR_FORMAT, "%s: FP8 tensor \"%s\" lacks its scales \"%s\"", weight->file, weight->name, name);
    int64_t blocks[2] = {(t->dim[0] + FP8_BLOCK - 1) / FP8_BLOCK, (t->dim[1] + FP8_BLOCK - 1) / FP8_BLOCK};
    TRY(check_shape(s, 2, blocks, e));
    if (s->t.type != DT_F32)
        return fail(e, ERR_FORMAT, "%s: scales \"%s\" are %s, F32 was expected", s->file, name, dtype_name(s->t.type));
    t->scale = s->t.data;
    t->scale_stride = blocks[1];
    return OK;
}

static status bind_vector(model *m, float **field, const weights_entry *t, error *e) {
    int64_t n = tensor_count(&t->t);
    float *v = arena_take(m->mem, (size_t)n * sizeof *v);
    if (!v) return fail(e, ERR_NOMEM, "memory is out");
    for (int64_t i = 0; i < n; i++) {
        v[i] = dtype_load(t->t.type, t->t.data, i);
        if (!isfinite(v[i]))
            return fail(e, ERR_FORMAT, "%s: tensor \"%s\" holds %s at element %lld", t->file, t->name,
                        isnan(v[i]) ? "NaN" : "infinity", (long long)i);
    }
    *field = v;
    return OK;
}

static void *owner_of(model *m, const weight_item *w) {
    if (w->owner == OWNER_OUTER) return &m->outer;
    if (w->owner == OWNER_MTP) return &m->mtp[w->layer - m->cfg.num_hidden_layers];
    return m->layers[w->layer].w[w->owner];
}

static status bind(void *arg, const weight_item *w) {
    bind_call *b = arg;
    model *m = b->m;
    if (w->layer >= m->cfg.num_hidden_layers + m->n_mtp) return OK;
    const weights_entry *t = weights_find(m->file, w->name);
    if (!t) {
        if (w->slot->flags & W_OPTIONAL) return OK;
        return fail(b->e, ERR_FORMAT, "tensor \"%s\" is missing", w->name);
    }
    TRY(check_shape(t, w->ndim, w->dim, b->e));
    if (t->t.type != DT_F32 && t->t.type != DT_BF16 && t->t.type != DT_F16 && (t->t.type != DT_E4M3 || w->ndim != 2))
        return fail(b->e, ERR_UNSUPPORTED, "%s: tensor \"%s\" is %s: weights may be F32, BF16, F16 or F8_E4M3", t->file,
                    t->name, dtype_name(t->t.type));
    char *field = (char *)owner_of(m, w) + w->slot->field;
    if (w->slot->flags & W_VECTOR) return bind_vector(m, (float **)(void *)field, t, b->e);
    tensor *to = w->expert < 0 ? (tensor *)(void *)field : *(tensor **)(void *)field + w->expert;
    *to = t->t;
    return t->t.type == DT_E4M3 ? bind_scale(m, to, t, b->e) : OK;
}

static status make_layers(model *m, error *e) {
    const model_config *c = &m->cfg;
    int64_t n = c->num_hidden_layers + m->n_mtp;
    m->layers = arena_zero(m->mem, (size_t)n, sizeof *m->layers);
    m->mtp = arena_zero(m->mem, (size_t)m->n_mtp + 1, sizeof *m->mtp);
    m->rope_dim = c->kv_lora_rank ? c->qk_rope_head_dim : c->head_dim;
    m->inv_freq = arena_zero(m->mem, (size_t)m->rope_dim / 2, sizeof *m->inv_freq);
    if (!m->layers || !m->mtp || !m->inv_freq) return fail(e, ERR_NOMEM, "memory is out");
    m->rope_factor = rope_frequencies(&c->rope, m->rope_dim, m->inv_freq);
    for (int64_t l = 0; l < n; l++) {
        model_layer *y = &m->layers[l];
        y->parts = c->arch->block(c, l);
        for (int i = 0; y->parts[i]; i++) {
            y->w[i] = arena_zero(m->mem, 1, y->parts[i]->weights_size);
            if (!y->w[i]) return fail(e, ERR_NOMEM, "memory is out");
            for (const weight_slot *s = y->parts[i]->weights; *s->name; s++)
                if (s->flags & W_PER_EXPERT) {
                    tensor *experts = arena_zero(m->mem, (size_t)c->n_routed_experts, sizeof *experts);
                    if (!experts) return fail(e, ERR_NOMEM, "memory is out");
                    *(tensor **)(void *)((char *)y->w[i] + s->field) = experts;
                }
        }
    }
    return OK;
}

/* MTP layers that config.json announces but the files do not have are left out, as other readers do. */
static int64_t mtp_present(const model *m) {
    int64_t n = 0;
    for (; n < m->cfg.num_nextn_predict_layers; n++) {
        char name[64];
        snprintf(name, sizeof name, "model.layers.%lld.eh_proj.weight", (long long)(m->cfg.num_hidden_layers + n));
        if (!weights_find(m->file, name)) break;
    }
    return n;
}

/* What a model without a weight of its own shares with the main model. */
static void tie(model *m) {
    if (m->cfg.tie_word_embeddings) m->outer.head = m->outer.embed;
    for (int64_t i = 0; i < m->n_mtp; i++) {
        if (!m->mtp[i].embed.data) m->mtp[i].embed = m->outer.embed;
        if (!m->mtp[i].head.data) m->mtp[i].head = m->outer.head;
    }
}

static status open_into(model *m, const char *folder, error *e) {
    TRY(config_open(&m->cfg, folder, e));
    TRY(weights_open(&m->file, folder, e));
    m->n_mtp = mtp_present(m);
    TRY(make_layers(m, e));
    status s = model_each_weight(&m->cfg, bind, &(bind_call){m, e});
    if (s != OK) return wrap(e, "%s", folder);
    tie(m);
    return OK;
}

const weights_entry *model_find_not_finite(const model *m, int64_t *element) {
    for (size_t i = 0; m->file && i < weights_count(m->file); i++) {
        const weights_entry *t = weights_at(m->file, i);
        if (t->t.type > DT_F64) continue; /* integers */
        int64_t n = tensor_count(&t->t);
        for (*element = 0; *element < n; ++*element)
            if (!isfinite(dtype_load(t->t.type, t->t.data, *element))) return t;
    }
    return NULL;
}

static model *new_model(void) {
    model *m = calloc(1, sizeof *m);
    if (m && (m->mem = arena_open(1 << 16))) return m;
    free(m);
    return NULL;
}

typedef struct place_call {
    model *m;
    real *(*place)(void *arg, const weight_item *w);
    void *arg;
} place_call;

static status place_weight(void *arg, const weight_item *w) {
    const place_call *p = arg;
    real *memory = p->place(p->arg, w);
    char *field = (char *)owner_of(p->m, w) + w->slot->field;
    if (w->slot->flags & W_VECTOR) {
        *(real **)(void *)field = memory;
    } else {
        tensor *to = w->expert < 0 ? (tensor *)(void *)field : *(tensor **)(void *)field + w->expert;
        *to = (tensor){.data = memory, .type = DT_REAL, .ndim = 2, .dim = {w->dim[0], w->dim[1]}};
    }
    return OK;
}

status model_make(model **out, const model_config *c, real *(*place)(void *arg, const weight_item *w), void *arg,
                  error *e) {
    *out = NULL;
    model *m = new_model();
    if (!m) return fail(e, ERR_NOMEM, "memory is out");
    m->cfg = *c;
    m->n_mtp = c->num_nextn_predict_layers;
    status s = make_layers(m, e);
    if (s == OK) s = model_each_weight(c, place_weight, &(place_call){m, place, arg});
    if (s == OK) {
        tie(m);
        *out = m;
    } else {
        model_close(m);
    }
    return s;
}

status model_open(model **out, const char *folder, error *e) {
    *out = NULL;
    model *m = new_model();
    if (!m) return fail(e, ERR_NOMEM, "memory is out");
    status s = open_into(m, folder, e);
    if (s == OK) *out = m;
    else model_close(m);
    return s;
}

void model_close(model *m) {
    if (!m) return;
    weights_close(m->file);
    arena_close(m->mem);
    free(m);
}
