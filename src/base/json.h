/* A thin door to jansson: parsing with limits and errors of ours, and getters that name the key they miss.
 * Values are jansson's: json_decref what json_read and json_parse give. */
#ifndef HADAL_BASE_JSON_H
#define HADAL_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

/* Duplicate keys, invalid UTF-8 and nesting deeper than jansson's limit are errors that say line and column;
 * `name` (a path) stands before them. */
status json_parse(json_t **out, const char *text, size_t n, const char *name, error *e);
/* About the memory that a text takes when it is parsed: a hostile one of "{}," grows to a hundred times its size. */
size_t json_cost(const char *text, size_t n);
/* The same of a file; refuses what would fill memory. Integers that no machine has become real numbers: transformers
 * writes a "model_max_length" of 10^30. */
status json_read(json_t **out, const char *path, size_t max_bytes, error *e);

/* Getters of an object's members. A missing member or null gives the default; a wrong type is an error. */
status json_get_int(const json_t *o, const char *key, int64_t fallback, int64_t min, int64_t max, int64_t *out,
                    error *e);
status json_get_real(const json_t *o, const char *key, double fallback, double *out,
                     error *e); /* finite numbers only */
status json_get_bool(const json_t *o, const char *key, bool fallback, bool *out, error *e);
status json_get_string(const json_t *o, const char *key, const char *fallback, const char **out,
                       error *e); /* borrowed */

#endif
