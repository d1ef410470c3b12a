/* Does a program that a model wrote do what it should? */
#ifndef HADAL_REWARD_CODE_H
#define HADAL_REWARD_CODE_H

#include <stdbool.h>
#include "reward/sandbox.h"

/* HumanEval (human_eval/execution.py): prompt, completion, test and check(entry_point) are one program for python3. It
 * passes when it comes to its end: leaving early does not count. why (may be NULL) is replaced by what went wrong. The
 * error: python3 is missing or cannot be confined. */
status code_humaneval(const char *prompt, const char *completion, const char *test, const char *entry_point,
                      const sandbox_limits *l, bool *passed, str *why, error *e);

/* The last fenced block of code behind </think> (or in all of the text without one): the last that says python, else
 * the last. false: there is none. *out is replaced. */
bool code_find(const char *text, str *out);

#endif
