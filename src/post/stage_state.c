#include "post/stage_state.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "base/json.h"
#include "base/yaml.h"
#include "train/config_table.h"

enum { STATE_MAX = 1 << 22 };

/* What the result does not depend on. */
static bool is_free(const config_option *o) {
    return !strcmp(o->section, "checkpoint") || !strcmp(o->section, "metrics") || !strcmp(o->key, "threads") ||
           !strcmp(o->key, "kernels");
}

/* The effective configuration as a tree, by way of its text: what is compared is what a run file would say. */
static status tree_of(const train_config *c, json_t **out, error *e) {
    str text = {0};
    status s = train_config_write(c, &text, e);
    if (s == OK) s = yaml_parse(out, NULL, text.p, text.n, "configuration", e);
    str_free(&text);
    return s;
}

static status differs(const config_option *o, const json_t *was, const json_t *is, const char *folder, error *e) {
    char *a = json_dumps(was, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(12)),
         *b = json_dumps(is, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(12));
    status s =
        fail(e, ERR_FORMAT,
             "it is done with %s.%s = %.80s, but now that is %.80s: give it back its value, or remove %s and the "
             "folders after it to do it again",
             o->section, o->key, a ? a : "", b ? b : "", folder);
    free(a);
    free(b);
    return s;
}

/* Keys that were not there when the stage was done have no say. */
static status compare(const json_t *was, const json_t *is, const char *folder, error *e) {
    for (const config_option *o = config_options; o->section; o++) {
        const json_t *a = json_object_get(json_object_get(was, o->section), o->key),
                     *b = json_object_get(json_object_get(is, o->section), o->key);
        if (a && !is_free(o) && !json_equal(a, b)) return differs(o, a, b, folder, e);
    }
    return OK;
}

static status check_state(const json_t *j, const char *kind, const char *folder, const train_config *c, error *e) {
    const char *was;
    json_t *now = NULL;
    TRY(json_get_string(j, "kind", "", &was, e));
    if (strcmp(was, kind) != 0)
        return fail(e, ERR_FORMAT, "%s holds a stage of the kind %.40s: remove the folder, or take another", folder,
                    was);
    TRY(tree_of(c, &now, e));
    status s = compare(json_object_get(j, "config"), now, folder, e);
    json_decref(now);
    return s;
}

status stage_state_read(const char *folder, const char *kind, const char *output, const train_config *c, bool *done,
                        error *e) {
    char *path = path_join(folder, "stage.json");
    json_t *j = NULL;
    *done = false;
    if (!path) return fail(e, ERR_NOMEM, "memory is out");
    status s = OK;
    if (file_exists(path)) {
        s = json_read(&j, path, STATE_MAX, e);
        if (s == OK) s = check_state(j, kind, folder, c, e);
        if (s == OK && !file_exists(output) && !is_directory(output))
            s = fail(e, ERR_FORMAT, "it is done, but %s is gone: remove %s to do it again", output, folder);
        *done = s == OK;
    }
    json_decref(j);
    free(path);
    return s;
}

static void add_number(json_t *j, const char *name, double v) {
    if (isfinite(v)) json_object_set_new(j, name, json_real(v));
}

status stage_state_write(const char *folder, const char *kind, const char *output, const train_config *c,
                         const run_result *r, error *e) {
    json_t *config;
    TRY(tree_of(c, &config, e));
    json_t *j = json_pack("{s:s, s:s, s:I, s:o}", "kind", kind, "output", output, "steps", (json_int_t)r->steps,
                          "config", config);
    char *path = path_join(folder, "stage.json"), *text = NULL;
    if (j) {
        add_number(j, "tokens", r->tokens);
        add_number(j, "seconds", r->seconds);
        add_number(j, "loss", r->loss);
        add_number(j, "validation_loss", r->validation_loss);
        for (int i = 0; i < r->n_more; i++) add_number(j, r->more[i].name, r->more[i].value);
        text = json_dumps(j, JSON_INDENT(2));
    }
    status s = path && text ? file_save(path, text, strlen(text), e) : fail(e, ERR_NOMEM, "memory is out");
    free(path);
    free(text);
    json_decref(j);
    return s;
}
