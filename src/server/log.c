#include "server/log.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "server/http.h"

struct request_log {
    const server_options *o;
    pthread_mutex_t lock;
};

status request_log_open(request_log **out, const server_options *o, error *e) {
    request_log *l = *out = calloc(1, sizeof *l);
    if (!l) return fail(e, ERR_NOMEM, "memory is out");
    l->o = o;
    pthread_mutex_init(&l->lock, NULL);
    return OK;
}

void request_log_close(request_log *l) {
    if (!l) return;
    pthread_mutex_destroy(&l->lock);
    free(l);
}

/* What a client wrote must not steer a terminal: controls become visible, and what is long is cut. */
static void add_visible(str *out, const char *text, size_t most) {
    size_t n = strlen(text), i = 0;
    for (; i < n && i < most; i++) {
        unsigned char c = (unsigned char)text[i], next = (unsigned char)text[i + 1];
        if (c < 0x20 || c == 0x7f) str_addf(out, "\\x%02x", c);
        else if (c == 0xc2 && next >= 0x80 && next < 0xa0) {
            str_addf(out, "\\u%04x", next);
            i++;
        } else str_putc(out, (char)c);
    }
    while (i < n && (text[i] & 0xC0) == 0x80) str_putc(out, text[i++]); /* the cut character is finished */
    if (i < n) str_puts(out, "...");
}

static double rate(const request_note *n, double seconds) {
    double writing = seconds - n->first_token;
    return n->tokens > 1 && n->first_token > 0 && writing > 0 ? (n->tokens - 1) / writing : 0;
}

static const char *ending(const exchange *x) {
    return x->note.finish[0] ? x->note.finish : !x->complete ? "client gone" : "";
}

static void add_time(str *out, double seconds) {
    if (seconds < 0.1) str_addf(out, "%.1f ms", 1000 * seconds);
    else str_addf(out, "%.2f s", seconds);
}

/* "15:04:05 POST /v1/chat/completions 200  prompt 812 (700 cached)  64 tokens  first 0.12 s, 41.3/s  1.63 s  stop" */
static void write_line(str *out, const exchange *x, double seconds) {
    struct tm t;
    time_t now = time(NULL);
    localtime_r(&now, &t);
    str_addf(out, "%02d:%02d:%02d ", t.tm_hour, t.tm_min, t.tm_sec);
    add_visible(out, x->method, 16);
    str_putc(out, ' ');
    add_visible(out, x->path, 200);
    str_addf(out, " %d", x->status);
    const request_note *n = &x->note;
    if (n->prompt_tokens) str_addf(out, "  prompt %d", n->prompt_tokens);
    if (n->cached_tokens) str_addf(out, " (%d cached)", n->cached_tokens);
    if (n->prompt_tokens) str_addf(out, "  %d token%s", n->tokens, n->tokens == 1 ? "" : "s");
    if (n->first_token > 0) {
        str_puts(out, "  first ");
        add_time(out, n->first_token);
    }
    if (rate(n, seconds) > 0) str_addf(out, ", %.1f/s", rate(n, seconds));
    str_puts(out, "  ");
    add_time(out, seconds);
    if (*ending(x)) str_addf(out, "  %s", ending(x));
}

static void write_json(str *out, const exchange *x, double seconds) {
    struct timespec now;
    struct tm t;
    char stamp[40];
    str path = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &t);
    size_t n = strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &t);
    snprintf(stamp + n, sizeof stamp - n, ".%03dZ", (int)(now.tv_nsec / 1000000));
    add_visible(&path, x->path, 200);
    json_t *text = json_string(path.p ? path.p : "");
    json_t *o = json_pack("{s:s, s:s, s:s, s:o, s:i, s:f}", "time", stamp, "id", x->id, "method", x->method, "path",
                          text ? text : json_string("(not UTF-8)"), "status", x->status, "seconds", seconds);
    const request_note *note = &x->note;
    if (o && note->prompt_tokens) {
        json_t *more = json_pack("{s:i, s:i, s:i, s:f, s:f}", "prompt_tokens", note->prompt_tokens, "cached_tokens",
                                 note->cached_tokens, "tokens", note->tokens, "first_token_seconds", note->first_token,
                                 "tokens_per_second", rate(note, seconds));
        json_object_update(o, more);
        json_decref(more);
    }
    if (o && *ending(x)) json_object_set_new(o, "finish", json_string(ending(x)));
    char *line = o ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
    if (line) str_puts(out, line);
    free(line);
    json_decref(o);
    str_free(&path);
}

void request_log_add(request_log *l, const exchange *x, double seconds) {
    if (!l->o->log || l->o->quiet) return;
    str s = {0};
    if (l->o->json_log) write_json(&s, x, seconds);
    else write_line(&s, x, seconds);
    if (!s.failed && s.n) {
        pthread_mutex_lock(&l->lock);
        l->o->log(l->o->log_arg, s.p);
        pthread_mutex_unlock(&l->lock);
    }
    str_free(&s);
}
