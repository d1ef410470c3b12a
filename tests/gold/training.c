#include "training.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/json.h"
#include "format/safetensors.h"
#include "train/trainer.h"

/* Tolerances of the reference data: losses 1e-5 relative; gradients cosine 0.999999, relative L2 1e-5, largest
 * difference 1e-4 of the largest + 1e-6; weights 99.9 % within 2e-6, none beyond two learning rates. */
static const double LOSS = 1e-5, COSINE = 0.999999, L2 = 1e-5, LARGEST = 1e-4, TINY = 1e-6, WEIGHT = 2e-6;

typedef struct kase {
    gold *g;
    const char *file;
    safetensors f;
    json_t *info;
    train_config cfg;
    trainer t;
    int32_t *ids, *next, *target;
    int64_t *edges, rows, len;
    error e;
} kase;

static double hyper(const kase *k, const char *key) {
    return json_number_value(json_object_get(json_object_get(k->info, "hyper"), key));
}

static void configure(kase *k) {
    const json_t *h = json_object_get(k->info, "hyper"), *betas = json_object_get(h, "betas");
    const char *stage = json_string_value(json_object_get(k->info, "stage"));
    train_config *c = &k->cfg;
    train_config_default(c);
    c->training.precision = PRECISION_F32;
    c->training.threads = 2;
    c->data.options.seq_len = 32;
    c->optimizer.lr = hyper(k, "lr");
    c->optimizer.beta1 = json_number_value(json_array_get(betas, 0));
    c->optimizer.beta2 = json_number_value(json_array_get(betas, 1));
    c->optimizer.eps = hyper(k, "eps");
    c->optimizer.weight_decay = hyper(k, "weight_decay");
    c->optimizer.clip = hyper(k, "grad_clip");
    c->objective.balance_alpha = hyper(k, "balance_alpha");
    c->objective.bias_update_speed = hyper(k, "bias_update_speed");
    c->objective.mtp_weight = hyper(k, "mtp_lambda");
    c->objective.mtp_hidden =
        strcmp(json_string_value(json_object_get(h, "mtp_hidden_source")), "pre_norm") ? MTP_POST_NORM : MTP_PRE_NORM;
    c->objective.indexer_loss_scaling_factor = hyper(k, "indexer_weight");
    c->objective.dsa = !strcmp(stage, "dense_warmup") ? DSA_DENSE_WARMUP
                       : !strcmp(stage, "sparse")     ? DSA_SPARSE
                                                      : DSA_OFF;
    if (c->objective.dsa == DSA_DENSE_WARMUP)
        c->objective.trainable_parameters_mask = (string_list){.item = {".*indexer.*"}, .n = 1};
}

/* Batch of a step: every row is a document; a position is scored against the label of the next one. */
static status next_batch(void *arg, int64_t micro, token_batch *out, error *e) {
    kase *k = arg;
    char name[64];
    (void)micro;
    snprintf(name, sizeof name, "step%lld.input_ids", (long long)k->t.step);
    const tensor *ids = gold_find(&k->f, name);
    snprintf(name, sizeof name, "step%lld.labels", (long long)k->t.step);
    const tensor *labels = gold_find(&k->f, name);
    if (!ids || !labels || ids->ndim != 2) return fail(e, ERR_FORMAT, "no tokens for step %lld", (long long)k->t.step);
    k->rows = ids->dim[0];
    k->len = ids->dim[1];
    const int64_t n = k->rows * k->len;
    k->ids = realloc(k->ids, (size_t)n * sizeof *k->ids);
    k->next = realloc(k->next, (size_t)n * sizeof *k->next);
    k->target = realloc(k->target, (size_t)n * sizeof *k->target);
    k->edges = realloc(k->edges, (size_t)(k->rows + 1) * sizeof *k->edges);
    *out = (token_batch){.n = n, .n_docs = k->rows, .n_rows = k->rows, .ids = k->ids, .next = k->next};
    out->target = k->target;
    out->doc = out->row = k->edges;
    for (int64_t i = 0; i < n; i++) {
        const bool last = i % k->len == k->len - 1;
        int32_t label = -100, id;
        memcpy(&k->ids[i], (const char *)ids->data + i * 4, 4);
        if (!last) memcpy(&label, (const char *)labels->data + (i + 1) * 4, 4);
        if (!last) memcpy(&id, (const char *)ids->data + (i + 1) * 4, 4);
        k->next[i] = last ? -1 : id;
        k->target[i] = label < 0 ? -1 : label;
        out->n_targets += k->target[i] >= 0;
    }
    for (int64_t r = 0; r <= k->rows; r++) k->edges[r] = r * k->len;
    return OK;
}

/* --- comparisons ------------------------------------------------------------------------------------------------- */

static void say_loss(kase *k, int64_t step, const json_t *golden, const char *key, double ours) {
    const json_t *v = json_object_get(golden, key);
    char aspect[64];
    if (!v) return;
    const double want = json_number_value(v), gap = fabs(ours - want) / fabs(want);
    snprintf(aspect, sizeof aspect, "step %lld %s", (long long)step, key);
    gold_say(k->g, gap <= LOSS, k->file, aspect, "%.7f, golden %.7f: %.1e", ours, want, gap);
}

static void losses(kase *k, int64_t step, const step_metrics *m) {
    const json_t *golden = json_array_get(json_object_get(k->info, "steps"), (size_t)step);
    say_loss(k, step, golden, "total", m->loss);
    say_loss(k, step, golden, "ce", m->lm_loss);
    say_loss(k, step, golden, "mtp_ce", m->mtp_loss);
    say_loss(k, step, golden, "balance_paper_sum_layers", m->balance_loss);
    say_loss(k, step, golden, "indexer_kl_mean_layers", m->indexer_loss);
    say_loss(k, step, golden, "grad_norm_before_clip", m->grad_norm);
    const char *layer;
    json_t *loads;
    json_object_foreach(json_object_get(golden, "loads"), layer, loads) {
        const int64_t l = atoi(layer + strlen("layer"));
        bool same = json_array_size(loads) == (size_t)k->t.model.n_routed_experts;
        for (size_t i = 0; same && i < json_array_size(loads); i++)
            same = json_integer_value(json_array_get(loads, i)) == k->t.sums.layer[l].load[i];
        char aspect[64];
        snprintf(aspect, sizeof aspect, "step %lld load %s", (long long)step, layer);
        gold_say(k->g, same, k->file, aspect, "%s", same ? "equal" : "differs");
    }
}

void gold_gradients(gold *g, const char *file, const char *aspect, const safetensors *f, const char *prefix,
                    const params *p) {
    double worst_cosine = 1, worst_l2 = 0, worst_gap = 0;
    const char *who = "none";
    int64_t compared = 0, failed = 0;
    for (int64_t i = 0; i < p->count; i++) {
        char name[200];
        snprintf(name, sizeof name, "%s/%s", prefix, p->list[i].name);
        const tensor *t = gold_find(f, name);
        if (!t && p->list[i].trainable) gold_say(g, false, file, aspect, "no golden gradient of %s", p->list[i].name);
        if (!t) continue;
        double dot = 0, a = 0, b = 0, d = 0, gap = 0, most = 0;
        for (int64_t j = 0; j < p->list[i].n; j++) {
            const double x = dtype_load(t->type, t->data, j), y = p->g[p->list[i].first + j];
            dot += x * y;
            a += x * x;
            b += y * y;
            d += (x - y) * (x - y);
            gap = fmax(gap, fabs(x - y));
            most = fmax(most, fabs(x));
        }
        const double cosine = a > 0 ? dot / sqrt(a * b) : b == 0, l2 = a > 0 ? sqrt(d / a) : sqrt(d);
        const bool pass = cosine >= COSINE && l2 <= L2 && gap <= LARGEST * most + TINY;
        if (!pass) gold_say(g, false, file, aspect, "%s: cosine %.8f, L2 %.1e", p->list[i].name, cosine, l2);
        failed += !pass;
        if (l2 > worst_l2) who = p->list[i].name;
        worst_l2 = fmax(worst_l2, l2);
        worst_cosine = fmin(worst_cosine, cosine);
        worst_gap = fmax(worst_gap, most > 0 ? gap / most : 0);
        compared++;
    }
    gold_say(g, compared > 0 && !failed, file, aspect, "%lld, worst cosine 1 - %.1e, L2 %.1e (%s)", (long long)compared,
             1 - worst_cosine, worst_l2, who);
}

static void weights(kase *k, const char *prefix) {
    const params *p = &k->t.p;
    int64_t all = 0, off = 0, compared = 0;
    double largest = 0;
    for (int64_t i = 0; i < p->count; i++) {
        char name[200];
        snprintf(name, sizeof name, "%s/%s", prefix, p->list[i].name);
        const tensor *t = gold_find(&k->f, name);
        if (!t) continue;
        compared++;
        all += p->list[i].n;
        for (int64_t j = 0; j < p->list[i].n; j++) {
            const double gap = fabs(dtype_load(t->type, t->data, j) - (double)p->w[p->list[i].first + j]);
            off += gap > WEIGHT;
            largest = fmax(largest, gap);
        }
    }
    if (!compared) return;
    gold_say(k->g, (double)off <= 1e-3 * (double)all && largest <= 2 * k->cfg.optimizer.lr, k->file, prefix,
             "%lld tensors, %.4f %% beyond 2e-6, largest difference %.1e", (long long)compared,
             100.0 * (double)off / (double)all, largest);
}

static void biases(kase *k, const char *prefix) {
    const params *p = &k->t.p;
    for (int64_t i = 0; i < p->count; i++) {
        char name[64];
        if (!p->list[i].buffer) continue;
        snprintf(name, sizeof name, "%s.layer%lld", prefix, (long long)p->list[i].layer);
        const tensor *t = gold_find(&k->f, name);
        if (!t) continue;
        double gap = 0;
        for (int64_t j = 0; j < p->list[i].n; j++)
            gap = fmax(gap, fabs(dtype_load(t->type, t->data, j) - (double)p->w[p->list[i].first + j]));
        gold_say(k->g, gap <= 1e-7, k->file, name, "largest difference %.1e", gap);
    }
}

/* The sign rule, and the variant whose movement has mean zero, from the same start. */
static status steps(kase *k) {
    const batch_source source = {.get = next_batch, .arg = k, .count = 1};
    const size_t n = json_array_size(json_object_get(k->info, "steps"));
    for (size_t s = 0; s < n; s++) {
        step_metrics m;
        TRY(trainer_gradients(&k->t, &source, &m, &k->e));
        if (s == 0) gold_gradients(k->g, k->file, "gradients", &k->f, "grad", &k->t.p);
        losses(k, (int64_t)s, &m);
        if (s == 0) biases(k, "bias_before");
        TRY(trainer_update(&k->t, &m, &k->e));
        k->t.step++;
        if (s == 0) biases(k, k->cfg.objective.bias_zero_mean ? "bias_after_zero_mean" : "bias_after");
        if (k->cfg.objective.bias_zero_mean) return OK;
        if (s == 0) weights(k, "param_after1");
        if (s == 4) weights(k, "param_after5");
    }
    return OK;
}

static status run(kase *k, const char *folder, bool zero_mean) {
    model *from = NULL;
    comm world;
    char *checkpoint = gold_path(folder, "checkpoint");
    configure(k);
    k->cfg.objective.bias_zero_mean = zero_mean;
    status s = model_open(&from, checkpoint, &k->e);
    if (s == OK) s = comm_self(&world, &k->e);
    if (s == OK) s = trainer_open(&k->t, &k->cfg, &from->cfg, &world, &k->e);
    if (s == OK) s = params_load(&k->t.p, from, &k->e);
    if (s == OK) s = trainer_ready(&k->t, &k->e);
    if (s == OK) s = steps(k);
    trainer_close(&k->t);
    model_close(from);
    free(checkpoint);
    return s;
}

void gold_training(gold *g, const char *folder, const char *file) {
    kase k = {.g = g, .file = file};
    char *path = gold_path(folder, "golden.safetensors"), *info = gold_path(folder, "golden.json");
    status s = safetensors_open(&k.f, path, &k.e);
    if (s == OK) s = json_read(&k.info, info, 64 << 20, &k.e);
    if (s == OK) s = run(&k, folder, false);
    if (s == OK && gold_find(&k.f, "bias_after_zero_mean.layer1")) s = run(&k, folder, true);
    if (s != OK) gold_say(g, false, file, "run", "%s", k.e.text);
    safetensors_close(&k.f);
    json_decref(k.info);
    free(k.ids);
    free(k.next);
    free(k.target);
    free(k.edges);
    free(path);
    free(info);
}

/* --- FP8 activations --------------------------------------------------------------------------------------------- */

static const double FP8_KL = 1e-4; /* mean KL of p7: a rounding flip in one code is possible */

static status fp8_logits(trainer *t, train_config *c, const model *m, comm *world, const token_batch *b, float *logits,
                         error *e) {
    const step_goal goal = {.parts = {.language_model = true, .high = true}};
    train_config_default(c);
    c->training.precision = PRECISION_FP8;
    c->training.threads = 2;
    TRY(trainer_open(t, c, &m->cfg, world, e));
    TRY(params_load(&t->p, m, e));
    TRY(trainer_ready(t, e));
    return executor_logits(t->x, b, &goal, logits, e);
}

void gold_fp8_activations(gold *g, const char *file, const safetensors *golden, const model *m) {
    const tensor *ids = gold_find(golden, "ids.p7"), *wanted = gold_find(golden, "logits_fp8act.p7");
    if (!ids || !wanted || m->cfg.fp8 == false) return;
    const int64_t n = ids->dim[0], v = m->cfg.vocab_size, edges[] = {0, n};
    int32_t *tokens = malloc((size_t)n * sizeof *tokens), *none = malloc((size_t)n * sizeof *none);
    float *logits = malloc((size_t)(n * v) * sizeof *logits), *want = malloc((size_t)(n * v) * sizeof *want);
    if (!tokens || !none || !logits || !want) abort();
    memcpy(tokens, ids->data, (size_t)n * sizeof *tokens);
    memcpy(want, wanted->data, (size_t)(n * v) * sizeof *want);
    for (int64_t i = 0; i < n; i++) none[i] = -1;
    const token_batch b = {
        .n = n, .n_docs = 1, .n_rows = 1, .ids = tokens, .next = none, .target = none, .doc = edges, .row = edges};
    trainer t = {0};
    train_config c;
    comm world;
    error e;
    status s = comm_self(&world, &e);
    if (s == OK) s = fp8_logits(&t, &c, m, &world, &b, logits, &e);
    if (s == OK) {
        const gold_kl kl = gold_kl_of(want, logits, n, v);
        gold_say(g, kl.mean <= FP8_KL, file, "logits_fp8act.p7", "mean KL %.2e, largest %.2e", kl.mean, kl.max);
    } else {
        gold_say(g, false, file, "logits_fp8act.p7", "%s", e.text);
    }
    trainer_close(&t);
    free(tokens);
    free(none);
    free(logits);
    free(want);
}
