/* Muon, for the matrices inside the blocks (Jordan et al. 2024; Liu et al. 2025, "Muon is scalable for LLM training",
 * arXiv 2502.16982, 2.2):
 *   m = mu m + g;   u = mu m + g (Nesterov);   w -= lr (0.2 sqrt(max(rows, cols)) O(u) + decay w)
 * O(u) is near the orthogonal factor of u: with X = u / |u| (Frobenius), `iterations` times (Newton-Schulz)
 *   X <- a X + b (X X') X + c (X X')^2 X,   (a, b, c) = (3.4445, -4.7750, 2.0315),
 * which brings every singular value near 1 (about 0.7 .. 1.2). The factor gives the update the root mean square of
 * AdamW's, so that both share a learning rate and a decay. All products are F32. */
#ifndef HADAL_TRAIN_MUON_H
#define HADAL_TRAIN_MUON_H

#include "kernels/train_ops.h"
#include "train/params.h"

/* Matrices of the blocks, experts' too. Embedding, head and router gates (the head of a choice) stay with AdamW, as
 * Jordan's rule for first and last layers has it. */
bool muon_takes(const param *p);

typedef struct muon_step {
    float *w;
    const float *g;
    void *m;
    double lr, decay;
} muon_step;

typedef struct muon_shape { /* what the matrices of one call have in common */
    int64_t rows, cols;
    dtype moments; /* F32, or BF16 rounded to nearest even */
    double momentum, grad_scale;
    int iterations;
} muon_shape;

size_t muon_scratch(int64_t rows, int64_t cols); /* numbers a matrix needs */
enum { MUON_MOST = 16 };                         /* matrices of a call */
void muon_update(queue *q, const muon_shape *s, const muon_step *list, int count, float *scratch);

#endif
