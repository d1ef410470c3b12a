#include "eval/judge.h"

#include <string.h>

/* A right answer may come with its derivation: "... #### 18", "... \\boxed{18}". */
static bool find_right(const char *text, str *out) {
    return answer_find(text, ANSWER_HASHES, out) || answer_find(text, ANSWER_BOXED, out);
}

status judge_meaning(const question *q, const char *completion, int rule, judgement *out, error *e) {
    str right = {0};
    (void)rule, (void)e;
    const bool found = answer_find(completion, ANSWER_ANY, &out->extracted);
    const char *gold = find_right(q->answer, &right) ? right.p : q->answer;
    out->verdict = found ? answer_equal(gold, out->extracted.p) : WRONG;
    str_free(&right);
    return OK;
}

bool same_meaning(const char *a, const char *b) {
    return answer_equal(a, b) == RIGHT;
}

status judge_letter(const question *q, const char *completion, int rule, judgement *out, error *e) {
    (void)rule, (void)e;
    const bool found = answer_find(completion, ANSWER_LETTER, &out->extracted);
    out->verdict = found && strcmp(out->extracted.p, q->answer) == 0 ? RIGHT : WRONG;
    return OK;
}

bool same_text(const char *a, const char *b) {
    return strcmp(a, b) == 0;
}
