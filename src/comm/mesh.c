#include "comm/mesh.h"

status mesh_open(mesh *out, comm *world, int ep_size, error *e) {
    *out = (mesh){0};
    if (ep_size < 1 || world->size % ep_size != 0)
        return fail(e, ERR_ARG, "%d ranks cannot share experts in groups of %d: use a divisor of the number of ranks",
                    world->size, ep_size);
    mesh m = {.world = world, .dp = world};
    TRY(comm_split(world, world->rank / ep_size, &m.ep, e));
    TRY(comm_split(world, world->rank % ep_size, &m.edp, e));
    *out = m;
    return OK;
}

void mesh_close(mesh *m) {
    if (m->ep.kind) m->ep.kind->close(&m->ep);
    if (m->edp.kind) m->edp.kind->close(&m->edp);
    *m = (mesh){0};
}
