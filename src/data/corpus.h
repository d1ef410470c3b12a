/* Texts to a .bin file of tokens (uint32, little endian, every document ends with eos) in constant memory. */
#ifndef HADAL_DATA_CORPUS_H
#define HADAL_DATA_CORPUS_H

#include "data/feed.h"

typedef struct corpus_options {
    const char *const *paths; /* as in feed.h */
    int n_paths;
    const char *text_field; /* NULL: "text" */
    const tokenizer *tokenizer;
    unsigned flags; /* TOK_... */
    bool skip_damaged;
    int threads;
    void (*note)(void *arg, const char *line);
    int (*progress)(void *arg, uint64_t done, uint64_t total, const char *what);
    void *arg;
} corpus_options;

/* `out` appears when all is done, and not at all otherwise. */
status corpus_write(const char *out, const corpus_options *o, feed_result *r, error *e);

#endif
