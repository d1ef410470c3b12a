/* The memory of caches in pages: CACHE_PAGE tokens of every layer and slot. A page belongs to all who hold it; whoever
 * wants to write rows that others can see takes a page of its own.
 *
 * All pages of a layer's slot lie one after the other, so that a row's place is pages[t / CACHE_PAGE] * CACHE_PAGE +
 * t % CACHE_PAGE in one array (cache_rows). The memory is reserved at once and backed by the system when written. */
#ifndef HADAL_INFER_PAGES_H
#define HADAL_INFER_PAGES_H

#include "model/model.h"

typedef struct page_pool {
    const model *m;
    int64_t count, free;
    cache_rows (*slots)[CACHE_SLOTS]; /* [layers with MTP layers]: rows and width; no pages */
    int32_t *holders;                 /* [count] how many hold it */
    int32_t *stack;                   /* [count] the first `free` are free */
    void *memory;
    size_t memory_bytes, token_bytes; /* of all layers and slots */
} page_pool;

static inline int64_t pages_of(int64_t tokens) {
    return (tokens + CACHE_PAGE - 1) / CACHE_PAGE;
}

size_t cached_token_bytes(const model *m, dtype type); /* what a token leaves in all layers and slots */
int64_t cached_layers(const model *m);                 /* with MTP layers */

status pages_open(page_pool **out, const model *m, dtype type, int64_t count, error *e);
void pages_close(page_pool *p);

int32_t pages_take(page_pool *p); /* held once; -1: none is free */
void pages_hold(page_pool *p, int32_t page);
void pages_drop(page_pool *p, int32_t page);

/* Copies the first n tokens of a page, of this pool or another of the same model. */
void pages_copy(page_pool *to, int32_t to_page, const page_pool *from, int32_t from_page, int64_t n);

/* The first n tokens of a page as n * token_bytes bytes, and back. */
void pages_save(const page_pool *p, int32_t page, int64_t n, void *out);
void pages_load(page_pool *p, int32_t page, int64_t n, const void *from);

#endif
