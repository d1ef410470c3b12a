/* The seam between the mathematics of the family and the engines that run it: parts, their weights, what flows through.
 *
 * A transformer block is a short list of parts (attention; router, experts; ...). A part lists its weights once: the
 * names, sizes and kinds by which they are found in files, counted, initialised and converted. It computes in
 * `forward`, which adds the part's branch to the residual stream of a batch of rows and reads and writes the caches of
 * the sequences that the rows belong to. */
#ifndef HADAL_MODEL_BLOCK_H
#define HADAL_MODEL_BLOCK_H

#include <stddef.h>
#include <stdint.h>
#include "base/arena.h"
#include "base/error.h"
#include "kernels/ops.h"
#include "model/config.h"
#include "tensor/tensor.h"

/* Sizes of weights, as names over the configuration (weights.c gives the numbers). */
typedef enum dim_name {
    DIM_NONE, /* second dimension of a vector */
    DIM_HIDDEN,
    DIM_2_HIDDEN,
    DIM_VOCAB,
    DIM_INTERMEDIATE,
    DIM_EXPERT,
    DIM_SHARED_EXPERT,
    DIM_EXPERTS,
    DIM_Q_RANK,
    DIM_KV_RANK,
    DIM_KV_ROW,   /* kv_lora_rank + qk_rope_head_dim: one row of the latent cache */
    DIM_Q_OUT,    /* heads * query size */
    DIM_K_OUT,    /* GQA: kv heads * head_dim */
    DIM_KV_B_OUT, /* heads * (qk_nope_head_dim + v_head_dim) */
    DIM_O_IN,     /* heads * value size */
    DIM_INDEX_OUT,
    DIM_INDEX,
    DIM_INDEX_HEADS
} dim_name;

enum weight_flags {
    W_VECTOR = 1,     /* field is float *: widened to F32 when bound (norms, biases: a few KB) */
    W_PER_EXPERT = 2, /* field is tensor *: one for each routed expert; %d in the name is its number */
    W_FP8 = 4,        /* stored as E4M3 with block scales in FP8 checkpoints; else the type of the checkpoint */
    W_ONES = 8,       /* initialised to one (norms); else normal, or zero with W_ZERO */
    W_ZERO = 16,
    W_F32 = 32,           /* stored as F32 in every checkpoint */
    W_OPTIONAL = 64,      /* a file may lack it; the field stays empty (data NULL) */
    W_EMBEDDING = 128,    /* read by row: not part of the active parameters */
    W_NOT_PARAMETER = 256 /* a copy or buffer: in the file, but not counted as a parameter of its own */
};

typedef struct weight_slot {
    const char *name; /* Hugging Face's, below "model.layers.N."; "" ends a list */
    size_t field;     /* offset in the part's struct of weights */
    dim_name dim[2];
    unsigned flags;
    bool (*when)(const model_config *c); /* NULL: always there */
} weight_slot;

/* One row per token that a part leaves for the tokens to come. */
typedef enum cache_slot { CACHE_NONE, CACHE_ATTENTION, CACHE_INDEX, CACHE_SLOTS } cache_slot;

typedef struct cache_rows { /* of one sequence, one layer, one slot; memory belongs to infer/ */
    void *rows;             /* [capacity][width] */
    dtype type;             /* F32 or BF16 */
    int64_t width;
} cache_rows;

typedef struct sequence { /* rows first .. first+n-1 of a batch continue a sequence that holds pos tokens */
    int64_t first, n, pos;
    cache_rows (*cache)[CACHE_SLOTS]; /* [layer][slot] */
} sequence;

/* Called with intermediate values when somebody wants to see them (hadal trace); layer -1: outside the blocks. */
typedef struct watcher {
    void (*see)(void *arg, const char *name, int64_t layer, const float *x, int64_t ld, int64_t n, int64_t width);
    void (*see_ints)(void *arg, const char *name, int64_t layer, const int32_t *x, int64_t ld, int64_t n,
                     int64_t width);
    void *arg;
} watcher;

typedef enum mla_form { MLA_CHEAPER, MLA_EXPANDED, MLA_ABSORBED } mla_form;

typedef struct flow {   /* what runs through the blocks */
    int64_t n;          /* rows */
    float *h;           /* residual stream [n][hidden] */
    const int32_t *row; /* 0 .. n-1: the rows of rope, for op_rope */
    const float *rope;  /* cos and sin of each row's position: [n][rotated/2][2] */
    const sequence *seq;
    int n_seq;
    const float *u, *q_a, *q; /* left by mla_project: the normed input [n][hidden], the normed query latent
                                 [n][q_lora_rank], the rotated queries [n][heads][qk] */
    int32_t *keep, *keep_n;   /* DSA: row i attends to keep[i * index_topk ..][0 .. keep_n[i]); keep_n NULL: to all */
    int32_t *expert;          /* routing: [n][num_experts_per_tok] */
    float *gate;              /*          their weights */
} flow;

typedef struct part_call {
    const model_config *cfg;
    queue *q;
    const void *w; /* this layer's struct of weights */
    int64_t layer;
    flow *x;
    arena *scratch; /* the block's: reset by the caller after the last part */
    mla_form form;
    const watcher *watch; /* NULL: nobody */
    error *e;
} part_call;

typedef struct part {
    const char *name;
    const weight_slot *weights; /* the only list of this part's weights */
    size_t weights_size;        /* of the struct that the slots' fields lie in */
    cache_slot cache;
    int64_t (*cache_width)(const model_config *c);
    status (*forward)(part_call *c);
} part;

enum { MAX_PARTS = 6 };

typedef struct arch { /* one per family, in model/arch/ */
    const char *model_type;
    const char *description;
    status (*read_config)(model_config *c, const json_t *j, error *e);
    const part *const *(*block)(const model_config *c, int64_t layer); /* ends with NULL */
} arch;

const arch *arch_find(const char *model_type); /* NULL: not known */
const char *arch_names(void);                  /* "deepseek_v2, deepseek_v3, ..." */

extern const part part_mla_project, part_mla, part_indexer, part_gqa, part_ffn, part_route, part_experts;

/* Memory of the block's lifetime, or ERR_NOMEM. */
#define TAKE(c, pointer, count)                                                    \
    do {                                                                           \
        (pointer) = arena_take((c)->scratch, (size_t)(count) * sizeof *(pointer)); \
        if (!(pointer)) return fail((c)->e, ERR_NOMEM, "memory is out");           \
    } while (0)

static inline void watch(const part_call *c, const char *name, const float *x, int64_t ld, int64_t width) {
    if (c->watch) c->watch->see(c->watch->arg, name, c->layer, x, ld, c->x->n, width);
}

#endif
