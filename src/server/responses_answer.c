/* An answer's pieces as output items and the events of a stream. */
#include <string.h>
#include "server/responses.h"

/* --- events ------------------------------------------------------------------------------------------------------- */

static const char *word(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static bool is(const json_t *item, const char *type) {
    return !strcmp(word(item, "type"), type);
}

/* An event about the open item: its members by json_pack, and where the item stands. */
static void tell(response_items *r, const char *name, json_t *data) {
    if (!r->event) {
        json_decref(data);
        return;
    }
    json_object_set_new(data, "output_index", json_integer((json_int_t)json_array_size(r->output)));
    r->event(r->arg, name, data);
}

/* An event about a part of the open item. */
static void tell_part(response_items *r, const char *name, json_t *data) {
    json_object_set(data, "item_id", json_object_get(r->open, "id"));
    tell(r, name, data);
}

static json_t *text_part(const response_items *r, const char *text_type) {
    json_t *part = json_pack("{s:s, s:o}", "type", text_type, "text", json_of(&r->text));
    if (part && !strcmp(text_type, "output_text")) {
        json_object_set_new(part, "annotations", json_array());
        json_object_set_new(part, "logprobs", r->logprobs ? json_incref(r->logprobs) : json_array());
    }
    return part;
}

/* --- items: begin, grow, end -------------------------------------------------------------------------------------- */

static const char *part_type(const response_items *r) {
    if (is(r->open, "message")) return "output_text";
    return r->q->summary ? "summary_text" : "reasoning_text";
}

static const char *part_index(const response_items *r) {
    return is(r->open, "reasoning") && r->q->summary ? "summary_index" : "content_index";
}

/* "response.content_part.added" or what it is called in a summary. */
static void tell_part_is(response_items *r, const char *in_content, const char *in_summary) {
    const bool summary = !strcmp(part_type(r), "summary_text");
    tell_part(r, summary ? in_summary : in_content,
              json_pack("{s:i, s:o}", part_index(r), 0, "part", text_part(r, part_type(r))));
}

static void begin(response_items *r, json_t *item, const char *prefix) {
    response_items_finish(r, true);
    if (!r->output) r->output = json_array();
    json_object_set_new(item, "id", json_sprintf("%s_%s_%zu", prefix, r->id, json_array_size(r->output)));
    json_object_set_new(item, "status", json_string("in_progress"));
    r->open = item;
    tell(r, "response.output_item.added", json_pack("{s:o}", "item", json_deep_copy(item)));
    if (is(item, "message") || is(item, "reasoning"))
        tell_part_is(r, "response.content_part.added", "response.reasoning_summary_part.added");
}

static void begin_call(response_items *r, const hadal_piece *p, const char *call_id) {
    json_t *name = json_stringn(p->text, p->n);
    const json_t *known = json_object_get(r->q->tools, name ? json_string_value(name) : "");
    const json_t *space = json_object_get(known, "namespace"), *own = json_object_get(known, "name");
    const bool custom = json_is_true(json_object_get(known, "custom"));
    json_t *item = json_pack("{s:s, s:s, s:O, s:s}", "type", custom ? "custom_tool_call" : "function_call", "call_id",
                             call_id, "name", own ? own : name, custom ? "input" : "arguments", "");
    if (json_is_string(space)) json_object_set(item, "namespace", json_object_get(known, "namespace"));
    json_decref(name);
    begin(r, item, custom ? "ctc" : "fc");
}

static void grow_text(response_items *r, const hadal_piece *p, const json_t *logprobs) {
    const char *type = part_type(r);
    json_t *data = json_pack("{s:i, s:o}", part_index(r), 0, "delta", json_stringn(p->text, p->n));
    str_add(&r->text, p->text, p->n);
    if (!strcmp(type, "output_text")) {
        json_object_set_new(data, "logprobs", logprobs ? json_copy((json_t *)(uintptr_t)logprobs) : json_array());
        if (logprobs && !r->logprobs) r->logprobs = json_array();
        if (logprobs) json_array_extend(r->logprobs, (json_t *)(uintptr_t)logprobs);
    }
    tell_part(r,
              !strcmp(type, "output_text")      ? "response.output_text.delta"
              : !strcmp(type, "reasoning_text") ? "response.reasoning_text.delta"
                                                : "response.reasoning_summary_text.delta",
              data);
}

static void end_text(response_items *r) {
    const char *type = part_type(r);
    json_t *data = json_pack("{s:i, s:o}", part_index(r), 0, "text", json_of(&r->text));
    if (!strcmp(type, "output_text"))
        json_object_set_new(data, "logprobs", r->logprobs ? json_incref(r->logprobs) : json_array());
    tell_part(r,
              !strcmp(type, "output_text")      ? "response.output_text.done"
              : !strcmp(type, "reasoning_text") ? "response.reasoning_text.done"
                                                : "response.reasoning_summary_text.done",
              data);
    tell_part_is(r, "response.content_part.done", "response.reasoning_summary_part.done");
    json_object_set_new(r->open, !strcmp(type, "summary_text") ? "summary" : "content",
                        json_pack("[o]", text_part(r, type)));
    if (is(r->open, "reasoning") && r->q->encrypted)
        json_object_set_new(r->open, "encrypted_content", json_of(&r->text));
}

/* The text in a custom tool's one argument; what is no such object goes out as it was written. */
static json_t *custom_input(const str *arguments) {
    json_t *o = json_loadb(arguments->p ? arguments->p : "", arguments->n, JSON_ALLOW_NUL, NULL);
    json_t *input = json_incref(json_object_get(o, "input"));
    json_decref(o);
    if (json_is_string(input)) return input;
    json_decref(input);
    return json_of(arguments);
}

static void grow_arguments(response_items *r, const char *p, size_t n) {
    str_add(&r->text, p, n);
    if (is(r->open, "function_call"))
        tell_part(r, "response.function_call_arguments.delta", json_pack("{s:o}", "delta", json_stringn(p, n)));
}

static void end_call(response_items *r) {
    if (is(r->open, "function_call")) {
        if (!r->text.n) grow_arguments(r, "{}", 2);
        json_object_set_new(r->open, "arguments", json_of(&r->text));
        tell_part(r, "response.function_call_arguments.done",
                  json_pack("{s:O, s:O}", "name", json_object_get(r->open, "name"), "arguments",
                            json_object_get(r->open, "arguments")));
        return;
    }
    json_t *input = custom_input(&r->text);
    json_object_set(r->open, "input", input);
    tell_part(r, "response.custom_tool_call_input.delta", json_pack("{s:O}", "delta", input));
    tell_part(r, "response.custom_tool_call_input.done", json_pack("{s:o}", "input", input));
}

void response_items_finish(response_items *r, bool complete) {
    if (!r->open) return;
    if (is(r->open, "message") || is(r->open, "reasoning")) end_text(r);
    else end_call(r);
    json_object_set_new(r->open, "status", json_string(complete ? "completed" : "incomplete"));
    tell(r, "response.output_item.done", json_pack("{s:O}", "item", r->open));
    json_array_append_new(r->output, r->open);
    r->open = NULL;
    json_decref(r->logprobs);
    r->logprobs = NULL;
    str_free(&r->text);
}

static void begin_text(response_items *r, const char *type) {
    if (is(r->open, type)) return;
    if (*type == 'm') begin(r, json_pack("{s:s, s:s, s:[]}", "type", type, "role", "assistant", "content"), "msg");
    else begin(r, json_pack("{s:s, s:[]}", "type", type, "summary"), "rs");
}

void response_items_piece(response_items *r, const hadal_piece *p, const char *call_id, const json_t *logprobs) {
    if (p->kind == HADAL_PIECE_CALL) begin_call(r, p, call_id);
    else if (p->kind == HADAL_PIECE_CALL_END) response_items_finish(r, true);
    else if (p->kind == HADAL_PIECE_ARGUMENTS && p->n) grow_arguments(r, p->text, p->n);
    else if (p->n) {
        begin_text(r, p->kind == HADAL_PIECE_REASONING ? "reasoning" : "message");
        grow_text(r, p, logprobs);
    }
}

void response_items_free(response_items *r) {
    json_decref(r->output);
    json_decref(r->open);
    json_decref(r->logprobs);
    str_free(&r->text);
}

/* --- the response ------------------------------------------------------------------------------------------------- */

static json_t *response_usage(const chat_usage *u) {
    if (!u) return json_null();
    return json_pack("{s:i, s:{s:i, s:i}, s:i, s:{s:i}, s:i}", "input_tokens", u->prompt_tokens, "input_tokens_details",
                     "cached_tokens", u->cached_tokens, "cache_write_tokens", 0, "output_tokens", u->completion_tokens,
                     "output_tokens_details", "reasoning_tokens", u->reasoning_tokens, "total_tokens",
                     u->prompt_tokens + u->completion_tokens);
}

/* What the request said, or what is understood where it said nothing: JSON. */
static const struct {
    const char *key, *understood;
} echoed[] = {{"background", "false"},
              {"instructions", "null"},
              {"max_output_tokens", "null"},
              {"max_tool_calls", "null"},
              {"metadata", "{}"},
              {"parallel_tool_calls", "true"},
              {"previous_response_id", "null"},
              {"prompt_cache_key", "null"},
              {"reasoning", "{\"effort\": null, \"summary\": null}"},
              {"safety_identifier", "null"},
              {"store", "true"},
              {"temperature", "null"},
              {"text", "{\"format\": {\"type\": \"text\"}}"},
              {"tool_choice", "\"auto\""},
              {"tools", "[]"},
              {"top_logprobs", "0"},
              {"top_p", "null"},
              {"truncation", "\"disabled\""},
              {"user", "null"}};

json_t *response_json(const char *id, const char *model, const json_t *request, const json_t *output, const char *state,
                      int64_t created, const chat_usage *usage) {
    const char *reason = !strcmp(state, "incomplete") ? "max_output_tokens" : NULL;
    json_t *o = json_pack("{s:s+, s:s, s:I, s:s, s:n, s:o, s:s, s:s, s:o}", "id", "resp_", id, "object", "response",
                          "created_at", (json_int_t)created, "status", state, "error", "incomplete_details",
                          reason ? json_pack("{s:s}", "reason", reason) : json_null(), "model", model, "service_tier",
                          "default", "usage", response_usage(usage));
    json_object_set_new(o, "output", output ? json_copy((json_t *)(uintptr_t)output) : json_array());
    for (size_t i = 0; i < sizeof echoed / sizeof *echoed; i++) {
        json_t *said = json_object_get(request, echoed[i].key);
        if (said && !json_is_null(said)) json_object_set(o, echoed[i].key, said);
        else json_object_set_new(o, echoed[i].key, json_loads(echoed[i].understood, JSON_DECODE_ANY, NULL));
    }
    return o;
}
