#define _GNU_SOURCE
#include "reward/command.h"

#include <stdlib.h>
#include <string.h>

static status no_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

static status room(command *c, size_t n, error *e) {
    c->argv = calloc(n + 2, sizeof *c->argv);
    return c->argv ? OK : no_memory(e);
}

static status read_text(command *c, const char *text, error *e) {
    char *rest = NULL;
    if (!(c->text = strdup(text))) return no_memory(e);
    TRY(room(c, strlen(text) / 2 + 1, e));
    for (char *w = strtok_r(c->text, " ", &rest); w; w = strtok_r(NULL, " ", &rest)) c->argv[c->n++] = w;
    return OK;
}

static status read_list(command *c, const json_t *list, error *e) {
    TRY(room(c, json_array_size(list), e));
    for (; c->n < json_array_size(list); c->n++)
        if (!(c->argv[c->n] = json_string_value(json_array_get(list, c->n))))
            return fail(e, ERR_FORMAT, "\"command\": word %zu is not a text (quote it)", c->n + 1);
    return OK;
}

status command_read(command *c, const json_t *o, const char *const *fallback, error *e) {
    const json_t *v = json_object_get(o, "command");
    status s = OK;
    *c = (command){0};
    if (json_is_array(v)) {
        s = read_list(c, v, e);
    } else if (json_is_string(v)) {
        s = read_text(c, json_string_value(v), e);
    } else if (v && !json_is_null(v)) {
        s = fail(e, ERR_FORMAT, "\"command\" should be a list of words or a text");
    } else if (fallback) {
        size_t n = 0;
        while (fallback[n]) n++;
        s = room(c, n, e);
        for (; s == OK && c->n < n; c->n++) c->argv[c->n] = fallback[c->n];
    }
    if (s == OK && !(c->n && *c->argv[0]))
        s = fail(e, ERR_FORMAT, "\"command\" is missing: such as [python3, score.py]");
    if (s != OK) command_free(c);
    return s;
}

void command_free(command *c) {
    free(c->argv);
    free(c->text);
    *c = (command){0};
}

status command_limits(sandbox_limits *l, const json_t *o, double seconds, int64_t memory, error *e) {
    int64_t bytes;
    TRY(json_get_real(o, "seconds", seconds, &l->seconds, e));
    if (l->seconds <= 0) return fail(e, ERR_FORMAT, "\"seconds\" is %g; it should be more than 0", l->seconds);
    TRY(json_get_int(o, "memory", memory, 0, INT64_MAX, &bytes, e));
    l->memory = (uint64_t)bytes;
    return OK;
}
