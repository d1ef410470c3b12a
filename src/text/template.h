/* Chat templates: the subset of Jinja in which checkpoints describe how a conversation becomes a prompt, with the
 * behaviour of Hugging Face's renderer (jinja2, sandboxed and immutable, trim_blocks, lstrip_blocks, loop controls).
 * A template is data that came with a download: it can compute, but nothing else, and it ends in bounded time and
 * memory, whatever it says. */
#ifndef HADAL_TEXT_TEMPLATE_H
#define HADAL_TEXT_TEMPLATE_H

#include "base/error.h"
#include "base/json.h"
#include "base/str.h"

typedef struct chat_template chat_template; /* compiled, immutable; threads may share it */

/* Syntax errors (ERR_FORMAT) and statements that are not in the subset (ERR_UNSUPPORTED) name the line. */
status template_open(chat_template **out, const char *source, size_t n, error *e);

/* Adds the rendered text to out; on failure out is as before. `variables` is an object: messages, tools, bos_token,
 * add_generation_prompt and whatever else the template may look at. Its integer "now" (seconds since 1970), if
 * present, is the time that strftime_now tells; else it is the clock's. What the template refuses (raise_exception)
 * and operations that the values do not allow are ERR_ARG. */
status template_render(const chat_template *t, const json_t *variables, str *out, error *e);

void template_close(chat_template *t); /* accepts NULL */

#endif
