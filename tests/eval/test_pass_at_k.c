/* pass@k, votes, and the report that is made of scores. */
#include "../format/scratch.h"
#include <math.h>
#include "base/json.h"
#include "eval/pass_at_k.h"
#include "eval/tally.h"

/* Products of up to 64 factors near 1: each rounds once, so 64 * 2^-53 is the most that goes astray. */
static const double ROUNDING = 1e-14;

static void near(double a, double b) {
    if (!(fabs(a - b) <= ROUNDING)) fail_msg("%.17g is not %.17g", a, b);
}

/* All choices of k samples of n, of which the first c are right. */
static double by_counting(int n, int c, int k) {
    int all = 0, good = 0;
    for (unsigned set = 0; set < 1u << n; set++) {
        if (__builtin_popcount(set) != k) continue;
        all++;
        good += (set & ((1u << c) - 1)) != 0;
    }
    return (double)good / all;
}

static void pass(void **state) {
    (void)state;
    for (int n = 1; n <= 8; n++)
        for (int c = 0; c <= n; c++)
            for (int k = 1; k <= n; k++) near(pass_at_k(n, c, k), by_counting(n, c, k));
    near(pass_at_k(64, 1, 16), 0.25);
    near(pass_at_k(16, 4, 1), 0.25);
}

static void golden(void **state) {
    (void)state;
    const char *shared = getenv("HADAL_SHARED");
    char path[500];
    json_t *all;
    error e = {0};
    snprintf(path, sizeof path, "%s/data/golden/grpo_math.json", shared ? shared : "../shared");
    if (!file_exists(path)) skip();
    if (json_read(&all, path, 1 << 20, &e) != OK) fail_msg("%s", e.text);
    const char *name;
    json_t *v;
    int count = 0;
    json_object_foreach(json_object_get(all, "pass_at_k"), name, v) {
        int n, c, k;
        assert_int_equal(sscanf(name, "n%d_c%d_k%d", &n, &c, &k), 3);
        near(pass_at_k(n, c, k), json_number_value(v));
        count++;
    }
    assert_true(count >= 5);
    json_decref(all);
}

static void votes(void **state) {
    (void)state;
    static const struct {
        int n, camp[6], best;
    } cases[] = {
        {1, {0}, 0},
        {1, {-1}, -1},
        {3, {0, 1, 1}, 1},
        {4, {0, 1, 0, 1}, 0}, /* as many: the one that came first */
        {4, {7, 3, 3, 7}, 0},
        {5, {-1, -1, 2, -1, -1}, 2},
        {6, {-1, 1, 2, 2, 1, 2}, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(majority(cases[i].camp, cases[i].n), cases[i].best);
}

static void counts(void **state) {
    (void)state;
    int k[40];
    assert_int_equal(sample_counts(1, k), 0);
    assert_int_equal(sample_counts(2, k), 1);
    assert_int_equal(k[0], 2);
    assert_int_equal(sample_counts(8, k), 3);
    assert_true(k[0] == 2 && k[1] == 4 && k[2] == 8);
    assert_int_equal(sample_counts(6, k), 3);
    assert_true(k[0] == 2 && k[1] == 4 && k[2] == 6);
}

static void means(void **state) {
    (void)state;
    const double x[] = {0, 1, 1, 0, 1};
    const mean_error m = mean_of(x, 5);
    near(m.mean, 0.6);
    near(m.error, sqrt(1.2 / 4 / 5)); /* squares of the distances: 2 * .36 + 3 * .16 */
    near(mean_of(x, 1).error, 0);
}

/* --- the report --------------------------------------------------------------------------------------------------- */

static bool same_text(const char *a, const char *b) {
    return strcmp(a, b) == 0;
}

static json_t *parsed(const char *text) {
    json_t *j;
    error e = {0};
    if (json_parse(&j, text, strlen(text), "test", &e) != OK) fail_msg("%s", e.text);
    return j;
}

static void add(tally *t, int64_t i, const char *answers) {
    json_t *list = parsed(answers);
    error e = {0};
    if (tally_add(t, i, list, &e) != OK) fail_msg("%s", e.text);
    json_decref(list);
}

static double number(const json_t *j, const char *name) {
    if (!json_is_number(json_object_get(j, name))) fail_msg("%s is missing", name);
    return json_number_value(json_object_get(j, name));
}

/* Four samples each: 2 of 4 are right and win the vote; 1 of 4 is right and loses; none can be told; one is missing. */
static void one_rule(void **state) {
    (void)state;
    static const char *const subject[] = {"b", "a", "b", "a"};
    tally *t;
    error e = {0};
    assert_int_equal(tally_open(&t, 4, 4, NULL, same_text, &e), OK);
    add(t, 0,
        "[{\"extracted\":\"1\",\"score\":0,\"tokens\":3,\"finish\":\"eos\"},"
        "{\"extracted\":\"2\",\"score\":1,\"tokens\":5,\"finish\":\"stop\"},"
        "{\"extracted\":\"2\",\"score\":1,\"tokens\":4,\"finish\":\"eos\"},"
        "{\"extracted\":null,\"score\":0,\"tokens\":8,\"finish\":\"length\"}]");
    add(t, 2,
        "[{\"extracted\":\"5\",\"score\":0},{\"extracted\":\"5\",\"score\":0},{\"extracted\":\"6\",\"score\":1},"
        "{\"extracted\":\"7\",\"score\":0}]");
    add(t, 1,
        "[{\"extracted\":\"x\",\"score\":null},{\"extracted\":\"x\",\"score\":null},"
        "{\"extracted\":null,\"score\":0},{\"extracted\":null,\"score\":0}]");
    json_t *out = json_object(), *wrong = parsed("[{}]");
    assert_int_equal(tally_report(t, subject, NULL, out, &e), OK);
    assert_int_equal(json_integer_value(json_object_get(out, "answers")), 12);
    near(number(out, "finished"), 0.75); /* of those that the model wrote */
    near(number(out, "mean_tokens"), 5);
    near(number(out, "accuracy"), (0.5 + 0.25) / 4);
    near(number(out, "pass_at_2"), (5. / 6 + 0.5) / 4);
    near(number(out, "pass_at_4"), 0.5);
    near(number(out, "cons_at_4"), 0.25);
    assert_null(json_object_get(out, "cons_at_2"));
    assert_int_equal(json_integer_value(json_object_get(out, "undecided")), 2);
    const json_t *groups = json_object_get(out, "by_subject");
    near(number(json_object_get(groups, "b"), "accuracy"), 0.375);
    near(number(json_object_get(groups, "a"), "accuracy"), 0);
    assert_int_equal(json_object_size(groups), 2);
    assert_null(json_object_get(out, "by_category"));
    assert_int_equal(tally_add(t, 3, wrong, &e), ERR_FORMAT);
    json_decref(wrong);
    json_decref(out);
    tally_close(t);
}

/* Eight samples are two elections of four, and one of eight. */
static void elections(void **state) {
    (void)state;
    tally *t;
    error e = {0};
    str text = {0};
    static const char votes[] = "rrwwrwww"; /* the first half is even and right came first */
    for (int i = 0; i < 8; i++)
        str_addf(&text, "%s{\"extracted\":\"%c\",\"score\":%d}", i ? "," : "[", votes[i], votes[i] == 'r');
    str_putc(&text, ']');
    assert_int_equal(tally_open(&t, 1, 8, NULL, same_text, &e), OK);
    add(t, 0, text.p);
    json_t *out = json_object();
    assert_int_equal(tally_report(t, NULL, NULL, out, &e), OK);
    near(number(out, "cons_at_4"), 0.5);
    near(number(out, "cons_at_8"), 0);
    near(number(out, "accuracy"), 3. / 8);
    json_decref(out);
    tally_close(t);
    str_free(&text);
}

static void two_rules(void **state) {
    (void)state;
    static const char *const rules[] = {"strict", "loose", NULL};
    tally *t;
    error e = {0};
    assert_int_equal(tally_open(&t, 2, 1, rules, same_text, &e), OK);
    add(t, 0, "[{\"strict\":{\"extracted\":null,\"score\":0},\"loose\":{\"extracted\":\"1\",\"score\":1}}]");
    add(t, 1, "[{\"strict\":{\"extracted\":\"1\",\"score\":1},\"loose\":{\"extracted\":\"1\",\"score\":1}}]");
    json_t *out = json_object();
    assert_int_equal(tally_report(t, NULL, NULL, out, &e), OK);
    near(number(json_object_get(out, "strict"), "accuracy"), 0.5);
    near(number(json_object_get(out, "strict"), "standard_error"), 0.5);
    near(number(json_object_get(out, "loose"), "accuracy"), 1);
    assert_null(json_object_get(out, "accuracy"));
    assert_null(json_object_get(out, "finished"));
    json_decref(out);
    tally_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pass),  cmocka_unit_test(golden),   cmocka_unit_test(votes),     cmocka_unit_test(counts),
        cmocka_unit_test(means), cmocka_unit_test(one_rule), cmocka_unit_test(elections), cmocka_unit_test(two_rules)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
