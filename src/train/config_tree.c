#include "train/config_tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "base/yaml.h"

enum { RUN_FILE_MAX = 1 << 20, NAME_MOST = 64, CHAIN_MOST = 16, PATH_MOST = 8 };

static status no_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

int config_distance(const char *a, const char *b) {
    int row[NAME_MOST + 1], n = (int)strlen(a), m = (int)strlen(b);
    if (n > NAME_MOST || m > NAME_MOST) return NAME_MOST + 1;
    for (int j = 0; j <= m; j++) row[j] = j;
    for (int i = 1; i <= n; i++) {
        int corner = row[0];
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            int here = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            if (corner + (a[i - 1] != b[j - 1]) < here) here = corner + (a[i - 1] != b[j - 1]);
            corner = row[j];
            row[j] = here;
        }
    }
    return row[m];
}

/* --- places ----------------------------------------------------------------------------------------------------- */

/* Of the path, or of the nearest map around it. */
static const json_t *place_of(const config_tree *t, const char *path) {
    char *part = strdup(path), *dot;
    const json_t *place = part ? json_object_get(t->places, part) : NULL;
    while (part && !place && (dot = strrchr(part, '.'))) {
        *dot = '\0';
        place = json_object_get(t->places, part);
    }
    free(part);
    return place;
}

status config_tree_bad(const config_tree *t, const char *path, const char *what, error *e) {
    const json_t *place = place_of(t, path);
    const char *at = place ? json_string_value(json_array_get(place, 0)) : t->name;
    return fail(e, ERR_FORMAT, "%s: %.130s %s", at, path, what);
}

int config_tree_layer(const config_tree *t, const char *path) {
    const json_t *place = json_object_get(t->places, path);
    return place ? (int)json_integer_value(json_array_get(place, 1)) : -1;
}

const json_t *config_tree_get(const config_tree *t, const char *path) {
    const json_t *v = t->sections;
    for (size_t n; v && *path; path += n + (path[n] == '.')) {
        n = strcspn(path, ".");
        v = json_object_getn(v, path, n);
    }
    return json_is_null(v) ? NULL : v;
}

/* --- layers ----------------------------------------------------------------------------------------------------- */

typedef struct layer {
    config_tree *t;
    const char *at;      /* the file, or what stands for it */
    const json_t *lines; /* of the file's first two levels; NULL: no file */
    error *e;
} layer;

/* The line of a path, or of the section.key it lies in; 0: unknown. */
static int line_of(const layer *l, const char *path) {
    const char *dot = strchr(path, '.'), *end = dot ? strchr(dot + 1, '.') : NULL;
    const size_t n = end ? (size_t)(end - path) : strlen(path);
    return (int)json_integer_value(json_object_getn(l->lines, path, n));
}

static status remember(const layer *l, const char *path) {
    char at[600];
    const int line = line_of(l, path);
    if (line) snprintf(at, sizeof at, "%s:%d", l->at, line);
    json_t *place = json_pack("[s, i]", line ? at : l->at, l->t->layers);
    if (!place) return fail(l->e, ERR_FORMAT, "%s: the name is not valid UTF-8 text", l->at);
    return json_object_set_new(l->t->places, path, place) == 0 ? OK : no_memory(l->e);
}

/* path: of `to`, which the values of `from` are laid over. */
static status merge(const layer *l, json_t *to, const json_t *from, str *path) {
    const char *key;
    json_t *v;
    const size_t keep = path->n;
    json_object_foreach((json_t *)from, key, v) {
        json_t *old = json_object_get(to, key);
        const bool section = json_is_object(v);
        str_addf(path, "%s%s", keep ? "." : "", key);
        TRY(str_check(path, l->e));
        if (section && !json_is_object(old) && json_object_set_new(to, key, old = json_object()) != 0)
            return no_memory(l->e);
        if (section) TRY(merge(l, old, v, path));
        else if (keep || !json_is_null(v) || !json_is_object(old)) /* a section without keys changes nothing */
            if (json_object_set(to, key, v) != 0) return no_memory(l->e);
        TRY(remember(l, path->p));
        path->p[path->n = keep] = '\0';
    }
    return OK;
}

static status add_layer(config_tree *t, const json_t *sections, const json_t *lines, const char *at, error *e) {
    const layer l = {t, at, lines, e};
    str path = {0};
    status s = merge(&l, t->sections, sections, &path);
    str_free(&path);
    t->layers++;
    return s;
}

status config_tree_put(config_tree *t, const char *section, const char *key, json_t *v, const char *from, error *e) {
    char path[2 * NAME_MOST];
    json_t *s = json_object_get(t->sections, section);
    const json_t *place = place_of(t, from);
    if (!s && json_object_set_new(t->sections, section, s = json_object()) != 0) s = NULL;
    if (s && !json_is_object(s)) {
        json_decref(v);
        return config_tree_bad(t, section, "should be a section of keys", e);
    }
    snprintf(path, sizeof path, "%s.%s", section, key);
    if (!s || json_object_set_new(s, key, v) != 0) return no_memory(e);
    if (!place) return OK;
    return json_object_set_new(t->places, path, json_deep_copy(place)) == 0 ? OK : no_memory(e);
}

/* --- overrides --------------------------------------------------------------------------------------------------- */

/* "a.b.c" and a value as {a: {b: {c: value}}}. Takes v. NULL: memory is out. */
static json_t *nest(const char *path, size_t n, json_t *v) {
    for (size_t end = n, begin; v && end; end = begin ? begin - 1 : 0) {
        for (begin = end; begin && path[begin - 1] != '.';) begin--;
        json_t *around = json_object();
        if (!around || json_object_setn_new(around, path + begin, end - begin, v) != 0) {
            json_decref(around);
            return NULL;
        }
        v = around;
    }
    return v;
}

/* At least two names, none of them empty or long. */
static bool is_path(const char *text, size_t n) {
    int names = 1;
    size_t length = 0;
    for (size_t i = 0; i < n; i++) {
        length = text[i] == '.' ? 0 : length + 1;
        if (text[i] == '.' && (!i || text[i - 1] == '.')) return false;
        if (length >= NAME_MOST) return false;
        names += text[i] == '.';
    }
    return names > 1 && names <= PATH_MOST && length;
}

/* The nearest map around a path of which something is given that is no map: then the path cannot be. */
static status check_way(const config_tree *t, const char *path, error *e) {
    char part[NAME_MOST * PATH_MOST];
    for (const char *dot = strchr(path, '.'); dot; dot = strchr(dot + 1, '.')) {
        snprintf(part, sizeof part, "%.*s", (int)(dot - path), path);
        const json_t *v = config_tree_get(t, part);
        if (v && !json_is_object(v))
            return fail(e, ERR_FORMAT, "override: %s: %s is not a section of keys", path, part);
    }
    return OK;
}

status config_tree_override(config_tree *t, const char *text, error *e) {
    const char *whole = text;
    for (int i = 0; i < 2 && *text == '+'; i++) text++;
    const char *equals = strchr(text, '=');
    char name[NAME_MOST * PATH_MOST + 16];
    json_t *v;
    if (!equals || *text == '+' || !is_path(text, (size_t)(equals - text)))
        return fail(e, ERR_ARG,
                    "override \"%.100s\" should be section.key=value (a run file stands before all of them)", whole);
    if (!equals[1]) return fail(e, ERR_ARG, "override \"%.100s\" has no value (null gives the default back)", whole);
    snprintf(name, sizeof name, "override %.*s", (int)(equals - text), text);
    TRY(check_way(t, name + strlen("override "), e));
    TRY(yaml_parse(&v, NULL, equals + 1, strlen(equals + 1), name, e));
    json_t *sections = nest(text, (size_t)(equals - text), v);
    if (!sections) return fail(e, ERR_FORMAT, "%.130s: not valid UTF-8 text", name);
    status s = add_layer(t, sections, NULL, "override", e);
    json_decref(sections);
    return s;
}

/* --- files ------------------------------------------------------------------------------------------------------ */

typedef struct chain { /* the files that inherit from the one at hand */
    const char *path;
    const struct chain *up;
    int depth;
} chain;

static status add_text(config_tree *t, const char *text, size_t n, const char *name, const chain *up, error *e);

static bool same_file(const char *a, const char *b) {
    char *x = realpath(a, NULL), *y = realpath(b, NULL);
    const bool same = x && y && strcmp(x, y) == 0;
    free(x);
    free(y);
    return same;
}

static status add_file(config_tree *t, const char *path, const chain *up, error *e) {
    str text = {0};
    for (const chain *c = up; c; c = c->up)
        if (same_file(c->path, path))
            return fail(e, ERR_FORMAT, "%s: defaults lead back to %s, in a circle", up->path, path);
    if (up && up->depth >= CHAIN_MOST) return fail(e, ERR_FORMAT, "%s: defaults are nested too deeply", up->path);
    status s = file_read(&text, path, RUN_FILE_MAX, e);
    if (s != OK && up) wrap(e, "%s: defaults", up->path);
    if (s == OK) s = add_text(t, text.p ? text.p : "", text.n, path, up, e);
    str_free(&text);
    return s;
}

/* defaults: a name, or a list of names, relative to the file's folder. */
static status add_defaults(config_tree *t, const json_t *defaults, const chain *here, error *e) {
    const size_t n = json_is_array(defaults) ? json_array_size(defaults) : defaults && !json_is_null(defaults);
    for (size_t i = 0; i < n; i++) {
        const char *name = json_string_value(json_is_array(defaults) ? json_array_get(defaults, i) : defaults);
        const char *slash = strrchr(here->path, '/');
        str path = {0};
        if (!name ||
            strlen(name) != json_string_length(json_is_array(defaults) ? json_array_get(defaults, i) : defaults))
            return fail(e, ERR_FORMAT, "%s: defaults should be the name of a run file, or a list of names", here->path);
        if (*name != '/' && slash) str_add(&path, here->path, (size_t)(slash + 1 - here->path));
        str_puts(&path, name);
        status s = str_check(&path, e);
        if (s == OK) s = add_file(t, path.p, here, e);
        str_free(&path);
        TRY(s);
    }
    return OK;
}

static status add_text(config_tree *t, const char *text, size_t n, const char *name, const chain *up, error *e) {
    const chain here = {name, up, up ? up->depth + 1 : 1};
    json_t *tree, *lines;
    TRY(yaml_parse(&tree, &lines, text, n, name, e));
    status s =
        json_is_object(tree) || json_is_null(tree) ? OK : fail(e, ERR_FORMAT, "%s: should be sections of keys", name);
    if (s == OK) s = add_defaults(t, json_object_get(tree, "defaults"), &here, e);
    json_object_del(tree, "defaults");
    if (s == OK && json_is_object(tree)) s = add_layer(t, tree, lines, name, e);
    json_decref(tree);
    json_decref(lines);
    return s;
}

status config_tree_add(config_tree *t, const json_t *sections, const char *at, const char *file, error *e) {
    const chain here = {file, NULL, 1};
    json_t *own = json_copy((json_t *)sections);
    status s = own ? add_defaults(t, json_object_get(own, "defaults"), &here, e) : no_memory(e);
    json_object_del(own, "defaults");
    if (s == OK) s = add_layer(t, own, NULL, at, e);
    json_decref(own);
    return s;
}

static status open_tree(config_tree *t, const char *name, error *e) {
    *t = (config_tree){.name = name, .sections = json_object(), .places = json_object()};
    return t->sections && t->places ? OK : no_memory(e);
}

status config_tree_parse(config_tree *out, const char *text, size_t n, const char *name, error *e) {
    status s = open_tree(out, name, e);
    if (s == OK) s = add_text(out, text, n, name, NULL, e);
    if (s != OK) config_tree_close(out);
    return s;
}

status config_tree_read(config_tree *out, const char *path, error *e) {
    status s = open_tree(out, path, e);
    if (s == OK) s = add_file(out, path, NULL, e);
    if (s != OK) config_tree_close(out);
    return s;
}

status config_tree_copy(config_tree *out, const config_tree *from, error *e) {
    *out = *from;
    out->sections = json_deep_copy(from->sections);
    out->places = json_deep_copy(from->places);
    if (out->sections && out->places) return OK;
    config_tree_close(out);
    return no_memory(e);
}

void config_tree_close(config_tree *t) {
    json_decref(t->sections);
    json_decref(t->places);
    *t = (config_tree){0};
}
