/* What a training leaves for others: the newest checkpoint as a Hugging Face folder beside it. */
#ifndef HADAL_POST_EXPORT_H
#define HADAL_POST_EXPORT_H

#include "train/run.h"

/* FOLDER/hf-STEP, when it is not there yet; with adapters: the merged weights, which are not kept otherwise. hooks:
 * progress alone; may be NULL. *out: the folder, free() it; NULL: there is no checkpoint. An interrupted export goes
 * on. */
status export_newest(const train_config *c, const run_hooks *hooks, char **out, error *e);
bool is_exported(const char *folder); /* it is there, and whole */

#endif
