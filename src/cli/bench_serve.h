/* hadal bench --serve: what clients of the server see. */
#ifndef HADAL_CLI_BENCH_SERVE_H
#define HADAL_CLI_BENCH_SERVE_H

#include "cli/generate.h"

typedef struct serve_load {
    const char *target; /* a model's folder, or http://HOST:PORT of a server that runs */
    const int *clients; /* how many at once: one measurement each */
    int n_clients;
    int requests, prompt, generate; /* of each client; tokens of each request */
    int depth;                      /* tokens of the long conversation's first prompt; 0: as many as are sensible */
    machine_options machine;
} serve_load;

/* *out: what bench_serve_print prints. EXIT_FINE, or an exit code. */
int bench_serve(const serve_load *o, json_t **out);
void bench_serve_print(const json_t *result);

#endif
