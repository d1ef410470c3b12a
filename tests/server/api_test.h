/* What the tests of /v1/messages and /v1/responses share: JSON with ' for ", comparison, events heard. */
#ifndef HADAL_TESTS_SERVER_API_TEST_H
#define HADAL_TESTS_SERVER_API_TEST_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/json.h"
#include "base/str.h"
#include "server/chat.h"

/* Of a text in which ' stands for ". */
static inline json_t *json_quoted(const char *text) {
    char *copy = strdup(text);
    for (char *p = copy; *p; p++)
        if (*p == '\'') *p = '"';
    json_error_t e;
    json_t *j = json_loads(copy, JSON_DECODE_ANY, &e);
    if (!j) printf("%s: %s\n", text, e.text);
    free(copy);
    return j;
}

/* Whether value (borrowed) is the JSON of the text; says so if not. */
static inline bool json_is(const json_t *value, const char *text) {
    json_t *want = json_quoted(text);
    bool same = want && json_equal(value, want);
    if (!same) {
        char *a = json_dumps(value, JSON_ENCODE_ANY), *b = json_dumps(want, JSON_ENCODE_ANY);
        printf("got  %s\nwant %s\n", a ? a : "nothing", b ? b : "nothing");
        free(a);
        free(b);
    }
    json_decref(want);
    return same;
}

/* A listener of events: {"event": NAME, ...data} in a list. */
static inline void hear(void *arg, const char *name, json_t *data) {
    json_object_set_new(data, "event", json_string(name));
    json_array_append_new(arg, data);
}

static inline bool heard_are(const json_t *heard, const char *const *want, size_t n) {
    bool same = json_array_size(heard) == n;
    if (!same) printf("%zu events, not %zu\n", json_array_size(heard), n);
    for (size_t i = 0; i < n && i < json_array_size(heard); i++) same &= json_is(json_array_get(heard, i), want[i]);
    return same;
}

static inline hadal_piece piece_of(int kind, const char *text) {
    return (hadal_piece){.kind = kind, .text = text, .n = strlen(text), .valid = 1};
}

#endif
