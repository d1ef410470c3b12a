/* Conversations as clients send them, in the variety that servers have to take, made into the one form that templates
 * expect. */
#ifndef HADAL_TEXT_CHAT_MESSAGES_H
#define HADAL_TEXT_CHAT_MESSAGES_H

#include "text/chat.h"
#include "text/toolcall.h"

/* How a checkpoint writes conversations. */
typedef struct chat_style {
    const chat_template *template; /* NULL: it has none */
    const char *model_type;
    const answer_format *format;
    const tokenizer *tokenizer; /* NULL: there is none */
} chat_style;

typedef struct chat_conversation { /* owned; {0} is empty */
    json_t *messages, *options;
} chat_conversation;

/* The conversation in one form:
 *   content     a string; lists of text parts are joined by line ends; null beside tool calls
 *   role        system, user, assistant, tool; developer becomes system where the template does not know it
 *   tool_calls  not empty, with type and function.name; arguments as a JSON text or an object, as the template wants
 *   prefix      on the last message: it is continued
 *   tools       a list that is not empty, or not there
 *   thinking    true or false under all of its names, if the options say anything
 * What cannot be meant is ERR_ARG and names the place: messages[2].content[0]. */
status chat_prepare(chat_conversation *out, const chat_style *s, const json_t *messages, const json_t *options,
                    error *e);
void chat_conversation_free(chat_conversation *c);

/* Tools that the template would leave out are put into the system message, in the words of the model's documentation;
 * ERR_UNSUPPORTED if its kind of model has none. */
status chat_add_tools(chat_conversation *c, const chat_style *s, error *e);

/* chat_render of a prepared conversation. A last message that is continued may have "reasoning_content": without
 * content the prompt ends in its midst. *thinking: the answer begins inside the reasoning. */
status chat_write(const chat_style *s, const chat_conversation *c, str *out, bool *thinking, error *e);

#endif
