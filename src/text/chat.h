/* From a conversation to the prompt's text, in the way of the checkpoint: its own chat template, or DeepSeek-V3.2's
 * encoding where a checkpoint of that family has no template. */
#ifndef HADAL_TEXT_CHAT_H
#define HADAL_TEXT_CHAT_H

#include "text/template.h"
#include "text/tokenizer.h"

/* Adds the prompt to out; on failure out is as before. t may be NULL: the checkpoint has no template. `options` (may be
 * NULL) are members of the template's variables, with these meanings:
 *   tools                          list in OpenAI's form, or null
 *   add_generation_prompt          the assistant is to answer (the V3.2 encoding always is open for an answer)
 *   thinking, enable_thinking      two names of one switch; the template gets both
 *   continue_final_message, prefix the last message is an unfinished answer: the prompt ends with its content
 *   bos_token, eos_token           texts of the tokens, for templates
 *   thinking_mode, drop_thinking, response_format   V3.2 only; thinking_mode is "thinking" or "chat"
 * and whatever else a template may know. */
status chat_render(const chat_template *t, const char *model_type, const json_t *messages, const json_t *options,
                   str *out, error *e);

/* Adds the texts of BOS, EOS and padding to the options that have none. t may be NULL: they have no texts. */
status chat_add_tokens(json_t *options, const tokenizer *t, error *e);

/* Whether these options ask for thinking; `fallback` if they say nothing. */
status chat_thinking(const json_t *options, bool fallback, bool *out, error *e);

#endif
