/* Words behind numbers. */
#ifndef HADAL_REWARD_ANSWER_UNITS_H
#define HADAL_REWARD_ANSWER_UNITS_H

#include <stdbool.h>
#include "base/str.h"

/* p[n] is a unit of measure, of money, or what is counted, in the singular or plural: cm, dollars, students. */
bool unit_known(const char *p, size_t n);

/* The digits of the number that a word multiplies by: "1000000" for million. NULL: it is none of those. */
const char *unit_scale(const char *p, size_t n);

/* p[n], any text, has a word that changes the number before it in another way: squared, halves, minus ... */
bool unit_changes_number(const char *p, size_t n);

/* Do the units p[n] and q[m] say the same ("square feet" and "ft^2")? 1: yes, 0: no, -1: one of them is not known. */
int units_equal(const char *p, size_t n, const char *q, size_t m);

#endif
