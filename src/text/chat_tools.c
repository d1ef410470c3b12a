/* Tools for checkpoints whose template does not write them:
 *
 *   V3.1    the words of the model card (huggingface.co/deepseek-ai/DeepSeek-V3.1, "ToolCall")
 *   V3, R1  those of the template that vLLM ships for R1 (tool_chat_template_deepseekr1.jinja): their cards have none
 *
 * The markers in these words are control tokens, as in the published examples; what the tools say is not. */
#include <string.h>
#include "text/chat_messages.h"
#include "text/template_text.h"

#define CALL_BEGIN "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>"
#define CALL_END "<｜tool▁call▁end｜>"
#define CALLS_END "<｜tool▁calls▁end｜>"

static status no_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

static void add_string(str *out, const json_t *s) {
    str_add(out, json_is_string(s) ? json_string_value(s) : "", json_string_length(s));
}

static void write_v31(str *out, const json_t *tools) {
    const json_t *tool;
    size_t i;
    str_puts(out, "## Tools\nYou have access to the following tools:\n");
    json_array_foreach(tools, i, tool) {
        const json_t *f = json_object_get(tool, "function"), *parameters = json_object_get(f, "parameters");
        str_puts(out, "\n### ");
        add_string(out, json_object_get(f, "name"));
        str_puts(out, "\nDescription: ");
        add_string(out, json_object_get(f, "description"));
        str_puts(out, "\n\nParameters: ");
        if (parameters) text_print_json_value(out, parameters);
        else str_puts(out, "{}");
        str_puts(out, "\n");
    }
    str_puts(out, "\nIMPORTANT: ALWAYS adhere to this exact format for tool use:\n" CALL_BEGIN
                  "tool_call_name<｜tool▁sep｜>tool_call_arguments" CALL_END "{additional_tool_calls}" CALLS_END
                  "\n\nWhere:\n"
                  "- `tool_call_name` must be an exact match to one of the available tools\n"
                  "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema\n"
                  "- For multiple tool calls, chain them directly without separators or spaces");
}

static void write_v3(str *out, const json_t *tools) {
    const json_t *tool;
    size_t i;
    str_puts(
        out,
        "You are a helpful assistant with tool calling capabilities. "
        "When a tool call is needed, you MUST use the following format to issue the call:\n" CALL_BEGIN
        "function<｜tool▁sep｜>FUNCTION_NAME\n```json\n{\"param1\": \"value1\", \"param2\": \"value2\"}\n```" CALL_END
            CALLS_END "\n\nMake sure the JSON is valid."
        "## Tools\n\n### Function\n\nYou have the following functions available:\n\n");
    json_array_foreach(tools, i, tool) {
        str_puts(out, "\n```json\n");
        text_print_json_value(out, tool);
        str_puts(out, "\n```\n");
    }
}

/* Puts the words behind the last system message, or before all messages. */
static status add_to_system(json_t *messages, const str *words, error *e) {
    size_t n = json_array_size(messages), i = n;
    json_t *content = NULL, *m = NULL;
    while (i-- > 0 && !m) {
        const char *role = json_string_value(json_object_get(json_array_get(messages, i), "role"));
        if (role && !strcmp(role, "system")) m = json_array_get(messages, i);
    }
    if (!m) {
        m = json_pack("{s:s,s:s}", "role", "system", "content", "");
        if (!m || json_array_insert_new(messages, 0, m)) return no_memory(e);
    }
    str s = {0};
    add_string(&s, json_object_get(m, "content"));
    str_puts(&s, "\n\n");
    str_add(&s, words->p, words->n);
    content = s.failed ? NULL : json_stringn(s.p, s.n);
    str_free(&s);
    return !content || json_object_set_new(m, "content", content) ? no_memory(e) : OK;
}

static status render(const chat_style *s, const chat_conversation *c, bool tools, str *out, error *e) {
    json_t *options = json_copy(c->options);
    if (!options) return no_memory(e);
    if (!tools) json_object_del(options, "tools");
    status st = chat_render(s->template, s->model_type, c->messages, options, out, e);
    json_decref(options);
    return st;
}

static status are_ignored(const chat_style *s, const chat_conversation *c, bool *out, error *e) {
    str with = {0}, without = {0};
    status st = render(s, c, true, &with, e);
    if (st == OK) st = render(s, c, false, &without, e);
    if (st == OK) *out = with.n == without.n && !memcmp(with.p, without.p, with.n);
    str_free(&with);
    str_free(&without);
    return st;
}

status chat_add_tools(chat_conversation *c, const chat_style *s, error *e) {
    const json_t *tools = json_object_get(c->options, "tools");
    const char *format = answer_format_name(s->format);
    bool ignored;
    if (!tools || !s->template) return OK;
    TRY(are_ignored(s, c, &ignored, e));
    if (!ignored) return OK;
    if (!strcmp(format, "plain"))
        return fail(e, ERR_UNSUPPORTED, "this checkpoint's chat template does not know tools; send none");
    str words = {0};
    if (!strcmp(format, "deepseek-v3.1")) write_v31(&words, tools);
    else write_v3(&words, tools);
    status st = str_check(&words, e);
    if (st == OK) st = add_to_system(c->messages, &words, e);
    str_free(&words);
    return st;
}
