/* Every variant twice: from the stored log-probabilities, and through the trainer on the stored checkpoint. */
#include "grpo.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/json.h"
#include "post/policy.h"
#include "training.h"

/* Tolerances: losses 1e-5 of themselves; numbers of tokens, which come from the same log-probabilities, 1e-5 of the
 * largest; log-probabilities of the model as all F32 numbers. */
static const double LOSS = 1e-5;

enum { MICRO = 3 }; /* completions of a micro-batch: gradients and losses are sums over several */

typedef struct kase {
    gold *g;
    const char *file;
    safetensors f;
    json_t *info;
    int64_t n, width, group; /* completions, and columns of the stored tensors */
    int64_t *first;          /* [n + 1]: their tokens, without padding */
    int32_t **ids;
    double *reward, *advantage;
    float *now, *old, *ref; /* stored log-probabilities, without padding */
    policy_item *item;
    trainer t;
    train_config cfg;
    error e;
} kase;

static void *take(int64_t n, size_t size) {
    void *p = calloc((size_t)n + 1, size);
    if (!p) abort();
    return p;
}

static int32_t integer(const tensor *t, int64_t i) { /* tensors may be unaligned */
    int32_t x;
    memcpy(&x, (const char *)t->data + i * 4, 4);
    return x;
}

static const tensor *need(kase *k, const char *name, dtype type, int64_t count) {
    const tensor *t = gold_find(&k->f, name);
    if (t && t->type == type && (count < 0 || tensor_count(t) == count)) return t;
    fail(&k->e, ERR_FORMAT, "golden.safetensors: no %s of this kind", name);
    return NULL;
}

/* The tokens that count of [n][width], one after the other. */
static float *packed(const kase *k, const tensor *t) {
    float *x = take(k->first[k->n], sizeof *x);
    for (int64_t i = 0; i < k->n; i++)
        for (int64_t j = k->first[i]; j < k->first[i + 1]; j++)
            x[j] = dtype_load(t->type, t->data, i * k->width + j - k->first[i]);
    return x;
}

static status open_completions(kase *k, const tensor *starts, const tensor *len) {
    k->first = take(k->n + 1, sizeof *k->first);
    k->ids = take(k->n, sizeof *k->ids);
    k->item = take(k->n, sizeof *k->item);
    for (int64_t i = 0; i < k->n; i++) {
        char name[40];
        const int32_t total = integer(len, i), given = integer(starts, i);
        snprintf(name, sizeof name, "ids.%lld", (long long)i);
        const tensor *ids = need(k, name, DT_I32, total);
        if (!ids || given < 1 || total - given < 1 || total - given > k->width)
            return fail(&k->e, ERR_FORMAT, "golden.safetensors: completion %lld", (long long)i);
        k->ids[i] = take(total, sizeof **k->ids);
        for (int32_t t = 0; t < total; t++) k->ids[i][t] = integer(ids, t);
        k->first[i + 1] = k->first[i] + total - given;
        k->item[i] =
            (policy_item){.prompt = k->ids[i], .n_prompt = given, .ids = k->ids[i] + given, .n = total - given};
    }
    return OK;
}

static status open_case(kase *k) {
    const tensor *rewards = gold_find(&k->f, "rewards"), *now = gold_find(&k->f, "logp_current");
    k->group = json_integer_value(json_object_get(k->info, "group_size"));
    if (!rewards || !now || now->ndim != 2 || k->group < 1) return fail(&k->e, ERR_FORMAT, "no rewards");
    k->n = tensor_count(rewards);
    k->width = now->dim[1];
    const tensor *starts = need(k, "prompt_len", DT_I32, k->n), *len = need(k, "len", DT_I32, k->n),
                 *old = need(k, "logp_old", DT_F32, k->n * k->width),
                 *ref = need(k, "logp_ref", DT_F32, k->n * k->width);
    if (!starts || !len || !old || !ref) return ERR_FORMAT;
    TRY(open_completions(k, starts, len));
    k->reward = take(k->n, sizeof *k->reward);
    k->advantage = take(k->n, sizeof *k->advantage);
    for (int64_t i = 0; i < k->n; i++) k->reward[i] = dtype_load(rewards->type, rewards->data, i);
    k->now = packed(k, now);
    k->old = packed(k, old);
    k->ref = packed(k, ref);
    for (int64_t i = 0; i < k->n; i++) k->item[i].old = k->old + k->first[i], k->item[i].ref = k->ref + k->first[i];
    return OK;
}

static void close_case(kase *k) {
    for (int64_t i = 0; k->ids && i < k->n; i++) free(k->ids[i]);
    free(k->ids);
    free(k->item);
    free(k->first);
    free(k->reward);
    free(k->advantage);
    free(k->now);
    free(k->old);
    free(k->ref);
    safetensors_close(&k->f);
    json_decref(k->info);
}

/* --- variants ---------------------------------------------------------------------------------------------------- */

typedef struct variant {
    const char *name;
    const json_t *info;
    policy_loss_options o;
    advantage_kind advantage;
    double kl_unit; /* the stored KL is this many KLs: NeMo's is multiplied with beta */
} variant;

static double number(const json_t *o, const char *key) {
    return json_number_value(json_object_get(o, key));
}

static bool is(const json_t *o, const char *key, const char *value) {
    const char *s = json_string_value(json_object_get(o, key));
    return s && !strcmp(s, value);
}

static policy_loss_kind trl_kind(const json_t *v) {
    static const struct {
        const char *name;
        policy_loss_kind kind;
    } kinds[] = {{"dapo", POLICY_DAPO}, {"bnpo", POLICY_BNPO}, {"dr_grpo", POLICY_DR_GRPO}, {"cispo", POLICY_CISPO}};
    if (is(v, "level", "sequence")) return POLICY_GSPO;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (is(v, "loss_type", kinds[i].name)) return kinds[i].kind;
    return POLICY_GRPO;
}

static variant variant_of(const char *name, const json_t *v) {
    variant out = {.name = name, .info = v, .kl_unit = 1};
    policy_loss_options *o = &out.o;
    o->clip_low = number(v, "low");
    o->clip_high = number(v, "high");
    o->kl_beta = number(v, "beta");
    o->max_completion = json_integer_value(json_object_get(v, "max_completion_length"));
    if (is(v, "style", "nemo")) {
        o->kind = json_is_true(json_object_get(v, "token_level")) ? POLICY_DAPO : POLICY_GRPO;
        o->dual_clip = number(v, "c");
        o->kl_on_policy = true;
        out.advantage = json_is_true(json_object_get(v, "loo")) ? ADVANTAGE_LEAVE_ONE_OUT : ADVANTAGE_MEAN;
        out.kl_unit = o->kl_beta;
        return out;
    }
    o->kind = trl_kind(v);
    if (o->kind == POLICY_CISPO) o->clip_low = 1, o->clip_high -= 1; /* TRL: at most `high`, no lower bound */
    out.advantage = is(v, "scale", "none")    ? ADVANTAGE_MEAN
                    : is(v, "scale", "batch") ? ADVANTAGE_BATCH
                                              : ADVANTAGE_GROUP;
    return out;
}

/* --- from stored log-probabilities ------------------------------------------------------------------------------- */

static void say_tokens(kase *k, const variant *v, const char *what, const float *ours, int64_t n, double limit) {
    char name[100];
    snprintf(name, sizeof name, "%s%s%s", v ? v->name : "", v ? "/" : "", what);
    const tensor *t = gold_find(&k->f, name);
    if (!t) {
        gold_say(k->g, false, k->file, name, "no such golden tensor");
        return;
    }
    float *golden = t->ndim == 2 ? packed(k, t) : take(n, sizeof *golden);
    for (int64_t i = 0; t->ndim != 2 && i < n; i++) golden[i] = dtype_load(t->type, t->data, i);
    const double gap = gold_relative(gold_gap_of(golden, ours, n));
    gold_say(k->g, gap <= limit, k->file, name, "%lld numbers, largest difference %.1e", (long long)n, gap);
    free(golden);
}

/* size: of the terms that cancel, which are as far off as they are. */
static void say_loss(kase *k, const variant *v, const char *aspect, double ours, double size) {
    const double want = number(v->info, "loss"), gap = fabs(ours - want) / (fabs(want) + size);
    char text[100];
    snprintf(text, sizeof text, "%s %s", v->name, aspect);
    gold_say(k->g, gap <= LOSS, k->file, text, "%.8f, golden %.8f: %.1e", ours, want, gap);
}

static void stored(kase *k, const variant *v) {
    const int64_t tokens = k->first[k->n];
    float *d = take(tokens, sizeof *d), *loss = take(tokens, sizeof *loss), *ratio = take(tokens, sizeof *ratio),
          *kl = take(tokens, sizeof *kl), *gains = take(k->n, sizeof *gains);
    policy_stats s = {0};
    const policy_batch b = {.n_seq = k->n,
                            .first = k->first,
                            .logp = k->now,
                            .old = k->old,
                            .ref = k->ref,
                            .advantage = k->advantage,
                            .tokens = (double)tokens,
                            .sequences = (double)k->n};
    policy_loss(&v->o, &b, d, &s, loss, ratio, kl);
    for (int64_t i = 0; i < tokens; i++) kl[i] *= (float)v->kl_unit;
    for (int64_t i = 0; i < k->n; i++) gains[i] = (float)k->advantage[i];
    say_tokens(k, v, "advantages", gains, k->n, LOSS);
    say_tokens(k, v, "ratio", ratio, tokens, LOSS);
    say_tokens(k, v, "kl", kl, tokens, LOSS);
    say_tokens(k, v, "token_loss", loss, tokens, LOSS);
    say_loss(k, v, "loss from log-probabilities", s.loss, 0);
    const double clipped = (s.clipped_low + s.clipped_high) / s.tokens, want = number(v->info, "clipped_fraction");
    gold_say(k->g, fabs(clipped - want) <= 1e-6, k->file, v->name, "clipped %.6f, golden %.6f", clipped, want);
    free(d);
    free(loss);
    free(ratio);
    free(kl);
    free(gains);
}

/* --- through the trainer ----------------------------------------------------------------------------------------- */

/* The model's log-probabilities of the completions, at a temperature. They overwrite those of the reference. */
static status current(kase *k, double temperature, const char *name) {
    const policy_loss_options none = {0};
    policy *p = NULL;
    TRY(policy_open(&p, &none, temperature, MICRO, &k->e));
    policy_fit(p, &k->t);
    const status s = policy_reference(p, &k->t, NULL, k->item, k->n, &k->e);
    if (s == OK) say_tokens(k, NULL, name, k->ref, k->first[k->n], GOLD_F32);
    policy_close(p);
    return s;
}

static status learned(kase *k, const variant *v) {
    char prefix[100], aspect[100];
    policy_numbers numbers;
    batch_source source;
    step_metrics m;
    policy *p = NULL;
    /* bnpo averages over a micro-batch, and the reference had one */
    TRY(policy_open(&p, &v->o, 1, v->o.kind == POLICY_BNPO ? k->n : MICRO, &k->e));
    policy_fit(p, &k->t);
    for (int64_t i = 0; i < k->n; i++) k->item[i].advantage = k->advantage[i];
    status s = policy_source(p, k->item, k->n, (double)k->first[k->n], (double)k->n, &numbers, &source, &k->e);
    if (s == OK) s = trainer_gradients(&k->t, &source, &m, &k->e);
    if (s == OK) {
        snprintf(prefix, sizeof prefix, "%s/grad", v->name);
        snprintf(aspect, sizeof aspect, "%s gradients", v->name);
        say_loss(k, v, "loss of the model", m.loss, 0.1); /* advantages of 1, log-probabilities that are 3e-7 off */
        gold_gradients(k->g, k->file, aspect, &k->f, prefix, &k->t.p);
    }
    policy_close(p);
    return s;
}

static status open_trainer(kase *k, const model *from, comm *world) {
    train_config *c = &k->cfg;
    train_config_default(c);
    c->training.precision = PRECISION_F32;
    c->training.threads = 2;
    c->objective.balance_alpha = 0;
    c->objective.bias_update_speed = 0;
    TRY(comm_self(world, &k->e));
    TRY(trainer_open(&k->t, c, &from->cfg, world, &k->e));
    TRY(params_load(&k->t.p, from, &k->e));
    return trainer_ready(&k->t, &k->e);
}

static status compare(kase *k, const model *from) {
    const char *name;
    json_t *v;
    comm world;
    TRY(open_case(k));
    TRY(open_trainer(k, from, &world));
    json_object_foreach(json_object_get(k->info, "variants"), name, v) {
        const variant x = variant_of(name, v);
        advantages(x.advantage, k->reward, k->n, k->group, k->advantage);
        stored(k, &x);
        TRY(learned(k, &x));
    }
    TRY(current(k, 1, "logp_current"));
    return current(k, 0.7, "logp_current_temperature_0.7");
}

void gold_grpo(gold *g, const char *folder, const char *file) {
    kase k = {.g = g, .file = file};
    model *from = NULL;
    char *path = gold_path(folder, "golden.safetensors"), *info = gold_path(folder, "golden.json"),
         *checkpoint = gold_path(folder, "checkpoint");
    status s = safetensors_open(&k.f, path, &k.e);
    if (s == OK) s = json_read(&k.info, info, 64 << 20, &k.e);
    if (s == OK) s = model_open(&from, checkpoint, &k.e);
    if (s == OK) s = compare(&k, from);
    if (s != OK) gold_say(g, false, file, "run", "%s", k.e.text);
    trainer_close(&k.t);
    model_close(from);
    close_case(&k);
    free(path);
    free(info);
    free(checkpoint);
}
