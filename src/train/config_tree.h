/* The sections of a run file before anybody asks what they mean: a file, those it inherits from (`defaults:`) and
 * overrides, each a layer over the one before, merged key by key. What stands where is remembered for errors. */
#ifndef HADAL_TRAIN_CONFIG_TREE_H
#define HADAL_TRAIN_CONFIG_TREE_H

#include <stdbool.h>
#include "base/json.h"
#include "base/str.h"

typedef struct config_tree {
    const char *name; /* stands before errors about what is nowhere; borrowed */
    json_t *sections; /* section -> key -> value; deeper where a file goes deeper */
    json_t *places;   /* "section.key" and deeper -> ["FILE:LINE" or "override", layer] */
    int layers;
} config_tree;

/* `defaults: other.yaml`, or a list: files beneath this one, named relative to its folder; the later of a list lie over
 * the earlier ones. Merging is deep: maps are joined, all else is replaced; null gives a key's default back. */
status config_tree_read(config_tree *out, const char *path, error *e);
status config_tree_parse(config_tree *out, const char *text, size_t n, const char *name, error *e);
status config_tree_copy(config_tree *out, const config_tree *from, error *e);
void config_tree_close(config_tree *t); /* accepts one that is zeroed */

/* A layer over all others; at: what errors say instead of file and line. Its own `defaults` are named relative to
 * `file` and lie under it, over all others. */
status config_tree_add(config_tree *t, const json_t *sections, const char *at, const char *file, error *e);
/* "section.key=value", the value as YAML, the key as deep as files go; Hydra's "+" and "++" before it change nothing.
 */
status config_tree_override(config_tree *t, const char *text, error *e);

const json_t *config_tree_get(const config_tree *t, const char *path); /* "section.key"; NULL: not there, or null */
int config_tree_layer(const config_tree *t, const char *path);         /* that it came from; -1: nobody gave it */
/* Sets section.key as if it stood where `from` (a path) stands. Takes v. */
status config_tree_put(config_tree *t, const char *section, const char *key, json_t *v, const char *from, error *e);
/* ERR_FORMAT "FILE:LINE: path what". */
status config_tree_bad(const config_tree *t, const char *path, const char *what, error *e);

/* Insertions, deletions and substitutions from a to b (Levenshtein 1966); large when one of them is long. */
int config_distance(const char *a, const char *b);

#endif
