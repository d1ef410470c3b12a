/* Counters and histograms in Prometheus' text format, names beginning with hadal_. */
#ifndef HADAL_SERVER_METRICS_H
#define HADAL_SERVER_METRICS_H

#include "base/str.h"
#include "server/server.h"

typedef struct metrics metrics;
status server_metrics_open(metrics **out, error *e);
void server_metrics_close(metrics *m);
void metrics_request(metrics *m, const char *path, int status, double seconds); /* a request is over */
void metrics_first_token(metrics *m, double seconds);                           /* since the request came */
void metrics_next_token(metrics *m, double seconds);                            /* since the token before */
void metrics_tokens(metrics *m, int prompt, int cached, int generated);         /* of a finished request */
/* engine: NULL while there is none. */
void server_metrics_write(metrics *m, const hadal_engine_stats *engine, int connections, str *out);

#endif
