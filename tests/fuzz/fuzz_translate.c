/* Requests of /v1/messages and /v1/responses: anything that is JSON is a chat completion's body, or a fault that has a
 * status, a place and a text. */
#include <stdlib.h>
#include "server/messages.h"
#include "server/responses.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static json_t *find(void *arg, const char *id) {
    return *id ? json_incref(arg) : NULL;
}

static void check(const translation *t, bool good) {
    if (good ? t->status || !json_is_array(json_object_get(t->body, "messages")) : t->status < 400 || !*t->text)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    json_t *request;
    if (json_parse(&request, (const char *)data, n, "request", NULL) != OK) return 0;
    translation t;
    bool good = messages_translate(&t, request, false);
    check(&t, good);
    translation_end(&t);
    response_request q;
    good = response_translate(&q, request, json_object_get(request, "input"), find, request);
    check(&q.t, good);
    response_request_free(&q);
    json_decref(request);
    return 0;
}
