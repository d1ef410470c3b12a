/* Run files as NeMo RL's users write them: its sections become keys of ours before the table is asked. */
#ifndef HADAL_TRAIN_CONFIG_STYLE_H
#define HADAL_TRAIN_CONFIG_STYLE_H

#include "base/arena.h"
#include "train/config_tree.h"

/* Changes *t: what NeMo RL's names say stands under ours afterwards, and its names are gone. Of two names for one thing
 * the one in the upper layer counts. *note (in mem): one line that names keys which do nothing here, NULL: none. */
status config_style(config_tree *t, arena *mem, const char **note, error *e);

#endif
