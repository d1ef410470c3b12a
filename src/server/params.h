/* What the bodies of /v1/chat/completions and /v1/completions ask for, checked: nothing here needs a model. Wrong types
 * are answered with 400, values out of range with 422; members that are not known are ignored. */
#ifndef HADAL_SERVER_PARAMS_H
#define HADAL_SERVER_PARAMS_H

#include <stdbool.h>
#include "base/error.h"
#include "base/json.h"
#include "hadal.h"

typedef struct mistake { /* of the client */
    int http;
    char param[64]; /* the member, "" when it is none */
    const char *code;
    char text[400];
} mistake;

/* Writes it; gives ERR_ARG. param may be NULL. */
status mistaken(mistake *m, int http, const char *param, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

enum { MAX_STOPS = 16, MAX_BIASES = 1024, MAX_TOOLS = 512, MAX_VARIABLES = 32 };

typedef enum endpoint { ENDPOINT_CHAT, ENDPOINT_COMPLETIONS } endpoint;

typedef struct params_limits {
    const char *model_id, *folder; /* what the model may be called; folder may be NULL */
    int vocab, max_samples;
    hadal_sampling defaults; /* of the checkpoint */
} params_limits;

/* Texts are borrowed from the body. What it does not say is the checkpoint's (generation_config.json); where that has
 * no temperature, it is the OpenAI API's 1, and so are the 16 tokens of a completion. */
typedef struct params {
    hadal_sampling sampling; /* its stop points to `stop` */
    const char *stop[MAX_STOPS];
    hadal_bias *bias;
    int n_bias, samples;
    bool seeded; /* else the caller draws sampling.seed */
    bool stream, include_usage, continuous_usage;
    bool echo, add_special, parse_special, token_ids; /* completions */
    const char *suffix;                               /* NULL: none */
    size_t suffix_n;
} params;

/* sampling.max_tokens is 0 when there is no limit but the context's, -1 for no token at all (completions' 0). */
status params_read(params *p, const json_t *body, endpoint which, const params_limits *l, mistake *m);
void params_free(params *p);

/* Members of an object with names in the mistake. null counts as absent. */
status param_bool(const json_t *o, const char *name, bool fallback, bool *out, mistake *m);
status param_int(const json_t *o, const char *name, int64_t fallback, int64_t least, int64_t most, int64_t *out,
                 mistake *m);
const json_t *param(const json_t *o, const char *name); /* NULL: absent */

#endif
