/* Aux-loss-free load balancing (V3 report, 2.1.2; Wang et al. 2024): after the step, every expert's correction bias
 * moves by the speed gamma, up when the expert got less than the mean load of its layer, down when it got more; counts
 * are those of the whole step, on all ranks. The bias knows no gradient and no decay. MTP layers take part. */
#ifndef HADAL_TRAIN_BALANCE_H
#define HADAL_TRAIN_BALANCE_H

#include "train/params.h"

/* load: [experts] of each layer. zero_mean: the movement's mean is taken off (torchtitan). */
void balance_step(params *p, const model_config *m, const layer_stats *layer, double speed, bool zero_mean);

#endif
