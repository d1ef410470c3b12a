/* Rewards for right answers: what is compared with what, and what nobody can tell. How two answers are compared is
 * tested with reward/answer.h. */
#include "rewards.h"

static void the_place_of_the_answer(void **state) {
    (void)state;
    static const struct {
        const char *members, *text, *answer;
        double score;
    } table[] = {
        {"", "so \\boxed{7}", "7", 1},
        {"", "so \\boxed{8}", "7", 0},
        {"", "nothing", "7", 0},
        {"", "", "7", 0},
        {"", "so \\boxed{0.5}", "\\frac{1}{2}", 1},
        {"", "so \\boxed{18}", "He has 3*6=<<3*6=18>>18.\n#### 18", 1},
        {",\"from\":\"boxed\"", "\\boxed{7} or 8", "7", 1},
        {",\"from\":\"boxed\"", "<answer>7</answer>", "7", 0},
        {",\"from\":\"tag\"", "<answer>7</answer> or \\boxed{8}", "7", 1},
        {",\"from\":\"hashes\"", "\\boxed{8}\n#### 7", "7", 1},
        {",\"from\":\"last_number\"", "first 8, then 7.", "7", 1},
        {",\"from\":\"text\"", "<think>8</think>\n 7 ", "7", 1},
        {",\"from\":\"text\"", "7", "7", 1},
        {",\"from\":\"text\"", "<think>7</think>", "7", 0},
        {",\"from\":\"latex\"", "the answer $8$ and \\boxed{7}", "7", 1},
        {",\"from\":\"latex\"", "the answer $7$", "7", 1},
        {",\"from\":\"latex\"", "<answer>7</answer>", "7", 0},
        {",\"from\":\"latex\"", "<think>the answer $7$</think> 8", "7", 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        char members[128];
        snprintf(members, sizeof members, "{\"name\":\"accuracy\"%s}", table[i].members);
        double score = one(members, answered(table[i].text, table[i].answer));
        if (score != table[i].score) fail_msg("row %zu: %g, not %g", i, score, table[i].score);
    }
}

static void exact_is_letter_by_letter(void **state) {
    (void)state;
    static const char x[] = "{\"name\":\"accuracy\",\"from\":\"tag\",\"exact\":true}";
    assert_float_equal(one(x, answered("<answer>++-</answer>", " ++-\n")), 1, 0);
    assert_float_equal(one(x, answered("<answer>7.0</answer>", "7")), 0, 0);
    assert_float_equal(one(x, answered("<answer></answer>", "7")), 0, 0);
}

static void what_nobody_can_tell(void **state) {
    (void)state;
    static const char *const kinds[] = {"accuracy", "gsm8k", "choice"};
    for (int i = 0; i < 3; i++) {
        char members[64];
        snprintf(members, sizeof members, "{\"name\":\"%s\"}", kinds[i]);
        assert_true(isnan(one(members, answered("\\boxed{7}", NULL))));
    }
    assert_true(isnan(one("{\"name\":\"gsm8k\"}", answered("#### 7", "$"))));
    assert_true(isnan(one("{\"name\":\"choice\"}", answered("Answer: A", "7"))));
}

/* verl reads the row's answer as "#### " and a number, or as the number. */
static void verl_gives_the_same(void **state) {
    (void)state;
    json_t *rows = golden("rewards_gsm8k_verl.json"), *row;
    size_t i;
    if (!rows) skip();
    json_array_foreach(rows, i, row) {
        reward_input in =
            answered(json_string_value(json_object_get(row, "text")), json_string_value(json_object_get(row, "gold")));
        assert_float_equal(one("{\"name\":\"gsm8k\"}", in), json_number_value(json_object_get(row, "strict")), 0);
        assert_float_equal(one("{\"name\":\"gsm8k\",\"method\":\"flexible\"}", in),
                           json_number_value(json_object_get(row, "flexible")), 0);
    }
    assert_int_equal(i, 9);
    json_decref(rows);
    assert_float_equal(one("{\"name\":\"gsm8k\"}", answered("#### 1,234", "so\n#### $1,234")), 1, 0);
}

static void the_letter_of_a_choice(void **state) {
    (void)state;
    static const char c[] = "{\"name\":\"choice\"}";
    assert_float_equal(one(c, answered("It is so.\nAnswer: B", "B")), 1, 0);
    assert_float_equal(one(c, answered("the answer is (C)", "B")), 0, 0);
    assert_float_equal(one(c, answered("\\boxed{B}", "(B)")), 1, 0);
    assert_float_equal(one(c, answered("nothing", "B")), 0, 0);
}

/* open-r1 has math-verify read the completion without mending its LaTeX: \frac43 is no fraction there. */
static bool is_mended(const char *text) {
    const char *p = strstr(text, "\\frac");
    return p && p[5] >= '0' && p[5] <= '9';
}

/* The whole reward against open-r1's: nothing that it accepts is refused, and nothing that it refuses is accepted but
 * for LaTeX that it cannot read. In one row of twenty it may be that nobody can tell. */
static void open_r1_agrees(void **state) {
    (void)state;
    json_t *rows = golden("rewards_openr1.jsonl"), *row;
    size_t i;
    int unsure = 0;
    if (!rows) skip();
    json_array_foreach(rows, i, row) {
        const char *text = json_string_value(json_object_get(row, "completion"));
        double score = one("{\"name\":\"accuracy\",\"from\":\"latex\"}",
                           answered(text, json_string_value(json_object_get(row, "gold"))));
        double right = json_number_value(json_object_get(row, "accuracy"));
        if (score < right || (score > right && !is_mended(text))) fail_msg("row %zu: %g, not %g", i + 1, score, right);
        unsure += isnan(score);
    }
    assert_in_range(unsure, 0, 10);
    json_decref(rows);
}

static void the_rule_of_a_tiny_task(void **state) {
    (void)state;
    static const char t[] = "{\"name\":\"tiny_r1\"}";
    json_t *row = read_json("{\"prompt\":\"<user>c7+8-3+5-9<assistant>\",\"answer\":\"8\"}");
    reward_input in = completion("<think>7+5-2+7-8</think><answer>8</answer>");
    in.row = row;
    assert_float_equal(one(t, in), 1, 0);
    in.completion = "<think></think><answer>7</answer>";
    assert_float_equal(one(t, in), 0, 0);
    in.completion = "8";
    assert_float_equal(one(t, in), 0, 0);
    in.completion = "<answer></answer>";
    assert_float_equal(one(t, in), 0, 0);
    json_decref(row);
    in = completion("<think></think><answer>8</answer>");
    in.prompt = "c7+8-3+5-9"; /* without a row it is the prompt as the model read it */
    assert_float_equal(one(t, in), 1, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_place_of_the_answer), cmocka_unit_test(exact_is_letter_by_letter),
        cmocka_unit_test(what_nobody_can_tell),    cmocka_unit_test(verl_gives_the_same),
        cmocka_unit_test(the_letter_of_a_choice),  cmocka_unit_test(open_r1_agrees),
        cmocka_unit_test(the_rule_of_a_tiny_task),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
