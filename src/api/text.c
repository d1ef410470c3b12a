/* Public functions about text: tokenizers, chat templates, answers. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "api/internal.h"
#include "base/file.h"
#include "base/json.h"

enum { CONFIG_LIMIT = 16 << 20 };

/* --- what a folder says ----------------------------------------------------------------------------------------- */

static void add_eos(folder_text *f, const json_t *id) {
    if (!json_is_integer(id) || f->n_eos == (int)(sizeof f->eos / sizeof *f->eos)) return;
    for (int i = 0; i < f->n_eos; i++)
        if (f->eos[i] == json_integer_value(id)) return;
    f->eos[f->n_eos++] = (int32_t)json_integer_value(id);
}

static void add_all_eos(folder_text *f, const json_t *ids) {
    if (json_is_array(ids))
        for (size_t i = 0; i < json_array_size(ids); i++) add_eos(f, json_array_get(ids, i));
    else add_eos(f, ids);
}

/* A member of a folder's JSON file; a missing file is fine. */
static status read_optional(json_t **out, const char *folder, const char *name, error *e) {
    *out = NULL;
    char *path = path_join(folder, name);
    if (!path) return fail(e, ERR_NOMEM, "memory is out");
    status s = file_exists(path) ? json_read(out, path, CONFIG_LIMIT, e) : OK;
    free(path);
    return s;
}

static status read_generation_config(folder_text *f, const json_t *j, error *e) {
    bool sample;
    double temperature, top_p, min_p, repetition;
    int64_t top_k;
    TRY(json_get_bool(j, "do_sample", false, &sample, e));
    TRY(json_get_real(j, "temperature", 1, &temperature, e));
    TRY(json_get_real(j, "top_p", 1, &top_p, e));
    TRY(json_get_real(j, "min_p", 0, &min_p, e));
    TRY(json_get_real(j, "repetition_penalty", 1, &repetition, e));
    TRY(json_get_int(j, "top_k", 0, 0, INT32_MAX, &top_k, e));
    f->sampling = (sampling){.temperature = sample ? (float)temperature : 0,
                             .top_k = (int)top_k,
                             .top_p = (float)top_p,
                             .min_p = (float)min_p,
                             .repetition_penalty = (float)repetition};
    add_all_eos(f, json_object_get(j, "eos_token_id"));
    return OK;
}

static status read_folder(folder_text *f, const char *folder, error *e) {
    json_t *config = NULL, *generation = NULL;
    f->sampling = (sampling){.top_p = 1, .repetition_penalty = 1};
    status s = read_optional(&config, folder, "config.json", e);
    if (s == OK) s = read_optional(&generation, folder, "generation_config.json", e);
    if (s == OK && generation && (s = read_generation_config(f, generation, e)) != OK)
        wrap(e, "%s/generation_config.json", folder);
    const char *type = json_string_value(json_object_get(config, "model_type"));
    if (s == OK && !(f->model_type = strdup(type ? type : ""))) s = fail(e, ERR_NOMEM, "memory is out");
    if (config) add_all_eos(f, json_object_get(config, "eos_token_id"));
    json_decref(config);
    json_decref(generation);
    char *path = s == OK ? path_join(folder, "tokenizer.json") : NULL;
    if (path && file_exists(path)) s = tokenizer_open(&f->tokenizer.t, folder, e);
    free(path);
    if (s != OK || !f->tokenizer.t) return s;
    json_t *eos = json_integer(tokenizer_eos(f->tokenizer.t));
    if (eos && json_integer_value(eos) >= 0) add_eos(f, eos);
    json_decref(eos);
    const char *source = tokenizer_chat_template(f->tokenizer.t);
    error why;
    if (source && template_open(&f->template, source, strlen(source), &why) != OK &&
        !(f->template_error = strdup(why.text)))
        return fail(e, ERR_NOMEM, "memory is out");
    return OK;
}

status folder_text_open(folder_text *f, const char *folder, error *e) {
    *f = (folder_text){0};
    status s = read_folder(f, folder, e);
    if (s != OK) folder_text_close(f);
    return s;
}

void folder_text_close(folder_text *f) {
    tokenizer_close(f->tokenizer.t);
    template_close(f->template);
    free(f->template_error);
    free(f->model_type);
    *f = (folder_text){0};
}
