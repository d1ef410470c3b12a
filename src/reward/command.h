/* Members that name an outside program and its limits. */
#ifndef HADAL_REWARD_COMMAND_H
#define HADAL_REWARD_COMMAND_H

#include "base/json.h"
#include "reward/sandbox.h"

typedef struct command {
    const char **argv; /* ended by NULL */
    size_t n;
    char *text; /* holds the words of one text */
} command;

/* "command": a list of words, or one text split at spaces. Missing: `fallback` (ended by NULL), or an error when that
 * is NULL. One more place is free behind the words. Borrows from o; command_free it. */
status command_read(command *c, const json_t *o, const char *const *fallback, error *e);
void command_free(command *c);

/* "seconds" and "memory" */
status command_limits(sandbox_limits *l, const json_t *o, double seconds, int64_t memory, error *e);

#endif
