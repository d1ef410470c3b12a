#include "post/grpo.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/arena.h"
#include "base/clock.h"
#include "post/policy.h"
#include "post/traces.h"
#include "train/job.h"

enum { MOST_REWARDS = 12, VALIDATION_PROMPTS = 256 };

typedef struct grpo {
    job j;
    engine *g;
    roller roller;
    policy *policy;
    prompts *train, *validation;
    arena *mem;   /* of a step */
    int64_t used; /* prompts drawn so far */
    named_number more[MOST_MORE];
    int n_more;
    char names[3 * MOST_REWARDS][48]; /* of rewards in metrics */
} grpo;

/* --- opening ----------------------------------------------------------------------------------------------------- */

status grpo_settle(train_config *c, error *e) {
    if (isnan(c->objective.balance_alpha)) c->objective.balance_alpha = 0;
    if (isnan(c->objective.bias_update_speed)) c->objective.bias_update_speed = 0;
    c->objective.mtp_weight = 0;
    c->objective.n_mtp_schedule = 0;
    if (c->training.ranks > 1) return fail(e, ERR_UNSUPPORTED, "training.ranks: post-training runs on one rank");
    if (!(c->rollout.temperature > 0))
        return fail(e, ERR_ARG, "rollout.temperature is 0: greedy completions of a prompt are all the same");
    if (c->grpo.reference_every && trains_adapters(c))
        return fail(e, ERR_ARG, "grpo.reference_every: with adapters the reference is the model without them");
    if (c->grpo.train_router) return OK;
    if (c->objective.trainable_parameters_mask.n)
        return fail(e, ERR_ARG,
                    "grpo.train_router is false, but objective.trainable_parameters_mask says what is trained: "
                    "leave routers out there");
    c->objective.trainable_parameters_mask = (string_list){.item = {"^(?!.*\\.mlp\\.gate\\.)"}, .n = 1};
    return OK;
}

static policy_loss_options loss_options(const train_config *c) {
    return (policy_loss_options){.kind = c->grpo.loss,
                                 .clip_low = c->grpo.clip_low,
                                 .clip_high = c->grpo.clip_high,
                                 .dual_clip = c->grpo.dual_clip,
                                 .kl_beta = c->grpo.kl_beta,
                                 .kl = c->grpo.kl,
                                 .kl_on_policy = c->grpo.kl_on_policy,
                                 .max_completion =
                                     c->rollout.max_tokens ? c->rollout.max_tokens : c->data.options.seq_len};
}

static status open_prompts(grpo *g, const string_list *paths, bool training, prompts **out) {
    job *j = &g->j;
    return rollout_prompts(out, j->c, paths, training, j->tok, j->t.model.arch->model_type, job_on_note,
                           job_on_progress, j, j->e);
}

/* Rewards are metrics by their names, beside the others. */
static status check_names(const grpo *g) {
    static const char taken[] =
        " step steps tokens loss lm_loss mtp_loss balance_loss indexer_loss mtp_acceptance validation_loss grad_norm "
        "lr seconds tokens_per_second mfu memory max_vio dropped skipped layers reward reward_std completion_tokens "
        "not_judged rollout_seconds rollout_tokens_per_second draft_acceptance groups_without_signal kl entropy "
        "clipped_low clipped_high ratio_max logprob_error_max logprob_error_mean token_mult_prob_error update_seconds ";
    for (int i = 0; i < reward_count(g->roller.rewards); i++) {
        char word[48];
        snprintf(word, sizeof word, " %s ", reward_name(g->roller.rewards, i));
        if (strstr(taken, word))
            return fail(g->j.e, ERR_ARG, "rollout.rewards:%sis the name of another metric: choose another `as`", word);
    }
    return OK;
}

static status open_all(grpo *g, const train_config *c, const run_hooks *hooks, run_result *out, comm *world, error *e) {
    job *j = &g->j;
    const policy_loss_options loss = loss_options(c);
    TRY(job_open(j, c, hooks, out, world, c->grpo.kl_beta > 0, e));
    if (!j->tok)
        return fail(e, ERR_ARG, "%s has no tokenizer.json: rewards judge texts (data.tokenizer)", c->model.path);
    g->used = json_integer_value(json_object_get(j->state, "prompts"));
    const json_t *score = json_object_get(j->state, "score");
    if (score) j->score = json_number_value(score);
    if (!(g->mem = arena_open(1 << 16))) return fail(e, ERR_NOMEM, "memory is out");
    TRY(engine_borrow(&g->g, j->t.m, j->t.q, MLA_CHEAPER, e));
    TRY(roller_open(&g->roller, c, g->g, j->tok, true, job_on_note, j, e));
    if (reward_count(g->roller.rewards) > MOST_REWARDS)
        return fail(e, ERR_ARG, "rollout.rewards has more than %d functions", MOST_REWARDS);
    TRY(check_names(g));
    g->roller.progress = job_on_progress;
    g->roller.arg = j;
    TRY(open_prompts(g, &c->data.train, true, &g->train));
    if (c->data.validation.n) TRY(open_prompts(g, &c->data.validation, false, &g->validation));
    TRY(policy_open(&g->policy, &loss, c->rollout.temperature, c->grpo.micro_batch, e));
    policy_fit(g->policy, &j->t);
    return job_begin(j);
}

static void close_all(grpo *g) {
    policy_close(g->policy);
    prompts_close(g->train);
    prompts_close(g->validation);
    roller_close(&g->roller);
    engine_close(g->g);
    arena_close(g->mem);
    job_close(&g->j);
}

/* --- metrics ----------------------------------------------------------------------------------------------------- */

/* The first of a name counts: a reward "finished" is the metric. */
static void tell(grpo *g, const char *name, double value) {
    for (int i = 0; i < g->n_more; i++)
        if (strcmp(g->more[i].name, name) == 0) return;
    if (g->n_more < MOST_MORE) g->more[g->n_more++] = (named_number){name, value};
}

/* The weighted sum and every reward alone; `where`: 0 training, 1 validation, 2 validation before the first step. */
static void tell_rewards(grpo *g, const rollout *r, int where) {
    static const char *const prefix[] = {"", "validation_", "before_"};
    const int n = reward_count(g->roller.rewards);
    static const char *const all[] = {"reward", "validation_reward", "before_reward"};
    static const char *const length[] = {"completion_tokens", "validation_tokens", "before_tokens"};
    tell(g, all[where], rollout_mean(r, -1));
    for (int i = 0; i < n; i++) {
        char *name = g->names[where * MOST_REWARDS + i];
        snprintf(name, sizeof *g->names, "%s%s", prefix[where], reward_name(g->roller.rewards, i));
        tell(g, name, rollout_mean(r, i));
    }
    tell(g, length[where], (double)r->tokens / (double)r->n);
}

static void tell_rollout(grpo *g, const rollout *r) {
    double finished = 0, sum = 0, squares = 0, told = 0;
    for (int64_t i = 0; i < r->n; i++) {
        finished += r->list[i].finished;
        if (isnan(r->list[i].reward)) continue;
        told++;
        sum += r->list[i].reward;
        squares += r->list[i].reward * r->list[i].reward;
    }
    tell_rewards(g, r, 0);
    tell(g, "reward_std", told > 1 ? sqrt(fmax(0, (squares - sum * sum / told) / (told - 1))) : NAN);
    tell(g, "finished", finished / (double)r->n);
    if (told < (double)r->n) tell(g, "not_judged", 1 - told / (double)r->n);
    tell(g, "rollout_seconds", r->seconds);
    tell(g, "rollout_tokens_per_second", (double)r->tokens / r->seconds);
    if (r->draft_proposed) tell(g, "draft_acceptance", (double)r->draft_accepted / (double)r->draft_proposed);
}

static void tell_policy(grpo *g, const policy_numbers *first, const policy_numbers *all) {
    const policy_stats *s = &all->stats;
    const double n = s->tokens > 0 ? s->tokens : NAN;
    if (g->j.c->grpo.kl_beta > 0) tell(g, "kl", s->kl / n);
    tell(g, "entropy", all->entropy / all->drawn_tokens);
    tell(g, "clipped_low", s->clipped_low / n);
    tell(g, "clipped_high", s->clipped_high / n);
    tell(g, "ratio_max", s->ratio_max);
    tell(g, "logprob_error_max", first->drift_max); /* drawn by the sampler, against the trainer's forward pass */
    tell(g, "logprob_error_mean", first->drift_sum / first->drawn_tokens);
    tell(g, "token_mult_prob_error", first->error_sum / first->drawn_tokens);
}

/* --- groups ------------------------------------------------------------------------------------------------------ */

static bool has_signal(const completion *group, int64_t n) {
    double low = INFINITY, high = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        if (isnan(group[i].reward)) continue;
        low = fmin(low, group[i].reward);
        high = fmax(high, group[i].reward);
    }
    return high > low;
}

static status draw(grpo *g, int64_t n, rollout *out) {
    const prompt **list = arena_take(g->mem, (size_t)n * sizeof *list);
    if (!list) return fail(g->j.e, ERR_NOMEM, "memory is out");
    for (int64_t i = 0; i < n; i++) list[i] = prompts_get(g->train, g->used + i);
    TRY(rollout_make(&g->roller, list, n, (int)g->j.c->grpo.generations, g->j.c->rollout.temperature, g->used, out,
                     g->j.e));
    g->used += n;
    return OK;
}

/* DAPO's dynamic sampling (Yu et al. 2025, 3.2): groups without signal make room for others. */
static status draw_with_signal(grpo *g, rollout *out) {
    const train_config *c = g->j.c;
    const int64_t G = c->grpo.generations;
    int64_t groups = 0;
    status s = OK;
    *out = (rollout){0};
    for (int round = 0; s == OK && groups < c->grpo.prompts && round < c->grpo.most_rollouts; round++) {
        rollout some;
        if ((s = draw(g, c->grpo.prompts - groups, &some)) != OK) break;
        for (int64_t i = 0; s == OK && i < some.n; i += G) {
            if (!has_signal(some.list + i, G)) continue;
            s = rollout_move(out, &some, i, G, reward_count(g->roller.rewards), g->j.e);
            groups += s == OK;
        }
        out->seconds += some.seconds;
        rollout_free(&some);
    }
    if (s == OK && !groups)
        s = fail(g->j.e, ERR_FORMAT,
                 "in %d rollouts of %" PRId64 " prompts all completions of every prompt got the same reward: there is "
                 "nothing to learn from. Easier or harder prompts, more grpo.generations, or other rollout.rewards",
                 c->grpo.most_rollouts, c->grpo.prompts);
    if (s != OK) rollout_free(out);
    return s;
}

static int64_t groups_without_signal(const rollout *r, int64_t group) {
    int64_t n = 0;
    for (int64_t i = 0; i < r->n; i += group) n += !has_signal(r->list + i, group);
    return n;
}

static double scaled(const double s[4], double x) {
    return s[1] > s[0] ? s[2] + (x - s[0]) / (s[1] - s[0]) * (s[3] - s[2]) : x;
}

/* --- learning ---------------------------------------------------------------------------------------------------- */

typedef struct lesson { /* what a rollout is learned from */
    policy_item *list;  /* [n] */
    bool *counts;       /* [n]: it is judged, and not cut by the limit when those are left out */
    int64_t n;
} lesson;

static status prepare(grpo *g, const rollout *r, lesson *l) {
    const train_config *c = g->j.c;
    const size_t n = (size_t)r->n;
    double *reward = arena_take(g->mem, n * sizeof *reward), *advantage = arena_take(g->mem, n * sizeof *advantage);
    *l = (lesson){.n = r->n, .list = arena_zero(g->mem, n, sizeof *l->list), .counts = arena_zero(g->mem, n, 1)};
    if (!reward || !advantage || !l->list || !l->counts) return fail(g->j.e, ERR_NOMEM, "memory is out");
    for (int64_t i = 0; i < r->n; i++) {
        l->counts[i] = !isnan(r->list[i].reward) && !(c->grpo.mask_unfinished && !r->list[i].finished);
        reward[i] = scaled(c->grpo.scale, r->list[i].reward);
    }
    advantages(c->grpo.advantage, reward, r->n, c->grpo.generations, advantage);
    for (int64_t i = 0; i < r->n; i++) {
        const completion *x = &r->list[i];
        l->list[i] = (policy_item){.prompt = x->prompt->ids,
                                   .n_prompt = x->prompt->n,
                                   .ids = x->ids,
                                   .n = x->n,
                                   .advantage = advantage[i],
                                   .old = x->logp};
        if (!(c->grpo.kl_beta > 0)) continue;
        l->list[i].ref = arena_take(g->mem, (size_t)x->n * sizeof(float));
        if (!l->list[i].ref) return fail(g->j.e, ERR_NOMEM, "memory is out");
    }
    if (!(c->grpo.kl_beta > 0)) return OK;
    return policy_reference(g->policy, &g->j.t, g->j.reference, l->list, l->n, g->j.e);
}

/* The completions first .. end-1 that have a gradient. Those with advantage 0 have none without a KL penalty, but count
 * in what losses are averaged over. */
static int64_t choose(const grpo *g, const lesson *l, int64_t first, int64_t end, policy_item *to, double *tokens,
                      double *sequences) {
    int64_t n = 0;
    *tokens = *sequences = 0;
    for (int64_t i = first; i < end; i++) {
        if (!l->counts[i]) continue;
        *tokens += (double)l->list[i].n;
        ++*sequences;
        if (l->list[i].advantage != 0 || g->j.c->grpo.kl_beta > 0) to[n++] = l->list[i];
    }
    return n;
}

static void add_numbers(policy_numbers *to, const policy_numbers *x) {
    const policy_stats *s = &x->stats;
    to->stats.tokens += s->tokens;
    to->stats.kl += s->kl;
    to->stats.clipped_low += s->clipped_low;
    to->stats.clipped_high += s->clipped_high;
    to->stats.ratio_max = fmax(to->stats.ratio_max, s->ratio_max);
    to->entropy += x->entropy;
    to->drawn_tokens += x->drawn_tokens;
}

typedef struct progress_of_step { /* over its optimizer steps */
    policy_numbers first, all;
    double loss, norm;
    int64_t steps, skipped;
} progress_of_step;

static status optimizer_step_on(grpo *g, const lesson *l, int64_t from, int64_t end, policy_item *items,
                                progress_of_step *p, step_metrics *m) {
    trainer *t = &g->j.t;
    double tokens, sequences;
    const int64_t n = choose(g, l, from, end, items, &tokens, &sequences);
    policy_numbers now;
    batch_source s;
    if (!n) return OK;
    TRY(policy_source(g->policy, items, n, tokens, sequences, &now, &s, g->j.e));
    TRY(trainer_gradients(t, &s, m, g->j.e));
    TRY(trainer_update(t, m, g->j.e));
    if (!p->steps++) p->first = now;
    add_numbers(&p->all, &now);
    p->loss += m->loss;
    p->norm += m->grad_norm;
    p->skipped += m->skipped;
    return OK;
}

static status learn(grpo *g, const lesson *l, step_metrics *m) {
    const train_config *c = g->j.c;
    policy_item *items = arena_take(g->mem, (size_t)l->n * sizeof *items);
    const int64_t size = c->grpo.batch && c->grpo.batch < l->n ? c->grpo.batch : l->n;
    progress_of_step p = {0};
    if (!items) return fail(g->j.e, ERR_NOMEM, "memory is out");
    for (int epoch = 0; epoch < c->grpo.epochs; epoch++)
        for (int64_t from = 0; from < l->n; from += size)
            TRY(optimizer_step_on(g, l, from, from + size < l->n ? from + size : l->n, items, &p, m));
    if (!p.steps) {
        *m = metrics_unknown();
        m->loss = m->lr = 0;
        m->tokens = g->j.t.tokens;
        job_note(&g->j, "no completion of this step has anything to teach: the weights stay as they are");
        return OK;
    }
    m->loss = p.loss / (double)p.steps;
    m->grad_norm = p.norm / (double)p.steps;
    m->skipped = p.skipped == p.steps;
    tell_policy(g, &p.first, &p.all);
    return OK;
}

/* --- steps ------------------------------------------------------------------------------------------------------- */

static status validate(grpo *g, int where) {
    const train_config *c = g->j.c;
    const int64_t all = prompts_count(g->validation),
                  most = c->data.validation_rows ? c->data.validation_rows : VALIDATION_PROMPTS,
                  n = all < most ? all : most;
    const int samples = c->grpo.validation_samples ? (int)c->grpo.validation_samples : 1;
    const prompt **list = arena_take(g->mem, (size_t)n * sizeof *list);
    rollout r;
    if (!list) return fail(g->j.e, ERR_NOMEM, "memory is out");
    for (int64_t i = 0; i < n; i++) list[i] = prompts_get(g->validation, i);
    trainer_settle(&g->j.t);
    TRY(rollout_make(&g->roller, list, n, samples, c->grpo.validation_samples ? c->rollout.temperature : 0,
                     INT64_MIN / 2, &r, g->j.e)); /* the same random choices every time, and none of training's */
    tell_rewards(g, &r, where);
    g->j.score = -rollout_mean(&r, -1);
    status s = traces_write(c->checkpoint.folder, where == 2 ? 0 : g->j.t.step, &r, g->j.e);
    rollout_free(&r);
    return s;
}

static status keep_state(grpo *g) {
    json_decref(g->j.state);
    g->j.state = json_pack("{s:I}", "prompts", (json_int_t)g->used);
    if (g->j.state && isfinite(g->j.score)) json_object_set_new(g->j.state, "score", json_real(g->j.score));
    return g->j.state ? OK : fail(g->j.e, ERR_NOMEM, "memory is out");
}

static bool due(const grpo *g, int64_t every) {
    return every && g->j.t.step % every == 0;
}

static status one_step(grpo *g) {
    const train_config *c = g->j.c;
    trainer *t = &g->j.t;
    const double start = clock_seconds(), before = t->tokens;
    const int64_t used = g->used;
    rollout r;
    lesson l;
    step_metrics m;
    g->n_more = 0;
    arena_reset(g->mem);
    if (g->validation && !t->step) TRY(validate(g, 2));
    trainer_settle(t);
    TRY(c->grpo.dynamic_sampling ? draw_with_signal(g, &r) : draw(g, c->grpo.prompts, &r));
    tell_rollout(g, &r);
    tell(g, "groups_without_signal",
         c->grpo.dynamic_sampling ? (double)(g->used - used) - (double)r.n / (double)c->grpo.generations
                                  : (double)groups_without_signal(&r, c->grpo.generations));
    const double learning = clock_seconds();
    status s = prepare(g, &r, &l);
    if (s == OK) s = learn(g, &l, &m);
    if (s == OK && !g->validation && (!t->step || due(g, c->training.validate_every)))
        s = traces_write(c->checkpoint.folder, t->step, &r, g->j.e);
    rollout_free(&r);
    TRY(s);
    tell(g, "update_seconds", clock_seconds() - learning);
    m.step = t->step++;
    if (c->grpo.reference_every && g->j.reference && due(g, c->grpo.reference_every))
        memcpy(g->j.reference, t->p.w, (size_t)t->p.total * sizeof *g->j.reference);
    const double seconds = clock_seconds() - start;
    if (g->validation && (t->step == c->training.steps || due(g, c->training.validate_every))) s = validate(g, 1);
    const bool cancelled = s == ERR_CANCELLED; /* the step itself is done, and stays */
    if (cancelled) job_note(&g->j, "the validation was interrupted: this step has none");
    else TRY(s);
    m.more = g->more;
    m.n_more = g->n_more;
    TRY(keep_state(g));
    TRY(job_step_done(&g->j, &m, seconds, t->tokens - before));
    g->j.stop |= cancelled;
    return OK;
}

static status steps(grpo *g) {
    status s = OK;
    while (s == OK && !g->j.stop && g->j.t.step < g->j.c->training.steps) {
        const int64_t used = g->used;
        s = one_step(g);
        if (s != ERR_CANCELLED) continue;
        g->used = used; /* the step is drawn again when the run goes on */
        g->j.stop = true;
        s = OK;
    }
    return s == OK ? job_finish(&g->j) : s;
}

status grpo_run(const train_config *given, const run_hooks *hooks, run_result *out, error *e) {
    train_config c = *given;
    grpo g = {0};
    comm world;
    *out = (run_result){.loss = NAN, .validation_loss = NAN};
    TRY(grpo_settle(&c, e));
    TRY(comm_self(&world, e));
    status s = open_all(&g, &c, hooks, out, &world, e);
    if (s == OK) s = keep_state(&g);
    if (s == OK) s = steps(&g);
    close_all(&g);
    return s;
}
