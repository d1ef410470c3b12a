/* What completions are worth: named functions of texts, each with a weight. A run file lists them (rollout.rewards):
 *
 *   rewards: [{name: accuracy, needs: format}, {name: format, weight: 0.1, pattern: '^<think>...$'}]
 *
 * name says which function; weight (default 1) multiplies its score in the sum (0: it is only logged); `needs` names
 * another reward of the list: where that one's score is not positive, this one's is 0; `as` gives it another name in
 * logs when a function is used twice; all other members are the function's own and checked by it. `hadal grpo
 * --rewards` prints the functions and their members. */
#ifndef HADAL_REWARD_REWARD_H
#define HADAL_REWARD_REWARD_H

#include <stdbool.h>
#include "base/json.h"
#include "base/str.h"

typedef struct reward_input { /* one completion; texts are borrowed */
    const char *prompt;       /* as the model read it */
    const char *completion;   /* what the model wrote, special tokens as texts, without the end token; with what the
                               * prompt had begun of it (such as "<think>\n") before it */
    const char *answer;       /* the right answer, NULL: the row has none */
    const json_t *row;        /* of the data: what else a function looks at ("target", "tests" ...); may be NULL */
    int64_t tokens;           /* of the completion */
    int64_t max_tokens;       /* what it could have had */
    bool finished;            /* it ended by itself */
} reward_input;

typedef struct reward_set reward_set;

/* list: JSON array as above. An unknown name, member or a bad value is ERR_FORMAT that says which. note (may be NULL)
 * gets one sentence when an outside program fails. */
status reward_set_open(reward_set **out, const json_t *list, void (*note)(void *arg, const char *line), void *arg,
                       error *e);
void reward_set_close(reward_set *s); /* accepts NULL */

int reward_count(const reward_set *s);               /* NULL: none */
const char *reward_name(const reward_set *s, int i); /* `as`, or the function's name */

/* n completions in groups of `group` neighbours (the last may be smaller); some functions compare inside a group.
 * scores: [n][reward_count]; total: [n], the weighted sums. NaN in scores: the function cannot tell (the right answer
 * does not parse, a program failed), or it needs one that cannot; total is then NaN, too (unless the weight is 0), and
 * such a completion should not be learned from. Bytes that are not UTF-8 are U+FFFD to the functions. */
status reward_score(reward_set *s, const reward_input *in, int64_t n, int64_t group, double *scores, double *total,
                    error *e);

/* All functions with their members, one paragraph each. */
status reward_help(str *out);

#endif
