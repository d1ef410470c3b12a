/* All documents of text files, in the files' order, tokenized by several threads in blocks of lines. Whatever the
 * number of threads, the sink gets the same documents in the same order, and the same line is the first damaged one. */
#ifndef HADAL_DATA_FEED_H
#define HADAL_DATA_FEED_H

#include "data/row.h"

typedef struct feed_options {
    const char *const *paths; /* .jsonl, .txt (one document a file); either with .gz or .zst behind it */
    int n_paths;
    const row_encoder *rows;
    int64_t vocab_size; /* ids must be below it; 0: not looked at */
    bool skip_damaged;
    int threads;
    void (*note)(void *arg, const char *line);                                   /* NULL: nobody */
    int (*progress)(void *arg, uint64_t done, uint64_t total, const char *what); /* bytes; NULL; nonzero cancels */
    void *arg;
} feed_options;

typedef struct feed_result {
    int64_t documents, tokens, damaged;
    uint64_t bytes; /* of the files */
} feed_result;

typedef status feed_sink(void *arg, const uint32_t *tokens, size_t n, error *e);
status feed_run(const feed_options *o, feed_sink *sink, void *arg, feed_result *r, error *e);

/* Whether the name is one that feed_run reads. */
bool feed_reads(const char *path);

#endif
