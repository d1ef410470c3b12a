/* A model: its configuration and its weights, bound to the files they are mapped from; and the walk of a batch of rows
 * through it. Constant after opening: shared by sessions and threads. */
#ifndef HADAL_MODEL_MODEL_H
#define HADAL_MODEL_MODEL_H

#include "format/weights_file.h"
#include "model/block.h"

typedef struct model_layer {
    const part *const *parts; /* ends with NULL */
    void *w[MAX_PARTS];       /* each part's struct of weights */
} model_layer;

typedef struct outer_weights { /* before and behind the blocks */
    tensor embed, head;        /* head: the same as embed when tied */
    float *norm;
} outer_weights;

typedef struct mtp_weights {     /* of one MTP layer, beside its block (V3 report, 2.2) */
    float *enorm, *hnorm, *norm; /* norm: shared_head.norm */
    tensor proj, embed, head;    /* embed, head: the main model's when the file has no copies */
} mtp_weights;

typedef struct model {
    model_config cfg;
    weights_file *file;
    arena *mem;
    outer_weights outer;
    model_layer *layers; /* num_hidden_layers + n_mtp */
    mtp_weights *mtp;
    int64_t n_mtp; /* MTP layers present in the files */
    float *inv_freq, rope_factor;
    int64_t rope_dim;
} model;

status model_open(model **out, const char *folder, error *e);
void model_close(model *m);

/* The first tensor of the files that holds NaN or infinity, with its place; NULL: none. Reads all weights: for error
 * messages. */
const weights_entry *model_find_not_finite(const model *m, int64_t *element);

/* --- the weight table, walked ---------------------------------------------------------------------------------- */

enum { OWNER_OUTER = -1, OWNER_MTP = -2 }; /* else the number of the part in its block */

typedef struct weight_item {
    char name[160]; /* in the file */
    const weight_slot *slot;
    int64_t layer, expert; /* -1: none */
    int owner;
    int ndim;
    int64_t dim[2];
} weight_item;

/* Calls f for every tensor that a model with this configuration has (MTP layers included), in the order of the layers;
 * stops at the first status that is not OK and returns it. */
status model_each_weight(const model_config *c, status (*f)(void *arg, const weight_item *w), void *arg);

/* A model without files: `place` gives the memory of every weight (F32, dim[0] x dim[1]), or NULL for one that is not
 * wanted (an optional copy, an expert of another rank). MTP layers read the main model's embedding and head. Used twice
 * in training: for the weights, and for their gradients. */
status model_make(model **out, const model_config *c, real *(*place)(void *arg, const weight_item *w), void *arg,
                  error *e);

typedef struct model_counts {
    int64_t parameters; /* main model, correction biases included */
    int64_t active;     /* of them multiplied for one token: all but the input embedding, the experts not
                           chosen and the router's correction bias */
    int64_t mtp;        /* of the MTP layers, without their copies of embedding and head */
    int64_t routed;     /* of `parameters`, in routed experts */
    int64_t tensors;    /* in the files of such a model, MTP layers and FP8 scales included */
} model_counts;
void model_count(const model_config *c, model_counts *out);

/* Cached numbers a token leaves: in the main layers' attention, in their indexers. */
int64_t model_cache_width(const model_config *c, cache_slot slot);

/* --- a batch of rows through the model ------------------------------------------------------------------------- */

typedef struct workspace { /* one user's: one thread at a time */
    queue *q;
    arena *step, *block; /* memory of one walk; of one block */
} workspace;

typedef struct batch {
    int64_t n;
    const int32_t *ids; /* [n], checked: 0 <= id < vocab_size */
    const sequence *seq;
    int n_seq;
    int64_t n_out; /* rows whose logits are wanted, and their numbers */
    const int64_t *out;
    float *logits;  /* [n_out][vocab_size] */
    float *hidden;  /* NULL, or [n][hidden_size]: every row after the final norm, what MTP layers read */
    float *prenorm; /* NULL, or [n][hidden_size]: the same before the final norm */
    mla_form form;
    const watcher *watch; /* NULL: nobody */
} batch;

/* Appends the rows to the caches of their sequences and computes the wanted logits. */
status model_forward(const model *m, workspace *ws, const batch *b, error *e);

/* The MTP layer `depth` (0-based): row i joins h[i] ([n][hidden_size]: b->hidden of the main model, or of the MTP layer
 * before) with the embedding of ids[i], the token after it, and predicts the token after that. The sequences' caches
 * are those of layer num_hidden_layers + depth. */
status model_forward_mtp(const model *m, workspace *ws, int64_t depth, const float *h, const batch *b, error *e);

#endif
