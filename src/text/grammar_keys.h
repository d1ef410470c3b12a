/* Keys that an object has already: a grammar without memory cannot keep a key from coming twice, so the bytes of an
 * answer's JSON are read along, and tokens that would finish a key again are forbidden. Keys have one spelling
 * (json_text.h), so they compare as bytes. */
#ifndef HADAL_TEXT_GRAMMAR_KEYS_H
#define HADAL_TEXT_GRAMMAR_KEYS_H

#include "text/grammar_rules.h"

typedef struct seen_key {
    int32_t start, n, before; /* before: the key before it in the same object; -1: none */
} seen_key;

typedef struct key_level { /* an array or object that is open */
    bool object, at_key;
    int32_t last; /* key */
} key_level;

typedef struct key_place {
    int32_t depth, key_start;
    bool in_string, in_key, escape;
} key_place;

typedef struct key_watch { /* {0} at the start */
    key_level level[MAX_NESTING + 1];
    key_place at;
    str text; /* of all keys */
    seen_key *keys;
    int32_t n_keys, cap_keys;
    bool failed; /* memory is out */
} key_watch;

/* Reads a token's bytes; false: they finish a key that the object has. */
bool keys_read(key_watch *w, const char *p, size_t n);
/* Whether keys_read would say true; changes nothing. */
bool keys_allow(key_watch *w, const char *p, size_t n);
void keys_free(key_watch *w);

#endif
