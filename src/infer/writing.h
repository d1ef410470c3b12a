/* One answer in the making, as generate (its session is the caller's) and answers_run (its session is a slot) both have
 * it: the rows of the next step, which of them hold, and what ends the answer. */
#ifndef HADAL_INFER_WRITING_H
#define HADAL_INFER_WRITING_H

#include "base/str.h"
#include "infer/generate.h"

typedef struct ending { /* what ends answers, besides their length */
    const int32_t *eos;
    int n_eos;
    const char *const *stop;
    int n_stop;
    const tokenizer *tokenizer; /* NULL: no text is made, and no stop text found */
} ending;

/* Between steps the session holds the prompt and all chosen tokens but the last. */
typedef struct writing {
    session *s;
    int64_t n, limit;             /* tokens of the answer so far, and at most */
    int32_t next[MAX_DRAFTS + 1]; /* the rows of the next step: the last token chosen, and drafts of what follows it */
    int drafts;                   /* how many of these */
    int64_t proposed, accepted;   /* drafts so far */
    str text;                     /* without the stop text that ended it */
    tokenizer_decoding decoding;
    size_t sure; /* bytes of text that no stop text can take back */
    bool done;
    finish finish;
} writing;

/* The longest answer to a prompt of n tokens: max_tokens (0: any number), or as many as the context holds; the token
 * after a prompt that fills the context is known all the same. */
int64_t writing_limit(int64_t capacity, int64_t n, int64_t max_tokens);

/* Drafts the rows of the next step behind the token chosen last. */
status writing_plan(writing *w, int drafts, error *e);

/* Takes a chosen token into the answer: text, stop texts, ends. text.failed tells that memory ran out. */
void writing_take(writing *w, const ending *d, int32_t id);

/* The answer ends here; text that a stop text might still have taken back was never shown and goes. */
void writing_cancel(writing *w);

/* Chooses tokens from the rows of logits that the last step gave: row r is right as long as the r drafts before it were
 * what would have been chosen anyway. What the session holds beyond that is forgotten. `row` chooses the token that
 * follows the first n_history tokens of the session, and calls writing_take. */
typedef status writing_row(void *arg, writing *w, const float *logits, int64_t n_history, int32_t *id, error *e);
status writing_choose(writing *w, writing_row *row, void *arg, error *e);

#endif
