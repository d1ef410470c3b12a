/* From a chat request to the engine and back: checks the parameters, makes the prompt, runs the answers and hands them,
 * taken apart, to a writer. The interfaces (chat completions, responses, messages) are writers, and translators of
 * their request into the body of a chat completion. */
#ifndef HADAL_SERVER_CHAT_H
#define HADAL_SERVER_CHAT_H

#include "base/str.h"
#include "server/exchange.h"

typedef struct chat_call {
    const char *id; /* "call_" and 24 characters */
    str name, arguments;
    bool valid; /* arguments are a JSON object */
} chat_call;

typedef struct chat_sample { /* one answer so far */
    str reasoning, content;
    chat_call *calls;
    int n_calls;
    const char *finish; /* when done: "stop", "length", "tool_calls"; "cancelled" */
    const char *stop;   /* the stop text that ended it, or NULL */
    int tokens, reasoning_tokens;
    json_t *logprobs; /* list of {"token", "logprob", "bytes", "top_logprobs"} of the content, when asked for */
} chat_sample;

typedef struct chat_usage {
    int prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens; /* sums over the samples */
} chat_usage;

typedef struct chat_job chat_job;
const chat_sample *chat_job_sample(const chat_job *j, int sample);
int chat_job_samples(const chat_job *j);
const chat_usage *chat_job_usage(const chat_job *j); /* final at `end` */
const json_t *chat_job_body(const chat_job *j);      /* the body it was started with */
exchange *chat_job_exchange(const chat_job *j);

/* All called one at a time, on the engine's thread, but `failed` also before. */
typedef struct chat_writer {
    void (*begin)(void *w, chat_job *j); /* the request was accepted: a stream sends its head */
    /* A piece of a sample, already added to chat_job_sample; for HADAL_PIECE_CALL the call has its id. logprobs: of the
     * tokens that this piece is made of, a list or NULL; borrowed. */
    void (*piece)(void *w, chat_job *j, int sample, const hadal_piece *p, const json_t *logprobs);
    void (*finish)(void *w, chat_job *j, int sample); /* the sample is done */
    void (*end)(void *w, chat_job *j);                /* all are: ends the exchange */
    /* Instead of end, at any time: the engine failed, the client is gone (status 0) ... Ends the exchange. */
    void (*failed)(void *w, chat_job *j, int status, const char *message);
    void (*release)(void *w); /* the last call */
} chat_writer;

/* Starts the answer to a chat completion's body (borrowed). Mistakes of the client are answered by exchange_error at
 * once (then only w's release is called). Owns w from now on. The exchange is kept until the end. */
void chat_start(server *s, exchange *x, const json_t *body, const chat_writer *writer, void *w);

/* Renders the prompt of a body without answering; -1: it was answered with an error. For counting tokens. */
int chat_count_tokens(server *s, exchange *x, const json_t *body);

/* Parses the exchange's body as a JSON object; NULL: it was answered with an error (400). */
json_t *chat_parse_body(exchange *x);

#endif
