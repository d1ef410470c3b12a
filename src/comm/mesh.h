/* Who shares what with whom. Every rank trains on rows of its own; all ranks hold the same dense weights (dp), ranks of
 * an expert-parallel group hold different experts of every layer (ep), and the ranks that hold the same experts form an
 * expert-data-parallel group (edp):
 *
 *   8 ranks, 4 of them sharing the experts    ep 0 1 2 3 | 4 5 6 7     edp 0 4 | 1 5 | 2 6 | 3 7
 *
 * Neighbours share experts, since they talk most. Gradients of dense weights are summed over dp, those of experts over
 * edp. */
#ifndef HADAL_COMM_MESH_H
#define HADAL_COMM_MESH_H

#include "comm/comm.h"

typedef struct mesh {
    comm *world, *dp; /* dp: the world, as long as there are no other ways of cutting a model up */
    comm ep, edp;
} mesh;

/* All ranks of the world call it. ERR_ARG when ep_size does not divide the world. */
status mesh_open(mesh *out, comm *world, int ep_size, error *e);
void mesh_close(mesh *m); /* accepts a zeroed one; the world stays open */

#endif
