/* The weights of a model in training: one flat array of F32 master weights, one of gradients, and a table that says
 * which weight lies where. */
#ifndef HADAL_TRAIN_PARAMS_H
#define HADAL_TRAIN_PARAMS_H

#include "model/model.h"
#include "train/config.h"

typedef struct param { /* one weight */
    char name[160];    /* Hugging Face's */
    int64_t first, n;  /* place and size in the flat arrays */
    int ndim;
    int64_t dim[2];
    int64_t layer, expert; /* -1: none */
    bool buffer;           /* the router's correction bias: no gradient, moved by balance.c */
    bool trainable;        /* by trainable_parameters_mask */
    bool adapted;          /* by LoRA: not trainable, but its gradient is wanted (lora.h) */
    bool decay;
    double lr_scale;
} param;

typedef struct params {
    param *list;          /* in the order of the flat arrays */
    int64_t count, total; /* weights, numbers */
    float *w, *g;         /* [total]: weights, gradients */
} params;

#endif
