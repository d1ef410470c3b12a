/* The server: one model, its engine, and everything that handlers of requests need. */
#ifndef HADAL_SERVER_SERVER_H
#define HADAL_SERVER_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "hadal.h"

typedef struct server_options {
    const char *host;      /* NULL: 127.0.0.1 */
    int port;              /* 0: any free one, see server_port */
    const char *model_id;  /* what the model is called; NULL: the folder's name */
    const char *keys_file; /* one API key a line; NULL: none. Keys of HADAL_API_KEY (commas between) count, too */
    const char *cors;      /* origin that browsers may call from, "*": any; NULL: none */
    uint64_t body_bytes;   /* limits; 0: 8 MiB */
    int connections;       /* 0: 512 */
    int idle_seconds;      /* a connection on which nothing moves is closed; 0: 60 */
    int request_seconds;   /* a request that takes longer is cancelled; 0: 3600 */
    int max_samples;       /* n; 0: 16 */
    int ping_seconds;      /* of silence, after which a stream gets a comment line; 0: 10 */
    hadal_engine_options engine;
    bool json_log, quiet;
    void (*log)(void *arg, const char *line); /* a finished line without its newline; any thread, one at a time */
    void *log_arg;
} server_options;

typedef struct server server;

/* Listens (503 for everything but /health and /version until server_serve gave it a model). */
status server_open(server **out, const server_options *o, error *e);
int server_port(const server *s);
/* The model belongs to the caller and outlives the server. `folder` names it. Opens the engine: from now on requests
 * are answered. */
status server_serve(server *s, hadal_model *m, const char *folder, error *e);
/* No new requests (503); gives the number of those that are still being answered. */
int server_drain(server *s);
/* Ends what is left and frees everything. */
void server_close(server *s);

/* --- for handlers ---------------------------------------------------------------------------------------------- */
hadal_model *server_model(const server *s);
const hadal_tokenizer *server_tokenizer(const server *s);
hadal_engine *server_engine(const server *s);
const char *server_model_id(const server *s);
const char *server_folder_name(const server *s); /* what it would be called without server_options.model_id */
const server_options *server_settings(const server *s);
int64_t server_started(const server *s);           /* seconds since 1970: "created" */
struct call_memory *server_calls(const server *s); /* call_memory.h */
struct metrics *server_metrics(const server *s);   /* metrics.h */
/* Answers that /v1/responses keeps; the server opens it with its defaults and closes it (responses_memory.h). */
struct response_memory *server_responses(const server *s);

#endif
