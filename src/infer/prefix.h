/* What earlier sequences left in the cache, for those that begin alike: a radix tree whose edges are pages. A node is a
 * page and the tokens it holds: CACHE_PAGE of them, or fewer in a leaf. A sequence that begins with a node's tokens
 * reads the node's page in place; one that shares only some of them gets a copy of these rows.
 *
 * With a folder (page_file.h) pages are also on disk: a node whose page was dropped from memory stays, and is read back
 * when somebody wants it. */
#ifndef HADAL_INFER_PREFIX_H
#define HADAL_INFER_PREFIX_H

#include "infer/page_file.h"
#include "infer/pages.h"

typedef struct prefix_tree prefix_tree;

/* folder: NULL, or where pages are also kept; `model` and limit as for page_folder_open. A folder that cannot be used,
 * or damaged files in it: `warn` gets a sentence (may be NULL). */
typedef struct prefix_options {
    const char *folder, *model;
    uint64_t limit;
    void (*warn)(void *arg, const char *line);
    void *warn_arg;
} prefix_options;
status prefix_open(prefix_tree **out, page_pool *pool, const prefix_options *o, error *e);
void prefix_close(prefix_tree *t); /* before the pool */

/* How many of the n tokens are known, without touching anything. */
int64_t prefix_known(const prefix_tree *t, const int32_t *tokens, int64_t n);

/* The same, and in `pages` ([n / CACHE_PAGE, rounded up]) the pages that hold them, held once more for the caller. The
 * last one is a copy of the caller's own when it is not full. */
int64_t prefix_find(prefix_tree *t, const int32_t *tokens, int64_t n, int32_t *pages);

/* The first n tokens' rows lie in these pages: keeps what is new. Rows behind the n-th may still be written. */
status prefix_add(prefix_tree *t, const int32_t *tokens, int64_t n, const int32_t *pages, error *e);

/* Makes at least n pages of the pool free by dropping pages that nobody but the tree holds, least recently used ones
 * first; false: there are not as many. */
bool prefix_free(prefix_tree *t, int64_t n);

/* Writes one page that is not on disk yet; false: there is none. */
bool prefix_store(prefix_tree *t);

int64_t prefix_idle_pages(const prefix_tree *t); /* held by the tree alone */
uint64_t prefix_disk_bytes(const prefix_tree *t);

#endif
