/* Opening a model and generating from it: the options, and what an answer cost.
 * Shared by the commands that load a model. */
#ifndef HADAL_CLI_GENERATE_H
#define HADAL_CLI_GENERATE_H

#include "base/str.h"
#include "cli/cli.h"

/* ---- opening --------------------------------------------------------------------------------------------------- */

typedef struct machine_options {
    int threads;
    const char *compute, *kernels;
} machine_options;
extern const option machine_rows[];

/* Opens with a progress line; EXIT_FINE, or says what is wrong and gives the exit code. */
int open_model(hadal_model **out, const char *folder, const machine_options *o);

/* ---- sampling -------------------------------------------------------------------------------------------------- */

typedef struct sampling_options { /* negative: the checkpoint's default */
    int max_tokens, top_k, drafts;
    double temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
    seed seed;
    texts stop;
    bool ignore_eos;
} sampling_options;
#define SAMPLING_DEFAULTS                                                                         \
    {                                                                                             \
        .max_tokens = -1, .top_k = -1, .drafts = -1, .temperature = -1, .top_p = -1, .min_p = -1, \
        .repetition_penalty = -1                                                                  \
    }
extern const option sampling_rows[];

/* The checkpoint's defaults with o over them. Borrows o's stop texts. Without a seed the answer is a new one each
 * time. */
void sampling_of(hadal_sampling *out, const hadal_model *m, const sampling_options *o);

/* "prompt 12 tokens, 85.0 tokens/s, first token after ..." */
void describe_result(str *out, const hadal_result *r);

#endif
