/* Answers of /v1/responses that later requests build on (previous_response_id) or ask for. Bounded: the oldest are
 * forgotten. Any thread. */
#ifndef HADAL_SERVER_RESPONSES_MEMORY_H
#define HADAL_SERVER_RESPONSES_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include "base/json.h"

typedef struct response_memory response_memory;
status response_memory_open(response_memory **out, int max_answers, size_t max_bytes, error *e); /* 0: 1000, 64 MiB */
void response_memory_close(response_memory *m);
/* Keeps an answer and the whole conversation up to its end, a list of input items. Failing to is no error. */
void response_memory_add(response_memory *m, const json_t *response, const json_t *items);
json_t *response_memory_find(response_memory *m, const char *id);  /* the answer; NULL: it is not known */
json_t *response_memory_items(response_memory *m, const char *id); /* the conversation */
/* The output item with this id, in whichever answer it was; NULL: it is not known. `seen` (an object, empty at first)
 * has the answers that were looked into, so that many items are one look. */
json_t *response_memory_item(response_memory *m, const char *item_id, json_t *seen);
bool response_memory_forget(response_memory *m, const char *id);

#endif
