#include "eval/judge.h"

#include <string.h>

status judge_meaning(const question *q, const char *completion, int rule, judgement *out, error *e) {
    str right = {0};
    (void)rule;
    const bool found = answer_find(completion, ANSWER_ANY, &out->extracted), known = answer_gold(q->answer, &right);
    status s = str_check(&right, e);
    if (s == OK) out->verdict = !found ? WRONG : known ? answer_equal(right.p, out->extracted.p) : UNSURE;
    str_free(&right);
    return s;
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
