#include "post/bench_grpo.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/arena.h"
#include "base/clock.h"
#include "base/rng.h"
#include "data/tiny_r1.h"
#include "eval/bench.h"
#include "post/grpo.h"
#include "post/policy.h"

enum { WARM_STEPS = 1, RANDOM_TOKENS = 64 };

typedef struct bench {
    const bench_grpo_options *o;
    train_config cfg;
    trainer t;
    tokenizer *tok;
    engine *g;
    roller roller;
    policy *policy;
    prompt *prompts; /* of one step after the other */
    arena *mem;
    double *rollout, *update; /* [steps] seconds */
    double drawn, trained;    /* tokens */
} bench;

static status no_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

static status sum_prompt(bench *b, uint64_t number, prompt *out, error *e) {
    static const tiny_r1_options calc = {.tasks = 1u << TINY_R1_CALC, .share = {1}};
    tiny_r1_document d;
    char text[64];
    int32_t *ids;
    size_t n;
    tiny_r1_make(&d, &calc, number);
    snprintf(text, sizeof text, "<user>%s<assistant>", d.prompt);
    TRY(tokenizer_encode(b->tok, text, strlen(text), TOK_PARSE_SPECIAL, &ids, &n, e));
    *out = (prompt){.text = "", .begun = "", .ids = ids, .n = (int64_t)n};
    return OK;
}

static status random_prompt(bench *b, uint64_t number, prompt *out, error *e) {
    int32_t *ids = malloc(RANDOM_TOKENS * sizeof *ids);
    if (!ids) return no_memory(e);
    for (int i = 0; i < RANDOM_TOKENS; i++)
        ids[i] = (int32_t)(rng_uniform(0, number, (uint64_t)i) * (double)b->t.model.vocab_size);
    *out = (prompt){.text = "", .begun = "", .ids = ids, .n = RANDOM_TOKENS};
    return OK;
}

static status make_prompts(bench *b, error *e) {
    const int64_t n = b->o->prompts * (b->o->steps + WARM_STEPS);
    const bool sums = tokenizer_id(b->tok, "<user>") >= 0 && tokenizer_id(b->tok, "<assistant>") >= 0;
    if (!(b->prompts = calloc((size_t)n, sizeof *b->prompts))) return no_memory(e);
    for (int64_t i = 0; i < n; i++) TRY((sums ? sum_prompt : random_prompt)(b, (uint64_t)i, &b->prompts[i], e));
    return OK;
}

/* The update of a whole rollout; half of each group is better than the other half. */
static status learn(bench *b, const rollout *r, error *e) {
    policy_item *items = arena_take(b->mem, (size_t)r->n * sizeof *items);
    policy_numbers numbers;
    batch_source s;
    step_metrics m;
    if (!items) return no_memory(e);
    for (int64_t i = 0; i < r->n; i++) {
        const completion *x = &r->list[i];
        items[i] = (policy_item){.prompt = x->prompt->ids,
                                 .n_prompt = x->prompt->n,
                                 .ids = x->ids,
                                 .n = x->n,
                                 .advantage = i % 2 ? 1 : -1,
                                 .old = x->logp};
        b->trained += (double)(x->prompt->n + x->n - 1);
    }
    TRY(policy_source(b->policy, items, r->n, (double)r->tokens, (double)r->n, &numbers, &s, e));
    TRY(trainer_gradients(&b->t, &s, &m, e));
    m.lr = 0; /* the model stays as it is, and so do the lengths of its answers */
    return trainer_update(&b->t, &m, e);
}

static status step(bench *b, int64_t i, error *e) {
    const int64_t n = b->o->prompts;
    const prompt **list;
    rollout r;
    arena_reset(b->mem);
    if (!(list = arena_take(b->mem, (size_t)n * sizeof *list))) return no_memory(e);
    for (int64_t k = 0; k < n; k++) list[k] = &b->prompts[(i + WARM_STEPS) * n + k];
    if (i == 0) b->drawn = b->trained = 0;
    const double start = clock_seconds();
    TRY(rollout_make(&b->roller, list, n, (int)b->o->generations, 1, i * n, &r, e));
    const double middle = clock_seconds();
    b->drawn += (double)r.tokens;
    status s = learn(b, &r, e);
    rollout_free(&r);
    if (i >= 0) {
        b->rollout[i] = middle - start;
        b->update[i] = clock_seconds() - middle;
    }
    if (s == OK && b->o->progress &&
        b->o->progress(b->o->arg, (uint64_t)(i + WARM_STEPS + 1), (uint64_t)(b->o->steps + WARM_STEPS), "steps"))
        return fail(e, ERR_CANCELLED, "cancelled");
    return s;
}

static status report(bench *b, json_t **out, error *e) {
    const bench_grpo_options *o = b->o;
    const size_t n = (size_t)o->steps;
    bench_sort(b->rollout, o->steps);
    bench_sort(b->update, o->steps);
    const double draw = b->rollout[n / 2], learn_ = b->update[n / 2], steps = (double)o->steps,
                 all = (double)(o->prompts * o->generations);
    *out =
        json_pack("{s:s, s:i, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "precision",
                  precision_names[o->precision], "threads", queue_threads(b->t.q), "prompts", (json_int_t)o->prompts,
                  "generations", (json_int_t)o->generations, "steps", (json_int_t)o->steps, "mean_tokens",
                  b->drawn / steps / all, "seconds_per_step", draw + learn_, "completions_per_s", all / (draw + learn_),
                  "rollout_tokens_per_s", b->drawn / steps / draw, "update_tokens_per_s", b->trained / steps / learn_,
                  "rollout_share", draw / (draw + learn_), "update_share", learn_ / (draw + learn_));
    return *out ? OK : no_memory(e);
}

static status open_all(bench *b, comm *world, error *e) {
    const bench_grpo_options *o = b->o;
    model *from;
    train_config *c = &b->cfg;
    train_config_default(c);
    c->training.precision = o->precision;
    c->training.threads = o->threads;
    c->training.kernels = o->kernels;
    c->data.options.seq_len = o->max_tokens + RANDOM_TOKENS;
    c->rollout.max_tokens = o->max_tokens;
    c->rollout.sequences = o->prompts * o->generations;
    TRY(grpo_settle(c, e));
    TRY(model_open(&from, o->path, e));
    model_config m = from->cfg;
    m.num_nextn_predict_layers = from->n_mtp;
    status s = trainer_open(&b->t, c, &m, world, e);
    if (s == OK) s = params_load(&b->t.p, from, e);
    model_close(from);
    TRY(s);
    TRY(trainer_ready(&b->t, e));
    TRY(tokenizer_open(&b->tok, o->path, e));
    TRY(engine_borrow(&b->g, b->t.m, b->t.q, MLA_CHEAPER, e));
    TRY(roller_open(&b->roller, c, b->g, b->tok, false, NULL, NULL, e));
    TRY(policy_open(&b->policy, &(policy_loss_options){.kind = POLICY_DAPO, .clip_low = 0.2, .clip_high = 0.28}, 1, 0,
                    e));
    policy_fit(b->policy, &b->t);
    b->mem = arena_open(1 << 14);
    b->rollout = calloc((size_t)o->steps, sizeof *b->rollout);
    b->update = calloc((size_t)o->steps, sizeof *b->update);
    if (!b->mem || !b->rollout || !b->update) return no_memory(e);
    return make_prompts(b, e);
}

static void close_all(bench *b) {
    for (int64_t i = 0; b->prompts && i < b->o->prompts * (b->o->steps + WARM_STEPS); i++)
        free((int32_t *)(uintptr_t)b->prompts[i].ids);
    free(b->prompts);
    free(b->rollout);
    free(b->update);
    policy_close(b->policy);
    roller_close(&b->roller);
    engine_close(b->g);
    tokenizer_close(b->tok);
    trainer_close(&b->t);
    arena_close(b->mem);
}

status bench_grpo(const bench_grpo_options *o, json_t **out, error *e) {
    bench b = {.o = o};
    comm world;
    *out = NULL;
    TRY(comm_self(&world, e));
    status s = open_all(&b, &world, e);
    for (int64_t i = -WARM_STEPS; s == OK && i < o->steps; i++) s = step(&b, i, e);
    if (s == OK) s = report(&b, out, e);
    close_all(&b);
    return s;
}
