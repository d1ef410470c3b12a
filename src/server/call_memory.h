/* What the model wrote when it called tools: from the id of a tool call to the sampled token ids of its message, so
 * that the next turn's prompt is the same tokens. Bounded: the oldest are forgotten. Any thread. */
#ifndef HADAL_SERVER_CALL_MEMORY_H
#define HADAL_SERVER_CALL_MEMORY_H

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

typedef struct call_memory call_memory;
status call_memory_open(call_memory **out, size_t max_tokens, error *e);
void call_memory_close(call_memory *c);
/* One message with `n_calls` calls. Failing to remember is no error. */
void call_memory_add(call_memory *c, const char *const *call_ids, int n_calls, const int32_t *ids, size_t n);
/* The ids of the message whose calls are exactly these, in order (malloc'd), or NULL. */
int32_t *call_memory_find(call_memory *c, const char *const *call_ids, int n_calls, size_t *n);

#endif
