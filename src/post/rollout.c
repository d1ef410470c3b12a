#include "post/rollout.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/rng.h"

enum { SEED_PROMPTS = 1 }; /* stream of the seeds of prompts */

void rollout_free(rollout *r) {
    for (int64_t i = 0; i < r->n; i++) {
        free(r->list[i].ids);
        free(r->list[i].logp);
        free(r->list[i].text);
    }
    free(r->list);
    free(r->scores);
    *r = (rollout){0};
}

double rollout_mean(const rollout *r, int i) {
    double sum = 0;
    int64_t n = 0;
    for (int64_t k = 0; k < r->n; k++) {
        const double x = i < 0 ? r->list[k].reward : r->list[k].score[i];
        if (isnan(x)) continue;
        sum += x;
        n++;
    }
    return n ? sum / (double)n : NAN;
}

status rollout_move(rollout *to, rollout *from, int64_t first, int64_t n, int rewards, error *e) {
    const size_t all = (size_t)(to->n + n);
    completion *list = realloc(to->list, all * sizeof *list);
    if (list) to->list = list;
    double *scores = realloc(to->scores, (all * (size_t)rewards + 1) * sizeof *scores);
    if (scores) to->scores = scores;
    if (!list || !scores) return fail(e, ERR_NOMEM, "memory is out");
    for (int64_t i = 0; i < n; i++) {
        completion *x = &from->list[first + i];
        memcpy(to->scores + (to->n + i) * rewards, x->score, (size_t)rewards * sizeof *scores);
        to->list[to->n + i] = *x;
        to->tokens += x->n;
        *x = (completion){.prompt = x->prompt, .score = x->score};
    }
    to->n += n;
    for (int64_t i = 0; i < to->n; i++) to->list[i].score = to->scores + i * rewards;
    return OK;
}

/* --- opening ----------------------------------------------------------------------------------------------------- */

static void add_eos(roller *r, int64_t id) {
    for (int i = 0; i < r->n_eos; i++)
        if (r->eos[i] == id) return;
    if (id >= 0 && r->n_eos <= MOST_EOS) r->eos[r->n_eos++] = (int32_t)id;
}

status roller_open(roller *r, const train_config *c, engine *g, const tokenizer *tok, bool required,
                   void (*note)(void *arg, const char *line), void *arg, error *e) {
    *r = (roller){.c = c, .g = g, .tok = tok};
    const model_config *m = &g->m->cfg;
    add_eos(r, tokenizer_eos(tok));
    for (int i = 0; i < m->n_eos; i++) add_eos(r, m->eos_ids[i]);
    if (!r->n_eos) return fail(e, ERR_FORMAT, "neither config.json nor the tokenizer names a token that ends answers");
    json_t *list = NULL;
    const char *text = c->rollout.rewards ? c->rollout.rewards : "[]";
    TRY(json_parse(&list, text, strlen(text), "rollout.rewards", e));
    status s = OK;
    if (json_array_size(list)) s = reward_set_open(&r->rewards, list, note, arg, e);
    else if (required)
        s = fail(e, ERR_ARG, "rollout.rewards is missing: what is a completion worth? (docs/rewards.md)");
    json_decref(list);
    return s;
}

void roller_close(roller *r) {
    reward_set_close(r->rewards);
    *r = (roller){0};
}

status rollout_prompts(prompts **out, const train_config *c, const string_list *paths, bool shuffle,
                       const tokenizer *tok, const char *model_type, void (*note)(void *arg, const char *line),
                       int (*progress)(void *arg, uint64_t done, uint64_t total, const char *what), void *arg,
                       error *e) {
    data_options d = c->data.options;
    d.paths = paths->item;
    d.n_paths = paths->n;
    d.shuffle = d.shuffle && shuffle;
    d.format = "auto";
    d.tokenizer = tok;
    d.model_type = model_type;
    d.note = note;
    d.progress = progress;
    d.arg = arg;
    const int64_t least = c->rollout.max_tokens ? c->rollout.max_tokens : 1;
    if (least >= d.seq_len)
        return fail(e, ERR_ARG, "rollout.max_tokens %lld leaves no room for a prompt in data.seq_len %lld",
                    (long long)least, (long long)d.seq_len);
    return prompts_open(out,
                        &(prompt_options){.data = &d,
                                          .form = c->rollout.prompt,
                                          .system = c->rollout.system,
                                          .thinking = c->rollout.thinking,
                                          .begin = c->rollout.begin,
                                          .most = d.seq_len - least},
                        e);
}

/* --- drawing ----------------------------------------------------------------------------------------------------- */

typedef struct draw {
    roller *r;
    rollout *out;
    int generations;
} draw;

/* An answer has ended: its tokens are taken over, its text is made. */
static status take(void *arg, int64_t request, int sample, answer *a, error *e) {
    const draw *d = arg;
    completion *x = &d->out->list[request * d->generations + sample];
    x->ids = a->ids;
    x->logp = a->logprobs;
    x->n = a->n;
    x->finished = a->finish == FINISH_EOS;
    a->ids = NULL;
    a->logprobs = NULL;
    d->out->tokens += x->n;
    d->out->draft_proposed += a->draft_proposed;
    d->out->draft_accepted += a->draft_accepted;
    str text = {0};
    str_puts(&text, x->prompt->begun);
    tokenizer_decode(d->r->tok, x->ids, (size_t)(x->n - x->finished), false, &text);
    status s = str_check(&text, e);
    if (s == OK) x->text = str_take(&text);
    str_free(&text);
    return s == OK && !x->text ? fail(e, ERR_NOMEM, "memory is out") : s;
}

static bool on_step(void *arg, int64_t answers, int64_t total, int64_t tokens) {
    const draw *d = arg;
    (void)tokens;
    return !d->r->progress || d->r->progress(d->r->arg, (uint64_t)answers, (uint64_t)total, "completions") == 0;
}

static status draw_all(roller *r, answer_request *list, int64_t n, double temperature, rollout *out, error *e) {
    const train_config *c = r->c;
    draw d = {.r = r, .out = out, .generations = list[0].samples};
    const answer_options o = {.sampling = {.temperature = (float)temperature,
                                           .top_k = c->rollout.top_k,
                                           .top_p = (float)c->rollout.top_p,
                                           .min_p = (float)c->rollout.min_p,
                                           .repetition_penalty = 1},
                              .eos = r->eos,
                              .n_eos = r->n_eos,
                              .tokenizer = r->tok,
                              .capacity = c->data.options.seq_len,
                              .sequences = (int)c->rollout.sequences,
                              .drafts = c->rollout.drafts,
                              .done = take,
                              .progress = on_step,
                              .arg = &d};
    const double start = clock_seconds();
    TRY(answers_run(r->g, list, n, &o, e));
    out->seconds = clock_seconds() - start;
    return OK;
}

static status score_all(roller *r, rollout *out, int generations, error *e) {
    const int rewards = reward_count(r->rewards);
    reward_input *in = calloc((size_t)out->n, sizeof *in);
    double *total = calloc((size_t)out->n, sizeof *total);
    out->scores = calloc((size_t)out->n * (size_t)(rewards + 1), sizeof *out->scores);
    status s = in && total && out->scores ? OK : fail(e, ERR_NOMEM, "memory is out");
    for (int64_t i = 0; s == OK && i < out->n; i++) {
        const completion *x = &out->list[i];
        const int64_t room = r->c->data.options.seq_len - x->prompt->n, most = r->c->rollout.max_tokens;
        in[i] = (reward_input){.prompt = x->prompt->text,
                               .completion = x->text,
                               .answer = x->prompt->answer,
                               .row = x->prompt->row,
                               .tokens = x->n,
                               .max_tokens = most && most < room ? most : room,
                               .finished = x->finished};
    }
    if (s == OK && rewards) s = reward_score(r->rewards, in, out->n, generations, out->scores, total, e);
    for (int64_t i = 0; s == OK && i < out->n; i++) {
        out->list[i].reward = total[i];
        out->list[i].score = out->scores + i * rewards;
    }
    free(in);
    free(total);
    return s;
}

status rollout_make(roller *r, const prompt *const *list, int64_t n, int generations, double temperature, int64_t first,
                    rollout *out, error *e) {
    *out = (rollout){.n = n * generations};
    answer_request *requests = calloc((size_t)n, sizeof *requests);
    out->list = calloc((size_t)out->n, sizeof *out->list);
    status s = requests && out->list ? OK : fail(e, ERR_NOMEM, "memory is out");
    if (!out->list) out->n = 0;
    for (int64_t i = 0; s == OK && i < n; i++) {
        uint32_t w[4];
        rng_words(r->c->rollout.seed, SEED_PROMPTS, (uint64_t)(first + i), w);
        requests[i] = (answer_request){.prompt = list[i]->ids,
                                       .n = list[i]->n,
                                       .samples = generations,
                                       .max_tokens = r->c->rollout.max_tokens,
                                       .seed = (uint64_t)w[0] << 32 | w[1]};
        for (int k = 0; k < generations; k++) out->list[i * generations + k].prompt = list[i];
    }
    if (s == OK) s = draw_all(r, requests, n, temperature, out, e);
    if (s == OK) s = score_all(r, out, generations, e);
    free(requests);
    if (s != OK) rollout_free(out);
    return s;
}
