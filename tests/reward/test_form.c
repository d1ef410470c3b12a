/* Rewards for form against open-r1's, and by hand. */
#include "rewards.h"

#define THINK "<think>\nx\n</think>\n"

static void open_r1_gives_the_same(void **state) {
    (void)state;
    static const char *const columns[] = {"format", "tag_count", "reasoning_steps"};
    json_t *rows = golden("rewards_openr1.jsonl"), *row;
    size_t i;
    if (!rows) skip();
    assert_int_equal(json_array_size(rows), 203);
    json_array_foreach(rows, i, row) for (int k = 0; k < 3; k++) {
        char members[64];
        snprintf(members, sizeof members, "{\"name\":\"%s\"}", columns[k]);
        double given = one(members, completion(json_string_value(json_object_get(row, "completion"))));
        assert_float_equal(given, json_number_value(json_object_get(row, columns[k])),
                           0); /* k/4 and k/3: same divisions */
    }
    json_decref(rows);
}

static void format_has_the_flags_of_open_r1(void **state) {
    (void)state;
    static const char f[] = "{\"name\":\"format\"}";
    assert_float_equal(one(f, completion(THINK "<answer>\n7\n</answer>")), 1, 0);
    assert_float_equal(one(f, completion(THINK "<answer>\n7\n</answer>\nand more")), 1, 0); /* $ is an end of a line */
    assert_float_equal(one(f, completion(THINK "<answer>\n7\n</answer> and more")), 0, 0);
    assert_float_equal(one(f, completion("so\n" THINK "<answer>\n7\n</answer>")), 0, 0); /* from the first character */
    assert_float_equal(one(f, completion("<think>\na\nb\n\n</think>\n<answer>\n7\n8\n</answer>")), 1, 0);
    assert_float_equal(one(f, completion("<think></think><answer>7</answer>")), 0, 0);
    assert_float_equal(one(f, completion("")), 0, 0);
}

static void a_pattern_of_the_run_file(void **state) {
    (void)state;
    static const char tiny[] =
        "{\"name\":\"format\",\"finished\":true,\"pattern\":\"^<think>[^<]*</think><answer>[^<]*</answer>\\\\z\"}";
    reward_input in = completion("<think>7+5-2</think><answer>8</answer>");
    assert_float_equal(one(tiny, in), 1, 0);
    in.finished = false;
    assert_float_equal(one(tiny, in), 0, 0);
    assert_float_equal(
        one("{\"name\":\"format\"}", (reward_input){.prompt = "", .completion = THINK "<answer>\n7\n</answer>"}), 1,
        0); /* unfinished, and nobody asked */
    assert_float_equal(one(tiny, completion("<think>7</think><answer>8</answer>\n")), 0, 0);
    assert_float_equal(one("{\"name\":\"format\",\"pattern\":\"^.\\\\d$\"}", completion("\xe4\xbd\xa0\xd9\xa3")), 1, 0);
}

static void code_stands_in_the_answer(void **state) {
    (void)state;
    static const char c[] = "{\"name\":\"code_format\"}", cpp[] = "{\"name\":\"code_format\",\"language\":\"c++\"}";
    assert_float_equal(one(c, completion(THINK "<answer>\nsee\n```python\nx = 1\n```\n</answer>")), 1, 0);
    assert_float_equal(one(c, completion(THINK "<answer>\n```c++\nx = 1\n```\n</answer>")), 0, 0);
    assert_float_equal(one(cpp, completion(THINK "<answer>\n```c++\nx = 1\n```\n</answer>")), 1, 0);
    assert_float_equal(one(cpp, completion(THINK "<answer>\n```ccc\nx = 1\n```\n</answer>")), 0, 0);
    assert_float_equal(one(c, completion(THINK "<answer>\n```python\nx = 1\n</answer>")), 0, 0);
    assert_float_equal(one(c, completion(THINK "```python\nx = 1\n```\n<answer>\n7\n</answer>")), 0, 0);
}

static void tags_count_when_they_stand_once(void **state) {
    (void)state;
    static const char t[] = "{\"name\":\"tag_count\"}";
    assert_float_equal(one(t, completion("<think>\n")), 0.25, 0);
    assert_float_equal(one(t, completion("<think>\n<think>\n")), 0, 0);
    assert_float_equal(one(t, completion("<think>\nx\n</think>\n<answer>\n7")), 0.75,
                       0); /* two tags may share a newline */
    assert_float_equal(one(t, completion("<think>\nx\n</think>\n\n<answer>\n7\n</answer>")), 1, 0);
    assert_float_equal(one(t, completion("\n</answer>\n</answer>")), 0, 0);
    assert_float_equal(one(t, completion("")), 0, 0);
}

static void steps_are_counted_to_three(void **state) {
    (void)state;
    static const char s[] = "{\"name\":\"reasoning_steps\"}";
    assert_float_equal(one(s, completion("1. one\n2. two")), 1 / 3.0, 0); /* ^ is the start of the text only */
    assert_float_equal(one(s, completion("Step 1: x Step 22: y")), 2 / 3.0, 0);
    assert_float_equal(one(s, completion("First, a\n- b\n* c\nFinally, d")), 1, 0);
    assert_float_equal(one(s, completion("first, a - b * c")), 0, 0);
}

static void finished_is_what_the_model_ended(void **state) {
    (void)state;
    reward_input in = completion("x");
    assert_float_equal(one("{\"name\":\"finished\"}", in), 1, 0);
    in.finished = false;
    assert_float_equal(one("{\"name\":\"finished\"}", in), 0, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_r1_gives_the_same),           cmocka_unit_test(format_has_the_flags_of_open_r1),
        cmocka_unit_test(a_pattern_of_the_run_file),        cmocka_unit_test(code_stands_in_the_answer),
        cmocka_unit_test(tags_count_when_they_stand_once),  cmocka_unit_test(steps_are_counted_to_three),
        cmocka_unit_test(finished_is_what_the_model_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
