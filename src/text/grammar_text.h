/* The parts of a grammar that are not JSON: markers, free text up to a marker, tool calls. */
#ifndef HADAL_TEXT_GRAMMAR_TEXT_H
#define HADAL_TEXT_GRAMMAR_TEXT_H

#include "text/json_text.h"

/* A fixed text as the tokenizer reads it: added tokens in it must come as themselves, the rest as bytes. */
status grammar_marker(rules *r, const token_bytes *b, const char *marker, int32_t next, int32_t *start, error *e);

enum { MAX_MARKERS = 2 };

/* Any text up to and with one of the markers, and what follows that one. */
typedef struct free_text {
    const char *marker[MAX_MARKERS];
    int32_t follows[MAX_MARKERS];
    int n;
    bool strict;  /* whole characters, no NUL, no added tokens; otherwise any bytes and added tokens by their text */
    int32_t also; /* between characters the text may go on like this, too; NEVER: it may not */
} free_text;
status grammar_free_text(rules *r, const free_text *f, int32_t *start, error *e);

/* Tool calls, by the specification (see hadal_grammar_open); the start of rules that end in RETURN. */
status grammar_tools(rules *r, const token_bytes *b, const answer_format *format, const json_t *spec, int32_t *start,
                     error *e);

#endif
