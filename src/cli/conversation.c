#include "cli/conversation.h"

#include <stdlib.h>
#include <string.h>

bool add_message(json_t *messages, const char *role, const char *content, size_t n) {
    json_t *m = json_pack("{s:s, s:o*}", "role", role, "content", json_stringn(content, n));
    if (!json_object_get(m, "content")) {
        json_decref(m);
        return false;
    }
    return json_array_append_new(messages, m) == 0;
}

int parse_answer(const hadal_model *m, const char *answer, int thinking, json_t **out) {
    hadal_error e = {0};
    char *text = NULL;
    *out = NULL;
    if (hadal_chat_parse(m, answer, thinking, &text, &e)) return report(&e);
    return parse_own_json(out, text);
}

int add_answer(json_t *messages, const hadal_model *m, const char *answer, int thinking) {
    json_t *parts;
    int code = parse_answer(m, answer, thinking, &parts);
    if (code) return code;
    json_t *content = json_object_get(parts, "content"), *reasoning = json_object_get(parts, "reasoning");
    json_t *message = json_pack("{s:s, s:o}", "role", "assistant", "content",
                                json_is_string(content) ? json_incref(content) : json_string(""));
    bool fine = message && (!json_is_string(reasoning) || !json_object_set(message, "reasoning_content", reasoning));
    json_decref(parts);
    if (!fine) {
        json_decref(message);
        return no_memory();
    }
    return json_array_append_new(messages, message) ? no_memory() : EXIT_FINE;
}

static int check_messages(const json_t *messages, const char *path) {
    size_t i;
    const json_t *m;
    if (!json_is_array(messages)) return wrong("%s: wanted a list of messages, or an object with \"messages\"", path);
    json_array_foreach(messages, i, m) {
        if (!json_is_string(json_object_get(m, "role")))
            return wrong("%s: message %zu is not an object with a \"role\"", path, i + 1);
    }
    return EXIT_FINE;
}

int read_conversation(const char *path, json_t **messages, json_t **options) {
    error e = {0};
    json_t *root;
    *messages = *options = NULL;
    int code = need_file(path);
    if (code) return code;
    if (json_read(&root, path, 64 << 20, &e)) return report_base(&e);
    if (json_is_object(root)) {
        *messages = json_incref(json_object_get(root, "messages"));
        json_object_del(root, "messages");
        *options = root;
    } else {
        *messages = root;
        *options = json_object();
    }
    code = check_messages(*messages, path);
    if (code) {
        json_decref(*messages);
        json_decref(*options);
        *messages = *options = NULL;
    }
    return code;
}

int conversation_ids(const hadal_model *m, const json_t *messages, const json_t *options, int32_t **ids, size_t *n,
                     int *thinking) {
    hadal_error e = {0};
    char *list = json_dumps(messages, 0), *others = json_dumps(options, 0);
    int code = EXIT_FINE;
    *thinking = HADAL_PLAIN;
    if (!list || !others) code = no_memory();
    else if (hadal_chat_encode(m, list, others, ids, n, thinking, &e)) code = report(&e);
    free(list);
    free(others);
    return code;
}

int model_info(const char *folder, int64_t context, json_t **out) {
    hadal_error e = {0};
    char *text = NULL;
    *out = NULL;
    if (hadal_info(folder, context, &text, &e)) return report(&e);
    return parse_own_json(out, text);
}

bool has_template(const json_t *info) {
    const char *kind = json_string_value(json_object_get(info, "chat_template"));
    return kind && strcmp(kind, "none") != 0;
}
