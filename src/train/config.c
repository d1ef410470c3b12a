/* Reads a run file: its layers become one tree of JSON values (config_tree.c), NeMo RL's names are put into ours
 * (config_style.c), presets fill in what nobody gave, every value is checked against the table (config_table.c), then
 * the values against each other. */
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/regex.h"
#include "base/yaml.h"
#include "train/config_style.h"
#include "train/config_table.h"

const char *const precision_names[PRECISIONS] = {"f32", "bf16", "fp8"};

enum { NAME_MAX_ = 64 };

_Static_assert(sizeof(precision) == sizeof(unsigned) && sizeof(packing) == sizeof(unsigned), "enums are ints");

typedef struct reader {
    config_tree *t;
    const config_option *o; /* the key at hand */
    train_config *c;
    arena *mem;
    error *e;
} reader;

/* --- saying what is wrong --------------------------------------------------------------------------------------- */

/* "run.yaml:12" or "override", and after it "section.key". */
static status bad_at(const reader *r, const char *section, const char *key, const char *what) {
    char path[2 * NAME_MAX_ + 2];
    snprintf(path, sizeof path, "%.*s%s%.*s", NAME_MAX_, section, *key ? "." : "", NAME_MAX_, key);
    return config_tree_bad(r->t, path, what, r->e);
}

static status bad(const reader *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static status bad(const reader *r, const char *fmt, ...) {
    char what[320];
    va_list list;
    va_start(list, fmt);
    vsnprintf(what, sizeof what, fmt, list);
    va_end(list);
    return bad_at(r, r->o->section, r->o->key, what);
}

static status no_memory(const reader *r) {
    return fail(r->e, ERR_NOMEM, "memory is out");
}

/* The key that was meant: the nearest by name, of equals the one in the same section. NULL: none is near. */
static const config_option *meant(const char *section, const char *key) {
    const config_option *best = NULL;
    int least = INT_MAX;
    for (const config_option *o = config_options; o->section; o++) {
        int d = config_distance(key, o->key), score = 2 * d + (strcmp(section, o->section) != 0);
        if (d <= 1 + (int)strlen(key) / 4 && score < least) {
            best = o;
            least = score;
        }
    }
    return best;
}

static status unknown_key(const reader *r, const char *section, const char *key) {
    char what[200];
    const config_option *o = meant(section, key);
    if (o) snprintf(what, sizeof what, "is not a key: did you mean %s.%s?", o->section, o->key);
    else snprintf(what, sizeof what, "is not a key of a run file; hadal train --keys lists them");
    return bad_at(r, section, key, what);
}

/* "a, b, c": the sections there are. */
static void list_sections(char *to, size_t size) {
    size_t n = 0;
    const char *last = "";
    for (const config_option *o = config_options; o->section && n < size; o++) {
        if (strcmp(o->section, last) != 0) n += (size_t)snprintf(to + n, size - n, "%s%s", n ? ", " : "", o->section);
        last = o->section;
    }
}

static status unknown_section(const reader *r, const char *section) {
    const char *best = NULL;
    char what[200], all[160];
    int least = 3;
    for (const config_option *o = config_options; o->section; o++) {
        int d = config_distance(section, o->section);
        if (d < least) {
            best = o->section;
            least = d;
        }
    }
    const config_option *o = best ? NULL : meant("", section);
    list_sections(all, sizeof all);
    if (!strcmp(section, "stages")) snprintf(what, sizeof what, "belong to a pipeline: hadal r1 runs them");
    else if (best) snprintf(what, sizeof what, "is not a section: did you mean %s?", best);
    else if (o) snprintf(what, sizeof what, "is not a section: did you mean %s.%s?", o->section, o->key);
    else snprintf(what, sizeof what, "is not a section: they are %s", all);
    return bad_at(r, section, "", what);
}

/* --- single values ---------------------------------------------------------------------------------------------- */

static status range(const reader *r, double x, double min, double max) {
    if (x >= min && x <= max) return OK;
    return bad(r, "is %.10g, outside %.10g .. %.10g", x, min, max);
}

static status read_integer(const reader *r, const json_t *v, double min, double max, int64_t *out) {
    double x = json_number_value(v); /* 1e6 is an integer, too */
    if (!json_is_number(v) || x != floor(x)) return bad(r, "should be an integer");
    TRY(range(r, x, min, max));
    *out = json_is_integer(v) ? json_integer_value(v) : (int64_t)x;
    return OK;
}

static status read_text(const reader *r, const json_t *v, const char **out) {
    if (!json_is_string(v)) return bad(r, "should be a text (quote it if it looks like a number)");
    if (strlen(json_string_value(v)) != json_string_length(v)) return bad(r, "holds a zero byte");
    *out = arena_copy(r->mem, json_string_value(v), json_string_length(v));
    return *out ? OK : no_memory(r);
}

static status read_word(const reader *r, const json_t *v, const char *words, int *out) {
    const char *word = json_is_string(v) ? json_string_value(v) : json_is_true(v) ? "true" : "?";
    *out = config_word(words, word);
    return *out >= 0 ? OK : bad(r, "should be one of %s", words);
}

static status check_masks(const reader *r, const char *const *list, int n) {
    regex_list *x;
    error why;
    status s = regex_list_open(&x, list, n, &why);
    regex_list_close(x);
    return s == OK ? OK : s == ERR_NOMEM ? no_memory(r) : bad(r, "has a bad %s", why.text);
}

static status read_list(const reader *r, const json_t *v, string_list *out) {
    size_t n = json_is_array(v) ? json_array_size(v) : 1; /* a single one may stand alone */
    int word;
    if (n > MOST_LIST) return bad(r, "has more than %d entries", MOST_LIST);
    for (size_t i = 0; i < n; i++) {
        const json_t *x = json_is_array(v) ? json_array_get(v, i) : v;
        if (r->o->type == O_WORDS) TRY(read_word(r, x, r->o->words, &word));
        TRY(read_text(r, x, &out->item[i]));
    }
    out->n = (int)n;
    return r->o->type == O_MASKS ? check_masks(r, out->item, out->n) : OK;
}

/* Refuses members that are not in "a|b|c". */
static status members(const reader *r, const json_t *v, size_t i, const char *words) {
    const char *key;
    json_t *x;
    if (!json_is_object(v)) return bad(r, "entry %zu should be {%s}", i + 1, words);
    json_object_foreach((json_t *)v, key, x) {
        if (config_word(words, key) < 0) return bad(r, "entry %zu: \"%.60s\" is not one of %s", i + 1, key, words);
    }
    return OK;
}

static status number_of(const reader *r, const json_t *v, size_t i, const char *key, double fallback, double *out) {
    const json_t *x = json_object_get(v, key);
    *out = x && !json_is_null(x) ? json_number_value(x) : fallback;
    if (x && !json_is_null(x) && !json_is_number(x)) return bad(r, "entry %zu: \"%s\" should be a number", i + 1, key);
    if (isnan(*out)) return bad(r, "entry %zu: \"%s\" is missing", i + 1, key);
    return *out >= 0 && *out <= 1e6 ? OK : bad(r, "entry %zu: \"%s\" is %g, outside 0 .. 1e6", i + 1, key, *out);
}

/* The end of a phase: a number beyond the phase before; the last one may go on for ever (.inf, or nothing said). */
static status read_until(const reader *r, const json_t *v, size_t i, bool last, double before, double *out) {
    const json_t *x = json_object_get(v, "until");
    const char *text = json_string_value(x);
    *out = json_is_number(x) ? json_number_value(x) : INFINITY;
    if (x && !json_is_null(x) && !json_is_number(x) && !(text && (!strcmp(text, ".inf") || !strcmp(text, "inf"))))
        return bad(r, "entry %zu: \"until\" should be a number or .inf", i + 1);
    if (isinf(*out) && !last) return bad(r, "entry %zu: only the last phase may be without \"until\"", i + 1);
    return *out > before ? OK : bad(r, "entry %zu: \"until\" %g is not beyond %g", i + 1, *out, before);
}

static status read_phases(const reader *r, const json_t *v, phase *list, int *n) {
    if (!json_is_array(v)) return bad(r, "should be a list of {until, from, to, shape}");
    size_t count = json_array_size(v);
    if (count > MOST_LIST) return bad(r, "has more than %d entries", MOST_LIST);
    for (size_t i = 0; i < count; i++) {
        const json_t *x = json_array_get(v, i), *shape = json_object_get(x, "shape");
        phase *p = &list[i];
        int word = CURVE_CONSTANT;
        TRY(members(r, x, i, "until|from|to|shape"));
        TRY(read_until(r, x, i, i + 1 == count, i ? list[i - 1].until : 0, &p->until));
        TRY(number_of(r, x, i, "from", i ? list[i - 1].to : NAN, &p->from));
        TRY(number_of(r, x, i, "to", p->from, &p->to));
        if (shape && !json_is_null(shape)) TRY(read_word(r, shape, config_shapes, &word));
        else if (p->to != p->from) word = CURVE_LINEAR;
        p->shape = (curve)word;
        if (p->shape == CURVE_CONSTANT && p->to != p->from)
            return bad(r, "entry %zu: a constant phase goes from %g to %g", i + 1, p->from, p->to);
        if (p->shape != CURVE_CONSTANT && isinf(p->until))
            return bad(r, "entry %zu: a phase that changes needs \"until\"", i + 1);
    }
    *n = (int)count;
    return OK;
}

static status read_groups(const reader *r, const json_t *v, lr_group *list, int *n) {
    if (!json_is_array(v)) return bad(r, "should be a list of {match, scale}");
    size_t count = json_array_size(v);
    if (count > MOST_LIST) return bad(r, "has more than %d entries", MOST_LIST);
    for (size_t i = 0; i < count; i++) {
        const json_t *x = json_array_get(v, i), *match = json_object_get(x, "match");
        TRY(members(r, x, i, "match|scale"));
        if (!match) return bad(r, "entry %zu: \"match\" is missing", i + 1);
        TRY(read_text(r, match, &list[i].match));
        TRY(number_of(r, x, i, "scale", NAN, &list[i].scale));
        TRY(check_masks(r, &list[i].match, 1));
    }
    *n = (int)count;
    return OK;
}

static status read_eos(const reader *r, const json_t *v, int32_t *out) {
    int64_t id;
    if (json_is_string(v)) {
        int word;
        TRY(read_word(r, v, "auto|none", &word));
        *out = word ? -1 : EOS_AUTO;
        return OK;
    }
    TRY(read_integer(r, v, r->o->min, r->o->max, &id));
    *out = (int32_t)id;
    return OK;
}

static status read_objects(const reader *r, const json_t *v, const char **out) {
    if (!json_is_array(v)) return bad(r, "should be a list of objects");
    for (size_t i = 0; i < json_array_size(v); i++)
        if (!json_is_object(json_array_get(v, i))) return bad(r, "entry %zu should be {name: ..., ...}", i + 1);
    char *text = json_dumps(v, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(16));
    *out = text ? arena_copy(r->mem, text, strlen(text)) : NULL;
    free(text);
    return *out ? OK : no_memory(r);
}

static status read_range(const reader *r, const json_t *v, double out[4]) {
    if (!json_is_array(v) || json_array_size(v) != 4) return bad(r, "should be four numbers");
    for (size_t i = 0; i < 4; i++) {
        if (!json_is_number(json_array_get(v, i))) return bad(r, "should be four numbers");
        out[i] = json_number_value(json_array_get(v, i));
    }
    return OK;
}

static status read_value(const reader *r, const json_t *v) {
    const config_option *o = r->o;
    void *at = (char *)r->c + o->at;
    int *n = (int *)(void *)((char *)r->c + o->count), word;
    int64_t i;
    switch (o->type) {
    case O_INT: return read_integer(r, v, o->min, o->max, at);
    case O_INT32:
        TRY(read_integer(r, v, o->min, o->max, &i));
        *(int *)at = (int)i;
        return OK;
    case O_SEED:
        if (!json_is_integer(v) || json_integer_value(v) < 0) return bad(r, "should be an integer from 0 to 2^63 - 1");
        *(uint64_t *)at = (uint64_t)json_integer_value(v);
        return OK;
    case O_EOS: return read_eos(r, v, at);
    case O_AUTO:
        *(double *)at = NAN;
        if (json_is_string(v) && !strcmp(json_string_value(v), "auto")) return OK;
        if (!json_is_number(v)) return bad(r, "should be a number or auto");
        __attribute__((fallthrough));
    case O_REAL:
        if (!json_is_number(v)) return bad(r, "should be a number");
        *(double *)at = json_number_value(v);
        return range(r, *(double *)at, o->min, o->max);
    case O_BOOL: *(bool *)at = json_is_true(v); return json_is_boolean(v) ? OK : bad(r, "should be true or false");
    case O_PRESET:
    case O_CHOICE:
        TRY(read_word(r, v, o->words, &word));
        if (o->type == O_CHOICE) memcpy(at, &word, sizeof word);
        return OK;
    case O_WORD: TRY(read_word(r, v, o->words, &word)); __attribute__((fallthrough));
    case O_TEXT: return read_text(r, v, at);
    case O_JSON: return read_objects(r, v, at);
    case O_RANGE: return read_range(r, v, at);
    case O_LIST:
    case O_WORDS:
    case O_MASKS: return read_list(r, v, at);
    case O_PHASES: return read_phases(r, v, at, n);
    case O_GROUPS: return read_groups(r, v, at, n);
    }
    return OK;
}

/* --- the tree --------------------------------------------------------------------------------------------------- */

static const json_t *given(const reader *r, const char *section, const char *key) { /* NULL: by nobody */
    const json_t *v = json_object_get(json_object_get(r->t->sections, section), key);
    return json_is_null(v) ? NULL : v;
}

static status check_names(const reader *r) {
    const char *section, *key;
    json_t *s, *v;
    if (json_object_get(r->t->sections, "stages")) return unknown_section(r, "stages");
    json_object_foreach(r->t->sections, section, s) {
        const config_option *o = config_options;
        while (o->section && strcmp(o->section, section) != 0) o++;
        if (!o->section) return unknown_section(r, section);
        if (json_is_null(s)) continue; /* a section without keys */
        if (!json_is_object(s)) return bad_at(r, section, "", "should be a section of keys");
        json_object_foreach(s, key, v) {
            if (!config_find(section, key)) return unknown_key(r, section, key);
        }
    }
    return OK;
}

/* DeepSeek-V3 report, 4.2: the learning rate rises over 2000 steps, stays until 10T tokens, falls on a cosine
 * over 4.3T, then 333B at a tenth and 167B at 7.3e-6; MTP weight 0.3, after 10T 0.1; bias speed 1e-3, after 14.3T 0. */
static const char preset_v3[] =
    "schedule:\n"
    "  kind: table\n"
    "  unit: tokens\n"
    "  warmup_steps: 2000\n"
    "  phases: [{until: 10e12, from: 2.2e-4}, {until: 14.3e12, to: 2.2e-5, shape: cosine}, {until: 14.633e12},\n"
    "           {from: 7.3e-6}]\n"
    "objective:\n"
    "  mtp_unit: tokens\n"
    "  mtp_schedule: [{until: 10e12, from: 0.3}, {from: 0.1}]\n"
    "  bias_unit: tokens\n"
    "  bias_schedule: [{until: 14.3e12, from: 1e-3}, {from: 0}]\n";

static status apply_preset(const reader *r) {
    json_t *preset, *s, *v;
    const char *section, *key;
    TRY(yaml_parse(&preset, NULL, preset_v3, sizeof preset_v3 - 1, "preset v3", r->e));
    if (given(r, "objective", "mtp_weight")) json_object_del(json_object_get(preset, "objective"), "mtp_schedule");
    if (given(r, "objective", "bias_update_speed"))
        json_object_del(json_object_get(preset, "objective"), "bias_schedule");
    status st = OK;
    json_object_foreach(preset, section, s) {
        json_object_foreach(s, key, v) {
            if (st == OK && !given(r, section, key))
                st = config_tree_put(r->t, section, key, json_incref(v), "schedule.preset", r->e);
        }
    }
    json_decref(preset);
    return st;
}

/* --- the values together ---------------------------------------------------------------------------------------- */

static status check_required(const reader *r) {
    const train_config *c = r->c;
    if (!c->model.path) return bad_at(r, "model", "path", "is missing: which model is to be trained?");
    if (!c->data.train.n && c->training.steps)
        return bad_at(r, "data", "train", "is missing: which files are the training data?");
    if (!c->checkpoint.folder && !c->sample.output)
        return bad_at(r, "checkpoint", "folder",
                      "is missing: where shall checkpoints and metrics go? (sampling wants sample.output)");
    return OK;
}

static status check_until(const reader *r) {
    const train_config *c = r->c;
    if (!(c->training.until_loss > 0) || (c->data.validation.n && c->training.validate_every)) return OK;
    return bad_at(r, "training", "until_loss", "wants data.validation and training.validate_every");
}

static status settle_batch(const reader *r) {
    train_config *c = r->c;
    const bool ramp = c->training.batch_ramp_tokens > 0;
    char what[160];
    if (ramp && !(c->training.batch_ramp_from >= 1 && c->training.batch_ramp_from <= (double)c->training.batch))
        return bad_at(r, "training", "batch_ramp_from", "should be from 1 to training.batch when the batch grows");
    if (!c->training.micro_batch) {
        int64_t rows = ramp ? (int64_t)c->training.batch_ramp_from : c->training.batch;
        c->training.micro_batch = rows / c->training.ranks > 1 ? rows / c->training.ranks : 1;
    }
    int64_t unit = c->training.micro_batch * c->training.ranks;
    if (c->training.batch % unit) {
        snprintf(what, sizeof what, "is %lld, not a multiple of %lld = micro_batch %lld x ranks %d",
                 (long long)c->training.batch, (long long)unit, (long long)c->training.micro_batch, c->training.ranks);
        return bad_at(r, "training", "batch", what);
    }
    if (c->training.ranks % c->training.expert_parallel)
        return bad_at(r, "training", "expert_parallel", "should divide training.ranks");
    return OK;
}

/* MaxText: sparse_matmul true (megablox or ragged_dot) is dropless; false is a dense product without a capacity
 * factor, and drops with one. */
static status settle_objective(const reader *r) {
    train_config *c = r->c;
    if (!(c->objective.capacity_factor > 0)) c->objective.capacity_factor = -1;
    else if (!given(r, "objective", "sparse_matmul")) c->objective.sparse_matmul = false;
    else if (c->objective.sparse_matmul)
        return bad_at(r, "objective", "capacity_factor",
                      "does nothing with sparse_matmul: true, which is dropless: set sparse_matmul: false to drop");
    c->objective.dsa = c->objective.indexer_sparse_training           ? DSA_SPARSE
                       : c->objective.indexer_loss_scaling_factor > 0 ? DSA_DENSE_WARMUP
                                                                      : DSA_OFF;
    if (c->lora.rank && !c->lora.target_modules.n)
        return bad_at(r, "lora", "target_modules", "is missing: which weights shall have adapters?");
    return OK;
}

static status settle_schedule(const reader *r) {
    train_config *c = r->c;
    schedule_kind kind = c->schedule.kind;
    if (c->schedule.n_phases && !given(r, "schedule", "kind")) kind = c->schedule.kind = SCHEDULE_TABLE;
    if (kind == SCHEDULE_TABLE && !c->schedule.n_phases)
        return bad_at(r, "schedule", "phases", "is missing: kind table needs them");
    if (kind != SCHEDULE_TABLE && c->schedule.n_phases)
        return bad_at(r, "schedule", "kind", "should be table, because there are phases");
    if ((kind == SCHEDULE_COSINE || kind == SCHEDULE_WSD) && c->optimizer.min_lr > c->optimizer.lr)
        return bad_at(r, "optimizer", "min_lr", "is above optimizer.lr");
    if (kind == SCHEDULE_WSD && (!c->schedule.decay_steps || c->schedule.decay_steps > c->training.steps))
        return bad_at(r, "schedule", "decay_steps", "should be from 1 to training.steps with kind wsd");
    return OK;
}

static status read_all(reader *r) {
    const char *note;
    TRY(config_style(r->t, r->mem, &note, r->e));
    TRY(check_names(r));
    train_config_default(r->c);
    r->c->note = note;
    if (given(r, "schedule", "preset")) {
        r->o = config_find("schedule", "preset");
        TRY(read_value(r, given(r, "schedule", "preset")));
        TRY(apply_preset(r));
    }
    for (r->o = config_options; r->o->section; r->o++) {
        const json_t *v = given(r, r->o->section, r->o->key);
        if (v) TRY(read_value(r, v));
    }
    TRY(check_required(r));
    TRY(check_until(r));
    TRY(settle_batch(r));
    TRY(settle_objective(r));
    return settle_schedule(r);
}

status config_read_tree(train_config *out, config_tree *t, arena *mem, error *e) {
    reader r = {.t = t, .c = out, .mem = mem, .e = e};
    return read_all(&r);
}

static status with_overrides(train_config *out, config_tree *t, const char *const *overrides, int n, arena *mem,
                             error *e) {
    status s = OK;
    for (int i = 0; s == OK && i < n; i++) s = config_tree_override(t, overrides[i], e);
    if (s == OK) s = config_read_tree(out, t, mem, e);
    config_tree_close(t);
    return s;
}

status config_parse(train_config *out, const char *text, size_t n, const char *name, const char *const *overrides,
                    int n_overrides, arena *mem, error *e) {
    config_tree t;
    TRY(config_tree_parse(&t, text, n, name, e));
    return with_overrides(out, &t, overrides, n_overrides, mem, e);
}

status train_config_read(train_config *out, const char *path, const char *const *overrides, int n, arena *mem,
                         error *e) {
    config_tree t;
    TRY(path ? config_tree_read(&t, path, e) : config_tree_parse(&t, "", 0, "run", e));
    return with_overrides(out, &t, overrides, n, mem, e);
}
