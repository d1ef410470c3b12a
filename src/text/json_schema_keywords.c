/* What the keywords of a schema mean beside one another: which there are, what types they leave, and one schema made
 * of two. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "text/json_schema_inner.h"

enum { MAX_COUNT = 1000000000, MAX_DEPTH = 64 };

typedef enum keyword_kind {
    ANNOTATION, /* says nothing about values, or only to those who know more */
    KNOWN,
    REFUSED,
    MOST, /* two of them: the larger number */
    LEAST,
    EQUAL /* two of them must be the same */
} keyword_kind;

static const struct keyword {
    const char *name;
    keyword_kind kind;
    int types; /* of values that it is about; 0: all */
} keywords[] = {{"type", KNOWN, 0},
                {"nullable", KNOWN, 0},
                {"enum", KNOWN, 0},
                {"const", EQUAL, 0},
                {"$ref", KNOWN, 0},
                {"allOf", KNOWN, 0},
                {"anyOf", EQUAL, 0},
                {"oneOf", EQUAL, 0},
                {"properties", KNOWN, TYPE_OBJECT},
                {"required", KNOWN, TYPE_OBJECT},
                {"additionalProperties", KNOWN, TYPE_OBJECT},
                {"minProperties", MOST, TYPE_OBJECT},
                {"maxProperties", LEAST, TYPE_OBJECT},
                {"items", KNOWN, TYPE_ARRAY},
                {"prefixItems", EQUAL, TYPE_ARRAY},
                {"additionalItems", EQUAL, TYPE_ARRAY},
                {"minItems", MOST, TYPE_ARRAY},
                {"maxItems", LEAST, TYPE_ARRAY},
                {"uniqueItems", KNOWN, TYPE_ARRAY},
                {"minLength", MOST, TYPE_STRING},
                {"maxLength", LEAST, TYPE_STRING},
                {"pattern", EQUAL, TYPE_STRING},
                {"format", EQUAL, TYPE_STRING},
                {"minimum", MOST, TYPE_NUMBER},
                {"maximum", LEAST, TYPE_NUMBER},
                {"exclusiveMinimum", MOST, TYPE_NUMBER},
                {"exclusiveMaximum", LEAST, TYPE_NUMBER},
                {"multipleOf", EQUAL, TYPE_NUMBER},
                {"not", REFUSED, 0},
                {"if", REFUSED, 0},
                {"then", REFUSED, 0},
                {"else", REFUSED, 0},
                {"contains", REFUSED, 0},
                {"minContains", REFUSED, 0},
                {"maxContains", REFUSED, 0},
                {"patternProperties", REFUSED, 0},
                {"propertyNames", REFUSED, 0},
                {"dependencies", REFUSED, 0},
                {"dependentRequired", REFUSED, 0},
                {"dependentSchemas", REFUSED, 0},
                {"unevaluatedItems", REFUSED, 0},
                {"unevaluatedProperties", REFUSED, 0},
                {"extends", REFUSED, 0},
                {"disallow", REFUSED, 0},
                {"$dynamicRef", REFUSED, 0},
                {"$recursiveRef", REFUSED, 0}};

static const struct keyword *find_keyword(const char *name) {
    for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++)
        if (!strcmp(keywords[i].name, name)) return keywords + i;
    return NULL;
}

static keyword_kind kind_of(const char *name) {
    const struct keyword *k = find_keyword(name);
    return k ? k->kind : ANNOTATION;
}

bool schema_has_more(const json_t *s, const char *except) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)s, key,
                        value) if (kind_of(key) != ANNOTATION && (!except || strcmp(key, except))) return true;
    return false;
}

status schema_check_keywords(const schema_compiler *c, const json_t *s) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)s, key, value) if (kind_of(key) == REFUSED) return schema_fail(
        c, ERR_UNSUPPORTED, "\"%s\" cannot be enforced", key);
    return OK;
}

status schema_count(const schema_compiler *c, const json_t *s, const char *key, int32_t fallback, int32_t *out) {
    const json_t *j = json_object_get(s, key);
    double v = json_is_number(j) ? json_number_value(j) : -1;
    *out = fallback;
    if (!j) return OK;
    if (v < 0 || v != floor(v)) return schema_fail(c, ERR_ARG, "\"%s\" should be a natural number", key);
    *out = v > MAX_COUNT ? MAX_COUNT : (int32_t)v;
    return OK;
}

/* ---- references ---- */

/* One part of a JSON pointer in a URI (RFC 6901): ~0, ~1 and %xx are undone. */
static void pointer_part(const char *p, size_t n, str *out) {
    for (size_t i = 0; i < n; i++) {
        char two[3] = {0};
        if (p[i] == '~' && i + 1 < n && (p[i + 1] == '0' || p[i + 1] == '1')) str_putc(out, p[++i] == '0' ? '~' : '/');
        else if (p[i] == '%' && i + 2 < n && strspn(memcpy(two, p + i + 1, 2), "0123456789abcdefABCDEF") == 2) {
            str_putc(out, (char)strtol(two, NULL, 16));
            i += 2;
        } else str_putc(out, p[i]);
    }
    str_add(out, "", 0);
}

static const json_t *child(const json_t *at, const char *name) {
    if (!json_is_array(at)) return json_object_get(at, name);
    char *end;
    unsigned long i = strtoul(name, &end, 10);
    return *end || end == name ? NULL : json_array_get(at, i);
}

status schema_find(const schema_compiler *c, const char *ref, const json_t **out) {
    const char *p = ref + 1;
    *out = c->root;
    if (*ref != '#' || (*p && *p != '/'))
        return schema_fail(c, ERR_UNSUPPORTED, "\"$ref\" to \"%.80s\": only places in the schema itself (#/...) can be",
                           ref);
    while (*p == '/' && *out) {
        str name = {0};
        size_t n = strcspn(++p, "/");
        pointer_part(p, n, &name);
        *out = name.failed ? NULL : child(*out, name.p);
        str_free(&name);
        p += n;
    }
    return *out ? OK : schema_fail(c, ERR_ARG, "\"$ref\": there is no \"%.80s\"", ref);
}

/* ---- types ---- */

static int type_named(const char *name) {
    static const char *const names[] = {"null", "boolean", "integer", "number", "string", "array", "object"};
    for (int i = 0; i < 7; i++)
        if (name && !strcmp(names[i], name)) return 1 << i;
    return 0;
}

/* The types that the keywords are about. A value of another type would be valid, too, but hardly meant. */
static int types_of_keywords(const json_t *s) {
    const char *key;
    json_t *value;
    int types = 0;
    if (json_object_get(s, "enum") || json_object_get(s, "const")) return TYPE_ANY;
    json_object_foreach((json_t *)s, key, value) {
        const struct keyword *k = find_keyword(key);
        if (k) types |= k->types;
    }
    return types ? types : TYPE_ANY;
}

status schema_types(const schema_compiler *c, const json_t *s, int *types) {
    const json_t *type = json_object_get(s, "type"), *nullable = json_object_get(s, "nullable"), *one;
    size_t i;
    if (nullable && !json_is_boolean(nullable)) return schema_fail(c, ERR_ARG, "\"nullable\" should be true or false");
    *types = json_is_true(nullable) ? TYPE_NULL : 0;
    if (!type) {
        *types |= types_of_keywords(s);
        return OK;
    }
    if (!json_is_array(type)) {
        int t = type_named(json_string_value(type));
        *types |= t;
        return t ? OK : schema_fail(c, ERR_ARG, "\"type\" should be a type of JSON or a list of them");
    }
    if (json_array_size(type) == 0) return schema_fail(c, ERR_ARG, "\"type\" is an empty list");
    json_array_foreach(type, i, one) {
        int t = type_named(json_string_value(one));
        if (!t) return schema_fail(c, ERR_ARG, "\"type\" should be a type of JSON or a list of them");
        *types |= t;
    }
    return OK;
}

static int type_of(const json_t *v) {
    switch (json_typeof(v)) {
    case JSON_OBJECT: return TYPE_OBJECT;
    case JSON_ARRAY: return TYPE_ARRAY;
    case JSON_STRING: return TYPE_STRING;
    case JSON_INTEGER: return TYPE_INTEGER | TYPE_NUMBER;
    case JSON_REAL: return json_real_value(v) == floor(json_real_value(v)) ? TYPE_INTEGER | TYPE_NUMBER : TYPE_NUMBER;
    case JSON_NULL: return TYPE_NULL;
    default: return TYPE_BOOLEAN;
    }
}

static bool within(const json_t *s, const char *low, const char *high, double v, bool equal) {
    const json_t *a = json_object_get(s, low), *b = json_object_get(s, high);
    if (json_is_number(a) && (equal ? v < json_number_value(a) : v <= json_number_value(a))) return false;
    return !json_is_number(b) || (equal ? v <= json_number_value(b) : v < json_number_value(b));
}

status schema_allows(const schema_compiler *c, const json_t *s, int types, const json_t *value, bool *yes) {
    static const char *const beyond[] = {
        "pattern",     "format",   "multipleOf",           "properties", "required",      "items",
        "prefixItems", "minItems", "additionalProperties", "maxItems",   "minProperties", "maxProperties"};
    const int t = type_of(value);
    *yes = (t & types) != 0;
    for (size_t i = 0; *yes && i < sizeof beyond / sizeof *beyond; i++)
        if (json_object_get(s, beyond[i]) && (find_keyword(beyond[i])->types & t))
            return schema_fail(c, ERR_UNSUPPORTED, "\"%s\" beside a list of values", beyond[i]);
    if (t & TYPE_NUMBER)
        *yes &= within(s, "minimum", "maximum", json_number_value(value), true) &&
                within(s, "exclusiveMinimum", "exclusiveMaximum", json_number_value(value), false);
    if (t & TYPE_STRING) {
        text v = {json_string_value(value), json_string_length(value)};
        *yes &= within(s, "minLength", "maxLength", (double)utf8_count(v), true);
    }
    return OK;
}

/* ---- one schema of two ---- */

/* A new object that lives as long as the compiler. */
static status keep(schema_compiler *c, json_t *j, json_t **out) {
    *out = j;
    return j && !json_array_append_new(c->kept, j) ? OK : fail(c->e, ERR_NOMEM, "memory is out");
}

static status both(schema_compiler *c, const json_t *a, const json_t *b, json_t **out) {
    return keep(c, json_pack("{s:[O,O]}", "allOf", a, b), out);
}

static status merge_properties(schema_compiler *c, const json_t *a, const json_t *b, json_t **out) {
    const char *key;
    json_t *value;
    if (!json_is_object(a) || !json_is_object(b)) return schema_fail(c, ERR_ARG, "\"properties\" should be an object");
    TRY(keep(c, json_copy((json_t *)a), out));
    json_object_foreach((json_t *)b, key, value) {
        const json_t *other = json_object_get(a, key);
        json_t *sum = value;
        if (other && !json_equal(other, value)) TRY(both(c, other, value, &sum));
        if (json_object_set(*out, key, sum)) return fail(c->e, ERR_NOMEM, "memory is out");
    }
    return OK;
}

static status merge_enum(schema_compiler *c, const json_t *a, const json_t *b, json_t **out) {
    size_t i, k;
    const json_t *one;
    TRY(keep(c, json_array(), out));
    TRY(schema_spend(c, json_array_size(a) * json_array_size(b)));
    json_array_foreach(a, i, one) {
        for (k = 0; k < json_array_size(b) && !json_equal(one, json_array_get(b, k));) k++;
        if (k < json_array_size(b)) json_array_append(*out, (json_t *)one);
    }
    return json_array_size(*out) ? OK : schema_fail(c, ERR_ARG, "no value is in both of two \"enum\" lists");
}

static status merge_lists(schema_compiler *c, const json_t *a, const json_t *b, json_t **out) {
    TRY(keep(c, json_copy((json_t *)a), out));
    return json_array_extend(*out, (json_t *)b) ? schema_fail(c, ERR_ARG, "two lists are needed") : OK;
}

/* The types that both allow, which stand in for "nullable", too. */
static status merge_types(schema_compiler *c, json_t *sum, const json_t *b) {
    static const char *const names[] = {"null", "boolean", "integer", "number", "string", "array", "object"};
    int left, right;
    json_t *list;
    TRY(schema_types(c, sum, &left));
    TRY(schema_types(c, b, &right));
    if (left & TYPE_NUMBER) left |= TYPE_INTEGER;
    if (right & TYPE_NUMBER) right |= TYPE_INTEGER;
    TRY(keep(c, json_array(), &list));
    for (int i = 0; i < 7; i++)
        if (left & right & 1 << i) json_array_append_new(list, json_string(names[i]));
    if (json_array_size(list) == 0) return schema_fail(c, ERR_ARG, "no type is in both of two schemas");
    json_object_del(sum, "nullable");
    return json_object_set(sum, "type", list) ? fail(c->e, ERR_NOMEM, "memory is out") : OK;
}

/* What "additionalProperties" of one schema says about properties that only the other has. */
static status check_additional(schema_compiler *c, const json_t *a, const json_t *b) {
    const json_t *others = json_object_get(a, "additionalProperties");
    const char *key;
    json_t *value;
    if (!others || json_is_true(others)) return OK;
    json_object_foreach(json_object_get(b, "properties"), key,
                        value) if (!json_object_get(json_object_get(a, "properties"),
                                                    key)) return schema_fail(c, ERR_UNSUPPORTED,
                                                                             "\"additionalProperties\" of one schema "
                                                                             "about \"%.60s\" of another that joins it",
                                                                             key);
    return OK;
}

static status merge_member(schema_compiler *c, json_t *sum, const char *key, json_t *value) {
    json_t *old = json_object_get(sum, key), *made = old;
    const keyword_kind kind = kind_of(key);
    if (!old) made = value;
    else if (kind == ANNOTATION || json_equal(old, value)) return OK;
    else if (kind == MOST || kind == LEAST) {
        bool larger = json_number_value(value) > json_number_value(old);
        if (!json_is_number(value) || !json_is_number(old)) return schema_fail(c, ERR_ARG, "\"%s\": not a number", key);
        if (larger == (kind == MOST)) made = value;
    } else if (!strcmp(key, "properties")) TRY(merge_properties(c, old, value, &made));
    else if (!strcmp(key, "enum")) TRY(merge_enum(c, old, value, &made));
    else if (!strcmp(key, "required") || !strcmp(key, "allOf")) TRY(merge_lists(c, old, value, &made));
    else if (!strcmp(key, "items")) TRY(both(c, old, value, &made));
    else if (!strcmp(key, "uniqueItems")) made = json_true();
    else if (!strcmp(key, "additionalProperties") && json_is_boolean(old) && json_is_boolean(value))
        made = json_false();
    else return schema_fail(c, ERR_UNSUPPORTED, "two schemas with different \"%s\" cannot be joined", key);
    return json_object_set(sum, key, made) ? fail(c->e, ERR_NOMEM, "memory is out") : OK;
}

static status merge_objects(schema_compiler *c, const json_t *a, const json_t *b, json_t **sum) {
    const char *key;
    json_t *value;
    TRY(schema_check_keywords(c, b));
    TRY(check_additional(c, a, b));
    TRY(check_additional(c, b, a));
    TRY(keep(c, json_copy((json_t *)a), sum));
    bool types = json_object_get(a, "type") && json_object_get(b, "type");
    if (types) TRY(merge_types(c, *sum, b));
    json_object_foreach((json_t *)b, key, value) {
        if (types && (!strcmp(key, "type") || !strcmp(key, "nullable"))) continue;
        TRY(merge_member(c, *sum, key, value));
    }
    return OK;
}

/* The schema with the one that its "$ref" names put in. */
static status resolve(schema_compiler *c, const json_t *s, const json_t **out) {
    const json_t *target, *ref = json_object_get(s, "$ref");
    json_t *rest;
    *out = s;
    if (!ref) return OK;
    if (!json_is_string(ref)) return schema_fail(c, ERR_ARG, "\"$ref\" should be a string");
    TRY(schema_find(c, json_string_value(ref), &target));
    TRY(keep(c, json_copy((json_t *)s), &rest));
    json_object_del(rest, "$ref");
    return schema_merge(c, rest, target, out);
}

status schema_merge(schema_compiler *c, const json_t *a, const json_t *b, const json_t **out) {
    json_t *sum = NULL;
    if (c->depth == MAX_DEPTH) return schema_fail(c, ERR_ARG, "schemas joined deeper than %d", MAX_DEPTH);
    TRY(schema_spend(c, 128 * (json_object_size(a) + json_object_size(b) + 1)));
    c->depth++;
    status s = resolve(c, a, &a);
    if (s == OK) s = resolve(c, b, &b);
    c->depth--;
    TRY(s);
    *out = json_is_true(a) || json_is_false(b) ? b : a;
    if (json_is_boolean(a) || json_is_boolean(b)) return OK;
    if (!json_is_object(a) || !json_is_object(b))
        return schema_fail(c, ERR_ARG, "a schema should be an object, true or false");
    TRY(merge_objects(c, a, b, &sum));
    *out = sum;
    return OK;
}
