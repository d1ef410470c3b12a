/* One line a request: for people, or JSON. */
#ifndef HADAL_SERVER_LOG_H
#define HADAL_SERVER_LOG_H

#include "server/exchange.h"

typedef struct request_log request_log;
status request_log_open(request_log **out, const server_options *o, error *e);
void request_log_close(request_log *l);
void request_log_add(request_log *l, const exchange *x, double seconds); /* x is over */

#endif
