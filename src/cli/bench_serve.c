/* A closed loop: every client sends its next request when the last one is answered in full. Requests are streams of
 * /v1/completions with prompts of token ids, each one different, greedy, of a fixed length. What the answers hold is
 * looked at when the clock has stopped. */
#include "cli/bench_serve.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/rng.h"
#include "cli/http_client.h"
#include "cli/term.h"
#include "server/server.h"

enum {
    FIRST_ID = 16, /* below are special tokens, in the vocabularies of DeepSeek's and of most others */
    MOST_IDS = 240,
    FEW_IDS = 48,        /* of a model that is not known */
    SMALL_CONTEXT = 256, /* of a server that does not tell */
    LONG_PROMPT = 2048,
    NEW_TOKENS = 32 /* that the second turn adds */
};

typedef struct bench {
    const serve_load *o;
    http_peer peer;
    str model; /* as the server calls it, quoted */
    char *key;
    int ids; /* prompts are made of so many, from FIRST_ID on */
    int context;
    hadal_model *own;
    server *server;
    int conversations; /* so far: each prompt is a new one */
} bench;

typedef struct answer {
    str body;
    http_reply reply;
    bool good;
    error e;
} answer;

/* --- a request -----------------------------------------------------------------------------------------------------
 */

/* `prompt`: the numbers of the prompts that are joined, and how many tokens each one gives; -1: of one id. */
typedef struct piece {
    int number, tokens;
} piece;

static void add_ids(const bench *b, str *out, piece p) {
    for (int i = 0; i < p.tokens; i++) {
        double u = p.number < 0 ? 0 : rng_uniform(17, (uint64_t)p.number, (uint64_t)i);
        str_addf(out, "%s%d", out->p[out->n - 1] == '[' ? "" : ",", FIRST_ID + (int)(u * b->ids));
    }
}

/* `same`: the answer is made of the first id alone, so that the next turn knows its tokens. */
static void make_body(const bench *b, str *out, const piece *pieces, int n, bool same) {
    str_puts(out, "{\"model\":");
    str_puts(out, b->model.p);
    str_puts(out, ",\"prompt\":[");
    for (int i = 0; i < n && !out->failed; i++) add_ids(b, out, pieces[i]);
    str_addf(out,
             "],\"max_tokens\":%d,\"temperature\":0,\"ignore_eos\":true,\"stream\":true,"
             "\"stream_options\":{\"include_usage\":true}",
             b->o->generate);
    if (same) str_addf(out, ",\"logit_bias\":{\"%d\":100}", FIRST_ID);
    str_puts(out, "}");
}

static bool begin(const bench *b, answer *a) {
    a->good = str_check(&a->body, &a->e) == OK &&
              http_begin(&a->reply, &b->peer, "POST", "/v1/completions", &a->body, &a->e) == OK;
    return a->good;
}

static void ask(const bench *b, answer *a) {
    if (!begin(b, a)) return;
    while (a->good && a->reply.open) a->good = http_receive(&a->reply, &a->e) == OK;
}

static void answer_clear(answer *a) {
    str_free(&a->body);
    http_reply_clear(&a->reply);
}

/* --- what an answer was --------------------------------------------------------------------------------------------
 */

typedef struct seconds { /* a growing list */
    double *v;
    size_t n, cap;
} seconds;

static bool add_seconds(seconds *s, double v) {
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 256;
        double *more = realloc(s->v, cap * sizeof *more);
        if (!more) return false;
        s->v = more;
        s->cap = cap;
    }
    s->v[s->n++] = v;
    return true;
}

typedef struct tally { /* of many answers */
    int64_t prompt, cached, tokens;
    seconds first, between;
} tally;

static void tally_clear(tally *t) {
    free(t->first.v);
    free(t->between.v);
}

static int64_t member(const json_t *o, const char *key) {
    return (int64_t)json_integer_value(json_object_get(o, key));
}

static void count_usage(tally *t, const json_t *usage) {
    t->prompt += member(usage, "prompt_tokens");
    t->tokens += member(usage, "completion_tokens");
    t->cached += member(json_object_get(usage, "prompt_tokens_details"), "cached_tokens");
}

static status bad_answer(error *e, const http_reply *r) {
    return fail(e, ERR_FORMAT, "the server answered %d: %.200s", r->status, r->body.p ? r->body.p : "");
}

/* One line "data: {...}" of the stream; `at`: where it ends in the body. last: when the text before it came, or 0. */
static status count_event(tally *t, const http_reply *r, const char *line, size_t n, size_t at, double *last,
                          bool *usage, error *e) {
    json_t *event;
    TRY(json_parse(&event, line, n, "an event of the server", e));
    const json_t *choice = json_array_get(json_object_get(event, "choices"), 0),
                 *sums = json_object_get(event, "usage");
    const char *text = json_string_value(json_object_get(choice, "text"));
    status s = json_object_get(event, "error") ? bad_answer(e, r) : OK;
    if (s == OK && text && *text) {
        double now = http_time_of(r, at);
        if (!add_seconds(*last > 0 ? &t->between : &t->first, now - (*last > 0 ? *last : r->begun)))
            s = fail(e, ERR_NOMEM, "memory is out");
        *last = now;
    }
    if (json_is_object(sums)) {
        count_usage(t, sums);
        *usage = true;
    }
    json_decref(event);
    return s;
}

static status count_answer(tally *t, answer *a) {
    static const char data[] = "data: ", done[] = "[DONE]";
    http_reply *r = &a->reply;
    error *e = &a->e;
    double last = 0;
    bool usage = false, end = false;
    if (!a->good) return e->code;
    TRY(http_take_apart(r, e));
    if (r->status != 200 || !r->body.p) return bad_answer(e, r);
    for (const char *p = r->body.p, *stop; (stop = strchr(p, '\n')); p = stop + 1) {
        if (strncmp(p, data, sizeof data - 1) != 0) continue;
        const char *line = p + sizeof data - 1;
        size_t n = (size_t)(stop - line);
        if (n && line[n - 1] == '\r') n--;
        end |= n == sizeof done - 1 && memcmp(line, done, n) == 0;
        if (!end) TRY(count_event(t, r, line, n, (size_t)(stop - r->body.p), &last, &usage, e));
    }
    return usage && end ? OK : fail(e, ERR_FORMAT, "the server's stream broke off, or has no usage");
}

/* --- one number of clients -----------------------------------------------------------------------------------------
 */

typedef struct client {
    answer *now, *end; /* of its answers */
} client;

/* Sends the next request that can be sent; polls -1 when there is none. */
static void go_on(const bench *b, client *c, struct pollfd *p) {
    while (c->now < c->end && !begin(b, c->now)) c->now++;
    *p = (struct pollfd){.fd = c->now < c->end ? c->now->reply.fd : -1, .events = POLLIN};
}

static void take_in(const bench *b, client *c, struct pollfd *p) {
    answer *a = c->now;
    if (http_receive(&a->reply, &a->e) != OK) a->good = false;
    if (a->reply.open) return;
    c->now++;
    go_on(b, c, p);
}

/* All clients on one thread, so that the server has the other processors. */
static void run_clients(const bench *b, client *c, struct pollfd *polls, int clients) {
    for (int i = 0; i < clients; i++) go_on(b, &c[i], &polls[i]);
    for (int left = 1; left && !term_interrupts;) {
        if (poll(polls, (nfds_t)clients, -1) < 0) continue; /* Ctrl-C */
        left = 0;
        for (int i = 0; i < clients; i++) {
            if (polls[i].fd >= 0 && polls[i].revents) take_in(b, &c[i], &polls[i]);
            left += polls[i].fd >= 0;
        }
    }
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static json_t *milliseconds(seconds *s, double part) { /* null: nothing was measured */
    if (!s->n) return json_null();
    qsort(s->v, s->n, sizeof *s->v, by_value);
    size_t i = (size_t)(part * (double)s->n);
    return json_real(1e3 * s->v[i < s->n ? i : s->n - 1]);
}

static json_t *level_of(answer *answers, int n, int clients, double took) {
    tally t = {0};
    int errors = 0;
    const error *first = NULL;
    for (int i = 0; i < n; i++)
        if (count_answer(&t, &answers[i]) != OK && !errors++) first = &answers[i].e;
    json_t *o = json_object();
    json_object_set_new(o, "clients", json_integer(clients));
    json_object_set_new(o, "requests", json_integer(n));
    json_object_set_new(o, "errors", json_integer(errors));
    if (first) json_object_set_new(o, "first_error", json_string(first->text));
    json_object_set_new(o, "seconds", json_real(took));
    json_object_set_new(o, "tokens", json_integer(t.tokens));
    json_object_set_new(o, "tokens_per_s", json_real((double)t.tokens / took));
    json_object_set_new(o, "prompt_tokens_per_s", json_real((double)(t.prompt - t.cached) / took));
    json_object_set_new(o, "first_token_ms_p50", milliseconds(&t.first, 0.5));
    json_object_set_new(o, "first_token_ms_p95", milliseconds(&t.first, 0.95));
    json_object_set_new(o, "between_tokens_ms_p50", milliseconds(&t.between, 0.5));
    json_object_set_new(o, "between_tokens_ms_p95", milliseconds(&t.between, 0.95));
    tally_clear(&t);
    return o;
}

static int measure_level(bench *b, int clients, json_t **out) {
    const int n = clients * b->o->requests;
    answer *answers = calloc((size_t)n, sizeof *answers);
    client *c = calloc((size_t)clients, sizeof *c);
    struct pollfd *polls = calloc((size_t)clients, sizeof *polls);
    int code = answers && c && polls ? EXIT_FINE : no_memory();
    for (int i = 0; i < n && !code; i++)
        make_body(b, &answers[i].body, &(piece){b->conversations++, b->o->prompt}, 1, false);
    if (!code) {
        for (int i = 0; i < clients; i++)
            c[i] = (client){answers + (ptrdiff_t)i * b->o->requests, answers + (ptrdiff_t)(i + 1) * b->o->requests};
        double start = clock_seconds();
        run_clients(b, c, polls, clients);
        *out = level_of(answers, n, clients, clock_seconds() - start);
    }
    for (int i = 0; i < n && answers; i++) answer_clear(&answers[i]);
    free(answers);
    free(c);
    free(polls);
    return code;
}

static int measure_levels(bench *b, json_t *all) {
    double one = 0;
    for (int i = 0; i < b->o->n_clients; i++) {
        json_t *level = NULL;
        int code = measure_level(b, b->o->clients[i], &level);
        if (code) return code;
        if (term_interrupts) {
            json_decref(level);
            return EXIT_INTERRUPTED;
        }
        double rate = json_real_value(json_object_get(level, "tokens_per_s"));
        if (b->o->clients[i] == 1) one = rate;
        if (one > 0) json_object_set_new(level, "times_one_client", json_real(rate / one));
        json_array_append_new(all, level);
    }
    return EXIT_FINE;
}

/* --- a long conversation -------------------------------------------------------------------------------------------
 */

static int turn(const bench *b, const piece *pieces, int n, int64_t known, json_t *all) {
    answer a = {0};
    tally t = {0};
    make_body(b, &a.body, pieces, n, true);
    ask(b, &a);
    status s = count_answer(&t, &a);
    if (s == OK) {
        json_t *o = json_object();
        json_object_set_new(o, "turn", json_integer((json_int_t)json_array_size(all) + 1));
        json_object_set_new(o, "prompt_tokens", json_integer(t.prompt));
        json_object_set_new(o, "cached_tokens", json_integer(t.cached));
        json_object_set_new(o, "read_again_tokens", json_integer(known > t.cached ? known - t.cached : 0));
        json_object_set_new(o, "first_token_ms", milliseconds(&t.first, 0.5));
        json_array_append_new(all, o);
    }
    tally_clear(&t);
    answer_clear(&a);
    return s == OK ? EXIT_FINE : report_base(&a.e);
}

/* The second turn's prompt is all of the first turn, its answer, and some new tokens. */
static int measure_conversation(bench *b, json_t *all) {
    const int room = b->context - 2 * b->o->generate - NEW_TOKENS, want = b->o->depth ? b->o->depth : LONG_PROMPT;
    const int prompt = want < room || b->o->depth ? want : room;
    if (prompt < 1) return EXIT_FINE; /* nothing that is long */
    const piece p[] = {{b->conversations++, prompt}, {-1, b->o->generate}, {b->conversations++, NEW_TOKENS}};
    int code = turn(b, p, 1, 0, all);
    return code ? code : turn(b, p, 3, prompt + b->o->generate, all);
}

/* --- all -----------------------------------------------------------------------------------------------------------
 */

static int start_server(bench *b) {
    error e;
    int most = 0, code = open_model(&b->own, b->o->target, &b->o->machine);
    if (code) return code;
    for (int i = 0; i < b->o->n_clients; i++)
        if (b->o->clients[i] > most) most = b->o->clients[i];
    const server_options o = {.quiet = true, .engine = {.size = sizeof o.engine, .sequences = most > 64 ? most : 0}};
    if (server_open(&b->server, &o, &e) != OK || server_serve(b->server, b->own, b->o->target, &e) != OK)
        return report_base(&e);
    snprintf(b->peer.host, sizeof b->peer.host, "127.0.0.1");
    snprintf(b->peer.port, sizeof b->peer.port, "%d", server_port(b->server));
    const int vocab = hadal_model_vocab(b->own) - FIRST_ID;
    b->ids = vocab < MOST_IDS ? vocab : MOST_IDS;
    return b->ids > 0 ? EXIT_FINE : wrong("%s: a vocabulary of %d is too small", b->o->target, vocab + FIRST_ID);
}

/* The name of the first model, as JSON, and its context. */
static int find_model(bench *b) {
    error e;
    http_reply r;
    json_t *list = NULL;
    status s = http_fetch(&r, &b->peer, "GET", "/v1/models", NULL, &e);
    if (s == OK) s = http_take_apart(&r, &e);
    if (s == OK && r.status != 200) s = bad_answer(&e, &r);
    if (s == OK) s = json_parse(&list, r.body.p ? r.body.p : "", r.body.n, "/v1/models", &e);
    const json_t *first = json_array_get(json_object_get(list, "data"), 0);
    char *id = json_dumps(json_object_get(first, "id"), JSON_ENCODE_ANY);
    const int64_t context = member(first, "max_model_len");
    b->context = context > 0 && context < INT32_MAX ? (int)context : SMALL_CONTEXT;
    if (s == OK && !id) s = bad_answer(&e, &r);
    if (id) str_puts(&b->model, id);
    free(id);
    json_decref(list);
    http_reply_clear(&r);
    return s == OK ? EXIT_FINE : report_base(&e);
}

static int measure(bench *b, json_t *levels, json_t *turns) {
    int code = http_peer_of(&b->peer, b->o->target) ? EXIT_FINE : start_server(b);
    const char *keys = getenv("HADAL_API_KEY");
    if (!code && keys && !(b->peer.key = b->key = strndup(keys, strcspn(keys, ",")))) code = no_memory();
    if (!code) code = find_model(b);
    if (code) return code;
    answer first = {0}; /* is not counted: pages of the weights are mapped here */
    make_body(b, &first.body, &(piece){b->conversations++, b->o->prompt}, 1, false);
    ask(b, &first);
    tally t = {0};
    if (count_answer(&t, &first) != OK) code = report_base(&first.e);
    tally_clear(&t);
    answer_clear(&first);
    if (!code) code = measure_levels(b, levels);
    return code ? code : measure_conversation(b, turns);
}

int bench_serve(const serve_load *o, json_t **out) {
    bench b = {.o = o, .ids = FEW_IDS};
    json_t *levels = json_array(), *turns = json_array();
    int code = measure(&b, levels, turns);
    server_close(b.server);
    hadal_model_close(b.own);
    str_free(&b.model);
    free(b.key);
    json_t *all = json_pack("{s:s, s:i, s:i, s:i, s:o, s:o}", "target", o->target, "prompt", o->prompt, "generate",
                            o->generate, "requests", o->requests, "levels", levels, "conversation", turns);
    if (!code && !all) code = no_memory();
    if (!code) *out = all;
    else json_decref(all);
    return code;
}

/* --- as a table ----------------------------------------------------------------------------------------------------
 */

static void print_cell(const json_t *o, const char *key, int width, int digits) {
    const json_t *x = json_object_get(o, key);
    if (json_is_number(x)) printf(" %*.*f", width, digits, json_number_value(x));
    else printf(" %*s", width, "-");
}

static void print_levels(const json_t *levels) {
    static const struct {
        const char *key;
        int width, digits;
    } cells[] = {{"clients", 7, 0},
                 {"tokens_per_s", 9, 1},
                 {"times_one_client", 6, 2},
                 {"prompt_tokens_per_s", 9, 1},
                 {"first_token_ms_p50", 9, 1},
                 {"first_token_ms_p95", 9, 1},
                 {"between_tokens_ms_p50", 9, 2},
                 {"between_tokens_ms_p95", 9, 2},
                 {"errors", 6, 0}};
    size_t i;
    json_t *x;
    printf(" %7s %9s %6s %9s %19s %19s %6s\n", "", "", "", "prompt", "first token, ms", "between tokens, ms", "");
    printf(" %7s %9s %6s %9s %9s %9s %9s %9s %6s\n", "clients", "tokens/s", "times", "tokens/s", "p50", "p95", "p50",
           "p95", "errors");
    json_array_foreach((json_t *)levels, i, x) {
        for (size_t k = 0; k < sizeof cells / sizeof *cells; k++)
            print_cell(x, cells[k].key, cells[k].width, cells[k].digits);
        putchar('\n');
        const char *why = json_string_value(json_object_get(x, "first_error"));
        if (why) term_puts(stdout, why), putchar('\n');
    }
}

void bench_serve_print(const json_t *result) {
    static const char *const cells[] = {"turn", "prompt_tokens", "cached_tokens", "read_again_tokens"};
    size_t i;
    json_t *x;
    print_levels(json_object_get(result, "levels"));
    printf("\n %13s %13s %13s %13s %15s\n", "turn", "prompt tokens", "cached", "read again", "first token, ms");
    json_array_foreach(json_object_get(result, "conversation"), i, x) {
        for (size_t k = 0; k < sizeof cells / sizeof *cells; k++) print_cell(x, cells[k], 13, 0);
        print_cell(x, "first_token_ms", 15, 1);
        putchar('\n');
    }
}
