/* From a JSON schema to rules of a grammar whose answers the schema accepts.
 *
 * Every answer that the rules allow is valid; not every valid value can be an answer: members come in the order of
 * "properties", others only where "additionalProperties" is there and not false, and enumerated values in one spelling.
 * What cannot be kept is ERR_UNSUPPORTED, and what is no schema ERR_ARG; both name the place. */
#ifndef HADAL_TEXT_JSON_SCHEMA_H
#define HADAL_TEXT_JSON_SCHEMA_H

#include "text/json_text.h"

/* The rule of the values that the schema accepts. */
status json_schema_rule(const json_text *t, const json_t *schema, int32_t *rule, error *e);

/* The arguments of a call, for formats that write them one by one: for each property the text of its value, as it is
 * (a string) or as JSON. `parameter` adds one's frame: what begins it, its `value` rule (NEVER: a string that nothing
 * restricts) and `next`. */
typedef struct parameter_frame {
    int32_t (*parameter)(void *user, text name, bool string, int32_t value, int32_t next);
    void *user;
} parameter_frame;
status json_schema_parameters(const json_text *t, const json_t *schema, const parameter_frame *f, int32_t next,
                              int32_t *start, error *e);

#endif
