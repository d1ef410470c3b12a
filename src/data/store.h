/* All tokens of a data set as one stream: files one behind the other, .bin files as they are mapped, others tokenized
 * into memory. It knows where documents end. */
#ifndef HADAL_DATA_STORE_H
#define HADAL_DATA_STORE_H

#include "base/file.h"
#include "data/row.h"

typedef struct segment {
    char *path;
    mapping map;     /* a .bin file; or */
    token_list list; /* tokens with TOKEN_SILENT, */
    int64_t *ends;   /* [n_ends] behind the last token of each document */
    int64_t n_ends, ends_cap;
    const uint32_t *tokens; /* [n] of either */
    int64_t first, n;       /* the place of its first token in the stream */
} segment;

typedef struct store {
    segment *segments;
    int n;
    int64_t tokens;
    int32_t eos;
    int64_t vocab_size;
} store;

/* Reads everything that the options name. *st is {0}; release it also after an error. */
status store_open(store *st, const data_options *o, error *e);
void store_close(store *st);

/* Copies tokens at .. at+n-1, with TOKEN_SILENT where the loss does not count them. An id that the vocabulary lacks is
 * an error. */
status store_read(const store *st, int64_t at, int64_t n, uint32_t *out, error *e);

/* Behind the last token of the document that holds token `at`, or `limit` if that comes first. */
int64_t store_document_end(const store *st, int64_t at, int64_t limit);

/* Looks at the ids of tokens at .. at+n-1. */
status store_check(const store *st, int64_t at, int64_t n, error *e);

#endif
