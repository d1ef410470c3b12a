/* Answers: prompts of one or more sessions continued token by token, until an end-of-sequence token, a stop text, the
 * wanted number of tokens or a full context. */
#ifndef HADAL_INFER_GENERATE_H
#define HADAL_INFER_GENERATE_H

#include "base/str.h"
#include "infer/sampler.h"
#include "infer/session.h"
#include "text/tokenizer.h"

enum { MAX_TOP_LOGPROBS = 20 };

typedef struct generation {
    sampling sampling;
    int64_t max_tokens; /* 0: until the context is full */
    const char *const *stop;
    int n_stop;
    const int32_t *eos; /* ids that end an answer; n_eos 0: none does */
    int n_eos;
    int logprobs;               /* 0: none; -1: of the chosen token; k > 0: and of the k most likely */
    int drafts;                 /* MTP drafts a step; 0: off */
    const tokenizer *tokenizer; /* NULL: ids only, no text and no stop texts */
} generation;

typedef struct generated_token {
    int sequence;
    int32_t id;
    const char *text; /* what can be shown now */
    size_t n;
    float logprob;
    int n_top;
    int32_t top_ids[MAX_TOP_LOGPROBS];
    float top_logprobs[MAX_TOP_LOGPROBS];
} generated_token;

typedef enum finish { FINISH_LENGTH, FINISH_EOS, FINISH_STOP, FINISH_CANCELLED } finish;

typedef struct generated { /* release with generated_clear */
    str text;
    int32_t *ids;
    int64_t n_ids;
    finish finish;
    int64_t prompt_tokens, cached_tokens;
    double prompt_seconds, seconds; /* until the first token; from there to the last */
    int64_t draft_proposed, draft_accepted;
} generated;
void generated_clear(generated *a);

typedef struct generate_hooks {
    bool (*token)(void *arg, const generated_token *t);     /* false: this sequence stops */
    bool (*prompt)(void *arg, int64_t done, int64_t total); /* false: ERR_CANCELLED */
    void *arg;
} generate_hooks;

/* answers: [count]. After a failure answers hold what was made so far (generated_clear them all the same). */
status generate(session *const *s, int count, const int32_t *const *prompts, const int64_t *n, const generation *o,
                const generate_hooks *hooks, generated *answers, error *e);

#endif
