/* The functions of src/reward: what one is, all by name (reward.c holds the list), and what several of them share. */
#ifndef HADAL_REWARD_KINDS_H
#define HADAL_REWARD_KINDS_H

#include "reward/answer.h"
#include "reward/reward.h"

typedef struct reward_context { /* what a function is opened with; stays valid until it is closed */
    const char *name; /* of the reward in the list (`as`, or the function's): stands before errors and notes */
    void (*note)(void *arg, const char *line); /* see reward_set_open; call it through reward_note */
    void *arg;
} reward_context;

/* One sentence, with the reward's name before it, for who opened the set. */
void reward_note(const reward_context *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

typedef struct reward_kind {
    const char *name;
    const char *help;    /* one sentence, with its source */
    const char *members; /* "a|b": its own members; NULL: none */
    /* Reads the members of o into *state (NULL when it has none). open NULL: no members. Other members than those named
     * above have been refused before. The caller puts the reward's name before errors. */
    status (*open)(void **state, const json_t *o, const reward_context *c, error *e);
    void (*close)(void *state); /* NULL: nothing to do */
    /* score: [n], zeroed. */
    status (*score)(void *state, const reward_input *in, int64_t n, int64_t group, double *score, error *e);
} reward_kind;

/* accuracy.c */
extern const reward_kind reward_accuracy, reward_gsm8k, reward_choice;
/* form.c */
extern const reward_kind reward_format, reward_code_format, reward_tag_count, reward_reasoning_steps, reward_finished;
/* length.c */
extern const reward_kind reward_length, reward_cosine, reward_soft_overlong, reward_repetition;
/* language.c: share of a language; countdown.c, tiny_r1.c: tasks whose answers a rule checks */
extern const reward_kind reward_language, reward_countdown, reward_tiny_r1;
/* program.c: an outside program over a pipe; code.c: runs code against tests */
extern const reward_kind reward_program, reward_code;

/* --- is the answer right? (accuracy.c)
 * -------------------------------------------------------------------------------- */

/* Members of the functions that ask. */
#define RIGHT_MEMBERS "from|exact"
#define RIGHT_HELP                                                                                                     \
    "from: where the answer stands: any (default: boxed, <answer>, ####, \"answer is\", last number), boxed, hashes, " \
    "tag, last_number, latex (boxed, else the last formula behind \"answer\"), text (all behind </think>); "           \
    "exact: true compares letter by letter"

typedef struct right_rule {
    answer_place from;
    bool exact;
} right_rule;

status right_rule_read(right_rule *r, const json_t *o, error *e);
/* *right: 1, 0, or NaN: the right answer is missing or cannot be read. No answer in the completion is 0. */
status right_rule_ask(const right_rule *r, const reward_input *in, double *right, error *e);

/* --- for opening (reward.c) --------------------------------------------------------------------------------------- */

/* A copy of the n bytes as state; free() closes it. */
status reward_keep(void **state, const void *p, size_t n, error *e);
/* Is the member one of the words? *which: its number; `fallback` when it is missing. */
status reward_choose(const json_t *o, const char *key, const char *const *words, int n, int fallback, int *which,
                     error *e);

#endif
