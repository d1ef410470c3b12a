/* A training folder: checkpoint/, golden.json (hyper-parameters, losses of five steps), golden.safetensors (tokens,
 * gradients of step 0, weights after 1 and 5 steps, loads and biases). */
#ifndef HADAL_TESTS_GOLD_TRAINING_H
#define HADAL_TESTS_GOLD_TRAINING_H

#include "compare.h"
#include "model/model.h"

struct params; /* train/params.h */

void gold_training(gold *g, const char *folder, const char *file);

/* The gradients p->g of all weights against the tensors prefix/NAME: one line. */
void gold_gradients(gold *g, const char *file, const char *aspect, const safetensors *f, const char *prefix,
                    const struct params *p);

/* Logits of an FP8 checkpoint whose activations are rounded to FP8, too: what `precision: fp8` computes forward. */
void gold_fp8_activations(gold *g, const char *file, const safetensors *golden, const model *m);

#endif
