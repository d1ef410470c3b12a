/* POST /v1/completions: texts continued, without a chat template. Several prompts run at once. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "server/chat.h"
#include "server/handlers.h"
#include "server/job.h"
#include "server/logprobs.h"
#include "server/prompts.h"

typedef struct choice {
    str text;
    size_t fed; /* bytes of the answer in it */
    bool begun; /* has the echo */
    token_lists lists;
    json_t *ids; /* list */
    const char *finish;
} choice;

typedef struct completion {
    server *s;
    exchange *x;
    json_t *body;
    params p; /* borrows from body */
    prompts prompts;
    token_lists *prompt_lists; /* [prompts.n] logprobs of the prompts for an echo */
    choice *choices;           /* [prompts.n * p.samples] */
    job *job;
    int64_t created;
} completion;

static int choices_of(const completion *c) {
    return (int)c->prompts.n * c->p.samples;
}

/* ---- replies ---- */

static json_t *head(const completion *c) {
    json_t *id = json_sprintf("cmpl-%s", exchange_id(c->x));
    return json_pack("{s:o,s:s,s:I,s:s,s:o}", "id", id, "object", "text_completion", "created", (json_int_t)c->created,
                     "model", server_model_id(c->s), "system_fingerprint", fingerprint_json(c->s));
}

/* What has come since the last time; the text is passed on. finish NULL: more will come. */
static json_t *choice_json(completion *c, int k) {
    choice *h = &c->choices[k];
    json_t *lists = c->p.sampling.logprobs ? token_lists_take(&h->lists) : json_null();
    json_t *j = json_pack("{s:i,s:s%,s:o,s:s?}", "index", k, "text", h->text.n ? h->text.p : "", h->text.n, "logprobs",
                          lists, "finish_reason", h->finish);
    h->text.n = 0;
    if (c->p.token_ids) {
        json_object_set_new(j, "token_ids", h->ids ? h->ids : json_array());
        h->ids = NULL;
    }
    return h->text.failed ? NULL : j;
}

static void send_chunk(completion *c, json_t *choices, json_t *usage) {
    json_t *chunk = head(c);
    json_object_set_new(chunk, "choices", choices);
    if (usage) json_object_set_new(chunk, "usage", usage);
    exchange_event_json(c->x, NULL, chunk);
}

static void send_choice(completion *c, int k) {
    json_t *usage = c->p.continuous_usage ? usage_json(job_usage(c->job)) : c->p.include_usage ? json_null() : NULL;
    send_chunk(c, json_pack("[o]", choice_json(c, k)), usage);
}

/* ---- events ---- */

static void on_begin(void *arg, job *own) {
    completion *c = arg;
    c->job = own;
    if (c->p.stream) exchange_stream(c->x);
}

static void on_prompt(void *arg, int request, const hadal_token *t) {
    completion *c = arg;
    token_lists_add(&c->prompt_lists[request], server_tokenizer(c->s), t->id, t);
}

/* The prompt comes first where it is echoed: all of its probabilities are known when the first token is. */
static void begin_choice(completion *c, int k) {
    choice *h = &c->choices[k];
    const prompt *p = &c->prompts.list[k / c->p.samples];
    if (h->begun || !c->p.echo) return;
    h->begun = true;
    str_add(&h->text, p->echo, p->echo_n);
    if (c->p.sampling.logprobs) token_lists_copy(&h->lists, &c->prompt_lists[k / c->p.samples]);
}

static void add_text(choice *h, const char *text, size_t n) {
    h->fed += n;
    str_add(&h->text, text, n);
}

static void on_token(void *arg, int k, const hadal_token *t) {
    completion *c = arg;
    choice *h = &c->choices[k];
    begin_choice(c, k);
    if (t->n) add_text(h, t->text, t->n);
    if (c->p.sampling.logprobs) token_lists_add(&h->lists, server_tokenizer(c->s), t->id, t);
    if (c->p.token_ids) {
        if (!h->ids) h->ids = json_array();
        json_array_append_new(h->ids, json_integer(t->id));
    }
    if (c->p.stream && h->text.n) send_choice(c, k);
}

static void on_done(void *arg, int k, const hadal_result *r) {
    completion *c = arg;
    choice *h = &c->choices[k];
    begin_choice(c, k);
    if (r->n > h->fed) add_text(h, r->text + h->fed, r->n - h->fed);
    h->finish = strcmp(r->finish, "length") ? "stop" : "length";
    if (c->p.stream) send_choice(c, k);
}

static void on_end(void *arg) {
    completion *c = arg;
    json_t *usage = usage_json(job_usage(c->job));
    if (c->p.stream) {
        if (c->p.include_usage) send_chunk(c, json_array(), usage);
        else json_decref(usage);
        exchange_event(c->x, NULL, "[DONE]", 6);
        exchange_end(c->x);
        return;
    }
    json_t *body = head(c), *choices = json_array();
    bool bad = false;
    for (int k = 0; k < choices_of(c); k++) bad |= json_array_append_new(choices, choice_json(c, k)) != 0;
    bad |= json_object_set_new(body, "choices", choices) || json_object_set_new(body, "usage", usage);
    if (bad) json_decref(body);
    exchange_json(c->x, 200, bad ? NULL : body);
}

static void on_failed(void *arg, int http, const char *message) {
    const completion *c = arg;
    if (http) exchange_error(c->x, http, NULL, NULL, "%s", message);
}

static void release(void *arg) {
    completion *c = arg;
    for (int k = 0; c->choices && k < choices_of(c); k++) {
        str_free(&c->choices[k].text);
        token_lists_free(&c->choices[k].lists);
        json_decref(c->choices[k].ids);
    }
    for (size_t i = 0; c->prompt_lists && i < c->prompts.n; i++) token_lists_free(&c->prompt_lists[i]);
    free(c->choices);
    free(c->prompt_lists);
    prompts_free(&c->prompts);
    params_free(&c->p);
    json_decref(c->body);
    free(c);
}

/* ---- from the body to the engine ---- */

static status read_body(completion *c, mistake *m) {
    params_limits l;
    TRY(job_limits(c->s, &l, m));
    TRY(params_read(&c->p, c->body, ENDPOINT_COMPLETIONS, &l, m));
    size_t most = (size_t)(job_at_once(c->s) / c->p.samples);
    TRY(prompts_read(&c->prompts, c->body, &c->p, server_tokenizer(c->s), most, l.vocab, job_context(c->s), m));
    c->choices = calloc((size_t)choices_of(c), sizeof *c->choices);
    c->prompt_lists = calloc(c->prompts.n, sizeof *c->prompt_lists);
    return c->choices && c->prompt_lists ? OK : mistaken(m, 500, NULL, "memory is out");
}

static void start(completion *c) {
    static const job_hooks hooks = {on_begin, on_prompt, on_token, on_done, on_end, on_failed, release};
    const bool with_prompt = c->p.echo && c->p.sampling.logprobs;
    hadal_request *requests = calloc(c->prompts.n, sizeof *requests);
    if (!requests) {
        exchange_error(c->x, 500, NULL, NULL, "memory is out");
        release(c);
        return;
    }
    for (size_t i = 0; i < c->prompts.n; i++) {
        const prompt *p = &c->prompts.list[i];
        if (with_prompt) token_lists_add(&c->prompt_lists[i], server_tokenizer(c->s), p->ids[0], NULL);
        requests[i] = (hadal_request){.size = sizeof *requests,
                                      .prompt = p->ids,
                                      .n = (int)p->n,
                                      .samples = c->p.samples,
                                      .sampling = c->p.sampling,
                                      .bias = c->p.bias,
                                      .n_bias = c->p.n_bias,
                                      .prompt_logprobs = with_prompt ? c->p.sampling.logprobs : 0};
    }
    job_start(c->s, c->x, requests, (int)c->prompts.n, &hooks, c);
    free(requests);
}

void handle_completions(server *s, exchange *x) {
    mistake m;
    json_t *body = chat_parse_body(x);
    if (!body) return;
    completion *c = calloc(1, sizeof *c);
    if (!c) {
        exchange_error(x, 500, NULL, NULL, "memory is out");
        json_decref(body);
        return;
    }
    *c = (completion){.s = s, .x = x, .body = body, .created = (int64_t)time(NULL)};
    if (read_body(c, &m) == OK) {
        job_sampling(&c->p);
        start(c);
        return;
    }
    job_refuse(x, &m);
    release(c);
}
