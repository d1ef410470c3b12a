/* JSON schemas as grammars: what each keyword lets through and holds back, what is refused and where, and that every
 * random answer parses and validates, by a small validator of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/regex.h"
#include "grammar_probe.h"
#include "text/template_text.h"

#include <cmocka.h>

#define DIGIT_NODE                                                                                              \
    "{\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"},\"next\":{\"anyOf\":[" \
    "{\"$ref\":\"#/$defs/n\"},{\"type\":\"null\"}]}},\"required\":[\"v\",\"next\"]}},\"$ref\":\"#/$defs/n\"}"

/* Texts that are answers (between bars), and texts that are not. */
static const struct {
    const char *schema, *yes, *no;
} examples[] = {
    {"true", "1|\"a\"|{\"x\": [1, {}]}|[]|-1.5e+10|null", "01|+1|.5|1.|{\"x\"}|[1,]|nul|'a'|{,}|"},
    {"{\"type\":\"string\"}", "\"\"|\"aé中😀\"|\"\\u00e9\\\"\\\\\\/\\b\\f\\n\\r\\t\"|\"\\ud83d\\uDE00\"",
     "\"|a|\"\n\"|\"\\x\"|\"\\u0000\"|\"\\ud83d\"|\"\\ude00\"|\"\\ud83dx\"|\"\\ud83d\\u0041\"|\"\x80\"|\"\xc0\xaf\"|"
     "\"\xed\xa0\x80\"|\"\xf5\x80\x80\x80\"|\"\xe4\xb8\"|\"a\"b"},
    {"{\"type\":\"integer\"}", "0|-0|7|-12|999999999999999999", "1.0|1e3|00|-|1234567890123456789|1 "},
    {"{\"type\":\"number\"}", "0|1.25|-1e5|2E-07|3e+99", "1e100|1.|.1|1e|NaN|Infinity|0x1"},
    {"{\"type\":\"boolean\"}", "true|false", "null|True|1"},
    {"{\"type\":\"null\"}", "null", "true"},
    {"{\"type\":\"string\",\"nullable\":true}", "null|\"a\"", "1"},
    {"{\"type\":[\"integer\",\"null\"]}", "null|5", "\"5\"|1.5"},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"null\"},\"c\":{\"type\":"
     "\"boolean\"}},\"required\":[\"b\"]}",
     "{\"b\":null}|{\"a\": 1, \"b\": null}|{\n  \"a\":1,\n  \"b\":null,\n  \"c\":true\n}|{ \"b\":null,\"c\":false }",
     "{}|{\"a\":1}|{\"b\":null,\"a\":1}|{\"b\":null,\"b\":null}|{\"b\":null,}|{\"b\":null,\"d\":1}|{\"b\":1}|"
     "{\"b\" :null}|{  \"b\":null}"},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"null\"},\"ab\":{\"type\":\"null\"}},"
     "\"additionalProperties\":{\"type\":\"integer\"}}",
     "{}|{\"x\":1}|{\"a\":null,\"x\":1,\"yy\":2}|{\"abc\":1}|{\"\":3}|{\"é\":1}|{\"a\\\\\":1}",
     "{\"x\":1,\"x\":2}|{\"x\":null}|{\"a\":1}|{\"ab\":1}|{\"x\":1,\"a\":null}|{\"\\u0061\":1}"},
    {"{\"type\":\"object\",\"additionalProperties\":true,\"required\":[\"k\"]}", "{\"k\":[1]}|{\"k\":1,\"z\":2}",
     "{}|{\"z\":2}|{\"k\":1,\"k\":2}"},
    {"{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"},\"minProperties\":1,\"maxProperties\":2}",
     "{\"a\":1}|{\"a\":1,\"b\":2}", "{}|{\"a\":1,\"b\":2,\"c\":3}"},
    {"{\"type\":\"object\",\"additionalProperties\":false}", "{}|{ }", "{\"a\":1}"},
    {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":1,\"maxItems\":3}", "[1]|[1, 2,\n3]|[ 1 ]",
     "[]|[1,2,3,4]|[\"a\"]|[1,]|[,1]"},
    {"{\"type\":\"array\",\"maxItems\":0}", "[]", "[1]"},
    {"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"null\"},{\"type\":\"boolean\"}],\"items\":{\"type\":\"integer\"}"
     ","
     "\"maxItems\":3}",
     "[]|[null]|[null,true]|[null,true,5]", "[true]|[null,5]|[null,true,5,6]"},
    {"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"null\"},{\"type\":\"boolean\"}],\"items\":false,\"minItems\":2}",
     "[null,true]", "[]|[null]|[null,true,1]"},
    {"{\"enum\":[\"a\",\"ab\",1,null,{\"x\":[1,2]},\"q\\\"\",\"中\"]}",
     "\"a\"|\"ab\"|1|null|{\"x\": [1, 2]}|\"q\\\"\"|\"中\"", "\"b\"|\"abc\"|12|{}|{\"x\":[1,2]}"},
    {"{\"type\":\"string\",\"enum\":[\"a\",1,\"abc\"],\"maxLength\":2}", "\"a\"", "1|\"abc\""},
    {"{\"const\":{\"a\":1}}", "{\"a\": 1}", "{}|{\"a\": 2}"},
    {"{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"string\",\"maxLength\":2}]}", "1|\"ab\"", "\"abc\"|null"},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"oneOf\":[{\"properties\":{\"b\":{\"const\":"
     "1}},"
     "\"required\":[\"b\"]},{\"required\":[\"a\"]}]}",
     "{\"b\":1}|{\"a\":5,\"b\":1}|{\"a\":5}", "{}|{\"b\":2}"},
    {"{\"allOf\":[{\"type\":\"integer\",\"minimum\":3},{\"maximum\":5}]}", "3|5", "2|6|\"3\""},
    {"{\"allOf\":[{\"$ref\":\"#/$defs/a\"},{\"properties\":{\"y\":{\"type\":\"null\"}},\"required\":[\"y\"]}],"
     "\"$defs\":{\"a\":{\"type\":\"object\",\"properties\":{\"x\":{\"type\":\"null\"}},\"required\":[\"x\"]}}}",
     "{\"x\":null,\"y\":null}", "{\"x\":null}|{\"y\":null,\"x\":null}|{}"},
    {DIGIT_NODE, "{\"v\":1,\"next\":null}|{\"v\":1,\"next\":{\"v\":2,\"next\":null}}",
     "{\"v\":1}|{\"v\":1,\"next\":1}"},
    {"{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}}", "[]|[[],[[]]]", "[1]|[[}]"},
    {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}", "\"ab\"|\"é中😀\"|\"\\n\\u00e9\"|\"\\ud83d\\ude00a\"",
     "\"a\"|\"abcd\"|\"\\ud83d\\ude00\""},
    {"{\"type\":\"string\",\"pattern\":\"^a+(b|cd?)[x-z]{2}$\"}", "\"abxy\"|\"aacdzz\"",
     "\"bxy\"|\"abx\"|\"abxyz\"|\"abxw\""},
    {"{\"type\":\"string\",\"pattern\":\"b.d\"}", "\"abcd\"|\"bxdb\"|\"bbéd\"", "\"abd\"|\"\"|\"b\\nd\""},
    {"{\"type\":\"string\",\"pattern\":\"^x|y$\"}", "\"xa\"|\"ay\"|\"x\"", "\"ax\"|\"ya\""},
    {"{\"type\":\"string\",\"pattern\":\"^[^\\\"\\\\\\\\]*\\\\\\\\?$\",\"minLength\":2,\"maxLength\":3}",
     "\"ab\"|\"ab\\\\\"|\"é中\"", "\"a\"|\"abcd\"|\"a\\\"\""},
    {"{\"type\":\"string\",\"pattern\":\"^(?:\\\\d{2,3}|\\\\w\\\\s|\\\\u00e9|[\\\\x41-C])$\"}",
     "\"12\"|\"123\"|\"a \"|\"é\"|\"B\"", "\"1\"|\"1234\"|\"D\"|\"  \""},
    {"{\"type\":\"string\",\"format\":\"date\"}", "\"2024-02-29\"|\"1999-12-31\"",
     "\"2023-02-29\"|\"1900-02-29\"|\"2024-13-01\"|\"2024-04-31\"|\"24-01-01\""},
    {"{\"type\":\"string\",\"format\":\"date-time\"}", "\"2024-01-31T23:59:59Z\"|\"2024-01-01T00:00:00.5+01:30\"",
     "\"2024-01-01\"|\"2024-01-01T24:00:00Z\"|\"2024-01-01T00:00:00\""},
    {"{\"type\":\"string\",\"format\":\"uuid\"}", "\"01234567-89ab-cdef-0123-456789abcdef\"", "\"01234567\""},
    {"{\"type\":\"string\",\"format\":\"email\"}", "\"a.b@c-d.org\"", "\"a@b\"|\"@b.org\"|\"a b@c.org\""},
    {"{\"type\":\"string\",\"format\":\"ipv4\"}", "\"0.0.0.0\"|\"255.249.199.9\"",
     "\"256.1.1.1\"|\"1.1.1\"|\"01.1.1.1\""},
    {"{\"type\":\"string\",\"format\":\"nothing-known\"}", "\"anything\"", "1"},
    {"{\"type\":\"integer\",\"minimum\":-12,\"maximum\":105}", "-12|-1|0|7|99|100|105", "-13|-0|106|200|1000|-100"},
    {"{\"type\":\"integer\",\"exclusiveMinimum\":3,\"exclusiveMaximum\":10}", "4|9", "3|10|11"},
    {"{\"type\":\"integer\",\"minimum\":1.5,\"maximum\":3.5}", "2|3", "1|4"},
    {"{\"type\":\"integer\",\"minimum\":18}", "18|19|20|100|999999999999999999", "17|1|-18"},
    {"{\"type\":\"integer\",\"minimum\":-9223372036854775808,\"maximum\":9223372036854775807}", "0|-999999999999999999",
     "x"},
    {"{\"type\":\"integer\",\"multipleOf\":7,\"maximum\":30}", "0|7|28|-14", "1|8|35|-8"},
    {"{\"type\":\"integer\",\"multipleOf\":100}", "0|100|1200|-300", "10|50|150"},
    {"{\"type\":\"number\",\"minimum\":0.5,\"exclusiveMaximum\":1.25}", "0.5|0.50|1|1.0|1.249|0.75",
     "0.4|0|1.25|1.250|2|-1"},
    {"{\"type\":\"number\",\"exclusiveMinimum\":0}", "0.001|1|12345", "0|0.0|-1"},
    {"{\"type\":\"number\",\"maximum\":-0.5}", "-0.5|-1|-100.25", "-0.4|0|1"},
    {"{\"type\":\"number\",\"multipleOf\":0.25}", "0|1.25|-3.50|2", "0.1|1.3|1.255"},
    {"{\"type\":\"number\",\"minimum\":0,\"exclusiveMinimum\":true}", "0.1", "0"},
    {"{\"minimum\":3}", "3|4.5", "2|\"a\""},
    {"{\"properties\":{\"a\":{\"type\":\"null\"}}}", "{}|{\"a\":null}", "1|{\"a\":1}"},
    {"{\"title\":\"T\",\"description\":\"d\",\"default\":1,\"examples\":[1],\"strict\":true,\"type\":\"null\"}", "null",
     "1"},
    {"{\"type\":\"object\",\"properties\":{\"gone\":false,\"b\":{\"type\":\"null\"}}}", "{}|{\"b\":null}",
     "{\"gone\":1}"},
    {"{\"$defs\":{\"a/b~%\":{\"const\":1}},\"$ref\":\"#/$defs/a~1b~0%25\"}", "1", "2"},
};

static size_t check_texts(const probe *p, const grammar *g, const char *schema, const char *list, bool wanted) {
    size_t bad = 0;
    for (const char *at = list;; at++) {
        size_t n = strcspn(at, "|");
        bool end;
        probe_feed(p, g, at, n, false, &end);
        if (end != wanted) printf("%s: %.*s is %s\n", schema, (int)n, at, end ? "an answer" : "no answer"), bad++;
        at += n;
        if (!*at) return bad;
    }
}

static void test_keywords(void **state) {
    (void)state;
    probe p;
    size_t bad = 0;
    probe_open(&p, false);
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        str spec = {0};
        grammar *g;
        error e;
        str_addf(&spec, "{\"type\":\"json_schema\",\"schema\":%s}", examples[i].schema);
        if (probe_grammar(&p, spec.p, "plain", &g, &e) != OK) {
            printf("%s: %s\n", examples[i].schema, e.text);
            bad++;
        } else {
            bad += check_texts(&p, g, examples[i].schema, examples[i].yes, true);
            bad += check_texts(&p, g, examples[i].schema, examples[i].no, false);
            grammar_close(g);
        }
        str_free(&spec);
    }
    probe_close(&p);
    assert_int_equal(bad, 0);
}

/* ---- a validator, for what the examples use ---- */

static bool valid(const json_t *root, const json_t *s, const json_t *v);

static bool is_type(const char *name, const json_t *v) {
    if (!strcmp(name, "integer")) return json_is_integer(v);
    return (!strcmp(name, "null") && json_is_null(v)) || (!strcmp(name, "boolean") && json_is_boolean(v)) ||
           (!strcmp(name, "number") && json_is_number(v)) || (!strcmp(name, "string") && json_is_string(v)) ||
           (!strcmp(name, "array") && json_is_array(v)) || (!strcmp(name, "object") && json_is_object(v));
}

static bool valid_type(const json_t *s, const json_t *v) {
    const json_t *type = json_object_get(s, "type"), *one;
    size_t i;
    if (!type || (json_is_null(v) && json_is_true(json_object_get(s, "nullable")))) return true;
    if (json_is_string(type)) return is_type(json_string_value(type), v);
    json_array_foreach(type, i, one) if (is_type(json_string_value(one), v)) return true;
    return false;
}

static bool at_least(const json_t *s, const char *key, double v) {
    return !json_is_number(json_object_get(s, key)) || v >= json_number_value(json_object_get(s, key));
}

static bool at_most(const json_t *s, const char *key, double v) {
    return !json_is_number(json_object_get(s, key)) || v <= json_number_value(json_object_get(s, key));
}

static bool valid_number(const json_t *s, const json_t *v) {
    const json_t *low = json_object_get(s, "exclusiveMinimum"), *high = json_object_get(s, "exclusiveMaximum");
    double x = json_number_value(v), step = json_number_value(json_object_get(s, "multipleOf"));
    if (json_is_number(low) && x <= json_number_value(low)) return false;
    if (json_is_number(high) && x >= json_number_value(high)) return false;
    if (json_is_true(low) && x == json_number_value(json_object_get(s, "minimum"))) return false;
    if (step > 0 && x / step != (double)(long long)(x / step)) return false;
    return at_least(s, "minimum", x) && at_most(s, "maximum", x);
}

static bool valid_string(const json_t *s, const json_t *v) {
    text t = {json_string_value(v), json_string_length(v)};
    const char *pattern = json_string_value(json_object_get(s, "pattern"));
    if (pattern && !strstr(pattern, "\\u")) { /* PCRE has no \u */
        regex *r;
        error e;
        int64_t count;
        assert_int_equal(regex_open(&r, pattern, REGEX_UTF, &e), OK);
        assert_int_equal(regex_count(r, t.p, t.n, 1, &count, &e), OK);
        regex_close(r);
        if (!count) return false;
    }
    return at_least(s, "minLength", (double)utf8_count(t)) && at_most(s, "maxLength", (double)utf8_count(t));
}

static bool valid_array(const json_t *root, const json_t *s, const json_t *v) {
    const json_t *first = json_object_get(s, "prefixItems"), *items = json_object_get(s, "items"), *one;
    size_t i;
    json_array_foreach(v, i, one) {
        const json_t *its = i < json_array_size(first) ? json_array_get(first, i) : items;
        if (its && !valid(root, its, one)) return false;
    }
    return at_least(s, "minItems", (double)json_array_size(v)) && at_most(s, "maxItems", (double)json_array_size(v));
}

static bool valid_object(const json_t *root, const json_t *s, const json_t *v) {
    const json_t *others = json_object_get(s, "additionalProperties"), *one;
    const char *key;
    json_t *value;
    size_t i;
    json_array_foreach(json_object_get(s, "required"), i,
                       one) if (!json_object_get(v, json_string_value(one))) return false;
    json_object_foreach((json_t *)v, key, value) {
        const json_t *its = json_object_get(json_object_get(s, "properties"), key);
        if (!its) its = others;
        if (its && !valid(root, its, value)) return false;
    }
    return at_least(s, "minProperties", (double)json_object_size(v)) &&
           at_most(s, "maxProperties", (double)json_object_size(v));
}

static const json_t *follow(const json_t *root, const char *ref) {
    if (!ref || !strcmp(ref, "#")) return ref ? root : NULL;
    const json_t *defs = json_object_get(root, "$defs"); /* the examples' have one entry */
    return json_object_iter_value(json_object_iter((json_t *)defs));
}

static bool valid(const json_t *root, const json_t *s, const json_t *v) {
    const json_t *list, *one, *target = follow(root, json_string_value(json_object_get(s, "$ref")));
    size_t i;
    if (json_is_boolean(s)) return json_is_true(s);
    if (target && !valid(root, target, v)) return false;
    if (!valid_type(s, v)) return false;
    if (json_object_get(s, "const") && !json_equal(json_object_get(s, "const"), v)) return false;
    json_array_foreach(json_object_get(s, "allOf"), i, one) if (!valid(root, one, v)) return false;
    static const char *const lists[] = {"anyOf", "oneOf"};
    for (int k = 0; k < 2; k++) {
        bool found = !(list = json_object_get(s, lists[k]));
        json_array_foreach(list, i, one) found |= valid(root, one, v);
        if (!found) return false;
    }
    bool found = !(list = json_object_get(s, "enum"));
    json_array_foreach(list, i, one) found |= json_equal(one, v);
    if (!found) return false;
    if (json_is_number(v)) return valid_number(s, v);
    if (json_is_string(v)) return valid_string(s, v);
    if (json_is_array(v)) return valid_array(root, s, v);
    return !json_is_object(v) || valid_object(root, s, v);
}

static void test_random_answers(void **state) {
    (void)state;
    probe p;
    size_t bad = 0, ended = 0, all = 0;
    probe_open(&p, false);
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        str spec = {0};
        grammar *g;
        error e;
        json_t *schema = json_loads(examples[i].schema, JSON_DECODE_ANY, NULL);
        str_addf(&spec, "{\"type\":\"json_schema\",\"schema\":%s}", examples[i].schema);
        assert_int_equal(probe_grammar(&p, spec.p, "plain", &g, &e), OK);
        for (uint64_t seed = 1; seed <= 25; seed++, all++) {
            str out = {0};
            str_puts(&out, "");
            bool end = probe_sample(&p, g, seed, &out);
            json_t *v = json_loadb(out.p, out.n, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
            ended += end;
            if (end && (!v || !valid(schema, schema, v))) printf("%s: %s\n", examples[i].schema, out.p), bad++;
            json_decref(v);
            str_free(&out);
        }
        json_decref(schema);
        grammar_close(g);
        str_free(&spec);
    }
    printf("%zu of %zu random answers came to an end\n", ended, all);
    assert_int_equal(bad, 0);
    assert_true(ended * 10 > all * 9);
    probe_close(&p);
}

/* ---- what is refused ---- */

static const struct {
    const char *schema;
    status code;
    const char *text; /* part of the message */
} refused[] = {
    {"1", ERR_ARG, "a schema should be"},
    {"{\"type\":\"strin\"}", ERR_ARG, "schema at #: \"type\""},
    {"{\"type\":[]}", ERR_ARG, "\"type\""},
    {"{\"type\":5}", ERR_ARG, "\"type\""},
    {"{\"properties\":{\"a\":{\"items\":{\"type\":\"x\"}}}}", ERR_ARG, "schema at #/properties/a/items: "},
    {"{\"properties\":[]}", ERR_ARG, "\"properties\""},
    {"{\"type\":\"object\",\"required\":\"a\"}", ERR_ARG, "\"required\""},
    {"{\"type\":\"object\",\"required\":[1]}", ERR_ARG, "\"required\""},
    {"{\"type\":\"object\",\"required\":[\"a\"],\"additionalProperties\":false}", ERR_ARG, "no answer"},
    {"{\"enum\":[]}", ERR_ARG, "\"enum\""},
    {"{\"enum\":1}", ERR_ARG, "\"enum\""},
    {"{\"anyOf\":[]}", ERR_ARG, "\"anyOf\""},
    {"{\"allOf\":{}}", ERR_ARG, "\"allOf\""},
    {"false", ERR_ARG, "no answer"},
    {"{\"type\":\"integer\",\"minimum\":5,\"maximum\":4}", ERR_ARG, "no answer"},
    {"{\"type\":\"string\",\"minLength\":-1}", ERR_ARG, "\"minLength\""},
    {"{\"type\":\"string\",\"minLength\":1.5}", ERR_ARG, "\"minLength\""},
    {"{\"type\":\"string\",\"pattern\":1}", ERR_ARG, "\"pattern\""},
    {"{\"type\":\"string\",\"pattern\":\"(\"}", ERR_ARG, "\"pattern\""},
    {"{\"type\":\"string\",\"pattern\":\"a)\"}", ERR_ARG, "\"pattern\""},
    {"{\"type\":\"string\",\"pattern\":\"*\"}", ERR_ARG, "\"pattern\""},
    {"{\"type\":\"string\",\"pattern\":\"[b-a]\"}", ERR_ARG, "\"pattern\""},
    {"{\"type\":\"string\",\"pattern\":\"\\\\\"}", ERR_ARG, "\"pattern\""},
    {"{\"type\":\"string\",\"pattern\":\"a{3,2}\"}", ERR_ARG, "\"pattern\""},
    {"{\"type\":\"string\",\"pattern\":\"(?=a)\"}", ERR_UNSUPPORTED, "look-around"},
    {"{\"type\":\"string\",\"pattern\":\"(a)\\\\1\"}", ERR_UNSUPPORTED, "escape"},
    {"{\"type\":\"string\",\"pattern\":\"\\\\bword\"}", ERR_UNSUPPORTED, "escape"},
    {"{\"type\":\"string\",\"pattern\":\"\\\\p{L}\"}", ERR_UNSUPPORTED, "p{...}"},
    {"{\"type\":\"string\",\"pattern\":\"((a{1,1000}){1,1000}){1,1000}\"}", ERR_UNSUPPORTED, "too large"},
    {"{\"type\":\"string\",\"pattern\":\"((((((((((){9999}){9999}){9999}){9999}){9999}){9999}){9999}){9999}))\"}",
     ERR_UNSUPPORTED, "too large"},
    {"{\"type\":\"string\",\"pattern\":\"a{99999}\"}", ERR_UNSUPPORTED, "turns"},
    {"{\"type\":\"string\",\"pattern\":\".*a.{30}\"}", ERR_UNSUPPORTED, "states"},
    {"{\"type\":\"string\",\"pattern\":\"^a*b\",\"maxLength\":1000000}", ERR_UNSUPPORTED, "states"},
    {"{\"type\":\"integer\",\"multipleOf\":0}", ERR_ARG, "\"multipleOf\""},
    {"{\"type\":\"number\",\"multipleOf\":0.01}", ERR_UNSUPPORTED, "\"multipleOf\""},
    {"{\"type\":\"integer\",\"multipleOf\":1013}", ERR_UNSUPPORTED, "\"multipleOf\""},
    {"{\"type\":\"integer\",\"minimum\":\"1\"}", ERR_ARG, "\"minimum\""},
    {"{\"not\":{}}", ERR_UNSUPPORTED, "schema at #: \"not\""},
    {"{\"properties\":{\"x\":{\"if\":{}}}}", ERR_UNSUPPORTED, "schema at #/properties/x: \"if\""},
    {"{\"patternProperties\":{}}", ERR_UNSUPPORTED, "\"patternProperties\""},
    {"{\"type\":\"array\",\"uniqueItems\":true}", ERR_UNSUPPORTED, "\"uniqueItems\""},
    {"{\"type\":\"array\",\"contains\":{}}", ERR_UNSUPPORTED, "\"contains\""},
    {"{\"type\":\"object\",\"properties\":{\"a\":{}},\"minProperties\":1}", ERR_UNSUPPORTED, "\"minProperties\""},
    {"{\"enum\":[\"a\"],\"pattern\":\"a\"}", ERR_UNSUPPORTED, "\"pattern\""},
    {"{\"$ref\":\"#/$defs/x\"}", ERR_ARG, "there is no"},
    {"{\"$ref\":\"http://example.org/s\"}", ERR_UNSUPPORTED, "\"$ref\""},
    {"{\"$ref\":5}", ERR_ARG, "\"$ref\""},
    {"{\"$ref\":\"#\"}", ERR_ARG, "refers to itself"},
    {"{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}", ERR_ARG, "refers to itself"},
    {"{\"$defs\":{\"a\":{\"$ref\":\"#/$defs/b\"},\"b\":{\"$ref\":\"#/$defs/a\"}},\"$ref\":\"#/$defs/a\"}", ERR_ARG,
     "schema at #/$defs/a: it refers to itself"},
    {"{\"$ref\":\"#\",\"type\":\"object\"}", ERR_ARG, "joined deeper"},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}", ERR_ARG, "no answer"},
    {"{\"allOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}", ERR_ARG, "no type"},
    {"{\"allOf\":[{\"pattern\":\"a\"},{\"pattern\":\"b\"}]}", ERR_UNSUPPORTED, "\"pattern\""},
    {"{\"allOf\":[{\"properties\":{\"a\":{}},\"additionalProperties\":false},{\"properties\":{\"b\":{}}}]}",
     ERR_UNSUPPORTED, "\"additionalProperties\""},
};

static void check_refused(const probe *p, const char *schema, status code, const char *text_part) {
    str spec = {0};
    grammar *g = NULL;
    error e = {0};
    str_addf(&spec, "{\"type\":\"json_schema\",\"schema\":%s}", schema);
    status s = probe_grammar(p, spec.p, "plain", &g, &e);
    if (s != code || !strstr(e.text, text_part)) printf("%.200s: %d %s\n", schema, s, e.text);
    assert_int_equal(s, code);
    assert_non_null(strstr(e.text, text_part));
    assert_null(g);
    str_free(&spec);
}

static void test_refused(void **state) {
    (void)state;
    probe p;
    probe_open(&p, false);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        check_refused(&p, refused[i].schema, refused[i].code, refused[i].text);
    str deep = {0}, wide = {0};
    for (int i = 0; i < 100; i++) str_puts(&deep, "{\"items\":");
    str_puts(&deep, "{}");
    for (int i = 0; i < 100; i++) str_puts(&deep, "}");
    check_refused(&p, deep.p, ERR_ARG, "nested deeper");
    str_puts(&wide, "{\"properties\":{");
    for (int i = 0; i < 60000; i++) str_addf(&wide, "%s\"p%d\":{\"type\":\"array\"}", i ? "," : "", i);
    str_puts(&wide, "}}");
    check_refused(&p, wide.p, ERR_ARG, "too large");
    str_free(&deep);
    str_free(&wide);
    probe_close(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_keywords), cmocka_unit_test(test_random_answers),
                                       cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
