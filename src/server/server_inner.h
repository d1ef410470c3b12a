/* What the HTTP core asks of the server. */
#ifndef HADAL_SERVER_SERVER_INNER_H
#define HADAL_SERVER_SERVER_INNER_H

#include "server/auth.h"
#include "server/http.h"
#include "server/log.h"

typedef enum server_state { SERVER_LOADING, SERVER_READY, SERVER_DRAINING, SERVER_CLOSING } server_state;

server_state server_now(const server *s);
const auth *server_auth(const server *s);
request_log *server_log(const server *s);
http *server_http(const server *s);

#endif
