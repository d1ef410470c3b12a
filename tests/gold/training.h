/* A training folder: checkpoint/, golden.json (hyper-parameters, losses of five steps), golden.safetensors (tokens,
 * gradients of step 0, weights after 1 and 5 steps, loads and biases). */
#ifndef HADAL_TESTS_GOLD_TRAINING_H
#define HADAL_TESTS_GOLD_TRAINING_H

#include "compare.h"

void gold_training(gold *g, const char *folder, const char *file);

#endif
