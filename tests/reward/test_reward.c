/* The list of rewards: what it may hold, weights, needs, scores that nobody can tell, and texts that are no texts. */
#include "rewards.h"

static void a_list_is_read(void **state) {
    (void)state;
    reward_set *s =
        open_rewards("[{\"name\":\"format\",\"weight\":0.5,\"needs\":\"end\"},{\"name\":\"finished\",\"as\":\"end\"},"
                     "{\"name\":\"format\",\"as\":\"tagged\",\"pattern\":\"^<a>\"}]",
                     NULL);
    assert_int_equal(reward_count(s), 3);
    assert_string_equal(reward_name(s, 0), "format");
    assert_string_equal(reward_name(s, 1), "end");
    assert_string_equal(reward_name(s, 2), "tagged");
    reward_set_close(s);
    reward_set_close(NULL);
}

#define KINDS                                                                                                          \
    "accuracy, gsm8k, choice, format, code_format, tag_count, reasoning_steps, finished, length, cosine, repetition, " \
    "soft_overlong, language, countdown, tiny_r1, program, code"

static void what_is_no_list_is_refused(void **state) {
    (void)state;
    refuses("{}", "rewards: should be a list such as [{name: accuracy}]");
    refuses("[]", "rewards: should be a list such as [{name: accuracy}]");
    refuses("[\"accuracy\"]", "rewards[0]: should be a mapping such as {name: accuracy}");
    refuses("[{\"name\":\"format\"},{\"name\":\"acuracy\"}]",
            "rewards[1]: there is no reward \"acuracy\"; there are " KINDS);
    refuses("[{\"weight\":1}]", "rewards[0]: \"name\" is missing; there are " KINDS);
    refuses("[{\"name\":7}]", "rewards[0]: \"name\" should be a string");
    refuses("[{\"name\":\"format\",\"patern\":\"x\"}]",
            "rewards[0]: format has no member \"patern\"; it has name, weight, needs, as, pattern, finished");
    refuses("[{\"name\":\"finished\",\"pattern\":\"x\"}]",
            "rewards[0]: finished has no member \"pattern\"; it has name, weight, needs, as");
    refuses("[{\"name\":\"format\",\"form\":\"x\"}]", /* only the beginning of a member's name */
            "rewards[0]: format has no member \"form\"; it has name, weight, needs, as, pattern, finished");
    refuses("[{\"name\":\"format\",\"weight\":\"1\"}]", "rewards[0]: \"weight\" should be a number");
    refuses("[{\"name\":\"format\",\"as\":\"\"}]", "rewards[0]: \"as\" is empty: give a name, or leave it out");
    refuses("[{\"name\":\"format\"},{\"name\":\"format\"}]",
            "rewards[1]: a second \"format\": give it another name with \"as\"");
    str many = {0};
    for (int i = 0; i < 65; i++) str_addf(&many, "%s{\"name\":\"finished\",\"as\":\"f%d\"}", i ? "," : "[", i);
    str_putc(&many, ']');
    refuses(many.p, "rewards: 65 of them, at most 64 are possible");
    str_free(&many);
}

static void needs_must_be_there(void **state) {
    (void)state;
    refuses("[{\"name\":\"format\",\"needs\":\"accuracy\"}]",
            "rewards[0]: it needs \"accuracy\", and no other reward has this name");
    refuses("[{\"name\":\"format\",\"needs\":\"format\"}]",
            "rewards[0]: it needs \"format\", and no other reward has this name");
    refuses("[{\"name\":\"format\",\"needs\":\"finished\"},{\"name\":\"finished\",\"needs\":\"format\"}]",
            "rewards[0]: its chain of \"needs\" is a ring");
    refuses("[{\"name\":\"tag_count\",\"needs\":\"format\"},{\"name\":\"format\",\"needs\":\"finished\"},{\"name\":"
            "\"finished\","
            "\"needs\":\"format\"}]",
            "rewards[0]: its chain of \"needs\" is a ring");
}

static void members_are_checked(void **state) {
    (void)state;
    refuses("[{\"name\":\"format\",\"as\":\"f\",\"pattern\":\"a(b\"}]",
            "rewards[0]: f: regular expression \"a(b\", character 4: missing closing parenthesis");
    refuses("[{\"name\":\"format\",\"finished\":1}]", "rewards[0]: format: \"finished\" should be true or false");
    refuses("[{\"name\":\"code_format\",\"language\":\"c)|(.\"}]",
            "rewards[0]: code_format: \"language\" is \"c)|(.\", not the name of one");
    refuses("[{\"name\":\"accuracy\",\"from\":\"box\"}]",
            "rewards[0]: accuracy: \"from\" is \"box\"; it can be any, boxed, "
            "hashes, tag, last_number, latex, text");
    refuses("[{\"name\":\"accuracy\",\"exact\":\"yes\"}]", "rewards[0]: accuracy: \"exact\" should be true or false");
    refuses("[{\"name\":\"gsm8k\",\"method\":\"loose\"}]",
            "rewards[0]: gsm8k: \"method\" is \"loose\"; it can be strict, flexible");
    refuses("[{\"name\":\"length\",\"unit\":\"words\"}]",
            "rewards[0]: length: \"unit\" is \"words\"; it can be characters, tokens");
    refuses("[{\"name\":\"cosine\",\"max_len\":0}]", "rewards[0]: cosine: \"max_len\" is 0, below 1");
    refuses("[{\"name\":\"cosine\",\"min_wrong\":\"low\"}]", "rewards[0]: cosine: \"min_wrong\" should be a number");
    refuses("[{\"name\":\"repetition\",\"n\":0}]", "rewards[0]: repetition: \"n\" is 0, outside 1..100");
    refuses("[{\"name\":\"repetition\",\"max_penalty\":1}]",
            "rewards[0]: repetition: \"max_penalty\" is 1, it should not be positive");
    refuses("[{\"name\":\"soft_overlong\",\"max_length\":10,\"buffer\":11}]",
            "rewards[0]: soft_overlong: \"buffer\" is 11, more than \"max_length\", 10");
    refuses(
        "[{\"name\":\"language\",\"target\":\"xx\"}]",
        "rewards[0]: language: \"target\" is \"xx\"; it can be en, de, fr, es, it, pt, nl, pl, tr, vi, id, el, ru, uk, "
        "bg, he, ar, fa, ur, hi, mr, zh, ja, ko");
    refuses("[{\"name\":\"countdown\",\"format_score\":[]}]",
            "rewards[0]: countdown: \"format_score\" should be a number");
}

/* --- sums -------------------------------------------------------------------------------------------------------- */

#define EXACT "{\"name\":\"accuracy\",\"from\":\"text\",\"exact\":true"

static void weights_are_multiplied_in_the_sum_only(void **state) {
    (void)state;
    reward_set *s =
        open_rewards("[" EXACT ",\"weight\":2},{\"name\":\"tag_count\",\"weight\":-0.5},{\"name\":\"finished\","
                     "\"weight\":0}]",
                     NULL);
    reward_input in[2] = {answered("7", "7"), answered("<think>\n8", "7")};
    double scores[6], total[2];
    error e;
    assert_int_equal(reward_score(s, in, 2, 2, scores, total, &e), OK);
    const double expected[6] = {1, 0, 1, 0, 0.25, 1};
    for (int i = 0; i < 6; i++) assert_float_equal(scores[i], expected[i], 0);
    assert_float_equal(total[0], 2, 0);
    assert_float_equal(total[1], -0.125, 0);
    assert_int_equal(reward_score(s, in, 0, 2, scores, total, &e), OK);
    assert_int_equal(reward_score(s, in, 2, 0, scores, total, &e), ERR_ARG);
    reward_set_close(s);
}

static void what_is_needed_opens_the_gate(void **state) {
    (void)state;
    /* accuracy needs format needs finished; the list is not in that order */
    reward_set *s =
        open_rewards("[" EXACT ",\"needs\":\"format\"},{\"name\":\"format\",\"pattern\":\"^\\\\d\",\"needs\":"
                     "\"finished\"},{\"name\":\"finished\",\"weight\":0}]",
                     NULL);
    reward_input in[4] = {answered("7", "7"), answered("x", "x"), answered("7", "7"), answered("7", NULL)};
    in[2].finished = false;
    double scores[12], total[4];
    error e;
    assert_int_equal(reward_score(s, in, 4, 4, scores, total, &e), OK);
    const double expected[9] = {1, 1, 1, 0, 0, 1, 0, 0, 0};
    for (int i = 0; i < 9; i++) assert_float_equal(scores[i], expected[i], 0);
    assert_float_equal(total[0], 2, 0);
    assert_float_equal(total[1], 0, 0);
    assert_float_equal(total[2], 0, 0);
    assert_true(isnan(scores[9]) && isnan(total[3])); /* no right answer is known */
    assert_float_equal(scores[10], 1, 0);
    reward_set_close(s);
}

static void nobody_can_tell_is_no_number(void **state) {
    (void)state;
    reward_set *s = open_rewards("[{\"name\":\"finished\",\"needs\":\"accuracy\"}," EXACT ",\"weight\":0}]", NULL);
    reward_input in[2] = {answered("7", NULL), answered("7", "7")};
    double scores[4], total[2];
    error e;
    assert_int_equal(reward_score(s, in, 2, 2, scores, total, &e), OK);
    assert_true(isnan(scores[0]) && isnan(scores[1]) && isnan(total[0])); /* finished waits for what nobody knows */
    assert_float_equal(total[1], 1, 0);
    reward_set_close(s);
    s = open_rewards("[{\"name\":\"finished\"}," EXACT ",\"weight\":0}]", NULL);
    assert_int_equal(reward_score(s, in, 2, 2, scores, total, &e), OK);
    assert_true(isnan(scores[1]));
    assert_float_equal(total[0], 1, 0); /* a weight of 0 is for the log only */
    reward_set_close(s);
    s = open_rewards("[" EXACT ",\"needs\":\"finished\"},{\"name\":\"finished\"}]", NULL);
    in[0].finished = false;
    assert_int_equal(reward_score(s, in, 2, 2, scores, total, &e), OK);
    assert_float_equal(scores[0], 0, 0); /* 0 whatever the answer is */
    assert_float_equal(total[0], 0, 0);
    reward_set_close(s);
}

/* --- texts ------------------------------------------------------------------------------------------------------- */

#define ALL                                                                                                            \
    "[{\"name\":\"accuracy\"},{\"name\":\"accuracy\",\"from\":\"latex\",\"as\":\"latex\"},{\"name\":\"gsm8k\"},{"      \
    "\"name\":\"gsm8k\","                                                                                              \
    "\"method\":\"flexible\",\"as\":\"flexible\"},{\"name\":\"choice\"},{\"name\":\"format\"},{\"name\":\"code_"       \
    "format\"},"                                                                                                       \
    "{\"name\":\"tag_count\"},{\"name\":\"reasoning_steps\"},{\"name\":\"finished\"},{\"name\":\"length\"},{\"name\":" \
    "\"cosine\"},"                                                                                                     \
    "{\"name\":\"repetition\"},{\"name\":\"soft_overlong\"},{\"name\":\"language\"},{\"name\":\"countdown\"},{"        \
    "\"name\":\"tiny_r1\"}]"
enum { ALL_COUNT = 17, FINISHED = 9, HUGE_TEXT = 1 << 17 };

/* Every function on this text: no crash, and no score but within -1 and 1, or none. */
static void survives(const char *text, int *notes) {
    reward_set *s = open_rewards(ALL, notes);
    json_t *row = read_json("{\"target\":7,\"numbers\":[3,4],\"prompt\":\"c7+8-3+5-9\"}");
    reward_input in[2] = {answered(text, "7"), answered(text, NULL)};
    in[0].row = in[1].row = row;
    double scores[2 * ALL_COUNT], total[2];
    error e;
    assert_int_equal(reward_count(s), ALL_COUNT);
    if (reward_score(s, in, 2, 2, scores, total, &e) != OK) fail_msg("%s", e.text);
    for (int i = 0; i < 2 * ALL_COUNT; i++) assert_true(isnan(scores[i]) || fabs(scores[i]) <= 1);
    assert_float_equal(scores[FINISHED], 1, 0);
    assert_true(isnan(total[1]));
    json_decref(row);
    reward_set_close(s);
}

static void any_text_can_be_scored(void **state) {
    (void)state;
    survives("", NULL);
    survives("\n", NULL);
    survives("\xff\xfe\x80 \xe4\xb8", NULL);
    survives("<think>\n\xed\xa0\x80\n</think>\n<answer>\n\\boxed{\n</answer>", NULL);
    survives("\\boxed{\\boxed{\\boxed{$$$", NULL);
    static const char *const units[] = {"a", "7 ", "(", "\\frac{", "<think>\n", "$", "\xe6\x95\xb0", "\xff", "a b c\n"};
    char *text = malloc(HUGE_TEXT + 32);
    assert_non_null(text);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        size_t n = 0;
        for (; n < HUGE_TEXT; n += strlen(units[i])) strcpy(text + n, units[i]);
        survives(text, NULL);
    }
    free(text);
}

static void broken_bytes_are_read_as_marks(void **state) {
    (void)state;
    /* U+FFFD is a character: the form around it is still seen, and it is one character long */
    assert_float_equal(
        one("{\"name\":\"format\"}", completion("<think>\n\xff\n</think>\n<answer>\n\xe4\xb8\n</answer>")), 1, 0);
    assert_float_equal(one("{\"name\":\"format\",\"pattern\":\"^.\\\\z\"}", completion("\xe4\xb8")), 1, 0);
}

/* 20,000 pairs of tags: every one is a place where the answer could begin, and it ends nowhere. */
static void a_hostile_completion_has_no_score(void **state) {
    (void)state;
    static const char unit[] = "\n</think>\n<answer>\n";
    str text = {0};
    str_puts(&text, "<think>\n");
    for (int i = 0; i < 20000; i++) str_puts(&text, unit);
    int notes = 0;
    reward_set *s = open_rewards("[{\"name\":\"format\"}]", &notes);
    reward_input in[2] = {completion(text.p), completion("<think>\n\n</think>\n<answer>\n\n</answer>")};
    double scores[2], total[2];
    error e;
    assert_int_equal(reward_score(s, in, 2, 2, scores, total, &e), OK);
    assert_true(isnan(scores[0]) && isnan(total[0]));
    assert_float_equal(scores[1], 1, 0);
    assert_int_equal(notes, 1);
    reward_set_close(s);
    str_free(&text);
}

static void the_help_names_all(void **state) {
    (void)state;
    str s = {0};
    assert_int_equal(reward_help(&s), OK);
    assert_non_null(strstr(s.p, "\nsoft_overlong: 0 for up to "));
    assert_non_null(strstr(s.p, "\n  members: max_length, buffer\n"));
    assert_non_null(strstr(s.p, "\nchoice: "));
    assert_non_null(strstr(s.p, "\n  members: none\n"));
    str_free(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_list_is_read),
        cmocka_unit_test(what_is_no_list_is_refused),
        cmocka_unit_test(needs_must_be_there),
        cmocka_unit_test(members_are_checked),
        cmocka_unit_test(weights_are_multiplied_in_the_sum_only),
        cmocka_unit_test(what_is_needed_opens_the_gate),
        cmocka_unit_test(nobody_can_tell_is_no_number),
        cmocka_unit_test(any_text_can_be_scored),
        cmocka_unit_test(broken_bytes_are_read_as_marks),
        cmocka_unit_test(a_hostile_completion_has_no_score),
        cmocka_unit_test(the_help_names_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
