#include "eval/tiny_r1.h"

#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "infer/generate.h"

/* --- judging ---------------------------------------------------------------------------------------------------- */

static tiny_r1_style style_of(const char *p, size_t n) {
    static const char open[] = "<think>", close[] = "</think>";
    if (n < sizeof open - 1 || memcmp(p, open, sizeof open - 1) != 0) return TINY_R1_PLAIN;
    p += sizeof open - 1;
    n -= sizeof open - 1;
    return n >= sizeof close - 1 && memcmp(p, close, sizeof close - 1) == 0 ? TINY_R1_DIRECT : TINY_R1_WORK;
}

static void add(tiny_r1_tally *t, bool right) {
    t->answers++;
    t->right += right;
}

bool tiny_r1_judge(tiny_r1_score *s, const tiny_r1_document *t, const char *completion, size_t n, int64_t tokens) {
    const char *answer;
    const int length = tiny_r1_answer(completion, n, &answer);
    const bool right = length >= 0 && tiny_r1_right(t->prompt, answer, (size_t)length);
    add(&s->all, right);
    add(&s->task[t->task], right);
    add(&s->style[t->task][style_of(completion, n)], right);
    s->formatted += length >= 0;
    s->tokens += tokens;
    return right;
}

/* --- answers ---------------------------------------------------------------------------------------------------- */

enum { BATCH = 32, PROMPT_TOKENS = 64 };

typedef struct runner { /* one evaluation */
    const tokenizer *t;
    const eval_options *o;
    tiny_r1_options documents;
    int32_t eos;
    session *sessions[BATCH];
    int64_t done, total; /* answers */
    bool cancelled;
} runner;

typedef struct turn { /* answers first .. first+n-1; answer a is sample a % samples of prompt a / samples */
    int n;
    tiny_r1_document document[BATCH];
    int32_t *prompt[BATCH];
    int64_t length[BATCH];
    generated answer[BATCH];
} turn;

static void turn_clear(turn *b) {
    for (int i = 0; i < b->n; i++) {
        free(b->prompt[i]);
        generated_clear(&b->answer[i]);
    }
    *b = (turn){0};
}

static status fill(turn *b, const runner *r, int64_t first, int64_t total, int samples, error *e) {
    *b = (turn){0};
    for (; b->n < BATCH && first + b->n < total; b->n++) {
        tiny_r1_document *d = &b->document[b->n];
        char text[64];
        size_t n = 0;
        tiny_r1_make(d, &r->documents, (uint64_t)((first + b->n) / samples));
        snprintf(text, sizeof text, "<user>%s<assistant>", d->prompt);
        TRY(tokenizer_encode(r->t, text, strlen(text), TOK_PARSE_SPECIAL, &b->prompt[b->n], &n, e));
        b->length[b->n] = (int64_t)n;
        session_truncate(r->sessions[b->n], 0); /* an answer depends on nothing that came before it */
    }
    return OK;
}

static bool on_prompt(void *arg, int64_t done, int64_t total) {
    runner *r = arg;
    (void)done, (void)total;
    if (r->o->progress && !r->o->progress(r->o->progress_arg, r->done, r->total)) r->cancelled = true;
    return !r->cancelled;
}

static bool on_token(void *arg, const generated_token *t) {
    (void)t;
    return on_prompt(arg, 0, 0);
}

static status judge(tiny_r1_score *s, const runner *r, const turn *b, int i, bool *right, error *e) {
    const generated *a = &b->answer[i];
    str text = {0};
    tokenizer_decode(r->t, a->ids, (size_t)a->n_ids, false, &text);
    status st = str_check(&text, e);
    if (st == OK) *right = tiny_r1_judge(s, &b->document[i], text.p ? text.p : "", text.n, a->n_ids);
    str_free(&text);
    return st;
}

static status answer_all(runner *r, double temperature, int samples, tiny_r1_score *score, error *e) {
    const int64_t total = r->o->limit * samples;
    const generate_hooks hooks = {.token = on_token, .prompt = on_prompt, .arg = r};
    int64_t last_solved = -1;
    status s = OK;
    for (int64_t first = 0; first < total && s == OK; first += BATCH) {
        uint32_t w[4]; /* the sampler counts the answers from 0 in each batch: each gets a seed of its own */
        rng_words(r->o->seed, UINT64_MAX, (uint64_t)(first / BATCH), w);
        generation g = {.sampling = {.temperature = (float)temperature,
                                     .top_p = 1,
                                     .repetition_penalty = 1,
                                     .seed = (uint64_t)w[0] << 32 | w[1]},
                        .max_tokens = TINY_R1_MOST_TOKENS,
                        .eos = &r->eos,
                        .n_eos = 1};
        turn b;
        s = fill(&b, r, first, total, samples, e);
        if (s == OK)
            s = generate(r->sessions, b.n, (const int32_t *const *)b.prompt, b.length, &g, &hooks, b.answer, e);
        if (s == OK && r->cancelled) s = fail(e, ERR_CANCELLED, "cancelled");
        for (int i = 0; i < b.n && s == OK; i++) {
            bool right = false;
            s = judge(score, r, &b, i, &right, e);
            r->done++;
            if (right && (first + i) / samples != last_solved) {
                last_solved = (first + i) / samples;
                score->solved[b.document[i].task]++;
            }
        }
        turn_clear(&b);
    }
    return s;
}

/* --- the report ------------------------------------------------------------------------------------------------- */

static double share(int64_t n, int64_t of) {
    return (double)n / (double)(of ? of : 1);
}

static json_t *tally_json(const tiny_r1_tally *t) {
    return json_pack("{s:I,s:f}", "answers", (json_int_t)t->answers, "accuracy", share(t->right, t->answers));
}

/* pass_at_K of several samples: the share of prompts of which one answer at least is right. */
static void add_solved(json_t *j, int64_t solved, int64_t answers, int samples) {
    char key[32];
    snprintf(key, sizeof key, "pass_at_%d", samples);
    if (samples > 1) json_object_set_new(j, key, json_real(share(solved, answers / samples)));
}

static json_t *styles_json(const tiny_r1_tally style[TINY_R1_STYLES]) {
    json_t *j = json_object();
    for (int i = 0; i < TINY_R1_STYLES; i++)
        if (style[i].answers) json_object_set_new(j, tiny_r1_style_names[i], tally_json(&style[i]));
    return j;
}

static json_t *tasks_json(const tiny_r1_score *s, int samples) {
    json_t *j = json_object();
    for (int t = 0; t < TINY_R1_TASKS; t++) {
        if (!s->task[t].answers) continue;
        json_t *one = tally_json(&s->task[t]);
        add_solved(one, s->solved[t], s->task[t].answers, samples);
        json_object_set_new(one, "by_style", styles_json(s->style[t]));
        json_object_set_new(j, tiny_r1_task_names[t], one);
    }
    return j;
}

static json_t *score_json(const tiny_r1_score *s, double temperature, int samples) {
    tiny_r1_tally styles[TINY_R1_STYLES] = {0};
    int64_t solved = 0;
    for (int t = 0; t < TINY_R1_TASKS; t++) {
        solved += s->solved[t];
        for (int i = 0; i < TINY_R1_STYLES; i++) {
            styles[i].answers += s->style[t][i].answers;
            styles[i].right += s->style[t][i].right;
        }
    }
    json_t *j = json_pack("{s:f,s:I,s:f,s:f,s:f}", "temperature", temperature, "answers", (json_int_t)s->all.answers,
                          "accuracy", share(s->all.right, s->all.answers), "format",
                          share(s->formatted, s->all.answers), "mean_tokens", share(s->tokens, s->all.answers));
    add_solved(j, solved, s->all.answers, samples);
    json_object_set_new(j, "by_style", styles_json(styles));
    json_object_set_new(j, "by_task", tasks_json(s, samples));
    return j;
}

static status run(runner *r, const char *name, double temperature, int samples, json_t *out, error *e) {
    tiny_r1_score score = {0};
    TRY(answer_all(r, temperature, samples, &score, e));
    return json_object_set_new(out, name, score_json(&score, temperature, samples))
               ? fail(e, ERR_NOMEM, "memory is out")
               : OK;
}

/* --- opening ---------------------------------------------------------------------------------------------------- */

static status check_tokenizer(const tokenizer *t, error *e) {
    static const char *const tags[] = {"<user>",   "<assistant>", "<think>", "</think>",
                                       "<answer>", "</answer>",   "<eos>"};
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
        if (tokenizer_id(t, tags[i]) < 0)
            return fail(e, ERR_ARG,
                        "the model's tokenizer has no token %s: tiny-r1 is for models trained on its data "
                        "(hadal data tiny-r1)",
                        tags[i]);
    return OK;
}

static status open_sessions(runner *r, engine *g, error *e) {
    const int64_t most = g->m->cfg.max_position_embeddings;
    const int64_t want = PROMPT_TOKENS + TINY_R1_MOST_TOKENS;
    for (int i = 0; i < BATCH; i++) TRY(session_open(&r->sessions[i], g, want < most ? want : most, e));
    return OK;
}

status tiny_r1_eval(engine *g, const tokenizer *t, const char *kind, const eval_options *o, json_t *out, error *e) {
    runner r = {.t = t, .o = o, .documents = {.share = {[TINY_R1_WORK] = 1}, .held_out = true, .seed = o->seed}};
    TRY(tiny_r1_tasks(kind ? kind : "all", &r.documents.tasks, e));
    TRY(check_tokenizer(t, e));
    r.eos = tokenizer_id(t, "<eos>");
    r.total = o->limit * ((o->greedy ? 1 : 0) + (o->sampled ? o->samples : 0));
    status s = open_sessions(&r, g, e);
    if (s == OK && o->greedy) s = run(&r, "greedy", 0, 1, out, e);
    if (s == OK && o->sampled) s = run(&r, "sampled", o->temperature, o->samples, out, e);
    for (int i = 0; i < BATCH; i++) session_close(r.sessions[i]);
    return s;
}
