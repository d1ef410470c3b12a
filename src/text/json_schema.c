#include "text/json_schema_inner.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 64, MAX_PLACE = 200, MAX_WORK = 100000000 };

static status compile(schema_compiler *c, const json_t *s, int32_t *start);

status schema_fail(const schema_compiler *c, status code, const char *fmt, ...) {
    char why[300];
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    return fail(c->e, code, "schema at #%.*s: %s", MAX_PLACE, c->place.p ? c->place.p : "", why);
}

status schema_spend(schema_compiler *c, size_t work) {
    c->work += work;
    if (c->work < work || c->work > MAX_WORK)
        return schema_fail(c, ERR_ARG, "the schema is too large: make it simpler");
    return OK;
}

/* ---- places and references ---- */

/* Goes to a schema under the current one: the place gets "/key" and perhaps a second part; back with the length that
 * it had. */
static size_t go_down(schema_compiler *c, const char *key, const char *sub) {
    size_t n = c->place.n;
    str_addf(&c->place, sub ? "/%s/%.100s" : "/%s", key, sub);
    return n;
}

static void go_up(schema_compiler *c, size_t n) {
    c->place.n = n;
    if (c->place.p) c->place.p[n] = 0;
}

static status no_memory(const schema_compiler *c) {
    return fail(c->e, ERR_NOMEM, "memory is out");
}

static bool make_room(void **array, size_t size, size_t n, size_t *cap) {
    if (n < *cap) return true;
    size_t more = *cap ? 2 * *cap : 16;
    void *p = realloc(*array, more * size);
    if (p) *array = p, *cap = more;
    return p != NULL;
}

/* The number of the ref with this pointer, which is put on the list if it is new. */
static status ref_number(schema_compiler *c, const char *pointer, const json_t *schema, size_t *out) {
    TRY(schema_spend(c, c->n_refs));
    for (*out = 0; *out < c->n_refs; ++*out)
        if (c->refs[*out].schema == schema) return OK;
    if (!make_room((void **)&c->refs, sizeof *c->refs, c->n_refs, &c->cap_refs)) return no_memory(c);
    char *copy = strdup(pointer);
    if (!copy) return no_memory(c);
    c->refs[c->n_refs++] = (schema_ref){copy, schema, rules_rule(c->t->r, false)};
    return OK;
}

static status compile_ref(schema_compiler *c, const char *ref, int32_t *start) {
    const json_t *schema;
    size_t i;
    TRY(schema_find(c, ref, &schema));
    TRY(ref_number(c, ref + 1, schema, &i));
    if (c->level == 0) {
        if (!make_room((void **)&c->step, 2 * sizeof *c->step, c->n_steps, &c->cap_steps)) return no_memory(c);
        c->step[2 * c->n_steps] = c->at_ref;
        c->step[2 * c->n_steps++ + 1] = i;
    }
    *start = rules_call(c->t->r, c->refs[i].rule, RETURN);
    return OK;
}

/* References that lead to one another without an array or object between never end: takes away those to which nothing
 * leads (Kahn's algorithm) until none is left. */
static status check_circles(schema_compiler *c) {
    TRY(schema_spend(c, c->n_refs * c->n_steps));
    size_t *leads = calloc(c->n_refs, sizeof *leads), *free_refs = malloc(c->n_refs * sizeof *free_refs), n = 0;
    bool changed = leads && free_refs;
    status s = changed ? OK : no_memory(c);
    for (size_t k = 0; s == OK && k < c->n_steps; k++) leads[c->step[2 * k + 1]]++;
    for (size_t i = 0; s == OK && i < c->n_refs; i++)
        if (!leads[i]) free_refs[n++] = i;
    for (size_t done = 0; s == OK && done < n; done++)
        for (size_t k = 0; k < c->n_steps; k++)
            if (c->step[2 * k] == free_refs[done] && --leads[c->step[2 * k + 1]] == 0)
                free_refs[n++] = c->step[2 * k + 1];
    for (size_t i = 0; s == OK && i < c->n_refs; i++)
        if (leads[i]) {
            go_up(c, 0);
            str_puts(&c->place, c->refs[i].pointer);
            s = schema_fail(c, ERR_ARG, "it refers to itself without an array or object between");
        }
    free(leads);
    free(free_refs);
    return s;
}

/* ---- values ---- */

/* A rule of the schema at key (and sub) below this one. */
static status compile_below(schema_compiler *c, const json_t *s, const char *key, const char *sub, int32_t *rule) {
    int32_t start;
    size_t n = go_down(c, key, sub);
    c->level++;
    status st = compile(c, s, &start);
    c->level--;
    go_up(c, n);
    TRY(st);
    *rule = rules_rule_of(c->t->r, false, start);
    return OK;
}

/* The rule of a list's or object's unnamed parts; absent: any value. */
static status compile_others(schema_compiler *c, const json_t *s, const char *key, int32_t *rule) {
    const json_t *others = json_object_get(s, key);
    if (others) return compile_below(c, others, key, NULL, rule);
    *rule = c->t->value;
    return OK;
}

/* ---- objects ---- */

typedef struct member {
    text key;
    int32_t rule;
    bool required;
} member;

typedef struct members {
    member *m;
    size_t n, required;
    int32_t other; /* rule of a further member's value; NEVER: there are none */
    int32_t min, max;
} members;

static bool is_required(const json_t *s, const char *key) {
    size_t i;
    const json_t *one;
    json_array_foreach(json_object_get(s, "required"), i, one) if (!strcmp(json_string_value(one), key)) return true;
    return false;
}

static status read_required(schema_compiler *c, const json_t *s, members *m) {
    const json_t *list = json_object_get(s, "required"), *properties = json_object_get(s, "properties"), *one;
    size_t i;
    if (!list) return OK;
    if (!json_is_array(list)) return schema_fail(c, ERR_ARG, "\"required\" should be a list of names");
    json_array_foreach(list, i, one) if (!json_is_string(one)) return schema_fail(
        c, ERR_ARG, "\"required\" should be a list of names");
    json_array_foreach(list, i, one) {
        const char *key = json_string_value(one);
        bool again = json_object_get(properties, key) != NULL;
        for (size_t k = 0; k < m->n && !again; k++) again = text_is(m->m[k].key, key);
        if (again) continue;
        m->m[m->n] = (member){{key, strlen(key)}, NEVER, true};
        TRY(compile_others(c, s, "additionalProperties", &m->m[m->n++].rule));
    }
    return OK;
}

static status read_members(schema_compiler *c, const json_t *s, members *m) {
    const json_t *properties = json_object_get(s, "properties"), *others = json_object_get(s, "additionalProperties");
    const char *key;
    size_t n;
    json_t *one;
    if (properties && !json_is_object(properties)) return schema_fail(c, ERR_ARG, "\"properties\" should be an object");
    size_t n_required = json_array_size(json_object_get(s, "required"));
    TRY(schema_spend(c, n_required * (json_object_size(properties) + n_required)));
    m->m = calloc(json_object_size(properties) + n_required + 1, sizeof *m->m);
    if (!m->m) return no_memory(c);
    json_object_keylen_foreach((json_t *)properties, key, n, one) {
        member *k = m->m + m->n++;
        *k = (member){{key, n}, NEVER, false};
        TRY(compile_below(c, one, "properties", key, &k->rule));
    }
    TRY(read_required(c, s, m));
    for (size_t i = 0; i < m->n; i++) m->required += m->m[i].required |= is_required(s, m->m[i].key.p);
    m->other = NEVER;
    return !others || json_is_false(others) ? OK : compile_others(c, s, "additionalProperties", &m->other);
}

/* minProperties and maxProperties hold anyway, or count members that are all alike. */
static status count_members(const schema_compiler *c, const json_t *s, members *m) {
    TRY(schema_count(c, s, "minProperties", 0, &m->min));
    TRY(schema_count(c, s, "maxProperties", UNBOUNDED, &m->max));
    if (m->n == 0 && m->other != NEVER) return OK;
    bool low = m->min <= 0 || (size_t)m->min <= m->required;
    bool high = m->max == UNBOUNDED || (m->other == NEVER && (size_t)m->max >= m->n);
    return low && high ? OK
                       : schema_fail(c, ERR_UNSUPPORTED,
                                     "\"minProperties\" and \"maxProperties\" beside optional \"properties\"");
}

/* The members that no property names: first of them and all the others, then `end`. */
static status other_members(const schema_compiler *c, const members *m, int32_t end, int32_t *first, int32_t *more) {
    rules *r = c->t->r;
    text *keys = malloc((m->n + 1) * sizeof *keys);
    if (!keys) return no_memory(c);
    for (size_t i = 0; i < m->n; i++) keys[i] = m->m[i].key;
    int32_t one = rules_rule_of(r, false, json_other_key(c->t, keys, m->n, rules_call(r, m->other, RETURN)));
    int32_t next = rules_rule_of(r, false, rules_word(r, ",", json_space(c->t, rules_call(r, one, RETURN))));
    int32_t min = m->n ? 0 : m->min, max = m->n ? UNBOUNDED : m->max;
    *first = rules_call(r, one, rules_repeat(r, next, min > 0 ? min - 1 : 0, max > 0 ? max - 1 : max, end));
    *more = rules_repeat(r, next, 0, UNBOUNDED, end);
    free(keys);
    return OK;
}

/* Behind a member comes the end, unless one is still required, or a comma and one of the next members up to the first
 * that is required. */
static status write_members(const schema_compiler *c, const members *m, int32_t *start) {
    rules *r = c->t->r;
    int32_t close = rules_word(r, "}", RETURN), end = json_space(c->t, close), pick = NEVER, more = end;
    bool may_end = true;
    if (m->other != NEVER) TRY(other_members(c, m, end, &pick, &more));
    for (size_t i = m->n; i--;) {
        const member *k = m->m + i;
        int32_t this = json_key(c->t, k->key.p, k->key.n, rules_call(r, k->rule, more));
        pick = k->required ? this : rules_either(r, this, pick);
        may_end = may_end && !k->required;
        more = rules_either(r, may_end ? end : NEVER, rules_word(r, ",", json_space(c->t, pick)));
    }
    if (m->n == 0 && m->max == 0) pick = NEVER;
    may_end = may_end && (m->n || m->min <= 0);
    *start = rules_word(r, "{", json_space(c->t, rules_either(r, may_end ? close : NEVER, pick)));
    *start = rules_call(r, rules_rule_of(r, true, *start), RETURN);
    return OK;
}

static status compile_object(schema_compiler *c, const json_t *s, int32_t *start) {
    members m = {0};
    status st = read_members(c, s, &m);
    if (st == OK) st = count_members(c, s, &m);
    if (st == OK) st = write_members(c, &m, start);
    free(m.m);
    return st;
}

/* ---- arrays ---- */

typedef struct elements {
    int32_t *first; /* rules of the elements that have a place of their own */
    int32_t n, min, max;
    int32_t other;
} elements;

static status read_elements(schema_compiler *c, const json_t *s, elements *a) {
    const json_t *items = json_object_get(s, "items"), *list = json_object_get(s, "prefixItems"), *one;
    const char *key = "prefixItems", *others = "items";
    size_t i;
    if (list && !json_is_array(list)) return schema_fail(c, ERR_ARG, "\"prefixItems\" should be a list of schemas");
    if (json_is_array(items)) list = items, key = "items", others = "additionalItems"; /* of draft 7 */
    a->first = calloc(json_array_size(list) + 1, sizeof *a->first);
    if (!a->first) return no_memory(c);
    json_array_foreach(list, i, one) {
        char number[24];
        snprintf(number, sizeof number, "%zu", i);
        TRY(compile_below(c, one, key, number, a->first + a->n++));
    }
    TRY(schema_count(c, s, "minItems", 0, &a->min));
    TRY(schema_count(c, s, "maxItems", UNBOUNDED, &a->max));
    if (json_is_true(json_object_get(s, "uniqueItems")) && (a->max == UNBOUNDED || a->max > 1))
        return schema_fail(c, ERR_UNSUPPORTED, "\"uniqueItems\" cannot be enforced");
    return compile_others(c, s, others, &a->other);
}

static int32_t write_elements(const schema_compiler *c, const elements *a) {
    rules *r = c->t->r;
    int32_t close = rules_word(r, "]", RETURN), end = json_space(c->t, close), n = a->n;
    if (a->max != UNBOUNDED && a->min > a->max) return NEVER;
    if (a->max != UNBOUNDED && n > a->max) n = a->max;
    int32_t rest_min = a->min > n ? a->min - n : 0, rest_max = a->max == UNBOUNDED ? UNBOUNDED : a->max - n;
    int32_t other = rules_rule_of(r, false, rules_word(r, ",", json_space(c->t, rules_call(r, a->other, RETURN))));
    if (n == 0) {
        int32_t more =
            rules_repeat(r, other, rest_min > 0 ? rest_min - 1 : 0, rest_max > 0 ? rest_max - 1 : rest_max, end);
        int32_t some = rest_max == 0 ? NEVER : rules_call(r, a->other, more);
        return rules_word(r, "[", json_space(c->t, rules_either(r, a->min == 0 ? close : NEVER, some)));
    }
    int32_t more = rules_repeat(r, other, rest_min, rest_max, end);
    for (int32_t i = n; --i > 0;) {
        int32_t next = rules_word(r, ",", json_space(c->t, rules_call(r, a->first[i], more)));
        more = rules_either(r, i >= a->min ? end : NEVER, next);
    }
    int32_t some = rules_call(r, a->first[0], more);
    return rules_word(r, "[", json_space(c->t, rules_either(r, a->min == 0 ? close : NEVER, some)));
}

static status compile_array(schema_compiler *c, const json_t *s, int32_t *start) {
    elements a = {0};
    status st = read_elements(c, s, &a);
    if (st == OK) *start = rules_call(c->t->r, rules_rule_of(c->t->r, true, write_elements(c, &a)), RETURN);
    free(a.first);
    return st;
}

/* ---- lists of values ---- */

static bool has_zero_char(const json_t *j) {
    const char *key;
    size_t i;
    const json_t *one;
    if (json_is_string(j)) return strlen(json_string_value(j)) != json_string_length(j);
    json_array_foreach(j, i, one) if (has_zero_char(one)) return true;
    json_object_keylen_foreach((json_t *)j, key, i, one) if (strlen(key) != i || has_zero_char(one)) return true;
    return false;
}

/* The value's one spelling. */
static void spell_value(const schema_compiler *c, const json_t *v, spelling how, str *out) {
    static const char bar[] = "｜";
    text_print_json_value(out, v);
    if (out->failed) return;
    if (how == RAW) {
        out->n = 0;
        str_add(out, json_string_value(v), json_string_length(v));
    }
    for (char *p; how == QUOTED && c->t->in_call && !out->failed && (p = strstr(out->p, bar)) != NULL;) {
        str s = {0};
        str_addf(&s, "%.*s\\uff5c%s", (int)(p - out->p), out->p, p + strlen(bar));
        s.failed |= out->failed;
        str_free(out);
        *out = s;
    }
}

static status write_values(const schema_compiler *c, const json_t *s, const json_t *values, spelling how, str *spelled,
                           text *words, int32_t *start) {
    size_t i, n = 0;
    const json_t *one;
    int types;
    bool yes;
    TRY(schema_types(c, s, &types));
    json_array_foreach(values, i, one) {
        TRY(schema_allows(c, s, types, one, &yes));
        if (!yes || (how == RAW && !json_is_string(one))) continue;
        if (has_zero_char(one)) return schema_fail(c, ERR_UNSUPPORTED, "a value with a zero character");
        spell_value(c, one, how, spelled + n);
        TRY(str_check(spelled + n, c->e));
        words[n] = (text){spelled[n].p, spelled[n].n};
        n++;
    }
    *start = rules_words(c->t->r, words, n, RETURN);
    return OK;
}

/* "enum" or "const". */
static status compile_values(schema_compiler *c, const json_t *s, spelling how, int32_t *start) {
    const json_t *list = json_object_get(s, "enum");
    json_t *constant = json_object_get(s, "const"), *one = NULL;
    if (list && (!json_is_array(list) || json_array_size(list) == 0))
        return schema_fail(c, ERR_ARG, "\"enum\" should be a list of values");
    if (constant) {
        bool listed = !list;
        for (size_t i = 0; i < json_array_size(list); i++) listed |= json_equal(json_array_get(list, i), constant);
        one = json_array();
        if (listed) json_array_append(one, constant);
        list = one;
    }
    size_t n = json_array_size(list) + 1;
    str *spelled = calloc(n, sizeof *spelled);
    text *words = calloc(n, sizeof *words);
    status st = spelled && words ? write_values(c, s, list, how, spelled, words, start) : no_memory(c);
    for (size_t i = 0; spelled && i < n; i++) str_free(spelled + i);
    free(spelled);
    free(words);
    json_decref(one);
    return st;
}

/* ---- any schema ---- */

/* "anyOf" or "oneOf": each of the schemas, with what stands beside the list. */
static status compile_any(schema_compiler *c, const json_t *s, const char *key, int32_t *start) {
    const json_t *list = json_object_get(s, key), *one;
    json_t *rest = json_copy((json_t *)s);
    size_t i;
    if (!rest || json_array_append_new(c->kept, rest)) return no_memory(c);
    json_object_del(rest, key);
    if (!json_is_array(list) || json_array_size(list) == 0)
        return schema_fail(c, ERR_ARG, "\"%s\" should be a list of schemas", key);
    *start = NEVER;
    json_array_foreach(list, i, one) {
        char number[24];
        int32_t branch;
        snprintf(number, sizeof number, "%zu", i);
        size_t n = go_down(c, key, number);
        if (schema_has_more(s, key)) TRY(schema_merge(c, rest, one, &one));
        TRY(compile(c, one, &branch));
        go_up(c, n);
        *start = rules_either(c->t->r, *start, branch);
    }
    return OK;
}

/* "allOf": its schemas and what stands beside it as one. */
static status compile_all(schema_compiler *c, const json_t *s, int32_t *start) {
    const json_t *list = json_object_get(s, "allOf"), *one, *sum;
    json_t *rest = json_copy((json_t *)s);
    size_t i;
    if (!rest || json_array_append_new(c->kept, rest)) return no_memory(c);
    json_object_del(rest, "allOf");
    if (!json_is_array(list) || json_array_size(list) == 0)
        return schema_fail(c, ERR_ARG, "\"allOf\" should be a list of schemas");
    sum = rest;
    json_array_foreach(list, i, one) TRY(schema_merge(c, sum, one, &sum));
    return compile(c, sum, start);
}

static status compile_types(schema_compiler *c, const json_t *s, int types, int32_t *start) {
    rules *r = c->t->r;
    int32_t part;
    *start = NEVER;
    if (types & TYPE_OBJECT) {
        TRY(compile_object(c, s, &part));
        *start = rules_either(r, *start, part);
    }
    if (types & TYPE_ARRAY) {
        TRY(compile_array(c, s, &part));
        *start = rules_either(r, *start, part);
    }
    if (types & TYPE_STRING) {
        TRY(schema_string(c, s, QUOTED, &part));
        *start = rules_either(r, *start, part);
    }
    if (types & (TYPE_NUMBER | TYPE_INTEGER)) {
        TRY(schema_number(c, s, !(types & TYPE_NUMBER), &part));
        *start = rules_either(r, *start, part);
    }
    text words[] = {{"true", 4}, {"false", 5}, {"null", 4}};
    int from = types & TYPE_BOOLEAN ? 0 : 2, to = types & TYPE_NULL ? 3 : 2;
    *start = rules_either(r, *start, rules_words(r, words + from, (size_t)(to - from), RETURN));
    return OK;
}

static status compile_inner(schema_compiler *c, const json_t *s, int32_t *start) {
    int types;
    const json_t *ref = json_object_get(s, "$ref");
    if (json_is_boolean(s)) {
        *start = json_is_true(s) ? json_value(c->t, RETURN) : NEVER;
        return OK;
    }
    if (!json_is_object(s)) return schema_fail(c, ERR_ARG, "a schema should be an object, true or false");
    TRY(schema_check_keywords(c, s));
    if (ref && !json_is_string(ref)) return schema_fail(c, ERR_ARG, "\"$ref\" should be a string");
    if (ref && schema_has_more(s, "$ref")) {
        const json_t *sum;
        TRY(schema_merge(c, s, json_true(), &sum)); /* puts the schema that it names in */
        return compile(c, sum, start);
    }
    if (ref) return compile_ref(c, json_string_value(ref), start);
    if (json_object_get(s, "allOf")) return compile_all(c, s, start);
    if (json_object_get(s, "anyOf")) return compile_any(c, s, "anyOf", start);
    if (json_object_get(s, "oneOf")) return compile_any(c, s, "oneOf", start);
    if (json_object_get(s, "enum") || json_object_get(s, "const")) return compile_values(c, s, QUOTED, start);
    if (!schema_has_more(s, NULL)) {
        *start = json_value(c->t, RETURN);
        return OK;
    }
    TRY(schema_types(c, s, &types));
    return compile_types(c, s, types, start);
}

static status compile(schema_compiler *c, const json_t *s, int32_t *start) {
    if (c->depth == MAX_DEPTH) return schema_fail(c, ERR_ARG, "schemas nested deeper than %d", MAX_DEPTH);
    if (c->t->r->failed != OK) return rules_check(c->t->r, c->e);
    c->depth++;
    status st = compile_inner(c, s, start);
    c->depth--;
    return st;
}

/* ---- all of it ---- */

static status compile_refs(schema_compiler *c) {
    for (; c->at_ref < c->n_refs; c->at_ref++) {
        int32_t start, rule = c->refs[c->at_ref].rule;
        go_up(c, 0);
        str_puts(&c->place, c->refs[c->at_ref].pointer);
        TRY(compile(c, c->refs[c->at_ref].schema, &start));
        rules_start(c->t->r, rule, start);
    }
    return check_circles(c);
}

static void close_compiler(schema_compiler *c) {
    for (size_t i = 0; i < c->n_refs; i++) free(c->refs[i].pointer);
    free(c->refs);
    free(c->step);
    str_free(&c->place);
    json_decref(c->kept);
}

static status open_compiler(schema_compiler *c, const json_text *t, const json_t *schema, error *e) {
    *c = (schema_compiler){.t = t, .root = schema, .kept = json_array(), .e = e};
    str_puts(&c->place, "");
    return c->kept && !c->place.failed ? OK : no_memory(c);
}

status json_schema_rule(const json_text *t, const json_t *schema, int32_t *rule, error *e) {
    schema_compiler c;
    size_t i;
    status s = open_compiler(&c, t, schema, e);
    if (s == OK) s = ref_number(&c, "", schema, &i);
    if (s == OK) s = compile_refs(&c);
    if (s == OK) *rule = c.refs[0].rule;
    close_compiler(&c);
    return s;
}

/* ---- arguments one by one ---- */

/* The schema with references and joined schemas put together. */
static status put_together(schema_compiler *c, const json_t *s, const json_t **out) {
    TRY(schema_merge(c, s, json_true(), out));
    const json_t *list = json_object_get(*out, "allOf"), *one;
    size_t i;
    if (!list) return OK;
    json_t *rest = json_copy((json_t *)*out);
    if (!rest || json_array_append_new(c->kept, rest)) return no_memory(c);
    json_object_del(rest, "allOf");
    *out = rest;
    json_array_foreach(list, i, one) TRY(schema_merge(c, *out, one, out));
    return OK;
}

static bool only_strings(const json_t *s) {
    const json_t *list = json_object_get(s, "enum"), *constant = json_object_get(s, "const"), *one;
    bool all = list || json_is_string(constant);
    size_t i;
    json_array_foreach(list, i, one) all &= json_is_string(one);
    return all;
}

/* The rule of an argument: for a schema of strings alone that of their bare text, NEVER if that may be any text. */
static status compile_argument(schema_compiler *c, const member *m, const json_t *s, bool *string, int32_t *rule) {
    int types;
    *string = false;
    *rule = m->rule;
    TRY(put_together(c, s, &s));
    if (!json_is_object(s) || json_object_get(s, "anyOf") || json_object_get(s, "oneOf")) return OK;
    TRY(schema_types(c, s, &types));
    *string = types == TYPE_STRING || only_strings(s);
    if (!*string) return OK;
    int32_t start = NEVER;
    if (json_object_get(s, "enum") || json_object_get(s, "const")) TRY(compile_values(c, s, RAW, &start));
    else if (json_object_get(s, "minLength") || json_object_get(s, "maxLength") || json_object_get(s, "pattern") ||
             json_object_get(s, "format"))
        TRY(schema_string(c, s, RAW, &start));
    *rule = start == NEVER ? NEVER : rules_rule_of(c->t->r, false, start);
    return OK;
}

static status write_arguments(schema_compiler *c, const json_t *s, const members *m, const parameter_frame *f,
                              int32_t next, int32_t *start) {
    const json_t *properties = json_object_get(s, "properties");
    *start = next;
    for (size_t i = m->n; i--;) {
        const json_t *one = json_object_get(properties, m->m[i].key.p);
        bool string;
        int32_t rule;
        if (strpbrk(m->m[i].key.p, "\"<>\n") || !m->m[i].key.n)
            return schema_fail(c, ERR_UNSUPPORTED, "\"%.60s\" cannot be the name of a parameter", m->m[i].key.p);
        size_t n = go_down(c, "properties", m->m[i].key.p);
        TRY(compile_argument(c, m->m + i, one ? one : json_true(), &string, &rule));
        go_up(c, n);
        int32_t this = f->parameter(f->user, m->m[i].key, string, rule, *start);
        *start = m->m[i].required ? this : rules_either(c->t->r, this, *start);
    }
    return OK;
}

static status compile_arguments(schema_compiler *c, const parameter_frame *f, int32_t next, int32_t *start) {
    const json_t *s;
    members m = {0};
    TRY(put_together(c, c->root, &s));
    TRY(schema_check_keywords(c, s));
    if (json_object_get(s, "anyOf") || json_object_get(s, "oneOf") || json_object_get(s, "enum") ||
        json_object_get(s, "const"))
        return schema_fail(c, ERR_UNSUPPORTED, "arguments in this format need one list of \"properties\"");
    status st = read_members(c, s, &m);
    if (st == OK && m.n) m.other = NEVER; /* in this format only named ones are written */
    if (st == OK) st = count_members(c, s, &m);
    if (st == OK) st = write_arguments(c, s, &m, f, next, start);
    free(m.m);
    return st == OK ? compile_refs(c) : st;
}

status json_schema_parameters(const json_text *t, const json_t *schema, const parameter_frame *f, int32_t next,
                              int32_t *start, error *e) {
    schema_compiler c;
    status s = open_compiler(&c, t, schema, e);
    if (s == OK) s = compile_arguments(&c, f, next, start);
    close_compiler(&c);
    return s;
}
