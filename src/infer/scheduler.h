/* Many requests of one model at once: continuous batching over a paged cache. Requests join and leave between steps; a
 * step computes one token (and its drafts) for every running answer, and a chunk of the prompts that are being read.
 * Prefixes that requests have in common are computed once (prefix.h).
 *
 * What an answer gets does not depend on what else runs, bit for bit: rows of prompts go the way of many rows and rows
 * of answers the way of few, whatever their number (queue_rows), latent attention is absorbed, and an answer that was
 * dropped for want of memory is computed again in the same two ways. (Rows that a cached prefix has from another answer
 * were computed as that answer's: there the order of sums may differ from that of a prompt's rows.)
 *
 * One thread at a time. */
#ifndef HADAL_INFER_SCHEDULER_H
#define HADAL_INFER_SCHEDULER_H

#include "infer/generate.h"
struct grammar; /* text/grammar.h */

typedef struct token_bias {
    int32_t id;
    float bias;
} token_bias;

typedef struct request_events { /* called by scheduler_step and scheduler_close; any may be NULL but done */
    void (*prompt)(void *arg, int64_t at, const generated_token *t); /* token number at >= 1 of the prompt */
    void (*token)(void *arg, const generated_token *t);              /* sequence: the sample */
    /* The last event of a sample. e: why it failed, NULL: it did not. `a` is cleared after it unless it takes the parts
     * (sets them to NULL). */
    void (*done)(void *arg, int sample, generated *a, const error *e);
    void (*over)(void *arg); /* after the last sample's done: nothing of the request is read any more */
    void *arg;
} request_events;

typedef struct request { /* all that it points to lives until `over` */
    const int32_t *prompt;
    int64_t n; /* tokens of it, at least 1 */
    int samples;
    int64_t max_tokens; /* of each answer; 0: until the context is full; -1: none, the prompt is only read */
    sampling sampling;  /* token t of sample k is drawn with rng(seed, k, t) */
    const int32_t *eos;
    int n_eos;
    const char *const *stop; /* needs the tokenizer */
    int n_stop;
    const tokenizer *tokenizer; /* NULL: ids only */
    const token_bias *bias;
    int n_bias;
    const struct grammar *grammar; /* NULL: anything */
    int logprobs;                  /* as in `generation` */
    int prompt_logprobs;           /* the same for the prompt's tokens */
    bool policy_logprobs;          /* logprobs -1: under softmax(logits / temperature), see sampler_draw */
    request_events events;
} request;

typedef struct scheduler_options {
    uint64_t cache_bytes;
    int sequences;    /* answers at once */
    int64_t capacity; /* tokens of prompt and answer */
    int64_t chunk;    /* most rows of prompts a step */
    int drafts;
    bool alike; /* as above; false: rows go the queue's own way and answers are not kept as prefixes: for rollouts */
    const char *folder, *model_name; /* prefixes on disk; NULL: none */
    uint64_t folder_bytes;
    void (*warn)(void *arg, const char *line);
    void *warn_arg;
} scheduler_options;

typedef struct scheduler scheduler;
size_t scheduler_page_bytes(const engine *g); /* of cache, for CACHE_PAGE tokens */
status scheduler_open(scheduler **out, engine *g, const scheduler_options *o, error *e);
void scheduler_close(scheduler *s); /* answers that run end with FINISH_CANCELLED */

/* What can be said before a request is queued: ERR_ARG with a sentence. */
status scheduler_check(const scheduler *s, const request *r, error *e);
/* Queues a request that was checked; the struct is copied. */
status scheduler_add(scheduler *s, const request *r, uint64_t ticket, error *e);
void scheduler_cancel(scheduler *s, uint64_t ticket);

/* One step. false: there was nothing to do. A failure (memory, a NaN ...) ends the answers that it concerns, by done.
 */
bool scheduler_step(scheduler *s);
/* Writes a page that waits to be kept on disk; false: none does. */
bool scheduler_store(scheduler *s);

typedef struct scheduler_stats {
    int running, waiting;
    int64_t pages_total, pages_running, pages_kept;
    uint64_t page_bytes, folder_bytes;
    uint64_t prompt_tokens, cached_tokens, generated_tokens, steps, preemptions, draft_proposed, draft_accepted;
} scheduler_stats;
void scheduler_get_stats(const scheduler *s, scheduler_stats *out); /* looks through all pages */
int scheduler_waiting(const scheduler *s);

#endif
