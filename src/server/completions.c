/* POST /v1/completions: texts continued, without a chat template. Several prompts run at once. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "server/chat.h"
#include "server/handlers.h"
#include "server/job.h"
#include "server/logprobs.h"
#include "server/prompts.h"

enum { MOST_LOGPROBS = 1 << 22 }; /* of the prompts, in one reply: about 130 MB of text */

typedef struct choice {
    str text;
    size_t fed; /* bytes of the answer in it */
    bool begun; /* has the echo */
    token_lists lists;
    json_t *ids; /* list */
    const char *finish;
    char *reply; /* a whole answer: JSON, made as soon as it is done, so that no step waits for all of them */
} choice;

typedef struct echo {
    token_lists lists; /* of a prompt */
    int left;          /* answers that still need them */
} echo;

typedef struct completion {
    server *s;
    exchange *x;
    json_t *body;
    params p; /* borrows from body */
    prompts prompts;
    echo *echoes;    /* [prompts.n] */
    choice *choices; /* [prompts.n * p.samples] */
    job *job;
    int64_t created;
    str head; /* of chunks */
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
    if (!h->text.failed) return j;
    json_decref(j);
    return NULL;
}

static void send_choice(completion *c, int k) {
    json_t *usage = c->p.continuous_usage ? usage_json(job_usage(c->job)) : c->p.include_usage ? json_null() : NULL;
    chunk_send(c->x, &c->head, json_pack("[o]", choice_json(c, k)), usage);
}

/* ---- events ---- */

static void on_begin(void *arg, job *own) {
    completion *c = arg;
    c->job = own;
    if (!c->p.stream) return;
    exchange_stream(c->x);
    chunk_begin(&c->head, head(c));
}

static void on_prompt(void *arg, int request, const hadal_token *t) {
    completion *c = arg;
    token_lists_add(&c->echoes[request].lists, server_tokenizer(c->s), t->id, t);
}

/* The prompt comes first where it is echoed: all of its probabilities are known when the first token is. */
static void begin_choice(completion *c, int k) {
    choice *h = &c->choices[k];
    const prompt *p = &c->prompts.list[k / c->p.samples];
    if (h->begun || !c->p.echo) return;
    h->begun = true;
    str_add(&h->text, p->echo, p->echo_n);
    if (c->p.sampling.logprobs) token_lists_copy(&h->lists, &c->echoes[k / c->p.samples].lists);
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
    echo *e = &c->echoes[k / c->p.samples];
    begin_choice(c, k);
    if (--e->left == 0) token_lists_free(&e->lists);
    if (r->n > h->fed) add_text(h, r->text + h->fed, r->n - h->fed);
    h->finish = strcmp(r->finish, "length") ? "stop" : "length";
    if (c->p.stream) {
        send_choice(c, k);
        return;
    }
    json_t *j = choice_json(c, k);
    h->reply = j ? json_dumps(j, JSON_COMPACT) : NULL;
    json_decref(j);
    if (!h->reply) job_fail(c->job, 500, "memory is out");
}

/* Adds ,"NAME":VALUE; takes value. */
static void add_member(str *s, const char *name, json_t *value) {
    char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
    str_addf(s, ",\"%s\":", name);
    str_puts(s, text ? text : "null");
    s->failed |= !text;
    free(text);
    json_decref(value);
}

static void send_whole(completion *c) {
    json_t *first = head(c);
    char *text = first ? json_dumps(first, JSON_COMPACT) : NULL;
    str s = {0};
    if (text) str_add(&s, text, strlen(text) - 1);
    s.failed |= !text;
    for (int k = 0; k < choices_of(c); k++) {
        str_puts(&s, k ? "," : ",\"choices\":[");
        str_puts(&s, c->choices[k].reply);
    }
    str_puts(&s, "]");
    add_member(&s, "usage", usage_json(job_usage(c->job)));
    str_puts(&s, "}");
    if (s.failed) exchange_error(c->x, 500, NULL, NULL, "memory is out");
    else exchange_text(c->x, 200, "application/json", s.p, s.n);
    str_free(&s);
    free(text);
    json_decref(first);
}

static void on_end(void *arg) {
    completion *c = arg;
    if (!c->p.stream) {
        send_whole(c);
        return;
    }
    if (c->p.include_usage) chunk_send(c->x, &c->head, json_array(), usage_json(job_usage(c->job)));
    exchange_event(c->x, NULL, "[DONE]", 6);
    exchange_end(c->x);
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
        free(c->choices[k].reply);
    }
    for (size_t i = 0; c->echoes && i < c->prompts.n; i++) token_lists_free(&c->echoes[i].lists);
    free(c->choices);
    free(c->echoes);
    prompts_free(&c->prompts);
    params_free(&c->p);
    str_free(&c->head);
    json_decref(c->body);
    free(c);
}

/* ---- from the body to the engine ---- */

static bool echoes_logprobs(const completion *c) {
    return c->p.echo && c->p.sampling.logprobs;
}

static status check_size(const completion *c, mistake *m) {
    size_t tokens = 0, each = 1 + (c->p.sampling.logprobs > 0 ? (size_t)c->p.sampling.logprobs : 0);
    for (size_t i = 0; i < c->prompts.n; i++) tokens += c->prompts.list[i].n;
    if (!echoes_logprobs(c) || tokens * (size_t)c->p.samples <= MOST_LOGPROBS / each) return OK;
    return mistaken(m, 422, "logprobs",
                    "%zu log-probabilities of prompts are too many for one reply, send fewer prompts",
                    tokens * (size_t)c->p.samples * each);
}

static status read_body(completion *c, mistake *m) {
    params_limits l;
    TRY(job_limits(c->s, &l, m));
    TRY(params_read(&c->p, c->body, ENDPOINT_COMPLETIONS, &l, m));
    size_t most = (size_t)(job_at_once(c->s) / c->p.samples);
    TRY(prompts_read(&c->prompts, c->body, &c->p, server_tokenizer(c->s), most, l.vocab, job_context(c->s), m));
    TRY(check_size(c, m));
    c->choices = calloc((size_t)choices_of(c), sizeof *c->choices);
    c->echoes = calloc(c->prompts.n, sizeof *c->echoes);
    return c->choices && c->echoes ? OK : mistaken(m, 500, NULL, "memory is out");
}

static void start(completion *c) {
    static const job_hooks hooks = {on_begin, on_prompt, on_token, on_done, on_end, on_failed, release};
    const bool with_prompt = echoes_logprobs(c);
    hadal_request *requests = calloc(c->prompts.n, sizeof *requests);
    if (!requests) {
        exchange_error(c->x, 500, NULL, NULL, "memory is out");
        release(c);
        return;
    }
    for (size_t i = 0; i < c->prompts.n; i++) {
        const prompt *p = &c->prompts.list[i];
        c->echoes[i].left = c->p.samples;
        if (with_prompt) token_lists_add(&c->echoes[i].lists, server_tokenizer(c->s), p->ids[0], NULL);
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
