#include "train/lora.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/hash.h"
#include "base/json.h"
#include "base/regex.h"
#include "base/rng.h"
#include "format/safetensors_write.h"
#include "format/weights_file.h"
#include "kernels/train_ops.h"

#define PREFIX "base_model.model." /* PEFT's wrapper around the model */
#define CONFIG "adapter_config.json"
#define WEIGHTS "adapter_model.safetensors"

enum {
    ALIGN = 16, /* numbers: weights begin with cache lines, as in params.c */
    TASK = 32768,
    CONFIG_BYTES = 1 << 24
};

typedef struct adapted {
    int64_t weight;     /* its number in the model's list */
    const param *a, *b; /* in the adapter's */
    const float *w0;
    tensor a_matrix;
} adapted;

struct lora {
    params own; /* A, B, A, B, ... in the order of the model's list */
    adapted *list;
    int64_t count;
    int64_t rank;
    double alpha;
    bool has_experts; /* the model has routed experts */
    const char *note;
    product_dx *change; /* [count] each: lists for the operations */
    product_dw *da;
    product *db;
};

static status out_of_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

/* Length of the module's name: the weight's without ".weight". 0: not the matrix of a linear layer. */
static size_t module_length(const param *x) {
    static const char end[] = ".weight";
    if (x->ndim != 2 || x->buffer || !name_ends_with(x->name, end) || name_ends_with(x->name, "embed_tokens.weight"))
        return 0;
    return strlen(x->name) - strlen(end);
}

/* --- which matrices ---------------------------------------------------------------------------------------------- */

static status choose_one(const char *target, const params *p, bool *chosen, error *e) {
    regex_list *r = NULL;
    str whole = {0};
    str_addf(&whole, "^(?:.*\\.)?(?:%s)$", target);
    status s = str_check(&whole, e);
    if (s == OK) s = regex_list_open(&r, (const char *const *)&whole.p, 1, e);
    int64_t found = 0;
    for (int64_t i = 0; i < p->count && s == OK; i++) {
        char module[sizeof p->list->name] = "";
        int which = -1;
        memcpy(module, p->list[i].name, module_length(&p->list[i]));
        if (*module) s = regex_list_find(r, module, &which, e);
        if (which >= 0) chosen[i] = true, found++;
    }
    regex_list_close(r);
    str_free(&whole);
    if (s == OK && !found)
        return fail(e, ERR_FORMAT,
                    "lora.target_modules: \"%.200s\" matches no linear layer; names are like "
                    "\"model.layers.0.self_attn.o_proj\", and their end behind a dot is enough",
                    target);
    return s;
}

static status choose(const train_config *c, const params *p, bool *chosen, error *e) {
    if (!c->lora.target_modules.n) return fail(e, ERR_FORMAT, "lora.target_modules: empty, so nothing is trained");
    for (int i = 0; i < c->lora.target_modules.n; i++) TRY(choose_one(c->lora.target_modules.item[i], p, chosen, e));
    for (int64_t i = 0; i < p->count && c->training.expert_parallel > 1; i++)
        if (chosen[i] && p->list[i].expert >= 0)
            return fail(e, ERR_UNSUPPORTED,
                        "lora.target_modules: %s is a routed expert, and those cannot be adapted while "
                        "training.expert_parallel is %d: leave them out, or set it to 1",
                        p->list[i].name, c->training.expert_parallel);
    return OK;
}

/* --- memory ------------------------------------------------------------------------------------------------------ */

static status add_own(lora *l, const param *of, const char *which, int64_t rows, int64_t cols, error *e) {
    param *x = &l->own.list[l->own.count++];
    *x = *of;
    x->adapted = false;
    x->trainable = true;
    x->dim[0] = rows;
    x->dim[1] = cols;
    x->n = rows * cols;
    x->first = l->own.total;
    int n = snprintf(x->name, sizeof x->name, PREFIX "%.*s.%s.weight", (int)module_length(of), of->name, which);
    if (n >= (int)sizeof x->name) return fail(e, ERR_UNSUPPORTED, "%s: name too long for an adapter", of->name);
    l->own.total += (x->n + ALIGN - 1) / ALIGN * ALIGN;
    if (of->expert < 0) l->own.shared = l->own.count;
    return OK;
}

/* PEFT joins adapters of a layer's experts only when all experts have one, and gate_proj and up_proj both or neither:
 * the first weight that is not as its neighbours, or NULL. */
static const param *find_uneven(const params *p, const bool *chosen) {
    int64_t layer = -1;
    int seen[2] = {-1, -1}; /* of gate_proj and up_proj; of down_proj */
    for (int64_t i = 0; i < p->count; i++) {
        const param *x = &p->list[i];
        if (x->expert < 0) continue;
        if (x->layer != layer) seen[0] = seen[1] = -1;
        layer = x->layer;
        int *of = &seen[name_ends_with(x->name, "down_proj.weight")];
        if (*of >= 0 && *of != chosen[i]) return x;
        *of = chosen[i];
    }
    return NULL;
}

static status make_note(lora *l, const params *p, const bool *chosen, error *e) {
    const param *x = find_uneven(p, chosen);
    if (!x) return OK;
    str s = {0};
    str_addf(&s,
             "LoRA: %s is %s, other experts of its layer are not: PEFT with transformers 5 joins the experts of a "
             "layer and refuses such an adapter; adapt all of them (gate_proj and up_proj together) or merge it",
             x->name, chosen[x - p->list] ? "adapted" : "left out");
    status st = str_check(&s, e);
    if (st == OK && !(l->note = arena_copy(l->own.mem, s.p, s.n))) st = out_of_memory(e);
    str_free(&s);
    return st;
}

static status keep_weight(lora *l, adapted *x, const params *p, error *e) {
    const param *w = &p->list[x->weight];
    float *copy = arena_take(l->own.mem, (size_t)w->n * sizeof *copy);
    if (!copy)
        return fail(e, ERR_NOMEM, "memory is out: LoRA keeps a copy of every adapted weight, %s is the first without",
                    w->name);
    memcpy(copy, p->w + w->first, (size_t)w->n * sizeof *copy);
    x->w0 = copy;
    x->a_matrix =
        (tensor){.data = l->own.w + x->a->first, .type = DT_F32, .ndim = 2, .dim = {x->a->dim[0], x->a->dim[1]}};
    return OK;
}

/* Lists and memory for the chosen weights; A and B are zero. */
static status build(lora *l, params *p, const bool *chosen, error *e) {
    for (int64_t i = 0; i < p->count; i++) {
        l->count += chosen[i];
        l->has_experts |= p->list[i].expert >= 0;
    }
    size_t n = (size_t)l->count;
    l->list = arena_zero(l->own.mem, n, sizeof *l->list);
    l->own.list = arena_zero(l->own.mem, 2 * n, sizeof *l->own.list);
    l->change = arena_zero(l->own.mem, n, sizeof *l->change);
    l->da = arena_zero(l->own.mem, n, sizeof *l->da);
    l->db = arena_zero(l->own.mem, n, sizeof *l->db);
    if (!l->list || !l->own.list || !l->change || !l->da || !l->db) return out_of_memory(e);
    adapted *x = l->list;
    for (int64_t i = 0; i < p->count; i++) {
        if (!chosen[i]) continue;
        const param *w = &p->list[i];
        *x++ = (adapted){.weight = i, .a = &l->own.list[l->own.count], .b = &l->own.list[l->own.count + 1]};
        TRY(add_own(l, w, "lora_A", l->rank, w->dim[1], e));
        TRY(add_own(l, w, "lora_B", w->dim[0], l->rank, e));
    }
    l->own.w = arena_zero(l->own.mem, (size_t)l->own.total, sizeof *l->own.w);
    l->own.g = arena_zero(l->own.mem, (size_t)l->own.total, sizeof *l->own.g);
    if (!l->own.w || !l->own.g) return out_of_memory(e);
    for (int64_t i = 0; i < l->count; i++) TRY(keep_weight(l, &l->list[i], p, e));
    return make_note(l, p, chosen, e);
}

static void mark(params *p, const bool *chosen) {
    for (int64_t i = 0; i < p->count; i++) {
        p->list[i].adapted = chosen[i];
        p->list[i].trainable = false;
    }
}

static lora *lora_new(int64_t rank, double alpha) {
    lora *l = calloc(1, sizeof *l);
    if (!l) return NULL;
    *l = (lora){.rank = rank, .alpha = alpha, .own.mem = arena_open(1 << 16)};
    if (l->own.mem) return l;
    free(l);
    return NULL;
}

void lora_close(lora *l) {
    if (!l) return;
    arena_close(l->own.mem);
    free(l);
}

params *lora_params(lora *l) {
    return &l->own;
}

const char *lora_note(const lora *l) {
    return l->note;
}

static void draw(lora *l, uint64_t seed) {
    for (int64_t i = 0; i < l->count; i++) {
        const param *a = l->list[i].a;
        const double bound = 1 / sqrt((double)a->dim[1]);
        const uint64_t stream = hash_bytes(HASH_BEGIN, a->name, strlen(a->name));
        for (int64_t k = 0; k < a->n; k++)
            l->own.w[a->first + k] = (float)((2 * rng_uniform(seed, stream, (uint64_t)k) - 1) * bound);
    }
}

status lora_open(lora **out, const train_config *c, params *p, uint64_t seed, error *e) {
    *out = NULL;
    if (c->lora.rank < 1 || !(c->lora.alpha > 0))
        return fail(e, ERR_ARG, "lora: rank %d and alpha %g: both must be above zero", c->lora.rank, c->lora.alpha);
    lora *l = lora_new(c->lora.rank, c->lora.alpha);
    bool *chosen = calloc((size_t)p->count + 1, sizeof *chosen);
    status s = l && chosen ? choose(c, p, chosen, e) : out_of_memory(e);
    if (s == OK) s = build(l, p, chosen, e);
    if (s == OK) {
        draw(l, seed);
        mark(p, chosen);
        *out = l;
    } else lora_close(l);
    free(chosen);
    return s;
}

/* --- computing --------------------------------------------------------------------------------------------------- */

typedef struct scale_call {
    float *x;
    const float *add; /* or NULL */
    int64_t n;
    float by;
} scale_call;

/* x = add + by x. Where x is zero `add` comes through to the last bit: minus zero, too. */
static void scale_task(void *arg, int64_t task, int thread) {
    (void)thread;
    const scale_call *c = arg;
    int64_t first = task * TASK, end = first + TASK < c->n ? first + TASK : c->n;
    for (int64_t i = first; i < end; i++) {
        float x = c->by * c->x[i];
        c->x[i] = !c->add ? x : x == 0 ? c->add[i] : c->add[i] + x;
    }
}

static void scale(queue *q, scale_call c) {
    queue_run(q, (c.n + TASK - 1) / TASK, scale_task, &c);
}

static float factor(const lora *l) {
    return (float)(l->alpha / (double)l->rank);
}

void lora_apply(lora *l, queue *q, params *p) {
    for (int64_t i = 0; i < l->count; i++) {
        const adapted *x = &l->list[i];
        const param *w = &p->list[x->weight];
        l->change[i] = (product_dx){.w = &x->a_matrix,
                                    .dy = l->own.w + x->b->first,
                                    .lddy = l->rank,
                                    .dx = p->w + w->first,
                                    .lddx = w->dim[1],
                                    .n = w->dim[0],
                                    .f32 = true};
    }
    op_linear_dx(q, l->change, (int)l->count); /* B A */
    for (int64_t i = 0; i < l->count; i++) {
        const param *w = &p->list[l->list[i].weight];
        scale(q, (scale_call){.x = p->w + w->first, .add = l->list[i].w0, .n = w->n, .by = factor(l)});
    }
}

void lora_remove(const lora *l, params *p) {
    for (int64_t i = 0; i < l->count; i++) {
        const param *w = &p->list[l->list[i].weight];
        memcpy(p->w + w->first, l->list[i].w0, (size_t)w->n * sizeof *p->w);
    }
}

void lora_gradients(lora *l, queue *q, const params *p) {
    for (int64_t i = 0; i < l->count; i++) {
        const adapted *x = &l->list[i];
        const param *w = &p->list[x->weight];
        const float *dw = p->g + w->first;
        l->da[i] = (product_dw){.dw = l->own.g + x->a->first,
                                .out = l->rank,
                                .in = w->dim[1],
                                .dy = l->own.w + x->b->first,
                                .lddy = l->rank,
                                .x = dw,
                                .ldx = w->dim[1],
                                .n = w->dim[0],
                                .f32 = true};
        l->db[i] = (product){.w = &x->a_matrix,
                             .x = dw,
                             .ldx = w->dim[1],
                             .y = l->own.g + x->b->first,
                             .ldy = l->rank,
                             .n = w->dim[0],
                             .y_type = DT_F32,
                             .f32 = true};
    }
    memset(l->own.g, 0, (size_t)l->own.total * sizeof *l->own.g);
    op_linear_dw(q, l->da, (int)l->count);
    op_linear(q, l->db, (int)l->count);
    scale(q, (scale_call){.x = l->own.g, .n = l->own.total, .by = factor(l)});
}

/* --- PEFT's folder ----------------------------------------------------------------------------------------------- */

/* transformers 5 keeps the routed experts of a layer in fused parameters. PEFT joins A and B of single experts as it
 * loads them, and to that end takes every module of a model with experts that ends in gate_proj, up_proj or down_proj
 * for a routed one: those that are not must be named as parameters. */
static bool named_as_parameter(const lora *l, const param *a) {
    static const char *const ends[] = {".gate_proj.lora_A.weight", ".up_proj.lora_A.weight",
                                       ".down_proj.lora_A.weight"};
    if (!l->has_experts || a->expert >= 0) return false;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (name_ends_with(a->name, ends[i])) return true;
    return false;
}

static json_t *target_names(const lora *l, bool parameters) {
    json_t *list = json_array();
    for (int64_t i = 0; i < l->count; i++) {
        const param *a = l->list[i].a;
        if (named_as_parameter(l, a) != parameters) continue;
        const char *name = a->name + strlen(PREFIX);
        int n = (int)(strlen(name) - strlen(".lora_A.weight"));
        json_array_append_new(list, json_sprintf("%.*s%s", n, name, parameters ? ".weight" : ""));
    }
    if (!parameters || json_array_size(list)) return list;
    json_decref(list);
    return json_null();
}

static status save_config(const lora *l, const char *folder, const char *base_model, error *e) {
    json_t *alpha =
        l->alpha == floor(l->alpha) && l->alpha < 1e15 ? json_integer((json_int_t)l->alpha) : json_real(l->alpha);
    json_t *root =
        json_pack("{s:s, s:s, s:s, s:I, s:o, s:i, s:s, s:o, s:o, s:b, s:b, s:b, s:b, s:b, s:n}", "peft_type", "LORA",
                  "task_type", "CAUSAL_LM", "base_model_name_or_path", base_model, "r", (json_int_t)l->rank,
                  "lora_alpha", alpha, "lora_dropout", 0, "bias", "none", "target_modules", target_names(l, false),
                  "target_parameters", target_names(l, true), "fan_in_fan_out", false, "inference_mode", true,
                  "init_lora_weights", true, "use_dora", false, "use_rslora", false, "modules_to_save");
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL, *path = path_join(folder, CONFIG);
    status s = text && path ? file_save(path, text, strlen(text), e) : out_of_memory(e);
    json_decref(root);
    free(text);
    free(path);
    return s;
}

static status save_weights(const lora *l, const char *folder, error *e) {
    shard_plan *plan;
    shard_writer w;
    TRY(shard_plan_open(&plan, e));
    status s = OK;
    for (int64_t i = 0; i < l->own.count && s == OK; i++) {
        const param *x = &l->own.list[i];
        tensor t = {.type = DT_F32, .ndim = 2, .dim = {x->dim[0], x->dim[1]}};
        s = shard_plan_add(plan, WEIGHTS, x->name, &t, e);
    }
    if (s == OK) s = shard_plan_finish(plan, SHARD_BYTES, e);
    const planned_shard *f = s == OK ? shard_plan_at(plan, 0) : NULL;
    if (s == OK && (s = shard_begin(&w, f, folder, e)) == OK) {
        for (size_t i = 0; i < f->count && s == OK; i++)
            s = shard_write(&w, l->own.w + l->own.list[f->tensors[i].added].first, f->tensors[i].bytes, e);
        if (s == OK) s = shard_commit(&w, e);
        else shard_abort(&w);
    }
    shard_plan_close(plan);
    return s;
}

status lora_save(const lora *l, const char *folder, const char *base_model, error *e) {
    TRY(make_directory(folder, e));
    TRY(save_weights(l, folder, e));
    return save_config(l, folder, base_model, e);
}

static bool is_set(const json_t *root, const char *key) { /* not null, false, "none", empty */
    const json_t *v = json_object_get(root, key);
    if (!v || json_is_null(v) || json_is_false(v)) return false;
    if (json_is_string(v)) return strcmp(json_string_value(v), "none") != 0;
    return json_is_array(v) || json_is_object(v) ? json_array_size(v) + json_object_size(v) > 0 : true;
}

static status read_config(const char *path, int64_t *rank, double *alpha, error *e) {
    static const char *const refused[] = {"use_dora",      "use_rslora",      "rank_pattern",
                                          "alpha_pattern", "modules_to_save", "fan_in_fan_out",
                                          "bias",          "lora_bias",       "layer_replication"};
    json_t *root;
    const char *type;
    TRY(json_read(&root, path, CONFIG_BYTES, e));
    status s = json_get_string(root, "peft_type", "", &type, e);
    if (s == OK) s = json_get_int(root, "r", 0, 0, 1 << 20, rank, e);
    if (s == OK) s = json_get_real(root, "lora_alpha", 0, alpha, e);
    if (s == OK && !*type) s = fail(e, ERR_FORMAT, "no \"peft_type\"");
    if (s == OK && strcmp(type, "LORA") != 0)
        s = fail(e, ERR_UNSUPPORTED, "\"peft_type\" is \"%.40s\", LORA was wanted", type);
    if (s == OK && (*rank < 1 || !(*alpha > 0)))
        s = fail(e, ERR_FORMAT, "\"r\" and \"lora_alpha\" must be there and above zero");
    for (size_t i = 0; i < sizeof refused / sizeof *refused && s == OK; i++)
        if (is_set(root, refused[i]))
            s = fail(e, ERR_UNSUPPORTED, "\"%s\" is set, which this program does not do", refused[i]);
    json_decref(root);
    return s == OK ? OK : wrap(e, "%s", path);
}

static status name_stranger(const params *p, const weights_file *f, const char *path, const bool *chosen, error *e) {
    const char *name = "";
    for (size_t i = 0, known = 1; i < weights_count(f) && known; i++) {
        name = weights_at(f, i)->name;
        known = 0;
        for (int64_t k = 0; k < p->count && strlen(name) > strlen(PREFIX); k++) {
            const size_t n = chosen[k] ? module_length(&p->list[k]) : 0;
            const char *module = name + strlen(PREFIX);
            if (!n || strncmp(module, p->list[k].name, n) != 0) continue;
            known |= strcmp(module + n, ".lora_A.weight") == 0 || strcmp(module + n, ".lora_B.weight") == 0;
        }
    }
    return fail(e, ERR_FORMAT, "%s: tensor \"%.160s\" belongs to no linear layer of this model", path, name);
}

/* Which weights have A and B in the file; that it has nothing else. */
static status find_names(const params *p, const weights_file *f, const char *path, bool *chosen, error *e) {
    size_t found = 0;
    for (int64_t i = 0; i < p->count; i++) {
        char a[256], b[256];
        int n = (int)module_length(&p->list[i]);
        if (!n) continue;
        snprintf(a, sizeof a, PREFIX "%.*s.lora_A.weight", n, p->list[i].name);
        snprintf(b, sizeof b, PREFIX "%.*s.lora_B.weight", n, p->list[i].name);
        bool has_a = weights_find(f, a), has_b = weights_find(f, b);
        if (has_a != has_b) return fail(e, ERR_FORMAT, "%s: tensor \"%.160s\" is missing", path, has_a ? b : a);
        chosen[i] = has_a;
        found += has_a;
    }
    if (!found) return fail(e, ERR_FORMAT, "%s: nothing in it adapts a linear layer of this model", path);
    return found * 2 == weights_count(f) ? OK : name_stranger(p, f, path, chosen, e);
}

static status read_weights(lora *l, const weights_file *f, const char *path, error *e) {
    for (int64_t i = 0; i < l->own.count; i++) {
        const param *x = &l->own.list[i];
        const tensor *t = &weights_find(f, x->name)->t;
        if (t->ndim != 2 || t->dim[0] != x->dim[0] || t->dim[1] != x->dim[1])
            return fail(e, ERR_FORMAT, "%s: tensor \"%.160s\": %lld x %lld, %lld x %lld was wanted", path, x->name,
                        (long long)(t->ndim > 0 ? t->dim[0] : 0), (long long)(t->ndim > 1 ? t->dim[1] : 0),
                        (long long)x->dim[0], (long long)x->dim[1]);
        if (t->type != DT_F32 && t->type != DT_BF16 && t->type != DT_F16)
            return fail(e, ERR_UNSUPPORTED, "%s: tensor \"%.160s\": type %s, F32, BF16 or F16 was wanted", path,
                        x->name, dtype_name(t->type));
        for (int64_t k = 0; k < x->n; k++) l->own.w[x->first + k] = dtype_load(t->type, t->data, k);
    }
    return OK;
}

status lora_load(lora **out, const char *folder, params *p, error *e) {
    *out = NULL;
    char *config = path_join(folder, CONFIG), *path = path_join(folder, WEIGHTS);
    bool *chosen = calloc((size_t)p->count + 1, sizeof *chosen);
    weights_file *f = NULL;
    lora *l = NULL;
    int64_t rank = 0;
    double alpha = 0;
    status s = config && path && chosen ? read_config(config, &rank, &alpha, e) : out_of_memory(e);
    if (s == OK) s = weights_open(&f, path, e);
    if (s == OK) s = find_names(p, f, path, chosen, e);
    if (s == OK && !(l = lora_new(rank, alpha))) s = out_of_memory(e);
    if (s == OK) s = build(l, p, chosen, e);
    if (s == OK) s = read_weights(l, f, path, e);
    if (s == OK) {
        mark(p, chosen);
        *out = l;
    } else lora_close(l);
    weights_close(f);
    free(config);
    free(path);
    free(chosen);
    return s;
}
