/* Byte-level byte pair encoding: the vocabulary (ids and their texts) and the merges that turn the bytes of a word into
 * ids. Texts of vocabulary entries are in GPT-2's alphabet (text/unicode.h), as in tokenizer.json. */
#ifndef HADAL_TEXT_BPE_H
#define HADAL_TEXT_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/arena.h"
#include "base/error.h"
#include "base/json.h"

/* A growing list of ids; when memory runs out, `failed` is set and later additions do nothing. */
typedef struct id_list {
    int32_t *p;
    size_t n, cap;
    bool failed;
} id_list;
void id_list_add(id_list *l, const int32_t *p, size_t n);

typedef struct token {
    const char *text;  /* as the file writes it, terminated; NULL: no token has this id */
    const char *bytes; /* what it decodes to; the text itself when that is not wholly in the byte alphabet */
    uint32_t text_n, bytes_n;
    bool in_model; /* byte pair encoding may produce it; false for those of "added_tokens" alone */
    bool added;    /* in "added_tokens": found in the text before words are cut */
    bool special;  /* never produced by byte pair encoding */
} token;

typedef struct vocab_slot {
    uint32_t hash;
    int32_t id; /* -1: empty */
} vocab_slot;

typedef struct vocab {
    token *token;     /* [size] */
    int32_t size;     /* one more than the largest id; ids between may be unused */
    arena *memory;    /* texts */
    vocab_slot *slot; /* [mask + 1], hash table over texts */
    uint32_t mask;
} vocab;

/* model_vocab: the object {text: id}; added: the list "added_tokens" (NULL or null: none). Neither is kept. */
status vocab_open(vocab *v, const json_t *model_vocab, const json_t *added, error *e);
void vocab_close(vocab *v);                                     /* accepts {0} */
int32_t vocab_find(const vocab *v, const char *text, size_t n); /* -1: not there */

typedef struct bpe bpe; /* immutable after opening; shared between threads */

/* model: the value of "model" in tokenizer.json. v must outlive the bpe and must not change. */
status bpe_open(bpe **out, const vocab *v, const json_t *model, error *e);
void bpe_close(bpe *b); /* accepts NULL */

/* One encoding under way: working memory and a memory of the words seen. It remembers where a word lay and where its
 * ids went, so the words must stay where they are and ids must only grow until bpe_end. */
typedef struct bpe_run bpe_run;
status bpe_begin(bpe_run **out, const bpe *b, id_list *ids, size_t text_bytes,
                 error *e);                                        /* text_bytes: about how many will come */
status bpe_word(bpe_run *r, const char *word, size_t n, error *e); /* adds the word's ids */
void bpe_end(bpe_run *r);                                          /* accepts NULL */

#endif
