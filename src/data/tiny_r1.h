/* Documents of tiny-r1: four kinds of small problems whose working can be written down step by step, in four styles of
 * writing. What a model learns from them, and what reinforcement learning then finds, docs/tiny-r1.md tells.
 *
 *   calc    c7+8-3+5-9   five digits, four signs, from left to right modulo 10; working 7+5-2+7-8: sign, value so far
 *   count   nz:zcazaz    how often the first letter stands among six drawn from three letters; working
 *                        z1c1a1z2a2z3: letter, count so far
 *   add     a487+95      two numbers of 2 to 4 digits; working 7+5+0=12;8+9+1=18;4+0+1=05: a column at a time from the
 *                        right, digit + digit + carry = sum; answer 582
 *   search  s4:3852      signs that make 3?8?5?2 = 4 (mod 10); working +1+6+8;+1+6-4: tries, each sign, value so far,
 *                        in the order +++, ++-, +-+ ..., until one hits; answer ++-, or any other signs that hit
 *
 *   work    <think>working</think><answer>a</answer>
 *   direct  <think></think><answer>a</answer>
 *   err     working with one wrong step, followed to a wrong answer
 *   plain   a
 *
 * A prompt is held out of all training when the first byte of its MD5 is below 16: one in sixteen. Document i is a pure
 * function of (seed, i) and the options. */
#ifndef HADAL_DATA_TINY_R1_H
#define HADAL_DATA_TINY_R1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

typedef enum tiny_r1_task { TINY_R1_CALC, TINY_R1_COUNT, TINY_R1_ADD, TINY_R1_SEARCH, TINY_R1_TASKS } tiny_r1_task;
typedef enum tiny_r1_style { TINY_R1_WORK, TINY_R1_DIRECT, TINY_R1_ERR, TINY_R1_PLAIN, TINY_R1_STYLES } tiny_r1_style;
extern const char *const tiny_r1_task_names[TINY_R1_TASKS], *const tiny_r1_style_names[TINY_R1_STYLES];

typedef struct tiny_r1_options {
    unsigned tasks;               /* bits 1 << task; of several, each document takes one by chance */
    double share[TINY_R1_STYLES]; /* sum 1 */
    bool held_out;                /* prompts that are held out, else only others */
    uint64_t seed;
} tiny_r1_options;

/* The shares of a phase, "clean" (work .85, direct .10, plain .05) or "mixed" (.25, .40, err .20, plain .15)
 * or "work" (all of it work). */
status tiny_r1_phase(const char *name, double share[TINY_R1_STYLES], error *e);
/* "all", or names with commas between: "calc,add" */
status tiny_r1_tasks(const char *names, unsigned *tasks, error *e);

typedef struct tiny_r1_document {
    tiny_r1_task task;
    tiny_r1_style style;
    char prompt[16]; /* without tags */
    char completion[128];
    char answer[8]; /* a right one, whatever the completion says */
} tiny_r1_document;
void tiny_r1_make(tiny_r1_document *out, const tiny_r1_options *o, uint64_t number);

bool tiny_r1_is_held_out(const char *prompt);

/* The answer in a completion (with its end-of-text symbol) that matches
 * ^<think>[^<]*</think><answer>[^<]*</answer><eos>$ : its length, and where it begins in *answer; -1: no match. */
int tiny_r1_answer(const char *completion, size_t n, const char **answer);

/* Whether an answer of n bytes, the text inside <answer>, solves a prompt: a digit, a number without leading zeros, or
 * any signs that hit the target. The prompt may stand between <user> and <assistant>; one of another form has no right
 * answer. */
bool tiny_r1_right(const char *prompt, const char *answer, size_t n);

typedef struct tiny_r1_counts {
    int64_t documents, task[TINY_R1_TASKS], style[TINY_R1_STYLES];
    uint64_t bytes;
} tiny_r1_counts;

/* Documents 0 .. n-1 as JSON lines {"prompt", "completion", "task", "style", "answer"}; the file takes its name when it
 * is complete. progress may be NULL; nonzero cancels. */
status tiny_r1_write(const char *path, const tiny_r1_options *o, int64_t n,
                     int (*progress)(void *arg, uint64_t done, uint64_t total, const char *what), void *arg,
                     tiny_r1_counts *counts, error *e);

#endif
