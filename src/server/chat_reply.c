/* POST /v1/chat/completions: the writer in the OpenAI API's form, with DeepSeek's members. */
#include <stdlib.h>
#include <time.h>
#include "server/chat.h"
#include "server/handlers.h"
#include "server/job.h"

typedef struct reply {
    server *s;
    exchange *x;
    bool stream, usage, every_usage; /* usage: a chunk at the end; every_usage: in each chunk */
    int64_t created;
    str head; /* of chunks */
} reply;

static json_t *head(const reply *r, const char *object) {
    json_t *id = json_sprintf("chatcmpl-%s", exchange_id(r->x));
    return json_pack("{s:o,s:s,s:I,s:s,s:o}", "id", id, "object", object, "created", (json_int_t)r->created, "model",
                     server_model_id(r->s), "system_fingerprint", fingerprint_json(r->s));
}

static json_t *text_json(const str *s) {
    return json_stringn(s->n ? s->p : "", s->n);
}

/* ---- a stream ---- */

/* Takes delta; logprobs and finish may be NULL. */
static void send_delta(const reply *r, const chat_job *j, int sample, json_t *delta, const json_t *logprobs,
                       const char *finish) {
    json_t *lp = logprobs ? json_pack("{s:O}", "content", logprobs) : json_null();
    json_t *choices =
        json_pack("[{s:i,s:o,s:o,s:s?}]", "index", sample, "delta", delta, "logprobs", lp, "finish_reason", finish);
    json_t *usage = r->every_usage ? usage_json(chat_job_usage(j)) : r->usage ? json_null() : NULL;
    chunk_send(r->x, &r->head, choices, usage);
}

static void send_arguments(const reply *r, const chat_job *j, int sample, int call, const char *text, size_t n) {
    json_t *delta = json_pack("{s:[{s:i,s:{s:s%}}]}", "tool_calls", "index", call, "function", "arguments", text, n);
    send_delta(r, j, sample, delta, NULL, NULL);
}

static void send_call(const reply *r, const chat_job *j, int sample, int call) {
    const chat_call *c = &chat_job_sample(j, sample)->calls[call];
    json_t *delta = json_pack("{s:[{s:i,s:s,s:s,s:{s:s%,s:s}}]}", "tool_calls", "index", call, "id", c->id, "type",
                              "function", "function", "name", c->name.p, c->name.n, "arguments", "");
    send_delta(r, j, sample, delta, NULL, NULL);
}

static void begin(void *w, chat_job *j) {
    reply *r = w;
    if (!r->stream) return;
    exchange_stream(r->x);
    chunk_begin(&r->head, head(r, "chat.completion.chunk"));
    for (int i = 0; i < chat_job_samples(j); i++)
        send_delta(r, j, i, json_pack("{s:s,s:s}", "role", "assistant", "content", ""), NULL, NULL);
}

static void piece(void *w, chat_job *j, int sample, const hadal_piece *p, const json_t *logprobs) {
    const reply *r = w;
    if (!r->stream) return;
    const chat_sample *s = chat_job_sample(j, sample);
    int call = s->n_calls - 1;
    switch (p->kind) {
    case HADAL_PIECE_REASONING:
        if (p->n) send_delta(r, j, sample, json_pack("{s:s%}", "reasoning_content", p->text, p->n), NULL, NULL);
        break;
    case HADAL_PIECE_CONTENT:
        if (p->n) send_delta(r, j, sample, json_pack("{s:s%}", "content", p->text, p->n), logprobs, NULL);
        break;
    case HADAL_PIECE_CALL: send_call(r, j, sample, call); break;
    case HADAL_PIECE_ARGUMENTS:
        if (p->n) send_arguments(r, j, sample, call, p->text, p->n);
        break;
    default:
        if (call >= 0 && !s->calls[call].arguments.n) send_arguments(r, j, sample, call, "{}", 2);
    }
}

static void finish(void *w, chat_job *j, int sample) {
    const reply *r = w;
    if (r->stream) send_delta(r, j, sample, json_object(), NULL, chat_job_sample(j, sample)->finish);
}

/* ---- a whole answer ---- */

static json_t *calls_json(const chat_sample *s) {
    json_t *list = json_array();
    for (int i = 0; i < s->n_calls; i++) {
        const chat_call *c = &s->calls[i];
        json_t *arguments = c->arguments.n ? text_json(&c->arguments) : json_string("{}");
        json_array_append_new(list, json_pack("{s:s,s:s,s:{s:o,s:o}}", "id", c->id, "type", "function", "function",
                                              "name", text_json(&c->name), "arguments", arguments));
    }
    return list;
}

static json_t *choice_json(const chat_job *j, int sample, bool logprobs) {
    const chat_sample *s = chat_job_sample(j, sample);
    bool none = !s->content.n && (s->n_calls || s->reasoning.n);
    json_t *message =
        json_pack("{s:s,s:o}", "role", "assistant", "content", none ? json_null() : text_json(&s->content));
    if (s->reasoning.n) json_object_set_new(message, "reasoning_content", text_json(&s->reasoning));
    if (s->n_calls) json_object_set_new(message, "tool_calls", calls_json(s));
    json_t *lp = !logprobs     ? json_null()
                 : s->logprobs ? json_pack("{s:O}", "content", s->logprobs)
                               : json_pack("{s:[]}", "content");
    return json_pack("{s:i,s:o,s:o,s:s}", "index", sample, "message", message, "logprobs", lp, "finish_reason",
                     s->finish);
}

static void end(void *w, chat_job *j) {
    const reply *r = w;
    if (r->stream) {
        if (r->usage) chunk_send(r->x, &r->head, json_array(), usage_json(chat_job_usage(j)));
        exchange_event(r->x, NULL, "[DONE]", 6);
        exchange_end(r->x);
        return;
    }
    bool logprobs = json_is_true(json_object_get(chat_job_body(j), "logprobs"));
    json_t *body = head(r, "chat.completion"), *choices = json_array();
    for (int i = 0; i < chat_job_samples(j); i++) json_array_append_new(choices, choice_json(j, i, logprobs));
    bool bad = json_object_set_new(body, "choices", choices) ||
               json_object_set_new(body, "usage", usage_json(chat_job_usage(j)));
    if (bad) json_decref(body);
    exchange_json(r->x, 200, bad ? NULL : body);
}

static void failed(void *w, chat_job *j, int http, const char *message) {
    const reply *r = w;
    (void)j;
    if (http) exchange_error(r->x, http, NULL, NULL, "%s", message);
    else exchange_end(r->x);
}

static void release(void *w) {
    reply *r = w;
    str_free(&r->head);
    free(r);
}

void handle_chat_completions(server *s, exchange *x) {
    static const chat_writer writer = {begin, piece, finish, end, failed, release};
    json_t *body = chat_parse_body(x);
    if (!body) return;
    const json_t *o = json_object_get(body, "stream_options");
    reply *r = malloc(sizeof *r);
    if (!r) exchange_error(x, 500, NULL, NULL, "memory is out");
    else {
        *r = (reply){.s = s,
                     .x = x,
                     .stream = json_is_true(json_object_get(body, "stream")),
                     .usage = json_is_true(json_object_get(o, "include_usage")),
                     .every_usage = json_is_true(json_object_get(o, "continuous_usage_stats")),
                     .created = (int64_t)time(NULL)};
        chat_start(s, x, body, &writer, r);
    }
    json_decref(body);
}
