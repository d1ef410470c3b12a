/* hadal serve: the server in the foreground, until a signal ends it. Its main thread waits for signals alone. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"
#include "cli/commands.h"
#include "cli/conversation.h"
#include "cli/generate.h"
#include "cli/term.h"
#include "server/server.h"

typedef struct settings {
    const char *host, *name, *keys_file, *cors, *cache_memory, *cache_folder, *cache_folder_size, *max_body;
    int port, sequences, queue, context, chunk, drafts, connections, idle_seconds, request_seconds, drain_seconds;
    bool json, quiet;
    machine_options machine;
} settings;
static const settings defaults = {.host = "127.0.0.1", .port = 8000, .drain_seconds = 30};

#define AT(field) offsetof(settings, field)
static const option address_rows[] = {
    {"host", 0, "ADDRESS", OPT_TEXT, AT(host), 0, 0, "listens here; default 127.0.0.1, 0.0.0.0: for everybody"},
    {"port", 'p', "N", OPT_INT, AT(port), 0, 65535, "default 8000; 0: any free one"},
    {"name", 0, "NAME", OPT_TEXT, AT(name), 0, 0, "what clients call the model; default: its folder's name"},
    {"api-keys", 0, "FILE", OPT_TEXT, AT(keys_file), 0, 0, "one API key a line; HADAL_API_KEY=KEY,KEY counts, too"},
    {"cors", 0, "ORIGIN", OPT_TEXT, AT(cors), 0, 0, "web pages from there may call, '*': from anywhere"},
    {"json", 0, NULL, OPT_SWITCH, AT(json), 0, 0, "prints JSON lines"},
    {"quiet", 'q', NULL, OPT_SWITCH, AT(quiet), 0, 0, "prints no line for each request"},
    {0},
};
static const option engine_rows[] = {
    {"cache-memory", 0, "SIZE", OPT_TEXT, AT(cache_memory), 0, 0, "4G, 500M; default: a quarter of the free memory"},
    {"sequences", 0, "N", OPT_INT, AT(sequences), 0, 4096, "answers written at once; default 64"},
    {"queue", 0, "N", OPT_INT, AT(queue), 0, 1 << 20, "answers that may wait; default 256"},
    {"context", 'c', "N", OPT_INT, AT(context), 0, 1 << 30, "most tokens of prompt and answer; default: the model's"},
    {"chunk", 0, "N", OPT_INT, AT(chunk), 0, 1 << 20, "most tokens of prompts in a step; default 512"},
    {"drafts", 0, "N", OPT_INT, AT(drafts), 0, 16, "speculative decoding: tokens drafted by the MTP layer a step"},
    {"cache-folder", 0, "FOLDER", OPT_TEXT, AT(cache_folder), 0, 0, "prompts are remembered here over a restart"},
    {"cache-folder-size", 0, "SIZE", OPT_TEXT, AT(cache_folder_size), 0, 0, "the most it may take; default 10G"},
    {0},
};
static const option limit_rows[] = {
    {"max-body", 0, "SIZE", OPT_TEXT, AT(max_body), 0, 0, "of a request; default 8M"},
    {"connections", 0, "N", OPT_INT, AT(connections), 0, 1 << 20, "open at once; default 512"},
    {"idle-seconds", 0, "N", OPT_INT, AT(idle_seconds), 0, 86400, "closes silent connections; default 60"},
    {"request-seconds", 0, "N", OPT_INT, AT(request_seconds), 0, 1 << 24, "cancels longer requests; default 3600"},
    {"drain-seconds", 0, "N", OPT_INT, AT(drain_seconds), 0, 86400, "for running requests at the end; default 30"},
    {0},
};
#undef AT

/* --- sizes ------------------------------------------------------------------------------------------------------ */

/* "4G", "500M", "1.5G"; NULL is 0, the default. */
static int read_size(uint64_t *out, const char *name, const char *text) {
    static const char units[] = "KMGT";
    char *end;
    *out = 0;
    if (!text) return EXIT_FINE;
    double v = strtod(text, &end);
    const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;
    if (unit && *unit) {
        v = ldexp(v, 10 * (int)(unit - units + 1));
        end++;
        if (*end == 'i') end++;
        if (*end == 'B') end++;
    } else unit = NULL;
    if (end == text || *end || !unit || !(v >= 1) || v > 1e18)
        return wrong("--%s is '%s', wanted a size like 500M or 4G; try 'hadal serve --help'", name, text);
    *out = (uint64_t)v;
    return EXIT_FINE;
}

/* --- lines ------------------------------------------------------------------------------------------------------ */

static void print_line(void *arg, const char *line) {
    (void)arg;
    puts(line);
    fflush(stdout);
}

static void print_warning(void *arg, const char *text) {
    const settings *o = arg;
    if (o->json) {
        json_t *v = json_pack("{s:s, s:s}", "event", "warning", "message", text);
        char *line = v ? json_dumps(v, JSON_COMPACT) : NULL;
        if (line) print_line(NULL, line);
        free(line);
        json_decref(v);
    } else wrong("%s", text);
}

static void print_event(json_t *v) {
    if (v) print_json_line(v);
    fflush(stdout);
    json_decref(v);
}

static void url_of(const settings *o, const server *s, str *out) {
    bool v6 = strchr(o->host, ':') != NULL;
    str_addf(out, v6 ? "http://[%s]:%d" : "http://%s:%d", o->host, server_port(s));
}

static bool is_loopback(const char *host) {
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 || strcmp(host, "localhost") == 0;
}

static void tell_listening(const settings *o, const server *s, const char *folder) {
    str url = {0};
    url_of(o, s, &url);
    if (o->json) print_event(json_pack("{s:s, s:s, s:s}", "event", "listening", "url", url.p, "folder", folder));
    else printf("hadal %s at %s, opening %s\n", hadal_version(), url.p, folder);
    fflush(stdout);
    if (!is_loopback(o->host) && !o->keys_file && !getenv("HADAL_API_KEY"))
        print_warning((void *)o,
                      "whoever reaches this address may use the server: no API keys were given (--api-keys)");
    str_free(&url);
}

/* Why a conversation may be shorter than the model allows; NULL: it may not. */
static const char *context_limit(const settings *o, const hadal_engine_stats *e, int most) {
    if (e->context >= most) return NULL;
    return o->context == e->context ? "--context" : "the cache holds no more; --cache-memory changes that";
}

static void add_thousands(str *out, int64_t v) {
    if (v >= 1000) add_thousands(out, v / 1000);
    str_addf(out, v >= 1000 ? ",%03d" : "%d", (int)(v % 1000));
}

static void tell_plan(const settings *o, const json_t *info, const hadal_engine_stats *e, const hadal_model *m) {
    str s = {0};
    str_puts(&s, "memory   weights ");
    human_bytes(&s, json_number_value(json_object_get(info, "bytes")));
    str_puts(&s, " (mapped), cache ");
    human_bytes(&s, (double)e->pages_total * (double)e->page_bytes);
    str_puts(&s, ": ");
    add_thousands(&s, e->pages_total);
    str_addf(&s, " pages of %d tokens, ", e->page_tokens);
    add_thousands(&s, e->pages_total * e->page_tokens);
    str_puts(&s, " tokens in all\nlimits   ");
    str_addf(&s, "%d answers at once, %d may wait, ", e->sequences, e->queue);
    add_thousands(&s, e->context);
    str_puts(&s, " tokens of prompt and answer");
    int most = hadal_model_max_context(m);
    const char *why = context_limit(o, e, most);
    if (why) {
        str_puts(&s, " (the model: ");
        add_thousands(&s, most);
        str_addf(&s, "; %s)", why);
    }
    if (!s.failed) puts(s.p);
    str_free(&s);
}

static int tell_ready(const settings *o, const server *s, const char *folder) {
    json_t *info;
    hadal_model *m = server_model(s);
    int code = model_info(folder, 0, &info);
    if (code) return code;
    hadal_engine_stats e = {.size = sizeof e};
    hadal_engine_get_stats(server_engine(s), &e);
    str url = {0};
    url_of(o, s, &url);
    const char *kind = json_string_value(json_object_get(info, "kind"));
    if (o->json)
        print_event(json_pack("{s:s, s:s, s:s, s:s?, s:O*, s:s, s:I, s:I, s:i, s:i, s:i, s:i, s:i}", "event", "ready",
                              "url", url.p, "model", server_model_id(s), "kind", kind, "weight_bytes",
                              json_object_get(info, "bytes"), "kernels", hadal_model_kernels(m), "cache_pages",
                              (json_int_t)e.pages_total, "page_bytes", (json_int_t)e.page_bytes, "page_tokens",
                              e.page_tokens, "sequences", e.sequences, "queue", e.queue, "context", e.context,
                              "model_context", hadal_model_max_context(m)));
    else {
        printf("model    %s (%s), kernels %s\n", server_model_id(s), kind ? kind : "?", hadal_model_kernels(m));
        tell_plan(o, info, &e, m);
        printf("ready    %s/ is a page for people, %s/v1 the base URL for clients; Ctrl-C stops\n", url.p, url.p);
        fflush(stdout);
    }
    str_free(&url);
    json_decref(info);
    return EXIT_FINE;
}

/* --- signals ---------------------------------------------------------------------------------------------------- */

/* Those that end the server; blocked in all threads, and taken here one by one. */
static sigset_t ending_signals(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    return set;
}

/* Whether one came within so many seconds; negative: waits for one. */
static bool signalled(double seconds) {
    sigset_t set = ending_signals();
    struct timespec t = {(time_t)seconds, (long)((seconds - floor(seconds)) * 1e9)};
    int got;
    do got = sigtimedwait(&set, NULL, seconds < 0 ? NULL : &t);
    while (got < 0 && errno == EINTR);
    return got > 0;
}

/* What systemd wants to know (sd_notify(3)): a datagram to the socket in NOTIFY_SOCKET, whose name may be abstract. */
static void notify(const char *state) {
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (!path || (*path != '/' && *path != '@') || strlen(path) >= sizeof a.sun_path) return;
    size_t n = strlen(path);
    memcpy(a.sun_path, path, n);
    if (*path == '@') a.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return;
    sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&a,
           (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
    close(fd);
}

/* Lets running requests finish, for a while or until the next signal. */
static void drain(const settings *o, server *s) {
    notify("STOPPING=1");
    int left = server_drain(s);
    double until = clock_seconds() + o->drain_seconds;
    if (o->json) print_event(json_pack("{s:s, s:i}", "event", "stopping", "requests", left));
    else if (left) printf("stopping when %d request%s answered; Ctrl-C stops now\n", left, left == 1 ? " is" : "s are");
    else printf("stopping\n");
    fflush(stdout);
    while (left && clock_seconds() < until && !signalled(0.05)) left = server_drain(s);
}

/* --- the command ------------------------------------------------------------------------------------------------ */

static int on_opening(void *arg, uint64_t done, uint64_t total, const char *what) {
    return progress_call(arg, done, total, what) || signalled(0);
}

/* The absorbed form of MLA for every row: then an answer's bits do not depend on how its prompt was cut into chunks or
 * what the cache had of it. Models without MLA have no choice, and no use for it. */
static int load(hadal_model **out, const char *folder, const settings *o) {
    hadal_error e = {0};
    progress p = {.what = "opening the model"};
    hadal_model_options mo = {.size = sizeof mo,
                              .threads = o->machine.threads,
                              .compute = o->machine.compute,
                              .kernels = o->machine.kernels,
                              .attention = "absorbed",
                              .progress = on_opening,
                              .progress_arg = &p};
    int st = hadal_model_open(out, folder, &mo, &e);
    progress_end(&p);
    return st ? report(&e) : EXIT_FINE;
}

static int serve(server *s, const settings *o, const char *folder) {
    hadal_model *m = NULL;
    error e;
    tell_listening(o, s, folder);
    int code = load(&m, folder, o);
    if (!code && server_serve(s, m, folder, &e)) code = report_base(&e);
    if (!code) code = tell_ready(o, s, folder);
    if (!code) {
        notify("READY=1");
        signalled(-1);
        drain(o, s);
    }
    server_close(s);
    hadal_model_close(m);
    return code;
}

static int fill(server_options *out, const settings *o) {
    *out = (server_options){.host = o->host,
                            .port = o->port,
                            .model_id = o->name,
                            .keys_file = o->keys_file,
                            .cors = o->cors,
                            .connections = o->connections,
                            .idle_seconds = o->idle_seconds,
                            .request_seconds = o->request_seconds,
                            .json_log = o->json,
                            .quiet = o->quiet,
                            .log = print_line,
                            .engine = {.sequences = o->sequences,
                                       .queue = o->queue,
                                       .context = o->context,
                                       .chunk = o->chunk,
                                       .drafts = o->drafts,
                                       .cache_folder = o->cache_folder,
                                       .warn = print_warning,
                                       .warn_arg = (void *)o}};
    int code = read_size(&out->engine.cache_bytes, "cache-memory", o->cache_memory);
    if (!code) code = read_size(&out->engine.cache_folder_bytes, "cache-folder-size", o->cache_folder_size);
    if (!code) code = read_size(&out->body_bytes, "max-body", o->max_body);
    return code;
}

static int run(void *given, int n, char **args) {
    (void)n;
    settings *o = given;
    server_options so;
    server *s;
    error e;
    int code = fill(&so, o);
    if (!code) code = need_model(args[0]);
    if (code) return code;
    sigset_t ending = ending_signals();
    pthread_sigmask(SIG_BLOCK, &ending, NULL);
    signal(SIGPIPE, SIG_IGN); /* a reader of our lines that goes away does not end the server */
    if (server_open(&s, &so, &e)) return report_base(&e);
    return serve(s, o, args[0]);
}

const command command_serve = {
    .name = "serve",
    .arguments = "MODEL",
    .summary = "answers over HTTP: OpenAI's and Anthropic's interfaces, and a page to chat",
    .more =
        "Many requests are answered at once; what their prompts have in common is read once. SIGTERM or Ctrl-C lets\n"
        "running requests finish. Sizes are in units of 1024: 500M, 4G.",
    .examples =
        "hadal serve ./DeepSeek-V2-Lite-Chat\n"
        "hadal serve ./DeepSeek-R1 --host 0.0.0.0 --api-keys keys.txt --cache-memory 64G\n"
        "hadal serve ./model --cache-folder ~/.cache/hadal --drafts 1 --json\n"
        "curl http://127.0.0.1:8000/v1/chat/completions -d '{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}'",
    .groups = {{"Options", address_rows, 0},
               {"Answers and their cache", engine_rows, 0},
               {"Limits", limit_rows, 0},
               {"Machine", machine_rows, offsetof(settings, machine)}},
    .min_args = 1,
    .max_args = 1,
    .size = sizeof(settings),
    .defaults = &defaults,
    .environment = true,
    .run = run,
};
