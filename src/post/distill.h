/* Distillation: the student learns a teacher's distribution over every next token of its data (Hinton et al. 2015), of
 * which the teacher's top_k tokens count (loss.h), with the cross-entropy of the data beside it when distill.sft_weight
 * says so; or, with distill.kind sft, the teacher's traces alone, as DeepSeek-R1's distilled models did (report, 2.4),
 * which is plain fine-tuning on what `hadal sample` wrote. Both have the same vocabulary; the architectures may differ.
 */
#ifndef HADAL_POST_DISTILL_H
#define HADAL_POST_DISTILL_H

#include "train/run.h"

status distill_run(const train_config *c, const run_hooks *hooks, run_result *out, error *e);

#endif
