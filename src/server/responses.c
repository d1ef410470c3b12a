/* POST /v1/responses, GET and DELETE /v1/responses/{id}, POST /v1/responses/input_tokens. */
#include "server/responses.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "server/handlers.h"
#include "server/responses_memory.h"

typedef struct response_writer {
    server *s;
    exchange *x;
    json_t *request;
    response_request q;
    response_items items;
    int64_t created;
    int sequence;
} response_writer;

static void send_event(void *arg, const char *name, json_t *data) {
    response_writer *w = arg;
    json_object_set_new(data, "type", json_string(name));
    json_object_set_new(data, "sequence_number", json_integer(w->sequence++));
    exchange_event_json(w->x, name, data);
}

static json_t *response_of(const response_writer *w, const char *state, const chat_usage *usage) {
    const char *model = json_string_value(json_object_get(w->request, "model"));
    json_t *o = response_json(exchange_id(w->x), model ? model : server_model_id(w->s), w->request, w->items.output,
                              state, w->created, usage);
    if (!strcmp(state, "completed")) json_object_set_new(o, "completed_at", json_integer(time(NULL)));
    return o;
}

static void begin(void *arg, chat_job *j) {
    response_writer *w = arg;
    (void)j;
    if (!w->q.stream) return;
    exchange_stream(w->x);
    send_event(w, "response.created", json_pack("{s:o}", "response", response_of(w, "in_progress", NULL)));
    send_event(w, "response.in_progress", json_pack("{s:o}", "response", response_of(w, "in_progress", NULL)));
}

static void piece(void *arg, chat_job *j, int sample, const hadal_piece *p, const json_t *logprobs) {
    response_writer *w = arg;
    const chat_sample *s = chat_job_sample(j, sample);
    response_items_piece(&w->items, p, s->n_calls ? s->calls[s->n_calls - 1].id : NULL,
                         w->q.logprobs ? logprobs : NULL);
}

static bool complete(const chat_sample *s) {
    return strcmp(s->finish, "length") != 0;
}

static void finish(void *arg, chat_job *j, int sample) {
    response_items_finish(&((response_writer *)arg)->items, complete(chat_job_sample(j, sample)));
}

static void keep(const response_writer *w, const json_t *response) {
    json_t *items = json_copy(w->q.items);
    if (items && json_array_extend(items, json_object_get(response, "output")) == 0)
        response_memory_add(server_responses(w->s), response, items);
    json_decref(items);
}

static void end(void *arg, chat_job *j) {
    response_writer *w = arg;
    const bool whole = complete(chat_job_sample(j, 0));
    json_t *response = response_of(w, whole ? "completed" : "incomplete", chat_job_usage(j));
    if (response && w->q.store) keep(w, response);
    if (!w->q.stream) {
        exchange_json(w->x, 200, response);
        return;
    }
    send_event(w, whole ? "response.completed" : "response.incomplete", json_pack("{s:o}", "response", response));
    exchange_end(w->x);
}

/* Before the first event it is an error like any other, then an event of its own kind. */
static void failed(void *arg, chat_job *j, int code, const char *message) {
    response_writer *w = arg;
    (void)j;
    if (code && !w->sequence) {
        exchange_error(w->x, code, NULL, NULL, "%s", message);
        return;
    }
    if (code) {
        json_t *response = response_of(w, "failed", NULL);
        json_object_set_new(response, "error", json_pack("{s:s, s:s}", "code", "server_error", "message", message));
        send_event(w, "response.failed", json_pack("{s:o}", "response", response));
    }
    exchange_end(w->x);
}

static void release(void *arg) {
    response_writer *w = arg;
    json_decref(w->request);
    response_request_free(&w->q);
    response_items_free(&w->items);
    free(w);
}

static const chat_writer writer = {begin, piece, finish, end, failed, release};

typedef struct item_finder {
    response_memory *memory;
    json_t *seen;
} item_finder;

static json_t *find_item(void *arg, const char *item_id) {
    const item_finder *f = arg;
    return response_memory_item(f->memory, item_id, f->seen);
}

/* False: it was answered with an error. */
static bool translate(server *s, exchange *x, const json_t *request, response_request *q) {
    const json_t *previous = json_object_get(request, "previous_response_id");
    const char *id = json_string_value(previous);
    json_t *before = id ? response_memory_items(server_responses(s), id) : NULL;
    item_finder finder = {server_responses(s), json_object()};
    bool good = false;
    if (previous && !id && !json_is_null(previous))
        exchange_error(x, 400, "previous_response_id", NULL, "previous_response_id: should be a string");
    else if (id && !before)
        exchange_error(x, 400, "previous_response_id", "previous_response_not_found",
                       "there is no response \"%.80s\" (any more): send the whole input", id);
    else if (!(good = response_translate(q, request, before, find_item, &finder)))
        exchange_error(x, q->t.status, q->t.param, NULL, "%s", q->t.text);
    json_decref(finder.seen);
    json_decref(before);
    return good;
}

void handle_responses(server *s, exchange *x) {
    response_writer *w = calloc(1, sizeof *w);
    if (!w) {
        exchange_error(x, 500, NULL, NULL, "memory is out");
        return;
    }
    *w = (response_writer){.s = s, .x = x, .request = chat_parse_body(x), .created = time(NULL)};
    if (!w->request || !translate(s, x, w->request, &w->q)) {
        release(w);
        return;
    }
    w->items = (response_items){.id = exchange_id(x), .q = &w->q, .event = w->q.stream ? send_event : NULL, .arg = w};
    json_t *body = json_incref(w->q.t.body); /* w may be gone before chat_start returns */
    chat_start(s, x, body, &writer, w);
    json_decref(body);
}

void handle_response_tokens(server *s, exchange *x) {
    json_t *request = chat_parse_body(x);
    response_request q = {0};
    int n = request && translate(s, x, request, &q) ? chat_count_tokens(s, x, q.t.body) : -1;
    if (n >= 0) exchange_json(x, 200, json_pack("{s:s, s:i}", "object", "response.input_tokens", "input_tokens", n));
    response_request_free(&q);
    json_decref(request);
}

static void not_found(exchange *x) {
    exchange_error(x, 404, NULL, NULL, "there is no response \"%.80s\" (any more)", exchange_tail(x));
}

void handle_response(server *s, exchange *x) {
    json_t *response = response_memory_find(server_responses(s), exchange_tail(x));
    if (response) exchange_json(x, 200, response);
    else not_found(x);
}

void handle_response_forget(server *s, exchange *x) {
    if (response_memory_forget(server_responses(s), exchange_tail(x)))
        exchange_json(x, 200, json_pack("{s:s, s:s, s:b}", "id", exchange_tail(x), "object", "response", "deleted", 1));
    else not_found(x);
}
