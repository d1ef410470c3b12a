/* A step: gradients of all micro-batches with factors that make their sum the mean over the whole step's targets; sums
 * over ranks; one norm, one clip, one update of this rank's share of the weights; the shares to everybody; the bias. */
#include "train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "train/balance.h"
#include "train/lora.h"

double balance_alpha(const train_config *c, const model_config *m) {
    if (!isnan(c->objective.balance_alpha)) return c->objective.balance_alpha;
    return m->topk_method == TOPK_NOAUX_TC ? 1e-4 : 0;
}

/* The bias belongs to the main model: what trains an addition to it (LoRA, the indexer's warm-up) leaves it alone. */
static double bias_speed(const trainer *t) {
    if (t->lora || t->cfg->objective.dsa == DSA_DENSE_WARMUP) return 0;
    double speed = schedule_bias_speed(t->cfg, t->step, t->tokens);
    if (!isnan(speed)) return speed;
    return t->model.topk_method == TOPK_NOAUX_TC ? 1e-3 : 0;
}

double mtp_weight(const train_config *c, const model_config *m, int64_t step, double tokens) {
    return m->num_nextn_predict_layers ? schedule_mtp_weight(c, step, tokens) : 0;
}

/* --- opening ----------------------------------------------------------------------------------------------------- */

/* The weights first .. end-1 cut into `ranks` shares of about the same size; weights stay whole. */
static void share_out(const params *p, int64_t first, int64_t end, const comm *group, shard *mine, int64_t *cut) {
    double all = 0, sum = 0;
    for (int64_t i = first; i < end; i++) all += (double)p->list[i].n;
    int rank = 0;
    cut[0] = first;
    for (int64_t i = first; i < end; i++) {
        while (rank + 1 < group->size && sum >= all * (rank + 1) / group->size) cut[++rank] = i;
        sum += (double)p->list[i].n;
    }
    while (rank < group->size) cut[++rank] = end;
    *mine = (shard){cut[group->rank], cut[group->rank + 1]};
}

static int64_t start_of(const params *p, int64_t i) {
    return i < p->count ? p->list[i].first : p->total;
}

/* Shares of both halves: of this rank, and of all ranks as places in the flat arrays, counted from the half's start. */
static status share_all(trainer *t, error *e) {
    params *p = &t->p;
    const int64_t ends[] = {0, p->shared, p->count};
    if (t->lora && t->net.world->rank == 0) t->share[0].end = lora_params(t->lora)->count;
    if (t->lora) return OK;
    for (int i = 0; i < 2; i++) {
        const comm *group = i ? &t->net.edp : t->net.dp;
        int64_t *cut = t->cut[i] = arena_zero(p->mem, (size_t)group->size + 1, sizeof *cut);
        if (!cut) return fail(e, ERR_NOMEM, "memory is out");
        share_out(p, ends[i], ends[i + 1], group, &t->share[i], cut);
        for (int r = 0; r <= group->size; r++) cut[r] = start_of(p, cut[r]) - start_of(p, ends[i]);
    }
    return OK;
}

params *trainer_params(trainer *t) {
    return t->lora ? lora_params(t->lora) : &t->p;
}

shard trainer_owned(const trainer *t, int half) {
    if (t->lora) return (shard){0, half ? 0 : lora_params(t->lora)->count};
    if (t->cfg->training.zero) return t->share[half];
    return half ? (shard){t->p.shared, t->p.count} : (shard){0, t->p.shared};
}

static status open_optimizers(trainer *t, error *e) {
    TRY(share_all(t, e));
    for (int i = 0; i < 2; i++) {
        const shard s = trainer_owned(t, i);
        TRY(optimizer_open(&t->optimizer[i], t->cfg, trainer_params(t), s.first, s.end, e));
    }
    return OK;
}

/* Multiplications and additions of forward and backward for one token (deepseek-scale: 6 N_active + attention). */
static double count_flops(const model_config *m, int64_t seq_len) {
    model_counts n;
    model_count(m, &n);
    const double layers = (double)(m->num_hidden_layers + m->num_nextn_predict_layers),
                 heads = (double)m->num_attention_heads,
                 d = (double)(config_qk_dim(m) + (m->kv_lora_rank ? m->v_head_dim : m->head_dim));
    return 6 * (double)n.active + 6 * layers * heads * d * (double)seq_len / 2;
}

static status open_into(trainer *t, comm *world, error *e) {
    const train_config *c = t->cfg;
    const compute kinds[] = {COMPUTE_F32, COMPUTE_BF16, COMPUTE_FP8};
    int threads = c->training.threads / world->size;
    TRY(mesh_open(&t->net, world, c->training.expert_parallel, e));
    TRY(queue_open(&t->q, threads > 0 ? threads : 1, c->training.kernels, kinds[c->training.precision], e));
    queue_rows(t->q, ROWS_MANY);
    if (t->model.fp8_ue8m0) queue_fp8_powers(t->q);
    const int64_t experts = t->model.n_routed_experts / t->net.ep.size;
    TRY(params_open(&t->p, &t->model, c, t->net.ep.rank * experts, (t->net.ep.rank + 1) * experts, e));
    TRY(params_model(&t->m, &t->model, &t->p, false, e));
    TRY(open_sums(&t->sums, &t->model, e));
    t->layers = calloc((size_t)(t->model.num_hidden_layers + t->model.num_nextn_predict_layers), sizeof *t->layers);
    if (!t->layers) return fail(e, ERR_NOMEM, "memory is out");
    t->flops_per_token = count_flops(&t->model, c->data.options.seq_len);
    t->peak_flops = NAN;
    return OK;
}

status trainer_ready(trainer *t, error *e) {
    if (t->cfg->lora.adapter) TRY(lora_load(&t->lora, t->cfg->lora.adapter, &t->p, e));
    else if (t->cfg->lora.rank) TRY(lora_open(&t->lora, t->cfg, &t->p, t->cfg->model.seed, e));
    TRY(params_model(&t->g, &t->model, &t->p, true, e));
    TRY(executor_open(&t->x, t->m, t->g, t->q, t->net.ep.size > 1 ? &t->net.ep : NULL, t->cfg, e));
    return open_optimizers(t, e);
}

status trainer_open(trainer *out, const train_config *c, const model_config *m, comm *world, error *e) {
    *out = (trainer){.cfg = c, .model = *m};
    status s = OK;
    if (m->num_nextn_predict_layers > MOST_MTP)
        s = fail(e, ERR_UNSUPPORTED, "the model has %lld MTP layers: at most %d can be trained",
                 (long long)m->num_nextn_predict_layers, MOST_MTP);
    if (s == OK && c->training.expert_parallel > 1 && m->n_routed_experts % c->training.expert_parallel)
        s = fail(e, ERR_ARG, "training.expert_parallel: %d ranks cannot share %lld experts evenly",
                 c->training.expert_parallel, (long long)m->n_routed_experts);
    if (s == OK) s = open_into(out, world, e);
    if (s != OK) trainer_close(out);
    return s;
}

void trainer_close(trainer *t) {
    for (int i = 0; i < 2; i++) optimizer_close(t->optimizer[i]);
    executor_close(t->x);
    model_close(t->m);
    model_close(t->g);
    lora_close(t->lora);
    params_close(&t->p);
    queue_close(t->q);
    mesh_close(&t->net);
    free_sums(&t->sums);
    free(t->layers);
    *t = (trainer){0};
}

/* --- gradients --------------------------------------------------------------------------------------------------- */

typedef struct step_counts { /* of the whole step, all ranks; doubles because they are summed over ranks */
    double tokens, rows, targets, mtp[MOST_MTP];
} step_counts;

static status count_step(trainer *t, const batch_source *s, step_counts *n, error *e) {
    *n = (step_counts){0};
    for (int64_t i = 0; i < s->count; i++) {
        token_batch b;
        TRY(s->get(s->arg, i, &b, e));
        n->tokens += (double)(b.n + b.spared);
        n->rows += (double)b.n_rows;
        n->targets += (double)b.n_targets;
        for (int d = 0; d < t->model.num_nextn_predict_layers; d++) n->mtp[d] += (double)mtp_targets(&b, d + 1);
    }
    return t->net.world->kind->all_reduce_f64(t->net.world, &n->tokens, (int64_t)(sizeof *n / sizeof(double)), e);
}

/* Layers whose indexers learn. */
static double indexer_layers(const trainer *t) {
    const bool mtp = t->cfg->objective.dsa == DSA_SPARSE && mtp_weight(t->cfg, &t->model, t->step, t->tokens) != 0;
    return (double)(t->model.num_hidden_layers + (mtp ? t->model.num_nextn_predict_layers : 0));
}

static step_goal goal_of(const trainer *t, const batch_source *s, const step_counts *n) {
    const train_config *c = t->cfg;
    const model_config *m = &t->model;
    const double mtp = mtp_weight(c, m, t->step, t->tokens);
    const bool warm_up = c->objective.dsa == DSA_DENSE_WARMUP;
    step_goal g = {.language_model = n->targets > 0 ? (real)(1 / n->targets) : 0, .judge = s->judge};
    for (int d = 0; d < m->num_nextn_predict_layers && !warm_up; d++)
        g.mtp[d] = n->mtp[d] > 0 ? (real)(mtp / (double)m->num_nextn_predict_layers / n->mtp[d]) : 0;
    g.parts = (objective){.balance = (real)(balance_alpha(c, m) / n->rows),
                          .indexer_sparse = !warm_up,
                          .language_model = !warm_up,
                          .high = c->training.precision == PRECISION_FP8,
                          .capacity_factor = c->objective.capacity_factor,
                          .drop_by_probs = c->objective.drop_policy == DROP_PROBS,
                          .capacity_per_row = c->objective.capacity_per_row};
    if (m->index_topk && c->objective.dsa != DSA_OFF)
        g.parts.indexer = (real)(c->objective.indexer_loss_scaling_factor / indexer_layers(t) / n->tokens);
    return g;
}

/* Sums of losses and loads over all ranks. */
static status reduce_sums(trainer *t, error *e) {
    step_sums *s = &t->sums;
    const int64_t layers = t->model.num_hidden_layers + t->model.num_nextn_predict_layers,
                  E = t->model.n_routed_experts, count = 4 + 2 * MOST_MTP + layers * (3 + E);
    comm *world = t->net.world;
    if (world->size == 1) return OK;
    double *x = malloc((size_t)count * sizeof *x), *at = x;
    if (!x) return fail(e, ERR_NOMEM, "memory is out");
    for (int way = 0; way < 2; way++) { /* pack, then unpack in the same order */
#define MOVE(field, type)               \
    do {                                \
        if (way) (field) = (type)*at++; \
        else *at++ = (double)(field);   \
    } while (0)
        at = x;
        MOVE(s->language_model, double);
        MOVE(s->targets, int64_t);
        MOVE(s->drafts, int64_t);
        MOVE(s->accepted, int64_t);
        for (int d = 0; d < MOST_MTP; d++) {
            MOVE(s->mtp[d], double);
            MOVE(s->mtp_targets[d], int64_t);
        }
        for (int64_t l = 0; l < layers; l++) {
            MOVE(s->layer[l].dropped, int64_t);
            MOVE(s->layer[l].balance, double);
            MOVE(s->layer[l].index_kl, double);
            for (int64_t i = 0; i < E; i++) MOVE(s->layer[l].load[i], int64_t);
        }
#undef MOVE
        status r = way ? OK : world->kind->all_reduce_f64(world, x, count, e);
        if (r != OK) {
            free(x);
            return r;
        }
    }
    free(x);
    return OK;
}

static status reduce_gradients(trainer *t, error *e) {
    if (t->lora) { /* the adapters' gradients are linear in those of the matrices, and smaller */
        params *p = lora_params(t->lora);
        lora_gradients(t->lora, t->q, &t->p);
        return t->net.world->kind->all_reduce(t->net.world, p->g, p->total, e);
    }
    for (int i = 0; i < 2; i++) {
        comm *group = i ? &t->net.edp : t->net.dp;
        const int64_t first = start_of(&t->p, i ? t->p.shared : 0), end = start_of(&t->p, i ? t->p.count : t->p.shared);
        if (group->size == 1) continue;
        if (!t->cfg->training.zero) {
            TRY(group->kind->all_reduce(group, t->p.g + first, end - first, e));
            continue;
        }
        TRY(group->kind->reduce_scatter(group, t->p.g + first, t->cut[i], e));
    }
    return OK;
}

static status gradient_norm(trainer *t, double *norm, error *e) {
    double sum = 0;
    if (t->lora) {
        const params *p = lora_params(t->lora);
        *norm = sqrt(op_sum_squares(t->q, p->g, p->total));
        return OK;
    }
    for (int i = 0; i < 2; i++) {
        const int64_t first = start_of(&t->p, t->share[i].first), end = start_of(&t->p, t->share[i].end);
        if (end > first) sum += op_sum_squares(t->q, t->p.g + first, end - first);
    }
    TRY(t->net.world->kind->all_reduce_f64(t->net.world, &sum, 1, e));
    *norm = (float)sqrt(sum); /* in F32 it does not show how the sum was cut over ranks */
    return OK;
}

/* Loads of the layers with experts, and what follows from them. */
static void load_metrics(trainer *t, step_metrics *out) {
    const int64_t layers = t->model.num_hidden_layers + t->model.num_nextn_predict_layers,
                  E = t->model.n_routed_experts;
    double pairs = 0, dropped = 0;
    out->layers = t->layers;
    out->n_experts = (int)E;
    for (int64_t l = 0; l < layers && E; l++) {
        if (!config_is_moe(&t->model, l)) continue;
        const layer_stats *s = &t->sums.layer[l];
        int64_t sum = 0, most = 0;
        for (int64_t i = 0; i < E; i++) {
            sum += s->load[i];
            most = s->load[i] > most ? s->load[i] : most;
        }
        if (!sum) continue;
        const double vio = (double)most * (double)E / (double)sum - 1;
        t->layers[out->n_layers++] = (layer_load){.layer = l, .max_vio = vio, .load = s->load};
        if (!(out->max_vio >= vio)) out->max_vio = vio;
        pairs += (double)sum;
        dropped += (double)s->dropped;
    }
    if (t->cfg->objective.capacity_factor > 0 && pairs > 0) out->dropped = dropped / pairs;
}

static void loss_metrics(trainer *t, const batch_source *from, const step_counts *n, step_metrics *out) {
    const step_sums *s = &t->sums;
    const train_config *c = t->cfg;
    const int64_t layers = t->model.num_hidden_layers, D = t->model.num_nextn_predict_layers;
    const double weight = mtp_weight(c, &t->model, t->step, t->tokens);
    double balance = 0, kl = 0;
    out->lm_loss = from->judge ? s->language_model : n->targets > 0 ? s->language_model / n->targets : 0;
    out->loss = out->lm_loss;
    for (int64_t l = 0; l < layers + D; l++) {
        balance += s->layer[l].balance / n->rows;
        kl += s->layer[l].index_kl;
    }
    if (D && weight != 0 && c->objective.dsa != DSA_DENSE_WARMUP) {
        out->mtp_loss = 0;
        for (int64_t d = 0; d < D; d++)
            if (n->mtp[d] > 0) out->mtp_loss += s->mtp[d] / n->mtp[d] / (double)D;
        out->loss += weight * out->mtp_loss;
        if (s->drafts) out->mtp_acceptance = (double)s->accepted / (double)s->drafts;
    }
    if (t->model.n_routed_experts) {
        out->balance_loss = balance;
        out->loss += balance_alpha(c, &t->model) * balance;
    }
    if (t->model.index_topk && c->objective.dsa != DSA_OFF) {
        out->indexer_loss = kl / indexer_layers(t) / n->tokens;
        if (c->objective.dsa == DSA_DENSE_WARMUP) out->loss = 0;
        out->loss += c->objective.indexer_loss_scaling_factor * out->indexer_loss;
    }
}

enum { CLEAR = 1 << 18 }; /* numbers of a task */

static void clear_gradients(void *arg, int64_t task, int thread) {
    (void)thread;
    const params *p = arg;
    const int64_t first = task * CLEAR, n = p->total - first < CLEAR ? p->total - first : CLEAR;
    memset(p->g + first, 0, (size_t)n * sizeof *p->g);
}

bool trainer_takes_trees(const trainer *t) {
    const train_config *c = t->cfg;
    return balance_alpha(c, &t->model) == 0 && bias_speed(t) == 0 && c->objective.capacity_factor <= 0 &&
           mtp_weight(c, &t->model, t->step, t->tokens) == 0 && !t->model.index_topk;
}

status trainer_gradients(trainer *t, const batch_source *s, step_metrics *out, error *e) {
    step_counts n;
    *out = metrics_unknown();
    out->step = t->step;
    TRY(count_step(t, s, &n, e));
    const step_goal goal = goal_of(t, s, &n);
    zero_sums(&t->sums, &t->model);
    queue_run(t->q, (t->p.total + CLEAR - 1) / CLEAR, clear_gradients, &t->p);
    trainer_settle(t);
    for (int64_t i = 0; i < s->count; i++) {
        token_batch b;
        TRY(s->get(s->arg, i, &b, e));
        TRY(execute(t->x, &b, &goal, true, &t->sums, e));
    }
    TRY(reduce_sums(t, e));
    TRY(reduce_gradients(t, e));
    TRY(gradient_norm(t, &out->grad_norm, e));
    loss_metrics(t, s, &n, out);
    load_metrics(t, out);
    out->lr = schedule_lr(t->cfg, t->step, t->tokens);
    t->tokens += n.tokens;
    t->rows += n.rows;
    out->tokens = t->tokens;
    return OK;
}

/* --- update ------------------------------------------------------------------------------------------------------ */

static bool must_skip(trainer *t, const step_metrics *m) {
    const double limit = t->cfg->optimizer.skip_spike;
    if (!isfinite(m->loss) || !isfinite(m->grad_norm)) return true;
    if (limit > 0 && t->updates >= 10 && m->grad_norm > limit * t->norm_mean) return true;
    t->norm_mean = t->updates ? 0.9 * t->norm_mean + 0.1 * m->grad_norm : m->grad_norm;
    return false;
}

static status gather_weights(trainer *t, error *e) {
    for (int i = 0; i < 2 && t->cfg->training.zero; i++) {
        comm *group = i ? &t->net.edp : t->net.dp;
        if (group->size == 1) continue;
        TRY(group->kind->all_gather(group, t->p.w + start_of(&t->p, i ? t->p.shared : 0), t->cut[i], e));
    }
    return OK;
}

status trainer_update(trainer *t, step_metrics *m, error *e) {
    const double clip = t->cfg->optimizer.clip;
    m->skipped = must_skip(t, m);
    if (!m->skipped) {
        const double scale = clip > 0 && m->grad_norm + 1e-6 > clip ? clip / (m->grad_norm + 1e-6) : 1;
        params *p = trainer_params(t);
        t->updates++;
        for (int i = 0; i < 2; i++)
            if (t->optimizer[i]) TRY(optimizer_step(t->optimizer[i], t->q, p, t->updates, m->lr, scale, e));
        if (!t->lora) TRY(gather_weights(t, e));
        balance_step(&t->p, &t->model, t->sums.layer, bias_speed(t), t->cfg->objective.bias_zero_mean);
    }
    return OK;
}

status trainer_step(trainer *t, const batch_source *s, step_metrics *out, error *e) {
    TRY(trainer_gradients(t, s, out, e));
    TRY(trainer_update(t, out, e));
    t->step++;
    return OK;
}

void trainer_settle(trainer *t) {
    if (t->lora) lora_apply(t->lora, t->q, &t->p);
}

static status mean_loss(trainer *t, executor *x, const batch_source *s, double *loss, error *e) {
    step_counts n;
    TRY(count_step(t, s, &n, e));
    step_goal goal = goal_of(t, s, &n);
    memset(goal.mtp, 0, sizeof goal.mtp);
    zero_sums(&t->sums, &t->model);
    for (int64_t i = 0; i < s->count; i++) {
        token_batch b;
        TRY(s->get(s->arg, i, &b, e));
        TRY(execute(x, &b, &goal, false, &t->sums, e));
    }
    TRY(reduce_sums(t, e));
    *loss = s->judge ? t->sums.language_model : n.targets > 0 ? t->sums.language_model / n.targets : NAN;
    return OK;
}

static status loss_by(trainer *t, executor *x, const batch_source *s, double *loss, error *e) {
    const step_sums of_step = t->sums; /* its metrics may not be written yet */
    status a = open_sums(&t->sums, &t->model, e);
    if (a == OK) {
        a = mean_loss(t, x, s, loss, e);
        free_sums(&t->sums);
    }
    t->sums = of_step;
    return a;
}

status trainer_loss(trainer *t, const batch_source *s, double *loss, error *e) {
    trainer_settle(t);
    return loss_by(t, t->x, s, loss, e);
}

status trainer_loss_of(trainer *t, const real *w, const batch_source *s, double *loss, error *e) {
    params other = t->p;
    model *m = NULL;
    executor *x = NULL;
    if (!w) {
        if (t->lora) lora_remove(t->lora, &t->p);
        return loss_by(t, t->x, s, loss, e);
    }
    other.w = (real *)(uintptr_t)w;
    status a = params_model(&m, &t->model, &other, false, e);
    if (a == OK) a = executor_open(&x, m, t->g, t->q, t->net.ep.size > 1 ? &t->net.ep : NULL, t->cfg, e);
    if (a == OK) a = loss_by(t, x, s, loss, e);
    executor_close(x);
    model_close(m);
    return a;
}
