/* The list of models, which has one entry: in OpenAI's form, with what vLLM and Anthropic's clients look for besides.
 */
#include <string.h>
#include <time.h>
#include "server/handlers.h"

static json_t *entry(const server *s) {
    hadal_engine_stats stats = {.size = sizeof stats};
    hadal_engine_get_stats(server_engine(s), &stats);
    const char *id = server_model_id(s);
    char created[32];
    time_t at = (time_t)server_started(s);
    struct tm t;
    gmtime_r(&at, &t);
    strftime(created, sizeof created, "%Y-%m-%dT%H:%M:%SZ", &t);
    return json_pack("{s:s, s:s, s:I, s:s, s:s, s:n, s:i, s:s, s:s, s:s}", "id", id, "object", "model", "created",
                     (json_int_t)at, "owned_by", "hadal", "root", id, "parent", "max_model_len", stats.context, "type",
                     "model", "display_name", id, "created_at", created);
}

void handle_models(server *s, exchange *x) {
    const char *id = server_model_id(s);
    exchange_json(x, 200,
                  json_pack("{s:s, s:[o], s:b, s:s, s:s}", "object", "list", "data", entry(s), "has_more", 0,
                            "first_id", id, "last_id", id));
}

void handle_model(server *s, exchange *x) {
    const char *id = server_model_id(s);
    if (strcmp(exchange_tail(x), id) == 0) exchange_json(x, 200, entry(s));
    else
        exchange_error(x, 404, "model", "model_not_found", "there is no model '%s' here; this server has '%s'",
                       exchange_tail(x), id);
}

void handle_embeddings(server *s, exchange *x) {
    (void)s;
    exchange_error(x, 501, NULL, "not_implemented", "this server makes no embeddings; its models write text");
}
