/* What an answer may be, as a grammar over the bytes of its tokens: JSON by a schema, tool calls in a checkpoint's
 * format. A grammar is compiled once and constant; each answer has a state that takes the chosen tokens and says which
 * tokens may follow. */
#ifndef HADAL_TEXT_GRAMMAR_H
#define HADAL_TEXT_GRAMMAR_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "base/json.h"
#include "text/tokenizer.h"
#include "text/toolcall.h"

/* The tokens of a vocabulary by their bytes, what every mask is made from. Constant; shared between threads. Added
 * tokens (special or not) stand for themselves alone: they match only where a grammar names them, or in free text. */
typedef struct token_bytes token_bytes;
status token_bytes_open(token_bytes **out, const tokenizer *t, error *e);
void token_bytes_close(token_bytes *b);

typedef struct grammar grammar;

/* spec: see hadal_grammar_open. format: how the checkpoint calls tools. ERR_ARG: a bad spec, schema or tool, with the
 * place in it; ERR_UNSUPPORTED: a keyword that cannot be enforced, or a format without tool calls. `b` must outlive the
 * grammar. */
status grammar_open(grammar **out, const token_bytes *b, const answer_format *format, const json_t *spec, error *e);
void grammar_close(grammar *g);

typedef struct grammar_state grammar_state;
status grammar_begin(grammar_state **out, const grammar *g, error *e);
void grammar_end(grammar_state *s);

/* Bit id of mask[id / 32] is set for every token that may follow; end tokens (eos[0 .. n_eos)) where the answer may
 * end. At least one bit is set: when nothing else can follow, those of the end tokens. words = (vocab + 31) / 32. */
status grammar_mask(grammar_state *s, const int32_t *eos, int n_eos, uint32_t *mask, int64_t words, error *e);

/* The answer goes on with this token. One that may not follow is ERR_ARG and leaves the state as it was. End tokens are
 * known from the last mask (before the first: the tokenizer's EOS); after one the answer is complete. */
status grammar_take(grammar_state *s, int32_t id, error *e);

/* Whether the answer is complete and nothing may follow but an end token. */
bool grammar_complete(const grammar_state *s);

#endif
