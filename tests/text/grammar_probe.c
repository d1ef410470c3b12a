#include "grammar_probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "text/unicode.h"

static const char *const longer[] = {"\"}",  "{\"",     "\":",          "\": ",        "\",\"", "true", "false", "null",
                                     "[]",   "{}",      "]}",           "}}",          "},",    ", ",   " a",    "ab",
                                     "the",  "é",       "\xc3\xa9\xe4", "\xb8\xad",    "\\u",   "\\n",  "\\\"",  "00",
                                     "12",   "1.",      "-1",           "e+",          "\n  ",  "\n\n", "</",    "<|",
                                     "a\":", "a\",\"b", "b\": [",       "[{\"a\":1}]", "20",    "-0",   "x.y"};
static const char *const markers[] = {"</think>",
                                      "<｜tool▁calls▁begin｜>",
                                      "<｜tool▁calls▁end｜>",
                                      "<｜tool▁call▁begin｜>",
                                      "<｜tool▁call▁end｜>",
                                      "<｜tool▁sep｜>",
                                      "｜DSML｜"};

/* A token as tokenizer.json writes it: in the alphabet of GPT-2, in quotes. */
static void add_token(str *s, const char *p, size_t n, int *id) {
    str_puts(s, *id ? ",\"" : "\"");
    for (size_t i = 0; i < n; i++) {
        char c[4];
        size_t k = utf8_put(c, byte_to_letter((uint8_t)p[i]));
        if (*c == '"' || *c == '\\') str_putc(s, '\\');
        str_add(s, c, k);
    }
    str_addf(s, "\":%d", (*id)++);
}

void probe_open(probe *p, bool tool_tokens) {
    str s = {0};
    int id = 0;
    error e;
    str_puts(&s, "{\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{");
    for (int c = 0; c < 256; c++) add_token(&s, (const char[]){(char)c}, 1, &id);
    for (size_t i = 0; i < sizeof longer / sizeof *longer; i++) add_token(&s, longer[i], strlen(longer[i]), &id);
    str_puts(&s, "}},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false},"
                 "\"decoder\":{\"type\":\"ByteLevel\"},\"added_tokens\":[");
    p->eos = id;
    str_addf(&s, "{\"id\":%d,\"content\":\"<eos>\",\"special\":true}", id++);
    str_addf(&s, ",{\"id\":%d,\"content\":\"<|other|>\",\"special\":true}", id++);
    for (size_t i = 0; tool_tokens && i < sizeof markers / sizeof *markers; i++)
        str_addf(&s, ",{\"id\":%d,\"content\":\"%s\",\"special\":false}", id++, markers[i]);
    str_puts(&s, "]}");
    p->t = NULL;
    if (tokenizer_parse(&p->t, s.p, s.n, NULL, 0, &e) != OK || token_bytes_open(&p->b, p->t, &e) != OK) {
        fprintf(stderr, "%s\n", e.text);
        abort();
    }
    str_free(&s);
}

void probe_close(probe *p) {
    token_bytes_close(p->b);
    tokenizer_close(p->t);
}

status probe_grammar(const probe *p, const char *spec, const char *format, grammar **out, error *e) {
    json_t *j;
    status s = json_parse(&j, spec, strlen(spec), "spec", e);
    if (s != OK) return s;
    s = grammar_open(out, p->b, answer_format_named(format), j, e);
    json_decref(j);
    return s;
}

static int32_t token_at(const probe *p, const char *text, size_t n, bool added, size_t *size) {
    for (size_t i = 0; added && i < sizeof markers / sizeof *markers; i++) {
        *size = strlen(markers[i]);
        int32_t id = *size <= n && !memcmp(markers[i], text, *size) ? tokenizer_id(p->t, markers[i]) : -1;
        if (id >= 0) return id;
    }
    *size = 1;
    return (uint8_t)*text;
}

static bool may_end_here(const probe *p, grammar_state *s) {
    uint32_t mask[32] = {0};
    error e;
    if (grammar_mask(s, &p->eos, 1, mask, 32, &e) != OK) abort();
    return mask[p->eos / 32] >> (p->eos % 32) & 1;
}

size_t probe_feed(const probe *p, const grammar *g, const char *text, size_t n, bool added, bool *may_end) {
    grammar_state *s;
    error e;
    size_t at = 0, size;
    if (grammar_begin(&s, g, &e) != OK) abort();
    while (at < n && grammar_take(s, token_at(p, text + at, n - at, added, &size), &e) == OK) at += size;
    *may_end = at == n && may_end_here(p, s);
    grammar_end(s);
    return at;
}

bool probe_accepts(const probe *p, const char *spec, const char *format, const char *text) {
    grammar *g;
    error e;
    bool end;
    if (probe_grammar(p, spec, format, &g, &e) != OK) {
        printf("%s: %s\n", spec, e.text);
        return false;
    }
    probe_feed(p, g, text, strlen(text), true, &end);
    grammar_close(g);
    return end;
}

bool probe_sample(const probe *p, const grammar *g, uint64_t seed, str *out) {
    grammar_state *s;
    error e;
    if (grammar_begin(&s, g, &e) != OK) abort();
    int steps = 0;
    const int vocab = tokenizer_vocab_size(p->t);
    for (bool ended = false; !ended && steps < 2000; steps++) {
        uint32_t mask[32];
        int32_t ids[1024], closing[1024];
        int n = 0, n_closing = 0;
        if (grammar_mask(s, &p->eos, 1, mask, 32, &e) != OK) abort();
        for (int32_t id = 0; id < vocab; id++) {
            if (!(mask[id / 32] >> (id % 32) & 1)) continue;
            size_t size;
            const char *bytes = tokenizer_bytes(p->t, id, &size);
            ids[n++] = id;
            if (id == p->eos || strchr("\"]}<", bytes[0])) closing[n_closing++] = id;
        }
        uint32_t draw[4];
        rng_words(seed, 0, (uint64_t)steps, draw);
        bool close = n_closing && draw[0] % 100 < (steps > 60 ? 70 : seed % 5 * 8);
        int32_t id = close ? closing[draw[1] % (uint32_t)n_closing] : ids[draw[1] % (uint32_t)n];
        if (grammar_take(s, id, &e) != OK) {
            fprintf(stderr, "a token of the mask was not taken: %s\n", e.text);
            abort();
        }
        ended = id == p->eos;
        size_t size;
        const char *bytes = tokenizer_bytes(p->t, id, &size);
        if (!ended) str_add(out, bytes, size);
    }
    grammar_end(s);
    return steps < 2000;
}
