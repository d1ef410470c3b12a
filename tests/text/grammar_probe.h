/* A small vocabulary of every byte and some longer tokens, and questions to a grammar over it. */
#ifndef HADAL_TESTS_GRAMMAR_PROBE_H
#define HADAL_TESTS_GRAMMAR_PROBE_H

#include "text/grammar.h"

typedef struct probe {
    tokenizer *t;
    token_bytes *b;
    int32_t eos;
} probe;

/* tool_tokens: the markers of tool calls and </think> are added tokens; otherwise they are only bytes. */
void probe_open(probe *p, bool tool_tokens);
void probe_close(probe *p);

/* The spec (JSON) as a grammar. */
status probe_grammar(const probe *p, const char *spec, const char *format, grammar **out, error *e);

/* Feeds the text, whose parts that are added tokens go as these (if added) and all the rest byte by byte. The number of
 * bytes that were taken; *may_end: an end token may follow them. */
size_t probe_feed(const probe *p, const grammar *g, const char *text, size_t n, bool added, bool *may_end);
/* All of the text is an answer. */
bool probe_accepts(const probe *p, const char *spec, const char *format, const char *text);

/* A random answer, drawn by the masks; the more steps the likelier what closes something. False: no end in sight. */
bool probe_sample(const probe *p, const grammar *g, uint64_t seed, str *out);

#endif
