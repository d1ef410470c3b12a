/* The weights of a model in training: one flat array of F32 master weights, one of gradients, and a table that says
 * which weight lies where. */
#ifndef HADAL_TRAIN_PARAMS_H
#define HADAL_TRAIN_PARAMS_H

#include "base/arena.h"
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
    param *list;          /* in the order of the flat arrays: routed experts behind all others */
    int64_t count, total; /* weights, numbers */
    int64_t shared;       /* weights before the first routed expert */
    float *w, *g; /* [total]: weights, gradients; each weight begins at a multiple of 16 numbers, zeros between */
    arena *mem;
} params;

/* Memory and table for a model's weights, of the routed experts only first_expert .. end_expert-1. Gradients and
 * weights are zero. Masks, decay and learning rates are those of the configuration. */
status params_open(params *out, const model_config *m, const train_config *c, int64_t first_expert, int64_t end_expert,
                   error *e);
void params_close(params *p);                           /* accepts a zeroed one */
int64_t params_find(const params *p, const char *name); /* its number, -1: none */

/* The model whose weights lie in p->w (gradients: in p->g, of the trainable weights). Freed with model_close. */
status params_model(model **out, const model_config *m, const params *p, bool gradients, error *e);

/* Weights from an opened Hugging Face folder, widened to F32 (FP8: code times scale). NaN and infinity are errors. MTP
 * layers that it lacks keep what they have. */
status params_load(params *p, const model *from, error *e);
/* Random weights (model/init.h). */
void params_init(params *p, const model_config *m, uint64_t seed);
void params_init_layers(params *p, const model_config *m, uint64_t seed, int64_t first_layer); /* from there on */

#endif
