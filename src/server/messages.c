/* POST /v1/messages and /v1/messages/count_tokens. */
#include "server/messages.h"

#include <stdlib.h>
#include "server/handlers.h"

typedef struct message_writer {
    server *s;
    exchange *x;
    json_t *request;
    bool stream;
    message_blocks blocks;
} message_writer;

static json_t *message_of(const message_writer *w, json_t *content, const chat_job *j, const chat_sample *s) {
    return message_json(exchange_id(w->x), json_string_value(json_object_get(w->request, "model")), content, s,
                        chat_job_usage(j));
}

static void send_event(void *arg, const char *name, json_t *data) {
    exchange_event_json(((message_writer *)arg)->x, name, data);
}

static void begin(void *arg, chat_job *j) {
    message_writer *w = arg;
    if (!w->stream) return;
    exchange_stream(w->x);
    send_event(w, "message_start",
               json_pack("{s:s, s:o}", "type", "message_start", "message", message_of(w, NULL, j, NULL)));
    send_event(w, "ping", json_pack("{s:s}", "type", "ping"));
}

static void piece(void *arg, chat_job *j, int sample, const hadal_piece *p, const json_t *logprobs) {
    (void)logprobs;
    const chat_sample *s = chat_job_sample(j, sample);
    message_blocks_piece(&((message_writer *)arg)->blocks, p, s->n_calls ? s->calls[s->n_calls - 1].id : NULL);
}

static void finish(void *arg, chat_job *j, int sample) {
    (void)j;
    (void)sample;
    message_blocks_finish(&((message_writer *)arg)->blocks);
}

static void end(void *arg, chat_job *j) {
    message_writer *w = arg;
    const chat_sample *s = chat_job_sample(j, 0);
    json_t *message = message_of(w, json_incref(w->blocks.content), j, s);
    if (message && message_thread_kept(w->request)) message_thread_keep(w->s, w->request, message);
    if (!w->stream) {
        exchange_json(w->x, 200, message);
        return;
    }
    send_event(w, "message_delta",
               json_pack("{s:s, s:{s:O, s:O}, s:O}", "type", "message_delta", "delta", "stop_reason",
                         json_object_get(message, "stop_reason"), "stop_sequence",
                         json_object_get(message, "stop_sequence"), "usage", json_object_get(message, "usage")));
    send_event(w, "message_stop", json_pack("{s:s}", "type", "message_stop"));
    json_decref(message);
    exchange_end(w->x);
}

static void failed(void *arg, chat_job *j, int code, const char *message) {
    message_writer *w = arg;
    (void)j;
    if (code) exchange_error(w->x, code, NULL, NULL, "%s", message); /* in a stream: an event */
    else exchange_end(w->x);
}

static void release(void *arg) {
    message_writer *w = arg;
    message_blocks_free(&w->blocks);
    json_decref(w->request);
    free(w);
}

static const chat_writer writer = {begin, piece, finish, end, failed, release};

/* The translated request, or false: it was answered with an error. */
static bool translate(exchange *x, const json_t *request, bool counting, translation *t) {
    if (messages_translate(t, request, counting)) return true;
    exchange_error(x, t->status == 500 ? 500 : 400, t->param, NULL, "%s", t->text); /* the API knows no 422 */
    return false;
}

static void start(server *s, exchange *x, json_t *request, const json_t *body) {
    message_writer *w = calloc(1, sizeof *w);
    if (!w) {
        exchange_error(x, 500, NULL, NULL, "memory is out");
        return;
    }
    *w = (message_writer){.s = s, .x = x, .request = json_incref(request)};
    w->stream = json_is_true(json_object_get(request, "stream"));
    w->blocks = (message_blocks){.signature = exchange_id(x), .event = w->stream ? send_event : NULL, .arg = w};
    chat_start(s, x, body, &writer, w);
}

void handle_messages(server *s, exchange *x) {
    translation t = {0};
    json_t *request = chat_parse_body(x);
    if (request && message_thread_open(s, x, request) && translate(x, request, false, &t)) start(s, x, request, t.body);
    translation_end(&t);
    json_decref(request);
}

void handle_count_tokens(server *s, exchange *x) {
    translation t = {0};
    json_t *request = chat_parse_body(x);
    if (request && translate(x, request, true, &t)) {
        int n = chat_count_tokens(s, x, t.body);
        if (n >= 0) exchange_json(x, 200, json_pack("{s:i}", "input_tokens", n));
    }
    translation_end(&t);
    json_decref(request);
}
