/* The prompts of a completion: texts or lists of ids, one or several, each as ids. */
#ifndef HADAL_SERVER_PROMPTS_H
#define HADAL_SERVER_PROMPTS_H

#include "server/params.h"

typedef struct prompt {
    int32_t *ids;
    size_t n;
    char *echo; /* as text, terminated; special tokens of a list of ids are left out */
    size_t echo_n;
} prompt;

typedef struct prompts {
    prompt *list;
    size_t n;
} prompts;

/* most: prompts; vocab: ids end there; context: the longest prompt. */
status prompts_read(prompts *out, const json_t *body, const params *p, const hadal_tokenizer *t, size_t most, int vocab,
                    int context, mistake *m);
void prompts_free(prompts *p);

/* What can be said without a tokenizer: the types and ids. */
status prompts_check(const json_t *body, size_t most, int vocab, mistake *m);

#endif
