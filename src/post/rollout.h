/* Completions of groups of prompts by the policy as it is now: tokens, their log-probabilities when they were drawn,
 * and what rewards say of them. The policy is sampled on the trainer's own weights and threads, so that the one who
 * samples and the one who learns differ by rounding only. */
#ifndef HADAL_POST_ROLLOUT_H
#define HADAL_POST_ROLLOUT_H

#include "infer/answers.h"
#include "reward/reward.h"
#include "train/config.h"

typedef struct completion {
    const prompt *prompt;
    int32_t *ids; /* [n] with the end token, if it came to that */
    float *logp;  /* [n] under the distribution they were drawn from */
    int64_t n;
    bool finished; /* it ended by itself */
    char *text;    /* without the end token, with what the prompt had begun of it */
    double reward; /* weighted sum; NaN: cannot be told */
    double *score; /* [rewards] one by one */
} completion;

typedef struct rollout { /* release with rollout_free */
    completion *list;    /* groups of neighbours */
    int64_t n, tokens, draft_proposed, draft_accepted;
    double seconds; /* of drawing them; scoring is not in it */
    double *scores; /* where all `score` point */
} rollout;
void rollout_free(rollout *r);

typedef struct roller { /* who makes rollouts */
    const train_config *c;
    engine *g;
    const tokenizer *tok;
    int32_t eos[MOST_EOS + 1];
    int n_eos;
    reward_set *rewards;
    int (*progress)(void *arg, uint64_t done, uint64_t total, const char *what); /* nonzero cancels; NULL */
    void *arg;
} roller;

/* On an opened engine (borrowed). Rewards are c->rollout's; required: there must be some. */
status roller_open(roller *r, const train_config *c, engine *g, const tokenizer *tok, bool required,
                   void (*note)(void *arg, const char *line), void *arg, error *e);
void roller_close(roller *r);

/* list[0 .. n): prompts; `generations` completions of each, at `temperature`. first: number of the first prompt in the
 * run: with the seed of the rollouts it decides all random choices. */
status rollout_make(roller *r, const prompt *const *list, int64_t n, int generations, double temperature, int64_t first,
                    rollout *out, error *e);

/* Moves n completions of `from` (which keeps empty ones) behind those of *to. */
status rollout_move(rollout *to, rollout *from, int64_t first, int64_t n, int rewards, error *e);

/* Mean of reward number i over a rollout, of those that can be told; NaN: of none. i -1: the weighted sum. */
double rollout_mean(const rollout *r, int i);

/* Opens the prompts of a list of files for c->rollout. model_type: for chat rendering. */
status rollout_prompts(prompts **out, const train_config *c, const string_list *paths, bool shuffle,
                       const tokenizer *tok, const char *model_type, void (*note)(void *arg, const char *line),
                       int (*progress)(void *arg, uint64_t done, uint64_t total, const char *what), void *arg,
                       error *e);

#endif
