#include "server/chat_grammar.h"

#include <stdlib.h>
#include <string.h>

static status no_memory(mistake *m) {
    return mistaken(m, 500, NULL, "memory is out");
}

/* The code of hadal.h. Takes spec. */
static int open_spec(hadal_grammar **out, const hadal_model *model, json_t *spec, hadal_error *e) {
    char *text = spec ? json_dumps(spec, JSON_COMPACT) : NULL;
    int code = text ? hadal_grammar_open(out, model, text, e) : HADAL_ERR_NOMEM;
    free(text);
    json_decref(spec);
    return code;
}

/* ---- tools one by one ---- */

static json_t *loose_property(const json_t *schema) {
    json_t *type = json_object_get(schema, "type");
    return type ? json_pack("{s:O}", "type", type) : json_object();
}

/* The names of `required` that are properties: others could never be written. */
static json_t *loose_required(const json_t *names, const json_t *properties) {
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(names); i++) {
        json_t *name = json_array_get(names, i);
        const char *text = json_string_value(name);
        if (text && json_object_get(properties, text)) json_array_append(list, name);
    }
    return list;
}

json_t *chat_grammar_loosened(const json_t *parameters) {
    json_t *all = json_object_get(parameters, "properties"), *loose = json_object(), *one;
    const char *name;
    json_object_foreach(all, name, one) json_object_set_new(loose, name, loose_property(one));
    json_t *required = loose_required(json_object_get(parameters, "required"), loose);
    return json_pack("{s:s,s:o,s:o}", "type", "object", "properties", loose, "required", required);
}

static json_t *loosened(const json_t *tool) {
    json_t *copy = json_deep_copy(tool), *f = json_object_get(copy, "function");
    bool bad = json_object_set_new(f, "parameters", chat_grammar_loosened(json_object_get(f, "parameters"))) != 0;
    if (!bad) return copy;
    json_decref(copy);
    return NULL;
}

/* Whether a grammar of this tool alone can be had: a code of hadal.h. */
static int try_tool(const hadal_model *model, const json_t *tool, hadal_error *e) {
    hadal_grammar *g = NULL;
    int code =
        open_spec(&g, model, json_pack("{s:s,s:[O],s:s}", "type", "tools", "tools", tool, "choice", "required"), e);
    hadal_grammar_close(g);
    return code;
}

/* Adds the tool to the list as it is or loosened. ERR_UNSUPPORTED, without a mistake: it cannot be had at all. */
static status add_tool(json_t *list, const hadal_model *model, json_t *tool, size_t i, mistake *m) {
    hadal_error e, still;
    int code = try_tool(model, tool, &e);
    if (!code) return json_array_append(list, tool) ? no_memory(m) : OK;
    if (code != HADAL_ERR_UNSUPPORTED)
        return mistaken(m, code == HADAL_ERR_NOMEM ? 500 : 400, "tools", "tools[%zu]: %s", i, e.text);
    json_t *loose = loosened(tool);
    if (!loose) return no_memory(m);
    bool possible = try_tool(model, loose, &still) == HADAL_OK;
    bool strict = json_is_true(json_object_get(json_object_get(tool, "function"), "strict"));
    if (possible && !strict && json_array_append(list, loose) == 0) code = HADAL_OK;
    json_decref(loose);
    if (!code || !possible) return (status)code;
    return mistaken(m, 400, "tools", "tools[%zu] is strict: %s", i, e.text);
}

static status loosen(json_t **spec, const hadal_model *model, const json_t *tools, mistake *m) {
    json_t *list = json_array(), *copy = json_copy(*spec);
    status st = !list || !copy || json_object_set(copy, "tools", list) ? no_memory(m) : OK;
    for (size_t i = 0; st == OK && i < json_array_size(tools); i++)
        st = add_tool(list, model, json_array_get(tools, i), i, m);
    json_decref(list);
    *spec = copy;
    return st;
}

/* ---- all ---- */

static status refuse(const chat_request *r, int code, const hadal_error *e, mistake *m) {
    if (code == HADAL_ERR_NOMEM) return no_memory(m);
    return mistaken(m, 400, r->tools ? "tools" : "response_format", "%s", e->text);
}

status chat_grammar_open(hadal_grammar **out, const hadal_model *model, const chat_request *r, bool thinking,
                         mistake *m) {
    hadal_error e = {0}, again;
    *out = NULL;
    if (!r->grammar) return OK;
    if (json_object_set_new(r->grammar, "thinking", json_boolean(thinking))) return no_memory(m);
    int code = open_spec(out, model, json_incref(r->grammar), &e);
    if (!code) return OK;
    if (code != HADAL_ERR_UNSUPPORTED || !r->tools) return refuse(r, code, &e, m);
    json_t *spec = r->grammar;
    status st = loosen(&spec, model, json_object_get(r->grammar, "tools"), m);
    if (st != OK) json_decref(spec);
    if (st == OK) st = (status)open_spec(out, model, spec, &again);
    else if (st != ERR_UNSUPPORTED) return st;
    if (st == OK || r->grammar_optional) return OK;
    return refuse(r, code, &e, m);
}
