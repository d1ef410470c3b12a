/* A session is one growing sequence: its tokens and what they left in the caches. An engine runs the batches of many
 * sessions of one model, one batch at a time. */
#ifndef HADAL_INFER_SESSION_H
#define HADAL_INFER_SESSION_H

#include <pthread.h>
#include "infer/pages.h"

enum { MAX_DRAFTS = OP_FEW_ROWS - 1 }; /* tokens checked in one step stay few rows: bit-identical to one by one */

typedef struct engine {
    const model *m;
    workspace ws;
    mla_form form;
    int64_t chunk;        /* rows of prompt in one batch */
    pthread_mutex_t turn; /* held during a batch: the threads of an engine serve one at a time */
    bool borrowed;        /* the queue is somebody else's */
} engine;

status engine_open(engine **out, const model *m, int threads, const char *level, compute c, mla_form form, error *e);

/* An engine on somebody else's queue, which stays open after engine_close: the trainer's, whose threads rollouts share.
 * Whoever owns the queue must not use it during a batch. */
status engine_borrow(engine **out, const model *m, queue *q, mla_form form, error *e);
void engine_close(engine *g);

typedef struct session {
    engine *g;
    int64_t capacity, length;         /* tokens that fit, tokens held */
    int32_t *tokens;                  /* [capacity] */
    cache_rows (*cache)[CACHE_SLOTS]; /* [layers with MTP layers][slot] */
    page_pool *pool;
    bool alone;     /* the pool is this session's: all of its pages, in order */
    int32_t *pages; /* [capacity / CACHE_PAGE, rounded up], of which it holds n_pages */
    int64_t n_pages;
    int64_t rows;  /* rows of logits of the last step: one per checked token */
    float *logits; /* [rows][vocab]; the last is that of the next token. NULL before the first step */
    int64_t rows_capacity;
    /* MTP: the first mtp_length rows of the MTP layer's cache are right; the main model's hidden states of the
     * positions mtp_length .. length-1 wait in `hidden` for the token that follows them. */
    bool drafting;
    int64_t mtp_length;
    float *hidden; /* [waiting][hidden_size] */
    int64_t hidden_capacity;
} session;

status session_open(session **out, engine *g, int64_t capacity, error *e);
void session_close(session *s);
dtype engine_cache_type(const engine *g); /* of the numbers in caches */

/* A session in a pool that it shares with others. It begins with no page: session_reserve takes pages until n tokens
 * fit (false: the pool has too few, none is taken then). session_begin makes an empty session hold n tokens whose pages
 * (of the same pool) hold their rows already; the caller's holds of the pages become the session's. When the last page
 * is not full, no other session may write it. MTP caches are taken for right: what is missing there costs drafts, no
 * more. */
status session_open_in(session **out, engine *g, page_pool *pool, int64_t capacity, error *e);
bool session_reserve(session *s, int64_t n);
void session_begin(session *s, const int32_t *tokens, int64_t n, const int32_t *pages);

uint64_t session_cache_bytes(const session *s); /* of the held tokens */

/* Forgets all but the first n tokens. */
void session_truncate(session *s, int64_t n);

/* Makes `to` hold what `from` holds: tokens, caches, logits of the next token, whether it drafts. Both of one engine; a
 * session too short for it is ERR_ARG. Sessions of one pool (`to` must be empty then) share full pages; without a free
 * page for the rest it is ERR_NOMEM. */
status session_fork(session *to, const session *from, error *e);

/* Whether the caches of the MTP layers follow, for session_draft. Switching on forgets the tokens that they do not
 * cover. */
void session_set_drafting(session *s, bool on);

/* One or more sessions take new tokens (n[i] >= 1 each) in as few batches as the engine's chunk allows. Each session
 * then holds logits of its last min(n[i], want[i]) new tokens (want NULL: 1). With `drafting`, MTP caches follow. Token
 * ids are checked; a full session is ERR_ARG. */
status sessions_extend(session *const *s, int count, const int32_t *const *tokens, const int64_t *n,
                       const int64_t *want, error *e);

/* The same; every row's bits depend on its own sequence alone, not on who else is in the batch: of prompts with
 * ROWS_MANY, of answers with ROWS_FEW. Latent attention is absorbed. */
status sessions_extend_alike(session *const *s, int count, const int32_t *const *tokens, const int64_t *n,
                             const int64_t *want, rows_way way, error *e);

/* Makes the session hold exactly these tokens: keeps the longest common prefix, computes the rest (at least the last
 * token). *kept (may be NULL): tokens taken from the cache. A progress function may cancel between chunks. */
typedef bool session_progress(void *arg, int64_t done, int64_t total); /* false: stop */
status session_sync(session *s, const int32_t *tokens, int64_t n, int64_t *kept, session_progress *progress, void *arg,
                    error *e);

/* Drafts up to n tokens that may follow `next`, the token chosen after the last held one. Returns how many. */
status session_draft(session *s, int32_t next, int n, int32_t *draft, int *count, error *e);

#endif
