/* FOLDER/stage.json: that a stage of a pipeline is done, and with which configuration. */
#ifndef HADAL_POST_STAGE_STATE_H
#define HADAL_POST_STAGE_STATE_H

#include "train/run.h"

/* *done: the stage was done with this configuration, and its output is there. Another configuration is ERR_FORMAT that
 * names the first key that differs; keys that change nothing in the result (threads, kernels, how often checkpoints are
 * written) may differ. */
status stage_state_read(const char *folder, const char *kind, const char *output, const train_config *c, bool *done,
                        error *e);
status stage_state_write(const char *folder, const char *kind, const char *output, const train_config *c,
                         const run_result *r, error *e);

#endif
