/* HTTP over libmicrohttpd: a few threads that each look after some of the connections, and a watchdog. The body of a
 * request is gathered up to a limit; then its handler runs on the connection's thread. An answer that is not there yet
 * suspends the connection; whoever sends something resumes it.
 *
 * libmicrohttpd does not look at suspended connections and has no limit for the time that a request may take to arrive.
 * The watchdog does both: four times a second it asks the system which sockets of waiting clients were closed, ends
 * requests that arrive too slowly or take too long, and keeps silent streams alive with comments. */
#define _GNU_SOURCE
#include "server/http.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/clock.h"
#include "server/metrics.h"
#include "server/server_inner.h"

enum {
    THREADS = 4,
    HEADER_BYTES = 32 << 10, /* of a request, and the piece in which its body comes */
    TICK_MS = 250,
    SLOWEST = 16 << 10,  /* bytes a second of a body, after the first idle_seconds */
    CROWDED_SECONDS = 5, /* a connection may be silent between requests when most are taken */
    LINGERS = 32,
    LINGER_SECONDS = 2
};

typedef struct lingering { /* of a socket whose client still sends what nobody wants: see linger_begin */
    int fd;
    double until;
} lingering;

struct http {
    server *s;
    const server_options *o;
    struct MHD_Daemon *daemon;
    int port;
    pthread_t watchdog;
    bool watched;
    int wake; /* eventfd: of the watchdog */
    atomic_bool closing, stop;

    pthread_mutex_t lock; /* of all below */
    pthread_cond_t idle;  /* handling is 0 */
    connection *connections;
    int count, running, handling;
    lingering lingers[LINGERS];
    int n_lingers;
    struct pollfd *polls; /* of the watchdog, one for each possible connection */
    exchange **asked;
};

/* --- connections ------------------------------------------------------------------------------------------------ */

/* A client that vanished without a word is found out within half a minute. */
static void notice_dead_peers(int fd) {
    int on = 1, idle = 15, every = 5, ms = 30000;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof every);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms);
}

static void on_connection(void *arg, struct MHD_Connection *mc, void **context,
                          enum MHD_ConnectionNotificationCode code) {
    http *h = arg;
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        connection *c = *context;
        if (!c) return;
        pthread_mutex_lock(&h->lock);
        if (c->prev) c->prev->next = c->next;
        else h->connections = c->next;
        if (c->next) c->next->prev = c->prev;
        h->count--;
        pthread_mutex_unlock(&h->lock);
        free(c);
        return;
    }
    connection *c = *context = calloc(1, sizeof *c);
    if (!c) return; /* its requests will be refused */
    c->fd = MHD_get_connection_info(mc, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    c->since = clock_seconds();
    notice_dead_peers(c->fd);
    pthread_mutex_lock(&h->lock);
    c->next = h->connections;
    if (c->next) c->next->prev = c;
    h->connections = c;
    h->count++;
    pthread_mutex_unlock(&h->lock);
}

/* Closing a socket in which unread bytes lie makes the system drop what was sent last: the client would never see why
 * it was refused. So a copy of the socket stays open for a moment, and what comes is thrown away. */
static void linger_begin(http *h, int fd) {
    pthread_mutex_lock(&h->lock);
    int copy = h->n_lingers < LINGERS ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
    if (copy >= 0) h->lingers[h->n_lingers++] = (lingering){copy, clock_seconds() + LINGER_SECONDS};
    pthread_mutex_unlock(&h->lock);
    eventfd_write(h->wake, 1);
}

/* --- a request comes -------------------------------------------------------------------------------------------- */

static const char *header(struct MHD_Connection *mc, const char *name) {
    return MHD_lookup_connection_value(mc, MHD_HEADER_KIND, name);
}

static uint64_t content_length(struct MHD_Connection *mc) {
    const char *text = header(mc, "Content-Length"); /* libmicrohttpd has checked that it is a number */
    return text ? strtoull(text, NULL, 10) : 0;
}

/* Browsers ask before they call from another page. */
static void add_cors(exchange *x, struct MHD_Connection *mc) {
    const char *allowed = server_settings(x->s)->cors, *origin = header(mc, "Origin");
    if (!allowed) return;
    bool any = strcmp(allowed, "*") == 0;
    if (!any) exchange_add_header(x, "Vary", "Origin");
    if (!any && (!origin || strcmp(origin, allowed) != 0)) return;
    exchange_add_header(x, "Access-Control-Allow-Origin", allowed);
    exchange_add_header(x, "Access-Control-Expose-Headers", "x-request-id, retry-after");
    if (strcmp(x->method, "OPTIONS") != 0) return;
    const char *wanted = header(mc, "Access-Control-Request-Headers");
    exchange_add_header(x, "Access-Control-Allow-Methods", "GET, HEAD, POST, DELETE, OPTIONS");
    exchange_add_header(x, "Access-Control-Allow-Headers", wanted ? wanted : "authorization, content-type, x-api-key");
    exchange_add_header(x, "Access-Control-Max-Age", "86400");
}

/* The path of "http://host/path", too. */
static const char *path_of(const char *url) {
    const char *host = strncmp(url, "http://", 7) == 0 ? url + 7 : strncmp(url, "https://", 8) == 0 ? url + 8 : NULL;
    if (!host) return url;
    const char *slash = strchr(host, '/');
    return slash ? slash : "/";
}

/* Finds the route, or answers. */
static void find_route(exchange *x) {
    str allow = {0};
    const char *tail = "";
    if (!path_decode(x->path)) exchange_error(x, 400, NULL, NULL, "the path is not percent-encoded text");
    else {
        path_normal(x->path, x->normal);
        x->route = route_find(x->method, x->normal, &tail, &allow);
        x->tail = tail;
        if (!x->route && allow.n) {
            exchange_add_header(x, "Allow", allow.p);
            if (strcmp(x->method, "OPTIONS") == 0) exchange_text(x, 204, NULL, "", 0);
            else
                exchange_error(x, 405, NULL, NULL, "%s %s: the method should be one of %s", x->method, x->path,
                               allow.p);
        } else if (!x->route)
            exchange_error(x, 404, NULL, "unknown_url", "%s %s: there is no such path", x->method, x->path);
    }
    str_free(&allow);
}

/* 503 unless the server can do this now. */
static void check_state(exchange *x) {
    server_state now = server_now(x->s);
    if (x->route->open || now == SERVER_READY) return;
    if (now == SERVER_LOADING) exchange_error(x, 503, NULL, "loading", "the model is being loaded; try again soon");
    else exchange_error(x, 503, NULL, "draining", "the server is about to stop; it takes no more requests");
}

static void refuse_length(exchange *x) {
    exchange_error(x, 413, NULL, NULL, "the body is larger than %llu bytes, the most that this server takes",
                   (unsigned long long)x->h->o->body_bytes);
}

static enum MHD_Result proceed(exchange *x);

static enum MHD_Result begin(http *h, struct MHD_Connection *mc, const char *url, const char *method, void **state) {
    connection *c = MHD_get_connection_info(mc, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    exchange *x = c ? exchange_open(h, h->s, method, path_of(url)) : NULL;
    if (!x) return MHD_NO;
    *state = x;
    x->mhd = mc;
    x->c = c;
    pthread_mutex_lock(&h->lock);
    c->x = x;
    c->since = x->started;
    c->received = 0;
    pthread_mutex_unlock(&h->lock);
    add_cors(x, mc);
    find_route(x);
    if (x->route && !x->route->open &&
        !auth_allows(server_auth(h->s), header(mc, "Authorization"), header(mc, "x-api-key"))) {
        exchange_add_header(x, "WWW-Authenticate", "Bearer");
        exchange_error(x, 401, NULL, "invalid_api_key", "this server wants an API key: 'Authorization: Bearer KEY'");
    }
    if (x->route && !exchange_answered(x)) check_state(x);
    bool chunked = header(mc, "Transfer-Encoding") != NULL;
    if (chunked && header(mc, "Content-Length")) /* a proxy before us may have believed the other one */
        exchange_error(x, 400, NULL, NULL, "Content-Length and Transfer-Encoding in one request");
    else if (content_length(mc) > h->o->body_bytes) refuse_length(x);
    else return MHD_YES;
    linger_begin(h, c->fd); /* an answer before the body ends the connection */
    return proceed(x);
}

/* libmicrohttpd takes no answer while a body is coming, so this one (or the one that was ready before) goes past it;
 * then it closes the connection. */
static enum MHD_Result refuse_chunks(exchange *x) {
    refuse_length(x);
    str s = {0};
    str_addf(&s,
             "HTTP/1.1 %d %s\r\nConnection: close\r\nx-request-id: %s\r\n"
             "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
             x->status, MHD_get_reason_phrase_for((unsigned)x->status), x->id, x->out.n);
    str_add(&s, x->out.p, x->out.n);
    if (!s.failed && send(x->c->fd, s.p, s.n, MSG_DONTWAIT | MSG_NOSIGNAL) > 0) linger_begin(x->h, x->c->fd);
    str_free(&s);
    return MHD_NO;
}

static enum MHD_Result receive(exchange *x, const char *data, size_t *n) {
    pthread_mutex_lock(&x->h->lock);
    size_t sum = x->c->received += *n;
    pthread_mutex_unlock(&x->h->lock);
    if (sum > x->h->o->body_bytes) return refuse_chunks(x);
    if (!exchange_answered(x)) str_add(&x->body, data, *n);
    *n = 0;
    return x->body.failed ? MHD_NO : MHD_YES;
}

static void handle(exchange *x) {
    http *h = x->h;
    pthread_mutex_lock(&h->lock);
    h->handling++;
    h->running++;
    pthread_mutex_unlock(&h->lock);
    pthread_mutex_lock(&x->lock);
    x->handled = true;
    pthread_mutex_unlock(&x->lock);
    check_state(x); /* again: http_quiet counts on it */
    if (!exchange_answered(x)) x->route->handle(h->s, x);
    pthread_mutex_lock(&h->lock);
    if (--h->handling == 0) pthread_cond_broadcast(&h->idle);
    pthread_mutex_unlock(&h->lock);
    pthread_mutex_lock(&x->lock);
    bool forgotten = x->state == UNANSWERED && !x->kept;
    pthread_mutex_unlock(&x->lock);
    if (forgotten) exchange_error(x, 500, NULL, NULL, "%s has no answer", x->route->path);
}

/* Queues the answer, or suspends the connection until there is one. */
static enum MHD_Result proceed(exchange *x) {
    struct MHD_Response *r = NULL;
    enum MHD_Result result = MHD_NO;
    pthread_mutex_lock(&x->lock);
    unsigned http_status = (unsigned)x->status;
    if (x->broken) result = MHD_NO;
    else if (x->state != UNANSWERED) {
        r = exchange_response(x);
        if (x->state == WHOLE) x->state = SENT;
    } else if (!atomic_load(&x->h->closing)) {
        x->suspended = true;
        MHD_suspend_connection(x->mhd);
        result = MHD_YES;
    }
    pthread_mutex_unlock(&x->lock);
    if (r) result = MHD_queue_response(x->mhd, http_status, r);
    if (r) MHD_destroy_response(r);
    return result;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *mc, const char *url, const char *method,
                                  const char *version, const char *data, size_t *n, void **state) {
    (void)version;
    exchange *x = *state;
    if (!x) return begin(arg, mc, url, method, state);
    if (*n) return receive(x, data, n);
    if (!x->handled && !exchange_answered(x)) handle(x);
    return proceed(x);
}

static void on_completed(void *arg, struct MHD_Connection *mc, void **state, enum MHD_RequestTerminationCode code) {
    (void)mc;
    http *h = arg;
    exchange *x = *state;
    if (!x) return;
    pthread_mutex_lock(&h->lock);
    x->c->x = NULL;
    x->c->since = clock_seconds();
    pthread_mutex_lock(&x->lock);
    x->mhd = NULL;
    x->suspended = false;
    x->complete = code == MHD_REQUEST_TERMINATED_COMPLETED_OK;
    bool complete = x->complete;
    pthread_mutex_unlock(&x->lock);
    pthread_mutex_unlock(&h->lock);
    if (!complete) exchange_leave(x);
    *state = NULL;
    exchange_unref(x);
}

void http_over(exchange *x) {
    double seconds = clock_seconds() - x->started;
    metrics_request(server_metrics(x->s), x->route ? x->route->path : "other", x->status, seconds);
    request_log_add(server_log(x->s), x, seconds);
    pthread_mutex_lock(&x->h->lock);
    if (x->handled) x->h->running--;
    pthread_mutex_unlock(&x->h->lock);
}

/* --- the watchdog ----------------------------------------------------------------------------------------------- */

/* Whether a connection's request takes too long to arrive, or its answer to leave. Under both locks. */
static bool is_late(const http *h, const connection *c, double now) {
    double idle = h->o->idle_seconds, waited = now - c->since;
    if (!c->x) return waited > (h->count * 4 > h->o->connections * 3 ? CROWDED_SECONDS : 2 * idle);
    if (c->x->ended) return now - c->x->last_sent > 4 * idle;
    return !c->x->handled && waited > idle + (double)c->received / SLOWEST;
}

/* libmicrohttpd misses the end of a client's bytes when it comes together with the last of them. Nothing more will come
 * for a request that is not whole, or not there; seen twice, so that what was read just now is out of doubt. */
static bool has_hung_up(connection *c, int events) {
    int unread = 0;
    bool now = events & (POLLRDHUP | POLLHUP | POLLERR) && ioctl(c->fd, FIONREAD, &unread) == 0 && !unread;
    bool twice = now && c->hung_up;
    c->hung_up = now;
    return twice;
}

/* Looks at all connections. Collects in h->asked (each with a user more) whose handlers are to answer, and in h->polls
 * what happened to their sockets; gives their number. */
static int look_around(http *h, double now) {
    int n = 0, i = 0, all = 0;
    pthread_mutex_lock(&h->lock);
    for (connection *c = h->connections; c && all < h->o->connections; c = c->next)
        h->polls[all++] = (struct pollfd){.fd = c->fd, .events = POLLRDHUP};
    poll(h->polls, (nfds_t)all, 0);
    for (connection *c = h->connections; c && i < all; c = c->next, i++) {
        exchange *x = c->x;
        if (x) pthread_mutex_lock(&x->lock);
        bool late = is_late(h, c, now), waiting = x && x->kept && !x->ended, arrives = !x || (!x->handled && !x->ended);
        if (x) pthread_mutex_unlock(&x->lock);
        if (late || (arrives && has_hung_up(c, h->polls[i].revents))) shutdown(c->fd, SHUT_RDWR);
        if (!waiting) continue;
        atomic_fetch_add(&x->users, 1);
        h->asked[n] = x;
        h->polls[n++].revents = h->polls[i].revents;
    }
    pthread_mutex_unlock(&h->lock);
    return n;
}

static void judge(const http *h, exchange *x, int events, double now) {
    pthread_mutex_lock(&x->lock);
    bool overflowed = x->overflowed, silent = x->state == STREAM && now - x->last_sent > h->o->ping_seconds;
    pthread_mutex_unlock(&x->lock);
    if (overflowed || events & (POLLRDHUP | POLLHUP | POLLERR)) exchange_leave(x);
    else if (now - x->started > h->o->request_seconds) exchange_timeout(x);
    else if (silent) exchange_ping(x, now);
}

/* Throws away what came. */
static void swallow(http *h, double now) {
    char waste[65536];
    pthread_mutex_lock(&h->lock);
    for (int i = 0; i < h->n_lingers;) {
        lingering *l = &h->lingers[i];
        ssize_t got = recv(l->fd, waste, sizeof waste, MSG_DONTWAIT);
        bool over = got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR) || now > l->until;
        if (over) {
            close(l->fd);
            *l = h->lingers[--h->n_lingers];
        } else i++;
    }
    pthread_mutex_unlock(&h->lock);
}

static void wait_a_tick(http *h, double until) {
    struct pollfd p[1 + LINGERS] = {{.fd = h->wake, .events = POLLIN}};
    pthread_mutex_lock(&h->lock);
    int n = 1;
    for (int i = 0; i < h->n_lingers; i++) p[n++] = (struct pollfd){.fd = h->lingers[i].fd, .events = POLLIN};
    pthread_mutex_unlock(&h->lock);
    double left = (until - clock_seconds()) * 1000;
    poll(p, (nfds_t)n, left > 0 ? (int)left + 1 : 0);
    eventfd_t count;
    if (p[0].revents) eventfd_read(h->wake, &count);
}

static void *watch(void *arg) {
    http *h = arg;
    for (double next = 0; !atomic_load(&h->stop);) {
        double now = clock_seconds();
        if (now >= next) {
            int n = look_around(h, now);
            for (int i = 0; i < n; i++) {
                judge(h, h->asked[i], h->polls[i].revents, now);
                exchange_unref(h->asked[i]);
            }
            next = now + 1e-3 * TICK_MS;
        }
        wait_a_tick(h, next);
        swallow(h, clock_seconds());
    }
    return NULL;
}

/* --- opening and closing ---------------------------------------------------------------------------------------- */

static status listen_on(int *out, const char *host, int port, error *e) {
    char service[16];
    snprintf(service, sizeof service, "%d", port);
    struct addrinfo how = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found = NULL;
    int code = getaddrinfo(host, service, &how, &found);
    if (code) return fail(e, ERR_ARG, "%s: no address to listen on: %s", host, gai_strerror(code));
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    bool bound = fd >= 0 && bind(fd, found->ai_addr, found->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0;
    freeaddrinfo(found);
    *out = fd;
    if (bound) return OK;
    int why = errno;
    if (fd >= 0) close(fd);
    return fail(e, ERR_IO, "%s port %d: %s%s", host, port, strerror(why),
                why == EADDRINUSE ? "; another server listens there, choose another port" : "");
}

static int port_of(int fd) {
    struct sockaddr_storage a = {0};
    socklen_t n = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &n)) return 0;
    return ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port
                                         : ((struct sockaddr_in *)&a)->sin_port);
}

static size_t keep_escapes(void *arg, struct MHD_Connection *mc, char *text) {
    (void)arg, (void)mc;
    return strlen(text);
}

static status start(http *h, error *e) {
    h->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    h->polls = calloc((size_t)h->o->connections, sizeof *h->polls);
    h->asked = calloc((size_t)h->o->connections, sizeof *h->asked);
    if (h->wake < 0 || !h->polls || !h->asked) return fail(e, ERR_NOMEM, "memory is out");
    int fd = -1;
    TRY(listen_on(&fd, h->o->host, h->o->port, e));
    h->port = port_of(fd);
    unsigned threads = (unsigned)(h->o->connections < THREADS ? h->o->connections : THREADS);
    /* owns the socket, also when it fails */
    h->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, h,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_THREAD_POOL_SIZE, threads, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)h->o->connections, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)h->o->idle_seconds,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEADER_BYTES, MHD_OPTION_NOTIFY_COMPLETED, on_completed, h,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, h,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    if (!h->daemon) return fail(e, ERR_IO, "the HTTP threads could not be started: %s", strerror(errno));
    if (pthread_create(&h->watchdog, NULL, watch, h)) return fail(e, ERR_IO, "a thread could not be started");
    h->watched = true;
    return OK;
}

status http_open(http **out, server *s, const server_options *o, error *e) {
    http *h = calloc(1, sizeof *h);
    *out = h;
    if (!h) return fail(e, ERR_NOMEM, "memory is out");
    h->s = s;
    h->o = o;
    h->wake = -1;
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->idle, NULL);
    return start(h, e);
}

int http_port(const http *h) {
    return h->port;
}

int http_running(http *h) {
    pthread_mutex_lock(&h->lock);
    int n = h->running;
    pthread_mutex_unlock(&h->lock);
    return n;
}

int http_connections(http *h) {
    pthread_mutex_lock(&h->lock);
    int n = h->count;
    pthread_mutex_unlock(&h->lock);
    return n;
}

bool http_closing(const http *h) {
    return atomic_load(&h->closing);
}

void http_each(http *h, void (*f)(void *arg, const exchange *x), void *arg) {
    pthread_mutex_lock(&h->lock);
    for (const connection *c = h->connections; c; c = c->next) {
        if (!c->x) continue;
        pthread_mutex_lock(&c->x->lock);
        if (c->x->handled && !c->x->ended) f(arg, c->x);
        pthread_mutex_unlock(&c->x->lock);
    }
    pthread_mutex_unlock(&h->lock);
}

void http_quiet(http *h) {
    pthread_mutex_lock(&h->lock);
    while (h->handling) pthread_cond_wait(&h->idle, &h->lock);
    pthread_mutex_unlock(&h->lock);
}

static void leave_all(http *h) {
    int n = 0;
    pthread_mutex_lock(&h->lock);
    for (connection *c = h->connections; c && n < h->o->connections; c = c->next) {
        if (!c->x) continue;
        atomic_fetch_add(&c->x->users, 1);
        h->asked[n++] = c->x;
    }
    pthread_mutex_unlock(&h->lock);
    for (int i = 0; i < n; i++) {
        exchange_leave(h->asked[i]);
        exchange_unref(h->asked[i]);
    }
}

void http_close(http *h) {
    if (!h) return;
    atomic_store(&h->closing, true);
    if (h->watched) {
        atomic_store(&h->stop, true);
        eventfd_write(h->wake, 1);
        pthread_join(h->watchdog, NULL);
    }
    if (h->daemon) {
        leave_all(h); /* libmicrohttpd cannot stop while a connection is suspended */
        MHD_stop_daemon(h->daemon);
    }
    for (int i = 0; i < h->n_lingers; i++) close(h->lingers[i].fd);
    if (h->wake >= 0) close(h->wake);
    free(h->polls);
    free(h->asked);
    pthread_cond_destroy(&h->idle);
    pthread_mutex_destroy(&h->lock);
    free(h);
}
