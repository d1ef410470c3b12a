/* LoRA: training a low-rank change of some matrices instead of the matrices (Hu et al. 2021, "LoRA: Low-Rank Adaptation
 * of Large Language Models", eq. 3):
 *
 *   W' = W0 + s B A,   s = alpha / rank,   A [rank][in], B [out][rank]
 *
 * The parts of the model know nothing of it. Before a step's forward W' is computed into the flat array of weights; the
 * full gradient dW' that backward leaves gives those of the adapter: dA = s B' dW', dB = s dW' A'. Both are linear in
 * dW', so ranks may sum dA and dB instead of dW'. A and B have flat arrays and a list of their own, named as PEFT names
 * them: optimizer and checkpoints take them like the weights of any model. */
#ifndef HADAL_TRAIN_LORA_H
#define HADAL_TRAIN_LORA_H

#include "kernels/ops.h"
#include "train/params.h"

typedef struct lora lora;

/* Adapts the matrices of p that c->lora.target_modules names. As in PEFT an entry means the modules (weights without
 * ".weight") that it matches as a whole, or of which it matches the end behind a dot: "q_proj", or
 * "model\.layers\.\d+\.self_attn\..*". An entry without a match is an error. A is uniform in +-1/sqrt(in) (Kaiming with
 * a = sqrt 5, PEFT's default), a function of seed and name alone; B is zero. W0 is what p->w holds now. In p, all
 * weights become not trainable, those chosen `adapted`. */
status lora_open(lora **out, const train_config *c, params *p, uint64_t seed, error *e);

/* The same for an adapter that lora_save or PEFT wrote: which matrices, rank, alpha, A and B come from the folder. */
status lora_load(lora **out, const char *folder, params *p, error *e);

void lora_close(lora *l); /* accepts NULL */

params *lora_params(lora *l); /* A and B of every adapted weight; belongs to l */

void lora_apply(lora *l, queue *q, params *p);           /* p->w of the adapted weights = W' */
void lora_remove(const lora *l, params *p);              /* ... = W0: the model without adapters */
void lora_gradients(lora *l, queue *q, const params *p); /* dA and dB from p->g: set, not added */

/* adapter_config.json and adapter_model.safetensors (F32) in PEFT's layout. */
status lora_save(const lora *l, const char *folder, const char *base_model, error *e);

/* A sentence for the user when other programs cannot load this adapter as it is; NULL: they can. */
const char *lora_note(const lora *l);

#endif
