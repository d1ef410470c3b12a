/* The tasks of tiny-r1 (data/tiny_r1.h): their rules tell which answers to a prompt are right, also where several are.
 */
#include <math.h>
#include <string.h>
#include "data/tiny_r1.h"
#include "reward/kinds.h"

static status score_tiny(void *state, const reward_input *in, int64_t n, int64_t group, double *score, error *e) {
    (void)state, (void)group;
    status s = OK;
    for (int64_t i = 0; i < n && s == OK; i++) {
        str answer = {0};
        const char *prompt = json_string_value(json_object_get(in[i].row, "prompt"));
        bool found = answer_find(in[i].completion, ANSWER_TAG, &answer);
        s = str_check(&answer, e);
        if (s == OK)
            score[i] = found && tiny_r1_right(prompt ? prompt : in[i].prompt, answer.p ? answer.p : "", answer.n);
        str_free(&answer);
    }
    return s;
}

const reward_kind reward_tiny_r1 = {
    .name = "tiny_r1",
    .help = "1 when the completion's <answer> is right for the row's \"prompt\" by the rule of its task (hadal data "
            "tiny-r1)",
    .score = score_tiny,
};
