/* Rewards for length and against repetition against open-r1's, and by hand. */
#include "rewards.h"

/* Sums and cosines of numbers of size 1 in double, in an order that may differ: a few units of 1.1e-16 each. */
#define ROUNDING 1e-15

/* So that the reference's own verdict is used: an answer that the rule `from: text, exact` calls right or wrong. */
#define RULE "\"from\":\"text\",\"exact\":true"

static reward_input judged(const json_t *row) {
    const char *text = json_string_value(json_object_get(row, "completion")), *rest = text;
    for (const char *p = text; (p = strstr(p, "</think>"));) rest = p += strlen("</think>");
    rest += strspn(rest, "\n");
    return answered(text, json_number_value(json_object_get(row, "accuracy")) > 0 ? rest : "\\wrong");
}

static void open_r1_gives_the_same(void **state) {
    (void)state;
    json_t *rows = golden("rewards_openr1.jsonl"), *row;
    size_t i;
    if (!rows) skip();
    json_array_foreach(rows, i, row) {
        reward_input in = judged(row);
        double cosine = one("{\"name\":\"cosine\",\"max_len\":200,\"min_wrong\":-1,\"max_wrong\":-0.5," RULE "}", in);
        assert_float_equal(cosine, json_number_value(json_object_get(row, "cosine_maxlen200")), ROUNDING);
        assert_float_equal(one("{\"name\":\"repetition\"}", in),
                           json_number_value(json_object_get(row, "repetition_3_m1")), ROUNDING);
    }
    json_decref(rows);
}

static void a_group_is_compared_as_in_open_r1(void **state) {
    (void)state;
    json_t *rows = golden("rewards_openr1.jsonl");
    if (!rows) skip();
    reward_set *s = open_rewards("[{\"name\":\"length\"," RULE "}]", NULL);
    reward_input in[11];
    double score[11], total[11];
    error e;
    for (size_t i = 0; i < 11; i++) in[i] = judged(json_array_get(rows, i));
    assert_int_equal(reward_score(s, in, 11, 8, score, total, &e), OK); /* and a last group of three */
    for (size_t i = 0; i < 8; i++)
        assert_float_equal(
            score[i], json_number_value(json_object_get(json_array_get(rows, i), "length_group_of_first8")), ROUNDING);
    double alone[3];
    assert_int_equal(reward_score(s, in + 8, 3, 3, alone, total, &e), OK);
    for (int i = 0; i < 3; i++) assert_float_equal(score[8 + i], alone[i], 0);
    reward_set_close(s);
    json_decref(rows);
}

static void length_by_hand(void **state) {
    (void)state;
    reward_input in[4] = {answered("7", "7"), answered("\xe4\xb8\x83", "7"), answered("777", "7"),
                          answered("77777", NULL)};
    double score[4], total[4];
    error e;
    reward_set *s = open_rewards("[{\"name\":\"length\"," RULE "}]", NULL);
    assert_int_equal(reward_score(s, in, 4, 4, score, total, &e), OK);
    assert_float_equal(score[0], 0.5, 0);
    assert_float_equal(score[1], 0, 0); /* wrong; one character in three bytes */
    assert_float_equal(score[2], 0, 0); /* wrong, in the middle */
    assert_true(isnan(score[3]));
    assert_int_equal(reward_score(s, in, 2, 2, score, total, &e), OK);
    assert_float_equal(score[0], 0, 0); /* all of one length */
    reward_set_close(s);
    s = open_rewards("[{\"name\":\"length\",\"unit\":\"tokens\"," RULE "}]", NULL);
    for (int i = 0; i < 3; i++) in[i] = answered("7", "7"), in[i].tokens = 10 + 2 * i;
    assert_int_equal(reward_score(s, in, 3, 3, score, total, &e), OK);
    assert_float_equal(score[0], 0.5, 0);
    assert_float_equal(score[1], 0, 0);
    assert_float_equal(score[2], -0.5, 0);
    reward_set_close(s);
}

static void cosine_by_hand(void **state) {
    (void)state;
    static const char c[] = "{\"name\":\"cosine\",\"max_len\":4," RULE "}";
    assert_float_equal(one(c, answered("", "7")), 0, ROUNDING); /* wrong and short: min_wrong */
    assert_float_equal(one(c, answered("abcd", "7")), -0.5, ROUNDING);
    assert_float_equal(one(c, answered("abcd", "abcd")), 0.5, ROUNDING);
    assert_float_equal(one(c, answered("ab", "ab")), 0.75, ROUNDING);
    assert_float_equal(one(c, answered("abcdefgh", "abcdefgh")), 0.5, ROUNDING); /* beyond max_len nothing changes */
    assert_true(isnan(one(c, answered("ab", NULL))));
    reward_input in = answered("long text", "long text");
    in.tokens = 50; /* of 100 */
    assert_float_equal(one("{\"name\":\"cosine\",\"unit\":\"tokens\"," RULE "}", in), 0.75, ROUNDING);
    assert_float_equal(one("{\"name\":\"cosine\",\"unit\":\"tokens\",\"max_len\":50,\"max_right\":3," RULE "}", in),
                       0.5, ROUNDING);
    in.tokens = 0;
    assert_float_equal(one("{\"name\":\"cosine\",\"unit\":\"tokens\",\"max_len\":50,\"max_right\":3," RULE "}", in), 3,
                       ROUNDING);
}

/* DAPO, equation 13, by hand for Lmax 20, Lc 8. */
static void overlong_by_hand(void **state) {
    (void)state;
    static const struct {
        int64_t tokens;
        double score;
    } table[] = {{0, 0}, {11, 0}, {12, 0}, {13, -0.125}, {16, -0.5}, {20, -1}, {21, -1}, {1000000, -1}};
    reward_input in = completion("x");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        in.tokens = table[i].tokens;
        assert_float_equal(one("{\"name\":\"soft_overlong\",\"max_length\":20,\"buffer\":8}", in), table[i].score, 0);
    }
    in.max_tokens = 100; /* and a fifth of it */
    in.tokens = 80;
    assert_float_equal(one("{\"name\":\"soft_overlong\"}", in), 0, 0);
    in.tokens = 90;
    assert_float_equal(one("{\"name\":\"soft_overlong\"}", in), -0.5, 0);
    in.max_tokens = 0;
    assert_float_equal(one("{\"name\":\"soft_overlong\"}", in), -1, 0);
}

static void repetition_by_hand(void **state) {
    (void)state;
    static const char two[] = "{\"name\":\"repetition\",\"n\":2,\"max_penalty\":-2}";
    assert_float_equal(one(two, completion("a b a b a")), -1, 0); /* ab ba ab ba: two of four */
    assert_float_equal(one(two, completion("A b\ta\n B\xc2\xa0"
                                           "a")),
                       -1, 0);
    assert_float_equal(one(two, completion("\xc3\x84 b \xc3\xa4 b")), -2 * (1 - 2 / 3.0),
                       ROUNDING);                                /* A umlaut, twice */
    assert_float_equal(one(two, completion("ab c a bc")), 0, 0); /* the same letters, other words */
    assert_float_equal(one(two, completion("a")), 0, 0);
    assert_float_equal(one(two, completion(" ")), 0, 0);
    assert_float_equal(one(two, completion("a a")), 0, 0);
    assert_float_equal(one("{\"name\":\"repetition\",\"n\":1}", completion("a a a a")), -0.75, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_r1_gives_the_same), cmocka_unit_test(a_group_is_compared_as_in_open_r1),
        cmocka_unit_test(length_by_hand),         cmocka_unit_test(cosine_by_hand),
        cmocka_unit_test(overlong_by_hand),       cmocka_unit_test(repetition_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
