/* Conversations as the chat templates take them: a list of {"role", "content", ...} and an object of options. */
#ifndef HADAL_CLI_CONVERSATION_H
#define HADAL_CLI_CONVERSATION_H

#include "cli/cli.h"

/* Adds a message; false when the text is not UTF-8 (or memory is out). */
bool add_message(json_t *messages, const char *role, const char *content, size_t n);

/* Adds the model's answer, with its reasoning under "reasoning_content"; r may have been stopped half-way. */
int add_answer(json_t *messages, const hadal_model *m, const char *answer, int thinking);

/* A file with a list of messages, or with {"messages": [...], "tools": [...], ...}, whose other keys are options. */
int read_conversation(const char *path, json_t **messages, json_t **options);

/* Renders and tokenizes. *ids: hadal_free. thinking: HADAL_PLAIN ... of the answer. */
int conversation_ids(const hadal_model *m, const json_t *messages, const json_t *options, int32_t **ids, size_t *n,
                     int *thinking);

/* {"reasoning", "content", "tool_calls"} of an answer */
int parse_answer(const hadal_model *m, const char *answer, int thinking, json_t **out);

/* What hadal_info says about a model. */
int model_info(const char *folder, int64_t context, json_t **out);
bool has_template(const json_t *info);

#endif
