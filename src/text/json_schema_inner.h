/* What the parts of the compiler of schemas share. */
#ifndef HADAL_TEXT_JSON_SCHEMA_INNER_H
#define HADAL_TEXT_JSON_SCHEMA_INNER_H

#include "text/json_schema.h"

enum {
    TYPE_NULL = 1,
    TYPE_BOOLEAN = 2,
    TYPE_INTEGER = 4,
    TYPE_NUMBER = 8,
    TYPE_STRING = 16,
    TYPE_ARRAY = 32,
    TYPE_OBJECT = 64,
    TYPE_ANY = 127 - TYPE_INTEGER
};

typedef struct schema_ref { /* a schema that has a rule of its own: the root, and what "$ref" names */
    char *pointer;          /* "" : the root */
    const json_t *schema;
    int32_t rule;
} schema_ref;

typedef struct schema_compiler {
    const json_text *t;
    const json_t *root;
    schema_ref *refs;
    size_t n_refs, cap_refs, at_ref; /* refs[at_ref] is being compiled */
    size_t *step;                    /* pairs of refs: the first is the second, without anything around it */
    size_t n_steps, cap_steps;
    int level;    /* arrays and objects around the current schema, within its ref */
    int depth;    /* of schemas in one another */
    str place;    /* of the current schema, as a JSON pointer */
    json_t *kept; /* list of schemas that were made on the way */
    size_t work;  /* done so far, of what could grow faster than the schema */
    error *e;
} schema_compiler;

/* The error that this schema is bad (ERR_ARG) or asks for what is not there (ERR_UNSUPPORTED). */
status schema_fail(const schema_compiler *c, status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Counts work that could grow faster than the schema; ERR_ARG when it is too much. */
status schema_spend(schema_compiler *c, size_t work);

/* A member that is a count (a natural number). */
status schema_count(const schema_compiler *c, const json_t *s, const char *key, int32_t fallback, int32_t *out);
/* The schema at a pointer "#..." in the root. */
status schema_find(const schema_compiler *c, const char *ref, const json_t **out);

/* Whether the schema is more than the keywords `except` (NULL: none) and annotations. */
bool schema_has_more(const json_t *s, const char *except);
/* ERR_UNSUPPORTED for the first keyword that is not known and would be ignored wrongly. */
status schema_check_keywords(const schema_compiler *c, const json_t *s);
/* A schema that accepts what both accept; kept by the compiler. */
status schema_merge(schema_compiler *c, const json_t *a, const json_t *b, const json_t **out);

/* The types of "type", "nullable" and, where there is none, of the other keywords. */
status schema_types(const schema_compiler *c, const json_t *s, int *types);
/* Whether the value is of a type, and within the limits of the schema s that a list of values may have beside it. */
status schema_allows(const schema_compiler *c, const json_t *s, int types, const json_t *value, bool *yes);

/* Strings and numbers by their keywords; the start of rules that end in RETURN. */
status schema_string(schema_compiler *c, const json_t *s, spelling how, int32_t *start);
status schema_number(const schema_compiler *c, const json_t *s, bool integer, int32_t *start);

#endif
