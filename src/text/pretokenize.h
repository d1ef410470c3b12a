/* Pre-tokenization: the stages of tokenizer.json's "pre_tokenizer" cut a text into the words that byte pair encoding
 * then works on alone. Known stages: Sequence, Split, Digits, and ByteLevel as the last one. */
#ifndef HADAL_TEXT_PRETOKENIZE_H
#define HADAL_TEXT_PRETOKENIZE_H

#include <stddef.h>
#include "base/arena.h"
#include "base/error.h"
#include "base/json.h"

typedef struct pretokenizer pretokenizer; /* immutable after opening; shared between threads */

/* spec is the value of "pre_tokenizer"; it is not kept. A stage, option or piece of a regular expression that is not
 * known to mean here what it means to the Hugging Face library is ERR_UNSUPPORTED. */
status pretokenizer_open(pretokenizer **out, const json_t *spec, error *e);
void pretokenizer_close(pretokenizer *p); /* accepts NULL */

/* What one caller needs while cutting; may be used for many texts, by one thread at a time. */
typedef struct word_cutter word_cutter;
status word_cutter_open(word_cutter **out, const pretokenizer *p, error *e);
void word_cutter_close(word_cutter *c); /* accepts NULL */

/* Called for every word in order. The word is never empty and lies in the text or in `keep`. */
typedef status word_function(void *arg, const char *word, size_t n, error *e);

/* Cuts n bytes of valid UTF-8. `keep` takes the copies that add_prefix_space asks for. */
status cut_words(word_cutter *c, const char *text, size_t n, arena *keep, word_function *f, void *arg, error *e);

#endif
