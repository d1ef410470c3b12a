/* Sample traces: what a line says, which completions are kept, what a run that goes on replaces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "post/traces.h"
#include <cmocka.h>

enum { MOST = 40 };

typedef struct place {
    char folder[40], path[64];
    prompt ask[2];
    completion list[MOST];
    char text[MOST][16];
} place;

static int open_place(void **state) {
    place *p = calloc(1, sizeof *p);
    strcpy(p->folder, "/tmp/hadal-traces-XXXXXX");
    if (!mkdtemp(p->folder)) return 1;
    snprintf(p->path, sizeof p->path, "%s/samples.jsonl", p->folder);
    p->ask[0] = (prompt){.text = "with \"quotes\"\n", .answer = "7"};
    p->ask[1] = (prompt){.text = "p\xc3\xa9", .answer = NULL};
    for (int i = 0; i < MOST; i++) {
        snprintf(p->text[i], sizeof p->text[i], "c%d", i);
        p->list[i] = (completion){
            .prompt = &p->ask[i % 2], .text = p->text[i], .n = i + 1, .finished = i % 3 == 0, .reward = 0.5 * i};
    }
    p->list[1].reward = NAN;
    *state = p;
    return 0;
}

static int close_place(void **state) {
    place *p = *state;
    unlink(p->path);
    const int code = rmdir(p->folder);
    free(p);
    return code;
}

static void put(place *p, int64_t step, int64_t n) {
    error e = {0};
    const rollout r = {.list = p->list, .n = n};
    if (traces_write(p->folder, step, &r, &e) != OK) fail_msg("%s", e.text);
}

static json_t *read_lines(const place *p) { /* an array */
    str s = {0};
    error e;
    json_t *all = json_array();
    assert_int_equal(file_read(&s, p->path, 1 << 20, &e), OK);
    for (const char *at = s.p; *at; at = strchr(at, '\n') + 1) {
        assert_non_null(strchr(at, '\n'));
        json_t *j = json_loadb(at, (size_t)(strchr(at, '\n') - at), 0, NULL);
        assert_true(json_is_object(j));
        json_array_append_new(all, j);
    }
    str_free(&s);
    return all;
}

static int64_t number(const json_t *all, size_t i, const char *name) {
    const json_t *v = json_object_get(json_array_get(all, i), name);
    assert_true(json_is_integer(v));
    return json_integer_value(v);
}

static void check_steps(const place *p, const int64_t *step, size_t n) {
    json_t *all = read_lines(p);
    assert_int_equal(json_array_size(all), n);
    for (size_t i = 0; i < n; i++) assert_int_equal(number(all, i, "step"), step[i]);
    json_decref(all);
}

static void what_a_line_says(void **state) {
    place *p = *state;
    put(p, 5, 2);
    json_t *all = read_lines(p);
    assert_int_equal(json_array_size(all), 2);
    for (size_t i = 0; i < 2; i++) {
        const json_t *j = json_array_get(all, i), *right = json_object_get(j, "answer");
        assert_int_equal(number(all, i, "step"), 5);
        assert_int_equal(number(all, i, "tokens"), i + 1);
        assert_string_equal(json_string_value(json_object_get(j, "prompt")), p->ask[i].text);
        assert_string_equal(json_string_value(json_object_get(j, "completion")), p->text[i]);
        assert_true(i ? json_is_null(right) : strcmp(json_string_value(right), "7") == 0);
        assert_true(i ? json_is_false(json_object_get(j, "finished")) : json_is_true(json_object_get(j, "finished")));
        assert_true((json_object_get(j, "reward") != NULL) == (i == 0)); /* NaN: not told */
    }
    json_decref(all);
}

/* At most 12, from all over the rollout. */
static void some_of_many(void **state) {
    place *p = *state;
    put(p, 1, MOST);
    json_t *all = read_lines(p);
    assert_int_equal(json_array_size(all), 12);
    for (size_t i = 0; i < 12; i++) assert_int_equal(number(all, i, "tokens"), 1 + 3 * i); /* every 40 / 12 = 3rd */
    json_decref(all);
    put(p, 1, 12);
    check_steps(p, (int64_t[]){1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, 12);
    put(p, 1, 0);
    check_steps(p, NULL, 0);
}

/* A run that goes on writes steps again: theirs and later ones are replaced, a torn line at the end goes. */
static void steps_are_replaced(void **state) {
    place *p = *state;
    put(p, 1, 2);
    put(p, 4, 1);
    put(p, 9, 1);
    check_steps(p, (int64_t[]){1, 1, 4, 9}, 4);
    put(p, 4, 2);
    check_steps(p, (int64_t[]){1, 1, 4, 4}, 4);
    FILE *f = fopen(p->path, "ab");
    assert_non_null(f);
    assert_true(fputs("not JSON\n[1]\n{\"step\": 3, \"torn", f) >= 0);
    fclose(f);
    put(p, 5, 1);
    check_steps(p, (int64_t[]){1, 1, 4, 4, 5}, 5);
}

static void nowhere_to_write(void **unused) {
    (void)unused;
    error e = {0};
    const rollout r = {0};
    assert_int_equal(traces_write("/nowhere/at/all", 1, &r, &e), ERR_IO);
    assert_non_null(strstr(e.text, "/nowhere/at/all/samples.jsonl"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_a_line_says, open_place, close_place),
        cmocka_unit_test_setup_teardown(some_of_many, open_place, close_place),
        cmocka_unit_test_setup_teardown(steps_are_replaced, open_place, close_place),
        cmocka_unit_test(nowhere_to_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
