#include "post/pipeline.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/file.h"
#include "base/yaml.h"
#include "model/presets.h"
#include "post/export.h"
#include "post/report.h"
#include "post/stage_state.h"
#include "train/config_table.h"

enum { NAME_MOST = 40 };
static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";

typedef struct reading {
    pipeline *p;
    const pipeline_kind *kinds;
    config_tree shared;
    const json_t *stages;
    const char *const *overrides;
    int n_overrides;
    error *e;
} reading;

static status no_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

static const char *keep(pipeline *p, const char *text) {
    return text ? arena_copy(p->mem, text, strlen(text)) : NULL;
}

/* A text made by a function that allocates, kept. Takes it. */
static const char *keep_taken(pipeline *p, char *text) {
    const char *kept = keep(p, text);
    free(text);
    return kept;
}

/* --- names ------------------------------------------------------------------------------------------------------ */

static const pipeline_stage *stage_named(const pipeline *p, const char *name) {
    for (int i = 0; i < p->n; i++)
        if (strcmp(p->stage[i].name, name) == 0) return &p->stage[i];
    return NULL;
}

static const pipeline_kind *kind_named(const pipeline_kind *kinds, const char *name) {
    while (kinds->name && strcmp(kinds->name, name) != 0) kinds++;
    return kinds->name ? kinds : NULL;
}

static status unknown_kind(const reading *r, int i, const char *kind) {
    char list[160];
    size_t n = 0;
    for (const pipeline_kind *k = r->kinds; k->name && n < sizeof list; k++)
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", k->name);
    return fail(r->e, ERR_FORMAT, "%s: stage %d has the kind \"%.40s\", which is none of %s", r->p->path, i + 1,
                kind ? kind : "", list);
}

/* Name, kind and folder of stage number i. */
static status read_head(const reading *r, int i, const json_t *stage) {
    pipeline *p = r->p;
    pipeline_stage *s = &p->stage[i];
    const char *name = json_string_value(json_object_get(stage, "name")),
               *kind = json_string_value(json_object_get(stage, "kind"));
    char nn[NAME_MOST + 16];
    if (!json_is_object(stage))
        return fail(r->e, ERR_FORMAT, "%s: stage %d should be {name: ..., kind: ..., sections of keys}", p->path,
                    i + 1);
    if (!name || !*name || strlen(name) > NAME_MOST || name[strspn(name, letters)])
        return fail(r->e, ERR_FORMAT, "%s: stage %d needs a name of letters, digits, - and _", p->path, i + 1);
    if (stage_named(p, name))
        return fail(r->e, ERR_FORMAT, "%s: stage %d has the name \"%s\", as another has", p->path, i + 1, name);
    if (!kind || !(s->kind = kind_named(r->kinds, kind))) return unknown_kind(r, i, kind);
    snprintf(nn, sizeof nn, "%02d-%s", i + 1, name);
    s->name = keep(p, name);
    s->folder = keep_taken(p, path_join(p->folder, nn));
    return s->name && s->folder ? OK : no_memory(r->e);
}

/* --- what stages hand on ----------------------------------------------------------------------------------------- */

static status used(const reading *r, pipeline_stage *s, const char *name, const char **out) {
    const pipeline *p = r->p;
    const pipeline_stage *from = stage_named(p, name);
    if (!from) {
        bool later = false;
        for (size_t i = 0; i < json_array_size(r->stages); i++) {
            const char *other = json_string_value(json_object_get(json_array_get(r->stages, i), "name"));
            later |= other && strcmp(other, name) == 0;
        }
        return fail(r->e, ERR_FORMAT, "%s: stage %d (%s) uses \"@%.40s\", but %s", p->path, p->n + 1, s->name, name,
                    later ? "that stage does not come before it" : "there is no stage of that name");
    }
    if (from->kind->makes == MAKES_SCORES)
        return fail(r->e, ERR_FORMAT, "%s: stage %d (%s) uses \"@%s\", which makes nothing that a stage can use",
                    p->path, p->n + 1, s->name, name);
    s->uses |= 1UL << (from - p->stage);
    *out = from->output;
    return OK;
}

/* Puts outputs in the place of names, in all texts of v. *out: what should stand for v (a new reference), NULL: v. */
static status resolve(const reading *r, pipeline_stage *s, json_t *v, json_t **out) {
    const char *text = json_string_value(v), *key, *output;
    json_t *x, *other;
    size_t i;
    void *next;
    *out = NULL;
    if (text && text[0] == '@') {
        output = text + 1;
        if (text[1] != '@') TRY(used(r, s, text + 1, &output));
        return (*out = json_string(output)) ? OK : no_memory(r->e);
    }
    json_array_foreach(v, i, x) {
        TRY(resolve(r, s, x, &other));
        if (other && json_array_set_new(v, i, other) != 0) return no_memory(r->e);
    }
    json_object_foreach_safe(v, next, key, x) {
        TRY(resolve(r, s, x, &other));
        if (other && json_object_set_new(v, key, other) != 0) return no_memory(r->e);
    }
    return OK;
}

/* --- configurations ---------------------------------------------------------------------------------------------- */

/* "stages.NAME.section.key=value": what comes after the name, when it is this stage's; NULL: it is another's. */
static const char *override_for(const char *text, const char *name) {
    static const char begin[] = "stages.";
    const char *t = text + strspn(text, "+");
    const size_t n = strlen(name);
    if (strncmp(t, begin, sizeof begin - 1) != 0) return text;
    t += sizeof begin - 1;
    return strncmp(t, name, n) == 0 && t[n] == '.' ? t + n + 1 : NULL;
}

static status override_stage(const reading *r, config_tree *t, const char *name) {
    for (int i = 0; i < r->n_overrides; i++) {
        const char *text = override_for(r->overrides[i], name);
        if (text && strncmp(r->overrides[i], "folder=", 7) != 0) TRY(config_tree_override(t, text, r->e));
    }
    return OK;
}

/* Overrides of stages that are not there. */
static status check_overrides(const reading *r) {
    for (int i = 0; i < r->n_overrides; i++) {
        const char *o = r->overrides[i] + strspn(r->overrides[i], "+");
        bool known = strncmp(o, "stages.", 7) != 0;
        for (int k = 0; k < r->p->n; k++) known |= override_for(o, r->p->stage[k].name) != NULL;
        if (!known) return fail(r->e, ERR_ARG, "override \"%.100s\": there is no stage of that name", o);
    }
    return OK;
}

/* Where a stage's things lie is not for the file to say. */
static status place(const reading *r, config_tree *t, const pipeline_stage *s) {
    json_t *own =
        json_pack("{s:{s:s, s:b}}", "checkpoint", "folder", s->folder, "export", s->kind->makes == MAKES_MODEL);
    char name[NAME_MOST + 16];
    if (own && s->kind->makes == MAKES_SCORES) json_object_set_new(own, "training", json_pack("{s:i}", "steps", 0));
    if (own && s->kind->makes == MAKES_DATA && !config_tree_get(t, "sample.output")) {
        snprintf(name, sizeof name, "%s.jsonl", s->name);
        char *path = path_join(s->folder, name);
        json_object_set_new(own, "sample", json_pack("{s:s*}", "output", path));
        free(path);
    }
    status st = own ? config_tree_add(t, own, "pipeline", r->p->path, r->e) : no_memory(r->e);
    json_decref(own);
    return st;
}

static status read_config(const reading *r, pipeline_stage *s, config_tree *t, const json_t *stage) {
    json_t *sections = json_copy((json_t *)stage), *none;
    json_object_del(sections, "name");
    json_object_del(sections, "kind");
    status st = sections ? config_tree_add(t, sections, t->name, r->p->path, r->e) : no_memory(r->e);
    json_decref(sections);
    if (st == OK) st = override_stage(r, t, s->name);
    if (st == OK) st = place(r, t, s);
    if (st == OK) st = resolve(r, s, t->sections, &none);
    return st == OK ? config_read_tree(&s->c, t, r->p->mem, r->e) : st;
}

static const char *output_of(pipeline *p, const pipeline_stage *s) {
    switch (s->kind->makes) {
    case MAKES_MODEL: return keep_taken(p, path_join(s->folder, "hf"));
    case MAKES_DATA: return s->c.sample.output;
    case MAKES_SCORES: return keep_taken(p, path_join(s->folder, "eval.json"));
    }
    return NULL;
}

static status read_stage(const reading *r, int i) {
    pipeline *p = r->p;
    pipeline_stage *s = &p->stage[i];
    const json_t *stage = json_array_get(r->stages, (size_t)i);
    char at[600];
    config_tree t;
    TRY(read_head(r, i, stage));
    TRY(config_tree_copy(&t, &r->shared, r->e));
    snprintf(at, sizeof at, "%.500s: stage %d (%s)", p->path, i + 1, s->name);
    t.name = at;
    status st = read_config(r, s, &t, stage);
    config_tree_close(&t);
    TRY(st);
    if (!(s->output = output_of(p, s))) return no_memory(r->e);
    p->n++;
    return OK;
}

/* --- checks ------------------------------------------------------------------------------------------------------ */

/* A path that is there, or that an earlier stage makes. */
static status check_path(const pipeline *p, const pipeline_stage *s, const char *key, const char *path, error *e) {
    if (!path || file_exists(path) || is_directory(path)) return OK;
    for (const pipeline_stage *x = p->stage; x < s; x++)
        if (strcmp(x->output, path) == 0) return OK;
    return fail(e, ERR_FORMAT, "%s: stage %d (%s): %s: there is no %s", p->path, (int)(s - p->stage) + 1, s->name, key,
                path);
}

static status check_files(const pipeline *p, const pipeline_stage *s, const char *key, const string_list *l, error *e) {
    for (int i = 0; i < l->n; i++)
        if (strcmp(l->item[i], "synthetic") != 0) TRY(check_path(p, s, key, l->item[i], e));
    return OK;
}

static status check_stage(const pipeline *p, const pipeline_stage *s, error *e) {
    const train_config *c = &s->c;
    if (!c->model.init || !preset_find(c->model.path)) TRY(check_path(p, s, "model.path", c->model.path, e));
    TRY(check_files(p, s, "data.train", &c->data.train, e));
    TRY(check_files(p, s, "data.validation", &c->data.validation, e));
    TRY(check_path(p, s, "data.tokenizer", c->data.tokenizer, e));
    TRY(check_path(p, s, "distill.teacher", c->distill.teacher, e));
    TRY(check_path(p, s, "lora.adapter", c->lora.adapter, e));
    const status st = s->kind->check ? s->kind->check(c, e) : OK;
    return st == OK ? OK : wrap(e, "%s: stage %d (%s)", p->path, (int)(s - p->stage) + 1, s->name);
}

/* Which stages are done, with the same configuration, and none of them before one that it uses. */
static status find_done(pipeline *p, error *e) {
    for (int i = 0; i < p->n; i++) {
        pipeline_stage *s = &p->stage[i];
        if (stage_state_read(s->folder, s->kind->name, s->output, &s->c, &s->done, e) != OK)
            return wrap(e, "%s: stage %d (%s)", p->path, i + 1, s->name);
        for (int k = 0; s->done && k < i; k++)
            if (s->uses >> k & 1 && !p->stage[k].done)
                return fail(e, ERR_FORMAT,
                            "%s: stage %d (%s) is done, but stage %d (%s), which it uses, is not: remove %s", p->path,
                            i + 1, s->name, k + 1, p->stage[k].name, s->folder);
    }
    return OK;
}

/* --- opening ----------------------------------------------------------------------------------------------------- */

/* `folder` and `stages` out of the shared sections; an override of the folder goes before. */
static status read_top(reading *r, const char *path) {
    pipeline *p = r->p;
    json_t *folder = json_object_get(r->shared.sections, "folder");
    const char *name = json_string_value(folder);
    r->stages = json_incref(json_object_get(r->shared.sections, "stages"));
    for (int i = 0; i < r->n_overrides; i++)
        if (strncmp(r->overrides[i], "folder=", 7) == 0) name = r->overrides[i] + 7;
    if (!(p->path = keep(p, path))) return no_memory(r->e);
    if (!name || !*name) return fail(r->e, ERR_FORMAT, "%s: folder is missing: where shall the stages go?", path);
    if (!(p->folder = keep(p, name))) return no_memory(r->e);
    const size_t n = json_array_size(r->stages);
    if (!n) return fail(r->e, ERR_FORMAT, "%s: stages is missing: a list of {name, kind, sections of keys}", path);
    if (n > MOST_STAGES) return fail(r->e, ERR_FORMAT, "%s: there are more than %d stages", path, MOST_STAGES);
    json_object_del(r->shared.sections, "folder");
    json_object_del(r->shared.sections, "stages");
    return OK;
}

static status read_all(reading *r, const char *path) {
    pipeline *p = r->p;
    TRY(read_top(r, path));
    for (int i = 0; i < (int)json_array_size(r->stages); i++) TRY(read_stage(r, i));
    TRY(check_overrides(r));
    for (int i = 0; i < p->n; i++) TRY(check_stage(p, &p->stage[i], r->e));
    return find_done(p, r->e);
}

status pipeline_open(pipeline **out, const char *path, const char *const *overrides, int n_overrides,
                     const pipeline_kind *kinds, error *e) {
    reading r = {.kinds = kinds, .overrides = overrides, .n_overrides = n_overrides, .e = e};
    *out = NULL;
    if (!(r.p = calloc(1, sizeof *r.p)) || !(r.p->mem = arena_open(1 << 16))) {
        pipeline_close(r.p);
        return no_memory(e);
    }
    status s = config_tree_read(&r.shared, path, e);
    if (s == OK) s = read_all(&r, path);
    json_decref((json_t *)r.stages);
    config_tree_close(&r.shared);
    if (s == OK) *out = r.p;
    else pipeline_close(r.p);
    return s;
}

void pipeline_close(pipeline *p) {
    if (!p) return;
    arena_close(p->mem);
    free(p);
}

/* --- running ----------------------------------------------------------------------------------------------------- */

static void note(const run_hooks *h, const char *line) {
    if (h->note) h->note(h->arg, line);
}

static void say_stage(const pipeline *p, int i, const run_hooks *h) {
    const pipeline_stage *s = &p->stage[i];
    char line[400];
    snprintf(line, sizeof line, "stage %d of %d: %s (%s)%s%s", i + 1, p->n, s->name, s->kind->name,
             s->done ? ", done before: " : ", in ", s->done ? s->output : s->folder);
    note(h, line);
    const char *last = i ? p->stage[i - 1].c.note : NULL; /* of all stages the same: once */
    if (!s->done && s->c.note && !(last && strcmp(last, s->c.note) == 0)) note(h, s->c.note);
}

/* The stage's output is a link to hf-STEP: how many steps there will be is not known before. */
static status link_output(const pipeline_stage *s, const char *model, error *e) {
    str name = {0};
    str_addf(&name, "%s.tmp", s->output);
    TRY(str_check(&name, e));
    (void)unlink(name.p);
    const bool done = symlink(strrchr(model, '/') + 1, name.p) == 0 && rename(name.p, s->output) == 0;
    str_free(&name);
    return done ? OK : fail(e, ERR_IO, "%s: cannot make the link to %s: %s", s->output, model, strerror(errno));
}

static status make_output(const pipeline_stage *s, const run_hooks *hooks, error *e) {
    char *model = NULL;
    if (s->kind->makes != MAKES_MODEL)
        return file_exists(s->output) ? OK : fail(e, ERR_FORMAT, "nothing was written to %s", s->output);
    TRY(export_newest(&s->c, hooks, &model, e));
    if (!model) return is_exported(s->output) ? OK : fail(e, ERR_FORMAT, "there is no checkpoint in %s", s->folder);
    status st = link_output(s, model, e);
    free(model);
    return st;
}

static status run_stage(pipeline_stage *s, const run_hooks *hooks, run_result *r, error *e) {
    const double start = clock_seconds();
    *r = (run_result){0};
    TRY(make_directory(s->folder, e));
    TRY(s->kind->run(&s->c, hooks, r, e));
    if (r->stopped) return OK;
    TRY(make_output(s, hooks, e));
    r->seconds = clock_seconds() - start;
    TRY(stage_state_write(s->folder, s->kind->name, s->output, &s->c, r, e));
    s->done = true;
    return OK;
}

status pipeline_run(pipeline *p, const run_hooks *hooks, pipeline_result *out, error *e) {
    *out = (pipeline_result){.of = p->n};
    for (int i = 0; i < p->n && !out->stopped; i++) {
        pipeline_stage *s = &p->stage[i];
        run_result r;
        say_stage(p, i, hooks);
        if (!s->done) {
            if (run_stage(s, hooks, &r, e) != OK) return wrap(e, "stage %d (%s)", i + 1, s->name);
            TRY(report_write(p, e));
            out->steps += r.steps;
            out->tokens += r.tokens;
            out->seconds += r.seconds;
            out->stopped = r.stopped;
        }
        out->done += s->done;
        if (s->done && s->kind->makes == MAKES_MODEL) out->model = s->output;
    }
    return report_write(p, e);
}

/* --- the plan ---------------------------------------------------------------------------------------------------- */

static json_t *names_of(const string_list *l) {
    json_t *list = json_array();
    for (int i = 0; i < l->n; i++) json_array_append_new(list, json_string(l->item[i]));
    return list;
}

/* What a step is. Tokens are those of full rows and of the longest completions. */
static void add_amounts(json_t *j, const pipeline_stage *s) {
    const train_config *c = &s->c;
    const int64_t length = c->rollout.max_tokens ? c->rollout.max_tokens : c->data.options.seq_len;
    if (strcmp(s->kind->name, "grpo") == 0) {
        json_object_set_new(j, "prompts", json_integer(c->grpo.prompts));
        json_object_set_new(j, "completions", json_integer(c->grpo.prompts * c->grpo.generations));
        json_object_set_new(j, "most_tokens",
                            json_integer(c->training.steps * c->grpo.prompts * c->grpo.generations * length));
    } else if (s->kind->makes == MAKES_MODEL) {
        json_object_set_new(j, "rows", json_integer(c->training.batch));
        json_object_set_new(j, "most_tokens",
                            json_integer(c->training.steps * c->training.batch * c->data.options.seq_len));
    } else if (s->kind->makes == MAKES_DATA) {
        json_object_set_new(j, "completions", json_integer(c->sample.samples));
    }
    if (s->kind->makes == MAKES_MODEL) json_object_set_new(j, "steps", json_integer(c->training.steps));
}

status pipeline_plan(const pipeline *p, json_t **out, error *e) {
    json_t *list = json_array();
    for (int i = 0; list && i < p->n; i++) {
        const pipeline_stage *s = &p->stage[i];
        json_t *j = json_pack("{s:i, s:s, s:s, s:b, s:s, s:s, s:o, s:s}", "stage", i + 1, "name", s->name, "kind",
                              s->kind->name, "done", s->done, "folder", s->folder, "model", s->c.model.path, "data",
                              names_of(&s->c.data.train), "output", s->output);
        if (j) add_amounts(j, s);
        if (!j || json_array_append_new(list, j) != 0) {
            json_decref(list);
            list = NULL;
        }
    }
    *out = list;
    return list ? OK : fail(e, ERR_FORMAT, "%s: a name is not valid UTF-8 text", p->path);
}
