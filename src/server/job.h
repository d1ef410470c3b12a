/* The answers to one exchange: its requests to the engine, from their start to the last event. Counts tokens, keeps the
 * times, and cancels what runs when the client leaves. */
#ifndef HADAL_SERVER_JOB_H
#define HADAL_SERVER_JOB_H

#include "server/chat.h"
#include "server/params.h"

typedef struct job job;

/* Called one at a time, on the engine's thread (begin: before the first event, on the starter's). Answer number k of
 * request r is r * samples + k. */
typedef struct job_hooks {
    void (*begin)(void *arg, job *j);                             /* the engine has taken all requests */
    void (*prompt)(void *arg, int request, const hadal_token *t); /* as hadal_request_events; may be NULL */
    void (*token)(void *arg, int answer, const hadal_token *t);
    void (*done)(void *arg, int answer, const hadal_result *r);
    void (*end)(void *arg);                                   /* all are done: ends the exchange */
    void (*failed)(void *arg, int http, const char *message); /* instead; http 0: the client is gone */
    void (*release)(void *arg);                               /* the last call, always */
} job_hooks;

/* Submits n requests that have the same number of samples; their events are set here. What the engine refuses is
 * answered with an error. */
void job_start(server *s, exchange *x, hadal_request *requests, int n, const job_hooks *hooks, void *arg);

/* For hooks: the job cannot go on. */
void job_fail(job *j, int http, const char *message);
bool job_over(const job *j); /* it has failed */
/* The prompt's tokens from the beginning, the answers' as they are written, all of it at the end; reasoning_tokens are
 * the hooks' to count. */
chat_usage *job_usage(job *j);

/* What both kinds of requests need of a server. */
status job_limits(const server *s, params_limits *l, mistake *m); /* fails without a tokenizer */
void job_sampling(params *p);                                     /* draws a seed where the request gave none */
int job_context(const server *s);                                 /* most tokens of a prompt and its answer */
int job_at_once(const server *s);                                 /* most answers that the engine takes */
int job_http(int code);                                           /* the answer's status for a code of hadal.h */
void job_refuse(exchange *x, const mistake *m);
/* The stop text that ended an answer, or NULL. */
const char *job_stop(const server *s, const params *p, const hadal_result *r);

/* {"prompt_tokens", ...}: NULL: memory is out. */
json_t *usage_json(const chat_usage *u);
/* Chunks of a stream: {the members of head, "choices", "usage"}. The head is written once (NULL: memory is out), the
 * rest for every chunk; usage NULL: none. Both take their values. */
void chunk_begin(str *head, json_t *members);
void chunk_send(exchange *x, const str *head, json_t *choices, json_t *usage);
/* A version of what makes the answers. */
json_t *fingerprint_json(const server *s);

#endif
