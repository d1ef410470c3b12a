/* Layers of run files: what inherits from what, deep merging, places in errors, overrides as deep as files go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/file.h"
#include "train/config_table.h"
#include <cmocka.h>

static char dir[32];

static int setup(void **state) {
    (void)state;
    strcpy(dir, "/tmp/hadal-tree-XXXXXX");
    char sub[48];
    if (!mkdtemp(dir)) return -1;
    snprintf(sub, sizeof sub, "%s/sub", dir);
    return mkdir(sub, 0777);
}

static int teardown(void **state) {
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static const char *path_of(const char *name) {
    static char path[96];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void put(const char *name, const char *text) {
    error e;
    if (file_save(path_of(name), text, strlen(text), &e) != OK) fail_msg("%s", e.text);
}

static config_tree tree_of(const char *name) {
    config_tree t;
    error e;
    if (config_tree_read(&t, path_of(name), &e) != OK) fail_msg("%s", e.text);
    return t;
}

static void refused(const char *name, const char *a, const char *b) {
    config_tree t;
    error e = {0};
    assert_int_not_equal(config_tree_read(&t, path_of(name), &e), OK);
    if (!strstr(e.text, a) || !strstr(e.text, b)) fail_msg("\"%s\" lacks \"%s\" or \"%s\"", e.text, a, b);
    assert_null(strchr(e.text, '\n'));
    assert_null(t.sections);
}

static int number(const config_tree *t, const char *path) {
    const json_t *v = config_tree_get(t, path);
    if (!json_is_integer(v)) fail_msg("%s is no integer", path);
    return (int)json_integer_value(v);
}

static void merged(void **state) {
    (void)state;
    put("sub/base.yaml", "a: {x: 1, y: 2, deep: {u: 1, v: 2}}\nb: {x: 3}\nlist: {l: [1, 2]}\n");
    put("other.yaml", "a: {y: 20}\nc: {x: 5}\n");
    put("top.yaml", "defaults: [sub/base.yaml, other.yaml]\na:\n  x: 100\n  deep: {v: 200}\nb:\nlist: {l: [7]}\n");
    config_tree t = tree_of("top.yaml");
    assert_int_equal(number(&t, "a.x"), 100);
    assert_int_equal(number(&t, "a.y"), 20); /* the later of a list lies over the earlier */
    assert_int_equal(number(&t, "a.deep.u"), 1);
    assert_int_equal(number(&t, "a.deep.v"), 200);
    assert_int_equal(number(&t, "b.x"), 3); /* a section without keys changes nothing */
    assert_int_equal(number(&t, "c.x"), 5);
    assert_int_equal(json_array_size(config_tree_get(&t, "list.l")), 1); /* lists are replaced */
    assert_null(config_tree_get(&t, "defaults"));
    assert_true(config_tree_layer(&t, "a.y") < config_tree_layer(&t, "a.x"));
    assert_int_equal(config_tree_layer(&t, "a.z"), -1);
    config_tree_close(&t);
}

/* Names are relative to the file that says them, two folders up and down, and null gives the default back. */
static void chained(void **state) {
    (void)state;
    put("first.yaml", "a: {x: 1, y: 1}\n");
    put("sub/second.yaml", "defaults: ../first.yaml\na: {x: null}\n");
    put("third.yaml", "defaults: ./sub/second.yaml\na: {z: 3}\n");
    config_tree t = tree_of("third.yaml");
    assert_null(config_tree_get(&t, "a.x"));
    assert_true(json_is_null(json_object_get(json_object_get(t.sections, "a"), "x")));
    assert_int_equal(number(&t, "a.y"), 1);
    assert_int_equal(number(&t, "a.z"), 3);
    config_tree_close(&t);
}

static void circles(void **state) {
    (void)state;
    put("self.yaml", "defaults: self.yaml\n");
    refused("self.yaml", "self.yaml", "in a circle");
    put("x.yaml", "defaults: sub/y.yaml\n");
    put("sub/y.yaml", "defaults: ../x.yaml\n");
    refused("x.yaml", "sub/y.yaml: defaults lead back to", "in a circle");
    put("two.yaml", "defaults: [first.yaml, first.yaml]\n"); /* twice is no circle */
    put("first.yaml", "a: {x: 1}\n");
    config_tree t = tree_of("two.yaml");
    config_tree_close(&t);
}

static void bad_defaults(void **state) {
    (void)state;
    put("none.yaml", "defaults: nothing.yaml\n");
    refused("none.yaml", "none.yaml: defaults", "nothing.yaml");
    put("map.yaml", "defaults: {a: b}\n");
    refused("map.yaml", "map.yaml: defaults", "list of names");
    put("number.yaml", "defaults: [5]\n");
    refused("number.yaml", "number.yaml: defaults", "list of names");
    put("broken.yaml", "a: [1\n");
    put("over.yaml", "defaults: broken.yaml\n");
    refused("over.yaml", "broken.yaml:", "not valid YAML");
    refused("gone.yaml", "gone.yaml", "No such file");
}

/* Errors name the file and line where the value stands, also when another file inherits it. */
static void places(void **state) {
    (void)state;
    put("base.yaml",
        "model: {path: m}\ndata: {train: a}\ncheckpoint: {folder: f}\noptimizer:\n  beta1: 0.9\n  lr: fast\n");
    put("top.yaml", "defaults: base.yaml\noptimizer:\n  beta2: 0.9\n");
    train_config c;
    error e = {0};
    arena *mem = arena_open(1 << 12);
    assert_int_equal(train_config_read(&c, path_of("top.yaml"), NULL, 0, mem, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "/base.yaml:6: optimizer.lr should be a number"));
    const char *fixed[] = {"optimizer.lr=1e-3"};
    if (train_config_read(&c, path_of("top.yaml"), fixed, 1, mem, &e) != OK) fail_msg("%s", e.text);
    assert_true(c.optimizer.lr == 1e-3 && c.optimizer.beta2 == 0.9);
    const char *lost[] = {"optimizer.lr=1e-3", "optimizer.beta3=1"};
    assert_int_equal(train_config_read(&c, path_of("top.yaml"), lost, 2, mem, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "override: optimizer.beta3 is not a key"));
    arena_close(mem);
}

static void overrides(void **state) {
    (void)state;
    static const char *const good[] = {"a.x=5", "+a.y=[1, 2]", "++b.c.d.e.f.g.h=text", "a.deep.v=null", "a.t=x=y"};
    static const char *const bad[][2] = {{"a=1", "section.key=value"},
                                         {"a..b=1", "section.key=value"},
                                         {".a.b=1", "section.key=value"},
                                         {"a.b.=1", "section.key=value"},
                                         {"+++a.b=1", "section.key=value"},
                                         {"a.b=", "no value"},
                                         {"a.b=[", "not valid YAML"},
                                         {"a.x.y=1", "a.x is not a section"},
                                         {"a.b.c.d.e.f.g.h.i=1", "section.key=value"}};
    static const char text[] = "a: {x: 1, deep: {v: 2}}\n";
    config_tree t;
    error e;
    assert_int_equal(config_tree_parse(&t, text, sizeof text - 1, "run", &e), OK);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (config_tree_override(&t, good[i], &e) != OK) fail_msg("%s: %s", good[i], e.text);
    assert_int_equal(number(&t, "a.x"), 5);
    assert_int_equal(json_array_size(config_tree_get(&t, "a.y")), 2);
    assert_string_equal(json_string_value(config_tree_get(&t, "b.c.d.e.f.g.h")), "text");
    assert_string_equal(json_string_value(config_tree_get(&t, "a.t")), "x=y");
    assert_null(config_tree_get(&t, "a.deep.v"));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_not_equal(config_tree_override(&t, bad[i][0], &e), OK);
        if (!strstr(e.text, bad[i][1])) fail_msg("%s: \"%s\" lacks \"%s\"", bad[i][0], e.text, bad[i][1]);
    }
    config_tree_close(&t);
}

/* A copy is another tree; what is added lies over everything. */
static void copies(void **state) {
    (void)state;
    static const char text[] = "a: {x: 1, y: [1]}\n";
    config_tree t, u;
    error e;
    json_t *more = json_pack("{s:{s:i, s:i}}", "a", "x", 2, "z", 3);
    assert_int_equal(config_tree_parse(&t, text, sizeof text - 1, "run", &e), OK);
    assert_int_equal(config_tree_copy(&u, &t, &e), OK);
    assert_int_equal(config_tree_add(&u, more, "stage 2", "run", &e), OK);
    json_array_append_new(json_object_get(json_object_get(u.sections, "a"), "y"), json_integer(2));
    assert_int_equal(number(&u, "a.x"), 2);
    assert_int_equal(number(&t, "a.x"), 1);
    assert_int_equal(json_array_size(config_tree_get(&t, "a.y")), 1);
    assert_null(config_tree_get(&t, "a.z"));
    assert_int_equal(config_tree_bad(&u, "a.z", "is odd", &e), ERR_FORMAT);
    assert_string_equal(e.text, "stage 2: a.z is odd");
    assert_int_equal(config_tree_bad(&u, "a.y.w", "is odd", &e), ERR_FORMAT);
    assert_string_equal(e.text, "run:1: a.y.w is odd"); /* the nearest map that stands somewhere */
    json_decref(more);
    config_tree_close(&u);
    config_tree_close(&t);
}

/* What is added may inherit, too: over the tree, under itself. */
static void added_defaults(void **state) {
    (void)state;
    put("sub/more.yaml", "a: {x: 10, y: 20}\n");
    put("top.yaml", "a: {x: 1, y: 2, z: 3}\n");
    config_tree t = tree_of("top.yaml");
    error e;
    json_t *more = json_pack("{s:s, s:{s:i}}", "defaults", "sub/more.yaml", "a", "y", 200);
    assert_int_equal(config_tree_add(&t, more, "stage 1", path_of("top.yaml"), &e), OK);
    assert_int_equal(number(&t, "a.x"), 10);
    assert_int_equal(number(&t, "a.y"), 200);
    assert_int_equal(number(&t, "a.z"), 3);
    assert_null(json_object_get(t.sections, "defaults"));
    assert_non_null(json_object_get(more, "defaults"));
    json_decref(more);
    config_tree_close(&t);
}

static void distances(void **state) {
    (void)state;
    assert_int_equal(config_distance("kitten", "sitting"), 3);
    assert_int_equal(config_distance("", "abc"), 3);
    assert_int_equal(config_distance("abc", "abc"), 0);
    char text[100];
    memset(text, 'x', 99);
    text[99] = '\0';
    assert_true(config_distance(text, "x") > 60);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merged),       cmocka_unit_test(chained),        cmocka_unit_test(circles),
        cmocka_unit_test(bad_defaults), cmocka_unit_test(places),         cmocka_unit_test(overrides),
        cmocka_unit_test(copies),       cmocka_unit_test(added_defaults), cmocka_unit_test(distances)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
