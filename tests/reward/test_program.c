/* Programs that answer lines with lines, and the reward that asks them: what a program may do wrong costs one score. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "heard.h"
#include "no_namespaces.h"
#include "reward/kinds.h"
#include "reward/line_program.h"
#include <cmocka.h>

static const sandbox_limits usual = {.seconds = 60, .output = 1 << 20};

static line_program *opened(const char *script, const sandbox_limits *l) {
    line_program *p;
    error e;
    if (line_program_open(&p, (const char *const[]){"sh", "-c", script, NULL}, l, &e) != OK) fail_msg("%s", e.text);
    return p;
}

/* One line; whether it was answered. */
static bool ask(line_program *p, const char *line, str *answer, char *why) {
    int64_t answered = -1;
    error e;
    if (line_program_ask(p, &line, 1, answer, &answered, why, &e) != OK) fail_msg("%s", e.text);
    return answered == 1;
}

static void answers(line_program *p, const char *line, const char *wanted) {
    str answer = {0};
    char why[LINE_PROGRAM_WHY] = "";
    if (!ask(p, line, &answer, why)) fail_msg("%.50s: %s", line, why);
    assert_string_equal(answer.p, wanted);
    str_free(&answer);
}

static void fails(line_program *p, const char *line, const char *wanted) {
    str answer = {0};
    char why[LINE_PROGRAM_WHY] = "";
    assert_false(ask(p, line, &answer, why));
    if (!strstr(why, wanted)) fail_msg("\"%s\" is not in \"%s\"", wanted, why);
    str_free(&answer);
}

static void one_program_for_many_lines(void **state) {
    (void)state;
    line_program *p = opened("n=0; while read -r l; do n=$((n+1)); echo \"$n $l\"; done", &usual);
    answers(p, "a", "1 a");
    answers(p, "b c", "2 b c");
    line_program_stop(p);
    answers(p, "again", "1 again");
    line_program_close(p);
    line_program_close(NULL);
}

/* What was wrong is said, and the next line finds a new program. */
static void failures_and_after(void **state) {
    (void)state;
    sandbox_limits l = {.seconds = 0.5, .output = 1000};
    line_program *p = opened("n=0; while read -r l; do n=$((n+1)); case $l in "
                             "hang) sleep 7654.401;; "
                             "busy) while :; do :; done;; "
                             "die) echo first >&2; echo last words >&2; exit 3;; "
                             "close) exec >&-; sleep 7654.401;; "
                             "two) printf '1\\n2\\n'; continue;; "
                             "long) head -c 5000 /dev/zero;; "
                             "noise) yes | head -c 1000000 >&2;; "
                             "esac; echo $n; done",
                             &l);
    const char *const wrong[][2] = {{"hang", "no answer in 0.5 s"},
                                    {"busy", "no answer in 0.5 s"},
                                    {"die", "it ended with exit status 3: last words"},
                                    {"close", "it closed its output"},
                                    {"long", "an answer is longer than 1000 bytes"}};
    answers(p, "x", "1");
    answers(p, "noise", "2"); /* more than the pipe of errors holds */
    answers(p, "x", "3");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        fails(p, wrong[i][0], wrong[i][1]);
        answers(p, "x", "1");
    }
    answers(p, "two", "1");
    usleep(100000);
    fails(p, "x", "more than one line");
    answers(p, "x", "1");
    line_program_close(p);
}

static void ends_before_reading(void **state) {
    (void)state;
    size_t n = 1 << 20;
    char *line = malloc(n + 1);
    memset(line, 'x', n);
    line[n] = 0;
    line_program *p = opened("exit 0", &usual); /* and nobody reads: SIGPIPE must not end this program */
    for (int i = 0; i < 5; i++) fails(p, line, "it ended with exit status 0");
    line_program_close(p);
    p = opened("head -c 10 > /dev/null; exec <&-; echo 7; sleep 7654.401", &usual);
    answers(p, line, "7");
    line_program_close(p);
    free(line);
}

static void long_lines(void **state) {
    (void)state;
    size_t n = 3 << 20;
    char *line = malloc(n + 1);
    memset(line, 'y', n);
    line[n] = 0;
    sandbox_limits l = {.seconds = 60, .output = 4 << 20};
    line_program *p = opened("exec sed -u s/^y/x/", &l);
    str answer = {0};
    char why[LINE_PROGRAM_WHY];
    for (int i = 0; i < 2; i++) {
        assert_true(ask(p, line, &answer, why));
        assert_int_equal(answer.n, n);
        assert_int_equal(answer.p[0], 'x');
        assert_int_equal(strspn(answer.p + 1, "y"), n - 1);
    }
    line_program_close(p);
    str_free(&answer);
    free(line);
}

static int descriptors(void) {
    DIR *d = opendir("/proc/self/fd");
    int n = 0;
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static void nothing_stays(void **state) {
    (void)state;
    int before = descriptors();
    while (waitpid(-1, NULL, WNOHANG) > 0) {} /* orphans of other tests, if this is process 1 */
    line_program *p = opened("read -r l; echo 1; exit 1", &usual);
    for (int i = 0; i < 50; i++) {
        line_program_stop(p);
        answers(p, "x", "1");
    }
    line_program_close(p);
    assert_int_equal(descriptors(), before);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

static void no_such_program(void **state) {
    (void)state;
    line_program *p = (line_program *)1;
    error e;
    assert_int_equal(line_program_open(&p, (const char *const[]){"/tmp/no-such/./score", NULL}, &usual, &e), ERR_IO);
    assert_string_equal(e.text, "/tmp/no-such/./score: no such file");
    assert_null(p);
}

/* --- the reward -------------------------------------------------------------------------------------------------- */

static void *reward_of(const char *members, reward_context *c) {
    void *x = NULL;
    error e;
    json_t *o = json_loads(members, 0, NULL);
    assert_non_null(o);
    if (reward_program.open(&x, o, c, &e) != OK) fail_msg("%s", e.text);
    json_decref(o);
    return x;
}

static void refused(const char *members, const char *wanted) {
    void *x = NULL;
    error e;
    json_t *o = json_loads(members, 0, NULL);
    reward_context c = {.name = "program"};
    assert_int_not_equal(reward_program.open(&x, o, &c, &e), OK);
    if (!strstr(e.text, wanted)) fail_msg("%s", e.text);
    json_decref(o);
}

static void scores_of(void *x, const char *const *completions, int n, double *score) {
    reward_input in[64] = {0};
    error e;
    for (int i = 0; i < n; i++) in[i] = (reward_input){.prompt = "p", .completion = completions[i]};
    memset(score, 0, (size_t)n * sizeof *score);
    if (reward_program.score(x, in, n, n, score, &e) != OK) fail_msg("%s", e.text);
}

static void same(const double *score, const double *wanted, int n) {
    for (int i = 0; i < n; i++)
        if (isnan(wanted[i]) ? !isnan(score[i]) : score[i] != wanted[i])
            fail_msg("%d: %g instead of %g", i, score[i], wanted[i]);
}

static void what_a_program_reads(void **state) {
    (void)state;
    char folder[] = "/tmp/hadal-test-XXXXXX", path[64], line[400] = "";
    heard h = {0};
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/score.sh", folder);
    FILE *f = fopen(path, "w");
    fprintf(f, "#!/bin/sh\nread -r l\nprintf %%s \"$l\" > %s/line\necho 0.25\n", folder);
    fclose(f);
    chmod(path, 0755);
    reward_context c = {.name = "program", .note = hear, .arg = &h};
    char members[128];
    snprintf(members, sizeof members, "{\"command\": \"%s with words\"}", path);
    void *x = reward_of(members, &c);
    json_t *row = json_pack("{s:i}", "n", 5);
    reward_input in = {
        .prompt = "2+2?\n", .completion = "\xc3\xa9\"4\"", .answer = "4", .row = row, .tokens = 3, .finished = true};
    double score = 0;
    error e;
    assert_int_equal(reward_program.score(x, &in, 1, 1, &score, &e), OK);
    assert_true(score == 0.25);
    reward_program.close(x);
    assert_int_equal(h.notes, 0);
    snprintf(path, sizeof path, "%s/line", folder);
    f = fopen(path, "r");
    assert_non_null(fgets(line, sizeof line, f));
    fclose(f);
    json_t *got = json_loads(line, 0, NULL),
           *wanted = json_pack("{s:s, s:s, s:s, s:i, s:b, s:O}", "prompt", "2+2?\n", "completion", "\xc3\xa9\"4\"",
                               "answer", "4", "tokens", 3, "finished", 1, "row", row);
    assert_true(json_equal(got, wanted));
    json_decref(got);
    json_decref(wanted);
    json_decref(row);
    unlink(path);
    snprintf(path, sizeof path, "%s/score.sh", folder);
    unlink(path);
    assert_int_equal(rmdir(folder), 0);
}

static void scores_and_garbage(void **state) {
    (void)state;
    static const char *const said[] = {"1", "-0.5", "nonsense", "null", "3e2", "", "{}", "[1]", "true", "7"};
    static const double wanted[] = {1, -0.5, NAN, NAN, 300, NAN, NAN, NAN, NAN, 7};
    double score[10];
    for (int batch = 0; batch <= 1; batch++) {
        heard h = {0};
        reward_context c = {.name = "mine", .note = hear, .arg = &h};
        char members[300];
        snprintf(members, sizeof members, "{\"command\": [\"sh\", \"-c\", \"%s\"], \"batch\": %s}",
                 "sed -u 's/.*\\\"completion\\\":\\\"\\\\([^\\\"]*\\\\)\\\".*/\\\\1/'", batch ? "true" : "false");
        void *x = reward_of(members, &c);
        scores_of(x, said, 10, score);
        same(score, wanted, 10);
        assert_int_equal(h.notes, 1);
        assert_string_equal(h.last, "mine: 5 of 10 completions have no score; the first: its answer is not a number, "
                                    "{\"score\": number} or null: nonsense");
        reward_program.close(x);
    }
}

static void objects(void **state) {
    (void)state;
    static const char *const said[] = {"a", "b", "c", "d"};
    double score[4];
    heard h = {0};
    reward_context c = {.name = "mine", .note = hear, .arg = &h};
    void *x = reward_of("{\"command\": [\"sh\", \"-c\", \"while read -r l; do case $l in *:\\\\\\\"a*) echo "
                        "'{\\\"score\\\": 2, \\\"why\\\": []}';; "
                        "*:\\\\\\\"b*) echo '{\\\"score\\\": null}';; *:\\\\\\\"c*) echo '{\\\"score\\\": "
                        "\\\"1\\\"}';; *) echo 4;; esac; done\"]}",
                        &c);
    scores_of(x, said, 4, score);
    same(score, (double[]){2, NAN, NAN, 4}, 4);
    assert_int_equal(h.notes, 1); /* null is no failure */
    assert_non_null(strstr(h.last, "1 of 4"));
    reward_program.close(x);
}

/* The program dies or hangs at one completion: the others have their scores. */
static void one_bad_completion(void **state) {
    (void)state;
    static const char *const said[] = {"ok", "ok", "die", "ok", "hang", "ok"};
    static const double wanted[] = {1, 1, NAN, 1, NAN, 1};
    double score[6];
    for (int batch = 0; batch <= 1; batch++) {
        heard h = {0};
        reward_context c = {.name = "mine", .note = hear, .arg = &h};
        char members[400];
        snprintf(
            members, sizeof members,
            "{\"command\": [\"sh\", \"-c\", \"while read -r l; do case $l in *die*) exit 9;; *hang*) sleep 7654.402;; "
            "*) echo 1;; esac; done\"], \"batch\": %s, \"seconds\": 0.5}",
            batch ? "true" : "false");
        void *x = reward_of(members, &c);
        scores_of(x, said, 6, score);
        same(score, wanted, 6);
        assert_int_equal(h.notes, 1);
        assert_string_equal(h.last, "mine: 2 of 6 completions have no score; the first: it ended with exit status 9");
        reward_program.close(x);
    }
}

/* One that always fails does not cost its time for every completion. */
static void always_bad(void **state) {
    (void)state;
    static const char *said[30];
    double score[30], wanted[30];
    heard h = {0};
    reward_context c = {.name = "mine", .note = hear, .arg = &h};
    for (int i = 0; i < 30; i++) said[i] = "x", wanted[i] = NAN;
    void *x = reward_of("{\"command\": [\"sh\", \"-c\", \"exec sleep 7654.402\"], \"seconds\": 0.05}", &c);
    scores_of(x, said, 30, score);
    same(score, wanted, 30);
    assert_int_equal(h.notes, 1);
    assert_string_equal(h.last, "mine: 30 of 30 completions have no score; the first: no answer in 0.05 s (given up "
                                "after 8 failures in a row)");
    reward_program.close(x);
}

/* A batch whose lines and answers are both more than pipes hold. */
static void large_batch(void **state) {
    (void)state;
    enum { N = 1000 };
    static char text[N][1200];
    reward_input *in = calloc(N, sizeof *in);
    double *score = calloc(N, sizeof *score);
    reward_context c = {.name = "mine"};
    error e;
    void *x =
        reward_of("{\"command\": [\"sed\", \"-u\", "
                  "\"s/.*\\\"completion\\\":\\\"\\\\([^x]*\\\\)\\\\(x*\\\\)\\\".*/{\\\"score\\\": \\\\1, \\\"pad\\\": "
                  "\\\"\\\\2\\\"}/\"], \"batch\": true}",
                  &c);
    for (int i = 0; i < N; i++) {
        int n = snprintf(text[i], sizeof text[i], "%d", i);
        memset(text[i] + n, 'x', 1000);
        in[i] = (reward_input){.prompt = "p", .completion = text[i]};
    }
    assert_int_equal(reward_program.score(x, in, N, 1, score, &e), OK);
    for (int i = 0; i < N; i++) assert_true(score[i] == i);
    reward_program.close(x);
    free(in);
    free(score);
}

static void bad_members(void **state) {
    (void)state;
    refused("{}", "\"command\" is missing");
    refused("{\"command\": []}", "\"command\" is missing");
    refused("{\"command\": \"  \"}", "\"command\" is missing");
    refused("{\"command\": 5}", "list of words or a text");
    refused("{\"command\": [\"true\", 5]}", "word 2 is not a text");
    refused("{\"command\": \"true\", \"seconds\": 0}", "\"seconds\"");
    refused("{\"command\": \"true\", \"memory\": -1}", "\"memory\"");
    refused("{\"command\": \"hadal-no-such-program x\"}", "there is no such program in PATH");
}

static int tests(bool namespaces) {
    const struct CMUnitTest list[] = {cmocka_unit_test(one_program_for_many_lines),
                                      cmocka_unit_test(failures_and_after),
                                      cmocka_unit_test(ends_before_reading),
                                      cmocka_unit_test(long_lines),
                                      cmocka_unit_test(nothing_stays),
                                      cmocka_unit_test(no_such_program),
                                      cmocka_unit_test(what_a_program_reads),
                                      cmocka_unit_test(scores_and_garbage),
                                      cmocka_unit_test(objects),
                                      cmocka_unit_test(one_bad_completion),
                                      cmocka_unit_test(always_bad),
                                      cmocka_unit_test(large_batch),
                                      cmocka_unit_test(bad_members)};
    return cmocka_run_group_tests_name(namespaces ? "program" : "program without namespaces", list, NULL, NULL);
}

int main(void) {
    return both_ways(tests);
}
