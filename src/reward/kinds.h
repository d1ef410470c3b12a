/* The functions of src/reward by name; reward.c holds the list of them. */
#ifndef HADAL_REWARD_KINDS_H
#define HADAL_REWARD_KINDS_H

#include "reward/reward.h"

/* program.c: an outside program over a pipe; code.c: runs code against tests */
extern const reward_kind reward_program, reward_code;

#endif
