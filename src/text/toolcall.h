/* Reading answers: what of a model's text is reasoning, what is content, and which tools it calls.
 *
 * There is one parser, and it is incremental: pieces of text go in, events come out as soon as they are certain, and no
 * marker is ever split over two of them. Reading a whole text is feeding it in one piece, so both agree. A tool call
 * counts from where its name is complete; what looked like one before that and is not becomes content. Arguments are
 * handed on as they are written, and a flag says in the end whether they are a JSON object. */
#ifndef HADAL_TEXT_TOOLCALL_H
#define HADAL_TEXT_TOOLCALL_H

#include <stdbool.h>
#include <stddef.h>
#include "base/error.h"

typedef struct answer_format answer_format;

/* The format in which a checkpoint calls tools, from its chat template (NULL: it has none) and model_type (may be
 * NULL): deepseek-v3.2, deepseek-v3.1, deepseek-r1 (V3's with thinking), deepseek-v3, or plain (no tool calls). */
const answer_format *answer_format_find(const char *template_text, const char *model_type);
const answer_format *answer_format_named(const char *name); /* NULL: there is none */
const char *answer_format_name(const answer_format *f);

/* Whether the answer to this prompt begins inside of the reasoning: the prompt ends with <think>. */
bool answer_starts_thinking(const char *prompt, size_t n);

typedef enum answer_thinking {
    ANSWER_PLAIN,    /* no reasoning: all is content */
    ANSWER_THINKS,   /* the answer begins with reasoning, with or without <think>, up to </think> */
    ANSWER_MAY_THINK /* it does if it begins with <think>: prompts that leave the choice to the model */
} answer_thinking;

/* The last of them: the prompt does not end with </think>. */
bool answer_may_think(const char *prompt, size_t n);

typedef struct answer_options {
    answer_thinking thinking;
    bool tools; /* look for tool calls; off: they are content */
} answer_options;

/* ---- in pieces ---- */

typedef enum answer_event_kind {
    ANSWER_REASONING, /* text: more reasoning */
    ANSWER_CONTENT,   /* text: more content */
    ANSWER_CALL,      /* text: the name of tool call number `call` */
    ANSWER_ARGUMENTS, /* text: more of its arguments, JSON */
    ANSWER_CALL_END   /* valid: its arguments are a JSON object */
} answer_event_kind;

typedef struct answer_event {
    answer_event_kind kind;
    const char *text; /* not terminated; gone when the callback returns */
    size_t n;
    size_t call;
    bool valid;
} answer_event;

typedef struct answer_parser answer_parser;
typedef status (*answer_sink)(void *user, const answer_event *event); /* other than OK stops the parser */

status answer_open(answer_parser **out, const answer_format *f, answer_options how, answer_sink sink, void *user,
                   error *e);
status answer_feed(answer_parser *p, const char *s, size_t n, error *e);
status answer_finish(answer_parser *p, error *e); /* the text has ended: what was held back goes out */
void answer_close(answer_parser *p);              /* accepts NULL */

/* ---- whole ---- */

typedef struct answer_call {
    char *name, *arguments;
    bool valid;
} answer_call;

typedef struct answer {
    char *reasoning, *content; /* NULL: none. Terminated; the sizes count bytes */
    size_t reasoning_n, content_n;
    answer_call *calls;
    size_t n_calls;
} answer;

status answer_parse(answer *out, const answer_format *f, answer_options how, const char *s, size_t n, error *e);
void answer_free(answer *a);

#endif
