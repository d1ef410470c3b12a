#include "text/json_schema_inner.h"

status schema_number(const schema_compiler *c, const json_t *s, bool integer, int32_t *start) {
    (void)s;
    *start = rules_call(c->t->r, integer ? c->t->integer : c->t->number, RETURN);
    return OK;
}
