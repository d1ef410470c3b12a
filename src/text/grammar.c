#include "text/grammar.h"

status grammar_open(grammar **out, const token_bytes *b, const answer_format *format, const json_t *spec, error *e) {
    (void)b, (void)format, (void)spec;
    *out = NULL;
    return fail(e, ERR_UNSUPPORTED, "grammars are not there yet");
}
void grammar_close(grammar *g) {
    (void)g;
}
status grammar_begin(grammar_state **out, const grammar *g, error *e) {
    (void)g;
    *out = NULL;
    return fail(e, ERR_UNSUPPORTED, "grammars are not there yet");
}
void grammar_end(grammar_state *s) {
    (void)s;
}
status grammar_mask(grammar_state *s, const int32_t *eos, int n_eos, uint32_t *mask, int64_t words, error *e) {
    (void)s, (void)eos, (void)n_eos, (void)mask, (void)words;
    return fail(e, ERR_UNSUPPORTED, "grammars are not there yet");
}
status grammar_take(grammar_state *s, int32_t id, error *e) {
    (void)s, (void)id;
    return fail(e, ERR_UNSUPPORTED, "grammars are not there yet");
}
bool grammar_complete(const grammar_state *s) {
    (void)s;
    return false;
}
