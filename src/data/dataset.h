/* Data sets: token files, JSONL texts and conversations, synthetic tokens -> rows of documents for training.
 *
 * A data set is an endless list of rows, numbered from 0: row i is a pure function of (files, options, seed, i), so the
 * number of rows taken is all that has to be remembered for an exact resume, and ranks share a step by taking different
 * numbers. One pass over the data is an epoch; rows are permuted anew in each when `shuffle` is set. */
#ifndef HADAL_DATA_DATASET_H
#define HADAL_DATA_DATASET_H

#include "base/error.h"
#include "data/batch.h"
#include "text/tokenizer.h"

typedef enum packing {
    PACK_CONCAT,   /* documents joined, cut every seq_len tokens: row i is tokens [i T, i T + T] of the stream */
    PACK_BEST_FIT, /* whole documents into rows of at most seq_len tokens (best fit decreasing); longer ones are cut */
    PACK_NONE      /* one document a row */
} packing;

typedef enum loss_on { LOSS_ALL, LOSS_ASSISTANT, LOSS_LAST } loss_on; /* tokens that count as targets */

typedef struct data_options {
    const char *const *paths; /* .bin; .jsonl, .txt (one document), also with .gz or .zst; or one "synthetic" */
    int n_paths;
    const char *format;     /* "auto" (by the name and the first line's keys), "bin", "text", "chat", "synthetic" */
    const char *text_field; /* JSONL texts: the member that holds the text ("text") */
    int64_t seq_len;
    packing packing;
    bool document_mask; /* attention stops at document borders; false: a row is one document (PACK_CONCAT) */
    bool shuffle;
    uint64_t seed;
    loss_on loss;
    bool skip_damaged;                         /* damaged lines are counted and reported through `note`, not fatal */
    int32_t eos;                               /* ends a document in .bin files and is appended to texts; -1: none */
    int64_t vocab_size;                        /* ids must be below it: else an error that names file and offset */
    const tokenizer *tokenizer;                /* NULL: token files and synthetic data only */
    const char *model_type;                    /* for chat rendering */
    const char *chat_template;                 /* overrides the tokenizer's own; NULL: none */
    int threads;                               /* for tokenizing */
    void (*note)(void *arg, const char *line); /* NULL: nobody; one readable sentence */
    int (*progress)(void *arg, uint64_t done, uint64_t total, const char *what); /* NULL; nonzero cancels */
    void *arg;
} data_options;

typedef struct dataset dataset;

/* Strings and arrays of the options need to live only during the call; the tokenizer as long as the data set. Empty
 * data is ERR_FORMAT. */
status dataset_open(dataset **out, const data_options *o, error *e);
void dataset_close(dataset *d); /* accepts NULL */

int64_t dataset_epoch_rows(const dataset *d); /* rows of one pass */
int64_t dataset_tokens(const dataset *d);     /* tokens of one pass */

/* Rows first .. first+n-1 as one batch, borrowed until the next call with the same data set. */
status dataset_rows(dataset *d, int64_t first, int64_t n, token_batch *out, error *e);

#endif
