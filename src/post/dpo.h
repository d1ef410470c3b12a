/* Direct preference optimization (Rafailov et al. 2023): from pairs of a better and a worse answer, against the model
 * as it was at the start (with adapters: the model without them). training.batch counts pairs. */
#ifndef HADAL_POST_DPO_H
#define HADAL_POST_DPO_H

#include "train/run.h"

status dpo_run(const train_config *c, const run_hooks *hooks, run_result *out, error *e);

#endif
