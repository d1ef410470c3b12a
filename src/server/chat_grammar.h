/* The grammar of an answer. A tool's schema that cannot be enforced is loosened: its arguments then are an object with
 * the parameters' names and types, or are refused when the tool is strict. */
#ifndef HADAL_SERVER_CHAT_GRAMMAR_H
#define HADAL_SERVER_CHAT_GRAMMAR_H

#include "server/chat_request.h"

/* *out NULL: anything goes. thinking: the answer begins inside of the reasoning. */
status chat_grammar_open(hadal_grammar **out, const hadal_model *model, const chat_request *r, bool thinking,
                         mistake *m);

/* The parameters of a tool with nothing but names, types and which of them are required. NULL: memory is out. */
json_t *chat_grammar_loosened(const json_t *parameters);

#endif
