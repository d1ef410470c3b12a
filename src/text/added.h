/* Added tokens: texts that are one token wherever they stand, looked for before the text is cut into words. */
#ifndef HADAL_TEXT_ADDED_H
#define HADAL_TEXT_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

typedef struct added_token {
    const char *text; /* borrowed; not empty */
    size_t n;
    int32_t id;
    bool special, single_word; /* single_word: not beside a letter or digit */
    bool lstrip, rstrip;       /* takes the white space before, after it along */
} added_token;

typedef struct added_set { /* {0}: no tokens */
    added_token *token;    /* sorted by text once added_sort was called */
    size_t n, cap;
    bool first[256]; /* some text begins with this byte */
} added_set;

/* Adding, then sorting once; after that the set is constant. */
status added_add(added_set *s, const added_token *token, error *e);
void added_sort(added_set *s);
void added_free(added_set *s);

/* The length of the longest token that the text begins with, 0: none; single characters, which are letters that a
 * vocabulary lacks, do not count. *cut: a token begins here and is longer than the text. */
size_t added_at(const added_set *s, const char *text, size_t n, bool *cut);

typedef struct added_match {
    size_t start, end; /* with the white space that was taken along */
    int32_t id;
} added_match;

/* The next token in text[*from, n): the leftmost, of those that begin there the longest. *from moves behind it. `done`
 * is the end of the match before: white space before that is taken. With `plain` special tokens are left to be words.
 */
bool added_next(const added_set *s, const char *text, size_t n, bool plain, size_t *from, size_t done, added_match *m);

#endif
