/* Tool calls in the formats that text/toolcall.c reads. All have one shape:
 *
 *   opens begin BODY (between begin BODY)* closes
 *
 * and differ in what a body is: from a tool's name to the end of its call. Inside of arguments nothing can be taken for
 * a marker: markers hold U+FF5C, which JSON is made to escape there, and strings that stand as they are end at the
 * first marker that closes them. */
#include <stdlib.h>
#include <string.h>
#include "text/grammar_text.h"
#include "text/json_schema.h"

#define DSML "｜DSML｜"

enum { MAX_CALLS = 128, MAX_NAME = 256 };

typedef struct tools tools;
typedef struct call_format {
    const char *name, *before, *opens, *behind; /* before: may stand in front, where nothing else does */
    const char *begin, *between, *closes;
    bool bare; /* in free text a call may begin without `opens` */
    status (*body)(tools *c, const json_t *tool, int32_t *start);
} call_format;

struct tools {
    rules *r;
    const token_bytes *b;
    const call_format *f;
    json_text t;
    error *e;
    status failed; /* of markers */
};

static int32_t marker(tools *c, const char *m, int32_t next) {
    int32_t start = NEVER;
    if (c->failed == OK) c->failed = grammar_marker(c->r, c->b, m, next, &start, c->e);
    return start;
}

/* ---- one tool ---- */

static const char *name_of(const json_t *tool) {
    return json_string_value(json_object_get(tool, "name"));
}

/* The schema of a tool's arguments, which are an object; NULL: any object. The reference is the caller's. */
static status read_parameters(tools *c, const json_t *tool, json_t **out) {
    const json_t *p = json_object_get(tool, "parameters");
    *out = NULL;
    if (!p || json_is_null(p) || json_is_true(p) || (json_is_object(p) && json_object_size(p) == 0)) return OK;
    const json_t *type = json_object_get(p, "type"), *one;
    bool object = !type || (json_is_string(type) && !strcmp(json_string_value(type), "object"));
    size_t i;
    json_array_foreach(type, i, one) object |= json_is_string(one) && !strcmp(json_string_value(one), "object");
    if (!json_is_object(p) || !object)
        return fail(c->e, ERR_ARG, "\"parameters\" should be a schema of type \"object\"");
    *out = json_copy((json_t *)p);
    if (*out && !json_object_set_new(*out, "type", json_string("object"))) return OK;
    json_decref(*out);
    return fail(c->e, ERR_NOMEM, "memory is out");
}

static status arguments(tools *c, const json_t *tool, int32_t next, int32_t *start) {
    json_t *schema;
    int32_t rule = c->t.object;
    TRY(read_parameters(c, tool, &schema));
    status s = schema ? json_schema_rule(&c->t, schema, &rule, c->e) : OK;
    json_decref(schema);
    *start = rules_call(c->r, rule, next);
    return s;
}

static status body_v3(tools *c, const json_t *tool, int32_t *start) {
    int32_t end = rules_word(c->r, "\n```", marker(c, "<｜tool▁call▁end｜>", RETURN));
    TRY(arguments(c, tool, end, start));
    *start = rules_word(c->r, name_of(tool), rules_word(c->r, "\n```json\n", *start));
    *start = rules_word(c->r, "function", marker(c, "<｜tool▁sep｜>", *start));
    return OK;
}

static status body_v31(tools *c, const json_t *tool, int32_t *start) {
    TRY(arguments(c, tool, marker(c, "<｜tool▁call▁end｜>", RETURN), start));
    *start = rules_word(c->r, name_of(tool), marker(c, "<｜tool▁sep｜>", *start));
    return OK;
}

/* ---- V3.2: one element for each argument ---- */

/* A string as it is, up to what ends its element: by itself or, where that has a token, by this token. */
static int32_t raw_string(tools *c, int32_t next) {
    int32_t start = NEVER;
    free_text f = {.marker = {"</" DSML "parameter>"}, .follows = {next}, .n = 1, .strict = true};
    f.also = marker(c, f.marker[0], next);
    if (c->failed == OK) c->failed = grammar_free_text(c->r, &f, &start, c->e);
    return start;
}

static int32_t parameter(void *user, text name, bool string, int32_t value, int32_t next) {
    tools *c = user;
    next = rules_word(c->r, "\n", next);
    int32_t start = string && value == NEVER ? raw_string(c, next)
                                             : rules_call(c->r, value, marker(c, "</" DSML "parameter>", next));
    start = rules_word(c->r, string ? "\" string=\"true\">" : "\" string=\"false\">", start);
    return marker(c, "<" DSML "parameter name=\"", rules_literal(c->r, name.p, name.n, start));
}

/* Arguments of a tool that says nothing about them. */
static int32_t any_parameters(tools *c, int32_t next) {
    rules *r = c->r;
    int32_t letter = rules_either(r, rules_bytes(r, 'a', 'z', RETURN), rules_bytes(r, 'A', 'Z', RETURN));
    letter = rules_rule_of(r, false, rules_either(r, letter, rules_word(r, "_", RETURN)));
    int32_t string = rules_word(r, "\" string=\"true\">", raw_string(c, rules_word(r, "\n", RETURN)));
    int32_t end = marker(c, "</" DSML "parameter>", rules_word(r, "\n", RETURN));
    int32_t json = rules_word(r, "\" string=\"false\">", json_value(&c->t, end));
    int32_t name = rules_repeat(r, letter, 1, MAX_NAME, rules_either(r, string, json));
    int32_t one = rules_rule_of(r, false, marker(c, "<" DSML "parameter name=\"", name));
    return rules_either(r, rules_call(r, one, next), next);
}

static status body_v32(tools *c, const json_t *tool, int32_t *start) {
    int32_t end = marker(c, "</" DSML "invoke>", rules_word(c->r, "\n", RETURN));
    json_t *schema;
    TRY(read_parameters(c, tool, &schema));
    parameter_frame f = {parameter, c};
    status s = OK;
    if (schema) s = json_schema_parameters(&c->t, schema, &f, end, start, c->e);
    else *start = any_parameters(c, end);
    json_decref(schema);
    *start = rules_word(c->r, name_of(tool), rules_word(c->r, "\">\n", *start));
    return s;
}

static const call_format formats[] = {{"deepseek-v3.2", "\n\n", "<" DSML "function_calls>", "\n",
                                       "<" DSML "invoke name=\"", "", "</" DSML "function_calls>", false, body_v32},
                                      {"deepseek-v3.1", "", "<｜tool▁calls▁begin｜>", "", "<｜tool▁call▁begin｜>", "",
                                       "<｜tool▁calls▁end｜>", true, body_v31},
                                      {"deepseek-r1", "", "<｜tool▁calls▁begin｜>", "", "<｜tool▁call▁begin｜>", "\n",
                                       "<｜tool▁calls▁end｜>", true, body_v3},
                                      {"deepseek-v3", "", "<｜tool▁calls▁begin｜>", "", "<｜tool▁call▁begin｜>", "\n",
                                       "<｜tool▁calls▁end｜>", true, body_v3}};

/* ---- all tools ---- */

/* The tool of entry i, out of OpenAI's {"type": "function", "function": tool} or by itself. */
static status read_tool(tools *c, const json_t *list, size_t i, const json_t **out) {
    const json_t *entry = json_array_get(list, i), *f = json_object_get(entry, "function");
    *out = f ? f : entry;
    const char *name = name_of(*out);
    if (!name) return fail(c->e, ERR_ARG, "a tool should be an object with a \"name\"");
    size_t n = strlen(name);
    if (n == 0 || n > MAX_NAME || strpbrk(name, "<>\"{}[]\n") || name[0] == ' ' || name[n - 1] == ' ')
        return fail(c->e, ERR_ARG, "\"%.60s\" cannot be the name of a tool", name);
    for (size_t k = 0; k < n; k++)
        if ((unsigned char)name[k] < 0x20) return fail(c->e, ERR_ARG, "\"%.60s\" cannot be the name of a tool", name);
    for (size_t k = 0; k < i; k++) {
        const json_t *other = json_array_get(list, k), *g = json_object_get(other, "function");
        if (!strcmp(name_of(g ? g : other), name)) return fail(c->e, ERR_ARG, "two tools are named \"%.60s\"", name);
    }
    return OK;
}

/* A rule of the bodies of the tools that may be called; choice: "auto", "required" or one tool's name. */
static status add_bodies(tools *c, const json_t *list, const char *choice, int32_t *rule) {
    const bool all = !strcmp(choice, "auto") || !strcmp(choice, "required");
    int32_t start = NEVER, one = NEVER;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *tool;
        status s = read_tool(c, list, i, &tool);
        bool named = s == OK && (all || !strcmp(choice, name_of(tool)));
        if (named) s = c->f->body(c, tool, &one);
        if (s == OK) s = c->failed;
        if (s != OK) return wrap(c->e, "tools[%zu]", i);
        if (named) start = rules_either(c->r, start, one);
    }
    if (start == NEVER) return fail(c->e, ERR_ARG, "\"choice\": there is no tool \"%.60s\"", choice);
    *rule = rules_rule_of(c->r, false, start);
    return OK;
}

/* What follows the first `begin`: a body, perhaps more calls, and the end. */
static int32_t add_calls(tools *c, int32_t body, bool parallel) {
    rules *r = c->r;
    int32_t more = marker(c, c->f->begin, rules_call(r, body, RETURN));
    more = rules_rule_of(r, false, rules_either(r, *c->f->between ? rules_word(r, c->f->between, more) : NEVER, more));
    int32_t end = marker(c, c->f->closes, RETURN);
    return rules_call(r, body, rules_repeat(r, more, 0, parallel ? MAX_CALLS - 1 : 0, end));
}

static status compile(tools *c, const json_t *spec, int32_t *start) {
    const json_t *list = json_object_get(spec, "tools");
    const char *choice;
    bool parallel;
    int32_t body = NEVER;
    if (!json_is_array(list) || json_array_size(list) == 0)
        return fail(c->e, ERR_ARG, "\"tools\" should be a list of tools");
    TRY(json_get_string(spec, "choice", "auto", &choice, c->e));
    TRY(json_get_bool(spec, "parallel", true, &parallel, c->e));
    TRY(add_bodies(c, list, choice, &body));
    bool named = strcmp(choice, "auto") && strcmp(choice, "required");
    int32_t first = add_calls(c, body, parallel && !named);
    int32_t calls = rules_word(c->r, c->f->behind, marker(c, c->f->begin, first));
    if (c->failed == OK && !strcmp(choice, "auto")) {
        free_text f = {.marker = {c->f->opens, c->f->begin}, .follows = {calls, first}, .n = c->f->bare ? 2 : 1};
        f.also = RETURN;
        return grammar_free_text(c->r, &f, start, c->e);
    }
    *start = marker(c, c->f->opens, calls);
    if (*c->f->before) *start = rules_either(c->r, rules_word(c->r, c->f->before, *start), *start);
    return c->failed;
}

status grammar_tools(rules *r, const token_bytes *b, const answer_format *format, const json_t *spec, int32_t *start,
                     error *e) {
    tools c = {.r = r, .b = b, .e = e};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (!strcmp(formats[i].name, answer_format_name(format))) c.f = formats + i;
    if (!c.f) return fail(e, ERR_UNSUPPORTED, "this checkpoint's chat template has no format of tool calls");
    json_text_open(&c.t, r, true);
    return compile(&c, spec, start);
}
