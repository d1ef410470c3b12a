#include "text/grammar.h"

#include <stdlib.h>
#include <string.h>
#include "text/grammar_inner.h"
#include "text/grammar_text.h"
#include "text/json_schema.h"

static int32_t newlines(rules *r, int32_t next) {
    for (int i = 0; i < 2; i++) next = rules_either(r, rules_word(r, "\n", next), next);
    return next;
}

/* The answer proper, and any reasoning up to </think> before it. */
static status add_thinking(rules *r, int32_t *start, error *e) {
    free_text f = {.marker = {"</think>"}, .follows = {newlines(r, *start)}, .n = 1, .also = NEVER};
    return grammar_free_text(r, &f, start, e);
}

static status compile_type(grammar *g, const answer_format *format, const json_t *spec, const char *type,
                           int32_t *start, error *e) {
    json_text t;
    int32_t rule;
    if (!strcmp(type, "tools")) return grammar_tools(&g->r, g->bytes, format, spec, start, e);
    json_text_open(&t, &g->r, false);
    if (!strcmp(type, "json_object")) rule = t.object;
    else if (!strcmp(type, "json_schema")) {
        const json_t *schema = json_object_get(spec, "schema");
        if (!schema) return fail(e, ERR_ARG, "json_schema: there is no \"schema\"");
        TRY(json_schema_rule(&t, schema, &rule, e));
    } else return fail(e, ERR_ARG, "a grammar of type \"%.60s\": json_object, json_schema and tools are there", type);
    *start = rules_call(&g->r, rule, RETURN);
    return OK;
}

/* A wrong type in the specification is the caller's mistake, not that of a file. */
static status ask(status s, error *e) {
    if (s == ERR_FORMAT && e) e->code = ERR_ARG;
    return s == ERR_FORMAT ? ERR_ARG : s;
}

/* Where JSON begins whose keys are watched. In V3.2's calls arguments stand one by one between texts that are no JSON:
 * there only properties can be keys, but for objects within an argument. */
static void watch_keys(grammar *g, const answer_format *format, const json_t *spec, const char *type, bool thinking) {
    const json_t *choice = json_object_get(spec, "choice");
    const bool tools = !strcmp(type, "tools"), free_start = !choice || !strcmp(json_string_value(choice), "auto");
    g->watch_keys = !tools || strcmp(answer_format_name(format), "deepseek-v3.2");
    if (thinking) g->json_behind[0][0] = "</think>";
    if (tools && free_start) {
        g->json_behind[1][0] = "<｜tool▁calls▁begin｜>";
        g->json_behind[1][1] = "<｜tool▁call▁begin｜>";
    }
}

static status compile(grammar *g, const answer_format *format, const json_t *spec, error *e) {
    const char *type;
    bool thinking;
    int32_t start;
    if (!json_is_object(spec)) return fail(e, ERR_ARG, "the specification of a grammar should be an object");
    TRY(ask(json_get_string(spec, "type", "", &type, e), e));
    TRY(ask(json_get_bool(spec, "thinking", false, &thinking, e), e));
    TRY(rules_open(&g->r, e));
    TRY(compile_type(g, format, spec, type, &start, e));
    if (thinking) TRY(add_thinking(&g->r, &start, e));
    watch_keys(g, format, spec, type, thinking);
    g->start = rules_rule_of(&g->r, false, start);
    return rules_finish(&g->r, g->bytes, g->start, e);
}

status grammar_open(grammar **out, const token_bytes *b, const answer_format *format, const json_t *spec, error *e) {
    grammar *g = *out = calloc(1, sizeof *g);
    if (!g) return fail(e, ERR_NOMEM, "memory is out");
    g->bytes = b;
    status s = compile(g, format, spec, e);
    if (s == OK) return OK;
    grammar_close(g);
    *out = NULL;
    return s;
}

void grammar_close(grammar *g) {
    if (!g) return;
    rules_close(&g->r);
    free(g);
}
