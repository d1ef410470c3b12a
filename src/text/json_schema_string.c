#include "text/json_schema_inner.h"

status schema_string(const schema_compiler *c, const json_t *s, spelling how, int32_t *start) {
    rules *r = c->t->r;
    int32_t min, max, end = how == QUOTED ? rules_word(r, "\"", RETURN) : RETURN;
    TRY(schema_count(c, s, "minLength", 0, &min));
    TRY(schema_count(c, s, "maxLength", UNBOUNDED, &max));
    if (max != UNBOUNDED && min > max) *start = NEVER;
    else *start = rules_repeat(r, c->t->character, min, max, end);
    if (how == QUOTED) *start = rules_word(r, "\"", *start);
    return OK;
}
