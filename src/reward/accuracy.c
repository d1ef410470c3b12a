/* Rewards for right answers.
 *
 *   accuracy  1: the completion's answer means the same as the row's, 0: it does not, or there is none; NaN: nobody can
 *             tell. open-r1's accuracy_reward is `from: latex` (src/open_r1/rewards.py); reward/answer.h does the
 *             finding and the comparing.
 *   gsm8k     verl's utils/reward_score/gsm8k.py: the number of the completion is the row's, as text
 *   choice    the letter of the completion is the row's */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "reward/kinds.h"

static const char *const from_names[] = {"any", "boxed", "hashes", "tag", "last_number", "latex", "text"};
static const answer_place places[] = {ANSWER_ANY,         ANSWER_BOXED, ANSWER_HASHES, ANSWER_TAG,
                                      ANSWER_LAST_NUMBER, ANSWER_LATEX, ANSWER_TEXT};
enum { FROMS = sizeof places / sizeof *places };

/* --- right or wrong ---------------------------------------------------------------------------------------------- */

status right_rule_read(right_rule *r, const json_t *o, error *e) {
    int which;
    TRY(reward_choose(o, "from", from_names, FROMS, 0, &which, e));
    r->from = places[which];
    return json_get_bool(o, "exact", false, &r->exact, e);
}

static double compare(bool exact, const char *gold, const char *given) {
    if (exact) return strcmp(gold, given) == 0;
    verdict v = answer_equal(gold, given);
    return v == UNSURE ? NAN : v == RIGHT;
}

status right_rule_ask(const right_rule *r, const reward_input *in, double *right, error *e) {
    str gold = {0}, given = {0};
    bool known = in->answer && answer_gold(in->answer, &gold);
    bool found = known && answer_find(in->completion, r->from, &given);
    status s = str_check(&gold, e);
    if (s == OK) s = str_check(&given, e);
    if (s == OK) *right = !known ? NAN : !found ? 0 : compare(r->exact, gold.p, given.p);
    str_free(&gold);
    str_free(&given);
    return s;
}

static status open_accuracy(void **state, const json_t *o, const reward_context *c, error *e) {
    (void)c;
    right_rule r;
    TRY(right_rule_read(&r, o, e));
    return reward_keep(state, &r, sizeof r, e);
}

static status score_accuracy(void *state, const reward_input *in, int64_t n, int64_t group, double *score, error *e) {
    (void)group;
    for (int64_t i = 0; i < n; i++) TRY(right_rule_ask(state, &in[i], &score[i], e));
    return OK;
}

const reward_kind reward_accuracy = {
    .name = "accuracy",
    .help = "1 when the completion's answer means the same as the row's, else 0; none when that cannot be told. "
            "open-r1's accuracy_reward is from: latex. " RIGHT_HELP,
    .members = RIGHT_MEMBERS,
    .open = open_accuracy,
    .close = free,
    .score = score_accuracy,
};

/* --- gsm8k ------------------------------------------------------------------------------------------------------- */

enum { STRICT, FLEXIBLE };

static status open_gsm8k(void **state, const json_t *o, const reward_context *c, error *e) {
    static const char *const methods[] = {"strict", "flexible"};
    (void)c;
    int method;
    TRY(reward_choose(o, "method", methods, 2, STRICT, &method, e));
    return reward_keep(state, &method, sizeof method, e);
}

static status score_gsm8k(void *state, const reward_input *in, int64_t n, int64_t group, double *score, error *e) {
    (void)group;
    status s = OK;
    for (int64_t i = 0; i < n && s == OK; i++) {
        str gold = {0}, number = {0}, given = {0};
        bool known = in[i].answer && answer_gold(in[i].answer, &gold),
             found = answer_gsm8k(in[i].completion, *(int *)state == FLEXIBLE, &given);
        for (size_t k = 0; k < gold.n; k++)
            if (!strchr(",$", gold.p[k])) str_putc(&number, gold.p[k]);
        s = gold.failed || number.failed || given.failed ? fail(e, ERR_NOMEM, "memory is out") : OK;
        score[i] = !known || !number.n ? NAN : found && strcmp(given.p, number.p) == 0;
        str_free(&gold);
        str_free(&number);
        str_free(&given);
    }
    return s;
}

const reward_kind reward_gsm8k = {
    .name = "gsm8k",
    .help = "1 when the number in the completion is the row's, letter by letter (verl's gsm8k.py). method: strict "
            "(default: behind the last \"#### \"), flexible (the last number)",
    .members = "method",
    .open = open_gsm8k,
    .close = free,
    .score = score_gsm8k,
};

/* --- choice ------------------------------------------------------------------------------------------------------ */

static status score_choice(void *state, const reward_input *in, int64_t n, int64_t group, double *score, error *e) {
    (void)state, (void)group;
    status s = OK;
    for (int64_t i = 0; i < n && s == OK; i++) {
        str gold = {0}, given = {0};
        bool known = in[i].answer && answer_find(in[i].answer, ANSWER_LETTER, &gold);
        bool found = answer_find(in[i].completion, ANSWER_LETTER, &given);
        s = gold.failed || given.failed ? fail(e, ERR_NOMEM, "memory is out") : OK;
        if (s == OK) score[i] = !known ? NAN : found && strcmp(gold.p, given.p) == 0;
        str_free(&gold);
        str_free(&given);
    }
    return s;
}

const reward_kind reward_choice = {
    .name = "choice",
    .help = "1 when the letter that the completion chooses (\"Answer: C\", \"the answer is (C)\", \\boxed{C}, a lone C "
            "at the end) is the row's",
    .score = score_choice,
};
