/* Code of completions run on tests, and HumanEval: every solution of its authors passes, and what only looks like one
 * does not. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "heard.h"
#include "reward/code.h"
#include "reward/kinds.h"
#include <cmocka.h>

static const sandbox_limits usual = {.seconds = 60, .memory = UINT64_C(2) << 30};

/* --- where the code stands --------------------------------------------------------------------------------------- */

static void code_in_texts(void **state) {
    (void)state;
    static const char *const pairs[][2] = {
        {"```python\nprint(1)\n```", "print(1)\n"},
        {"```\nx\n```\n", "x\n"},
        {"a\n```python\nx\n```\nb\n```py\ny\n\nz\n```\nc", "y\n\nz\n"},
        {"```python\nx\n```\nprints\n```text\n5\n```", "x\n"},
        {"```c\nx\n```\n```js\ny\n```", "y\n"},
        {"<think>\n```python\nbad\n```\n</think>\n  ```Python3\n  x\n  ```", "  x\n"},
        {"```python\nx\n```\n```python\ncut off", "x\n"},
        {"```python\ns = '''\n```python\n'''\n```\n", "s = '''\n```python\n'''\n"},
        {"```python\n```", ""},
        {"```python\r\nx\r\n```\r\n", "x\r\n"},
        {"```python\nx", NULL},
        {"no code", NULL},
        {"", NULL},
        {"```python\nx\n```</think>", NULL},
        {"x = `a`", NULL},
    };
    str out = {0};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        bool found = code_find(pairs[i][0], &out);
        assert_int_equal(found, pairs[i][1] != NULL);
        if (found) assert_string_equal(out.n ? out.p : "", pairs[i][1]);
    }
    str_free(&out);
}

/* --- python3 ----------------------------------------------------------------------------------------------------- */

/* The python3 that a script in PATH would look for in every run comes first in PATH: a tenth of the time. */
static int find_python(void **state) {
    sandbox_result r;
    sandbox_limits l = usual;
    l.output = 4096;
    const char *const ask[] = {"python3", "-I", "-c", "import sys, os; print(os.path.dirname(sys.executable), end='')",
                               NULL};
    *state = NULL;
    if (sandbox_run(ask, "", 0, &l, &r, NULL) != OK) return 0;
    if (r.code == 0 && r.out.n) {
        str path = {0};
        str_addf(&path, "%s:%s", r.out.p, getenv("PATH"));
        setenv("PATH", path.p, 1);
        str_free(&path);
        *state = "";
    }
    str_free(&r.out);
    str_free(&r.err);
    return 0;
}

static void need_python(void **state) {
    if (*state) return;
    printf("SKIP code: python3 does not run here\n");
    skip();
}

static bool passes(const char *prompt, const char *completion, const char *test, const char *entry,
                   const sandbox_limits *l, str *why) {
    bool passed = false;
    error e;
    if (code_humaneval(prompt, completion, test, entry, l, &passed, why, &e) != OK) fail_msg("%s", e.text);
    return passed;
}

#define PROMPT "def add(a, b):\n    \"\"\"Sum.\"\"\"\n"
#define TEST "def check(candidate):\n    assert candidate(2, 3) == 5\n    assert candidate(0, 0) == 0\n"

static void right_and_wrong(void **state) {
    need_python(state);
    static const char *const wrong[][2] = {
        {"    return a - b\n", "AssertionError"},
        {"    return a +\n", "SyntaxError"},
        {"    return c\n", "NameError"},
        {"    import sys; sys.exit(0)\n", "it ends before the tests do"},
        {"    import os; os._exit(0)\n", "it ends before the tests do"},
        {"    while True: pass\n", "it does not end in 1 s"},
        {"    while True: print('x' * 1000)\n", "it writes without end"},
        {"    import ctypes; ctypes.string_at(0)\n", "signal 11 (SEGV)"},
        {"    import socket; socket.socket(); return a + b\n", "PermissionError"},
        {"    return len(bytearray(4 << 30))\n", "MemoryError"},
    };
    str why = {0};
    sandbox_limits l = usual;
    assert_true(passes(PROMPT, "    print('a'); return a + b\n", TEST, "add", &l, &why));
    assert_string_equal(why.p, "");
    assert_true(passes(PROMPT, "    return a + b", TEST, "add", &l, NULL));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        l.seconds = strstr(wrong[i][1], "1 s") ? 1 : 60;
        assert_false(passes(PROMPT, wrong[i][0], TEST, "add", &l, &why));
        if (!strstr(why.p, wrong[i][1])) fail_msg("%s: %s", wrong[i][0], why.p);
    }
    char *large = malloc(200001);
    memset(large, '\n', 200000);
    large[200000] = 0;
    assert_false(passes(PROMPT, large, TEST, "add", &usual, &why));
    assert_non_null(strstr(why.p, "longer than"));
    free(large);
    str_free(&why);
}

static void all_of_humaneval(void **state) {
    need_python(state);
    const char *shared = getenv("HADAL_SHARED");
    char path[1024];
    str file = {0}, why = {0};
    int n = 0;
    error e;
    snprintf(path, sizeof path, "%s/data/humaneval/HumanEval.jsonl", shared ? shared : "../shared");
    if (!file_exists(path)) {
        printf("SKIP %s is not there\n", path);
        skip();
    }
    assert_int_equal(file_read(&file, path, 10 << 20, &e), OK);
    for (char *line = file.p, *end; (end = strchr(line, '\n')); line = end + 1, n++) {
        json_t *o = json_loadb(line, (size_t)(end - line), 0, NULL);
        const char *text[4], *key[] = {"prompt", "canonical_solution", "test", "entry_point"};
        for (int i = 0; i < 4; i++) assert_non_null(text[i] = json_string_value(json_object_get(o, key[i])));
        if (!passes(text[0], text[1], text[2], text[3], &usual, &why))
            fail_msg("%s: %s", json_string_value(json_object_get(o, "task_id")), why.p);
        if (n % 10 == 0) assert_false(passes(text[0], "    return None\n", text[2], text[3], &usual, &why));
        json_decref(o);
    }
    assert_true(n >= 152);
    str_free(&file);
    str_free(&why);
}

/* --- the reward -------------------------------------------------------------------------------------------------- */

static status try_open(void **x, const char *members, const reward_context *c, error *e) {
    json_t *o = json_loads(members, 0, NULL);
    assert_non_null(o);
    status s = reward_code.open(x, o, c, e);
    json_decref(o);
    return s;
}

static void check_scores(const char *members, const char *row, const char *const *completions, const double *wanted,
                         int n) {
    void *x = NULL;
    heard h = {0};
    reward_context c = {.name = "code", .note = hear, .arg = &h};
    reward_input in[16] = {0};
    double score[16] = {0};
    error e;
    json_t *r = json_loads(row, 0, NULL);
    assert_non_null(r);
    if (try_open(&x, members, &c, &e) != OK) fail_msg("%s", e.text);
    for (int i = 0; i < n; i++) in[i] = (reward_input){.prompt = "?", .completion = completions[i], .row = r};
    assert_int_equal(reward_code.score(x, in, n, n, score, &e), OK);
    for (int i = 0; i < n; i++)
        if (isnan(wanted[i]) ? !isnan(score[i]) : score[i] != wanted[i])
            fail_msg("%d: %g instead of %g", i, score[i], wanted[i]);
    assert_int_equal(h.notes, 0);
    reward_code.close(x);
    json_decref(r);
}

#define CODE(text) "```python\n" text "\n```"

static void share_of_tests(void **state) {
    need_python(state);
    static const char row[] =
        "{\"tests\": [{\"input\": \"1 2\\n\", \"output\": \"3\\n\"}, {\"input\": \"5 5\", \"output\": \"10\"}, "
        "{\"input\": \"2 1\", \"output\": \"3\"}, {\"input\": \"0 0\", \"output\": \" 0 \\n\"}]}";
    static const char *const text[] = {CODE("print(sum(map(int, input().split())))"),
                                       CODE("print(3)"),
                                       CODE("print(sum(map(int, open('/dev/stdin').read().split())), '\\n')"),
                                       CODE("print(1/0)"),
                                       CODE("print(3); exit(1)"),
                                       "<think>" CODE("print(3)") "</think> I do not know",
                                       CODE("import time; x = input(); x == '1 2' or time.sleep(100); print(3)"),
                                       CODE("")};
    check_scores("{\"seconds\": 60}", row, text, (double[]){1, 0.5, 1, 0, 0, 0}, 6);
    check_scores("{\"seconds\": 1}", row, text + 6, (double[]){0.25, 0}, 2);
    check_scores("{\"seconds\": 60, \"binary\": true}", row, text, (double[]){1, 0, 1, 0}, 4);
}

/* An output that stops early, or goes on, is not the right one. */
static void lines_are_counted(void **state) {
    need_python(state);
    static const char row[] =
        "{\"verification_info\": {\"language\": \"python\", \"test_cases\": [{\"fn_name\": null, \"input\": \"\", "
        "\"output\": \"1\\n2 \\n\\n3\\n\", \"type\": \"stdin_stdout\"}]}}";
    static const char *const text[] = {CODE("print('1\\n  2\\n\\n3')"), CODE("print('1\\n2')"),
                                       CODE("print('1\\n2\\n\\n3\\n4')"), CODE("print('1\\n2\\n3')"), CODE("pass")};
    check_scores("{}", row, text, (double[]){1, 0, 0, 0, 0}, 5);
}

static void rows(void **state) {
    need_python(state);
    static const char *const text[] = {CODE("print(3)")};
    /* tables often hold what has a structure as its text */
    check_scores(
        "{}",
        "{\"verification_info\": \"{\\\"test_cases\\\": [{\\\"input\\\": \\\"\\\", \\\"output\\\": \\\"3\\\"}]}\"}",
        text, (double[]){1}, 1);
    check_scores("{}", "{\"tests\": \"[{\\\"input\\\": \\\"\\\", \\\"output\\\": \\\"3\\\"}]\"}", text, (double[]){1},
                 1);
    static const char *const cannot_tell[] = {
        "{}",
        "{\"tests\": []}",
        "{\"tests\": \"text\"}",
        "{\"tests\": [{\"input\": \"1\"}]}",
        "{\"tests\": [{\"input\": \"1\", \"output\": 3}]}",
        "{\"tests\": [{\"input\": \"1\", \"output\": \"3\", \"fn_name\": \"f\"}]}",
        "{\"test\": \"x\"}"};
    for (size_t i = 0; i < sizeof cannot_tell / sizeof *cannot_tell; i++)
        check_scores("{}", cannot_tell[i], text, (double[]){NAN}, 1);
}

static void functions(void **state) {
    need_python(state);
    static const char *const text[] = {CODE("def add(a, b):\n    return a + b"), CODE("def add(a, b):\n    return a"),
                                       CODE("    return a + b"), "nothing", CODE("import sys; sys.exit(0)")};
    static const char row[] = "{\"prompt\": \"from math import *\\ndef add(a, b):\\n    "
                              "\\\"\\\"\\\"Sum.\\\"\\\"\\\"\\n\", \"entry_point\": \"add\", "
                              "\"test\": \"def check(f):\\n    assert f(2, 3) == 5\\n\"}";
    check_scores("{}", row, text, (double[]){1, 0, 1, 0, 0}, 5);
    static const char question[] = "{\"prompt\": \"Write add.\", \"entry_point\": \"add\", \"test\": \"def "
                                   "check(f):\\n    assert f(2, 3) == 5\\n\"}";
    check_scores("{}", question, text, (double[]){1, 0, 0, 0, 0}, 5);
}

static void other_languages(void **state) {
    (void)state;
    static const char *const text[] = {"```sh\nread x; echo $((x + 1))\n```", "```sh\necho 2\n```"};
    check_scores("{\"command\": \"sh -c\"}",
                 "{\"tests\": [{\"input\": \"1\", \"output\": \"2\"}, {\"input\": \"2\", \"output\": \"3\"}]}", text,
                 (double[]){1, 0.5}, 2);
}

static void what_is_missing(void **state) {
    void *x = NULL;
    error e;
    reward_context c = {.name = "code"};
    assert_int_not_equal(try_open(&x, "{\"command\": \"hadal-no-such-python -c\"}", &c, &e), OK);
    assert_string_equal(e.text, "hadal-no-such-python: there is no such program in PATH: install it, or give its path");
    assert_int_not_equal(try_open(&x, "{\"command\": [\"/tmp/./hadal-none\"]}", &c, &e), OK);
    assert_string_equal(e.text, "/tmp/./hadal-none: no such file");
    char *path = strdup(getenv("PATH"));
    setenv("PATH", "/no/such", 1);
    assert_int_not_equal(try_open(&x, "{}", &c, &e), OK);
    assert_string_equal(e.text, "python3: there is no such program in PATH: install it, or give its path");
    setenv("PATH", path, 1);
    free(path);
    need_python(state);
    assert_int_not_equal(try_open(&x, "{\"memory\": 1000000}", &c, &e), OK);
    assert_non_null(strstr(e.text, "1000000 bytes of memory"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(code_in_texts),  cmocka_unit_test(right_and_wrong),   cmocka_unit_test(all_of_humaneval),
        cmocka_unit_test(share_of_tests), cmocka_unit_test(lines_are_counted), cmocka_unit_test(rows),
        cmocka_unit_test(functions),      cmocka_unit_test(other_languages),   cmocka_unit_test(what_is_missing)};
    return cmocka_run_group_tests(tests, find_python, NULL);
}
