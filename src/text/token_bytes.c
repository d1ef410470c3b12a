#include "text/grammar.h"

status token_bytes_open(token_bytes **out, const tokenizer *t, error *e) {
    (void)t;
    *out = NULL;
    return fail(e, ERR_UNSUPPORTED, "grammars are not there yet");
}
void token_bytes_close(token_bytes *b) {
    (void)b;
}
