/* Threads of the Messages API (its beta message-threads-2026-08-12, what its Python client's tool runner asks for): the
 * server keeps a conversation under its last message's id, and the next request sends only what is new. */
#include <string.h>
#include "server/messages.h"
#include "server/responses_memory.h"

static const char *thread_type(const json_t *request) {
    const char *type = json_string_value(json_object_get(json_object_get(request, "thread"), "type"));
    return type ? type : "";
}

bool message_thread_kept(const json_t *request) {
    return *thread_type(request) != 0;
}

/* What is new goes behind what is kept; system prompt and tools are those of the thread's beginning. */
static bool join(json_t *request, json_t *kept) {
    json_t *messages = json_object_get(kept, "messages");
    if (json_array_extend(messages, json_object_get(request, "messages"))) return false;
    return json_object_update(request, kept) == 0;
}

bool message_thread_open(server *s, exchange *x, json_t *request) {
    if (strcmp(thread_type(request), "continue") != 0) return true;
    bool good = false;
    const char *id = json_string_value(json_object_get(json_object_get(request, "thread"), "previous_message_id"));
    json_t *kept = id ? response_memory_items(server_responses(s), id) : NULL;
    if (!kept) /* the client looks for error_code, and sends the whole conversation */
        exchange_json(x, 404,
                      json_pack("{s:s, s:{s:s, s:s, s:{s:s}}}", "type", "error", "error", "type", "not_found_error",
                                "message", "the thread is not known (any more): send all messages", "details",
                                "error_code", "thread_not_found"));
    else if (join(request, kept)) good = true;
    else exchange_error(x, 400, "messages", NULL, "messages: should be a list");
    json_decref(kept);
    return good;
}

void message_thread_keep(server *s, const json_t *request, const json_t *message) {
    static const char *const fixed[] = {"system", "tools"};
    json_t *messages = json_copy(json_object_get(request, "messages")), *kept = json_object();
    json_array_append_new(messages,
                          json_pack("{s:s, s:O}", "role", "assistant", "content", json_object_get(message, "content")));
    json_object_set_new(kept, "messages", messages);
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        if (json_object_get(request, fixed[i])) json_object_set(kept, fixed[i], json_object_get(request, fixed[i]));
    response_memory_add(server_responses(s), message, kept);
    json_decref(kept);
}
