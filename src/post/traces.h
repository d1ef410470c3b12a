/* Sample traces of a run: FOLDER/samples.jsonl, some completions of some steps, to be read by people and the report. */
#ifndef HADAL_POST_TRACES_H
#define HADAL_POST_TRACES_H

#include "post/rollout.h"

/* Lines {"step", "prompt", "completion", "reward", "answer", "tokens", "finished"} of the first few groups of a
 * rollout. What the file holds of this and later steps is replaced: it belongs to a run that was interrupted. */
status traces_write(const char *folder, int64_t step, const rollout *r, error *e);

#endif
