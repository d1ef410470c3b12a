/* Texts to tokens and back, in the forms of vLLM ("prompt", "messages") and llama.cpp ("content"), and what clients
 * that have no tokenizer of their own (lm-evaluation-harness) want to know about it. */
#include <stdlib.h>
#include <string.h>
#include "server/chat.h"
#include "server/handlers.h"

/* The client's mistakes are 400, ours 500. */
static void answer_failure(exchange *x, const hadal_error *e) {
    bool ours = e->code == HADAL_ERR_NOMEM || e->code == HADAL_ERR_IO;
    exchange_error(x, ours ? 500 : 400, NULL, NULL, "%s", e->text);
}

/* false: answered with an error. */
static bool get_switch(exchange *x, const json_t *body, const char *key, bool fallback, bool *out) {
    error e;
    if (json_get_bool(body, key, fallback, out, &e) == OK) return true;
    exchange_error(x, 400, key, NULL, "%s", e.text);
    return false;
}

static bool has(const json_t *body, const char *key) {
    const json_t *v = json_object_get(body, key);
    return v && !json_is_null(v);
}

/* --- to tokens -------------------------------------------------------------------------------------------------- */

static bool tokenize_text(server *s, exchange *x, const json_t *body, const char *key, int32_t **ids, size_t *n) {
    const json_t *text = json_object_get(body, key);
    bool vllm = strcmp(key, "prompt") == 0, add, special;
    if (!json_is_string(text)) {
        exchange_error(x, 400, key, NULL, "\"%s\" should be a string", key);
        return false;
    }
    if (!get_switch(x, body, vllm ? "add_special_tokens" : "add_special", vllm, &add) ||
        !get_switch(x, body, "parse_special", true, &special))
        return false;
    hadal_error e;
    unsigned flags = (add ? HADAL_ADD_SPECIAL : 0u) | (special ? HADAL_PARSE_SPECIAL : 0u);
    if (!hadal_tokenize(server_tokenizer(s), json_string_value(text), json_string_length(text), flags, ids, n, &e))
        return true;
    answer_failure(x, &e);
    return false;
}

/* The template's options of a body: "chat_template_kwargs" and what vLLM has at the top. NULL: memory is out. */
static char *template_options(const json_t *body) {
    static const char *const keys[] = {"add_generation_prompt", "continue_final_message", "tools"};
    const json_t *more = json_object_get(body, "chat_template_kwargs");
    json_t *o = json_is_object(more) ? json_copy((json_t *)more) : json_object();
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (has(body, keys[i])) json_object_set(o, keys[i], json_object_get(body, keys[i]));
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    return text;
}

static bool tokenize_messages(server *s, exchange *x, const json_t *body, int32_t **ids, size_t *n) {
    const json_t *messages = json_object_get(body, "messages");
    if (!json_is_array(messages) || !json_array_size(messages)) {
        exchange_error(x, 400, "messages", NULL, "\"messages\" should be a list with at least one message");
        return false;
    }
    char *text = json_dumps(messages, JSON_COMPACT), *options = template_options(body);
    hadal_error e = {.code = HADAL_ERR_NOMEM, .text = "memory is out"};
    bool fine = text && options && !hadal_chat_encode(server_model(s), text, options, ids, n, NULL, &e);
    if (!fine) answer_failure(x, &e);
    free(text);
    free(options);
    return fine;
}

/* How a token is called in a list, or {"id", "piece"} as llama.cpp has it: text, or bytes when it is none. */
static json_t *piece(const server *s, int32_t id) {
    size_t n = 0;
    const char *bytes = hadal_token_bytes(server_tokenizer(s), id, &n);
    json_t *v = bytes ? json_stringn(bytes, n) : json_null();
    if (v) return v;
    v = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(v, json_integer((unsigned char)bytes[i]));
    return v;
}

static json_t *token_string(const server *s, int32_t id) {
    char *text = NULL;
    hadal_error e;
    json_t *v = hadal_token_text(server_tokenizer(s), id, &text, &e) ? NULL : json_string(text);
    hadal_free(text);
    return v ? v : json_null();
}

static json_t *tokens_json(const server *s, const int32_t *ids, size_t n, bool pieces, bool strings) {
    hadal_engine_stats stats = {.size = sizeof stats};
    hadal_engine_get_stats(server_engine(s), &stats);
    json_t *tokens = json_array(), *names = strings ? json_array() : json_null();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(tokens, pieces ? json_pack("{s:i, s:o}", "id", ids[i], "piece", piece(s, ids[i]))
                                             : json_integer(ids[i]));
        if (strings) json_array_append_new(names, token_string(s, ids[i]));
    }
    return json_pack("{s:I, s:i, s:o, s:o}", "count", (json_int_t)n, "max_model_len", stats.context, "tokens", tokens,
                     "token_strs", names);
}

/* "You have no tokenizer" is the server's fault, but not one that a repetition mends. */
static bool need_tokenizer(server *s, exchange *x) {
    if (server_tokenizer(s)) return true;
    exchange_error(x, 501, NULL, NULL, "the model's folder has no tokenizer");
    return false;
}

void handle_tokenize(server *s, exchange *x) {
    json_t *body = need_tokenizer(s, x) ? chat_parse_body(x) : NULL;
    if (!body) return;
    int32_t *ids = NULL;
    size_t n = 0;
    bool pieces, strings,
        fine = get_switch(x, body, "with_pieces", false, &pieces) &&
               get_switch(x, body, "return_token_strs", false, &strings);
    if (fine && has(body, "messages")) fine = tokenize_messages(s, x, body, &ids, &n);
    else if (fine) fine = tokenize_text(s, x, body, has(body, "content") ? "content" : "prompt", &ids, &n);
    if (fine) exchange_json(x, 200, tokens_json(s, ids, n, pieces, strings));
    hadal_free(ids);
    json_decref(body);
}

/* --- and back --------------------------------------------------------------------------------------------------- */

/* The ids of a list, malloc'd; NULL: answered with an error. */
static int32_t *read_ids(const server *s, exchange *x, const json_t *list) {
    size_t n = json_array_size(list);
    int size = hadal_tokenizer_size(server_tokenizer(s));
    int32_t *ids = calloc(n + 1, sizeof *ids);
    if (!ids) exchange_json(x, 500, NULL);
    for (size_t i = 0; ids && i < n; i++) {
        const json_t *v = json_array_get(list, i);
        json_int_t id = json_integer_value(v);
        if (json_is_integer(v) && id >= 0 && id < size) ids[i] = (int32_t)id;
        else {
            exchange_error(x, json_is_integer(v) ? 422 : 400, "tokens", NULL,
                           "token number %zu should be a whole number from 0 to %d", i, size - 1);
            free(ids);
            ids = NULL;
        }
    }
    return ids;
}

void handle_detokenize(server *s, exchange *x) {
    json_t *body = need_tokenizer(s, x) ? chat_parse_body(x) : NULL;
    if (!body) return;
    const json_t *list = json_object_get(body, "tokens");
    int32_t *ids = NULL;
    if (json_is_array(list)) ids = read_ids(s, x, list);
    else exchange_error(x, 400, "tokens", NULL, "\"tokens\" should be a list of token ids");
    if (ids) {
        char *text = NULL;
        size_t n = 0;
        hadal_error e;
        if (hadal_detokenize(server_tokenizer(s), ids, json_array_size(list), 0, &text, &n, &e)) answer_failure(x, &e);
        else exchange_json(x, 200, json_pack("{s:s%, s:s%}", "prompt", text, n, "content", text, n));
        hadal_free(text);
    }
    free(ids);
    json_decref(body);
}

void handle_tokenizer_info(server *s, exchange *x) {
    char *text = NULL;
    hadal_error e;
    if (!need_tokenizer(s, x)) return;
    if (hadal_tokenizer_info(server_tokenizer(s), &text, &e)) answer_failure(x, &e);
    else exchange_text(x, 200, "application/json", text, strlen(text));
    hadal_free(text);
}
