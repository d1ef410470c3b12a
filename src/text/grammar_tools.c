#include "text/grammar_text.h"

status grammar_tools(rules *r, const token_bytes *b, const answer_format *format, const json_t *spec, int32_t *start,
                     error *e) {
    (void)r, (void)b, (void)format, (void)spec, (void)start;
    return fail(e, ERR_UNSUPPORTED, "tools are not there yet");
}
