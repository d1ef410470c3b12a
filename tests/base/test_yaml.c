/* The door to libyaml: which values it gives, what it refuses and where, and that quoted texts come back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/yaml.h"
#include <cmocka.h>

static void same(const char *yaml, const char *json) {
    json_t *found, *wanted;
    error e;
    if (yaml_parse(&found, NULL, yaml, strlen(yaml), "t", &e) != OK) fail_msg("%s: %s", yaml, e.text);
    if (strcmp(json, "null") == 0) wanted = json_null();
    else wanted = json_loads(json, JSON_DECODE_ANY, NULL);
    assert_non_null(wanted);
    if (!json_equal(found, wanted)) fail_msg("%s is not %s", yaml, json);
    json_decref(found);
    json_decref(wanted);
}

static void refused(const char *yaml, status code, int line, const char *why) {
    json_t *j = (json_t *)1, *lines = (json_t *)1;
    error e = {0};
    char place[32];
    snprintf(place, sizeof place, "dir/run.yaml:%d: ", line);
    assert_int_equal(yaml_parse(&j, &lines, yaml, strlen(yaml), "dir/run.yaml", &e), code);
    assert_null(j);
    assert_null(lines);
    if (strncmp(e.text, place, strlen(place)) != 0 || !strstr(e.text, why)) fail_msg("%s: %s", yaml, e.text);
}

static void values(void **state) {
    (void)state;
    same("", "null");
    same("# only a comment\n", "null");
    same("3", "3");
    same("-17", "-17");
    same("+5", "5");
    same("3e-4", "0.0003");
    same("1E+3", "1000.0");
    same(".5", "0.5");
    same("2.", "2.0");
    same("99999999999999999999", "1e20"); /* beyond 64 bits */
    same("1e999", "\"1e999\"");
    same("1.2.3", "\"1.2.3\"");
    same("1e", "\"1e\"");
    same("-", "[null]");
    same(".", "\".\"");
    same("0x10", "\"0x10\"");
    same(".inf", "\".inf\"");
    same("~", "null");
    same("Null", "null");
    same("true", "true");
    same("FALSE", "false");
    same("yes", "\"yes\""); /* a string since YAML 1.2 */
    same("off", "\"off\"");
    same("'true'", "\"true\"");
    same("\"3\"", "\"3\"");
    same("'it''s'", "\"it's\"");
    same("\"a\\tb\\u6df1\"", "\"a\\tb\\u6df1\"");
    same("|\n a\n b\n", "\"a\\nb\\n\"");
    same("[a.jsonl,b.jsonl]", "[\"a.jsonl\", \"b.jsonl\"]");
    same("{until: 2000, to: 2.2e-4, shape: linear}", "{\"until\": 2000, \"to\": 2.2e-4, \"shape\": \"linear\"}");
    same("a: 1\nb:\n  - x\n  - {y: [1, 2]}\n", "{\"a\": 1, \"b\": [\"x\", {\"y\": [1, 2]}]}");
    same("---\na: 1\n...\n", "{\"a\": 1}");
    same("\"\"", "\"\"");
}

static void lines_of_keys(void **state) {
    (void)state;
    static const char text[] = "# head\nmodel:\n  path: x\n\n  init: true\ndata: {train: [a,\n  {b: 1}],\n seed: 3}\n";
    json_t *j, *lines;
    error e;
    assert_int_equal(yaml_parse(&j, &lines, text, sizeof text - 1, "t", &e), OK);
    json_t *wanted = json_loads("{\"model\": 2, \"model.path\": 3, \"model.init\": 5, \"data\": 6, \"data.train\": 6, "
                                "\"data.seed\": 8}",
                                0, NULL);
    assert_true(json_equal(lines, wanted));
    json_decref(wanted);
    json_decref(lines);
    json_decref(j);
}

static void refusals(void **state) {
    (void)state;
    refused("a: 1\na: 2", ERR_FORMAT, 2, "\"a\" comes twice");
    refused("s:\n  k: 1\n  k: 2", ERR_FORMAT, 3, "\"k\" comes twice");
    refused("a: &x 1\n", ERR_UNSUPPORTED, 1, "anchors");
    refused("a: 1\nb: *x", ERR_UNSUPPORTED, 2, "aliases");
    refused("m: [*.indexer.*]", ERR_FORMAT, 1, "while scanning an alias");
    refused("m: [*indexer]", ERR_UNSUPPORTED, 1, "quote");
    refused("a: &x [1]", ERR_UNSUPPORTED, 1, "anchors");
    refused("a: !!str 1", ERR_UNSUPPORTED, 1, "tags");
    refused("a: !x {b: 1}", ERR_UNSUPPORTED, 1, "tags");
    refused("? [a]\n: 1", ERR_FORMAT, 1, "a key should be a word");
    refused("a: 1\n---\nb: 2", ERR_FORMAT, 2, "second document");
    refused("a: [1, 2\nb: 3", ERR_FORMAT, 2, "not valid YAML");
    refused("a:\n\tb: 1", ERR_FORMAT, 2, "not valid YAML");
    refused("a: \"open", ERR_FORMAT, 1, "not valid YAML");
    refused("a: \xff", ERR_FORMAT, 1, "not valid YAML");
    refused("a: \"\\ud800\"", ERR_FORMAT, 1, "not valid YAML");
    refused("\"a\\0b\": 1", ERR_FORMAT, 1, "key");
    refused("a: b: c", ERR_FORMAT, 1, "not valid YAML");
}

static void depth_is_limited(void **state) {
    (void)state;
    char text[2 * YAML_DEPTH + 8] = "";
    for (int i = 0; i < YAML_DEPTH; i++) strcat(text, "[");
    for (int i = 0; i < YAML_DEPTH; i++) strcat(text, "]");
    json_t *j;
    error e;
    assert_int_equal(yaml_parse(&j, NULL, text, strlen(text), "t", &e), OK);
    json_decref(j);
    size_t n = 200000;
    char *deep = malloc(n + 1);
    assert_non_null(deep);
    memset(deep, '[', n);
    deep[n] = 0;
    refused(deep, ERR_FORMAT, 1, "deep");
    free(deep);
}

static void quoted_texts_come_back(void **state) {
    (void)state;
    static const char *const texts[] = {
        "",
        "plain",
        "a: b # c",
        "*x",
        "'",
        "\"\\",
        "\t\n\r\x01\x7f",
        " lead and trail ",
        "null",
        "3e-4",
        "-",
        "%",
        "\xc2\x85\xe2\x80\xa8\xe2\x80\xa9\xef\xbb\xbf", /* NEL, line and paragraph separator, BOM: line breaks to YAML
                                                         */
        "\xe6\xb7\xb1\xc3\xa9\xf0\x9f\x90\x8b"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        str s = {0};
        json_t *j;
        error e;
        yaml_put_text(&s, texts[i]);
        if (yaml_parse(&j, NULL, s.p, s.n, "t", &e) != OK) fail_msg("%s: %s", s.p, e.text);
        assert_string_equal(json_string_value(j), texts[i]);
        json_decref(j);
        str_free(&s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(values), cmocka_unit_test(lines_of_keys),
                                       cmocka_unit_test(refusals), cmocka_unit_test(depth_is_limited),
                                       cmocka_unit_test(quoted_texts_come_back)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
