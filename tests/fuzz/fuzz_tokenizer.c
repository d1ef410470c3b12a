/* libFuzzer target: bytes up to the first zero as tokenizer.json, up to the second as tokenizer_config.json, the rest
 * as text. A tokenizer that opens must encode the text or say why not, and decode whatever it encoded. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void try_text(const tokenizer *t, const char *text, size_t n, unsigned flags) {
    int32_t *ids;
    size_t count;
    error e = {0};
    if (tokenizer_encode(t, text, n, flags, &ids, &count, &e) != OK) {
        if (ids || !e.text[0]) abort();
        return;
    }
    str out = {0};
    for (size_t i = 0; i < count; i++) {
        if (!tokenizer_token_text(t, ids[i])) abort();
        if (!(flags & (TOK_PARSE_SPECIAL | TOK_ADD_SPECIAL)) && tokenizer_is_special(t, ids[i])) abort();
    }
    tokenizer_decode(t, ids, count, flags & TOK_PARSE_SPECIAL, &out);
    if (out.n && utf8_valid(out.p, out.n) != out.n) abort();
    str_free(&out);
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    const char *json = (const char *)p, *end = json + n;
    size_t json_n = strnlen(json, n);
    const char *config = json + json_n < end ? json + json_n + 1 : end;
    size_t config_n = strnlen(config, (size_t)(end - config));
    const char *text = config + config_n < end ? config + config_n + 1 : end;
    tokenizer *t;
    error e = {0};
    if (tokenizer_parse(&t, json, json_n, config_n ? config : NULL, config_n, &e) != OK) {
        if (t || !e.text[0]) abort();
        return 0;
    }
    for (unsigned flags = 0; flags < 4; flags++) try_text(t, text, (size_t)(end - text), flags);
    tokenizer_close(t);
    return 0;
}
