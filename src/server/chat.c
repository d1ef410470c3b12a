#include "server/chat.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "server/chat_grammar.h"
#include "server/job.h"
#include "server/logprobs.h"

enum { CALL_ID = 24, MAX_COST = 160 << 20 /* bytes of a body as parsed JSON */ };

typedef struct slot { /* an answer */
    chat_job *j;
    int index;
    chat_sample sample;
    hadal_reader *reader;
    size_t fed;      /* bytes of its text that the reader has */
    bool reasoning;  /* its </think> has not come yet */
    json_t *waiting; /* logprobs of tokens whose text is not out yet */
} slot;

struct chat_job {
    server *s;
    exchange *x;
    json_t *body;
    params p; /* borrows from body */
    chat_writer writer;
    void *w;
    hadal_grammar *grammar;
    int thinking; /* HADAL_PLAIN ... */
    bool tools;
    int32_t *ids;
    size_t n_ids;
    job *job;
    slot *slots; /* [p.samples] */
};

/* ---- for writers ---- */

const chat_sample *chat_job_sample(const chat_job *j, int sample) {
    return &j->slots[sample].sample;
}

int chat_job_samples(const chat_job *j) {
    return j->p.samples;
}

const chat_usage *chat_job_usage(const chat_job *j) {
    return job_usage(j->job);
}

const json_t *chat_job_body(const chat_job *j) {
    return j->body;
}

exchange *chat_job_exchange(const chat_job *j) {
    return j->x;
}

/* ---- pieces of answers ---- */

static chat_call *last_call(slot *t) {
    return t->sample.n_calls ? &t->sample.calls[t->sample.n_calls - 1] : NULL;
}

static char *make_call_id(void) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    unsigned char r[CALL_ID];
    char id[CALL_ID + 6] = "call_";
    if (getrandom(r, sizeof r, 0) != (ssize_t)sizeof r) return NULL;
    for (int i = 0; i < CALL_ID; i++) id[5 + i] = letters[r[i] % (sizeof letters - 1)];
    return strdup(id);
}

static bool add_call(slot *t, const hadal_piece *p) {
    chat_sample *s = &t->sample;
    chat_call *calls = realloc(s->calls, ((size_t)s->n_calls + 1) * sizeof *calls);
    if (!calls) return false;
    s->calls = calls;
    calls[s->n_calls] = (chat_call){.id = make_call_id()};
    str_add(&calls[s->n_calls].name, p->text, p->n);
    return calls[s->n_calls++].id && !calls[s->n_calls - 1].name.failed;
}

static bool add_piece(slot *t, const hadal_piece *p) {
    chat_call *call = last_call(t);
    if (p->kind == HADAL_PIECE_CALL) return add_call(t, p);
    if (p->kind == HADAL_PIECE_CALL_END) {
        if (call) call->valid = p->valid;
        return true;
    }
    if (p->kind == HADAL_PIECE_ARGUMENTS && !call) return true;
    str *s = p->kind == HADAL_PIECE_REASONING ? &t->sample.reasoning
             : p->kind == HADAL_PIECE_CONTENT ? &t->sample.content
                                              : &call->arguments;
    str_add(s, p->text, p->n);
    return !s->failed;
}

/* The logprobs of the tokens that a piece is made of: only those of content are kept. */
static json_t *take_waiting(slot *t, const hadal_piece *p) {
    json_t *list = t->waiting;
    t->waiting = NULL;
    if (p->kind == HADAL_PIECE_CONTENT && list) {
        if (!t->sample.logprobs) t->sample.logprobs = json_array();
        json_array_extend(t->sample.logprobs, list);
        return list;
    }
    json_decref(list);
    return NULL;
}

static void on_piece(void *arg, const hadal_piece *p) {
    slot *t = arg;
    chat_job *j = t->j;
    if (job_over(j->job)) return;
    if (!add_piece(t, p)) {
        job_fail(j->job, 500, "memory is out");
        return;
    }
    json_t *logprobs = take_waiting(t, p);
    j->writer.piece(j->w, j, t->index, p, logprobs);
    json_decref(logprobs);
}

/* ---- the engine's events ---- */

static bool is_token(const slot *t, int32_t id, const char *text) {
    size_t n;
    const char *p = hadal_token_bytes(server_tokenizer(t->j->s), id, &n);
    return p && n == strlen(text) && !memcmp(p, text, n);
}

static void keep_logprob(slot *t, const hadal_token *token) {
    if (t->j->thinking == HADAL_MAY_THINK && !t->fed && is_token(t, token->id, "<think>")) t->reasoning = true;
    if (t->reasoning && is_token(t, token->id, "</think>")) {
        t->reasoning = false;
        json_decref(t->waiting);
        t->waiting = NULL;
    } else if (t->j->p.sampling.logprobs) {
        if (!t->waiting) t->waiting = json_array();
        json_array_append_new(t->waiting, logprob_entry(server_tokenizer(t->j->s), token));
    }
}

static void feed(slot *t, const char *text, size_t n) {
    hadal_error e;
    t->fed += n;
    if (hadal_reader_feed(t->reader, text, n, &e)) job_fail(t->j->job, 500, e.text);
}

static void on_token(void *arg, int answer, const hadal_token *token) {
    chat_job *j = arg;
    slot *t = &j->slots[answer];
    t->sample.tokens++;
    keep_logprob(t, token);
    if (token->n) feed(t, token->text, token->n);
}

/* The message with calls can come back as the very tokens it was. */
static void remember(const slot *t, const hadal_result *r) {
    const chat_sample *s = &t->sample;
    json_t *calls = json_array();
    for (int i = 0; i < s->n_calls; i++)
        json_array_append_new(calls, json_pack("{s:s,s:{s:s%,s:s%}}", "id", s->calls[i].id, "function", "name",
                                               s->calls[i].name.p, s->calls[i].name.n, "arguments",
                                               s->calls[i].arguments.n ? s->calls[i].arguments.p : "{}",
                                               s->calls[i].arguments.n ? s->calls[i].arguments.n : (size_t)2));
    json_t *content = json_stringn(s->content.n ? s->content.p : "", s->content.n);
    call_key *k = call_key_open(calls, content);
    if (k) call_memory_add(server_calls(t->j->s), k->texts, k->n, r->ids, (size_t)r->n_ids - 1);
    call_key_free(k);
    json_decref(content);
    json_decref(calls);
}

/* An answer that is cut inside of its reasoning is all reasoning. */
static int count_reasoning(const slot *t, const hadal_result *r) {
    if (!t->sample.reasoning.n && t->j->thinking != HADAL_THINKS) return 0;
    size_t n = hadal_chat_reasoning_ids(server_model(t->j->s), r->ids, (size_t)r->n_ids);
    return n ? (int)n : r->n_ids - !strcmp(r->finish, "eos");
}

static void on_done(void *arg, int answer, const hadal_result *r) {
    chat_job *j = arg;
    slot *t = &j->slots[answer];
    chat_sample *s = &t->sample;
    hadal_error e;
    bool eos = !strcmp(r->finish, "eos");
    if (r->n > t->fed) feed(t, r->text + t->fed, r->n - t->fed);
    if (hadal_reader_finish(t->reader, &e)) job_fail(j->job, 500, e.text);
    if (job_over(j->job)) return;
    s->finish = !strcmp(r->finish, "length") ? "length" : s->n_calls ? "tool_calls" : "stop";
    s->stop = job_stop(j->s, &j->p, r);
    s->tokens = r->n_ids;
    s->reasoning_tokens = count_reasoning(t, r);
    job_usage(j->job)->reasoning_tokens += s->reasoning_tokens;
    if (eos && s->n_calls && r->n_ids > 1) remember(t, r);
    j->writer.finish(j->w, j, answer);
}

static void on_begin(void *arg, job *own) {
    chat_job *j = arg;
    j->job = own;
    j->writer.begin(j->w, j);
}

static void on_end(void *arg) {
    chat_job *j = arg;
    j->writer.end(j->w, j);
}

static void on_failed(void *arg, int http, const char *message) {
    chat_job *j = arg;
    j->writer.failed(j->w, j, http, message);
}

static void free_slot(slot *t) {
    chat_sample *s = &t->sample;
    for (int i = 0; i < s->n_calls; i++) {
        free((char *)(uintptr_t)s->calls[i].id);
        str_free(&s->calls[i].name);
        str_free(&s->calls[i].arguments);
    }
    free(s->calls);
    str_free(&s->reasoning);
    str_free(&s->content);
    json_decref(s->logprobs);
    json_decref(t->waiting);
    hadal_reader_close(t->reader);
}

static void release(void *arg) {
    chat_job *j = arg;
    j->writer.release(j->w);
    for (int i = 0; j->slots && i < j->p.samples; i++) free_slot(&j->slots[i]);
    free(j->slots);
    hadal_free(j->ids);
    hadal_grammar_close(j->grammar);
    params_free(&j->p);
    json_decref(j->body);
    free(j);
}

/* ---- from the body to the engine ---- */

static status refuse(mistake *m, int code, const char *param, const hadal_error *e) {
    return mistaken(m, job_http(code), param, "%s", e->text);
}

static status encode(const server *s, const chat_request *r, int32_t **ids, size_t *n, int *thinking, mistake *m) {
    hadal_error e;
    char *messages = json_dumps(r->messages, JSON_COMPACT), *options = json_dumps(r->options, JSON_COMPACT);
    status st = OK;
    if (!messages || !options) st = mistaken(m, 500, NULL, "memory is out");
    else {
        int code = hadal_chat_encode(server_model(s), messages, options, ids, n, thinking, &e);
        if (code) st = refuse(m, code, "messages", &e);
    }
    free(messages);
    free(options);
    return st;
}

static status check_length(const chat_job *j, mistake *m) {
    int context = job_context(j->s);
    if (j->n_ids && j->n_ids <= (size_t)context) return OK;
    if (!j->n_ids) return mistaken(m, 400, "messages", "the prompt is empty");
    mistaken(m, 400, "messages", "prompt is too long: %zu tokens > %d maximum", j->n_ids,
             context); /* agents look for this */
    m->code = "context_length_exceeded";
    return ERR_ARG;
}

static status open_slots(chat_job *j, mistake *m) {
    hadal_error e;
    if (!(j->slots = calloc((size_t)j->p.samples, sizeof *j->slots))) return mistaken(m, 500, NULL, "memory is out");
    for (int i = 0; i < j->p.samples; i++) {
        slot *t = &j->slots[i];
        *t = (slot){.j = j, .index = i, .reasoning = j->thinking == HADAL_THINKS};
        int code = hadal_reader_open(&t->reader, server_model(j->s), j->thinking, j->tools, on_piece, t, &e);
        if (code) return refuse(m, code, NULL, &e);
    }
    return OK;
}

static status prepare(chat_job *j, const chat_request *r, mistake *m) {
    TRY(encode(j->s, r, &j->ids, &j->n_ids, &j->thinking, m));
    j->tools = r->tools;
    TRY(check_length(j, m));
    TRY(chat_grammar_open(&j->grammar, server_model(j->s), r, j->thinking == HADAL_THINKS, m));
    return open_slots(j, m);
}

static status read_body(chat_job *j, mistake *m) {
    params_limits l;
    chat_request r = {0};
    TRY(job_limits(j->s, &l, m));
    status st = params_read(&j->p, j->body, ENDPOINT_CHAT, &l, m);
    if (st == OK) st = chat_request_read(&r, j->body, server_calls(j->s), m);
    if (st == OK) st = prepare(j, &r, m);
    chat_request_free(&r);
    return st;
}

void chat_start(server *s, exchange *x, const json_t *body, const chat_writer *writer, void *w) {
    static const job_hooks hooks = {
        .begin = on_begin, .token = on_token, .done = on_done, .end = on_end, .failed = on_failed, .release = release};
    mistake m;
    chat_job *j = calloc(1, sizeof *j);
    if (!j) {
        exchange_error(x, 500, NULL, NULL, "memory is out");
        writer->release(w);
        return;
    }
    *j = (chat_job){.s = s, .x = x, .body = json_incref((json_t *)(uintptr_t)body), .writer = *writer, .w = w};
    if (read_body(j, &m) != OK) {
        job_refuse(x, &m);
        release(j);
        return;
    }
    job_sampling(&j->p);
    hadal_request r = {.size = sizeof r,
                       .prompt = j->ids,
                       .n = (int)j->n_ids,
                       .samples = j->p.samples,
                       .sampling = j->p.sampling,
                       .bias = j->p.bias,
                       .n_bias = j->p.n_bias,
                       .grammar = j->grammar};
    job_start(s, x, &r, 1, &hooks, j);
}

int chat_count_tokens(server *s, exchange *x, const json_t *body) {
    mistake m;
    chat_request r;
    int32_t *ids = NULL;
    size_t n = 0;
    status st = chat_request_read(&r, body, server_calls(s), &m);
    if (st == OK) st = encode(s, &r, &ids, &n, NULL, &m);
    chat_request_free(&r);
    hadal_free(ids);
    if (st == OK) return (int)n;
    job_refuse(x, &m);
    return -1;
}

json_t *chat_parse_body(exchange *x) {
    size_t n;
    error e;
    json_t *body = NULL;
    const char *text = exchange_body(x, &n);
    if (!n) exchange_error(x, 400, NULL, NULL, "the body is empty, it should be a JSON object");
    else if (json_cost(text, n) > MAX_COST)
        exchange_error(x, 400, NULL, NULL, "the body has too many parts: parsed it would take over %d MB",
                       MAX_COST >> 20);
    else if (json_parse(&body, text, n, "body", &e) != OK)
        exchange_error(x, e.code == ERR_NOMEM ? 500 : 400, NULL, NULL, "%s", e.text);
    else if (!json_is_object(body)) {
        exchange_error(x, 400, NULL, NULL, "the body should be a JSON object");
        json_decref(body);
        body = NULL;
    }
    return body;
}
