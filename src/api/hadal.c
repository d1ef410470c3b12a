/* Public functions of models, sessions and generation: they check arguments and call down. */
#include "hadal.h"

#include <stdlib.h>
#include <string.h>
#include "api/internal.h"
#include "base/pool.h"

const char *hadal_version(void) {
    return HADAL_VERSION;
}

void hadal_free(void *p) {
    free(p);
}

status api_json(json_t *j, char **out, error *e) {
    char *text = json_dumps(j, JSON_INDENT(2));
    json_decref(j);
    if (!text) return fail(e, ERR_NOMEM, "memory is out");
    if (out) *out = text;
    else free(text);
    return OK;
}

int api_result(status s, const error *from, hadal_error *to) {
    if (to && s != OK) {
        to->code = s;
        memcpy(to->text, from->text, sizeof to->text);
    }
    return s;
}

void api_options(void *to, size_t size, const void *from) {
    size_t given;
    if (!from) return;
    memcpy(&given, from, sizeof given);
    memcpy(to, from, given && given < size ? given : size);
}

static int refuse(hadal_error *e, const char *text) {
    error why;
    return api_result(fail(&why, ERR_ARG, "%s", text), &why, e);
}

/* --- model ------------------------------------------------------------------------------------------------------ */

static status form_of(const char *name, mla_form *out, error *e) {
    if (!name) *out = MLA_CHEAPER;
    else if (!strcmp(name, "expanded")) *out = MLA_EXPANDED;
    else if (!strcmp(name, "absorbed")) *out = MLA_ABSORBED;
    else return fail(e, ERR_ARG, "attention \"%s\": use expanded or absorbed", name);
    return OK;
}

static status compute_of(const char *name, compute *out, error *e) {
    if (!name || !strcmp(name, "bf16")) *out = COMPUTE_BF16;
    else if (!strcmp(name, "f32")) *out = COMPUTE_F32;
    else return fail(e, ERR_ARG, "compute \"%s\": use bf16 or f32", name);
    return OK;
}

static status open_model(hadal_model *h, const char *folder, const hadal_model_options *o, error *e) {
    mla_form form = MLA_CHEAPER;
    compute c = COMPUTE_BF16;
    TRY(form_of(o->attention, &form, e));
    TRY(compute_of(o->compute, &c, e));
    TRY(model_open(&h->m, folder, e));
    h->file_bytes = weights_bytes(h->m->file);
    if (o->progress && o->progress(o->progress_arg, 1, 2, "weights")) return fail(e, ERR_CANCELLED, "cancelled");
    TRY(folder_text_open(&h->text, folder, e));
    return engine_open(&h->g, h->m, pool_size(o->threads), o->kernels, c, form, e);
}

int hadal_model_open(hadal_model **out, const char *folder, const hadal_model_options *o, hadal_error *e) {
    if (!out || !folder) return refuse(e, "hadal_model_open needs a place for the model and a folder");
    *out = NULL;
    hadal_model_options options = {0};
    api_options(&options, sizeof options, o);
    hadal_model *h = calloc(1, sizeof *h);
    error why;
    status s = h ? open_model(h, folder, &options, &why) : fail(&why, ERR_NOMEM, "memory is out");
    if (s == OK) *out = h;
    else hadal_model_close(h);
    return api_result(s, &why, e);
}

void hadal_model_close(hadal_model *h) {
    if (!h) return;
    engine_close(h->g);
    token_bytes_close(h->bytes);
    folder_text_close(&h->text);
    model_close(h->m);
    free(h);
}

int hadal_model_vocab(const hadal_model *h) {
    return (int)h->m->cfg.vocab_size;
}
int hadal_model_max_context(const hadal_model *h) {
    return (int)h->m->cfg.max_position_embeddings;
}
int hadal_model_mtp_layers(const hadal_model *h) {
    return (int)h->m->n_mtp;
}
const char *hadal_model_kernels(const hadal_model *h) {
    return queue_level(h->g->ws.q);
}

/* --- sessions --------------------------------------------------------------------------------------------------- */

int hadal_session_open(hadal_session **out, hadal_model *m, int max_tokens, hadal_error *e) {
    if (!out || !m || max_tokens < 0) return refuse(e, "hadal_session_open needs a model and max_tokens >= 0");
    *out = NULL;
    hadal_session *h = calloc(1, sizeof *h);
    error why;
    status s = h ? session_open(&h->s, m->g, max_tokens ? max_tokens : m->m->cfg.max_position_embeddings, &why)
                 : fail(&why, ERR_NOMEM, "memory is out");
    if (s == OK) {
        h->model = m;
        *out = h;
    } else {
        free(h);
    }
    return api_result(s, &why, e);
}

void hadal_session_close(hadal_session *h) {
    if (!h) return;
    session_close(h->s);
    free(h);
}

int hadal_session_sync(hadal_session *h, const int32_t *tokens, int n, hadal_error *e) {
    if (!h || !tokens) return refuse(e, "hadal_session_sync needs a session and tokens");
    error why;
    return api_result(session_sync(h->s, tokens, n, NULL, NULL, NULL, &why), &why, e);
}

const float *hadal_session_logits(const hadal_session *h) {
    return h->s->rows ? h->s->logits + (h->s->rows - 1) * h->model->m->cfg.vocab_size : NULL;
}

int hadal_session_length(const hadal_session *h) {
    return (int)h->s->length;
}
uint64_t hadal_session_cache_bytes(const hadal_session *h) {
    return session_cache_bytes(h->s);
}

/* --- generation ------------------------------------------------------------------------------------------------- */

void hadal_sampling_defaults(const hadal_model *m, hadal_sampling *out) {
    const sampling *s = &m->text.sampling;
    *out = (hadal_sampling){.size = sizeof *out,
                            .temperature = s->temperature,
                            .top_k = s->top_k,
                            .top_p = s->top_p,
                            .min_p = s->min_p,
                            .repetition_penalty = s->repetition_penalty};
}

sampling api_sampling(const hadal_sampling *o) {
    return (sampling){.temperature = o->temperature,
                      .top_k = o->top_k,
                      .top_p = o->top_p == 0 ? 1 : o->top_p,
                      .min_p = o->min_p,
                      .repetition_penalty = o->repetition_penalty == 0 ? 1 : o->repetition_penalty,
                      .presence_penalty = o->presence_penalty,
                      .frequency_penalty = o->frequency_penalty,
                      .seed = o->seed};
}

typedef struct callback {
    hadal_on_token *token;
    void *arg;
    hadal_progress *progress;
    void *progress_arg;
} callback;

static bool on_prompt(void *arg, int64_t done, int64_t total) {
    const callback *c = arg;
    return !c->progress || c->progress(c->progress_arg, (uint64_t)done, (uint64_t)total, "prompt tokens") == 0;
}

hadal_token api_token(const generated_token *t) {
    return (hadal_token){.sequence = t->sequence,
                         .id = t->id,
                         .text = t->text,
                         .n = t->n,
                         .logprob = t->logprob,
                         .top_ids = t->top_ids,
                         .top_logprobs = t->top_logprobs,
                         .n_top = t->n_top};
}

static bool on_token(void *arg, const generated_token *t) {
    const callback *c = arg;
    if (!c->token) return true;
    const hadal_token out = api_token(t);
    return c->token(c->arg, &out) == 0;
}

void api_give_result(generated *a, hadal_result *r) {
    static const char *const names[] = {
        [FINISH_LENGTH] = "length", [FINISH_EOS] = "eos", [FINISH_STOP] = "stop", [FINISH_CANCELLED] = "cancelled"};
    *r = (hadal_result){.n = a->text.n,
                        .ids = a->ids,
                        .n_ids = (int)a->n_ids,
                        .finish = names[a->finish],
                        .prompt_tokens = (int)a->prompt_tokens,
                        .cached_tokens = (int)a->cached_tokens,
                        .prompt_seconds = a->prompt_seconds,
                        .seconds = a->seconds,
                        .draft_proposed = (int)a->draft_proposed,
                        .draft_accepted = (int)a->draft_accepted};
    r->text = str_take(&a->text);
    a->ids = NULL;
}

void hadal_result_clear(hadal_result *r) {
    free(r->text);
    free(r->ids);
    *r = (hadal_result){0};
}

int hadal_generate_batch(hadal_session **s, int batch, const int32_t *const *prompts, const int *n,
                         const hadal_sampling *o, hadal_on_token *token, void *arg, hadal_result *out, hadal_error *e) {
    for (int i = 0; out && i < batch; i++) out[i] = (hadal_result){0}; /* to be cleared after a refusal, too */
    if (!s || batch < 1 || !prompts || !n || !out)
        return refuse(e, "hadal_generate needs sessions, prompts and results");
    for (int i = 0; i < batch; i++) {
        if (!s[i] || !prompts[i]) return refuse(e, "hadal_generate needs sessions and a prompt for each");
        if (s[i]->model != s[0]->model) return refuse(e, "the sessions of a batch must be of one model");
        for (int k = 0; k < i; k++)
            if (s[k] == s[i]) return refuse(e, "a session can be in a batch once only");
    }
    const folder_text *text = &s[0]->model->text;
    hadal_sampling given;
    hadal_sampling_defaults(s[0]->model, &given);
    api_options(&given, sizeof given, o);
    generation g = {.sampling = api_sampling(&given),
                    .max_tokens = given.max_tokens,
                    .stop = given.stop,
                    .n_stop = given.stop ? given.n_stop : 0,
                    .eos = text->eos,
                    .n_eos = given.ignore_eos ? 0 : text->n_eos,
                    .logprobs = given.logprobs,
                    .drafts = given.drafts,
                    .tokenizer = text->tokenizer.t};
    error why;
    if (given.drafts > 0 && !s[0]->model->m->n_mtp)
        return api_result(fail(&why, ERR_UNSUPPORTED, "drafts need an MTP layer, and this checkpoint has none"), &why,
                          e);
    if (given.max_tokens < 0 || given.drafts < 0) return refuse(e, "max_tokens and drafts should not be negative");
    session **inner = malloc((size_t)batch * sizeof *inner);
    int64_t *lengths = malloc((size_t)batch * sizeof *lengths);
    generated *answers = calloc((size_t)batch, sizeof *answers);
    status st = inner && lengths && answers ? OK : fail(&why, ERR_NOMEM, "memory is out");
    if (st == OK) {
        for (int i = 0; i < batch; i++) {
            inner[i] = s[i]->s;
            lengths[i] = n[i];
        }
        callback c = {token, arg, given.progress, given.progress_arg};
        generate_hooks hooks = {.token = on_token, .prompt = on_prompt, .arg = &c};
        st = generate(inner, batch, prompts, lengths, &g, &hooks, answers, &why);
        for (int i = 0; i < batch; i++) api_give_result(&answers[i], &out[i]);
    }
    free(inner);
    free(lengths);
    free(answers);
    return api_result(st, &why, e);
}

int hadal_generate(hadal_session *s, const int32_t *prompt, int n, const hadal_sampling *o, hadal_on_token *token,
                   void *arg, hadal_result *out, hadal_error *e) {
    return hadal_generate_batch(&s, 1, &prompt, &n, o, token, arg, out, e);
}
