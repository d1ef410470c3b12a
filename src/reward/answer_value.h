/* The values of a tree's numbers. */
#ifndef HADAL_REWARD_ANSWER_VALUE_H
#define HADAL_REWARD_ANSWER_VALUE_H

#include "reward/answer.h"
#include "reward/answer_parse.h"

typedef struct values values;

/* A number: a node of a tree with the sign that \pm has in it. */
typedef struct number {
    const tree *t;
    const values *v;
    int x;
    int sign; /* 0: not chosen, 1: plus, 2: minus */
} number;

values *values_open(const tree *t); /* NULL: memory is out */
void values_close(values *v);

/* UNSURE: gold has no value. */
verdict numbers_equal(number gold, number given);

bool number_is_constant(number a);         /* without variables */
bool number_has_sign(number a);            /* \pm stands in it */
bool number_real(number a, double *value); /* of a constant; infinities are real */

/* (a - b) = c (p - q) for one c, whatever the variables are: equations and inequalities that say the same. c > 0: 1,
 * c < 0: -1; 0: not so. */
int differences_proportional(number a, number b, number p, number q);

#endif
