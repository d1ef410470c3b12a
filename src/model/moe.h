/* Routing of one token: shown for its tests. */
#ifndef HADAL_MODEL_MOE_H
#define HADAL_MODEL_MOE_H

#include "model/config.h"
#include "tensor/real.h"
#include "tensor/tensor.h"

typedef struct route_weights {
    real *norm, *bias; /* bias: e_score_correction_bias, or NULL */
    tensor gate;
} route_weights;

bool route_has_bias(const model_config *c);

/* s: [n_routed_experts] router logits in, scores out. bias: [n_routed_experts] or NULL. expert, gate:
 * [num_experts_per_tok]. scratch: route_scratch(m) bytes, 64-byte aligned. */
void route_token(const model_config *m, real *s, const real *bias, unsigned char *scratch, int32_t *expert, real *gate);
size_t route_scratch(const model_config *m);

#endif
