/* Saving beside training: a copy of the state is taken, and a thread writes it while training goes on. */
#ifndef HADAL_TRAIN_CHECKPOINT_H
#define HADAL_TRAIN_CHECKPOINT_H

#include "comm/comm.h"
#include "format/native.h"

typedef struct checkpointer checkpointer;

/* folder: where step-* folders lie; what interrupted saves left there is removed. One for each rank; rank 0 finishes
 * and prunes: the newest keep_last (at least 1) stay, with keep_best also the one with the smallest score, which is
 * found again after a restart. */
status checkpointer_open(checkpointer **out, const char *folder, int keep_last, bool keep_best, bool async, comm *world,
                         error *e);
/* Waits for this rank's part of the save under way (rank 0: for the whole); its failure is returned here (or by the
 * next checkpoint_save). No collective, so that a rank may leave alone. Accepts NULL. */
status checkpointer_close(checkpointer *c, error *e);

/* Copies the slices and starts writing step `step` (all ranks call it; all get OK or all an error). A save that is
 * under way is waited for first; when it failed, that is the answer, nothing new is begun, and the next call is free.
 * state: a JSON object (rank 0's is kept); it gets a member "checkpoint" with step, score and which step is the best.
 * score: the validation loss for keep_best, NaN: none. A failed save (disk full ...) leaves older checkpoints as they
 * are and is ERR_IO. */
status checkpoint_save(checkpointer *c, int64_t step, const native_slice *list, int64_t count, const json_t *state,
                       double score, error *e);

/* The newest complete checkpoint below folder (heap, the caller's; NULL: none). Unfinished ones are ignored. */
status checkpoint_newest(const char *folder, char **path, int64_t *step, error *e);

#endif
