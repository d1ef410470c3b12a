/* The prompt format of DeepSeek-V3.2, which comes without a chat template: its rules are a program in the model's
 * repository. This is that program, byte for byte; it goes on where a server must: a final assistant message may be
 * continued. */
#ifndef HADAL_TEXT_ENCODING_V32_H
#define HADAL_TEXT_ENCODING_V32_H

#include "base/error.h"
#include "base/json.h"
#include "base/str.h"

typedef struct encoding_v32 {
    bool thinking;       /* thinking mode: the answer begins with <think> */
    bool drop_thinking;  /* developer messages before the last user message go, too (the model's default) */
    bool continue_final; /* the last message is an unfinished answer: no end of sentence behind it */
} encoding_v32;

/* A member of assistant messages: text that stands for reasoning, content and tool calls, as the model once wrote it
 * behind <think> or </think>. */
#define ENCODING_V32_WRITTEN "\1written"

/* Messages are objects with role (system, developer, user, assistant, tool), content, and by role tools,
 * response_format, reasoning_content, tool_calls. What cannot be written is ERR_ARG and names the message. */
status encode_v32(const json_t *messages, encoding_v32 how, str *out, error *e);

#endif
