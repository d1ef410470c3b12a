/* The spelling of JSON as rules of a grammar (RFC 8259): white space, characters and strings, numbers, any value.
 *
 * What may be written is what every strict parser reads: UTF-8 and pairs of surrogates are whole, no NUL, integers of
 * at most 18 digits, reals far from overflow. White space between tokens is a blank, or a line's end and an indent. */
#ifndef HADAL_TEXT_JSON_TEXT_H
#define HADAL_TEXT_JSON_TEXT_H

#include "text/grammar_rules.h"

enum { JSON_DIGITS = 18, REAL_DIGITS = 15, LAST_CHAR = 0x10ffff };

typedef struct json_text {
    rules *r;
    bool in_call; /* strings may not hold U+FF5C as it is: with it begin the markers that end a tool call */
    int32_t space, character, key_character, string, number, integer, value, object; /* rules */
} json_text;

void json_text_open(json_text *t, rules *r, bool in_call);

/* Where a string's inside is spelled: in quotes with escapes, or as it is. */
typedef enum spelling { QUOTED, RAW } spelling;

int32_t json_space(const json_text *t, int32_t next);
/* A character of low..high in its usual spelling: as it is, escaped where it must be. NUL is left out. */
int32_t json_chars(const json_text *t, spelling how, uint32_t low, uint32_t high, int32_t next);
/* The text in its usual spelling, without quotes. */
status json_spell(const json_text *t, spelling how, text s, str *out, error *e);
/* `"key": ` and `next` behind it. */
int32_t json_key(const json_text *t, const char *key, size_t n, int32_t next);
/* A key that is none of n others (which get sorted), with quotes and colon. */
int32_t json_other_key(const json_text *t, text *keys, size_t n, int32_t next);
int32_t json_value(const json_text *t, int32_t next); /* any */

#endif
