/* The seam between the mathematics of the family and the engines that run it: parts, their weights, what flows through.
 *
 * A transformer block is a short list of parts (attention; router, experts; ...). A part lists its weights once: the
 * names, sizes and kinds by which they are found in files, counted, initialised, converted and trained. It computes in
 *   forward   adds the part's branch to the residual stream of whole documents, and keeps what backward will want
 *   backward  from the gradients of its outputs those of its inputs (and of norms and biases); keeps what wgrad wants
 *   wgrad     adds to the gradients of its matrices, from what was kept alone: it may run later
 *   decode    forward for rows that continue sequences with caches; NULL: forward does not look at other rows */
#ifndef HADAL_MODEL_BLOCK_H
#define HADAL_MODEL_BLOCK_H

#include <stddef.h>
#include <stdint.h>
#include "base/arena.h"
#include "base/error.h"
#include "comm/comm.h"
#include "kernels/train_ops.h"
#include "model/config.h"
#include "tensor/real.h"
#include "tensor/tensor.h"

/* Sizes of weights, as names over the configuration. */
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

int64_t dim_size(const model_config *c, dim_name d); /* in block.c */

enum weight_flags {
    W_VECTOR = 1,     /* field is real *: widened to F32 when bound (norms, biases: a few KB) */
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
    void *rows;             /* pages of CACHE_PAGE rows of `width` numbers */
    const int32_t *pages;   /* position t is row t % CACHE_PAGE of page pages[t / CACHE_PAGE]; NULL: pages in order */
    dtype type;             /* F32 or BF16 */
    int64_t width;
} cache_rows;

typedef struct sequence { /* rows first .. first+n-1 of a batch continue a sequence that holds pos tokens */
    int64_t first, n, pos;
    cache_rows (*cache)[CACHE_SLOTS]; /* [layer][slot] */
} sequence;

/* Called with intermediate values when somebody wants to see them (hadal trace); layer -1: outside the blocks. */
typedef struct watcher {
    void (*see)(void *arg, const char *name, int64_t layer, const real *x, int64_t ld, int64_t n, int64_t width);
    void (*see_ints)(void *arg, const char *name, int64_t layer, const int32_t *x, int64_t ld, int64_t n,
                     int64_t width);
    void *arg;
} watcher;

typedef enum mla_form { MLA_CHEAPER, MLA_EXPANDED, MLA_ABSORBED } mla_form;

typedef struct flow {   /* what runs through the blocks */
    int64_t n;          /* rows */
    real *h;            /* residual stream [n][hidden] */
    const int32_t *row; /* 0 .. n-1: the rows of rope, for op_rope */
    const real *rope;   /* cos and sin of each row's position: [n][rotated/2][2] */
    const sequence *seq;
    int n_seq;
    real *u, *q_a, *q;      /* left by mla_project: the normed input [n][hidden], the normed query latent
                                     [n][q_lora_rank], the rotated queries [n][heads][qk] */
    int32_t *keep, *keep_n; /* DSA: row i attends to keep[i * index_topk ..][0 .. keep_n[i]); keep_n NULL: to all. Of
                               sequences of no more than index_topk tokens decode leaves the lists unset */
    int32_t *expert;        /* routing: [n][num_experts_per_tok] */
    real *gate;             /*          their weights; 0 for a dropped pair */
    /* training only */
    real *kv;                  /* normed latent and rotated key part [n][kv_lora_rank + qk_rope_head_dim] */
    const real *u_in, *u_norm; /* u = rmsnorm(u_in) with the weight u_norm */
    const void *project;       /* mla_project's weights, and its query latent before the norm: for recomputing */
    const real *q_a_in;
    attention_train *attention; /* [n_seq]: made by mla_project, filled in by mla, read by the indexer's loss */
    const int64_t *batch_row;   /* [n_batch_rows + 1]: the rows (sequences) of the batch, for the balance loss */
    int64_t n_batch_rows;
    const int64_t *trunk; /* [n_seq]: of each document that is a tree (data/batch.h), else 0; NULL: none is */
    const int32_t *from;
} flow;

/* What a step minimises besides the language-model loss, and how a part shall run. Factors are gradients of the total
 * loss: already divided by what the whole step (all micro-batches, all ranks) averages over. */
typedef struct objective {
    real balance; /* alpha / rows of the step: factor of each row's sum_i f_i P_i */
    real indexer; /* indexer_loss_scaling_factor / (layers with an indexer * tokens of the step): factor of each token's
                     KL */
    bool indexer_sparse;    /* attend to the chosen rows, KL over them; false: dense warm-up */
    bool language_model;    /* false: the indexer alone is trained, and only its backward runs */
    bool high;              /* head and MTP projection in F32: FP8 training keeps them high */
    double capacity_factor; /* <= 0: dropless */
    bool drop_by_probs;     /* drop the pairs of least weight; false: the last ones in (token, choice) order */
    bool capacity_per_row;  /* capacity counts for each batch row; false: for the whole call */
} objective;

enum recompute {                       /* what forward does not keep, and backward computes again */
                 RECOMPUTE_NORM = 1,   /* outputs of RMSNorm */
                 RECOMPUTE_MLA_UP = 2, /* queries, keys and values: outputs of the up-projections */
                 RECOMPUTE_SWIGLU = 4  /* both inputs of SwiGLU's product, from the normed input */
};

typedef struct layer_stats { /* counted by forward and backward; NULL: this pass does not count */
    int64_t *load;           /* [experts] (token, expert) pairs, dropped ones included */
    int64_t dropped;
    double balance;  /* sum over batch rows of sum_i f_i P_i (V3 report, eq. 17-20) */
    double index_kl; /* sum over tokens */
} layer_stats;

typedef struct part_call {
    const model_config *cfg;
    queue *q;
    const void *w; /* this layer's struct of weights */
    int64_t layer;
    flow *x;
    arena *scratch; /* the block's: reset by the caller after the last part */
    mla_form form;
    const watcher *watch; /* NULL: nobody */
    /* training only */
    void *dw;    /* the same struct as w, of gradients: tensors' data and vectors are written; NULL data: not wanted */
    flow *dx;    /* gradients of the fields of x that parts hand on: h, u, q_a, q, kv, gate */
    void *saved; /* part.saved_size bytes, zeroed before forward, the same ones in backward and wgrad; NULL: decoding */
    comm *ep;    /* ranks that share the experts; NULL: nobody */
    arena *keep; /* memory of what forward keeps for backward; NULL: decoding */
    unsigned recompute;
    const objective *goal;
    layer_stats *stats;
    error *e;
} part_call;

typedef struct part {
    const char *name;
    const weight_slot *weights; /* the only list of this part's weights */
    size_t weights_size;        /* of the struct that the slots' fields lie in */
    size_t saved_size;          /* of the struct that forward leaves for backward */
    cache_slot cache;
    int64_t (*cache_width)(const model_config *c);
    status (*decode)(part_call *c);
    status (*forward)(part_call *c);
    status (*backward)(part_call *c);
    status (*wgrad)(part_call *c);
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

/* Memory that backward will read, or the block's when nothing is kept: when decoding, or when `what` is computed again.
 */
#define KEEP(c, what, pointer, count)                                                                \
    do {                                                                                             \
        arena *keep_ = (c)->keep && !((c)->recompute & (unsigned)(what)) ? (c)->keep : (c)->scratch; \
        (pointer) = arena_take(keep_, (size_t)(count) * sizeof *(pointer));                          \
        if (!(pointer)) return fail((c)->e, ERR_NOMEM, "memory is out");                             \
    } while (0)

/* A copy of the residual stream as the part found it, for backward; the stream itself when decoding. */
status keep_input(part_call *c, const real **copy);
/* x->u and x->q_a of this part's flow again, when `recompute` says that they were not kept. */
status again_u(part_call *c);
status again_q_a(part_call *c); /* in attn_mla.c */
/* A copy of dx->h, which goes on changing: what wgrad takes as the gradient of a branch. */
status branch_gradient(part_call *c, real **copy);

/* For wgrad: the product whose sum goes into dw, if that gradient is wanted (a bias may be wanted without it). */
static inline product_dw gradient_of(const tensor *dw, const real *dy, int64_t lddy, const real *x, int64_t ldx,
                                     int64_t n) {
    return (product_dw){.dw = (real *)dw->data,
                        .out = dw->dim[0],
                        .in = dw->dim[1],
                        .dy = dy,
                        .lddy = lddy,
                        .x = x,
                        .ldx = ldx,
                        .n = n};
}

static inline void watch(const part_call *c, const char *name, const real *x, int64_t ld, int64_t width) {
    if (c->watch) c->watch->see(c->watch->arg, name, c->layer, x, ld, c->x->n, width);
}

#endif
