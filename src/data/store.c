#include "data/store.h"

#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "data/feed.h"

static status no_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

/* ---- places in the stream ---- */

static const segment *segment_of(const store *st, int64_t at) {
    int a = 0, b = st->n; /* the last one with first <= at; none is empty */
    while (b - a > 1) {
        int m = (a + b) / 2;
        if (st->segments[m].first <= at) a = m;
        else b = m;
    }
    return &st->segments[a];
}

status store_check(const store *st, int64_t at, int64_t n, error *e) {
    for (int64_t left = n; left > 0;) {
        const segment *s = segment_of(st, at);
        int64_t i = at - s->first, end = s->n - i < left ? s->n : i + left;
        left -= end - i;
        at += end - i;
        uint32_t limit = st->vocab_size > 0 && st->vocab_size <= INT32_MAX ? (uint32_t)st->vocab_size : TOKEN_SILENT;
        if (!s->map.p) continue; /* was looked at when it was tokenized */
        while (i < end && s->tokens[i] < limit) i++;
        if (i < end)
            return fail(e, ERR_FORMAT,
                        "%s: token %u at byte %lld, but the model's vocabulary has %u: the file is of another "
                        "tokenizer, or damaged",
                        s->path, s->tokens[i], (long long)i * 4, limit);
    }
    return OK;
}

status store_read(const store *st, int64_t at, int64_t n, uint32_t *out, error *e) {
    TRY(store_check(st, at, n, e));
    while (n > 0) {
        const segment *s = segment_of(st, at);
        int64_t i = at - s->first, k = s->n - i < n ? s->n - i : n;
        memcpy(out, s->tokens + i, (size_t)k * sizeof *out);
        out += k;
        at += k;
        n -= k;
    }
    return OK;
}

int64_t store_document_end(const store *st, int64_t at, int64_t limit) {
    const segment *s = segment_of(st, at);
    int64_t i = at - s->first, end = limit - s->first < s->n ? limit - s->first : s->n;
    if (s->map.p) {
        while (i < end && s->tokens[i] != (uint32_t)st->eos) i++;
        return s->first + (i < end ? i + 1 : end);
    }
    int64_t a = -1, b = s->n_ends - 1; /* b: the first end behind i */
    while (b - a > 1) {
        int64_t m = (a + b) / 2;
        if (s->ends[m] > i) b = m;
        else a = m;
    }
    return s->first + (s->ends[b] < end ? s->ends[b] : end);
}

/* ---- sources ---- */

static status add_segment(store *st, const char *path, segment **out, error *e) {
    segment *p = realloc(st->segments, (size_t)(st->n + 1) * sizeof *p);
    if (!p) return no_memory(e);
    st->segments = p;
    *out = &p[st->n++];
    **out = (segment){.path = strdup(path)};
    return (*out)->path ? OK : no_memory(e);
}

static status add_document(segment *s, const uint32_t *tokens, size_t n, error *e) {
    if (s->n_ends == s->ends_cap) {
        int64_t cap = s->ends_cap ? 2 * s->ends_cap : 256, *p = realloc(s->ends, (size_t)cap * sizeof *p);
        if (!p) return no_memory(e);
        s->ends = p;
        s->ends_cap = cap;
    }
    if (!token_list_reserve(&s->list, n)) return no_memory(e);
    memcpy(s->list.p + s->list.n, tokens, n * sizeof *tokens);
    s->list.n += n;
    s->ends[s->n_ends++] = (int64_t)s->list.n;
    return OK;
}

static status on_document(void *arg, const uint32_t *tokens, size_t n, error *e) {
    return add_document(arg, tokens, n, e);
}

static bool has_suffix(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

static bool is_bin(const data_options *o, const char *path) {
    if (o->format && !strcmp(o->format, "bin")) return true;
    return (!o->format || !strcmp(o->format, "auto")) && has_suffix(path, ".bin");
}

static status add_bin(store *st, const char *path, error *e) {
    segment *s;
    TRY(add_segment(st, path, &s, e));
    TRY(file_map(&s->map, path, e));
    if (s->map.n % 4)
        return fail(e, ERR_FORMAT,
                    "%s: %zu bytes, which is no whole number of 4-byte tokens: truncated, or not a token file", path,
                    s->map.n);
    s->tokens = (const uint32_t *)(const void *)s->map.p;
    s->n = (int64_t)(s->map.n / 4);
    return OK;
}

/* n files of text that follow each other. */
static status add_texts(store *st, const data_options *o, const char *const *paths, int n, error *e) {
    segment *s;
    row_encoder rows;
    feed_result r;
    if (!o->tokenizer) return fail(e, ERR_ARG, "%s: text needs a tokenizer: set data.tokenizer", paths[0]);
    TRY(add_segment(st, paths[0], &s, e));
    TRY(row_encoder_open(&rows, o, e));
    feed_options f = {.paths = paths,
                      .n_paths = n,
                      .rows = &rows,
                      .vocab_size = o->vocab_size,
                      .skip_damaged = o->skip_damaged,
                      .threads = o->threads,
                      .note = o->note,
                      .progress = o->progress,
                      .arg = o->arg};
    status t = feed_run(&f, on_document, s, &r, e);
    row_encoder_close(&rows);
    s->tokens = s->list.p;
    s->n = (int64_t)s->list.n;
    return t;
}

static status add_files(store *st, const data_options *o, error *e) {
    for (int i = 0; i < o->n_paths; i++)
        if (!is_bin(o, o->paths[i]) && !feed_reads(o->paths[i]))
            return fail(e, ERR_FORMAT,
                        "%s: the name says nothing of its format: .bin, .jsonl and .txt are known, the last two also "
                        "with .gz or .zst behind",
                        o->paths[i]);
    for (int i = 0, k; i < o->n_paths; i = k) {
        for (k = i; k < o->n_paths && !is_bin(o, o->paths[k]);) k++;
        if (k > i) TRY(add_texts(st, o, o->paths + i, k - i, e));
        else TRY(add_bin(st, o->paths[k++], e));
    }
    return OK;
}

/* ---- synthetic tokens ---- */

enum { SYNTHETIC = 1 << 20, SHORTEST = 16, LONGEST = 1024 };
#define STREAM_TOKENS 0x73796e7468000000u /* "synth" */
#define STREAM_CHAIN 0x636861696e000000u  /* "chain" */

/* A Markov chain: 7 times of 8 one of four successors that the last token has, else any token. So a model that learns
 * the chain gets below log(vocabulary) by far. */
static uint32_t successor(const data_options *o, uint32_t last, const uint32_t w[4]) {
    uint32_t s[4], vocabulary = (uint32_t)o->vocab_size;
    rng_words(o->seed, STREAM_CHAIN, last, s);
    uint32_t id = (w[0] & 7 ? s[w[1] & 3] : w[2]) % vocabulary;
    return o->eos >= 0 && id == (uint32_t)o->eos ? (id + 1) % vocabulary : id;
}

static status add_synthetic(store *st, const data_options *o, error *e) {
    segment *s;
    uint32_t document[LONGEST], w[4], last = 0;
    if (o->vocab_size < 2 || o->vocab_size > INT32_MAX)
        return fail(e, ERR_ARG, "synthetic data need a vocabulary of 2 tokens or more");
    TRY(add_segment(st, "synthetic", &s, e));
    for (int64_t i = 0; s->list.n < SYNTHETIC;) {
        double u = rng_uniform(o->seed, STREAM_TOKENS, (uint64_t)i++);
        size_t n = SHORTEST + (size_t)(u * u * (LONGEST - SHORTEST));
        for (size_t k = 0; k < n; k++) {
            rng_words(o->seed, STREAM_TOKENS, (uint64_t)i++, w);
            document[k] = last = successor(o, last, w);
        }
        if (o->eos >= 0) document[n - 1] = (uint32_t)o->eos;
        TRY(add_document(s, document, n, e));
    }
    s->tokens = s->list.p;
    s->n = (int64_t)s->list.n;
    return OK;
}

/* ---- all of them ---- */

static void segment_close(segment *s) {
    file_unmap(&s->map);
    free(s->list.p);
    free(s->ends);
    free(s->path);
}

/* Places in the stream; empty segments go. */
static void join(store *st) {
    int n = 0;
    st->tokens = 0;
    for (int i = 0; i < st->n; i++) {
        segment *s = &st->segments[i];
        s->first = st->tokens;
        st->tokens += s->n;
        if (s->n) st->segments[n++] = *s;
        else segment_close(s);
    }
    st->n = n;
}

status store_open(store *st, const data_options *o, error *e) {
    bool synthetic = o->format && !strcmp(o->format, "synthetic");
    *st = (store){.eos = o->eos, .vocab_size = o->vocab_size};
    if (o->n_paths < 1) return fail(e, ERR_ARG, "no data: name a file or \"synthetic\"");
    synthetic = synthetic || (o->n_paths == 1 && !strcmp(o->paths[0], "synthetic"));
    TRY(synthetic ? add_synthetic(st, o, e) : add_files(st, o, e));
    join(st);
    return st->tokens ? OK : fail(e, ERR_FORMAT, "%s: no tokens in the data", o->paths[0]);
}

void store_close(store *st) {
    for (int i = 0; i < st->n; i++) segment_close(&st->segments[i]);
    free(st->segments);
    *st = (store){0};
}
