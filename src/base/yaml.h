/* A thin door to libyaml: one YAML document as a jansson value, with the lines where its keys stand, and quoting for
 * those who write YAML.
 *
 * Plain scalars are read by the core schema of YAML 1.2: null, true and false, integers, reals; all else is a string
 * (also .inf and .nan, which JSON does not have). Refused, with file and line: anchors and aliases, tags, keys that are
 * not scalars, a key that comes twice, several documents, nesting deeper than YAML_DEPTH. */
#ifndef HADAL_BASE_YAML_H
#define HADAL_BASE_YAML_H

#include <stddef.h>
#include "base/error.h"
#include "base/json.h"
#include "base/str.h"

enum { YAML_DEPTH = 16 };

/* An empty text gives null. *lines (may be NULL): an object with the line of every key of the first two levels,
 * "section" and "section.key". Both are the caller's to json_decref. `name` (a path) stands before errors. */
status yaml_parse(json_t **out, json_t **lines, const char *text, size_t n, const char *name, error *e);

/* Adds the text as a double-quoted scalar that reads back to the same bytes. The text is UTF-8. */
void yaml_put_text(str *s, const char *text);

#endif
