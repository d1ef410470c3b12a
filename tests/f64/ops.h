/* What tests want to know of the operations in ops.c besides their results. */
#ifndef TESTS_F64_OPS_H
#define TESTS_F64_OPS_H

#include <stdint.h>
#include "kernels/train_ops.h"

/* A hash of all choices that operations made since queue_open: signs under relu, selected rows. Where it differs
 * between two points, the function has a kink or a jump between them. */
uint64_t queue_choices(const queue *q);

#endif
