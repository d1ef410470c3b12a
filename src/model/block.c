/* What the training functions of several parts share. */
#include "model/block.h"
#include <string.h>

static status copy_rows(part_call *c, arena *to, const real *from, real **copy) {
    const size_t bytes = (size_t)(c->x->n * c->cfg->hidden_size) * sizeof *from;
    *copy = arena_take(to, bytes);
    if (!*copy) return fail(c->e, ERR_NOMEM, "memory is out");
    memcpy(*copy, from, bytes);
    return OK;
}

status keep_input(part_call *c, const real **copy) {
    *copy = c->x->h;
    real *kept;
    if (!c->keep) return OK;
    TRY(copy_rows(c, c->keep, c->x->h, &kept));
    *copy = kept;
    return OK;
}

status branch_gradient(part_call *c, real **copy) {
    return copy_rows(c, c->scratch, c->dx->h, copy);
}

status again_u(part_call *c) {
    flow *x = c->x;
    const int64_t hidden = c->cfg->hidden_size;
    if (!(c->recompute & RECOMPUTE_NORM)) return OK;
    TAKE(c, x->u, x->n * hidden);
    op_rmsnorm(c->q, x->u, hidden, x->u_in, hidden, x->u_norm, x->n, hidden, (real)c->cfg->rms_norm_eps);
    return OK;
}
