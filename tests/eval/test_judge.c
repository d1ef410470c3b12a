/* The rules that several evaluations judge by: what is found in a completion, and what the verdict is. */
#include "../format/scratch.h"
#include "eval/judge.h"

typedef status judge_function(const question *q, const char *completion, int rule, judgement *out, error *e);

static void judged(judge_function *judge, const char *right, const char *text, const char *found, verdict v) {
    const question q = {.answer = (char *)(uintptr_t)right};
    judgement j = {0};
    error e = {0};
    assert_int_equal(judge(&q, text, 0, &j, &e), OK);
    if (j.verdict != v || (found != NULL) != (j.extracted.p != NULL) || (found && strcmp(found, j.extracted.p) != 0))
        fail_msg("\"%s\" for %s: verdict %d, found %s", text, right, j.verdict,
                 j.extracted.p ? j.extracted.p : "nothing");
    str_free(&j.extracted);
}

static void meaning(void **state) {
    (void)state;
    judged(judge_meaning, "1/2", "So $x = \\boxed{0.5}$.", "0.5", RIGHT);
    judged(judge_meaning, "1/2", "So $x = \\boxed{0.25}$.", "0.25", WRONG);
    judged(judge_meaning, "\\frac{1}{2}", "The answer is 7, no: \\boxed{\\frac12}", "\\frac12", RIGHT);
    judged(judge_meaning, "It is easy.\n#### 1,200", "\\boxed{1200}", "1200", RIGHT);
    judged(judge_meaning, "Hence \\boxed{3}", "<think>\\boxed{4}</think>It is \\boxed{3}.", "3", RIGHT);
    judged(judge_meaning, "3", "<think>\\boxed{3}</think>It is \\boxed{4}.", "4", WRONG);
    judged(judge_meaning, "3", "I do not know.", NULL, WRONG);
    judged(judge_meaning, "3", "", NULL, WRONG);
    assert_true(same_meaning("0.5", "1/2"));
    assert_false(same_meaning("0.5", "1/3"));
}

static void letter(void **state) {
    (void)state;
    judged(judge_letter, "C", "I think so.\nAnswer: C", "C", RIGHT);
    judged(judge_letter, "C", "A or B?\nAnswer: B", "B", WRONG);
    judged(judge_letter, "C", "<think>Answer: A</think>the answer is (C)", "C", RIGHT);
    judged(judge_letter, "A", "no idea", NULL, WRONG);
    assert_true(same_text("C", "C"));
    assert_false(same_text("C", "D"));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(meaning), cmocka_unit_test(letter)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
