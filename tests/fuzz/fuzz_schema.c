/* libFuzzer target: a schema (or, if it has a "type" of grammars, a whole specification) is compiled, and an answer is
 * drawn by its masks. What is drawn is taken, and a whole answer to a schema is JSON. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "text/grammar.h"
#include "text/unicode.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

enum { EOS = 256, STEPS = 60 };

/* A vocabulary of the bytes and an end token. */
static tokenizer *bytes_alone(void) {
    str s = {0};
    error e;
    tokenizer *t;
    str_puts(&s, "{\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{");
    for (int c = 0; c < 256; c++) {
        char letter[4];
        size_t k = utf8_put(letter, byte_to_letter((uint8_t)c));
        str_puts(&s, c ? ",\"" : "\"");
        if (*letter == '"' || *letter == '\\') str_putc(&s, '\\');
        str_add(&s, letter, k);
        str_addf(&s, "\":%d", c);
    }
    str_puts(&s, "}},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false},"
                 "\"decoder\":{\"type\":\"ByteLevel\"},"
                 "\"added_tokens\":[{\"id\":256,\"content\":\"<eos>\",\"special\":true}]}");
    if (tokenizer_parse(&t, s.p, s.n, NULL, 0, &e) != OK) abort();
    str_free(&s);
    return t;
}

/* A token of the mask; what closes something more often than not. */
static int32_t draw(const uint32_t *mask, uint64_t seed, int step) {
    int32_t ids[EOS + 1], n = 0, closing[EOS + 1], k = 0;
    uint32_t r[4];
    for (int32_t id = 0; id <= EOS; id++) {
        if (!(mask[id / 32] >> (id % 32) & 1)) continue;
        ids[n++] = id;
        if (id == EOS || (id && strchr("\"]}", id))) closing[k++] = id;
    }
    if (!n) abort();
    rng_words(seed, 0, (uint64_t)step, r);
    return k && r[0] % 4 ? closing[r[1] % (uint32_t)k] : ids[r[1] % (uint32_t)n];
}

static void walk(const grammar *g, bool json, uint64_t seed) {
    grammar_state *s;
    error e;
    char text[STEPS];
    const int32_t eos = EOS;
    if (grammar_begin(&s, g, &e) != OK) abort();
    for (int i = 0; i < STEPS; i++) {
        uint32_t mask[9];
        if (grammar_mask(s, &eos, 1, mask, 9, &e) != OK) abort();
        int32_t id = draw(mask, seed, i);
        if (grammar_take(s, id, &e) != OK) abort();
        if (id != EOS) {
            text[i] = (char)id;
            continue;
        }
        json_t *j = json ? json_loadb(text, (size_t)i, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL) : NULL;
        if (json && !j) abort();
        json_decref(j);
        break;
    }
    grammar_end(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    static const char *const formats[] = {"deepseek-v3", "deepseek-v3.1", "deepseek-v3.2", "plain"};
    tokenizer *t = bytes_alone();
    token_bytes *b;
    grammar *g;
    error e;
    json_t *given = json_loadb((const char *)p, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (given && token_bytes_open(&b, t, &e) != OK) abort();
    for (size_t i = 0; given && i < (json_object_get(given, "tools") ? 4 : 1); i++) {
        bool tools = json_object_get(given, "tools") != NULL;
        json_t *spec = tools ? json_incref(given) : json_pack("{s:s,s:O}", "type", "json_schema", "schema", given);
        status s = grammar_open(&g, b, answer_format_named(formats[i]), spec, &e);
        for (uint64_t seed = n; s == OK && seed < n + 3; seed++) walk(g, !tools, seed);
        if (s == OK) grammar_close(g);
        json_decref(spec);
    }
    if (given) token_bytes_close(b);
    json_decref(given);
    tokenizer_close(t);
    return 0;
}
