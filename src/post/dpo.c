#include "post/dpo.h"

#include <math.h>
#include <stdlib.h>
#include "base/arena.h"
#include "base/clock.h"
#include "data/pairs.h"
#include "post/grpo.h"
#include "post/policy.h"
#include "train/job.h"

typedef struct tally { /* sums over pairs */
    double pairs, loss, margin, preferred, chosen, rejected;
} tally;

typedef struct dpo {
    job j;
    pairs *train, *validation;
    policy *policy;     /* for its batches */
    arena *mem;         /* of a step */
    policy_item *items; /* 2 i: chosen, 2 i + 1: rejected */
    double in_step;     /* pairs of the step: what the loss is averaged over */
    tally sums;
} dpo;

/* --- the loss ---------------------------------------------------------------------------------------------------- */

static double sum_of(const real *logp, const float *ref, const policy_item *x) {
    double sum = 0;
    for (int64_t i = 0; i < x->n; i++) sum += (double)x->mask[i] * (double)(logp ? logp[i] : ref[i]);
    return sum;
}

static int64_t counted(const policy_item *x) {
    int64_t n = 0;
    for (int64_t i = 0; i < x->n; i++) n += x->mask[i] != 0;
    return n;
}

static void judge_pair(dpo *o, const policy_item *x, const real *chosen, const real *rejected, real *d_chosen,
                       real *d_rejected) {
    const train_config *c = o->j.c;
    const dpo_pair p = {.chosen = sum_of(chosen, NULL, &x[0]),
                        .rejected = sum_of(rejected, NULL, &x[1]),
                        .ref_chosen = sum_of(NULL, x[0].ref, &x[0]),
                        .ref_rejected = sum_of(NULL, x[1].ref, &x[1]),
                        .chosen_tokens = counted(&x[0]),
                        .rejected_tokens = counted(&x[1])};
    double dc, dr, margin;
    const double loss = dpo_loss(c->dpo.beta, c->dpo.sft_weight, c->dpo.average, &p, &dc, &dr, &margin);
    for (int64_t i = 0; d_chosen && i < x[0].n; i++) d_chosen[i] = (real)(dc * (double)x[0].mask[i] / o->in_step);
    for (int64_t i = 0; d_rejected && i < x[1].n; i++) d_rejected[i] = (real)(dr * (double)x[1].mask[i] / o->in_step);
    o->sums.pairs++;
    o->sums.loss += loss;
    o->sums.margin += margin;
    o->sums.preferred += margin > 0;
    const double chosen_over = c->dpo.average ? (double)p.chosen_tokens : 1,
                 rejected_over = c->dpo.average ? (double)p.rejected_tokens : 1;
    o->sums.chosen += c->dpo.beta * (p.chosen - p.ref_chosen) / chosen_over;
    o->sums.rejected += c->dpo.beta * (p.rejected - p.ref_rejected) / rejected_over;
}

static status judge(void *arg, int64_t first, int64_t end, const int64_t *at, const real *logp, const real *entropy,
                    real *d, double *loss, error *e) {
    dpo *o = arg;
    const double before = o->sums.loss;
    (void)entropy, (void)e;
    for (int64_t i = first; i < end; i += 2) {
        const int64_t a = at[i - first], b = at[i - first + 1];
        judge_pair(o, o->items + i, logp + a, logp + b, d ? d + a : NULL, d ? d + b : NULL);
    }
    *loss += (o->sums.loss - before) / o->in_step;
    return OK;
}

/* --- steps ------------------------------------------------------------------------------------------------------- */

/* n pairs from `first` on, with the reference's log-probabilities. */
static status take_pairs(dpo *o, const pairs *from, int64_t first, int64_t n, batch_source *out) {
    error *e = o->j.e;
    arena_reset(o->mem);
    o->items = arena_zero(o->mem, (size_t)(2 * n), sizeof *o->items);
    if (!o->items) return fail(e, ERR_NOMEM, "memory is out");
    for (int64_t i = 0; i < 2 * n; i++) {
        const pair_side *s = &pairs_get(from, first + i / 2)->side[i % 2];
        float *ref = arena_take(o->mem, (size_t)(s->n - s->n_prompt) * sizeof *ref);
        if (!ref) return fail(e, ERR_NOMEM, "memory is out");
        o->items[i] = (policy_item){.prompt = s->ids,
                                    .n_prompt = s->n_prompt,
                                    .ids = s->ids + s->n_prompt,
                                    .n = s->n - s->n_prompt,
                                    .ref = ref,
                                    .mask = s->counts};
    }
    TRY(policy_reference(o->policy, &o->j.t, o->j.reference, o->items, 2 * n, e));
    o->in_step = (double)n;
    o->sums = (tally){0};
    return policy_batches(o->policy, o->items, 2 * n, 2, &(completion_judge){judge, o}, out, e);
}

static void tell(const tally *t, named_number *more) {
    more[0] = (named_number){"preferred", t->preferred / t->pairs};
    more[1] = (named_number){"margin", t->margin / t->pairs};
    more[2] = (named_number){"chosen_reward", t->chosen / t->pairs};
    more[3] = (named_number){"rejected_reward", t->rejected / t->pairs};
}

static status validate(dpo *o, step_metrics *m, named_number *more) {
    const int64_t all = pairs_count(o->validation), most = o->j.c->data.validation_rows,
                  n = most && most < all ? most : all;
    batch_source s;
    double loss;
    TRY(take_pairs(o, o->validation, 0, n, &s));
    TRY(trainer_loss(&o->j.t, &s, &loss, o->j.e));
    m->validation_loss = loss;
    *more = (named_number){"validation_preferred", o->sums.preferred / o->sums.pairs};
    return OK;
}

static status one_step(dpo *o) {
    const train_config *c = o->j.c;
    trainer *t = &o->j.t;
    const double start = clock_seconds(), before = t->tokens;
    const int64_t every = c->training.validate_every;
    named_number more[5];
    step_metrics m;
    batch_source s;
    TRY(take_pairs(o, o->train, t->step * c->training.batch, c->training.batch, &s));
    TRY(trainer_step(t, &s, &m, o->j.e));
    tell(&o->sums, more);
    m.more = more;
    m.n_more = 4;
    const double seconds = clock_seconds() - start;
    if (o->validation && (t->step == c->training.steps || (every && t->step % every == 0)))
        TRY(validate(o, &m, &more[m.n_more++]));
    return job_step_done(&o->j, &m, seconds, t->tokens - before);
}

static status open_pairs(dpo *o, const string_list *paths, bool training, pairs **out) {
    data_options d = o->j.c->data.options;
    d.paths = paths->item;
    d.n_paths = paths->n;
    d.shuffle = d.shuffle && training;
    d.format = "auto";
    d.tokenizer = o->j.tok;
    d.model_type = o->j.t.model.arch->model_type;
    if (d.eos == EOS_AUTO) d.eos = o->j.tok ? tokenizer_eos(o->j.tok) : -1;
    d.note = job_on_note;
    d.progress = job_on_progress;
    d.arg = &o->j;
    return pairs_open(out, &d, o->j.e);
}

static status open_all(dpo *o, const train_config *c, const run_hooks *hooks, run_result *out, comm *world, error *e) {
    const int64_t micro = c->training.micro_batch < c->training.batch ? 2 * c->training.micro_batch : 0;
    TRY(job_open(&o->j, c, hooks, out, world, true, e));
    TRY(open_pairs(o, &c->data.train, true, &o->train));
    if (c->data.validation.n) TRY(open_pairs(o, &c->data.validation, false, &o->validation));
    if (!(o->mem = arena_open(1 << 16))) return fail(e, ERR_NOMEM, "memory is out");
    TRY(policy_open(&o->policy, &(policy_loss_options){0}, 1, micro, e));
    policy_fit(o->policy, &o->j.t);
    return job_begin(&o->j);
}

status dpo_run(const train_config *given, const run_hooks *hooks, run_result *out, error *e) {
    train_config c = *given;
    dpo o = {0};
    comm world;
    *out = (run_result){.loss = NAN, .validation_loss = NAN};
    TRY(grpo_settle(&c, e));
    TRY(comm_self(&world, e));
    status s = open_all(&o, &c, hooks, out, &world, e);
    while (s == OK && !o.j.stop && o.j.t.step < c.training.steps) s = one_step(&o);
    if (s == OK) s = job_finish(&o.j);
    policy_close(o.policy);
    pairs_close(o.train);
    pairs_close(o.validation);
    arena_close(o.mem);
    job_close(&o.j);
    return s;
}
