/* Writes the JSONL that eval/logit_kl.h reads: our logits, for others (or another checkpoint) to be compared with. */
#ifndef HADAL_EVAL_GOLDEN_LOGITS_H
#define HADAL_EVAL_GOLDEN_LOGITS_H

#include "infer/session.h"
#include "text/tokenizer.h"

/* One line of {"prompt", "tokens", "logits"} for each text, tokenized with the tokenizer's own BOS. The file takes its
 * name when it is complete. */
status golden_logits_write(engine *g, const tokenizer *t, const char *const *prompts, int count, const char *path,
                           error *e);

#endif
