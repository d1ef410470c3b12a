/* What the translators of requests share: the body of a chat completion that grows turn by turn, and the first fault
 * that was found. After a fault nothing more happens, so that it is looked for once, at the end. */
#ifndef HADAL_SERVER_TRANSLATE_H
#define HADAL_SERVER_TRANSLATE_H

#include <stdbool.h>
#include <stddef.h>
#include "base/json.h"
#include "base/str.h"

typedef struct translation {
    json_t *body;    /* of the chat completion */
    int status;      /* of the fault, in HTTP; 0: none */
    char place[128]; /* what is being read: messages[3].content[0] */
    char param[160], text[400];
    /* the turn that is still open */
    const char *role;
    str content, reasoning;
    json_t *calls;
} translation;

void translation_begin(translation *t);
void translation_end(translation *t); /* frees; the body too, unless it was taken */
/* Closes the open turn. False: there was a fault. */
bool translation_finish(translation *t);

/* The fault is in the member `key` of what is being read, or in itself: NULL. */
void translation_fault(translation *t, int code, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* The place becomes a deeper one; leaving it takes what entering gave. */
size_t translation_enter(translation *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void translation_leave(translation *t, size_t outer);

/* A member of this type; NULL: it is missing or null, which is a fault if it is needed. A wrong type always is one. */
const json_t *translation_need(translation *t, const json_t *o, const char *key, json_type type);
const json_t *translation_may(translation *t, const json_t *o, const char *key, json_type type);
const json_t *translation_number(translation *t, const json_t *o, const char *key, double min, double max);
bool translation_flag(translation *t, const json_t *o, const char *key, bool fallback);

/* Puts value (taken) into an object; memory that is out is a fault. */
void translation_put(translation *t, json_t *object, const char *key, json_t *value);
/* Copies members that chat completions have, too, and checks. NULL ends the keys. */
void translation_copy(translation *t, const json_t *request, const char *const *keys);

/* A turn's text; turns of one role that follow each other are one. Texts of an assistant are joined as they are, others
 * with a blank line. A system's text behind the first other turn becomes a reminder in a user's turn: templates either
 * move it to the prompt's head, so that all of the prompt is read again, or leave it standing in the assistant's. */
void translation_text(translation *t, const char *role, const char *p, size_t n);
void translation_reasoning(translation *t, const char *p, size_t n); /* of the assistant's turn */
void translation_call(translation *t, const json_t *id, const json_t *name, json_t *arguments); /* takes arguments */
void translation_result(translation *t, const json_t *id, const str *text);
/* {"type": "function", "function": {...}} of strings and objects that may be NULL. */
json_t *translation_tool(const json_t *name, const json_t *description, const json_t *parameters, bool strict);

/* Of messages and parts of them: NULL when they are not valid UTF-8 or memory is out. */
json_t *json_of(const str *s);

#endif
