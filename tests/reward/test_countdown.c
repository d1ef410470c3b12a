/* Countdown against TinyZero's scores, and expressions whose values Python gives. */
#include "rewards.h"

static double countdown(const char *text, json_t *row) {
    reward_input in = completion(text);
    in.row = row;
    double score = one("{\"name\":\"countdown\"}", in);
    json_decref(row);
    return score;
}

/* TinyZero looks for the assistant's mark itself; here what is before it is the prompt. */
static void tinyzero_gives_the_same(void **state) {
    (void)state;
    static const char mark[] = "Assistant:";
    json_t *rows = golden("rewards_countdown_tinyzero.json"), *row;
    size_t i;
    if (!rows) skip();
    json_array_foreach(rows, i, row) {
        const char *text = strstr(json_string_value(json_object_get(row, "text")), mark);
        double score = countdown(text ? text + strlen(mark) : "", json_incref(row));
        assert_float_equal(score, json_number_value(json_object_get(row, "score")), 0);
    }
    assert_int_equal(i, 27);
    json_decref(rows);
}

/* Whether the value is the target, all numbers being right: 1, else 0.1. */
static double value(const char *expression, const char *numbers, double target) {
    char text[2048], row[2048];
    snprintf(text, sizeof text, "<answer>%s</answer>", expression);
    snprintf(row, sizeof row, "{\"nums\":[%s],\"target\":%.17g}", numbers, target);
    return countdown(text, read_json(row));
}

static void values_are_pythons(void **state) {
    (void)state;
    assert_float_equal(value("2+3*4", "2,3,4", 14), 1, 0);
    assert_float_equal(value("(2+3)*4", "2,3,4", 20), 1, 0);
    assert_float_equal(value("2-3-4", "2,3,4", -5), 1, 0);
    assert_float_equal(value("8/4/2", "8,4,2", 1), 1, 0);
    assert_float_equal(value("2**3**2", "2,3,2", 512), 1, 0);
    assert_float_equal(value("-2**2", "2,2", -4), 1, 0);
    assert_float_equal(value("2**-1", "2,1", 0.5), 1, 0);
    assert_float_equal(value("-7//2", "7,2", -4), 1, 0);
    assert_float_equal(value("7//2*2", "7,2,2", 6), 1, 0);
    assert_float_equal(value("- + -3", "3", 3), 1, 0);
    assert_float_equal(value(" ( ( 3 ) )\t", "3", 3), 1, 0);
    assert_float_equal(value("1.5*2", "1,5,2", 3), 1, 0); /* TinyZero sees the numbers 1, 5 and 2 */
    assert_float_equal(value("3.*.5", "3,5", 1.5), 1, 0);
    assert_float_equal(value("00+3", "0,3", 3), 1, 0);
    assert_float_equal(value("1/3*3", "1,3,3", 1), 1, 0);
    assert_float_equal(value("3.000009*1", "3,9,1", 3), 1, 0);  /* within 1e-5, */
    assert_float_equal(value("3.00002*1", "3,2,1", 3), 0.1, 0); /* without */
}

static void what_python_refuses_is_wrong(void **state) {
    (void)state;
    assert_float_equal(value("", "", 0), 0.1, 0);
    assert_float_equal(value("()", "", 0), 0.1, 0);
    assert_float_equal(value("3 4", "3,4", 34), 0.1, 0);
    assert_float_equal(value("3(4)", "3,4", 12), 0.1, 0);
    assert_float_equal(value("(3+4", "3,4", 7), 0.1, 0);
    assert_float_equal(value("3+4)", "3,4", 7), 0.1, 0);
    assert_float_equal(value("3+", "3", 3), 0.1, 0);
    assert_float_equal(value("*3", "3", 3), 0.1, 0);
    assert_float_equal(value("3* *4", "3,4", 81), 0.1, 0);
    assert_float_equal(value("03+4", "3,4", 7), 0.1, 0);
    assert_float_equal(value("3+4=7", "3,4,7", 7), 0.1, 0);
    assert_float_equal(value("3\xc3\x97"
                             "4",
                             "3,4", 12),
                       0.1, 0);
    assert_float_equal(value(".", "", 0), 0.1, 0);
    assert_float_equal(value("1..5", "1,5", 1.5), 0.1, 0);
    assert_float_equal(value("5/(3-3)", "5,3,3", 5), 0.1, 0);
    assert_float_equal(value("(-8)**.5", "8,5", 2), 0.1, 0);
}

/* Numbers that get lost in an infinity or beyond 2^53 must not pass for used. */
static void lost_numbers_do_not_count(void **state) {
    (void)state;
    assert_float_equal(value("12+7/(9/(5-5))", "12,7,9,5,5", 12), 0.1, 0);
    assert_float_equal(value("12+(7+2**99-2**99)", "12,7,2,2,99,99", 12), 0.1, 0);
    assert_float_equal(value("12+7*0.0**5", "12,7,0,0,5", 12), 1, 0); /* this is how one may */
}

static void numbers_are_used_once_each(void **state) {
    (void)state;
    assert_float_equal(value("3+4", "3,4,5", 7), 0.1, 0);
    assert_float_equal(value("3+4+4", "3,4", 11), 0.1, 0);
    assert_float_equal(value("34", "3,4", 34), 0.1, 0);
    assert_float_equal(value("4+3", "3,4.0", 7), 1, 0);
    reward_input in = completion("<answer>3</answer>");
    json_t *row = read_json("{\"numbers\":[3,4],\"target\":7}");
    in.row = row;
    assert_float_equal(one("{\"name\":\"countdown\",\"format_score\":0.25}", in), 0.25, 0);
    json_decref(row);
}

static void the_last_answer_of_the_last_line(void **state) {
    (void)state;
    const char *row = "{\"numbers\":[3,4],\"target\":7}";
    assert_float_equal(countdown("<answer>3*4</answer> <answer>3+4</answer>", read_json(row)), 1, 0);
    assert_float_equal(countdown("<answer>3+4</answer> <answer>3*4</answer>", read_json(row)), 0.1, 0);
    assert_float_equal(countdown("<answer>3+4</answer>\n", read_json(row)), 0, 0);
    assert_float_equal(countdown("x\n<answer>3+4</answer> x", read_json(row)), 1, 0);
    assert_float_equal(countdown("<answer>3+4", read_json(row)), 0, 0);
    assert_float_equal(countdown("</answer><answer>3+4", read_json(row)), 0, 0);
    assert_float_equal(countdown("", read_json(row)), 0, 0);
    assert_true(isnan(countdown("<answer>3+4</answer>", read_json("{\"numbers\":[3,4]}"))));
    assert_true(isnan(countdown("<answer>3+4</answer>", read_json("{\"numbers\":7,\"target\":7}"))));
    assert_true(isnan(countdown("<answer>3+4</answer>", NULL)));
}

static void deep_and_long_ones_end(void **state) {
    (void)state;
    str s = {0};
    str_puts(&s, "<answer>");
    for (int i = 0; i < 100000; i++) str_puts(&s, "(");
    str_puts(&s, "3+4</answer>");
    assert_float_equal(countdown(s.p, read_json("{\"numbers\":[3,4],\"target\":7}")), 0.1, 0);
    str_free(&s);
    str_puts(&s, "<answer>");
    for (int i = 0; i < 100000; i++) str_puts(&s, "-");
    str_puts(&s, "3+4</answer>");
    assert_float_equal(countdown(s.p, read_json("{\"numbers\":[3,4],\"target\":7}")), 1, 0);
    str_free(&s);
    str_puts(&s, "<answer>1");
    for (int i = 0; i < 100000; i++) str_puts(&s, "**1");
    str_puts(&s, "</answer>");
    assert_float_equal(countdown(s.p, read_json("{\"numbers\":[1],\"target\":1}")), 0.1, 0);
    str_free(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tinyzero_gives_the_same),      cmocka_unit_test(values_are_pythons),
        cmocka_unit_test(what_python_refuses_is_wrong), cmocka_unit_test(lost_numbers_do_not_count),
        cmocka_unit_test(numbers_are_used_once_each),   cmocka_unit_test(the_last_answer_of_the_last_line),
        cmocka_unit_test(deep_and_long_ones_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
